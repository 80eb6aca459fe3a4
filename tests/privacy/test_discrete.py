"""The discrete Gaussian sampler against the exact distribution, and its doubtful draws against exact thresholds."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable

import gmpy2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flbc.errors import PrivacyConfigError
from flbc.privacy import discrete
from flbc.privacy.discrete import MIN_SIGMA, acceptance, discrete_gaussian, discrete_total_variation_bound
from flbc.privacy.noise import MAX_SIGMA, rounded_gaussian, total_variation_bound

# Statistical tests fail by chance with probability below 1e-6 each.
UNLIKELY = 1e-6
SIGMAS = st.one_of(st.floats(MIN_SIGMA, 100), st.floats(1, 45).map(lambda e: 2.0**e))


def pmf(k: NDArray[np.int64], sigma: float) -> NDArray[np.float64]:
    """The definition: exp(-k²/(2 sigma²)) over its sum."""
    every = np.arange(-math.ceil(40 * sigma), math.ceil(40 * sigma) + 1)
    return np.exp(-(k**2) / (2 * sigma**2)) / np.exp(-(every**2) / (2 * sigma**2)).sum()


def proposing(x: int, uniform: int, sigma: float) -> Callable[[int], bytes]:
    """A source of randomness that proposes x, offers this 256-bit uniform, and then proposes 0 and accepts it."""
    with gmpy2.context(precision=300):
        middle = gmpy2.erfc(gmpy2.mpfr(x) / (gmpy2.mpfr(sigma) * gmpy2.sqrt(gmpy2.mpfr(2)))) / 2
        word = int(middle * gmpy2.exp2(64))  # sign bit 0: the draw is positive
    queue = [word.to_bytes(8, "little"), (uniform >> 192).to_bytes(8, "little")]
    queue.append((uniform & ((1 << 192) - 1)).to_bytes(24, "big"))
    last = [((1 << 63) - 1).to_bytes(8, "little"), b"\xff" * 8]

    def source(size: int) -> bytes:
        if queue and len(queue[0]) == size:
            return queue.pop(0)
        queue.clear()  # the 192 bits were not asked for
        return last.pop(0)

    return source


@pytest.mark.parametrize("sigma", [2.0, 5.0, 50.0])
def test_chi_square_against_the_exact_pmf(sigma: float) -> None:
    from scipy.stats import chi2

    n = 1_000_000 if sigma == 2 else 400_000
    draws = discrete_gaussian(n, sigma)
    reach = math.ceil(5 * sigma)
    k = np.arange(-reach, reach + 1)
    mass = pmf(k, sigma)
    keep = mass * n >= 20
    expected = np.append(mass[keep], 1 - mass[keep].sum()) * n
    inside = np.array([np.count_nonzero(draws == i) for i in k[keep]])
    observed = np.append(inside, n - inside.sum())
    use = expected > 1
    statistic = float(np.sum((observed[use] - expected[use]) ** 2 / expected[use]))
    assert chi2.sf(statistic, use.sum() - 1) > UNLIKELY


def test_the_rounded_gaussian_would_fail_that_chi_square() -> None:
    """So the test above sees what rejection is for: 1/12 more variance, 2 % at sigma = 2."""
    n = 1_000_000
    off = 5.2 * 4 * math.sqrt(2 / n)
    assert rounded_gaussian(n, 2.0).var() > 4 + off
    assert abs(discrete_gaussian(n, 2.0).var() - 4) < off


@pytest.mark.parametrize("sigma", [2.0, 655_360.0, 2.0**35])
def test_moments_symmetry_and_tail(sigma: float) -> None:
    n = 100_000
    x = discrete_gaussian(n, sigma) / sigma
    assert abs(x.mean()) < 5.2 / math.sqrt(n)
    assert x.var() == pytest.approx(1, abs=5.2 * math.sqrt(2 / n))
    assert abs((x**3).mean()) < 5.2 * math.sqrt(15 / n)
    assert (x**4).mean() == pytest.approx(3.0, abs=5.2 * math.sqrt(96 / n))
    assert abs(np.count_nonzero(x > 0) - np.count_nonzero(x < 0)) < 5.2 * math.sqrt(n)
    mass = 1 - pmf(np.arange(-6, 7), 2.0).sum() if sigma == 2 else 2.6998e-3  # beyond three deviations
    assert abs(np.count_nonzero(np.abs(x) > 3) - mass * n) < 5.2 * math.sqrt(mass * n)


@settings(max_examples=150, deadline=None)
@given(SIGMAS, st.floats(0, 19), st.floats(0, 19))
def test_acceptance_is_a_probability_that_falls_and_is_bounded_as_proven(sigma: float, a: float, b: float) -> None:
    near, far = sorted((round(a * sigma), round(b * sigma)))
    with gmpy2.context(precision=400):
        top, bottom = acceptance(near, sigma), acceptance(far, sigma)
        assert 0 < bottom <= top <= 1
        assert bottom == acceptance(-far, sigma)
        assert acceptance(0, sigma) == 1
        half = gmpy2.mpfr(far) / (4 * gmpy2.mpfr(sigma) ** 2)
        assert 1 - bottom <= gmpy2.sinh(half) ** 2 * 2 / 3  # what the quick decision stands on
        # And the bound is no worse than it has to be: the long way stays rare.
        if far > 0 and half < 0.05:
            assert 1 - bottom >= gmpy2.sinh(half) ** 2 * 2 / 3 * 0.98


@pytest.mark.parametrize("sigma", [2.0, 3.3, 40.0])
def test_acceptance_times_proposal_is_the_definition(sigma: float) -> None:
    """a(x) q(x) in float64, from the normal CDF, is proportional to exp(-x²/(2 sigma²))."""
    from scipy.special import ndtr

    for x in range(0, int(4 * sigma), max(1, int(sigma / 4))):
        q = ndtr((0.5 - x) / sigma) - ndtr((-0.5 - x) / sigma)
        q0 = ndtr(0.5 / sigma) - ndtr(-0.5 / sigma)
        assert float(acceptance(x, sigma)) * q / q0 == pytest.approx(math.exp(-(x**2) / (2 * sigma**2)), rel=1e-11)


@pytest.mark.parametrize("sigma", [2.0, 7.5, 1000.0, 2.0**20])
@pytest.mark.parametrize("deviations", [1, 3, 6])
def test_doubtful_draws_follow_the_exact_threshold(sigma: float, deviations: float) -> None:
    x = round(deviations * sigma)
    with gmpy2.context(precision=700):
        threshold = int(gmpy2.floor((1 - acceptance(x, sigma)) * gmpy2.exp2(256)))
    assert discrete_gaussian(1, sigma, proposing(x, threshold - 2, sigma))[0] == 0
    assert discrete_gaussian(1, sigma, proposing(x, threshold + 2, sigma))[0] == x
    # Far from the threshold the first 64 bits are enough, and no more are drawn.
    assert discrete_gaussian(1, sigma, proposing(x, (1 << 256) - 1, sigma))[0] == x
    # The smallest uniform rejects every proposal but 0, which is always accepted.
    assert discrete_gaussian(1, sigma, proposing(x, 0, sigma))[0] == 0
    assert discrete._accepted(np.array([0, x, -x]), sigma, bytes).tolist() == [True, False, False]


def test_the_quick_decision_agrees_with_the_exact_one() -> None:
    for sigma in (2.0, 2.7, 9.0, 1e5):
        x = rounded_gaussian(3000, sigma)
        asked: list[bytes] = []

        def source(size: int, asked: list[bytes] = asked) -> bytes:
            asked.append(os.urandom(size))
            return asked[-1]

        accepted = discrete._accepted(x, sigma, source)
        words = np.frombuffer(asked[0], dtype="<u8")
        for value, word, taken in zip(x[:400], words[:400], accepted[:400], strict=True):
            threshold = discrete._threshold(abs(int(value)), sigma) >> 192
            if int(word) != threshold:
                assert taken == (int(word) > threshold)
        long_way = len(asked[1]) / 24 if len(asked) > 1 else 0
        assert long_way <= 3000 / (16 * sigma**2) + 60


def test_proposals_are_replaced_not_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discrete, "_CHUNK", 100)
    x = discrete_gaussian(1050, 1e6)
    assert x.dtype == np.int64
    assert x.shape == (1050,)
    assert len(np.unique(x)) > 1030
    assert not np.array_equal(x, discrete_gaussian(1050, 1e6))
    assert discrete_gaussian(0, 2.0).shape == (0,)
    assert discrete_gaussian(20_000, 2.0).shape == (20_000,)  # about 200 rejections


def test_a_million_draws_take_seconds() -> None:
    for sigma in (5.0, 655_360.0):
        start = time.process_time()
        discrete_gaussian(1_000_000, sigma)
        assert time.process_time() - start < 5


def test_total_variation_bound() -> None:
    assert total_variation_bound(2.0) < discrete_total_variation_bound(2.0) < 2.0**-247
    assert discrete_total_variation_bound(2.0) < discrete_total_variation_bound(MAX_SIGMA) < 2.0**-203


@pytest.mark.parametrize("sigma", [0.0, 1.99, -3.0, math.nan, math.inf, MAX_SIGMA * 1.001, True, "5"])
def test_bad_sigma(sigma: float) -> None:
    with pytest.raises(PrivacyConfigError, match="sigma"):
        discrete_gaussian(1, sigma)
    with pytest.raises(PrivacyConfigError, match="sigma"):
        discrete_total_variation_bound(sigma)


def test_bad_count_and_short_randomness() -> None:
    for count in (-1, True, 2.0):
        with pytest.raises(PrivacyConfigError, match="count"):
            discrete_gaussian(count, 2.0)  # type: ignore[arg-type]
    with pytest.raises(PrivacyConfigError, match="CSPRNG"):
        discrete_gaussian(4, 2.0, lambda size: b"short")


@pytest.mark.parametrize("sigma", [2.0, 30.0])
def test_same_distribution_as_opendp(sigma: float) -> None:
    """OpenDP samples the discrete Gaussian exactly (Canonne, Kamath & Steinke's algorithm)."""
    dp = pytest.importorskip("opendp.prelude")
    from scipy.stats import chi2

    dp.enable_features("contrib")
    n = 20_000
    release = dp.m.make_gaussian(dp.vector_domain(dp.atom_domain(T=int), size=n), dp.l2_distance(T=float), scale=sigma)
    theirs, ours = np.array(release([0] * n)), discrete_gaussian(n, sigma)
    edges = np.arange(-math.ceil(3 * sigma), math.ceil(3 * sigma) + 2) - 0.5
    edges = edges[:: max(1, round(sigma / 4))]
    a, b = np.histogram(theirs, edges)[0], np.histogram(ours, edges)[0]
    use = a + b >= 20
    assert chi2.sf(float(np.sum((a[use] - b[use]) ** 2 / (a[use] + b[use]))), int(use.sum())) > UNLIKELY
