"""How the public range of a tensor follows its updates.

A range that follows the *mean* update is wrong where clients differ: means shrink as training converges, single updates
do not, and they are cut off. So every client says, inside the hidden sum, in which power of two below the range its
largest coordinate lies: a one in one of :data:`MARKS` coordinates per tensor. Opened, that is a histogram over clients,
and the next range is a factor above its largest entry. It does not say whose entry is whose; for an array of a single
number it is a histogram of that number's magnitude, in powers of two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

#: Coordinates per tensor: beyond the range; then powers of two down to 2^-14 of it and all below.
MARKS = 16
#: What "beyond the range" is taken to be, in ranges; the next round corrects it.
BEYOND = 4.0
#: A range stays within these multiples of the initial one; growing back from the smallest takes few rounds.
SMALLEST, LARGEST = 2.0**-24, 2.0**64


def mark(scaled: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return a one-hot vector, shape (MARKS,), for values in units of the range, shape (n,)."""
    largest = float(np.abs(scaled).max(initial=0.0))
    marks = np.zeros(MARKS, np.int64)
    if largest > 1:
        marks[0] = 1
    else:
        power = math.floor(-math.log2(largest)) if largest > 0 else MARKS
        marks[min(1 + power, MARKS - 1)] = 1
    return marks


def largest_of(marks: NDArray[np.int64]) -> float:
    """Return an upper bound of the largest coordinate of any client, in units of the range (1 if nobody said)."""
    said = np.flatnonzero(marks)
    if not said.size:
        return 1.0
    return BEYOND if said[0] == 0 else 2.0 ** (1 - int(said[0]))


def next_ranges(old: Sequence[float], largest: Sequence[float], factor: float, initial: float) -> tuple[float, ...]:
    """Return ``factor * largest`` in absolute units, within bounds."""
    bounds = SMALLEST * initial, LARGEST * initial
    return tuple(
        min(max(factor * size * limit, bounds[0]), bounds[1]) for limit, size in zip(old, largest, strict=True)
    )
