from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, Result, Strategy

from flbc import Paillier
from tests.support.apps import MODEL, make_app, record
from tests.support.local_grid import LocalGrid
from tests.support.parties import KEY_BITS


@pytest.fixture
def grid(ready_key: Callable[..., None]) -> Callable[..., LocalGrid]:
    """Return a function that makes a grid of ``nodes`` nodes, the last of which is the authority."""

    def make(app: ClientApp | None = None, nodes: int = 5, **options: Any) -> LocalGrid:
        ready_key(nodes)
        return LocalGrid(app or make_app(), nodes, **options)

    return make


def secure(strategy: Strategy | None = None, **options: Any) -> Paillier:
    """Return a wrapped strategy with a fast key and short waits."""
    options = {"key_bits": KEY_BITS, "node_wait": 2, "stage_timeout": 1, **options}
    return Paillier(strategy or FedAvg(), **options)


def run(strategy: Strategy, grid: LocalGrid, rounds: int = 1, model: dict[str, Any] | None = None) -> Result:
    return strategy.start(grid, record(MODEL if model is None else model), num_rounds=rounds)
