"""The committee's own update: which way training goes on data that it trusts (FLTrust; Cao et al. 2021, section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from .folding import fold, summed

EPOCHS = 5
_BATCH = 16
_LEARNING_RATE = 0.05


def root_update(
    module: nn.Module, arrays: Mapping[str, Any], inputs: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Train from the global model on this node's data, and return how all parameters moved.

    Plain SGD with cross entropy, in the order of the data, so that the result is a function of its inputs. Only the
    direction matters.

    Parameters
    ----------
    module : Module
        Of the model's architecture; overwritten.
    arrays : mapping of str to ndarray
        The global model.
    inputs : Tensor, shape (n, ...)
    labels : Tensor of int64, shape (n,)

    Returns
    -------
    Tensor of float64, shape (d,)
        All parameters one after another, in the order of the state dict; BatchNorm folded.
    """
    module.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()})
    module.eval()  # running statistics are public constants here (flbc.verification.folding), and dropout is off
    optimizer, loss = torch.optim.SGD(module.parameters(), _LEARNING_RATE), nn.CrossEntropyLoss()
    for _ in range(EPOCHS):
        for start in range(0, len(inputs), _BATCH):
            optimizer.zero_grad()
            loss(module(inputs[start : start + _BATCH]), labels[start : start + _BATCH].long()).backward()
            optimizer.step()
    before = fold(arrays)
    after = fold({name: value.detach().numpy() for name, value in module.state_dict().items()})
    moved = [after[name].astype(np.float64) - before[name].astype(np.float64) for name in summed(arrays)]
    vector = torch.from_numpy(np.concatenate([part.reshape(-1) for part in moved]))
    return torch.nan_to_num(vector, nan=0.0, posinf=0.0, neginf=0.0)
