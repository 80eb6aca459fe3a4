// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {ReentrancyGuard} from "@openzeppelin/contracts/utils/ReentrancyGuard.sol";
import {IRegistry} from "../src/IRegistry.sol";
import {Actor, vm} from "./Base.sol";
import {Registry, TaskHub} from "./Interfaces.sol";
import {World} from "./World.sol";

contract StakeTest is World {
    address private constant NEWCOMER = address(0x1234);
    uint256 private constant NEW_KEY = 0xbeef;

    function test_stake_hasALimit() public {
        uint256 most = registry.MAX_STAKE();
        vm.deal(account(1), most);
        vm.prank(account(1));
        registry.topUp{value: most - 1 ether}();
        expect(abi.encodeWithSelector(IRegistry.StakeTooLarge.selector, most + 1, most));
        vm.prank(account(1));
        registry.topUp{value: 1}();
    }

    function test_topUp() public {
        vm.deal(account(1), 1 ether);
        vm.prank(account(1));
        registry.topUp{value: 1 ether}();
        eq(registry.member(account(1)).stake, 2 ether, "stake");
        expect(IRegistry.NothingToMove.selector);
        vm.prank(account(1));
        registry.topUp();
        expect(abi.encodeWithSelector(IRegistry.NotRegistered.selector, NEWCOMER));
        vm.prank(NEWCOMER);
        registry.topUp();
    }

    // --------------------------------------------------------------------------------------------------- leaving

    function test_withdrawStake_afterUnbonding() public {
        expect(IRegistry.NotUnstaking.selector);
        vm.prank(account(1));
        registry.withdrawStake();
        vm.expectEmit(address(registry));
        emit IRegistry.UnstakeBegun(account(1), time() + UNBONDING);
        vm.prank(account(1));
        registry.beginUnstake();
        expect(abi.encodeWithSelector(IRegistry.AlreadyUnstaking.selector, time() + UNBONDING));
        vm.prank(account(1));
        registry.beginUnstake();
        skip(UNBONDING - 1);
        expect(abi.encodeWithSelector(IRegistry.StakeLocked.selector, time() + 1));
        vm.prank(account(1));
        registry.withdrawStake();
        skip(1);
        vm.prank(account(1));
        registry.withdrawStake();
        eq(account(1).balance, 1 ether, "paid back");
        eq(registry.member(account(1)).stake, 0, "no stake left");
        expect(IRegistry.NothingToMove.selector);
        vm.prank(account(1));
        registry.withdrawStake();
        expect(abi.encodeWithSelector(IRegistry.NotRegistered.selector, NEWCOMER));
        vm.prank(NEWCOMER);
        registry.beginUnstake();
    }

    function test_register_againMeansToStay() public {
        vm.prank(account(1));
        registry.beginUnstake();
        enrol(account(1), key(1), HOSPITAL, name(1), 0);
        skip(UNBONDING);
        expect(IRegistry.NotUnstaking.selector);
        vm.prank(account(1));
        registry.withdrawStake();
    }

    function test_withdrawStake_waitsForTheTask() public {
        bytes32 task = started("task");
        vm.prank(account(1));
        registry.beginUnstake();
        eq(registry.member(account(1)).lockedUntil, deadline + UNBONDING, "lock");
        vm.warp(deadline + UNBONDING - 1);
        expect(abi.encodeWithSelector(IRegistry.StakeLocked.selector, deadline + UNBONDING));
        vm.prank(account(1));
        registry.withdrawStake();
        vm.warp(deadline + UNBONDING);
        vm.prank(account(1));
        registry.withdrawStake();
        eq(uint8(hub.taskOf(task).status), 2, "the task itself does not matter");
    }

    function test_lock_neverShortens() public {
        started("long");
        uint64 until = registry.member(account(1)).lockedUntil;
        deadline -= 5 days;
        started("short");
        eq(registry.member(account(1)).lockedUntil, until, "the longer lock");
    }

    // --------------------------------------------------------------------------------------------------- slashing

    function test_suspended_canStillWithdraw() public {
        vm.prank(owner);
        registry.suspend(account(1), true);
        vm.prank(account(1));
        registry.beginUnstake();
        skip(UNBONDING);
        vm.prank(account(1));
        registry.withdrawStake();
        eq(account(1).balance, 1 ether, "its own");
    }

    function test_withdrawSlashed_paysTheTreasury() public {
        expect(IRegistry.NothingToMove.selector);
        registry.withdrawSlashed();
        vm.prank(address(hub));
        registry.slash(account(0), "evidence");
        eq(registry.slashed(), 3 ether, "pot");
        vm.expectEmit(address(registry));
        emit IRegistry.SlashedWithdrawn(3 ether);
        registry.withdrawSlashed();
        eq(treasury.balance, 3 ether, "treasury");
        eq(registry.slashed(), 0, "pot empty");
    }

    // ---------------------------------------------------------------------------------------- malicious receivers

    function actor(uint256 stake_) private returns (Actor a) {
        a = new Actor();
        IRegistry.RegisterInput memory x = form(NEW_KEY, HOSPITAL, "newcomer");
        bytes memory proof = proofOf(address(a), NEW_KEY, x);
        vm.deal(address(a), stake_);
        a.run(address(registry), stake_, abi.encodeCall(Registry.register, (x, proof)));
        a.run(address(registry), 0, abi.encodeCall(Registry.beginUnstake, ()));
        skip(UNBONDING);
    }

    function test_withdrawStake_reenteringGetsItOnce() public {
        Actor a = actor(1 ether);
        bytes memory call = abi.encodeCall(Registry.withdrawStake, ());
        a.set(Actor.Mode.Reenter, address(registry), call);
        a.run(address(registry), 0, call);
        eq(a.received(), 1 ether, "once");
        eq(a.reentered(), 0, "the inner call failed");
        eq(bytes32(a.answer()), bytes32(ReentrancyGuard.ReentrancyGuardReentrantCall.selector), "guard");
        eq(address(registry).balance, 7 ether, "the others' stakes");
    }

    function test_withdrawStake_refusingHarmsOnlyItself() public {
        Actor a = actor(1 ether);
        a.set(Actor.Mode.Refuse, address(0), "");
        expect(abi.encodeWithSelector(IRegistry.PaymentFailed.selector, address(a)));
        a.run(address(registry), 0, abi.encodeCall(Registry.withdrawStake, ()));
        eq(registry.member(address(a)).stake, 1 ether, "still there");
    }

    function test_withdrawSlashed_refusingTreasuryHarmsOnlyItself() public {
        Actor a = new Actor();
        a.set(Actor.Mode.Refuse, address(0), "");
        hub = TaskHub(address(this)); // this test plays the hub of another registry
        registry = deployRegistry(owner, address(a), UNBONDING);
        enrol(account(1), key(1), HOSPITAL, name(1), 1 ether);
        enrol(account(2), key(2), HOSPITAL, name(2), 1 ether);
        registry.slash(account(1), 0);
        expect(abi.encodeWithSelector(IRegistry.PaymentFailed.selector, address(a)));
        registry.withdrawSlashed();
        vm.prank(account(2));
        registry.beginUnstake();
        skip(UNBONDING);
        vm.prank(account(2));
        registry.withdrawStake();
        eq(address(registry).balance, 1 ether, "the pot waits");
        a.set(Actor.Mode.Reenter, address(registry), abi.encodeCall(Registry.withdrawSlashed, ()));
        registry.withdrawSlashed();
        eq(a.received(), 1 ether, "once");
        eq(a.reentered(), 0, "the inner call failed");
    }

    /// @dev Stakes come and go; the registry always holds exactly what it owes.
    function testFuzz_stakes(uint64[4] memory values, bool slash, bool leaves) public {
        uint256 others = address(registry).balance - 1 ether; // all but account 1's
        uint256 stake_ = 1 ether;
        for (uint256 i; i < 4; ++i) {
            vm.deal(account(1), values[i]);
            if (values[i] == 0) expect(IRegistry.NothingToMove.selector);
            vm.prank(account(1));
            registry.topUp{value: values[i]}();
            stake_ += values[i];
        }
        eq(registry.member(account(1)).stake, stake_, "stake");
        if (slash) {
            vm.prank(address(hub));
            registry.slash(account(1), "evidence");
        }
        if (leaves) {
            vm.prank(account(1));
            registry.beginUnstake();
            skip(UNBONDING);
            if (slash) expect(IRegistry.NothingToMove.selector);
            vm.prank(account(1));
            registry.withdrawStake();
            eq(account(1).balance, slash ? 0 : stake_, "paid");
        }
        eq(registry.slashed(), slash ? stake_ : 0, "slashed");
        eq(address(registry).balance, others + (leaves && !slash ? 0 : stake_), "balance");
    }
}
