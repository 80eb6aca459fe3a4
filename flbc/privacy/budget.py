"""What rounds cost: one interface over the exact accountant and those for Poisson samples.

Without sampling, rounds compose exactly (:mod:`flbc.privacy.accountant`). With it, an upper bound of
:mod:`flbc.privacy.subsampled` counts, or the exact number without sampling where that is smaller: leaving records out
at random never costs anything (joint convexity, draw by draw).

**Slack** (how far one round of sampled noise is from the ideal one, in total variation) takes rounds (1 + e^epsilon)
slack of delta. The exact accountant knows it; for the others a millionth of delta is set aside, and there is no bound
where that is not enough.

**Replace-one under sampling.** Exchanging a record is taking it away and adding another one: two zero-out steps, each
(epsilon, delta'), are (2 epsilon, (1 + e^epsilon) delta') together (group privacy). The bound so made is valid, not
tight.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import PrivacyConfigError
from .accountant import affordable_rounds, gaussian_delta, gaussian_epsilon, solve_noise_multiplier
from .spec import Accountant
from .subsampled import sampled_epsilon

_SET_ASIDE = 2.0**-20
_HEADROOM = 1 - 2.0**-12
"""Multipliers are solved for this much of epsilon, so that a platform whose floats differ does not refuse them."""
_PRECISION = 2.0**-11
"""Relative width at which searches under sampling stop; they return the upper end."""
_LARGEST = 100.0
"""An epsilon beyond this is not worth a search: exp(100) is 1e43."""


@dataclass(frozen=True, slots=True)
class Cost:
    """How the rounds of one mechanism are charged.

    Parameters
    ----------
    noise_multiplier : float
        Of the continuous Gaussian mechanism behind the noise.
    slack : float
        Total variation distance of one round's noise from post-processing of it.
    rate : float (default: 1.0)
        Sampling rate.
    accountant : {"prv", "rdp"} (default: "prv")
        Used below a rate of 1.
    """

    noise_multiplier: float
    slack: float
    rate: float = 1.0
    accountant: Accountant = "prv"

    def epsilon(self, delta: float, rounds: int) -> float:
        """Return an upper bound on epsilon for zero-out neighbours; exact, rounded up, without sampling."""
        if rounds == 0:
            return 0.0
        exact = gaussian_epsilon(delta, self.noise_multiplier, rounds, slack=self.slack)
        return exact if self.rate == 1 else min(exact, self._sampled(delta, rounds, self.accountant))

    def replace_one_epsilon(self, delta: float, rounds: int, factor: float) -> float:
        """Return an upper bound for replace-one neighbours, whose sensitivity is ``factor`` times the zero-out one."""
        if rounds == 0:
            return 0.0
        exact = gaussian_epsilon(delta, self.noise_multiplier / factor, rounds, slack=self.slack)
        if self.rate == 1:
            return exact
        # A step's epsilon rises with what it leaves of delta to the other one: find an e that suffices for both. The
        # Renyi curve is known once and for all, so that this search costs next to nothing.

        def fits(epsilon: float) -> bool:
            return self._sampled(delta / (1 + math.exp(epsilon)), rounds, "rdp") <= epsilon

        low, high = 0.0, max(self._sampled(delta, rounds, "rdp"), 1e-3)
        while high <= _LARGEST and not fits(high):
            low, high = high, high * 1.25
        if high > _LARGEST:
            return exact
        return min(exact, 2 * _bisect(low, high, fits))

    def pays_for(self, epsilon: float, delta: float, rounds: int) -> bool:
        """Return whether ``rounds`` rounds stay inside (epsilon, delta)."""
        if gaussian_delta(epsilon, self.noise_multiplier, rounds, slack=self.slack) <= delta:
            return True
        return self.rate < 1 and self._sampled(delta, rounds, self.accountant) <= epsilon

    def affordable_rounds(self, epsilon: float, delta: float, most: int) -> int:
        """Return how many rounds stay inside (epsilon, delta), looking no further than ``most`` under sampling."""
        exact = affordable_rounds(epsilon, delta, self.noise_multiplier, slack=self.slack)
        if self.rate == 1 or exact >= most:
            return exact
        if self.pays_for(epsilon, delta, most):
            return most
        low, high = exact, most
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.pays_for(epsilon, delta, middle) else (low, middle)
        return low

    def _sampled(self, delta: float, rounds: int, accountant: Accountant) -> float:
        epsilon = sampled_epsilon(delta * (1 - _SET_ASIDE), self.noise_multiplier, self.rate, rounds, accountant)
        lost = rounds * self.slack * (1 + math.exp(min(epsilon, 700.0)))
        return epsilon if lost <= delta * _SET_ASIDE else math.inf


def solve(
    epsilon: float, delta: float, rounds: int, *, slack: float, rate: float = 1.0, accountant: Accountant = "prv"
) -> float:
    """Return a noise multiplier for which ``rounds`` rounds are (epsilon, delta)-DP, at most 0.1 % above the least.

    Raises
    ------
    PrivacyConfigError
        If an argument is out of range, or no multiplier will do.
    DependencyError
        If ``rate`` is below 1 and Opacus is not installed.
    """
    unsampled = solve_noise_multiplier(epsilon, delta, rounds, slack=slack)
    if rate == 1:
        return unsampled
    target = epsilon * _HEADROOM

    def search(low: float, high: float, accountant: Accountant) -> float:
        def fits(multiplier: float) -> bool:
            return Cost(multiplier, slack, rate, accountant).pays_for(target, delta, rounds)

        return _bisect(low, high, fits)

    # The cheap accountant first: what suffices for it suffices for the other one, and the answer is not far below.
    high = solve_noise_multiplier(target, delta, rounds, slack=slack)
    high = search(0.0, high, "rdp")
    if accountant == "prv":
        low = high * 0.75
        while Cost(low, slack, rate, accountant).pays_for(target, delta, rounds) and low > 1e-3:
            low, high = low / 2, low
        high = search(low, high, accountant)
    if not Cost(high, slack, rate, accountant).pays_for(epsilon, delta, rounds):
        raise PrivacyConfigError(
            f"no noise multiplier was found for epsilon={epsilon:g}, delta={delta:g}, {rounds} rounds and "
            f"sampling_rate={rate:g}: raise delta or the rate"
        )
    return high


def _bisect(low: float, high: float, fits: Callable[[float], bool]) -> float:
    while high - low > _PRECISION * high:
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high
