// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {SSTORE2} from "solady/utils/SSTORE2.sol";
import {EcVrf} from "./EcVrf.sol";
import {Packed} from "./Packed.sol";
import {Tasks} from "./Tasks.sol";

/// @title Rounds: hash-chained blocks
/// @notice Each block is one transaction with the submissions that hospitals signed, the block that the leader signed
/// and the votes of a committee that recomputed it ({submitRound}).
abstract contract Rounds is Tasks {
    /// @notice EIP-712 types of what is signed around a block.
    bytes32 public constant ROUND_LABEL_TYPEHASH = keccak256(
        "RoundLabel(bytes32 task,uint32 round,uint32 attempt,bytes32 roster,bytes32 config,bytes32 model,bytes32 frame,bytes32 keys,uint256 chainId,address hub,bool simulation)"
    );
    bytes32 public constant OPENING_TYPEHASH =
        keccak256("Opening(bytes32 block,bytes32 total,uint128 sigmaMicro,uint64 epsilonMicro)");

    /// @notice Record a block: one attempt at one round. Anybody may send it.
    /// @return blockHash hashStruct of the Block: the new head.
    /// @dev Not bound by any signature, hence at the sender's discretion: which votes beyond the quorum are included,
    /// and whether the opening is. Reverts with {WrongStatus}, {DeadlinePassed}, {RoundNotRising}, {NoSubmissions},
    /// {BadSubmission}, {BadRejected}, {NotLeader}, {NoSeed}, {EcVrf-BadProof}, {BadLeaderSignature}, {BadVote},
    /// {NoQuorum}, {BadOpening}, {Suspended} or {Typed-BadLength}.
    function submitRound(RoundInput calldata input) external returns (bytes32 blockHash) {
        Task storage t = _running(input.task);
        (uint32 round, uint32 attempt, uint32 height) = (t.round, t.attempt, t.height);
        if (input.round == 0 || input.round < round || (input.round == round && input.attempt <= attempt)) {
            revert RoundNotRising(input.round, input.attempt, round, attempt);
        }
        bytes memory seats = SSTORE2.read(t.blob);
        bytes32 parent = t.head;
        bytes32 label = _label(t, input);
        uint256 count = _multiple(input.submissions, Packed.SUBMISSION);
        if (count == 0) revert NoSubmissions();

        blockHash = _checkBlock(input, seats, parent, label);
        uint8 roles = _checkLeader(t, input, seats, blockHash, height + 1);
        bytes32 digest = _digest(keccak256(abi.encode(VOTE_TYPEHASH, label, blockHash)));
        uint256 votes = _checkVotes(input.votes, seats, digest, input.leader, roles & COMMITTEE == 0 ? 0 : 1, t.quorum);
        if (registry.suspensions() != t.suspensions) {
            _refuseSuspended(seats, input.leader);
            _refuseSuspended(seats, input.submissions, Packed.SUBMISSION);
            _refuseSuspended(seats, input.votes, Packed.VOTE);
        }
        _recordOpening(t, input.task, seats, input.opening);

        (t.round, t.attempt, t.height) = (input.round, input.attempt, height + 1);
        t.head = blockHash;
        emit RoundRecorded(
            input.task,
            input.round,
            blockHash,
            input.attempt,
            parent,
            label,
            input.leader,
            input.hidden,
            uint16(count),
            uint16(votes)
        );
    }

    /// @dev Verify votes over `digest` and count them, `own` included.
    function _checkVotes(
        bytes calldata packed,
        bytes memory seats,
        bytes32 digest,
        uint256 excluded,
        uint256 own,
        uint256 need
    ) internal view returns (uint256 got) {
        got = _multiple(packed, Packed.VOTE) + own;
        uint256 bad = Packed.votes(packed, seats, digest, COMMITTEE, excluded);
        if (bad != Packed.NONE) revert BadVote(bad);
        if (got < need) revert NoQuorum(got, need);
    }

    /// @dev Verify the opening of the current head, if there is one, and record it. Each block is the head for one
    /// call that may bring its opening, so it is opened at most once.
    function _recordOpening(Task storage t, bytes32 task, bytes memory seats, bytes calldata opening) internal {
        if (opening.length == 0) return;
        if (opening.length != Packed.OPENING) revert BadLength(opening.length, Packed.OPENING);
        bytes32 head = t.head;
        bytes32 total = bytes32(opening[:32]);
        uint128 sigmaMicro = uint128(bytes16(opening[32:48]));
        uint64 epsilonMicro = uint64(bytes8(opening[48:56]));
        uint16 party = uint16(bytes2(opening[56:58]));
        bytes32 structHash = keccak256(abi.encode(OPENING_TYPEHASH, head, total, sigmaMicro, epsilonMicro));
        (address signer,,, uint8 roles) = Packed.seatOf(seats, party);
        if (t.height == 0 || roles & t.openers == 0 || _recover(structHash, opening[58:]) != signer) {
            revert BadOpening(party);
        }
        emit OpeningRecorded(task, head, total, sigmaMicro, epsilonMicro);
    }

    /// @dev Slow path, taken when any account was suspended, or lifted, since the start.
    function _refuseSuspended(bytes memory seats, uint16 party) internal view {
        (address signer,,,) = Packed.seatOf(seats, party);
        if (registry.isSuspended(signer)) revert Suspended(party);
    }

    /// @dev The same for each element of a packed list that begins with its party.
    function _refuseSuspended(bytes memory seats, bytes calldata packed, uint256 unit) internal view {
        for (uint256 i; i < packed.length; i += unit) {
            _refuseSuspended(seats, uint16(bytes2(packed[i:i + 2])));
        }
    }

    /// @dev Number of elements; reverts with {Typed-BadLength} if the last one is cut off.
    function _multiple(bytes calldata packed, uint256 unit) internal pure returns (uint256) {
        if (packed.length % unit != 0) revert BadLength(packed.length, unit);
        return packed.length / unit;
    }

    function _label(Task storage t, RoundInput calldata input) private view returns (bytes32) {
        return keccak256(
            abi.encode(
                ROUND_LABEL_TYPEHASH,
                input.task,
                input.round,
                input.attempt,
                t.roster,
                t.config,
                input.model,
                input.frame,
                input.keys,
                block.chainid,
                address(this),
                simulation
            )
        );
    }

    /// @dev Verify what a block lists, and hash it.
    function _checkBlock(RoundInput calldata input, bytes memory seats, bytes32 parent, bytes32 label)
        private
        view
        returns (bytes32)
    {
        (bytes32 submissions, uint256 bad) =
            Packed.submissions(input.submissions, seats, separator(), SUBMISSION_TYPEHASH, label, HOSPITAL);
        if (bad != Packed.NONE) revert BadSubmission(bad);
        _multiple(input.rejected, Packed.REJECTED);
        bytes32 rejected;
        (rejected, bad) = Packed.rejected(input.rejected, seats.length / Packed.SEAT);
        if (bad != Packed.NONE) revert BadRejected(bad);
        return _blockHash(parent, label, input.leader, submissions, rejected, input.hidden);
    }

    /// @dev Verify that the leader may lead at this height and signed the block. That its draw is the lowest among the
    /// candidates (up to the attempt) is for the committee to check, and for audits.
    function _checkLeader(
        Task storage t,
        RoundInput calldata input,
        bytes memory seats,
        bytes32 blockHash,
        uint256 height
    ) private view returns (uint8) {
        (address signer, address vrf, uint64 stake, uint8 roles) = Packed.seatOf(seats, input.leader);
        if (roles & HOSPITAL == 0 || stake == 0) revert NotLeader(input.leader);
        if (_recover(blockHash, input.leaderSignature) != signer) revert BadLeaderSignature(input.leader);
        if (t.vrf) {
            bytes32 seed = t.seed;
            if (seed == 0) revert NoSeed(input.task);
            EcVrf.verify(vrf, keccak256(abi.encode(seed, height)), input.proof);
        }
        return roles;
    }
}
