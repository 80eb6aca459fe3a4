"""From the opened sum back to Flower: one reply that holds the mean."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from ..codec import OpenedUpdate
from ..codec.metrics import unflatten_metrics


def apply_mean(arrays: ArrayRecord, mean: dict[str, NDArray[np.float64]], rate: float) -> ArrayRecord:
    """Return ``global + rate * mean`` in the original dtypes; integer arrays are rounded, absent ones kept."""
    new: dict[str, Array] = {}
    for name, array in arrays.items():
        old = array.numpy()
        if name not in mean:
            new[name] = array
            continue
        moved: NDArray[Any] = old.astype(np.float64) + rate * mean[name]
        if old.dtype.kind in "iu":
            moved = old + np.rint(rate * mean[name]).astype(np.int64)
        new[name] = Array(np.asarray(moved).astype(old.dtype).reshape(old.shape))
    return ArrayRecord(new)


def restore_dtypes(arrays: ArrayRecord, template: ArrayRecord) -> ArrayRecord:
    """Cast what a strategy returned back to the model's dtypes: FedAvg turns integer buffers into float64."""
    new: dict[str, Array] = {}
    for name, array in arrays.items():
        if name in template and array.dtype != template[name].dtype:
            values, dtype = array.numpy(), np.dtype(template[name].dtype)
            values = np.rint(values) if dtype.kind in "iu" else values
            array = Array(np.asarray(values).astype(dtype))
        new[name] = array
    return ArrayRecord(new)


def pseudo_reply(
    like: Message,
    arrays: ArrayRecord,
    opened: OpenedUpdate,
    metric_names: tuple[str, ...],
    rate: float,
    keys: tuple[str, str],
    clear: Sequence[Mapping[str, Any]],
) -> Message:
    """Return the one reply that the wrapped strategy aggregates.

    Parameters
    ----------
    like : Message
        A reply whose metadata is borrowed.
    arrays : ArrayRecord
        The global model that was sent.
    opened : OpenedUpdate
        The decoded sum.
    metric_names : tuple of str
        Names of the metrics inside the sum.
    rate : float
        Factor of the mean: 1 for updates, minus the learning rate for gradients.
    keys : tuple of str
        Names of the ArrayRecord and of the weight.
    clear : sequence of mapping
        Per accepted client, the metrics it revealed (outside epsilon); finite numbers are averaged.
    """
    array_key, weight_key = keys
    weight = int(opened.weight) if float(opened.weight).is_integer() else opened.weight
    metrics: dict[str, Any] = {weight_key: weight, **unflatten_metrics(metric_names, opened.metrics)}
    for name in sorted({name for record in clear for name in record}):
        values = [value for record in clear if isinstance(value := record.get(name), int | float)]
        if values and all(map(math.isfinite, values)):
            metrics[name] = sum(values) / len(values)
    like.content = RecordDict({array_key: apply_mean(arrays, opened.mean, rate), "metrics": MetricRecord(metrics)})
    return like
