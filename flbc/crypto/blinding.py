"""Blindings of Paillier ciphertexts made ahead, by a process of their own while this one is busy with something else.

A blinding does not depend on the message (:class:`flbc.crypto.paillier.Encryptor`). Making those for a million values
takes seconds of one core, which a client has while it trains. They go through a pipe and never to disk, and whoever
takes them from a :class:`BlindingWorker` has the only copy: each is used once, and a restarted process has none.

The worker is ``python -m flbc.crypto.blinding`` without a shell and with an environment of its own. It gets the public
key and nothing else: it holds no secret but the blindings. It ends when it is done, when the pipe from its parent
closes (also because the parent was killed, and whether or not the parent had forked: a fork closes its copy), or when
it is told to. If it is slow, dies or is killed, fewer blindings
are there; the rest is computed where they are needed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import IO
from weakref import WeakSet

from gmpy2 import mpz, powmod

from flbc.crypto._checks import Secret, check_int
from flbc.crypto.paillier import Encryptor
from flbc.crypto.paillier_public import PublicKey, check_ciphertexts
from flbc.errors import CiphertextError

#: Expected seconds of work from which a process of its own pays; its start takes about one.
WORTH_SECONDS = 1.0

#: Most blindings that one worker makes.
MAX_BLINDINGS = 1 << 24

_BATCH = 32
#: What a worker needs of the environment; passwords of key files are not among it.
_ENVIRONMENT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "HOME", "SYSTEMROOT")
# Measured at 2048 and 3072 bits: with its table a blinding takes a ninth of a plain exponentiation, the table 40.
_TABLE_GAIN, _TABLE_COST = 9, 40


def expected_seconds(public: PublicKey, count: int) -> float:
    """Return about how long `count` blindings take on one core of this machine, from one exponentiation."""
    exponent = int.from_bytes(os.urandom(public.exponent_bits // 8), "little")
    begin = time.perf_counter()
    powmod(public.hs, exponent, public.n**2)
    one = time.perf_counter() - begin
    return one * min(count, _TABLE_COST + count / _TABLE_GAIN)


def core_is_free() -> bool:
    """Whether this process may use two cores, and the machine has one to spare."""
    if not hasattr(os, "sched_getaffinity") or not hasattr(os, "getloadavg"):
        return False
    cores = len(os.sched_getaffinity(0))
    return cores >= 2 and os.getloadavg()[0] < cores


class BlindingWorker(Secret):
    """A process that makes blindings for one public key.

    Parameters
    ----------
    public : PublicKey
        Checked: the worker does not check it again.
    count : int
        How many to make.

    Raises
    ------
    OSError
        If no process, or no thread that listens to it, can be started.
    """

    __slots__ = ("__weakref__", "_count", "_data", "_lock", "_process", "_public", "_reader")

    def __init__(self, public: PublicKey, count: int) -> None:
        self._public, self._count = public, check_int("count", count, 1, MAX_BLINDINGS)
        self._data, self._lock = bytearray(), threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-s", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            close_fds=True,
        )
        key = public.to_bytes()
        with suppress(OSError):  # it died at once: then there are no blindings
            stdin = self._stdin()
            stdin.write(count.to_bytes(4, "big") + len(key).to_bytes(4, "big") + key)
            stdin.flush()  # and stays open: that it closes is how the worker learns that its parent is gone
        self._reader = threading.Thread(target=self._read, daemon=True)
        try:
            self._reader.start()
        except RuntimeError as error:
            self._end()
            self._close_output()
            raise OSError(f"no thread to read blindings: {error}") from None
        _live.add(self)

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    @property
    def ready(self) -> int:
        """How many blindings have arrived."""
        with self._lock:
            return len(self._data) // self._public.ciphertext_bytes

    def wait(self, seconds: float) -> None:
        """Wait until the worker is done, or for so long."""
        self._reader.join(seconds)

    def take(self) -> list[mpz]:
        """End the worker, and return what it made; the second call returns nothing.

        Raises
        ------
        CiphertextError
            If what came is no blinding of this key: the worker is not the one that was started.
        """
        self.close()
        size = self._public.ciphertext_bytes
        with self._lock:
            data, self._data = bytes(self._data), bytearray()
        made = [mpz.from_bytes(data[i : i + size], "big") for i in range(0, len(data) - len(data) % size, size)]
        check_ciphertexts(self._public, made)
        if len(set(made)) != len(made) or len(made) > self._count:
            raise CiphertextError("the process that makes blindings repeats itself; none of them is used")
        return made

    def close(self) -> None:
        """End the worker and reap it; it may be closed twice."""
        _live.discard(self)
        self._end()
        self._reader.join()
        self._close_output()

    def _close_output(self) -> None:
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _end(self) -> None:
        with suppress(OSError):
            self._stdin().close()
        with suppress(OSError):
            self._process.kill()
        self._process.wait()

    def _leave_to_parent(self) -> None:
        """In a process that its owner forked: let go of the pipe, whose end the worker waits for, and of its work."""
        self._lock, self._data = threading.Lock(), bytearray()  # another thread may have held the lock
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError, ValueError):
                if pipe is not None:
                    pipe.close()

    def _stdin(self) -> IO[bytes]:
        if self._process.stdin is None:
            raise OSError("the worker has no standard input")
        return self._process.stdin

    def _read(self) -> None:
        """Take what the worker writes off the pipe, which holds less than a hundred blindings."""
        stdout = self._process.stdout
        while stdout is not None and (piece := os.read(stdout.fileno(), 1 << 16)):
            with self._lock:
                self._data += piece

    def __del__(self) -> None:
        with suppress(Exception):
            self.close()


_live: WeakSet[BlindingWorker] = WeakSet()


def _after_fork() -> None:
    for worker in list(_live):
        worker._leave_to_parent()
    _live.clear()


if hasattr(os, "register_at_fork"):  # a fork that lives on would keep the pipe open after the owner's end
    os.register_at_fork(after_in_child=_after_fork)


def _work() -> None:
    """Be the worker: read count and key, write blindings."""
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    count, size = (int.from_bytes(stdin.read(4), "big") for _ in range(2))
    public = PublicKey.from_bytes(stdin.read(size), insecure_key_bits_for_tests=True)  # its parent's, who checked it

    def follow() -> None:
        stdin.read(1)  # returns when the parent closes the pipe, or dies
        os._exit(0)

    threading.Thread(target=follow, daemon=True).start()
    encryptor = Encryptor(public)
    while count > 0:
        batch = encryptor.make(min(count, _BATCH), of=count)
        stdout.write(b"".join(bytes(b.to_bytes(public.ciphertext_bytes, "big")) for b in batch))
        stdout.flush()
        count -= len(batch)


if __name__ == "__main__":
    with suppress(OSError):
        _work()
