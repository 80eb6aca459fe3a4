// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {ReentrancyGuard} from "@openzeppelin/contracts/utils/ReentrancyGuard.sol";
import {ITaskHub} from "../src/ITaskHub.sol";
import {Actor, vm} from "./Base.sol";
import {TaskHub} from "./Interfaces.sol";
import {World} from "./World.sol";

/// @dev Settlement, claims and refunds. Hospital 1 is an account with code, for malicious receivers.
contract SettleTest is World {
    bytes32 private task;

    function setUp() public override {
        super.setUp();
        vm.etch(account(1), type(Actor).runtimeCode);
        task = started("task");
        hub.submitRound(round(task, 1, 0));
    }

    function refuses(bytes memory error_, ITaskHub.SettleInput memory x) private {
        expect(error_);
        hub.settle(x);
    }

    function settled() private returns (uint128 first, uint128 second, bytes32 root) {
        hub.settle(settlement(task));
        first = REWARD / 3;
        second = REWARD - first;
        root = hub.taskOf(task).payoutRoot;
    }

    function proof(uint16 other, uint256 amount) private pure returns (bytes32[] memory path) {
        path = new bytes32[](1);
        path[0] = leaf(other, account(other), amount);
    }

    // ------------------------------------------------------------------------------------------------------- settle

    function test_settle_recordsAndEmits() public {
        ITaskHub.SettleInput memory x = settlement(task);
        bytes32 head = hub.taskOf(task).head;
        x.opening = opening(head, 5, key(5));
        bytes32 a = leaf(1, account(1), REWARD / 3);
        bytes32 b = leaf(2, account(2), REWARD - REWARD / 3);
        bytes32 root = keccak256(a < b ? bytes.concat(a, b) : bytes.concat(b, a));
        vm.expectEmit(address(hub));
        emit ITaskHub.OpeningRecorded(task, head, "total", 5e6, 1e6);
        vm.expectEmit(address(hub));
        emit ITaskHub.TaskSettled(task, x.model, x.link, x.accuracyBps, root);
        hub.settle(x);
        eq(hub.taskOf(task).payoutRoot, root, "root");
        eq(uint8(hub.taskOf(task).status), uint8(ITaskHub.Status.Settled), "status");
        refuses(abi.encodeWithSelector(ITaskHub.WrongStatus.selector, task, ITaskHub.Status.Settled), x);
        ITaskHub.RoundInput memory late = round(task, 2, 0);
        expect(abi.encodeWithSelector(ITaskHub.WrongStatus.selector, task, ITaskHub.Status.Settled));
        hub.submitRound(late);
    }

    function test_settle_untilTheDeadline() public {
        ITaskHub.SettleInput memory x = settlement(task);
        vm.warp(deadline + 1);
        refuses(abi.encodeWithSelector(ITaskHub.DeadlinePassed.selector, deadline), x);
        vm.warp(deadline);
        expect(abi.encodeWithSelector(ITaskHub.DeadlineNotPassed.selector, deadline));
        hub.refund(task);
        hub.settle(x);
    }

    function test_settle_needsARound() public {
        bytes32 other = started("other");
        refuses(abi.encodeWithSelector(ITaskHub.NoRounds.selector), settlement(other));
        bytes32 unstarted = publish("unstarted");
        refuses(
            abi.encodeWithSelector(ITaskHub.WrongStatus.selector, unstarted, ITaskHub.Status.Published),
            settlement(unstarted)
        );
    }

    function test_settle_accuracy() public {
        ITaskHub.SettleInput memory x = settlement(task);
        x.accuracyBps = ACCURACY - 1;
        seal(x, these(3, 4));
        refuses(abi.encodeWithSelector(ITaskHub.AccuracyTooLow.selector, ACCURACY - 1, ACCURACY), x);
        x.accuracyBps = 10_001;
        seal(x, these(3, 4));
        refuses(abi.encodeWithSelector(ITaskHub.BadAccuracy.selector, 10_001), x);
        x.accuracyBps = ACCURACY;
        seal(x, these(3, 4));
        hub.settle(x);
    }

    function test_settle_sigma2BindsTheModel() public {
        bytes memory error_ = abi.encodeWithSelector(ITaskHub.BadModelSignature.selector, 0);
        for (uint256 field; field < 5; ++field) {
            ITaskHub.SettleInput memory x = settlement(task);
            if (field == 0) x.model = "other";
            if (field == 1) x.link = "elsewhere";
            if (field == 2) x.accuracyBps += 1;
            if (field == 3) x.modelSignature = new bytes(64);
            if (field == 4) hub.submitRound(round(task, 2, 0)); // another head
            refuses(error_, x);
        }
        ITaskHub.SettleInput memory y = settlement(task);
        uint16[3] memory outsiders = [uint16(5), 6, 65535]; // authority, nobody, nobody
        for (uint256 i; i < 3; ++i) {
            y.party = outsiders[i];
            seal(y, these(3, 4));
            refuses(abi.encodeWithSelector(ITaskHub.BadModelSignature.selector, outsiders[i]), y);
        }
        y.party = 3; // a committee member that does not train
        seal(y, these(3, 4));
        y.modelSignature = slice(y.modelSignature, 0, 32);
        refuses(abi.encodeWithSelector(TaskHub.BadLength.selector, 32, 64), y);
        seal(y, these(3, 4));
        hub.settle(y);
    }

    function test_settle_votes() public {
        ITaskHub.SettleInput memory x = settlement(task);
        seal(x, these(3));
        refuses(abi.encodeWithSelector(ITaskHub.NoQuorum.selector, 1, 2), x); // sigma2 is no vote
        seal(x, these(1, 3));
        refuses(abi.encodeWithSelector(ITaskHub.BadVote.selector, 0), x);
        seal(x, these(3, 3));
        refuses(abi.encodeWithSelector(ITaskHub.BadVote.selector, 1), x);
        seal(x, these(3, 4));
        x.evaluations = bytes.concat(x.evaluations, x.evaluations); // not what was voted on
        refuses(abi.encodeWithSelector(ITaskHub.BadVote.selector, 0), x);
        x.evaluations = new bytes(71);
        refuses(abi.encodeWithSelector(TaskHub.BadLength.selector, 71, 72), x);
        x = settlement(task);
        x.payouts = abi.encodePacked(uint16(1), uint128(REWARD));
        refuses(abi.encodeWithSelector(ITaskHub.BadVote.selector, 0), x);
        seal(x, these(0, 4)); // the signer of sigma2 may vote too
        hub.settle(x);
    }

    function test_settle_suspension() public {
        ITaskHub.SettleInput memory x = settlement(task);
        uint16[2] memory parties = [uint16(0), 4];
        for (uint256 i; i < 2; ++i) {
            vm.prank(owner);
            registry.suspend(account(parties[i]), true);
            refuses(abi.encodeWithSelector(ITaskHub.Suspended.selector, parties[i]), x);
            vm.prank(owner);
            registry.suspend(account(parties[i]), false);
        }
        hub.settle(x);
    }

    function test_settle_openingIsChecked() public {
        ITaskHub.SettleInput memory x = settlement(task);
        x.opening = opening(hub.taskOf(task).genesis, 5, key(5));
        refuses(abi.encodeWithSelector(ITaskHub.BadOpening.selector, 5), x);
    }

    function test_settle_payouts() public {
        bytes[7] memory bad;
        bad[0] = "";
        bad[1] = abi.encodePacked(uint16(1), REWARD - 1);
        bad[2] = abi.encodePacked(uint16(1), REWARD, uint16(2), uint128(1));
        bad[3] = abi.encodePacked(uint16(1), REWARD, uint16(2), uint128(0));
        bad[4] = abi.encodePacked(uint16(1), REWARD / 2, uint16(1), REWARD / 2);
        bad[5] = abi.encodePacked(uint16(6), REWARD);
        bad[6] = abi.encodePacked(uint16(1), uint64(REWARD));
        bytes[7] memory error_;
        error_[0] = abi.encodeWithSelector(ITaskHub.NoPayouts.selector);
        error_[1] = abi.encodeWithSelector(ITaskHub.WrongSum.selector, REWARD - 1, REWARD);
        error_[2] = abi.encodeWithSelector(ITaskHub.WrongSum.selector, REWARD + 1, REWARD);
        error_[3] = abi.encodeWithSelector(ITaskHub.BadPayout.selector, 1);
        error_[4] = abi.encodeWithSelector(ITaskHub.BadPayout.selector, 1);
        error_[5] = abi.encodeWithSelector(ITaskHub.BadPayout.selector, 0);
        error_[6] = abi.encodeWithSelector(TaskHub.BadLength.selector, 10, 18);
        for (uint256 i; i < bad.length; ++i) {
            ITaskHub.SettleInput memory x = settlement(task);
            x.payouts = bad[i];
            seal(x, these(3, 4));
            refuses(error_[i], x);
        }
    }

    // -------------------------------------------------------------------------------------------------------- claim

    function test_claim_paysOnce() public {
        (uint128 first, uint128 second,) = settled();
        vm.expectEmit(address(hub));
        emit ITaskHub.Claimed(task, 2, account(2), second);
        vm.prank(account(2));
        hub.claim(task, 2, second, proof(1, first));
        eq(account(2).balance, second, "paid");
        eq(hub.claimed(task, 2), true, "claimed");
        eq(hub.claimed(task, 1), false, "not the other");
        expect(abi.encodeWithSelector(ITaskHub.AlreadyClaimed.selector, 2));
        vm.prank(account(2));
        hub.claim(task, 2, second, proof(1, first));
        vm.warp(deadline + 100 days); // no deadline for claims
        vm.prank(account(1));
        hub.claim(task, 1, first, proof(2, second));
        eq(address(hub).balance, 0, "all paid");
    }

    function test_claim_onlyOnesOwn() public {
        (uint128 first, uint128 second,) = settled();
        bytes32[] memory path = proof(1, first);
        expect(abi.encodeWithSelector(ITaskHub.BadClaim.selector, 2, account(3), second));
        vm.prank(account(3)); // for another
        hub.claim(task, 2, second, path);
        expect(abi.encodeWithSelector(ITaskHub.BadClaim.selector, 2, account(2), second + 1));
        vm.prank(account(2)); // more
        hub.claim(task, 2, second + 1, path);
        expect(abi.encodeWithSelector(ITaskHub.BadClaim.selector, 3, account(2), second));
        vm.prank(account(2)); // under another index
        hub.claim(task, 3, second, path);
        expect(abi.encodeWithSelector(ITaskHub.BadClaim.selector, 2, account(2), second));
        vm.prank(account(2)); // without proof
        hub.claim(task, 2, second, new bytes32[](0));
    }

    function test_claim_onlyWhenSettled() public {
        expect(abi.encodeWithSelector(ITaskHub.WrongStatus.selector, task, ITaskHub.Status.Started));
        vm.prank(account(1));
        hub.claim(task, 1, 1, new bytes32[](0));
        vm.warp(deadline + 1);
        hub.refund(task);
        expect(abi.encodeWithSelector(ITaskHub.WrongStatus.selector, task, ITaskHub.Status.Refunded));
        vm.prank(account(1));
        hub.claim(task, 1, 1, new bytes32[](0));
    }

    // ------------------------------------------------------------------------------------------------------- refund

    function test_refund_afterTheDeadlineOnly() public {
        bytes32 waiting = publish("waiting");
        uint256 before = publisher.balance;
        vm.warp(deadline);
        expect(abi.encodeWithSelector(ITaskHub.DeadlineNotPassed.selector, deadline));
        hub.refund(task);
        vm.warp(deadline + 1);
        vm.expectEmit(address(hub));
        emit ITaskHub.TaskRefunded(task, REWARD);
        vm.prank(account(3)); // by anybody, to the publisher
        hub.refund(task);
        hub.refund(waiting);
        eq(publisher.balance, before + 2 * uint256(REWARD), "both");
        expect(abi.encodeWithSelector(ITaskHub.WrongStatus.selector, task, ITaskHub.Status.Refunded));
        hub.refund(task);
        expect(abi.encodeWithSelector(ITaskHub.WrongStatus.selector, bytes32("none"), ITaskHub.Status.None));
        hub.refund("none");
    }

    function test_refund_neverAfterSettlement() public {
        settled();
        vm.warp(deadline + 1);
        expect(abi.encodeWithSelector(ITaskHub.WrongStatus.selector, task, ITaskHub.Status.Settled));
        hub.refund(task);
    }

    // ------------------------------------------------------------------------------------------ malicious receivers

    function test_claim_reentering() public {
        (uint128 first, uint128 second,) = settled();
        started("another escrow");
        Actor a = Actor(payable(account(1)));
        bytes memory call = abi.encodeCall(TaskHub.claim, (task, 1, first, proof(2, second)));
        a.set(Actor.Mode.Reenter, address(hub), call);
        a.run(address(hub), 0, call);
        eq(a.received(), first, "once");
        eq(a.reentered(), 0, "the inner call failed");
        eq(bytes32(a.answer()), bytes32(ReentrancyGuard.ReentrancyGuardReentrantCall.selector), "guard");
        eq(address(hub).balance, REWARD + second, "the rest is untouched");
    }

    function test_claim_reenteringElsewhere() public {
        (uint128 first, uint128 second,) = settled();
        bytes32 old = publish("old");
        vm.warp(deadline + 1);
        Actor a = Actor(payable(account(1)));
        a.set(Actor.Mode.Reenter, address(hub), abi.encodeCall(TaskHub.refund, (old)));
        a.run(address(hub), 0, abi.encodeCall(TaskHub.claim, (task, 1, first, proof(2, second))));
        eq(a.reentered(), 0, "refund is guarded too");
        hub.refund(old);
    }

    function test_claim_refusingOrBurningHarmsOnlyItself() public {
        (uint128 first, uint128 second,) = settled();
        Actor a = Actor(payable(account(1)));
        bytes memory call = abi.encodeCall(TaskHub.claim, (task, 1, first, proof(2, second)));
        a.set(Actor.Mode.Refuse, address(0), "");
        expect(abi.encodeWithSelector(ITaskHub.PaymentFailed.selector, account(1)));
        a.run(address(hub), 0, call);
        vm.prank(account(2));
        hub.claim(task, 2, second, proof(1, first));
        a.set(Actor.Mode.Accept, address(0), "");
        a.run(address(hub), 0, call);
        eq(account(1).balance, first, "later, when it accepts");
    }

    function test_refund_refusingPublisherHarmsOnlyItself() public {
        vm.etch(publisher, type(Actor).runtimeCode);
        Actor a = Actor(payable(publisher));
        bytes32 other = publish("other");
        vm.warp(deadline + 1);
        a.set(Actor.Mode.Refuse, address(0), "");
        expect(abi.encodeWithSelector(ITaskHub.PaymentFailed.selector, publisher));
        hub.refund(task);
        a.set(Actor.Mode.Reenter, address(hub), abi.encodeCall(TaskHub.refund, (other)));
        hub.refund(task);
        eq(a.received(), REWARD, "one");
        eq(a.reentered(), 0, "the inner refund failed");
        hub.refund(other);
        eq(address(hub).balance, 0, "both in the end");
    }
}
