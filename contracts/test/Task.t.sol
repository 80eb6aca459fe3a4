// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {ITaskHub} from "../src/ITaskHub.sol";
import {vm} from "./Base.sol";
import {TaskHub} from "./Interfaces.sol";
import {World} from "./World.sol";

/// @dev Publication, start and seed.
contract TaskTest is World {
    function rejects(bytes memory error_, ITaskHub.PublishInput memory x, uint256 value) private {
        vm.deal(publisher, value);
        expect(error_);
        publish(x, value);
    }

    // ----------------------------------------------------------------------------------------------------- publish

    function test_publish_storesAndEmits() public {
        ITaskHub.PublishInput memory x = order("salt");
        bytes32 task = keccak256(abi.encode(block.chainid, address(hub), publisher, bytes32("salt")));
        bytes32 typeHash = keccak256("Genesis(bytes32 model,bytes32 config,bytes32 roster)");
        bytes32 genesis = keccak256(abi.encode(typeHash, bytes32("model"), keccak256("{}"), bytes32("roster")));
        vm.expectEmit(address(hub));
        emit ITaskHub.TaskPublished(
            task, publisher, REWARD, ACCURACY, deadline, genesis, "model", "roster", 2, false, AUTHORITY, "{}"
        );
        eq(publish(x, REWARD), task, "id");
        eq(hub.taskId(publisher, "salt"), task, "taskId");
        ITaskHub.Task memory t = hub.taskOf(task);
        eq(uint8(t.status), uint8(ITaskHub.Status.Published), "status");
        eq(t.publisher, publisher, "publisher");
        eq(t.reward, REWARD, "reward");
        eq(t.deadline, deadline, "deadline");
        eq(t.publishedBlock, height(), "block");
        eq(t.config, keccak256("{}"), "config");
        eq(t.roster, bytes32("roster"), "roster");
        eq(t.head, genesis, "head");
        eq(t.openers, AUTHORITY, "openers");
        eq(hub.participants(task).length, 0, "no participants yet");
        eq(address(hub).balance, REWARD, "escrow");
    }

    function test_publish_onePerSalt() public {
        bytes32 task = publish("salt");
        expect(abi.encodeWithSelector(ITaskHub.TaskExists.selector, task));
        publish("salt");
        vm.warp(deadline + 1);
        hub.refund(task);
        deadline += 5 days;
        expect(abi.encodeWithSelector(ITaskHub.TaskExists.selector, task)); // even when it is over
        publish("salt");
        publish("other salt");
    }

    function test_publish_refusesBadTerms() public {
        ITaskHub.PublishInput memory x = order("salt");
        rejects(abi.encodeWithSelector(ITaskHub.NoReward.selector), x, 0);
        uint256 tooMuch = uint256(type(uint128).max) + 1;
        rejects(abi.encodeWithSelector(ITaskHub.RewardTooLarge.selector, tooMuch), x, tooMuch);
        uint256 latest = time() + 180 days;
        for (uint256 i; i < 2; ++i) {
            x.deadline = i == 0 ? time() : uint64(latest + 1);
            rejects(abi.encodeWithSelector(ITaskHub.BadDeadline.selector, x.deadline, latest), x, 1);
        }
        x = order("salt");
        x.accuracyBps = 10_001;
        rejects(abi.encodeWithSelector(ITaskHub.BadAccuracy.selector, 10_001), x, 1);
        x = order("salt");
        x.quorum = 0;
        rejects(abi.encodeWithSelector(ITaskHub.BadQuorum.selector, 0, 0), x, 1);
        x = order("salt");
        x.deadline = uint64(latest);
        x.accuracyBps = 10_000;
        vm.deal(publisher, tooMuch - 1);
        publish(x, tooMuch - 1);
    }

    function test_publish_needsTheRole() public {
        ITaskHub.PublishInput memory x = order("salt");
        address[2] memory others = [account(0), address(0x99)];
        for (uint256 i; i < 2; ++i) {
            vm.deal(others[i], 1);
            expect(abi.encodeWithSelector(ITaskHub.NotPublisher.selector, others[i]));
            vm.prank(others[i]);
            hub.publish{value: 1}(x);
        }
        vm.prank(owner);
        registry.suspend(publisher, true);
        rejects(abi.encodeWithSelector(ITaskHub.AccountSuspended.selector, publisher), x, 1);
    }

    // ------------------------------------------------------------------------------------------------------- start

    function refuses(bytes memory error_, bytes32 task, address[] memory list_) private {
        bytes memory sigma1 = sign(PUBLISHER_KEY, tokenOf(task, list_));
        expect(error_);
        vm.prank(publisher);
        hub.start(task, list_, sigma1);
    }

    function test_start_freezesAndLocks() public {
        bytes32 task = publish("salt");
        mine(1);
        bytes memory blob = blobOf(accounts());
        bytes memory sigma1 = sign(PUBLISHER_KEY, tokenOf(task, accounts()));
        vm.expectEmit(address(hub));
        emit ITaskHub.TaskStarted(task, keccak256(blob), sigma1);
        vm.prank(publisher);
        hub.start(task, accounts(), sigma1);
        ITaskHub.Task memory t = hub.taskOf(task);
        eq(uint8(t.status), uint8(ITaskHub.Status.Started), "status");
        eq(t.members, PARTIES, "members");
        eq(t.committee, 3, "committee");
        eq(t.startedBlock, height(), "block");
        eq(t.seedBlock, height() + 1, "seed block");
        eq(keccak256(hub.participants(task)), keccak256(blob), "participants");
        eq(blob.length, PARTIES * 73, "size");
        eq(registry.member(account(5)).lockedUntil, deadline + UNBONDING, "locked");
        // what changes later does not change the frozen copy
        enrol(account(1), 0xabc, HOSPITAL, name(1), 1 ether);
        eq(keccak256(hub.participants(task)), keccak256(blob), "still");
        refuses(abi.encodeWithSelector(ITaskHub.WrongStatus.selector, task, ITaskHub.Status.Started), task, accounts());
    }

    function test_start_isThePublishers() public {
        bytes32 task = publish("salt");
        bytes memory sigma1 = sign(PUBLISHER_KEY, tokenOf(task, accounts()));
        expect(abi.encodeWithSelector(ITaskHub.NotPublisher.selector, account(0)));
        vm.prank(account(0));
        hub.start(task, accounts(), sigma1);
        vm.prank(owner);
        registry.suspend(publisher, true);
        refuses(abi.encodeWithSelector(ITaskHub.AccountSuspended.selector, publisher), task, accounts());
    }

    function test_start_untilTheDeadline() public {
        bytes32 task = publish("salt");
        vm.warp(deadline + 1);
        refuses(abi.encodeWithSelector(ITaskHub.DeadlinePassed.selector, deadline), task, accounts());
        vm.warp(deadline);
        begin(task, accounts());
    }

    function test_start_checksParticipants() public {
        bytes32 task = publish("salt");
        address[] memory l = accounts();
        l[3] = address(0x99);
        refuses(abi.encodeWithSelector(ITaskHub.NotActive.selector, 3, address(0x99)), task, l);
        l = accounts();
        (l[1], l[2]) = (l[2], l[1]);
        refuses(abi.encodeWithSelector(ITaskHub.NamesNotRising.selector, 2), task, l);
        l[2] = l[1];
        refuses(abi.encodeWithSelector(ITaskHub.NamesNotRising.selector, 2), task, l);
        l = new address[](0);
        refuses(abi.encodeWithSelector(ITaskHub.NoHospital.selector), task, l);
        l = new address[](2);
        (l[0], l[1]) = (account(3), account(4));
        refuses(abi.encodeWithSelector(ITaskHub.NoHospital.selector), task, l);
        l = new address[](337);
        bytes memory error_ = abi.encodeWithSelector(ITaskHub.TooManyParticipants.selector, 337, 336);
        expect(error_);
        vm.prank(publisher);
        hub.start(task, l, "");
        vm.prank(account(2));
        registry.beginUnstake();
        refuses(abi.encodeWithSelector(ITaskHub.NotActive.selector, 2, account(2)), task, accounts());
        vm.prank(owner);
        registry.suspend(account(1), true);
        refuses(abi.encodeWithSelector(ITaskHub.NotActive.selector, 1, account(1)), task, accounts());
        eq(registry.member(account(0)).lockedUntil, 0, "a failed start locks nothing");
    }

    function test_start_refusesKeysChosenAfterPublication() public {
        bytes32 task = publish("salt");
        enrol(account(1), 0xabc, HOSPITAL, name(1), 0); // in the same block
        refuses(abi.encodeWithSelector(ITaskHub.KeysTooRecent.selector, 1, account(1), height()), task, accounts());
        mine(1);
        begin(publish("next"), accounts());
    }

    function test_start_quorumIsAMajority() public {
        uint16[4] memory quorums = [uint16(1), 4, 2, 3];
        for (uint256 i; i < 4; ++i) {
            ITaskHub.PublishInput memory x = order(bytes32(i));
            x.quorum = quorums[i];
            bytes32 task = publish(x, 1);
            if (i < 2) refuses(abi.encodeWithSelector(ITaskHub.BadQuorum.selector, quorums[i], 3), task, accounts());
            else begin(task, accounts());
        }
        address[] memory l = new address[](4); // an even committee: half is not enough
        (l[0], l[1], l[2], l[3]) = (account(0), account(1), account(2), account(3));
        ITaskHub.PublishInput memory y = order("even");
        y.quorum = 1;
        refuses(abi.encodeWithSelector(ITaskHub.BadQuorum.selector, 1, 2), publish(y, 1), l);
        begin(publish("both"), l);
    }

    function test_start_sigma1BindsParticipantsAndTerms() public {
        bytes32 task = publish("salt");
        bytes32 other = publish("other");
        bytes memory error_ = abi.encodeWithSelector(ITaskHub.BadSigma1.selector, vm.addr(PUBLISHER_KEY));
        bytes[3] memory wrong;
        wrong[0] = sign(PUBLISHER_KEY, tokenOf(other, accounts()));
        wrong[1] = sign(key(0), tokenOf(task, accounts()));
        address[] memory fewer = new address[](4);
        (fewer[0], fewer[1], fewer[2], fewer[3]) = (account(0), account(1), account(3), account(4));
        wrong[2] = sign(PUBLISHER_KEY, tokenOf(task, fewer));
        for (uint256 i; i < 3; ++i) {
            expect(error_);
            vm.prank(publisher);
            hub.start(task, accounts(), wrong[i]);
        }
        expect(abi.encodeWithSelector(TaskHub.BadLength.selector, 0, 64));
        vm.prank(publisher);
        hub.start(task, accounts(), "");
        uint256 before = registry.member(account(0)).stake;
        bytes memory sigma1 = sign(PUBLISHER_KEY, tokenOf(task, accounts()));
        vm.deal(account(0), 1 gwei);
        vm.prank(account(0)); // a stake that changed since the signature
        registry.topUp{value: 1 gwei}();
        eq(registry.member(account(0)).stake, before + 1 gwei, "stake");
        expect(error_);
        vm.prank(publisher);
        hub.start(task, accounts(), sigma1);
    }

    /// @dev As many as one contract's code holds, in one transaction that fits a block (EIP-7825: 2^24 gas).
    function test_start_mostParticipants() public {
        address[] memory l = new address[](336);
        for (uint16 i; i < 336; ++i) {
            l[i] = address(uint160(0xB0B0000) + i);
            enrol(l[i], 0xabcdef + uint256(i), HOSPITAL | COMMITTEE, crowdName(i), 1 gwei);
        }
        mine(1);
        ITaskHub.PublishInput memory x = order("crowd");
        x.quorum = 336;
        bytes32 task = publish(x, 1);
        bytes memory sigma1 = sign(PUBLISHER_KEY, tokenOf(task, l));
        vm.prank(publisher);
        uint256 before = gasleft();
        hub.start(task, l, sigma1);
        eq(before - gasleft() < 14_000_000, true, "gas");
        eq(hub.taskOf(task).members, 336, "members");
        eq(keccak256(hub.participants(task)), keccak256(blobOf(l)), "participants");
    }

    // -------------------------------------------------------------------------------------------------------- seed

    function test_drawSeed() public {
        bytes32 task = publish("salt");
        expect(abi.encodeWithSelector(ITaskHub.WrongStatus.selector, task, ITaskHub.Status.Published));
        hub.drawSeed(task);
        mine(1);
        begin(task, accounts());
        uint64 anchor = height() + 1;
        for (uint256 i; i < 2; ++i) {
            expect(abi.encodeWithSelector(ITaskHub.SeedNotReady.selector, anchor));
            hub.drawSeed(task);
            mine(1);
        }
        vm.setBlockhash(anchor, "the hash");
        bytes32 seed = keccak256(abi.encode(hub.taskOf(task).genesis, task, bytes32("the hash")));
        vm.expectEmit(address(hub));
        emit ITaskHub.SeedDrawn(task, seed, anchor);
        hub.drawSeed(task);
        eq(hub.taskOf(task).seed, seed, "seed");
        expect(abi.encodeWithSelector(ITaskHub.SeedExists.selector, seed));
        hub.drawSeed(task);
    }

    function test_drawSeed_postponesWhenTheHashIsOutOfReach() public {
        bytes32 task = started("salt"); // the anchor is the current block
        uint64 anchor = height();
        mine(257);
        vm.expectEmit(address(hub));
        emit ITaskHub.SeedPostponed(task, anchor + 258);
        hub.drawSeed(task);
        eq(hub.taskOf(task).seed, bytes32(0), "none yet");
        expect(abi.encodeWithSelector(ITaskHub.SeedNotReady.selector, anchor + 258));
        hub.drawSeed(task);
        mine(2);
        vm.setBlockhash(anchor + 258, "later");
        hub.drawSeed(task);
        eq(
            hub.taskOf(task).seed,
            keccak256(abi.encode(hub.taskOf(task).genesis, task, bytes32("later"))),
            "from the later block"
        );
    }

    function crowdName(uint16 i) private pure returns (bytes32) {
        bytes memory digits = "p000";
        (digits[1], digits[2], digits[3]) =
        (bytes1(uint8(48 + i / 100)), bytes1(uint8(48 + (i / 10) % 10)), bytes1(uint8(48 + i % 10)));
        return bytes32(digits);
    }

    function test_unknownTask() public {
        ITaskHub.Task memory t = hub.taskOf("nothing");
        eq(uint8(t.status), uint8(ITaskHub.Status.None), "status");
        expect(abi.encodeWithSelector(ITaskHub.WrongStatus.selector, bytes32("nothing"), ITaskHub.Status.None));
        hub.drawSeed("nothing");
    }

    function test_typeHashes() public view {
        eq(
            hub.EVALUATION_TYPEHASH(),
            keccak256("Evaluation(bytes32 task,bytes32 model,uint16 party,uint16 accuracyBps,uint32 examples)"),
            "Evaluation"
        );
        eq(hub.HOSPITAL() | hub.COMMITTEE() | hub.AUTHORITY() | hub.PUBLISHER(), 15, "role bits");
        eq(address(hub).code.length < 24_576, true, "EIP-170");
    }
}
