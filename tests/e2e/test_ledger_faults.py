"""kill -9, for real: the chain's node, and the process of the ServerApp, at two points each of a `flwr run`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from flbc.ledger import nodes
from flbc.ledger.chain import connect
from flbc.ledger.nodes import Node
from tests.ledger.conftest import travel
from tests.support.ledger_e2e import Flower, Run, flower, kill, need, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ETHER = 10**18
DEADLINE = 3000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flower]:
    need("anvil")
    with flower(tmp_path_factory.mktemp("server")) as ready:
        yield ready


class Anvil:
    """An Anvil that is killed with -9 and comes back on the same port with what it had written.

    It writes its state every second: what it made in the last second before the kill is lost.
    """

    def __init__(self, folder: Path) -> None:
        self.state, self.log = folder / "state.json", folder / "anvil.log"
        self.node: Node = nodes.start("anvil", 0, state=self.state, log=self.log)
        self.port, self.url = self.node.port, self.node.url
        with connect(self.url) as chain:
            self.genesis = chain.genesis

    def saved(self, run: Run) -> bytes:
        """Wait until all that the chain has now is in the file, and return it."""
        with connect(self.url) as chain:
            height = chain.height()
        wait_for(lambda: self._height() >= height, 30, run)
        while _height_of(data := self.state.read_bytes()) < height:
            continue
        return data

    def kill(self, kept: bytes) -> None:
        """Kill it; what was written is ``kept``, or later if it had the time to write it."""
        self.node.kill()
        if _height_of(self.state.read_bytes()) < 0:  # it died while it wrote
            self.state.write_bytes(kept)

    def restart(self) -> None:
        self.node = nodes.start("anvil", self.port, state=self.state, log=self.log)

    def _height(self) -> int:
        return _height_of(self.state.read_bytes()) if self.state.exists() else -1


def _height_of(state: bytes) -> int:
    """Return the height in a state file, -1 if it is not whole."""
    try:
        return int(json.loads(state)["block"]["number"], 16)
    except ValueError:
        return -1


@pytest.fixture
def anvil(tmp_path: Path) -> Iterator[Anvil]:
    chain = Anvil(tmp_path)
    yield chain
    chain.node.kill()


def test_the_node_is_killed_between_rounds_and_right_after_a_record(server: Flower, anvil: Anvil) -> None:
    server.flbc("deploy", "--rpc", anvil.url)
    run = server.begin(f'num-server-rounds=5 ledger.url="{anvil.url}" ledger.settle-wait=120.0')
    try:
        # Between two rounds; another block is made while there is no node.
        wait_for(lambda: server.landed(anvil.genesis), 300, run)
        kept = anvil.saved(run)
        anvil.kill(kept)
        made = len(server.records(anvil.genesis))
        wait_for(lambda: len(server.records(anvil.genesis)) > made, 120, run)
        assert len(server.landed(anvil.genesis)) <= made
        anvil.restart()
        # Right after a record was sent: the node comes back without it.
        wait_for(lambda: len(server.landed(anvil.genesis)) > made, 120, run)
        anvil.node.kill()
        anvil.state.write_bytes(kept)
        anvil.restart()
        log = server.finish(run)
    finally:
        run.stop()
    assert "records are queued in order: The node" in log
    assert "is gone; sending it again" in log
    assert "the task is settled" in log
    report = server.audit("--rpc", anvil.url)
    assert [(row["height"], row["round"]) for row in report["rounds"]] == [(n, n) for n in range(1, 6)]
    numbers = [row["chain_block"] for row in report["rounds"]]
    assert numbers == sorted(set(numbers))
    assert (report["status"], report["paid"]) == ("settled", str(ETHER))
    assert "nothing is queued" in server.flbc("task", "sync", "--rpc", anvil.url)


def test_the_server_app_is_killed_in_a_round_and_before_it_settles(server: Flower, anvil: Anvil) -> None:
    settings = f'ledger.url="{anvil.url}" ledger.deadline={DEADLINE}.0'
    server.flbc("deploy", "--rpc", anvil.url)
    tasks = []
    for rounds, last in ((4, 1), (2, 2)):  # in the second round of four; after the last of two
        before = len(server.records(anvil.genesis))
        run = server.begin(f"num-server-rounds={rounds} {settings}")
        try:
            wait_for(lambda goal=last, skip=before: len(server.landed(anvil.genesis, skip)) >= goal, 300, run)
            kill(server.server_pid(anvil.genesis))
        finally:
            run.stop()
        server.flbc("task", "sync", "--rpc", anvil.url)
        report = server.audit("--rpc", anvil.url)
        assert (report["status"], len(report["rounds"])) == ("started", last)
        tasks.append(report["task"])
    with connect(anvil.url) as chain:
        assert "the escrow goes back after that" in server.flbc("task", "refund", tasks[0], "--rpc", anvil.url, code=1)
        travel(chain, DEADLINE + 1)
    for task in tasks:
        server.flbc("task", "refund", task, "--rpc", anvil.url)
        report = server.audit(task, "--rpc", anvil.url)
        assert (report["status"], report["refunded"], report["paid"]) == ("refunded", str(ETHER), "0")
    # A new run on the same chain, by the same SuperLink.
    assert "the task is settled" in server.run(f"num-server-rounds=2 {settings}")
    report = server.audit("--rpc", anvil.url)
    assert report["task"] not in tasks
    assert (report["status"], report["paid"], len(report["rounds"])) == ("settled", str(ETHER), 2)
