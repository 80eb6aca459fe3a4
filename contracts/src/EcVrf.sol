// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

/// @title Verifier of ECVRF-SECP256K1-SHA256-TAI proofs, with hints
/// @notice RFC 9381 ECVRF with try-and-increment (section 5.4.1.1) on secp256k1. RFC 9381 has no suite for this curve:
/// the suite byte 0xFE is private to flbc, everything else is the RFC's algorithm with the parameters of its
/// P256-SHA256-TAI suite (33-byte points, 16-byte challenge, 32-byte scalars, cofactor 1).
///
/// The EVM multiplies points on this curve only inside `ecrecover(h, v, r, s)`, which returns the address of
/// (s*R - h*G)/r, where R is the point with abscissa r and the parity that v gives. Scalar products are therefore not
/// computed here: the caller states the resulting point (a hint) and `ecrecover` confirms its address.
///
/// Layout of a proof, big-endian: 432 + 32k bytes
///
///     offset  bytes  name      meaning
///          0     64  yx yy     public key Y; `key` is the Ethereum address of these 64 bytes
///         64     64  gx gy     Gamma = x*H, where x is the secret key
///        128     16  c         challenge
///        144     32  s         response
///        176     64  ux uy     hint: U = s*G - c*Y         ecrecover(-s*yx, v(Y), yx, -c*yx)
///        240     32  hy        hint: even ordinate of H    satisfies the curve equation
///        272     64  shx shy   hint: s*H                   ecrecover(0, v(H), hx, s*hx)
///        336     64  cgx cgy   hint: c*Gamma               ecrecover(0, v(Gamma), gx, c*gx)
///        400     32  inv       hint: 1/(cgx - shx)         a multiplication modulo P
///        432    32k  nr[0..k)  hint: even square root of -(x_i^3 + 7), for each candidate x_i of H that is no abscissa
///
/// Why hints cannot make a false proof pass. Each is checked against what it stands for, and nothing is left to choose:
/// - U, s*H, c*Gamma must have the address that `ecrecover` computes. A wrong point with the right address is a second
///   preimage of a 160-bit hash, found anew for each challenge: what the address has to be depends on the challenge,
///   and the challenge on the hinted point. That is no easier than guessing the 128-bit challenge.
/// - V = s*H - c*Gamma is computed from the two, with one hinted inverse that is multiplied back. Equal or opposite
///   points (no inverse) are refused.
/// - H is the point of the *first* candidate x_i that is an abscissa. P = 3 mod 4, so -1 is no square modulo P, and a
///   square root of -(x^3 + 7) proves that x^3 + 7 has none (it is never 0: the group has odd order, hence no point
///   with y = 0). No valid candidate can be skipped, so the number of witnesses is determined too. A candidate >= P is
///   no field element; it is skipped, with a zero in place of the witness.
/// - The forms are unique: coordinates and `inv` are reduced, hy and the witnesses even. One (Y, Gamma, c, s) has one
///   encoding. A prover can still make many proofs for one alpha, by other nonces; all have the same Gamma, hence the
///   same beta.
///
/// The one thing that 160 bits do weaken: with about 2^80 work the owner of a key can look for two public keys with one
/// address before registering it, and then choose between two outputs.
///
/// Refused although RFC 9381 accepts them, each with a chance of about 2^-128 per honest proof: c = 0, s = 0 (both have
/// no `ecrecover` form), and points Y, H, Gamma whose abscissa lies in [Q, P), which `ecrecover` does not take. A point
/// at infinity has no encoding.
///
/// The caller must fix `key` before `alpha` is known, else the owner can try keys until it likes the output.
library EcVrf {
    /// @notice The proof is not valid.
    /// @param step Which check failed:
    /// 1 the length is not 432 + 32k with k <= 255;
    /// 2 Y is not on the curve, its abscissa is >= Q, or its address is not `key`;
    /// 3 Gamma is not on the curve or its abscissa is >= Q;
    /// 4 c = 0, s = 0 or s >= Q;
    /// 5 a witness does not show that its candidate is no abscissa, or has not its unique form;
    /// 6 (x_k, hy) is not on the curve, hy is odd, or x_k >= Q;
    /// 7 (ux, uy) is not s*G - c*Y;
    /// 8 (shx, shy) is not s*H;
    /// 9 (cgx, cgy) is not c*Gamma;
    /// 10 inv is not the reduced inverse of cgx - shx;
    /// 11 c is not the hash of Y, H, Gamma, U, V.
    error BadProof(uint8 step);

    /// @dev Prime of the field and order of the group (SEC 2, version 2.0, section 2.4.1). The curve is y^2 = x^3 + 7.
    uint256 private constant P = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEFFFFFC2F;
    uint256 private constant Q = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;

    uint256 private constant FIXED = 432;
    uint256 private constant MAX_WITNESSES = 255; // the counter is one byte

    uint256 private constant Y_AT = 0;
    uint256 private constant GAMMA_AT = 64;
    uint256 private constant C_AT = 128;
    uint256 private constant S_AT = 144;
    uint256 private constant U_AT = 176;
    uint256 private constant HY_AT = 240;
    uint256 private constant SH_AT = 272;
    uint256 private constant CG_AT = 336;
    uint256 private constant INV_AT = 400;

    /// @notice Checks a proof and returns the output of the VRF; reverts with `BadProof` if it is not valid.
    /// @param key Address of the public key, as registered before `alpha` was known.
    /// @param alpha Input of the VRF.
    /// @param proof 432 + 32k bytes, see above.
    /// @return beta Output: uniform to everyone who does not know the secret key, and the only one for (key, alpha).
    function verify(address key, bytes32 alpha, bytes calldata proof) internal pure returns (bytes32 beta) {
        _checkForm(key, proof);
        uint256 hx = _hashToCurve(alpha, proof);
        _checkProducts(hx, proof);
        (uint256 vx, uint256 vy) = _difference(proof);

        (uint256 yx, uint256 yy) = _point(proof, Y_AT);
        (uint256 gx, uint256 gy) = _point(proof, GAMMA_AT);
        (uint256 ux, uint256 uy) = _point(proof, U_AT);
        // RFC 9381, section 5.4.3: suite, 0x02, five compressed points, 0x00. H has an even ordinate.
        bytes memory head = abi.encodePacked(hex"fe02", _sign(yy), yx, hex"02", hx, _sign(gy), gx);
        bytes32 hash = sha256(abi.encodePacked(head, _sign(uy), ux, _sign(vy), vx, hex"00"));
        if (uint256(hash) >> 128 != _challenge(proof)) revert BadProof(11);

        // Section 5.2: suite, 0x03, compressed Gamma (cofactor 1), 0x00.
        return sha256(abi.encodePacked(hex"fe03", _sign(gy), gx, hex"00"));
    }

    /// @dev Length, the two points that the prover states, ranges of the two scalars.
    function _checkForm(address key, bytes calldata proof) private pure {
        uint256 size = proof.length;
        if (size < FIXED || (size - FIXED) % 32 != 0 || (size - FIXED) / 32 > MAX_WITNESSES) revert BadProof(1);
        (uint256 yx, uint256 yy) = _point(proof, Y_AT);
        if (!_usable(yx, yy) || _address(yx, yy) != key) revert BadProof(2);
        (uint256 gx, uint256 gy) = _point(proof, GAMMA_AT);
        if (!_usable(gx, gy)) revert BadProof(3);
        uint256 s = _word(proof, S_AT);
        if (_challenge(proof) == 0 || s == 0 || s >= Q) revert BadProof(4);
    }

    /// @dev Abscissa of H: the first candidate sha256(0xFE 0x01 Y alpha i 0x00) that has a point (section 5.4.1.1).
    function _hashToCurve(bytes32 alpha, bytes calldata proof) private pure returns (uint256 x) {
        (uint256 yx, uint256 yy) = _point(proof, Y_AT);
        bytes memory message = abi.encodePacked(hex"fe01", _sign(yy), yx, alpha, hex"0000");
        uint256 witnesses = (proof.length - FIXED) / 32;
        for (uint256 i = 0; i < witnesses; ++i) {
            message[67] = bytes1(uint8(i));
            x = uint256(sha256(message));
            uint256 root = _word(proof, FIXED + 32 * i);
            if (x >= P) {
                if (root != 0) revert BadProof(5);
            } else if (root >= P || root & 1 != 0 || mulmod(root, root, P) != P - _cubic(x)) {
                revert BadProof(5);
            }
        }
        message[67] = bytes1(uint8(witnesses));
        x = uint256(sha256(message));
        uint256 hy = _word(proof, HY_AT);
        if (!_usable(x, hy) || hy & 1 != 0) revert BadProof(6);
    }

    /// @dev The four scalar products, by three calls. The arguments r are below Q and, as no point of the curve has
    /// abscissa 0, nonzero; so are c and s: `ecrecover` computes what the layout above says.
    function _checkProducts(uint256 hx, bytes calldata proof) private pure {
        uint256 c = _challenge(proof);
        uint256 s = _word(proof, S_AT);
        (uint256 x, uint256 y) = _point(proof, Y_AT);
        uint256 minusSx = Q - mulmod(s, x, Q);
        uint256 minusCx = Q - mulmod(c, x, Q);
        if (!_is(ecrecover(bytes32(minusSx), _recovery(y), bytes32(x), bytes32(minusCx)), proof, U_AT)) {
            revert BadProof(7);
        }
        if (!_is(ecrecover(0, 27, bytes32(hx), bytes32(mulmod(s, hx, Q))), proof, SH_AT)) revert BadProof(8);
        (x, y) = _point(proof, GAMMA_AT);
        if (!_is(ecrecover(0, _recovery(y), bytes32(x), bytes32(mulmod(c, x, Q))), proof, CG_AT)) revert BadProof(9);
    }

    /// @dev V = s*H - c*Gamma, by the chord through s*H and -c*Gamma. Both are points of the curve by now.
    function _difference(bytes calldata proof) private pure returns (uint256 vx, uint256 vy) {
        (uint256 ax, uint256 ay) = _point(proof, SH_AT);
        (uint256 bx, uint256 by) = _point(proof, CG_AT);
        uint256 inv = _word(proof, INV_AT);
        if (inv >= P || mulmod(addmod(bx, P - ax, P), inv, P) != 1) revert BadProof(10);
        uint256 slope = mulmod(addmod(P - by, P - ay, P), inv, P);
        vx = addmod(mulmod(slope, slope, P), P - addmod(ax, bx, P), P);
        vy = addmod(mulmod(slope, addmod(ax, P - vx, P), P), P - ay, P);
    }

    /// @dev Whether the point stated at `offset` has the address that `ecrecover` returned (0: it refused).
    function _is(address got, bytes calldata proof, uint256 offset) private pure returns (bool) {
        (uint256 x, uint256 y) = _point(proof, offset);
        return got != address(0) && got == _address(x, y);
    }

    /// @dev Whether (x, y) is a point of the curve in reduced form that `ecrecover` takes as R.
    function _usable(uint256 x, uint256 y) private pure returns (bool) {
        return x < Q && y < P && mulmod(y, y, P) == _cubic(x);
    }

    /// @dev x^3 + 7 modulo P.
    function _cubic(uint256 x) private pure returns (uint256) {
        return addmod(mulmod(mulmod(x, x, P), x, P), 7, P);
    }

    /// @dev Ethereum address of a point.
    function _address(uint256 x, uint256 y) private pure returns (address) {
        return address(uint160(uint256(keccak256(abi.encode(x, y)))));
    }

    /// @dev First byte of a compressed point (SEC 1, section 2.3.3).
    function _sign(uint256 y) private pure returns (uint8) {
        return uint8(2 + (y & 1));
    }

    /// @dev The v that makes `ecrecover` take the point with ordinate y as R.
    function _recovery(uint256 y) private pure returns (uint8) {
        return uint8(27 + (y & 1));
    }

    function _challenge(bytes calldata proof) private pure returns (uint256) {
        return _word(proof, C_AT) >> 128;
    }

    function _point(bytes calldata proof, uint256 offset) private pure returns (uint256 x, uint256 y) {
        return (_word(proof, offset), _word(proof, offset + 32));
    }

    /// @dev 32 bytes of the proof; `_checkForm` has checked that they are inside.
    function _word(bytes calldata proof, uint256 offset) private pure returns (uint256 word) {
        assembly ("memory-safe") {
            word := calldataload(add(proof.offset, offset))
        }
    }
}
