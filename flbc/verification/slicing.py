"""Bits in slices: one bit of 64 values in a word, so that one instruction works on 64 of them.

Value ``64 c + r`` is bit r of word c. The rows of a matrix are sliced one by one, so that whole rows can be combined.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from .sharing import BLOCK, blocks

Words: TypeAlias = NDArray[np.uint64]

WIDTH = 64


@dataclass(frozen=True, slots=True)
class Bits:
    """A party's two shares of sliced bits.

    Parameters
    ----------
    own, next : ndarray of uint64
        Shares i and i + 1 of party i, of one shape; the last axis counts words.
    """

    own: Words
    next: Words

    def __xor__(self, other: Bits) -> Bits:
        return Bits(self.own ^ other.own, self.next ^ other.next)

    def __getitem__(self, place: int | slice) -> Bits:
        return Bits(self.own[place], self.next[place])


@dataclass(frozen=True, slots=True)
class Flags:
    """A shared bit for every element of a matrix.

    Parameters
    ----------
    rows : Bits
        Sliced row by row, shape (R, ⌈columns/64⌉); what lies beyond the columns is set, or is not looked at.
    columns : int
    """

    rows: Bits
    columns: int

    def unslice(self, words: Words) -> NDArray[np.uint8]:
        """Return one share as zeros and ones, shape (R, columns)."""
        packed = np.ascontiguousarray(words).astype("<u8", copy=False).view(np.uint8)
        return np.unpackbits(packed, axis=1, count=self.columns, bitorder="little")


def join(parts: Sequence[Bits]) -> Bits:
    """Put sharings one after another along their first axis."""
    return Bits(np.concatenate([part.own for part in parts]), np.concatenate([part.next for part in parts]))


def pieces(shape: Sequence[int]) -> Iterator[tuple[slice, slice]]:
    """Cut a matrix into pieces of at most :data:`.sharing.BLOCK` words: some whole rows, or a part of one."""
    height, width = shape
    rows = max(1, BLOCK // max(1, width))
    for top in range(0, height, rows):
        yield from ((slice(top, min(top + rows, height)), place) for place in blocks(width))


def planes(values: Words) -> Words:
    """Slice 64-bit values: plane k holds bit k of all.

    Parameters
    ----------
    values : ndarray of uint64, shape (64 m,)

    Returns
    -------
    ndarray of uint64, shape (64, m)
    """
    # By bytes first: these are fewer to move, and what packs bits reads a byte for each.
    made = np.empty((WIDTH, len(values) // 8), np.uint8)
    for place in blocks(len(values), 4 * BLOCK):  # few arrays at a time: larger pieces still fit the cache
        some = np.ascontiguousarray(values[place].astype("<u8", copy=False).view(np.uint8).reshape(-1, 8).T)
        target = slice(place.start // 8, place.stop // 8)
        for bit in range(8):
            made[bit::8, target] = np.packbits(some & np.uint8(1 << bit), axis=1, bitorder="little")
    return made.view("<u8").astype(np.uint64, copy=False)


def slice_rows(values: torch.Tensor) -> Words:
    """Slice a matrix of int64, shape (R, C), row by row; return shape (64, R ⌈C/64⌉)."""
    numbers, missing = values.contiguous().numpy().view(np.uint64), -values.shape[1] % WIDTH
    return planes((np.pad(numbers, ((0, 0), (0, missing))) if missing else numbers).reshape(-1))


def unslice(words: Words, count: int) -> torch.Tensor:
    """Return the first ``count`` bits of words as int64 zeros and ones."""
    return torch.from_numpy(Flags(Bits(words[None], words[None]), count).unslice(words[None])[0].astype(np.int64))
