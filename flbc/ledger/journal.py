"""The outbox's memory: what is to be sent, every signature that was ever made for it, and what became of it.

An SQLite file of one account on one chain, mode 0600. It holds no secret: signed transactions are public once sent.
Every change is on disk (``synchronous=FULL``) before it is acted on. Thread-safe.
"""

from __future__ import annotations

import enum
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..crypto.signing import checksum_address
from ..errors import ChainResetError, LedgerError
from .files import private_file
from .transactions import Call, Fees, SignedTransaction

# Numbers in wei exceed SQLite's 64 bits, so they are stored as text.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS owner (
    one INTEGER PRIMARY KEY CHECK (one = 1), chain_id INTEGER NOT NULL, genesis BLOB NOT NULL,
    account BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS entry (
    place INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, digest BLOB NOT NULL,
    receiver BLOB, data BLOB NOT NULL, value TEXT NOT NULL, gas INTEGER NOT NULL,
    state TEXT NOT NULL, nonce INTEGER UNIQUE, block INTEGER, block_hash BLOB, hash BLOB,
    missed INTEGER, note TEXT NOT NULL DEFAULT '', reason BLOB) STRICT;
CREATE TABLE IF NOT EXISTS signed (
    hash BLOB PRIMARY KEY, place INTEGER NOT NULL REFERENCES entry, nonce INTEGER NOT NULL, raw BLOB NOT NULL,
    most TEXT NOT NULL, tip TEXT, height INTEGER NOT NULL, at REAL NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS signed_place ON signed (place, at);
CREATE INDEX IF NOT EXISTS entry_state ON entry (state, block);
"""


class State(enum.StrEnum):
    """Where an entry is on its way."""

    QUEUED = "queued"  # on disk; no node has taken it yet
    SENT = "sent"  # a node has it, no block does
    MINED = "mined"  # in a block, which may still be undone
    FINAL = "final"  # in a block with enough others on top
    REVERTED = "reverted"  # in a block, but the contract refused it
    REPLACED = "replaced"  # somebody else used the account, and with it the entry's nonce


@dataclass(frozen=True, slots=True)
class Entry:
    """One call that was submitted.

    Attributes
    ----------
    place : int
        Its place in the order of submission.
    key : str
        The idempotency key.
    call, gas
        What was submitted.
    state : State
    nonce : int or None
        The account's transaction number, from the first signature on.
    block, block_hash, hash
        Where it is, and which of its signed transactions it is; None while it is in no block.
    missed : int or None
        Height at which its nonce was first found used by a transaction that is not ours.
    note : str
        What a node said last, while it does not take it.
    reason : bytes or None
        Revert data, if the contract refused it.
    """

    place: int
    key: str
    call: Call
    gas: int
    state: State
    nonce: int | None
    block: int | None
    block_hash: bytes | None
    hash: bytes | None
    missed: int | None
    note: str
    reason: bytes | None


@dataclass(frozen=True, slots=True)
class Signature:
    """A signed transaction of an entry, with its nonce, and the height and the time at which it was signed."""

    transaction: SignedTransaction
    nonce: int
    height: int
    at: float


_COLUMNS = "place, key, receiver, data, value, gas, state, nonce, block, block_hash, hash, missed, note, reason"
_OPEN = (State.QUEUED, State.SENT, State.MINED)
_SETTLED = (State.FINAL, State.REVERTED)


class Journal:
    """The file.

    Parameters
    ----------
    path : Path
    chain_id, genesis, account
        Whose outbox this is; a file remembers it.

    Raises
    ------
    ChainResetError
        If the file belongs to another chain.
    LedgerError
        If it belongs to another account, or cannot be read.
    """

    def __init__(self, path: Path, chain_id: int, genesis: bytes, account: bytes) -> None:
        self.path = path
        self._mutex = threading.RLock()
        with self._readable():
            self._db = sqlite3.connect(private_file(path), timeout=30, isolation_level=None, check_same_thread=False)
        try:
            with self._readable():
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = FULL")
            with self._transaction() as db:
                for statement in _SCHEMA.split(";"):
                    db.execute(statement)
                db.execute("INSERT OR IGNORE INTO owner VALUES (1, ?, ?, ?)", (chain_id, genesis, account))
                known = db.execute("SELECT chain_id, genesis, account FROM owner").fetchone()
            if known[:2] != (chain_id, genesis):
                raise ChainResetError(
                    f"The outbox {path} belongs to chain {known[0]} with block 0 = 0x{known[1].hex()[:16]}…, not to "
                    f"chain {chain_id} with 0x{genesis.hex()[:16]}…: start the old node with its state, or move the "
                    f"file away; what it has not sent then stays unsent"
                )
            if known[2] != account:
                raise LedgerError(
                    f"The outbox {path} belongs to account {checksum_address(known[2])}: take its key, or another file"
                )
        except BaseException:
            self._db.close()
            raise

    # ------------------------------------------------------------------ entries
    def add(self, key: str, call: Call, gas: int) -> bool:
        """Queue a call; False if exactly this one is there already, :class:`LedgerError` if the key means another."""
        with self._transaction() as db:
            known = db.execute("SELECT digest FROM entry WHERE key = ?", (key,)).fetchone()
            if known is None:
                db.execute(
                    "INSERT INTO entry (key, digest, receiver, data, value, gas, state) VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (key, call.digest, call.to, call.data, str(call.value), gas, State.QUEUED),
                )
        if known is not None and known[0] != call.digest:
            raise LedgerError(
                f"Something else was submitted as {key!r} before: one key stands for one call, so that nothing is sent "
                f"twice; use a new key for a new call"
            )
        return known is None

    def get(self, key: str) -> Entry:
        """Return an entry; :class:`LedgerError` if there is none."""
        found = self._entries("key = ?", (key,))
        if not found:
            raise LedgerError(f"Nothing was submitted as {key!r}")
        return found[0]

    def open(self) -> list[Entry]:
        """Return the entries that are not settled: signed ones by nonce, then the others in the order submitted."""
        return self._entries("state IN (?, ?, ?)", _OPEN, order="nonce IS NULL, nonce, place")

    def replaced(self) -> list[Entry]:
        """Return the entries whose nonce somebody else used."""
        return self._entries("state = ?", (State.REPLACED,))

    def failed(self) -> list[Entry]:
        """Return the entries that were not executed, or executed in vain."""
        return self._entries("state IN (?, ?)", (State.REVERTED, State.REPLACED))

    def newest_settled(self) -> Entry | None:
        """Return the settled entry in the highest block."""
        found = self._entries("state IN (?, ?)", _SETTLED, order="block DESC, nonce DESC LIMIT 1")
        return found[0] if found else None

    def next_nonce(self) -> int:
        """Return the nonce after the highest one that an entry has."""
        with self._transaction() as db:
            (highest,) = db.execute("SELECT max(nonce) FROM entry").fetchone()
        return 0 if highest is None else int(highest) + 1

    def update(
        self,
        entry: Entry,
        state: State,
        *,
        block: int | None = None,
        block_hash: bytes | None = None,
        transaction: bytes | None = None,
        missed: int | None = None,
        note: str = "",
        reason: bytes | None = None,
    ) -> None:
        """Write down what became of an entry; what is not given is cleared."""
        with self._transaction() as db:
            db.execute(
                "UPDATE entry SET state = ?, block = ?, block_hash = ?, hash = ?, missed = ?, note = ?, reason = ? "
                "WHERE place = ?",
                (state, block, block_hash, transaction, missed, note, reason, entry.place),
            )

    # ------------------------------------------------------------------ signatures
    def keep(self, entry: Entry, nonce: int, transaction: SignedTransaction, height: int) -> None:
        """Write down a signed transaction of an entry, and its nonce, before anybody sees it."""
        tip = None if transaction.fees.tip is None else str(transaction.fees.tip)
        row = (transaction.hash, entry.place, nonce, transaction.raw, str(transaction.fees.most), tip, height)
        with self._transaction() as db:
            db.execute("UPDATE entry SET nonce = ?, missed = NULL WHERE place = ?", (nonce, entry.place))
            db.execute("INSERT OR IGNORE INTO signed VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*row, time.time()))

    def signatures(self, entry: Entry) -> list[Signature]:
        """Return all signed transactions of an entry under its present nonce, the newest first."""
        with self._transaction() as db:
            rows = db.execute(
                "SELECT raw, hash, most, tip, nonce, height, at FROM signed WHERE place = ? AND nonce = ? "
                "ORDER BY at DESC, rowid DESC",
                (entry.place, entry.nonce),
            ).fetchall()
        return [
            Signature(SignedTransaction(raw, hash_, Fees(int(most), None if tip is None else int(tip))), *rest)
            for raw, hash_, most, tip, *rest in rows
        ]

    def release(self, entry: Entry) -> None:
        """Take a replaced entry's nonce away and queue it again."""
        with self._transaction() as db:
            db.execute(
                "UPDATE entry SET state = ?, nonce = NULL, missed = NULL, note = '' WHERE place = ?",
                (State.QUEUED, entry.place),
            )

    def close(self) -> None:
        """Close the file."""
        with self._mutex:
            self._db.close()

    # ------------------------------------------------------------------
    def _entries(self, where: str, values: Sequence[object], order: str = "place") -> list[Entry]:
        with self._transaction() as db:
            rows = db.execute(f"SELECT {_COLUMNS} FROM entry WHERE {where} ORDER BY {order}", values).fetchall()  # noqa: S608
        return [
            Entry(place, key, Call(to, data, int(value)), gas, State(state), *rest)
            for place, key, to, data, value, gas, state, *rest in rows
        ]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._mutex, self._readable():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise LedgerError(f"Cannot use the outbox {self.path}: {error}") from None
