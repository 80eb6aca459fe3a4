from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flbc.codec.ranges import BEYOND, MARKS, largest_of, mark


@given(st.lists(st.floats(-1, 1), min_size=0, max_size=5))
def test_a_mark_is_one_coordinate_and_bounds_the_largest_value(values: list[float]) -> None:
    marks = mark(np.array(values))
    assert marks.sum() == 1
    assert marks.max() == 1
    bound, largest = largest_of(marks), max(map(abs, values), default=0.0)
    assert largest <= bound
    assert bound == 2.0 ** (2 - MARKS) or bound < 2 * largest


@given(st.lists(st.lists(st.floats(-1, 1), min_size=1, max_size=3), min_size=1, max_size=4))
def test_summed_marks_tell_the_largest_of_all_clients(clients: list[list[float]]) -> None:
    each = [mark(np.array(values)) for values in clients]
    assert largest_of(sum(each, np.zeros(MARKS, np.int64))) == max(map(largest_of, each))


@pytest.mark.parametrize("values", [[1.0001], [-3.0, 0.1], [np.inf]])
def test_beyond_the_range(values: list[float]) -> None:
    marks = mark(np.array(values))
    assert marks[0] == 1
    assert largest_of(marks) == BEYOND


def test_nobody_said_anything() -> None:
    assert largest_of(np.zeros(MARKS, np.int64)) == 1.0
