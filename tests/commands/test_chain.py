import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flbc.errors import ConfigError
from flbc.ledger import nodes
from tests.commands.conftest import fails, run


@pytest.fixture
def up(folder):
    """Return a function that runs `flbc chain up`; what it started is ended by its process ids."""
    started = []

    def begin(*arguments):
        command = [str(Path(sys.executable).parent / "flbc"), "chain", "up", "--port", "0", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        told = {}
        for line in process.stdout:
            name, _, value = line.strip().partition("  ")
            told[name] = value.strip()
            if line.startswith("  flbc audit"):
                break
        assert "URL" in told, process.stderr.read()
        told["lines"] = list(told)
        return process, told

    yield begin
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.wait(30)
        process.stdout.close()
        process.stderr.close()


def alive(pid):
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    return True


def need(kind):
    try:
        nodes.find(kind)
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("kind", "stop"), [("anvil", signal.SIGINT), ("anvil", signal.SIGTERM), ("ganache", signal.SIGTERM)]
)
def test_up(up, home, kind, stop):
    need(kind)
    process, told = up("--kind", kind)
    assert told["chain id"] == {"anvil": "31337", "ganache": "1337"}[kind]
    url = told["URL"]
    assert f"flbc deploy --rpc {url}" in told["lines"]
    assert any(line.startswith("flwr run") and f"'ledger.url=\"{url}\"'" in line for line in told["lines"])
    deployed = run("deploy", "--rpc", url)
    assert "for        simulation" in deployed.stdout
    assert "already; nothing was changed" in run("deploy", "--rpc", url).stderr
    assert "no task on this hub yet" in run("task", "status", "--rpc", url).stderr
    assert Path(told["log"]) == home / "logs" / f"{kind}.log"
    process.send_signal(stop)
    assert process.wait(30) == 0
    assert f"{kind} was stopped" in process.stderr.read()
    assert not alive(told["process"])
    assert f"The node {url} does not answer" in fails("audit", "--rpc", url)


def test_chain_that_was_kept_and_one_that_was_reset(up, folder):
    need("anvil")
    process, told = up("--state", "chain.json")
    run("deploy", "--rpc", told["URL"], "--out", "deployment.json")
    time.sleep(1.5)  # the state is written every second
    process.terminate()
    assert process.wait(30) == 0
    _, told = up("--state", "chain.json")
    run("task", "status", "--rpc", told["URL"], "--deployment", "deployment.json")
    _, told = up()
    message = fails("task", "status", "--rpc", told["URL"], "--deployment", "deployment.json")
    assert "Was the node restarted without its state?" in message


def test_node_that_ends_by_itself(up):
    need("anvil")
    process, told = up()
    os.kill(int(told["process"]), signal.SIGKILL)
    assert process.wait(30) == 1
    assert "error: anvil ended by itself with code -9: see " in process.stderr.read()


def test_kind_that_there_is_not(home):
    assert "A node is one of anvil, ganache, not 'hardhat'" in fails("chain", "up", "--kind", "hardhat")


def test_port_that_is_taken(home):
    need("anvil")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        before = signal.getsignal(signal.SIGTERM)
        assert f"Port {port} is in use" in fails("chain", "up", "--port", port)
        assert signal.getsignal(signal.SIGTERM) is before


def test_node_that_is_not_installed(home, monkeypatch):
    monkeypatch.setenv("FLBC_ANVIL", "no-such-program")
    assert "FLBC_ANVIL=no-such-program is no program that can be run" in fails("chain", "up")
