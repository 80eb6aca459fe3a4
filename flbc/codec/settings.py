"""The codec's settings, fixed for a task, and the public numbers of one attempt."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from ..crypto.signing import keccak256
from ..encoding import canonical, parse, unhex
from ..errors import ConfigError, ProtocolError
from .compression import Compression


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
    compression : Compression or None (default: None)
        Send few coordinates a round, and keep the rest for later rounds. Not with differential privacy.

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
    compression: Compression | None = None

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
        if self.compression is not None and not isinstance(self.compression, Compression):
            raise ConfigError("Codec(compression=...) must be a flbc.Compression, e.g. Compression(rate=0.9), or None")

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
            "compression": None if self.compression is None else self.compression.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild and check."""
        if set(data) != set(cls.__dataclass_fields__):
            raise ProtocolError("The codec has missing or unknown settings")
        compression = data["compression"]
        if compression is not None and not isinstance(compression, Mapping):
            raise ProtocolError("The codec's compression must be an object, or null")
        return cls(**{**data, "compression": None if compression is None else Compression.from_dict(compression)})


@dataclass(frozen=True)
class Selection:
    """Which coordinates a round sends, as far as nodes cannot know it; with compression only.

    Parameters
    ----------
    top : bytes
        Bitmap of the coordinates of which most is expected (:func:`flbc.codec.indices.pack_indices`).
    chosen : bytes
        Hash of the whole set, drawn ones included: every node computes the set itself and compares.
    """

    top: bytes
    chosen: bytes

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"top": self.top.hex(), "chosen": self.chosen.hex()}

    @classmethod
    def from_dict(cls, data: object) -> Self:
        """Rebuild; nothing is checked but the form."""
        if not isinstance(data, Mapping) or set(data) != {"top", "chosen"}:
            raise ProtocolError("A frame's selection holds top and chosen")
        return cls(unhex(data["top"], None, "top"), unhex(data["chosen"], 32, "chosen"))


@dataclass(frozen=True)
class Frame:
    """The public numbers of one attempt: a range per float tensor, and the largest weight.

    Parameters
    ----------
    ranges : tuple of float
        One per float tensor, in layout order; empty with differential privacy.
    max_weight : float
        Weights are divided by it; 0 while it is not known yet.
    selection : Selection or None
        With compression, what is sent.
    """

    ranges: tuple[float, ...] = ()
    max_weight: float = 0.0
    selection: Selection | None = None

    def __post_init__(self) -> None:
        if not all(math.isfinite(r) and r > 0 for r in self.ranges):
            raise ProtocolError("Every range of a frame must be a positive number")
        if not (math.isfinite(self.max_weight) and self.max_weight >= 0):
            raise ProtocolError("The largest weight of a frame must not be negative")

    @cached_property
    def encoded(self) -> bytes:
        """Canonical bytes."""
        selection = None if self.selection is None else self.selection.to_dict()
        return canonical({"ranges": list(self.ranges), "max_weight": self.max_weight, "selection": selection})

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
            set(value) != {"ranges", "max_weight", "selection"}
            or not isinstance(ranges, list)
            or not all(isinstance(r, float) for r in ranges)
            or not isinstance(weight, float)
        ):
            raise ProtocolError("A frame holds a list of ranges and the largest weight, all floats, and the selection")
        selection = value["selection"]
        return cls(tuple(ranges), weight, None if selection is None else Selection.from_dict(selection))


def _is_positive(value: object) -> bool:
    """Whether ``value`` is an int or float, no bool, that is positive and fits a finite float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= sys.float_info.max
