// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {ITaskHub} from "../src/ITaskHub.sol";
import {Base} from "./Base.sol";
import {Handler} from "./Handler.sol";

/// @dev What holds after any sequence of calls, see {Handler}.
contract InvariantTest is Base {
    Handler private handler;

    function setUp() public {
        handler = new Handler();
    }

    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    /// @dev Only the actions: not the helpers, and not the inherited setUp.
    function targetSelectors() public view returns (FuzzSelector[] memory targets) {
        bytes4[] memory s = new bytes4[](7);
        s[0] = Handler.publishTask.selector;
        s[1] = Handler.startTask.selector;
        s[2] = Handler.recordRound.selector;
        s[3] = Handler.settleTask.selector;
        s[4] = Handler.claim.selector;
        s[5] = Handler.refund.selector;
        s[6] = Handler.beside.selector;
        targets = new FuzzSelector[](1);
        targets[0] = FuzzSelector(address(handler), s);
    }

    /// @dev The hub holds exactly the escrow of open tasks and what is not claimed yet.
    function invariant_escrowIsConserved() public view {
        (ITaskHub.Task[] memory tasks, address hub,) = handler.hubAddress();
        uint256 owed;
        for (uint256 i; i < tasks.length; ++i) {
            Handler.Memo memory m = handler.memo(handler.tasks(i));
            eq(tasks[i].reward, m.reward, "reward");
            owed += m.reward - m.paid - m.returned;
        }
        eq(hub.balance, owed, "hub");
    }

    /// @dev The registry holds exactly the stakes and what was slashed and not withdrawn.
    function invariant_stakesAreConserved() public view {
        (,, address registry) = handler.hubAddress();
        eq(registry.balance, handler.stakes(), "registry");
    }

    /// @dev A reward leaves by claims or by the refund, never by both, and never more than once.
    function invariant_rewardLeavesOnce() public view {
        for (uint256 i; i < handler.count(); ++i) {
            Handler.Memo memory m = handler.memo(handler.tasks(i));
            eq(m.paid == 0 || m.returned == 0, true, "claimed and refunded");
            eq(m.paid <= m.reward, true, "claims exceed the reward");
            eq(m.returned == 0 || m.returned == m.reward, true, "refund of another amount");
            eq(m.status == 3 ? m.payouts : m.reward, m.reward, "payouts are the reward");
        }
    }

    /// @dev The hub says of each task what its history says; (round, attempt) rises and blocks are counted.
    function invariant_stateFollowsHistory() public view {
        (ITaskHub.Task[] memory tasks,,) = handler.hubAddress();
        for (uint256 i; i < tasks.length; ++i) {
            Handler.Memo memory m = handler.memo(handler.tasks(i));
            eq(uint8(tasks[i].status), m.status, "status");
            eq(tasks[i].round, m.round, "round");
            eq(tasks[i].attempt, m.attempt, "attempt");
            eq(tasks[i].height, m.height, "height");
            eq(tasks[i].head, m.head, "head");
            eq(tasks[i].payoutRoot != 0, m.status == 3, "payout root");
        }
    }

    /// @dev The walk itself reaches the interesting states: without luck, in order.
    function test_handlerWalksToTheEnd() public {
        handler.publishTask(1000, 5 days, 2);
        handler.recordRound(0, 1, 0, 0, 0);
        handler.recordRound(0, 1, 0, 0, 1);
        handler.recordRound(0, 1, 0, 0, 0);
        handler.settleTask(0, 0x112233, 0);
        handler.settleTask(0, 0x112233, 1);
        for (uint8 i; i < 6; ++i) {
            handler.claim(0, i, 1, 2);
        }
        handler.publishTask(1000, 1, 2); // the youngest started one
        handler.refund(0, 0);
        handler.leave(1);
        for (uint256 i; i < 30; ++i) {
            handler.pass(1 days - 1);
        }
        handler.withdraw(1, 2, 1);
        handler.equivocate(0, "label");
        string[8] memory kinds = ["publish", "start", "round", "settle", "claim", "refund", "withdraw", "slash"];
        for (uint256 i; i < kinds.length; ++i) {
            eq(handler.done(kinds[i]) > 0, true, kinds[i]);
        }
        eq(handler.done("round"), 2, "the opening of the genesis was refused");
        invariant_escrowIsConserved();
        invariant_stakesAreConserved();
        invariant_rewardLeavesOnce();
        invariant_stateFollowsHistory();
    }
}
