import logging
import secrets
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from flbc.verification.rendezvous import MAGIC, MET, OFFER, TAKE
from flbc.verification.road import parse_address
from tests.commands.conftest import fails


@pytest.fixture
def relay():
    """Return a function that runs `flbc relay`; what it started is ended by its process id."""
    started = []

    def begin(*arguments):
        command = [str(Path(sys.executable).parent / "flbc"), "relay", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        told = {}
        for line in process.stdout:
            name, _, value = line.strip().partition("  ")
            told[name] = value.strip()
            if name == "stop":
                break
        assert "address" in told, process.stderr.read()
        return process, told

    yield begin
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.wait(30)
        process.stdout.close()
        process.stderr.close()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_relay_until_it_is_stopped(relay, stop):
    process, told = relay("--listen", "127.0.0.1:0")
    assert told["sees"] == "ciphertext only: addresses, times and sizes"
    token = secrets.token_bytes(32)
    with (
        socket.create_connection(parse_address(told["address"]), timeout=10) as one,
        socket.create_connection(parse_address(told["address"]), timeout=10) as other,
    ):
        one.sendall(MAGIC + OFFER + token)
        other.sendall(MAGIC + TAKE + token)
        assert one.recv(1) == other.recv(1) == MET
        one.sendall(b"through")
        assert other.recv(7) == b"through"
    process.send_signal(stop)
    assert process.wait(30) == 0
    log = process.stderr.read()
    assert "event=paired pair=1 first=127.0.0.1 second=127.0.0.1" in log
    assert "the relay was stopped" in log
    assert token.hex() not in log
    assert repr(token) not in log


def test_where_it_cannot_listen(folder):
    before, level = signal.getsignal(signal.SIGTERM), logging.getLogger("flbc.verification.relay").level
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in fails(
            "relay", "--listen", f"127.0.0.1:{port}"
        )
    assert "lacks a port" in fails("relay", "--listen", "127.0.0.1")
    assert signal.getsignal(signal.SIGTERM) is before
    assert logging.getLogger("flbc.verification.relay").level == level


def test_defaults_are_those_of_the_library():
    from flbc.commands import relay as command
    from flbc.verification.relay import RelayLimits

    assert (RelayLimits().pairs, RelayLimits().waiting) == (command._PAIRS, command._WAITING)
