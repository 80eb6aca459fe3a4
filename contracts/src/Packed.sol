// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

/// @title Loops over packed bytes
/// @notice A round of 100 submissions verifies 100 signatures. ABI-encoded structs and Solidity loops would cost about
/// twice the gas, so lists travel packed (big-endian, no padding) and are walked in assembly:
///
///     seat        73 B  signer 20 | account 20 | vrf 20 | stake in gwei u64 | examples u32 | roles u8
///     submission 110 B  party u16 | draw u64 | computeMs u32 | content 32 | r 32 | vs 32
///     vote        66 B  party u16 | r 32 | vs 32
///     rejected     2 B  party u16
///     opening    122 B  total 32 | sigmaMicro u128 | epsilonMicro u64 | party u16 | r 32 | vs 32
///     evaluation  72 B  party u16 | accuracyBps u16 | examples u32 | r 32 | vs 32
///     payout      18 B  party u16 | amount u128
///
/// @dev Functions do not revert: they return the position of the first bad element, or {NONE}, and the caller raises
/// the error. They assume that the caller has checked that lengths are multiples of the unit. All assembly is
/// memory-safe: it writes to the scratch space (0x00 to 0x3f) and to memory that it allocates by moving the free memory
/// pointer, or did not keep. A party's index is compared with the number of seats before its seat is read: an index of
/// 65,535 would otherwise expand the memory by 4.8 MB. Seats hold no zero signer (the registry demands a proof by the
/// signer), so a void signature, for which `ecrecover` leaves the zero that was stored before, matches none.
library Packed {
    uint256 internal constant SEAT = 73;
    uint256 internal constant SUBMISSION = 110;
    uint256 internal constant VOTE = 66;
    uint256 internal constant REJECTED = 2;
    uint256 internal constant OPENING = 122;
    uint256 internal constant EVALUATION = 72;
    uint256 internal constant PAYOUT = 18;

    /// @dev No bad element.
    uint256 internal constant NONE = type(uint256).max;

    /// @dev Half the order of secp256k1: the largest s that is not malleable (EIP-2).
    uint256 private constant HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0;

    /// @dev Memory for `n` seats, to be filled by {setSeat} in rising order.
    function newSeats(uint256 n) internal pure returns (bytes memory seats) {
        seats = new bytes(n * SEAT + 32); // the last seat's last word reaches 19 bytes beyond it
        assembly ("memory-safe") {
            mstore(seats, mul(n, 73))
        }
    }

    /// @dev Write seat `index`. Spills zeros into the seat after it: write in rising order.
    function setSeat(
        bytes memory seats,
        uint256 index,
        address signer,
        address account,
        address vrf,
        uint64 stake,
        uint32 examples,
        uint8 roles
    ) internal pure {
        assert((index + 1) * SEAT <= seats.length);
        uint256 tail = (uint256(stake) << 192) | (uint256(examples) << 160) | (uint256(roles) << 152);
        assembly ("memory-safe") {
            let seat := add(add(seats, 0x20), mul(index, 73))
            mstore(seat, shl(96, signer))
            mstore(add(seat, 20), shl(96, account))
            mstore(add(seat, 40), shl(96, vrf))
            mstore(add(seat, 60), tail)
        }
    }

    /// @dev Seat `index`; zeros, hence without any role, if there is none.
    function seatOf(bytes memory seats, uint256 index)
        internal
        pure
        returns (address signer, address vrf, uint64 stake, uint8 roles)
    {
        if ((index + 1) * SEAT > seats.length) return (address(0), address(0), 0, 0);
        assembly ("memory-safe") {
            let seat := add(add(seats, 0x20), mul(index, 73))
            signer := shr(96, mload(seat))
            vrf := shr(96, mload(add(seat, 40)))
            let tail := mload(add(seat, 60))
            stake := shr(192, tail)
            roles := and(shr(152, tail), 0xff)
        }
    }

    /// @dev Verify signed submissions, by strictly rising party.
    /// @param packed A multiple of {SUBMISSION} bytes.
    /// @param seats The participants.
    /// @param separator EIP-712 domain separator.
    /// @param typeHash EIP-712 type of Submission.
    /// @param label Hash of the round's label.
    /// @param role Bit that each party's seat must have.
    /// @return arrayHash EIP-712 hash of the array of submissions: keccak-256 of their concatenated struct hashes.
    /// @return bad Position of the first one that is not right, or {NONE}.
    function submissions(
        bytes calldata packed,
        bytes memory seats,
        bytes32 separator,
        bytes32 typeHash,
        bytes32 label,
        uint256 role
    ) internal view returns (bytes32 arrayHash, uint256 bad) {
        bad = NONE;
        assembly ("memory-safe") {
            // After the free memory pointer, which does not move since nothing is kept:
            // 0x000 the struct, 6 words; 0x0c0 the digest's preimage, 66 bytes; 0x120 the input of ecrecover, 4 words;
            // 0x1a0 the struct hashes. Few variables live through the loop, so that all stay on the stack.
            let item := mload(0x40)
            mstore(item, typeHash)
            mstore(add(item, 0x20), label)
            mstore(add(item, 0xc0), shl(240, 0x1901))
            mstore(add(item, 0xc2), separator)

            let size := mload(seats)
            let hashes := add(item, 0x1a0) // where the next one goes
            let next := 0 // lowest party that may come
            let element := packed.offset
            for { let end := add(element, packed.length) } lt(element, end) { element := add(element, 110) } {
                let word := calldataload(element)
                let seat := shr(240, word) // the party's index, soon the address of its seat
                mstore(add(item, 0x40), seat)
                if lt(seat, next) { break }
                next := add(seat, 1)
                seat := mul(seat, 73)
                if iszero(lt(seat, size)) { break }
                seat := add(add(seats, 0x20), seat)

                mstore(add(item, 0x60), and(shr(176, word), 0xffffffffffffffff)) // draw
                mstore(add(item, 0x80), and(shr(144, word), 0xffffffff)) // computeMs
                mstore(add(item, 0xa0), calldataload(add(element, 14))) // content
                word := keccak256(item, 0xc0)
                mstore(hashes, word)
                hashes := add(hashes, 0x20)

                mstore(add(item, 0xe2), word)
                mstore(add(item, 0x120), keccak256(add(item, 0xc0), 0x42))
                word := calldataload(add(element, 78)) // vs
                mstore(add(item, 0x140), add(27, shr(255, word)))
                mstore(add(item, 0x160), calldataload(add(element, 46))) // r
                word := shr(1, shl(1, word)) // s
                mstore(add(item, 0x180), word)
                mstore(0x00, 0)
                pop(staticcall(gas(), 1, add(item, 0x120), 0x80, 0x00, 0x20))

                // The seat begins with the signer; its last byte holds the roles.
                if xor(mload(0x00), shr(96, mload(seat))) { break }
                if iszero(and(and(mload(add(seat, 41)), 0xff), role)) { break }
                if gt(word, HALF_ORDER) { break }
            }
            switch lt(element, add(packed.offset, packed.length))
            case 0 {
                item := add(item, 0x1a0)
                arrayHash := keccak256(item, sub(hashes, item))
            }
            default { bad := div(sub(element, packed.offset), 110) }
        }
    }

    /// @dev Verify votes, all over the same digest, by strictly rising party.
    /// @param packed A multiple of {VOTE} bytes.
    /// @param seats The participants.
    /// @param digest What was signed.
    /// @param role Bit that each party's seat must have.
    /// @param excluded Party that may not vote, or {NONE}.
    /// @return bad Position of the first one that is not right, or {NONE}.
    function votes(bytes calldata packed, bytes memory seats, bytes32 digest, uint256 role, uint256 excluded)
        internal
        view
        returns (uint256 bad)
    {
        uint256 n = packed.length / VOTE;
        bad = NONE;
        assembly ("memory-safe") {
            let input := mload(0x40) // 4 words for ecrecover, not kept
            mstore(input, digest)
            let size := mload(seats)
            let next := 0
            for { let i := 0 } lt(i, n) { i := add(i, 1) } {
                let element := add(packed.offset, mul(i, 66))
                let party := shr(240, calldataload(element))
                let seat := mul(party, 73)
                if or(or(lt(party, next), iszero(lt(seat, size))), eq(party, excluded)) {
                    bad := i
                    break
                }
                next := add(party, 1)
                seat := add(add(seats, 0x20), seat)

                let vs := calldataload(add(element, 34))
                let s := shr(1, shl(1, vs))
                mstore(add(input, 0x20), add(27, shr(255, vs)))
                mstore(add(input, 0x40), calldataload(add(element, 2))) // r
                mstore(add(input, 0x60), s)
                mstore(0x00, 0)
                pop(staticcall(gas(), 1, input, 0x80, 0x00, 0x20))

                let roles := and(mload(add(seat, 41)), 0xff)
                if or(or(xor(mload(0x00), shr(96, mload(seat))), iszero(and(roles, role))), gt(s, HALF_ORDER)) {
                    bad := i
                    break
                }
            }
        }
    }

    /// @dev Check the list of rejected parties: participants, strictly rising.
    /// @param packed A multiple of {REJECTED} bytes.
    /// @param count Number of participants.
    /// @return arrayHash EIP-712 hash of the uint16[]: keccak-256 of its elements as words.
    /// @return bad Position of the first one that is not right, or {NONE}.
    function rejected(bytes calldata packed, uint256 count) internal pure returns (bytes32 arrayHash, uint256 bad) {
        uint256 n = packed.length / REJECTED;
        bad = NONE;
        assembly ("memory-safe") {
            let words := mload(0x40) // n words, not kept
            let next := 0
            for { let i := 0 } lt(i, n) { i := add(i, 1) } {
                let party := shr(240, calldataload(add(packed.offset, shl(1, i))))
                if or(lt(party, next), iszero(lt(party, count))) {
                    bad := i
                    break
                }
                next := add(party, 1)
                mstore(add(words, shl(5, i)), party)
            }
            arrayHash := keccak256(words, shl(5, n))
        }
    }

    /// @dev Sum of payouts, by strictly rising party, and root of the Merkle tree over them: a leaf is
    /// keccak(keccak(abi.encode(uint256 party, address account, uint256 amount))), hashed twice so that no inner node
    /// (64 bytes) can pass for a leaf; pairs are sorted, an odd node moves up. OpenZeppelin's `MerkleProof` verifies it.
    /// The accounts are those that were frozen.
    /// @param packed A multiple of {PAYOUT} bytes, at least one.
    /// @param seats The participants.
    /// @return root Of the tree.
    /// @return sum Of all amounts; cannot overflow, since there are at most 65,536 parties.
    /// @return bad Position of the first one that is no participant's, not higher than the one before, or of nothing;
    /// or {NONE}.
    function payouts(bytes calldata packed, bytes memory seats)
        internal
        pure
        returns (bytes32 root, uint256 sum, uint256 bad)
    {
        uint256 n = packed.length / PAYOUT;
        bad = NONE;
        assembly ("memory-safe") {
            let leaf := mload(0x40) // 3 words, then n nodes; not kept
            let nodes := add(leaf, 0x60)
            let size := mload(seats)
            let next := 0
            for { let i := 0 } lt(i, n) { i := add(i, 1) } {
                let word := calldataload(add(packed.offset, mul(i, 18)))
                let party := shr(240, word)
                let amount := and(shr(112, word), 0xffffffffffffffffffffffffffffffff)
                let seat := mul(party, 73)
                if or(or(lt(party, next), iszero(lt(seat, size))), iszero(amount)) {
                    bad := i
                    break
                }
                next := add(party, 1)
                sum := add(sum, amount)
                mstore(leaf, party)
                mstore(add(leaf, 0x20), shr(96, mload(add(add(seats, 0x34), seat)))) // account: 20 bytes into the seat
                mstore(add(leaf, 0x40), amount)
                mstore(0x00, keccak256(leaf, 0x60))
                mstore(add(nodes, shl(5, i)), keccak256(0x00, 0x20))
            }
            // Each level is written over the one below it: node k of a level needs nodes 2k and 2k + 1 only.
            for { let width := n } gt(width, 1) { width := shr(1, add(width, 1)) } {
                let end := add(nodes, shl(5, width))
                let to := nodes
                for { let from := nodes } lt(from, end) { from := add(from, 0x40) } {
                    let node := mload(from)
                    if lt(add(from, 0x20), end) {
                        let right := mload(add(from, 0x20))
                        let swap := shl(5, gt(node, right)) // the smaller one comes first
                        mstore(swap, node)
                        mstore(xor(swap, 0x20), right)
                        node := keccak256(0x00, 0x40)
                    }
                    mstore(to, node)
                    to := add(to, 0x20)
                }
            }
            root := mload(nodes)
        }
    }
}
