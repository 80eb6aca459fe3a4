"""Train and test a data set's model on one node's rows, in clear: what happens before anything is protected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .base import Dataset, Split

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True, slots=True)
class Local:
    """How a node trains.

    Parameters
    ----------
    learning_rate : float
    batch_size : int
        0: all rows in one step.
    epochs : int
    """

    learning_rate: float
    batch_size: int
    epochs: int


def fit(data: Dataset, model: nn.Module, split: Split, local: Local, seed: Sequence[int] = (0,)) -> None:
    """Train ``model`` in place on the training rows.

    ``seed`` orders the rows of each epoch, so that a run can be repeated; it protects nothing.
    """
    rng = np.random.default_rng(list(seed))
    rows, size = len(split.train_y), local.batch_size or len(split.train_y)
    optimizer = data.optimizer(model.parameters(), local.learning_rate)
    model.train()
    for _ in range(local.epochs):
        # One batch of everything needs no order, and keeps the order of its sums.
        order = rng.permutation(rows) if size < rows else np.arange(rows)
        for start in range(0, rows, size):
            batch = order[start : start + size]
            inputs, targets = data.tensors(split.train_x[batch], split.train_y[batch])
            optimizer.zero_grad()
            data.losses(model(inputs), targets).mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def gradient_sum(data: Dataset, model: nn.Module, split: Split, clip_norm: float) -> dict[str, NDArray[np.float64]]:
    """Return the sum of the training rows' gradients, each clipped (:func:`flbc.privacy.clipped_gradient_sum`)."""
    from ..privacy import clipped_gradient_sum

    batch = data.tensors(split.train_x, split.train_y)
    return clipped_gradient_sum(model, data.losses, batch, clip_norm, max_batch=data.chunk)


def accuracy(data: Dataset, model: nn.Module, split: Split) -> float:
    """Return the share of test rows whose class the model predicts."""
    import torch

    model.eval()
    right = 0
    with torch.no_grad():
        for start in range(0, len(split.test_y), data.chunk):
            part = slice(start, start + data.chunk)
            inputs, _ = data.tensors(split.test_x[part], split.test_y[part])
            right += int((data.predict(model(inputs)).numpy() == split.test_y[part]).sum())
    return right / len(split.test_y)


def arrays_of(model: nn.Module) -> dict[str, NDArray[Any]]:
    """Return the model's state by name."""
    return {name: value.detach().numpy() for name, value in model.state_dict().items()}
