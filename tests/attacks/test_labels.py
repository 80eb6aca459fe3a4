"""S5, S6, S9, S14: one configuration, one model and one answer per round."""

from __future__ import annotations

import secrets
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from flwr.app import ConfigRecord, RecordDict

from flbc.codec import Frame
from flbc.crypto.signing import keccak256
from flbc.errors import FlbcError, OpeningRefusedError, ProtocolError, StaleLabelError, VerificationError
from flbc.flower.wire import content_hash
from flbc.node.memory import KEPT_TASKS
from tests.support.parties import HOSPITALS


def test_a_changed_configuration_is_refused_for_ever(consortium: Any) -> None:
    c = consortium()
    c.train("hungary", c.ticket())
    other = replace(c.config, rounds=6)
    with pytest.raises(StaleLabelError, match="start a new task"):
        c.participant("hungary").must_train(c.ticket(2, config=other), c.ticket(2).label.model)
    assert c.train("hungary", c.ticket(2)).payload, "the agreed one still works"


def test_the_authority_remembers_the_configuration_too(consortium: Any) -> None:
    c = consortium()
    ticket = c.ticket()
    c.authority().open(ticket, c.request(ticket, c.train_all(ticket)))
    changed = c.ticket(2, config=replace(c.config, min_survivors=4))
    with pytest.raises(StaleLabelError):
        c.authority().open(changed, c.request(changed, {}, hidden=b""))


def test_another_model_than_the_label_says(consortium: Any) -> None:
    c = consortium()
    with pytest.raises(ProtocolError, match="another model"):
        c.participant("hungary").must_train(c.ticket(), keccak256(b"a model that singles hungary out"))


def test_another_model_to_one_client_cannot_be_opened(consortium: Any) -> None:
    """The server labels one client's model separately: that submission has another label, and so other tags."""
    c = consortium()
    ticket, special = c.ticket(), c.ticket(model=keccak256(b"special"))
    replies = {name: c.train(name, special if name == "hungary" else ticket) for name in HOSPITALS}
    with pytest.raises(VerificationError, match="another label"):
        c.authority().open(ticket, c.request(ticket, replies))


def test_a_second_model_in_the_same_round_is_not_trained(consortium: Any) -> None:
    c = consortium()
    c.train("hungary", c.ticket())
    second = c.ticket(attempt=1, model=keccak256(b"second"))
    with pytest.raises(StaleLabelError, match="Another model"):
        c.participant("hungary").must_train(second, second.label.model)


def test_the_same_label_gets_the_same_reply_after_a_restart(consortium: Any) -> None:
    """S9: no second submission under one label, even with a fresh nonce."""
    c = consortium()
    ticket = c.ticket()
    first = c.train("hungary", ticket)
    again = c.participant("hungary").submit(ticket)
    assert again == first


def test_a_new_attempt_protects_the_same_update_with_fresh_bytes(consortium: Any) -> None:
    c = consortium()
    first = c.train("hungary", c.ticket())
    second = c.participant("hungary").submit(c.ticket(attempt=1))
    assert second.payload != first.payload
    assert second.submission.value.nonce != first.submission.value.nonce
    assert not c.participant("hungary").must_train(c.ticket(attempt=1), c.ticket().label.model)


def test_labels_must_rise(consortium: Any) -> None:
    c = consortium()
    node = c.participant("hungary")
    c.train("hungary", c.ticket(2))
    with pytest.raises(StaleLabelError):
        node.must_train(c.ticket(1), c.ticket(1).label.model)
    node.submit(c.ticket(2, attempt=3))
    with pytest.raises(StaleLabelError, match="labels must rise"):
        node.submit(c.ticket(2, attempt=2))


@pytest.mark.parametrize("part", ["roster", "config", "frame", "keys"])
def test_a_ticket_whose_parts_are_not_the_labels_is_refused(part: str, consortium: Any) -> None:
    c = consortium()
    wire = c.ticket().to_wire()
    other = c.ticket(config=replace(c.config, rounds=4), frame=Frame((0.5,), 50.0), keys=b"{}").to_wire()
    smaller = type(c.roster)(c.roster.parties[:-1])
    other["roster"] = smaller.encoded
    wire[part] = other[part]
    with pytest.raises(FlbcError, match="commits to another"):
        type(c.ticket()).from_wire(wire)


def test_payload_of_another_round_is_not_opened(consortium: Any) -> None:
    """A replayed ciphertext, with the signature of its own round, and re-signed by a colluding client."""
    c = consortium()
    old_ticket = c.ticket(1)
    old = c.train_all(old_ticket)
    ticket = c.ticket(2)
    fresh = c.train_all(ticket)
    with pytest.raises(VerificationError, match="another label"):
        c.authority().open(ticket, c.request(ticket, {**fresh, "hungary": old["hungary"]}))
    hidden = c.combiner.combine(
        {ticket.roster.index(n): (old if n == "hungary" else fresh)[n].payload for n in HOSPITALS}
    )
    with pytest.raises(OpeningRefusedError, match="burnt"):
        c.authority().open(ticket, c.request(ticket, fresh, hidden=hidden))


def test_submitting_at_once_gives_one_submission(consortium: Any) -> None:
    c = consortium()
    ticket = c.ticket()
    node = c.participant("hungary")
    node.must_train(ticket, ticket.label.model)
    node.keep(ticket, c.update("hungary"))
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda _: c.participant("hungary").submit(ticket), range(4)))
    assert len({reply.payload for reply in replies}) == 1


def test_only_the_newest_tasks_updates_stay_on_disk(consortium: Any) -> None:
    c = consortium()
    for _ in range(KEPT_TASKS + 3):
        c.task = secrets.token_bytes(32)
        c.train("hungary", c.ticket())
    with closing(sqlite3.connect(c.folder / "hungary" / "memory.sqlite")) as db:
        assert db.execute("SELECT count(*) FROM trained").fetchone() == (KEPT_TASKS,)
        assert db.execute("SELECT count(*) FROM answered").fetchone() == (KEPT_TASKS,)


@pytest.mark.parametrize("records", [({"a": {"b/c": 1}, "a/b": {"c": 2}}, {"a": {"b/c": 2}, "a/b": {"c": 1}})])
def test_the_model_hash_covers_every_config_value(records: Any) -> None:
    hashes = {
        content_hash(RecordDict({name: ConfigRecord(values) for name, values in content.items()}))
        for content in records
    }
    assert len(hashes) == 2


def test_another_mode_of_opening_is_refused(consortium: Any) -> None:
    c = consortium()
    ticket = c.ticket(config=replace(c.config, mode="leader"))
    with pytest.raises(ProtocolError, match="has the modes authority, split, threshold, not"):
        c.participant("hungary").must_train(ticket, ticket.label.model)


@pytest.mark.parametrize("stated", [0.0, 1.0, 37.0, 49.0, 51.0, 64.0])
def test_a_server_cannot_ask_for_the_weight(consortium: Any, stated: float) -> None:
    """With declared weights a frame states the agreed largest one: else refusals would tell the hidden weight."""
    c = consortium()
    ticket = c.ticket(frame=replace(c.frame, max_weight=stated))
    with pytest.raises(ProtocolError, match="neither the agreed one nor a power of two"):
        c.participant("zurich").must_train(ticket, ticket.label.model)
