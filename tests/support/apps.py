"""ClientApps for protocol tests: small, deterministic, numpy only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flbc import SecureMod

#: Global model of the tests: float32 and float64, 0-d, empty, and an integer buffer.
MODEL = {
    "weight": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4),
    "bias": np.array(0.5, np.float64),
    "empty": np.zeros((0, 2), np.float32),
    "batches": np.array(7, np.int64),
}


def record(arrays: dict[str, Any]) -> ArrayRecord:
    return ArrayRecord({name: Array(np.asarray(value)) for name, value in arrays.items()})


def numpy_of(arrays: ArrayRecord) -> dict[str, np.ndarray[Any, Any]]:
    return {name: array.numpy() for name, array in arrays.items()}


def step(partition: int, arrays: dict[str, Any]) -> dict[str, Any]:
    """One deterministic 'training' step: pulls the model towards the partition's own target."""
    new = {}
    for name, value in arrays.items():
        if name != "batches":  # by name: plain FedAvg turns the counter into a float after the first round
            target = np.sin(np.arange(value.size, dtype=np.float64) * (partition + 1)).reshape(value.shape)
            new[name] = (value + 0.1 * (target - value)).astype(value.dtype)
        else:
            new[name] = value + 2 * (partition + 1)
    return new


def reply(message: Message, arrays: dict[str, Any] | None, metrics: dict[str, Any]) -> Message:
    content = RecordDict({"metrics": MetricRecord(metrics)})
    if arrays is not None:
        content["arrays"] = record(arrays)
    return Message(content, reply_to=message)


Train = Callable[[Message, Context], Message]


def default_train(message: Message, context: Context) -> Message:
    partition = int(context.node_config["partition-id"])
    arrays = step(partition, numpy_of(message.content["arrays"]))
    return reply(message, arrays, {"num-examples": 10 * (partition + 1), "loss": 0.5 * partition})


def default_evaluate(message: Message, context: Context) -> Message:
    partition = int(context.node_config["partition-id"])
    return reply(message, None, {"num-examples": 10, "accuracy": 0.1 * partition, "auc": 0.5})


def make_app(
    train: Train = default_train,
    evaluate: Train = default_evaluate,
    mods: Sequence[Any] | None = None,
    **secure: Any,
) -> ClientApp:
    app = ClientApp(mods=[SecureMod(**secure)] if mods is None else list(mods))
    app.train()(train)
    app.evaluate()(evaluate)
    return app
