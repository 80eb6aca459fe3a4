"""Commands in this process, on the embedded chain of a FLBC_HOME that each test gets a copy of."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flbc import cli
from flbc.commands.cures import explain
from flbc.crypto import keystore
from flbc.crypto.keystore import PartyKeys
from flbc.errors import FlbcError
from flbc.ledger.accounts import development_key
from flbc.ledger.chain import Chain, connect
from flbc.ledger.transactions import Call
from tests.support.ledger import ETHER, Consortium, Setting, deploy_contracts, send

PASSWORD = "correct horse battery"
HOSPITALS = {"cleveland": 242, "hungary": 235, "switzerland": 98, "va": 160}
STAKES = {"cleveland": "0.5", "hungary": "0.25", "switzerland": "0.05", "va": "0.1"}
OTHERS = ("authority", "publisher", "stranger")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run each test in its own folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLBC_KEY_PASSWORD", PASSWORD)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def run(*arguments: object, code: int = 0) -> Any:
    """Run a command that must end with ``code``."""
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def fails(*arguments: object) -> str:
    """Run a command that must fail with one of flbc's errors; return what the user reads."""
    with pytest.raises(FlbcError) as caught:
        CliRunner().invoke(cli.app, [str(argument) for argument in arguments], catch_exceptions=False)
    return explain(caught.value)


def give(chain: Chain, account: bytes, ether: int = 10) -> None:
    """Send ether from the development account."""
    send(chain, development_key(0), Call(account, value=ether * ETHER), 21_000)


def travel(seconds: int) -> None:
    """Move the embedded chain's clock forward."""
    with connect("embedded") as chain:
        chain.w3.provider.make_request("testing_timeTravel", [chain.now() + seconds])


@pytest.fixture(scope="session")
def key_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make real key files of four hospitals and others."""
    made = tmp_path_factory.mktemp("keys")
    for name in (*HOSPITALS, *OTHERS):
        keystore.save(made / f"{name}.key", PartyKeys.generate(name), PASSWORD)
    return made


@pytest.fixture
def keys(key_files: Path, folder: Path) -> Path:
    """Put the key files into the test's folder."""
    for path in key_files.iterdir():
        shutil.copy2(path, folder)
    return folder


@contextmanager
def flbc_home(path: Path) -> Iterator[Path]:
    """Point commands to a FLBC_HOME that outlives a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLBC_HOME", str(path))
        patch.setenv("FLBC_KEY_PASSWORD", PASSWORD)
        yield path


@pytest.fixture(scope="session")
def registered_home(key_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Deploy for parties with key files, give all some ether, and register them; by the commands."""
    authority = keystore.read_public(key_files / "authority.key")["address"]
    with flbc_home(tmp_path_factory.mktemp("registered")) as path:
        run("deploy", "--no-simulation", "--unbonding", 3600, "--authority", authority)
        with connect("embedded") as chain:
            for name in (*HOSPITALS, *OTHERS):
                give(chain, bytes.fromhex(keystore.read_public(key_files / f"{name}.key")["address"][2:]))
        for name, examples in HOSPITALS.items():
            run(
                "register", "--key", key_files / f"{name}.key", "--role", "hospital,committee", "--examples", examples,
                "--stake", STAKES[name],
            )  # fmt: skip
        run("register", "--key", key_files / "authority.key", "--role", "authority")
        run("register", "--key", key_files / "publisher.key", "--publisher")
    return path


@pytest.fixture
def registered(registered_home: Path, home: Path, keys: Path) -> Path:
    """Give the test its own copy of the registered consortium."""
    shutil.copytree(registered_home, home)
    return home


@pytest.fixture(scope="session")
def settled_home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Consortium]:
    """Run a task with two blocks up to its settlement, and one more up to its publication."""
    with flbc_home(tmp_path_factory.mktemp("settled")) as path, connect("embedded") as chain:
        deployment = deploy_contracts(chain, path)
        deployment.save()
        consortium = Consortium(chain, deployment, Setting(reward=ETHER + 7)).begin()
        consortium.run_rounds(2).settle()
        Consortium(chain, deployment, Setting(), salt="another").publish()
    (path / "keys").mkdir()
    for actor in consortium.actors[:3]:
        own = actor.keys
        keystore.save(path / "keys" / f"{actor.name}.signing.key", own, PASSWORD)
        account = PartyKeys(actor.name, actor.account, own.encryption, own.vrf, None)
        keystore.save(path / "keys" / f"{actor.name}.key", account, PASSWORD)
    return path, consortium


@pytest.fixture
def settled(settled_home: tuple[Path, Consortium], home: Path, folder: Path) -> Consortium:
    """Give the test its own copy of the settled task; the chain that the consortium knows is closed."""
    path, consortium = settled_home
    shutil.copytree(path, home)
    for key in (path / "keys").iterdir():
        shutil.copy2(key, folder)
    return consortium
