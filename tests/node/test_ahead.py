"""Blindings made while a client trains: where that pays, and that a payload is the same without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flbc.crypto import blinding, paillier
from flbc.node import ahead as ahead_module
from flbc.node.ahead import Ahead
from flbc.schemes.paillier import PaillierProtector
from tests.support.parties import HOSPITALS, Consortium


@pytest.fixture
def worth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(paillier.__file__).parents[2]))
    monkeypatch.setattr(ahead_module, "core_is_free", lambda: True)
    monkeypatch.setattr(ahead_module, "WORTH_SECONDS", -1.0)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    workers: list[Any] = []

    def start(*args: Any) -> Any:
        workers.append(blinding.BlindingWorker(*args))
        return workers[-1]

    monkeypatch.setattr(ahead_module, "BlindingWorker", start)
    return workers


@pytest.mark.parametrize("mode", ["authority", "split"])
def test_a_round_with_blindings_made_ahead(
    mode: str, tmp_path: Path, opening_key: paillier.PrivateKey, worth: None, started: list[Any]
) -> None:
    c = Consortium.make(tmp_path, opening_key, mode=mode)
    ticket = c.ticket()
    replies = {name: c.train(name, ticket) for name in HOSPITALS[1:]}
    node = c.participant(HOSPITALS[0])
    assert node.must_train(ticket, ticket.label.model)
    with Ahead() as ahead:
        ahead.begin(ticket, node.me, node.memory)
        node.keep(ticket, c.update(HOSPITALS[0]))
        (worker,) = started
        worker.wait(60)
        made = worker.ready
        replies[HOSPITALS[0]] = node.submit(ticket, ahead)
    assert made == 1  # a small model: one ciphertext
    assert worker.take() == []
    request = c.request(ticket, replies)
    part = c.generator().derive(ticket, request) if mode == "split" else b""
    assert c.authority().open(ticket, request, part)


def test_the_blindings_are_the_payloads(
    tmp_path: Path, opening_key: paillier.PrivateKey, worth: None, started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    c = Consortium.make(tmp_path, opening_key)
    ticket = c.ticket()
    node = c.participant(HOSPITALS[0])
    assert node.must_train(ticket, ticket.label.model)
    given: list[Any] = []
    real = PaillierProtector.refill
    monkeypatch.setattr(PaillierProtector, "refill", lambda self, b: (given.extend(b), real(self, b))[1])
    with Ahead() as ahead:
        ahead.begin(ticket, node.me, node.memory)
        started[0].wait(60)
        node.keep(ticket, c.update(HOSPITALS[0]))
        payload = node.submit(ticket, ahead).payload
    (ciphertext,) = paillier.ciphertexts_from_bytes(opening_key.public, payload, 1)
    (plaintext,) = opening_key.decrypt([ciphertext])
    n = opening_key.public.n
    assert (1 + plaintext * n) * given[0] % (n * n) == ciphertext


def test_where_it_does_not_pay(
    tmp_path: Path, opening_key: paillier.PrivateKey, started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    c = Consortium.make(tmp_path, opening_key)
    ticket, node = c.ticket(), c.participant(HOSPITALS[0])
    monkeypatch.setattr(ahead_module, "core_is_free", lambda: True)
    for me in (node.me, replace(node.me, simulation=True)):  # too few values; in simulation
        with Ahead() as ahead:
            ahead.begin(ticket, me, node.memory)
    monkeypatch.setattr(ahead_module, "WORTH_SECONDS", -1.0)
    monkeypatch.setattr(ahead_module, "core_is_free", lambda: False)
    with Ahead() as ahead:
        ahead.begin(ticket, node.me, node.memory)
    assert started == []


def test_a_model_of_any_size_gets_a_worker_of_bounded_size(
    tmp_path: Path, opening_key: paillier.PrivateKey, worth: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(ahead_module, "BlindingWorker", lambda public, count: asked.append(count))
    monkeypatch.setattr(PaillierProtector, "ciphertexts", property(lambda self: 1 << 30))
    c = Consortium.make(tmp_path, opening_key)
    node = c.participant(HOSPITALS[0])
    with Ahead() as ahead:
        ahead.begin(c.ticket(), node.me, node.memory)
    assert asked == [blinding.MAX_BLINDINGS]


@pytest.mark.parametrize("error", [OSError, RuntimeError])
def test_no_process_is_no_error(
    error: type[Exception],
    tmp_path: Path,
    opening_key: paillier.PrivateKey,
    worth: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: Any,
) -> None:
    def refuse(*_: Any) -> Any:
        raise error("no more processes")

    monkeypatch.setattr(ahead_module, "BlindingWorker", refuse)
    c = Consortium.make(tmp_path, opening_key)
    ticket, node = c.ticket(), c.participant(HOSPITALS[0])
    assert node.must_train(ticket, ticket.label.model)
    with Ahead() as ahead:
        ahead.begin(ticket, node.me, node.memory)
        node.keep(ticket, c.update(HOSPITALS[0]))
        assert node.submit(ticket, ahead).payload
    assert "no more processes" in caplog.text
