"""Three classes that a small network learns in a round: models, honest and poisoned clients, validation data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from torch import nn

from flbc import SecureMod
from tests.support.apps import Train, default_evaluate, make_app, numpy_of, reply

CENTRES = np.array([[2.0, 0.0, 0.0, 1.0], [0.0, 2.0, 0.0, -1.0], [0.0, 0.0, 2.0, 0.0]])
Poison = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]


class Net(nn.Module):
    """Four inputs, eight hidden units, three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.relu, self.out = nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.out(self.relu(self.hidden(x)))
        return logits


def blobs(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    inputs = CENTRES[labels] + rng.normal(0, 0.4, (count, 4))
    return torch.from_numpy(inputs).float(), torch.from_numpy(labels)


def initial(net: Callable[[], nn.Module] = Net, seed: int = 0) -> dict[str, Any]:
    torch.manual_seed(seed)
    return {name: value.numpy() for name, value in net().state_dict().items()}


def fit(arrays: dict[str, Any], seed: int, net: Callable[[], nn.Module] = Net, flip: bool = False) -> dict[str, Any]:
    model, (inputs, labels) = net(), blobs(60, seed)
    model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in arrays.items()})
    labels = (labels + 1) % 3 if flip else labels
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    return {name: value.numpy() for name, value in model.state_dict().items()}


def trainer(poisoned: dict[int, Poison | None], net: Callable[[], nn.Module] = Net) -> Train:
    """Return a train function; partitions in ``poisoned`` change what they learned, None: they flip labels."""

    def train(message: Message, context: Context) -> Message:
        partition = int(context.node_config["partition-id"])
        old = numpy_of(message.content["arrays"])
        change = poisoned.get(partition, lambda old, new: new)
        new = fit(old, 100 + partition, net, flip=change is None)
        return reply(message, new if change is None else change(old, new), {"num-examples": 60, "loss": 0.25})

    return train


def validation(context: Context) -> tuple[torch.Tensor, torch.Tensor]:
    return blobs(40, 1000 + int(context.node_config["partition-id"]))


def verified_app(poisoned: dict[int, Poison | None] | None = None, net: Any = Net, **secure: Any) -> ClientApp:
    mod = SecureMod(**{"model": net, "validation": validation, **secure})
    return make_app(trainer(poisoned or {}, net), default_evaluate, [mod])
