"""Why public weights are applied before rounding: an exact sum of integers with known factors is a knapsack."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest

from flbc.codec import Codec, Layout, VectorPlan
from flbc.codec.ranges import MARKS

SIZES = (242, 235, 160, 98)  # four hospitals' declared numbers of examples
DIMENSION = 40
LAYOUT = Layout.of({"w": np.zeros(DIMENSION)})


def totals(updates: Sequence[Any], initial_range: float, weighed_by_server: bool) -> tuple[Any, Any]:
    """The opened sum, with the factors y of ESB-FL on rounded integers or as flbc does; and what went into it."""
    largest = 1.0 if weighed_by_server else 256.0
    plan = VectorPlan(LAYOUT, Codec(initial_range=initial_range, max_examples=largest, max_metrics=0))
    singles = []
    for update, size in zip(updates, SIZES, strict=True):
        weight = 1.0 if weighed_by_server else float(size)
        singles.append(plan.encode({"w": update}, weight, {}, plan.first_frame()).values)
    factors = SIZES if weighed_by_server else (1,) * len(SIZES)
    return np.array(factors) @ np.array(singles), np.array(singles)


def solve(total: int, values: Sequence[int]) -> tuple[int, ...] | None:
    """Every client's own integer behind a coordinate, if only one combination of ``values`` makes this total."""
    found = [x for x in product(values, repeat=len(SIZES)) if np.dot(x, SIZES) == total]
    return found[0] if len(found) == 1 else None


@pytest.fixture
def updates() -> list[Any]:
    rng = np.random.default_rng(7)
    return [rng.normal(0, 0.05, DIMENSION) * (4.0 if i == 2 else 1.0) for i in range(4)]


def test_a_server_with_a_wide_range_reads_every_client_behind_public_factors(updates: list[Any]) -> None:
    """It sets the public range so wide that every update is a number from -2 to 2, and solves each coordinate."""
    step = max(np.abs(u).max() for u in updates) / 2
    wide = step * (2**15 - 1)
    (weak, singles), (ours, _) = (totals(updates, wide, by_server) for by_server in (True, False))
    read = {j: x for j in range(DIMENSION) if (x := solve(int(weak[j]), range(-2, 3))) is not None}
    assert len(read) > 0.8 * DIMENSION
    assert all(tuple(singles[:, j]) == x for j, x in read.items()), "each client's own integer"
    # Ours: the integers are those of weighted values and are simply added; no factor tells whose they are.
    assert np.abs(ours[:DIMENSION]).max() <= 2 * len(SIZES)
    assert not any(solve(int(value), range(-2, 3)) for value in ours[:DIMENSION] if value)


def test_marks_say_whose_largest_coordinate_it_is_behind_public_factors(updates: list[Any]) -> None:
    """Nobody has to be dishonest: the one-hot marks that set ranges are subset sums of the sizes."""
    place = slice(DIMENSION, DIMENSION + MARKS)
    weak, ours = (totals(updates, 1.0, by_server)[0][place] for by_server in (True, False))
    owners = [solve(int(value), (0, 1)) for value in weak if value]
    assert all(owners)
    assert sum(np.array(o) for o in owners).tolist() == [1, 1, 1, 1], "every client's mark is found"
    assert ours.sum() == len(SIZES)
    assert not any(solve(int(value), (0, 1)) for value in ours if value), "ours are counts"
