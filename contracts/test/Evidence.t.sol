// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {IRegistry} from "../src/IRegistry.sol";
import {ITaskHub} from "../src/ITaskHub.sol";
import {vm} from "./Base.sol";
import {TaskHub} from "./Interfaces.sol";
import {World} from "./World.sol";

contract EvidenceTest is World {
    bytes32 private constant LABEL = "label";

    function sub(bytes32 label, uint256 key_, bytes32 content)
        private
        view
        returns (ITaskHub.SubmissionEvidence memory)
    {
        bytes memory signature = sign(key_, submissionHash(label, 1, 7, 1000, content));
        return ITaskHub.SubmissionEvidence(label, 1, 7, 1000, content, signature);
    }

    function blk(bytes32 label, uint256 key_, bytes32 hidden) private view returns (ITaskHub.BlockEvidence memory) {
        bytes memory signature = sign(key_, blockHash("parent", label, 0, "listed", "rejected", hidden));
        return ITaskHub.BlockEvidence("parent", label, 0, "listed", "rejected", hidden, signature);
    }

    function vote(bytes32 label, uint256 key_, bytes32 block_) private view returns (ITaskHub.VoteEvidence memory) {
        return ITaskHub.VoteEvidence(label, block_, sign(key_, voteHash(label, block_)));
    }

    function expectSlash(uint16 party, uint8 kind, uint256 amount) private {
        bytes32 evidence = keccak256(abi.encode(LABEL, vm.addr(key(party)), kind));
        vm.expectEmit(address(hub));
        emit ITaskHub.Equivocation(account(party), LABEL, kind);
        vm.expectEmit(address(registry));
        emit IRegistry.Slashed(account(party), amount, evidence);
    }

    function test_reportSubmissions() public {
        expectSlash(1, 1, 1 ether);
        hub.reportSubmissions(sub(LABEL, key(1), "one"), sub(LABEL, key(1), "two"));
        eq(registry.member(account(1)).stake, 0, "whole stake");
        eq(registry.slashed(), 1 ether, "pot");
    }

    function test_reportBlocks() public {
        expectSlash(0, 2, 3 ether);
        hub.reportBlocks(blk(LABEL, key(0), "one"), blk(LABEL, key(0), "two"));
    }

    function test_reportVotes() public {
        expectSlash(3, 3, 1 ether);
        hub.reportVotes(vote(LABEL, key(3), "one"), vote(LABEL, key(3), "two"));
    }

    function test_report_oncePerLabelSignerAndKind() public {
        hub.reportVotes(vote(LABEL, key(3), "one"), vote(LABEL, key(3), "two"));
        vm.deal(account(3), 5 ether);
        vm.prank(account(3));
        registry.topUp{value: 5 ether}();
        ITaskHub.VoteEvidence memory a = vote(LABEL, key(3), "three");
        ITaskHub.VoteEvidence memory b = vote(LABEL, key(3), "four");
        bytes32 evidence = keccak256(abi.encode(LABEL, vm.addr(key(3)), uint8(3)));
        expect(abi.encodeWithSelector(ITaskHub.AlreadyPunished.selector, evidence));
        hub.reportVotes(a, b);
        eq(registry.member(account(3)).stake, 5 ether, "kept");
        hub.reportBlocks(blk(LABEL, key(3), "one"), blk(LABEL, key(3), "two")); // another kind
        hub.reportVotes(vote("other label", key(3), "one"), vote("other label", key(3), "two"));
        hub.reportVotes(vote(LABEL, key(4), "one"), vote(LABEL, key(4), "two")); // another signer
        eq(registry.slashed(), 7 ether, "all");
    }

    function test_report_refusesWhatIsNoEquivocation() public {
        ITaskHub.SubmissionEvidence memory a = sub(LABEL, key(1), "one");
        ITaskHub.SubmissionEvidence memory b = sub("next attempt", key(1), "two");
        expect(ITaskHub.LabelsDiffer.selector);
        hub.reportSubmissions(a, b);
        expect(ITaskHub.SameStruct.selector);
        hub.reportSubmissions(a, a);
        b = sub(LABEL, key(2), "two");
        expect(abi.encodeWithSelector(ITaskHub.SignersDiffer.selector, vm.addr(key(1)), vm.addr(key(2))));
        hub.reportSubmissions(a, b);
        (a, b) = (sub(LABEL, 0x5eed, "one"), sub(LABEL, 0x5eed, "two"));
        expect(abi.encodeWithSelector(ITaskHub.UnknownSigner.selector, vm.addr(0x5eed)));
        hub.reportSubmissions(a, b);
        a.signature = new bytes(64);
        b.signature = new bytes(64);
        expect(abi.encodeWithSelector(ITaskHub.SignersDiffer.selector, address(0), address(0)));
        hub.reportSubmissions(a, b);
        a.signature = new bytes(65);
        expect(abi.encodeWithSelector(TaskHub.BadLength.selector, 65, 64));
        hub.reportSubmissions(a, b);
        eq(registry.slashed(), 0, "nobody");
    }

    function test_report_everyFieldOfABlockIsBound() public {
        ITaskHub.BlockEvidence memory a = blk(LABEL, key(0), "one");
        for (uint256 field; field < 6; ++field) {
            ITaskHub.BlockEvidence memory b = blk(LABEL, key(0), "two");
            if (field == 0) b.parent = "x";
            if (field == 1) b.leader = 1;
            if (field == 2) b.submissions = "x";
            if (field == 3) b.rejected = "x";
            if (field == 4) b.hidden = "x";
            if (field == 5) b.signature[10] ^= 0x01;
            (bool ok, bytes memory answer) = address(hub).call(abi.encodeCall(hub.reportBlocks, (a, b)));
            eq(ok, false, "forged");
            eq(bytes32(bytes4(answer)), bytes32(ITaskHub.SignersDiffer.selector), "reason");
        }
    }

    function test_report_findsTheAccountOfReplacedKeys() public {
        enrol(account(1), 0xabc, HOSPITAL, name(1), 0);
        hub.reportVotes(vote(LABEL, key(1), "one"), vote(LABEL, key(1), "two"));
        eq(registry.member(account(1)).stake, 0, "slashed");
    }

    /// @dev Leaving does not save a stake that a task counts on.
    function test_report_reachesThoseWhoLeave() public {
        started("task");
        vm.prank(account(1));
        registry.beginUnstake();
        vm.warp(deadline + UNBONDING - 1);
        expect(abi.encodeWithSelector(IRegistry.StakeLocked.selector, deadline + UNBONDING));
        vm.prank(account(1));
        registry.withdrawStake();
        hub.reportVotes(vote(LABEL, key(1), "one"), vote(LABEL, key(1), "two"));
        vm.warp(deadline + UNBONDING);
        expect(IRegistry.NothingToMove.selector);
        vm.prank(account(1));
        registry.withdrawStake();
    }

    /// @dev What was recorded is evidence: a recorded submission and a different one under its label.
    function test_report_aRecordedSubmission() public {
        bytes32 task = started("task");
        ITaskHub.RoundInput memory x = round(task, 1, 0);
        hub.submitRound(x);
        bytes32 label = labelOf(x);
        ITaskHub.SubmissionEvidence memory a = ITaskHub.SubmissionEvidence(
            label,
            1,
            uint64(read(x.submissions, 112, 8)),
            uint32(read(x.submissions, 120, 4)),
            bytes32(read(x.submissions, 124, 32)),
            slice(x.submissions, 156, 220)
        );
        hub.reportSubmissions(a, sub(label, key(1), "another"));
        eq(registry.member(account(1)).stake, 0, "slashed");
    }

    /// @dev Nobody is slashed for signing one thing, whatever else is claimed in its name.
    function testFuzz_report_neverHitsTheHonest(uint8 kind, bytes32 content, uint256 thief, bytes32 forged) public {
        thief = bound(thief, 1, 1 << 250);
        vm.assume(thief != key(1) && content != forged);
        bool ok;
        if (kind % 3 == 0) {
            (ok,) = address(hub)
                .call(abi.encodeCall(hub.reportSubmissions, (sub(LABEL, key(1), content), sub(LABEL, thief, forged))));
        } else if (kind % 3 == 1) {
            (ok,) = address(hub)
                .call(abi.encodeCall(hub.reportBlocks, (blk(LABEL, key(1), content), blk(LABEL, thief, forged))));
        } else {
            (ok,) = address(hub)
                .call(abi.encodeCall(hub.reportVotes, (vote(LABEL, key(1), content), vote(LABEL, thief, forged))));
        }
        eq(ok, false, "refused");
        eq(registry.member(account(1)).stake, 1 ether, "untouched");
    }
}
