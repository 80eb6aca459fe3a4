// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {MerkleProof} from "@openzeppelin/contracts/utils/cryptography/MerkleProof.sol";
import {Packed} from "../src/Packed.sol";
import {Base, ORDER, vm} from "./Base.sol";

/// @dev The library with calldata arguments, and a check that it leaves memory as it should.
contract Harness {
    function submissions(bytes calldata packed, bytes memory seats, bytes32 separator, bytes32 label, uint256 role)
        external
        view
        returns (bytes32 arrayHash, uint256 bad)
    {
        bytes32 before = keccak256(seats);
        (arrayHash, bad) = Packed.submissions(packed, seats, separator, "type", label, role);
        require(keccak256(seats) == before, "seats were written to");
        bytes memory fresh = new bytes(64); // a free memory pointer that was not left in order would show here
        require(keccak256(fresh) == keccak256(abi.encode(0, 0)), "memory");
    }

    function votes(bytes calldata packed, bytes memory seats, bytes32 digest, uint256 role, uint256 excluded)
        external
        view
        returns (uint256)
    {
        return Packed.votes(packed, seats, digest, role, excluded);
    }

    function rejected(bytes calldata packed, uint256 count) external pure returns (bytes32, uint256) {
        return Packed.rejected(packed, count);
    }

    function payouts(bytes calldata packed, bytes memory seats) external pure returns (bytes32, uint256, uint256) {
        return Packed.payouts(packed, seats);
    }

    function verify(bytes32[] calldata proof, bytes32 root, bytes32 leaf) external pure returns (bool) {
        return MerkleProof.verifyCalldata(proof, root, leaf);
    }
}

/// @dev The loops in assembly against the same thing written plainly, on right and on damaged lists.
contract PackedTest is Base {
    Harness private harness = new Harness();
    bytes32 private constant SEPARATOR = "separator";
    bytes32 private constant LABEL = "label";
    uint256 private constant KEY = 1000;

    struct Seat {
        address signer;
        address account;
        uint64 stake;
        uint8 roles;
    }

    function seatsOf(uint256 n, uint256 seed) private pure returns (bytes memory seats, Seat[] memory plain) {
        seats = Packed.newSeats(n);
        plain = new Seat[](n);
        for (uint256 i; i < n; ++i) {
            uint256 x = uint256(keccak256(abi.encode(seed, i)));
            plain[i] = Seat(vm.addr(KEY + i), address(uint160(x | 1)), uint64(x >> 100), uint8(x >> 200));
            Packed.setSeat(seats, i, plain[i].signer, plain[i].account, address(5), plain[i].stake, 9, plain[i].roles);
        }
    }

    function testFuzz_seats(uint8 count, uint256 seed, uint16 index) public pure {
        uint256 n = bound(count, 0, 40);
        (bytes memory seats, Seat[] memory plain) = seatsOf(n, seed);
        eq(seats.length, 73 * n, "length");
        bytes memory expected;
        for (uint256 i; i < n; ++i) {
            Seat memory s = plain[i];
            expected = abi.encodePacked(expected, s.signer, s.account, address(5), s.stake, uint32(9), s.roles);
            (address signer, address vrf, uint64 stake, uint8 roles) = Packed.seatOf(seats, i);
            eq(signer, s.signer, "signer");
            eq(vrf, address(5), "vrf");
            eq(stake, s.stake, "stake");
            eq(roles, s.roles, "roles");
        }
        eq(keccak256(seats), keccak256(expected), "bytes");
        if (index >= n) {
            (address none,,, uint8 noRoles) = Packed.seatOf(seats, index);
            eq(uint160(none) | noRoles, 0, "nobody");
        }
    }

    // ---------------------------------------------------------------------------------------------- submissions

    function digestOf(uint16 party, uint64 draw, uint32 ms, bytes32 content) private pure returns (bytes32, bytes32) {
        bytes32 hash = keccak256(abi.encode(bytes32("type"), LABEL, party, draw, ms, content));
        return (hash, keccak256(abi.encodePacked(hex"1901", SEPARATOR, hash)));
    }

    /// @dev A list with about half of the parties, signed rightly; then damaged by `harm`.
    function submissionList(uint256 n, uint256 seed, uint8 harm) private pure returns (bytes memory packed) {
        for (uint256 party; party < n; ++party) {
            uint256 x = uint256(keccak256(abi.encode(seed, "party", party)));
            if (x & 1 == 0) continue;
            uint64 draw = uint64(x >> 8);
            (, bytes32 digest) = digestOf(uint16(party), draw, uint32(x >> 72), bytes32(x));
            (bytes32 r, bytes32 vs) = vm.signCompact(KEY + party, digest);
            packed = abi.encodePacked(packed, uint16(party), draw, uint32(x >> 72), bytes32(x), r, vs);
        }
        damage(packed, 110, seed, harm);
    }

    function damage(bytes memory packed, uint256 unit, uint256 seed, uint8 harm) private pure {
        uint256 n = packed.length / unit;
        if (n == 0) return;
        uint256 which = (seed >> 16) % n;
        if (harm % 4 == 1) packed[seed % packed.length] ^= bytes1(uint8(1 << (seed >> 8) % 8));
        if (harm % 4 == 2) {
            // one element again in the place of another
            uint256 from = (seed >> 32) % n;
            for (uint256 k; k < unit; ++k) {
                packed[which * unit + k] = packed[from * unit + k];
            }
        }
        if (harm % 4 == 3) {
            // the malleable twin
            uint256 at_ = (which + 1) * unit - 32;
            uint256 vs = word(packed, at_);
            uint256 twin = (ORDER - (vs & (type(uint256).max >> 1))) | ((vs >> 255 ^ 1) << 255);
            for (uint256 k; k < 32; ++k) {
                packed[at_ + k] = bytes32(twin)[k];
            }
        }
    }

    function word(bytes memory data, uint256 at_) private pure returns (uint256 value) {
        for (uint256 i; i < 32; ++i) {
            value = (value << 8) | uint8(data[at_ + i]);
        }
    }

    function testFuzz_submissions(uint8 count, uint256 seed, uint8 harm, uint8 role) public view {
        (bytes memory seats, Seat[] memory plain) = seatsOf(bound(count, 0, 20), seed);
        bytes memory packed = submissionList(plain.length + harm % 2, seed, harm); // sometimes one too many
        role = harm > 127 ? 0xff : role;
        (bytes32 got, uint256 gotBad) = harness.submissions(packed, seats, SEPARATOR, LABEL, role);

        uint256 bad = type(uint256).max;
        bytes memory hashes;
        uint256 next;
        for (uint256 i; i < packed.length / 110 && bad == type(uint256).max; ++i) {
            uint256 head = word(packed, 110 * i);
            uint256 party = head >> 240;
            (bytes32 hash, bytes32 digest) =
                digestOf(uint16(party), uint64(head >> 176), uint32(head >> 144), bytes32(word(packed, 110 * i + 14)));
            (bytes32 r, bytes32 vs) = (bytes32(word(packed, 110 * i + 46)), bytes32(word(packed, 110 * i + 78)));
            (address signer,,) = ECDSA.tryRecover(digest, r, vs);
            bool right = party >= next && party < plain.length && signer != address(0) && signer == plain[party].signer
                && plain[party].roles & role != 0;
            if (!right) bad = i;
            hashes = bytes.concat(hashes, hash);
            next = party + 1;
        }
        eq(gotBad, bad, "bad");
        if (bad == type(uint256).max) eq(got, keccak256(hashes), "hash");
    }

    /// @dev The compact form leaves no room for most high s: the twin of a signature loses its top bit, and is another
    /// number. What fits are the values from half the order up to 2^255. Nobody can sign with one on purpose, but an
    /// address that such a "signature" recovers to can be computed, and is the signer here.
    function test_highSThatFitsTheCompactForm() public view {
        bytes32 r = 0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798; // an abscissa: the generator's
        (, bytes32 digest) = digestOf(0, 1, 2, "content");
        for (uint256 i; i < 3; ++i) {
            uint256 s = i == 0 ? ORDER / 2 : i == 1 ? ORDER / 2 + 1 : type(uint256).max >> 1;
            address signer = ecrecover(digest, 27, r, bytes32(s));
            eq(signer != address(0), true, "the precompile takes it");
            bytes memory seats = Packed.newSeats(1);
            Packed.setSeat(seats, 0, signer, address(1), address(2), 3, 4, 0xff);
            bytes memory packed = abi.encodePacked(uint16(0), uint64(1), uint32(2), bytes32("content"), r, s);
            (, uint256 bad) = harness.submissions(packed, seats, SEPARATOR, LABEL, 1);
            eq(bad, i == 0 ? Packed.NONE : 0, "submission");
            packed = abi.encodePacked(uint16(0), r, s);
            eq(harness.votes(packed, seats, digest, 1, Packed.NONE), i == 0 ? Packed.NONE : 0, "vote");
        }
    }

    // ---------------------------------------------------------------------------------------------------- votes

    function testFuzz_votes(uint8 count, uint256 seed, uint8 harm, uint8 role, uint8 excluded) public view {
        (bytes memory seats, Seat[] memory plain) = seatsOf(bound(count, 0, 20), seed);
        bytes32 digest = keccak256(abi.encode(seed));
        bytes memory packed;
        for (uint256 party; party < plain.length + harm % 2; ++party) {
            if (uint256(keccak256(abi.encode(seed, "voter", party))) & 1 == 0) continue;
            (bytes32 r, bytes32 vs) = vm.signCompact(KEY + party, digest);
            packed = abi.encodePacked(packed, uint16(party), r, vs);
        }
        damage(packed, 66, seed, harm);
        role = harm > 127 ? 0xff : role;
        uint256 out = harm > 63 ? Packed.NONE : excluded % 20;

        uint256 bad = type(uint256).max;
        uint256 next;
        for (uint256 i; i < packed.length / 66 && bad == type(uint256).max; ++i) {
            uint256 party = word(packed, 66 * i) >> 240;
            bytes32 r = bytes32(word(packed, 66 * i + 2));
            (address signer,,) = ECDSA.tryRecover(digest, r, bytes32(word(packed, 66 * i + 34)));
            bool right = party >= next && party < plain.length && party != out && signer != address(0)
                && signer == plain[party].signer && plain[party].roles & role != 0;
            if (!right) bad = i;
            next = party + 1;
        }
        eq(harness.votes(packed, seats, digest, role, out), bad, "bad");
    }

    // ------------------------------------------------------------------------------------------------- rejected

    function testFuzz_rejected(uint16[] memory parties, uint16 count, bool sorted) public view {
        bytes memory packed;
        bytes memory words;
        uint256 bad = type(uint256).max;
        uint256 next;
        for (uint256 i; i < parties.length; ++i) {
            uint16 party = sorted ? uint16(3 * i) : parties[i];
            packed = abi.encodePacked(packed, party);
            words = bytes.concat(words, bytes32(uint256(party)));
            if (bad == type(uint256).max && (party < next || party >= count)) bad = i;
            next = uint256(party) + 1;
        }
        (bytes32 got, uint256 gotBad) = harness.rejected(packed, count);
        eq(gotBad, bad, "bad");
        if (bad == type(uint256).max) eq(got, keccak256(words), "hash");
    }

    // -------------------------------------------------------------------------------------------------- payouts

    /// @dev Root, sum, and a proof for each leaf that OpenZeppelin's verifier accepts; no other leaf passes with it.
    function testFuzz_payouts(uint8 count, uint256 seed) public view {
        uint256 n = bound(count, 1, 40);
        (bytes memory seats, Seat[] memory plain) = seatsOf(n + 3, seed);
        bytes memory packed;
        bytes32[] memory leaves = new bytes32[](n);
        uint256 sum;
        for (uint256 i; i < n; ++i) {
            uint256 party = i + (i < seed % n ? 0 : (seed >> 8) % 4); // a gap somewhere
            uint128 amount = uint128(uint256(keccak256(abi.encode(seed, "amount", i)))) | 1;
            packed = abi.encodePacked(packed, uint16(party), amount);
            leaves[i] = leafOf(party, plain[party].account, amount);
            sum += amount;
        }
        (bytes32 root, uint256 gotSum, uint256 bad) = harness.payouts(packed, seats);
        eq(bad, type(uint256).max, "bad");
        eq(gotSum, sum, "sum");
        for (uint256 i; i < n; ++i) {
            bytes32[] memory proof = proofOf(leaves, i);
            eq(harness.verify(proof, root, leaves[i]), true, "proof");
            eq(harness.verify(proof, root, leafOf(i, plain[i].account, i + 1)), false, "another amount");
        }
    }

    function testFuzz_payouts_bad(uint8 count, uint256 seed, uint8 which, uint8 harm) public view {
        uint256 n = bound(count, 1, 20);
        uint256 k = which % n;
        (bytes memory seats,) = seatsOf(n, seed);
        bytes memory packed;
        for (uint256 i; i < n; ++i) {
            bool hit = i == k;
            uint16 party = uint16(i);
            if (hit && harm % 3 == 0) party = uint16(n + uint256(harm)); // nobody
            if (hit && harm % 3 == 1 && i > 0) party = uint16(i - 1); // twice
            uint128 amount = hit && (harm % 3 == 2 || (harm % 3 == 1 && i == 0)) ? 0 : type(uint128).max;
            packed = abi.encodePacked(packed, party, amount);
        }
        (,, uint256 bad) = harness.payouts(packed, seats);
        eq(bad, k, "bad");
    }

    function leafOf(uint256 party, address account, uint256 amount) private pure returns (bytes32) {
        return keccak256(bytes.concat(keccak256(abi.encode(party, account, amount))));
    }

    function proofOf(bytes32[] memory leaves, uint256 index) private pure returns (bytes32[] memory proof) {
        bytes32[] memory level = leaves;
        bytes32[] memory path = new bytes32[](20);
        uint256 length;
        while (level.length > 1) {
            if (index ^ 1 < level.length) path[length++] = level[index ^ 1];
            bytes32[] memory upper = new bytes32[]((level.length + 1) / 2);
            for (uint256 i; i < level.length; i += 2) {
                if (i + 1 == level.length) upper[i / 2] = level[i];
                else if (level[i] < level[i + 1]) upper[i / 2] = keccak256(abi.encode(level[i], level[i + 1]));
                else upper[i / 2] = keccak256(abi.encode(level[i + 1], level[i]));
            }
            (level, index) = (upper, index / 2);
        }
        proof = new bytes32[](length);
        for (uint256 i; i < length; ++i) {
            proof[i] = path[i];
        }
    }
}
