"""t of n shares of a Paillier key: any t open, fewer do not, false ones are found."""

from __future__ import annotations

import itertools
import pickle
from pathlib import Path

import pytest
from gmpy2 import gcd, mpz
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flbc.crypto import keystore, paillier
from flbc.crypto.keystore import PartyKeys
from flbc.crypto.paillier_threshold import (
    HIDING_BITS,
    MAX_HOLDERS,
    ShareKey,
    ThresholdKey,
    _combine,
    combine,
    deal,
    majority,
)
from flbc.crypto.sharefile import load_share, save_share
from flbc.errors import CiphertextError, ConfigError, KeyFileError, ProtocolError, VerificationError


@pytest.fixture(scope="module")
def private() -> paillier.PrivateKey:
    return paillier.generate(512, insecure_key_bits_for_tests=True)


@pytest.fixture(scope="module")
def shares(private: paillier.PrivateKey) -> list[ShareKey]:
    return deal(private, 3, 5)


def encrypted(private: paillier.PrivateKey, *plaintexts: int) -> list[mpz]:
    return paillier.Encryptor(private.public).encrypt(plaintexts)


@given(data=st.data())
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_t_of_n_open_what_the_key_opens(private: paillier.PrivateKey, data: st.DataObject) -> None:
    holders = data.draw(st.integers(2, 7))
    threshold = data.draw(st.integers(majority(holders), holders))
    chosen = data.draw(st.permutations(range(holders)))[: data.draw(st.integers(threshold, holders))]
    n = int(private.public.n)
    plaintexts = data.draw(st.lists(st.one_of(st.sampled_from([0, 1, n - 1]), st.integers(0, n - 1)), min_size=1))
    ciphertexts, dealt = encrypted(private, *plaintexts), deal(private, threshold, holders)
    opened, wrong = combine(dealt[0].key, {dealt[i].place: dealt[i].partial(ciphertexts) for i in chosen})
    assert opened == plaintexts == private.decrypt(ciphertexts)
    assert not wrong


def test_every_pair_of_sets_agrees_and_sums_open(private: paillier.PrivateKey, shares: list[ShareKey]) -> None:
    public = private.public
    total = paillier.add(public, [encrypted(private, 5, 7), encrypted(private, 6, int(public.n) - 1)])
    parts = {share.place: share.partial(total) for share in shares}
    for places in itertools.combinations(parts, 3):
        assert combine(shares[0].key, {place: parts[place] for place in places})[0] == [11, 6]


def test_the_largest_number_of_holders(private: paillier.PrivateKey) -> None:
    dealt = deal(private, MAX_HOLDERS, MAX_HOLDERS)
    ciphertexts = encrypted(private, 42)
    assert combine(dealt[0].key, {s.place: s.partial(ciphertexts) for s in dealt})[0] == [42]


# ---------------------------------------------------------------------- fewer than t
def test_fewer_than_t_are_refused_and_open_nothing(private: paillier.PrivateKey, shares: list[ShareKey]) -> None:
    """Weak form: who combines two of three all the same gets a number that is no opening."""
    ciphertexts = encrypted(private, 42)
    parts = {share.place: share.partial(ciphertexts) for share in shares[:2]}
    with pytest.raises(ProtocolError, match="3 partial openings are needed and 2 came"):
        combine(shares[0].key, parts)
    assert _combine(shares[0].key, [1, 2], parts) is None
    two_of_two = deal(private, 2, 2)
    parts = {share.place: share.partial(ciphertexts) for share in two_of_two}
    assert _combine(two_of_two[0].key, [1, 2], parts) == [42]


def test_t_minus_one_shares_are_as_large_as_the_hiding_range_says(private: paillier.PrivateKey) -> None:
    """One of two: Δd has twice the modulus's bits, and the random multiple of the place at least 128 more."""
    secret_bits = 2 * private.public.bits
    sizes = [deal(private, 2, 2)[0]._share.bit_length() for _ in range(20)]
    assert min(sizes) > secret_bits + HIDING_BITS - 20  # a uniform number 20 bits short: once in a million
    assert len(set(sizes)) > 1


def test_a_share_tells_no_residue_of_the_secret(private: paillier.PrivateKey) -> None:
    """Dealt modulo N·λ without safe primes, the share at place 2 would be even for ever: d is even, and so is 2a."""
    shared = [deal(private, 2, 2)[1]._share for _ in range(60)]
    p, q = private.primes()
    order = (p - 1) * (q - 1) // int(gcd(p - 1, q - 1))
    weak = [(0 + 2 * a) % order for a in range(60)]  # f(2) = d + 2a modulo the order, where d is 0
    assert all(share % 2 == 0 for share in weak)
    # Ours: Δd + 2a over the integers, where Δd = 2d; halved it is d + a for a uniform a.
    assert len({int(share // 2) % 2 for share in shared}) == 2
    residues = {int(share) % 3 for share in shared}
    assert residues == {0, 1, 2}


# ---------------------------------------------------------------------- false partial openings
@pytest.mark.parametrize("liar", [1, 2, 3, 4])
def test_one_false_opening_is_set_aside_with_one_to_spare(
    private: paillier.PrivateKey, shares: list[ShareKey], liar: int
) -> None:
    ciphertexts = encrypted(private, 1, 2, 3)
    parts = {share.place: share.partial(ciphertexts) for share in shares[:4]}
    parts[liar] = [*parts[liar][:2], parts[liar][2] * 7 % private.public.n**2]
    opened, wrong = combine(shares[0].key, parts)
    assert opened == [1, 2, 3]
    assert wrong == ({liar} if liar < 4 else set())  # the fourth was not needed


def test_one_false_opening_without_a_spare_is_found(private: paillier.PrivateKey, shares: list[ShareKey]) -> None:
    parts = {share.place: share.partial(encrypted(private, 1)) for share in shares[:3]}  # of three ciphertexts
    with pytest.raises(VerificationError, match="answered falsely"):
        combine(shares[0].key, parts)


def test_two_false_openings_end_it(private: paillier.PrivateKey, shares: list[ShareKey]) -> None:
    ciphertexts = encrypted(private, 1)
    parts = {share.place: share.partial(ciphertexts) for share in shares}
    parts[1] = parts[2] = parts[3]
    with pytest.raises(VerificationError):
        combine(shares[0].key, parts)


def test_a_holder_can_add_a_number_as_everybody_can(private: paillier.PrivateKey, shares: list[ShareKey]) -> None:
    """Documented: times (1+N)^x it adds a number. The tags in the plaintext are what a whole change runs into."""
    ciphertexts, n = encrypted(private, 1), private.public.n
    parts = {share.place: share.partial(ciphertexts) for share in shares[:3]}
    parts[1] = [parts[1][0] * (1 + 5 * n) % (n * n)]
    opened, wrong = combine(shares[0].key, parts)
    assert opened != [1]
    assert not wrong


def test_an_element_of_order_two_shows_no_parity(private: paillier.PrivateKey, shares: list[ShareKey]) -> None:
    """Weak form: (-1)^s is 1 or -1 as the share is even or odd. The exponent 2Δs makes it 1 for everybody."""
    minus_one = private.public.n**2 - 1
    assert all(share.partial([minus_one]) == [1] for share in shares)


# ---------------------------------------------------------------------- malformed
@pytest.mark.parametrize(
    ("threshold", "holders", "message"),
    [
        (5, 4, r"threshold = 5 is more than the 4 holders.*--threshold"),
        (1, 3, "threshold = 1 would let one holder open everything: choose at least 2 of 3"),
        (0, 3, "threshold = 0"),
        (2, 4, "two groups of holders could open two sums of one round: choose at least 3 of 4"),
        (2, 5, "choose at least 3 of 5"),
        (3, 7, "choose at least 4 of 7"),
        (10, 20, "choose at least 11 of 20"),
        (2, 1, "2 to 20 holders, not 1"),
        (2, 21, "2 to 20 holders, not 21"),
    ],
)
def test_thresholds_out_of_range(private: paillier.PrivateKey, threshold: int, holders: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        deal(private, threshold, holders)


def test_parts_that_do_not_fit(private: paillier.PrivateKey, shares: list[ShareKey]) -> None:
    key, ciphertexts = shares[0].key, encrypted(private, 1)
    parts = {share.place: share.partial(ciphertexts) for share in shares[:3]}
    with pytest.raises(ProtocolError, match="place must lie from 1 to 5"):
        combine(key, {0: parts[1], 2: parts[2], 3: parts[3]})
    with pytest.raises(ProtocolError, match="different lengths"):
        combine(key, {**parts, 3: []})
    with pytest.raises(CiphertextError):
        combine(key, {**parts, 3: [mpz(0)]})
    with pytest.raises(CiphertextError):
        shares[0].partial([private.public.n])


def test_round_trip_and_secrecy(shares: list[ShareKey]) -> None:
    for share in shares:
        again = ShareKey.from_bytes(share.to_bytes(), insecure_key_bits_for_tests=True)
        assert (again.key, again.place, again._share) == (share.key, share.place, share._share)
        assert str(share._share) not in repr(share)
        with pytest.raises(TypeError, match="never pickled"):
            pickle.dumps(share)
    negative = ShareKey(shares[0].key, 1, -5)
    assert ShareKey.from_bytes(negative.to_bytes(), insecure_key_bits_for_tests=True)._share == -5


@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_bytes_are_refused_or_are_another_key(shares: list[ShareKey], data: st.DataObject) -> None:
    good = shares[0].key.to_bytes()
    cut = data.draw(st.integers(0, len(good) - 1))
    with pytest.raises(CiphertextError):
        ThresholdKey.from_bytes(good[:cut], insecure_key_bits_for_tests=True)
    flipped = bytearray(good)
    flipped[data.draw(st.integers(0, len(good) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        other = ThresholdKey.from_bytes(bytes(flipped), insecure_key_bits_for_tests=True)
    except CiphertextError:
        return
    assert other.fingerprint != shares[0].key.fingerprint


@pytest.mark.parametrize("data", [b"", b"flbc/paillier/threshold/share/1\n", b"x" * 500])
def test_what_is_no_share_is_refused(data: bytes) -> None:
    with pytest.raises(CiphertextError):
        ShareKey.from_bytes(data)


def test_test_sizes_need_to_be_named(shares: list[ShareKey]) -> None:
    with pytest.raises(CiphertextError, match="use 3072"):
        ShareKey.from_bytes(shares[0].to_bytes())


# ---------------------------------------------------------------------- files
@pytest.fixture(scope="module")
def real(opening_key: paillier.PrivateKey) -> list[ShareKey]:
    return deal(opening_key, 2, 2)


def test_a_key_file_keeps_a_share(tmp_path: Path, real: list[ShareKey]) -> None:
    keys = PartyKeys.generate("zurich").with_share(real[0])
    keystore.save(tmp_path / "zurich.key", keys, "correct horse")
    loaded = keystore.load(tmp_path / "zurich.key", "correct horse")
    assert loaded.share is not None
    assert loaded.share.to_bytes() == real[0].to_bytes()
    public = keystore.read_public(tmp_path / "zurich.key")["share"]
    assert (public["threshold"], public["holders"], public["place"]) == (2, 2, 1)
    assert public["fingerprint"] == loaded.scheme_key.hex() == real[0].key.fingerprint.hex()
    assert "share" not in PartyKeys.generate("other").public()


def test_a_share_and_a_whole_key_do_not_go_together(real: list[ShareKey], opening_key: paillier.PrivateKey) -> None:
    fresh = PartyKeys.generate("both")
    with pytest.raises(ConfigError, match="not both"):
        PartyKeys("both", fresh.signing, fresh.encryption, fresh.vrf, opening_key, real[0])


def test_a_share_is_readable_by_its_holder_alone(tmp_path: Path, real: list[ShareKey]) -> None:
    mine, other, path = PartyKeys.generate("zurich"), PartyKeys.generate("zurich"), tmp_path / "zurich.share"
    save_share(path, real[0], "zurich", mine.encryption.public)
    assert load_share(path, mine).to_bytes() == real[0].to_bytes()
    assert real[0].to_bytes().hex() not in path.read_text()
    with pytest.raises(KeyFileError, match="does not open with the keys of 'zurich'"):
        load_share(path, other)
    with pytest.raises(KeyFileError, match="exists"):
        save_share(path, real[0], "zurich", mine.encryption.public)
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(KeyFileError, match="no share of version 1"):
        load_share(path, mine)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"box": "zz"}', "[" * 20_000])
def test_what_is_no_share_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.share"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match="no share of version 1"):
        load_share(path, PartyKeys.generate("zurich"))
