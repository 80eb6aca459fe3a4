import copy
import io
import math
import pickle
from dataclasses import FrozenInstanceError
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flbc.codec.compression import MAX_WARM_UP, Compression
from flbc.codec.indices import Scores, index_set
from flbc.codec.sparsify import Carry, Residual, accumulate, give_back, split
from flbc.errors import CodecError, ConfigError, NonFiniteError, ProtocolError

FIVE = Residual(np.array([0.5, 0, 0, 0, -1.0]), np.array([1.0, -2.0, 3.0, -4.0, 5.0]))


def vector(*values):
    return np.array(values, np.float64)


# ---------------------------------------------------------------------- settings
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rate": 1}, r"rate=1\) must be a number from 0 to below 1"),
        ({"rate": 1.5}, r"rate=1.5\) must be a number from 0 to below 1"),
        ({"rate": -0.1}, r"rate=-0.1\)"),
        ({"rate": math.nan}, r"rate=nan\)"),
        ({"rate": "0.9"}, r"rate='0.9'\)"),
        ({"rate": True}, r"rate=True\)"),
        ({"momentum": 1.0}, r"momentum=1.0\) must be a number from 0 to below 1"),
        ({"momentum": -1}, r"momentum=-1\)"),
        ({"explore": 1.01}, r"explore=1.01\) must be a number from 0 to 1"),
        ({"explore": -0.01}, r"explore=-0.01\)"),
        ({"explore": None}, r"explore=None\)"),
        ({"warm_up": -1}, r"warm_up=-1\) must be an integer from 0 to 1000"),
        ({"warm_up": 4.0}, r"warm_up=4.0\)"),
        ({"warm_up": False}, r"warm_up=False\)"),
        ({"warm_up": MAX_WARM_UP + 1}, r"warm_up=1001\)"),
        ({"clip": 0}, r"clip=0\) must be a positive number, or None"),
        ({"clip": math.inf}, r"clip=inf\)"),
        ({"clip": -1.0}, r"clip=-1.0\)"),
    ],
)
def test_a_wrong_setting_is_named_with_its_range(settings, message):
    with pytest.raises(ConfigError, match=message):
        Compression(**{"rate": 0.9, **settings})


def test_settings_at_their_bounds():
    Compression(rate=0, momentum=0, warm_up=0, explore=0)
    Compression(rate=np.nextafter(1, 0).item(), momentum=np.nextafter(1, 0).item(), warm_up=MAX_WARM_UP, explore=1)


settings_ = st.builds(
    Compression,
    rate=st.one_of(st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.999]), st.floats(0, 1, exclude_max=True)),
    momentum=st.floats(0, 1, exclude_max=True),
    warm_up=st.integers(0, 12),
    explore=st.floats(0, 1),
    clip=st.none() | st.floats(1e-6, 1e6),
)


@given(settings_)
def test_settings_survive_their_json_form(compression):
    assert Compression.from_dict(compression.to_dict()) == compression


def test_settings_are_checked_when_they_arrive():
    data = Compression(rate=0.9).to_dict()
    assert data == {"rate": 0.9, "momentum": 0.0, "warm_up": 4, "explore": 0.2, "clip": None}
    for wrong in ({**data, "more": 1}, {k: v for k, v in data.items() if k != "clip"}):
        with pytest.raises(ProtocolError, match="missing or unknown settings"):
            Compression.from_dict(wrong)
    with pytest.raises(ConfigError, match="rate"):
        Compression.from_dict({**data, "rate": 2.0})
    with pytest.raises(FrozenInstanceError):
        Compression(rate=0.9).rate = 0.1


# ---------------------------------------------------------------------- how many are sent
def test_warm_up_is_that_of_the_paper():
    # Lin et al. 2018, section 3.3: 75 %, 93.75 %, 98.4375 %, 99.6 %, then 99.9 %.
    left_out = [1 - Compression(rate=0.999).kept(round_, 10**6) / 10**6 for round_ in range(1, 8)]
    assert left_out == pytest.approx([0.75, 0.9375, 0.984375, 0.996, 0.999, 0.999, 0.999], abs=0.0013)


@pytest.mark.parametrize(
    ("rate", "warm_up", "round_", "size", "expected"),
    [
        (0.9, 4, 1, 1000, 631),  # 1000 * 10^(-1/5) = 630.96
        (0.9, 4, 5, 1000, 100),  # (1 - 0.9) * 1000 is 99.999… in floating point
        (0.9, 4, 10**9, 1000, 100),
        (0.99, 1, 1, 1000, 100),  # 0.01^(1/2), exactly on the edge
        (0.99, 1, 2, 1000, 10),
        (0.99, 1, 2, 1001, 11),
        (0.0, 4, 1, 1000, 1000),
        (0.999, 0, 1, 7, 1),
        (0.5, 0, 1, 1, 1),
        (0.9, 4, 3, 0, 0),
    ],
)
def test_kept(rate, warm_up, round_, size, expected):
    assert Compression(rate=rate, warm_up=warm_up).kept(round_, size) == expected


@given(settings_, st.integers(1, 20), st.integers(1, 10**8))
def test_kept_is_the_smallest_number_that_reaches_the_share(compression, round_, size):
    kept = compression.kept(round_, size)
    steps = compression.warm_up + 1
    share = (1 - Fraction(repr(compression.rate))) ** min(round_, steps)
    assert 1 <= kept <= size
    assert Fraction(kept - 1, size) ** steps < share <= Fraction(kept, size) ** steps
    assert compression.kept(round_ + 1, size) <= kept


def test_kept_is_fast_at_the_bounds():
    compression = Compression(rate=0.9999999999999999, warm_up=MAX_WARM_UP)
    assert [compression.kept(round_, 10**8) for round_ in (1, 1001)] == [96386450, 1]


@pytest.mark.parametrize(("round_", "size"), [(0, 5), (-1, 5), (1, -1)])
def test_kept_refuses_nonsense(round_, size):
    with pytest.raises(CodecError, match="Rounds count from 1"):
        Compression(rate=0.9).kept(round_, size)


@pytest.mark.parametrize(
    ("explore", "ranked"), [(0, 100), (0.2, 80), (0.001, 99), (0.9, 10), (1, 0), (0.29, 71), (0.57, 43)]
)
def test_explored_share_is_rounded_up(explore, ranked):
    # 100 * 0.29 and 100 * 0.57 are 28.999… and 56.999… in floating point
    assert Compression(rate=0.9, explore=explore).ranked(9, 1000) == ranked


# ---------------------------------------------------------------------- residual
def test_momentum_correction_by_hand():
    compression = Compression(rate=0.5, momentum=0.5)
    first = accumulate(Residual.empty(3), vector(1, 2, 4), compression, 4)
    assert first.velocity.tolist() == first.pending.tolist() == [1, 2, 4]
    sent, left = split(first, np.array([0]))
    assert sent.tolist() == [1]
    assert left.velocity.tolist() == left.pending.tolist() == [0, 2, 4]  # masked: what was sent stops pushing
    second = accumulate(left, vector(1, 1, 0), compression, 4)
    assert second.velocity.tolist() == [1, 2, 2]
    assert second.pending.tolist() == [1, 4, 6]


def test_without_momentum_nothing_of_a_velocity_is_kept():
    left = accumulate(FIVE, vector(1, 1, 1, 1, 1), Compression(rate=0.5), 2)
    assert left.pending.tolist() == [2, -1, 4, -3, 6]
    assert not left.velocity.any()


def test_local_clipping_is_by_the_square_root_of_the_parties():
    compression = Compression(rate=0.5, clip=10.0)
    clipped = accumulate(Residual.empty(2), vector(30, 40), compression, 4)
    assert clipped.pending == pytest.approx([3, 4])  # norm 50 -> 10 / sqrt(4)
    within = accumulate(Residual.empty(2), vector(3, 4), compression, 4)
    assert within.pending.tolist() == [3, 4]
    # The pending values of earlier rounds are not clipped again: they would be lost.
    both = accumulate(clipped, vector(30, 40), compression, 4)
    assert both.pending == pytest.approx([6, 8])


def test_nothing_is_changed_in_place():
    update, indices = vector(1, 1, 1, 1, 1), np.array([1, 4])
    before = FIVE.to_bytes()
    sent, left = split(FIVE, indices)
    give_back(left, indices, sent, sent / 2)
    accumulate(FIVE, update, Compression(rate=0.5, momentum=0.5, clip=0.1), 2)
    assert FIVE.to_bytes() == before
    assert update.tolist() == [1, 1, 1, 1, 1]
    for array in (FIVE.pending, FIVE.velocity):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_what_does_not_fit_the_range_goes_back():
    indices = np.array([0, 3, 4])
    sent, left = split(FIVE, indices)
    again = give_back(left, indices, sent, np.clip(sent, -2, 2))
    assert again.pending.tolist() == [0, -2, 3, -2, 3]
    assert again.velocity.tolist() == [0, 0, 0, 0, 0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_nan_never_enters(bad, clip):
    with pytest.raises(NonFiniteError, match="must not hold NaN or infinity"):
        accumulate(Residual.empty(3), vector(0, bad, 0), Compression(rate=0.5, clip=clip), 2)


def test_other_sizes_are_refused():
    with pytest.raises(CodecError, match=r"update has shape \(4,\), the residual \(3,\)"):
        accumulate(Residual.empty(3), np.zeros(4), Compression(rate=0.5), 2)
    with pytest.raises(CodecError, match="at least one client"):
        accumulate(Residual.empty(3), np.zeros(3), Compression(rate=0.5), 0)
    for velocity, pending in ((np.zeros(2), np.zeros(3)), (np.zeros((2, 2)),) * 2, (np.zeros(2, np.float32),) * 2):
        with pytest.raises(CodecError, match="two float64 vectors of one length"):
            Residual(velocity, pending)
    with pytest.raises(CodecError, match="of one size"):
        Carry(Residual.empty(3), Residual.empty(4), 1)


# ---------------------------------------------------------------------- on disk
@given(st.integers(0, 6).flatmap(lambda n: st.tuples(*[st.lists(st.floats(-1e9, 1e9), min_size=n, max_size=n)] * 2)))
def test_residual_survives_its_bytes(pair):
    velocity, pending = (np.array(values, np.float64) for values in pair)
    again = Residual.from_bytes(Residual(velocity, pending).to_bytes())
    assert again.velocity.tolist() == velocity.tolist()
    assert again.pending.tolist() == pending.tolist()


def test_carry_survives_its_bytes():
    after = split(FIVE, np.array([0, 2]))[1]
    again = Carry.from_bytes(Carry(FIVE, after, 7).to_bytes())
    assert again.round == 7
    for got, expected in ((again.before, FIVE), (again.after, after)):
        assert got.pending.tolist() == expected.pending.tolist()
        assert got.velocity.tolist() == expected.velocity.tolist()


def test_velocity_of_zeros_takes_no_room():
    size = 10_000
    assert len(Residual(np.zeros(size), np.ones(size)).to_bytes()) < 8 * size + 300
    assert len(Residual(np.ones(size), np.ones(size)).to_bytes()) > 16 * size


CARRY = Carry(FIVE, split(FIVE, np.array([0, 2]))[1], 7).to_bytes()


def test_truncated_bytes_are_refused():
    for length in range(len(CARRY)):
        with pytest.raises(CodecError, match=r"damaged|Rounds count|one size"):
            Carry.from_bytes(CARRY[:length])


@pytest.mark.parametrize("cls", [Residual, Carry])
def test_bytes_that_follow_are_refused(cls):
    data = FIVE.to_bytes() if cls is Residual else CARRY
    with pytest.raises(CodecError, match="followed by other bytes"):
        cls.from_bytes(data + b"\0")


@given(st.integers(0, len(CARRY) - 1), st.integers(1, 255))
@pytest.mark.filterwarnings("ignore:Reading `.npy`:UserWarning")
def test_changed_bytes_give_an_error_or_numbers(place, flip):
    changed = bytearray(CARRY)
    changed[place] ^= flip
    try:
        carry = Carry.from_bytes(bytes(changed))
    except CodecError:
        return
    assert np.isfinite(carry.after.pending).all()
    assert carry.before.size == carry.after.size


def npy(array, **options):
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    "pending",
    [
        npy(np.array([{}], object), allow_pickle=True),
        npy(np.zeros(2, np.float32)),
        npy(np.zeros((2, 1))),
        npy(np.zeros(2, ">f8")),
        npy(np.array(1.0)),
        npy(np.zeros(2)).replace(b"(2,)", b"(9,)"),
        # A header that promises 2^60 numbers takes no memory.
        npy(np.zeros(2)).replace(b"(2,), }" + b" " * 18, b"(1152921504606846976,), }"),
        npy(np.zeros(2)).replace(b"(2,), }   ", b"(-2,), }  "),
        npy(np.zeros(2)).replace(b"(2,)", b"(((("),
        b"\x80\x04N.",
        b"PK\x03\x04",
        b"",
    ],
    ids=[
        "pickle",
        "float32",
        "matrix",
        "big-endian",
        "0-d",
        "short",
        "huge",
        "negative",
        "no header",
        "raw pickle",
        "zip",
        "empty",
    ],
)
def test_other_arrays_are_refused(pending):
    with pytest.raises(CodecError, match="damaged"):
        Residual.from_bytes(pending + npy(np.zeros(0)))


@pytest.mark.parametrize("values", [[math.nan, 0], [0, math.inf]])
def test_stored_nan_is_refused(values):
    with pytest.raises(NonFiniteError):
        Residual.from_bytes(npy(np.array(values)) + npy(np.zeros(0)))
    with pytest.raises(CodecError, match="two float64 vectors of one length"):
        Residual.from_bytes(npy(np.zeros(2)) + npy(np.zeros(3)))


@pytest.mark.parametrize("round_", [0, 2**63])
def test_stored_rounds_are_checked(round_):
    with pytest.raises(CodecError, match="Rounds count from 1"):
        Carry.from_bytes(round_.to_bytes(8, "big") + CARRY[8:])


@pytest.mark.parametrize("value", [FIVE, Carry(FIVE, FIVE, 1)], ids=["residual", "carry"])
def test_a_clients_data_is_neither_printed_nor_pickled(value):
    assert repr(value) == f"<{type(value).__name__}: secret>"
    for leak in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="holds a secret"):
            leak(value)


# ---------------------------------------------------------------------- nothing is lost, and nothing is sent twice
FATES = ("first attempt", "second attempt", "trained only", "not asked")


class Client:
    """A client as the node drives it: one carry on its disk, gathered before it answers."""

    def __init__(self, size):
        self.stored, self.size = Carry(Residual.empty(size), Residual.empty(size), 1).to_bytes(), size
        self.given = np.zeros(size)  # sum of the velocities, which are the updates without momentum
        self.left = np.zeros(size)  # what left the node: in each round what its last answer carried

    def train(self, round_, update, compression, parties):
        waiting = accumulate(Carry.from_bytes(self.stored).after, update, compression, parties)
        self.given += waiting.velocity if compression.momentum else update
        self.stored = Carry(waiting, waiting, round_).to_bytes()

    def answer(self, indices, limit):
        carry = Carry.from_bytes(self.stored)
        wanted, left = split(carry.before, indices)
        carried = np.clip(np.rint(wanted * 8) / 8, -limit, limit)  # a codec that rounds and saturates
        self.stored = Carry(carry.before, give_back(left, indices, wanted, carried), carry.round).to_bytes()
        return carried


@given(data=st.data(), momentum=st.sampled_from([0.0, 0.5, 0.9]), seed=st.integers(0, 2**32 - 1))
def test_what_left_the_nodes_plus_what_is_pending_is_all_that_was_added(data, momentum, seed):
    rng = np.random.default_rng(seed)
    size, parties = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 4))
    compression = Compression(
        rate=data.draw(st.sampled_from([0.0, 0.5, 0.9])), momentum=momentum, warm_up=data.draw(st.integers(0, 3))
    )
    limit = data.draw(st.sampled_from([0.5, 100.0]))
    fates = data.draw(st.lists(st.lists(st.sampled_from(FATES), min_size=parties, max_size=parties), max_size=8))
    clients, scores = [Client(size) for _ in range(parties)], Scores.fresh(size)
    for round_, each in enumerate(fates, 1):
        top = scores.top(round_, compression.ranked(round_, size))
        indices = index_set(round_, size, compression, top, b"public")
        total = np.zeros(indices.size)
        for client, fate in zip(clients, each, strict=True):
            if fate == "not asked":
                continue
            client.train(round_, rng.normal(size=size), compression, parties)
            if fate == "trained only":
                continue
            carried = client.answer(indices, limit)
            if fate == "second attempt":
                again = client.answer(indices, limit)
                assert again.tolist() == carried.tolist(), "an attempt protects the same update again"
            client.left[indices] += carried
            total += carried
        scores = scores.after(round_, indices, total / parties)
    for client in clients:
        pending = Carry.from_bytes(client.stored).after.pending
        # Tens of additions of numbers of order one to ten: 1e-12 is thousands of times their rounding error.
        assert np.abs(client.left + pending - client.given).max() <= 1e-12


def test_a_value_leaves_in_one_round_only():
    """Else a server that says "round 1 did not count" could subtract two sums that differ in one client alone."""
    compression = Compression(rate=0.0, warm_up=0)
    every = np.arange(3)
    client = Client(3)
    client.train(1, vector(1, 2, 3), compression, 3)
    assert client.answer(every, 100).tolist() == [1, 2, 3]
    client.train(2, vector(1, 1, 1), compression, 3)
    assert client.answer(every, 100).tolist() == [1, 1, 1]


def test_a_round_that_was_only_trained_waits():
    compression = Compression(rate=0.0, warm_up=0)
    client = Client(3)
    client.train(1, vector(1, 2, 3), compression, 3)
    client.train(2, vector(1, 1, 1), compression, 3)
    assert client.answer(np.arange(3), 100).tolist() == [2, 3, 4]
