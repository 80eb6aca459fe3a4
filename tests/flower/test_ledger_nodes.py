"""Whole runs on nodes of their own, Anvil and Ganache: the same as on the embedded chain, and chains that go away."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flbc import Ledger, Privacy
from flbc.errors import ChainResetError, ChainUnavailableError, LedgerError
from flbc.ledger import deployment, nodes
from flbc.ledger.chain import connect
from flbc.ledger.nodes import Node
from tests.flower.conftest import run, secure
from tests.flower.test_nddfe import nddfe
from tests.ledger.conftest import start_or_skip
from tests.support.apps import make_app
from tests.support.chain_runs import audited, hub_on, outbox_of, tasks
from tests.support.local_grid import LocalGrid

Grids = Callable[..., LocalGrid]
ETHER = 10**18


def deploy(url: str) -> None:
    """Do what `flbc deploy --rpc URL` does."""
    with connect(url) as chain, outbox_of(chain) as outbox:
        deployment.deploy(chain, outbox, authority=outbox.account, simulation=True).save()


@pytest.mark.parametrize("kind", ["anvil", "ganache"])
def test_a_run_then_the_chain_goes_away_and_another_comes(grid: Grids, tmp_path: Path, kind: str) -> None:
    node = start_or_skip(kind, tmp_path / "node.log")
    try:
        words = f"There is no deployment on chain {nodes.CHAIN_IDS[kind]} .* run `flbc deploy --rpc {node.url}"
        with pytest.raises(LedgerError, match=words):
            run(secure(ledger=Ledger(url=node.url)), grid())
        deploy(node.url)
        privacy = Privacy(epsilon=8, unit="client", clip_norm=1.0, rounds=2)
        ledger = Ledger(url=node.url, accuracy=0.1)
        strategy = secure(ledger=ledger, privacy=privacy, reveal_metrics=("accuracy",))
        run(strategy, grid(), 2)
        assert strategy.settled
        report = audited(url=node.url)
        assert (report.chain_id, report.paid, len(report.rounds)) == (nodes.CHAIN_IDS[kind], ETHER, 2)
        assert report.epsilon == pytest.approx(8, abs=1e-3)
        node.kill()
        with pytest.raises(ChainUnavailableError, match="start it with `flbc chain up`"):
            run(secure(ledger=ledger), grid())
        node = nodes.start(kind, node.port, log=tmp_path / "node.log")
        with pytest.raises(
            ChainResetError, match=f"the chain was reset.* deploy anew with `flbc deploy --rpc {node.url}"
        ):
            run(secure(ledger=ledger), grid())
        deploy(node.url)
        strategy = secure(ledger=ledger)
        run(strategy, grid())
        assert strategy.settled, "the cure works"
        audited(url=node.url)
    finally:
        node.kill()


def test_two_tasks_in_parallel_on_one_hub(tmp_path: Path, relayer: Callable[..., str]) -> None:
    """Two relayers, the same hospitals and generator: ESB-FL wants many tasks at a time (section 5.2.1)."""
    with start_or_skip("anvil", tmp_path / "node.log") as node:
        deploy(node.url)
        key = relayer(100, node.url)
        run(nddfe(ledger=Ledger(url=node.url)), LocalGrid(make_app(), 5))  # registers everybody
        runs = (
            (nddfe(ledger=Ledger(url=node.url, accuracy=0.1)), LocalGrid(make_app(), 5)),
            (nddfe(mode="group", ledger=Ledger(url=node.url, accuracy=0.9, key=key)), LocalGrid(make_app(), 5)),
        )
        together = threading.Barrier(2)

        def go(pair: tuple[Any, LocalGrid]) -> bool:
            together.wait(timeout=20)
            run(*pair, 3)
            return bool(pair[0].settled)

        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(go, runs)) == [True, False]  # the second missed its accuracy: nobody is paid
        with hub_on(node.url) as hub:
            found = tasks(hub)
            payouts = [audited(task, node.url).paid for task in found]
        assert sorted(payouts) == [0, ETHER, ETHER]


def test_records_that_need_confirmations(grid: Grids, tmp_path: Path) -> None:
    """Blocks come every second, as on a real chain; each record waits for one more on top."""
    with start_or_skip("anvil", tmp_path / "node.log", options=["--block-time", "1"]) as node:
        deploy(node.url)
        strategy = secure(ledger=Ledger(url=node.url, require_final=True, confirmations=1))
        run(strategy, grid(), 2)
        assert strategy.settled
        numbers = [row.chain_block for row in audited(url=node.url).rounds]
        assert numbers[1] - numbers[0] >= 2


def test_a_node_that_is_set_back_in_mid_run(grid: Grids, tmp_path: Path, caplog: Any) -> None:
    """A reorganisation of two blocks: what was final is sent again, in order."""
    done: list[Any] = []

    def back(node: Node) -> None:
        with connect(node.url) as chain:
            answer = chain.w3.provider.make_request("anvil_reorg", [2, []])  # type: ignore[arg-type]
        assert "error" not in answer
        done.append(answer)

    with start_or_skip("anvil", tmp_path / "node.log") as node:
        deploy(node.url)
        strategy = secure(ledger=Ledger(url=node.url, require_final=True))
        original = strategy.on_evaluation

        def after_round(number: int, metrics: Any) -> None:
            original(number, metrics)
            if number == 2:
                back(node)

        strategy.on_evaluation = after_round  # type: ignore[method-assign]
        run(strategy, grid(), 3)
        assert done
        assert strategy.settled
        assert "is gone; sending it again" in caplog.text
        assert [row.height for row in audited(url=node.url).rounds] == [1, 2, 3]
