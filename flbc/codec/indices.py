"""Which coordinates all clients of a round send: chosen from public numbers only (:mod:`flbc.codec.sparsify`).

One part is ranked: the coordinates of which most is expected, judged by what earlier rounds opened (:class:`Scores`).
The other is drawn by lot from the round's public seed, so that a coordinate whose importance changed is found again.
Everybody can recompute the set, it is the same on every machine, and no client's data goes into it except through sums
that were opened anyway: the set says nothing that those sums did not say.

A coordinate that was just sent has an empty residual, while the others gather. So it is not the largest coordinates of
the last opened update that are worth sending, but those that should have gathered most since they were opened:
``|opened mean| / rounds it had gathered * rounds since``. ``benchmarks/dgc.py`` compares both.

Three expectations for a coordinate that was never opened were tried on MNIST digits (rates 0.9 and 0.99; three seeds):
none, the mean of the others, their median. At 0.9 they differ by less than their standard deviations; at 0.99 the mean
varies between 70 and 89 % accuracy, none between 81 and 83 %. None is also the simplest: only the lot finds those.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..crypto.keystream import prf_words
from ..crypto.signing import keccak256
from ..errors import CodecError
from .compression import Compression
from .sparsify import Floats, IntVector

_DOMAIN = b"flbc/codec/indices/v1"


def index_set(round_: int, size: int, compression: Compression, top: IntVector, seed: bytes) -> IntVector:
    """Choose the coordinates of a round.

    Parameters
    ----------
    round_ : int
        Number of the round, from 1.
    size : int
        Coordinates of all float arrays together.
    compression : Compression
    top : ndarray of int64, shape (any,)
        Coordinates of which most is expected, best first, without repetition (:meth:`Scores.top`). The first
        ``compression.ranked(round_, size)`` are taken; where there are fewer, more are drawn.
    seed : bytes
        Public, any length; the round is mixed in. Whoever predicts it knows which coordinates come next, and nothing of
        anybody's data.

    Returns
    -------
    ndarray of int64, shape (compression.kept(round_, size),)
        Sorted, unique.

    Raises
    ------
    CodecError
        If ``top`` repeats a coordinate or names one outside the model.
    """
    count = compression.kept(round_, size)
    ranked = np.asarray(top, np.int64)[: compression.ranked(round_, size)]
    if ranked.size and not (ranked.min() >= 0 and ranked.max() < size and np.unique(ranked).size == ranked.size):
        raise CodecError(f"The ranked coordinates must be different numbers from 0 to {size - 1}")
    chosen = np.zeros(size, np.bool_)
    chosen[ranked] = True
    rest = np.flatnonzero(~chosen)
    chosen[rest[_lowest(_lots(seed, round_, size)[rest], count - ranked.size)]] = True
    return np.flatnonzero(chosen).astype(np.int64)


def selection_hash(indices: IntVector) -> bytes:
    """Return keccak-256 over the sorted indices as little-endian 8-byte words: one hash for one set."""
    return keccak256(np.asarray(indices).astype("<i8").tobytes())


def pack_indices(indices: IntVector, size: int) -> bytes:
    """Write an index set as a bitmap of ``ceil(size / 8)`` bytes; coordinate i is bit ``i % 8`` of byte ``i // 8``."""
    if indices.size and not (indices.min() >= 0 and indices.max() < size):
        raise CodecError(f"An index set holds numbers from 0 to {size - 1}")
    chosen = np.zeros(size, np.bool_)
    chosen[indices] = True
    return np.packbits(chosen, bitorder="little").tobytes()


def unpack_indices(data: bytes, size: int, count: int, *, exactly: bool = True) -> IntVector:
    """Read a bitmap; there is one bitmap for one set.

    Parameters
    ----------
    data : bytes
    size : int
        Coordinates of all float arrays together.
    count : int
        How many must be chosen: ``compression.kept(round_, size)``.
    exactly : bool (default: True)
        False: at most ``count``.

    Returns
    -------
    ndarray of int64, shape (count,)
        Sorted, unique.

    Raises
    ------
    CodecError
        If the length is wrong, a bit beyond ``size`` is set, or another number of coordinates is chosen.
    """
    if len(data) != -(-size // 8):
        raise CodecError(f"The index set of {size} coordinates takes {-(-size // 8)} bytes, not {len(data)}")
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    if bits[size:].any():
        raise CodecError(f"The index set names coordinates beyond the {size} that the model has")
    indices = np.flatnonzero(bits).astype(np.int64)
    if indices.size > count or (exactly and indices.size != count):
        raise CodecError(f"The index set must choose {count} coordinates in this round, not {indices.size}")
    return indices


@dataclass(frozen=True, eq=False)
class Scores:
    """What the opened sums said about each coordinate; public.

    Parameters
    ----------
    growth : ndarray of float64, shape (size,)
        ``|opened mean|`` per round that it had gathered, when it was last opened.
    opened : ndarray of int64, shape (size,)
        The round in which that was; 0 for never.
    """

    growth: Floats
    opened: IntVector

    @classmethod
    def fresh(cls, size: int) -> Self:
        """Return the scores before the first round."""
        return cls(np.zeros(size), np.zeros(size, np.int64))

    def after(self, round_: int, indices: IntVector, mean: Floats) -> Self:
        """Take note of an opened round.

        Parameters
        ----------
        round_ : int
            Number of the round; later than all before.
        indices : ndarray of int64, shape (count,)
            The coordinates that were sent.
        mean : ndarray of float64, shape (count,)
            The opened mean update at these coordinates.

        Raises
        ------
        CodecError
            If the round is not later than the last one, or the shapes differ.
        """
        if indices.shape != mean.shape or not np.all(self.opened < round_):
            raise CodecError("Scores follow opened rounds in order, with one number for every index")
        growth, opened = self.growth.copy(), self.opened.copy()
        growth[indices] = np.abs(mean) / (round_ - opened[indices])
        opened[indices] = round_
        return type(self)(growth, opened)

    def top(self, round_: int, count: int) -> IntVector:
        """Return at most ``count`` coordinates that should have gathered most by ``round_``, best first.

        Nothing is expected of a coordinate that was never opened, nor of one whose last mean was zero: it is not in the
        result, and has to be drawn by lot. Equal ones go by number.
        """
        expected = self.growth * (round_ - self.opened)
        places = _lowest(-expected, min(count, int(np.count_nonzero(expected))))
        return places[np.lexsort((places, -expected[places]))]


def _lots(seed: bytes, round_: int, size: int) -> NDArray[np.uint64]:
    """Return one 64-bit lot per coordinate; AES-CTR, because numpy's generators may change with its version."""
    key = keccak256(_DOMAIN + round_.to_bytes(8, "big") + keccak256(seed))
    return prf_words(key, size, 64)


def _lowest(values: NDArray[np.uint64] | Floats, count: int) -> IntVector:
    """Return where the ``count`` lowest values stand, in no order; of equal ones the first."""
    if count == 0:
        return np.zeros(0, np.int64)
    bar = np.partition(values, count - 1)[count - 1]
    below, ties = np.flatnonzero(values < bar), np.flatnonzero(values == bar)
    return np.concatenate([below, ties[: count - below.size]])
