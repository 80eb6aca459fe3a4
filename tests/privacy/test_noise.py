"""The sampler against the exact distribution, and its doubtful draws against the exact CDF."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable

import gmpy2
import numpy as np
import pytest

from flbc.errors import PrivacyConfigError
from flbc.privacy import noise
from flbc.privacy.noise import MAX_SIGMA, rounded_gaussian, total_variation_bound

# Statistical tests fail by chance with probability below 1e-6 each.
UNLIKELY = 1e-6


def exact_threshold(edge: float, sigma: float) -> int:
    """Phi(edge / sigma) as a 256-bit integer, floored, at twice the sampler's precision."""
    with gmpy2.context(precision=640):
        return int(gmpy2.floor(gmpy2.erfc(-gmpy2.mpfr(edge) / sigma / gmpy2.sqrt(gmpy2.mpfr(2))) / 2 * gmpy2.exp2(256)))


def replay(uniform: int, negative: bool = True) -> Callable[[int], bytes]:
    """A source of randomness whose one half-tail uniform has these 255 bits."""
    word = (uniform >> 192) | (negative << 63)
    queue = [word.to_bytes(8, "little"), (uniform & ((1 << 192) - 1)).to_bytes(24, "big")]
    return lambda size: queue.pop(0)


@pytest.mark.parametrize("sigma", [0.3, 2.0, 50.0])
def test_chi_square_against_the_exact_pmf(sigma: float) -> None:
    from scipy.special import ndtr
    from scipy.stats import chi2

    n = 400_000
    draws = rounded_gaussian(n, sigma)
    reach = math.ceil(3.5 * sigma)
    k = np.arange(-reach, reach + 1)
    mass = ndtr((k + 0.5) / sigma) - ndtr((k - 0.5) / sigma)
    keep = mass * n >= 20
    expected = np.append(mass[keep], 1 - mass[keep].sum()) * n
    inside = np.array([np.count_nonzero(draws == i) for i in k[keep]])
    observed = np.append(inside, n - inside.sum())
    use = expected > 1
    statistic = float(np.sum((observed[use] - expected[use]) ** 2 / expected[use]))
    assert chi2.sf(statistic, use.sum() - 1) > UNLIKELY


@pytest.mark.parametrize("sigma", [5.0, 655_360.0, 2.0**35])
def test_moments_symmetry_and_tail(sigma: float) -> None:
    n = 100_000
    x = rounded_gaussian(n, sigma) / sigma
    assert abs(x.mean()) < 5.2 / math.sqrt(n)
    assert x.var() == pytest.approx(1 + 1 / (12 * sigma**2), abs=5.2 * math.sqrt(2 / n))
    assert abs((x**3).mean()) < 5.2 * math.sqrt(15 / n)
    assert (x**4).mean() == pytest.approx(3.0, abs=5.2 * math.sqrt(96 / n) + 1 / sigma)
    assert abs(np.count_nonzero(x > 0) - np.count_nonzero(x < 0)) < 5.2 * math.sqrt(n)
    beyond = np.count_nonzero(np.abs(x) > 3)
    assert abs(beyond - 270) < 5.2 * math.sqrt(270) + 270 / sigma * 15


@pytest.mark.parametrize("sigma", [0.3, 2.0, 50.0, 12_345.678, 2.0**20, 2.0**40, MAX_SIGMA])
@pytest.mark.parametrize("deviations", [-0.4, -1.7, -5.5])
def test_draws_next_to_an_edge_follow_the_exact_cdf(sigma: float, deviations: float) -> None:
    k = round(deviations * sigma)
    threshold = exact_threshold(k + 0.5, sigma) if k < 0 else exact_threshold(-0.5, sigma)
    upper = k + 1 if k < 0 else 0
    assert rounded_gaussian(1, sigma, replay(threshold - 2))[0] == upper - 1
    assert rounded_gaussian(1, sigma, replay(threshold + 2))[0] == upper
    # The other half of the line is the mirror image.
    assert rounded_gaussian(1, sigma, replay(threshold - 2, negative=False))[0] == 1 - upper
    # A word whose 63 bits contain the edge cannot be decided without the other 192.
    _, doubtful = noise._fast(np.array([threshold >> 192], dtype=np.uint64), sigma)
    assert doubtful.all()


def test_fast_path_is_used_and_agrees_with_the_exact_one() -> None:
    for sigma in (0.3, 1.0, 7.5, 400.0, 655_360.0, 2.0**30):
        words = np.frombuffer(os.urandom(8 * 300), dtype="<u8") >> np.uint64(1)
        fast, doubtful = noise._fast(words, sigma)
        assert doubtful.mean() < 0.05
        for word, k, unsure in zip(words, fast, doubtful, strict=True):
            if not unsure:
                # Whatever the undrawn bits are.
                assert noise._exact(int(word), 0, sigma) == k
                assert noise._exact(int(word), (1 << 192) - 1, sigma) == k


def test_far_tail_is_exact_and_ends() -> None:
    assert rounded_gaussian(1, 1.0, replay(0))[0] == -19  # Phi(-18.6) is 2**-257
    assert rounded_gaussian(1, 1000.0, replay(1 << 190))[0] == noise._exact(0, 1 << 190, 1000.0)
    threshold = exact_threshold(-11.5, 1.0)  # 2**-99: all of the first 63 bits are zero
    assert rounded_gaussian(1, 1.0, replay(threshold - 2))[0] == -12
    assert rounded_gaussian(1, 1.0, replay(threshold + 2))[0] == -11


def test_inverse_cdf_is_as_accurate_as_the_proof_assumes() -> None:
    from scipy.special import ndtri

    rng = np.random.default_rng(7)
    points = np.concatenate(
        [rng.uniform(0, 0.5, 1500), 2.0 ** -rng.uniform(1, 257, 1500), 0.5 - 2.0 ** -rng.uniform(2, 52, 500)]
    )
    with gmpy2.context(precision=320):
        root2, worst = gmpy2.sqrt(gmpy2.mpfr(2)), 0.0
        for u in points:
            z = gmpy2.mpfr(float(ndtri(u)))
            density = gmpy2.exp(-z * z / 2) / gmpy2.sqrt(2 * gmpy2.const_pi())
            worst = max(worst, abs(float((gmpy2.erfc(-z / root2) / 2 - gmpy2.mpfr(float(u))) / density / z)))
    assert worst < noise._NDTRI_ERROR / 4


def test_a_broken_inverse_cdf_stops_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    import scipy.special

    exact = scipy.special.ndtri
    monkeypatch.setattr(scipy.special, "ndtri", lambda u: exact(u) * (1 + 1e-13))
    noise._check_ndtri.cache_clear()
    try:
        with pytest.raises(PrivacyConfigError, match="no noise is drawn"):
            rounded_gaussian(1, 1.0)
    finally:
        noise._check_ndtri.cache_clear()


def test_chunks_shapes_and_freshness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "_CHUNK", 100)
    x = rounded_gaussian(1050, 1e6)
    assert x.dtype == np.int64
    assert x.shape == (1050,)
    assert len(np.unique(x)) > 1030
    assert not np.array_equal(x, rounded_gaussian(1050, 1e6))
    assert rounded_gaussian(0, 1.0).shape == (0,)


def test_a_million_draws_take_seconds() -> None:
    start = time.process_time()
    rounded_gaussian(1_000_000, 655_360.0)
    assert time.process_time() - start < 5


def test_total_variation_bound_is_tiny_and_grows_with_sigma() -> None:
    assert 0 < total_variation_bound(1.0) < total_variation_bound(MAX_SIGMA) < 2.0**-200


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf, MAX_SIGMA * 1.001, True, "1"])
def test_bad_sigma(sigma: float) -> None:
    with pytest.raises(PrivacyConfigError, match="sigma"):
        rounded_gaussian(1, sigma)
    with pytest.raises(PrivacyConfigError, match="sigma"):
        total_variation_bound(sigma)


def test_bad_count_and_short_randomness() -> None:
    with pytest.raises(PrivacyConfigError, match="count"):
        rounded_gaussian(-1, 1.0)
    with pytest.raises(PrivacyConfigError, match="CSPRNG"):
        rounded_gaussian(4, 1.0, lambda size: b"short")


@pytest.mark.parametrize("sigma", [2.0, 30.0])
def test_same_distribution_as_opendp(sigma: float) -> None:
    """OpenDP samples the discrete Gaussian exactly; with 1/12 less variance the rounded one agrees at these sigmas."""
    dp = pytest.importorskip("opendp.prelude")
    from scipy.stats import chi2

    dp.enable_features("contrib")
    n = 20_000
    release = dp.m.make_gaussian(dp.vector_domain(dp.atom_domain(T=int), size=n), dp.l2_distance(T=float), scale=sigma)
    theirs, ours = np.array(release([0] * n)), rounded_gaussian(n, math.sqrt(sigma**2 - 1 / 12))
    edges = np.arange(-math.ceil(3 * sigma), math.ceil(3 * sigma) + 2) - 0.5
    edges = edges[:: max(1, round(sigma / 4))]
    a, b = np.histogram(theirs, edges)[0], np.histogram(ours, edges)[0]
    use = a + b >= 20
    assert chi2.sf(float(np.sum((a[use] - b[use]) ** 2 / (a[use] + b[use]))), int(use.sum())) > UNLIKELY
