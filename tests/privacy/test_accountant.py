"""The accountant against known answers, numeric integration, Opacus and its own algebra."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flbc.errors import PrivacyConfigError
from flbc.privacy.accountant import affordable_rounds, gaussian_delta, gaussian_epsilon, solve_noise_multiplier

EPSILONS = st.floats(0.01, 20)
MULTIPLIERS = st.floats(0.2, 200)
DELTAS = st.floats(1e-12, 1e-2)


def integrated_delta(epsilon: float, multiplier: float) -> float:
    """Hockey-stick divergence of N(1, z²) from N(0, z²), by quadrature of its definition."""
    from scipy.integrate import quad

    def excess(x: float) -> float:
        p = math.exp(-((x - 1) ** 2) / (2 * multiplier**2))
        q = math.exp(-(x**2) / (2 * multiplier**2) + epsilon)
        return max(p - q, 0.0) / (multiplier * math.sqrt(2 * math.pi))

    # Above this point the privacy loss exceeds epsilon.
    edge = epsilon * multiplier**2 + 0.5
    return quad(excess, edge, max(edge, 1) + 40 * multiplier, epsabs=0, epsrel=1e-11, limit=500)[0]


@pytest.mark.parametrize(
    ("epsilon", "multiplier"), [(0.5, 1.0), (1.0, 1.0), (1.0, 3.730632), (3.0, 0.7), (0.1, 10.0), (8.0, 0.4)]
)
def test_definition_by_numeric_integration(epsilon: float, multiplier: float) -> None:
    assert gaussian_delta(epsilon, multiplier) == pytest.approx(integrated_delta(epsilon, multiplier), rel=1e-8)


def test_known_answers() -> None:
    # delta(0) is the total variation distance 2 Phi(1/(2z)) - 1, for z = 1: erf(1/(2 sqrt 2)) = 0.38292492254802624
    # (NIST normal table: 0.3829).
    assert gaussian_delta(0.0, 1.0) == pytest.approx(0.38292492254802624, rel=1e-14)
    # Dong, Roth & Su 2022, Corollary 2.13: 1-GDP is (1, Phi(-1/2) - e Phi(-3/2))-DP; Phi from the NIST normal table.
    assert gaussian_delta(1.0, 1.0) == pytest.approx(0.3085375387 - math.e * 0.0668072013, rel=1e-8)
    # Balle & Wang 2018, Figure 1 and the code published with it: sigma for (1, 1e-5) at sensitivity 1.
    assert solve_noise_multiplier(1.0, 1e-5, 1) == pytest.approx(3.730632, rel=1e-6)


def test_composition_is_one_gaussian() -> None:
    assert gaussian_delta(1.0, 12.0, 9) == pytest.approx(gaussian_delta(1.0, 4.0), rel=1e-14)


@pytest.mark.parametrize(("multiplier", "rounds"), [(1.0, 1), (4.0, 30), (20.0, 30), (0.8, 3)])
def test_opacus_renyi_bound_is_never_below(multiplier: float, rounds: int) -> None:
    analysis = pytest.importorskip("opacus.accountants.analysis.rdp")
    orders = [1 + x / 10.0 for x in range(1, 400)] + list(range(41, 257))
    rdp = analysis.compute_rdp(q=1.0, noise_multiplier=multiplier, steps=rounds, orders=orders)
    renyi, _ = analysis.get_privacy_spent(orders=orders, rdp=rdp, delta=1e-5)
    exact = gaussian_epsilon(1e-5, multiplier, rounds)
    assert exact <= renyi <= 1.25 * exact


@settings(max_examples=60, deadline=None)
@given(EPSILONS, MULTIPLIERS, st.integers(1, 1000))
def test_delta_falls_with_epsilon_and_noise_and_rises_with_rounds(epsilon: float, z: float, rounds: int) -> None:
    delta = gaussian_delta(epsilon, z, rounds)
    assert gaussian_delta(epsilon * 1.01, z, rounds) <= delta
    assert gaussian_delta(epsilon, z * 1.01, rounds) <= delta
    assert gaussian_delta(epsilon, z, rounds + 1) >= delta
    assert gaussian_delta(epsilon, z, rounds, slack=1e-30) >= delta


@settings(max_examples=40, deadline=None)
@given(EPSILONS, DELTAS, st.integers(1, 500))
def test_solutions_are_safe_and_tight(epsilon: float, delta: float, rounds: int) -> None:
    z = solve_noise_multiplier(epsilon, delta, rounds)
    assert gaussian_delta(epsilon, z, rounds) <= delta
    assert gaussian_delta(epsilon, z * (1 - 1e-9), rounds) > delta
    spent = gaussian_epsilon(delta, z, rounds)
    assert spent <= epsilon
    assert spent == pytest.approx(epsilon, rel=1e-6)
    assert affordable_rounds(epsilon, delta, z) == rounds


@settings(max_examples=40, deadline=None)
@given(DELTAS, MULTIPLIERS)
def test_epsilon_is_on_the_safe_side(delta: float, z: float) -> None:
    epsilon = gaussian_epsilon(delta, z)
    if epsilon > 0:
        assert gaussian_delta(math.nextafter(epsilon, 100), z) <= delta * (1 + 1e-12)
        assert gaussian_delta(epsilon * (1 - 1e-9), z) > delta


def test_extremes_stay_finite_and_ordered() -> None:
    assert gaussian_epsilon(1e-300, 1e-3) == pytest.approx(0.5e6 + 1e3 * 37, rel=1e-2)
    assert gaussian_epsilon(1e-5, 1e6) == 0.0
    assert 0 < gaussian_delta(700.0, 1.0) < 1e-300
    assert gaussian_delta(1e9, 1e-3) < 1e-300
    assert affordable_rounds(1.0, 1e-5, 0.1) == 0
    assert affordable_rounds(1.0, 1e-5, 3.7306321) == 1


def test_slack_is_charged() -> None:
    assert gaussian_delta(1.0, 5.0, 3, slack=1e-9) == pytest.approx(
        gaussian_delta(1.0, 5.0, 3) + 3 * (1 + math.e) * 1e-9, rel=1e-12
    )
    assert gaussian_epsilon(1e-5, 0.01, slack=1e-3) == math.inf
    with pytest.raises(PrivacyConfigError, match="nothing is left of delta"):
        solve_noise_multiplier(1.0, 1e-5, 10, slack=1e-6)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_bad_arguments(bad: float) -> None:
    with pytest.raises(PrivacyConfigError, match="noise_multiplier"):
        gaussian_delta(1.0, bad)
    with pytest.raises(PrivacyConfigError, match="epsilon"):
        solve_noise_multiplier(bad, 1e-5, 1)
    with pytest.raises(PrivacyConfigError, match="delta"):
        gaussian_epsilon(bad, 1.0)
    with pytest.raises(PrivacyConfigError, match="rounds"):
        gaussian_epsilon(1e-5, 1.0, 0)


def test_matches_the_float_formula_where_that_is_accurate() -> None:
    from scipy.special import ndtr

    for epsilon, z in np.random.default_rng(0).uniform([0.1, 0.5], [3, 5], (50, 2)):
        expected = ndtr(0.5 / z - epsilon * z) - math.exp(epsilon) * ndtr(-0.5 / z - epsilon * z)
        assert gaussian_delta(float(epsilon), float(z)) == pytest.approx(expected, rel=1e-6, abs=1e-14)


def test_large_epsilon_with_sampling_slack_is_found() -> None:
    """With slack, delta rises again for large epsilon; doubling the search interval once jumped over the solution."""
    slack = 11 * 2.0**-204
    for epsilon in (80.0, 100.0):
        z = solve_noise_multiplier(epsilon, 1e-5, 1, slack=slack)
        assert gaussian_epsilon(1e-5, z, 1, slack=slack) == pytest.approx(epsilon, rel=1e-6)
