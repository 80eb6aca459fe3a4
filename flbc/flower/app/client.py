"""ClientApp: a node trains the model of a data set on its own rows. SecureMod hides what it sends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from ...demo import training
from ...demo.attacks import Attack
from ...demo.base import Dataset
from ...demo.checkable import Checkable
from ...errors import ConfigError
from ...privacy import poisson_sample
from ..mod import SecureMod
from ..node import in_simulation
from .settings import AppSettings

if TYPE_CHECKING:
    from torch import Tensor, nn


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


def validation(context: Context) -> tuple[Tensor, Tensor]:
    """Return the rows on which a verifier checks models; ``partition-id`` says which, 0 to 2."""
    settings = AppSettings.read(context.run_config)
    if not isinstance(settings.data, Checkable):
        raise ConfigError('Models are checked with strategy = "verified" alone')
    seat, _, _, config = part_of(context, settings)
    return settings.data.tensors(*settings.data.validation(seat, config))


def secured(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Apply SecureMod. Apps with one data set write ``ClientApp(mods=[SecureMod(model=Net, validation=validation)])``.

    Here run-config chooses the data set, among those that this package brings.
    """
    settings = AppSettings.read(context.run_config)
    if settings.verifying is None:
        return SecureMod(examples=declared)(message, context, call_next)
    return SecureMod(examples=declared, model=settings.data.model, validation=validation)(message, context, call_next)


app = ClientApp(mods=[secured])


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train one round: a clipped gradient sum for the privacy of single examples, else local steps."""
    settings = AppSettings.read(context.run_config)
    part = part_of(context, settings)
    rows, model = settings.data.load(*part), _load(message, settings.data)
    metrics = MetricRecord({"num-examples": len(rows.train_y)})
    arrays: dict[str, Any]
    if settings.privacy_unit == "example":
        drawn = poisson_sample(len(rows.train_y), settings.sampling_rate)
        rows = replace(rows, train_x=rows.train_x[drawn], train_y=rows.train_y[drawn])
        arrays = training.gradient_sum(settings.data, model, rows, settings.clip_norm)
        metrics["clip-norm"] = settings.clip_norm  # SecureMod compares both with the task's; they stay here
        metrics["sample-rate"] = settings.sampling_rate
    else:
        attack, seed = _attack(context, settings, part[0], part[1]), (part[0], _round(message))
        rng = np.random.default_rng(seed)
        x, y = attack.poison_data(rows.train_x, rows.train_y, settings.data.classes, rng)
        before = {name: array.numpy() for name, array in message.content.array_records["arrays"].items()}
        training.fit(settings.data, model, replace(rows, train_x=x, train_y=y), settings.local, seed)
        arrays = attack.poison_update(before, training.arrays_of(model), rng)
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


def _attack(context: Context, settings: AppSettings, partition: int, partitions: int) -> Attack:
    """Return what this node does to its data and update: nothing, but in demonstrations.

    Raises
    ------
    ConfigError
        If run-config asks a deployed node to do harm: whoever starts a run must not be able to.
    """
    demonstration = settings.verifying
    if demonstration is None or not demonstration.attack_name:
        return Attack()
    if not in_simulation(context):
        raise ConfigError('Run-config attack is for simulations; set attack = ""')
    return demonstration.attack if partition in demonstration.attackers(partitions) else Attack()


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
