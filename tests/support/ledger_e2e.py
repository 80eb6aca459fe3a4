"""Real `flwr run`, `flbc` and chain nodes as processes, for tests of the ledger from end to end."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from flbc.demo.run import flower_home
from flbc.errors import ConfigError
from flbc.ledger import accounts, nodes

APP = Path(__file__).resolve().parents[2] / "strategies" / "paillier"
FEDERATION = "num-supernodes=5 client-resources-num-cpus=1"
#: A small key and no comparison table: seconds instead of a minute.
FAST = "key-bits=2048 compare=false epsilon=8.0"


def need(kind: str) -> None:
    """Skip the test where a chain's node is not installed."""
    try:
        nodes.find(kind)
    except ConfigError as error:
        pytest.skip(str(error))


@contextmanager
def flower(folder: Path, **extra: str) -> Iterator[Flower]:
    """Yield a SuperLink of its own with its own FLBC_HOME; everything is stopped at the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLBC_HOME", str(folder / "flbc"))
        for name, value in extra.items():
            patch.setenv(name, value)
        with flower_home() as environment:
            for _ in range(4):  # Flower gives its SuperLink 15 s to start, which a busy machine may exceed
                listed = subprocess.run(["flwr", "ls"], env=environment, check=False, capture_output=True)
                if listed.returncode == 0:
                    break
            yield Flower(environment)


class Run:
    """A `flwr run --stream` with its output in a file."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self.log = process, log

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def stop(self) -> None:
        """End the command; the run itself goes on."""
        self.process.kill()
        self.process.wait()


class Flower:
    """Commands in one environment."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)

    @property
    def home(self) -> Path:
        return Path(self.environment["FLBC_HOME"])

    # ------------------------------------------------------------------ flwr
    def begin(self, overrides: str) -> Run:
        """Start `flwr run --stream`."""
        command = ["flwr", "run", str(APP), "--stream", "--federation-config", FEDERATION, "-c", f"{FAST} {overrides}"]
        path = self.home.parent / f"run-{time.time_ns()}.log"
        with path.open("wb") as log:
            return Run(subprocess.Popen(command, env=self.environment, stdout=log, stderr=log), path)

    def finish(self, run: Run, seconds: float = 400) -> str:
        """Wait for a run that must complete, and return its log."""
        run.process.wait(seconds)
        assert self.status() == "finished:completed", run.output[-4000:]
        return run.output

    def run(self, overrides: str) -> str:
        """Run, and return the log."""
        return self.finish(self.begin(overrides))

    def runs(self) -> list[dict[str, Any]]:
        """Return what `flwr ls` says, the newest run first."""
        listed = subprocess.run(
            ["flwr", "ls", "--format", "json"], env=self.environment, check=False, capture_output=True, timeout=60
        )
        found: list[dict[str, Any]] = json.loads(listed.stdout)["runs"]
        return found

    def status(self) -> str:
        return str(self.runs()[0]["status"])

    # ------------------------------------------------------------------ flbc
    def flbc(self, *arguments: object, code: int = 0, **extra: str) -> str:
        """Run a command, which must end with ``code``; return its output."""
        command = ["flbc", *map(str, arguments)]
        environment = {**self.environment, "COLUMNS": "200", **extra}
        done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=120)
        assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout if "--json" in arguments else done.stdout + done.stderr

    def audit(self, *arguments: object) -> dict[str, Any]:
        """Audit a task, the newest by default; it must be without doubt."""
        report: dict[str, Any] = json.loads(self.flbc("audit", *arguments, "--json"))
        assert report["ok"]
        assert report["doubts"] == []
        return report

    # ------------------------------------------------------------------ what a run has on disk
    def records(self, genesis: bytes, skip: int = 0) -> list[tuple[int, str]]:
        """Return round and state of the blocks in the relayer's outbox of a chain, without disturbing it."""
        found = []
        for path in (self.home / "outbox").glob(f"*-{genesis.hex()[:8]}-{accounts.ADDRESSES[0].hex()}.sqlite"):
            try:
                with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as db:
                    rows = db.execute("SELECT key, state FROM entry WHERE key LIKE 'round/%' ORDER BY place").fetchall()
            except sqlite3.OperationalError:
                continue  # it is being made
            found = [(int(key.split("/")[2]), state) for key, state in rows]
        return found[skip:]

    def landed(self, genesis: bytes, skip: int = 0) -> list[int]:
        """Return the rounds whose blocks are on the chain, as far as the outbox knows."""
        return [number for number, state in self.records(genesis, skip) if state in ("mined", "final")]

    def server_pid(self, genesis: bytes) -> int:
        """Return the process that holds the relayer's account on a chain: the ServerApp's."""
        (lock,) = (self.home / "locks").glob(f"*-{genesis.hex()[:16]}-{accounts.ADDRESSES[0].hex()}.lock")
        return int(lock.read_text())


def wait_for(ready: Callable[[], Any], seconds: float, run: Run | None = None) -> None:
    """Poll quickly; a run that ends meanwhile is a failure."""
    end = time.monotonic() + seconds
    while not ready():
        assert run is None or not run.ended, f"the run ended: {run.output[-4000:]}"
        assert time.monotonic() < end, f"not so within {seconds:g} s: {run and run.output[-4000:]}"
        time.sleep(0.01)


def kill(pid: int) -> None:
    """kill -9."""
    os.kill(pid, signal.SIGKILL)
