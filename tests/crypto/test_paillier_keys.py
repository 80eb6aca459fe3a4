"""Key generation, and everything a public or private key from outside is checked for."""

from math import gcd

import pytest
from gmpy2 import is_prime, mpz, next_prime, powmod
from hypothesis import given
from hypothesis import strategies as st

from flbc.crypto import paillier
from flbc.crypto.paillier import PrivateKey, PublicKey
from flbc.errors import CiphertextError, ConfigError

MAGIC_BYTES = len(b"flbc/paillier/public/1\n")


def read_public(data: bytes) -> PublicKey:
    return PublicKey.from_bytes(data, insecure_key_bits_for_tests=True)


def read_private(data: bytes) -> PrivateKey:
    return PrivateKey.from_bytes(data, insecure_key_bits_for_tests=True)


def public_bytes(n: int, hs: int, bits: int = 1024) -> bytes:
    """A public key as an attacker would write it."""
    size = bits // 8
    head = b"flbc/paillier/public/1\n" + bits.to_bytes(2, "big")
    return head + int(n).to_bytes(size, "big") + int(hs).to_bytes(2 * size, "big")


def assert_sound(key: PrivateKey, bits: int) -> None:
    p, q = key.primes()
    n = p * q
    assert key.public.n == n
    assert n.bit_length() == key.public.bits == bits
    assert is_prime(p)
    assert is_prime(q)
    assert p % 4 == q % 4 == 3
    assert p >> (bits // 2 - 2) == q >> (bits // 2 - 2) == 3
    assert abs(p - q) > 2 ** (bits // 2 - 100)
    assert gcd(p - 1, q - 1) == 2
    # hs is an n-th residue: its order divides (p - 1)(q - 1) / 2, and its Jacobi symbols differ from a square's
    assert powmod(key.public.hs, (p - 1) * (q - 1) // 2, n * n) == 1
    assert powmod(key.public.hs, (p - 1) // 2, p) == p - 1


@pytest.mark.parametrize("bits", [512, 1024])
def test_test_keys(bits):
    for _ in range(3):
        assert_sound(paillier.generate(bits, insecure_key_bits_for_tests=True), bits)


def test_key_of_2048_bits(key_2048):
    assert_sound(key_2048, 2048)
    assert key_2048.public.exponent_bits == 256
    assert PublicKey.from_bytes(key_2048.public.to_bytes()) == key_2048.public
    assert PrivateKey.from_bytes(key_2048.to_bytes()).primes() == key_2048.primes()


def test_default_key_has_3072_bits():
    key = paillier.generate()
    assert_sound(key, 3072)
    assert key.public.exponent_bits == 384
    plaintexts = [0, 1, key.public.n - 1]
    assert key.decrypt(paillier.Encryptor(key.public).encrypt(plaintexts)) == plaintexts


def test_keys_differ(key, other_key):
    assert set(key.primes()).isdisjoint(other_key.primes())
    assert key.public.fingerprint != other_key.public.fingerprint


@pytest.mark.parametrize("bits", [0, -2048, 512, 1024, 1536, 2047, 3000, 8192])
def test_other_sizes_are_refused(bits):
    with pytest.raises(ConfigError, match="use 3072"):
        paillier.generate(bits)


def test_the_test_flag_allows_test_sizes_only():
    with pytest.raises(ConfigError, match="not 256"):
        paillier.generate(256, insecure_key_bits_for_tests=True)


def test_public_key_round_trip(key):
    data = key.public.to_bytes()
    assert len(data) == MAGIC_BYTES + 2 + 3 * 128
    again = read_public(data)
    assert again == key.public
    assert again.fingerprint == key.public.fingerprint
    assert hash(again) == hash(key.public)


def test_public_key_from_plain_integers_equals(key):
    assert PublicKey(int(key.public.n), int(key.public.hs)) == key.public
    assert PublicKey(int(key.public.n), int(key.public.hs)).to_bytes() == key.public.to_bytes()


def test_fingerprint_covers_both_numbers(key, other_key):
    n, hs = key.public.n, key.public.hs
    assert len({PublicKey(n, hs).fingerprint, PublicKey(n, hs + 1).fingerprint, PublicKey(n + 2, hs).fingerprint}) == 3


def test_small_keys_need_the_flag(key):
    with pytest.raises(CiphertextError, match="not 1024"):
        PublicKey.from_bytes(key.public.to_bytes())
    with pytest.raises(CiphertextError, match="not 1024"):
        PrivateKey.from_bytes(key.to_bytes())


PRIME_512 = next_prime(mpz(3) << 510)
PRIME_1024 = next_prime(mpz(1) << 1023)
THIRD_OF_1024 = next_prime((mpz(1) << 341) + (1 << 338))


@pytest.mark.parametrize(
    ("n", "message"),
    [
        ((mpz(1) << 1023) + 2, "small factor"),
        (next_prime(mpz(1) << 1008) * 65521, "small factor"),
        (PRIME_1024, "prime or a perfect power"),
        (PRIME_512**2, "prime or a perfect power"),
        (THIRD_OF_1024**3, "prime or a perfect power"),
        ((mpz(1) << 1022) + 1, "1023 bits where 1024"),
        (mpz(0), "0 bits where 1024"),
    ],
    ids=["even", "small factor", "prime", "square", "cube", "short", "zero"],
)
def test_moduli_that_protect_nothing_are_refused(n, message):
    with pytest.raises(CiphertextError, match=message):
        read_public(public_bytes(n, 2))


def test_blinding_bases_outside_the_group_are_refused(key):
    n = key.public.n
    p, _ = key.primes()
    for hs in (0, 1, n * n, 2 ** (2 * 1024) - 1, n, p, p * p, n * (n - 1)):
        with pytest.raises(CiphertextError, match="blinding base is outside"):
            read_public(public_bytes(n, hs))


def test_other_layouts_are_refused(key):
    data = key.public.to_bytes()
    for broken in (b"", data[:-1], data + b"\0", data[: MAGIC_BYTES + 1], data.replace(b"public/1", b"public/2")):
        with pytest.raises(CiphertextError):
            read_public(broken)
    with pytest.raises(TypeError, match="must be bytes"):
        read_public(key.public.to_bytes().hex())


def test_announced_size_must_be_the_real_one(key):
    data = bytearray(key.public.to_bytes())
    data[MAGIC_BYTES : MAGIC_BYTES + 2] = (2048).to_bytes(2, "big")
    with pytest.raises(CiphertextError, match="bytes of numbers"):
        read_public(bytes(data))
    with pytest.raises(CiphertextError, match="1024 bits where 2048"):
        read_public(public_bytes(key.public.n, key.public.hs, bits=2048))


@given(st.binary(max_size=600))
def test_garbage_is_refused(data):
    for prefix in (b"", b"flbc/paillier/public/1\n", b"flbc/paillier/public/1\n\x04\x00"):
        with pytest.raises(CiphertextError):
            read_public(prefix + data)
    for prefix in (b"", b"flbc/paillier/secret/1\n", b"flbc/paillier/secret/1\n\x04\x00"):
        with pytest.raises(CiphertextError):
            read_private(prefix + data)


def test_private_key_round_trip(key):
    again = read_private(key.to_bytes())
    assert again.primes() == key.primes()
    assert again.public == key.public


def private_bytes(p: int, q: int, hs: int) -> bytes:
    head = b"flbc/paillier/secret/1\n" + (1024).to_bytes(2, "big")
    return head + int(p).to_bytes(64, "big") + int(q).to_bytes(64, "big") + int(hs).to_bytes(256, "big")


def test_unsound_private_keys_are_refused(key):
    p, q = map(mpz, key.primes())
    hs = key.public.hs
    close = next_prime(p)
    while close % 4 != 3:
        close = next_prime(close)
    one_mod_4 = next_prime(q)
    while one_mod_4 % 4 != 1:
        one_mod_4 = next_prime(one_mod_4)
    for pair in ((p + 2, q), (p, q + 4), (p, p), (p, close), (p, one_mod_4), (p >> 1 | 3, q), (mpz(0), q), (mpz(1), q)):
        with pytest.raises(CiphertextError, match="primes of this private key are not sound"):
            read_private(private_bytes(*pair, hs))
    # 2 is a unit, but no n-th residue: what it blinds would not open to the plaintext
    with pytest.raises(CiphertextError, match="no n-th residue"):
        read_private(private_bytes(p, q, mpz(2)))
    with pytest.raises(CiphertextError, match="blinding base is outside"):
        read_private(private_bytes(p, q, mpz(1)))
    assert read_private(private_bytes(q, p, hs)).public == key.public
