"""Model, data and training of the quickstart."""

import numpy as np
import torch
from torch import nn

from flbc.demo.heart import FEATURE_NAMES, HOSPITALS, split


class Net(nn.Module):
    """A small network with a normalisation layer, so that buffers are aggregated too."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(len(FEATURE_NAMES), 16)
        self.norm = nn.BatchNorm1d(16)
        self.second = nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.norm(self.first(x))))


def load_data(partition_id: int, num_partitions: int):
    """Partition the largest hospital's patients into equal-sized lots by position."""
    data = split(HOSPITALS[0], fold=0)
    mine = slice(partition_id, None, num_partitions)
    x, y = data.train_x[mine], data.train_y[mine]
    return torch.tensor(np.asarray(x), dtype=torch.float32), torch.tensor(y)


def train(model: nn.Module, data, epochs: int, lr: float) -> float:
    x, y = data
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    model.train()
    for _ in range(epochs):
        for rows in torch.arange(len(y)).split(30):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
    return float(loss)


def test(model: nn.Module, data) -> float:
    x, y = data
    model.eval()
    with torch.no_grad():
        return float((model(x).argmax(1) == y).float().mean())
