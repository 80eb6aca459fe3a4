"""Parties with their own keys and rosters: registered, published by a publisher, relayed by somebody without rights."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message

from flbc import ConfigError, Ledger, RosterError
from flbc.crypto import paillier
from flbc.encoding import canonical, parse
from flbc.errors import LedgerError, RevertedError
from flbc.flower import wire
from flbc.ledger import accounts, publishing
from flbc.ledger.chain import connect
from flbc.ledger.hub import Hub
from flbc.ledger.publishing import TaskFile
from tests.flower.conftest import run, secure
from tests.flower.test_faults import stage_of
from tests.support.apps import make_app
from tests.support.chain_runs import audited, claim_of, history_of, tasks, transact
from tests.support.local_grid import LocalGrid
from tests.support.real_parties import AUTHORITY, ETHER, EXAMPLES, HOSPITALS, PASSWORD, RealParties


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, opening_key: paillier.PrivateKey) -> tuple[Path, RealParties]:
    """An FLBC_HOME with registered parties; every test gets a copy, which takes milliseconds."""
    folder = tmp_path_factory.mktemp("original")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLBC_HOME", str(folder / "flbc"))
        return folder, RealParties.make(folder / "parties", opening_key)


@pytest.fixture
def parties(
    original: tuple[Path, RealParties], tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> RealParties:
    monkeypatch.setenv("FLBC_KEY_PASSWORD", PASSWORD)
    folder, made = original
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    assert home == tmp_path / "flbc"
    return replace(made, folder=tmp_path / "parties")


@pytest.fixture
def grid(parties: RealParties) -> Callable[..., LocalGrid]:
    def make(**options: Any) -> LocalGrid:
        sizes = [EXAMPLES[name] for name in HOSPITALS]
        app = make_app(examples=lambda context: sizes[int(context.node_config["partition-id"])])
        return LocalGrid(app, 5, node_config=parties.node_config, **options)

    return make


Grids = Callable[..., LocalGrid]


def ledger(parties: RealParties, **options: Any) -> Ledger:
    file = {"key": parties.folder / "relayer.key", "deployment": parties.folder / "deployment.json"}
    return Ledger(**{**file, "publish_wait": 20.0, "payout": "examples", **options})


def nothing_published(parties: RealParties) -> bool:
    with connect(parties.url) as chain:
        return not tasks(parties.hub(chain))


def test_from_the_publisher_to_the_claims(parties: RealParties, grid: Grids, home: Path, caplog: Any) -> None:
    file, strategy = parties.folder / "deployment.json", secure(ledger=ledger(parties, accuracy=0.1))
    with parties.publisher(home) as outcome:
        run(strategy, grid(), 2)
    (task,) = outcome
    assert strategy.settled
    report = audited(task, file=file)
    assert (report.status, report.simulation, report.paid) == ("settled", False, 0), "nobody claims for the parties"
    assert {row.name: row.amount for row in report.payouts} == {
        name: ETHER * size // 100 for name, size in EXAMPLES.items()
    }
    settlement = history_of(task, file=file).settlement
    relayer, hungary = parties.keys["relayer"].signing, parties.keys["hungary"].signing
    with connect() as chain:
        hub = parties.hub(chain)
        before, call = chain.balance(hungary.address), claim_of(hub, task, settlement, parties.index("hungary"))
        with pytest.raises(RevertedError, match="BadClaim"):
            transact(hub, relayer, "mine", call)
        transact(hub, hungary, "claim", call)
        assert ETHER // 5 - (chain.balance(hungary.address) - before) < ETHER // 1000
    assert audited(task, file=file).paid == ETHER // 5


def test_the_relayer_has_no_rights(parties: RealParties) -> None:
    """It can send what others signed, and nothing of its own."""
    relayer = parties.keys["relayer"].signing.address
    with connect() as chain:
        hub = parties.hub(chain)
        publish = hub.publish(
            salt=bytes(32), model=bytes(32), roster=bytes(32), accuracy_bps=0, deadline=chain.now() + 100, quorum=1,
            vrf=True, openers=4, config=b"{}", reward=1,
        )  # fmt: skip
        for call, error in (
            (hub.registry.suspend(parties.keys["hungary"].signing.address), "OwnableUnauthorizedAccount"),
            (hub.registry.transfer_ownership(relayer), "OwnableUnauthorizedAccount"),
            (hub.registry.withdraw_slashed(), "NothingToMove"),
            (hub.registry.withdraw_stake(), "NotUnstaking"),
            (publish, "NotPublisher"),
        ):
            with pytest.raises(RevertedError, match=error):
                chain.simulate(call, sender=relayer)
        assert hub.registry.authority() == AUTHORITY.address
        assert hub.registry.account_of(relayer) is None


def test_a_hospital_that_is_not_registered(
    parties: RealParties, grid: Grids, home: Path, tmp_path: Path, opening_key: paillier.PrivateKey
) -> None:
    RealParties.make(tmp_path / "others", opening_key, absent=("hungary",))
    parties.folder = tmp_path / "others"
    with pytest.raises(RosterError, match="'hungary' is not registered on this chain: run `flbc register`"):
        run(secure(ledger=ledger(parties)), grid())
    assert not (home / "tasks").exists()


def test_a_hospital_that_registered_something_else(parties: RealParties, grid: Grids, home: Path) -> None:
    with connect() as chain:
        parties.register(chain, "hungary", 0, examples=10_000)
    with pytest.raises(RosterError, match="'hungary' is registered with other values of examples"):
        run(secure(ledger=ledger(parties)), grid())
    assert not (home / "tasks").exists()


def test_a_stake_that_changed_while_the_run_waited(parties: RealParties, grid: Grids, home: Path) -> None:
    original = publishing.start

    def late(hub: Any, *arguments: Any) -> None:
        parties.register(hub.chain, "hungary", ETHER)
        original(hub, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publishing, "start", late)
        with parties.publisher(home) as outcome, pytest.raises(LedgerError, match="Nobody published and started"):
            run(secure(ledger=ledger(parties, publish_wait=3.0)), grid())
    assert "The stake of 'hungary' is 2000000000 gwei, the task's terms say 1000000000" in str(outcome[0])


def test_a_publisher_without_the_reward(parties: RealParties, grid: Grids, home: Path) -> None:
    with (
        parties.publisher(home, reward=5 * ETHER) as outcome,
        pytest.raises(LedgerError, match=r"flbc task publish .* then start the run again"),
    ):
        run(secure(ledger=ledger(parties, publish_wait=3.0)), grid())
    assert "1 transaction may cost 5." in str(outcome[0])
    assert nothing_published(parties)


def test_the_publisher_draws_the_seed_at_the_same_moment(parties: RealParties, grid: Grids, home: Path) -> None:
    original, first = Hub.draw_seed, []

    def draw_seed(hub: Hub, task: bytes) -> Any:
        if not first:
            first.append(task)
            transact(hub, accounts.development_key(5), "seed", original(hub, task))
        return original(hub, task)

    strategy = secure(ledger=ledger(parties))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Hub, "draw_seed", draw_seed)
        with parties.publisher(home):
            run(strategy, grid())
    assert first
    assert strategy.settled


def test_a_task_of_another_run_with_the_same_genesis_is_not_taken(
    parties: RealParties, grid: Grids, home: Path
) -> None:
    """Same model, terms and parties: only the salt tells them apart."""

    def both(file: TaskFile) -> bytes:
        other = parties.publish(replace(file, salt=b"\x01" * 32), reward=ETHER // 2)
        task = parties.publish(file)
        assert other != task
        return task

    strategy = secure(ledger=ledger(parties))
    with parties.publisher(home, by=both) as outcome:
        run(strategy, grid())
    assert strategy.settled
    assert audited(outcome[0], file=parties.folder / "deployment.json").status == "settled"


@pytest.mark.parametrize("member", ["chain-id", "hub"])
def test_nodes_accept_only_the_chain_and_hub_that_they_pinned(
    parties: RealParties, grid: Grids, home: Path, caplog: Any, member: str
) -> None:
    pinned = parties.deployment
    other = (1, pinned.hub) if member == "chain-id" else (pinned.chain_id, b"\x11" * 20)
    parties.write_rosters(*other)
    strategy = secure(ledger=ledger(parties))
    with parties.publisher(home):
        run(strategy, grid())
    assert not strategy.settled
    words = {"chain-id": "accepts tasks on chain 1 only", "hub": "accepts tasks of the hub 0x1111"}
    assert words[member] in caplog.text
    assert audited(file=parties.folder / "deployment.json").rounds == ()


def test_a_label_for_another_hub_gets_no_signature(parties: RealParties, grid: Grids, home: Path, caplog: Any) -> None:
    """A server that holds contracts of its own cannot have the parties work for them."""

    def lie(message: Message) -> Message:
        if stage_of(message) == wire.TRAIN:
            label = parse(message.content["flbc"]["label"], "label")
            message.content["flbc"]["label"] = canonical({**label, "hub": "22" * 20})
        return message

    strategy = secure(ledger=ledger(parties))
    g = grid(request=lie)
    with parties.publisher(home):
        run(strategy, g)
    assert caplog.text.count("accepts tasks of the hub") == len(HOSPITALS)
    assert not [m for m in g.received if stage_of(m) == wire.TRAIN]


def test_development_nodes_on_these_contracts(parties: RealParties, ready_key: Any) -> None:
    ready_key(5)
    with pytest.raises(ConfigError, match="were deployed for simulation and the nodes"):
        run(secure(ledger=ledger(parties, payout="equal")), LocalGrid(make_app(), 5))
    assert nothing_published(parties)


def test_these_parties_on_contracts_for_simulation(parties: RealParties, grid: Grids) -> None:
    """The embedded chain deploys contracts for simulation by itself when no others are named."""
    with pytest.raises(ConfigError, match="deployed for simulation and the nodes have their own keys"):
        run(secure(ledger=Ledger()), grid())
