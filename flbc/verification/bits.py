"""Comparisons on shared values: signs by a carry tree on bits, and what is selected with them (ABY3, sections 4 and 5).

Bits are shared like numbers, with exclusive or for the sum: ``b = b_0 ^ b_1 ^ b_2``, party i holds ``(b_i, b_{i+1})``.
They are *sliced*: bit k of 64 values lies in one word, so that one instruction works on 64 of them; value ``64 c + r``
is bit r of word c (the rows of a matrix are sliced one by one, so that whole rows can be combined). An "and" is a
message each, exclusive or and "not" are none.

The sign of ``x = (x_0 + x_1) + x_2`` is that of a sum of two numbers, of which party 0 knows the first and parties 1
and 2 the second. Its carry takes 6 levels of "and" on 64 bits, with one "and" and one shared input before: 8 messages
in a row. That is the full width of the ring, so that no value, however large, is compared wrongly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import LinkError
from .link import PARTIES
from .sharing import BLOCK, ArithmeticParty, Shared, blocks

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

    def unslice(self, words: Words) -> torch.Tensor:
        """Return one share as int64 zeros and ones, shape (R, columns)."""
        packed = np.ascontiguousarray(words).astype("<u8", copy=False).view(np.uint8)
        return torch.from_numpy(np.unpackbits(packed, axis=1, count=self.columns, bitorder="little").astype(np.int64))


def join(parts: Sequence[Bits]) -> Bits:
    """Put sharings one after another along their first axis."""
    return Bits(np.concatenate([part.own for part in parts]), np.concatenate([part.next for part in parts]))


def pieces(shape: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """Cut an array of one or two axes into pieces of at most :data:`.sharing.BLOCK` words: whole rows, or one's parts."""
    *_, width = shape
    if len(shape) == 1:
        yield from ((place,) for place in blocks(width))
        return
    rows = max(1, BLOCK // max(1, width))
    for top in range(0, shape[0], rows):
        yield from ((slice(top, top + rows), place) for place in blocks(width))


def planes(values: Words) -> Words:
    """Slice 64-bit values: bit r of word c of plane k is bit k of value ``64 c + r``.

    Parameters
    ----------
    values : ndarray of uint64, shape (64 m,)

    Returns
    -------
    ndarray of uint64, shape (64, m)
    """
    # By bytes first: these are fewer to move, and what packs bits reads a byte for each.
    made = np.empty((WIDTH, len(values) // 8), np.uint8)
    for place in blocks(len(values)):
        some = np.ascontiguousarray(values[place].astype("<u8", copy=False).view(np.uint8).reshape(-1, 8).T)
        target = slice(place.start // 8, place.stop // 8)
        for bit in range(8):
            made[bit::8, target] = np.packbits(some & np.uint8(1 << bit), axis=1, bitorder="little")
    return made.view("<u8").astype(np.uint64, copy=False)


def unslice(words: Words, count: int) -> torch.Tensor:
    """Return the first ``count`` bits as int64 zeros and ones."""
    return Flags(Bits(words[None], words[None]), count).unslice(words[None])[0]


class ComparingParty(ArithmeticParty):
    """A party that can compare as well; its parameters are those of :class:`.sharing.ArithmeticParty`."""

    # ------------------------------------------------------------------ bits
    def _words(self, shape: Sequence[int], own: bool) -> Words:
        words = np.empty(tuple(shape), np.uint64)
        (self._own if own else self._next).read_into(words)
        return words

    def _send_words(self, to: int, words: Words) -> None:
        self.link.send(to, words.astype("<u8", copy=False).tobytes())

    def _recv_words(self, sender: int, shape: Sequence[int]) -> Words:
        data, size = self.link.recv(sender), 8 * int(np.prod(shape, dtype=np.int64))
        if len(data) != size:
            raise LinkError(f"Party {sender} sent {len(data)} bytes where {size} were agreed; it is given up")
        return np.frombuffer(data, "<u8").astype(np.uint64, copy=False).reshape(tuple(shape))

    def both(self, x: Bits, y: Bits) -> Bits:
        """Return ``x and y``; one message each."""
        return self.all_of([(x, y)])

    def all_of(self, pairs: Sequence[tuple[Bits, Bits]]) -> Bits:
        """Return ``x and y`` of several pairs, one after another along their first axis; one message each."""
        first, *rest = (x.own.shape for x, _ in pairs)
        part = np.empty((first[0] + sum(shape[0] for shape in rest), *first[1:]), np.uint64)
        start = 0
        for x, y in pairs:
            self._and(x, y, part[start : start + len(x.own)])
            start += len(x.own)
        self._send_words(self.before, part)
        return Bits(part, self._recv_words(self.after, part.shape))

    def _and(self, x: Bits, y: Bits, part: Words) -> None:
        """Fill in this party's part of ``x and y``, of which the three make up the whole."""
        for place in pieces(part.shape):
            a, b, c, d = x.own[place], x.next[place], y.own[place], y.next[place]
            mine = (a & (c ^ d)) ^ (b & c)
            mine ^= self._words(mine.shape, own=True)
            mine ^= self._words(mine.shape, own=False)
            part[place] = mine

    def invert(self, x: Bits) -> Bits:
        """Return ``not x``: share 0 is flipped."""
        return Bits(~x.own if self.rank == 0 else x.own, ~x.next if self.rank == PARTIES - 1 else x.next)

    def open_bits(self, x: Bits, count: int) -> torch.Tensor:
        """Return the first ``count`` bits, to all three; one message each."""
        self._send_words(self.after, x.own)
        return unslice(x.own ^ x.next ^ self._recv_words(self.before, x.own.shape), count)

    # ------------------------------------------------------------------ comparisons
    def negative(self, x: Shared) -> Bits:
        """Return which values are below zero, as ⌈n/64⌉ words; 8 messages in a row."""
        return self._negative(x.map(lambda t: t.reshape(1, -1)))[0]

    def not_negative(self, x: Shared) -> Flags:
        """Return which values of a matrix are at least zero; 8 messages in a row."""
        if len(x.shape) != 2:
            raise ValueError(f"Expected a matrix, got shape {tuple(x.shape)}")
        return Flags(self.invert(self._negative(x)), x.shape[1])

    def all_rows(self, flags: Flags) -> Flags:
        """Return for each column whether the flags of all R rows are set, as one row; ⌈log2 R⌉ messages in a row."""
        rows = flags.rows
        while (count := len(rows.own)) > 1:
            half = count // 2
            rows = join([self.both(rows[:half], rows[half : 2 * half]), rows[2 * half :]])
        return Flags(rows, flags.columns)

    def all_columns(self, flags: Flags) -> Flags:
        """Return for each row whether the flags of all columns are set; ⌈log2 words⌉ + 6 messages in a row."""
        words = Bits(flags.rows.own.T, flags.rows.next.T)
        while (count := len(words.own)) > 1:
            half = count // 2
            words = join([self.both(words[:half], words[half : 2 * half]), words[2 * half :]])
        step = WIDTH // 2
        while step:
            shift = np.uint64(step)
            words = self.both(words, Bits(words.own >> shift, words.next >> shift))
            step //= 2
        return Flags(Bits(words.own.T, words.next.T), 1)

    def _negative(self, x: Shared) -> Bits:
        first, second = self._two_summands(x)
        propagate = first ^ second
        top = propagate[WIDTH - 1]
        sign = top ^ self._carry(propagate[: WIDTH - 1], self.both(first[: WIDTH - 1], second[: WIDTH - 1]))
        rows = x.shape[0]
        return Bits(sign.own.reshape(rows, -1), sign.next.reshape(rows, -1))

    def _two_summands(self, x: Shared) -> tuple[Bits, Bits]:
        """Share the bits of ``x_0 + x_1`` and of ``x_2``, sliced row by row."""
        rows, columns = x.shape
        wide = -(-columns // WIDTH)
        words = rows * wide
        nothing = np.zeros((WIDTH, words), np.uint64)

        def sliced(values: torch.Tensor) -> Words:
            numbers = values.numpy().view(np.uint64)
            if columns % WIDTH:
                numbers = np.pad(numbers, ((0, 0), (0, WIDTH * wide - columns)))
            return planes(numbers.reshape(-1))

        if self.rank == 0:
            mask = self._words((WIDTH, words), own=True)
            rest = sliced(x.own + x.next) ^ mask
            self._send_words(1, rest)
            return Bits(mask, rest), Bits(nothing, nothing)
        if self.rank == 1:
            return Bits(self._recv_words(0, (WIDTH, words)), nothing), Bits(nothing, sliced(x.next))
        return Bits(nothing, self._words((WIDTH, words), own=False)), Bits(sliced(x.own), nothing)

    def _carry(self, propagate: Bits, generate: Bits) -> Bits:
        """Return the carry out of the highest plane: pairs of neighbouring planes become one, level by level."""
        while (count := generate.own.shape[0]) > 1:
            odd = count % 2  # the lowest plane waits: below it there is no carry
            low, high = slice(odd, None, 2), slice(odd + 1, None, 2)
            upper = propagate[high]
            pairs = self.all_of([(upper, generate[low]), (upper, propagate[low])])
            half = upper.own.shape[0]
            merged, together = generate[high] ^ pairs[:half], pairs[half:]
            generate = join([generate[:odd], merged]) if odd else merged
            propagate = join([propagate[:odd], together]) if odd else together
        return generate[0]

    # ------------------------------------------------------------------ selecting
    def select(self, flags: Bits | Flags, x: Shared) -> Shared:
        """Return x where a flag is set, and 0 elsewhere; two messages in a row.

        ``b = u ^ w`` with ``u = b_0 ^ b_1``, which party 0 knows, and ``w = b_2``, which parties 1 and 2 know; as
        numbers ``b = u + w - 2 u w``.

        Parameters
        ----------
        flags : Flags or Bits
            Of x, a matrix, or of its elements one after another.
        x : Shared
        """
        shape = x.shape
        if isinstance(flags, Bits):
            flags = Flags(Bits(flags.own[None], flags.next[None]), x.own.numel())
        bits, read = flags.rows, flags.unslice
        known = read(bits.own ^ bits.next).reshape(shape) if self.rank == 0 else None
        first = self.share(0, known, shape)
        zero = torch.zeros(shape, dtype=torch.int64)
        second = {
            0: lambda: Shared(zero, zero),
            1: lambda: Shared(zero, read(bits.next).reshape(shape)),
            2: lambda: Shared(read(bits.own).reshape(shape), zero),
        }[self.rank]()
        inside = self.multiply(second, x)
        return inside + self.multiply(first, x - inside.times(2))

    def relu(self, x: Shared) -> Shared:
        """Return ``max(x, 0)``; 10 messages in a row."""
        return self.select(self.invert(self.negative(x)), x)

    def maximum(self, x: Shared, y: Shared) -> Shared:
        """Return the larger of two, elementwise; they must differ by less than 2^63."""
        return y + self.relu(x - y)
