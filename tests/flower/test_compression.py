"""Deep Gradient Compression through Flower: what was sent and what waits on the nodes is all that was trained."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
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
from flbc.node import NodeMemory
from tests.flower.conftest import run, secure
from tests.flower.test_faults import stage_of
from tests.flower.test_nddfe import nddfe, sized
from tests.support.apps import make_app, numpy_of, record, reply
from tests.support.chain_runs import audited
from tests.support.local_grid import FIRST_NODE, LocalGrid

SIZE = 40
MODEL = {"a": np.zeros((5, 6)), "b": np.zeros(10, np.float32), "count": np.array(3, np.int64)}
WEIGHTS = np.array([10, 20, 30, 40])
CODEC = Codec(bits=24, max_examples=64, max_metrics=1, compression=Compression(rate=0.9, warm_up=1))


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


def waiting(home: Path, counted: Callable[[int], bool] = lambda node: True) -> np.ndarray[Any, Any]:
    """Weighted mean of what the nodes still have to send, as they would find it in the next round."""
    left = []
    for node in range(4):
        (task,) = {row[0] for row in _rows(home, node)}
        stored = NodeMemory(home / "runs" / f"1-{FIRST_NODE + node}").carry(task)
        assert stored is not None
        left.append(Carry.from_bytes(stored).settled(counted(node)).pending)
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
    assert first - last == (CODEC.compression.kept(1, SIZE) - CODEC.compression.kept(3, SIZE)) * 4  # type: ignore[union-attr]


def test_a_round_that_was_not_applied_is_sent_again(home: Path) -> None:
    """The second sum is lost after the clients protected it: nothing of it may be forgotten."""

    def lose(message: Message) -> Message | None:
        return None if stage_of(message) == wire.OPEN and message.metadata.group_id == "2" else message

    result = run(nddfe(codec=CODEC, stage_timeout=0.2), LocalGrid(make_app(train), 5, request=lose), 4, MODEL)
    assert result.train_metrics_clientapp[2]["flbc-survivors"] == 0
    np.testing.assert_allclose(moved(result.arrays) + waiting(home), dense(4), atol=2e-6)


def test_a_client_that_was_left_out_keeps_its_update(home: Path) -> None:
    """The reply of node 1 in round 2 does not arrive: the round is applied without it, and it sends all later."""

    trained: list[int] = []

    def lose(message: Message) -> Message | None:
        if stage_of(message) == wire.TRAIN and message.metadata.src_node_id == FIRST_NODE + 1:
            trained.append(1)
            return None if len(trained) == 2 else message
        return message

    grid = LocalGrid(make_app(train), 5, reply=lose)
    strategy = nddfe(codec=CODEC)
    result = strategy.start(grid, record(MODEL), num_rounds=4, timeout=1)
    # Round 2's mean had other weights, so compare what each node sent and keeps instead of the model.
    for node in range(4):
        (task,) = {row[0] for row in _rows(home, node)}
        carry = Carry.from_bytes(NodeMemory(home / "runs" / f"1-{FIRST_NODE + node}").carry(task) or b"")
        assert carry.round == 4
    counted = strategy._started().progress
    assert counted is not None
    assert counted.counted == {f"node-{i}": 4 for i in range(4)}
    assert result.train_metrics_clientapp[2]["flbc-survivors"] == 3
    left = waiting(home)
    assert np.abs(moved(result.arrays) + left - dense(4)).max() < 0.2 * np.abs(dense(4)).max()


def test_another_index_set_is_refused_by_the_nodes(caplog: Any) -> None:
    """What a node computes from the frame and what the server says it chose must be one set."""
    strategy = nddfe(codec=CODEC)
    original = strategy.configure_train

    def configure(*args: Any) -> Any:
        progress = strategy._started().progress
        assert progress is not None
        _, selection = progress._made or (0, None)
        other = np.arange(CODEC.compression.kept(1, SIZE), dtype=np.int64)  # type: ignore[union-attr]
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
    strategy = nddfe(codec=Codec(bits=24, compression=CODEC.compression), weights="declared", ledger=Ledger())
    result = run(strategy, LocalGrid(make_app(train, mods=[sized()]), 5), 3, MODEL)
    assert strategy.settled
    audited()
    np.testing.assert_allclose(moved(result.arrays) + waiting(home), dense(3), atol=2e-6)
