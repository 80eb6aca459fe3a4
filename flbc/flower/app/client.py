"""ClientApp: a node trains the model of a data set on its own rows. SecureMod hides what it sends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from ...demo import training
from ...demo.base import Dataset
from ...errors import ConfigError
from ..mod import SecureMod
from .settings import AppSettings

if TYPE_CHECKING:
    from torch import nn


def part_of(context: Context, settings: AppSettings) -> tuple[int, int, int, Mapping[str, Any]]:
    """Return which rows are the node's: the arguments of :meth:`flbc.demo.base.Dataset.load`.

    ``partition-id`` and ``num-partitions`` are the node's own config, and so is ``data-dir`` if it is there: a hospital
    says itself where its files are. Otherwise run-config says it, as in simulation.
    """
    node = context.node_config
    partition, partitions = _number(node, "partition-id"), settings.data.partitions
    if partitions is None:
        partitions = _number(node, "num-partitions")
    config = {**context.run_config, "data-dir": node.get("data-dir") or settings.data_dir}
    return partition, partitions, settings.fold, config


def declared(context: Context) -> int:
    """Return the size of the node's training set."""
    settings = AppSettings.read(context.run_config)
    return settings.data.examples(*part_of(context, settings))


app = ClientApp(mods=[SecureMod(examples=declared)])


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train one round: a clipped gradient sum for the privacy of single examples, else local steps."""
    settings = AppSettings.read(context.run_config)
    part = part_of(context, settings)
    rows, model = settings.data.load(*part), _load(message, settings.data)
    metrics = MetricRecord({"num-examples": len(rows.train_y)})
    arrays: dict[str, Any]
    if settings.privacy_unit == "example":
        arrays = training.gradient_sum(settings.data, model, rows, settings.clip_norm)
        metrics["clip-norm"] = settings.clip_norm  # SecureMod compares it with the task's; it stays here
    else:
        training.fit(settings.data, model, rows, settings.local, (part[0], _round(message)))
        arrays = training.arrays_of(model)
    record = ArrayRecord({name: Array(np.asarray(value)) for name, value in arrays.items()})
    return Message(RecordDict({"arrays": record, "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Test the global model on the node's held-out rows."""
    settings = AppSettings.read(context.run_config)
    rows = settings.data.load(*part_of(context, settings))
    share = training.accuracy(settings.data, _load(message, settings.data), rows)
    metrics = MetricRecord({"num-examples": len(rows.test_y), "accuracy": share})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def _load(message: Message, data: Dataset) -> nn.Module:
    model = data.model()
    model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    return model


def _round(message: Message) -> int:
    """Return the round's number; it only orders batches, so 0 will do where nobody says it."""
    config = message.content.config_records.get("config")
    number = 0 if config is None else config.get("server-round", 0)
    return number if type(number) is int and number >= 0 else 0


def _number(node: Mapping[str, Any], key: str) -> int:
    value = node.get(key)
    if type(value) is not int or value < 0:
        raise ConfigError(f"This node does not know which data are its own: add {key}=NUMBER to --node-config")
    return value
