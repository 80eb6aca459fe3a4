// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {IRegistry} from "../src/IRegistry.sol";
import {ITaskHub} from "../src/ITaskHub.sol";
import {Actor, vm} from "./Base.sol";
import {Registry} from "./Interfaces.sol";
import {World} from "./World.sol";

/// @dev Does anything that anybody may do, in any order, and remembers what was paid and recorded. Calls that must
/// succeed are checked here; others may fail.
contract Handler is World {
    struct Memo {
        uint256 reward;
        uint256 paid; // claims
        uint256 returned; // refund
        uint256 payouts; // sum at the settlement
        uint32 round;
        uint32 attempt;
        uint32 height;
        bytes32 head;
        uint8 status;
        uint16[] parties;
        uint128[] amounts;
    }

    bytes32[] public tasks;
    mapping(bytes32 => Memo) private _memo;
    mapping(bytes32 task => mapping(uint16 party => bool)) private _claimed;
    mapping(string => uint256) public done; // successful calls by kind

    constructor() {
        setUp();
        vm.deal(publisher, 1e30);
        // some accounts have code
        for (uint16 i = 1; i < PARTIES; i += 2) {
            vm.etch(account(i), type(Actor).runtimeCode);
        }
    }

    function count() external view returns (uint256) {
        return tasks.length;
    }

    function memo(bytes32 task) external view returns (Memo memory) {
        return _memo[task];
    }

    function hubAddress() external view returns (ITaskHub.Task[] memory list, address at_, address registry_) {
        list = new ITaskHub.Task[](tasks.length);
        for (uint256 i; i < tasks.length; ++i) {
            list[i] = hub.taskOf(tasks[i]);
        }
        return (list, address(hub), address(registry));
    }

    function stakes() external view returns (uint256 sum) {
        for (uint16 i; i < PARTIES; ++i) {
            sum += registry.member(account(i)).stake;
        }
        return sum + registry.member(publisher).stake + registry.slashed();
    }

    // --------------------------------------------------------------------------------------------------- tasks

    function publishTask(uint96 value, uint32 duration, uint8 seed) external {
        ITaskHub.PublishInput memory x = order(bytes32(tasks.length));
        x.deadline = time() + uint64(bound(duration, 1, 8 days));
        x.quorum = uint16(2 + seed % 2);
        bytes32 task = publish(x, uint256(value) + 1);
        tasks.push(task);
        _memo[task].reward = uint256(value) + 1;
        _memo[task].head = hub.taskOf(task).head;
        _memo[task].status = 1;
        mine(1);
        ++done["publish"];
        if (seed % 8 == 0) return; // waits for a start
        gather();
        startTask(0);
    }

    /// @dev All parties are there: those who were leaving stay, suspensions are lifted.
    function gather() public {
        for (uint16 i; i < PARTIES; ++i) {
            stay(i);
            suspend(i, false);
        }
    }

    function startTask(uint256 which) public {
        bytes32 task = pick(which, 1, 0);
        if (task == 0) return;
        bytes memory sigma1 = sign(PUBLISHER_KEY, tokenOf(task, accounts()));
        vm.prank(publisher);
        try hub.start(task, accounts(), sigma1) {
            _memo[task].status = 2;
            mine(2);
            ++done["start"];
        } catch {}
    }

    function drawSeed(uint256 which) public {
        try hub.drawSeed(pick(which, 2, 0)) {} catch {}
    }

    function recordRound(uint256 which, uint8 ahead, uint8 attempt, uint8 voters, uint8 openings) external {
        bytes32 task = pick(which, 2, 0);
        if (task == 0) return;
        bool withOpening = openings % 4 == 0;
        Memo storage m = _memo[task];
        uint32 next = ahead % 4 == 0 ? m.round : m.round + 1 + ahead % 2; // sometimes the same round again
        ITaskHub.RoundInput memory x = round(task, next, attempt % 4);
        seal(x, voters % 4 == 0 ? these(3) : these(3, 4));
        if (withOpening) x.opening = opening(m.head, 5, key(5));
        try hub.submitRound(x) returns (bytes32 head) {
            require(m.status == 2 && time() <= hub.taskOf(task).deadline, "recorded in the wrong state");
            require(next > m.round || (next == m.round && attempt % 4 > m.attempt), "order");
            require(!withOpening || m.height > 0, "opened the genesis");
            (m.round, m.attempt, m.head) = (next, attempt % 4, head);
            ++m.height;
            ++done["round"];
        } catch {}
    }

    function settleTask(uint256 which, uint256 seed, uint8 wrong) external {
        bytes32 task = pick(which, 2, 1);
        if (task == 0) return;
        Memo storage m = _memo[task];
        ITaskHub.SettleInput memory x = settlement(task);
        bool wrongSum = wrong % 4 == 0;
        x.payouts = "";
        uint256 left = m.reward;
        uint16[] memory parties = new uint16[](PARTIES);
        uint128[] memory amounts = new uint128[](PARTIES);
        uint256 n;
        for (uint16 i; i < PARTIES && left > 0; ++i) {
            uint256 part = i == PARTIES - 1 ? left : (seed >> (8 * i)) % (left + 1);
            if (part == 0) continue;
            (parties[n], amounts[n]) = (i, uint128(part));
            ++n;
            left -= part;
            x.payouts = abi.encodePacked(x.payouts, i, uint128(part));
        }
        if (wrongSum) x.payouts[17] ^= 0x01;
        seal(x, these(0, 3, 4));
        try hub.settle(x) {
            require(m.status == 2 && m.height > 0 && !wrongSum, "settled against the rules");
            require(time() <= hub.taskOf(task).deadline, "settled too late");
            m.status = 3;
            for (uint256 i; i < n; ++i) {
                m.parties.push(parties[i]);
                m.amounts.push(amounts[i]);
                m.payouts += amounts[i];
            }
            ++done["settle"];
        } catch {}
    }

    function claim(uint256 which, uint8 position, uint16 sender, uint8 mode) external {
        bytes32 task = pick(which, 3, 0);
        if (task == 0) return;
        Memo storage m = _memo[task];
        if (m.parties.length == 0) return;
        uint256 i = position % m.parties.length;
        (uint16 party, uint128 amount) = (m.parties[i], m.amounts[i]);
        bytes32[] memory path = proof(m, i);
        address from = account(sender % 8 == 0 ? (party + 1) % PARTIES : party); // sometimes for another
        bytes memory call = abi.encodeCall(hub.claim, (task, party, amount, path));
        if (from.code.length > 0) Actor(payable(from)).set(Actor.Mode(mode % 3), address(hub), call);
        uint256 before = from.balance;
        vm.prank(from);
        try hub.claim(task, party, amount, path) {
            require(from == account(party), "claimed for another");
            require(!_claimed[task][party], "claimed twice");
            _claimed[task][party] = true;
            require(from.balance - before == amount, "paid another amount");
            m.paid += amount;
            ++done["claim"];
            vm.prank(from);
            try hub.claim(task, party, amount, path) {
                revert("claimed again");
            } catch {}
        } catch {}
    }

    function refund(uint256 which, uint8 late) external {
        bytes32 task = pick(which, 2, 0);
        if (task == 0) return;
        Memo storage m = _memo[task];
        uint64 end = hub.taskOf(task).deadline;
        if (late % 8 == 0 && time() <= end) vm.warp(end + 1);
        uint256 before = publisher.balance;
        try hub.refund(task) {
            require(time() > end, "refunded too early");
            require(m.status == 1 || m.status == 2, "refunded against the rules");
            m.returned += publisher.balance - before;
            m.status = 4;
            ++done["refund"];
        } catch {}
    }

    // -------------------------------------------------------------------------------------------------- stakes

    /// @dev One of the things that happen beside the tasks. (Fuzzing chooses each function equally often.)
    function beside(uint8 kind, uint16 party, uint64 value, uint8 mode, uint8 late) external {
        kind %= 9;
        if (kind == 0) topUp(party, value);
        else if (kind == 1) leave(party);
        else if (kind == 2) withdraw(party, mode, late);
        else if (kind == 3) stay(party);
        else if (kind == 4) equivocate(party, bytes32(uint256(value)));
        else if (kind == 5) suspend(party, mode % 2 == 0);
        else if (kind == 6) withdrawSlashed();
        else if (kind == 7) pass(uint32(value));
        else drawSeed(value);
    }

    function topUp(uint16 party, uint64 value) public {
        address from = account(party % PARTIES);
        vm.deal(from, from.balance + value);
        vm.prank(from);
        try registry.topUp{value: value}() {} catch {}
    }

    function leave(uint16 party) public {
        vm.prank(account(party % PARTIES));
        try registry.beginUnstake() {} catch {}
    }

    function withdraw(uint16 party, uint8 mode, uint8 late) public {
        address from = account(party % PARTIES);
        leave(party);
        IRegistry.Member memory m = registry.member(from);
        if (late % 8 == 0) vm.warp(max(time(), max(m.unlockAt, m.lockedUntil)));
        if (late % 8 == 1) vm.warp(max(time(), m.unlockAt)); // not enough if it is locked
        if (from.code.length > 0) {
            Actor(payable(from))
                .set(Actor.Mode(mode % 3), address(registry), abi.encodeCall(Registry.withdrawStake, ()));
        }
        vm.prank(from);
        try registry.withdrawStake() {
            require(time() >= m.unlockAt && time() >= m.lockedUntil && m.unlockAt != 0, "withdrew too early");
            ++done["withdraw"];
        } catch {}
    }

    function stay(uint16 party) public {
        party %= PARTIES;
        if (registry.member(account(party)).unlockAt != 0) {
            enrol(account(party), key(party), roles(party), name(party), 1 ether);
            mine(1);
        }
    }

    function equivocate(uint16 party, bytes32 label) public {
        uint256 k = key(party % PARTIES);
        ITaskHub.VoteEvidence memory a = ITaskHub.VoteEvidence(label, "a", sign(k, voteHash(label, "a")));
        ITaskHub.VoteEvidence memory b = ITaskHub.VoteEvidence(label, "b", sign(k, voteHash(label, "b")));
        try hub.reportVotes(a, b) {
            require(registry.member(account(party % PARTIES)).stake == 0, "not slashed");
            ++done["slash"];
        } catch {}
    }

    function suspend(uint16 party, bool on) public {
        vm.prank(owner);
        registry.suspend(account(party % PARTIES), on && party % 3 == 0);
    }

    function withdrawSlashed() public {
        try registry.withdrawSlashed() {} catch {}
    }

    function pass(uint32 seconds_) public {
        skip(seconds_ % 1 days);
        mine(1);
    }

    // ------------------------------------------------------------------------------------------------- helpers

    /// @dev Mostly the youngest task in this state, so that walks get far; sometimes any of the younger ones.
    function pick(uint256 which, uint8 status, uint32 height_) private view returns (bytes32) {
        uint256 n = tasks.length;
        if (n == 0) return 0;
        if (which % 4 != 0) {
            for (uint256 i = n; i > 0; --i) {
                Memo storage m = _memo[tasks[i - 1]];
                if (m.status == status && m.height >= height_) return tasks[i - 1];
            }
        }
        return tasks[n - 1 - (which >> 2) % min(n, 3)];
    }

    function proof(Memo storage m, uint256 index) private view returns (bytes32[] memory path) {
        bytes32[] memory level = new bytes32[](m.parties.length);
        for (uint256 i; i < level.length; ++i) {
            level[i] = leaf(m.parties[i], account(m.parties[i]), m.amounts[i]);
        }
        bytes32[] memory found = new bytes32[](8);
        uint256 length;
        while (level.length > 1) {
            if (index ^ 1 < level.length) found[length++] = level[index ^ 1];
            bytes32[] memory upper = new bytes32[]((level.length + 1) / 2);
            for (uint256 i; i < level.length; i += 2) {
                bytes32 a = level[i];
                if (i + 1 == level.length) upper[i / 2] = a;
                else upper[i / 2] = a < level[i + 1] ? pair(a, level[i + 1]) : pair(level[i + 1], a);
            }
            (level, index) = (upper, index / 2);
        }
        path = new bytes32[](length);
        for (uint256 i; i < length; ++i) {
            path[i] = found[i];
        }
    }

    function pair(bytes32 a, bytes32 b) private pure returns (bytes32) {
        return keccak256(abi.encode(a, b));
    }
}
