"""BatchNorm as a scale and a shift, so that a model that is checked is the model that is summed.

In evaluation BatchNorm computes ``(x - mean) / sqrt(var + eps) * weight + bias``. Nodes cannot take that root on
shares, and running statistics that are summed on their own would let a client show one model and add another. So
clients fold the statistics into the layer's own parameters before they share them:

* ``weight`` becomes the scale ``weight / sqrt(var + eps)``,
* ``bias`` becomes the shift ``bias - mean * scale``,
* ``running_mean`` becomes 0 and ``running_var`` becomes ``1 - eps``, by which the layer computes what it did before.

Scales and shifts are shared, checked and summed like other weights; running statistics are public constants.

In evaluation a folded model is the same function; in training it is not: BatchNorm then normalises by the batch, and
the folded scale and shift come on top. Keep these layers in evaluation mode while training (``layer.eval()``; scale and
shift are trained all the same), or expect a jump at the start of every round.

Needs numpy alone: it runs in clients' mods, which load nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import LayoutError

Arrays: TypeAlias = Mapping[str, NDArray[Any]]

#: What PyTorch's BatchNorm adds to a variance by default. State dicts do not tell, so programs admit no other.
EPSILON = 1e-5
#: Members of a BatchNorm that are not shared.
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_MEMBERS = ("running_mean", "running_var", "weight", "bias")


def normalisations(arrays: Arrays) -> tuple[str, ...]:
    """Return the prefixes of all BatchNorm layers, each with its dot, in order; ``""`` if the model is one itself."""
    names = (name for name in arrays if name.rpartition(".")[2] == "running_mean")
    prefixes = (name.removesuffix("running_mean") for name in names)
    return tuple(prefix for prefix in prefixes if all(_floating(arrays, prefix + member) for member in _MEMBERS))


def summed(arrays: Arrays) -> tuple[str, ...]:
    """Return which arrays are shared and summed, in order: all floating-point ones but BatchNorm's statistics.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        A state dict.

    Raises
    ------
    LayoutError
        If there are integer buffers other than BatchNorm's own counter; names them.
    """
    frozen = {prefix + member for prefix in normalisations(arrays) for member in STATISTICS}
    names = tuple(name for name in arrays if name not in frozen)
    strange = [name for name in names if not _floating(arrays, name)]
    if strange:
        raise LayoutError(
            f"{', '.join(strange)}: integer buffers cannot be checked or summed on shares; make them no part of the "
            "state dict (register_buffer with persistent=False), or floating-point parameters"
        )
    return names


def fold(arrays: Arrays) -> dict[str, NDArray[Any]]:
    """Fold running statistics into the scales and shifts of their layers.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        A state dict. It is not changed.

    Returns
    -------
    dict of str to ndarray
        The same names, shapes and dtypes, in order. Folding it again changes nothing but roundings.

    Raises
    ------
    LayoutError
        If a variance is negative, a result is not finite, shapes contradict each other, or integer buffers are there.
    """
    summed(arrays)
    folded = dict(arrays)
    for prefix in normalisations(arrays):
        layer = prefix.removesuffix(".") or "the model"
        if len({arrays[prefix + member].shape for member in _MEMBERS}) != 1:
            raise LayoutError(f"{layer}: the running statistics and the weights of a BatchNorm must have one shape")
        mean, variance, weight, bias = (np.asarray(arrays[prefix + member], np.float64) for member in _MEMBERS)
        with np.errstate(all="ignore"):
            scale = weight / np.sqrt(variance + EPSILON)
            made = {
                "running_mean": np.zeros_like(mean),
                "running_var": np.full_like(variance, 1.0 - EPSILON),
                "weight": scale,
                "bias": bias - mean * scale,
            }
            fresh = {member: made[member].astype(arrays[prefix + member].dtype) for member in _MEMBERS}
        if not all(np.isfinite(array).all() for array in fresh.values()):
            raise LayoutError(
                f"{layer}: its running variance is negative or not finite, or its scale is too large; "
                "train from a model that is sane"
            )
        folded.update({prefix + member: array for member, array in fresh.items()})
    return folded


def _floating(arrays: Arrays, name: str) -> bool:
    return name in arrays and np.issubdtype(arrays[name].dtype, np.floating)
