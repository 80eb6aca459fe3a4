"""Settings of Deep Gradient Compression (:mod:`flbc.codec.sparsify`): how much of an update a round sends."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self

from ..errors import CodecError, ConfigError, ProtocolError

#: Longest warm-up, in rounds: a bound on the work of :meth:`Compression.kept`.
MAX_WARM_UP = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Compression:
    """How much of an update is sent in each round.

    Parameters
    ----------
    rate : float
        Share of the coordinates that is *not* sent after the warm-up, from 0 to below 1; 0.9 sends a tenth.
    momentum : float (default: 0.0)
        Momentum correction, from 0 to below 1: a coordinate that waits gathers ``momentum`` times its last velocity
        too. It acts as a server's momentum would, on the coordinates that wait.
    warm_up : int (default: 4)
        Rounds in which the rate grows to its final value.
    explore : float (default: 0.2)
        Share of the sent coordinates that is drawn by lot, from 0 to 1, rounded up; the others are those of which most
        is expected. At 0, a coordinate that was zero when it was last opened may never be sent again.
    clip : float or None (default: None)
        L2 norm to which the sum of all clients' updates of a round is held: each client clips its own to
        ``clip / sqrt(clients)`` (DGC, section 3.2). None: no clipping.

    Raises
    ------
    ConfigError
        If a value is out of range.
    """

    rate: float
    momentum: float = 0.0
    warm_up: int = 4
    explore: float = 0.2
    clip: float | None = None

    def __post_init__(self) -> None:
        for name, what in (("rate", "the share that is not sent"), ("momentum", "0 switches it off")):
            value = getattr(self, name)
            if not (_is_number(value) and 0 <= value < 1):
                raise ConfigError(f"Compression({name}={value!r}) must be a number from 0 to below 1: {what}")
        if not (_is_number(self.explore) and 0 <= self.explore <= 1):
            raise ConfigError(
                f"Compression(explore={self.explore!r}) must be a number from 0 to 1; 0.2 is a good choice"
            )
        if type(self.warm_up) is not int or not 0 <= self.warm_up <= MAX_WARM_UP:
            raise ConfigError(f"Compression(warm_up={self.warm_up!r}) must be an integer from 0 to {MAX_WARM_UP}")
        if self.clip is not None and not (_is_number(self.clip) and self.clip > 0):
            raise ConfigError(f"Compression(clip={self.clip!r}) must be a positive number, or None")

    def kept(self, round_: int, size: int) -> int:
        """Return how many of ``size`` coordinates are sent in a round.

        The share is ``(1 - rate) ** (min(round_, warm_up + 1) / (warm_up + 1))``, rounded up to a whole coordinate.
        With rate 0.999 and warm_up 4 that leaves out 74.9 %, 93.7 %, 98.4 %, 99.6 % and then 99.9 %: as DGC's 75 %,
        93.75 %, 98.4375 %, 99.6 % and 99.9 % (section 3.3).

        Every node computes the length of the sum from it, so it is exact: no rounding error of a processor or a library
        can move it by one.

        Parameters
        ----------
        round_ : int
            Number of the round, from 1.
        size : int
            Coordinates of all float arrays together.

        Returns
        -------
        int
            From 1 to ``size``; 0 if ``size`` is 0.
        """
        if round_ < 1 or size < 0:
            raise CodecError("Rounds count from 1, and a size is not negative")
        steps = self.warm_up + 1
        step = min(round_, steps)
        share = 1 - _decimal(self.rate)
        count = math.ceil(size * math.pow(share, step / steps))
        # Floating point is off by one at most. The rest compares whole numbers: count / size with share^(step / steps).
        while count and Fraction(count - 1, size) ** steps >= share**step:
            count -= 1
        while size and Fraction(count, size) ** steps < share**step:
            count += 1
        return count

    def ranked(self, round_: int, size: int) -> int:
        """Return how many of the kept coordinates are those of which most is expected; the others are drawn by lot."""
        count = self.kept(round_, size)
        return count - math.ceil(_decimal(self.explore) * count)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "rate": float(self.rate),
            "momentum": float(self.momentum),
            "warm_up": self.warm_up,
            "explore": float(self.explore),
            "clip": None if self.clip is None else float(self.clip),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild and check."""
        if set(data) != set(cls.__dataclass_fields__):
            raise ProtocolError("The compression has missing or unknown settings")
        return cls(**data)


def _decimal(value: float) -> Fraction:
    """Return the number that its shortest decimal form says: 0.9 is nine tenths."""
    return Fraction(repr(float(value)))


def _is_number(value: object) -> bool:
    """Whether ``value`` is an int or float, no bool, that fits a finite float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
