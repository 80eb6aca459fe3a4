"""L2 clipping of a whole update: what keeps the sensitivity of the client unit true.

The norm runs over all arrays together, in float64. Clipped updates get a norm of ``clip_norm * (1 - 2**-40)`` at
most, so that the float64 rounding of norm, factor and product cannot carry the true norm above ``clip_norm`` (numpy
sums pairwise: its relative error stays far below 2**-40 for any model that fits in memory). Keep the result in
float64 until it is encoded: a cast to float32 would round the norm up again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import NonFiniteError
from .spec import require_positive

_HEADROOM = 1 - 2.0**-40


def clip_update(arrays: Mapping[str, NDArray[Any]], clip_norm: float) -> tuple[dict[str, NDArray[np.float64]], float]:
    """Scale an update so that its L2 norm is at most ``clip_norm``.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        The update ``new - global``, of any shapes and real dtypes.
    clip_norm : float
        Largest L2 norm over all arrays together, in parameter units.

    Returns
    -------
    clipped : dict of str to ndarray of float64
        New arrays of the same names and shapes.
    factor : float
        What they were multiplied by, in (0, 1]; 1.0 when the update was short enough (or zero). It depends on the data:
        keep it on the node.

    Raises
    ------
    NonFiniteError
        If a value is NaN or infinite; the message names the array and the index.
    PrivacyConfigError
        If ``clip_norm`` is not a finite number above 0.
    """
    require_positive("clip_norm", clip_norm, "an L2 norm in parameter units, for example 1.0")
    wide = {name: np.array(array, dtype=np.float64) for name, array in arrays.items()}
    for name, array in wide.items():
        finite = np.isfinite(array)
        if not finite.all():
            index = tuple(int(i) for i in np.argwhere(~finite)[0])
            raise NonFiniteError(
                f"array {name!r} holds NaN or infinity at index {index}: nothing was sent; lower the learning rate or "
                "check the data of this client"
            )
    largest = max((float(np.abs(array).max()) for array in wide.values() if array.size), default=0.0)
    if largest == 0:
        return wide, 1.0
    # Relative to the largest value, so that squares neither overflow nor vanish.
    relative = math.sqrt(sum(float(np.sum(np.square(array / largest))) for array in wide.values()))
    limit = clip_norm * _HEADROOM
    if relative <= limit / largest:
        return wide, 1.0
    factor = limit / largest / relative
    return {name: array * factor for name, array in wide.items()}, factor
