"""Metrics as numbers in a fixed order: names travel in clear, values inside the hidden sum."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..errors import CodecError, NonFiniteError, ProtocolError


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
