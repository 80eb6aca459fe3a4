"""What checks and compiled models need of whoever computes: on shares among three, or in the clear for comparison.

Programs (:mod:`.program`) and checks (:mod:`.checks`) are written once against :class:`Engine`. Three parties run them
on shares (:class:`flbc.verification.bits.ComparingParty`); one process runs the same lines on plain integers
(:class:`flbc.verification.plain.PlainEngine`), which tests and benchmarks compare with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self, TypeAlias

import torch

from .policy import FRACTION as FRACTION
from .policy import SUM_FRACTION as SUM_FRACTION

Linear: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
Bilinear: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Value(Protocol):
    """A tensor of int64 modulo 2^64 that an engine computes with."""

    @property
    def shape(self) -> torch.Size:
        """Shape, public."""
        ...

    def __add__(self, other: Self) -> Self: ...

    def __sub__(self, other: Self) -> Self: ...

    def __neg__(self) -> Self: ...

    def times(self, factor: int | torch.Tensor) -> Self:
        """Multiply by public integers."""
        ...

    def map(self, linear: Linear) -> Self:
        """Apply a linear function over Z_2^64, or one that only moves values."""
        ...


class Engine(Protocol):
    """Computes on tensors that it may not see. Operations that take messages say how many follow on each other."""

    def constant(self, values: torch.Tensor) -> Any:
        """Return public values."""
        ...

    def open(self, x: Any) -> torch.Tensor:
        """Return values in the clear; 1 message."""
        ...

    def product(self, f: Bilinear, x: Any, y: Any) -> torch.Tensor:
        """Return a part of ``f(x, y)``, for :meth:`reshare` or :meth:`truncate_part`; parts may be added up."""
        ...

    def reshare(self, part: torch.Tensor) -> Any:
        """Make a value of parts; 1 message."""
        ...

    def truncate_part(self, part: torch.Tensor, bits: int) -> Any:
        """Make a value of parts, divided by ``2^bits``, off by at most one; 2 messages."""
        ...

    def truncate(self, x: Any, bits: int) -> Any:
        """Divide by ``2^bits``, off by at most one; 1 message."""
        ...

    def multiply(self, x: Any, y: Any) -> Any:
        """Return the elementwise product; 1 message."""
        ...

    def relu(self, x: Any) -> Any:
        """Return ``max(x, 0)``; 9 messages."""
        ...

    def maximum(self, x: Any, y: Any) -> Any:
        """Return the larger of two that differ by less than 2^63; 9 messages."""
        ...

    def not_negative(self, x: Any) -> Any:
        """Return which values of a matrix are at least zero, as flags of its shape; 7 messages."""
        ...

    def all_rows(self, flags: Any) -> Any:
        """Return for each column whether the flags of all R rows are set, as one row; ⌈log2 R⌉ messages."""
        ...

    def all_columns(self, flags: Any) -> Any:
        """Return for each row whether the flags of all columns are set, as one column; ⌈log2 columns⌉ messages."""
        ...

    def select(self, flags: Any, x: Any) -> Any:
        """Return x where a flag is set and 0 elsewhere; 2 messages."""
        ...


def stack(values: Sequence[Any], dim: int = 0) -> Any:
    """Stack values of one shape along a new axis."""
    return type(values[0]).collect(values, lambda tensors: torch.stack(tensors, dim))


def concatenate(values: Sequence[Any], dim: int = 0) -> Any:
    """Put values one after another along an axis."""
    return type(values[0]).collect(values, lambda tensors: torch.cat(tensors, dim))
