"""A consortium as processes, on a chain of its own: key files, rosters, a publisher, a relayer without rights.

SuperLink, four hospitals that are the committee too, and an authority; one hospital is killed with -9 in round 2.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flbc.crypto import keystore
from flbc.crypto.keystore import PartyKeys
from flbc.crypto.signing import checksum_address
from flbc.demo.heart import HOSPITALS, split
from flbc.ledger import nodes
from flbc.ledger.chain import connect
from tests.ledger.conftest import give
from tests.support.deployment import PASSWORD, Deployment, environment
from tests.support.ledger_e2e import APP, need

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ETHER = 10**18
VICTIM = "hungary"
RELAYERS_PASSWORD = "another password"
SETTINGS = 'num-server-rounds=2 epsilon=8.0 key-bits=2048 compare=false ledger.accuracy=0.6 ledger.payout="examples"'


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    need("anvil")
    with nodes.start("anvil", 0, log=tmp_path / "anvil.log") as node:
        yield node.url


class People:
    """What the people of a consortium type; each works in an FLBC_HOME of its own."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url, self.contracts = folder, url, folder / "deployment.json"

    def file(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    def make(self, name: str, password: str = PASSWORD) -> PartyKeys:
        """Make somebody's key file."""
        keys = PartyKeys.generate(name)
        keystore.save(self.file(name), keys, password)
        return keys

    def type(self, who: str, *arguments: object, code: int = 0, password: str = PASSWORD) -> str:
        """Run a command as somebody; it must end with ``code``."""
        command = ["flbc", *map(str, arguments), "--rpc", self.url]
        command += [] if arguments[0] == "deploy" else ["--deployment", str(self.contracts)]
        env = {**environment(self.folder, who), "FLBC_KEY_PASSWORD": password, "COLUMNS": "200"}
        done = subprocess.run(command, env=env, check=False, capture_output=True, text=True, timeout=120)
        assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout if "--json" in arguments else done.stdout + done.stderr

    def audit(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(self.type("auditor", "audit", "--json"))
        assert report["ok"]
        return report


def test_published_run_settled_claimed_and_audited(tmp_path: Path, url: str) -> None:
    people, sizes = People(tmp_path, url), {name: len(split(name, 0).train_y) for name in HOSPITALS}
    publisher, owner, relayer = (
        people.make("publisher"),
        people.make("owner"),
        people.make("relayer", RELAYERS_PASSWORD),
    )
    people.type("owner", "deploy", "--no-simulation", "--authority", checksum_address(owner.signing.address),
                "--out", people.contracts)  # fmt: skip
    contracts = json.loads(people.contracts.read_text())
    policy = {
        "min-key-bits": 2048,
        "max-epsilon": 8.0,
        "reveal-metrics": ["accuracy"],
        "chain-id": contracts["chain_id"],
        "hub": checksum_address(bytes.fromhex(contracts["hub"])),
    }
    server = {"FLBC_KEY_PASSWORD": RELAYERS_PASSWORD}
    with Deployment(tmp_path, sizes, 2048, policy, committee=True, server=server) as d:
        with connect(url) as chain:
            for keys in (publisher, relayer, owner, *d.keys.values()):
                give(chain, keys.signing.address, 3)
        for name in d.keys:
            people.type(name, "register", "--key", people.file(name), "--role", ",".join(d.roles(name)),
                        "--examples", sizes.get(name, 0), "--stake", "1" if name in sizes else "0")  # fmt: skip
        people.type("publisher", "register", "--key", people.file("publisher"), "--publisher")
        run = d.flwr("run", str(APP), "test", "--stream", "-c", f'{SETTINGS} ledger.url="{url}" '
                     f'ledger.key="{people.file("relayer")}" ledger.deployment="{people.contracts}" '
                     "ledger.committee=4 node-wait=180.0 ledger.settle-wait=120.0")  # fmt: skip
        try:
            tasks = tmp_path / "flbc" / "superlink" / "tasks"
            d.wait(lambda: bool(list(tasks.glob("*.json"))), 240)
            (file,) = tasks.glob("*.json")
            told = people.type("publisher", "task", "publish", file, "--key", people.file("publisher"))
            assert "published task" in told
            d.wait(lambda: any(row[0] == 2 for row in d.query(VICTIM, "SELECT round FROM trained")), 300)
            d.kill(VICTIM)
            output, _ = run.communicate(timeout=400)
        finally:
            run.kill()
        assert "the task is settled" in output, output[-4000:]
        assert f"{VICTIM} sent no update" in output

        report = people.audit()
        assert (report["status"], report["simulation"], report["paid"]) == ("settled", False, "0")
        assert [row["submissions"] for row in report["rounds"]] == [4, 3]
        due = {row["name"]: int(row["amount"]) for row in report["payouts"]}
        assert sum(due.values()) == ETHER
        work = {name: size * (1 if name == VICTIM else 2) for name, size in sizes.items()}
        assert due == pytest.approx({name: ETHER * work[name] / sum(work.values()) for name in work})

        task, claim = report["task"], ("--key", people.file("cleveland"))
        assert "fetched" in people.type("cleveland", "task", "claim", task[:8], *claim)
        assert "were fetched before" in people.type("cleveland", "task", "claim", task[:8], *claim)
        assert int(people.audit()["paid"]) == due["cleveland"]

        for command, words in (
            (("task", "claim", task), "takes no part"),
            (("suspend", "cleveland"), "Only the authority may suspend"),
            (("task", "publish", file), "may not publish"),
        ):
            said = people.type("relayer", *command, "--key", people.file("relayer"), code=1, password=RELAYERS_PASSWORD)
            assert words in said
        for name, keys in {**d.keys, "publisher": publisher, "relayer": relayer}.items():
            assert keys.signing.to_bytes().hex() not in output, name
