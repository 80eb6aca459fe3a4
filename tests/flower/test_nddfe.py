"""NddFe through Flower: equal to plain FedAvg in every mode, with dropouts at every stage, and on a ledger."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.serverapp.strategy import FedAdam, FedAvg, Strategy

from flbc import Codec, ConfigError, Ledger, NddFe, Privacy, SecureMod
from flbc.flower import hello_stage, wire
from flbc.node import halves
from flbc.node.opening import unpack_key, unpack_opening
from tests.flower.conftest import run
from tests.flower.test_faults import mean_of, stage_of
from tests.support.apps import MODEL, default_train, make_app, numpy_of, record
from tests.support.chain_runs import audited
from tests.support.local_grid import FIRST_NODE, LocalGrid
from tests.support.memory_book import MemoryBook

GENERATOR = FIRST_NODE + 4


def nddfe(strategy: Strategy | None = None, **options: Any) -> NddFe:
    return NddFe(strategy or FedAvg(), **{"node_wait": 2, "stage_timeout": 1, **options})


def sized(**options: Any) -> SecureMod:
    return SecureMod(examples=lambda context: 10 * (int(context.node_config["partition-id"]) + 1), **options)


def plain(strategy: Strategy, rounds: int = 2) -> dict[str, Any]:
    return numpy_of(run(strategy, LocalGrid(make_app(mods=[]), 4), rounds).arrays)


def sent_to(grid: LocalGrid, stage: str) -> list[int]:
    return [m.metadata.dst_node_id for m in grid.sent if stage_of(m) == stage]


# ---------------------------------------------------------------------- honest runs
@pytest.mark.parametrize(
    ("options", "make", "tolerance"),
    [
        ({}, FedAvg, 1e-4),
        ({"weights": "declared"}, FedAvg, 1e-4),
        ({}, lambda: FedAdam(eta=0.01, tau=0.01), 2e-3),
        ({"mode": "group"}, FedAvg, 1e-4),
        ({"mode": "paper"}, FedAvg, 1e-4),
        ({"mode": "paper", "weights": "declared"}, FedAvg, 1e-4),
    ],
)
def test_wrapped_equals_plain(options: dict[str, Any], make: Callable[[], Strategy], tolerance: float) -> None:
    grid = LocalGrid(make_app(mods=[sized(insecure_schemes=("nddfe-paper",))]), 5)
    codec = Codec(max_metrics=1)
    got, expected = numpy_of(run(nddfe(make(), codec=codec, **options), grid, 2).arrays), plain(make())
    for name, value in MODEL.items():
        assert got[name].dtype == value.dtype
        np.testing.assert_allclose(got[name], expected[name], atol=tolerance if value.dtype.kind == "f" else 1)


def test_stages_of_a_round_and_who_is_asked() -> None:
    """Train, function key, open; the generator is sent no payload and no sum."""
    grid = LocalGrid(make_app(), 5)
    run(nddfe(), grid)
    derive = [m for m in grid.sent if stage_of(m) == wire.DERIVE]
    assert [m.metadata.dst_node_id for m in derive] == [GENERATOR]
    assert not derive[0].content.array_records
    (decryptor,) = sent_to(grid, wire.OPEN)
    assert decryptor != GENERATOR
    to_generator = {stage_of(m) for m in grid.sent if m.metadata.dst_node_id == GENERATOR}
    assert to_generator == {wire.HELLO, wire.DERIVE}


def test_the_decryptor_changes_over_rounds() -> None:
    grid = LocalGrid(make_app(), 5)
    run(nddfe(), grid, 8)
    assert len(set(sent_to(grid, wire.OPEN))) > 1  # the same four times in a row eight times: 4^-7


def test_privacy_puts_noise_into_the_key() -> None:
    """The server sees the noised sum alone; the statement in the key names noise and epsilon (S23)."""
    grid = LocalGrid(make_app(mods=[sized()]), 5)
    result = run(nddfe(privacy=Privacy(epsilon=2.0, unit="client", clip_norm=0.5)), grid, 2)
    keys = [unpack_key(wire.unseal(m.content))[0].value for m in grid.received if stage_of(m) == wire.DERIVE]
    openings = [unpack_opening(wire.unseal(m.content), 13)[0].value for m in grid.received if stage_of(m) == wire.OPEN]
    assert [(k.block, k.sigma, k.epsilon) for k in keys] == [(o.block, o.sigma, o.epsilon) for o in openings]
    assert keys[0].sigma > 0
    assert keys[1].epsilon <= 2_000_000
    assert result.train_metrics_clientapp[2]["flbc-epsilon"] == pytest.approx(2.0, abs=0.01)


# ---------------------------------------------------------------------- dropouts at every stage
@pytest.mark.parametrize("largest", [64, None])
def test_a_decryptor_that_does_not_train_is_replaced_before_there_is_a_key(largest: int | None, caplog: Any) -> None:
    """Without a bound on weights the attempt that asks for size classes leaves the silent node out already."""

    def train(message: Message, context: Context) -> Message:
        if context.node_config["partition-id"] == victim:
            raise RuntimeError("out of memory")
        return default_train(message, context)

    victim = -1
    grid = LocalGrid(make_app(train), 5)
    strategy = nddfe(codec=Codec(max_examples=largest))
    original = strategy.configure_train

    def configure(*args: Any) -> Any:
        nonlocal victim
        messages = list(original(*args))
        assert strategy._round is not None
        ticket = strategy._round.ticket
        victim = int(ticket.roster.parties[halves.decryptor(ticket) or 0].name.removeprefix("node-"))
        return messages

    strategy.configure_train = configure  # type: ignore[method-assign]
    got = numpy_of(run(strategy, grid).arrays)
    survivors = [p for p in range(4) if p != victim]
    np.testing.assert_allclose(got["weight"], mean_of(survivors), atol=1e-3)
    said = f"the decryptor node-{victim} is silent; the next one takes over" in caplog.text
    assert said == (largest is not None)
    assert len(sent_to(grid, wire.DERIVE)) == 1, "one function key"
    assert sent_to(grid, wire.OPEN) != [FIRST_NODE + victim]


@pytest.mark.parametrize("stage", [wire.DERIVE, wire.OPEN])
def test_a_helper_silent_once_is_asked_again_and_answers_with_the_same_bytes(stage: str) -> None:
    lost: list[Message] = []

    def lose_first(message: Message) -> Message | None:
        if stage_of(message) == stage and not lost:
            lost.append(message)
            return None
        return message

    grid = LocalGrid(make_app(), 5, reply=lose_first)
    np.testing.assert_allclose(
        numpy_of(run(nddfe(stage_timeout=0.3), grid).arrays)["weight"], mean_of([0, 1, 2, 3]), atol=1e-3
    )
    again = next(m for m in grid.received if stage_of(m) == stage)
    assert wire.unseal(again.content) == wire.unseal(lost[0].content)


@pytest.mark.parametrize("stage", [wire.DERIVE, wire.OPEN])
def test_a_helper_that_stays_silent_costs_the_round_and_not_the_model(stage: str, caplog: Any) -> None:
    def down(message: Message) -> Message | None:
        return None if stage_of(message) == stage and message.metadata.group_id == "1" else message

    grid = LocalGrid(make_app(), 5, request=down)
    result = run(nddfe(stage_timeout=0.2), grid, 2)
    assert "did not help to open the sum within 2 x 0.2 s" in caplog.text
    assert result.train_metrics_clientapp[1]["flbc-survivors"] == 0
    np.testing.assert_allclose(numpy_of(result.arrays)["weight"], mean_of([0, 1, 2, 3]), atol=1e-3)


def test_a_silent_client_is_left_out() -> None:
    dropped: list[int] = []

    def lose_one(message: Message) -> Message | None:
        node = message.metadata.src_node_id
        if stage_of(message) == wire.TRAIN and (not dropped or dropped == [node]):
            dropped[:] = [node]
            return None
        return message

    grid = LocalGrid(make_app(), 5, reply=lose_one)
    result = nddfe().start(grid, record(MODEL), num_rounds=1, timeout=1)
    survivors = [p for p in range(4) if FIRST_NODE + p not in dropped]
    np.testing.assert_allclose(numpy_of(result.arrays)["weight"], mean_of(survivors), atol=1e-3)


@pytest.mark.parametrize("stage", [wire.TRAIN, wire.DERIVE, wire.OPEN])
def test_tampered_bytes_are_never_averaged(stage: str, caplog: Any) -> None:
    """A pad can be flipped bit by bit: what catches it are the signatures over payload, key and sum (S7, S10)."""

    def flip(message: Message) -> Message:
        if stage_of(message) == stage and message.content.array_records:
            payload = bytearray(wire.unseal(message.content))
            payload[-4] ^= 1
            message.content[wire.PAYLOAD] = wire.seal(bytes(payload))
        return message

    result = run(nddfe(), LocalGrid(make_app(), 5, reply=flip))
    assert not result.arrays
    said = {
        wire.TRAIN: "the payload is not the one it signed",
        wire.DERIVE: "not the one that the generator signed",
        wire.OPEN: "not the one that the opener signed",
    }
    assert said[stage] in caplog.text


def test_paper_mode_is_refused_by_nodes_that_do_not_name_it(caplog: Any) -> None:
    result = run(nddfe(mode="paper"), LocalGrid(make_app(), 5))
    assert not result.arrays
    assert "does not accept scheme 'nddfe-paper'" in caplog.text


def test_a_node_with_a_malformed_key_is_left_out_and_stops_nobody(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """Its card is signed and rubbish: without a check the server's run would end when it makes the first ticket."""
    honest = hello_stage.own_statement
    monkeypatch.setattr(hello_stage, "own_statement", lambda me: b"{}" if me.name == "node-1" else honest(me))
    result = run(nddfe(mode="group", codec=Codec(max_metrics=1)), LocalGrid(make_app(), 5))
    np.testing.assert_allclose(numpy_of(result.arrays)["weight"], mean_of([0, 2, 3]), atol=1e-3)
    assert "is left out: A scheme key must come with its owner's signature" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "fast"}, "choose one of pad, group, paper"),
        ({"weights": "secret"}, "choose one of hidden, declared"),
        ({"mode": "paper", "privacy": Privacy(epsilon=1.0)}, "use mode='pad'"),
        ({"weights": "declared", "privacy": Privacy(epsilon=1.0)}, "leave out weights='declared'"),
        ({"weights": "declared", "codec": Codec(max_examples=9)}, "leave it out with weights='declared'"),
        ({"min_survivors": 2}, "at least 3"),
    ],
)
def test_settings_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        nddfe(**options)


def test_declared_weights_name_who_declares_none() -> None:
    with pytest.raises(ConfigError, match=r"'node-\d' has none.*SecureMod\(examples"):
        run(nddfe(weights="declared"), LocalGrid(make_app(), 5))


# ---------------------------------------------------------------------- with a ledger
def test_the_leader_of_a_block_is_its_decryptor_and_the_audit_agrees() -> None:
    grid = LocalGrid(make_app(mods=[sized()]), 5)
    strategy = nddfe(weights="declared", ledger=Ledger(accuracy=0.1))
    run(strategy, grid, 3)
    assert strategy.settled
    report = audited()
    opened = [f"node-{node - FIRST_NODE}" for node in sent_to(grid, wire.OPEN)]
    assert opened == [row.leader for row in report.rounds]


@pytest.mark.parametrize("mode", ["pad", "group"])
def test_a_hospital_that_goes_away_for_good_costs_its_update_alone(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task's roster is fixed on the ledger: who is away stays in it, with keys."""
    book = MemoryBook()
    monkeypatch.setattr("flbc.flower.strategy.open_book", lambda settings: book)
    grid = LocalGrid(make_app(), 5)
    strategy = nddfe(mode=mode, codec=Codec(max_examples=64, max_metrics=1), ledger=Ledger(), stage_timeout=5)
    original = strategy.configure_train

    def configure(server_round: int, *args: Any) -> Any:
        if server_round == 2:
            grid.offline.add(FIRST_NODE + 3)
        return original(server_round, *args)

    strategy.configure_train = configure  # type: ignore[method-assign]
    result = run(strategy, grid, 3)
    survivors = [result.train_metrics_clientapp[r]["flbc-survivors"] for r in (1, 2, 3)]
    assert survivors == [4, 3, 3]


def test_below_the_bar_nobody_is_paid() -> None:
    strategy = nddfe(ledger=Ledger(accuracy=0.99))
    run(strategy, LocalGrid(make_app(), 5))
    assert not strategy.settled
