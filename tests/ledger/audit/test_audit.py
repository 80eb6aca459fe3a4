"""The audit of honest runs: everything verifies, at every stage."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace

import pytest
from rich.console import Console

from flbc.commands.audit_table import report_of
from flbc.ledger.audit import audit
from flbc.ledger.records import TaskHistory
from tests.ledger.audit.conftest import SMALL, audit_of, history_of
from tests.support.ledger import Consortium, mine, pass_time


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
    console.print(*report_of(report))
    text = console.export_text()
    for expected in ("software, not hardware", "1.000000000000000007", "hospital-001", "everything verifies"):
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


def test_noise_of_every_client_for_itself_is_none_of_the_opener_s(begin):
    """It signs that it added none, and the audit expects that."""
    run = begin(replace(SMALL, where="local")).run_rounds(2)
    assert run.mechanism.sigma > 0
    assert audit_of(run).doubts == ()
    run = begin(replace(SMALL, where="local"))
    run.record(run.make_round(1))
    run.openings -= 1
    run.opening = run.open(sigma=round(run.mechanism.sigma * 10**6))
    run.record(run.make_round(2))
    assert "the task's is 0" in "".join(audit_of(run).doubts)


def test_epsilon_under_sampling_may_differ_in_its_last_digits(begin):
    """It comes from a Fourier transform, and the auditor's platform is another one."""
    pytest.importorskip("opacus")
    for off, accepted in ((0, True), (2, True), (-2, True), (5, False)):
        run = begin(replace(SMALL, sampling_rate=0.1))
        run.record(run.make_round(1))
        run.openings -= 1
        run.opening = run.open(epsilon=math.ceil(run.mechanism.epsilon_after(1) * 10**6) + off)
        run.record(run.make_round(2))
        assert (audit_of(run).doubts == ()) is accepted


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
        Console(file=io.StringIO()).print(*report_of(report))
