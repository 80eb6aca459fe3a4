// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {ITaskHub} from "../src/ITaskHub.sol";
import {ORDER, vm} from "./Base.sol";
import {TaskHub} from "./Interfaces.sol";
import {World} from "./World.sol";

contract RoundTest is World {
    bytes32 private task;

    function setUp() public override {
        super.setUp();
        task = started("task");
    }

    function refuses(bytes memory error_, ITaskHub.RoundInput memory x) private {
        expect(error_);
        hub.submitRound(x);
    }

    function resign(ITaskHub.RoundInput memory x, uint16[] memory parties) private view {
        x.submissions = submissions(labelOf(x), parties);
        seal(x, these(3));
    }

    // ----------------------------------------------------------------------------------------------- the right way

    function test_submitRound_recordsAndEmits() public {
        ITaskHub.RoundInput memory x = round(task, 1, 0);
        bytes32 genesis = hub.taskOf(task).genesis;
        bytes32 expected = blockOf(x);
        vm.expectEmit(address(hub));
        emit ITaskHub.RoundRecorded(task, 1, expected, 0, genesis, labelOf(x), 0, x.hidden, 3, 2);
        eq(hub.submitRound(x), expected, "block hash");
        ITaskHub.Task memory t = hub.taskOf(task);
        eq(t.head, expected, "head");
        eq(t.round, 1, "round");
        eq(t.height, 1, "height");
        x = round(task, 7, 3); // gaps are allowed
        x.opening = opening(expected, 5, key(5));
        vm.expectEmit(address(hub));
        emit ITaskHub.OpeningRecorded(task, expected, "total", 5e6, 1e6);
        vm.prank(address(0xdada)); // by anybody
        bytes32 second = hub.submitRound(x);
        t = hub.taskOf(task);
        eq(t.head, second, "second head");
        eq(t.round, 7, "second round");
        eq(t.attempt, 3, "attempt");
        eq(t.height, 2, "second height");
    }

    function test_submitRound_ordersByRoundThenAttempt() public {
        uint32[2][5] memory steps = [[uint32(1), 2], [uint32(1), 3], [uint32(2), 0], [uint32(2), 1], [uint32(5), 0]];
        uint32 lastRound;
        uint32 lastAttempt;
        for (uint256 i; i < steps.length; ++i) {
            for (uint256 j; j < steps.length; ++j) {
                if (j >= i) continue;
                refuses(
                    abi.encodeWithSelector(
                        ITaskHub.RoundNotRising.selector, steps[j][0], steps[j][1], lastRound, lastAttempt
                    ),
                    round(task, steps[j][0], steps[j][1])
                );
            }
            hub.submitRound(round(task, steps[i][0], steps[i][1]));
            (lastRound, lastAttempt) = (steps[i][0], steps[i][1]);
        }
        refuses(abi.encodeWithSelector(ITaskHub.RoundNotRising.selector, 5, 0, 5, 0), round(task, 5, 0));
    }

    function test_submitRound_roundsBeginAtOne() public {
        refuses(abi.encodeWithSelector(ITaskHub.RoundNotRising.selector, 0, 1, 0, 0), round(task, 0, 1));
        refuses(abi.encodeWithSelector(ITaskHub.RoundNotRising.selector, 0, 0, 0, 0), round(task, 0, 0));
    }

    function test_submitRound_onlyWhileRunning() public {
        ITaskHub.RoundInput memory x = round(task, 1, 0);
        vm.warp(deadline);
        hub.submitRound(x);
        ITaskHub.RoundInput memory y = round(task, 2, 0);
        vm.warp(deadline + 1);
        refuses(abi.encodeWithSelector(ITaskHub.DeadlinePassed.selector, deadline), y);
        hub.refund(task);
        refuses(abi.encodeWithSelector(ITaskHub.WrongStatus.selector, task, ITaskHub.Status.Refunded), y);
        x.task = "nothing";
        refuses(abi.encodeWithSelector(ITaskHub.WrongStatus.selector, x.task, ITaskHub.Status.None), x);
    }

    // -------------------------------------------------------------------------------------------------- submissions

    function test_submissions_namesTheBadOne() public {
        uint16[] memory parties = these(0, 1, 2);
        for (uint256 i; i < 3; ++i) {
            ITaskHub.RoundInput memory x = round(task, 1, 0);
            // signed by another member's key
            bytes memory wrong = submission(labelOf(x), parties[i], key(5));
            for (uint256 k; k < 110; ++k) {
                x.submissions[110 * i + k] = wrong[k];
            }
            seal(x, these(3));
            refuses(abi.encodeWithSelector(ITaskHub.BadSubmission.selector, i), x);
        }
        ITaskHub.RoundInput memory y = round(task, 1, 0);
        resign(y, these(0, 2)); // without the bad one
        hub.submitRound(y);
    }

    function test_submissions_everyByteIsBound() public {
        ITaskHub.RoundInput memory x = round(task, 1, 0);
        for (uint256 k = 110; k < 220; ++k) {
            bytes1 before = x.submissions[k];
            x.submissions[k] = before ^ 0x01;
            refuses(abi.encodeWithSelector(ITaskHub.BadSubmission.selector, 1), x);
            x.submissions[k] = before;
        }
    }

    function test_submissions_labelBindsEverything() public {
        bytes memory error_ = abi.encodeWithSelector(ITaskHub.BadSubmission.selector, 0);
        bytes32 other = started("another task");
        for (uint256 field; field < 8; ++field) {
            ITaskHub.RoundInput memory x = round(task, 1, 0);
            if (field == 0) x.task = other;
            if (field == 1) x.round = 2;
            if (field == 2) x.attempt = 1;
            if (field == 3) x.model = "x";
            if (field == 4) x.frame = "x";
            if (field == 5) x.keys = "x";
            if (field == 6) vm.chainId(5); // a fork of the chain
            refuses(field == 7 ? abi.encodeWithSelector(ITaskHub.RoundNotRising.selector, 1, 0, 1, 0) : error_, x);
            vm.chainId(31337);
            if (field == 6) hub.submitRound(x); // nothing else was wrong; and then it is a repetition
        }
    }

    function test_submissions_order() public {
        uint16[][4] memory orders = [these(1, 0, 2), these(0, 0, 1), these(0, 2, 1), these(0, 1, 1)];
        uint8[4] memory bad = [1, 1, 2, 2];
        for (uint256 i; i < 4; ++i) {
            ITaskHub.RoundInput memory x = round(task, 1, 0);
            resign(x, orders[i]);
            refuses(abi.encodeWithSelector(ITaskHub.BadSubmission.selector, bad[i]), x);
        }
    }

    function test_submissions_onlyHospitalsOfTheTask() public {
        uint16[4] memory outsiders = [uint16(3), 5, 6, 65535]; // committee, authority, nobody, nobody
        for (uint256 i; i < 4; ++i) {
            ITaskHub.RoundInput memory x = round(task, 1, 0);
            resign(x, these(0, outsiders[i]));
            refuses(abi.encodeWithSelector(ITaskHub.BadSubmission.selector, 1), x);
        }
    }

    function test_submissions_lengths() public {
        ITaskHub.RoundInput memory x = round(task, 1, 0);
        bytes memory all = x.submissions;
        uint256[4] memory cuts = [uint256(1), 109, 111, 329];
        for (uint256 i; i < 4; ++i) {
            x.submissions = slice(all, 0, cuts[i]);
            refuses(abi.encodeWithSelector(TaskHub.BadLength.selector, cuts[i], 110), x);
        }
        x.submissions = "";
        refuses(abi.encodeWithSelector(ITaskHub.NoSubmissions.selector), x);
    }

    function test_submissions_highSAndVoidSignatures() public {
        ITaskHub.RoundInput memory x = round(task, 1, 0);
        bytes memory good = slice(x.submissions, 0, 110);
        uint256 vs = read(good, 78, 32);
        uint256 s = ORDER - (vs & (type(uint256).max >> 1));
        bytes[4] memory bad;
        bad[0] = abi.encodePacked(s | ((vs >> 255 ^ 1) << 255)); // the malleable twin
        bad[1] = abi.encodePacked(vs ^ (1 << 255)); // the other point
        bad[2] = abi.encodePacked(uint256(0));
        bad[3] = abi.encodePacked(type(uint256).max);
        for (uint256 i; i < 4; ++i) {
            x.submissions = bytes.concat(slice(good, 0, 78), bad[i]);
            seal(x, these(3));
            refuses(abi.encodeWithSelector(ITaskHub.BadSubmission.selector, 0), x);
        }
        x.submissions = bytes.concat(slice(good, 0, 46), bytes32(0), bytes32(0)); // r = s = 0
        seal(x, these(3));
        refuses(abi.encodeWithSelector(ITaskHub.BadSubmission.selector, 0), x);
    }

    // ----------------------------------------------------------------------------------------------------- rejected

    function test_rejected() public {
        ITaskHub.RoundInput memory x = round(task, 1, 0);
        bytes[4] memory bad = [
            abi.encodePacked(uint16(1), uint16(1)),
            abi.encodePacked(uint16(0), uint16(6)),
            abi.encodePacked(uint16(2), uint16(1)),
            abi.encodePacked(uint16(2), uint16(65535))
        ];
        for (uint256 i; i < 4; ++i) {
            x.rejected = bad[i];
            seal(x, these(3));
            refuses(abi.encodeWithSelector(ITaskHub.BadRejected.selector, 1), x);
        }
        x.rejected = hex"000100";
        refuses(abi.encodeWithSelector(TaskHub.BadLength.selector, 3, 2), x);
        x.rejected = abi.encodePacked(uint16(1), uint16(2));
        refuses(abi.encodeWithSelector(ITaskHub.BadLeaderSignature.selector, 0), x); // the block says otherwise
        seal(x, these(3));
        hub.submitRound(x);
    }

    // ------------------------------------------------------------------------------------------------------- leader

    function test_leader_isAHospitalWithAStake() public {
        uint16[4] memory others = [uint16(2), 3, 6, 65535]; // no stake, no hospital, nobody, nobody
        for (uint256 i; i < 4; ++i) {
            ITaskHub.RoundInput memory x = round(task, 1, 0);
            x.leader = others[i];
            seal(x, these(3, 4));
            refuses(abi.encodeWithSelector(ITaskHub.NotLeader.selector, others[i]), x);
        }
    }

    function test_leader_signsTheBlock() public {
        ITaskHub.RoundInput memory x = round(task, 1, 0);
        bytes memory good = x.leaderSignature;
        bytes memory error_ = abi.encodeWithSelector(ITaskHub.BadLeaderSignature.selector, 0);
        x.leaderSignature = sign(key(1), blockOf(x));
        refuses(error_, x);
        x.leaderSignature = new bytes(64);
        refuses(error_, x);
        x.leaderSignature = slice(good, 0, 63);
        refuses(abi.encodeWithSelector(TaskHub.BadLength.selector, 63, 64), x);
        x.leaderSignature = good;
        x.hidden = "another sum";
        refuses(error_, x);
        x = round(task, 1, 0);
        resign(x, these(0, 1));
        x.submissions = submissions(labelOf(x), these(0, 1, 2)); // one more than signed
        refuses(error_, x);
        x = round(task, 1, 0);
        ITaskHub.RoundInput memory next = round(task, 2, 0); // signed on the same parent
        hub.submitRound(x);
        refuses(error_, next);
    }

    function test_leader_withoutCommitteeRoleHasNoVote() public {
        ITaskHub.RoundInput memory x = round(task, 1, 0);
        x.leader = 1;
        seal(x, these(3));
        refuses(abi.encodeWithSelector(ITaskHub.NoQuorum.selector, 1, 2), x);
        seal(x, these(0, 4));
        hub.submitRound(x);
    }

    function test_leader_needsASeedWhereTheContractVerifiesTheElection() public {
        ITaskHub.PublishInput memory terms = order("vrf");
        terms.vrf = true;
        bytes32 elected = publish(terms, 1);
        begin(elected, accounts());
        refuses(abi.encodeWithSelector(ITaskHub.NoSeed.selector, elected), round(elected, 1, 0));
    }

    // -------------------------------------------------------------------------------------------------------- votes

    function test_votes_quorum() public {
        ITaskHub.RoundInput memory x = round(task, 1, 0);
        x.votes = "";
        refuses(abi.encodeWithSelector(ITaskHub.NoQuorum.selector, 1, 2), x); // the leader's own
        seal(x, these(3, 4));
        bytes32 expected = blockOf(x);
        vm.expectEmit(address(hub));
        emit ITaskHub.RoundRecorded(task, 1, expected, 0, hub.taskOf(task).genesis, labelOf(x), 0, x.hidden, 3, 3);
        hub.submitRound(x);
    }

    function test_votes_areCheckedOneByOne() public {
        ITaskHub.RoundInput memory x = round(task, 1, 0);
        uint16[][6] memory voters = [these(0, 3), these(3, 3), these(4, 3), these(1, 3), these(3, 5), these(3, 65535)];
        uint8[6] memory bad = [0, 1, 1, 0, 1, 1]; // leader, twice, falling, hospital, authority, nobody
        for (uint256 i; i < 6; ++i) {
            seal(x, voters[i]);
            refuses(abi.encodeWithSelector(ITaskHub.BadVote.selector, bad[i]), x);
        }
        seal(x, these(3, 4));
        bytes memory good = x.votes;
        for (uint256 k = 66; k < 132; ++k) {
            bytes1 before = good[k];
            good[k] = before ^ 0x01;
            refuses(abi.encodeWithSelector(ITaskHub.BadVote.selector, 1), x);
            good[k] = before;
        }
        x.votes = votes(voteHash(labelOf(x), "another block"), these(3, 4));
        refuses(abi.encodeWithSelector(ITaskHub.BadVote.selector, 0), x);
        x.votes = slice(good, 0, 67);
        refuses(abi.encodeWithSelector(TaskHub.BadLength.selector, 67, 66), x);
        uint256 vs = read(good, 34, 32); // the malleable twin of the first vote
        uint256 s = ORDER - (vs & (type(uint256).max >> 1));
        x.votes = abi.encodePacked(slice(good, 0, 34), s | ((vs >> 255 ^ 1) << 255));
        refuses(abi.encodeWithSelector(ITaskHub.BadVote.selector, 0), x);
    }

    // ----------------------------------------------------------------------------------------------------- openings

    function test_opening() public {
        ITaskHub.RoundInput memory x = round(task, 1, 0);
        bytes32 genesis = hub.taskOf(task).genesis;
        x.opening = opening(genesis, 5, key(5)); // there is no block to open yet
        refuses(abi.encodeWithSelector(ITaskHub.BadOpening.selector, 5), x);
        x.opening = "";
        bytes32 first = hub.submitRound(x);
        x = round(task, 2, 0);
        bytes[5] memory bad;
        bad[0] = opening(genesis, 5, key(5));
        bad[1] = opening(first, 5, key(4));
        bad[2] = opening(first, 4, key(4));
        bad[3] = opening(first, 65535, key(5));
        bad[4] = opening(first, 5, key(5));
        bad[4][40] ^= 0x01; // sigma
        uint16[5] memory party = [uint16(5), 5, 4, 65535, 5];
        for (uint256 i; i < 5; ++i) {
            x.opening = bad[i];
            refuses(abi.encodeWithSelector(ITaskHub.BadOpening.selector, party[i]), x);
        }
        x.opening = slice(opening(first, 5, key(5)), 0, 121);
        refuses(abi.encodeWithSelector(TaskHub.BadLength.selector, 121, 122), x);
        x.opening = opening(first, 5, key(5));
        hub.submitRound(x);
        x = round(task, 3, 0);
        x.opening = opening(first, 5, key(5)); // once
        refuses(abi.encodeWithSelector(ITaskHub.BadOpening.selector, 5), x);
    }

    // --------------------------------------------------------------------------------------------------- suspension

    function test_suspension_stopsSubmittersLeadersAndVoters() public {
        ITaskHub.RoundInput memory x = round(task, 1, 0);
        uint16[3] memory parties = [uint16(2), 0, 3]; // submitter, leader, voter
        for (uint256 i; i < 3; ++i) {
            vm.prank(owner);
            registry.suspend(account(parties[i]), true);
            refuses(abi.encodeWithSelector(ITaskHub.Suspended.selector, parties[i]), x);
            vm.prank(owner);
            registry.suspend(account(parties[i]), false);
        }
        enrol(account(2), 0xabc, HOSPITAL, name(2), 0); // new keys do not help
        vm.prank(owner);
        registry.suspend(account(2), true);
        refuses(abi.encodeWithSelector(ITaskHub.Suspended.selector, 2), x);
        resign(x, these(0, 1));
        hub.submitRound(x); // the others go on
    }
}
