"""Paillier(opening="threshold") through Flower: equal to plain FedAvg, with holders that drop, lie or are too few."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from flwr.serverapp.strategy import FedAvg

from flbc import Codec, ConfigError, Ledger, Privacy, SecureMod
from flbc.cards import PartialOpening
from flbc.crypto import boxes, keystore, paillier
from flbc.crypto.keystore import PartyKeys
from flbc.crypto.paillier_threshold import deal
from flbc.crypto.signing import keccak256
from flbc.errors import TooFewNodesError
from flbc.flower import wire
from flbc.flower.simulated import DEVELOPMENT_PASSWORD
from flbc.node.identity import development_identity
from flbc.node.opening import pack_signed, unpack_opening
from flbc.node.threshold import KeyHolder, _info
from flbc.round import Signed
from tests.flower.conftest import run, secure
from tests.flower.test_faults import mean_of, stage_of
from tests.support.apps import MODEL, make_app, numpy_of
from tests.support.chain_runs import audited
from tests.support.local_grid import FIRST_NODE, LocalGrid

AUTHORITY = FIRST_NODE + 4


@pytest.fixture(scope="module")
def dealt(tmp_path_factory: pytest.TempPathFactory, opening_key: paillier.PrivateKey) -> Path:
    """Key files of four simulated holders, of whose shares three open."""
    folder = tmp_path_factory.mktemp("dealt")
    for partition, share in enumerate(deal(opening_key, 3, 4)):
        keys = development_identity(partition).keys
        made = PartyKeys(keys.name, keys.signing, keys.encryption, keys.vrf, None, share)
        keystore.save(folder / f"{keys.name}.key", made, DEVELOPMENT_PASSWORD)
    return folder


@pytest.fixture
def grid(home: Path, dealt: Path) -> Callable[..., LocalGrid]:
    def make(app: Any = None, **options: Any) -> LocalGrid:
        (home / "runs").mkdir(parents=True, mode=0o700, exist_ok=True)
        (home / "runs" / "1-dealer").symlink_to(dealt)
        return LocalGrid(app or make_app(), 5, **options)

    return make


def shared(**options: Any) -> Any:
    return secure(opening="threshold", **options)


def sized() -> SecureMod:
    return SecureMod(examples=lambda context: 10 * (int(context.node_config["partition-id"]) + 1))


def test_wrapped_equals_plain(grid: Any) -> None:
    got = numpy_of(run(shared(codec=Codec(max_metrics=1)), grid(), 2).arrays)
    expected = numpy_of(run(FedAvg(), LocalGrid(make_app(mods=[]), 4), 2).arrays)
    for name, value in MODEL.items():
        assert got[name].dtype == value.dtype
        np.testing.assert_allclose(got[name], expected[name], atol=1e-4 if value.dtype.kind == "f" else 1)


def test_the_first_holder_that_is_asked_deals(home: Path) -> None:
    g = LocalGrid(make_app(), 4)  # three hospitals, of which all hold shares
    result = run(shared(), g)
    np.testing.assert_allclose(numpy_of(result.arrays)["weight"], mean_of([0, 1, 2]), atol=1e-3)
    share = keystore.load(home / "runs" / "1-dealer" / "node-0.key", DEVELOPMENT_PASSWORD).share
    assert share is not None
    assert (share.key.threshold, share.key.holders) == (2, 3)  # the majority
    files = sorted(path.name for path in (home / "runs" / "1-dealer").glob("*.key"))
    assert files == ["node-0.key", "node-1.key", "node-2.key"]
    assert not (home / "runs" / f"1-{FIRST_NODE + 3}" / "authority.key").exists()


def test_the_server_sees_boxes_and_the_authority_no_single_payload(grid: Any) -> None:
    g = grid()
    run(shared(), g)
    assert {stage_of(m) for m in g.sent if m.metadata.dst_node_id == AUTHORITY} == {wire.HELLO, wire.OPEN}
    asked = {m.metadata.dst_node_id for m in g.sent if stage_of(m) == wire.PARTIAL}
    assert asked == {FIRST_NODE + i for i in range(4)}


def test_the_noise_is_the_authoritys(grid: Any) -> None:
    g = grid(make_app(mods=[sized()]))
    result = run(shared(privacy=Privacy(epsilon=2.0, unit="client", clip_norm=0.5)), g, 2)
    openings = [unpack_opening(wire.unseal(m.content), 13)[0].value for m in g.received if stage_of(m) == wire.OPEN]
    assert openings[0].sigma > 0
    assert result.train_metrics_clientapp[2]["flbc-epsilon"] == pytest.approx(2.0, abs=0.01)


def test_three_of_four_holders_are_enough(grid: Any) -> None:
    def one_is_away(message: Message) -> Message | None:
        away = message.metadata.dst_node_id == FIRST_NODE + 2
        return None if away and stage_of(message) == wire.PARTIAL else message

    result = run(shared(stage_timeout=3), grid(request=one_is_away))
    np.testing.assert_allclose(numpy_of(result.arrays)["weight"], mean_of([0, 1, 2, 3]), atol=1e-3)


def test_two_of_four_holders_are_not(grid: Any, caplog: Any) -> None:
    def two_are_away(message: Message) -> Message | None:
        away = message.metadata.dst_node_id not in (FIRST_NODE, FIRST_NODE + 1)
        return None if away and stage_of(message) == wire.PARTIAL else message

    g = grid(request=two_are_away)
    result = run(shared(stage_timeout=0.3), g)
    assert "node-2, node-3 did not help to open the sum" in caplog.text
    assert not result.arrays
    assert not [m for m in g.sent if stage_of(m) == wire.OPEN]


def test_an_answer_that_its_holder_did_not_sign_is_left_out(grid: Any, caplog: Any) -> None:
    def flip(message: Message) -> Message:
        if stage_of(message) == wire.PARTIAL and message.metadata.src_node_id == FIRST_NODE:
            answer = bytearray(wire.unseal(message.content))
            answer[-1] ^= 1
            message.content[wire.PAYLOAD] = wire.seal(bytes(answer))
        return message

    result = run(shared(), grid(reply=flip))
    assert "the answer of node-0 is left out: The partial opening is not the one that 'node-0' signed" in caplog.text
    np.testing.assert_allclose(numpy_of(result.arrays)["weight"], mean_of([0, 1, 2, 3]), atol=1e-3)


def test_an_answer_that_is_false_or_refused_does_not_end_the_wait_for_slower_ones(grid: Any, caplog: Any) -> None:
    """Counted before they were verified, answers of liars who are quick shut the honest ones out after a second."""
    slow = {FIRST_NODE + 2: 0.2, FIRST_NODE + 3: 2.0}
    g, asked = grid(), {}

    def flip(message: Message) -> Message:
        if stage_of(message) == wire.PARTIAL:
            node = message.metadata.src_node_id
            asked[message.metadata.reply_to_message_id] = time.monotonic() + slow.get(node, 0.0)
            if node == FIRST_NODE:
                answer = bytearray(wire.unseal(message.content))
                answer[-1] ^= 1
                message.content[wire.PAYLOAD] = wire.seal(bytes(answer))
        return message

    pull = g.pull_messages
    g.reply = flip
    g.pull_messages = lambda ids: pull([i for i in ids if asked.get(i, 0.0) <= time.monotonic()])
    result = run(shared(stage_timeout=20), g)
    assert "the answer of node-0 is left out" in caplog.text
    assert "did not help" not in caplog.text
    np.testing.assert_allclose(numpy_of(result.arrays)["weight"], mean_of([0, 1, 2, 3]), atol=1e-3)


def test_a_signed_lie_is_survived_because_the_server_waits_for_a_spare(grid: Any, monkeypatch: Any) -> None:
    honest = KeyHolder.open

    def lie(self: KeyHolder, ticket: Any, request: Any) -> bytes:
        if self.me.name != "node-0":
            return honest(self, ticket, request)
        authority = ticket.only("authority")
        part = bytes([self.share.place]) + request.hidden  # no opening at all
        box = boxes.seal(
            authority.encryption, _info(ticket.label.hash, request.block.hash, "node-0", authority.name), part
        )
        word = PartialOpening(request.block.hash, keccak256(box))
        return pack_signed(Signed.make(word, self.me.keys.signing, ticket.label.domain), box)

    monkeypatch.setattr(KeyHolder, "open", lie)
    result = run(shared(), grid())
    np.testing.assert_allclose(numpy_of(result.arrays)["weight"], mean_of([0, 1, 2, 3]), atol=1e-3)


def test_more_shares_than_holders_names_both_numbers_and_the_flag() -> None:
    with pytest.raises(TooFewNodesError, match=r"threshold = 5 is more than the 4 holders.*opening-threshold"):
        run(shared(threshold=5, node_wait=0.3), LocalGrid(make_app(), 5))


def test_half_of_the_holders_is_too_low_a_threshold() -> None:
    with pytest.raises(TooFewNodesError, match="threshold = 2 of 4 holders is too low: two groups of holders could"):
        run(shared(threshold=2, node_wait=0.3), LocalGrid(make_app(), 5))


def test_more_shares_than_a_simulation_has_holders() -> None:
    with pytest.raises(TooFewNodesError, match=r"8 x committee.*a simulation has at most 7 in the committee") as caught:
        run(shared(threshold=8, node_wait=0.3), LocalGrid(make_app(), 5))
    assert "committee, committee" not in str(caught.value)


def test_without_a_number_the_server_waits_for_as_many_as_the_key_needs(grid: Any) -> None:
    def two_are_silent(message: Message) -> Message | None:
        silent = message.metadata.dst_node_id in (FIRST_NODE + 2, FIRST_NODE + 3)
        return None if silent and stage_of(message) == wire.HELLO else message

    with pytest.raises(TooFewNodesError, match="3 x committee"):
        run(shared(node_wait=0.3, stage_timeout=0.2), grid(request=two_are_silent))


@pytest.mark.parametrize("threshold", [1, 0, -2, 2.0, 21])
def test_one_share_must_not_be_enough(threshold: Any) -> None:
    with pytest.raises(ConfigError, match=r"Paillier\(threshold=.*opening-threshold.* at least 2 and at most 20"):
        shared(threshold=threshold)


def test_a_threshold_belongs_to_its_opening() -> None:
    with pytest.raises(ConfigError, match="belongs to opening='threshold'"):
        secure(threshold=3)


def test_holders_of_another_key_than_the_strategy_asks_for_say_which(grid: Any) -> None:
    with pytest.raises(TooFewNodesError, match=r"3 of 4 open a sum.*pass Paillier\(key_bits=2048, threshold=3\)"):
        run(shared(threshold=4, node_wait=0.3), grid())


def test_with_a_ledger_holders_answer_for_a_signed_block_and_the_audit_agrees(grid: Any) -> None:
    g = grid(make_app(mods=[sized()]))
    strategy = shared(ledger=Ledger(accuracy=0.1))
    run(strategy, g, 2)
    assert strategy.settled
    assert len(audited().rounds) == 2
    stages = [stage_of(m) for m in g.sent]
    assert stages.index(wire.ATTEST) < stages.index(wire.PARTIAL) < stages.index(wire.OPEN)
