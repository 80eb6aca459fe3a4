r"""Replicated secret sharing in Z_2^64 among three parties: inputs, sums, products, truncation.

After Araki et al. 2016 (*High-Throughput Semi-Honest Secure Three-Party Computation*) and ABY3 (Mohassel & Rindal
2018). A value is ``x = x_0 + x_1 + x_2 (mod 2^64)``, and party i holds the two shares ``(x_i, x_{i+1})``: any two
parties have all three. Each share index i has a key that its holders, parties i and i - 1, know; both grow the same
random numbers from it, in step, so that much randomness needs no message.

Who learns what
    One party: nothing, whatever it sees of the others' messages, which are masked with numbers from a key that it does
    not have. Two parties together: everything.
What is assumed
    Semi-honest parties of which no two work together (S25). A party that deviates can change results unnoticed.
Fixed point
    Real numbers are integers in units of ``2^-f``. A product has ``2f`` fractional bits and is truncated back; the
    result is off by at most one unit, and by something enormous with a probability of ``2^(m + 1 - 64)`` for values
    below 2^m (ABY3, section 5.1.1): bound the values first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self, TypeAlias

import numpy as np
import torch

from ..crypto.keystream import Keystream
from ..errors import LinkError
from .link import PARTIES, Link

Bilinear: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

#: Words of 8 bytes that are worked on at a time. Ten arrays of so many stay in 1 MB of cache together, which more than
#: halves the time of an "and" of many bits; with a quarter of it, calls begin to count.
BLOCK = 1 << 13


def blocks(count: int, size: int = BLOCK) -> Iterator[slice]:
    """Cut a range into pieces."""
    return (slice(start, start + size) for start in range(0, count, size))


@dataclass(frozen=True, slots=True)
class Shared:
    """A party's two shares of a tensor.

    Parameters
    ----------
    own, next : Tensor of int64
        Shares i and i + 1 of party i, of one shape.
    """

    own: torch.Tensor
    next: torch.Tensor

    @property
    def shape(self) -> torch.Size:
        """Shape of the tensor."""
        return self.own.shape

    def __add__(self, other: Shared) -> Shared:
        return Shared(self.own + other.own, self.next + other.next)

    def __sub__(self, other: Shared) -> Shared:
        return Shared(self.own - other.own, self.next - other.next)

    def __neg__(self) -> Shared:
        return Shared(-self.own, -self.next)

    def times(self, factor: int | torch.Tensor) -> Shared:
        """Multiply by public integers."""
        return Shared(self.own * factor, self.next * factor)

    def map(self, linear: Callable[[torch.Tensor], torch.Tensor]) -> Shared:
        """Apply a linear function of the values, or one that only moves them."""
        return Shared(linear(self.own), linear(self.next))

    @classmethod
    def collect(cls, values: Sequence[Self], how: Callable[[list[torch.Tensor]], torch.Tensor]) -> Self:
        """Put several together, share by share, e.g. with ``torch.stack``."""
        return cls(how([value.own for value in values]), how([value.next for value in values]))


class ArithmeticParty:
    """One of the three parties.

    Parameters
    ----------
    link : Link
        To the other two; gives the rank.
    own_key, next_key : bytes
        Of share indices ``rank`` and ``rank + 1``, 32 bytes each, fresh for this computation.
    """

    def __init__(self, link: Link, own_key: bytes, next_key: bytes) -> None:
        self.link, self.rank = link, link.rank
        self.after, self.before = (self.rank + 1) % PARTIES, (self.rank - 1) % PARTIES
        self._own, self._next = Keystream(own_key), Keystream(next_key)

    # ------------------------------------------------------------------ randomness and messages
    def _draw(self, stream: Keystream, shape: Sequence[int]) -> torch.Tensor:
        words = np.empty(tuple(shape), np.int64)
        stream.read_into(words)
        return torch.from_numpy(words)

    def hide(self, part: torch.Tensor) -> torch.Tensor:
        """Add to a tensor, in place, this party's part of three random tensors that add up to zero."""
        part = part.contiguous()
        words = part.view(-1).numpy()
        for place in blocks(len(words)):
            some = words[place]
            mask = np.empty(len(some), np.int64)
            self._own.read_into(mask)
            some += mask
            self._next.read_into(mask)
            some -= mask
        return part

    def send(self, to: int, values: torch.Tensor) -> None:
        """Send a tensor, 8 bytes an element."""
        self.link.send(to, values.contiguous().numpy().astype("<i8", copy=False).tobytes())

    def recv(self, sender: int, shape: Sequence[int]) -> torch.Tensor:
        """Return a tensor of a known shape; :class:`LinkError` if the message has another size."""
        data, size = self.link.recv(sender), 8 * int(np.prod(shape, dtype=np.int64))
        if len(data) != size:
            raise LinkError(f"Party {sender} sent {len(data)} bytes where {size} were agreed; it is given up")
        return torch.from_numpy(np.frombuffer(data, "<i8").astype(np.int64).reshape(tuple(shape)))

    # ------------------------------------------------------------------ in and out
    def share(self, owner: int, values: torch.Tensor | None, shape: Sequence[int]) -> Shared:
        """Share what one party knows; one message, from the owner to the party after it.

        Parameters
        ----------
        owner : int
            Rank of the party that knows the values.
        values : Tensor of int64, or None
            On the owner; None on the others.
        shape : sequence of int
            Public.
        """
        zero = torch.zeros(tuple(shape), dtype=torch.int64)
        if self.rank == owner:
            if values is None or values.dtype != torch.int64 or tuple(values.shape) != tuple(shape):
                raise ValueError("The owner must share int64 values of the agreed shape")
            mask = self._draw(self._own, shape)
            rest = values - mask
            self.send(self.after, rest)
            return Shared(mask, rest)
        if self.rank == (owner + 1) % PARTIES:
            return Shared(self.recv(owner, shape), zero)
        return Shared(zero, self._draw(self._next, shape))

    def constant(self, values: torch.Tensor) -> Shared:
        """Return a sharing of public values: share 0 is they, the others are zero."""
        zero = torch.zeros_like(values)
        return Shared(values if self.rank == 0 else zero, values if self.rank == PARTIES - 1 else zero)

    def open(self, x: Shared) -> torch.Tensor:
        """Return the values, to all three; one message each."""
        self.send(self.after, x.own)
        return x.own + x.next + self.recv(self.before, x.shape)

    # ------------------------------------------------------------------ products
    def product(self, f: Bilinear, x: Shared, y: Shared) -> torch.Tensor:
        """Return this party's part of ``f(x, y)``, of which the three add up; no message.

        Parameters
        ----------
        f : callable
            Bilinear over Z_2^64: elementwise or matrix product, convolution.
        x, y : Shared
        """
        part = f(x.own, y.own + y.next)
        part += f(x.next, y.own)
        return self.hide(part)

    def reshare(self, part: torch.Tensor) -> Shared:
        """Turn parts that add up into shares; one message each."""
        self.send(self.before, part)
        return Shared(part, self.recv(self.after, part.shape))

    def multiply(self, x: Shared, y: Shared) -> Shared:
        """Return the elementwise product."""
        return self.reshare(self.product(torch.mul, x, y))

    # ------------------------------------------------------------------ truncation
    def truncate_part(self, part: torch.Tensor, bits: int) -> Shared:
        """Divide parts that add up by ``2^bits``, and turn them into shares; two messages in a row.

        Party 0 keeps its part alone; parties 1 and 2 put theirs together at party 1, under a mask that they share.
        """
        if self.rank == 0:
            self.send(2, part)
            return Shared(part >> bits, self.recv(1, part.shape))
        if self.rank == 1:
            mask = self._draw(self._next, part.shape)
            rest = self.recv(2, part.shape)
            rest += part
            rest >>= bits
            rest -= mask
            self.send(0, rest)
            return Shared(rest, mask)
        self.send(1, part)
        mask = self._draw(self._own, part.shape)
        first = self.recv(0, part.shape)
        first >>= bits
        return Shared(mask, first)

    def truncate(self, x: Shared, bits: int) -> Shared:
        """Divide shares by ``2^bits``; one message."""
        if self.rank == 0:
            return Shared(x.own >> bits, self.recv(1, x.shape))
        if self.rank == 1:
            mask = self._draw(self._next, x.shape)
            rest = ((x.own + x.next) >> bits) - mask
            self.send(0, rest)
            return Shared(rest, mask)
        return Shared(self._draw(self._own, x.shape), x.next >> bits)
