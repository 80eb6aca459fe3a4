"""The steps of a compiled model: plain data, which say nothing about whose weights are used.

Every value has a slot. Slot 0 is the input; a step reads slots that are filled and fills one of its own. Parameters are
named as in the state dict.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, TypeAlias

Pair: TypeAlias = tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """What all steps have.

    Parameters
    ----------
    inputs : tuple of int
        Slots that are read.
    output : int
        Slot that is filled.
    """

    op: ClassVar[str]

    inputs: tuple[int, ...]
    output: int

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters that are used."""
        return tuple(name for name in (getattr(self, "weight", None), getattr(self, "bias", None)) if name is not None)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, with the name of the operation."""
        return {"op": self.op, **asdict(self)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Linear(Step):
    """``x Wᵀ + b`` for x of shape (N, features)."""

    op: ClassVar[str] = "linear"

    weight: str
    bias: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Conv(Step):
    """Two-dimensional convolution.

    Parameters
    ----------
    padding : tuple of four int
        Zeros at the left, right, top and bottom.
    """

    op: ClassVar[str] = "conv"

    weight: str
    bias: str | None
    stride: Pair
    padding: tuple[int, int, int, int]
    dilation: Pair
    groups: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale(Step):
    """``x * scale + shift`` per channel: BatchNorm as clients fold it (:mod:`.folding`)."""

    op: ClassVar[str] = "scale"

    weight: str
    bias: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Relu(Step):
    """``max(x, 0)``."""

    op: ClassVar[str] = "relu"


@dataclass(frozen=True, kw_only=True, slots=True)
class MaxPool(Step):
    """Largest value of every window."""

    op: ClassVar[str] = "max_pool"

    kernel: Pair
    stride: Pair


@dataclass(frozen=True, kw_only=True, slots=True)
class AvgPool(Step):
    """Mean of every window, as its sum times ``factor / 2^shift``."""

    op: ClassVar[str] = "avg_pool"

    kernel: Pair
    stride: Pair
    factor: int
    shift: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Flatten(Step):
    """Everything but the samples becomes one axis."""

    op: ClassVar[str] = "flatten"


@dataclass(frozen=True, kw_only=True, slots=True)
class Add(Step):
    """Sum of two values of one shape."""

    op: ClassVar[str] = "add"
