// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {IRegistry} from "../src/IRegistry.sol";
import {ITaskHub} from "../src/ITaskHub.sol";
import {Base, vm} from "./Base.sol";
import {Registry, TaskHub} from "./Interfaces.sol";

/// @dev A hub, six registered parties and a publisher, and everything they sign. Types are written out again instead of
/// read from the contracts, so that a slip there cannot hide here.
///
///     index   0                   1         2                    3          4          5
///     roles   hospital+committee  hospital  hospital (no stake)  committee  committee  authority
///
/// The committee has three members; the quorum is two.
abstract contract World is Base {
    uint8 internal constant HOSPITAL = 1;
    uint8 internal constant COMMITTEE = 2;
    uint8 internal constant AUTHORITY = 4;
    uint8 internal constant PUBLISHER = 8;
    uint64 internal constant UNBONDING = 1 days;
    uint16 internal constant PARTIES = 6;
    uint256 internal constant PUBLISHER_KEY = 0x9b;
    uint128 internal constant REWARD = 1 ether;
    uint16 internal constant ACCURACY = 9000;

    TaskHub internal hub;
    Registry internal registry;
    address internal owner = address(0xA0);
    address internal treasury = address(0x7e);
    address internal publisher = address(0x9b1);
    uint64 internal deadline;

    function setUp() public virtual {
        vm.warp(1_750_000_000);
        vm.roll(1000);
        hub = deployHub(UNBONDING, true);
        registry = hub.registry();
        enrol(publisher, PUBLISHER_KEY, PUBLISHER, "publisher", 0);
        vm.deal(publisher, 1000 ether);
        for (uint16 i; i < PARTIES; ++i) {
            enrol(account(i), key(i), roles(i), name(i), stake(i));
        }
        mine(1);
        deadline = time() + 10 days;
    }

    function deployHub(uint64 unbonding, bool simulation) internal returns (TaskHub) {
        return TaskHub(deploy("TaskHub.sol:TaskHub", abi.encode(owner, treasury, unbonding, simulation)));
    }

    function deployRegistry(address owner_, address treasury_, uint64 unbonding) internal returns (Registry) {
        return Registry(deploy("Registry.sol:Registry", abi.encode(owner_, treasury_, unbonding, true)));
    }

    /// @dev Create the contract of that name, as compiled for deployment.
    function deploy(string memory what, bytes memory arguments) private returns (address made) {
        bytes memory code = bytes.concat(vm.getCode(what), arguments);
        assembly ("memory-safe") {
            made := create(0, add(code, 0x20), mload(code))
        }
        require(made != address(0), "not deployed");
    }

    // -------------------------------------------------------------------------------------------------- parties

    function key(uint16 party) internal pure returns (uint256) {
        return 0xc0ffee + party;
    }

    function account(uint16 party) internal pure virtual returns (address) {
        return address(uint160(0xACC0000) + party);
    }

    function roles(uint16 party) internal pure virtual returns (uint8) {
        if (party == 0) return HOSPITAL | COMMITTEE;
        return party < 3 ? HOSPITAL : party < 5 ? COMMITTEE : AUTHORITY;
    }

    function stake(uint16 party) internal pure virtual returns (uint256) {
        return party == 0 ? 3 ether : party == 2 ? 0 : 1 ether;
    }

    function vrfOf(uint256 key_) internal view virtual returns (address) {
        return vm.addr(key_ + (1 << 128));
    }

    function name(uint16 party) internal pure returns (bytes32) {
        return bytes32(abi.encodePacked("party-", bytes1(uint8(0x30 + party / 10)), bytes1(uint8(0x30 + party % 10))));
    }

    function form(uint256 key_, uint8 roles_, bytes32 name_) internal view returns (IRegistry.RegisterInput memory) {
        return IRegistry.RegisterInput(vm.addr(key_), vrfOf(key_), bytes32("x25519"), 0, 100, roles_, name_);
    }

    function proofOf(address account_, uint256 key_, IRegistry.RegisterInput memory x)
        internal
        view
        returns (bytes memory)
    {
        bytes32 typeHash = keccak256(
            "Register(address account,address signer,address vrf,bytes32 encryption,bytes32 schemeKey,uint32 examples,uint8 roles,bytes32 name)"
        );
        return sign(key_, keccak256(abi.encode(typeHash, account_, x)));
    }

    function enrol(address account_, uint256 key_, uint8 roles_, bytes32 name_, uint256 stake_) internal {
        IRegistry.RegisterInput memory x = form(key_, roles_, name_);
        bytes memory proof = proofOf(account_, key_, x);
        vm.deal(account_, account_.balance + stake_);
        vm.prank(account_);
        registry.register{value: stake_}(x, proof);
    }

    function accounts() internal pure returns (address[] memory who) {
        who = new address[](PARTIES);
        for (uint16 i; i < PARTIES; ++i) {
            who[i] = account(i);
        }
    }

    // ------------------------------------------------------------------------------------------------ signatures

    function separatorOf(uint256 chain, address hub_, bool simulation) internal pure returns (bytes32) {
        return keccak256(
            abi.encode(
                keccak256(
                    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract,bytes32 salt)"
                ),
                keccak256("flbc"),
                keccak256("1"),
                chain,
                hub_,
                simulation ? keccak256("flbc/SIMULATION") : bytes32(0)
            )
        );
    }

    function sign(uint256 key_, bytes32 structHash) internal view returns (bytes memory) {
        bytes32 separator = separatorOf(block.chainid, address(hub), true);
        (bytes32 r, bytes32 vs) = vm.signCompact(key_, keccak256(abi.encodePacked(hex"1901", separator, structHash)));
        return abi.encodePacked(r, vs);
    }

    // -------------------------------------------------------------------------------------------------- the task

    function order(bytes32 salt) internal view returns (ITaskHub.PublishInput memory) {
        return ITaskHub.PublishInput(salt, "model", "roster", ACCURACY, deadline, 2, false, AUTHORITY, "{}");
    }

    function publish(bytes32 salt) internal returns (bytes32) {
        return publish(order(salt), REWARD);
    }

    function publish(ITaskHub.PublishInput memory x, uint256 value) internal returns (bytes32) {
        vm.prank(publisher);
        return hub.publish{value: value}(x);
    }

    function blobOf(address[] memory who) internal view returns (bytes memory blob) {
        for (uint256 i; i < who.length; ++i) {
            IRegistry.Member memory m = registry.member(who[i]);
            blob = bytes.concat(
                blob, abi.encodePacked(m.signer, who[i], m.vrf, uint64(m.stake / 1 gwei), m.examples, m.roles)
            );
        }
    }

    function tokenOf(bytes32 task, address[] memory who) internal view returns (bytes32) {
        ITaskHub.Task memory t = hub.taskOf(task);
        bytes32 typeHash = keccak256(
            "TaskToken(bytes32 task,bytes32 genesis,bytes32 participants,uint128 reward,uint16 accuracyBps,uint64 deadline,uint16 quorum,bool vrf)"
        );
        bytes32 frozen = keccak256(blobOf(who));
        return
            keccak256(
                abi.encode(typeHash, task, t.genesis, frozen, t.reward, t.accuracyBps, t.deadline, t.quorum, t.vrf)
            );
    }

    function begin(bytes32 task, address[] memory who) internal {
        bytes memory sigma1 = sign(PUBLISHER_KEY, tokenOf(task, who));
        vm.prank(publisher);
        hub.start(task, who, sigma1);
    }

    /// @dev A started task, one block later.
    function started(bytes32 salt) internal returns (bytes32 task) {
        task = publish(salt);
        mine(1);
        begin(task, accounts());
        mine(1);
    }

    // ------------------------------------------------------------------------------------------------- one round

    function labelOf(ITaskHub.RoundInput memory x) internal view returns (bytes32) {
        bytes32 typeHash = keccak256(
            "RoundLabel(bytes32 task,uint32 round,uint32 attempt,bytes32 roster,bytes32 config,bytes32 model,bytes32 frame,bytes32 keys,uint256 chainId,address hub,bool simulation)"
        );
        ITaskHub.Task memory t = hub.taskOf(x.task);
        bytes memory head = abi.encode(typeHash, x.task, x.round, x.attempt, t.roster, t.config, x.model, x.frame);
        return keccak256(bytes.concat(head, abi.encode(x.keys, block.chainid, address(hub), true)));
    }

    function submissionHash(bytes32 label, uint16 party, uint64 draw, uint32 ms, bytes32 content)
        internal
        pure
        returns (bytes32)
    {
        bytes32 typeHash =
            keccak256("Submission(bytes32 label,uint16 party,uint64 draw,uint32 computeMs,bytes32 content)");
        return keccak256(abi.encode(typeHash, label, party, draw, ms, content));
    }

    function contentOf(bytes32 label, uint16 party) internal pure returns (bytes32) {
        return keccak256(abi.encode("content", label, party));
    }

    function submission(bytes32 label, uint16 party, uint256 key_) internal view returns (bytes memory) {
        bytes32 content = contentOf(label, party);
        uint64 draw = uint64(uint256(content));
        uint32 ms = 1000 * (uint32(party) + 1);
        bytes memory signature = sign(key_, submissionHash(label, party, draw, ms, content));
        return abi.encodePacked(party, draw, ms, content, signature);
    }

    function submissions(bytes32 label, uint16[] memory parties) internal view returns (bytes memory packed) {
        for (uint256 i; i < parties.length; ++i) {
            packed = bytes.concat(packed, submission(label, parties[i], key(parties[i])));
        }
    }

    /// @dev hashStruct of the Block; reads the packed lists as a reader of the chain would.
    function blockOf(ITaskHub.RoundInput memory x) internal view returns (bytes32) {
        bytes32 label = labelOf(x);
        bytes memory hashes;
        for (uint256 i; i + 110 <= x.submissions.length; i += 110) {
            uint16 party = uint16(read(x.submissions, i, 2));
            uint64 draw = uint64(read(x.submissions, i + 2, 8));
            uint32 ms = uint32(read(x.submissions, i + 10, 4));
            bytes32 content = bytes32(read(x.submissions, i + 14, 32));
            hashes = bytes.concat(hashes, submissionHash(label, party, draw, ms, content));
        }
        bytes memory rejected;
        for (uint256 i; i + 2 <= x.rejected.length; i += 2) {
            rejected = bytes.concat(rejected, bytes32(read(x.rejected, i, 2)));
        }
        return blockHash(hub.taskOf(x.task).head, label, x.leader, keccak256(hashes), keccak256(rejected), x.hidden);
    }

    function blockHash(bytes32 parent, bytes32 label, uint16 leader, bytes32 listed, bytes32 rejected, bytes32 hidden)
        internal
        pure
        returns (bytes32)
    {
        bytes32 typeHash = keccak256(
            "Block(bytes32 parent,bytes32 label,uint16 leader,bytes32[] submissions,uint16[] rejected,bytes32 hidden)"
        );
        return keccak256(abi.encode(typeHash, parent, label, leader, listed, rejected, hidden));
    }

    function voteHash(bytes32 label, bytes32 block_) internal pure returns (bytes32) {
        return keccak256(abi.encode(keccak256("Vote(bytes32 label,bytes32 block)"), label, block_));
    }

    function votes(bytes32 structHash, uint16[] memory parties) internal view returns (bytes memory packed) {
        for (uint256 i; i < parties.length; ++i) {
            packed = bytes.concat(packed, abi.encodePacked(parties[i], sign(key(parties[i]), structHash)));
        }
    }

    /// @dev A right round: hospitals 0, 1, 2 submit, 0 leads, 3 votes.
    function round(bytes32 task, uint32 round_, uint32 attempt) internal view returns (ITaskHub.RoundInput memory x) {
        x.task = task;
        x.round = round_;
        x.attempt = attempt;
        x.model = "global";
        x.frame = "frame";
        x.keys = "keys";
        x.hidden = keccak256(abi.encode(round_, attempt));
        x.submissions = submissions(labelOf(x), these(0, 1, 2));
        seal(x, these(3));
    }

    /// @dev Sign the block and the votes anew, after a change.
    function seal(ITaskHub.RoundInput memory x, uint16[] memory voters) internal view {
        bytes32 block_ = blockOf(x);
        x.leaderSignature = sign(key(x.leader), block_);
        x.votes = votes(voteHash(labelOf(x), block_), voters);
    }

    function opening(bytes32 block_, uint16 party, uint256 key_) internal view returns (bytes memory) {
        bytes32 typeHash = keccak256("Opening(bytes32 block,bytes32 total,uint128 sigmaMicro,uint64 epsilonMicro)");
        bytes32 total = "total";
        (uint128 sigma, uint64 epsilon) = (5e6, 1e6);
        bytes memory signature = sign(key_, keccak256(abi.encode(typeHash, block_, total, sigma, epsilon)));
        return abi.encodePacked(total, sigma, epsilon, party, signature);
    }

    // ------------------------------------------------------------------------------------------------ settlement

    /// @dev A right settlement: hospital 1 gets a third and hospital 2 the rest; 0 signs sigma2; 3 and 4 vote.
    function settlement(bytes32 task) internal view returns (ITaskHub.SettleInput memory x) {
        x.task = task;
        x.model = "final";
        x.link = "ipfs://model";
        x.accuracyBps = ACCURACY + 100;
        uint128 reward = hub.taskOf(task).reward;
        x.payouts = abi.encodePacked(uint16(1), reward / 3, uint16(2), reward - reward / 3);
        x.evaluations = abi.encodePacked(uint16(3), x.accuracyBps, uint32(50), new bytes(64));
        seal(x, these(3, 4));
    }

    function seal(ITaskHub.SettleInput memory x, uint16[] memory voters) internal view {
        bytes32 token = keccak256(
            abi.encode(
                keccak256("ModelToken(bytes32 task,bytes32 head,bytes32 model,string link,uint16 accuracyBps)"),
                x.task,
                hub.taskOf(x.task).head,
                x.model,
                keccak256(bytes(x.link)),
                x.accuracyBps
            )
        );
        x.modelSignature = sign(key(x.party), token);
        bytes32 typeHash = keccak256("Result(bytes32 modelToken,bytes32 evaluations,bytes32 payouts)");
        x.votes = votes(keccak256(abi.encode(typeHash, token, keccak256(x.evaluations), keccak256(x.payouts))), voters);
    }

    function leaf(uint256 party, address account_, uint256 amount) internal pure returns (bytes32) {
        return keccak256(bytes.concat(keccak256(abi.encode(party, account_, amount))));
    }

    // --------------------------------------------------------------------------------------------------- helpers

    function these(uint16 a) internal pure returns (uint16[] memory l) {
        l = new uint16[](1);
        l[0] = a;
    }

    function these(uint16 a, uint16 b) internal pure returns (uint16[] memory l) {
        l = new uint16[](2);
        (l[0], l[1]) = (a, b);
    }

    function these(uint16 a, uint16 b, uint16 c) internal pure returns (uint16[] memory l) {
        l = new uint16[](3);
        (l[0], l[1], l[2]) = (a, b, c);
    }

    /// @dev Big-endian number of `size` bytes from `from` on.
    function read(bytes memory data, uint256 from, uint256 size) internal pure returns (uint256 value) {
        for (uint256 i; i < size; ++i) {
            value = (value << 8) | uint8(data[from + i]);
        }
    }

    function slice(bytes memory data, uint256 from, uint256 to) internal pure returns (bytes memory part) {
        part = new bytes(to - from);
        for (uint256 i; i < part.length; ++i) {
            part[i] = data[from + i];
        }
    }
}
