// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

/// @title Values, events and errors of the {TaskHub}
/// @notice Everything that an auditor reads is in the events and in the calldata of the transactions that emitted them.
interface ITaskHub {
    /// @notice Life of a task. Settled and Refunded are final.
    enum Status {
        None,
        Published,
        Started,
        Settled,
        Refunded
    }

    /// @notice A task as it is now.
    /// @param blob SSTORE2 contract that holds the participants; zero before the start.
    /// @param round The last recorded block's.
    /// @param attempt The last recorded block's.
    /// @param height Number of recorded blocks.
    /// @param deadline Last second at which rounds and the settlement are accepted.
    /// @param quorum Votes that a block and the settlement need.
    /// @param vrf Whether the contract verifies leaders' VRF proofs.
    /// @param openers Role bits of those who may sign openings.
    /// @param accuracyBps Accuracy to reach, in hundredths of a per cent.
    /// @param suspensions The registry's count of suspensions at the start.
    /// @param seedBlock Block whose hash makes the seed.
    /// @param publisher Account that pays, and is refunded.
    /// @param reward Escrow in wei.
    /// @param members Number of participants.
    /// @param committee Number of participants with the COMMITTEE role.
    /// @param config Hash of the TaskConfig.
    /// @param roster Hash of the roster.
    /// @param genesis Hash of Genesis(model, config, roster): parent of the first block.
    /// @param head Hash of the last block; the genesis hash before the first.
    /// @param seed Zero until it is drawn.
    /// @param payoutRoot Merkle root of the payouts; zero until settled.
    struct Task {
        // read and written by each round
        address blob;
        uint32 round;
        uint32 attempt;
        uint32 height;
        // read by each round
        uint64 deadline;
        uint16 quorum;
        Status status;
        bool vrf;
        uint8 openers;
        uint16 accuracyBps;
        uint64 suspensions;
        uint64 seedBlock;
        // the rest
        address publisher;
        uint64 publishedBlock;
        uint128 reward;
        uint64 startedBlock;
        uint16 members;
        uint16 committee;
        bytes32 config;
        bytes32 roster;
        bytes32 genesis;
        bytes32 head;
        bytes32 seed;
        bytes32 payoutRoot;
    }

    /// @notice Argument of {Tasks-publish}.
    /// @param salt Chosen by the publisher; one task per publisher and salt.
    /// @param model Hash of the initial arrays.
    /// @param roster Hash of the roster.
    /// @param config Canonical JSON of the TaskConfig; its keccak-256 is the config hash.
    struct PublishInput {
        bytes32 salt;
        bytes32 model;
        bytes32 roster;
        uint16 accuracyBps;
        uint64 deadline;
        uint16 quorum;
        bool vrf;
        uint8 openers;
        bytes config;
    }

    /// @notice Argument of {Rounds-submitRound}. Packed forms: see {Packed}.
    /// @param model Hash of the global arrays and train config that were sent.
    /// @param frame Hash of the codec's public numbers.
    /// @param keys Hash of scheme keys and ticket.
    /// @param leader Roster index.
    /// @param hidden Hash of the combined payload.
    /// @param submissions 110 bytes each.
    /// @param rejected 2 bytes each.
    /// @param leaderSignature Over the Block; 64 bytes.
    /// @param votes 66 bytes each, over the Vote.
    /// @param proof The leader's VRF proof, see {EcVrf}; ignored unless the task has `vrf`.
    /// @param opening Of the block before this one: 122 bytes, or empty.
    struct RoundInput {
        bytes32 task;
        uint32 round;
        uint32 attempt;
        bytes32 model;
        bytes32 frame;
        bytes32 keys;
        uint16 leader;
        bytes32 hidden;
        bytes submissions;
        bytes rejected;
        bytes leaderSignature;
        bytes votes;
        bytes proof;
        bytes opening;
    }

    /// @notice Argument of {TaskHub-settle}. Packed forms: see {Packed}.
    /// @param model Hash of the final model.
    /// @param link Where the final model is.
    /// @param party Roster index of the signer of sigma2.
    /// @param modelSignature sigma2, over the ModelToken; 64 bytes.
    /// @param evaluations 72 bytes each; bound by the votes, checked off chain.
    /// @param payouts 18 bytes each; their sum is the reward.
    /// @param votes 66 bytes each, over the Result.
    /// @param opening Of the last block: 122 bytes, or empty.
    struct SettleInput {
        bytes32 task;
        bytes32 model;
        string link;
        uint16 accuracyBps;
        uint16 party;
        bytes modelSignature;
        bytes evaluations;
        bytes payouts;
        bytes votes;
        bytes opening;
    }

    /// @notice A signed Submission.
    struct SubmissionEvidence {
        bytes32 label;
        uint16 party;
        uint64 draw;
        uint32 computeMs;
        bytes32 content;
        bytes signature;
    }

    /// @notice A signed Block.
    /// @param submissions EIP-712 hash of the array: keccak-256 of the concatenated struct hashes.
    /// @param rejected EIP-712 hash of the array: keccak-256 of the concatenated 32-byte words.
    struct BlockEvidence {
        bytes32 parent;
        bytes32 label;
        uint16 leader;
        bytes32 submissions;
        bytes32 rejected;
        bytes32 hidden;
        bytes signature;
    }

    /// @notice A signed Vote.
    struct VoteEvidence {
        bytes32 label;
        bytes32 blockHash;
        bytes signature;
    }

    /// @notice A task with `reward` wei in escrow waits for its start.
    event TaskPublished(
        bytes32 indexed task,
        address indexed publisher,
        uint128 reward,
        uint16 accuracyBps,
        uint64 deadline,
        bytes32 genesis,
        bytes32 model,
        bytes32 roster,
        uint16 quorum,
        bool vrf,
        uint8 openers,
        bytes config
    );
    /// @notice Participants (their hash) are frozen; `sigma1` is the publisher's signature.
    event TaskStarted(bytes32 indexed task, bytes32 participants, bytes sigma1);
    /// @notice The election's seed is known, from the hash of block `blockNumber`.
    event SeedDrawn(bytes32 indexed task, bytes32 seed, uint64 blockNumber);
    /// @notice Nobody drew the seed in time; it will come from block `blockNumber`.
    event SeedPostponed(bytes32 indexed task, uint64 blockNumber);
    /// @notice A block was recorded.
    /// @param submissions How many.
    /// @param votes How many counted, the leader's own included.
    event RoundRecorded(
        bytes32 indexed task,
        uint32 indexed round,
        bytes32 indexed blockHash,
        uint32 attempt,
        bytes32 parent,
        bytes32 label,
        uint16 leader,
        bytes32 hidden,
        uint16 submissions,
        uint16 votes
    );
    /// @notice What the opener of a block said: hash of the noised sum, sigma, and epsilon after it.
    event OpeningRecorded(
        bytes32 indexed task, bytes32 indexed blockHash, bytes32 total, uint128 sigmaMicro, uint64 epsilonMicro
    );
    /// @notice The final model was accepted; payouts can be claimed.
    event TaskSettled(bytes32 indexed task, bytes32 model, string link, uint16 accuracyBps, bytes32 payoutRoot);
    /// @notice `account`, which is party `index`, was paid.
    event Claimed(bytes32 indexed task, uint256 index, address account, uint256 amount);
    /// @notice The publisher has its escrow back.
    event TaskRefunded(bytes32 indexed task, uint256 amount);
    /// @notice `account` signed two different structs under one label.
    /// @param kind 1 submissions, 2 blocks, 3 votes.
    event Equivocation(address indexed account, bytes32 indexed label, uint8 kind);

    /// @notice The task is not in a state that allows this.
    error WrongStatus(bytes32 task, Status status);
    /// @notice It is too late.
    error DeadlinePassed(uint64 deadline);
    /// @notice It is too early: refunds begin after the deadline.
    error DeadlineNotPassed(uint64 deadline);

    /// @notice This publisher used this salt before.
    error TaskExists(bytes32 task);
    /// @notice The account is not registered with the PUBLISHER role, or the task is another's.
    error NotPublisher(address account);
    /// @notice The authority suspended the account.
    error AccountSuspended(address account);
    /// @notice Nothing was sent.
    error NoReward();
    /// @notice The reward does not fit uint128.
    error RewardTooLarge(uint256 reward);
    /// @notice A deadline is after now and at most {Tasks-MAX_DURATION} away.
    error BadDeadline(uint64 deadline, uint256 latest);
    /// @notice Accuracy is at most 10000.
    error BadAccuracy(uint16 accuracyBps);
    /// @notice A quorum is more than half of the committee and at most all of it.
    error BadQuorum(uint256 quorum, uint256 committee);

    /// @notice More participants than one SSTORE2 contract holds.
    error TooManyParticipants(uint256 n, uint256 max);
    /// @notice The account at this position is not registered, suspended, or leaving.
    error NotActive(uint256 index, address account);
    /// @notice Participants come by strictly rising name.
    error NamesNotRising(uint256 index);
    /// @notice Keys must be older than the publication, so that none is chosen for its draws.
    error KeysTooRecent(uint256 index, address account, uint64 since);
    /// @notice Nobody could train.
    error NoHospital();
    /// @notice sigma1 is not by the publisher's signer over what was frozen.
    error BadSigma1(address signer);

    /// @notice The seed needs the hash of a block that is not there yet.
    error SeedNotReady(uint64 seedBlock);
    /// @notice The seed is there already.
    error SeedExists(bytes32 seed);
    /// @notice The election needs a seed: call {Tasks-drawSeed}.
    error NoSeed(bytes32 task);

    /// @notice (round, attempt) is not above the last recorded one.
    error RoundNotRising(uint32 round, uint32 attempt, uint32 lastRound, uint32 lastAttempt);
    /// @notice A block has at least one submission.
    error NoSubmissions();
    /// @notice The submission at this position is not by a hospital of the task with a higher index than the one
    /// before, over exactly this label: drop it and resend.
    error BadSubmission(uint256 index);
    /// @notice The rejected party at this position is no participant, or not higher than the one before.
    error BadRejected(uint256 index);
    /// @notice The party is not a hospital with a stake.
    error NotLeader(uint16 party);
    /// @notice The block's signature is not the leader's.
    error BadLeaderSignature(uint16 party);
    /// @notice The vote at this position is not by a committee member (other than the leader) with a higher index than
    /// the one before, over exactly this.
    error BadVote(uint256 index);
    /// @notice Too few votes.
    error NoQuorum(uint256 got, uint256 need);
    /// @notice The opening is not of the last block, or not signed by a party that may open.
    error BadOpening(uint16 party);
    /// @notice The authority suspended the party after the start.
    error Suspended(uint16 party);

    /// @notice A task without a block cannot be settled.
    error NoRounds();
    /// @notice The accuracy that was asked for is not reached.
    error AccuracyTooLow(uint16 got, uint16 need);
    /// @notice sigma2 is not by this party, or the party is neither hospital nor committee member.
    error BadModelSignature(uint16 party);
    /// @notice There is at least one payout.
    error NoPayouts();
    /// @notice The payout at this position is not for a participant with a higher index than the one before, or is zero.
    error BadPayout(uint256 index);
    /// @notice Payouts must sum to the reward.
    error WrongSum(uint256 sum, uint256 reward);
    /// @notice This party has claimed its payout.
    error AlreadyClaimed(uint256 index);
    /// @notice The sender has no such payout.
    error BadClaim(uint256 index, address account, uint256 amount);
    /// @notice The receiver refused the payment.
    error PaymentFailed(address receiver);

    /// @notice Signing two things is only forbidden under one label.
    error LabelsDiffer();
    /// @notice Both are the same struct.
    error SameStruct();
    /// @notice A signature is void, or the two are by different keys.
    error SignersDiffer(address a, address b);
    /// @notice The key was never registered.
    error UnknownSigner(address signer);
    /// @notice This was punished before.
    error AlreadyPunished(bytes32 evidence);
}
