"""Deep Gradient Compression through Flower: what was sent and what waits on the nodes is all that was trained."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.serverapp.strategy import FedAvg

from flbc import Codec, Compression, ConfigError, Ledger, NddFe, Paillier, Privacy
from flbc.codec.indices import selection_hash
from flbc.codec.sparsify import Carry
from flbc.flower import wire
from flbc.node import NodeMemory, Ticket
from flbc.node.ticket import PARTS
from tests.flower.conftest import run, secure
from tests.flower.test_faults import stage_of
from tests.flower.test_nddfe import nddfe, sized
from tests.support.apps import make_app, numpy_of, reply
from tests.support.chain_runs import audited
from tests.support.local_grid import FIRST_NODE, LocalGrid

SIZE = 40
MODEL = {"a": np.zeros((5, 6)), "b": np.zeros(10, np.float32), "count": np.array(3, np.int64)}
WEIGHTS = np.array([10, 20, 30, 40])
COMPRESSION = Compression(rate=0.9, warm_up=1)
CODEC = Codec(bits=24, max_examples=64, max_metrics=1, compression=COMPRESSION)


def gradient(partition: int) -> np.ndarray[Any, Any]:
    """What a node adds in every round, whatever the model is."""
    return np.sin(np.arange(SIZE) * (partition + 1.0)) / 20


def train(message: Message, context: Context) -> Message:
    partition = int(context.node_config["partition-id"])
    old, step = numpy_of(message.content["arrays"]), gradient(partition)
    new = {"a": old["a"] + step[:30].reshape(5, 6), "b": (old["b"] + step[30:]).astype(np.float32)}
    arrays = {**new, "count": old["count"] + 1}
    return reply(message, arrays, {"num-examples": int(WEIGHTS[partition])})


def moved(arrays: Any) -> np.ndarray[Any, Any]:
    got = numpy_of(arrays)
    return np.concatenate([got["a"].reshape(-1), got["b"].astype(np.float64)])


def waiting(home: Path) -> np.ndarray[Any, Any]:
    """Weighted mean of what the nodes still have to send, as they would find it in the next round."""
    left = []
    for node in range(4):
        (task,) = {row[0] for row in _rows(home, node)}
        stored = NodeMemory(home / "runs" / f"1-{FIRST_NODE + node}").carry(task)
        assert stored is not None
        left.append(Carry.from_bytes(stored).after.pending)
    return np.average(left, axis=0, weights=WEIGHTS)


def _rows(home: Path, node: int) -> list[tuple[bytes]]:
    db = sqlite3.connect(home / "runs" / f"1-{FIRST_NODE + node}" / "memory.sqlite")
    try:
        return list(db.execute("SELECT task FROM carried"))
    finally:
        db.close()


def dense(rounds: int) -> np.ndarray[Any, Any]:
    return rounds * np.average([gradient(p) for p in range(4)], axis=0, weights=WEIGHTS)


@pytest.mark.parametrize("strategy", [nddfe, secure])
def test_sent_plus_waiting_is_all_that_was_trained(strategy: Any, home: Path, ready_key: Any) -> None:
    ready_key(5)
    result = run(strategy(FedAvg(), codec=CODEC), LocalGrid(make_app(train), 5), 6, MODEL)
    sent = moved(result.arrays)
    np.testing.assert_allclose(sent + waiting(home), dense(6), atol=2e-6)
    assert 0 < np.count_nonzero(sent) < SIZE, "after six rounds some coordinates still wait"
    assert numpy_of(result.arrays)["count"] == 9, "buffers are not compressed"


def test_fewer_bytes_are_sent(home: Path) -> None:
    grid = LocalGrid(make_app(train), 5)
    run(nddfe(codec=CODEC), grid, 3, MODEL)
    sizes = [len(wire.unseal(m.content)) for m in grid.received if stage_of(m) == wire.TRAIN]
    first, last = sizes[0], sizes[-1]
    assert len({*sizes[:4]}) == 1
    assert first - last == (COMPRESSION.kept(1, SIZE) - COMPRESSION.kept(3, SIZE)) * 8  # 24 bits: words of 64


def test_what_left_in_a_lost_round_never_leaves_again(home: Path) -> None:
    """The second sum is lost after the clients protected it: its coordinates are gone, as they are without compression.

    Were they sent again, a server that says "lost" could have one client left out and subtract the two sums.
    """

    def lose(message: Message) -> Message | None:
        return None if stage_of(message) == wire.OPEN and message.metadata.group_id == "2" else message

    strategy = nddfe(codec=CODEC, stage_timeout=0.2)
    grid = LocalGrid(make_app(train), 5, request=lose)
    result = run(strategy, grid, 4, MODEL)
    assert result.train_metrics_clientapp[2]["flbc-survivors"] == 0
    derived = [m for m in grid.sent if stage_of(m) == wire.DERIVE and m.metadata.group_id == "2"]
    parts = wire.bytes_of(derived[0].content.config_records["flbc"], *PARTS)
    second = Ticket.from_wire(parts).indices
    missing = np.abs(dense(4) - moved(result.arrays) - waiting(home))
    assert second is not None
    assert missing[second].min() > 1e-5, "gone"
    assert np.delete(missing, second).max() < 2e-6, "and nothing else"


def test_a_round_without_an_answer_waits(home: Path) -> None:
    """The updates were trained and gathered, and no message with them left: nothing is lost."""

    def lose(message: Message) -> Message | None:
        return None if stage_of(message) == wire.REPROTECT and message.metadata.group_id == "1" else message

    asking = Codec(bits=24, max_metrics=1, compression=COMPRESSION)  # round 1 asks for size classes first
    grid = LocalGrid(make_app(train), 5, request=lose)
    result = run(nddfe(codec=asking, stage_timeout=0.3), grid, 3, MODEL)
    assert result.train_metrics_clientapp[1]["flbc-survivors"] == 0
    np.testing.assert_allclose(moved(result.arrays) + waiting(home), dense(3), atol=2e-6)


def test_another_index_set_is_refused_by_the_nodes(caplog: Any) -> None:
    """What a node computes from the frame and what the server says it chose must be one set."""
    strategy = nddfe(codec=CODEC)
    original = strategy.configure_train

    def configure(*args: Any) -> Any:
        progress = strategy._started().progress
        assert progress is not None
        _, selection = progress._made or (0, None)
        other = np.arange(COMPRESSION.kept(1, SIZE), dtype=np.int64)
        progress._made = (1, replace(selection, chosen=selection_hash(other)))  # type: ignore[type-var]
        return original(*args)

    strategy.configure_train = configure  # type: ignore[method-assign]
    result = run(strategy, LocalGrid(make_app(train), 5), 1, MODEL)
    assert not result.arrays
    assert "another set of coordinates than follows from the round's public numbers" in caplog.text


def test_not_with_privacy() -> None:
    with pytest.raises(ConfigError, match="one record reaches several sums"):
        NddFe(FedAvg(), codec=CODEC, privacy=Privacy(epsilon=1.0))
    with pytest.raises(ConfigError, match="one record reaches several sums"):
        Paillier(FedAvg(), codec=CODEC, privacy=Privacy(epsilon=1.0, unit="client"))


def test_with_declared_weights_and_a_ledger(home: Path) -> None:
    strategy = nddfe(codec=Codec(bits=24, compression=COMPRESSION), weights="declared", ledger=Ledger())
    result = run(strategy, LocalGrid(make_app(train, mods=[sized()]), 5), 3, MODEL)
    assert strategy.settled
    audited()
    np.testing.assert_allclose(moved(result.arrays) + waiting(home), dense(3), atol=2e-6)
