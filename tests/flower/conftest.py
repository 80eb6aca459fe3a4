from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, Result, Strategy

from flbc import Ledger, Paillier
from flbc.crypto import keystore
from flbc.crypto.keystore import PartyKeys
from flbc.ledger.chain import connect
from tests.ledger.conftest import give
from tests.support.apps import MODEL, make_app, record
from tests.support.local_grid import FIRST_NODE, LocalGrid
from tests.support.parties import KEY_BITS


@pytest.fixture
def grid(ready_key: Callable[..., None]) -> Callable[..., LocalGrid]:
    """Return a function that makes a grid of ``nodes`` nodes, the last of which is the authority."""

    def make(app: ClientApp | None = None, nodes: int = 5, **options: Any) -> LocalGrid:
        ready_key(nodes)
        return LocalGrid(app or make_app(), nodes, **options)

    return make


@pytest.fixture(scope="session")
def enrolled(tmp_path_factory: pytest.TempPathFactory, authority_file: Path) -> Path:
    """An FLBC_HOME after one run: contracts on the embedded chain, registered parties, a settled task."""
    folder = tmp_path_factory.mktemp("enrolled")
    node = folder / "runs" / f"1-{FIRST_NODE + 4}"
    node.mkdir(parents=True, mode=0o700)
    shutil.copy2(authority_file, node / "authority.key")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLBC_HOME", str(folder))
        strategy = secure(ledger=Ledger())
        run(strategy, LocalGrid(make_app(), 5))
        assert strategy.settled
    return folder


@pytest.fixture
def chained(home: Path, enrolled: Path) -> Path:
    """Let the test begin where that run ended: saves the seconds of deploying and registering."""
    shutil.copytree(enrolled, home, dirs_exist_ok=True)
    return home


@pytest.fixture
def relayer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return a function that makes a relayer's key file, and gives its account some ether."""

    def make(ether: float, url: str = "embedded") -> str:
        monkeypatch.setenv("FLBC_KEY_PASSWORD", "correct horse")
        path, keys = tmp_path / "relayer.key", PartyKeys.generate("relayer")
        keystore.save(path, keys, "correct horse")
        with connect(url) as chain:
            give(chain, keys.signing.address, ether)
        return str(path)

    return make


def secure(strategy: Strategy | None = None, **options: Any) -> Paillier:
    """Return a wrapped strategy with a fast key and short waits."""
    options = {"key_bits": KEY_BITS, "node_wait": 2, "stage_timeout": 1, **options}
    return Paillier(strategy or FedAvg(), **options)


def run(strategy: Strategy, grid: LocalGrid, rounds: int = 1, model: dict[str, Any] | None = None) -> Result:
    return strategy.start(grid, record(MODEL if model is None else model), num_rounds=rounds)
