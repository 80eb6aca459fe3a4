"""Additively homomorphic encryption of integers modulo n: encrypt, add, open.

Who learns what. Whoever has the public key can encrypt and add, and learns nothing about plaintexts. Whoever has the
private key can open *every* ciphertext, single or summed; that only sums reach it is for the protocol to ensure.

Malleability. A ciphertext can be scaled, shifted and added to by anybody, without a trace: encryption gives secrecy and
no integrity at all. That an opened sum is the sum of exactly these clients, once each, is shown by the tags inside the
plaintexts (`flbc.crypto.packing`, checked by the scheme), not here.

Assumptions, sizes and the timing caveat are in `flbc.crypto.paillier_keys`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import lru_cache

from gmpy2 import mpz, powmod

from flbc.crypto._checks import Secret, check_bytes, check_int
from flbc.crypto.paillier_keys import PrivateKey, Progress, generate
from flbc.crypto.paillier_public import SECURE_KEY_BITS, PublicKey, check_ciphertexts
from flbc.errors import CiphertextError

__all__ = [
    "SECURE_KEY_BITS",
    "Encryptor",
    "PrivateKey",
    "Progress",
    "PublicKey",
    "add",
    "check_ciphertexts",
    "ciphertexts_from_bytes",
    "ciphertexts_to_bytes",
    "fixed_base_table",
    "generate",
]

# Measured at 2048 and 3072 bits: the table costs as much as 35 to 40 plain exponentiations.
_TABLE_PAYS_FROM = 40
_PROGRESS_EVERY = 64


class Encryptor(Secret):
    """Encrypts under one public key and keeps what speeds that up: a table of powers and a pool of blindings.

    A blinding is ``hs^a`` for a fresh uniform `a` from the operating system; it does not depend on the message, so it
    can be made ahead with `precompute`, during training. Each is used for one ciphertext: two ciphertexts with the same
    blinding reveal the difference of their plaintexts. So an encryptor is not pickled, and a forked process drops the
    pool that it inherited.

    Parameters
    ----------
    public : PublicKey
    """

    __slots__ = ("_n", "_n_squared", "_pool", "_pool_owner", "_public", "_table")

    def __init__(self, public: PublicKey) -> None:
        if not isinstance(public, PublicKey):
            raise TypeError(f"public must be a PublicKey, not {type(public).__name__}")
        self._public = public
        self._n = mpz(public.n)
        self._n_squared = self._n * self._n
        self._table: tuple[tuple[mpz, ...], ...] | None = None
        self._pool: list[mpz] = []
        self._pool_owner = os.getpid()

    @property
    def public(self) -> PublicKey:
        """The public key."""
        return self._public

    @property
    def precomputed(self) -> int:
        """How many blindings are ready."""
        return len(self._pool) if self._pool_owner == os.getpid() else 0

    def precompute(self, count: int, progress: Progress | None = None) -> None:
        """Make `count` more blindings for later calls; about 0.5 ms of processor time each at 3072 bits."""
        check_int("count", count, 0, 1 << 32)
        self._drop_inherited_pool()
        self._prepare_table(count)
        for done in range(1, count + 1):
            self._pool.append(self._fresh_blinding())
            _report(progress, done, count)

    def make(self, count: int, of: int) -> list[mpz]:
        """Return fresh blindings, which this encryptor does not keep; ``of``: how many are wanted in all."""
        self._prepare_table(of)
        return [self._fresh_blinding() for _ in range(count)]

    def refill(self, blindings: Sequence[int]) -> None:
        """Use blindings that :mod:`flbc.crypto.blinding` made, each once, before making more.

        Raises
        ------
        CiphertextError
            If one is outside the group.
        """
        check_ciphertexts(self._public, blindings)
        self._drop_inherited_pool()
        self._pool.extend(map(mpz, blindings))

    def encrypt(self, plaintexts: Sequence[int], progress: Progress | None = None) -> list[mpz]:
        """Encrypt each plaintext with its own blinding.

        Parameters
        ----------
        plaintexts : sequence of int
            Each in [0, n).
        progress : callable, optional
            Called with (done, total).

        Returns
        -------
        list of mpz
            ``(1 + m·n) · hs^a mod n²``, one for each plaintext.

        Raises
        ------
        CiphertextError
            If a plaintext is out of range; nothing is encrypted then.
        """
        n, n_squared = self._n, self._n_squared
        if any(not 0 <= m < n for m in plaintexts):
            raise CiphertextError("a plaintext is not in [0, n): pack it for this key's size")
        total = len(plaintexts)
        self._prepare_blindings(total)
        ciphertexts = []
        for m in plaintexts:
            # (1 + n)^m = 1 + m·n modulo n²
            ciphertexts.append((1 + mpz(m) * n) * self._blinding() % n_squared)
            _report(progress, len(ciphertexts), total)
        return ciphertexts

    def rerandomise(self, ciphertexts: Sequence[int]) -> list[mpz]:
        """Blind ciphertexts once more: the same plaintexts, unlinkable to what went in.

        For sums whose opener may have seen a summand.
        """
        check_ciphertexts(self._public, ciphertexts)
        self._prepare_blindings(len(ciphertexts))
        return [c * self._blinding() % self._n_squared for c in ciphertexts]

    def _prepare_blindings(self, count: int) -> None:
        self._drop_inherited_pool()
        self._prepare_table(count - len(self._pool))

    def _drop_inherited_pool(self) -> None:
        if self._pool_owner != os.getpid():
            self._pool, self._pool_owner = [], os.getpid()

    def _prepare_table(self, count: int) -> None:
        """Take or make the table of hs, when `count` blindings pay for it."""
        if self._table is None and count >= _TABLE_PAYS_FROM:
            self._table = fixed_base_table(mpz(self._public.hs), self._n_squared, self._public.exponent_bits // 8)

    def _blinding(self) -> mpz:
        return self._pool.pop() if self._pool else self._fresh_blinding()

    def _fresh_blinding(self) -> mpz:
        exponent = os.urandom(self._public.exponent_bits // 8)
        if self._table is None:
            return powmod(self._public.hs, int.from_bytes(exponent, "little"), self._n_squared)
        result, n_squared = mpz(1), self._n_squared
        for row, digit in zip(self._table, exponent, strict=True):
            result = result * row[digit] % n_squared
        return result

    def __repr__(self) -> str:
        return f"<Encryptor for {self._public!r}>"


@lru_cache(maxsize=1)
def fixed_base_table(base: mpz, modulus: mpz, positions: int) -> tuple[tuple[mpz, ...], ...]:
    """Tabulate ``base^(d · 256^i) mod modulus`` for every byte d and position i; nothing of it is secret.

    The last table is kept: a simulation's process encrypts for many clients and rounds under one key. It has 9.4 MB at
    3072 bits.
    """
    table = []
    for _ in range(positions):
        row = [mpz(1), base]
        while len(row) <= 256:
            row.append(row[-1] * base % modulus)
        base = row.pop()
        table.append(tuple(row))
    return tuple(table)


def add(public: PublicKey, vectors: Iterable[Sequence[int]]) -> list[mpz]:
    """Add encrypted vectors: multiply their ciphertexts modulo n².

    Parameters
    ----------
    public : PublicKey
    vectors : iterable of sequences of int
        At least one; all of one length, checked by `ciphertexts_from_bytes` if they came from outside.

    Returns
    -------
    list of mpz
        Ciphertexts of the sums modulo n.

    Raises
    ------
    CiphertextError
        If there is no vector, or the lengths differ.
    """
    n_squared = public.n * public.n
    total: list[mpz] | None = None
    for vector in vectors:
        if total is None:
            total = [mpz(c) for c in vector]
        elif len(vector) != len(total):
            raise CiphertextError(f"cannot add a vector of {len(vector)} ciphertexts to one of {len(total)}")
        else:
            total = [a * b % n_squared for a, b in zip(total, vector, strict=True)]
    if total is None:
        raise CiphertextError("there is no encrypted vector to add")
    return total


def ciphertexts_to_bytes(public: PublicKey, ciphertexts: Sequence[int]) -> bytes:
    """Write ciphertexts one after the other, big-endian, ``2 * bits / 8`` bytes each."""
    check_ciphertexts(public, ciphertexts)
    size = public.ciphertext_bytes
    return b"".join(mpz(c).to_bytes(size, "big") for c in ciphertexts)


def ciphertexts_from_bytes(public: PublicKey, data: bytes, count: int) -> list[mpz]:
    """Read exactly `count` ciphertexts and check that each is in the group.

    Parameters
    ----------
    public : PublicKey
    data : bytes
        What `ciphertexts_to_bytes` wrote, from anyone.
    count : int
        How many the protocol expects.

    Raises
    ------
    CiphertextError
        If the length differs, or a number is not a unit modulo n².
    """
    raw, size = check_bytes("ciphertexts", data), public.ciphertext_bytes
    if len(raw) != check_int("count", count, 0, 1 << 40) * size:
        raise CiphertextError(f"{count} ciphertexts of {public.bits} bits take {count * size} bytes, not {len(raw)}")
    ciphertexts = [mpz.from_bytes(raw[i : i + size], "big") for i in range(0, len(raw), size)]
    check_ciphertexts(public, ciphertexts)
    return ciphertexts


def _report(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None and (done % _PROGRESS_EVERY == 0 or done == total):
        progress(done, total)
