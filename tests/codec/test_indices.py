import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flbc.codec.compression import Compression
from flbc.codec.indices import Scores, index_set, pack_indices, selection_hash, unpack_indices
from flbc.codec.sparsify import Residual, accumulate, split
from flbc.crypto.keystream import keystream
from flbc.crypto.signing import keccak256
from flbc.errors import CodecError

NONE = np.zeros(0, np.int64)
settings_ = st.builds(
    Compression,
    rate=st.sampled_from([0.0, 0.3, 0.5, 0.9, 0.99]),
    warm_up=st.integers(0, 4),
    explore=st.sampled_from([0.0, 0.1, 0.2, 0.5, 1.0]),
)
sizes = st.integers(0, 200)


# ---------------------------------------------------------------------- the set
@given(settings_, sizes, st.integers(1, 9), st.binary(max_size=40), st.data())
def test_the_set_is_as_it_says(compression, size, round_, seed, data):
    top = np.array(data.draw(st.permutations(range(size))), np.int64)[: data.draw(st.integers(0, size))]
    indices = index_set(round_, size, compression, top, seed)
    assert indices.dtype == np.int64
    assert indices.size == compression.kept(round_, size)
    assert np.all(np.diff(indices) > 0)
    assert set(indices.tolist()) <= set(range(size))
    ranked = top[: compression.ranked(round_, size)].tolist()
    assert set(ranked) <= set(indices.tolist())
    # What is drawn depends neither on the order of the ranked nor on those that are not taken.
    again = index_set(round_, size, compression, np.array(sorted(ranked), np.int64), seed)
    assert again.tolist() == indices.tolist()


@given(settings_, st.integers(1, 60), st.integers(1, 9), st.binary(max_size=40), st.data())
def test_the_lot_is_the_lowest_words_of_the_stream(compression, size, round_, seed, data):
    """Recomputed with Python's integers: no numpy, no partition."""
    top = data.draw(st.permutations(range(size)))[: compression.ranked(round_, size)]
    key = keccak256(b"flbc/codec/indices/v1" + round_.to_bytes(8, "big") + keccak256(seed))
    stream = keystream(key, 8 * size)
    words = [int.from_bytes(stream[8 * i : 8 * i + 8], "little") for i in range(size)]
    rest = sorted(set(range(size)) - set(top), key=lambda i: (words[i], i))
    expected = sorted(top + rest[: compression.kept(round_, size) - len(top)])
    assert index_set(round_, size, compression, np.array(top, np.int64), seed).tolist() == expected


def test_known_answer():
    # Our own first output: another version of numpy or of this file must not change it.
    indices = index_set(5, 100, Compression(rate=0.9), np.array([7, 99, 3]), b"flbc")
    assert indices.tolist() == [3, 7, 9, 10, 12, 14, 43, 77, 87, 99]
    assert selection_hash(indices).hex() == "dae9a71d725e472c79ce4ea30e7963e1368905492ee8e33f0420b5ea138b0f6e"


def test_two_processes_choose_the_same():
    code = (
        "import numpy as np; from flbc.codec.compression import Compression; from flbc.codec.indices import *;"
        "m = np.random.default_rng(3).normal(size=20000); c = Compression(rate=0.9);"
        "i = index_set(1, 20000, c, np.zeros(0, np.int64), b's'); s = Scores.fresh(20000).after(1, i, m[i]);"
        "i = index_set(2, 20000, c, s.top(2, c.ranked(2, 20000)), b's'); print(selection_hash(i).hex())"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    ]
    assert len(runs[0].strip()) == 64
    assert runs[0] == runs[1]


def test_lots_are_fair_and_change_with_round_and_seed():
    compression, size, rounds = Compression(rate=0.9, warm_up=0, explore=1), 50, 2000
    counts = np.zeros(size)
    for round_ in range(1, rounds + 1):
        counts[index_set(round_, size, compression, NONE, b"seed")] += 1
    assert counts.sum() == rounds * 5
    assert np.abs(counts - rounds / 10).max() < 6 * np.sqrt(rounds * 0.1 * 0.9)
    one, other, later = (
        index_set(r, 1000, compression, NONE, s).tolist() for r, s in ((1, b"a"), (1, b"b"), (2, b"a"))
    )
    assert one != other
    assert one != later


@pytest.mark.parametrize("top", [[-1], [10], [3, 3], [2**62]])
def test_ranked_coordinates_are_checked(top):
    with pytest.raises(CodecError, match="different numbers from 0 to 9"):
        index_set(1, 10, Compression(rate=0.0, explore=0), np.array(top), b"")


def test_a_set_depends_on_no_single_client():
    """Two worlds in which clients hold different data, but every opened sum is the same: the same sets."""
    size, rounds, compression = 60, 6, Compression(rate=0.9, momentum=0.5, warm_up=2)
    rng = np.random.default_rng(1)
    updates = rng.integers(-1000, 1000, (rounds, 3, size)).astype(np.float64)  # sums of these are exact
    shift = rng.integers(-1000, 1000, (rounds, size)).astype(np.float64)
    moved = updates + np.stack([shift, -3 * shift, 2 * shift], axis=1)
    assert not np.array_equal(updates, moved)
    sets = []
    for world in (updates, moved):
        clients, scores, chosen = [Residual.empty(size)] * 3, Scores.fresh(size), []
        for round_ in range(1, rounds + 1):
            top = scores.top(round_, compression.ranked(round_, size))
            indices = index_set(round_, size, compression, top, b"seed")
            halves = [
                split(accumulate(client, update, compression, 3), indices)
                for client, update in zip(clients, world[round_ - 1], strict=True)
            ]
            clients = [left for _, left in halves]
            scores = scores.after(round_, indices, sum(sent for sent, _ in halves) / 3)
            chosen.append(selection_hash(indices))
        sets.append(chosen)
    assert sets[0] == sets[1]
    assert len(set(sets[0])) == rounds


# ---------------------------------------------------------------------- on the wire
@given(sizes.flatmap(lambda size: st.tuples(st.just(size), st.sets(st.integers(0, max(size - 1, 0)), max_size=size))))
def test_bitmap_round_trip(pair):
    size, chosen = pair
    indices = np.array(sorted(chosen), np.int64)
    data = pack_indices(indices, size)
    assert len(data) == (size + 7) // 8
    again = unpack_indices(data, size, indices.size)
    assert again.dtype == np.int64
    assert again.tolist() == indices.tolist()
    assert selection_hash(again) == selection_hash(indices)


def test_known_bitmap():
    assert pack_indices(np.array([0, 3, 9]), 10) == bytes([0b00001001, 0b00000010])


@given(st.binary(max_size=4), st.integers(0, 30), st.integers(0, 30))
def test_only_one_bitmap_means_a_set(data, size, count):
    try:
        indices = unpack_indices(data, size, count)
    except CodecError:
        return
    assert indices.size == count
    assert pack_indices(indices, size) == data


@pytest.mark.parametrize(
    ("data", "count", "message"),
    [
        (b"\x01", 1, "takes 2 bytes, not 1"),
        (b"\x01\x00\x00", 1, "takes 2 bytes, not 3"),
        (b"", 0, "takes 2 bytes, not 0"),
        (b"\x01\x04", 2, "beyond the 10"),
        (b"\x01\x80", 2, "beyond the 10"),
        (b"\x01\x02", 1, "must choose 1 coordinates in this round, not 2"),
        (b"\x01\x02", 3, "must choose 3 coordinates in this round, not 2"),
    ],
)
def test_malformed_bitmaps_are_refused(data, count, message):
    with pytest.raises(CodecError, match=message):
        unpack_indices(data, 10, count)


def test_a_bitmap_of_ranked_coordinates_may_hold_fewer():
    assert unpack_indices(b"\x01\x02", 10, 3, exactly=False).tolist() == [0, 9]
    assert unpack_indices(b"\x01\x02", 10, 2, exactly=False).tolist() == [0, 9]
    with pytest.raises(CodecError, match="must choose 1 coordinates in this round, not 2"):
        unpack_indices(b"\x01\x02", 10, 1, exactly=False)


@pytest.mark.parametrize("indices", [[-1], [10]])
def test_pack_refuses_what_unpack_would(indices):
    with pytest.raises(CodecError, match="from 0 to 9"):
        pack_indices(np.array(indices), 10)


def test_hash_is_over_words_in_order():
    assert selection_hash(np.array([1, 258])) == keccak256(bytes([1, *[0] * 7, 2, 1, *[0] * 6]))
    assert selection_hash(np.array([1, 2], np.int32)) == selection_hash(np.array([1, 2], np.int64))


# ---------------------------------------------------------------------- scores
def test_scores_expect_growth_to_go_on():
    scores = Scores.fresh(4)
    assert scores.top(1, 4).tolist() == []
    scores = scores.after(2, np.array([0, 1]), np.array([8.0, -2.0]))  # two rounds gathered: 4 and 1 a round
    scores = scores.after(3, np.array([0, 2]), np.array([1.0, 4.5]))  # 1 a round; 3 rounds: 1.5 a round
    assert scores.growth.tolist() == [1.0, 1.0, 1.5, 0.0]
    assert scores.opened.tolist() == [3, 2, 3, 0]
    # By round 4: 1 * 1, 1 * 2, 1.5 * 1. Coordinate 3 was never opened: only the lot finds it.
    assert scores.top(4, 9).tolist() == [1, 2, 0]
    assert scores.top(4, 2).tolist() == [1, 2]
    # By round 5: 2, 3, 3: equal ones by number.
    assert scores.top(5, 3).tolist() == [1, 2, 0]
    assert scores.top(4, 0).tolist() == []


@given(st.lists(st.sampled_from([0.0, 1.0, -1.0, 2.5, 1e300]), min_size=1, max_size=40), st.integers(0, 50))
def test_top_is_the_sorted_list(means, count):
    scores = Scores.fresh(len(means)).after(1, np.arange(len(means)), np.array(means))
    order = sorted((i for i in range(len(means)) if means[i]), key=lambda i: (-abs(means[i]), i))
    assert scores.top(2, count).tolist() == order[:count]


def test_scores_are_not_changed_in_place():
    scores = Scores.fresh(2)
    scores.after(1, np.array([0]), np.array([1.0]))
    assert scores.growth.tolist() == [0, 0]
    assert scores.opened.tolist() == [0, 0]


def test_scores_follow_rounds_in_order():
    scores = Scores.fresh(2).after(3, np.array([0]), np.array([1.0]))
    for round_ in (2, 3):
        with pytest.raises(CodecError, match="in order"):
            scores.after(round_, np.array([1]), np.array([1.0]))
    with pytest.raises(CodecError, match="one number for every index"):
        scores.after(4, np.array([0, 1]), np.array([1.0]))
