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
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..crypto.signing import keccak256
from ..encoding import canonical, parse
from ..errors import CodecError, ConfigError, NonFiniteError, ProtocolError
from . import exact
from .layout import Arrays, Layout
from .ranges import MARKS, largest_of, mark, next_ranges

IntVector = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Codec:
    """How an update becomes integers.

    Parameters
    ----------
    bits : int (default: 16)
        Bits of one coordinate, sign included, 8 to 32. More bits: finer steps, larger payloads.
    initial_range : float (default: 1.0)
        Largest magnitude of an update's coordinate in round 1; larger ones saturate and are counted.
    range_factor : float (default: 4.0)
        From round 2, a tensor's range is this times the largest coordinate that any client had in it in the last
        round, rounded up to a power of two.
    max_examples : float or None (default: None)
        Upper bound of a client's weight. None: the smallest power of two above all clients' weights, which shows the
        server that power of two for each client, and costs one more stage in round 1.
    max_metrics : int (default: 16)
        How many numbers a training function's MetricRecord may hold beside the weight.

    Raises
    ------
    ConfigError
        If a value is out of range.
    """

    bits: int = 16
    initial_range: float = 1.0
    range_factor: float = 4.0
    max_examples: float | None = None
    max_metrics: int = 16

    def __post_init__(self) -> None:
        if type(self.bits) is not int or not 8 <= self.bits <= 32:
            raise ConfigError(f"Codec(bits={self.bits!r}) must be an integer from 8 to 32; 16 is a good choice")
        for name in ("initial_range", "range_factor"):
            value = getattr(self, name)
            if not _is_positive(value):
                raise ConfigError(f"Codec({name}={value!r}) must be a positive number")
        if self.max_examples is not None and not _is_positive(self.max_examples):
            raise ConfigError(f"Codec(max_examples={self.max_examples!r}) must be a positive number, or None")
        if type(self.max_metrics) is not int or not 0 <= self.max_metrics <= 4096:
            raise ConfigError(f"Codec(max_metrics={self.max_metrics!r}) must be an integer from 0 to 4096")

    @property
    def max_abs(self) -> int:
        """Largest magnitude of a coordinate."""
        return (1 << (self.bits - 1)) - 1

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "bits": self.bits,
            "initial_range": float(self.initial_range),
            "range_factor": float(self.range_factor),
            "max_examples": None if self.max_examples is None else float(self.max_examples),
            "max_metrics": self.max_metrics,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild and check."""
        if set(data) != set(cls.__dataclass_fields__):
            raise ProtocolError("The codec has missing or unknown settings")
        return cls(**data)


@dataclass(frozen=True)
class Frame:
    """The public numbers of one attempt: a range per float tensor, and the largest weight.

    Parameters
    ----------
    ranges : tuple of float
        One per float tensor, in layout order; empty with differential privacy.
    max_weight : float
        Weights are divided by it; 0 while it is not known yet.
    """

    ranges: tuple[float, ...] = ()
    max_weight: float = 0.0

    def __post_init__(self) -> None:
        if not all(math.isfinite(r) and r > 0 for r in self.ranges):
            raise ProtocolError("Every range of a frame must be a positive number")
        if not (math.isfinite(self.max_weight) and self.max_weight >= 0):
            raise ProtocolError("The largest weight of a frame must not be negative")

    @cached_property
    def encoded(self) -> bytes:
        """Canonical bytes."""
        return canonical({"ranges": list(self.ranges), "max_weight": self.max_weight})

    @cached_property
    def hash(self) -> bytes:
        """keccak-256 of the canonical bytes."""
        return keccak256(self.encoded)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse canonical bytes."""
        value = parse(data, "frame")
        ranges, weight = value.get("ranges"), value.get("max_weight")
        if (
            set(value) != {"ranges", "max_weight"}
            or not isinstance(ranges, list)
            or not all(isinstance(r, float) for r in ranges)
            or not isinstance(weight, float)
        ):
            raise ProtocolError("A frame holds a list of ranges and the largest weight, all floats")
        return cls(tuple(ranges), weight)


@dataclass(frozen=True, slots=True)
class EncodedUpdate:
    """What is protected and summed: ``values``, int64 of shape (plan.length,), and the names of its metrics."""

    values: IntVector
    metric_names: tuple[str, ...] = ()


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
        """Coordinates of the summed vector."""
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
        self, update: Arrays, weight: float, metrics: Mapping[str, float | Sequence[float]], frame: Frame
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
        floats = np.zeros(self.layout.count("float"), np.int64)
        marks: list[IntVector] = []
        saturated = 0
        for (tensor, place), limit in zip(self.layout.float_slices(), ranges, strict=True):
            with np.errstate(over="ignore"):  # infinity saturates like any other value that does not fit
                scaled = update[tensor.name].reshape(-1).astype(np.float64) * (weight / frame.max_weight) / limit
            saturated += int(np.count_nonzero(np.abs(scaled) > 1))
            marks.append(mark(scaled))
            floats[place] = round_stochastic(np.clip(scaled, -1, 1) * self.codec.max_abs)
        integers = [update[t.name].reshape(-1).astype(np.float64) * weight for t, _ in self.layout.integer_slices()]
        names, numbers = flatten_metrics(metrics, self.codec.max_metrics)
        tail = np.zeros(2 + self.codec.max_metrics, np.float64)
        tail[0], tail[1] = weight, saturated
        with np.errstate(over="ignore"):  # refused by exact.split
            tail[2 : 2 + len(numbers)] = np.array(numbers, np.float64) * weight
        digits = exact.split(np.concatenate([*integers, tail]), self.codec.bits)
        return EncodedUpdate(np.concatenate([floats, *marks, digits]), names)

    def decode(self, total: IntVector, parties: int, metric_count: int, frame: Frame) -> OpenedUpdate:
        """Decode the sum of ``parties`` encoded updates.

        Raises
        ------
        CodecError
            If the length is wrong or the weights sum to zero or less.
        """
        self._check_length(total)
        floats = self.layout.count("float")
        marks, digits = np.split(total[floats:], [self._marks])
        numbers = exact.join(digits, self.codec.bits)
        integers = self.layout.count("integer")
        weight, saturated = float(numbers[integers]), int(numbers[integers + 1])
        if weight <= 0:
            raise CodecError("The weights of all clients sum to zero; every client reported no examples")
        if parties * (frame.max_weight + exact.RESOLUTION) < weight:
            raise CodecError("The opened weight exceeds what the clients may report: a client sent a malformed update")
        mean: dict[str, NDArray[np.float64]] = {}
        for (tensor, place), limit in zip(self.layout.float_slices(), frame.ranges, strict=True):
            scale = limit / self.codec.max_abs * (frame.max_weight / weight)
            mean[tensor.name] = np.asarray(total[:floats][place] * scale, np.float64).reshape(tensor.shape)
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
        self._check_length(total)
        scaled = np.asarray(total * (step / count), np.float64)
        mean = {tensor.name: scaled[place].reshape(tensor.shape) for tensor, place in self.layout.float_slices()}
        return OpenedUpdate(mean, float(count))

    def _check_length(self, total: IntVector) -> None:
        if total.shape != (self.length,):
            raise CodecError(f"The opened sum has shape {total.shape}, expected ({self.length},)")


def _is_positive(value: object) -> bool:
    """Whether ``value`` is an int or float, no bool, that is positive and fits a finite float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= sys.float_info.max


def round_stochastic(values: NDArray[np.float64]) -> IntVector:
    """Round up with the probability of the fractional part, so that the mean is unbiased; u is independent of data."""
    rng = np.random.Generator(np.random.SFC64(secrets.randbits(128)))
    # Not floor(values + u): that sum rounds up to the next integer when u is close to 1 and values are large.
    floor = np.floor(values)
    return np.asarray(floor + (rng.random(values.shape) < values - floor), np.int64)


def flatten_metrics(metrics: Mapping[str, float | Sequence[float]], limit: int) -> tuple[tuple[str, ...], list[float]]:
    """Sort metrics by name and flatten lists.

    Returns
    -------
    names : tuple of str
        ``"loss:"`` for a single number, ``"histogram:3"`` for a list of three. They travel in clear.
    numbers : list of float

    Raises
    ------
    NonFiniteError
        Names the metric that is NaN or infinite.
    CodecError
        If there are more than ``limit`` numbers.
    """
    names: list[str] = []
    numbers: list[float] = []
    for name in sorted(metrics):
        value = metrics[name]
        many = [float(value)] if isinstance(value, int | float) else [float(v) for v in value]
        if not all(math.isfinite(v) for v in many):
            raise NonFiniteError(f"Metric {name!r} is NaN or infinite; nothing was sent")
        names.append(f"{name}:" if isinstance(value, int | float) else f"{name}:{len(many)}")
        numbers += many
    if len(numbers) > limit:
        raise CodecError(f"The MetricRecord holds {len(numbers)} numbers; raise Codec(max_metrics={len(numbers)})")
    return tuple(names), numbers


def metric_sizes(names: Sequence[str]) -> list[tuple[str, int | None]]:
    """Return name and list length (None for a single number) of each metric; raise on malformed names."""
    sizes: list[tuple[str, int | None]] = []
    for text in names:
        name, colon, size = text.rpartition(":")
        if not colon or (size and not (size.isascii() and size.isdigit() and len(size) <= 4)):
            raise ProtocolError("A metric name in the reply is malformed")
        sizes.append((name, int(size) if size else None))
    return sizes


def unflatten_metrics(names: Sequence[str], numbers: Sequence[float]) -> dict[str, float | list[float]]:
    """Undo :func:`flatten_metrics`."""
    metrics: dict[str, float | list[float]] = {}
    rest = iter(numbers)
    for name, size in metric_sizes(names):
        metrics[name] = next(rest) if size is None else [next(rest) for _ in range(size)]
    return metrics


def count_metrics(names: Sequence[str]) -> int:
    """Return how many numbers the metrics called ``names`` take."""
    return sum(1 if size is None else size for _, size in metric_sizes(names))
