"""An engine that computes in the clear: the same integers as three parties, in one process.

It protects nothing: every value lies open. It is for tests and benchmarks, which compare three parties with it, and
for people who want to see what a policy would decide about models that they may see anyway.

Arithmetic wraps modulo 2^64 as shares do. Truncation rounds down exactly, where that of three parties is off by one at
most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch

from .engine import Bilinear, Linear


@dataclass(frozen=True, slots=True, eq=False)
class Clear:
    """A tensor that everybody may see.

    Parameters
    ----------
    values : Tensor of int64
        Fixed point or plain integers.
    """

    values: torch.Tensor

    def __post_init__(self) -> None:
        """Refuse floats, which would not wrap."""
        if self.values.dtype != torch.int64:
            raise TypeError(f"Values must be int64, got {self.values.dtype}: encode real numbers first")

    @property
    def shape(self) -> torch.Size:
        """Shape of the tensor."""
        return self.values.shape

    def __add__(self, other: Self) -> Self:
        return type(self)(self.values + other.values)

    def __sub__(self, other: Self) -> Self:
        return type(self)(self.values - other.values)

    def __neg__(self) -> Self:
        return type(self)(-self.values)

    def times(self, factor: int | torch.Tensor) -> Self:
        """Multiply by integers."""
        return type(self)(self.values * factor)

    def map(self, linear: Linear) -> Self:
        """Apply a linear function of the values, or one that only moves them."""
        return type(self)(linear(self.values))

    @classmethod
    def collect(cls, values: Sequence[Self], how: Callable[[list[torch.Tensor]], torch.Tensor]) -> Self:
        """Put several together, e.g. with ``torch.stack``."""
        return cls(how([value.values for value in values]))


class PlainEngine:
    """Fulfils :class:`.engine.Engine` without any messages, and without any protection. Flags are bool tensors."""

    def constant(self, values: torch.Tensor) -> Clear:
        """Return public values."""
        return Clear(values)

    def open(self, x: Clear) -> torch.Tensor:
        """Return the values."""
        return x.values

    # ------------------------------------------------------------------ arithmetic
    def product(self, f: Bilinear, x: Clear, y: Clear) -> torch.Tensor:
        """Return ``f(x, y)``, which is its only part."""
        return f(x.values, y.values)

    def reshare(self, part: torch.Tensor) -> Clear:
        """Make a value of its only part."""
        return Clear(part)

    def truncate_part(self, part: torch.Tensor, bits: int) -> Clear:
        """Make a value of its only part, divided by ``2^bits`` and rounded down."""
        return Clear(part >> bits)

    def truncate(self, x: Clear, bits: int) -> Clear:
        """Divide by ``2^bits``, rounded down."""
        return Clear(x.values >> bits)

    def multiply(self, x: Clear, y: Clear) -> Clear:
        """Return the elementwise product."""
        return Clear(x.values * y.values)

    # ------------------------------------------------------------------ comparisons
    def relu(self, x: Clear) -> Clear:
        """Return ``max(x, 0)``."""
        return Clear(x.values.clamp(min=0))

    def maximum(self, x: Clear, y: Clear) -> Clear:
        """Return the larger of two that differ by less than 2^63; others come out as wrongly as from three parties."""
        return y + self.relu(x - y)

    def not_negative(self, x: Clear) -> torch.Tensor:
        """Return which values of a matrix are at least zero, as bool of its shape."""
        if len(x.shape) != 2:
            raise ValueError(f"Expected a matrix, got shape {tuple(x.shape)}")
        return x.values >= 0

    def all_rows(self, flags: torch.Tensor) -> torch.Tensor:
        """Return for each column whether the flags of all R rows are set, shape (1, columns)."""
        return flags.all(dim=0, keepdim=True)

    def all_columns(self, flags: torch.Tensor) -> torch.Tensor:
        """Return for each row whether the flags of all columns are set, shape (R, 1)."""
        return flags.all(dim=1, keepdim=True)

    def select(self, flags: torch.Tensor, x: Clear) -> Clear:
        """Return x where a flag is set and 0 elsewhere; flags have the shape of x."""
        if flags.shape != x.shape:
            raise ValueError(f"Flags of shape {tuple(flags.shape)} do not fit values of shape {tuple(x.shape)}")
        return Clear(x.values * flags)
