"""`flbc chain up`, `flbc deploy`, `flwr run`, `flbc audit`: the commands of the documentation, on the three chains."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from flbc.ledger import nodes
from tests.support.ledger_e2e import Flower, flower, need, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ETHER = 10**18


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flower]:
    """One SuperLink for all chains: its process starts once, and so does Ray's."""
    with flower(tmp_path_factory.mktemp("server")) as ready:
        yield ready


@contextmanager
def chain_up(server: Flower, kind: str, port: int) -> Iterator[str]:
    """Run `flbc chain up` as another terminal would."""
    process = subprocess.Popen(
        ["flbc", "chain", "up", "--kind", kind, "--port", str(port)],
        env={**server.environment, "COLUMNS": "200"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        assert process.stdout is not None
        wait_for(lambda: url in process.stdout.readline(), 60)  # type: ignore[union-attr]
        yield url
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.mark.parametrize("kind", ["anvil", "ganache"])
def test_a_run_on_a_node(server: Flower, kind: str) -> None:
    need(kind)
    with chain_up(server, kind, nodes.free_port()) as url:
        assert "hub" in server.flbc("deploy", "--rpc", url)
        log = server.run(f'num-server-rounds=2 ledger.url="{url}"')
        assert "the task is settled" in log
        report = server.audit("--rpc", url)
        assert (report["status"], report["chain_id"]) == ("settled", nodes.CHAIN_IDS[kind])
        assert [row["round"] for row in report["rounds"]] == [1, 2]
        assert (report["reward"], report["paid"]) == (str(ETHER), str(ETHER))
        assert report["task"] in log
        assert report["task"][:8] in server.flbc("task", "status", "--rpc", url)
    assert "start it with `flbc chain up`" in server.flbc("audit", "--rpc", url, code=1)


def test_twice_on_the_embedded_chain(server: Flower) -> None:
    """Nothing is set up, the chain survives the process, and the second run is another task on the same contracts."""
    tasks = []
    for _ in range(2):
        log = server.run("num-server-rounds=2")
        assert "the task is settled" in log
        tasks += re.findall(r"flbc: task (\w{64}) on chain", log)
    reports = [server.audit(task[:12]) for task in tasks]
    assert len({report["task"] for report in reports}) == 2
    assert len({report["hub"] for report in reports}) == 1
    assert {(report["status"], report["paid"], len(report["rounds"])) for report in reports} == {
        ("settled", str(ETHER), 2)
    }
    assert all(row["epsilon"] > 0 for report in reports for row in report["rounds"])
    exported = server.home / "task.json"
    server.flbc("audit", tasks[0], "--export", exported)
    data = json.loads(exported.read_text())
    assert data["task"] == tasks[0]
    assert "audits it without a chain" not in server.flbc("audit", "--from", exported)
