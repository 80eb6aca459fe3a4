"""The ledger in trouble: what is refused before the first round, and runs while the chain's node is away."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message

from flbc import Ledger
from flbc.encoding import canonical, parse
from flbc.errors import ChainResetError, ChainUnavailableError, FlbcError, LedgerError
from flbc.flower import wire
from flbc.ledger import accounts, deployment
from flbc.ledger.chain import connect
from flbc.ledger.outbox import Outbox
from flbc.node.identity import development_identity
from tests.flower.conftest import run, secure
from tests.flower.test_faults import stage_of
from tests.ledger.conftest import travel
from tests.support.apps import default_train, make_app
from tests.support.chain_runs import (
    Line,
    audited,
    claim_of,
    history_of,
    hub_on,
    sync,
    tasks,
    transact,
    wait_until,
)
from tests.support.local_grid import LocalGrid

Grids = Callable[..., LocalGrid]
ETHER = 10**18


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Line:
    return Line().install(monkeypatch)


def count_tasks() -> int:
    with hub_on() as hub:
        return len(tasks(hub))


def outbox_in(strategy: Any) -> Outbox:
    """Return the open outbox of a run."""
    outbox: Outbox = strategy._session.chain.book._outbox
    return outbox


def on_round(number: int, act: Callable[[], None]) -> Any:
    """Return an app that does something once, when the first client trains in a round."""
    done: list[int] = []

    def train(message: Message, context: Context) -> Message:
        if message.content["config"]["server-round"] == number and not done:
            done.append(number)
            act()
        return default_train(message, context)

    return make_app(train)


# ---------------------------------------------------------------------- before the first round
def refused(grid: LocalGrid, ledger: Ledger, error: type[FlbcError], words: str, rounds: int = 3) -> None:
    """Run, and expect an error before anything is trained or paid."""
    before = count_tasks()
    with pytest.raises(error, match=words):
        run(secure(ledger=ledger), grid, rounds)
    assert not [m for m in grid.sent if stage_of(m) == wire.TRAIN]
    assert count_tasks() == before


@pytest.mark.usefixtures("chained")
class TestRefused:
    def test_relayer_without_ether(self, grid: Grids, relayer: Callable[[float], str]) -> None:
        words = r"0x\w{40} has 0.000000 ether on embedded chain .*: send it 1.\d+ ether and start again"
        refused(grid(), Ledger(key=relayer(0)), LedgerError, words)

    def test_relayer_without_ether_for_all_rounds(self, grid: Grids, relayer: Callable[[float], str]) -> None:
        words = r"but 20002 transactions may cost .* send it"
        refused(grid(), Ledger(key=relayer(3)), LedgerError, words, rounds=20_000)

    def test_contracts_of_another_chain(self, grid: Grids, tmp_path: Path) -> None:
        with connect(f"embedded:{tmp_path}/other.sqlite") as chain:
            with Outbox(chain, accounts.development_key(), tmp_path / "outbox.sqlite") as outbox:
                made = deployment.deploy(chain, outbox, authority=outbox.account, simulation=True)
            file = made.save(tmp_path / "other.json")
        words = "is on chain 131277322940537 with block 0 = .*but embedded chain .* serves .*flbc deploy"
        refused(grid(), Ledger(deployment=file), ChainResetError, words)

    def test_suspended_party(self, grid: Grids) -> None:
        account = development_identity(2).keys.signing.address
        with hub_on() as hub:
            transact(hub, accounts.development_key(), "suspend", hub.registry.suspend(account))
        refused(grid(), Ledger(), LedgerError, "'node-2' is suspended .* `flbc suspend ACCOUNT --lift`")
        with hub_on() as hub:
            transact(hub, accounts.development_key(), "lift", hub.registry.suspend(account, False))
        strategy = secure(ledger=Ledger())
        run(strategy, grid())
        assert strategy.settled

    def test_quorum_larger_than_the_committee(self, grid: Grids) -> None:
        refused(grid(), Ledger(quorum=5), FlbcError, "A quorum of 5 does not fit 4 committee members")

    def test_no_node(self, grid: Grids, line: Line) -> None:
        g = grid()
        line.down()
        with pytest.raises(ChainUnavailableError, match="start it with `flbc chain up`"):
            run(secure(ledger=Ledger()), g)
        assert not g.sent


def test_an_embedded_chain_that_was_deleted_is_made_anew(grid: Grids, chained: Path) -> None:
    for path in (chained / "chains").iterdir():
        path.unlink()
    strategy = secure(ledger=Ledger())
    run(strategy, grid())
    assert strategy.settled
    assert count_tasks() == 1
    audited()


@pytest.mark.usefixtures("chained")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"chain_id": 1}, "Development identities work on development chains only, not on chain 1"),
        ({"chain_id": 0}, "Ledger terms, a chain in the label, and a beacon must come together"),
        ({"hub": "00" * 20}, "Ledger terms, a chain in the label, and a beacon must come together"),
    ],
)
def test_nodes_refuse_another_chain_in_the_label(grid: Grids, caplog: Any, change: dict[str, Any], words: str) -> None:
    def lie(message: Message) -> Message:
        if stage_of(message) == wire.TRAIN:
            label = parse(message.content["flbc"]["label"], "label")
            label.update(change)
            message.content["flbc"]["label"] = canonical(label)
        return message

    strategy = secure(ledger=Ledger())
    run(strategy, grid(request=lie))
    assert words in caplog.text
    assert not strategy.settled
    assert audited().rounds == ()


def suspend(strategy: Any, party: int, seen: Callable[[], bool]) -> None:
    """Suspend a party in a run; the embedded chain's authority is the relayer, so the run's own outbox sends it."""
    outbox = outbox_in(strategy)
    with hub_on() as hub:
        call = hub.registry.suspend(development_identity(party).keys.signing.address)
        outbox.submit(f"suspend {party}", call, 200_000)
    outbox.wait(f"suspend {party}")
    wait_until(seen)


@pytest.mark.usefixtures("chained")
def test_a_party_that_is_suspended_in_mid_run_is_left_out(grid: Grids, caplog: Any) -> None:
    strategy = secure(ledger=Ledger())
    original = strategy.on_evaluation

    def after_round(number: int, metrics: Any) -> None:
        original(number, metrics)
        if number == 1:
            suspend(strategy, 2, lambda: "left out of the rounds: node-2" in caplog.text)

    strategy.on_evaluation = after_round  # type: ignore[method-assign]
    run(strategy, grid(), 3)
    assert strategy.settled
    report = audited()
    assert [row.submissions for row in report.rounds] == [4, 3, 3]
    assert {row.name: row.blocks for row in report.payouts} == {"node-0": 3, "node-1": 3, "node-2": 1, "node-3": 3}


@pytest.mark.usefixtures("chained")
def test_a_block_that_a_suspended_party_signed_is_refused(grid: Grids, caplog: Any) -> None:
    """It was suspended after it had signed: the log says so, nothing more is opened, and the escrow goes back."""
    strategy = secure(ledger=Ledger(deadline=1000))
    done: list[int] = []

    def signed(message: Message) -> Message:
        if stage_of(message) == wire.ATTEST and message.metadata.group_id == "2" and not done:
            done.append(2)
            suspend(strategy, 2, lambda: True)
        return message

    def wait(message: Message, context: Context) -> Message:
        if message.content["config"]["server-round"] == 3:
            wait_until(lambda: "is not recorded" in caplog.text)
        return default_train(message, context)

    g = grid(make_app(wait), reply=signed)
    run(strategy, g, 3)
    assert not strategy.settled
    words = "the block of round 2 is not recorded, nor are those after it: The contract refused: Suspended(party = 2)"
    assert words in caplog.text
    assert "round 3 is abandoned, the model is kept: Nothing more is opened in this run" in caplog.text
    assert {m.metadata.group_id for m in g.sent if stage_of(m) == wire.OPEN} == {"1", "2"}
    assert [row.round for row in audited().rounds] == [1]
    with hub_on() as hub:
        travel(hub.chain, 1000)
        transact(hub, accounts.development_key(3), "refund", hub.refund(tasks(hub)[-1]))
    assert audited().refunded == ETHER


# ---------------------------------------------------------------------- the node is away
@pytest.mark.usefixtures("chained")
class TestAway:
    def test_records_queue_and_land_in_order(self, grid: Grids, line: Line, caplog: Any) -> None:
        strategy = secure(ledger=Ledger(accuracy=0.1))
        original = strategy.on_evaluation

        def back(server_round: int, metrics: Any) -> None:
            original(server_round, metrics)
            if server_round == 4:
                assert len(outbox_in(strategy).pending()) >= 3
                assert line.waited == [], "no round asks the chain for anything: a node that hangs delays none"
                line.up()

        def down() -> None:
            line.down()
            line.waited.clear()

        strategy.on_evaluation = back  # type: ignore[method-assign]
        result = run(strategy, grid(on_round(2, down)), 5)
        assert [result.train_metrics_clientapp[n]["flbc-survivors"] for n in range(1, 6)] == [4] * 5
        assert strategy.settled
        assert [(row.height, row.round, row.attempt) for row in audited().rounds] == [
            (1, 1, 1), (2, 2, 0), (3, 3, 0), (4, 4, 0), (5, 5, 0),
        ]  # fmt: skip
        assert "records are queued in order: The node http://test does not answer" in caplog.text

    @pytest.mark.parametrize("method", ["eth_sendRawTransaction", "eth_getTransactionReceipt"])
    def test_lost_answers_make_no_second_record(self, grid: Grids, line: Line, method: str) -> None:
        def lose() -> None:
            left = [2]

            def once_or_twice(asked: str) -> bool:
                if asked == method and left[0]:
                    left[0] -= 1
                    return True
                return False

            line.lose = once_or_twice

        strategy = secure(ledger=Ledger())
        run(strategy, grid(on_round(2, lose)), 3)
        assert strategy.settled
        assert [row.height for row in audited().rounds] == [1, 2, 3]

    def test_final_records_wait_for_the_node(self, grid: Grids, line: Line) -> None:
        trained: list[bool] = []

        def away() -> None:
            line.down()
            threading.Timer(1.5, line.up).start()

        def train(message: Message, context: Context) -> Message:
            number = message.content["config"]["server-round"]
            if number == 2 and not line.is_down:
                away()
            if number == 3:
                trained.append(line.is_down)
            return default_train(message, context)

        strategy = secure(ledger=Ledger(require_final=True))
        run(strategy, grid(make_app(train)), 3)
        assert trained == [False] * 4, "round 3 began when round 2 was recorded"
        assert strategy.settled
        audited()

    def test_to_the_end_then_sync_settles(self, grid: Grids, line: Line, caplog: Any) -> None:
        strategy = secure(ledger=Ledger(settle_wait=0.5))
        run(strategy, grid(on_round(2, line.down)), 2)
        assert not strategy.settled
        assert "It stays queued: `flbc task sync" in caplog.text
        line.up()
        assert audited().status == "started"
        assert sync() == 0
        assert (audited().status, audited().paid) == ("settled", 0)
        settlement = history_of().settlement
        with hub_on() as hub:
            task = tasks(hub)[-1]
            transact(hub, development_identity(0).keys.signing, "claim", claim_of(hub, task, settlement, 0))
        assert audited().paid == ETHER // 4

    def test_past_the_deadline_what_is_queued_is_refused_and_the_escrow_goes_back(
        self, grid: Grids, line: Line
    ) -> None:
        def down() -> None:
            wait_until(lambda: not outbox_in(dead).pending())  # round 1 is on the chain
            line.down()

        dead = secure(ledger=Ledger(settle_wait=0.5, deadline=1000))
        run(dead, grid(on_round(2, down)), 2)
        line.up()
        with hub_on() as hub:
            travel(hub.chain, 1000)
        assert sync() == 2, "a block and the settlement"
        with hub_on() as hub:
            transact(hub, accounts.development_key(3), "refund", hub.refund(tasks(hub)[-1]))
        report = audited()
        assert (report.status, report.refunded, len(report.rounds)) == ("refunded", ETHER, 1)
        strategy = secure(ledger=Ledger())
        run(strategy, grid(), 1)
        assert strategy.settled, "what failed before does not stop the next run"
