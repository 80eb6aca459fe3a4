"""Comparisons on shared values: signs by a carry tree on bits, and what is selected with them (ABY3, sections 4 and 5).

Bits are shared like numbers, with exclusive or for the sum: ``b = b_0 ^ b_1 ^ b_2``, party i holds ``(b_i, b_{i+1})``.
They are *sliced*: bit k of 64 values lies in one word, so that one instruction works on 64 of them; of n values, value
``r m + c`` is bit r of word c, with m = ⌈n/64⌉ words (the rows of a matrix are sliced one by one, so that whole rows
can be combined). An "and" is a message each, exclusive or and "not" are none.

The sign of ``x = (x_0 + x_1) + x_2`` is that of a sum of two numbers, of which party 0 knows the first and parties 1
and 2 the second. Its carry takes 6 levels of "and" on 64 bits, with one "and" and one shared input before: 8 messages
in a row. That is the full width of the ring, so that no value, however large, is compared wrongly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import LinkError
from .link import PARTIES
from .sharing import ArithmeticParty, Shared

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
        places = np.arange(WIDTH, dtype=np.uint64)[:, None]
        bits = ((words[:, None, :] >> places) & np.uint64(1)).reshape(len(words), -1)[:, : self.columns]
        return torch.from_numpy(bits.astype(np.int64))


def join(parts: Sequence[Bits]) -> Bits:
    """Put sharings one after another along their first axis."""
    return Bits(np.concatenate([part.own for part in parts]), np.concatenate([part.next for part in parts]))


def planes(values: Words) -> Words:
    """Slice 64-bit values: word c of plane k holds bit k of 64 of them.

    Parameters
    ----------
    values : ndarray of uint64, shape (64 m,)

    Returns
    -------
    ndarray of uint64, shape (64, m)
    """
    # Transposes m matrices of 64 x 64 bits at once, by halves (Warren, Hacker's Delight, section 7-3).
    rows = values.reshape(WIDTH, -1).copy()
    step, mask = WIDTH // 2, np.uint64(0xFFFFFFFF)
    while step:
        blocks = rows.reshape(WIDTH // (2 * step), 2, step, -1)
        low, high, shift = blocks[:, 0], blocks[:, 1], np.uint64(step)
        swap = ((low >> shift) ^ high) & mask
        high ^= swap
        low ^= swap << shift
        step //= 2
        mask ^= mask << np.uint64(step) if step else np.uint64(0)
    return rows


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

    def _recv_words(self, sender: int, shape: Sequence[int]) -> Words:
        data, size = self.link.recv(sender), 8 * int(np.prod(shape, dtype=np.int64))
        if len(data) != size:
            raise LinkError(f"Party {sender} sent {len(data)} bytes where {size} were agreed; it is given up")
        return np.frombuffer(data, "<u8").astype(np.uint64).reshape(tuple(shape))

    def both(self, x: Bits, y: Bits) -> Bits:
        """Return ``x and y``; one message each."""
        part = (x.own & y.own) ^ (x.own & y.next) ^ (x.next & y.own)
        part ^= self._words(part.shape, own=True) ^ self._words(part.shape, own=False)
        self.link.send(self.before, part.astype("<u8", copy=False).tobytes())
        return Bits(part, self._recv_words(self.after, part.shape))

    def invert(self, x: Bits) -> Bits:
        """Return ``not x``: share 0 is flipped."""
        return Bits(~x.own if self.rank == 0 else x.own, ~x.next if self.rank == PARTIES - 1 else x.next)

    def open_bits(self, x: Bits, count: int) -> torch.Tensor:
        """Return the first ``count`` bits, to all three; one message each."""
        self.link.send(self.after, x.own.astype("<u8", copy=False).tobytes())
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
            padded = np.zeros((rows, WIDTH * wide), np.uint64)
            padded[:, :columns] = values.numpy().view(np.uint64)
            return planes(padded.reshape(rows, WIDTH, wide).transpose(1, 0, 2).reshape(-1))

        if self.rank == 0:
            mask = self._words((WIDTH, words), own=True)
            rest = sliced(x.own + x.next) ^ mask
            self.link.send(1, rest.astype("<u8", copy=False).tobytes())
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
            pairs = self.both(join([upper, upper]), join([generate[low], propagate[low]]))
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
