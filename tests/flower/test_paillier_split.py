"""Paillier(opening="split") through Flower: equal to plain FedAvg, two nodes to open, noise of the generator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from flwr.serverapp.strategy import FedAvg

from flbc import Codec, ConfigError, Ledger, Privacy, SecureMod
from flbc.errors import TooFewNodesError
from flbc.flower import wire
from flbc.flower.directory import Directory
from flbc.node.opening import unpack_key, unpack_opening
from tests.flower.conftest import run, secure
from tests.flower.test_faults import mean_of, stage_of
from tests.support.apps import MODEL, make_app, numpy_of
from tests.support.chain_runs import audited
from tests.support.local_grid import FIRST_NODE, LocalGrid

NODES = 6
GENERATOR, AUTHORITY = FIRST_NODE + 4, FIRST_NODE + 5


def split(**options: Any) -> Any:
    return secure(opening="split", **options)


def sized() -> SecureMod:
    return SecureMod(examples=lambda context: 10 * (int(context.node_config["partition-id"]) + 1))


def test_wrapped_equals_plain(grid: Any) -> None:
    got = numpy_of(run(split(codec=Codec(max_metrics=1)), grid(nodes=NODES), 2).arrays)
    expected = numpy_of(run(FedAvg(), LocalGrid(make_app(mods=[]), 4), 2).arrays)
    for name, value in MODEL.items():
        assert got[name].dtype == value.dtype
        np.testing.assert_allclose(got[name], expected[name], atol=1e-4 if value.dtype.kind == "f" else 1)


def test_the_generator_is_sent_no_ciphertext_and_the_authority_no_single_one(grid: Any) -> None:
    g = grid(nodes=NODES)
    run(split(), g)
    to_generator = [m for m in g.sent if m.metadata.dst_node_id == GENERATOR]
    assert {stage_of(m) for m in to_generator} == {wire.HELLO, wire.DERIVE}
    assert not any(m.content.array_records for m in to_generator)
    assert {stage_of(m) for m in g.sent if m.metadata.dst_node_id == AUTHORITY} == {wire.HELLO, wire.OPEN}


def test_the_noise_is_the_generators(grid: Any) -> None:
    """Its statement names noise and epsilon; the authority repeats them, and draws none of its own (S23)."""
    g = grid(make_app(mods=[sized()]), nodes=NODES)
    result = run(split(privacy=Privacy(epsilon=2.0, unit="client", clip_norm=0.5)), g, 2)
    keys = [unpack_key(wire.unseal(m.content))[0].value for m in g.received if stage_of(m) == wire.DERIVE]
    openings = [unpack_opening(wire.unseal(m.content), 13)[0].value for m in g.received if stage_of(m) == wire.OPEN]
    assert [(k.block, k.sigma, k.epsilon) for k in keys] == [(o.block, o.sigma, o.epsilon) for o in openings]
    assert keys[0].sigma > 0
    assert result.train_metrics_clientapp[2]["flbc-epsilon"] == pytest.approx(2.0, abs=0.01)


@pytest.mark.parametrize("stage", [wire.DERIVE, wire.OPEN])
def test_a_helper_silent_once_is_asked_again_and_answers_with_the_same_bytes(stage: str, grid: Any) -> None:
    lost: list[Message] = []

    def lose_first(message: Message) -> Message | None:
        if stage_of(message) == stage and not lost:
            lost.append(message)
            return None
        return message

    g = grid(nodes=NODES, reply=lose_first)
    result = run(split(stage_timeout=0.5), g)
    np.testing.assert_allclose(numpy_of(result.arrays)["weight"], mean_of([0, 1, 2, 3]), atol=1e-3)
    again = next(m for m in g.received if stage_of(m) == stage)
    assert wire.unseal(again.content) == wire.unseal(lost[0].content)


@pytest.mark.parametrize("stage", [wire.DERIVE, wire.OPEN])
def test_without_one_of_the_two_nothing_is_opened_and_the_model_is_kept(stage: str, grid: Any, caplog: Any) -> None:
    def down(message: Message) -> Message | None:
        return None if stage_of(message) == stage else message

    result = run(split(stage_timeout=0.2), grid(nodes=NODES, request=down))
    assert "did not help to open the sum within 2 x 0.2 s" in caplog.text
    assert not result.arrays


def test_split_without_a_second_node_says_which_to_add(grid: Any) -> None:
    """In simulation the number of nodes; deployed, the node-config of the one that is missing."""
    with pytest.raises(TooFewNodesError, match="num-supernodes=5"):
        run(split(node_wait=0.5), grid(nodes=3))
    deployed = Directory({}, lambda: ("generator", "authority"), 3, 1.0, None)
    with pytest.raises(TooFewNodesError, match=r"""--node-config 'flbc-role="generator" …'"""):
        deployed.wait(LocalGrid(make_app(), 0), 0.1)


@pytest.mark.parametrize("opening", ["both", "", "Split"])
def test_an_unknown_opening_is_refused(opening: str) -> None:
    with pytest.raises(ConfigError, match="choose one of authority, split, threshold"):
        secure(opening=opening)


def test_with_a_ledger_the_key_is_derived_for_a_signed_block_and_the_audit_agrees(grid: Any) -> None:
    g = grid(make_app(mods=[sized()]), nodes=NODES)
    strategy = split(ledger=Ledger(accuracy=0.1))
    run(strategy, g, 2)
    assert strategy.settled
    assert len(audited().rounds) == 2
    stages = [stage_of(m) for m in g.sent]
    assert max(i for i, s in enumerate(stages) if s == wire.ATTEST) > stages.index(wire.DERIVE)
    assert stages.index(wire.ATTEST) < stages.index(wire.DERIVE) < stages.index(wire.OPEN)
