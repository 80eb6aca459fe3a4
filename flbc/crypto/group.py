"""The group of NDD-FE: secp256k1 by libsecp256k1, its points as 33 compressed bytes (SEC 1, section 2.3.3).

Decisional Diffie-Hellman is assumed in it, and hashes are random oracles. The library has no point at infinity. Here
``None`` stands for it where a *sum* may be infinite, with 33 zero bytes as its encoding; in keys and in what a client
sends it is refused.

Timing: agreements and public keys are libsecp256k1's constant-time functions. Its product with another point is not
constant time, nor are sums of points from tables. A static secret therefore goes through such a product in two random
shares (`GroupKey.divide`); the schemes say why their one-time scalars may go through it as they are.

A point of the library takes about 300 bytes in Python, its encoding 33: vectors are read and written point by point.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha512
from typing import TYPE_CHECKING, TypeAlias

import coincurve
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from flbc.crypto._checks import Secret, check_bytes, check_int
from flbc.crypto.keystream import KEY_BYTES, EncryptionKey
from flbc.crypto.signing import CURVE_ORDER
from flbc.errors import CiphertextError

if TYPE_CHECKING:
    from hashlib import _Hash

#: A point that is not infinite; as ``Point | None`` a sum.
Point: TypeAlias = coincurve.PublicKey

ORDER = CURVE_ORDER
POINT_BYTES, SCALAR_BYTES = 33, 32
INFINITY = bytes(POINT_BYTES)

_KEY_INFO = b"flbc/group/key/1"
_BASE_DOMAIN = b"flbc/group/base/1"
# 384 bits modulo a 256-bit order: no scalar is likelier than another by more than 2^-128.
_WIDE_BYTES = 48
_STREAM_SCALARS = 1024
# Below this many products a table of 8,160 points costs more than it saves (45 ms and 16 us each, measured).
_TABLE_USES = 3000


class GroupKey(Secret):
    """A secret scalar. It has no readable repr and refuses to be pickled.

    Make one with `derive` or `generate`.
    """

    __slots__ = ("_key", "_public")

    def __init__(self, key: coincurve.PrivateKey) -> None:
        if not isinstance(key, coincurve.PrivateKey):
            raise TypeError("use GroupKey.derive(key) or GroupKey.generate()")
        self._key = key
        self._public = key.public_key.format()

    @classmethod
    def generate(cls) -> GroupKey:
        """Draw a fresh key from the operating system's random generator."""
        return cls(coincurve.PrivateKey(encode_scalar(1 + secrets.randbelow(ORDER - 1))))

    @classmethod
    def derive(cls, key: EncryptionKey) -> GroupKey:
        """Derive the key that belongs to an encryption key: always the same, so that no key file has to hold it.

        HKDF-SHA256 (RFC 5869, no salt) of the X25519 secret with an `info` of its own: without that secret neither
        key says anything about the other.
        """
        if not isinstance(key, EncryptionKey):
            raise TypeError(f"key must be an EncryptionKey, not {type(key).__name__}")
        wide = HKDF(algorithm=SHA256(), length=64, salt=None, info=_KEY_INFO).derive(key.to_bytes())
        return cls(coincurve.PrivateKey(encode_scalar(nonzero_scalar(wide))))

    @property
    def public(self) -> bytes:
        """The public key, 33 bytes."""
        return self._public

    def agree(self, peer_public: bytes, info: bytes, length: int = KEY_BYTES) -> bytes:
        """Derive the bytes that only this party and `peer_public` know, for one purpose.

        HKDF-SHA256 (RFC 5869, no salt) of the shared point (its SHA-256, as libsecp256k1's constant-time
        Diffie-Hellman gives it), with ``info ‖ lower ‖ higher public key``: both sides get the same bytes, and they
        are bound to both identities.

        Parameters
        ----------
        peer_public : bytes
            33 bytes, already checked against the roster: the agreement itself authenticates nobody.
        info : bytes
            The purpose and the round, never used twice for different data.
        length : int
            32 for a key, 64 for a scalar (`nonzero_scalar`).

        Raises
        ------
        CiphertextError
            If `peer_public` is no point of the curve.
        """
        peer, info = check_bytes("peer_public", peer_public), check_bytes("info", info)
        parse_point(peer, "the peer's group key")
        check_int("length", length, KEY_BYTES, 64)
        low, high = sorted((self._public, peer))
        kdf = HKDF(algorithm=SHA256(), length=length, salt=None, info=info + low + high)
        return kdf.derive(self._key.ecdh(peer))

    def divide(self, points: Iterable[Point | None]) -> Iterator[Point | None]:
        """Yield each point's product with the inverse of the secret."""
        shares = random_shares(pow(int.from_bytes(self._key.secret, "big"), -1, ORDER))
        for point in points:
            yield None if point is None else add(product_terms(point, shares))

    def __repr__(self) -> str:
        return f"<GroupKey public={self._public.hex()}>"


# ---------------------------------------------------------------------- scalars
def encode_scalar(number: int) -> bytes:
    """Return a number modulo the group's order, 32 bytes."""
    return (number % ORDER).to_bytes(SCALAR_BYTES, "big")


def decode_scalar(data: bytes, what: str) -> int:
    """Undo :func:`encode_scalar`; CiphertextError unless the number is in [1, order - 1]."""
    number = int.from_bytes(data, "big")
    if len(data) != SCALAR_BYTES or not 0 < number < ORDER:
        raise CiphertextError(f"{what} is not {SCALAR_BYTES} bytes of a number between 1 and the group's order")
    return number


def nonzero_scalar(wide: bytes) -> int:
    """Reduce 64 uniform bytes to a number in [1, order - 1] that is uniform but for 2^-256."""
    return int.from_bytes(check_bytes("wide", wide, 64), "big") % (ORDER - 1) + 1


def scalar_stream(key: bytes) -> Iterator[int]:
    """Yield uniform numbers modulo the order without end: 48 bytes each of the AES-256-CTR keystream of `key`.

    They are not reduced, since their sums and products have to be reduced anyway.

    Parameters
    ----------
    key : bytes
        32 bytes, used for nothing else.
    """
    encryptor = Cipher(algorithms.AES256(check_bytes("key", key, KEY_BYTES)), modes.CTR(bytes(16))).encryptor()
    zeros = bytes(_WIDE_BYTES * _STREAM_SCALARS)
    while True:
        block = encryptor.update(zeros)
        for at in range(0, len(block), _WIDE_BYTES):
            yield int.from_bytes(block[at : at + _WIDE_BYTES], "big")


# ---------------------------------------------------------------------- points and bytes
def parse_point(data: bytes, what: str) -> Point:
    """Read one point; CiphertextError, which names `what`, unless it is compressed, on the curve and finite."""
    try:
        if len(data) != POINT_BYTES:  # the library reads uncompressed and hybrid points too
            raise ValueError
        return Point(data)
    except ValueError:
        raise CiphertextError(f"{what} is not {POINT_BYTES} bytes of a compressed point of secp256k1") from None


def check_length(data: bytes, count: int, what: str) -> None:
    """Raise CiphertextError, which names `what`, unless `data` has the length of `count` points."""
    if len(data) != count * POINT_BYTES:
        raise CiphertextError(f"{what} has {len(data)} bytes, expected {count * POINT_BYTES}")


def parse_points(data: bytes, count: int, what: str) -> Iterator[Point]:
    """Yield `count` points, each checked when its turn comes.

    Raises
    ------
    CiphertextError
        If the length is wrong (at once), or a point is infinite, in another form or not on the curve; it names `what`
        and the index.
    """
    check_length(data, count, what)
    return (parse_point(data[at : at + POINT_BYTES], f"{what}: point {i}") for i, at in _places(count))


def parse_sums(data: bytes, count: int, what: str) -> Iterator[Point | None]:
    """Do as `parse_points`, but 33 zero bytes are the point at infinity."""
    check_length(data, count, what)
    parts = ((i, data[at : at + POINT_BYTES]) for i, at in _places(count))
    return (None if part == INFINITY else parse_point(part, f"{what}: point {i}") for i, part in parts)


def encode_points(points: Iterable[Point | None]) -> bytes:
    """Write points, 33 bytes each."""
    out = bytearray()
    for point in points:
        out += INFINITY if point is None else point.format()
    return bytes(out)


def _places(count: int) -> Iterator[tuple[int, int]]:
    return ((i, i * POINT_BYTES) for i in range(count))


# ---------------------------------------------------------------------- sums and products
def add(points: Sequence[Point]) -> Point | None:
    """Return the sum of any number of points; None if it is infinite."""
    if len(points) < 2:
        return points[0] if points else None
    try:
        return Point.combine_keys(list(points))
    except ValueError:  # coincurve's word for the point at infinity
        return None


def negate(point: Point) -> Point:
    """Return the inverse: the other point with this x."""
    data = point.format()
    return Point(bytes([data[0] ^ 1]) + data[1:])


def multiply(point: Point, scalar: int) -> Point | None:
    """Return a product with any integer; its time depends on the integer."""
    return point.multiply(encode_scalar(scalar)) if scalar % ORDER else None


def random_shares(scalar: int) -> tuple[int, int]:
    """Split a secret number into two whose sum it is: what the time of a product tells about one is new each time."""
    share = secrets.randbelow(ORDER)
    return share, (scalar - share) % ORDER


def product_terms(point: Point, shares: Iterable[int]) -> list[Point]:
    """Return points whose sum is the product with the sum of ``shares``, to be added to others in one go."""
    return [part for share in shares if (part := multiply(point, share)) is not None]


class WeightedSum:
    """Sums of points with the same public factors over and over, such as those of a vector's coordinates.

    Small factors take one doubling per bit for all points together (Horner's rule on binary digits), which is about
    twice as fast as a product for each point; large ones take the products.

    Parameters
    ----------
    factors : sequence of int
        One for each point.
    """

    def __init__(self, factors: Sequence[int]) -> None:
        self._factors = [factor % ORDER for factor in factors]
        bits = max(factor.bit_length() for factor in self._factors) if self._factors else 0
        # In units of one addition within a sum: a sum costs 8 more, a product by a small factor 20.
        horner = bits * (8 + len(self._factors) / 2) <= 20 * len(self._factors) or bits <= 1
        self._digits: list[list[int]] | None = None
        if horner:
            self._digits = [[i for i, f in enumerate(self._factors) if f >> b & 1] for b in reversed(range(bits))]

    def __call__(self, points: Sequence[Point | None]) -> Point | None:
        """Return the sum of the points times their factors; None is the point at infinity."""
        total: Point | None = None
        if self._digits is None:
            pairs = [(p, f) for p, f in zip(points, self._factors, strict=True) if p is not None]
            return add([term for point, factor in pairs for term in product_terms(point, [factor])])
        for chosen in self._digits:
            terms = [] if total is None else [total, total]
            terms += [point for i in chosen if (point := points[i]) is not None]
            total = add(terms)
        return total


class FixedBase:
    """Products of one point with many numbers, from a table of its byte multiples.

    Parameters
    ----------
    base : Point
    uses : int
        About how many products will be asked for: for a few, no table is made.
    size : int
        Bytes of the largest factor; 32 for any scalar.
    """

    def __init__(self, base: Point, uses: int, size: int = SCALAR_BYTES) -> None:
        self._base, self._rows = base, list[list[Point]]()
        if uses * SCALAR_BYTES < _TABLE_USES * size:
            return
        for _ in range(size):
            row = [base]
            for _ in range(254):
                row.append(Point.combine_keys([row[-1], base]))
            self._rows.append(row)
            base = Point.combine_keys([row[-1], base])

    def terms(self, number: int) -> list[Point]:
        """Return points whose sum is the product with ``number``, to be added to others in one go.

        Parameters
        ----------
        number : int
            In [0, 256**size - 1], and below the group's order.
        """
        if not self._rows:
            return [self._base.multiply(number.to_bytes(SCALAR_BYTES, "big"))] if number else []
        digits = number.to_bytes(len(self._rows), "little")
        return [row[digit - 1] for row, digit in zip(self._rows, digits, strict=True) if digit]


def hash_to_curve(label: bytes, count: int) -> Iterator[Point]:
    """Yield `count` points of which nobody knows a discrete logarithm, nor a relation between any of them.

    Try and increment: SHA-512 of domain, label, index and counter gives an x and the sign of y, until there is such a
    point (two tries on average). The time depends on the label, which is public.

    Parameters
    ----------
    label : bytes
        32 bytes.
    count : int
        How many points.
    """
    start = sha512(_BASE_DOMAIN + check_bytes("label", label, 32))
    for index in range(count):
        prefix = start.copy()
        prefix.update(index.to_bytes(8, "big"))
        yield _point_of(prefix)


def _point_of(prefix: _Hash) -> Point:
    for counter in range(256):
        attempt = prefix.copy()
        attempt.update(bytes([counter]))
        digest = attempt.digest()
        try:
            return Point(bytes([2 + (digest[32] & 1)]) + digest[:32])
        except ValueError:  # no point has this x
            continue
    raise CiphertextError("this label has no base point: start a new attempt")  # chance 2^-256
