"""Paillier key pairs in the form of Damgård, Jurik and Nielsen, with short blinding exponents.

The public key is the modulus n = pq and one random n-th residue hs; a ciphertext of m is ``(1 + mn) · hs^a mod n²``
with a short random a (Damgård, Jurik, Nielsen, "A generalization of Paillier's public-key system with applications to
electronic voting", Int. J. Inf. Secur. 9, 2010). This is compatible with textbook Paillier: any
implementation that knows p and q opens it.

Assumptions: decisional composite residuosity (DCR), and that ``hs^a`` with a short exponent looks like a random n-th
residue. The exponents have at least twice the bits of the security level (112, 128 and 152 for moduli of 2048, 3072
and 4096 bits: NIST SP 800-56B, revision 2, table 4), as generic square-root attacks demand.
Keys with fast opening, which have to be asked for, rest on more: see :mod:`flbc.crypto.paillier_subgroup`.

Timing: GMP's modular exponentiation is not constant time. Whoever shares a host with the holder of the private key and
can time its openings may learn about the key: open on a host that runs nothing else.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from gmpy2 import gcd, invert, is_prime, mpz, powmod, powmod_base_list

from flbc.crypto._checks import Secret, check_bytes
from flbc.crypto.paillier_public import (
    PRIME_ROUNDS,
    PublicKey,
    check_ciphertexts,
    check_public,
    check_size,
)
from flbc.crypto.paillier_subgroup import order_bits, sound_orders, subgroup_base, subgroup_prime
from flbc.errors import CiphertextError, ConfigError

Progress = Callable[[int, int], None]
"""Called with (done, total) now and then, from the caller's thread."""

_MAGIC = b"flbc/paillier/secret/1\n"
_MAGIC_FAST = b"flbc/paillier/secret/2\n"  # with the orders of the subgroup after the other numbers
_CHUNK = 32  # ciphertexts per call into GMP: about 0.3 s at 3072 bits, so that progress moves


class PrivateKey(Secret):
    """Opens every ciphertext under its public key, whoever made it; with fast opening, only those blinded with its hs.

    Who holds it must only ever be handed sums. It has no readable repr and refuses to be pickled. Make one with
    `generate` or `from_bytes`.
    """

    __slots__ = ("_half_p", "_half_q", "_orders", "_p_inverse", "_public")

    def __init__(self, p: int, q: int, hs: int, orders: tuple[int, int] | None = None) -> None:
        self._public = PublicKey(mpz(p) * q, mpz(hs))
        self._orders = orders
        alpha, beta = orders or (p - 1, q - 1)
        self._half_p, self._half_q = _Half(p, q, alpha), _Half(q, p, beta)
        self._p_inverse = invert(mpz(p), mpz(q))

    @property
    def public(self) -> PublicKey:
        """The public key."""
        return self._public

    @property
    def fast_opening(self) -> bool:
        """Whether blindings lie in a small hidden subgroup, which is what this key opens alone, and faster."""
        return self._orders is not None

    def decrypt(self, ciphertexts: Sequence[int], progress: Progress | None = None) -> list[mpz]:
        """Open ciphertexts, on all processor cores.

        Each is opened modulo p² and modulo q² and joined by the Chinese remainder theorem (Paillier, Eurocrypt 1999,
        section 7), about 10 ms of processor time at 3072 bits, and a fifth of it with fast opening.

        Parameters
        ----------
        ciphertexts : sequence of int
            Elements of the group modulo n².
        progress : callable, optional
            Called with (done, total).

        Returns
        -------
        list of mpz
            Plaintexts in [0, n).

        Raises
        ------
        CiphertextError
            If one is outside the group; with fast opening also if one was not blinded with this key's base. What it
            says is the same for every such vector, and does not depend on plaintexts.
        """
        check_ciphertexts(self._public, ciphertexts)
        chunks = [list(map(mpz, ciphertexts[i : i + _CHUNK])) for i in range(0, len(ciphertexts), _CHUNK)]
        plaintexts: list[mpz] = []
        # Threads, because GMP's list exponentiation releases the interpreter lock.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for part in pool.map(self._open, chunks):
                if part is None:
                    # Said here, where no secret number is at hand for whoever shows the variables of a traceback.
                    plaintexts.clear()
                    raise CiphertextError("a ciphertext was not blinded with this key's base: it is not opened")
                plaintexts += part
                if progress is not None:
                    progress(len(plaintexts), len(ciphertexts))
        return plaintexts

    def _open(self, chunk: list[mpz]) -> list[mpz] | None:
        p, q = self._half_p.prime, self._half_q.prime
        modulo_p, modulo_q = self._half_p.open(chunk), self._half_q.open(chunk)
        if modulo_p is None or modulo_q is None:
            return None
        return [mp + (mq - mp) * self._p_inverse % q * p for mp, mq in zip(modulo_p, modulo_q, strict=True)]

    def primes(self) -> tuple[int, int]:
        """Return the secret p and q, for handing the key to another implementation."""
        return int(self._half_p.prime), int(self._half_q.prime)

    def to_bytes(self) -> bytes:
        """Write the secret numbers, for an encrypted key file only."""
        size = self._public.bits // 8
        p, q = map(mpz, self.primes())
        parts = (p.to_bytes(size // 2, "big"), q.to_bytes(size // 2, "big"), self._public.hs.to_bytes(2 * size, "big"))
        magic = _MAGIC
        if self._orders is not None:
            magic, order = _MAGIC_FAST, order_bits(self._public.bits) // 8
            parts += tuple(mpz(number).to_bytes(order, "big") for number in self._orders)
        return magic + self._public.bits.to_bytes(2, "big") + b"".join(map(bytes, parts))

    @classmethod
    def from_bytes(cls, data: bytes, *, insecure_key_bits_for_tests: bool = False) -> PrivateKey:
        """Read and check what `to_bytes` wrote; CiphertextError, without detail, if it is not a sound key."""
        raw = check_bytes("a private key", data)
        head = len(_MAGIC)
        bits = int.from_bytes(raw[head : head + 2], "big")
        check_size(bits, insecure_key_bits_for_tests, CiphertextError)
        body, half = raw[head + 2 :], bits // 16
        order = {_MAGIC: 0, _MAGIC_FAST: order_bits(bits) // 8}.get(raw[:head])
        if order is None or len(body) != 6 * half + 2 * order:
            raise CiphertextError("this is no Paillier private key of version 1 or 2: it needs the flbc that made it")
        p, q = mpz.from_bytes(body[:half], "big"), mpz.from_bytes(body[half : 2 * half], "big")
        hs, tail = mpz.from_bytes(body[2 * half : 6 * half], "big"), body[6 * half :]
        orders = (mpz.from_bytes(tail[:order], "big"), mpz.from_bytes(tail[order:], "big")) if order else None
        return private_from_primes(p, q, hs, bits, orders)

    def __repr__(self) -> str:
        return f"<PrivateKey of {self._public!r}>"


class _Half(Secret):
    """Decryption modulo the square of one prime."""

    __slots__ = ("exponent", "factor", "prime", "square")

    def __init__(self, prime: int, other: int, exponent: int) -> None:
        self.prime, self.exponent = mpz(prime), mpz(exponent)
        self.square = self.prime**2
        # L((1 + n)^e mod p²) = e·q mod p
        self.factor = invert(self.exponent * other, self.prime)

    def open(self, chunk: list[mpz]) -> list[mpz] | None:
        """Return plaintexts modulo the prime; None if a blinding is outside the subgroup of this exponent's order."""
        reduced = [c % self.square for c in chunk]
        plaintexts = []
        for power in powmod_base_list(reduced, self.exponent, self.square):
            quotient, remainder = divmod(power - 1, self.prime)
            if remainder:  # never for the exponent p - 1
                return None
            plaintexts.append(quotient * self.factor % self.prime)
        return plaintexts


def generate(bits: int = 3072, *, fast_opening: bool = False, insecure_key_bits_for_tests: bool = False) -> PrivateKey:
    """Make a key pair with the operating system's random generator.

    Parameters
    ----------
    bits : int
        Bits of the modulus: 2048, 3072 (the default, about 128 bits of security) or 4096.
    fast_opening : bool
        Make a key that opens about five times faster, only what was blinded with its own base, and on an assumption of
        its own (:mod:`flbc.crypto.paillier_subgroup`).
    insecure_key_bits_for_tests : bool
        Also allow 512 and 1024, which protect nothing.

    Raises
    ------
    ConfigError
        For any other size.
    """
    check_size(bits, insecure_key_bits_for_tests, ConfigError)
    while fast_opening:
        (p, alpha), (q, beta) = subgroup_prime(bits), subgroup_prime(bits)
        if _sound_primes(p, q, bits):
            return PrivateKey(int(p), int(q), subgroup_base(p, q, alpha, beta), (int(alpha), int(beta)))
    while True:
        p, q = _random_prime(bits // 2), _random_prime(bits // 2)
        if _sound_primes(p, q, bits):
            return PrivateKey(int(p), int(q), random_base(p * q))


def random_base(n: int) -> mpz:
    """Draw hs = (−y² mod n)^n mod n² for a random unit y: an n-th residue; needs no factor of n."""
    n = mpz(n)
    while gcd(y := mpz(1 + secrets.randbelow(int(n) - 1)), n) != 1:
        pass  # would factor n: never happens
    return powmod(-y * y % n, n, n * n)


def private_from_primes(p: int, q: int, hs: int, bits: int, orders: tuple[int, int] | None = None) -> PrivateKey:
    """Build a private key after checking the primes, hs and its orders; CiphertextError if it is not sound."""
    p, q, hs = mpz(p), mpz(q), mpz(hs)
    if not (is_prime(p, PRIME_ROUNDS) and is_prime(q, PRIME_ROUNDS) and _sound_primes(p, q, bits)):
        raise CiphertextError("the primes of this private key are not sound: generate a new key")
    check_public(PublicKey(p * q, hs), bits)
    if powmod(hs, p - 1, p * p) != 1 or powmod(hs, q - 1, q * q) != 1:
        raise CiphertextError("the blinding base of this private key is no n-th residue: generate a new key")
    if orders is not None and not sound_orders(p, q, hs, (mpz(orders[0]), mpz(orders[1])), bits):
        raise CiphertextError("the subgroup of this private key is not sound: generate a new key")
    return PrivateKey(int(p), int(q), int(hs), orders)


def _random_prime(bits: int) -> mpz:
    """Draw a uniform prime ≡ 3 mod 4 whose top two bits are set, so that a product of two has full length."""
    while True:
        candidate = mpz(secrets.randbits(bits) | 3 << (bits - 2) | 3)
        if is_prime(candidate, PRIME_ROUNDS):
            return candidate


def _sound_primes(p: mpz, q: mpz, bits: int) -> bool:
    """Whether two primes make a modulus of `bits` bits in Damgård, Jurik and Nielsen's form."""
    return bool(
        p.bit_length() == q.bit_length() == bits // 2
        and p % 4 == q % 4 == 3
        # Fermat's method factors n when p and q are close (FIPS 186-5, A.1.3); also excludes p = q.
        and abs(p - q) >> (bits // 2 - 100) > 0
        and gcd(p - 1, q - 1) == 2
        and (p * q).bit_length() == bits
    )
