// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {ITaskHub} from "./ITaskHub.sol";
import {Registry} from "./Registry.sol";
import {Typed} from "./Typed.sol";

/// @title Punishment of those who sign two things under one label
/// @notice A label names one attempt at one round. An honest party signs one submission, one block and one vote under a
/// label (it keeps them on disk), and answers a new attempt under a new label. Two different ones are proof enough: no
/// judgement is needed, and the whole stake is taken. A bad update is no such thing; it is voted out and earns nothing.
abstract contract Evidence is Typed, ITaskHub {
    /// @notice EIP-712 types of what is signed in a round.
    bytes32 public constant SUBMISSION_TYPEHASH =
        keccak256("Submission(bytes32 label,uint16 party,uint64 draw,uint32 computeMs,bytes32 content)");
    bytes32 public constant BLOCK_TYPEHASH = keccak256(
        "Block(bytes32 parent,bytes32 label,uint16 leader,bytes32[] submissions,uint16[] rejected,bytes32 hidden)"
    );
    bytes32 public constant VOTE_TYPEHASH = keccak256("Vote(bytes32 label,bytes32 block)");

    uint8 private constant SUBMISSIONS = 1;
    uint8 private constant BLOCKS = 2;
    uint8 private constant VOTES = 3;

    /// @notice Keys, roles and stakes.
    Registry public immutable registry;

    mapping(bytes32 evidence => bool) private _punished;

    constructor(Registry registry_) {
        registry = registry_;
    }

    /// @notice Prove that one key signed two submissions under one label; anybody may.
    /// @dev Reverts with {LabelsDiffer}, {SameStruct}, {SignersDiffer}, {UnknownSigner}, {AlreadyPunished} or
    /// {Typed-BadLength}.
    function reportSubmissions(SubmissionEvidence calldata a, SubmissionEvidence calldata b) external {
        _punish(SUBMISSIONS, a.label, b.label, _hash(a), _hash(b), a.signature, b.signature);
    }

    /// @notice Prove that one key signed two blocks under one label; anybody may.
    /// @dev Reverts as {reportSubmissions}.
    function reportBlocks(BlockEvidence calldata a, BlockEvidence calldata b) external {
        _punish(BLOCKS, a.label, b.label, _hash(a), _hash(b), a.signature, b.signature);
    }

    /// @notice Prove that one key signed two votes under one label; anybody may.
    /// @dev Reverts as {reportSubmissions}.
    function reportVotes(VoteEvidence calldata a, VoteEvidence calldata b) external {
        _punish(VOTES, a.label, b.label, _hash(a), _hash(b), a.signature, b.signature);
    }

    /// @dev The account pays once per (label, signer, kind), however many structs it signed.
    function _punish(
        uint8 kind,
        bytes32 label,
        bytes32 otherLabel,
        bytes32 structA,
        bytes32 structB,
        bytes calldata signatureA,
        bytes calldata signatureB
    ) private {
        if (label != otherLabel) revert LabelsDiffer();
        if (structA == structB) revert SameStruct();
        address signer = _recover(structA, signatureA);
        address other = _recover(structB, signatureB);
        if (signer == address(0) || signer != other) revert SignersDiffer(signer, other);
        address account = registry.accountOf(signer);
        if (account == address(0)) revert UnknownSigner(signer);
        bytes32 evidence = keccak256(abi.encode(label, signer, kind));
        if (_punished[evidence]) revert AlreadyPunished(evidence);
        _punished[evidence] = true;
        emit Equivocation(account, label, kind);
        registry.slash(account, evidence);
    }

    function _hash(SubmissionEvidence calldata x) private pure returns (bytes32) {
        return keccak256(abi.encode(SUBMISSION_TYPEHASH, x.label, x.party, x.draw, x.computeMs, x.content));
    }

    function _hash(BlockEvidence calldata x) private pure returns (bytes32) {
        return _blockHash(x.parent, x.label, x.leader, x.submissions, x.rejected, x.hidden);
    }

    function _hash(VoteEvidence calldata x) private pure returns (bytes32) {
        return keccak256(abi.encode(VOTE_TYPEHASH, x.label, x.blockHash));
    }

    /// @dev hashStruct of a Block of which the arrays are hashed.
    function _blockHash(
        bytes32 parent,
        bytes32 label,
        uint16 leader,
        bytes32 submissions,
        bytes32 rejected,
        bytes32 hidden
    ) internal pure returns (bytes32) {
        return keccak256(abi.encode(BLOCK_TYPEHASH, parent, label, leader, submissions, rejected, hidden));
    }
}
