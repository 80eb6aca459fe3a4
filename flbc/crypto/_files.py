"""Files that only their owner may read: made in one step, never overwritten, refused when others can read them."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from flbc.errors import KeyFileError


def read_private(path: Path, max_bytes: int, what: str = "key file") -> bytes:
    """Read a regular file that nobody but its owner has access to; errors call it ``what``.

    Raises
    ------
    KeyFileError
        If it cannot be read, is no regular file, is larger than `max_bytes`, or others have access.
    """
    try:
        # Not blocking, so that a pipe in place of the file cannot hang the node.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as exc:
        raise KeyFileError(f"cannot read the {what} {path}: {exc.strerror}") from None
    try:
        # On the open file, not on the path: the two could differ by now.
        _check_mode(path, os.fstat(descriptor), what)
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(max_bytes + 1)
    finally:
        os.close(descriptor)
    if len(data) > max_bytes:
        raise KeyFileError(f"{path} is too large for a {what}")
    return data


def write_new(path: Path, data: bytes) -> None:
    """Create a file of mode 0600 with this content, completely or not at all.

    Raises
    ------
    KeyFileError
        If the file exists, or the directory or its file system cannot take it.
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            # A rename would silently replace a file that appeared meanwhile; a link fails.
            os.link(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
        _sync_directory(path.parent)
    except FileExistsError:
        raise KeyFileError(f"{path} exists and is not overwritten: choose another name or move it away") from None
    except OSError as exc:
        raise KeyFileError(f"cannot write the key file {path}: {exc.strerror}") from None


def _check_mode(path: Path, info: os.stat_result, what: str) -> None:
    if not stat.S_ISREG(info.st_mode):
        raise KeyFileError(f"{path} is not a regular file")
    if os.name == "posix" and info.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise KeyFileError(f"others have access to the {what} {path}: run `chmod 600 {path}`")


def _sync_directory(directory: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
