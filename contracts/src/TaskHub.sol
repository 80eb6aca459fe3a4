// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {MerkleProof} from "@openzeppelin/contracts/utils/cryptography/MerkleProof.sol";
import {ReentrancyGuard} from "@openzeppelin/contracts/utils/ReentrancyGuard.sol";
import {SSTORE2} from "solady/utils/SSTORE2.sol";
import {EcVrf} from "./EcVrf.sol";
import {Evidence} from "./Evidence.sol";
import {ITaskHub} from "./ITaskHub.sol";
import {Packed} from "./Packed.sol";
import {Registry} from "./Registry.sol";
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
contract TaskHub is Evidence, ReentrancyGuard {
    bytes32 public constant ROUND_LABEL_TYPEHASH = keccak256(
        "RoundLabel(bytes32 task,uint32 round,uint32 attempt,bytes32 roster,bytes32 config,bytes32 model,bytes32 frame,bytes32 keys,uint256 chainId,address hub,bool simulation)"
    );
    bytes32 public constant OPENING_TYPEHASH =
        keccak256("Opening(bytes32 block,bytes32 total,uint128 sigmaMicro,uint64 epsilonMicro)");
    bytes32 public constant GENESIS_TYPEHASH = keccak256("Genesis(bytes32 model,bytes32 config,bytes32 roster)");
    bytes32 public constant TASK_TOKEN_TYPEHASH = keccak256(
        "TaskToken(bytes32 task,bytes32 genesis,bytes32 participants,uint128 reward,uint16 accuracyBps,uint64 deadline,uint16 quorum,bool vrf)"
    );
    bytes32 public constant MODEL_TOKEN_TYPEHASH =
        keccak256("ModelToken(bytes32 task,bytes32 head,bytes32 model,string link,uint16 accuracyBps)");
    /// @notice Checked off chain only; here so that tools find all types in one place.
    bytes32 public constant EVALUATION_TYPEHASH =
        keccak256("Evaluation(bytes32 task,bytes32 model,uint16 party,uint16 accuracyBps,uint32 examples)");
    bytes32 public constant RESULT_TYPEHASH =
        keccak256("Result(bytes32 modelToken,bytes32 evaluations,bytes32 payouts)");

    /// @notice Role bits.
    uint8 public constant HOSPITAL = 1;
    uint8 public constant COMMITTEE = 2;
    uint8 public constant AUTHORITY = 4;
    uint8 public constant PUBLISHER = 8;

    /// @notice Most seconds between publication and deadline: bounds how long a stake can be locked.
    uint256 public constant MAX_DURATION = 180 days;
    /// @notice Most participants of a task: what one contract's code (24,576 bytes, one of them STOP) holds.
    uint256 public constant MAX_PARTICIPANTS = (24_576 - 1) / Packed.SEAT;

    uint256 private constant MAX_BPS = 10_000;

    mapping(bytes32 task => Task) private _tasks;
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

    // ------------------------------------------------------------------------------------------------------ views

    /// @notice Id of the task that `publisher` publishes with `salt`.
    function taskId(address publisher, bytes32 salt) public view returns (bytes32) {
        return keccak256(abi.encode(block.chainid, address(this), publisher, salt));
    }

    /// @notice The task as it is now; all zeros (status None) if there is none.
    function taskOf(bytes32 task) external view returns (Task memory) {
        return _tasks[task];
    }

    /// @notice The frozen participants, 73 bytes each (see {Packed}) in roster order; empty before the start.
    function participants(bytes32 task) external view returns (bytes memory) {
        address blob = _tasks[task].blob;
        return blob == address(0) ? bytes("") : SSTORE2.read(blob);
    }

    /// @notice Whether the payout of party `index` was claimed.
    function claimed(bytes32 task, uint256 index) public view returns (bool) {
        return (_claimed[task][index >> 8] >> (index & 0xff)) & 1 == 1;
    }

    // ---------------------------------------------------------------------------------------- publication and start

    /// @notice Put the value into escrow as the reward of a new task.
    /// @return task Its id.
    /// @dev The sender must be registered as PUBLISHER. Reverts with {NotPublisher}, {AccountSuspended}, {NoReward},
    /// {RewardTooLarge}, {BadDeadline}, {BadAccuracy}, {BadQuorum} or {TaskExists}.
    function publish(PublishInput calldata input) external payable returns (bytes32 task) {
        _checkPublisher();
        if (msg.value == 0) revert NoReward();
        if (msg.value > type(uint128).max) revert RewardTooLarge(msg.value);
        if (input.deadline <= block.timestamp || input.deadline > block.timestamp + MAX_DURATION) {
            revert BadDeadline(input.deadline, block.timestamp + MAX_DURATION);
        }
        if (input.accuracyBps > MAX_BPS) revert BadAccuracy(input.accuracyBps);
        if (input.quorum == 0) revert BadQuorum(0, 0);
        task = taskId(msg.sender, input.salt);
        Task storage t = _tasks[task];
        if (t.status != Status.None) revert TaskExists(task);

        bytes32 config = keccak256(input.config);
        bytes32 genesis = keccak256(abi.encode(GENESIS_TYPEHASH, input.model, config, input.roster));
        t.deadline = input.deadline;
        t.quorum = input.quorum;
        t.status = Status.Published;
        t.vrf = input.vrf;
        t.openers = input.openers;
        t.accuracyBps = input.accuracyBps;
        t.publisher = msg.sender;
        t.publishedBlock = uint64(block.number);
        t.reward = uint128(msg.value);
        t.config = config;
        t.roster = input.roster;
        t.genesis = genesis;
        t.head = genesis;
        emit TaskPublished(
            task,
            msg.sender,
            uint128(msg.value),
            input.accuracyBps,
            input.deadline,
            genesis,
            input.model,
            input.roster,
            input.quorum,
            input.vrf,
            input.openers,
            input.config
        );
    }

    /// @notice Freeze the participants with their keys and stakes, and lock the stakes until the deadline plus the
    /// unbonding time. Only the publisher.
    /// @param accounts In the order of the roster: by strictly rising name.
    /// @param sigma1 Signature of the publisher's signer over the TaskToken; 64 bytes.
    /// @dev Reverts with {WrongStatus}, {NotPublisher}, {AccountSuspended}, {DeadlinePassed}, {TooManyParticipants},
    /// {NotActive}, {KeysTooRecent}, {NamesNotRising}, {NoHospital}, {BadQuorum}, {BadSigma1} or {Typed-BadLength}.
    function start(bytes32 task, address[] calldata accounts, bytes calldata sigma1) external {
        Task storage t = _withStatus(task, Status.Published);
        if (msg.sender != t.publisher) revert NotPublisher(msg.sender);
        address signer = _checkPublisher();
        if (block.timestamp > t.deadline) revert DeadlinePassed(t.deadline);
        if (accounts.length > MAX_PARTICIPANTS) revert TooManyParticipants(accounts.length, MAX_PARTICIPANTS);

        (bytes memory seats, uint256 committee) =
            _seat(accounts, t.deadline + registry.unbonding(), t.publishedBlock);
        uint256 quorum = t.quorum;
        if (2 * quorum <= committee || quorum > committee) revert BadQuorum(quorum, committee);
        bytes32 frozen = keccak256(seats);
        bytes32 token = keccak256(
            abi.encode(TASK_TOKEN_TYPEHASH, task, t.genesis, frozen, t.reward, t.accuracyBps, t.deadline, quorum, t.vrf)
        );
        if (_recover(token, sigma1) != signer) revert BadSigma1(signer);

        t.blob = SSTORE2.write(seats);
        t.status = Status.Started;
        t.suspensions = registry.suspensions();
        t.seedBlock = uint64(block.number + 1);
        t.startedBlock = uint64(block.number);
        t.members = uint16(accounts.length);
        t.committee = uint16(committee);
        emit TaskStarted(task, frozen, sigma1);
    }

    /// @notice Fix the seed of the election from the hash of the block after the start. Anybody may, from the block
    /// after that one on. If nobody did for 256 blocks the hash is out of reach, and the next block takes its place.
    /// @dev Returns normally after postponing (see the event). Reverts with {WrongStatus}, {SeedExists} or
    /// {SeedNotReady}.
    function drawSeed(bytes32 task) external {
        Task storage t = _withStatus(task, Status.Started);
        if (t.seed != 0) revert SeedExists(t.seed);
        uint64 seedBlock = t.seedBlock;
        if (block.number <= seedBlock) revert SeedNotReady(seedBlock);
        bytes32 hash = blockhash(seedBlock);
        if (hash == 0) {
            t.seedBlock = uint64(block.number + 1);
            emit SeedPostponed(task, uint64(block.number + 1));
            return;
        }
        bytes32 seed = keccak256(abi.encode(t.genesis, task, hash));
        t.seed = seed;
        emit SeedDrawn(task, seed, seedBlock);
    }

    // ------------------------------------------------------------------------------------------------------ rounds

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
        uint256 votes =
            _checkVotes(input.votes, seats, digest, input.leader, roles & COMMITTEE == 0 ? 0 : 1, t.quorum);
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

    // -------------------------------------------------------------------------------------------------- settlement

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

    // ----------------------------------------------------------------------------------------------------- private

    /// @dev The sender's signer, if it may publish.
    function _checkPublisher() private view returns (address signer) {
        Registry.Member memory m = registry.member(msg.sender);
        if (m.roles & PUBLISHER == 0) revert NotPublisher(msg.sender);
        if (m.suspended) revert AccountSuspended(msg.sender);
        return m.signer;
    }

    function _withStatus(bytes32 task, Status status) private view returns (Task storage t) {
        t = _tasks[task];
        if (t.status != status) revert WrongStatus(task, t.status);
    }

    function _running(bytes32 task) private view returns (Task storage t) {
        t = _withStatus(task, Status.Started);
        if (block.timestamp > t.deadline) revert DeadlinePassed(t.deadline);
    }

    /// @dev Lock all stakes and pack what is frozen. The registry is our own contract and calls nobody back.
    function _seat(address[] calldata accounts, uint64 until, uint64 publishedBlock)
        private
        returns (bytes memory seats, uint256 committee)
    {
        seats = Packed.newSeats(accounts.length);
        uint8 roles = 0;
        bytes32 last = 0;
        for (uint256 i; i < accounts.length; ++i) {
            Registry.Seat memory s = registry.lock(accounts[i], until);
            if (!s.active) revert NotActive(i, accounts[i]);
            if (s.since >= publishedBlock) revert KeysTooRecent(i, accounts[i], s.since);
            if (s.name <= last) revert NamesNotRising(i);
            last = s.name;
            roles |= s.roles;
            if (s.roles & COMMITTEE != 0) ++committee;
            // the registry's MAX_STAKE makes the cast safe
            Packed.setSeat(seats, i, s.signer, accounts[i], s.vrf, uint64(s.stake / 1 gwei), s.examples, s.roles);
        }
        if (roles & HOSPITAL == 0) revert NoHospital();
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

    /// @dev Verify votes over `digest` and count them, `own` included.
    function _checkVotes(
        bytes calldata packed,
        bytes memory seats,
        bytes32 digest,
        uint256 excluded,
        uint256 own,
        uint256 need
    ) private view returns (uint256 got) {
        got = _multiple(packed, Packed.VOTE) + own;
        uint256 bad = Packed.votes(packed, seats, digest, COMMITTEE, excluded);
        if (bad != Packed.NONE) revert BadVote(bad);
        if (got < need) revert NoQuorum(got, need);
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
        return keccak256(
            abi.encode(RESULT_TYPEHASH, token, keccak256(input.evaluations), keccak256(input.payouts))
        );
    }

    /// @dev Verify the opening of the current head, if there is one, and record it. Each block is the head for one
    /// call that may bring its opening, so it is opened at most once.
    function _recordOpening(Task storage t, bytes32 task, bytes memory seats, bytes calldata opening) private {
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
    function _refuseSuspended(bytes memory seats, uint16 party) private view {
        (address signer,,,) = Packed.seatOf(seats, party);
        if (registry.isSuspended(signer)) revert Suspended(party);
    }

    /// @dev The same for each element of a packed list that begins with its party.
    function _refuseSuspended(bytes memory seats, bytes calldata packed, uint256 unit) private view {
        for (uint256 i; i < packed.length; i += unit) {
            _refuseSuspended(seats, uint16(bytes2(packed[i:i + 2])));
        }
    }

    /// @dev Number of elements; reverts with {Typed-BadLength} if the last one is cut off.
    function _multiple(bytes calldata packed, uint256 unit) private pure returns (uint256) {
        if (packed.length % unit != 0) revert BadLength(packed.length, unit);
        return packed.length / unit;
    }

    /// @dev Last step of its callers: all state is final.
    function _pay(address receiver, uint256 amount) private {
        (bool ok,) = receiver.call{value: amount}("");
        if (!ok) revert PaymentFailed(receiver);
    }
}
