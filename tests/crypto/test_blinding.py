"""Blindings from a process of their own: real processes, killed, slow and left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from gmpy2 import mpz

from flbc.crypto import blinding, paillier
from flbc.crypto.blinding import BlindingWorker, core_is_free, expected_seconds
from flbc.errors import CiphertextError

PATIENCE = 60.0


@pytest.fixture(scope="module")
def key() -> paillier.PrivateKey:
    return paillier.generate(1024, insecure_key_bits_for_tests=True)


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker is of this checkout, also where another one is installed."""
    monkeypatch.setenv("PYTHONPATH", str(Path(paillier.__file__).parents[2]))


def gone(pid: int) -> bool:
    for _ in range(200):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_every_blinding_is_another_and_hides_zero(key: paillier.PrivateKey) -> None:
    worker = BlindingWorker(key.public, 100)
    worker.wait(PATIENCE)
    made = worker.take()
    assert len(made) == len(set(made)) == 100
    assert set(key.decrypt(made)) == {0}
    assert worker.take() == []
    assert gone(worker.pid)


def test_an_encryptor_uses_each_once_and_makes_the_rest(key: paillier.PrivateKey) -> None:
    worker = BlindingWorker(key.public, 3)
    worker.wait(PATIENCE)
    made = worker.take()
    encryptor = paillier.Encryptor(key.public)
    encryptor.refill(made)
    assert encryptor.precomputed == 3
    ciphertexts = encryptor.encrypt([0, 0, 0, 0, 0])  # of zero, a ciphertext is its blinding
    assert set(made) < set(ciphertexts)
    assert len(set(ciphertexts)) == 5
    assert encryptor.precomputed == 0
    assert key.decrypt(encryptor.encrypt([7])) == [7]


def test_two_workers_never_make_the_same(key: paillier.PrivateKey) -> None:
    """A restarted client starts another worker: fresh randomness, nothing from before."""
    seen: set[mpz] = set()
    for _ in range(3):
        worker = BlindingWorker(key.public, 40)
        worker.wait(PATIENCE)
        seen.update(worker.take())
    assert len(seen) == 120


def test_kill_minus_nine_leaves_what_arrived(key: paillier.PrivateKey) -> None:
    worker = BlindingWorker(key.public, 1 << 20)
    end = time.monotonic() + PATIENCE
    while not worker.ready and time.monotonic() < end:
        time.sleep(0.01)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait(PATIENCE)
    made = worker.take()
    assert 0 < len(made) < 1 << 20
    assert set(key.decrypt(made[:5])) == {0}
    assert gone(worker.pid)


def test_a_slow_worker_is_ended_and_reaped(key: paillier.PrivateKey) -> None:
    worker = BlindingWorker(key.public, 1 << 20)
    begin = time.monotonic()
    worker.take()
    assert time.monotonic() - begin < 5
    assert gone(worker.pid)


def test_a_worker_that_cannot_start_makes_nothing(key: paillier.PrivateKey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    worker = BlindingWorker(key.public, 10)
    worker.wait(PATIENCE)
    assert worker.take() == []


_ORPHAN = """
import sys, time
from flbc.crypto import paillier
from flbc.crypto.blinding import BlindingWorker
key = paillier.generate(1024, insecure_key_bits_for_tests=True)
worker = BlindingWorker(key.public, 1 << 20)
while not worker.ready:
    time.sleep(0.01)
print(worker.pid, flush=True)
time.sleep(600)
"""


def test_a_worker_dies_with_its_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", _ORPHAN], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone(worker)


_FORKED = _ORPHAN.replace(
    "print(worker",
    """
import os
if os.fork() == 0:  # as a loader of data does; it outlives its parent
    time.sleep(20)
    os._exit(0)
print(worker""",
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_worker_dies_with_its_parent_although_the_parent_had_forked() -> None:
    """Weak form: the fork holds the other end of the worker's pipe, and the worker goes on for nobody."""
    parent = subprocess.Popen([sys.executable, "-c", _FORKED], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    assert gone(worker)
    parent.stdout.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_does_not_disturb_the_worker_and_has_no_copy_of_blindings(key: paillier.PrivateKey) -> None:
    worker = BlindingWorker(key.public, 100)
    worker.wait(PATIENCE)
    child = os.fork()
    if child == 0:
        os._exit(worker.ready)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(worker.take()) == 100


def test_no_thread_is_no_process(key: paillier.PrivateKey, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    real = subprocess.Popen

    def popen(command: list[str], **options: Any) -> Any:
        started.append(real(command, **options))
        return started[-1]

    def refuse(self: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(blinding.subprocess, "Popen", popen)
    monkeypatch.setattr(blinding.threading.Thread, "start", refuse)
    with pytest.raises(OSError, match="no thread to read blindings: can't start new thread"):
        BlindingWorker(key.public, 10)
    assert started[0].poll() is not None


def test_the_worker_sees_no_password(key: paillier.PrivateKey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLBC_KEY_PASSWORD", "correct horse")
    given: dict[str, Any] = {}
    real = subprocess.Popen

    def popen(command: list[str], **options: Any) -> Any:
        given.update(options, command=command)
        return real(command, **options)

    monkeypatch.setattr(blinding.subprocess, "Popen", popen)
    worker = BlindingWorker(key.public, 1)
    worker.close()
    assert "FLBC_KEY_PASSWORD" not in given["env"]
    assert not given.get("shell")
    assert key.public.to_bytes().hex() not in " ".join(given["command"])


def test_what_repeats_itself_is_not_used(key: paillier.PrivateKey) -> None:
    """Two ciphertexts with one blinding give the difference of their plaintexts away."""
    worker = BlindingWorker(key.public, 2)
    worker.wait(PATIENCE)
    one = bytes(worker._data[: key.public.ciphertext_bytes])
    worker._data = bytearray(one + one)
    with pytest.raises(CiphertextError, match="repeats itself"):
        worker.take()


def test_what_is_no_blinding_is_not_used(key: paillier.PrivateKey) -> None:
    worker = BlindingWorker(key.public, 1)
    worker.wait(PATIENCE)
    worker._data = bytearray(key.public.ciphertext_bytes)
    with pytest.raises(CiphertextError, match="not in"):
        worker.take()


def test_a_small_model_is_not_worth_a_process(opening_key: paillier.PrivateKey) -> None:
    few, many = (expected_seconds(opening_key.public, count) for count in (1, 100_000))
    assert few < 0.5
    assert many > 1


@pytest.mark.parametrize(("cores", "load", "free"), [({0}, 0.0, False), ({0, 1}, 0.5, True), ({0, 1}, 2.5, False)])
def test_a_core_must_be_free(cores: set[int], load: float, free: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores, raising=False)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load))
    assert core_is_free() is free
