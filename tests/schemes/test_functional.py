"""What the modes of functional encryption share, and the words of the pad mode."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flbc.crypto.keystream import EncryptionKey
from flbc.errors import CiphertextError, CodecError, ConfigError, OpeningRefusedError, ProtocolError
from flbc.schemes import Contribution, SumSpec
from flbc.schemes.base import check_range, check_survivors
from flbc.schemes.functional import derivation, join_request, split_request
from flbc.schemes.ndd_fe_pad import PadCombiner, PadDecryptor, PadGenerator, PadProtector, word_type

LABEL, NONCE = bytes(32), bytes(range(32))
GENERATOR, DECRYPTOR, CLIENT = (EncryptionKey.generate() for _ in range(3))


@given(st.binary(), st.binary())
def test_request_round_trips(key, hidden):
    assert split_request(join_request(key, hidden)) == (key, hidden)


@given(st.binary(max_size=40))
def test_request_never_fails_otherwise(data):
    try:
        key, hidden = split_request(data)
    except ProtocolError:
        return
    assert join_request(key, hidden) == data


@pytest.mark.parametrize(("label", "nonce"), [(b"", NONCE), (LABEL, b"short"), (LABEL + b"1", NONCE)])
def test_derivations_have_fixed_lengths(label, nonce):
    with pytest.raises(CodecError, match="32 bytes each"):
        derivation(b"purpose", label, nonce)


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        (SumSpec(1, 2**15 - 1, 4), np.uint32),
        (SumSpec(1, 2**23 - 1, 1), np.uint32),  # -(2^23 - 1) to 2^23 - 1
        (SumSpec(1, 2**23, 1), np.uint64),
        (SumSpec(1, 2**15, 4, noise_tail=2**23), np.uint64),
        (SumSpec(1, 2**15, 4, max_multiplier=2**6), np.uint64),
        (SumSpec(1, 2**55 - 1, 1), np.uint64),
    ],
)
def test_words_hold_every_sum_its_sign_and_eight_bits_more(spec, word):
    assert word_type(spec) == word
    limit = 2 ** (8 * word_type(spec).itemsize - 1 - 8)
    assert spec.bound < limit


def test_a_sum_beyond_56_bits_is_refused():
    with pytest.raises(CodecError, match="lower Codec"):
        word_type(SumSpec(1, 2**55, 1))


def test_one_node_cannot_be_both():
    spec = SumSpec(1, 1, 1)
    with pytest.raises(ConfigError, match="generator and decryptor"):
        PadProtector(spec, GENERATOR.public, GENERATOR.public, CLIENT)
    with pytest.raises(ConfigError, match="generator and decryptor"):
        PadCombiner(spec, (1,), "ann", "ann")


@pytest.mark.parametrize(
    ("survivors", "message"),
    [
        ([], "empty, too long or names a party twice"),
        ([(0, 1), (0, 1)], "twice"),
        ([(0, 1), (1, 1), (2, 1)], "too long"),
        ([(0, 0)], "not from 1 to 9"),
        ([(0, 10)], "not from 1 to 9"),
        ([(0, -1)], "not from 1 to 9"),
    ],
)
def test_survivors_that_are_refused(survivors, message):
    spec = SumSpec(1, 1, 2, max_multiplier=9)
    listed = [Contribution(party, bytes(32), NONCE, factor) for party, factor in survivors]
    with pytest.raises(OpeningRefusedError, match=message):
        check_survivors(spec, listed)
    with pytest.raises(OpeningRefusedError, match=message):
        PadGenerator(spec, GENERATOR).derive(LABEL, listed, None)


def test_range_names_the_first_coordinate_and_counts():
    spec = SumSpec(4, 10, 2, noise_tail=3, max_multiplier=5)
    listed = [Contribution(0, bytes(32), NONCE, 2), Contribution(1, bytes(32), NONCE, 5)]
    check_range(np.array([73, -73, 0, 1]), spec, listed)
    with pytest.raises(OpeningRefusedError, match=r"Coordinate 1 of the sum \(2 in all\)"):
        check_range(np.array([73, -74, 74, 0]), spec, listed)
    with pytest.raises(OpeningRefusedError, match="Coordinate 0"):
        check_range(np.array([np.iinfo(np.int64).min, 0, 0, 0]), spec, listed)


def test_pads_of_generator_and_decryptor_differ():
    """With one purpose for both, a node that served as both over time would know one pad from the other."""
    spec = SumSpec(8, 100, 1)
    zeros = np.zeros(8, np.int64)
    one = PadProtector(spec, GENERATOR.public, DECRYPTOR.public, CLIENT).protect(zeros, LABEL, NONCE)
    two = PadProtector(spec, DECRYPTOR.public, GENERATOR.public, CLIENT).protect(zeros, LABEL, NONCE)
    assert one != two


@pytest.mark.parametrize("what", ["label", "nonce", "generator", "decryptor", "client"])
def test_everything_enters_the_pads(what):
    spec, other = SumSpec(8, 100, 1), EncryptionKey.generate()
    zeros = np.zeros(8, np.int64)
    keys = {"generator": GENERATOR.public, "decryptor": DECRYPTOR.public, "key": CLIENT}
    texts = {"label": LABEL, "nonce": NONCE}
    first = PadProtector(spec, **keys).protect(zeros, **texts)
    if what in texts:
        texts[what] = bytes(31) + b"\1"
    elif what == "client":
        keys["key"] = other
    else:
        keys[what] = other.public
    second = PadProtector(spec, **keys).protect(zeros, **texts)
    words = [np.frombuffer(payload, "<u4") for payload in (first, second)]
    assert np.all(words[0] != words[1])


def test_a_decryptor_without_the_function_key_opens_noise():
    spec = SumSpec(64, 100, 1)
    payload = PadProtector(spec, GENERATOR.public, DECRYPTOR.public, CLIENT).protect(
        np.zeros(64, np.int64), LABEL, NONCE
    )
    listed = [Contribution(0, CLIENT.public, NONCE)]
    with pytest.raises(OpeningRefusedError):
        PadDecryptor(spec, DECRYPTOR).open(payload, bytes(256), LABEL, listed)
    with pytest.raises(CiphertextError, match="0 bytes, expected 256"):
        PadDecryptor(spec, DECRYPTOR).open(payload, b"", LABEL, listed)


def test_bound_counts_parties_multipliers_and_noise():
    spec = SumSpec(1, 7, 3, noise_tail=5, max_multiplier=11)
    assert spec.bound == 7 * 3 * 11 + 5
    assert replace(spec, noise_tail=0).slot_bits == (2 * 7 * 3 * 11).bit_length()


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ((), "for 0 parties"),
        ((1,), "for 1 parties, and none for party 1"),
        ((1, 0), "not from 1"),
        ((1, 9), "to 8"),
        ((1, -1), "not"),
    ],
)
def test_weights_of_the_wrong_length_or_range(factors, message):
    spec = SumSpec(2, 100, 2, max_multiplier=8)
    combiner = PadCombiner(spec, factors, "generator", "decryptor")
    with pytest.raises(ProtocolError, match=message):
        combiner.combine({1: bytes(8)})
