"""SuperLink and SuperNodes as processes on loopback, each with its own home, key file and roster."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from flbc.crypto import keystore
from flbc.crypto.keystore import PartyKeys
from flbc.crypto.paillier_keys import generate
from flbc.crypto.paillier_threshold import deal
from flbc.demo.run import free_ports
from flbc.node.rosterfile import Entry, write_roster

PASSWORD = "correct horse battery staple"
VERIFIERS = ("verifier-a", "verifier-b", "verifier-c")


def environment(folder: Path, name: str) -> dict[str, str]:
    """Return the environment of somebody's processes: homes of their own, nothing from the internet."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "FLWR_HOME": str(folder / "flwr" / name),
        "FLBC_HOME": str(folder / "flbc" / name),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }


class Deployment:
    """A consortium on one machine. Use as a context manager; everything is killed at the end.

    With ``committee`` the hospitals serve in the committee too; ``server`` is added to the SuperLink's environment;
    ``helpers`` are the roles (and names) of the nodes beside the hospitals; ``verifiers`` adds three that check hidden
    models. With ``threshold`` nobody has the Paillier key: the hospitals hold shares of it.
    """

    def __init__(
        self,
        folder: Path,
        hospitals: dict[str, int],
        key_bits: int,
        policy: dict[str, object],
        *,
        committee: bool = False,
        server: dict[str, str] | None = None,
        helpers: tuple[str, ...] = ("authority",),
        verifiers: bool = False,
        threshold: int = 0,
    ) -> None:
        self.verifiers = VERIFIERS if verifiers else ()
        self.helpers = (*helpers, *self.verifiers)
        self.folder, self.hospitals = folder, list(hospitals)
        self.trains = ("committee", "hospital") if committee else ("hospital",)
        self.server = server or {}
        self.keys: dict[str, PartyKeys] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.link_port, *ports = free_ports(1 + len(hospitals) + len(self.helpers) + len(self.verifiers))
        self.node_ports = ports[: len(hospitals) + len(self.helpers)]
        self.table_ports = dict(zip(self.verifiers, ports[len(self.node_ports) :], strict=True))
        (folder / "password").write_text(PASSWORD)
        (folder / "password").chmod(0o600)
        shares = deal(generate(key_bits), threshold, len(hospitals)) if threshold else []
        entries = []
        for number, name in enumerate((*hospitals, *self.helpers)):
            alone = name == "authority" and not threshold
            keys = PartyKeys.generate(name, paillier_bits=key_bits if alone else None)
            if shares and name in hospitals:
                keys = keys.with_share(shares[number])
            keystore.save(folder / f"{name}.key", keys, PASSWORD)
            self.keys[name] = keys
            public = keystore.read_public(folder / f"{name}.key")
            entries.append(Entry(public, self.roles(name), hospitals.get(name, 0)))
        write_roster(folder / "roster.toml", entries, policy)

    def __enter__(self) -> Deployment:
        try:
            self._start_all()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start_all(self) -> None:
        port = str(self.link_port)
        self.start("superlink", ["flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", port])
        self.wait(self._open, 60)
        for number, name in enumerate((*self.hospitals, *self.helpers)):
            self.start_node(name, number)
        self.home("cli").mkdir(parents=True)
        (self.home("cli") / "config.toml").write_text(
            f'[superlink]\ndefault = "test"\n\n[superlink.test]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
        )

    def __exit__(self, *error: object) -> None:
        for name in list(self.processes):
            self.kill(name)

    def roles(self, name: str) -> tuple[str, ...]:
        if name in self.verifiers:
            return ("verifier",)
        return (name,) if name in self.helpers else self.trains

    # ------------------------------------------------------------------ processes
    def environment(self, name: str) -> dict[str, str]:
        return environment(self.folder, name) | (self.server if name == "superlink" else {})

    def home(self, name: str) -> Path:
        return self.folder / "flwr" / name

    def start(self, name: str, command: list[str]) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command, env=self.environment(name), stdout=log, stderr=log, start_new_session=True
            )

    def start_node(self, name: str, number: int) -> None:
        config = {
            "partition-id": self.verifiers.index(name) if name in self.verifiers else number,
            "num-partitions": len(self.hospitals),
            "flbc-role": ",".join(self.roles(name)),
            "flbc-key": str(self.folder / f"{name}.key"),
            "flbc-key-password-file": str(self.folder / "password"),
            "flbc-roster": str(self.folder / "roster.toml"),
        }
        if name in self.table_ports:
            config["flbc-link"] = f"127.0.0.1:{self.table_ports[name]}"
        text = " ".join(f"{k}={json.dumps(v)}" for k, v in config.items())
        link, port = f"127.0.0.1:{self.link_port}", str(self.node_ports[number])
        command = ["flower-supernode", "--insecure", "--superlink", link, "--host", "127.0.0.1", "--port", port]
        self.start(name, [*command, "--node-config", text])

    def kill(self, name: str) -> None:
        """kill -9 a process and all it started."""
        process = self.processes.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def pause(self, name: str) -> None:
        """Stop a process and all it started where they are, until :meth:`resume`."""
        os.killpg(self.processes[name].pid, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Let them go on."""
        os.killpg(self.processes[name].pid, signal.SIGCONT)

    def flwr(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["flwr", *arguments],
            env=self.environment("cli"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def _open(self) -> bool:
        with closing(socket.socket()) as s:
            return s.connect_ex(("127.0.0.1", self.link_port)) == 0

    # ------------------------------------------------------------------ what nodes remember
    def query(self, name: str, sql: str) -> list[tuple[object, ...]]:
        path = self.folder / "flbc" / name / "nodes" / name / "memory.sqlite"
        if not path.exists():
            return []
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as db:
            try:
                return db.execute(sql).fetchall()
            except sqlite3.OperationalError:
                return []

    def wait(self, ready: Callable[[], bool], seconds: float, pause: float = 0.02) -> None:
        end = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > end:
                logs = "\n".join(f"--- {name}\n{self.log(name)[-1500:]}" for name in self.processes)
                raise TimeoutError(f"not ready after {seconds} s\n{logs}")
            time.sleep(pause)


def memory_holds(pid: int, needles: dict[str, bytes]) -> set[str]:
    """Search the memory of a process; return the names of the byte strings that are in it (Linux)."""
    found: set[str] = set()
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            span, permissions, *_ = line.split()
            if not permissions.startswith("rw"):
                continue
            start, end = (int(part, 16) for part in span.split("-"))
            try:
                memory.seek(start)
                block = memory.read(end - start)
            except (OSError, ValueError, OverflowError):
                continue
            found |= {name for name, needle in needles.items() if needle in block}
    return found


def descendants(pid: int) -> list[int]:
    """Return a process and all it started."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, queue = [], [pid]
    while queue:
        found.append(current := queue.pop())
        queue += children.get(current, [])
    return found
