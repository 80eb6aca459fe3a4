import math
import secrets
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flbc.codec import Codec, Frame, Layout, OpenedUpdate, VectorPlan, exact
from flbc.codec.dense import quantise, round_stochastic
from flbc.codec.metrics import count_metrics, flatten_metrics, metric_sizes, unflatten_metrics
from flbc.codec.ranges import BEYOND, LARGEST, MARKS, SMALLEST
from flbc.crypto.keystream import Keystream, keystream
from flbc.errors import CodecError, ConfigError, FlbcError, NonFiniteError, ProtocolError

ALL_BITS = (8, 16, 23, 32)


def plan_of(arrays, *, private=False, **codec):
    return VectorPlan(Layout.of(arrays, private=private), Codec(**codec), private=private)


def add(plan, frame, clients):
    """Encode (update, weight, metrics) of every client and add the integers."""
    encoded = [plan.encode(update, weight, metrics, frame) for update, weight, metrics in clients]
    for one in encoded:
        assert one.values.shape == (plan.length,)
        assert one.values.dtype == np.int64
        assert np.abs(one.values).max() <= plan.codec.max_abs
    return sum(one.values for one in encoded), encoded[0].metric_names


# ---------------------------------------------------------------------- the mean
@pytest.mark.parametrize("bits", ALL_BITS)
@given(data=st.data())
def test_weighted_mean_within_the_quantisation_bound(bits, data):
    parties = data.draw(st.integers(1, 5))
    values = st.lists(st.floats(-0.5, 0.5, width=32), min_size=4, max_size=4)
    updates = [np.array(data.draw(values)) for _ in range(parties)]
    weights = [float(data.draw(st.integers(1, 1000))) for _ in range(parties)]
    plan = plan_of({"w": np.zeros(4, np.float32)}, bits=bits, initial_range=0.5, max_examples=1000.0)
    frame = plan.first_frame()
    total, _ = add(plan, frame, [({"w": u}, w, {}) for u, w in zip(updates, weights, strict=True)])
    opened = plan.decode(total, parties, 0, frame)
    assert opened.weight == sum(weights)
    mean = np.average(updates, axis=0, weights=weights)
    # Each client's rounding is off by less than one step of range * max_weight / weight.
    step = 0.5 / plan.codec.max_abs * parties * frame.max_weight / sum(weights)
    assert np.abs(opened.mean["w"] - mean).max() <= step * (1 + 1e-9) + 1e-15


def test_integer_steps_are_exact():
    plan = plan_of({"w": np.zeros(3)}, bits=8, initial_range=127.0, max_examples=1.0)
    frame = plan.first_frame()
    total, _ = add(
        plan, frame, [({"w": np.array([127.0, -127, 5])}, 1.0, {}), ({"w": np.array([1.0, 0, -5])}, 1.0, {})]
    )
    assert total[:3].tolist() == [128, -127, 0]
    assert plan.decode(total, 2, 0, frame).mean["w"].tolist() == [64.0, -63.5, 0.0]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 3), (2, 0, 3)])
def test_any_float_dtype_and_shape(dtype, shape):
    update = {"a": np.full(shape, -0.25, dtype), "last": np.array([0.5], dtype)}
    plan = plan_of(update, bits=32, max_examples=10.0)
    frame = plan.first_frame()
    total, _ = add(plan, frame, [(update, 10.0, {})])
    opened = plan.decode(total, 1, 0, frame)
    assert opened.mean["a"].shape == shape
    assert opened.mean["a"].dtype == np.float64
    assert np.allclose(opened.mean["a"], -0.25, atol=2**-30)
    assert np.allclose(opened.mean["last"], 0.5, atol=2**-30)


@pytest.mark.parametrize("bits", ALL_BITS)
def test_integer_buffers_are_exact(bits):
    first = {"w": np.zeros(1), "n": np.array(-7), "k": np.array([[2**20, -(2**20)]])}
    second = {"w": np.zeros(1), "n": np.array(2), "k": np.array([[1, 3]])}
    plan = plan_of({"w": np.zeros(1), "n": np.array(0), "k": np.zeros((1, 2), np.int32)}, bits=bits, max_examples=3.0)
    frame = plan.first_frame()
    total, _ = add(plan, frame, [(first, 1.0, {}), (second, 3.0, {})])
    mean = plan.decode(total, 2, 0, frame).mean
    assert mean["n"].shape == ()
    assert mean["n"] == (-7 + 3 * 2) / 4
    assert mean["k"].tolist() == [[(2**20 + 3) / 4, (-(2**20) + 9) / 4]]


def test_model_of_integers_only():
    plan = plan_of({"n": np.array([1, 2])}, max_examples=2.0)
    total, _ = add(plan, plan.first_frame(), [({"n": np.array([4, -4])}, 2.0, {})])
    assert plan.decode(total, 1, 0, plan.first_frame()).mean["n"].tolist() == [4.0, -4.0]


class Draws:
    """A keystream of given words."""

    def __init__(self, *words):
        self.words = words

    def read_into(self, out):
        out[...] = np.resize(np.array(self.words, np.uint32), out.shape)


def rounded(values, chance=None):
    out = np.empty(len(values), np.int64)
    round_stochastic(np.array(values, np.float64), chance or Keystream(secrets.token_bytes(32)), out)
    return out


def test_rounding_is_unbiased():
    draws = 40_000
    for value in (0.1, -0.1, 0.5, -2.75, 1e-3):
        found = rounded(np.full(draws, value))
        assert set(np.unique(found)) <= {math.floor(value), math.ceil(value)}
        fraction = value - math.floor(value)
        sigma = math.sqrt(fraction * (1 - fraction) / draws)
        assert abs(found.mean() - value) < 6 * sigma


@given(st.floats(-(2.0**31) + 1, 2.0**31 - 1), st.integers(0, 2**32 - 1))
def test_rounding_adds_a_fraction_and_cuts_off(value, word):
    """The exact rule, in rationals; digits below 2^-32 are dropped towards zero."""
    fixed = Fraction(math.trunc(Fraction(value) * 2**32), 2**32)
    assert rounded([value], Draws(word)).tolist() == [math.floor(fixed + Fraction(word, 2**32))]


@pytest.mark.parametrize("word", [0, 1, 2**31, 2**32 - 1])
def test_rounding_keeps_integers_and_never_leaves_the_range_whatever_is_drawn(word):
    values = [-(2**31) + 1, -3, 0, 7, 2**31 - 1]
    assert rounded(values, Draws(word)).tolist() == values


def test_rounding_draws_fresh_randomness():
    plan = plan_of({"a": np.zeros(200), "b": np.zeros(200)}, bits=8, initial_range=127.0, max_examples=1.0)
    half = {"a": np.full(200, 0.5), "b": np.full(200, 0.5)}
    first, second = (plan.encode(half, 1.0, {}, plan.first_frame()).values for _ in range(2))
    drawn = [first[:200], first[200:400], second[:200], second[200:400]]
    assert len({tuple(row) for row in drawn}) == 4, "other draws for other arrays and other updates"


# ---------------------------------------------------------------------- blocks
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("length", [1, (1 << 14) - 1, 1 << 14, (1 << 14) + 1, 40_000])
def test_blocks_change_nothing(dtype, length):
    values = np.random.default_rng(length).normal(0, 0.5, length).astype(dtype)
    out = np.empty(length, np.int64)
    largest, beyond = quantise(values, 0.75, 0.5, 2**31 - 1, Keystream(bytes(32)), out)
    scaled = values.astype(np.float64) * 0.75 / 0.5
    draws = np.frombuffer(keystream(bytes(32), 4 * length), "<u4")
    fixed = (np.clip(scaled, -1, 1) * (2**31 - 1) * 2.0**32).astype(np.int64)
    assert np.array_equal(out, (fixed + draws) >> 32)
    assert largest == np.abs(scaled).max()
    assert beyond == np.count_nonzero(np.abs(scaled) > 1)


@pytest.mark.parametrize("place", [0, 16_383, 16_384, 39_999])
@pytest.mark.parametrize("value", [3.0, -3.0, math.inf, -math.inf])
def test_one_value_beyond_the_range_is_found_in_any_block(place, value):
    values, out = np.zeros(40_000), np.empty(40_000, np.int64)
    values[place] = value
    assert quantise(values, 1.0, 1.0, 127, Draws(5), out) == (abs(value), 1)
    assert np.flatnonzero(out).tolist() == [place]
    assert out[place] == math.copysign(127, value)
    assert values[place] == value, "the update is not overwritten"


def test_without_compression_nothing_is_carried():
    plan = plan_of({"w": np.zeros(3)}, max_examples=1.0)
    assert plan.encode({"w": np.ones(3)}, 1.0, {}, plan.first_frame()).carried.tolist() == []


# ---------------------------------------------------------------------- saturation
@pytest.mark.parametrize("bits", ALL_BITS)
def test_saturated_coordinates_are_counted_exactly(bits):
    plan = plan_of({"a": np.zeros(4), "b": np.zeros(2)}, bits=bits, initial_range=1.0, max_examples=10.0)
    frame = plan.first_frame()
    loud = {"a": np.array([1.0, 1.01, -5.0, -1.0]), "b": np.array([1e300, 0.0])}
    total, _ = add(plan, frame, [(loud, 10.0, {}), (loud, 5.0, {})])  # half the weight: only 5 and 1e300 are too large
    assert plan.decode(total, 2, 0, frame).saturated == 3 + 2
    quiet, _ = add(plan, frame, [({"a": np.ones(4), "b": -np.ones(2)}, 10.0, {})])
    assert plan.decode(quiet, 1, 0, frame).saturated == 0


def test_saturated_value_is_the_end_of_the_range():
    plan = plan_of({"w": np.zeros(2)}, initial_range=0.5, max_examples=1.0)
    total, _ = add(plan, plan.first_frame(), [({"w": np.array([9.0, -9.0])}, 1.0, {})])
    assert plan.decode(total, 1, 0, plan.first_frame()).mean["w"].tolist() == [0.5, -0.5]


def test_update_larger_than_any_float_over_the_range_saturates_without_a_warning():
    plan = plan_of({"w": np.zeros(2)}, max_examples=1.0)
    frame = Frame((5e-324,), 1.0)
    assert plan.encode({"w": np.array([1e308, 0.0])}, 1.0, {}, frame).values[:2].tolist() == [plan.codec.max_abs, 0]


# ---------------------------------------------------------------------- frames
def test_first_frame_has_the_initial_range_for_every_float_tensor():
    plan = plan_of({"a": np.zeros(2), "n": np.array(1), "b": np.zeros(())}, initial_range=3, max_examples=7)
    assert plan.first_frame() == Frame((3.0, 3.0), 7.0)
    assert plan_of({"a": np.zeros(2)}).first_frame().max_weight == 0.0


def test_ranges_follow_the_largest_client_not_the_mean():
    """Opposite updates have a mean of zero; a range that followed it would cut both off."""
    plan = plan_of({"a": np.zeros(2), "still": np.zeros(2), "empty": np.zeros(0)}, range_factor=4, max_examples=5.0)
    frame = plan.first_frame()
    up = {"a": np.array([0.1, -0.3]), "still": np.zeros(2), "empty": np.zeros(0)}
    down = {name: -value for name, value in up.items()}
    total, _ = add(plan, frame, [(up, 5.0, {}), (down, 5.0, {})])
    opened = plan.decode(total, 2, 0, frame)
    assert opened.largest == (0.5, 2.0**-14, 2.0**-14)
    following = plan.next_frame(frame, opened)
    assert following.ranges == (4 * 0.5, 4 * 2.0**-14, 4 * 2.0**-14)
    assert following.max_weight == 5.0
    assert following.encoded != frame.encoded


def test_range_grows_after_saturation_and_settles():
    plan = plan_of({"a": np.zeros(3)}, max_examples=1.0)
    frame, update = plan.first_frame(), {"a": np.array([50.0, -1.0, 0.0])}
    for _ in range(4):
        total, _ = add(plan, frame, [(update, 1.0, {})])
        opened = plan.decode(total, 1, 0, frame)
        frame = plan.next_frame(frame, opened)
    assert opened.saturated == 0
    assert 4 * 50 <= frame.ranges[0] <= 8 * 50


def test_range_never_collapses_and_never_explodes():
    plan = plan_of({"a": np.zeros(1)}, initial_range=2.0, max_examples=1.0)
    low = high = plan.first_frame()
    for _ in range(60):
        low = plan.next_frame(low, OpenedUpdate({}, 1.0, largest=(2.0**-14,)))
        high = plan.next_frame(high, OpenedUpdate({}, 1.0, largest=(BEYOND,)))
    assert low.ranges == (2 * SMALLEST,)
    assert high.ranges == (2 * LARGEST,)


def test_frame_round_trips_and_binds_its_numbers():
    frame = Frame((0.1, 2.0), 256.0)
    assert Frame.decode(frame.encoded) == frame
    assert frame.encoded == b'{"max_weight":256.0,"ranges":[0.1,2.0],"selection":null}'
    hashes = {frame.hash, Frame((2.0, 0.1), 256.0).hash, Frame((0.1, 2.0), 128.0).hash, Frame((0.1,), 256.0).hash}
    assert len(hashes) == 4


@pytest.mark.parametrize("ranges", [(0.0,), (-1.0,), (math.inf,), (math.nan,), (1.0, 0.0)])
def test_frame_refuses_ranges(ranges):
    with pytest.raises(ProtocolError, match="range of a frame must be a positive number"):
        Frame(ranges, 1.0)


@pytest.mark.parametrize("weight", [-1.0, math.inf, math.nan])
def test_frame_refuses_weights(weight):
    with pytest.raises(ProtocolError, match="largest weight of a frame must not be negative"):
        Frame((1.0,), weight)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"max_weight":1.0}',
        b'{"max_weight":1,"ranges":[]}',
        b'{"max_weight":1.0,"ranges":[1]}',
        b'{"max_weight":1.0,"ranges":[true]}',
        b'{"max_weight":1.0,"ranges":["1.0"]}',
        b'{"max_weight":1.0,"ranges":1.0}',
        b'{"max_weight":null,"ranges":[]}',
        b'{"extra":1,"max_weight":1.0,"ranges":[]}',
        b'{"max_weight":1e999,"ranges":[]}',
        b'{"max_weight":NaN,"ranges":[]}',
    ],
)
def test_frame_refuses_other_documents(data):
    with pytest.raises(ProtocolError):
        Frame.decode(data)


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_frame_garbage_raises_only_our_errors(data):
    with pytest.raises(FlbcError):
        Frame.decode(data)


@given(st.binary(max_size=3), st.integers(0, 38), st.integers(0, 3))
def test_damaged_frame_never_parses_as_something_else(insert, at, drop):
    good = Frame((0.1, 2.0), 256.0).encoded
    data = good[:at] + insert + good[at + drop :]
    try:
        frame = Frame.decode(data)
    except FlbcError:
        return
    assert frame.encoded == data


# ---------------------------------------------------------------------- weights
@pytest.mark.parametrize("weight", [-1.0, 10.5, math.nan, math.inf])
def test_weight_out_of_range(weight):
    plan = plan_of({"w": np.zeros(1)}, max_examples=10.0)
    with pytest.raises(CodecError, match="not between 0 and the agreed largest weight 10"):
        plan.encode({"w": np.zeros(1)}, weight, {}, plan.first_frame())


def test_weight_while_the_largest_is_unknown():
    plan = plan_of({"w": np.zeros(1)})
    for weight in (0.0, 1.0):
        with pytest.raises(CodecError, match="agreed largest weight 0"):
            plan.encode({"w": np.zeros(1)}, weight, {}, plan.first_frame())


def test_frame_of_another_model():
    plan = plan_of({"w": np.zeros(1)}, max_examples=1.0)
    with pytest.raises(CodecError, match="another number of ranges than the model has float arrays"):
        plan.encode({"w": np.zeros(1)}, 1.0, {}, Frame((1.0, 1.0), 1.0))


def test_client_without_examples_does_not_count():
    plan = plan_of({"w": np.zeros(1)}, bits=8, initial_range=127.0, max_examples=4.0)
    frame = plan.first_frame()
    total, _ = add(
        plan, frame, [({"w": np.array([99.0])}, 0.0, {"loss": 99.0}), ({"w": np.array([64.0])}, 4.0, {"loss": 1.0})]
    )
    opened = plan.decode(total, 2, 1, frame)
    assert (opened.mean["w"].tolist(), opened.weight, opened.metrics) == ([64.0], 4.0, (1.0,))


def test_nobody_has_examples():
    plan = plan_of({"w": np.zeros(1)}, max_examples=4.0)
    total, _ = add(plan, plan.first_frame(), [({"w": np.zeros(1)}, 0.0, {})])
    with pytest.raises(CodecError, match="sum to zero; every client reported no examples"):
        plan.decode(total, 1, 0, plan.first_frame())


@pytest.mark.parametrize("weight", [0.3, 100.1, 1 / 3])
def test_fractional_largest_weight_is_honest(weight):
    plan = plan_of({"w": np.zeros(1)}, max_examples=weight)
    total, _ = add(plan, plan.first_frame(), [({"w": np.zeros(1)}, weight, {})] * 4)
    assert math.isclose(plan.decode(total, 4, 0, plan.first_frame()).weight, 4 * weight, abs_tol=4 * exact.RESOLUTION)


def test_weight_above_what_clients_may_report():
    plan = plan_of({"w": np.zeros(1)}, max_examples=4.0)
    total, _ = add(plan, plan.first_frame(), [({"w": np.zeros(1)}, 4.0, {})] * 3)
    with pytest.raises(CodecError, match="exceeds what the clients may report"):
        plan.decode(total, 2, 0, plan.first_frame())


@pytest.mark.parametrize("shape", [lambda n: n - 1, lambda n: n + 1, lambda n: (1, n)])
def test_sum_of_a_wrong_shape(shape):
    plan = plan_of({"w": np.zeros(3)}, max_examples=4.0)
    bad = np.zeros(shape(plan.length), np.int64)
    with pytest.raises(CodecError, match=rf"The opened sum has shape .*expected \({plan.length},\)"):
        plan.decode(bad, 1, 0, plan.first_frame())
    private = plan_of({"w": np.zeros(3)}, private=True)
    with pytest.raises(CodecError, match=r"expected \(3,\)"):
        private.decode_private(np.zeros(4, np.int64), 0.1, 1.0)


# ---------------------------------------------------------------------- metrics
@pytest.mark.parametrize("bits", ALL_BITS)
def test_metrics_are_exact_weighted_means(bits):
    plan = plan_of({"w": np.zeros(1)}, bits=bits, max_examples=100.0)
    clients = [
        ({"w": np.zeros(1)}, 1.0, {"loss": 0.5, "epochs": 3, "hist": [1.0, -2.0]}),
        ({"w": np.zeros(1)}, 3.0, {"loss": 2.5, "epochs": 1, "hist": [5, 6]}),
    ]
    total, names = add(plan, plan.first_frame(), clients)
    opened = plan.decode(total, 2, count_metrics(names), plan.first_frame())
    assert unflatten_metrics(names, opened.metrics) == {"epochs": 1.5, "hist": [4.0, 4.0], "loss": 2.0}


def test_metrics_are_summed_by_name_whatever_their_order():
    plan = plan_of({"w": np.zeros(1)}, max_examples=1.0)
    clients = [({"w": np.zeros(1)}, 1.0, {"a": 1.0, "b": 5.0}), ({"w": np.zeros(1)}, 1.0, {"b": 7.0, "a": 3.0})]
    total, names = add(plan, plan.first_frame(), clients)
    assert unflatten_metrics(names, plan.decode(total, 2, 2, plan.first_frame()).metrics) == {"a": 2.0, "b": 6.0}


def test_metrics_that_are_not_used_are_zero():
    plan = plan_of({"w": np.zeros(1)}, max_examples=1.0, max_metrics=3)
    total, _ = add(plan, plan.first_frame(), [({"w": np.zeros(1)}, 1.0, {"loss": 2.0})])
    assert plan.decode(total, 1, 3, plan.first_frame()).metrics == (2.0, 0.0, 0.0)


def test_too_many_metrics_says_what_to_raise():
    plan = plan_of({"w": np.zeros(1)}, max_examples=1.0, max_metrics=2)
    with pytest.raises(CodecError, match=r"holds 3 numbers; raise Codec\(max_metrics=3\)"):
        plan.encode({"w": np.zeros(1)}, 1.0, {"a": 1.0, "b": [1.0, 2.0]}, plan.first_frame())


@pytest.mark.parametrize("bad", [math.nan, math.inf, [0.0, -math.inf]])
def test_non_finite_metric_is_named(bad):
    with pytest.raises(NonFiniteError, match="Metric 'loss' is NaN or infinite; nothing was sent"):
        flatten_metrics({"acc": 1.0, "loss": bad}, 16)


@pytest.mark.parametrize("value", [1e9, 1e308])
def test_metric_too_large_to_sum(value):
    plan = plan_of({"w": np.zeros(1)}, max_examples=1e6)
    with pytest.raises(CodecError, match="report metrics as means and not as sums"):
        plan.encode({"w": np.zeros(1)}, 1e6, {"total": value}, plan.first_frame())


metric_maps = st.dictionaries(
    st.text(max_size=5),
    st.floats(-1e6, 1e6) | st.integers(-1000, 1000) | st.lists(st.floats(-1e6, 1e6), max_size=3),
    max_size=5,
)


@given(metric_maps)
def test_metric_names_round_trip(metrics):
    names, numbers = flatten_metrics(metrics, 100)
    assert count_metrics(names) == len(numbers)
    assert unflatten_metrics(names, numbers) == metrics


@pytest.mark.parametrize("name", ["loss", "", "a:-1", "a:x", "a: 1", "a:12345", "a:1.0", "a:²", "a:٣"])
def test_malformed_metric_names(name):
    with pytest.raises(ProtocolError, match="metric name in the reply is malformed"):
        metric_sizes(["ok:", name])


def test_colon_in_a_metric_name():
    assert metric_sizes(["a:3:", "a:3", "::2"]) == [("a:3", None), ("a", 3), (":", 2)]


# ---------------------------------------------------------------------- with differential privacy
def test_private_vector_holds_the_floats_alone():
    model = {"w": np.zeros(3), "bn.running_mean": np.zeros(2), "n": np.array(0)}
    plan = plan_of(model, private=True, max_metrics=16)
    assert plan.length == 3
    assert plan.first_frame() == Frame()
    assert plan.next_frame(Frame(), OpenedUpdate({}, 1.0)) == Frame()


def test_private_round_trip_uses_one_step_and_a_public_count():
    plan = plan_of({"a": np.zeros((1, 2)), "running_var": np.zeros(2), "b": np.zeros(())}, private=True)
    encoded = plan.encode_private({"a": np.array([[0.26, -0.24]]), "b": np.array(10.0)}, 0.1)
    assert encoded.values.tolist() == [3, -2, 100]
    assert encoded.metric_names == ()
    opened = plan.decode_private(encoded.values * 2, 0.1, 4.0)
    assert set(opened.mean) == {"a", "b"}
    assert np.allclose(opened.mean["a"], [[0.15, -0.1]])
    assert opened.mean["b"] == pytest.approx(5.0)
    assert (opened.weight, opened.metrics, opened.saturated) == (4.0, (), 0)


def test_private_arrays_that_are_absent_count_as_zero():
    plan = plan_of({"a": np.zeros(2), "b": np.zeros(1)}, private=True)
    assert plan.encode_private({"b": np.array([0.5])}, 0.25).values.tolist() == [0, 0, 2]
    assert plan.encode_private({}, 0.25).values.tolist() == [0, 0, 0]


def test_private_values_are_not_clipped():
    plan = plan_of({"a": np.zeros(1)}, private=True, bits=8)
    assert plan.encode_private({"a": np.array([1e6])}, 1.0).values.tolist() == [1_000_000]


@given(st.floats(-1e3, 1e3), st.sampled_from([0.01, 0.5, 1.0]))
def test_private_rounding_is_to_the_nearest(value, step):
    plan = plan_of({"a": np.zeros(1)}, private=True)
    (rounded,) = plan.encode_private({"a": np.array([value])}, step).values
    assert abs(rounded - value / step) <= 0.5


# ---------------------------------------------------------------------- settings
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits": 7}, r"Codec\(bits=7\) must be an integer from 8 to 32; 16 is a good choice"),
        ({"bits": 33}, "from 8 to 32"),
        ({"bits": 16.0}, "from 8 to 32"),
        ({"bits": True}, "from 8 to 32"),
        ({"bits": "16"}, r"Codec\(bits='16'\)"),
        ({"initial_range": 0}, r"Codec\(initial_range=0\) must be a positive number"),
        ({"initial_range": math.nan}, "initial_range"),
        ({"initial_range": "1"}, "initial_range='1'"),
        ({"initial_range": 10**400}, "initial_range"),
        ({"initial_range": True}, "initial_range=True"),
        ({"range_factor": -4.0}, r"Codec\(range_factor=-4.0\) must be a positive number"),
        ({"range_factor": math.inf}, "range_factor"),
        ({"range_factor": None}, "range_factor=None"),
        ({"max_examples": 0}, r"Codec\(max_examples=0\) must be a positive number, or None"),
        ({"max_examples": math.inf}, "max_examples"),
        ({"max_examples": [1]}, "max_examples"),
        ({"max_metrics": -1}, r"Codec\(max_metrics=-1\) must be an integer from 0 to 4096"),
        ({"max_metrics": 4097}, "from 0 to 4096"),
        ({"max_metrics": 1.0}, "from 0 to 4096"),
    ],
)
def test_codec_settings_out_of_range(settings, message):
    with pytest.raises(ConfigError, match=message):
        Codec(**settings)


@pytest.mark.parametrize(("bits", "max_abs"), [(8, 127), (16, 32767), (32, 2**31 - 1)])
def test_max_abs(bits, max_abs):
    assert Codec(bits=bits).max_abs == max_abs


@pytest.mark.parametrize(
    "codec", [Codec(), Codec(bits=8, initial_range=2, range_factor=1, max_examples=5, max_metrics=0)]
)
def test_codec_round_trips(codec):
    assert Codec.from_dict(codec.to_dict()) == codec


def test_codec_from_other_members():
    data = Codec().to_dict()
    for wrong in (data | {"extra": 1}, {name: data[name] for name in data if name != "bits"}):
        with pytest.raises(ProtocolError, match="missing or unknown settings"):
            Codec.from_dict(wrong)


@pytest.mark.parametrize("bits", ALL_BITS)
def test_length_of_the_vector(bits):
    plan = plan_of({"w": np.zeros((2, 3)), "n": np.zeros(2, np.int64)}, bits=bits, max_metrics=4)
    assert plan.length == 6 + MARKS + (2 + 2 + 4) * exact.limbs(bits)


def test_a_declared_weight_replaces_the_clients_word():
    """A client that reports a weight of -90 beside others' 100 would enlarge the mean tenfold."""
    plan = plan_of({"w": np.zeros(2)}, max_examples=128.0, max_metrics=0)
    frame, update = plan.first_frame(), {"w": np.array([0.5, -0.25])}
    total = plan.encode(update, 100.0, {}, frame).values.copy()
    total[2 + MARKS : 2 + MARKS + exact.limbs(16)] += exact.split(np.array([-90.0]), 16)
    np.testing.assert_allclose(plan.decode(total, 1, 0, frame).mean["w"], [5.0, -2.5], rtol=1e-3)
    np.testing.assert_allclose(plan.decode(total, 1, 0, frame, declared=100.0).mean["w"], [0.5, -0.25], rtol=1e-3)
