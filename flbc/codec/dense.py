"""Quantise every coordinate of an update, and lay out what else is summed beside it.

Without differential privacy one vector holds, in this order::

    floats      value * weight / max_weight, quantised in the tensor's public range
    marks       per float tensor: how large its largest coordinate is (flbc.codec.ranges)
    integers    value * weight, exact (flbc.codec.exact), for integer buffers
    weight      exact
    saturated   exact: how many coordinates did not fit their range
    metrics     value * weight, exact, sorted by name, padded to Codec.max_metrics

so that neither an update nor a weight nor a metric of one client is ever visible. With differential privacy the vector
holds the floats alone, all with one fixed step (S16, S18).
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..crypto.keystream import KEY_BYTES, Keystream
from ..errors import CodecError
from . import exact
from .layout import Arrays, Layout, Tensor
from .metrics import flatten_metrics
from .ranges import MARKS, largest_of, mark, next_ranges
from .settings import Codec, Frame

#: Values of a tensor that are quantised at a time: with all that comes and goes about half a megabyte.
_BLOCK = 1 << 14

IntVector = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class EncodedUpdate:
    """What is protected and summed: ``values``, int64 of shape (plan.length,), and the names of its metrics."""

    values: IntVector
    metric_names: tuple[str, ...] = ()
    #: With compression, per sent float coordinate: what its integer stands for, in units of the update.
    carried: Floats = field(default_factory=lambda: np.zeros(0), repr=False)


@dataclass(frozen=True, slots=True)
class OpenedUpdate:
    """What an opened sum says.

    Parameters
    ----------
    mean : dict of str to ndarray
        Mean update per array, float64; frozen arrays are absent.
    weight : float
        Sum of the weights (without privacy) or the public count (with it).
    metrics : tuple of float
        Weighted means, in the order of the metric names.
    saturated : int
        Coordinates that did not fit their range, over all clients.
    largest : tuple of float
        Per float tensor, an upper bound of any client's largest coordinate in units of the range.
    """

    mean: dict[str, NDArray[np.float64]]
    weight: float
    metrics: tuple[float, ...] = ()
    saturated: int = 0
    largest: tuple[float, ...] = ()


@dataclass(frozen=True)
class VectorPlan:
    """Where everything stands in the summed vector.

    Parameters
    ----------
    layout : Layout
        The model.
    codec : Codec
        Settings.
    private : bool
        With differential privacy only the floats are summed.
    """

    layout: Layout
    codec: Codec
    private: bool = False

    @cached_property
    def length(self) -> int:
        """Coordinates of the summed vector, without compression."""
        floats = self.layout.count("float")
        if self.private:
            return floats
        numbers = self.layout.count("integer") + 2 + self.codec.max_metrics
        return floats + self._marks + numbers * exact.limbs(self.codec.bits)

    @property
    def _marks(self) -> int:
        return MARKS * len(self.layout.of_kind("float"))

    def first_frame(self) -> Frame:
        """Return the frame of round 1."""
        if self.private:
            return Frame()
        weight = self.codec.max_examples or 0.0
        return Frame((float(self.codec.initial_range),) * len(self.layout.of_kind("float")), float(weight))

    def next_frame(self, frame: Frame, opened: OpenedUpdate) -> Frame:
        """Return the frame of the next round: ranges follow the last opened sum, which everybody knows."""
        if self.private:
            return frame
        ranges = next_ranges(frame.ranges, opened.largest, self.codec.range_factor, self.codec.initial_range)
        return Frame(ranges, frame.max_weight)

    # ------------------------------------------------------------------ without differential privacy
    def encode(
        self,
        update: Arrays,
        weight: float,
        metrics: Mapping[str, float | Sequence[float]],
        frame: Frame,
        indices: IntVector | None = None,
    ) -> EncodedUpdate:
        """Encode an update for a weighted mean.

        Parameters
        ----------
        update : mapping of str to ndarray
            ``new - global`` per array: float64 for float arrays, int64 for integer arrays.
        weight : float
            The client's weight (number of examples), at most ``frame.max_weight``.
        metrics : mapping
            Numbers (or lists of numbers) to average with the same weight.
        frame : Frame
            The public numbers of the attempt.
        indices : ndarray of int64, shape (count,), or None
            With compression, which float coordinates are sent, sorted; None: all.

        Raises
        ------
        CodecError
            If the weight or the metrics do not fit; :class:`NonFiniteError` for NaN or infinity.
        """
        if not (math.isfinite(weight) and 0 <= weight <= frame.max_weight and frame.max_weight > 0):
            raise CodecError(f"The weight {weight} is not between 0 and the agreed largest weight {frame.max_weight}")
        ranges = frame.ranges
        if len(ranges) != len(self.layout.of_kind("float")):
            raise CodecError("The frame has another number of ranges than the model has float arrays")
        all_floats = self.layout.count("float")
        count = all_floats if indices is None else len(indices)
        values = np.empty(self.length - all_floats + count, np.int64)
        carried = np.zeros(0 if indices is None else count)
        ratio, chance = weight / frame.max_weight, Keystream(secrets.token_bytes(KEY_BYTES))
        marks: list[IntVector] = []
        saturated = 0
        for (tensor, place, within), limit in zip(self._places(indices), ranges, strict=True):
            chosen = update[tensor.name].reshape(-1)[within]
            largest, beyond = quantise(chosen, ratio, limit, self.codec.max_abs, chance, values[place])
            saturated += beyond
            marks.append(mark(np.array([largest])))
            if weight and indices is not None:
                carried[place] = values[place] * (limit / self.codec.max_abs * (frame.max_weight / weight))
        integers = [update[t.name].reshape(-1).astype(np.float64) * weight for t, _ in self.layout.integer_slices()]
        names, numbers = flatten_metrics(metrics, self.codec.max_metrics)
        tail = np.zeros(2 + self.codec.max_metrics, np.float64)
        tail[0], tail[1] = weight, saturated
        with np.errstate(over="ignore"):  # refused by exact.split
            tail[2 : 2 + len(numbers)] = np.array(numbers, np.float64) * weight
        digits = exact.split(np.concatenate([*integers, tail]), self.codec.bits)
        np.concatenate([*marks, digits], out=values[count:])
        return EncodedUpdate(values, names, carried)

    def _places(self, indices: IntVector | None) -> Iterator[tuple[Tensor, slice, slice | IntVector]]:
        """Yield each float tensor, its place among the coordinates that are sent, and which of its own those are."""
        for tensor, place in self.layout.float_slices():
            if indices is None:
                yield tensor, place, slice(None)
            else:
                first, last = (int(i) for i in np.searchsorted(indices, (place.start, place.stop)))
                yield tensor, slice(first, last), indices[first:last] - place.start

    def decode(
        self,
        total: IntVector,
        parties: int,
        metric_count: int,
        frame: Frame,
        indices: IntVector | None = None,
        declared: float | None = None,
    ) -> OpenedUpdate:
        """Decode the sum of ``parties`` encoded updates; with compression, coordinates that were not sent are zero.

        ``declared`` is the sum of the weights where it is public; None: the one inside the sum.

        Raises
        ------
        CodecError
            If the length is wrong or the weights sum to zero or less.
        """
        floats = self.layout.count("float") if indices is None else len(indices)
        self._check_length(total, self.length - self.layout.count("float") + floats)
        marks, digits = np.split(total[floats:], [self._marks])
        numbers = exact.join(digits, self.codec.bits)
        integers = self.layout.count("integer")
        weight, saturated = float(numbers[integers]), int(numbers[integers + 1])
        if declared is not None:  # public, so that no client's word on its weight is needed
            weight = declared
        if weight <= 0:
            raise CodecError("The weights of all clients sum to zero; every client reported no examples")
        if declared is None and parties * (frame.max_weight + exact.RESOLUTION) < weight:
            raise CodecError("The opened weight exceeds what the clients may report: a client sent a malformed update")
        mean: dict[str, NDArray[np.float64]] = {}
        for (tensor, place, within), limit in zip(self._places(indices), frame.ranges, strict=True):
            scale, flat = limit / self.codec.max_abs * (frame.max_weight / weight), np.zeros(tensor.size)
            flat[within] = total[:floats][place] * scale
            mean[tensor.name] = flat.reshape(tensor.shape)
        for tensor, place in self.layout.integer_slices():
            mean[tensor.name] = (numbers[:integers][place] / weight).reshape(tensor.shape)
        metrics = numbers[integers + 2 : integers + 2 + metric_count] / weight
        largest = tuple(largest_of(row) for row in marks.reshape(-1, MARKS))
        return OpenedUpdate(mean, weight, tuple(metrics.tolist()), saturated, largest)

    # ------------------------------------------------------------------ with differential privacy
    def encode_private(self, arrays: Arrays, step: float) -> EncodedUpdate:
        """Round float arrays to the nearest multiple of ``step``; absent arrays count as zero.

        The caller has bounded the L2 norm and checks the integers (:meth:`GaussianMechanism.check`); nothing is
        clipped or saturated here, because that would change the sensitivity that the noise was sized for.
        """
        values = np.zeros(self.length, np.int64)
        for tensor, place in self.layout.float_slices():
            if tensor.name in arrays:
                values[place] = np.rint(arrays[tensor.name].reshape(-1).astype(np.float64) / step).astype(np.int64)
        return EncodedUpdate(values)

    def decode_private(self, total: IntVector, step: float, count: float) -> OpenedUpdate:
        """Return ``total * step / count`` per float array; ``count`` is public."""
        self._check_length(total, self.length)
        scaled = np.asarray(total * (step / count), np.float64)
        mean = {tensor.name: scaled[place].reshape(tensor.shape) for tensor, place in self.layout.float_slices()}
        return OpenedUpdate(mean, float(count))

    def _check_length(self, total: IntVector, length: int) -> None:
        if total.shape != (length,):
            raise CodecError(f"The opened sum has shape {total.shape}, expected ({length},)")


def quantise(
    values: NDArray[Any], ratio: float, limit: float, max_abs: int, chance: Keystream, out: IntVector
) -> tuple[float, int]:
    """Write ``values * ratio / limit``, cut off at ±1, in steps of ``1 / max_abs``.

    Works in blocks that stay in the cache: with one pass over the memory for each operation it takes three times as
    long, and twice as long as Flower's.

    Parameters
    ----------
    values : ndarray of numbers, shape (n,)
    ratio, limit : float
        Weight over the largest weight, and the range.
    max_abs : int
        Below 2^31.
    chance : Keystream
        Of a fresh key.
    out : ndarray of int64, shape (n,)
        Is overwritten.

    Returns
    -------
    largest : float
        Magnitude of the largest value in units of the range, before it is cut off.
    beyond : int
        How many values were cut off.
    """
    largest, beyond = 0.0, 0
    for start in range(0, len(values), _BLOCK):
        block = values[start : start + _BLOCK].astype(np.float64)
        with np.errstate(over="ignore"):  # infinity saturates like any other value that does not fit
            block *= ratio
            block /= limit
        top = float(max(block.max(), -block.min()))
        if top > 1:
            beyond += int(np.count_nonzero(np.abs(block) > 1))
            np.clip(block, -1, 1, out=block)
        largest = max(largest, top)
        block *= max_abs
        round_stochastic(block, chance, out[start : start + _BLOCK])
    return largest, beyond


def round_stochastic(values: Floats, chance: Keystream, out: IntVector) -> None:
    """Round up with the probability of the fractional part, so that the mean is unbiased up to 2^-32.

    ``values``, below 2^31 in magnitude, are overwritten, and ``out`` as well; ``chance`` must not depend on them. In
    fixed point: 32 bits after the point, a random fraction added, the fraction cut off. No sum is rounded, so that an
    integer stays what it is whatever is drawn, and nothing leaves its range.
    """
    values *= 2.0**32
    np.copyto(out, values, casting="unsafe")
    random = np.empty(len(values), np.uint32)
    chance.read_into(random)
    out += random
    out >>= 32
