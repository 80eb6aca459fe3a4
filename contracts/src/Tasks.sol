// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {SSTORE2} from "solady/utils/SSTORE2.sol";
import {Evidence} from "./Evidence.sol";
import {IRegistry} from "./IRegistry.sol";
import {Packed} from "./Packed.sol";

/// @title Tasks from their publication to the seed of the election
/// @notice A publisher puts a reward into escrow ({publish}) and freezes the participants ({start}); after the next block
/// anybody draws the seed ({drawSeed}).
abstract contract Tasks is Evidence {
    /// @notice EIP-712 types of what a task begins with.
    bytes32 public constant GENESIS_TYPEHASH = keccak256("Genesis(bytes32 model,bytes32 config,bytes32 roster)");
    bytes32 public constant TASK_TOKEN_TYPEHASH = keccak256(
        "TaskToken(bytes32 task,bytes32 genesis,bytes32 participants,uint128 reward,uint16 accuracyBps,uint64 deadline,uint16 quorum,bool vrf)"
    );

    /// @notice Role bits, as accounts declare them in the registry.
    uint8 public constant HOSPITAL = 1;
    uint8 public constant COMMITTEE = 2;
    uint8 public constant AUTHORITY = 4;
    uint8 public constant PUBLISHER = 8;

    /// @notice Most seconds between publication and deadline: bounds how long a stake can be locked.
    uint256 public constant MAX_DURATION = 180 days;
    /// @notice Most participants of a task: what one contract's code (24,576 bytes, one of them STOP) holds.
    uint256 public constant MAX_PARTICIPANTS = (24_576 - 1) / Packed.SEAT;

    uint256 internal constant MAX_BPS = 10_000;

    mapping(bytes32 task => Task) internal _tasks;

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

        (bytes memory seats, uint256 committee) = _seat(accounts, t.deadline + registry.unbonding(), t.publishedBlock);
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

    /// @dev The task, which must be in this state.
    function _withStatus(bytes32 task, Status status) internal view returns (Task storage t) {
        t = _tasks[task];
        if (t.status != status) revert WrongStatus(task, t.status);
    }

    /// @dev The task, which must be started and not over.
    function _running(bytes32 task) internal view returns (Task storage t) {
        t = _withStatus(task, Status.Started);
        if (block.timestamp > t.deadline) revert DeadlinePassed(t.deadline);
    }

    /// @dev The sender's signer, if it may publish.
    function _checkPublisher() private view returns (address signer) {
        IRegistry.Member memory m = registry.member(msg.sender);
        if (m.roles & PUBLISHER == 0) revert NotPublisher(msg.sender);
        if (m.suspended) revert AccountSuspended(msg.sender);
        return m.signer;
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
            IRegistry.Seat memory s = registry.lock(accounts[i], until);
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
}
