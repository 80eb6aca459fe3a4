"""Reading a task back from a chain."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from flbc.crypto.signing import keccak256
from flbc.errors import AuditError, LedgerError
from flbc.ledger.audit import audit
from flbc.ledger.headers import header_of
from flbc.ledger.history import read_task
from flbc.ledger.publishing import event_signature
from flbc.ledger.registry import registration
from flbc.ledger.transactions import Call
from flbc.roster import Roster
from flbc.round import Signed
from flbc.tokens import Genesis
from tests.ledger.audit.conftest import SMALL, audit_of, history_of
from tests.support.ledger import Actor, Consortium, send


def forwarder(run: Consortium, target: bytes) -> bytes:
    """Deploy a contract that passes its calls on to another one."""
    # calldatacopy(0, 0, calldatasize()); call(gas(), hub, 0, 0, calldatasize(), 0, 0); stop
    body = bytes.fromhex("36600060003760006000366000600073") + target
    body += bytes.fromhex("5af100")
    size = len(body)
    init = bytes.fromhex(f"60{size:02x}600c60003960{size:02x}6000f3") + body
    receipt = send(run.chain, run.relayer, Call(None, init), 200_000)
    return bytes.fromhex(receipt["contractAddress"][2:])


def test_a_record_made_through_another_contract(begin):
    run = begin()
    record = run.make_round(1)
    call = run.hub.submit_round(record)
    send(run.chain, run.relayer, replace(call, to=forwarder(run, run.deployment.hub)), 600_000)
    assert run.hub.task(run.task).height == 1
    with pytest.raises(AuditError, match="made through another contract"):
        history_of(run)


def test_an_account_that_is_a_contract(world):
    """It registers through itself, so the proof of possession is not in a transaction to the registry."""
    run = Consortium(*world, SMALL, salt="contract account")
    actor = Actor.make("member-99", ("committee",))
    account = forwarder(run, run.deployment.registry)
    entry = registration(actor.party, account)
    call = run.hub.registry.register(entry, Signed.make(entry, actor.keys.signing, run.where).signature)
    send(run.chain, run.relayer, replace(call, to=account))
    run.actors.append(replace(actor, account=SimpleNamespace(address=account)))
    run.roster = Roster(tuple(member.party for member in run.actors))
    run.config = replace(run.config, ledger={**run.config.ledger, "quorum": run.quorum})
    run.genesis = run.head = Genesis(run.model, run.config.hash, run.roster.hash).hash
    report = audit_of(run.begin().run_rounds(1))
    assert report.doubts == ()
    assert "member-99 registered through another contract: its proof is not at hand" in report.notes


def test_an_unknown_task(world):
    chain, deployment = world
    with pytest.raises(LedgerError, match="There is no task"):
        read_task(chain, deployment, keccak256(b"nothing"))


def test_a_header_of_another_form_is_taken_on_the_nodes_word(finished):
    header = header_of({"number": 5, "timestamp": 6, "hash": keccak256(b"x"), "parentHash": keccak256(b"y")})
    assert (header.number, header.time, header.fields) == (5, 6, ())
    bare = replace(finished, headers=tuple(replace(header, fields=()) for header in finished.headers))
    report = audit(bare)
    assert report.ok
    assert any("node's word" in note for note in report.notes)


@pytest.mark.parametrize("name", ["TaskPublished", "TaskStarted"])
def test_logs_that_are_missing_or_doubled(begin, monkeypatch, name):
    run = begin()
    real, contract = run.chain.logs, run.hub.contract
    topic = keccak256(event_signature(contract.events[name]().abi))

    def without(*arguments, **options):
        return [log for log in real(*arguments, **options) if bytes(log["topics"][0]) != topic]

    monkeypatch.setattr(run.chain, "logs", without)
    if name == "TaskPublished":
        with pytest.raises(AuditError, match="is it pruned"):
            history_of(run)
    else:
        assert not audit(history_of(run)).ok
    monkeypatch.setattr(run.chain, "logs", lambda *a, **o: [log for log in real(*a, **o) for _ in (0, 1)])
    with pytest.raises(AuditError, match=r"emitted Task\w+ 2 times"):
        history_of(run)


def test_a_hub_that_does_not_hold_what_it_owes(begin, monkeypatch):
    run = begin()
    monkeypatch.setattr(run.chain.w3.eth, "get_balance", lambda account, block: SMALL.reward - 1)
    with pytest.raises(AuditError, match="but owes 1000000000000000007 for this task alone"):
        history_of(run)


def test_a_reorganisation_while_reading(begin, monkeypatch):
    run = begin()
    real = run.chain.block
    monkeypatch.setattr(run.chain, "block", lambda n: {**real(n), "hash": keccak256(b"another")} if n else real(n))
    with pytest.raises(LedgerError, match="read it again"):
        history_of(run)
    monkeypatch.setattr(run.chain, "block", lambda n: None if n else real(n))
    with pytest.raises(LedgerError, match="wait until it has caught up"):
        history_of(run)


def test_a_task_that_goes_on_while_it_is_read(begin, monkeypatch):
    run = begin().run_rounds(1)
    real, later = run.chain.logs, run.make_round(2)

    def meanwhile(*arguments, **options):
        if run.height == 1:
            run.record(later)
        return real(*arguments, **options)

    monkeypatch.setattr(run.chain, "logs", meanwhile)
    report = audit_of(run)
    assert report.doubts == ()
    assert len(report.rounds) == 1
    assert len(audit_of(run).rounds) == 2


def test_what_parties_register_later_does_not_matter(begin):
    run = begin()
    actor = run.actors[run.hospitals[1]]
    before = history_of(run).registrations
    changed = replace(actor.party, examples=1)
    entry = registration(changed, actor.account.address)
    proof = Signed.make(entry, actor.keys.signing, run.where).signature
    call = run.hub.registry.register(entry, proof)
    try:
        send(run.chain, actor.account, call)
        assert history_of(run).registrations == before
        assert audit_of(run).doubts == ()
    finally:  # the other tests' rosters say otherwise
        entry = registration(actor.party, actor.account.address)
        proof = Signed.make(entry, actor.keys.signing, run.where).signature
        send(run.chain, actor.account, run.hub.registry.register(entry, proof))
