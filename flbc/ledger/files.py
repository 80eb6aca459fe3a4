"""The ledger's files on this machine: where they lie, who may read them, and which process uses them."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from ..errors import ChainBusyError, LedgerError


def home() -> Path:
    """Return the directory for flbc's files: FLBC_HOME, else ``~/.flbc``."""
    return Path(os.environ.get("FLBC_HOME") or Path.home() / ".flbc")


def private_file(path: Path) -> Path:
    """Make sure that ``path`` exists with mode 0600, and its directory, if it has to be made, with 0700.

    Raises
    ------
    LedgerError
        If it cannot be made or opened.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise LedgerError(f"Cannot open or make {path}: {reason}; check the path, or set FLBC_HOME") from None
    return path


class ProcessLock:
    """A lock that one process at a time can hold; the operating system releases it however that process ends.

    Parameters
    ----------
    path : Path
        The lock file. It stays when the lock is released: removing it would let two processes lock two files of one
        name. It holds the owner's process id, for error messages only.
    what : str
        What is locked, for the error message: ``"The chain /tmp/x"``.
    cure : str
        What to do when another process has it.
    patience : float (default: 0)
        Seconds to wait for whoever holds it.

    Raises
    ------
    ChainBusyError
        If it is held already, here or in another process.
    """

    def __init__(self, path: Path, what: str, cure: str, patience: float = 0.0) -> None:
        self._file = os.open(private_file(path), os.O_RDWR | os.O_CLOEXEC)
        end = time.monotonic() + patience
        while not self._locked():
            if time.monotonic() < end:
                time.sleep(0.05)
                continue
            owner = os.pread(self._file, 20, 0).decode("ascii", "replace").strip()
            os.close(self._file)
            who = "this process" if owner == str(os.getpid()) else f"process {owner or 'unknown'}"
            raise ChainBusyError(f"{what} is in use by {who}. {cure}") from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, str(os.getpid()).encode("ascii"), 0)

    def _locked(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def release(self) -> None:
        """Give the lock back; the second call does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
