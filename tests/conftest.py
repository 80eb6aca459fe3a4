"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from flbc.crypto import keystore, paillier
from flbc.crypto.keystore import PartyKeys
from flbc.flower.simulated import DEVELOPMENT_PASSWORD
from tests.support.local_grid import FIRST_NODE
from tests.support.parties import KEY_BITS

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", deadline=None, max_examples=2000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# Tests must not depend on what the user's shell says.
for _name in ("FLBC_KEY_PASSWORD", "FLBC_HOME"):
    os.environ.pop(_name, None)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test its own FLBC_HOME."""
    path = tmp_path / "flbc"
    monkeypatch.setenv("FLBC_HOME", str(path))
    return path


@pytest.fixture(autouse=True)
def same_start() -> None:
    """Give every test the same model weights, whichever tests ran before it in its process."""
    if "torch" in sys.modules:
        # The seed with which torch starts, so that it is no matter which test loads it first.
        sys.modules["torch"].manual_seed(67280421310721)


@pytest.fixture(scope="session")
def opening_key() -> paillier.PrivateKey:
    """A real 2048-bit key; made once, because that takes a second."""
    return paillier.generate(KEY_BITS)


@pytest.fixture(scope="session")
def authority_file(tmp_path_factory: pytest.TempPathFactory, opening_key: paillier.PrivateKey) -> Path:
    """A simulated authority's key file."""
    path = tmp_path_factory.mktemp("keys") / "authority.key"
    fresh = PartyKeys.generate("authority")
    keystore.save(
        path,
        PartyKeys("authority", fresh.signing, fresh.encryption, fresh.vrf, opening_key),
        DEVELOPMENT_PASSWORD,
    )
    return path


@pytest.fixture
def ready_key(home: Path, authority_file: Path):
    """Return a function that puts the session's opening key where simulated node ``nodes - 1`` looks for it."""

    def place(nodes: int, run_id: int = 1) -> None:
        directory = home / "runs" / f"{run_id}-{FIRST_NODE + nodes - 1}"
        directory.mkdir(parents=True, mode=0o700, exist_ok=True)
        shutil.copy2(authority_file, directory / "authority.key")

    return place
