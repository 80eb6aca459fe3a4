"""A verifiable random function on secp256k1 (RFC 9381 ECVRF, try-and-increment), and its form for the chain.

The owner of a key computes ``beta`` for an input ``alpha``, with a proof ``pi`` that it is the right one.

* Without the secret key or a proof, beta is indistinguishable from 32 random bytes, also to whoever chose alpha.
* With pi everyone can check beta, and learns nothing about the secret key or about beta for another alpha.
* For one public key and one alpha there is one beta, whatever the owner does; making pi pass for another one takes
  about 2^128 work. So the owner can withhold its draw but not choose it, provided that its key was registered before
  anybody could know alpha.

An ECDSA signature is no substitute: its signer picks the nonce, so it can make signatures until their hash wins.
(A deterministic nonce, RFC 6979, is a promise that nobody can check.) Here the nonce only enters ``(c, s)``; beta
depends on Gamma alone. The VRF key is a key of its own, never the signing key: two protocols that draw nonces under
one key would have to be analysed together, and a lost VRF key must not be able to sign.

RFC 9381 has no suite for secp256k1. This is its P256-SHA256-TAI with the curve replaced and the private suite byte
0xFE. Decisional Diffie-Hellman on the curve and SHA-256 as a random oracle are assumed.

Timing: products with the base point and arithmetic on secrets are libsecp256k1's constant-time functions. Its product
with another point is not constant time, so such a secret is split into two random shares first: what the time tells
about a share is new each time. The nonce's HMAC works on bytes; hashing to the curve takes a time that depends on
alpha, which is public here.
"""

from __future__ import annotations

from coincurve import PrivateKey, PublicKey

from flbc.crypto import ecvrf
from flbc.crypto._checks import check_bytes
from flbc.crypto.ecvrf import CHALLENGE_BYTES, POINT_BYTES, SCALAR_BYTES
from flbc.crypto.signing import CURVE_ORDER, SigningKey
from flbc.errors import VerificationError

ALPHA_BYTES = BETA_BYTES = 32
#: Bytes of a packed proof without its witnesses of 32 bytes each; see ``contracts/src/EcVrf.sol``.
PACKED_BYTES = 432

# Prime of secp256k1's field (SEC 2, version 2.0, section 2.4.1); the curve is y² = x³ + 7.
_FIELD = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_FFFFFC2F


def prove(key: SigningKey, alpha: bytes) -> bytes:
    """Compute the proof for an input. The same input always gets the same proof.

    Parameters
    ----------
    key : SigningKey
        The VRF key, used for nothing else.
    alpha : bytes
        Any length; 32 bytes if the chain is to verify it.

    Returns
    -------
    bytes
        ``pi``, 81 bytes: Gamma (33) ‖ c (16) ‖ s (32). `beta_of` gives the output.
    """
    if not isinstance(key, SigningKey):
        raise TypeError(f"key must be a SigningKey, not {type(key).__name__}")
    return ecvrf.prove(_CURVE, key.to_bytes(), check_bytes("alpha", alpha))


def verify(public33: bytes, alpha: bytes, pi: bytes) -> bytes:
    """Check a proof and return the output that it proves.

    Accepts what ``EcVrf.sol`` accepts. Both refuse c = 0 and s = 0, which RFC 9381 allows and nobody can reach.

    Parameters
    ----------
    public33 : bytes
        The owner's public key, compressed, as registered before alpha was known.
    alpha : bytes
        The input.
    pi : bytes
        81 bytes from `prove`.

    Returns
    -------
    bytes
        ``beta``, 32 bytes.

    Raises
    ------
    VerificationError
        If the key is no point of the curve, or the proof is malformed or belongs to another key or input.
    """
    return ecvrf.verify(_CURVE, check_bytes("public33", public33), check_bytes("alpha", alpha), check_bytes("pi", pi))


def beta_of(pi: bytes) -> bytes:
    """Return the output that a proof claims, 32 bytes, without verifying it: for one's own proofs."""
    return ecvrf.beta_of(_CURVE, check_bytes("pi", pi))


def draw_of(beta: bytes) -> int:
    """Return the first 64 bits of an output: what the ledger records and `flbc.election` ranks."""
    return int.from_bytes(check_bytes("beta", beta, BETA_BYTES)[:8], "big")


class _Secp256k1:
    """secp256k1 by libsecp256k1."""

    suite = 0xFE
    order = CURVE_ORDER

    def decode(self, data: bytes) -> PublicKey:
        if len(data) != POINT_BYTES:  # the library reads uncompressed points too
            raise ValueError("not a compressed point")
        return PublicKey(data)

    def encode(self, point: PublicKey) -> bytes:
        return point.format(compressed=True)

    def product(self, secret: bytes, point: PublicKey | None = None) -> PublicKey:
        if point is None:
            return PrivateKey(secret).public_key
        share = PrivateKey()
        rest = PrivateKey(secret).add(share.multiply(_scalar(-1)).secret)
        return PublicKey.combine_keys([point.multiply(share.secret), point.multiply(rest.secret)])

    def response(self, nonce: bytes, challenge: int, secret: bytes) -> bytes:
        response: bytes = PrivateKey(secret).multiply(_scalar(challenge)).add(nonce).secret
        return response

    def difference(self, s: int, a: PublicKey | None, c: int, b: PublicKey) -> PublicKey:
        first = PrivateKey(_scalar(s)).public_key if a is None else a.multiply(_scalar(s))
        return PublicKey.combine_keys([first, b.multiply(_scalar(-c))])


_CURVE = _Secp256k1()


def _scalar(number: int) -> bytes:
    return (number % CURVE_ORDER).to_bytes(SCALAR_BYTES, "big")


# ---------------------------------------------------------------------- the form for the chain
def pack(public33: bytes, alpha: bytes, pi: bytes) -> bytes:
    """Write a proof with the hints that let a contract verify it cheaply.

    Nothing in it is secret, and everybody can compute it from a proof. A proof has exactly one packed form.

    Parameters
    ----------
    public33 : bytes
        The owner's public key, compressed.
    alpha : bytes
        The input, 32 bytes.
    pi : bytes
        81 bytes from `prove`.

    Returns
    -------
    bytes
        432 bytes, and 32 for each candidate of H that is no point (one on average); ``contracts/src/EcVrf.sol``
        describes the layout.

    Raises
    ------
    VerificationError
        If the proof is not valid, or is one in 2^127 that a contract cannot verify.
    """
    alpha = check_bytes("alpha", alpha, ALPHA_BYTES)
    verify(public33, alpha, pi)
    public33, pi = bytes(public33), bytes(pi)
    key, (gamma, c, s) = PublicKey(public33), ecvrf.split(_CURVE, pi)
    *skipped, last = ecvrf.encode_to_curve(_CURVE, public33, alpha)
    h, u = PublicKey(last), _CURVE.difference(s, None, c, key)
    s_h, c_gamma = h.multiply(_scalar(s)), gamma.multiply(_scalar(c))
    gap = c_gamma.point()[0] - s_h.point()[0]
    if gap == 0 or any(point.point()[0] >= CURVE_ORDER for point in (key, gamma, h)):
        raise VerificationError("a contract cannot verify this VRF proof: register another VRF key")
    parts = [_affine(key), _affine(gamma), pi[POINT_BYTES:], _affine(u), _affine(h)[32:]]
    parts += [_affine(s_h), _affine(c_gamma), pow(gap, -1, _FIELD).to_bytes(32, "big")]
    return b"".join(parts + [_witness(int.from_bytes(candidate[1:], "big")) for candidate in skipped])


def unpack(packed: bytes) -> tuple[bytes, bytes]:
    """Read the public key (33 bytes) and the proof (81 bytes) from a packed proof.

    The hints are for the contract and are skipped; the proof is not verified: call `verify`, and compare the key's
    address with the registered one.

    Raises
    ------
    VerificationError
        If the length is wrong, or the key or Gamma is no point of the curve.
    """
    packed = check_bytes("packed", packed)
    witnesses, rest = divmod(len(packed) - PACKED_BYTES, 32)
    if rest or not 0 <= witnesses <= ecvrf.MAX_SKIPPED:
        raise VerificationError(f"a packed VRF proof is {PACKED_BYTES} bytes and 32 per witness, not {len(packed)}")
    try:
        public33, gamma = (PublicKey(b"\4" + packed[at : at + 64]).format() for at in (0, 64))
    except ValueError:
        raise VerificationError("the packed VRF proof holds a point that is not on the curve") from None
    return public33, gamma + packed[128 : 128 + CHALLENGE_BYTES + SCALAR_BYTES]


def _affine(point: PublicKey) -> bytes:
    return point.format(compressed=False)[1:]


def _witness(x: int) -> bytes:
    """Show that x is the abscissa of no point: the even root of -(x³ + 7), as -1 is no square; 0 if x is too large."""
    if x >= _FIELD:
        return bytes(32)
    root = pow(-(x**3 + 7), (_FIELD + 1) // 4, _FIELD)
    return (root if root % 2 == 0 else _FIELD - root).to_bytes(32, "big")
