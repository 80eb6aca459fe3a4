r"""Rounded Gaussian noise from the operating system's CSPRNG, with a proven sampling error.

Noise is added to a *sum of integers*, so what is needed is N(0, sigma²) rounded half up to an integer: rounding
commutes with adding integers, hence the rounded mechanism is post-processing of the continuous Gaussian mechanism and
inherits its exact guarantee. A float sampler is not good enough for that: the 53-bit inverse CDF of a Gaussian is off
by about ``sigma * 2**-52`` in total variation per draw, and its unreachable values are themselves an attack (Mironov
2012, *On significance of the least significant bits for differential privacy*). Here:

1. One 64-bit word gives the sign and 63 bits m of a half-tail uniform ``U = (m + V) / 2**64`` in (0, 1/2), where the
   bits of V are not drawn yet.
2. Fast path: ``g = sigma * ndtri((m + 1/2) / 2**64)``. If ``g`` is further from every rounding edge (an integer plus
   1/2) than the error bound below, all values of V round to the same integer, which is the answer.
3. Otherwise (a doubtful draw, or the far tail ``U < 2**-50``, where 63 bits are too coarse) 192 more bits of U are
   drawn, and U is compared with the exact ``Phi(edge / sigma)`` in 320-bit arithmetic.

**Error bound of the fast path.** Write u for the float. (a) ``|u - U| <= 2**-64 + u * 2**-51`` covers the undrawn V,
the rounding of m and of m + 1/2. (b) The derivative of Phi^-1 at u is 1/phi(z). I(u) = phi(Phi^-1(u)) is concave with
I(0) = 0 and rises on (0, 1/2), so between u and U it is at least (1 - |u - U|/u) I(u) > I(u)/2 for u >= 2**-50; the
factor 2 also absorbs the rounding of exp(z²/2). (c) ``ndtri`` is taken to be right to 2**-47 relative; Cephes
documents a peak of 7.2e-16 = 2**-50.3 (ndtri.c, 70,000 trials), our tests measure the same against MPFR, and the
first use of this module checks 75 points, refusing to sample on a platform where it is not so. (d) The product with
sigma and the addition of 1/2 round by at most |g| 2**-52. Altogether ``|g - X| <= sigma * (2 |u - U| / phi(z) + |z|
2**-47) + |g| 2**-52 + 2**-53``, and twice that is kept as distance.

Sampling time varies by microseconds with the number of doubtful draws. Whoever adds the noise should not let others
time a single draw; timing of whole vectors reveals the number of doubtful draws only.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import gmpy2
import numpy as np
from numpy.typing import NDArray

from ..errors import PrivacyConfigError

MAX_SIGMA = 2.0**45
"""Largest standard deviation: beyond it the sum with its noise would not fit in 64 bits with room to spare."""

_PRECISION = 320
_EXTRA = 24
"""Bytes drawn to complete a doubtful 63-bit uniform to 256 bits."""
_NDTRI_ERROR = 2.0**-47
_TAIL = 2.0**-50
_CHUNK = 1 << 18
"""Draws handled at once, to bound memory."""


def rounded_gaussian(count: int, sigma: float, random_bytes: Callable[[int], bytes] = os.urandom) -> NDArray[np.int64]:
    """Draw integers distributed as round-half-up of N(0, sigma²).

    Parameters
    ----------
    count : int
        Number of draws, >= 0.
    sigma : float
        Standard deviation of the continuous Gaussian, in integer units; in (0, 2**45].
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
    _check_ndtri()
    draws = np.empty(count, dtype=np.int64)
    for start in range(0, count, _CHUNK):
        stop = min(start + _CHUNK, count)
        words = np.frombuffer(take_bytes(random_bytes, 8 * (stop - start)), dtype="<u8").astype(np.uint64)
        negative = words >> np.uint64(63) == 1
        mantissa = words & np.uint64((1 << 63) - 1)
        lower, doubtful = _fast(mantissa, sigma)
        indices = np.flatnonzero(doubtful)
        extra = take_bytes(random_bytes, _EXTRA * len(indices))
        for j, i in enumerate(indices):
            bits = int.from_bytes(extra[_EXTRA * j : _EXTRA * (j + 1)], "big")
            lower[i] = _exact(int(mantissa[i]), bits, sigma)
        draws[start:stop] = np.where(negative, lower, -lower)
    return draws


def total_variation_bound(sigma: float) -> float:
    r"""Bound on the total variation distance between one draw and the ideal rounded Gaussian.

    Draws decided by the fast path are exact. A doubtful one knows U up to 2**-256, compared at 320 bits (relative
    error of erfc, its argument included, below 2**-300). It is decided wrongly only if some edge's Phi(edge/sigma)
    lies in that cell, widened by the comparison: at most 2**-255 wide. Given the sign, U has density 2 on (0, 1/2),
    so each edge is hit with probability at most 2**-254; the half-tail has at most 20 sigma + 1 edges above -20
    sigma, and everything below that has mass 2 Phi(-20) < 2**-292. Hence tau <= (20 sigma + 1) 2**-254 + 2**-292 <
    (20 sigma + 2) 2**-254.

    Parameters
    ----------
    sigma : float
        Standard deviation in integer units; in (0, 2**45].

    Returns
    -------
    float
        tau, without unit. A vector of d draws in T rounds is within T d tau of ideal, which adds at most
        T d (1 + e^epsilon) tau to delta.

    Raises
    ------
    PrivacyConfigError
        If sigma is out of range.
    """
    _check_sigma(sigma)
    return (20.0 * sigma + 2.0) * 2.0**-254


def _fast(mantissa: NDArray[np.uint64], sigma: float) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the candidate integer of the lower half (<= 0) of every draw, and which ones need the exact path."""
    from scipy.special import ndtri

    u = (mantissa.astype(np.float64) + 0.5) * 2.0**-64
    z = np.asarray(ndtri(u), dtype=np.float64)
    g = sigma * z
    candidate = np.floor(g + 0.5)
    uniform_error = 2.0**-64 + u * 2.0**-51
    inverse_density = math.sqrt(2 * math.pi) * np.exp(z * z / 2)
    error = sigma * (2 * uniform_error * inverse_density + np.abs(z) * _NDTRI_ERROR) + np.abs(g) * 2.0**-52 + 2.0**-53
    distance = 0.5 - np.abs(g - candidate)
    # Written so that a NaN counts as doubtful.
    sure = (distance > 2 * error) & (u >= _TAIL)
    return candidate.astype(np.int64), ~sure


def _exact(mantissa: int, bits: int, sigma: float) -> int:
    """Decide one draw of the lower half from 63 + 192 bits of its uniform, whatever the fast path thought."""
    from scipy.special import ndtri

    with gmpy2.context(precision=_PRECISION):
        # The middle of the 256-bit cell: never 0, so the loops end even for all-zero bits (|z| < 19).
        u = (gmpy2.mpfr((mantissa << 8 * _EXTRA) + bits) + 0.5) / gmpy2.exp2(256)
        root2 = gmpy2.sqrt(gmpy2.mpfr(2))
        # One Newton step takes the float start to about 2**-90, enough to guess the integer even for sigma = 2**45.
        z = gmpy2.mpfr(float(ndtri(float(u))))
        z += (u - gmpy2.erfc(-z / root2) / 2) * gmpy2.sqrt(2 * gmpy2.const_pi()) * gmpy2.exp(z * z / 2)
        k = min(0, int(gmpy2.floor(z * sigma + 0.5)))
        # The guess is only a start: the result is right because these comparisons say so.
        while u >= _phi(k, 1, sigma, root2):
            k += 1
        while u < _phi(k, -1, sigma, root2):
            k -= 1
        return k


def _phi(k: int, side: int, sigma: float, root2: Any) -> Any:
    """Phi((k + side/2) / sigma) in the current MPFR context."""
    return gmpy2.erfc(-(gmpy2.mpfr(2 * k + side) / 2) / gmpy2.mpfr(sigma) / root2) / 2


@lru_cache(maxsize=1)
def _check_ndtri() -> None:
    """Compare this platform's ``ndtri`` with MPFR once, and refuse to sample if it breaks the proof's assumption."""
    from scipy.special import ndtri

    with gmpy2.context(precision=160):
        root2 = gmpy2.sqrt(gmpy2.mpfr(2))
        for step in range(75):
            u = 2.0 ** -(1.003 + step * 2 / 3)  # 0.499 down to 2**-50
            z = gmpy2.mpfr(float(ndtri(u)))
            density = gmpy2.exp(-z * z / 2) / gmpy2.sqrt(2 * gmpy2.const_pi())
            if not abs(gmpy2.erfc(-z / root2) / 2 - gmpy2.mpfr(u)) < abs(z) * density * _NDTRI_ERROR:
                raise PrivacyConfigError(
                    "scipy.special.ndtri is less accurate on this platform than the noise sampler's proof allows, so "
                    "no noise is drawn: install a current scipy release and run the tests in tests/privacy"
                )


def take_bytes(random_bytes: Callable[[int], bytes], size: int) -> bytes:
    """Return ``size`` bytes of the source of randomness; refuse another number of them."""
    data = random_bytes(size) if size else b""
    if len(data) != size:
        raise PrivacyConfigError(
            f"the source of randomness returned {len(data)} bytes instead of {size}: use os.urandom or another CSPRNG"
        )
    return data


def _check_sigma(sigma: float) -> None:
    if isinstance(sigma, bool) or not isinstance(sigma, (int, float)) or not 0 < sigma <= MAX_SIGMA:
        raise PrivacyConfigError(
            f"noise deviation sigma is {sigma!r} integer units: it must be above 0 and at most 2**45; coarsen the "
            "codec (fewer bits) or lower the noise multiplier"
        )
