r"""Accounting of the Gaussian mechanism over Poisson samples, by two accountants of Opacus.

One round with sampling rate q and noise multiplier z is dominated by the pair P = (1 - q) N(0, z²) + q N(1, z²), Q =
N(0, z²), in this order for a record that is there and is taken away, in the other for one that comes
(:mod:`flbc.privacy.sampling`). There is no closed form for T rounds of it. Both accountants give upper bounds:

* ``"rdp"``: Renyi differential privacy (Mironov, Talwar & Zhang 2019, *Renyi Differential Privacy of the Sampled
  Gaussian Mechanism*: one order of the pair bounds the other). A bound by theorem, with the conversion of Balle et al.
  2020, and loose by several per cent.
* ``"prv"``: the distribution of the privacy loss on a grid, composed by a Fourier transform (Gopi, Lee & Wutschitz
  2021, *Numerical Composition of Differential Privacy*), plus the errors of grid and truncation, in epsilon and in
  delta. Opacus composes the first order of the pair only. The order that is worse in one round need not be the worse
  one after composition (Lebeda, Regehr, Kamath & Steinke 2024, *Avoiding Pitfalls for Privacy Accounting of Subsampled
  Mechanisms under Composition*), so the second, :class:`_Reversed`, is composed here in the same way, and the larger
  epsilon counts. Where Opacus refuses to compute (floats too coarse for a tiny delta) or the grid is beyond 2**20
  points, this one falls back to ``"rdp"``.

``"prv"`` is the default because it is the tighter one and an upper bound, too: the tests compare it with bounds that
they compute pessimistically, step by step, in both orders.

This needs Opacus, hence PyTorch, on every party that checks or charges the budget: server, training nodes, opener,
committee. It is imported on first use, and results are remembered within a process.
"""

from __future__ import annotations

import math
import warnings
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DependencyError, PrivacyConfigError
from .spec import ACCOUNTANTS, Accountant, require_count, require_delta, require_positive, require_rate

if TYPE_CHECKING:
    from collections.abc import Callable

ORDERS = (*(2 + k / 4 for k in range(1, 16) if k % 4), *range(2, 64), *range(64, 128, 8), *range(128, 513, 32))
"""Renyi orders. Fractional ones matter for a large epsilon; below 2 their series take too long."""

_MAX_POINTS = 1 << 20
"""Grid points of ``"prv"``: a second or two of work, 0.4 GB. A hostile mechanism must not make a node allocate more."""
_MIN_MULTIPLIER = 0.05
"""Below this there is no privacy to account for, and the series overflow."""


def sampled_epsilon(delta: float, noise_multiplier: float, rate: float, rounds: int, accountant: Accountant) -> float:
    """Upper bound on the epsilon of ``rounds`` rounds over Poisson samples.

    Parameters
    ----------
    delta : float
        In (0, 1).
    noise_multiplier : float
        Standard deviation over L2 sensitivity of every round, > 0.
    rate : float
        Sampling rate q, in (0, 1].
    rounds : int
        Number of rounds, >= 1.
    accountant : {"prv", "rdp"}

    Returns
    -------
    float
        Epsilon >= 0 (zero-out neighbours, both orders); infinity where the accountant has no bound.

    Raises
    ------
    PrivacyConfigError
        If an argument is out of range.
    DependencyError
        If Opacus is not installed.
    """
    require_delta(delta)
    require_positive("noise_multiplier", noise_multiplier, "for example 1.0")
    require_rate(rate)
    require_count("rounds", rounds)
    if accountant not in ACCOUNTANTS:
        raise PrivacyConfigError(f"accountant is {accountant!r}: pass one of {', '.join(map(repr, ACCOUNTANTS))}")
    return _epsilon(delta, noise_multiplier, rate, rounds, accountant)


@lru_cache(maxsize=4096)
def _epsilon(delta: float, noise_multiplier: float, rate: float, rounds: int, accountant: Accountant) -> float:
    if noise_multiplier < _MIN_MULTIPLIER:
        return math.inf
    renyi = _renyi_epsilon(delta, noise_multiplier, rate, rounds)
    if accountant == "rdp" or not math.isfinite(renyi):
        return renyi
    # Half a per cent of what is to be found, for the grid.
    error = min(max(renyi / 200, 1e-3), 0.05)
    return min(renyi, _loss_epsilon(delta, noise_multiplier, rate, rounds, error))


def _renyi_epsilon(delta: float, noise_multiplier: float, rate: float, rounds: int) -> float:
    """Convert the Renyi curve to epsilon; both are Opacus's."""
    spent, _ = _quietly(
        lambda: _opacus().rdp.get_privacy_spent(
            orders=ORDERS, rdp=_renyi_curve(noise_multiplier, rate) * rounds, delta=delta
        )
    )
    return math.inf if math.isnan(spent) else max(float(spent), 0.0)


@lru_cache(maxsize=256)
def _renyi_curve(noise_multiplier: float, rate: float) -> NDArray[np.float64]:
    """Return the Renyi divergences of one round at :data:`ORDERS`."""
    curve = [_order(noise_multiplier, rate, order) for order in ORDERS]
    return np.asarray(curve, np.float64)


def _order(noise_multiplier: float, rate: float, order: float) -> float:
    """One divergence; infinity (no bound at this order) where floats do not hold its terms."""
    compute = _opacus().rdp.compute_rdp
    try:
        value = _quietly(lambda: compute(q=rate, noise_multiplier=noise_multiplier, steps=1, orders=float(order)))
    except (ValueError, OverflowError):
        return math.inf
    return float(value) if value >= 0 else math.inf


def _loss_epsilon(delta: float, noise_multiplier: float, rate: float, rounds: int, error: float) -> float:
    """Compose the privacy losses of both orders, and return the larger upper bound; infinity without one."""
    prv = _opacus().prv
    forward = prv.PoissonSubsampledGaussianPRV(rate, noise_multiplier)
    slip = delta / 1000

    def bound() -> float:
        # Gopi et al., remark 5.6, as Opacus does, with the curve that is known already. It bounds both orders.
        tails = (slip / 4, rounds), (slip / (8 * rounds), 1)
        half = 3 + max(error, *(_renyi_epsilon(part, noise_multiplier, rate, count) for part, count in tails))
        mesh = error / math.sqrt(rounds * math.log(12 / slip) / 2)
        if not 2 * half / mesh <= _MAX_POINTS:
            return math.inf
        domain = prv.Domain.create_aligned(-half, half, mesh)
        worst = 0.0
        for loss in (forward, _Reversed(rate, noise_multiplier)):
            part = prv.discretize(prv.TruncatedPrivacyRandomVariable(loss, domain.t_min, domain.t_max), domain)
            _, _, upper = prv.compose_heterogeneous([part], [rounds]).compute_epsilon(delta, slip, error)
            worst = max(worst, float(upper)) if upper == upper else math.inf
        return worst

    try:
        return float(_quietly(bound))
    except (RuntimeError, ValueError, OverflowError, IndexError):  # Opacus's own checks of its numerics
        return math.inf


class _Reversed:
    """Privacy loss of Q against P: log(Q/P) under Q, for a record that comes.

    With r(x) = P(x)/Q(x) = 1 - q + q exp((2x - 1)/(2 z²)), which rises with x, the loss -log r(x) is at most t if r(x)
    >= exp(-t), that is x >= z² log((exp(-t) - 1 + q)/q) + 1/2; always if exp(-t) <= 1 - q.
    """

    def __init__(self, sample_rate: float, noise_multiplier: float) -> None:
        self.sample_rate, self.noise_multiplier = sample_rate, noise_multiplier

    def cdf(self, t: Any) -> Any:
        """Return the probability of a loss of at most t."""
        from scipy.special import ndtr

        q, z = self.sample_rate, self.noise_multiplier
        # expm1 and log1p: with a small q, exp(-t) - 1 + q would lose what is left of a double.
        ratio = np.expm1(-np.asarray(t, np.float64)) / q
        edge = z * np.log1p(np.maximum(ratio, -1.0)) + 0.5 / z
        return np.where(ratio <= -1.0, 1.0, ndtr(-edge))


def _quietly(compute: Callable[[], Any]) -> Any:
    """Run without Opacus's and numpy's remarks on numbers that are handled here."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return compute()


@lru_cache(maxsize=1)
def _opacus() -> Any:
    """Import the accountants on first use."""
    try:
        from opacus.accountants.analysis import prv, rdp
    except ImportError as error:
        raise DependencyError(
            f"sampling_rate below 1 is accounted by Opacus, and {error.name or 'it'} is missing here: "
            'pip install "flbc[torch]" on every node that checks or charges the budget, or use sampling_rate=1.0'
        ) from error
    from types import SimpleNamespace

    return SimpleNamespace(prv=prv, rdp=rdp)
