"""``make demo``: a real ``flwr run`` of ``strategies/paillier`` in its own Flower home, then an audit of its ledger.

Everything it starts listens on loopback, on free ports, and is stopped by its process id. What stays is the embedded
chain in FLBC_HOME, so that ``flbc audit`` works tomorrow.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

FEDERATION = "num-supernodes=5 client-resources-num-cpus=1"


def run_demo(app: Path | None = None, overrides: str = "", audit: bool = True) -> int:
    """Run the demo; return 0 only if Flower says that the run was completed and the audit has no doubt.

    Parameters
    ----------
    app : Path or None (default: None)
        The Flower app; None: ``strategies/paillier`` of the source tree.
    overrides : str (default: "")
        Run-config overrides, as for ``flwr run -c``.
    audit : bool (default: True)
        Audit the task on the embedded chain afterwards.
    """
    app = app or Path(__file__).resolve().parents[2] / "strategies" / "paillier"
    if not (app / "pyproject.toml").exists():
        print(f"There is no Flower app in {app}; run this from a checkout of flbc's source", file=sys.stderr)
        return 2
    with flower_home() as environment:
        # `flwr run` exits with 0 even when the run failed, so Flower is asked afterwards.
        command = ["flwr", "run", str(app), "--stream", "--federation-config", FEDERATION]
        subprocess.run(command + (["-c", overrides] if overrides else []), env=environment, check=False)
        status = report_status(environment)
    if status == 0 and audit:  # the processes that held the chain have ended
        print("\nflbc audit: everything again, from the chain alone", flush=True)
        status = subprocess.run(["flbc", "audit"], env=environment, check=False).returncode
    return status


def report_status(environment: Mapping[str, str]) -> int:
    """Return 0 if the last run was completed, else 1 with a message."""
    listed = subprocess.run(["flwr", "ls", "--format", "json"], env=environment, check=False, capture_output=True)
    try:
        run = json.loads(listed.stdout)["runs"][0]
        status, details = str(run["status"]), str(run.get("status-details", ""))
    except (ValueError, KeyError, IndexError):
        status, details = "unknown", listed.stderr.decode(errors="replace")[-500:]
    if status == "finished:completed":
        return 0
    print(f"The run was not completed: {status} ({details})", file=sys.stderr)
    return 1


@contextmanager
def flower_home(keep: bool = False) -> Iterator[dict[str, str]]:
    """Yield an environment with an own FLWR_HOME and free ports; at the end, stop what ran there and clean up.

    What simulated nodes keep in FLBC_HOME during a run is removed, the chain and its records stay.
    """
    home = Path(tempfile.mkdtemp(prefix="flbc-demo-"))
    runs = Path(os.environ.get("FLBC_HOME") or Path.home() / ".flbc") / "runs"
    before = set(runs.iterdir()) if runs.exists() else set()
    ports = free_ports(2)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "FLWR_HOME": str(home / "flwr"),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(ports[0]),
        "FLWR_LOCAL_CONTROL_API_PORT": str(ports[1]),
        # Otherwise the SuperLink runs `uv sync` on the app before every run, which needs the internet.
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    try:
        yield environment
    finally:
        stop_processes_of(home)
        if not keep:
            shutil.rmtree(home, ignore_errors=True)
            for made in set(runs.iterdir()) - before if runs.exists() else ():
                shutil.rmtree(made, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    """Return ports on loopback that were free a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [int(s.getsockname()[1]) for s in sockets]
    finally:
        for s in sockets:
            s.close()


def stop_processes_of(home: Path) -> None:
    """Stop the processes whose environment names ``home``: the local SuperLink outlives ``flwr run``."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        pids = _pids_of(home)
        for pid in pids:
            try:
                os.kill(pid, sent)
            except ProcessLookupError:
                continue
        deadline = time.monotonic() + 10
        while pids and time.monotonic() < deadline:
            time.sleep(0.2)
            pids = _pids_of(home)
        if not pids:
            return


def _pids_of(home: Path) -> list[int]:
    needle, found = str(home).encode(), []
    if Path("/proc/self/environ").exists():
        for directory in Path("/proc").iterdir():
            if directory.name.isdigit() and int(directory.name) != os.getpid():
                try:
                    if needle in (directory / "environ").read_bytes():
                        found.append(int(directory.name))
                except OSError:
                    continue
        return found
    listed = subprocess.run(["ps", "-axeww", "-o", "pid=,command="], check=False, capture_output=True)
    lines = (line.split(None, 1) for line in listed.stdout.splitlines() if needle in line)
    return [int(parts[0]) for parts in lines if int(parts[0]) != os.getpid()]


if __name__ == "__main__":
    sys.exit(run_demo())
