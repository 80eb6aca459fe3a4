"""Compression in the vector that is summed: chosen coordinates, what they carried, and the frame that names them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flbc.codec import Codec, Compression, Frame, Layout, VectorPlan
from flbc.codec.indices import index_set, pack_indices, selection_hash
from flbc.codec.settings import Selection
from flbc.encoding import canonical
from flbc.errors import CodecError, ConfigError, ProtocolError

MODEL = {"a": np.zeros((3, 5)), "empty": np.zeros((0, 2)), "b": np.zeros(7, np.float32), "n": np.array(4, np.int64)}
SIZE = 22
PLAN = VectorPlan(Layout.of(MODEL), Codec(bits=24, max_examples=8.0, max_metrics=2, compression=Compression(rate=0.5)))
SELECTION = Selection(pack_indices(np.array([1, 9]), SIZE), bytes(range(32)))


def arrays(flat, n=1):
    return {"a": flat[:15].reshape(3, 5), "empty": np.zeros((0, 2)), "b": flat[15:], "n": np.array(n, np.int64)}


def flat(mean):
    return np.concatenate([mean["a"].reshape(-1), mean["b"]])


@given(st.sets(st.integers(0, SIZE - 1)), st.integers(0, 2**32 - 1), st.sampled_from([1.0, 3.0, 8.0]))
def test_only_the_chosen_coordinates_are_carried(chosen, seed, weight):
    indices = np.array(sorted(chosen), np.int64)
    values = np.random.default_rng(seed).uniform(-1, 1, SIZE)
    frame = PLAN.first_frame()
    encoded = PLAN.encode(arrays(values), weight, {"loss": 2.5}, frame, indices)
    assert len(encoded.values) == PLAN.length - SIZE + len(indices)
    opened = PLAN.decode(encoded.values, 1, 1, frame, indices)
    got, rest = flat(opened.mean), np.setdiff1d(np.arange(SIZE), indices)
    assert not got[rest].any()
    step = 8.0 / weight / PLAN.codec.max_abs
    assert np.abs(got[indices] - values[indices]).max(initial=0) <= step
    np.testing.assert_allclose(encoded.carried, got[indices], rtol=1e-12, atol=1e-15)
    assert opened.mean["n"] == pytest.approx(1)
    assert opened.weight == weight
    assert opened.metrics == pytest.approx((2.5,))


def test_all_coordinates_is_the_dense_vector():
    values = np.linspace(-1, 1, SIZE)
    everything = np.arange(SIZE, dtype=np.int64)
    whole = np.rint(values * 100) / 100
    frame = replace(PLAN.first_frame(), ranges=(PLAN.codec.max_abs / 100,) * 3, max_weight=1.0)  # steps of 1/100: exact
    sparse = PLAN.encode(arrays(whole), 1.0, {}, frame, everything)
    dense = PLAN.encode(arrays(whole), 1.0, {}, frame)
    assert np.array_equal(sparse.values, dense.values)
    np.testing.assert_allclose(sparse.carried, whole, rtol=1e-12, atol=1e-15)


def test_what_does_not_fit_the_range_is_not_carried():
    values = np.full(SIZE, 5.0)
    indices = np.array([0, 20], np.int64)
    encoded = PLAN.encode(arrays(values), 8.0, {}, PLAN.first_frame(), indices)
    np.testing.assert_allclose(encoded.carried, [1.0, 1.0], rtol=1e-6)


def test_a_client_without_examples_carries_nothing():
    encoded = PLAN.encode(arrays(np.ones(SIZE)), 0.0, {}, PLAN.first_frame(), np.array([3], np.int64))
    assert encoded.carried.tolist() == [0.0]
    assert encoded.values[0] == 0


def test_sum_of_another_round_has_another_length():
    frame, indices = PLAN.first_frame(), np.array([1, 2], np.int64)
    encoded = PLAN.encode(arrays(np.ones(SIZE)), 1.0, {}, frame, indices)
    with pytest.raises(CodecError, match="opened sum has shape"):
        PLAN.decode(encoded.values, 1, 0, frame, indices[:1])
    with pytest.raises(CodecError, match="opened sum has shape"):
        PLAN.decode(encoded.values, 1, 0, frame)


# ---------------------------------------------------------------------- the frame
def test_frame_with_a_selection_round_trips():
    frame = Frame((1.0,), 2.0, SELECTION)
    assert Frame.decode(frame.encoded) == frame
    others = [
        replace(SELECTION, top=pack_indices(np.array([1]), SIZE)),
        replace(SELECTION, chosen=bytes(32)),
    ]
    assert len({frame.hash, Frame((1.0,), 2.0).hash, *(Frame((1.0,), 2.0, s).hash for s in others)}) == 4


@pytest.mark.parametrize(
    "selection",
    [
        1,
        {},
        {"top": "00"},
        {"top": 0, "chosen": "00" * 32},
        {"top": "0", "chosen": "00" * 32},
        {"top": "00", "chosen": "00" * 31},
        {"top": "00", "chosen": "00" * 32, "more": 1},
    ],
)
def test_malformed_selections(selection):
    with pytest.raises(ProtocolError):
        Frame.decode(canonical({"ranges": [], "max_weight": 1.0, "selection": selection}))


def test_codec_with_compression_round_trips():
    codec = Codec(compression=Compression(rate=0.9, momentum=0.5, clip=2.0))
    assert Codec.from_dict(codec.to_dict()) == codec
    with pytest.raises(ProtocolError):
        Codec.from_dict({**codec.to_dict(), "compression": 0.9})
    with pytest.raises(ConfigError, match=r"Compression\(rate=0\.9\)"):
        Codec(compression=0.9)  # type: ignore[arg-type]


@pytest.mark.parametrize("rate", [-0.1, 1, 1.5, float("nan"), "0.9"])
def test_a_rate_outside_zero_to_one_is_refused(rate):
    with pytest.raises(ConfigError, match=r"Compression\(rate="):
        Compression(rate=rate)


def test_an_index_set_is_that_of_its_round_and_task():
    compression = Compression(rate=0.5, warm_up=0)
    sets = [index_set(r, SIZE, compression, np.array([1, 9]), seed) for r in (1, 2) for seed in (b"a", b"b")]
    assert len({selection_hash(s) for s in sets}) == 4
