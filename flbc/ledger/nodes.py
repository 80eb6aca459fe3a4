"""Start a development node, Anvil or Ganache, on this machine: a chain that several processes can share."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ConfigError, LedgerError
from . import accounts

HOST = "127.0.0.1"
CHAIN_IDS = {"anvil": 31337, "ganache": 1337}
_CONTRACTS = Path(__file__).resolve().parents[2] / "contracts"
_STARTUP = 60.0  # seconds; Ganache takes up to 5 on a busy machine


@dataclass
class Node:
    """A running node. As a context manager it is stopped at the end.

    Attributes
    ----------
    kind : {"anvil", "ganache"}
    port : int
    process : subprocess.Popen
        In a session of its own, so that Ctrl-C in a terminal reaches its starter only.
    log : Path or None
        Where its output goes.
    """

    kind: str
    port: int
    process: subprocess.Popen[bytes] = field(repr=False)
    log: Path | None

    @property
    def url(self) -> str:
        """What to connect to."""
        return f"http://{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    def stop(self, seconds: float = 10.0) -> None:
        """End the node so that it writes its state; after ``seconds`` by force. The second call does nothing."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """End the node at once, as a power failure would."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start(
    kind: str = "anvil",
    port: int = 8545,
    *,
    state: Path | None = None,
    log: Path | None = None,
    options: Sequence[str] = (),
) -> Node:
    """Start a node that only this machine can reach, and wait until it answers.

    Its accounts are those of the development phrase (:mod:`flbc.ledger.accounts`), its chain id 31337 (Anvil) or 1337
    (Ganache).

    Parameters
    ----------
    kind : {"anvil", "ganache"} (default: "anvil")
    port : int (default: 8545)
        0 takes a free one.
    state : Path or None (default: None)
        Where the chain is kept: a file for Anvil (written every second, so a crash may cost a second), a directory for
        Ganache. None: in memory, and the next start is another chain.
    log : Path or None (default: None)
        File that the node's output is appended to; None: nowhere.
    options : sequence of str (default: ())
        More arguments for the node.

    Raises
    ------
    ConfigError
        If the kind is unknown or the program is not installed.
    LedgerError
        If the port is taken, or the node ends or does not answer.
    """
    program = find(kind)
    port = port or free_port()
    with socket.socket() as probe:
        if probe.connect_ex((HOST, port)) == 0:
            raise LedgerError(
                f"Port {port} is in use, perhaps by a chain: connect to it, stop it, or take another port"
            )
    arguments = [*program, *(_anvil if kind == "anvil" else _ganache)(port, state), *options]
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
    with open(log or os.devnull, "ab") as output:
        process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    node = Node(kind, port, process, log)
    try:
        _await(node)
    except BaseException:
        node.kill()
        raise
    return node


def find(kind: str) -> list[str]:
    """Return the command of a node: of FLBC_ANVIL or FLBC_GANACHE, ``contracts/node_modules``, or PATH, in this order.

    Raises
    ------
    ConfigError
        If the kind is unknown or the program is not there; says how to get it.
    """
    if kind not in CHAIN_IDS:
        raise ConfigError(f"A node is one of {', '.join(CHAIN_IDS)}, not {kind!r}")
    chosen = os.environ.get(f"FLBC_{kind.upper()}")
    if chosen:
        found = shutil.which(chosen)
        if found is None:
            raise ConfigError(f"FLBC_{kind.upper()}={chosen} is no program that can be run")
        return [found]
    for contracts in (Path("contracts").resolve(), _CONTRACTS):
        modules = contracts / "node_modules"
        if kind == "anvil":
            # The npm package is a script that starts the program; a kill would reach the script only.
            native = sorted(modules.glob("@foundry-rs/anvil-*/bin/anvil"))
            if native:
                return [str(native[0])]
        script = modules / ".bin" / kind
        if kind == "ganache" and script.exists() and shutil.which("node"):
            return [str(script)]
    found = shutil.which(kind)
    if found is not None:
        return [found]
    raise ConfigError(
        f"{kind} is not installed: run `npm ci` in the contracts directory (needs Node.js), or set "
        f"FLBC_{kind.upper()} to the program. Without it, the embedded chain serves one process"
    )


def free_port() -> int:
    """Return a port that nothing listens on right now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _anvil(port: int, state: Path | None) -> list[str]:
    command = ["--host", HOST, "--port", str(port), "--chain-id", str(CHAIN_IDS["anvil"])]
    command += ["--mnemonic", accounts.MNEMONIC, "--accounts", str(accounts.COUNT)]
    if state is not None:
        state.parent.mkdir(parents=True, exist_ok=True)
        command += ["--state", str(state), "--state-interval", "1", "--preserve-historical-states"]
    return command


def _ganache(port: int, state: Path | None) -> list[str]:
    command = ["--server.host", HOST, "--server.port", str(port), "--chain.chainId", str(CHAIN_IDS["ganache"])]
    command += ["--wallet.mnemonic", accounts.MNEMONIC, "--wallet.totalAccounts", str(accounts.COUNT)]
    if state is not None:
        state.mkdir(parents=True, exist_ok=True)
        command += ["--database.dbPath", str(state)]
    return command


def _await(node: Node) -> None:
    question = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []}).encode()
    request = urllib.request.Request(node.url, question, {"Content-Type": "application/json"})  # noqa: S310
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy is for other machines
    end = time.monotonic() + _STARTUP
    while time.monotonic() < end:
        if node.process.poll() is not None:
            raise LedgerError(f"{node.kind} ended while it was started{_last_words(node.log)}")
        try:
            with opener.open(request, timeout=5) as answer:
                found = int(json.load(answer)["result"], 16)
        except (OSError, ValueError, KeyError):
            time.sleep(0.05)
            continue
        if found != CHAIN_IDS[node.kind] or node.process.poll() is not None:
            raise LedgerError(f"Another program answers on port {node.port}: take another port")
        return
    raise LedgerError(f"{node.kind} did not answer within {_STARTUP:g} s{_last_words(node.log)}")


def _last_words(log: Path | None) -> str:
    if log is None or not log.exists():
        return "; start it with a log file to see why"
    lines = log.read_text("utf-8", "replace").strip().splitlines()[-3:]
    return f" (log {log}): " + " | ".join(lines)
