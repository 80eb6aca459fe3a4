"""The server's process is killed with -9, everywhere between a run and the chain; others go on from what is on disk.

Whatever the point: the outbox sends the rest, nothing is recorded twice, the audit has no doubt, and the escrow goes
either to the participants or back, never both.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flbc import Ledger
from flbc.errors import RevertedError
from flbc.ledger import accounts
from flbc.ledger.development import publisher_key
from flbc.ledger.hub import Hub
from flbc.node.identity import development_identity
from tests.flower.conftest import run, secure
from tests.ledger.conftest import travel
from tests.support.chain_runs import audited, claim_of, history_of, hub_on, sync, tasks, transact
from tests.support.dying import DEADLINE, runner
from tests.support.local_grid import LocalGrid

ETHER = 10**18
ANYBODY = accounts.development_key(3)
Run = Callable[[str, Path], int]


@pytest.fixture(scope="module")
def until() -> Iterator[Run]:
    with runner() as begin:
        yield begin


def killed(until: Run, point: str, home: Path) -> None:
    log = Path(f"{home}.log")
    assert until(point, home) == -signal.SIGKILL, log.read_text() if log.exists() else "no log"


def pay_back(hub: Hub, task: bytes) -> None:
    """The escrow goes back after the deadline and not before; once."""
    with pytest.raises(RevertedError, match="DeadlineNotPassed"):
        transact(hub, ANYBODY, "early", hub.refund(task))
    travel(hub.chain, DEADLINE)
    before = hub.chain.balance(publisher_key().address)
    transact(hub, ANYBODY, "refund", hub.refund(task))
    assert hub.chain.balance(publisher_key().address) == before + ETHER
    with pytest.raises(RevertedError, match="WrongStatus"):
        transact(hub, ANYBODY, "twice", hub.refund(task))


def pay_out(hub: Hub, task: bytes) -> None:
    """Who has not fetched its payout can do so, even after the deadline; nothing goes back."""
    travel(hub.chain, DEADLINE)
    with pytest.raises(RevertedError, match="WrongStatus"):
        transact(hub, ANYBODY, "refund", hub.refund(task))
    settlement = history_of(task).settlement
    for party in range(4):
        key, call = development_identity(party).keys.signing, claim_of(hub, task, settlement, party)
        if hub.claimed(task, party):
            with pytest.raises(RevertedError, match="AlreadyClaimed"):
                transact(hub, key, "again", call)
        else:
            transact(hub, key, "late claim", call)


@pytest.mark.parametrize(
    ("point", "status", "blocks", "claims"),
    [
        ("published", "published", 0, 0),
        ("started", "started", 0, 0),
        ("before the row", "started", 1, 0),
        ("row", "started", 2, 0),
        ("signed", "started", 2, 0),
        ("sent", "started", 2, 0),
        ("receipt", "started", 2, 0),
        ("unopened", "started", 2, 0),
        ("opened", "started", 2, 0),
        ("before settling", "started", 2, 0),
        ("settlement row", "settled", 2, 0),
        ("settled", "settled", 2, 0),
        ("claiming", "settled", 2, 1),
    ],
)
def test_killed_once(until: Run, chained: Path, point: str, status: str, blocks: int, claims: int) -> None:
    killed(until, point, chained)
    assert sync() == 0
    assert sync() == 0, "nothing is left, so nothing is sent again"
    with hub_on() as hub:
        task = tasks(hub)[-1]
        report = audited(task)
        assert (report.status, report.paid) == (status, claims * ETHER // 4)
        assert [(row.height, row.round) for row in report.rounds] == [(n, n) for n in range(1, blocks + 1)]
        # An opening travels with the next record: that of the last block is lost with the process.
        assert [row.epsilon is None for row in report.rounds] == [
            status != "settled" and n == blocks for n in range(1, blocks + 1)
        ]
        (pay_out if status == "settled" else pay_back)(hub, task)
    report = audited(task)
    assert (report.paid, report.refunded) == ((ETHER, 0) if status == "settled" else (0, ETHER))


def test_killed_again_and_again_until_a_run_completes(until: Run, chained: Path) -> None:
    """Nobody syncs in between: the next run sends what the dead ones left."""
    for point in ("row", "publish row", "signed", "settlement row"):
        killed(until, point, chained)
    assert until("nowhere", chained) == 0
    with hub_on() as hub:
        found = tasks(hub)[1:]  # the first was there before
    reports = [audited(task) for task in found]
    assert [(report.status, len(report.rounds)) for report in reports] == [
        ("started", 2), ("published", 0), ("started", 2), ("settled", 2), ("settled", 2),
    ]  # fmt: skip
    assert [report.paid for report in reports] == [0, 0, 0, 0, ETHER]


def test_killed_while_parties_register(until: Run, home: Path, ready_key: Any) -> None:
    """On a chain without anything: nobody stakes twice."""
    ready_key(5)
    killed(until, "register row", home)
    assert until("nowhere", home) == 0
    with hub_on() as hub:
        stakes = {hub.registry.member(development_identity(i).keys.signing.address).stake for i in range(5)}
    assert stakes == {ETHER}
    assert audited().paid == ETHER


def test_a_settlement_that_is_sent_too_late_is_refused_and_the_escrow_goes_back(until: Run, chained: Path) -> None:
    killed(until, "settlement row", chained)
    with hub_on() as hub:
        travel(hub.chain, DEADLINE)
        task = tasks(hub)[-1]
        assert sync() == 1
        transact(hub, ANYBODY, "refund", hub.refund(task))
    report = audited(task)
    assert (report.status, report.paid, report.refunded) == ("refunded", 0, ETHER)


def test_the_audit_of_a_dead_run_needs_no_sync(until: Run, chained: Path, grid: Callable[..., LocalGrid]) -> None:
    """What is on the chain is whole at any time; the next run in another process of the same user goes on."""
    killed(until, "signed", chained)
    assert [row.round for row in audited().rounds] == [1]
    strategy = secure(ledger=Ledger())
    run(strategy, grid())
    assert strategy.settled
    with hub_on() as hub:
        dead, alive = tasks(hub)[-2:]
    assert [row.round for row in audited(dead).rounds] == [1, 2]
    assert audited(alive).paid == ETHER
