"""Masked through Flower: equal to plain FedAvg, two trips a round, dropouts at every stage, newcomers, and a ledger."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM, Strategy

from flbc import Codec, Compression, ConfigError, Ledger, Masked, NddFe, Privacy, SecureMod
from flbc.crypto import keystore
from flbc.crypto.keystore import PartyKeys
from flbc.flower import hello_stage, wire
from flbc.node import masked as masked_node
from flbc.node.mask_keys import Deposit
from flbc.node.rosterfile import Entry, write_roster
from flbc.schemes.masking_keys import Dealing
from tests.flower.conftest import run
from tests.flower.test_faults import mean_of, stage_of
from tests.support.apps import MODEL, default_train, make_app, numpy_of, record
from tests.support.chain_runs import audited
from tests.support.local_grid import FIRST_NODE, LocalGrid
from tests.support.memory_book import MemoryBook


def masked(strategy: Strategy | None = None, **options: Any) -> Masked:
    return Masked(strategy or FedAvg(), **{"node_wait": 2, "stage_timeout": 1, **options})


def sized() -> SecureMod:
    return SecureMod(examples=lambda context: 10 * (int(context.node_config["partition-id"]) + 1))


def plain(strategy: Strategy, rounds: int = 2, nodes: int = 4) -> dict[str, Any]:
    return numpy_of(run(strategy, LocalGrid(make_app(mods=[]), nodes), rounds).arrays)


def stages(grid: LocalGrid) -> Counter[str]:
    return Counter(stage_of(message) for message in grid.sent)


def node_of(message: Message) -> int:
    return int(message.metadata.src_node_id)


def drop(stage: str, *partitions: int, at: int = 1) -> Callable[[Message], Message | None]:
    """Lose these partitions' replies of a stage, the ``at``-th time they come."""
    seen: Counter[int] = Counter()

    def reply(message: Message) -> Message | None:
        node = node_of(message)
        if stage_of(message) != stage or node - FIRST_NODE not in partitions:
            return message
        seen[node] += 1
        return None if seen[node] == at else message

    return reply


def weights(result: Any) -> Any:
    return numpy_of(result.arrays)["weight"]


# ---------------------------------------------------------------------- honest runs
@pytest.mark.parametrize(
    ("options", "make", "nodes", "tolerance"),
    [
        ({}, FedAvg, 4, 1e-4),
        ({}, lambda: FedAdam(eta=0.01, tau=0.01), 4, 2e-3),
        ({}, FedAvgM, 3, 1e-4),
        ({"threshold": 0.8}, FedAvg, 5, 1e-4),
        ({"codec": Codec(bits=24)}, FedAvg, 4, 1e-5),
        ({}, FedAvg, 20, 1e-4),
    ],
)
def test_wrapped_equals_plain(
    options: dict[str, Any], make: Callable[[], Strategy], nodes: int, tolerance: float
) -> None:
    got, expected = (
        numpy_of(run(masked(make(), **options), LocalGrid(make_app(), nodes), 2).arrays),
        plain(make(), 2, nodes),
    )
    for name, value in MODEL.items():
        assert got[name].dtype == value.dtype
        np.testing.assert_allclose(got[name], expected[name], atol=tolerance if value.dtype.kind == "f" else 1)


def test_two_client_trips_a_round() -> None:
    """After the first set-up trip, which nobody repeats: keys and boxes ride on the submissions."""
    grid = LocalGrid(make_app(), 4)
    run(masked(codec=Codec(max_examples=64)), grid, 5)
    assert stages(grid) == {"hello": 4, "setup": 4, "train": 20, "unmask": 20, "evaluate": 20}


def test_nobody_is_asked_for_keys_that_were_not_used() -> None:
    """Without max_examples the first attempt only asks for sizes: its keys serve the next one."""
    grid = LocalGrid(make_app(), 4)
    run(masked(), grid, 2)
    assert stages(grid)["setup"] == 4
    assert stages(grid)["reprotect"] == 4


def test_the_last_round_deals_nothing() -> None:
    grid = LocalGrid(make_app(), 4)
    run(masked(codec=Codec(max_examples=64)), grid, 2)
    replies = [m for m in grid.received if stage_of(m) == wire.TRAIN]
    riding = [bytes(m.content["flbc"]["reply"]).count(b'"next_keys":""') for m in replies]
    assert riding == [0] * 4 + [1] * 4


def test_compression_goes_with_masking() -> None:
    grid = LocalGrid(make_app(), 4)
    codec = Codec(max_examples=64, compression=Compression(rate=0.5, warm_up=0))
    result = run(masked(codec=codec), grid, 2)
    assert np.isfinite(weights(result)).all()
    assert stages(grid)["unmask"] == 8


# ---------------------------------------------------------------------- dropouts
@pytest.mark.parametrize(
    ("nodes", "stage", "partitions", "survivors"),
    [
        (5, "train", (1,), (0, 2, 3, 4)),  # before upload (or on the way)
        (5, "unmask", (1,), (0, 1, 2, 3, 4)),  # after upload, before unmasking
        (5, "setup", (1,), (0, 2, 3, 4)),  # before it dealt
        (10, "train", (1, 4, 7), (0, 2, 3, 5, 6, 8, 9)),
        (10, "unmask", (0, 5, 9), tuple(range(10))),
        (20, "train", (3, 12), tuple(p for p in range(20) if p not in (3, 12))),
        (20, "unmask", (3, 12), tuple(range(20))),
    ],
)
def test_dropouts_are_recovered(
    nodes: int, stage: str, partitions: tuple[int, ...], survivors: tuple[int, ...]
) -> None:
    grid = LocalGrid(make_app(), nodes, reply=drop(stage, *partitions))
    result = masked(codec=Codec(max_examples=256)).start(grid, record(MODEL), num_rounds=1, timeout=1)
    np.testing.assert_allclose(weights(result), mean_of(list(survivors)), atol=1e-3)


def test_dropouts_at_both_stages_of_one_round() -> None:
    lost, late = drop("train", 2), drop("unmask", 5)
    grid = LocalGrid(make_app(), 10, reply=lambda m: lost(m) and late(m))
    result = masked(codec=Codec(max_examples=128)).start(grid, record(MODEL), num_rounds=1, timeout=1)
    np.testing.assert_allclose(weights(result), mean_of([p for p in range(10) if p != 2]), atol=1e-3)


@pytest.mark.parametrize(("stage", "partitions"), [("train", (0, 1)), ("unmask", (0, 1))])
def test_below_the_threshold_the_round_is_abandoned_and_the_model_kept(
    stage: str, partitions: tuple[int, ...], caplog: Any
) -> None:
    """Both rounds of a run of four: in the first too few answer, however often; the second goes on."""
    kept: dict[int, Any] = {}

    def reply(message: Message) -> Message | None:
        gone = len(kept) == 1 and stage_of(message) == stage and node_of(message) - FIRST_NODE in partitions
        return None if gone else message

    grid = LocalGrid(make_app(), 4, reply=reply)
    strategy = masked(codec=Codec(max_examples=64))
    original = strategy.configure_train

    def configure(server_round: int, arrays: Any, *rest: Any) -> Any:
        kept[server_round] = numpy_of(arrays)["weight"]
        return original(server_round, arrays, *rest)

    strategy.configure_train = configure  # type: ignore[method-assign]
    result = strategy.start(grid, record(MODEL), num_rounds=2, timeout=1)
    assert "round 1 is abandoned, the model is kept" in caplog.text
    np.testing.assert_array_equal(kept[2], MODEL["weight"])
    np.testing.assert_allclose(weights(result), mean_of([0, 1, 2, 3]), atol=1e-3)


def test_who_comes_back_takes_one_set_up_trip() -> None:
    """All deal anew when those who take part change, because shares belong to them alone: one trip, in parallel."""
    grid = LocalGrid(make_app(), 5)
    strategy = masked(codec=Codec(max_examples=64))
    original = strategy.configure_train

    def configure(server_round: int, *rest: Any) -> Any:
        grid.offline = {FIRST_NODE + 2} if server_round == 2 else set()
        return original(server_round, *rest)

    strategy.configure_train = configure  # type: ignore[method-assign]
    run(strategy, grid, 4)
    asked = [(m.metadata.dst_node_id - FIRST_NODE, m.metadata.group_id) for m in grid.sent if stage_of(m) == "setup"]
    assert sorted(asked[:5]) == [(p, "1") for p in range(5)]
    assert sorted(asked[5:9]) == [(p, "2") for p in (0, 1, 3, 4)]
    assert sorted(asked[9:]) == [(p, "3") for p in range(5)]
    assert stages(grid)["unmask"] == 5 + 4 + 5 + 5


def test_a_newcomer_takes_one_set_up_trip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With key files, as deployed: in simulation all nodes are there from the start."""
    monkeypatch.setenv("FLBC_KEY_PASSWORD", "correct horse")
    names = [f"hospital-{i}" for i in range(6)]
    for name in names:
        keystore.save(tmp_path / f"{name}.key", PartyKeys.generate(name), "correct horse")
    entries = [Entry(keystore.read_public(tmp_path / f"{name}.key"), ("hospital",), 0) for name in names]
    write_roster(tmp_path / "roster.toml", entries, {})

    def config(number: int) -> dict[str, Any]:
        files = {"flbc-key": str(tmp_path / f"{names[number]}.key"), "flbc-roster": str(tmp_path / "roster.toml")}
        return {"partition-id": number, "num-partitions": 6, "flbc-role": "hospital", **files}

    grid = LocalGrid(make_app(), 6, node_config=config)
    grid.offline = {FIRST_NODE + 5}
    strategy = masked(codec=Codec(max_examples=64))
    original = strategy.configure_train

    def configure(server_round: int, *rest: Any) -> Any:
        grid.offline = {FIRST_NODE + 5} if server_round == 1 else set()
        return original(server_round, *rest)

    strategy.configure_train = configure  # type: ignore[method-assign]
    result = run(strategy, grid, 3)
    asked = [(m.metadata.dst_node_id - FIRST_NODE, m.metadata.group_id) for m in grid.sent if stage_of(m) == "setup"]
    assert sorted(asked[5:]) == [(p, "2") for p in range(6)]
    assert [result.train_metrics_clientapp[r]["flbc-survivors"] for r in (1, 2, 3)] == [5, 6, 6]


def test_sampled_clients_take_a_set_up_trip_each_round() -> None:
    """What they dealt went to those of the round before."""
    grid = LocalGrid(make_app(), 12)
    run(masked(FedAvg(fraction_train=0.4, min_train_nodes=4), codec=Codec(max_examples=128)), grid, 3)
    assert 4 < stages(grid)["setup"] <= 12
    assert stages(grid)["unmask"] == stages(grid)["train"]


def test_too_few_that_dealt_abandon_the_round(caplog: Any) -> None:
    grid = LocalGrid(make_app(), 4, reply=lambda m: None if stage_of(m) == "setup" and node_of(m) > 101 else m)
    result = run(masked(), grid)
    assert "2 clients have masking keys for round 1, and min_survivors = 3" in caplog.text
    assert not result.arrays


# ---------------------------------------------------------------------- clients that cheat
def changed(stage: str, partition: int, change: Callable[[Message], None]) -> Callable[[Message], Message]:
    def reply(message: Message) -> Message:
        if stage_of(message) == stage and node_of(message) == FIRST_NODE + partition:
            change(message)
        return message

    return reply


def deposit_of(message: Message) -> Deposit:
    return Deposit.decode(bytes(message.content["flbc"]["deposit"]))


def test_a_client_that_sends_keys_it_has_used_is_left_out(caplog: Any) -> None:
    """Its deposit of an earlier round again: the server refuses it, and would its neighbours."""
    first: list[bytes] = []

    def change(message: Message) -> None:
        first.append(bytes(message.content["flbc"]["deposit"]))
        message.content["flbc"]["deposit"] = first[0]

    grid = LocalGrid(make_app(), 5, reply=changed("setup", 1, change))
    run(masked(FedAvg(fraction_train=0.8), codec=Codec(max_examples=64)), grid, 4)
    if len(first) > 1:
        assert "its ephemeral key was used before" in caplog.text
    grid = LocalGrid(make_app(), 5, reply=changed("train", 1, lambda m: ride(m, first[0])))
    caplog.clear()
    run(masked(codec=Codec(max_examples=64)), grid, 2)
    assert "what rides on its submission is not what it signed" in caplog.text


def ride(message: Message, deposit: bytes) -> None:
    text = bytes(message.content["flbc"]["reply"])
    begin = text.index(b'"next_keys":"') + len(b'"next_keys":"')
    end = text.index(b'"', begin)
    message.content["flbc"]["reply"] = text[:begin] + deposit.hex().encode() + text[end:]


@pytest.mark.parametrize("what", ["rubbish", "empty", "truncated"])
def test_a_malformed_deposit_leaves_its_sender_out(what: str, caplog: Any) -> None:
    def change(message: Message) -> None:
        good = bytes(message.content["flbc"]["deposit"])
        message.content["flbc"]["deposit"] = {"rubbish": b"{}", "empty": b"", "truncated": good[:-5]}[what]

    grid = LocalGrid(make_app(), 5, reply=changed("setup", 1, change))
    result = run(masked(codec=Codec(max_examples=64)), grid)
    assert "what node-1 dealt for round 1 is left out" in caplog.text
    np.testing.assert_allclose(weights(result), mean_of([0, 2, 3, 4]), atol=1e-3)


@pytest.mark.parametrize("size", [0, 32, 66])
def test_shares_of_a_wrong_length_are_left_out(size: int, caplog: Any) -> None:
    def change(message: Message) -> None:
        message.content[wire.PAYLOAD] = wire.seal(b"x" * size)

    grid = LocalGrid(make_app(), 5, reply=changed("unmask", 1, change))
    result = run(masked(codec=Codec(max_examples=64)), grid)
    assert "node-1 gave no shares: The shares have" in caplog.text
    np.testing.assert_allclose(weights(result), mean_of([0, 1, 2, 3, 4]), atol=1e-3)


def test_a_liar_is_named_and_the_sum_is_right(caplog: Any) -> None:
    def change(message: Message) -> None:
        shares = bytearray(wire.unseal(message.content))
        shares[40] ^= 1
        message.content[wire.PAYLOAD] = wire.seal(bytes(shares))

    grid = LocalGrid(make_app(), 5, reply=changed("unmask", 1, change))
    result = run(masked(codec=Codec(max_examples=64)), grid)
    assert "node-1 gave a wrong share" in caplog.text
    np.testing.assert_allclose(weights(result), mean_of([0, 1, 2, 3, 4]), atol=1e-3)


# ---------------------------------------------------------------------- privacy
@pytest.mark.parametrize("where", ["opener", "clients"])
@pytest.mark.parametrize("unit", ["client", "example"])
def test_noise_of_server_and_of_clients_in_both_units(where: Any, unit: Any) -> None:
    grid = LocalGrid(make_app(clipping(unit), mods=[sized()]), 5)
    privacy = Privacy(epsilon=4.0, unit=unit, clip_norm=0.5, where=where)
    result = run(masked(privacy=privacy, min_survivors=4), grid, 2)
    assert result.train_metrics_clientapp[2]["flbc-epsilon"] == pytest.approx(4.0, rel=1e-3)
    assert not np.array_equal(weights(result), MODEL["weight"])


def clipping(unit: str) -> Any:
    def train(message: Message, context: Context) -> Message:
        reply = default_train(message, context)
        if unit == "example":
            reply.content["metrics"]["clip-norm"] = 0.5
        return reply

    return train


def test_the_server_s_budget_is_on_its_disk(home: Any) -> None:
    """Central noise: what was opened is kept where the server's next process finds it (S20)."""
    grid = LocalGrid(make_app(mods=[sized()]), 4)
    run(masked(privacy=Privacy(epsilon=2.0, clip_norm=0.5)), grid, 2)
    assert (home / "server" / "memory.sqlite").exists()


def test_noise_by_clients_belongs_to_masked() -> None:
    with pytest.raises(ConfigError, match="belongs to Masked"):
        NddFe(FedAvg(), privacy=Privacy(epsilon=1.0, where="clients"))


# ---------------------------------------------------------------------- construction and summary
@pytest.mark.parametrize("threshold", [0.4, 1.0, 1, "x", None, float("nan")])
def test_a_threshold_that_protects_nobody_is_refused(threshold: Any) -> None:
    with pytest.raises(ConfigError, match="threshold"):
        masked(threshold=threshold)


def test_too_few_honest_clients_for_the_noise_are_refused() -> None:
    with pytest.raises(ConfigError, match="raise min_survivors to at least 4"):
        masked(privacy=Privacy(epsilon=1.0, where="clients", colluders=2))


def test_summary_says_what_protects(caplog: Any) -> None:
    import logging

    with caplog.at_level(logging.INFO):
        masked().summary()
        masked(ledger=Ledger()).summary()
        masked(privacy=Privacy(epsilon=1.0)).summary()
        masked(privacy=Privacy(epsilon=1.0, where="clients"), min_survivors=4).summary()
    assert "No ledger: only the threshold holds off a server that shows different survivor lists" in caplog.text
    assert "The committee signs the list of survivors" in caplog.text
    assert "noise added by the server, which knows the exact sum" in caplog.text
    assert "noise added by the clients, of whom 1 may work with the server" in caplog.text


# ---------------------------------------------------------------------- ledger
def test_a_task_on_the_ledger_is_settled_and_verifies() -> None:
    strategy = masked(ledger=Ledger(accuracy=0.1), codec=Codec(max_examples=64))
    grid = LocalGrid(make_app(), 5)
    run(strategy, grid, 3)
    assert strategy.settled
    report = audited()
    assert len(report.rounds) == 3
    assert any("opened by all survivors together" in note for note in report.notes)
    assert stages(grid)["setup"] == 5
    assert stages(grid)["unmask"] == stages(grid)["attest"] == 15


def test_a_hospital_that_goes_away_for_good_costs_its_update_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task's roster is fixed on the ledger: who is away stays in it; the masks are among those who are there."""
    book = MemoryBook()
    monkeypatch.setattr("flbc.flower.strategy.open_book", lambda settings: book)
    grid = LocalGrid(make_app(), 5)
    strategy = masked(codec=Codec(max_examples=64, max_metrics=1), ledger=Ledger(), stage_timeout=5)
    original = strategy.configure_train

    def configure(server_round: int, *args: Any) -> Any:
        if server_round == 2:
            grid.offline.add(FIRST_NODE + 3)
        return original(server_round, *args)

    strategy.configure_train = configure  # type: ignore[method-assign]
    result = run(strategy, grid, 3)
    survivors = [result.train_metrics_clientapp[r]["flbc-survivors"] for r in (1, 2, 3)]
    assert survivors == [5, 4, 4]


def test_a_leader_that_is_gone_costs_an_attempt_and_a_set_up_trip(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ephemeral key serves one attempt, so that the next one needs fresh keys. Nobody signed for the first."""
    book = MemoryBook()
    monkeypatch.setattr("flbc.flower.strategy.open_book", lambda settings: book)
    grid = LocalGrid(make_app(), 7)
    strategy = masked(codec=Codec(max_examples=128), ledger=Ledger(), stage_timeout=0.5)
    gone: list[int] = []
    original = strategy.configure_train

    def configure(*arguments: Any) -> Any:
        messages = list(original(*arguments))
        assert strategy._session is not None
        assert strategy._session.chain is not None
        roster = strategy._session.roster
        assert roster is not None
        name = roster.parties[strategy._session.chain.leader(roster, 0)].name
        gone.append(FIRST_NODE + int(name.removeprefix("node-")))
        return messages

    strategy.configure_train = configure  # type: ignore[method-assign]
    grid.reply = lambda m: None if stage_of(m) == wire.TRAIN and node_of(m) in gone else m
    result = strategy.start(grid, record(MODEL), num_rounds=1, timeout=1)
    assert result.train_metrics_clientapp[1]["flbc-survivors"] == 6
    assert stages(grid)["setup"] == 7 + 6
    assert stages(grid)["attest"] == 7
    np.testing.assert_allclose(weights(result), mean_of([p for p in range(7) if FIRST_NODE + p not in gone]), atol=1e-3)


def test_a_leader_silent_after_its_upload_costs_the_round(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """One block a round is signed: of two, each could be opened by those who know nothing of the other."""
    book = MemoryBook()
    monkeypatch.setattr("flbc.flower.strategy.open_book", lambda settings: book)
    silent: set[int] = set()

    def reply(message: Message) -> Message | None:
        if stage_of(message) != wire.ATTEST:
            return message
        if bytes(message.content["flbc"]["leader"]) and not silent:
            silent.add(node_of(message))
            return None
        return message

    grid = LocalGrid(make_app(), 7, reply=reply)
    strategy = masked(codec=Codec(max_examples=128), ledger=Ledger(), stage_timeout=0.5)
    result = run(strategy, grid, 2)
    assert "round 1 is abandoned" in caplog.text
    assert "with masks one block a round is signed" in caplog.text
    assert result.train_metrics_clientapp[2]["flbc-survivors"] == 7
    np.testing.assert_allclose(weights(result), mean_of(list(range(7))), atol=1e-3)


def test_with_a_ledger_no_share_is_given_before_the_committee_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that leaves out the signatures, or sends those of another list of survivors (S24)."""
    book = MemoryBook()
    monkeypatch.setattr("flbc.flower.strategy.open_book", lambda settings: book)

    def request(message: Message) -> Message:
        if stage_of(message) == wire.UNMASK:
            text = bytes(message.content["flbc"]["request"])
            begin = text.index(b'"endorsement":')
            end = text.rindex(b'"submissions"')
            message.content["flbc"]["request"] = text[:begin] + b'"endorsement":null,' + text[end:]
        return message

    grid = LocalGrid(make_app(), 5, request=request)
    result = run(masked(codec=Codec(max_examples=64), ledger=Ledger(), stage_timeout=0.5), grid)
    assert not result.arrays
    reasons = {m.error.reason for m in grid.received if m.has_error()}
    assert any("only a block that leader and committee signed is opened" in reason for reason in reasons)


# ---------------------------------------------------------------------- clients that stop others
def test_a_client_with_rubbish_in_its_boxes_costs_one_round(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """Nobody can open what it dealt; from then on it is left out."""
    honest = masked_node.deal

    def deal(context: bytes, owner: str, holders: Any, need: int) -> Any:
        kept, dealing = honest(context, owner, holders, need)
        if owner == "node-1":
            boxes = {name: b"" if name == owner else b"x" * len(box) for name, box in dealing.boxes.items()}
            dealing = Dealing(dealing.public, dealing.commitments, dealing.threshold, boxes)
        return kept, dealing

    monkeypatch.setattr(masked_node, "deal", deal)
    result = run(masked(codec=Codec(max_examples=64)), LocalGrid(make_app(), 6), 2)
    assert "node-1 is left out of the next 3 rounds: its shares cannot be opened" in caplog.text
    assert "round 1 is abandoned" in caplog.text
    assert result.train_metrics_clientapp[2]["flbc-survivors"] == 5
    np.testing.assert_allclose(weights(result), mean_of([0, 2, 3, 4, 5]), atol=1e-3)


@pytest.mark.parametrize("what", ["low order", "copied"])
def test_a_client_whose_key_for_boxes_stops_others_is_left_out(
    what: str, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """Signed by its owner, and of no use, or another's: its neighbours could not deal, or nobody would take part."""
    honest, seen = hello_stage.box_statement, []

    def statement(me: Any, key: Any) -> bytes:
        seen.append(key.public)
        if me.name != "node-4":
            return honest(me, key)
        public = bytes(32) if what == "low order" else seen[0]
        return honest(me, SimpleNamespace(public=public))  # type: ignore[arg-type]

    monkeypatch.setattr(hello_stage, "box_statement", statement)
    result = run(masked(codec=Codec(max_examples=64)), LocalGrid(make_app(), 5))
    assert "is left out" in caplog.text
    # Of two that come with one key at the same time either may be the copy, and who copied cannot use it.
    assert result.train_metrics_clientapp[1]["flbc-survivors"] in (3, 4)


def test_a_liar_does_not_outrun_honest_holders_that_are_late() -> None:
    """With the liar's share there are enough, but they do not fit: the server asks again before it gives up."""
    late = drop("unmask", 3)

    def reply(message: Message) -> Message | None:
        if stage_of(message) == "unmask" and node_of(message) == FIRST_NODE + 1:
            shares = bytearray(wire.unseal(message.content))
            shares[20] ^= 1
            message.content[wire.PAYLOAD] = wire.seal(bytes(shares))
        return late(message)

    grid = LocalGrid(make_app(), 4, reply=reply)
    result = run(masked(codec=Codec(max_examples=64), stage_timeout=0.5), grid)
    np.testing.assert_allclose(weights(result), mean_of([0, 1, 2, 3]), atol=1e-3)


def test_a_round_that_cannot_be_opened_costs_no_epsilon(caplog: Any) -> None:
    """Too few of a group survived: nobody is asked for a share, and nothing is paid for."""
    grid = LocalGrid(make_app(mods=[sized()]), 8, reply=drop("train", 0, 1, 2))
    strategy = masked(privacy=Privacy(epsilon=2.0, clip_norm=0.5))
    strategy.start(grid, record(MODEL), num_rounds=1, timeout=1)
    assert "round 1 is abandoned" in caplog.text
    assert "Only 5 of the 8 clients in the group of" in caplog.text
    assert stages(grid)["unmask"] == 0
    assert strategy._session is not None
    assert strategy._session.openings == 0


@pytest.mark.parametrize("liars", [(1, 2), (1, 2, 3)])
def test_liars_among_holders_get_nobody_else_left_out(liars: tuple[int, ...], caplog: Any) -> None:
    """Their shares spoil many secrets; that is not what one dealer could have done."""

    def reply(message: Message) -> Message:
        first = stage_of(message) == "unmask" and str(message.metadata.group_id) == "1"
        if first and node_of(message) - FIRST_NODE in liars:
            shares = bytearray(wire.unseal(message.content))
            for start in range(0, len(shares), 33):  # independent lies: equal ones may cancel in the interpolation
                shares[start + 1 : start + 33] = os.urandom(32)
            message.content[wire.PAYLOAD] = wire.seal(bytes(shares))
        return message

    grid = LocalGrid(make_app(), 7, reply=reply)
    result = run(masked(codec=Codec(max_examples=128), stage_timeout=0.3), grid, 2)
    assert "round 1 is abandoned" in caplog.text
    assert "is left out" not in caplog.text
    assert result.train_metrics_clientapp[2]["flbc-survivors"] == 7


def test_who_is_silent_at_the_set_up_is_not_asked_again_at_once() -> None:
    """Otherwise everybody would deal twice in every round, and wait for it."""
    grid = LocalGrid(make_app(), 6, reply=lambda m: None if stage_of(m) == "setup" and node_of(m) == FIRST_NODE else m)
    run(masked(codec=Codec(max_examples=128), stage_timeout=0.3), grid, 4)
    assert stages(grid)["setup"] == 6 + 5
    assert stages(grid)["unmask"] == 4 * 5


def test_a_leader_that_never_signs_does_not_stop_a_run(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """It uploads, is elected, and is silent: one round is lost, then it is passed over."""
    book = MemoryBook()
    monkeypatch.setattr("flbc.flower.strategy.open_book", lambda settings: book)
    mute: set[int] = set()

    def reply(message: Message) -> Message | None:
        if stage_of(message) == wire.ATTEST and bytes(message.content["flbc"]["leader"]) and not mute:
            mute.add(node_of(message))
        return None if stage_of(message) == wire.ATTEST and node_of(message) in mute else message

    grid = LocalGrid(make_app(), 7, reply=reply)
    strategy = masked(codec=Codec(max_examples=128), ledger=Ledger(), stage_timeout=0.3)
    result = run(strategy, grid, 4)
    survivors = [result.train_metrics_clientapp[r]["flbc-survivors"] for r in (1, 2, 3, 4)]
    assert survivors[:2] == [0, 7]
    assert 7 in survivors[2:], "elected again by its draw it may cost another round"


def test_rounds_that_clients_paid_for_count_though_they_were_abandoned() -> None:
    """With noise of the clients an upload costs epsilon, whether the sum is opened or not."""
    grid = LocalGrid(make_app(mods=[sized()]), 8, reply=drop("train", 0, 1, 2))
    strategy = masked(privacy=Privacy(epsilon=2.0, clip_norm=0.5, where="clients"), min_survivors=4)
    result = strategy.start(grid, record(MODEL), num_rounds=1, timeout=1)
    assert result.train_metrics_clientapp[1]["flbc-epsilon"] == pytest.approx(2.0, rel=1e-3)
