"""Threshold Paillier: a key that nobody holds, and of whose n shares any t open a ciphertext together.

After Damgård and Jurik, "A generalisation, a simplification and some applications of Paillier's probabilistic
public-key system" (PKC 2001), section 4.1, which carries Shoup's threshold RSA (Eurocrypt 2000, section 3) over to
Paillier. Let λ = lcm(p-1, q-1), Δ = n! for n holders, and d a number with d ≡ 0 (mod λ) and d ≡ 1 (mod N). Then
``c^d = 1 + mN`` modulo N² for every ciphertext c of m.

    deal       f(X) = Δd + a_1 X + … + a_{t-1} X^{t-1} over the integers; holder i gets s_i = f(i)
    partial    c_i = c^{2Δ s_i} mod N²
    combine    Π c_i^{μ_i} = c^{2Δ² f(0)} = 1 + θmN, with the integers μ_i = Δ Π_{j≠i} j / (j-i), and θ = 2Δ³ mod N

Why over the integers
    The papers share modulo N·λ with safe primes, so that no place i ≤ n divides the order of the group. Here p and q
    are no safe primes (:mod:`flbc.crypto.paillier_keys`), so the a_k are uniform in a range that is 2^128 times larger
    than what they have to hide: for every set C of t-1 holders there is the integer polynomial h(X) = Δ Π_{j∈C} (j-X)/j
    with h(0) = Δ, h(i) = 0 for i in C and coefficients of at most Δ(n+1)!. Two secrets d and d' below N² differ for C
    by a shift of the a_k by (d'-d) times its coefficients, so the shares of C have the same distribution up to 2^-128.
    Sharing over the integers is Rabin's (Crypto 1998) and Damgård and Koprowski's (Eurocrypt 2001).
Who learns what
    *t-1 holders*: nothing of the key, up to 2^-128, and nothing of a plaintext (the exponent 2Δ lets whoever knows a
    plaintext and t-1 shares compute every other partial opening, so these add nothing to the plaintext; it also
    takes elements of order 2 away, whose partial openings would show a share's parity). *t holders*: everything.
    *The dealer* knows the key and has to forget it; :mod:`flbc.crypto.tno_interop` does without one.
Two openings of one round
    Each holder keeps for itself that it answers for one ciphertext a round. With 2t <= n two groups of t without a
    common holder could be led to open two, whose difference may be one client: hence 2t > n, `majority` at least.
    Holders that answer twice count in both groups: against f of them it takes 2t > n + f.
Cheating holders
    The product must be 1 modulo N, which a false partial opening misses but for one that its holder made by multiplying
    a right one by (1+N)^x: that adds a number of its choice to the plaintext. `combine` sets one false one aside if
    there is one more than the threshold. There are no proofs of single openings.
Timing
    GMP's arithmetic is not constant time: a holder answers on a host that runs nothing else.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from math import factorial, prod

from gmpy2 import gcd, invert, lcm, mpz, powmod, powmod_base_list

from flbc.crypto._checks import Secret, check_bytes
from flbc.crypto.paillier_keys import PrivateKey
from flbc.crypto.paillier_public import PublicKey, check_ciphertexts
from flbc.errors import CiphertextError, ConfigError, ProtocolError, VerificationError

#: Most holders: Δ and the shares grow with their factorial.
MAX_HOLDERS = 20
#: Bits by which the distribution of t-1 shares hides the key.
HIDING_BITS = 128

_KEY_MAGIC = b"flbc/paillier/threshold/public/1\n"
_SHARE_MAGIC = b"flbc/paillier/threshold/share/1\n"
_CHUNK = 8  # ciphertexts per call into GMP: about 0.4 s at 3072 bits
_MAX_SHARE_BYTES = 1 << 13


@dataclass(frozen=True, slots=True)
class ThresholdKey:
    """The public side of a shared key.

    Parameters
    ----------
    public : PublicKey
        What everybody encrypts under.
    threshold, holders : int
        t and n, n / 2 < t <= n <= `MAX_HOLDERS`, and t >= 2.
    theta : int
        What a combined opening multiplies plaintexts by, a unit modulo the modulus.

    Raises
    ------
    ConfigError
        If threshold or holders are out of range.
    """

    public: PublicKey
    threshold: int
    holders: int
    theta: mpz

    def __post_init__(self) -> None:
        check_threshold(self.threshold, self.holders)
        object.__setattr__(self, "theta", mpz(self.theta))

    @property
    def delta(self) -> mpz:
        """Δ, the factorial of the number of holders."""
        return mpz(factorial(self.holders))

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of `to_bytes`: what rosters pin for every holder, 32 bytes."""
        return sha256(self.to_bytes()).digest()

    def to_bytes(self) -> bytes:
        """Write version, t, n, the public key after its length (4 bytes), and θ."""
        public, theta = self.public.to_bytes(), bytes(self.theta.to_bytes(self.public.bits // 8, "big"))
        return _KEY_MAGIC + bytes([self.threshold, self.holders]) + len(public).to_bytes(4, "big") + public + theta

    @classmethod
    def from_bytes(cls, data: bytes, *, insecure_key_bits_for_tests: bool = False) -> ThresholdKey:
        """Read and check what `to_bytes` wrote, from anyone; CiphertextError if it is not sound."""
        raw, head = check_bytes("a threshold key", data), len(_KEY_MAGIC) + 6
        if raw[: len(_KEY_MAGIC)] != _KEY_MAGIC or len(raw) < head:
            raise CiphertextError("this is no threshold key of version 1: all parties need the same flbc version")
        end = head + int.from_bytes(raw[head - 4 : head], "big")
        public = PublicKey.from_bytes(raw[head:end], insecure_key_bits_for_tests=insecure_key_bits_for_tests)
        theta = mpz.from_bytes(raw[end:], "big")
        if len(raw) - end != public.bits // 8 or not 0 < theta < public.n or gcd(theta, public.n) != 1:
            raise CiphertextError("the threshold key's factor is no unit modulo the modulus")
        try:
            return cls(public, raw[head - 6], raw[head - 5], theta)
        except ConfigError as error:
            raise CiphertextError(str(error)) from None


class ShareKey(Secret):
    """One holder's share of a key. It has no readable repr and refuses to be pickled.

    Make them with `deal` or `from_bytes`.

    Parameters
    ----------
    key : ThresholdKey
    place : int
        The holder's, 1 to n.
    share : int
    """

    __slots__ = ("_exponent", "_key", "_place", "_share")

    def __init__(self, key: ThresholdKey, place: int, share: int) -> None:
        if not 1 <= place <= key.holders:
            raise ConfigError(f"a holder's place must lie from 1 to {key.holders}")
        self._key, self._place, self._share = key, int(place), mpz(share)
        self._exponent = 2 * key.delta * self._share

    @property
    def key(self) -> ThresholdKey:
        """The public side."""
        return self._key

    @property
    def place(self) -> int:
        """The holder's place."""
        return self._place

    def partial(self, ciphertexts: Sequence[int], progress: Callable[[int, int], None] | None = None) -> list[mpz]:
        """Open in part, on all processor cores; t of these make the plaintexts.

        Parameters
        ----------
        ciphertexts : sequence of int
            Elements of the group modulo N², of a sum that may be opened.
        progress : callable, optional
            Called with (done, total).

        Raises
        ------
        CiphertextError
            If one is outside the group.
        """
        check_ciphertexts(self._key.public, ciphertexts)
        modulus = self._key.public.n**2
        chunks = [list(map(mpz, ciphertexts[i : i + _CHUNK])) for i in range(0, len(ciphertexts), _CHUNK)]
        opened: list[mpz] = []
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # GMP's list exponentiation releases the interpreter lock
            for part in pool.map(lambda chunk: powmod_base_list(chunk, self._exponent, modulus), chunks):
                opened += part
                if progress is not None:
                    progress(len(opened), len(ciphertexts))
        return opened

    def to_bytes(self) -> bytes:
        """Write the secret, for an encrypted key file only."""
        key, size = self._key.to_bytes(), (self._share.bit_length() + 7) // 8
        sign, share = bytes([self._share < 0]), bytes(abs(self._share).to_bytes(size, "big"))
        return _SHARE_MAGIC + len(key).to_bytes(4, "big") + key + bytes([self._place]) + sign + share

    @classmethod
    def from_bytes(cls, data: bytes, *, insecure_key_bits_for_tests: bool = False) -> ShareKey:
        """Read what `to_bytes` wrote; CiphertextError, without detail, if it is malformed.

        That a share belongs to the key is seen when sums are opened, not here.
        """
        raw, head = check_bytes("a share", data), len(_SHARE_MAGIC)
        size = int.from_bytes(raw[head : head + 4], "big")
        key, rest = raw[head + 4 : head + 4 + size], raw[head + 4 + size :]
        if raw[:head] != _SHARE_MAGIC or not 2 < len(rest) <= _MAX_SHARE_BYTES or rest[1] > 1:
            raise CiphertextError("this is no share of a Paillier key of version 1")
        made = ThresholdKey.from_bytes(key, insecure_key_bits_for_tests=insecure_key_bits_for_tests)
        if not 1 <= rest[0] <= made.holders:
            raise CiphertextError("the share's place is none of its key's holders")
        share = mpz.from_bytes(rest[2:], "big")
        return cls(made, rest[0], -share if rest[1] else share)

    def __repr__(self) -> str:
        key = self._key
        return f"<ShareKey {self._place}, {key.threshold} of {key.holders}, of {key.public!r}>"


def deal(private: PrivateKey, threshold: int, holders: int) -> list[ShareKey]:
    """Share a private key, which is to be forgotten afterwards.

    Parameters
    ----------
    private : PrivateKey
    threshold, holders : int
        t and n, n / 2 < t <= n <= `MAX_HOLDERS`, and t >= 2.

    Returns
    -------
    list of ShareKey
        For the places 1 to n.

    Raises
    ------
    ConfigError
        If threshold or holders are out of range, names both; or for a key with fast opening.
    """
    check_threshold(threshold, holders)
    if private.fast_opening:
        # Shares have exponents of the whole group: they would take over the assumption and none of the speed.
        raise ConfigError("a key with fast opening is not shared: deal generate(bits), without fast_opening")
    n, (p, q) = private.public.n, map(mpz, private.primes())
    delta, order = mpz(factorial(holders)), lcm(p - 1, q - 1)
    exponent = order * invert(order, n)
    span = (mpz(1) << HIDING_BITS) * n * n * delta * factorial(holders + 1) * threshold
    coefficients = [delta * exponent, *(mpz(secrets.randbelow(int(span))) for _ in range(threshold - 1))]
    key = ThresholdKey(private.public, threshold, holders, 2 * delta**3 % n)
    shares = []
    for place in range(1, holders + 1):
        value = mpz(0)
        for coefficient in reversed(coefficients):
            value = value * place + coefficient
        shares.append(ShareKey(key, place, int(value)))
    return shares


def combine(key: ThresholdKey, partials: Mapping[int, Sequence[int]]) -> tuple[list[mpz], frozenset[int]]:
    """Make plaintexts of partial openings, although one holder's may be false.

    The `threshold` lowest places are tried first, then the lowest ``threshold + 1`` without each of them in turn: the
    work is bounded, and one false opening is survived where there is one to spare.

    Parameters
    ----------
    key : ThresholdKey
    partials : mapping of int to sequence of int
        By place, what `ShareKey.partial` returned for the same ciphertexts.

    Returns
    -------
    plaintexts : list of mpz
        In [0, N).
    wrong : frozenset of int
        The place that had to be set aside, if there was one.

    Raises
    ------
    ProtocolError
        If there are fewer than `threshold`, or places or lengths do not fit.
    CiphertextError
        If a number is outside the group.
    VerificationError
        If they do not make plaintexts: more than one is false, or there is none to spare.
    """
    if any(not 1 <= place <= key.holders for place in partials):
        raise ProtocolError(f"a partial opening's place must lie from 1 to {key.holders}")
    if len(partials) < key.threshold:
        raise ProtocolError(f"{key.threshold} partial openings are needed and {len(partials)} came: ask more holders")
    if len({len(vector) for vector in partials.values()}) != 1:
        raise ProtocolError("the partial openings have different lengths")
    for vector in partials.values():
        check_ciphertexts(key.public, vector)
    for places, left_out in _candidates(sorted(partials), key.threshold):
        plaintexts = _combine(key, places, partials)
        if plaintexts is not None:
            return plaintexts, left_out
    raise VerificationError("the partial openings do not make plaintexts: a holder answered falsely")


def majority(holders: int) -> int:
    """Return the smallest threshold with which any two groups that can open have a holder in common."""
    return holders // 2 + 1


def check_threshold(threshold: int, holders: int) -> None:
    """Raise ConfigError, naming both numbers, unless t of n may share a key and any two groups of t overlap."""
    if not 2 <= holders <= MAX_HOLDERS:
        raise ConfigError(f"a key is shared among 2 to {MAX_HOLDERS} holders, not {holders}")
    if threshold < 2:
        raise ConfigError(
            f"threshold = {threshold} would let one holder open everything: choose at least {majority(holders)} of "
            f"{holders}"
        )
    if threshold > holders:
        raise ConfigError(
            f"threshold = {threshold} is more than the {holders} holders, so that nothing could ever be opened: lower "
            "it (Paillier(threshold=...), run-config opening-threshold, `flbc keys deal --threshold`) or add holders"
        )
    if 2 * threshold <= holders:
        raise ConfigError(
            f"threshold = {threshold} of {holders} holders is too low: two groups of holders could open two sums of "
            f"one round: choose at least {majority(holders)} of {holders} (Paillier(threshold=...), run-config "
            "opening-threshold, `flbc keys deal --threshold`)"
        )


def _candidates(places: list[int], threshold: int) -> Iterator[tuple[list[int], frozenset[int]]]:
    yield places[:threshold], frozenset()
    if len(places) > threshold:
        for out in places[:threshold]:
            yield [place for place in places[: threshold + 1] if place != out], frozenset({out})


def _combine(key: ThresholdKey, places: list[int], partials: Mapping[int, Sequence[int]]) -> list[mpz] | None:
    """Return plaintexts, or None where the product is not 1 modulo N."""
    n, modulus = key.public.n, key.public.n**2
    # Integers, because the product of differences of places from 1 to n divides n! times the numerator.
    weights = [
        int(key.delta) * prod(j for j in places if j != i) // prod(j - i for j in places if j != i) for i in places
    ]
    inverse = invert(key.theta, n)
    plaintexts = []
    for row in zip(*(partials[place] for place in places), strict=True):
        product = mpz(1)
        for number, weight in zip(row, weights, strict=True):
            product = product * powmod(number, weight, modulus) % modulus
        if product % n != 1:
            return None
        plaintexts.append((product - 1) // n * inverse % n)
    return plaintexts
