"""python-paillier as an independent oracle."""

import sys

import pytest

from flbc.crypto import paillier, phe_interop
from flbc.errors import CiphertextError, DependencyError

phe = pytest.importorskip("phe")


def test_each_opens_the_other(key):
    theirs = phe_interop.to_phe(key)
    n = int(key.public.n)
    plaintexts = [0, 1, 2**900, n - 1]
    for ciphertext, plaintext in zip(paillier.Encryptor(key.public).encrypt(plaintexts), plaintexts, strict=True):
        assert theirs.raw_decrypt(int(ciphertext)) == plaintext
    assert key.decrypt([theirs.public_key.raw_encrypt(m) for m in plaintexts]) == plaintexts


def test_sums_mix(key):
    theirs = phe_interop.to_phe(key)
    ours = paillier.Encryptor(key.public).encrypt([40])
    mixed = paillier.add(key.public, [ours, [theirs.public_key.raw_encrypt(2)]])
    assert theirs.raw_decrypt(int(mixed[0])) == 42
    encrypted = phe.EncryptedNumber(theirs.public_key, int(ours[0]), 0)
    assert theirs.decrypt(encrypted + theirs.public_key.encrypt(1)) == 41


def test_round_trip_keeps_the_primes(key):
    again = phe_interop.from_phe(phe_interop.to_phe(key), insecure_key_bits_for_tests=True)
    assert set(again.primes()) == set(key.primes())
    assert again.public.hs != key.public.hs
    assert key.decrypt(paillier.Encryptor(again.public).encrypt([5])) == [5]


def test_with_fast_opening_phe_opens_ours_and_we_refuse_its():
    fast = paillier.generate(1024, fast_opening=True, insecure_key_bits_for_tests=True)
    theirs = phe_interop.to_phe(fast)
    n = int(fast.public.n)
    plaintexts = [0, 1, 2**900, n - 1]
    ours = paillier.Encryptor(fast.public).encrypt(plaintexts)
    assert [theirs.raw_decrypt(int(c)) for c in ours] == plaintexts
    for m in plaintexts:
        with pytest.raises(CiphertextError, match="not blinded with this key's base"):
            fast.decrypt([theirs.public_key.raw_encrypt(m)])
    # Its blinding stays what it is when ours is put on top, and the way back makes a key of the other kind.
    with pytest.raises(CiphertextError, match="not blinded with this key's base"):
        fast.decrypt(paillier.Encryptor(fast.public).rerandomise([theirs.public_key.raw_encrypt(1)]))
    again = phe_interop.from_phe(theirs, insecure_key_bits_for_tests=True)
    assert not again.fast_opening
    assert again.decrypt([*ours, theirs.public_key.raw_encrypt(7)]) == [*plaintexts, 7]


def test_unfit_phe_keys_are_refused(key):
    with pytest.raises(CiphertextError, match="not 1024"):
        phe_interop.from_phe(phe_interop.to_phe(key))
    p, q = 1000003, 1000033  # 1000033 is 1 modulo 4
    with pytest.raises(CiphertextError, match="not 40"):
        phe_interop.from_phe(
            phe.PaillierPrivateKey(phe.PaillierPublicKey(p * q), p, q), insecure_key_bits_for_tests=True
        )
    with pytest.raises(TypeError, match="PaillierPrivateKey"):
        phe_interop.from_phe(key)


def test_phe_keys_of_another_form_are_refused():
    while True:
        _, theirs = phe.generate_paillier_keypair(n_length=512)
        if theirs.p % 4 == 1 or theirs.q % 4 == 1:
            break
    with pytest.raises(CiphertextError, match="not sound"):
        phe_interop.from_phe(theirs, insecure_key_bits_for_tests=True)


def test_without_phe_the_extra_is_named(key, monkeypatch):
    monkeypatch.setitem(sys.modules, "phe", None)
    with pytest.raises(DependencyError, match=r"pip install 'flbc\[phe\]'"):
        phe_interop.to_phe(key)
