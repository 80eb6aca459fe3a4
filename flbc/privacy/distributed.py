r"""Accounting of noise that the clients add themselves, before their integers are hidden.

**Who adds what.** Every client adds N_Z(0, sigma_i²) (:mod:`flbc.privacy.discrete`) to each of its integers, fresh in
every attempt, with ``sigma_i² = sigma²/n`` and ``n = min_survivors - c``. A sum of m survivors then carries variance
``m sigma²/n``, more than the sigma² that the guarantee needs.

**Who must be trusted with what.** Nobody sees a sum without noise: not the server, not a helper. The guarantee holds
against the server together with any c clients (``Privacy(colluders=c)``), who know their own shares and subtract them;
a client that adds no noise counts as one of them. c is at least 1, for a client that reads the model is such an
observer. It stands on two things: that no sum of fewer than ``min_survivors`` is unmasked, and that at least n
survivors really add their share. The first is sure with a ledger, whose committee signs one list of survivors; without
one a server that shows different lists to different clients can open smaller sums (:mod:`flbc.schemes.masking`). If
k > c survivors collude, the noise left has variance ``sigma² (min_survivors - k)/(min_survivors - c)``, and epsilon is
that of this smaller noise: weaker, but never nothing.

**From shares to the Gaussian mechanism.** Kairouz, Liu & Steinke 2021, *The Distributed Discrete Gaussian Mechanism
for Federated Learning with Secure Aggregation*, bound sums of discrete Gaussians in concentrated DP (Theorem 1,
Proposition 14), which then loses several per cent in the conversion to (epsilon, delta). Here the noise is wide enough
to lose nothing: per coordinate and share it is within 2**-200 in total variation of *post-processing of the continuous
Gaussian mechanism*, whose curve and composition are known exactly (:mod:`flbc.privacy.accountant`). Write Theta_s(x) =
sum over integers z of exp(-(z - x)²/(2 s²)). By Poisson summation it is ``sqrt(2 pi) s (1 + e(x))`` with |e(x)| <=
eta(s) = 2 (w + w⁴ + w⁹ + ...), w = exp(-2 pi² s²).

1. *The sum of n shares is nearly N_Z(0, n sigma_i²).* Completing the square, the convolution of N_Z(0, a²) and N_Z(0,
   b²) is N_Z(0, a² + b²) times a factor whose only dependence on the point is through Theta_s, s² = a² b²/(a² + b²).
   Its values differ at most by the ratio (1 + eta)/(1 - eta) and average to 1, so the total variation distance is at
   most eta(s)/(1 - eta(s)). Adding the (k+1)-th share, s² = sigma_i² k/(k+1) >= sigma_i²/2 (the same exponents as in
   the theorem cited); distances add up.
2. *N_Z(0, sigma²) is nearly a rounded continuous Gaussian* (Peikert 2010, *An Efficient and Parallel Gaussian Sampler
   for Lattices*, Theorem 3.1, in one dimension). Draw X from N(0, sigma² - r²) and round it at random to the integer z
   with probability exp(-(z - X)²/(2 r²)) / Theta_r(X). The result has the probabilities of N_Z(0, sigma²) but for
   Theta_r(X), again a factor within that ratio: distance at most eta(r)/(1 - eta(r)). Theta_r has period 1, so for
   an integer a, rounding a + X in this way gives a plus the rounded X: it needs to know nothing but a + X.
3. So per coordinate the noised sum is within the distances of 1 and 2 (and n times the sampler's) of post-processing of
   a + N(0, sigma² - r²), for vectors coordinate by coordinate, over T adaptive rounds T times that. Their total is the
   accountant's ``slack``; r = 3 makes eta 2**-255 and takes 9 from sigma², which is thousands or more in practice.

Shares of further survivors are independent noise on top, hence post-processing as well; so is the modulus of the
masks. The same holds for any sensitivity, so also for replace-one neighbours, and for a record that is in the sum only
sometimes: whatever a is, the noised sum is nearly post-processing of a + X.

**OpenDP.** One draw of N_Z(0, sigma²) by OpenDP's exact sampler, at an opener or a client, is step 2 alone
(:mod:`flbc.privacy.opendp`).
"""

from __future__ import annotations

import math

from ..errors import PrivacyConfigError
from .discrete import discrete_total_variation_bound
from .noise import MAX_SIGMA, total_variation_bound
from .spec import WHERES, Privacy, Sampler, Where, require_count

MIN_LOCAL_SIGMA = 5.0
"""Smallest deviation of one client's share, in integers: below it the sum of shares is not close enough (step 1)."""

ROUNDING_SIGMA = 3.0
"""r of step 2."""

_FLOAT_MARGIN = 1 - 2.0**-48
"""Multipliers are recomputed from sigma times this, so float64 rounding in sigma and its roots never flatters."""


def is_discrete(where: Where, sampler: Sampler) -> bool:
    """Return whether noise is discrete Gaussian; else it is a rounded Gaussian, which needs none of the above."""
    return where == "clients" or sampler == "opendp"


def noisy_parties(privacy: Privacy, min_survivors: int | None) -> int:
    """Return among how many clients the noise is divided: ``min_survivors - colluders``; 1 when it is not divided.

    Raises
    ------
    PrivacyConfigError
        If clients add the noise and ``min_survivors`` is missing, or leaves fewer than two honest ones.
    """
    if privacy.where != "clients":
        return 1
    if isinstance(min_survivors, bool) or not isinstance(min_survivors, int):
        raise PrivacyConfigError(
            f'min_survivors is {min_survivors!r}: with where="clients" pass the fewest clients whose sum is ever '
            "opened; the noise is divided among them"
        )
    honest = min_survivors - privacy.colluders
    if honest < 2:
        raise PrivacyConfigError(
            f"min_survivors={min_survivors} with colluders={privacy.colluders} leaves {max(honest, 0)} honest "
            f"client(s) to hide each other: raise min_survivors to at least {privacy.colluders + 2}, or lower colluders"
        )
    return honest


def check_parties(where: Where, parties: int) -> None:
    """Refuse a number of noisy parties that does not fit who adds the noise."""
    require_count("noisy_parties", parties)
    if where not in WHERES or (where == "clients") != (parties > 1):
        raise PrivacyConfigError(
            f"noise by {where!r} among {parties} parties: it is added by one opener, by every client for itself, or in "
            "shares by two or more clients; make the mechanism with plan()"
        )


def check_local_sigma(local_sigma: float) -> None:
    """Refuse shares that are too narrow for the proof above.

    Raises
    ------
    PrivacyConfigError
        If the deviation of one client's share is below 5 integers.
    """
    if not local_sigma >= MIN_LOCAL_SIGMA:
        raise PrivacyConfigError(
            f"each party would add noise of deviation {local_sigma:.3g} integers, and the accounting needs at least "
            f"{MIN_LOCAL_SIGMA:g}: use more bits in the codec, raise noise_multiplier, or lower min_survivors"
        )


def effective_multiplier(where: Where, sigma: float, sensitivity: float, sampler: Sampler = "rounded") -> float:
    """Return the multiplier of the continuous Gaussian mechanism behind the noise, rounded down."""
    return (continuous_sigma(sigma) if is_discrete(where, sampler) else sigma) / sensitivity * _FLOAT_MARGIN


def continuous_sigma(sigma: float) -> float:
    """Return the deviation of the continuous Gaussian of which discrete noise of deviation sigma is post-processing.

    Parameters
    ----------
    sigma : float
        Deviation of the sum of the honest shares, in integers; at least ``MIN_LOCAL_SIGMA * sqrt(2)``.

    Returns
    -------
    float
        sqrt(sigma² - 9), right to a few units in the last place.
    """
    return math.sqrt((sigma - ROUNDING_SIGMA) * (sigma + ROUNDING_SIGMA))


def discrete_sigma(continuous: float, parties: int) -> float:
    """Undo :func:`continuous_sigma`; never so small that one of the ``parties`` shares would be too narrow."""
    return max(math.hypot(continuous, ROUNDING_SIGMA), MIN_LOCAL_SIGMA * math.sqrt(parties) * (1 + 2.0**-40))


def distance(parties: int, local_sigma: float = MIN_LOCAL_SIGMA, rounding: float = ROUNDING_SIGMA) -> float:
    """Total variation distance of one coordinate's noise from post-processing of a Gaussian; steps 1 and 2.

    Parameters
    ----------
    parties : int
        Shares that are added.
    local_sigma : float (default: 5)
        Deviation of one share, at least. The bound for the smallest serves all, and underflows for none.
    rounding : float (default: 3)
        r of step 2.

    Returns
    -------
    float
        An upper bound.
    """
    pair, rounded = _eta(local_sigma / math.sqrt(2)), _eta(rounding)
    return ((parties - 1) * pair / (1 - pair) + rounded / (1 - rounded)) * (1 + 2.0**-40)


def slack(parties: int, dimension: int, sampler: Sampler = "rounded") -> float:
    """Total variation distance of one round's noise from post-processing of a Gaussian, sampling errors included.

    That of the largest sigma serves every sigma, so that it is known before sigma is.

    Parameters
    ----------
    parties : int
        Honest shares that make the noise, n; 1 for a rounded Gaussian of the opener, which *is* post-processing.
    dimension : int
        Coordinates, d.
    sampler : {"rounded", "opendp"} (default: "rounded")
        OpenDP's has no error of its own: the bound for ours is kept where there are shares, to have one for both.

    Returns
    -------
    float
        d tau, or d (n tau + distance): ``slack`` of :mod:`flbc.privacy.accountant`.
    """
    if parties == 1 and sampler == "opendp":
        return dimension * distance(1)
    if parties == 1:
        return dimension * total_variation_bound(MAX_SIGMA)
    return dimension * (parties * discrete_total_variation_bound(MAX_SIGMA) + distance(parties))


def _eta(s: float) -> float:
    """Bound eta(s) by a geometric series."""
    w = math.exp(-2 * math.pi**2 * s * s)
    return 2 * w / (1 - w)
