"""ClientApp: a hospital trains logistic regression on its own patients. SecureMod hides what it sends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from ...demo.heart import FEATURE_NAMES, HOSPITALS, Split, split
from ...errors import ConfigError
from ..mod import SecureMod
from .settings import AppSettings

if TYPE_CHECKING:
    from torch import nn


def patients(context: Context) -> Split:
    """Return the node's patients: partition-id is the index of the hospital."""
    partition = int(context.node_config["partition-id"])
    if partition >= len(HOSPITALS):
        raise ConfigError(f"Partition {partition} has no data: the demo has {len(HOSPITALS)} hospitals")
    return split(HOSPITALS[partition], int(context.run_config["fold"]))


app = ClientApp(mods=[SecureMod(examples=lambda context: len(patients(context).train_y))])


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train one round: a clipped gradient sum for patient-level privacy, else full-batch gradient steps."""
    import torch

    settings, data = AppSettings.read(context.run_config), patients(context)
    model = _load(message)
    x, y = torch.from_numpy(data.train_x), torch.from_numpy(data.train_y).double()
    arrays: dict[str, Any]
    if settings.privacy_unit == "example":
        from ...privacy import clipped_gradient_sum

        loss = torch.nn.BCEWithLogitsLoss(reduction="none")
        arrays = clipped_gradient_sum(model, loss, (x, y), settings.clip_norm)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=settings.learning_rate)
        for _ in range(settings.local_steps):
            optimizer.zero_grad()
            torch.nn.functional.binary_cross_entropy_with_logits(model(x), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        arrays = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    record = ArrayRecord({name: Array(np.asarray(value)) for name, value in arrays.items()})
    metrics = MetricRecord({"num-examples": len(data.train_y)})
    if settings.privacy_unit == "example":
        metrics["clip-norm"] = settings.clip_norm  # SecureMod compares it with the task's; it stays here
    return Message(RecordDict({"arrays": record, "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Test the global model on the node's held-out patients."""
    import torch

    data, model = patients(context), _load(message)
    with torch.no_grad():
        right = (model(torch.from_numpy(data.test_x)) > 0).numpy() == (data.test_y > 0)
    metrics = MetricRecord({"num-examples": len(data.test_y), "accuracy": float(right.mean())})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def _load(message: Message) -> nn.Module:
    from ...demo.logistic import logistic_regression

    model = logistic_regression(len(FEATURE_NAMES)).double()
    model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    return model
