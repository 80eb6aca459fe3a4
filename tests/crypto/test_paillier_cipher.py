"""Encrypting, adding and opening."""

import os

import numpy as np
import pytest
from gmpy2 import gcd, mpz, powmod
from hypothesis import given
from hypothesis import strategies as st

from flbc.crypto import paillier
from flbc.crypto.packing import SlotLayout, attach_tags, pack, split_tags, unpack
from flbc.crypto.paillier import (
    Encryptor,
    add,
    ciphertexts_from_bytes,
    ciphertexts_to_bytes,
)
from flbc.errors import CiphertextError

MANY = 45  # enough for the table to pay


@pytest.fixture(scope="module")
def encryptor(key):
    """With its table, so that hypothesis can draw freely."""
    encryptor = Encryptor(key.public)
    encryptor.encrypt([0] * MANY)
    return encryptor


def residue(key, ciphertext, plaintext):
    """The blinding of a ciphertext of a known plaintext."""
    n = key.public.n
    return ciphertext * powmod(1 + plaintext * n, -1, n * n) % (n * n)


@given(st.data())
def test_round_trip(key, encryptor, data):
    n = int(key.public.n)
    plaintext = st.sampled_from([0, 1, n // 2, n - 1]) | st.integers(0, n - 1)
    plaintexts = data.draw(st.lists(plaintext, max_size=4))
    assert key.decrypt(encryptor.encrypt(plaintexts)) == plaintexts


@given(st.data())
def test_ciphertexts_add_modulo_n(key, encryptor, data):
    n = int(key.public.n)
    vectors = data.draw(st.lists(st.lists(st.integers(0, n - 1), min_size=2, max_size=2), min_size=1, max_size=4))
    total = add(key.public, (encryptor.encrypt(v) for v in vectors))
    assert key.decrypt(total) == [sum(column) % n for column in zip(*vectors, strict=True)]


def test_textbook_decryption_agrees(key, encryptor):
    # Paillier 1999, section 4, without the Chinese remainder theorem
    p, q = key.primes()
    n, lam = key.public.n, (p - 1) * (q - 1) // 2
    (ciphertext,) = encryptor.encrypt([123456789])
    assert (powmod(ciphertext, lam, n * n) - 1) // n * powmod(lam, -1, n) % n == 123456789


@pytest.mark.parametrize("count", [1, MANY])
def test_every_ciphertext_has_its_own_blinding_in_the_group_of_hs(key, count):
    # With and without the table.
    p, q = key.primes()
    n_squared = key.public.n**2
    encryptor = Encryptor(key.public)
    ciphertexts = encryptor.encrypt([7] * count) + encryptor.encrypt([7] * count)
    assert len(set(ciphertexts)) == 2 * count
    for c in ciphertexts:
        blinding = residue(key, c, 7)
        assert blinding not in (1, key.public.hs)
        assert powmod(blinding, (p - 1) * (q - 1) // 2, n_squared) == 1


def test_table_and_exponentiation_make_the_same_blinding(key, monkeypatch):
    exponent = bytes(range(7, 39))
    monkeypatch.setattr(os, "urandom", lambda size: exponent[:size])
    with_table, without = Encryptor(key.public), Encryptor(key.public)
    expected = powmod(key.public.hs, int.from_bytes(exponent, "little"), key.public.n**2)
    assert residue(key, without.encrypt([0])[0], 0) == expected
    assert {residue(key, c, 5) for c in with_table.encrypt([5] * MANY)} == {expected}


def test_the_table_of_one_key_is_made_once_and_never_used_for_another(key, other_key):
    first, second, other = Encryptor(key.public), Encryptor(key.public), Encryptor(other_key.public)
    for encryptor in (first, second, other):
        encryptor.precompute(MANY)
    assert second._table is first._table
    assert other._table is not first._table
    assert key.decrypt(second.encrypt([3] * MANY)) == [3] * MANY
    assert other_key.decrypt(other.encrypt([4] * MANY)) == [4] * MANY


def test_exponents_use_every_byte_the_system_gives(key, monkeypatch):
    sizes = []
    real = os.urandom
    encryptor = Encryptor(key.public)
    monkeypatch.setattr(os, "urandom", lambda size: sizes.append(size) or real(size))
    encryptor.encrypt([1, 2, 3])
    assert sizes == [32, 32, 32]  # fresh randomness for each


def test_precomputed_blindings_are_used_once(key, monkeypatch):
    encryptor = Encryptor(key.public)
    encryptor.precompute(MANY)
    assert encryptor.precomputed == MANY
    real = os.urandom
    drawn = []
    monkeypatch.setattr(os, "urandom", lambda size: drawn.append(size) or real(size))
    ciphertexts = encryptor.encrypt([0] * MANY)
    assert drawn == []
    assert encryptor.precomputed == 0
    ciphertexts += encryptor.encrypt([0, 0])
    assert len(drawn) == 2
    assert len(set(ciphertexts)) == MANY + 2
    assert key.decrypt(ciphertexts) == [0] * (MANY + 2)


def test_a_forked_process_drops_the_pool(key, monkeypatch):
    encryptor = Encryptor(key.public)
    encryptor.precompute(2)
    inherited = set(encryptor._pool)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert encryptor.precomputed == 0
    blindings = set(encryptor.encrypt([0, 0]))
    assert blindings.isdisjoint(inherited)
    encryptor.precompute(1)
    assert encryptor.precomputed == 1


def test_plaintexts_out_of_range_are_refused_before_any_is_encrypted(key):
    encryptor = Encryptor(key.public)
    encryptor.precompute(1)
    for bad in (-1, key.public.n, key.public.n + 1):
        with pytest.raises(CiphertextError, match=r"not in \[0, n\)"):
            encryptor.encrypt([0, bad])
    assert encryptor.precomputed == 1


def test_encryptor_wants_a_public_key(key):
    with pytest.raises(TypeError, match="must be a PublicKey, not PrivateKey"):
        Encryptor(key)


def test_rerandomise_keeps_plaintexts_and_changes_ciphertexts(key, encryptor):
    ciphertexts = encryptor.encrypt([1, 2, 3])
    again = encryptor.rerandomise(ciphertexts)
    assert set(again).isdisjoint(ciphertexts)
    assert key.decrypt(again) == [1, 2, 3]
    with pytest.raises(CiphertextError):
        encryptor.rerandomise([0])


def test_add_refuses_nothing_and_unequal_lengths(key, encryptor):
    with pytest.raises(CiphertextError, match="no encrypted vector"):
        add(key.public, [])
    with pytest.raises(CiphertextError, match="cannot add a vector of 1 ciphertexts to one of 2"):
        add(key.public, [encryptor.encrypt([1, 2]), encryptor.encrypt([1])])
    assert add(key.public, [[], []]) == []


def test_malleability_is_real(key, encryptor):
    # The reason for tags: without the private key, anyone scales and shifts a plaintext.
    (ciphertext,) = encryptor.encrypt([5])
    n_squared = key.public.n**2
    assert key.decrypt([powmod(ciphertext, 3 << 20, n_squared)]) == [15 << 20]
    assert key.decrypt([ciphertext * (1 + 7 * key.public.n) % n_squared]) == [12]


def test_another_key_does_not_open(key, other_key, encryptor):
    ciphertexts = [c % other_key.public.n**2 for c in encryptor.encrypt([1, 2, 3])]
    assert not set(other_key.decrypt(ciphertexts)) & {1, 2, 3}


def test_progress_reaches_the_total(key):
    seen: dict[str, list[tuple[int, int]]] = {"precompute": [], "encrypt": [], "decrypt": []}
    encryptor = Encryptor(key.public)
    encryptor.precompute(100, lambda *at: seen["precompute"].append(at))
    ciphertexts = encryptor.encrypt([1] * 100, lambda *at: seen["encrypt"].append(at))
    key.decrypt(ciphertexts, lambda *at: seen["decrypt"].append(at))
    for steps in seen.values():
        assert len(steps) >= 2
        assert steps == sorted(steps)
        assert steps[-1] == (100, 100)


def test_opening_keeps_the_order_of_many(key, encryptor):
    plaintexts = list(range(500))
    assert key.decrypt(encryptor.encrypt(plaintexts)) == plaintexts
    assert key.decrypt([]) == []


@given(st.integers(0, 5))
def test_ciphertext_bytes_round_trip(key, encryptor, count):
    ciphertexts = encryptor.encrypt([9] * count)
    data = ciphertexts_to_bytes(key.public, ciphertexts)
    assert len(data) == count * 256 == count * key.public.ciphertext_bytes
    assert ciphertexts_from_bytes(key.public, data, count) == ciphertexts


def test_ciphertext_bytes_are_big_endian_and_padded(key):
    assert ciphertexts_to_bytes(key.public, [mpz(258)]) == bytes(254) + b"\x01\x02"


def test_ciphertexts_of_another_length_are_refused(key, encryptor):
    data = ciphertexts_to_bytes(key.public, encryptor.encrypt([1, 2]))
    for broken, count in ((data, 1), (data, 3), (data[:-1], 2), (data + b"\0", 2), (b"", 1)):
        with pytest.raises(CiphertextError, match="bytes, not"):
            ciphertexts_from_bytes(key.public, broken, count)
    with pytest.raises(TypeError, match="must be bytes"):
        ciphertexts_from_bytes(key.public, data.hex(), 2)
    with pytest.raises(ValueError, match="count"):
        ciphertexts_from_bytes(key.public, b"", -1)


def test_numbers_outside_the_group_are_refused_everywhere(key, encryptor):
    n = key.public.n
    p, q = key.primes()
    good = encryptor.encrypt([1])
    outside = {"zero": 0, "n²": n * n, "n": n, "multiple of p": p * 12345, "multiple of q²": q * q, "n² - n": n * n - n}
    for name, bad in outside.items():
        data = b"".join(int(c).to_bytes(256, "big") for c in (*good, bad))
        with pytest.raises(CiphertextError):
            ciphertexts_from_bytes(key.public, data, 2)
        with pytest.raises(CiphertextError):
            key.decrypt([*good, bad])
        with pytest.raises(CiphertextError):
            ciphertexts_to_bytes(key.public, [bad])
        assert name
    with pytest.raises(CiphertextError, match="not coprime"):
        key.decrypt([mpz(p), mpz(q)])
    with pytest.raises(CiphertextError, match=r"ciphertext 1 is not in"):
        key.decrypt([*good, -1])


@given(st.binary(min_size=256, max_size=256))
def test_random_numbers_are_group_elements_or_refused(key, data):
    value = int.from_bytes(data, "big")
    if 0 < value < key.public.n**2 and gcd(value, key.public.n) == 1:
        assert ciphertexts_from_bytes(key.public, data, 1) == [value]
    else:
        with pytest.raises(CiphertextError):
            ciphertexts_from_bytes(key.public, data, 1)


def test_sum_of_packed_and_tagged_vectors(key):
    clients, count = 10, 300
    layout = SlotLayout.plan(key.public.bits, 20, clients)
    rng = np.random.default_rng(3)
    vectors = [rng.integers(0, 1 << 16, count, dtype=np.uint64) for _ in range(clients)]
    vectors[0][:] = (1 << 16) - 1
    rows = layout.plaintexts(count)
    tags = [rng.integers(0, 1 << layout.tag_bits, rows, dtype=np.uint64) for _ in range(clients)]
    encryptor = Encryptor(key.public)
    encrypted = [encryptor.encrypt(attach_tags(pack(v, layout), t, layout)) for v, t in zip(vectors, tags, strict=True)]
    opened = key.decrypt(add(key.public, encrypted))
    fields, _ = split_tags(opened, layout)
    assert fields == np.sum(tags, axis=0).tolist()
    assert np.array_equal(unpack(opened, layout, count), np.sum(vectors, axis=0))
    # leave one out, or count one twice: the slots look fine and the tags tell
    for forged in (encrypted[1:], [*encrypted, encrypted[0]]):
        assert split_tags(key.decrypt(add(key.public, forged)), layout)[0] != fields


def test_names_the_rest_of_the_house_uses():
    assert paillier.SECURE_KEY_BITS == (2048, 3072, 4096)
    assert all(hasattr(paillier, name) for name in paillier.__all__)
