"""Where the embedded chain keeps its blocks and states: one table of keys and values in SQLite.

py-evm writes a block in dozens of steps, the head before or after the rest. So writes gather in memory and become
durable together, in one SQLite transaction, when the request that caused them is done: a process killed at any moment
leaves either the whole block or nothing of it, and the head never points to data that is not there. A write that fails
(disk full) leaves the last durable block as well; the caller drops what is in memory and goes on from there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eth.db.backends.base import BaseDB

from ..crypto.signing import keccak256
from ..errors import LedgerError
from .files import private_file

#: SQLite's application id of our files: "flbc" in ASCII.
APPLICATION = 0x666C6263
VERSION = 1
#: Entries kept in memory; about 100 MB at most.
CACHED = 200_000
_HASH_BYTES = 32


class Store(BaseDB):
    """Key-value store of a chain, as py-evm wants it, with all-or-nothing commits. Not thread-safe.

    Parameters
    ----------
    path : Path
        The file; made with mode 0600 if it does not exist.

    Raises
    ------
    LedgerError
        If the file is damaged, or is not a chain of flbc.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pending: dict[bytes, bytes | None] = {}
        self._cache: dict[bytes, bytes] = {}
        private_file(path)
        with self._readable():
            self._db = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise

    def _prepare(self) -> None:
        def pragma(name: str) -> int:
            return int(self._db.execute(f"PRAGMA {name}").fetchone()[0])

        if pragma("schema_version") == 0 and pragma("application_id") == 0:  # nobody's file yet
            with self._transaction():
                self._db.execute("CREATE TABLE entry (key BLOB PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID")
                self._db.execute(f"PRAGMA application_id = {APPLICATION}")
                self._db.execute(f"PRAGMA user_version = {VERSION}")
        if pragma("application_id") != APPLICATION:
            raise LedgerError(f"{self.path} belongs to another program: give the embedded chain a path of its own")
        if pragma("user_version") != VERSION:
            raise LedgerError(f"{self.path} was written by another version of flbc: use that one, or another path")
        # Write-ahead log: one fsync per block, and a torn log is cut off at its last whole transaction.
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")

    # ------------------------------------------------------------------ what py-evm calls
    def __getitem__(self, key: bytes) -> bytes:
        value = self._find(key)
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self._pending[key] = value

    def __delitem__(self, key: bytes) -> None:
        self._pending[key] = None

    def _exists(self, key: bytes) -> bool:
        return self._find(key) is not None

    def _find(self, key: bytes) -> bytes | None:
        if key in self._pending:
            return self._pending[key]
        value = self._cache.get(key)
        if value is None:
            with self._readable():
                row = self._db.execute("SELECT value FROM entry WHERE key = ?", (key,)).fetchone()
            if row is None:
                return None
            value = bytes(row[0])
            # Headers, trie nodes and code lie under their hash, so a changed byte is found where it is read.
            if len(key) == _HASH_BYTES and keccak256(value) != key:
                raise self._damaged()
            self._remember(key, value)
        return value

    def _remember(self, key: bytes, value: bytes) -> None:
        if len(self._cache) >= CACHED:
            self._cache.clear()
        self._cache[key] = value

    # ------------------------------------------------------------------ all or nothing
    @property
    def dirty(self) -> bool:
        """Whether there are writes that are not durable yet."""
        return bool(self._pending)

    def commit(self) -> None:
        """Make all writes since the last commit durable, in one transaction; on any error none of them is."""
        with self._readable(), self._transaction():
            self._db.executemany(
                "INSERT OR REPLACE INTO entry VALUES (?, ?)",
                [entry for entry in self._pending.items() if entry[1] is not None],
            )
            self._db.executemany(
                "DELETE FROM entry WHERE key = ?", [(key,) for key, value in self._pending.items() if value is None]
            )
        for key, value in self._pending.items():
            if value is None:
                self._cache.pop(key, None)
            else:
                self._remember(key, value)
        self._pending.clear()

    def discard(self) -> None:
        """Forget all writes since the last commit."""
        self._pending.clear()
        self._cache.clear()

    def close(self) -> None:
        """Close the file; what is not committed is lost."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise LedgerError(f"Cannot use the chain file {self.path}: {error}") from None
        except sqlite3.DatabaseError:
            raise self._damaged() from None

    def _damaged(self) -> LedgerError:
        return LedgerError(
            f"The chain file {self.path} is damaged or no chain at all: put a copy back (with its -wal file, if there "
            f"is one), or move it away to start an empty chain; what was on it stays in exported runs only"
        )
