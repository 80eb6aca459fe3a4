"""Whole runs on the embedded chain, and what the chain alone says afterwards."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Error, Message

from flbc import Ledger, Privacy
from flbc.encoding import canonical, parse
from flbc.errors import ChainBusyError, RevertedError
from flbc.flower import wire
from flbc.ledger import accounts
from flbc.ledger.development import publisher_key
from flbc.node.identity import development_identity
from tests.flower.conftest import run, secure
from tests.flower.test_faults import AUTHORITY, mean_of, stage_of
from tests.ledger.conftest import travel
from tests.support.apps import default_train, make_app, numpy_of
from tests.support.chain_runs import audited, claim_of, history_of, hub_on, tasks, transact, wait_until
from tests.support.local_grid import LocalGrid

pytestmark = pytest.mark.usefixtures("chained")
Grids = Callable[..., LocalGrid]
ETHER = 10**18


def balance(partition: int) -> int:
    with hub_on() as hub:
        return hub.chain.balance(development_identity(partition).keys.signing.address)


# ---------------------------------------------------------------------- good runs
@pytest.mark.parametrize("private", [False, True])
def test_everything_verifies_from_the_chain_alone(grid: Grids, private: bool) -> None:
    privacy = Privacy(epsilon=8, unit="client", clip_norm=1.0, rounds=3) if private else None
    options: dict[str, Any] = {"privacy": privacy, "reveal_metrics": ("accuracy",)} if private else {}
    before = balance(0)
    strategy = secure(ledger=Ledger(accuracy=0.1, reward=2, link="https://models.example/1"), **options)
    result = run(strategy, grid(), 3)
    assert strategy.settled
    report = audited()
    assert (report.status, report.parties, report.committee, report.quorum) == ("settled", 5, 4, 3)
    assert [(row.height, row.round, row.rank, row.votes) for row in report.rounds] == [
        (1, 1, 0, 4), (2, 2, 0, 4), (3, 3, 0, 4),
    ]  # fmt: skip
    assert (report.accuracy_bps, report.link) == (1500, "https://models.example/1")
    assert report.paid == report.reward == 2 * ETHER
    assert {(row.blocks, row.amount, row.claimed) for row in report.payouts} == {(3, ETHER // 2, True)}
    # What a claim costs stays below a hundredth of it on a development chain.
    assert 0 < before + ETHER // 2 - balance(0) < ETHER // 100
    history = history_of()
    assert history.settlement is not None
    assert history.settlement.model == wire.arrays_hash(result.arrays)
    assert "software, not hardware" in " ".join(report.notes)
    if private:
        spent = [result.train_metrics_clientapp[n]["flbc-epsilon"] for n in (1, 2, 3)]
        assert [row.epsilon for row in report.rounds] == pytest.approx(spent, abs=2e-6)
        assert report.epsilon_budget == 8
    else:
        assert all(row.epsilon == np.inf for row in report.rounds), "opened without noise"
        np.testing.assert_allclose(
            numpy_of(result.arrays)["weight"], numpy_of(run(secure(), grid(), 3).arrays)["weight"], atol=1e-3
        )


def test_a_proof_that_only_the_committee_saw(grid: Grids) -> None:
    strategy = secure(ledger=Ledger(election="committee"))
    run(strategy, grid(), 2)
    assert strategy.settled
    report = audited()
    assert (report.election, [row.rank for row in report.rounds]) == ("committee", [0, 0])


def test_paid_by_declared_examples(grid: Grids) -> None:
    """Other numbers of examples than last time: the parties register again by themselves."""
    app = make_app(examples=lambda context: 10 * (int(context.node_config["partition-id"]) + 1))
    strategy = secure(ledger=Ledger(payout="examples"))
    run(strategy, grid(app), 2)
    assert strategy.settled
    assert {row.name: row.amount for row in audited().payouts} == {
        "node-0": ETHER // 10, "node-1": ETHER // 5, "node-2": 3 * ETHER // 10, "node-3": 2 * ETHER // 5,
    }  # fmt: skip


def test_who_sent_nothing_in_a_round_is_paid_for_the_others(grid: Grids) -> None:
    def train(message: Message, context: Context) -> Message:
        if message.content["config"]["server-round"] == 2 and context.node_config["partition-id"] == 1:
            raise RuntimeError("out of memory")
        return default_train(message, context)

    run(secure(ledger=Ledger(reward=7)), grid(make_app(train)), 2)
    assert {row.name: row.amount for row in audited().payouts} == {
        "node-0": 2 * ETHER, "node-1": ETHER, "node-2": 2 * ETHER, "node-3": 2 * ETHER,
    }  # fmt: skip


def test_one_task_after_another_on_the_same_contracts(grid: Grids) -> None:
    strategy = secure(ledger=Ledger())
    run(strategy, grid())
    run(strategy, grid(), 2)  # the same strategy object, too
    with hub_on() as hub:
        found = tasks(hub)
    assert len(found) == len(set(found)) == 3
    assert [len(audited(task).rounds) for task in found] == [1, 1, 2]


def test_two_tasks_at_once(grid: Grids, relayer: Callable[[float], str]) -> None:
    """The second begins and ends between two rounds of the first: same parties, same contracts, another relayer."""
    outer, inner = secure(ledger=Ledger()), secure(ledger=Ledger(key=relayer(10), reward=3))
    original, done = outer.on_evaluation, []

    def between(server_round: int, metrics: Any) -> None:
        original(server_round, metrics)
        if not done:
            done.append(run(inner, grid(), 2))

    outer.on_evaluation = between  # type: ignore[method-assign]
    run(outer, grid(), 3)
    assert outer.settled
    assert inner.settled
    with hub_on() as hub:
        first, second = tasks(hub)[-2:]
    reports = audited(first), audited(second)
    assert [len(report.rounds) for report in reports] == [3, 2]
    heights = [[row.chain_block for row in report.rounds] for report in reports]
    assert heights[0][0] < heights[1][0] < heights[1][-1] < heights[0][1], "they really overlapped"
    assert [report.paid for report in reports] == [ETHER, 3 * ETHER]


def test_a_second_run_with_the_same_relayer_is_refused_and_the_first_goes_on(grid: Grids) -> None:
    outer, seen = secure(ledger=Ledger()), []
    original = outer.on_evaluation

    def between(server_round: int, metrics: Any) -> None:
        original(server_round, metrics)
        with pytest.raises(ChainBusyError, match="send from another account"):
            run(secure(ledger=Ledger()), grid())
        seen.append(server_round)

    outer.on_evaluation = between  # type: ignore[method-assign]
    run(outer, grid(), 2)
    assert outer.settled
    assert seen == [1, 2]
    audited()


def test_final_records_are_on_the_chain_before_the_next_round(grid: Grids) -> None:
    heights: list[tuple[int, int]] = []

    def train(message: Message, context: Context) -> Message:
        with hub_on() as hub:
            heights.append((message.content["config"]["server-round"], hub.task(tasks(hub)[-1]).height))
        return default_train(message, context)

    strategy = secure(ledger=Ledger(require_final=True))
    run(strategy, grid(make_app(train)), 3)
    assert strategy.settled
    assert set(heights) == {(1, 0), (2, 1), (3, 2)}
    audited()


# ---------------------------------------------------------------------- not paid
def test_below_the_bar_the_escrow_goes_back_after_the_deadline(grid: Grids, caplog: Any) -> None:
    strategy = secure(ledger=Ledger(accuracy=0.5, deadline=3600))
    run(strategy, grid(), 2)
    assert not strategy.settled
    assert "The final model reaches 15.00 %, the task wants 50.00 %" in caplog.text
    report = audited()
    assert (report.status, len(report.rounds), report.paid) == ("started", 2, 0), "all rounds are recorded"
    anybody, publisher = accounts.development_key(3), publisher_key().address
    with hub_on() as hub:
        task = tasks(hub)[-1]
        with pytest.raises(RevertedError, match="DeadlineNotPassed"):
            transact(hub, anybody, "too early", hub.refund(task))
        travel(hub.chain, 3600)
        before = hub.chain.balance(publisher)
        transact(hub, anybody, "refund", hub.refund(task))
        assert hub.chain.balance(publisher) == before + ETHER
        with pytest.raises(RevertedError, match="WrongStatus"):
            transact(hub, anybody, "again", hub.refund(task))
    report = audited()
    assert (report.status, report.refunded, report.paid) == ("refunded", ETHER, 0)


def test_payouts_that_were_not_fetched_stay_for_their_owners(
    grid: Grids, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task is settled whatever becomes of the claims; nobody claims twice or for another, nothing goes back."""

    def claim_all(*_: Any) -> int:
        raise ChainBusyError("The account is in use")

    monkeypatch.setattr("flbc.ledger.development.claim_all", claim_all)
    strategy = secure(ledger=Ledger(deadline=3600))
    run(strategy, grid())
    assert strategy.settled
    assert "`flbc task claim` does it later: The account is in use" in caplog.text
    settlement = history_of().settlement
    thief, hospitals = accounts.development_key(3), [development_identity(i).keys.signing for i in range(4)]
    with hub_on() as hub:
        task = tasks(hub)[-1]
        travel(hub.chain, 7200)
        transact(hub, hospitals[2], "claim", claim_of(hub, task, settlement, 2))
        for name, key, party, error in (("thief", thief, 1, "BadClaim"), ("twice", hospitals[2], 2, "AlreadyClaimed")):
            with pytest.raises(RevertedError, match=error):
                transact(hub, key, name, claim_of(hub, task, settlement, party))
        with pytest.raises(RevertedError, match="WrongStatus"):
            transact(hub, thief, "refund", hub.refund(task))
        assert audited().paid == ETHER // 4
        for party in (0, 1, 3):
            transact(hub, hospitals[party], "claim", claim_of(hub, task, settlement, party))
    assert audited().paid == ETHER


@pytest.mark.parametrize("final", [False, True])
def test_the_deadline_passes_in_mid_run(grid: Grids, caplog: Any, final: bool) -> None:
    """The contract records nothing any more, and the log says so. Who waits for records does not open the sums."""

    def train(message: Message, context: Context) -> Message:
        number = message.content["config"]["server-round"]
        if number == 2 and context.node_config["partition-id"] == 0:
            with hub_on() as hub:
                wait_until(lambda: hub.task(tasks(hub)[-1]).height == 1)
                travel(hub.chain, 1000)
        if number == 3 and not final:
            wait_until(lambda: "is not recorded" in caplog.text)
        return default_train(message, context)

    strategy = secure(ledger=Ledger(deadline=1000, require_final=final))
    result = run(strategy, grid(make_app(train)), 3)
    metrics = result.train_metrics_clientapp
    assert [metrics[n]["flbc-survivors"] for n in (1, 2, 3)] == [4, 0 if final else 4, 0]
    assert not strategy.settled
    told = "is abandoned, the model is kept" if final else "is not recorded, nor are those after it"
    assert re.search(f"round 2 {told}: .*DeadlinePassed", caplog.text)
    assert re.search(r"round 3 is abandoned, the model is kept: .*DeadlinePassed", caplog.text)
    assert len(audited().rounds) == 1
    with hub_on() as hub:
        task = tasks(hub)[-1]
        transact(hub, accounts.development_key(3), "refund", hub.refund(task))
    assert audited().refunded == ETHER


# ---------------------------------------------------------------------- rounds that are lost
def strip_votes(in_round: int) -> Callable[[Message], Message]:
    """Ask the authority, in one round, with fewer votes than the quorum."""

    def strip(message: Message) -> Message:
        if stage_of(message) == wire.OPEN and message.metadata.group_id == str(in_round):
            header = parse(message.content["flbc"]["request"], "request")
            header["endorsement"]["votes"] = header["endorsement"]["votes"][:1]
            message.content["flbc"]["request"] = canonical(header)
        return message

    return strip


def test_the_authority_refuses_in_the_middle_and_the_next_block_chains_on(grid: Grids, caplog: Any) -> None:
    strategy = secure(ledger=Ledger())
    result = run(strategy, grid(request=strip_votes(2)), 3)
    assert "round 2 is abandoned" in caplog.text
    assert result.train_metrics_clientapp[2]["flbc-survivors"] == 0
    assert strategy.settled
    report = audited()
    assert [(row.round, row.epsilon) for row in report.rounds] == [(1, np.inf), (2, None), (3, np.inf)]
    assert {row.blocks for row in report.payouts} == {3}, "work is paid, opened or not"
    assert not [note for note in report.notes if "without a record" in note]


def test_an_opening_that_got_lost_counts_in_epsilon(grid: Grids, caplog: Any) -> None:
    privacy = Privacy(epsilon=8, unit="client", clip_norm=1.0, rounds=3)
    lost = 0

    def lose(message: Message) -> Message | None:
        nonlocal lost
        if stage_of(message) == wire.OPEN and message.metadata.group_id == "2":
            lost += 1
            return None
        return message

    strategy = secure(ledger=Ledger(), privacy=privacy, stage_timeout=0.3)
    result = run(strategy, grid(reply=lose), 3)
    assert lost == 2
    assert "round 2 is abandoned" in caplog.text
    assert strategy.settled
    report = audited()
    assert [row.epsilon is None for row in report.rounds] == [False, True, False]
    assert report.epsilon == pytest.approx(result.train_metrics_clientapp[3]["flbc-epsilon"], abs=2e-6)
    assert any("without a record" in note for note in report.notes)


def test_a_round_without_enough_updates_leaves_no_block(grid: Grids) -> None:
    def train(message: Message, context: Context) -> Message:
        if message.content["config"]["server-round"] == 2 and int(context.node_config["partition-id"]) < 2:
            raise RuntimeError("crash")
        return default_train(message, context)

    strategy = secure(ledger=Ledger())
    run(strategy, grid(make_app(train)), 3)
    assert strategy.settled
    assert [(row.height, row.round) for row in audited().rounds] == [(1, 1), (2, 3)]


def test_a_silent_authority_in_the_last_round(grid: Grids) -> None:
    """The last block has no opening; the model of the round before is what is settled."""

    def silent(message: Message) -> Message | None:
        return None if stage_of(message) == wire.OPEN and message.metadata.group_id == "2" else message

    strategy = secure(ledger=Ledger(), stage_timeout=0.3)
    result = run(strategy, grid(reply=silent), 2)
    np.testing.assert_allclose(numpy_of(result.arrays)["weight"], mean_of([0, 1, 2, 3]), atol=1e-3)
    assert strategy.settled
    history = history_of()
    assert history.settlement is not None
    assert history.settlement.opening == b""
    assert history.settlement.model == wire.arrays_hash(result.arrays)
    audited()


def test_no_round_at_all(grid: Grids, caplog: Any) -> None:
    refuse = Error(wire.REFUSED, "PolicyError: not today")
    g = grid(reply=lambda m: Message(refuse, reply_to=m) if stage_of(m) == wire.ATTEST else m)
    strategy = secure(ledger=Ledger())
    run(strategy, g)
    assert not strategy.settled
    assert "no round was recorded" in caplog.text
    assert audited().status == "started"
    assert AUTHORITY not in {m.metadata.dst_node_id for m in g.sent if stage_of(m) == wire.OPEN}
