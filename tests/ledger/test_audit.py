"""The audit: an honest run passes, and nothing else does."""

from __future__ import annotations

import copy
import io
import json
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from flbc.crypto.signing import keccak256
from flbc.election import alpha
from flbc.errors import AuditError, LedgerError, ProtocolError
from flbc.ledger.audit import AuditReport, audit
from flbc.ledger.chain import connect
from flbc.ledger.headers import header_of
from flbc.ledger.history import read_task
from flbc.ledger.records import TaskHistory
from flbc.ledger.registry import registration
from flbc.ledger.table import render
from flbc.ledger.transactions import Call
from flbc.node.draw import make_draw
from flbc.privacy import GaussianMechanism
from flbc.roster import Roster
from flbc.round import Signed, Vote
from flbc.tokens import Genesis
from tests.support.ledger import Actor, Consortium, Setting, deploy_contracts, mine, pass_time, send

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
SMALL = Setting(hospitals=3, members=2, overlap=1)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """An embedded chain with contracts."""
    folder = tmp_path_factory.mktemp("audit")
    with pytest.MonkeyPatch.context() as patch, connect(f"embedded:{folder / 'chain.sqlite'}") as chain:
        patch.setenv("FLBC_HOME", str(folder))
        yield chain, deploy_contracts(chain, folder)


@pytest.fixture(autouse=True)
def fast_epsilon(monkeypatch):
    """Remember the accountant's answers: thousands of audits ask for the same few."""
    ask, known = GaussianMechanism.epsilon_after, {}

    def remembered(self: GaussianMechanism, rounds: int) -> float:
        key = (self, rounds)
        if key not in known:
            known[key] = ask(self, rounds)
        return known[key]

    monkeypatch.setattr(GaussianMechanism, "epsilon_after", remembered)


@pytest.fixture
def begin(world, request):
    """Return a function that starts a task of its own."""
    count = 0

    def make(setting: Setting = SMALL, **publish: Any) -> Consortium:
        nonlocal count
        count += 1
        made = Consortium(*world, setting, salt=f"{request.node.name}/{count}")
        made.register_all()
        mine(made.chain)
        made.publish(**publish)
        made.start()
        made.draw_seed()
        return made

    return make


def history_of(run: Consortium) -> TaskHistory:
    return read_task(run.chain, run.deployment, run.task)


def audit_of(run: Consortium) -> AuditReport:
    return audit(history_of(run))


@pytest.fixture(scope="module")
def finished(world) -> TaskHistory:
    """A small run with everything in it: a second attempt, a rejected party, a suspension, a second registration."""
    run = Consortium(*world, SMALL, salt="finished")
    run.register_all()
    # The same keys again: the newer one counts, the older one says how old the keys are.
    actor = replace(run.actors[run.hospitals[0]], stake=0)
    registry, entry = run.hub.registry, registration(actor.party, actor.account.address)
    proof = Signed.make(entry, actor.keys.signing, run.where).signature
    run.send("register again", actor.account, registry.register(entry, proof))
    mine(run.chain)
    run.publish()
    run.start()
    run.draw_seed()
    run.record(run.make_round(1))
    second = run.ranking()[1]
    left_out = run.hospitals[2] if second != run.hospitals[2] else run.hospitals[1]
    run.record(run.make_round(2, attempt=1, leader=second, rejected=[left_out]))
    away = run.actors[run.committee[-1]].account.address
    for on in (True, False):
        run.send("suspend", run.authority, registry.suspend(away, on))
    run.settle()
    for party in run.amounts():
        run.claim(party)
    return history_of(run)


# ---------------------------------------------------------------------- honest runs
def test_an_honest_run_passes(finished):
    report = audit(finished)
    assert report.doubts == ()
    assert report.ok
    assert report.notes == ("Compute times are attested by software, not hardware: a party can state any time",)
    assert (report.status, report.parties, report.committee, report.quorum) == ("settled", 6, 3, 3)
    assert (report.paid, report.refunded, report.reward) == (SMALL.reward, 0, SMALL.reward)
    assert [(row.round, row.attempt, row.rank, row.submissions, row.rejected) for row in report.rounds] == [
        (1, 0, 0, 3, 0),
        (2, 1, 1, 2, 1),
    ]
    assert [row.votes for row in report.rounds] == [3, 3]
    assert sorted(row.blocks for row in report.payouts) == [1, 2, 2]
    assert all(row.claimed for row in report.payouts)
    # 100, 137 and 174 examples: shares are examples times blocks
    shares = {row.name: int(row.name[-3:]) * 37 * row.blocks + 100 * row.blocks for row in report.payouts}
    total = sum(shares.values())
    assert all(abs(row.amount - SMALL.reward * shares[row.name] // total) <= 1 for row in report.payouts)
    assert 0 < report.rounds[0].epsilon < report.rounds[1].epsilon == report.epsilon <= report.epsilon_budget == 3


def test_history_is_complete_and_its_file_round_trips(finished):
    assert len(finished.registrations) == 6 + 1 + 1  # parties, publisher, one twice
    assert [record.on for record in finished.suspensions] == [True, False]
    assert all(header.fields for header in finished.headers)
    assert TaskHistory.unpack(finished.pack()) == finished


def test_report_as_json_and_as_table(finished):
    report = audit(finished)
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert data["ok"] is True
    assert data["reward"] == str(SMALL.reward)
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(render(report))
    text = console.export_text()
    for expected in ("software, not hardware", "1.000000000000000007 ETH paid", "hospital-001", "everything verifies"):
        assert expected in text


def test_a_task_can_be_audited_at_every_stage(begin, world):
    run = Consortium(*world, SMALL, salt="stages")
    run.register_all()
    mine(run.chain)
    run.publish()
    reports = [audit_of(run)]
    for step in (run.start, run.draw_seed, lambda: run.run_rounds(1), lambda: run.run_rounds(1), run.settle):
        step()
        reports.append(audit_of(run))
    assert [report.doubts for report in reports] == [()] * 6
    assert [report.status for report in reports] == ["published", *["started"] * 4, "settled"]
    assert [row.epsilon is None for row in reports[4].rounds] == [False, True]  # opened with the next block only


def test_without_privacy_epsilon_is_unbounded(begin):
    report = audit_of(begin(replace(SMALL, private=False)).finish(1))
    assert report.doubts == ()
    assert report.rounds[0].epsilon == float("inf")
    assert report.epsilon is None
    assert report.to_dict()["rounds"][0]["epsilon"] is None


def test_an_election_by_the_committee_alone(begin):
    run = begin(replace(SMALL, election="committee"))
    for round_ in (1, 2):
        run.record(replace(run.make_round(round_), proof=b""))
    run.settle()
    report = audit_of(run)
    assert report.doubts == ()
    assert any("left to the committee" in note for note in report.notes)


def test_equal_shares_and_no_bar(begin):
    run = begin(replace(SMALL, payout="equal", accuracy_bps=0)).run_rounds(2)
    run.settle(run.make_settlement([], accuracy_bps=0))
    report = audit_of(run)
    assert report.doubts == ()
    assert max(row.amount for row in report.payouts) - min(row.amount for row in report.payouts) <= 1


def test_a_refund(begin, world):
    run = begin(replace(SMALL, duration=40))
    run.record(run.make_round(1))
    pass_time(run.chain, run.deadline)
    run.send("refund", run.relayer, run.hub.refund(run.task))
    report = audit_of(run)
    assert report.doubts == ()
    assert (report.status, report.paid, report.refunded) == ("refunded", 0, SMALL.reward)


def test_a_burnt_opening_counts_in_epsilon(begin):
    run = begin()
    run.record(run.make_round(1))
    run.record(run.make_round(2, open_last=False))  # the opening of round 1 was lost, but it was spent
    run.record(run.make_round(3))
    report = audit_of(run)
    assert report.doubts == ()
    assert [row.epsilon is None for row in report.rounds] == [True, False, True]
    assert report.epsilon == pytest.approx(run.mechanism.epsilon_after(2), abs=1e-6)
    assert any("1 sums were opened or refused without a record" in note for note in report.notes)


def test_a_postponed_seed(world):
    run = Consortium(*world, SMALL, salt="postponed")
    run.register_all()
    mine(run.chain)
    run.publish()
    run.start()
    mine(run.chain, 258)  # nobody drew the seed while its block's hash was within reach
    run.draw_seed()
    assert run.seed == bytes(32)
    run.draw_seed()
    run.run_rounds(1)
    history = history_of(run)
    assert len(history.postponements) == 1
    assert audit(history).doubts == ()


# ---------------------------------------------------------------------- one changed byte
def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*path, key))
    else:
        yield path, value


def flips(path: tuple[Any, ...], value: Any, dice: random.Random) -> Iterator[Any]:
    """Yield the leaf with one byte changed: at both ends and somewhere between; all bytes in the long profile."""
    if value is None:
        yield from (0, "", {}, [])
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        size = max(1, (value.bit_length() + 7) // 8)
        yield from (value ^ 1 << (8 * at + dice.randrange(8)) for at in range(size if LONG else min(size, 2)))
    elif path[-1] in ("status", "link"):
        at = dice.randrange(len(value))
        yield value[:at] + chr(ord(value[at]) ^ 1) + value[at + 1 :]
    elif not value:
        yield "00"
    else:
        raw = bytearray.fromhex(value)
        chosen = set(range(len(raw))) if LONG else {0, len(raw) - 1, dice.randrange(len(raw))}
        for at in sorted(chosen):
            raw[at] ^= 1 << dice.randrange(8)
            yield raw.hex()
            raw = bytearray.fromhex(value)


def put(data: Any, path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        data = data[key]
    data[path[-1]] = value


def passes(data: dict[str, Any]) -> bool:
    try:
        return audit(TaskHistory.from_dict(data)).ok
    except ProtocolError:  # the strict parser found it
        return False


MEMBERS = [name for name in TaskHistory.__dataclass_fields__ if name != "headers"]


@pytest.mark.parametrize("member", MEMBERS)
def test_a_changed_byte_is_found_in_every_field(finished, member):
    data, dice = finished.to_dict(), random.Random(member)
    touched = 0
    for path, value in list(leaves(data[member], (member,))):
        for changed in flips(path, value, dice):
            put(data, path, changed)
            assert not passes(data), f"{'.'.join(map(str, path))}: {value!r} became {changed!r} unseen"
            put(data, path, value)
            touched += 1
    assert touched or data[member] == []
    assert passes(data)


def test_a_changed_byte_is_found_in_every_header(finished):
    # A header is checked by itself, so each is put into a history that is otherwise right.
    data, dice = finished.to_dict(), random.Random(1)
    for path, value in list(leaves(data["headers"], ("headers",))):
        if not LONG and path[2] == "fields" and path[1] % 5:
            continue
        for changed in list(flips(path, value, dice))[: None if LONG else 1]:
            put(data, path, changed)
            assert not passes(data), f"{path}: {value!r} became {changed!r} unseen"
            put(data, path, value)


def test_no_list_can_be_cut_doubled_or_turned_around(finished):
    data = finished.to_dict()

    def lists(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], list[Any]]]:
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(item, list):
                yield (*path, key), item
            if isinstance(item, dict | list):
                yield from lists(item, (*path, key))

    for path, value in list(lists(data)):
        if path[-1] == "fields" and path[1] != 0:
            continue
        changes = [value[1:], value[:-1], value + value[-1:], value[::-1]] if value else []
        for changed in changes:
            # A registration that stands there twice changes nothing: the last one counts.
            if changed != value and not (path == ("registrations",) and len(changed) > len(value)):
                put(data, path, changed)
                assert not passes(data), f"{path}: a list was changed unseen"
                put(data, path, value)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("task"),
        lambda d: d.update(more=1),
        lambda d: d["state"].pop("head"),
        lambda d: d.update(task=d["task"].upper()),
        lambda d: d.update(task="0x" + d["task"]),
        lambda d: d.update(chain_id=str(d["chain_id"])),
        lambda d: d.update(chain_id=True),
        lambda d: d.update(chain_id=-1),
        lambda d: d.update(version=2),
        lambda d: d.update(version=1.0),
        lambda d: d.update(blocks={}),
        lambda d: d["blocks"][0].update(leader=None),
        lambda d: d["state"].update(status="Settled"),
    ],
)
def test_the_parser_is_strict(finished, change: Callable[[dict[str, Any]], object]):
    data = copy.deepcopy(finished.to_dict())
    change(data)
    with pytest.raises(ProtocolError):
        TaskHistory.from_dict(data)


def test_a_file_must_be_canonical(finished):
    with pytest.raises(ProtocolError, match="canonical"):
        TaskHistory.unpack(json.dumps(finished.to_dict()).encode())


# ---------------------------------------------------------------------- what contracts accept and an audit does not
def doubts_of(run: Consortium) -> str:
    return "\n".join(audit_of(run).doubts)


def test_a_leader_that_was_not_elected(begin):
    run = begin()
    run.record(run.make_round(1, leader=run.ranking()[1]))
    assert "block 1.leader: hospital" in doubts_of(run)
    assert "has rank 1, but attempt 0" in doubts_of(run)


def test_a_later_leader_that_was_no_candidate(begin):
    run = begin()
    absent = run.ranking()[2]
    run.record(run.make_round(1, submitters=[i for i in run.hospitals if i != absent]))
    run.record(run.make_round(2, attempt=5, leader=absent))
    assert f"block 2.leader: {run.actors[absent].name} was no candidate" in doubts_of(run)


def test_a_draw_that_was_made_up(begin):
    """A party records the best of all draws, and leads the next block with a proof that gives another one."""
    run = begin()
    record = run.make_round(1)
    cheat, honest = record.submissions[1], record.submissions[1].value
    cheat = Signed.make(replace(honest, draw=2**64 - 1), run.actors[honest.party].keys.signing, run.where)
    submissions = [record.submissions[0], cheat, record.submissions[2]]
    block = replace(record.block, submissions=tuple(signed.value.hash for signed in submissions))
    signature = Signed.make(block, run.actors[block.leader].keys.signing, run.where).signature
    votes = run.votes(Vote(block.label, block.hash), leader=block.leader)
    run.record(replace(record, block=block, submissions=submissions, leader=signature, votes=votes))
    assert run.ranking()[0] == honest.party
    run.record(run.make_round(2))
    assert doubts_of(run) == "block 2.proof: does not give the draw that the block before recorded"


def test_a_proof_with_another_key(begin):
    run = begin(replace(SMALL, election="committee"))  # where the contract does not look
    record = run.make_round(1)
    other = next(i for i in run.hospitals if i != record.block.leader)
    _, proof = make_draw(run.actors[other].keys, run.seed, 1)
    run.record(replace(record, proof=proof, alpha=alpha(run.seed, 1)))
    assert "block 1.proof: was made with another key" in doubts_of(run)


def test_too_few_in_a_sum(begin):
    run = begin()
    run.record(run.make_round(1, submitters=run.hospitals[:1], leader=run.ranking()[0]))
    assert "1 are summed; the task allows 2 to 3" in doubts_of(run)


def test_a_rejected_party_that_is_summed(begin):
    run = begin()
    record = run.make_round(1)
    block = replace(record.block, rejected=(run.hospitals[0], run.roster.index("authority")))
    block = replace(block, rejected=tuple(sorted(block.rejected)))
    signature = Signed.make(block, run.actors[block.leader].keys.signing, run.where).signature
    votes = run.votes(Vote(block.label, block.hash), leader=block.leader)
    run.record(replace(record, block=block, leader=signature, votes=votes))
    assert "block 1.rejected: hospital-000 are summed as well" in doubts_of(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilon": 1}, "states epsilon = 1 millionths"),
        ({"sigma": 1}, "states a noise of 1 millionths"),
    ],
)
def test_an_opening_that_lies_about_privacy(begin, change, message):
    run = begin()
    run.record(run.make_round(1))
    run.openings -= 1
    run.opening = run.open(**change)
    run.record(run.make_round(2))
    assert f"opening of block 1: {message}" in doubts_of(run)


def test_a_round_that_was_opened_twice(begin):
    run = begin()
    run.record(run.make_round(1))
    run.record(run.make_round(1, attempt=1))
    run.record(run.make_round(2))
    assert doubts_of(run) == "opening of block 2: round 1 was opened before, with another block"


def test_more_openings_than_rounds(begin):
    run = begin(replace(SMALL, rounds=2)).run_rounds(4)
    assert "opening of block 3: states epsilon" in doubts_of(run)


def test_an_opener_that_the_configuration_does_not_name(begin):
    run = begin(openers=1 | 4)  # the publisher lets hospitals open, which the configuration does not say
    run.record(run.make_round(1))
    hospital = run.hospitals[0]
    value = run.opening.signed.value
    signed = Signed.make(value, run.actors[hospital].keys.signing, run.where)
    run.opening = replace(run.opening, signed=signed, party=hospital)
    run.record(run.make_round(2))
    assert "opening of block 1: hospital-000 may not open sums" in doubts_of(run)


@pytest.mark.parametrize(
    ("settle", "message"),
    [
        (lambda run: run.make_settlement(accuracy_bps=9000), "settlement.accuracy_bps: is 9000, but 81"),
        (lambda run: run.make_settlement([9000, 9000]), "2 members judged the model; the quorum is 3"),
        (
            lambda run: run.make_settlement(amounts={run.hospitals[0]: run.setting.reward}),
            "settlement.payouts of hospital-000: is 1000000000000000007, but",
        ),
    ],
)
def test_a_settlement_that_the_committee_should_not_have_signed(begin, settle, message):
    run = begin().run_rounds(1)
    run.settle(settle(run))
    assert message in doubts_of(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quorum": 2}, "publication.quorum: is 2, but 3 follows"),
        ({"vrf": False}, "publication.vrf: is False, but True follows"),
        ({"accuracy_bps": 1}, "publication.accuracy_bps: is 1, but 7000 follows"),
        ({"roster": keccak256(b"other")}, "publication.roster"),
        ({"config": b"{}"}, "publication.config: The task configuration must have exactly"),
        ({"config": b"\xff"}, "publication.config: The task configuration is not JSON"),
    ],
)
def test_a_publication_that_contradicts_itself(world, change, message):
    run = Consortium(*world, SMALL, salt=f"publication {change}")
    run.register_all()
    mine(run.chain)
    run.publish(**change)
    # sigma1 is over what the contract holds
    if "config" in change or "roster" in change:
        config = keccak256(change.get("config", run.config.encoded))
        run.genesis = Genesis(run.model, config, change.get("roster", run.roster.hash)).hash
    tokens = {name: value for name, value in change.items() if name in ("quorum", "vrf", "accuracy_bps")}
    run.send("start", run.publisher.account, run.start_call(**tokens), 2_000_000)
    assert message in doubts_of(run)


def test_stakes_that_are_not_those_of_the_terms(world):
    run = Consortium(*world, SMALL, salt="stakes")
    run.register_all()
    actor = run.actors[run.hospitals[0]]
    mine(run.chain)
    terms = {**run.config.ledger, "stakes": {**run.config.ledger["stakes"], actor.name: actor.stake + 1}}
    run.config = replace(run.config, ledger=terms)
    run.genesis = Genesis(run.model, run.config.hash, run.roster.hash).hash
    run.publish()
    run.start()
    assert f"start.participants[{run.hospitals[0]}]" in doubts_of(run)


def test_simulated_identities_on_a_real_chain(finished):
    # Signatures are void then as well; the reason comes first.
    changed = replace(finished, simulation=True, chain_id=1)
    assert "no development chain" in audit(changed).doubts[0]


def test_garbage_never_stops_an_audit(finished):
    start, block = finished.start, finished.blocks[0]
    for changed in (
        replace(finished, start=replace(start, participants=b"short")),
        replace(finished, start=replace(start, participants=b"")),
        replace(finished, start=replace(start, accounts=())),
        replace(finished, start=None),
        replace(finished, seed=None),
        replace(finished, registrations=()),
        replace(finished, headers=()),
        replace(finished, blocks=()),
        replace(finished, settlement=None),
        replace(finished, blocks=(replace(block, leader=65535, submissions=b"x", votes=b"x", proof=b"x"),)),
        replace(finished, blocks=(replace(block, round=0, attempt=2**200),)),
        replace(finished, settlement=replace(finished.settlement, evaluations=b"", payouts=b"", party=65535)),
        replace(finished, chain_id=2**300),
        replace(finished, claims=(replace(finished.claims[0], index=2**200, amount=2**255),)),
    ):
        report = audit(changed)
        assert not report.ok
        json.dumps(report.to_dict(), allow_nan=False)
        render(report)


# ---------------------------------------------------------------------- reading
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
