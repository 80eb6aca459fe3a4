"""OpenDP's sampler as an option, and as the oracle of the default one: chi-square, tails, and a test of the test."""

from __future__ import annotations

import math
import sys
from functools import lru_cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom, chi2, ncx2

from flbc.errors import DependencyError, PrivacyConfigError
from flbc.privacy import Privacy, opendp, plan
from flbc.privacy.noise import MAX_SIGMA, rounded_gaussian
from flbc.privacy.opendp import opendp_gaussian

pytest.importorskip("opendp")

UNLIKELY = 1e-8
"""Both tests reject below this probability: an honest sampler fails one run in fifty million."""
SIGMA = 40.0
DRAWS = 150_000
CELLS = 30


@lru_cache(maxsize=1)
def oracle() -> NDArray[np.int64]:
    return opendp_gaussian(DRAWS, SIGMA)


def counts(draws: NDArray[np.int64]) -> NDArray[np.int64]:
    """Counts in cells of 8 integers (a fifth of sigma), and of what is beyond three deviations, on either side."""
    edges = np.concatenate([[-(2**62)], np.arange(-CELLS // 2, CELLS // 2 + 1) * 8 - 0.5, [2**62]])
    return np.histogram(draws, edges)[0]


def chi_square(draws: NDArray[np.int64]) -> float:
    """P-value of the hypothesis that these are draws from the oracle's distribution."""
    a, b = counts(draws), counts(oracle())
    return float(chi2.sf(float(np.sum((a - b) ** 2 / (a + b))), CELLS + 1))


def tail(draws: NDArray[np.int64], deviations: float = 2.0) -> float:
    """P-value (two-sided, Fisher's conditional test by its binomial limit) of as many draws in the tails."""
    a, b = (int(np.count_nonzero(np.abs(x) > deviations * SIGMA)) for x in (draws, oracle()))
    return float(2 * min(binom.cdf(a, a + b, 0.5), binom.sf(a - 1, a + b, 0.5)))


def test_the_default_sampler_draws_what_opendp_draws() -> None:
    """Rounded and discrete Gaussian of 40 integers differ by less than 2**-200: the tests cannot see that."""
    draws = rounded_gaussian(DRAWS, SIGMA)
    assert chi_square(draws) > UNLIKELY
    assert tail(draws) > UNLIKELY


@pytest.mark.parametrize("factor", [0.95, 1.05])
def test_a_deviation_that_is_five_per_cent_off_is_found(factor: float) -> None:
    wrong = rounded_gaussian(DRAWS, SIGMA * factor)
    assert chi_square(wrong) < UNLIKELY
    assert tail(wrong) < UNLIKELY


@pytest.mark.parametrize("factor", [0.95, 1.05])
def test_and_surely_so(factor: float) -> None:
    """The power of both tests, computed: a wrong deviation passes with a probability below one in a million."""
    from scipy.special import ndtr

    edges = np.concatenate([[-np.inf], np.arange(-CELLS // 2, CELLS // 2 + 1) * 8 - 0.5, [np.inf]])
    p, q = (DRAWS * np.diff(ndtr(edges / s)) for s in (SIGMA, SIGMA * factor))
    threshold = chi2.isf(UNLIKELY, CELLS + 1)
    assert ncx2.cdf(threshold, CELLS + 1, np.sum((p - q) ** 2 / (p + q))) < 1e-6
    beyond = [2 * DRAWS * float(ndtr(-2.0 / f)) for f in (1.0, factor)]
    reject = 5.8 * math.sqrt(sum(beyond))  # 5.73 deviations have probability 1e-8
    assert abs(beyond[1] - beyond[0]) - reject > 4.9 * math.sqrt(sum(beyond))


def test_moments_of_opendp_s_draws() -> None:
    draws = oracle() / SIGMA
    assert abs(draws.mean()) < 5.2 / math.sqrt(DRAWS)
    assert draws.var() == pytest.approx(1.0, abs=5.2 * math.sqrt(2 / DRAWS))
    assert opendp_gaussian(0, 5.0).shape == (0,)


def test_chunks_and_freshness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opendp, "_CHUNK", 10)
    draws = opendp_gaussian(25, 1e9)
    assert draws.dtype == np.int64
    assert len(np.unique(draws)) == 25
    assert not np.array_equal(draws, opendp_gaussian(25, 1e9))


def test_the_largest_deviation() -> None:
    draws = opendp_gaussian(50, MAX_SIGMA)
    assert 2.0**43 < draws.std() < 2.0**47


@pytest.mark.parametrize("sigma", [0.0, 4.99, -9.0, math.nan, math.inf, MAX_SIGMA * 1.001, True, "9"])
def test_bad_sigma(sigma: float) -> None:
    with pytest.raises(PrivacyConfigError, match=r"sigma .*sampler=\"opendp\""):
        opendp_gaussian(1, sigma)


@pytest.mark.parametrize("count", [-1, True, 2.0])
def test_bad_count(count: int) -> None:
    with pytest.raises(PrivacyConfigError, match="count"):
        opendp_gaussian(count, 9.0)


@pytest.mark.parametrize("where", ["opener", "local", "clients"])
def test_a_mechanism_that_draws_with_opendp(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    privacy = {"epsilon": 1.0, "unit": "example", "where": where}
    own = plan(Privacy(**privacy), dimension=30, rounds=5, max_examples=20, min_survivors=4)
    theirs = plan(Privacy(**privacy, sampler="opendp"), dimension=30, rounds=5, max_examples=20, min_survivors=4)
    assert theirs.epsilon_after(5) <= 1.0
    if where != "clients":  # sqrt(sigma² - 9) has to be what sigma is for the rounded Gaussian
        assert math.hypot(own.sigma, 3.0) == pytest.approx(theirs.sigma, rel=1e-9)
        assert theirs.sigma > own.sigma
    asked = []
    monkeypatch.setattr("flbc.privacy.mechanism.opendp_gaussian", lambda count, sigma: asked.append((count, sigma)))
    theirs.draw(30)
    assert asked == [(30, theirs.local_sigma)]


def test_noise_too_narrow_for_the_accounting_is_refused() -> None:
    with pytest.raises(PrivacyConfigError, match="deviation 2 integers, and the accounting needs at least 5"):
        plan(
            Privacy(epsilon=900.0, unit="client", sampler="opendp", noise_multiplier=2 / 100.5),
            dimension=1, rounds=1, client_step=0.01,
        )  # fmt: skip


def test_without_opendp_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    opendp._opendp.cache_clear()
    monkeypatch.setitem(sys.modules, "opendp.prelude", None)
    with pytest.raises(DependencyError, match=r'pip install "flbc\[opendp\]", or leave sampler out'):
        opendp_gaussian(1, 9.0)
