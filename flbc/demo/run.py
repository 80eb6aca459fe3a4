"""``make demo``: a real ``flwr run`` of ``strategies/paillier`` in its own Flower home, cleaned up afterwards.

Everything it starts listens on loopback, on free ports, and is stopped by its process id.
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


def run_demo(app: Path | None = None, overrides: str = "") -> int:
    """Run the demo; return 0 only if Flower says that the run was completed.

    Parameters
    ----------
    app : Path or None (default: None)
        The Flower app; None: ``strategies/paillier`` of the source tree.
    overrides : str (default: "")
        Run-config overrides, as for ``flwr run -c``.
    """
    app = app or Path(__file__).resolve().parents[2] / "strategies" / "paillier"
    if not (app / "pyproject.toml").exists():
        print(f"There is no Flower app in {app}; run this from a checkout of flbc's source", file=sys.stderr)
        return 2
    with flower_home() as environment:
        # `flwr run` exits with 0 even when the run failed, so Flower is asked afterwards.
        command = ["flwr", "run", str(app), "--stream", "--federation-config", FEDERATION]
        subprocess.run(command + (["-c", overrides] if overrides else []), env=environment, check=False)
        return report_status(environment)


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
    """Yield an environment with an own FLWR_HOME and FLBC_HOME, and free ports; stop what ran there at the end."""
    home = Path(tempfile.mkdtemp(prefix="flbc-demo-"))
    ports = free_ports(2)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "FLWR_HOME": str(home / "flwr"),
        "FLBC_HOME": str(home / "flbc"),
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
