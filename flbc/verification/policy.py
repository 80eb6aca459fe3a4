"""Which models may enter a sum: the rules, and the integers that follow from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from ..errors import ConfigError, ProtocolError

#: Fractional bits of activations and of the weights that inference works with.
FRACTION = 13
#: Fractional bits in which updates are shared and summed.
SUM_FRACTION = 24
#: Largest magnitude of a train metric in its fixed point.
METRIC_BOUND = 2**32
#: What a round of checks shows about single models.
REVEALS = ("bit", "count", "none")
_BITS = 62


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """What a hidden model must satisfy to be summed. All rules that are set must hold.

    Parameters
    ----------
    max_change : float (default: 1.0)
        Largest magnitude of any coordinate of an update. Always on: the other rules are meaningless for numbers so
        large that they wrap around in the ring, and 64-bit comparisons of every coordinate refuse those.
    max_norm : float or None (default: None)
        Largest L2 norm of an update.
    norm_factor : float or None (default: 2.0)
        Largest L2 norm of an update in units of the median of all updates of the round; the median stays hidden.
    min_accuracy : float or None (default: None)
        Smallest accuracy on the committee's validation data, 0 to 1.
    max_drop : float or None (default: 0.02)
        How far the accuracy may lie below that of the last global model, and below the median of all models of the
        round; both stay hidden.
    sigmas : float (default: 2.0)
        What chance is given beside: so many standard deviations ``0.5 / sqrt(samples)`` of an accuracy measured on so
        many samples are subtracted from every bar.
    warmup_rounds : int (default: 0)
        First rounds in which accuracies are not looked at; with ``min_accuracy``, a fresh model has none.
    cosine : bool (default: False)
        Refuse updates that point away from the one that the committee computes on its own data (FLTrust's gate).
    reveal : str (default: "bit")
        What the checks show: ``"bit"``: per client whether its model was accepted. ``"count"``: how many were.
        ``"none"``: only that enough were, and the sum of the weights of those.
    allow_overflow : bool (default: False)
        Accept a model so deep that a hostile one within ``max_change`` might overflow during inference.

    Raises
    ------
    ConfigError
        If a number is out of its range; says which.
    """

    max_change: float = 1.0
    max_norm: float | None = None
    norm_factor: float | None = 2.0
    min_accuracy: float | None = None
    max_drop: float | None = 0.02
    sigmas: float = 2.0
    warmup_rounds: int = 0
    cosine: bool = False
    reveal: str = "bit"
    allow_overflow: bool = False

    def __post_init__(self) -> None:
        """Refuse a policy that checks nothing by mistake."""
        limits: tuple[tuple[str, float, float], ...] = (
            ("max_change", 2.0**-SUM_FRACTION, 2.0**10),
            ("max_norm", 2.0**-FRACTION, 2.0**20),
            ("norm_factor", 1.0, 1000.0),
            ("min_accuracy", 0.0, 1.0),
            ("max_drop", 0.0, 1.0),
            ("sigmas", 0.0, 10.0),
        )
        for name, low, high in limits:
            value = getattr(self, name)
            if value is None and name not in ("max_change", "sigmas"):
                continue
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not low <= value <= high:
                raise ConfigError(f"Policy({name}={value!r}) must be a number from {low:g} to {high:g}")
            object.__setattr__(self, name, float(value))
        if type(self.warmup_rounds) is not int or self.warmup_rounds < 0:
            raise ConfigError("Policy(warmup_rounds=...) must be a whole number of rounds, 0 or more")
        if type(self.cosine) is not bool or type(self.allow_overflow) is not bool:
            raise ConfigError("Policy(cosine=..., allow_overflow=...) must be True or False")
        if self.reveal not in REVEALS:
            raise ConfigError(f"Policy(reveal={self.reveal!r}) must be one of {', '.join(REVEALS)}")

    # ------------------------------------------------------------------ what nodes compute with
    def looks_at_accuracy(self, round_: int) -> bool:
        """Whether accuracies count in a round."""
        return round_ > self.warmup_rounds and (self.min_accuracy is not None or self.max_drop is not None)

    def min_correct(self, samples: int) -> int:
        """Return how many of so many samples a model must get right at least; 0 without an absolute bar."""
        if self.min_accuracy is None:
            return 0
        return max(0, math.ceil(samples * (self.min_accuracy - self._chance(samples))))

    def slack(self, samples: int) -> int:
        """Return by how many right answers a model may fall behind a reference."""
        return math.floor(samples * ((self.max_drop or 0.0) + self._chance(samples)))

    def _chance(self, samples: int) -> float:
        # The largest standard deviation that a share of so many independent samples can have.
        return self.sigmas * 0.5 / math.sqrt(samples)

    @property
    def change_bound(self) -> int:
        """Largest magnitude of a coordinate, in units of 2^-24."""
        return math.floor(self.max_change * 2.0**SUM_FRACTION)

    def check_size(self, parameters: int, max_weight: int, parties: int) -> None:
        """Raise unless no sum or squared norm within ``max_change`` can wrap around.

        Parameters
        ----------
        parameters : int
            Coordinates of an update.
        max_weight : int
            Largest weight (number of examples) of a client.
        parties : int
            Most clients in a sum.

        Raises
        ------
        ConfigError
            Says by what factor ``max_change`` or the weights must fall.
        """
        total = max(self.change_bound, METRIC_BOUND) * max_weight * parties
        if total >= 2**_BITS:
            raise ConfigError(
                f"{parties} updates within Policy(max_change={self.max_change:g}), or metrics, times weights up to "
                f"{max_weight} do not fit 64 bits; divide max_examples by {math.ceil(total / 2**_BITS)}"
            )
        # 8 fractional bits of norm_factor² come on top; truncated coordinates are off by two at most.
        change = math.ceil(self.max_change * 2**FRACTION) + 2
        factor = 1.0 if self.norm_factor is None else self.norm_factor
        squares = parameters * change**2 * max(1.0, factor**2) * 2**8
        if squares >= 2**_BITS:
            raise ConfigError(
                f"The squared norm of {parameters} coordinates within Policy(max_change={self.max_change:g}) does not "
                f"fit 64 bits; divide max_change by {math.ceil(math.sqrt(squares / 2**_BITS))}"
            )

    # ------------------------------------------------------------------ on the wire
    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild and check; :class:`ProtocolError` if members are missing or unknown."""
        if set(data) != {field.name for field in fields(cls)}:
            raise ProtocolError("The policy has missing or unknown rules")
        return cls(**data)
