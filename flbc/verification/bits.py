"""Comparisons on shared values: signs by a carry tree on bits, and what is selected with them (after ABY3).

Bits are shared like numbers, with exclusive or for the sum: ``b = b_0 ^ b_1 ^ b_2``, party i holds ``(b_i, b_{i+1})``.
They are sliced (:mod:`.slicing`). An "and" is a message each, exclusive or and "not" are none.

The sign of ``x = (x_0 + x_1) + x_2`` is that of a sum of two numbers, of which party 0 knows the first and parties 1
and 2 the second (ABY3, sections 4 and 5). Its carry takes 7 messages in a row on 64 bits. That is the full width of the
ring, so that no value, however large, is compared wrongly.

That two of the three know the same saves messages twice: for blocks of two bits at the bottom of the tree
(:meth:`ComparingParty.negative`), and for what is selected (:meth:`ComparingParty.select`). Party 0 masks what it knows
with numbers that party 2 grows as well, and party 1 gets the rest. Products of what party 0 knows with what the others
know then have two parts, that parties 1 and 2 compute alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..errors import LinkError
from .link import PARTIES
from .sharing import ArithmeticParty, Shared, blocks
from .slicing import WIDTH, Bits, Flags, Words, join, pieces, slice_rows, unslice

#: Blocks of two bits: block 0 is bit 0 alone, block i bits 2 i - 1 and 2 i; bit 63 is the sign.
_BLOCKS = WIDTH // 2


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
        if x.own.ndim == 1:
            return self.both(Bits(x.own[None], x.next[None]), Bits(y.own[None], y.next[None]))[0]
        part = np.empty(x.own.shape, np.uint64)
        self._and(x, y, part)
        return self._reshare_bits(part)

    def _and(self, x: Bits, y: Bits, part: Words, plus: Words | None = None) -> None:
        """Fill in this party's part of ``(x and y) ^ plus``, matrices; the parts of the three make up the whole."""
        for place in pieces(part.shape):
            a, b, c, d = x.own[place], x.next[place], y.own[place], y.next[place]
            some = a & (c ^ d)
            some ^= b & c
            if plus is not None:
                some ^= plus[place]
            some ^= self._words(some.shape, own=True)
            some ^= self._words(some.shape, own=False)
            part[place] = some

    def _reshare_bits(self, part: Words) -> Bits:
        self._send_words(self.before, part)
        return Bits(part, self._recv_words(self.after, part.shape))

    def invert(self, x: Bits) -> Bits:
        """Return ``not x``: share 0 is flipped."""
        return Bits(~x.own if self.rank == 0 else x.own, ~x.next if self.rank == PARTIES - 1 else x.next)

    def open_bits(self, x: Bits, count: int) -> torch.Tensor:
        """Return the first ``count`` bits, to all three; one message each."""
        self._send_words(self.after, x.own)
        return unslice(x.own ^ x.next ^ self._recv_words(self.before, x.own.shape), count)

    # ------------------------------------------------------------------ comparisons
    def negative(self, x: Shared) -> Bits:
        """Return which values are below zero, as ⌈n/64⌉ words; 7 messages in a row."""
        return self._negative(x.map(lambda t: t.reshape(1, -1)))[0]

    def not_negative(self, x: Shared) -> Flags:
        """Return which values of a matrix are at least zero; 7 messages in a row."""
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
        top, generate, propagate = self._first_level(x)
        sign = top ^ self._carry(generate, propagate)
        rows = x.shape[0]
        return Bits(sign.own.reshape(rows, -1), sign.next.reshape(rows, -1))

    def _first_level(self, x: Shared) -> tuple[Bits, Bits, Bits]:
        """Return the sum's top bit without carry, and for blocks whether they make a carry, and would pass one on.

        A block of bits ``f_1 f_0`` of the first number and ``s_1 s_0`` of the second makes a carry if ``f_1 s_1 ^
        (f_1 ^ s_1) f_0 s_0``, and passes one on if ``(f_1 ^ s_1) (f_0 ^ s_0)``. Both are sums of products of one of
        ``f_1, f_0, f_1 f_0``, which party 0 knows and masks, with one of ``s_1, s_0, s_1 s_0``. So two bits cost 7 bits
        of messages by all three, where an "and" of bits and then of blocks costs 14, and one more in a row.
        """
        if self.rank == 0:
            f = slice_rows(x.own + x.next)
            shape = (WIDTH + _BLOCKS - 1, f.shape[1])
            mask = self._words(shape, own=True)
            rest = np.concatenate([f[0::2], f[1::2], f[2::2] & f[1:-1:2]])
            rest ^= mask
            self._send_words(1, rest)
            made = Bits(self._recv_words(2, (WIDTH - 1, shape[1])), self._recv_words(1, (WIDTH - 1, shape[1])))
            top = Bits(mask[WIDTH - 1].copy(), rest[WIDTH - 1].copy())  # copies, so that all the rest can go
            return top, made[:_BLOCKS], made[_BLOCKS:]
        s = slice_rows(x.next if self.rank == 1 else x.own)
        shape = (WIDTH + _BLOCKS - 1, s.shape[1])
        first = self._recv_words(0, shape) if self.rank == 1 else self._words(shape, own=False)
        masked, common = self._blocks_of(first, s)
        self._send_words(0, masked)
        known, last = first[WIDTH - 1].copy(), s[WIDTH - 1].copy()
        if self.rank == 1:
            return Bits(known, last), Bits(masked, common)[:_BLOCKS], Bits(masked, common)[_BLOCKS:]
        return Bits(last, known), Bits(common, masked)[:_BLOCKS], Bits(common, masked)[_BLOCKS:]

    def _blocks_of(self, first: Words, s: Words) -> tuple[Words, Words]:
        """Return, for parties 1 and 2, the share that party 0 holds as well and the one that they have in common.

        Parameters
        ----------
        first : ndarray of uint64, shape (95, words)
            This party's part of what party 0 knows: ``f_1`` of all blocks, ``f_0`` of all but the lowest, the top bit,
            ``f_1 f_0``.
        s : ndarray of uint64, shape (64, words)
            The second number.
        """
        high, low, joint = first[:_BLOCKS], first[_BLOCKS : WIDTH - 1], first[WIDTH:]
        masked = np.empty((WIDTH - 1, s.shape[1]), np.uint64)
        common = np.empty_like(masked)

        def put(place: tuple[slice, slice], some: Words) -> None:
            # Both parts need a mask of their own: party 0 gets both, and their sum would show it the carries.
            one, other = (self._words(some.shape, own=self.rank == 2) for _ in range(2))
            masked[place] = some ^ (one if self.rank == 1 else other)
            common[place] = one ^ other

        for rows, place in pieces((1, s.shape[1])):
            put((rows, place), high[rows, place] & s[rows, place])
        for rows, place in pieces((_BLOCKS - 1, s.shape[1])):
            upper = slice(rows.start + 1, rows.stop + 1)
            f1, f0, f10 = high[upper, place], low[rows, place], joint[rows, place]
            s1, s0 = s[2::2][rows, place], s[1:-1:2][rows, place]
            s10 = s1 & s0
            makes = (f1 & s1) ^ (f10 & s0)
            makes ^= f0 & s10
            put((upper, place), makes)
            passes = (f1 & s0) ^ (f0 & s1)
            passes ^= f10
            if self.rank == 1:
                passes ^= s10
            put((slice(rows.start + _BLOCKS, rows.stop + _BLOCKS), place), passes)
        return masked, common

    def _carry(self, generate: Bits, propagate: Bits) -> Bits:
        """Return the carry out of the highest block: pairs of neighbouring blocks become one, level by level.

        Nothing is said of the lowest block passing on a carry, because none comes.
        """
        while len(propagate.own):
            upper, half = propagate[0::2], len(generate.own) // 2
            part = np.empty((2 * half - 1, generate.own.shape[1]), np.uint64)
            self._and(upper, generate[0::2], part[:half], generate.own[1::2])
            self._and(upper[1:], propagate[1::2], part[half:])
            made = self._reshare_bits(part)
            generate, propagate = made[:half], made[half:]
        return generate[0]

    # ------------------------------------------------------------------ selecting
    def select(self, flags: Bits | Flags, x: Shared, plus: Shared | None = None) -> Shared:
        """Return x where a flag is set, and 0 elsewhere; two messages in a row.

        The flag is ``u ^ w = u + w - 2 u w`` with ``u = b_0 ^ b_1``, which party 0 knows, and ``w = b_2``, which
        parties 1 and 2 know; likewise ``x = v + x_2``. Their product is ``u v + w (v - 2 u v) + u (1 - 2 w) x_2 +
        w x_2``, so party 0 masks ``v - 2 u v`` and u: 5 words by all three, where two products of shares cost 7.

        Parameters
        ----------
        flags : Flags or Bits
            Of x, a matrix, or of its elements one after another.
        x : Shared
        plus : Shared, optional
            Added to the result. It costs less before the last message than after it.
        """
        if isinstance(flags, Bits):
            flags = Flags(Bits(flags.own[None], flags.next[None]), x.own.numel())
        own, after = (share.reshape(-1).numpy() for share in (x.own, x.next))
        bits, count = flags.rows, len(own)
        part = np.empty(count, np.int64)
        if self.rank == 0:
            known, masked = flags.unslice(bits.own ^ bits.next).reshape(-1), np.empty((2, count), np.int64)
            for place in blocks(count):
                u, v = known[place].astype(np.int64), own[place] + after[place]
                part[place] = v & -u
                for row, value in zip(masked, (v - 2 * part[place], u), strict=True):
                    self._own.read_into(row[place])
                    np.subtract(value, row[place], out=row[place])
            self.send(1, torch.from_numpy(masked))
        else:
            known = flags.unslice(bits.next if self.rank == 1 else bits.own).reshape(-1)
            last = after if self.rank == 1 else own
            received = self._recv_words(0, (2, count)).view(np.int64) if self.rank == 1 else None
            for place in blocks(count):
                chosen, x2 = -known[place].astype(np.int64), last[place]
                if received is not None:
                    turned, u = received[0, place], received[1, place]
                else:
                    turned, u = (self._draw(self._next, (len(x2),)).numpy() for _ in range(2))
                    turned += x2
                part[place] = (turned & chosen) + u * (x2 - 2 * (x2 & chosen))
        made = torch.from_numpy(part).reshape(x.shape)
        if plus is not None:
            made += plus.own
        return self.reshare(self.hide(made))

    def relu(self, x: Shared) -> Shared:
        """Return ``max(x, 0)``; 9 messages in a row."""
        return self.select(self.invert(self.negative(x)), x)

    def maximum(self, x: Shared, y: Shared) -> Shared:
        """Return the larger of two, elementwise; they must differ by less than 2^63; 9 messages in a row."""
        difference = x - y
        return self.select(self.invert(self.negative(difference)), difference, y)
