"""Noise in shares: the proof's distances, the exact divergence of real sums, other accountants, and colluders."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flbc.errors import PrivacyConfigError
from flbc.privacy import GaussianMechanism, Privacy, distributed, plan
from flbc.privacy.accountant import gaussian_delta, gaussian_epsilon
from flbc.privacy.discrete import discrete_total_variation_bound
from flbc.privacy.distributed import (
    MIN_LOCAL_SIGMA,
    continuous_sigma,
    discrete_sigma,
    distance,
    effective_multiplier,
    slack,
)
from flbc.privacy.noise import MAX_SIGMA, total_variation_bound
from flbc.privacy.planning import affordable

Vector = NDArray[np.float64]
STEP16 = 1.0 / (2**15 - 1)


def shares(dimension: int = 10, survivors: int = 5, rounds: int = 5, **changes: Any) -> GaussianMechanism:
    privacy = Privacy(**{"epsilon": 3.0, "where": "clients", **changes})
    return plan(privacy, dimension=dimension, rounds=rounds, client_step=STEP16, min_survivors=survivors)


def discrete_pmf(sigma: float, reach: int) -> Vector:
    k = np.arange(-reach, reach + 1)
    p = np.exp(-(k**2) / (2 * sigma**2))
    return p / p.sum()


def sum_of_shares(local_sigma: float, parties: int, reach: int) -> Vector:
    """The exact distribution of the sum, by convolution of the definition; index 0 is -parties * reach."""
    p = one = discrete_pmf(local_sigma, reach)
    for _ in range(parties - 1):
        p = np.convolve(p, one)
    return p


def hockey_stick(p: Vector, q: Vector, epsilon: float) -> float:
    return float(np.maximum(p - math.exp(epsilon) * q, 0).sum())


# ---------------------------------------------------------------- the two steps of the proof


@pytest.mark.parametrize("s", [0.4, 0.7, 1.0, 1.3])
def test_poisson_summation(s: float) -> None:
    """Theta_s(x) leaves sqrt(2 pi) s by eta(s) at most, and by just that at the integers."""
    z = np.arange(-20, 21)
    theta = [float(np.exp(-((z - x) ** 2) / (2 * s**2)).sum()) for x in np.linspace(0, 1, 101)]
    e = np.array(theta) / (math.sqrt(2 * math.pi) * s) - 1
    assert np.abs(e).max() <= distributed._eta(s) + 1e-14
    assert e[0] == pytest.approx(distributed._eta(s), rel=0.05)


@pytest.mark.parametrize("parties", [2, 3, 5])
@pytest.mark.parametrize("local", [0.5, 0.6, 0.8, 1.0])
def test_sums_of_discrete_gaussians_are_as_close_as_claimed(local: float, parties: int) -> None:
    reach = 25
    exact = discrete_pmf(local * math.sqrt(parties), parties * reach)
    apart = np.abs(sum_of_shares(local, parties, reach) - exact).sum() / 2
    rounded = distance(1, rounding=3.0)
    assert 1e-9 < apart <= distance(parties, local) - rounded  # far above float error: the bound has to hold


@pytest.mark.parametrize("rounding", [0.4, 0.6, 0.8])
def test_discrete_gaussians_are_rounded_continuous_ones_as_claimed(rounding: float) -> None:
    from scipy.integrate import quad

    sigma, reach = 1.3, 12
    width = math.sqrt(sigma**2 - rounding**2)

    def joint(x: float, z: int) -> float:
        every = sum(math.exp(-((k - x) ** 2) / (2 * rounding**2)) for k in range(z - 12, z + 13))
        density = math.exp(-(x**2) / (2 * width**2)) / (width * math.sqrt(2 * math.pi))
        return density * math.exp(-((z - x) ** 2) / (2 * rounding**2)) / every

    p = np.array([quad(joint, z - 5, z + 5, args=(z,), limit=300, epsabs=1e-12)[0] for z in range(-reach, reach + 1)])
    assert p.sum() == pytest.approx(1, abs=1e-8)
    apart = np.abs(p - discrete_pmf(sigma, reach)).sum() / 2
    assert 1e-9 < apart <= distance(1, rounding=rounding)


def test_at_the_widths_in_use_nothing_is_left_of_it() -> None:
    assert distance(2) <= distance(10**6) < 2.0**-254
    assert 0 < slack(2, 1) < 2.0**-202
    assert slack(7, 1000) >= 1000 * 7 * discrete_total_variation_bound(MAX_SIGMA)
    assert slack(1, 1000) == 1000 * total_variation_bound(MAX_SIGMA)  # the opener's noise needs no such step


@given(st.floats(MIN_LOCAL_SIGMA * 1.5, 2.0**45))
def test_the_continuous_gaussian_behind_is_narrower(sigma: float) -> None:
    behind = continuous_sigma(sigma)
    assert behind**2 == pytest.approx(sigma**2 - 9, rel=1e-14)
    assert effective_multiplier("clients", sigma, 10.0) <= effective_multiplier("opener", sigma, 10.0) < sigma / 10
    assert discrete_sigma(behind, 2) == pytest.approx(sigma, rel=1e-14)


# ---------------------------------------------------------------- against the divergence itself


@pytest.mark.parametrize(("local", "parties"), [(5.0, 2), (5.0, 3), (8.0, 2), (20.0, 4)])
@pytest.mark.parametrize("shift", [1, 7, 20])
@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.5, 2.0])
def test_exact_divergence_of_one_round(local: float, parties: int, shift: int, epsilon: float) -> None:
    """Delta is by definition the hockey-stick divergence of the shifted sum of shares; it is computed here as such."""
    p = sum_of_shares(local, parties, math.ceil(12 * local))
    truth = hockey_stick(np.append(p, np.zeros(shift)), np.append(np.zeros(shift), p), epsilon)
    sigma = local * math.sqrt(parties)
    claimed = gaussian_delta(epsilon, effective_multiplier("clients", sigma, shift), slack=slack(parties, 1))
    assert truth <= claimed + 1e-15
    # And the truth is nearly the continuous Gaussian's: nothing but the 9 in the variance lies between.
    assert truth == pytest.approx(gaussian_delta(epsilon, sigma / shift), rel=0.05, abs=1e-4)


def test_exact_divergence_of_two_coordinates_and_two_rounds() -> None:
    local, parties, shift = 5.0, 2, np.array([5, -8])
    sigma, one = local * math.sqrt(parties), sum_of_shares(local, parties, 60)

    def moved(by: int) -> tuple[Vector, Vector]:
        pad = np.zeros(abs(by))
        return (np.append(one, pad), np.append(pad, one)) if by >= 0 else (np.append(pad, one), np.append(one, pad))

    (p0, q0), (p1, q1) = moved(int(shift[0])), moved(int(shift[1]))
    norm = float(np.linalg.norm(shift))
    for epsilon in (0.2, 1.0):
        truth = hockey_stick(np.outer(p0, p1), np.outer(q0, q1), epsilon)
        assert truth <= gaussian_delta(epsilon, effective_multiplier("clients", sigma, norm))
        assert truth == pytest.approx(gaussian_delta(epsilon, sigma / norm), rel=0.02)
        twice = hockey_stick(np.outer(p0, p0), np.outer(q0, q0), epsilon)
        assert twice <= gaussian_delta(epsilon, effective_multiplier("clients", sigma, 5.0), 2)
        assert twice == pytest.approx(gaussian_delta(epsilon, sigma / 5, 2), rel=0.02)


# ---------------------------------------------------------------- against other accountants


def zcdp_epsilon(rho: float, delta: float) -> float:
    """Canonne, Kamath & Steinke 2020, Corollary 13: delta = inf over alpha of

    exp((alpha - 1)(alpha rho - epsilon)) / (alpha - 1) * (1 - 1/alpha)^alpha, solved for epsilon.
    """
    from scipy.optimize import minimize_scalar

    def log_delta(epsilon: float) -> float:
        def at(log_excess: float) -> float:
            excess = math.exp(log_excess)
            alpha = 1 + excess
            return excess * (alpha * rho - epsilon) - math.log(excess) + alpha * math.log1p(-1 / alpha)

        return float(minimize_scalar(at, bounds=(-12, 12), method="bounded", options={"xatol": 1e-10}).fun)

    low, high = 0.0, 1.0
    while log_delta(high) > math.log(delta):
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if log_delta(middle) > math.log(delta) else (low, middle)
    return high


def kairouz_epsilon(m: GaussianMechanism, rounds: int) -> float:
    """Kairouz, Liu & Steinke 2021: their tau, the second and cruder bounds of Proposition 14, composed as zCDP."""
    n, local = m.noisy_parties, m.local_sigma
    tau = 10 * sum(math.exp(-2 * (math.pi * local) ** 2 * k / (k + 1)) for k in range(1, n))
    scale, root = m.sensitivity / (math.sqrt(n) * local), math.sqrt(m.dimension)
    # alpha scale²/2 + tau d <= alpha (scale² + 2 tau d)/2 since alpha > 1.
    eps = min(math.sqrt(scale**2 + 2 * tau * m.dimension), scale + tau * root)
    return zcdp_epsilon(rounds * eps**2 / 2, m.delta)


@pytest.mark.parametrize("rounds", [1, 10, 100])
@pytest.mark.parametrize("epsilon", [0.5, 3.0, 10.0])
def test_between_the_exact_gaussian_and_the_published_bound(rounds: int, epsilon: float) -> None:
    m = shares(dimension=1000, rounds=rounds, epsilon=epsilon)
    ideal = gaussian_epsilon(m.delta, m.sigma / m.sensitivity, rounds)
    published = kairouz_epsilon(m, rounds)
    ours = m.epsilon_after(rounds)
    assert ideal <= ours <= ideal * (1 + 1e-6)
    assert ours < published <= 1.15 * ours


@pytest.mark.parametrize("rounds", [1, 10, 100])
def test_opacus_renyi_bound_is_never_below(rounds: int) -> None:
    analysis = pytest.importorskip("opacus.accountants.analysis.rdp")
    orders = [1 + x / 10.0 for x in range(1, 400)] + list(range(41, 257))
    m = shares(rounds=rounds)
    rdp = analysis.compute_rdp(q=1.0, noise_multiplier=m.noise_multiplier, steps=rounds, orders=orders)
    renyi, _ = analysis.get_privacy_spent(orders=orders, rdp=rdp, delta=m.delta)
    assert m.epsilon_after(rounds) <= renyi <= 1.25 * m.epsilon_after(rounds)


# ---------------------------------------------------------------- the mechanism


@pytest.mark.parametrize("unit", ["client", "example"])
@pytest.mark.parametrize("rounds", [1, 30])
def test_budget_is_used_up_exactly(unit: Any, rounds: int) -> None:
    privacy = Privacy(epsilon=1.0, unit=unit, where="clients", colluders=2)
    m = plan(privacy, dimension=50, rounds=rounds, client_step=STEP16, max_examples=40, min_survivors=6)
    assert (m.where, m.noisy_parties) == ("clients", 4)
    assert m.local_sigma == m.sigma / 2
    assert m.affordable_rounds() == rounds
    assert m.epsilon_after(0) == 0
    assert m.epsilon_after(rounds) <= 1 < m.epsilon_after(rounds + 1)
    assert m.epsilon_after(rounds) == pytest.approx(1, rel=1e-6)
    assert m.epsilon_after(rounds) < m.replace_one_epsilon_after(rounds)


def test_narrow_noise_pays_for_the_step_to_the_continuous_gaussian() -> None:
    """Few integers of noise: the 9 that the proof takes from the variance must show in the price."""
    m = plan(
        Privacy(epsilon=20.0, unit="example", where="clients"), dimension=1, rounds=1, min_survivors=3
    )  # fmt: skip
    assert m.sigma < 15
    assert m.epsilon_after(1) > 1.02 * gaussian_epsilon(m.delta, m.noise_multiplier)


def test_a_large_budget_still_gets_the_narrowest_provable_noise() -> None:
    m = plan(Privacy(epsilon=100.0, unit="example", where="clients"), dimension=1, rounds=1, min_survivors=11)
    assert MIN_LOCAL_SIGMA <= m.local_sigma < 5.0001
    assert m.epsilon_after(1) < 100
    with pytest.raises(PrivacyConfigError, match=r"deviation 3\.\d+ integers.*lower min_survivors"):
        plan(
            Privacy(epsilon=200.0, unit="example", where="clients", noise_multiplier=0.5),
            dimension=1, rounds=1, min_survivors=11,
        )  # fmt: skip


def test_what_a_party_draws() -> None:
    m = shares(survivors=5)
    draws = m.draw(40_000)
    assert draws.std() == pytest.approx(m.sigma / 2, rel=5.2 / math.sqrt(80_000))
    opener = plan(Privacy(epsilon=3.0), dimension=10, rounds=5, client_step=STEP16)
    assert (opener.where, opener.noisy_parties, opener.local_sigma) == ("opener", 1, opener.sigma)
    assert opener.draw(40_000).std() == pytest.approx(opener.sigma, rel=5.2 / math.sqrt(80_000))


def test_every_share_counts_for_the_size_of_the_sum() -> None:
    m = shares(survivors=5)
    assert m.noise_tail(4) == pytest.approx(9 * m.sigma, rel=1e-4)
    assert m.noise_tail(16) == pytest.approx(18 * m.sigma, rel=1e-4)
    assert m.noise_tail() == math.ceil(9 * m.local_sigma) + 1
    opener = plan(Privacy(epsilon=3.0), dimension=10, rounds=5, client_step=STEP16)
    assert opener.noise_tail(16) == opener.noise_tail() == math.ceil(9 * opener.sigma) + 1


def test_shares_cost_no_more_noise_than_one_opener_adds() -> None:
    opener = plan(Privacy(epsilon=3.0), dimension=10, rounds=5, client_step=STEP16)
    assert shares().sigma == pytest.approx(opener.sigma, rel=1e-8)
    assert shares().sigma > opener.sigma


def test_colluders_are_paid_for_in_advance() -> None:
    """The attack: c clients tell the server their shares. What the other survivors added is the noise promised."""
    m = shares(survivors=6, colluders=3)
    drawn = np.array([m.draw(20_000) for _ in range(6)])
    rest = (drawn.sum(axis=0) - drawn[:3].sum(axis=0)).std()
    assert rest == pytest.approx(m.sigma, rel=5.2 / math.sqrt(40_000))
    # One traitor more than assumed: the documented variance sigma² (min_survivors - k)/(min_survivors - c) is left.
    rest = (drawn.sum(axis=0) - drawn[:4].sum(axis=0)).std()
    assert rest == pytest.approx(m.sigma * math.sqrt(2 / 3), rel=5.2 / math.sqrt(40_000))


def test_affordable_rounds_of_a_given_multiplier() -> None:
    for where in ("opener", "clients"):
        solved = plan(Privacy(epsilon=2.0, where=where), dimension=30, rounds=20, client_step=0.01, min_survivors=4)
        given_ = Privacy(epsilon=2.0, where=where, noise_multiplier=solved.noise_multiplier)
        options: dict[str, Any] = {"dimension": 30, "client_step": 0.01, "min_survivors": 4}
        assert affordable(given_, **options) == 20
        assert plan(given_, rounds=20, **options).affordable_rounds() == 20
        little = Privacy(epsilon=2.0, where=where, noise_multiplier=0.5)
        assert affordable(little, **options) == 0
        with pytest.raises(PrivacyConfigError, match=r"call plan\(\)"):
            affordable(Privacy(epsilon=2.0, where=where), **options)
    example = Privacy(epsilon=2.0, unit="example", where="clients", noise_multiplier=10.0)
    assert affordable(example, dimension=30, min_survivors=4) >= 20
    with pytest.raises(PrivacyConfigError, match="integers"):
        affordable(Privacy(epsilon=2.0, where="clients", noise_multiplier=0.01), **options)


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 40), st.integers(1, 5), st.floats(0.2, 15), st.integers(1, 200))
def test_any_plan_is_within_its_budget_and_travels(survivors: int, colluders: int, epsilon: float, rounds: int) -> None:
    if survivors - colluders < 2:
        return
    m = shares(survivors=survivors, colluders=colluders, epsilon=epsilon, rounds=rounds)
    assert m.epsilon_after(rounds) <= epsilon
    assert m.local_sigma * math.sqrt(survivors - colluders) == pytest.approx(m.sigma, rel=1e-14)
    assert GaussianMechanism.from_dict(json.loads(json.dumps(m.to_dict()))) == m


@pytest.mark.parametrize(("survivors", "colluders"), [(2, 1), (3, 2), (4, 9)])
def test_two_honest_clients_at_least(survivors: int, colluders: int) -> None:
    with pytest.raises(
        PrivacyConfigError, match=f"raise min_survivors to at least {colluders + 2}, or lower colluders"
    ):
        shares(survivors=survivors, colluders=colluders)


@pytest.mark.parametrize("bad", [None, True, 3.0])
def test_min_survivors_is_asked_for(bad: Any) -> None:
    with pytest.raises(PrivacyConfigError, match=r"min_survivors is .* pass the fewest clients"):
        shares(survivors=bad)


# ---------------------------------------------------------------- what a dishonest server might announce


def _edit(**changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda values: values | changes


@pytest.mark.parametrize(
    "edit",
    [
        _edit(noisy_parties=1),
        _edit(noisy_parties=0),
        _edit(noisy_parties=-4),
        _edit(noisy_parties=4.0),
        _edit(noisy_parties=True),
        _edit(noisy_parties=2**47),  # shares next to nothing
        _edit(where="opener"),  # clients would add none
        _edit(where="nobody"),
        lambda values: values | {"sigma": values["sigma"] * 0.9},
        lambda values: {name: value for name, value in values.items() if name != "where"},
    ],
)
def test_announcements_that_are_refused(edit: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    with pytest.raises(PrivacyConfigError):
        GaussianMechanism.from_dict(edit(shares().to_dict()))


def test_opener_noise_cannot_be_announced_as_shares_of_many() -> None:
    opener = plan(Privacy(epsilon=3.0), dimension=10, rounds=5, client_step=STEP16)
    for changes in ({"noisy_parties": 4}, {"where": "clients"}):
        with pytest.raises(PrivacyConfigError, match="by one opener, by every client for itself, or in shares"):
            GaussianMechanism.from_dict(opener.to_dict() | changes)


def test_noise_divided_among_more_clients_than_must_survive_is_refused() -> None:
    """The attack: 100 noisy parties announced where sums of 5 may be opened; each share is then a tenth of sigma."""
    honest = shares(survivors=5)
    honest.check_survivors(5)
    thin = GaussianMechanism.from_dict(honest.to_dict() | {"noisy_parties": 100})
    assert thin.local_sigma == pytest.approx(honest.sigma / 10)
    for claimed in (thin, GaussianMechanism.from_dict(honest.to_dict() | {"noisy_parties": 5})):
        with pytest.raises(PrivacyConfigError, match="sums of 5 may be opened"):
            claimed.check_survivors(5)
    plan(Privacy(epsilon=3.0), dimension=10, rounds=5, client_step=STEP16).check_survivors(3)
