"""Which numbers of a model are summed, and where each stands in the vector."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from ..crypto.signing import keccak256
from ..encoding import canonical
from ..errors import LayoutError, NonFiniteError

Kind = Literal["float", "integer", "frozen"]
Arrays = Mapping[str, NDArray[Any]]

#: Names under which PyTorch's normalisation layers keep running statistics.
RUNNING_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True, slots=True)
class Tensor:
    """One array of the model: its name, shape, dtype, and how it is summed."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    kind: Kind

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """The arrays of a model in a fixed order.

    Parameters
    ----------
    tensors : tuple of Tensor
        In the order of the model's ArrayRecord. ``"float"`` arrays are quantised, ``"integer"`` arrays are summed
        exactly, ``"frozen"`` arrays are not summed at all and keep their global value.
    """

    tensors: tuple[Tensor, ...]

    @classmethod
    def of(cls, arrays: Arrays, *, private: bool = False) -> Self:
        """Describe a model.

        Parameters
        ----------
        arrays : mapping of str to ndarray
            The global model, any shape including 0-d and empty.
        private : bool
            With differential privacy, integer buffers and running statistics are frozen (S18).

        Raises
        ------
        LayoutError
            If an array is neither floating-point nor integer.
        """
        return cls(tuple(Tensor(name, a.shape, str(a.dtype), _kind(name, a, private)) for name, a in arrays.items()))

    @cached_property
    def hash(self) -> bytes:
        """keccak-256 over names, shapes, dtypes and kinds in order."""
        return keccak256(canonical({"tensors": self.to_list()}))

    def to_list(self) -> list[list[Any]]:
        """Return name, shape, dtype and kind of every tensor as JSON values."""
        return [[t.name, list(t.shape), t.dtype, t.kind] for t in self.tensors]

    @classmethod
    def from_list(cls, entries: list[list[Any]]) -> Self:
        """Undo :meth:`to_list`."""
        return cls(tuple(Tensor(name, tuple(shape), dtype, kind) for name, shape, dtype, kind in entries))

    def of_kind(self, kind: Kind) -> list[Tensor]:
        """Return the tensors of one kind, in order."""
        return [tensor for tensor in self.tensors if tensor.kind == kind]

    def count(self, kind: Kind) -> int:
        """Return the number of elements of one kind."""
        return sum(tensor.size for tensor in self.of_kind(kind))

    def check(self, arrays: Arrays, *, what: str = "reply", partial: bool = False) -> None:
        """Raise unless ``arrays`` fits: same names, shapes and kinds of numbers, all finite.

        Parameters
        ----------
        arrays : mapping of str to ndarray
            What a training function returned.
        what : str
            Name of it, for the message.
        partial : bool
            Accept that names are missing (example unit: parameters that are not trained).

        Raises
        ------
        LayoutError
            Names the first array that does not fit.
        NonFiniteError
            Names the first array and index that hold NaN or infinity.
        """
        known = {tensor.name: tensor for tensor in self.tensors}
        unknown = [name for name in arrays if name not in known]
        missing = [name for name in known if name not in arrays]
        if unknown or (missing and not partial):
            raise LayoutError(
                f"The {what} must hold the same arrays as the global model; "
                f"unknown: {unknown[:5] or 'none'}, missing: {missing[:5] or 'none'}"
            )
        for name, array in arrays.items():
            tensor = known[name]
            if tensor.shape != array.shape:
                raise LayoutError(f"Array {name!r} of the {what} has shape {array.shape}, the model has {tensor.shape}")
            integer = tensor.kind == "integer"
            if array.dtype.kind not in ("iu" if integer else "fiu"):
                raise LayoutError(f"Array {name!r} of the {what} has dtype {array.dtype}, the model has {tensor.dtype}")
            check_finite(name, array, what)

    def float_slices(self) -> list[tuple[Tensor, slice]]:
        """Return the float tensors with their places in the flat float vector."""
        return _slices(self.of_kind("float"))

    def integer_slices(self) -> list[tuple[Tensor, slice]]:
        """Return the integer tensors with their places in the flat integer vector."""
        return _slices(self.of_kind("integer"))


def check_finite(name: str, array: NDArray[Any], what: str) -> None:
    """Raise :class:`NonFiniteError` naming the array and the first index that is not finite."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise NonFiniteError(
            f"Array {name!r} of the {what} holds NaN or infinity at index {index}; nothing was sent. "
            "Lower the learning rate or check the training data."
        )


def _kind(name: str, array: NDArray[Any], private: bool) -> Kind:
    if array.dtype.kind not in "fiu":
        raise LayoutError(
            f"Array {name!r} has dtype {array.dtype}; only floating-point and integer arrays can be summed"
        )
    if private and (array.dtype.kind != "f" or name.rsplit(".", 1)[-1] in RUNNING_STATISTICS):
        return "frozen"
    return "float" if array.dtype.kind == "f" else "integer"


def _slices(tensors: list[Tensor]) -> list[tuple[Tensor, slice]]:
    ends = np.cumsum([tensor.size for tensor in tensors], dtype=np.int64).tolist()
    return [(tensor, slice(end - tensor.size, end)) for tensor, end in zip(tensors, ends, strict=True)]
