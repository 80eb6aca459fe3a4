r"""Discrete Gaussian noise N_Z(0, sigma²) from the operating system's CSPRNG, with a proven sampling error.

The discrete Gaussian has probability p(x) proportional to ``exp(-x²/(2 sigma²))`` on the integers (Canonne, Kamath &
Steinke 2020, *The Discrete Gaussian for Differential Privacy*). Unlike a rounded Gaussian, sums of it are again very
nearly discrete Gaussian, which is what noise of several clients needs (:mod:`flbc.privacy.distributed`).

**Rejection.** The proposal x is :func:`~flbc.privacy.noise.rounded_gaussian`: ``q(x) = Phi((x + 1/2)/sigma) - Phi((x -
1/2)/sigma)``. With t the offset in the cell, and v = 2t, u = x/(2 sigma²),

    q(x) = density(x) A(x),    A(x) = mean over |v| <= 1 of exp(-v²/(8 sigma²)) cosh(u v).

So p/q is proportional to 1/A. cosh rises with |u|, hence A rises with |x|, and ``a(x) = A(0)/A(x)`` is in (0, 1], 1 at
x = 0, and falling in |x|: accepting x with probability a(x) gives exactly p. A proposal is accepted with probability
``sum q a = A(0) sum density(x) >= A(0) >= exp(-1/(24 sigma²)) > 0.98`` for sigma >= 2 (Poisson summation; Jensen).

**Deciding.** x is rejected when a uniform U in (0, 1) is below ``r(x) = 1 - a(x)``. Since ``cosh(u v) - 1 <= v² (cosh u
- 1)`` for |v| <= 1, and v² has a mean of at most 1/3 under the falling weight exp(-v²/(8 sigma²)),

    r(x) <= (A(x) - A(0)) / A(0) <= (cosh u - 1)/3 = (2/3) sinh(u/2)².

A draw whose first 64 bits of U already exceed this bound, enlarged by 1/1000 for the floats that it is computed with,
is accepted. For the others, about 1/(24 sigma²) of all, 192 more bits of U are drawn and compared with the exact r(x)
in 400-bit arithmetic. No float decides anything else.

As in :mod:`flbc.privacy.noise`, time varies with the number of draws that need the long way: do not let others time
single draws.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import gmpy2
import numpy as np
from numpy.typing import NDArray

from ..errors import PrivacyConfigError
from .noise import MAX_SIGMA, rounded_gaussian, take_bytes, total_variation_bound

MIN_SIGMA = 2.0
"""Smallest standard deviation: the bound on the acceptance above needs it."""

_PRECISION = 400
_EXTRA = 24
"""Bytes drawn to complete a 64-bit uniform to 256 bits."""
_MARGIN = 1.001
"""The float bound on r(x) is a handful of operations, each right to far better than this."""
_CHUNK = 1 << 18
"""Draws handled at once, to bound memory."""


def discrete_gaussian(count: int, sigma: float, random_bytes: Callable[[int], bytes] = os.urandom) -> NDArray[np.int64]:
    """Draw integers from the discrete Gaussian N_Z(0, sigma²).

    Parameters
    ----------
    count : int
        Number of draws, >= 0.
    sigma : float
        Parameter of the distribution in integer units, in [2, 2**45]; also its standard deviation, to within 1e-31.
    random_bytes : callable (default: os.urandom)
        ``random_bytes(n)`` returns n bytes of a CSPRNG. Anything else voids the guarantee; tests pass known bytes.

    Returns
    -------
    ndarray of int64, shape (count,)

    Raises
    ------
    PrivacyConfigError
        If sigma or count is out of range, or this platform's ``ndtri`` is not accurate enough to sample safely.
    """
    _check_sigma(sigma)
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise PrivacyConfigError(f"count is {count!r}: pass the number of draws, an integer of 0 or more")
    draws = np.empty(count, dtype=np.int64)
    filled = 0
    while filled < count:
        proposals = rounded_gaussian(min(count - filled, _CHUNK), sigma, random_bytes)
        kept = proposals[_accepted(proposals, sigma, random_bytes)]
        draws[filled : filled + len(kept)] = kept
        filled += len(kept)
    return draws


def discrete_total_variation_bound(sigma: float) -> float:
    r"""Bound on the total variation distance between one draw and the ideal discrete Gaussian.

    Run the sampler beside an ideal one. They part at a proposal only if it comes out differently, at most
    tau_q = :func:`~flbc.privacy.noise.total_variation_bound`, or is decided differently, at most tau_a. A proposal is
    accepted with probability above 1/2, so fewer than two are expected, and tau <= 2 (tau_q + tau_a).

    tau_a: the long way knows U up to a cell of 2**-256. Its r(x) is right to 2**-300: |x| <= 19 sigma + 1, where
    rounding the argument of erfc costs at most 2**9 units in the last place, the difference of two values of erfc at
    most 2**46 (for sigma = 2**45), and exp(-x²/(2 sigma²)) at most 2**8, of 400 bits. So tau_a <= 2**-256 + 2**-299 <
    2**-255, and with tau_q = (20 sigma + 2) 2**-254, tau <= (40 sigma + 5) 2**-254.

    Parameters
    ----------
    sigma : float
        In [2, 2**45].

    Returns
    -------
    float
        tau, without unit.

    Raises
    ------
    PrivacyConfigError
        If sigma is out of range.
    """
    _check_sigma(sigma)
    return 2 * total_variation_bound(sigma) + 2.0**-254


def _accepted(x: NDArray[np.int64], sigma: float, random_bytes: Callable[[int], bytes]) -> NDArray[np.bool_]:
    """Decide every proposal; see the module docstring."""
    words = np.frombuffer(take_bytes(random_bytes, 8 * len(x)), dtype="<u8")
    half = np.abs(x).astype(np.float64) / (4 * sigma * sigma)
    bound = np.sinh(half) ** 2 * (2 / 3 * _MARGIN)
    # Written so that a NaN counts as not sure.
    accepted = words.astype(np.float64) * 2.0**-64 > bound
    doubtful = np.flatnonzero(~accepted)
    extra = take_bytes(random_bytes, _EXTRA * len(doubtful))
    magnitudes, which = np.unique(np.abs(x[doubtful]), return_inverse=True)
    # For a small sigma many draws share few magnitudes, and a threshold takes half a millisecond.
    thresholds = [_threshold(int(magnitude), sigma) for magnitude in magnitudes]
    for j, (i, t) in enumerate(zip(doubtful, which, strict=True)):
        bits = int.from_bytes(extra[_EXTRA * j : _EXTRA * (j + 1)], "big")
        accepted[i] = (int(words[i]) << 8 * _EXTRA) + bits >= thresholds[t]
    return accepted


def _threshold(x: int, sigma: float) -> int:
    """Return r(x) as a 256-bit integer, rounded up: reject uniforms below it."""
    with gmpy2.context(precision=_PRECISION):
        return int(gmpy2.ceil((1 - acceptance(x, sigma)) * gmpy2.exp2(256)))


def acceptance(x: int, sigma: float) -> Any:
    """Return a(x) = p(x) q(0) / (p(0) q(x)) as an MPFR number of the current context's precision."""
    s = gmpy2.mpfr(sigma)
    root8 = gmpy2.sqrt(gmpy2.mpfr(8))

    def cell(k: int) -> Any:
        return gmpy2.erfc((2 * k - 1) / (root8 * s)) - gmpy2.erfc((2 * k + 1) / (root8 * s))

    return gmpy2.exp(-gmpy2.mpfr(x * x) / (2 * s * s)) * cell(0) / cell(abs(x))


def _check_sigma(sigma: float) -> None:
    if isinstance(sigma, bool) or not isinstance(sigma, (int, float)) or not MIN_SIGMA <= sigma <= MAX_SIGMA:
        raise PrivacyConfigError(
            f"discrete noise deviation sigma is {sigma!r} integer units: it must be at least {MIN_SIGMA:g} and at most "
            f"2**{math.log2(MAX_SIGMA):g}; use more bits in the codec if it is too small, fewer if it is too large"
        )
