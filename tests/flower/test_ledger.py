"""Leader, committee and settlement on the in-process grid: silence, lies, and who may lead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from flbc import ConfigError, Ledger, Privacy
from flbc.crypto.signing import keccak256
from flbc.encoding import canonical, parse
from flbc.flower import wire
from flbc.ledger.packing import PackedPayout, unpack_all
from flbc.node.committee import ranking
from flbc.node.covenant import Beacon, Covenant
from flbc.node.endorsement import Endorsement, check_endorsement
from flbc.round import Opening, Submission
from tests.flower.conftest import run, secure
from tests.flower.test_faults import mean_of, stage_of
from tests.support.apps import numpy_of
from tests.support.local_grid import FIRST_NODE, LocalGrid
from tests.support.memory_book import MemoryBook


@pytest.fixture
def book(monkeypatch: pytest.MonkeyPatch) -> MemoryBook:
    made = MemoryBook()
    monkeypatch.setattr("flbc.flower.strategy.open_book", lambda settings: made)
    return made


Grids = Callable[..., LocalGrid]


def leader_name(book: MemoryBook, height: int) -> str:
    return book.roster.parties[book.records[height - 1].block.leader].name


def node_of(name: str) -> int:
    return FIRST_NODE + int(name.removeprefix("node-"))


def test_every_round_is_recorded_with_a_leader_and_a_quorum(grid: Grids, book: MemoryBook) -> None:
    strategy = secure(ledger=Ledger(accuracy=0.1))
    result = run(strategy, grid(), 3)
    plain = numpy_of(run(secure(), grid(), 3).arrays)
    np.testing.assert_allclose(numpy_of(result.arrays)["weight"], plain["weight"], atol=1e-3)
    assert [r.label.round for r in book.records] == [1, 2, 3]
    covenant = Covenant.of(book.config)
    assert covenant is not None
    assert covenant.quorum == 3
    parent = None
    for height, record in enumerate(book.records, 1):
        assert parent in (None, record.block.parent)
        parent = record.block.hash
        endorsement = Endorsement(record.leader, tuple(record.votes))
        check_endorsement(record.block, book.roster, covenant, record.label.domain, endorsement)
        draws = {s.value.draw for s in record.submissions if isinstance(s.value, Submission)}
        assert len(draws) == 4
        assert (record.opening is None) == (height == 1)
        if record.opening is not None:
            assert isinstance(record.opening.signed.value, Opening)
            assert record.opening.signed.value.block == record.block.parent
    assert strategy.settled
    assert book.settled is not None
    assert book.settled.opening is not None
    assert book.settled.opening.signed.value.block == book.records[-1].block.hash  # type: ignore[attr-defined]
    assert book.settled.token.accuracy_bps == 1500  # members report 0, 0.1, 0.2, 0.3 on as many examples
    paid = unpack_all(PackedPayout, book.settled.payouts)
    assert sum(p.amount for p in paid) == book.reward
    assert len({p.amount for p in paid}) == 1
    assert book.closed


def test_a_task_below_the_bar_is_not_settled(grid: Grids, book: MemoryBook, caplog: Any) -> None:
    strategy = secure(ledger=Ledger(accuracy=0.5))
    run(strategy, grid())
    assert not strategy.settled
    assert book.settled is None
    assert "reaches 15.00 %, the task wants 50.00 %" in caplog.text
    assert "flbc task refund" in caplog.text


def first_leader(book: MemoryBook) -> list[str]:
    covenant = Covenant.of(book.config)
    assert covenant is not None
    ranked = ranking(book.roster, covenant, Beacon(book.seed, 1, bytes(32), bytes(32)), None)
    return [book.roster.parties[c.index].name for c in ranked]


def test_a_silent_leader_is_passed_over_in_another_attempt(grid: Grids, book: MemoryBook, caplog: Any) -> None:
    run(secure(ledger=Ledger()), grid())  # who leads block 1 depends on seed and keys only
    ranked = first_leader(book)
    assert leader_name(book, 1) == ranked[0]
    book.records.clear()
    silent = node_of(ranked[0])
    g = grid(reply=lambda m: None if m.metadata.src_node_id == silent and stage_of(m) == wire.ATTEST else m)
    result = run(secure(ledger=Ledger()), g)
    assert leader_name(book, 1) == ranked[1]
    assert book.records[0].label.attempt == 2  # attempt 1 was for the size class
    assert f"the leader {ranked[0]} is silent or refused" in caplog.text
    np.testing.assert_allclose(numpy_of(result.arrays)["weight"], mean_of([0, 1, 2, 3]), atol=1e-3)


def test_a_missed_quorum_abandons_the_round_and_nothing_is_opened(grid: Grids, book: MemoryBook, caplog: Any) -> None:
    run(secure(ledger=Ledger()), grid())
    book.records.clear()
    lost = [node_of(name) for name in first_leader(book)[2:]]  # two of four members never sign
    g = grid(reply=lambda m: None if m.metadata.src_node_id in lost and stage_of(m) == wire.ATTEST else m)
    run(secure(ledger=Ledger()), g)
    assert book.records == []
    assert "the quorum is 3" in caplog.text
    assert "round 1 is abandoned" in caplog.text
    assert not [m for m in g.sent if stage_of(m) == wire.OPEN]


def test_a_block_with_another_sum_is_signed_by_nobody(grid: Grids, book: MemoryBook, caplog: Any) -> None:
    def lie(message: Message) -> Message:
        if stage_of(message) == wire.ATTEST:
            header = parse(message.content["flbc"]["request"], "request")
            header["block"]["hidden"] = keccak256(b"another sum").hex()
            message.content["flbc"]["request"] = canonical(header)
        return message

    run(secure(ledger=Ledger()), grid(request=lie))
    assert book.records == []
    assert "The hidden sum is not that of the block's submissions" in caplog.text


def test_a_leader_that_was_not_elected_gets_no_signature(grid: Grids, book: MemoryBook, caplog: Any) -> None:
    run(secure(ledger=Ledger()), grid())
    last = first_leader(book)[-1]
    index = book.roster.index(last)
    book.records.clear()

    def lie(message: Message) -> Message:
        if stage_of(message) == wire.ATTEST:
            header = parse(message.content["flbc"]["request"], "request")
            header["block"]["leader"] = index
            message.content["flbc"]["request"] = canonical(header)
        return message

    run(secure(ledger=Ledger()), grid(request=lie))
    assert "The block's leader was not elected" in caplog.text
    # Whoever is fourth in rank leads only after three attempts, which the record shows to everybody.
    assert [record.label.attempt for record in book.records] in ([], [3], [4])


def test_the_authority_opens_only_what_a_quorum_signed(grid: Grids, book: MemoryBook, caplog: Any) -> None:
    def strip(message: Message) -> Message:
        if stage_of(message) == wire.OPEN:
            header = parse(message.content["flbc"]["request"], "request")
            header["endorsement"]["votes"] = header["endorsement"]["votes"][:1]
            message.content["flbc"]["request"] = canonical(header)
        return message

    run(secure(ledger=Ledger()), grid(request=strip))
    assert "2 committee members signed the block; the quorum is 3" in caplog.text
    assert "round 1 is abandoned" in caplog.text
    assert len(book.records) == 1  # it was signed, recorded, and never opened
    assert book.records[0].opening is None


def test_a_false_draw_is_left_out(grid: Grids, book: MemoryBook, caplog: Any) -> None:
    def lie(message: Message) -> Message:
        if stage_of(message) == wire.TRAIN and message.metadata.src_node_id == FIRST_NODE:  # also of a new attempt
            header = parse(message.content["flbc"]["reply"], "reply")
            if not header["proof"]:
                return message  # it only asks for a size class
            proof = bytearray.fromhex(header["proof"])
            proof[-1] ^= 1
            header["proof"] = proof.hex()
            message.content["flbc"]["reply"] = canonical(header)
        return message

    run(secure(ledger=Ledger()), grid(reply=lie))
    assert "the reply of node-0 is left out: the proof of its draw is not the one it signed" in caplog.text
    assert len(book.records[0].submissions) == 3


def test_malformed_payloads_that_were_signed_are_recorded_as_rejected(
    grid: Grids, book: MemoryBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flbc.schemes.paillier import PaillierProtector

    original, spoiled = PaillierProtector.protect, []

    def protect(self: Any, values: Any, label: bytes, nonce: bytes) -> bytes:
        payload = original(self, values, label, nonce)
        if not spoiled:
            spoiled.append(True)
            return b"\xff" * len(payload)  # beyond the modulus
        return payload

    monkeypatch.setattr(PaillierProtector, "protect", protect)
    run(secure(ledger=Ledger()), grid())
    block = book.records[0].block
    (rejected,) = block.rejected
    assert len(block.submissions) == 3
    paid = unpack_all(PackedPayout, book.settled.payouts)  # type: ignore[union-attr]
    assert rejected not in {p.party for p in paid}


def test_parties_without_stake_do_not_lead(grid: Grids, book: MemoryBook) -> None:
    book.stake = {"node-0": 0, "node-1": 0, "node-2": 7, "node-3": 0}
    run(secure(ledger=Ledger()), grid(), 2)
    assert {leader_name(book, h) for h in (1, 2)} == {"node-2"}


def test_after_a_refused_block_nothing_more_is_opened(grid: Grids, book: MemoryBook, caplog: Any) -> None:
    def refuse(message: Message) -> Message:
        book.refuses = book.refuses or stage_of(message) == wire.OPEN
        return message

    g = grid(reply=refuse)
    run(secure(ledger=Ledger()), g, 3)
    assert len(book.records) == 1
    assert "round 2 is abandoned" in caplog.text
    assert len([m for m in g.sent if stage_of(m) == wire.OPEN]) == 1


def test_a_suspended_party_is_left_out(grid: Grids, book: MemoryBook) -> None:
    book.out = frozenset({"node-1"})
    strategy = secure(ledger=Ledger())
    run(strategy, grid(), 2)
    suspended = book.roster.index("node-1")
    assert [len(r.submissions) for r in book.records] == [3, 3]
    for record in book.records:
        assert suspended not in {party for party, _ in record.votes} | {record.block.leader}


def test_accuracy_on_the_chain_needs_to_be_revealed(grid: Grids, book: MemoryBook) -> None:
    privacy = Privacy(epsilon=8, unit="client", clip_norm=1.0, rounds=1)
    with pytest.raises(ConfigError, match="reveal_metrics"):
        run(secure(ledger=Ledger(accuracy=0.1), privacy=privacy), grid())


@pytest.mark.parametrize("field", ["reward", "deadline", "accuracy", "payout", "election", "quorum", "url"])
def test_settings_out_of_range(field: str) -> None:
    wrong: dict[str, Any] = {
        "reward": 0, "deadline": -1, "accuracy": 1.1, "payout": "fair", "election": "coin", "quorum": 0, "url": "",
    }  # fmt: skip
    with pytest.raises(ConfigError):
        Ledger(**{field: wrong[field]})
