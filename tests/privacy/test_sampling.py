"""Poisson samples: the distribution, the edge of the comparison, and that the bias is on the safe side."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flbc.errors import PrivacyConfigError
from flbc.privacy import poisson_sample, sampling

RATES = st.floats(1e-6, 1, exclude_max=True)


def replay(*words: int) -> Callable[[int], bytes]:
    """Return a source of randomness that says these 64-bit words."""
    data = b"".join(word.to_bytes(8, "little") for word in words)

    def random_bytes(size: int) -> bytes:
        assert size == len(data)
        return data

    return random_bytes


def test_everybody_at_a_rate_of_one() -> None:
    drawn = poisson_sample(5, 1.0, replay())  # and no randomness is used
    assert drawn.dtype == np.int64
    assert drawn.tolist() == [0, 1, 2, 3, 4]
    assert poisson_sample(5, 1, replay()).tolist() == [0, 1, 2, 3, 4]


def test_an_empty_sample_and_no_examples() -> None:
    assert poisson_sample(3, 0.5, replay(2**63, 2**64 - 1, 2**63 + 1)).shape == (0,)
    assert poisson_sample(0, 0.5).shape == (0,)
    assert poisson_sample(0, 0.5).dtype == np.int64


@given(RATES)
def test_the_comparison_is_with_the_exact_integer(rate: float) -> None:
    edge = math.floor(Fraction(rate) * 2**64)
    assert 0 <= Fraction(rate) - Fraction(edge, 2**64) < Fraction(1, 2**64), "the real rate is never above the stated"
    assert poisson_sample(3, rate, replay(edge - 1, edge, 0)).tolist() == [0, 2]


@pytest.mark.parametrize("rate", [0.003, 0.05, 0.5, 0.97])
def test_every_example_is_drawn_at_the_rate_and_alone(rate: float) -> None:
    """Counts within 5.2 deviations (2e-7 each): of all, of every example, and of neighbours drawn together."""
    rounds, count = 4000, 50
    drawn = np.zeros((rounds, count), bool)
    for row in drawn:
        sample = poisson_sample(count, rate)
        assert (np.diff(sample) > 0).all()
        row[sample] = True

    def close(found: float, trials: int, p: float) -> bool:
        return abs(found - trials * p) < 5.2 * math.sqrt(trials * p * (1 - p)) + 4

    assert close(drawn.sum(), drawn.size, rate)
    assert all(close(found, rounds, rate) for found in drawn.sum(axis=0))
    together = (drawn[:, 1:] & drawn[:, :-1]).sum()
    assert close(together, rounds * (count - 1), rate**2)


def test_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_CHUNK", 100)
    drawn = poisson_sample(1050, 0.9)
    assert 850 < len(drawn) < 1010
    assert (np.diff(drawn) > 0).all()
    assert drawn[-1] > 1000


@pytest.mark.parametrize("rate", [0, 0.0, -0.1, 1.0001, 2, math.nan, math.inf, True, "0.5", None, 1e-7])
def test_bad_rates(rate: float) -> None:
    with pytest.raises(PrivacyConfigError, match=r"sampling_rate is .*pass"):
        poisson_sample(10, rate)


def test_bad_count_and_short_randomness() -> None:
    for count in (-1, True, 2.0):
        with pytest.raises(PrivacyConfigError, match="count"):
            poisson_sample(count, 0.5)  # type: ignore[arg-type]
    with pytest.raises(PrivacyConfigError, match="CSPRNG"):
        poisson_sample(4, 0.5, lambda size: b"short")
