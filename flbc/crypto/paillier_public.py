"""The public half of a Paillier key, and the checks on what arrives from outside: keys and ciphertexts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256

from gmpy2 import gcd, is_power, is_prime, mpz, primorial

from flbc.crypto._checks import check_bytes
from flbc.errors import CiphertextError, ConfigError

SECURE_KEY_BITS = (2048, 3072, 4096)
INSECURE_KEY_BITS = (512, 1024)  # for tests, and only where the caller says so by name

# 25 rounds are a Baillie-PSW test and one Miller-Rabin round in GMP; each more costs little and adds 2 bits at least.
PRIME_ROUNDS = 50

_EXPONENT_BITS = {2048: 256, 3072: 384, 4096: 512}
_TRIAL_BOUND = 1 << 16
_MAGIC = b"flbc/paillier/public/1\n"


@dataclass(frozen=True, slots=True, repr=False)
class PublicKey:
    """What everybody needs to encrypt and to add.

    The constructor believes its arguments; keys from outside come through `from_bytes`, which checks them.

    Parameters
    ----------
    n : int
        The modulus.
    hs : int
        A random n-th residue modulo n², base of the blinding.
    """

    n: mpz
    hs: mpz

    def __post_init__(self) -> None:
        # GMP integers throughout: Python's own are an order of magnitude slower at this size.
        object.__setattr__(self, "n", mpz(self.n))
        object.__setattr__(self, "hs", mpz(self.hs))

    @property
    def bits(self) -> int:
        """Bits of the modulus."""
        return int(self.n.bit_length())

    @property
    def exponent_bits(self) -> int:
        """Bits of a blinding exponent."""
        return _EXPONENT_BITS.get(self.bits, 256)

    @property
    def ciphertext_bytes(self) -> int:
        """Bytes of one ciphertext."""
        return 2 * self.bits // 8

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of `to_bytes`: what a roster pins, 32 bytes."""
        return sha256(self.to_bytes()).digest()

    def to_bytes(self) -> bytes:
        """Write version, size in bits (2 bytes), n and hs, big-endian in their full width."""
        size = self.bits // 8
        return (
            _MAGIC
            + self.bits.to_bytes(2, "big")
            + bytes(self.n.to_bytes(size, "big"))
            + bytes(self.hs.to_bytes(2 * size, "big"))
        )

    @classmethod
    def from_bytes(cls, data: bytes, *, insecure_key_bits_for_tests: bool = False) -> PublicKey:
        """Read and check a public key.

        The checks exclude moduli that anyone can factor at sight, bases outside the group, and bases of order 1 or 2
        modulo n or one of its factors, under which anyone could read or factor. They cannot tell that hs is an n-th
        residue of a large order, or that n has two large factors: that rests on the key's owner, who could open
        everything anyway. That the owner is the right one is what the fingerprint in the roster is for.

        Raises
        ------
        CiphertextError
            If the layout, the size or a value is wrong.
        """
        raw = check_bytes("a public key", data)
        head = len(_MAGIC)
        if raw[:head] != _MAGIC:
            raise CiphertextError("this is no Paillier public key of version 1: both sides need the same flbc version")
        bits = int.from_bytes(raw[head : head + 2], "big")
        check_size(bits, insecure_key_bits_for_tests, CiphertextError)
        body, size = raw[head + 2 :], bits // 8
        if len(body) != 3 * size:
            raise CiphertextError(f"a public key of {bits} bits must have {3 * size} bytes of numbers, not {len(body)}")
        key = cls(mpz.from_bytes(body[:size], "big"), mpz.from_bytes(body[size:], "big"))
        check_public(key, bits)
        return key

    def __repr__(self) -> str:
        return f"<PublicKey {self.bits} bits, fingerprint {self.fingerprint.hex()[:16]}>"


def check_ciphertexts(public: PublicKey, ciphertexts: Sequence[int]) -> None:
    """Raise CiphertextError unless every number is a unit modulo n², that is, in (0, n²) and coprime to n."""
    n = public.n
    n_squared, product = n * n, mpz(1)
    for i, c in enumerate(ciphertexts):
        if not 0 < c < n_squared:
            raise CiphertextError(f"ciphertext {i} is not in (0, n²): it was made for another key or damaged")
        product = product * c % n
    # One gcd for all: their product is a unit exactly if each of them is.
    if gcd(product, n) != 1:
        raise CiphertextError("a ciphertext is not coprime to the modulus: the vector was not made by encryption")


def check_size(bits: int, insecure: bool, error: type[CiphertextError | ConfigError]) -> None:
    """Raise `error` unless keys of this many bits are allowed, the test sizes only if `insecure`."""
    if bits in SECURE_KEY_BITS or (insecure and bits in INSECURE_KEY_BITS):
        return
    raise error(f"a Paillier key must have {', '.join(map(str, SECURE_KEY_BITS))} bits, not {bits}: use 3072")


def check_public(key: PublicKey, bits: int) -> None:
    """Raise CiphertextError unless the modulus has `bits` bits and no visible flaw, and hs is in the group."""
    n, hs = key.n, key.hs
    if n.bit_length() != bits:
        raise CiphertextError(f"the modulus has {n.bit_length()} bits where {bits} are announced")
    if gcd(n, _small_primes()) != 1:
        raise CiphertextError("the modulus is even or has a small factor: it protects nothing")
    if is_power(n) or is_prime(n, PRIME_ROUNDS):
        raise CiphertextError("the modulus is a prime or a perfect power: it protects nothing")
    if not 1 < hs < n * n or gcd(hs, n) != 1:
        raise CiphertextError("the blinding base is outside the group modulo n²")
    # ±1 modulo n (as -1 and 1 + n are) hides no plaintext, and ±1 modulo one prime factors n.
    if gcd(hs * hs - 1, n) != 1:
        raise CiphertextError("the blinding base has no order above 2 modulo each factor: it protects nothing")


@cache
def _small_primes() -> mpz:
    return primorial(_TRIAL_BOUND)
