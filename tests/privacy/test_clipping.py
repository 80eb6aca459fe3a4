"""Clipping a whole update."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flbc.errors import NonFiniteError, PrivacyConfigError
from flbc.privacy import clip_update


@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=20), st.floats(1e-6, 1e6))
def test_norm_is_never_above_the_clip(values: list[float], clip: float) -> None:
    clipped, factor = clip_update({"a": np.array(values[:3]), "b": np.array(values[3:])}, clip)
    exact = sum(Fraction(float(v)) ** 2 for array in clipped.values() for v in array)  # no float rounding here
    assert exact <= Fraction(clip) ** 2
    assert 0 <= factor <= 1


def test_short_updates_and_zeros_are_left_alone() -> None:
    update = {"a": np.array([[0.3, 0.4]], dtype=np.float32), "empty": np.zeros((0, 2)), "n": np.array(0)}
    clipped, factor = clip_update(update, 1.0)
    assert factor == 1.0
    assert clipped["a"].dtype == np.float64
    assert clipped["n"].shape == ()
    np.testing.assert_array_equal(clipped["a"], update["a"])
    assert clip_update({}, 1.0) == ({}, 1.0)


def test_scales_over_all_arrays_and_keeps_the_input() -> None:
    update = {"a": np.full((2, 2), 3.0), "b": np.full(4, 4.0)}
    clipped, factor = clip_update(update, 1.0)
    assert factor == pytest.approx(0.1)
    assert clipped["a"] == pytest.approx(np.full((2, 2), 0.3))
    assert update["a"][0, 0] == 3.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_is_refused_by_name_and_index(bad: float) -> None:
    array = np.zeros((2, 3))
    array[1, 2] = bad
    with pytest.raises(NonFiniteError, match=r"'layer\.bias'.*\(1, 2\)"):
        clip_update({"ok": np.zeros(2), "layer.bias": array}, 1.0)
    with pytest.raises(PrivacyConfigError, match="clip_norm"):
        clip_update({}, bad)
