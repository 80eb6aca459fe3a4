"""ECVRF with try-and-increment and SHA-256 (RFC 9381, section 5), on any curve of prime order with 256 bits.

The algorithm of the suite P256-SHA256-TAI, for groups that a `Curve` describes: secp256k1 in `flbc.crypto.vrf`, P-256
in the test against the RFC's vectors. What the function is good for, and what it assumes, stands there.
"""

from __future__ import annotations

import hmac
from hashlib import sha256
from typing import Protocol, TypeVar

from flbc.errors import VerificationError

POINT_BYTES, CHALLENGE_BYTES, SCALAR_BYTES = 33, 16, 32
PROOF_BYTES = POINT_BYTES + CHALLENGE_BYTES + SCALAR_BYTES
#: Candidates for H that may be skipped: the counter is one byte.
MAX_SKIPPED = 255

Point = TypeVar("Point")


class Curve(Protocol[Point]):
    """What the algorithm needs of a group of prime order: secp256k1 or P-256.

    `product` and `response` work on secrets, the others on public values. Points are never the point at infinity;
    what would give it, or is no point, raises ValueError.
    """

    suite: int
    order: int

    def decode(self, data: bytes) -> Point:
        """Read a compressed point, 33 bytes (SEC 1, section 2.3.4)."""

    def encode(self, point: Point) -> bytes:
        """Write a point in compressed form."""

    def product(self, secret: bytes, point: Point | None = None) -> Point:
        """Multiply a point, or the base point, by a secret scalar of 32 bytes."""

    def response(self, nonce: bytes, challenge: int, secret: bytes) -> bytes:
        """Return nonce + challenge · secret modulo the order, 32 bytes."""

    def difference(self, s: int, a: Point | None, c: int, b: Point) -> Point:
        """Return s·a - c·b for public scalars; the base point stands in for a when that is None."""


def prove(curve: Curve[Point], secret: bytes, alpha: bytes) -> bytes:
    """ECVRF_prove (section 5.1); `secret` is a scalar of 32 bytes."""
    public = curve.encode(curve.product(secret))
    h = encode_to_curve(curve, public, alpha)[-1]
    point = curve.decode(h)
    gamma = curve.encode(curve.product(secret, point))
    nonce = rfc6979_nonce(curve.order, secret, h)
    u, v = curve.encode(curve.product(nonce)), curve.encode(curve.product(nonce, point))
    challenge = _challenge(curve, public, h, gamma, u, v)
    # The challenge or the response is zero, which raises ValueError, with a chance of 2^-128.
    response = curve.response(nonce, challenge, secret)
    return gamma + challenge.to_bytes(CHALLENGE_BYTES, "big") + response


def verify(curve: Curve[Point], public: bytes, alpha: bytes, pi: bytes) -> bytes:
    """ECVRF_verify (section 5.3), with the key's validation (section 5.4.5: the cofactor is 1)."""
    key = _decode(curve, "VRF key", public)
    gamma, c, s = split(curve, pi)
    h = encode_to_curve(curve, public, alpha)[-1]
    try:
        u = curve.encode(curve.difference(s, None, c, key))
        v = curve.encode(curve.difference(s, curve.decode(h), c, gamma))
    except ValueError:  # the point at infinity
        raise VerificationError("the VRF proof is not valid") from None
    if _challenge(curve, public, h, pi[:POINT_BYTES], u, v) != c:
        raise VerificationError("the VRF proof does not belong to this key and input")
    return beta_of(curve, pi)


def beta_of(curve: Curve[Point], pi: bytes) -> bytes:
    """ECVRF_proof_to_hash (section 5.2)."""
    split(curve, pi)
    return sha256(bytes([curve.suite, 3]) + pi[:POINT_BYTES] + b"\0").digest()


def rfc6979_nonce(order: int, secret: bytes, message: bytes) -> bytes:
    """ECVRF_nonce_generation_RFC6979 (section 5.4.2.1): RFC 6979, section 3.2, with SHA-256 and a 256-bit order."""
    digest = (int.from_bytes(sha256(message).digest(), "big") % order).to_bytes(SCALAR_BYTES, "big")
    value, key = b"\1" * 32, bytes(32)
    for step in (b"\0", b"\1"):
        key = hmac.digest(key, value + step + secret + digest, "sha256")
        value = hmac.digest(key, value, "sha256")
    while True:
        value = hmac.digest(key, value, "sha256")
        if 0 < int.from_bytes(value, "big") < order:
            return value
        key = hmac.digest(key, value + b"\0", "sha256")
        value = hmac.digest(key, value, "sha256")


def encode_to_curve(curve: Curve[Point], public: bytes, alpha: bytes) -> list[bytes]:
    """Candidates of H as compressed points (section 5.4.1.1): the last one is H, the others are no points."""
    candidates = []
    for counter in range(MAX_SKIPPED + 1):
        message = bytes([curve.suite, 1]) + public + alpha + bytes([counter, 0])
        candidates.append(b"\2" + sha256(message).digest())
        try:
            curve.decode(candidates[-1])
        except ValueError:
            continue
        return candidates
    raise VerificationError("this input has no VRF output: use another one")  # chance 2^-256


def _challenge(curve: Curve[Point], *points: bytes) -> int:
    """ECVRF_challenge_generation (section 5.4.3) of Y, H, Gamma, U, V."""
    digest = sha256(bytes([curve.suite, 2]) + b"".join(points) + b"\0").digest()
    return int.from_bytes(digest[:CHALLENGE_BYTES], "big")


def split(curve: Curve[Point], pi: bytes) -> tuple[Point, int, int]:
    """ECVRF_decode_proof (section 5.4.4): Gamma, c, s."""
    if len(pi) != PROOF_BYTES:
        raise VerificationError(f"a VRF proof must be {PROOF_BYTES} bytes, not {len(pi)}")
    gamma = _decode(curve, "point of the VRF proof", pi[:POINT_BYTES])
    c, s = int.from_bytes(pi[POINT_BYTES:-SCALAR_BYTES], "big"), int.from_bytes(pi[-SCALAR_BYTES:], "big")
    if not (c and 0 < s < curve.order):
        raise VerificationError("a number of the VRF proof is out of range")
    return gamma, c, s


def _decode(curve: Curve[Point], what: str, data: bytes) -> Point:
    try:
        return curve.decode(data)
    except ValueError:
        raise VerificationError(f"the {what} is no compressed point of the curve") from None
