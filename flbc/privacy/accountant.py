"""Exact accounting of the Gaussian mechanism under full participation.

T rounds of the Gaussian mechanism with noise multiplier z compose to exactly one with z/sqrt(T) (Dong, Roth & Su 2022,
*Gaussian Differential Privacy*, Corollary 3.3; it also covers sums that are chosen adaptively). One mechanism has the
exact curve of Balle & Wang 2018, *Improving the Gaussian Mechanism for Differential Privacy*, Theorem 8: with
sensitivity 1 and standard deviation z,

    delta(epsilon) = Phi(1/(2z) - epsilon z) - e^epsilon Phi(-1/(2z) - epsilon z).

So nothing is lost to a Renyi or moments bound. All of it is evaluated with 256-bit floats (MPFR through gmpy2), where
neither the cancellation between the two terms nor e^epsilon can hurt, and rounded so that every number errs on the safe
side: an epsilon, delta or multiplier that is returned is never below the true one.

``slack`` is how far, in total variation, one round of sampled noise may be from the ideal one (see
:func:`flbc.privacy.noise.total_variation_bound`); T rounds add T (1 + e^epsilon) slack to delta.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import gmpy2

from ..errors import PrivacyConfigError
from .spec import require_count, require_delta, require_positive

_BITS = 256
_HEADROOM = 1 + 2.0**-36
"""Solved multipliers are enlarged by this, so that float64 arithmetic on them (times the sensitivity, and back) can
never cost a round of the budget."""


def gaussian_delta(epsilon: float, noise_multiplier: float, rounds: int = 1, *, slack: float = 0.0) -> float:
    """Smallest delta for which ``rounds`` rounds are (epsilon, delta)-DP, rounded up.

    Parameters
    ----------
    epsilon : float
        At least 0.
    noise_multiplier : float
        Standard deviation over L2 sensitivity of every round, > 0.
    rounds : int (default: 1)
        Number of rounds, >= 1.
    slack : float (default: 0.0)
        Total variation distance of one round's sampled noise from the ideal one.

    Returns
    -------
    float
        Delta in (0, 1]; never below the true value.

    Raises
    ------
    PrivacyConfigError
        If an argument is out of range.
    """
    if epsilon != 0:
        require_positive("epsilon", epsilon, "or 0")
    _check(noise_multiplier, rounds)
    return min(1.0, _up(_delta(epsilon, noise_multiplier, rounds, slack)))


def gaussian_epsilon(delta: float, noise_multiplier: float, rounds: int = 1, *, slack: float = 0.0) -> float:
    """Smallest epsilon for which ``rounds`` rounds are (epsilon, delta)-DP, rounded up to the next float64.

    Returns
    -------
    float
        Epsilon >= 0; infinity when no finite one satisfies ``delta`` (possible only with a positive ``slack``).

    Raises
    ------
    PrivacyConfigError
        If an argument is out of range.
    """
    require_delta(delta)
    _check(noise_multiplier, rounds)

    def fits(epsilon: float) -> bool:
        return bool(_delta(epsilon, noise_multiplier, rounds, slack) <= delta)

    if fits(0.0):
        return 0.0
    high = 1.0
    while not fits(high):
        # With slack, delta falls and then rises with epsilon: small steps do not jump over where it fits.
        high *= 1.05 if slack > 0 else 2
        if high > 1e15 or (slack > 0 and high > 4096):
            return math.inf
    return _bisect(0.0, high, fits)


def solve_noise_multiplier(epsilon: float, delta: float, rounds: int, *, slack: float = 0.0) -> float:
    """Smallest noise multiplier for which ``rounds`` rounds are (epsilon, delta)-DP, rounded up.

    Raises
    ------
    PrivacyConfigError
        If an argument is out of range, or the slack alone already exceeds ``delta``.
    """
    require_positive("epsilon", epsilon, "for example 3.0")
    require_delta(delta)
    require_count("rounds", rounds)
    spent = rounds * slack * (1 + math.exp(min(epsilon, 700.0)))
    if spent >= delta:
        raise PrivacyConfigError(
            f"nothing is left of delta={delta:g} after the sampling error of the noise ({spent:.3g} over {rounds} "
            f"rounds at epsilon={epsilon:g}): lower epsilon, or raise delta"
        )

    def fits(noise_multiplier: float) -> bool:
        return bool(_delta(epsilon, noise_multiplier, rounds, slack) <= delta)

    low, high = 0.0, 1.0
    while not fits(high):
        low, high = high, high * 2
    return _bisect(low, high, fits) * _HEADROOM


def affordable_rounds(epsilon: float, delta: float, noise_multiplier: float, *, slack: float = 0.0) -> int:
    """Largest number of rounds that stays inside (epsilon, delta); 0 when not even one does.

    Raises
    ------
    PrivacyConfigError
        If an argument is out of range.
    """
    require_positive("epsilon", epsilon, "for example 3.0")
    require_delta(delta)
    _check(noise_multiplier, 1)

    def fits(rounds: int) -> bool:
        return bool(_delta(epsilon, noise_multiplier, rounds, slack) <= delta)

    if not fits(1):
        return 0
    low, high = 1, 2
    while fits(high):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _delta(epsilon: float, noise_multiplier: float, rounds: int, slack: float) -> Any:
    """Balle & Wang 2018, Theorem 8, plus the sampling error, as an MPFR number."""
    with gmpy2.context(precision=_BITS):
        mu = gmpy2.sqrt(gmpy2.mpfr(rounds)) / gmpy2.mpfr(noise_multiplier)  # sensitivity over deviation, composed
        growth = gmpy2.exp(gmpy2.mpfr(epsilon))
        root2 = gmpy2.sqrt(gmpy2.mpfr(2))
        inside = gmpy2.erfc((epsilon / mu - mu / 2) / root2) / 2
        outside = gmpy2.erfc((epsilon / mu + mu / 2) / root2) / 2
        # e^epsilon overflows (and the second tail underflows) only where the second term is negligible, and leaving it
        # out makes delta larger.
        second = growth * outside if outside > 0 else gmpy2.mpfr(0)
        delta = max(inside - second, gmpy2.mpfr(0))
        return delta + rounds * (1 + growth) * gmpy2.mpfr(slack) if slack > 0 else delta


def _bisect(low: float, high: float, fits: Callable[[float], bool]) -> float:
    """Shrink [low, high] to neighbouring floats while ``fits(high)`` holds; return high."""
    while True:
        middle = (low + high) / 2
        if not low < middle < high:
            return high
        low, high = (low, middle) if fits(middle) else (middle, high)


def _up(value: Any) -> float:
    return math.nextafter(float(value), math.inf)


def _check(noise_multiplier: float, rounds: int) -> None:
    require_positive("noise_multiplier", noise_multiplier, "for example 1.0")
    require_count("rounds", rounds)
