"""Exact discrete Gaussian noise from OpenDP: an independent implementation, and much slower than ours.

OpenDP draws N_Z(0, sigma²) with rational arithmetic and its own CSPRNG (Canonne, Kamath & Steinke 2020, *The Discrete
Gaussian for Differential Privacy*, algorithm 3): no sampling error at all. It cannot be seeded, and nothing here tries
to. The accounting is step 2 of :mod:`flbc.privacy.distributed`: N_Z(0, sigma²) is within 2**-253 per coordinate, in
total variation, of post-processing of a continuous Gaussian of deviation sqrt(sigma² - 9).

Noise is drawn by adding it to zeros, because flbc adds it in the group of the hidden sum.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DependencyError, PrivacyConfigError
from .noise import MAX_SIGMA

MIN_SIGMA = 5.0
"""Smallest deviation: the accounting takes 9 from its square."""
_CHUNK = 1 << 16
"""Draws handled at once, to bound the memory of Python's integers."""


def opendp_gaussian(count: int, sigma: float) -> NDArray[np.int64]:
    """Draw integers from the discrete Gaussian N_Z(0, sigma²) with OpenDP.

    Parameters
    ----------
    count : int
        Number of draws, >= 0.
    sigma : float
        In integer units, in [5, 2**45].

    Returns
    -------
    ndarray of int64, shape (count,)

    Raises
    ------
    PrivacyConfigError
        If sigma or count is out of range.
    DependencyError
        If OpenDP is not installed.
    """
    if isinstance(sigma, bool) or not isinstance(sigma, (int, float)) or not MIN_SIGMA <= sigma <= MAX_SIGMA:
        raise PrivacyConfigError(
            f'noise deviation sigma is {sigma!r} integer units: with sampler="opendp" it must be from {MIN_SIGMA:g} to '
            "2**45; use more bits in the codec if it is too small, fewer if it is too large"
        )
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise PrivacyConfigError(f"count is {count!r}: pass the number of draws, an integer of 0 or more")
    dp = _opendp()
    space = dp.vector_domain(dp.atom_domain(T=dp.i64)), dp.l2_distance(T=dp.f64)
    measurement = dp.m.make_gaussian(*space, scale=float(sigma))
    draws = np.empty(count, np.int64)
    for start in range(0, count, _CHUNK):
        size = min(_CHUNK, count - start)
        draws[start : start + size] = measurement([0] * size)
    return draws


@lru_cache(maxsize=1)
def _opendp() -> Any:
    """Import OpenDP on first use, with the feature that its discrete Gaussian is filed under."""
    try:
        import opendp.prelude as dp
    except ImportError as error:
        raise DependencyError(
            f'sampler="opendp" draws noise with OpenDP, and {error.name or "it"} is missing where noise is added: '
            'pip install "flbc[opendp]", or leave sampler out'
        ) from error
    dp.enable_features("contrib")
    return dp
