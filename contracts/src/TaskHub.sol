// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {MerkleProof} from "@openzeppelin/contracts/utils/cryptography/MerkleProof.sol";
import {ReentrancyGuard} from "@openzeppelin/contracts/utils/ReentrancyGuard.sol";
import {SSTORE2} from "solady/utils/SSTORE2.sol";
import {Evidence} from "./Evidence.sol";
import {Packed} from "./Packed.sol";
import {Registry} from "./Registry.sol";
import {Rounds} from "./Rounds.sol";
import {Typed} from "./Typed.sol";

/// @title Tasks: escrow, rounds, settlement
/// @notice A publisher puts a reward into escrow ({publish}) and freezes the participants ({start}). Each round is one
/// transaction with the submissions that hospitals signed, the block that the leader signed and the votes of a
/// committee that recomputed it ({submitRound}). At the end the committee votes on the final model and on who is paid
/// ({settle}); payees fetch their part ({claim}). A task that is not settled by its deadline returns the escrow to the
/// publisher ({refund}). Transactions may be sent by anybody, except where the sender's own money or word is meant:
/// what counts are the signatures inside.
///
/// Nobody owns this contract, and it cannot be changed. The reward of a task leaves by exactly one of two ways: claims
/// that sum to it, or one refund.
contract TaskHub is Rounds, ReentrancyGuard {
    /// @notice EIP-712 types of what ends a task.
    bytes32 public constant MODEL_TOKEN_TYPEHASH =
        keccak256("ModelToken(bytes32 task,bytes32 head,bytes32 model,string link,uint16 accuracyBps)");
    bytes32 public constant RESULT_TYPEHASH =
        keccak256("Result(bytes32 modelToken,bytes32 evaluations,bytes32 payouts)");
    /// @notice Checked off chain only; here so that tools find all types in one place.
    bytes32 public constant EVALUATION_TYPEHASH =
        keccak256("Evaluation(bytes32 task,bytes32 model,uint16 party,uint16 accuracyBps,uint32 examples)");

    /// @dev Bit i of word w: the payout of party 256 w + i was claimed.
    mapping(bytes32 task => mapping(uint256 word => uint256 bits)) private _claimed;

    /// @notice Deploys its own registry.
    /// @param authority Owner of the registry: may suspend accounts.
    /// @param treasury Receiver of slashed stakes.
    /// @param unbonding Seconds that a stake stays after its owner left, and after the end of a task.
    /// @param simulation_ Whether development identities take part, see {Typed}.
    constructor(address authority, address treasury, uint64 unbonding, bool simulation_)
        Typed(address(this), simulation_)
        Evidence(new Registry(authority, treasury, unbonding, simulation_))
    {}

    /// @notice Whether the payout of party `index` was claimed.
    function claimed(bytes32 task, uint256 index) public view returns (bool) {
        return (_claimed[task][index >> 8] >> (index & 0xff)) & 1 == 1;
    }

    /// @notice Accept the final model and who is paid. Anybody may send it, until the deadline.
    /// @dev Reverts with {WrongStatus}, {DeadlinePassed}, {NoRounds}, {BadAccuracy}, {AccuracyTooLow},
    /// {BadModelSignature}, {BadVote}, {NoQuorum}, {Suspended}, {BadOpening}, {NoPayouts}, {BadPayout}, {WrongSum} or
    /// {Typed-BadLength}.
    function settle(SettleInput calldata input) external {
        Task storage t = _running(input.task);
        if (t.height == 0) revert NoRounds();
        if (input.accuracyBps > MAX_BPS) revert BadAccuracy(input.accuracyBps);
        if (input.accuracyBps < t.accuracyBps) revert AccuracyTooLow(input.accuracyBps, t.accuracyBps);
        bytes memory seats = SSTORE2.read(t.blob);
        bytes32 result = _checkResult(t, input, seats);
        _checkVotes(input.votes, seats, _digest(result), Packed.NONE, 0, t.quorum);
        if (registry.suspensions() != t.suspensions) {
            _refuseSuspended(seats, input.party);
            _refuseSuspended(seats, input.votes, Packed.VOTE);
        }
        _recordOpening(t, input.task, seats, input.opening);

        if (_multiple(input.payouts, Packed.PAYOUT) == 0) revert NoPayouts();
        (bytes32 root, uint256 sum, uint256 bad) = Packed.payouts(input.payouts, seats);
        if (bad != Packed.NONE) revert BadPayout(bad);
        if (sum != t.reward) revert WrongSum(sum, t.reward);
        t.status = Status.Settled;
        t.payoutRoot = root;
        emit TaskSettled(input.task, input.model, input.link, input.accuracyBps, root);
    }

    /// @notice Fetch the sender's own payout.
    /// @param index The sender's party index.
    /// @param amount In wei.
    /// @param proof Merkle proof, see {Packed-payouts}.
    /// @dev A receiver that reverts or calls back harms only itself. Reverts with {WrongStatus}, {AlreadyClaimed},
    /// {BadClaim} or {PaymentFailed}.
    function claim(bytes32 task, uint256 index, uint256 amount, bytes32[] calldata proof) external nonReentrant {
        Task storage t = _withStatus(task, Status.Settled);
        if (claimed(task, index)) revert AlreadyClaimed(index);
        bytes32 leaf = keccak256(bytes.concat(keccak256(abi.encode(index, msg.sender, amount))));
        if (!MerkleProof.verifyCalldata(proof, t.payoutRoot, leaf)) revert BadClaim(index, msg.sender, amount);
        _claimed[task][index >> 8] |= 1 << (index & 0xff);
        emit Claimed(task, index, msg.sender, amount);
        _pay(msg.sender, amount);
    }

    /// @notice Return the escrow of a task that was not settled in time to its publisher. Anybody may call this.
    /// @dev Reverts with {WrongStatus}, {DeadlineNotPassed} or {PaymentFailed}.
    function refund(bytes32 task) external nonReentrant {
        Task storage t = _tasks[task];
        if (t.status != Status.Published && t.status != Status.Started) revert WrongStatus(task, t.status);
        if (block.timestamp <= t.deadline) revert DeadlineNotPassed(t.deadline);
        t.status = Status.Refunded;
        emit TaskRefunded(task, t.reward);
        _pay(t.publisher, t.reward);
    }

    /// @dev Verify sigma2; the Result that the committee votes on.
    function _checkResult(Task storage t, SettleInput calldata input, bytes memory seats)
        private
        view
        returns (bytes32)
    {
        bytes32 token = keccak256(
            abi.encode(
                MODEL_TOKEN_TYPEHASH, input.task, t.head, input.model, keccak256(bytes(input.link)), input.accuracyBps
            )
        );
        (address signer,,, uint8 roles) = Packed.seatOf(seats, input.party);
        if (roles & (HOSPITAL | COMMITTEE) == 0 || _recover(token, input.modelSignature) != signer) {
            revert BadModelSignature(input.party);
        }
        _multiple(input.evaluations, Packed.EVALUATION);
        return keccak256(abi.encode(RESULT_TYPEHASH, token, keccak256(input.evaluations), keccak256(input.payouts)));
    }

    /// @dev Last step of its callers: all state is final.
    function _pay(address receiver, uint256 amount) private {
        (bool ok,) = receiver.call{value: amount}("");
        if (!ok) revert PaymentFailed(receiver);
    }
}
