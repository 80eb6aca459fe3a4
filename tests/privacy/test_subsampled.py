"""Accountants under sampling: against bounds computed here step by step, the exact Gaussian, and published numbers."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import fftconvolve
from scipy.special import ndtr

from flbc.errors import DependencyError, PrivacyConfigError
from flbc.privacy import GaussianMechanism, Privacy, plan, subsampled
from flbc.privacy.accountant import gaussian_epsilon
from flbc.privacy.subsampled import ORDERS, sampled_epsilon

pytest.importorskip("opacus")

#: rate, noise multiplier, log2 of the rounds, delta
CASES = [
    (0.05, 1.0, 0, 1e-5),
    (0.05, 1.0, 6, 1e-5),
    (0.5, 3.0, 5, 1e-5),
    (0.2, 2.0, 4, 1e-6),
    (0.01, 0.7, 6, 1e-5),
    (0.9, 4.0, 3, 1e-3),
    (0.001, 0.5, 5, 1e-5),
]


def loss_cdf(t: NDArray[np.float64], q: float, z: float, reverse: bool) -> NDArray[np.float64]:
    """Probability that the loss of one round is at most t; written down from the definition, not from Opacus."""
    with np.errstate(all="ignore"):
        if reverse:  # log Q/P under Q = N(0, z²), P = (1-q) N(0, z²) + q N(1, z²)
            x = z * z * np.log((np.exp(-t) - 1 + q) / q) + 0.5
            return np.where(np.exp(-t) <= 1 - q, 1.0, ndtr(-x / z))
        x = z * z * np.log((np.exp(t) - 1 + q) / q) + 0.5
        return np.where(np.exp(t) <= 1 - q, 0.0, (1 - q) * ndtr(x / z) + q * ndtr((x - 1) / z))


def delta_bounds(epsilon: float, q: float, z: float, doublings: int, reverse: bool) -> tuple[float, float]:
    """Lower and upper bound on delta(epsilon) of 2**doublings rounds.

    Losses are moved up (or down) to a grid, which only raises (lowers) delta; what leaves the window upwards counts as
    infinite (not at all), what leaves it downwards as its lower end (not at all).
    """
    step, width = 1e-4, 16.0
    grid = np.arange(-round(width / step), round(width / step) + 1) * step
    cells = np.diff(loss_cdf(np.concatenate([grid, [np.inf]]), q, z, reverse))
    bounds = []
    for up in (False, True):
        mass = np.zeros(len(grid))
        if up:
            mass[1:] = cells[:-1]
            mass[0] = loss_cdf(grid[:1], q, z, reverse)[0]
            beyond = float(cells[-1])
        else:
            mass[:], beyond = cells, 0.0
        for _ in range(doublings):
            full = np.maximum(fftconvolve(mass, mass), 0)
            middle = len(grid) // 2
            beyond = 1 - (1 - beyond) ** 2 + (full[len(grid) + middle :].sum() if up else 0.0)
            low = full[:middle].sum() if up else 0.0
            mass = full[middle : middle + len(grid)]
            mass[0] += low
        above = grid > epsilon
        bounds.append(float((mass[above] * -np.expm1(epsilon - grid[above])).sum()) + beyond)
    return bounds[0], bounds[1]


@pytest.mark.parametrize(("q", "z"), [(0.05, 1.0), (0.5, 3.0), (0.9, 0.8)])
def test_the_bounds_of_this_file_hold_the_closed_form_of_one_round(q: float, z: float) -> None:
    for epsilon in (0.1, 0.5):
        x = z * z * math.log((math.exp(epsilon) - 1 + q) / q) + 0.5
        p, null = 1 - ((1 - q) * ndtr(x / z) + q * ndtr((x - 1) / z)), ndtr(-x / z)
        lower, upper = delta_bounds(epsilon, q, z, 0, False)
        assert lower <= p - math.exp(epsilon) * null <= upper
        assert upper - lower < 2e-4


@pytest.mark.parametrize("case", CASES, ids=str)
def test_prv_and_rdp_are_upper_bounds_in_both_orders_and_prv_is_tight(case: Any) -> None:
    """Certain: no true epsilon is above. Within 4 % (and the grids' 0.02) of the truth, and RDP above PRV."""
    q, z, doublings, delta = case
    prv, rdp = (sampled_epsilon(delta, z, q, 2**doublings, kind) for kind in ("prv", "rdp"))
    assert prv <= rdp
    # FFTs leave 1e-15 or so in every cell.
    assert delta_bounds(prv, q, z, doublings, False)[1] <= delta * (1 + 1e-6)
    assert delta_bounds(prv, q, z, doublings, True)[1] <= delta * (1 + 1e-6)
    assert delta_bounds(0.96 * prv - 0.02, q, z, doublings, False)[0] > delta


def test_each_order_of_the_pair_is_composed_rightly() -> None:
    """Here removing a record costs more than adding one; the larger number counts in any case."""
    q, z, rounds, delta = 0.3, 1.5, 8, 1e-5
    prv = subsampled._opacus().prv
    domain = prv.Domain.create_aligned(-20, 20, 1e-3)

    def composed(loss: Any) -> float:
        part = prv.discretize(prv.TruncatedPrivacyRandomVariable(loss, domain.t_min, domain.t_max), domain)
        return float(prv.compose_heterogeneous([part], [rounds]).compute_epsilon(delta, delta / 1000, 1e-3)[1])

    losses = (prv.PoissonSubsampledGaussianPRV(q, z), subsampled._Reversed(q, z))
    values = subsampled._quietly(lambda: [composed(loss) for loss in losses])
    for value, reverse in zip(values, (False, True), strict=True):
        lower, upper = delta_bounds(value, q, z, 3, reverse)
        assert lower <= delta <= upper
    assert values[1] < values[0] < sampled_epsilon(delta, z, q, rounds, "prv")


@pytest.mark.parametrize("q", [0.5, 0.04, 1e-3, 1e-6])
def test_the_reversed_loss_is_the_one_of_the_definition(q: float) -> None:
    t = np.linspace(-3, 3, 2001)
    found = subsampled._quietly(lambda: subsampled._Reversed(q, 0.9).cdf(t))
    np.testing.assert_allclose(found, loss_cdf(t, q, 0.9, True), rtol=0, atol=1e-9 / math.sqrt(q))


@pytest.mark.parametrize(("z", "rounds"), [(1.0, 1), (4.0, 30), (20.0, 30), (19.0, 300)])
def test_without_sampling_both_are_just_above_the_exact_number(z: float, rounds: int) -> None:
    """PRV within 2 % and its grid, RDP within 25 %."""
    exact = gaussian_epsilon(1e-5, z, rounds)
    assert exact <= sampled_epsilon(1e-5, z, 1.0, rounds, "prv") <= 1.02 * exact + 0.002
    assert exact <= sampled_epsilon(1e-5, z, 1.0, rounds, "rdp") <= 1.25 * exact


@pytest.mark.parametrize(
    ("q", "z", "rounds", "published"),
    [
        # Abadi et al. 2016, *Deep Learning with Differential Privacy*, section 3.2 and figure 2.
        (0.01, 4.0, 10_000, 1.26),
        # TensorFlow Privacy, tutorials/README.md at commit 047e1ee, MNIST: 256 of 60,000, 60, 10 and 30 epochs.
        (256 / 60_000, 1.12, 60 * 60_000 // 256, 2.92),
        (256 / 60_000, 1.2, 10 * 60_000 // 256, 1.20),
        (256 / 60_000, 0.6, 30 * 60_000 // 256, 9.74),
    ],
)
def test_published_numbers(q: float, z: float, rounds: int, published: float) -> None:
    """With the conversion of that time, rho + log(1/delta)/(order - 1), the curve gives what was printed, to 1 %."""
    curve = zip(ORDERS, subsampled._renyi_curve(z, q), strict=True)
    then = min(rounds * rho + math.log(1e5) / (order - 1) for order, rho in curve)
    assert then == pytest.approx(published, rel=0.01)
    prv, rdp = (sampled_epsilon(1e-5, z, q, rounds, kind) for kind in ("prv", "rdp"))
    assert 0.6 * published < prv < rdp < published


@pytest.mark.parametrize("accountant", ["prv", "rdp"])
def test_epsilon_rises_with_rounds_and_rate_and_falls_with_noise(accountant: Any) -> None:
    over_rounds = [sampled_epsilon(1e-5, 1.2, 0.05, rounds, accountant) for rounds in (1, 2, 5, 20, 21, 22, 100)]
    assert over_rounds == sorted(over_rounds)
    over_rates = [sampled_epsilon(1e-5, 1.2, q, 20, accountant) for q in (1e-6, 1e-4, 0.01, 0.05, 0.3, 0.99)]
    assert over_rates == sorted(over_rates)
    over_noise = [sampled_epsilon(1e-5, z, 0.05, 20, accountant) for z in (30.0, 5.0, 1.2, 1.1, 0.6)]
    assert over_noise == sorted(over_noise)


@pytest.mark.parametrize(
    ("delta", "z", "q", "rounds"),
    [
        (1e-5, 1e-9, 0.5, 10),
        (1e-5, 0.06, 0.5, 2**47),
        (1e-300, 1.0, 0.01, 2**40),
        (1e-15, 1.0, 0.01, 100),
        (0.999, 1e6, 1e-6, 1),
        (1e-5, 1e12, 0.3, 2**47),
    ],
)
def test_hostile_numbers_end_soon(delta: float, z: float, q: float, rounds: int) -> None:
    """A server chooses them, and every node computes."""
    start = time.process_time()
    values = [sampled_epsilon(delta, z, q, rounds, kind) for kind in ("rdp", "prv")]
    assert time.process_time() - start < 5
    assert 0 <= values[1] <= values[0]


def test_a_hostile_mechanism_is_refused_soon() -> None:
    values = plan(Privacy(epsilon=1.0, unit="example", sampling_rate=0.1), dimension=9, rounds=5).to_dict()
    start = time.process_time()
    with pytest.raises(PrivacyConfigError, match="above the budget"):
        GaussianMechanism.from_dict(values | {"rounds": 2**47})
    assert time.process_time() - start < 5


def test_what_it_costs_a_node() -> None:
    """Every message restores the mechanism; the first one of a process computes, the others remember."""
    privacy = Privacy(epsilon=1.0, unit="example", sampling_rate=0.02)
    mechanism = plan(privacy, dimension=20_000, rounds=1000, max_examples=500)
    values = mechanism.to_dict()
    subsampled._epsilon.cache_clear()
    subsampled._renyi_curve.cache_clear()
    start = time.process_time()
    type(mechanism).from_dict(values).epsilon_after(17)
    first = time.process_time() - start
    assert first < 3  # measured: 0.2 to 0.6 s
    start = time.process_time()
    type(mechanism).from_dict(values).epsilon_after(17)
    assert time.process_time() - start < first / 2


def test_bad_arguments() -> None:
    for arguments in ((0.0, 1.0, 0.5, 1), (1e-5, 0.0, 0.5, 1), (1e-5, 1.0, 0.0, 1), (1e-5, 1.0, 0.5, 0)):
        with pytest.raises(PrivacyConfigError):
            sampled_epsilon(*arguments, "prv")
    with pytest.raises(PrivacyConfigError, match="accountant is 'gdp': pass one of 'prv', 'rdp'"):
        sampled_epsilon(1e-5, 1.0, 0.5, 1, "gdp")  # type: ignore[arg-type]


def test_without_opacus_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    subsampled._opacus.cache_clear()
    subsampled._epsilon.cache_clear()
    subsampled._renyi_curve.cache_clear()
    monkeypatch.setitem(sys.modules, "opacus.accountants.analysis", None)
    with pytest.raises(DependencyError, match=r'pip install "flbc\[torch\]" on every node'):
        plan(Privacy(epsilon=1.0, unit="example", sampling_rate=0.1), dimension=3, rounds=5)
    assert plan(Privacy(epsilon=1.0, unit="example"), dimension=3, rounds=5).sampling_rate == 1
