"""What a node must remember over a restart: an SQLite file in a 0700 directory, itself 0600 (S3, S5, S8, S9, S14, S20).

SQLite gives what these rules need: a write is on disk (``synchronous=FULL``) before it is acted on, and two processes
that ask at once are serialised (``BEGIN IMMEDIATE``).
"""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import AlreadyOpenedError, BudgetExhaustedError, CodecError, StaleLabelError
from ..round import RoundLabel

#: Tasks whose last update a node keeps; older ones are deleted and overwritten.
KEPT_TASKS = 8

_SCHEMA = """
CREATE TABLE IF NOT EXISTS task (task BLOB PRIMARY KEY, config BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS trained (
    task BLOB PRIMARY KEY, round INTEGER NOT NULL, model BLOB NOT NULL, result BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS answered (
    label BLOB PRIMARY KEY, task BLOB NOT NULL, round INTEGER NOT NULL, attempt INTEGER NOT NULL,
    reply BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS carried (task BLOB PRIMARY KEY, carry BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS newest (task BLOB PRIMARY KEY, round INTEGER NOT NULL, attempt INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS signed (
    label BLOB PRIMARY KEY, task BLOB NOT NULL, height INTEGER NOT NULL, parent BLOB NOT NULL,
    block BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS charged (task BLOB NOT NULL, round INTEGER NOT NULL, PRIMARY KEY (task, round)) STRICT;
CREATE TABLE IF NOT EXISTS noised (task BLOB NOT NULL, round INTEGER NOT NULL, PRIMARY KEY (task, round)) STRICT;
CREATE TABLE IF NOT EXISTS spent (task BLOB PRIMARY KEY, epsilon REAL NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS opened (
    task BLOB NOT NULL, round INTEGER NOT NULL, block BLOB NOT NULL, answer BLOB,
    PRIMARY KEY (task, round)) STRICT;
"""
# Of several attempts at one height the one signed last.
_NEWEST_SIGNED = "SELECT height, parent, block FROM signed WHERE task = ? ORDER BY height DESC, rowid DESC LIMIT 1"


class NodeMemory:
    """A node's durable memory.

    Parameters
    ----------
    directory : Path
        Made with mode 0700 if it does not exist; it must belong to this node alone.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._prepared: set[str] = set()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        self._path = directory / "memory.sqlite"
        os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
        self.prepare(_SCHEMA)

    def prepare(self, schema: str) -> None:
        """Make the tables that are not there yet; once is enough for one object."""
        if schema in self._prepared:
            return
        self._prepared.add(schema)
        with self.transaction() as db:
            for statement in schema.split(";"):
                db.execute(statement)

    # ------------------------------------------------------------------ task (S5)
    def agree(self, task: bytes, config: bytes) -> None:
        """Remember the hash of a task's configuration; :class:`StaleLabelError` if it was another one before."""
        with self.transaction() as db:
            db.execute("INSERT OR IGNORE INTO task VALUES (?, ?)", (task, config))
            (known,) = db.execute("SELECT config FROM task WHERE task = ?", (task,)).fetchone()
        if known != config:
            raise StaleLabelError("The task's configuration differs from the one this node agreed to; start a new task")

    # ------------------------------------------------------------------ update (S14)
    def trained(self, label: RoundLabel) -> bytes | None:
        """Return what was trained for this round, or None.

        Raises
        ------
        StaleLabelError
            If the round is over, or the server now sends another model or train config for it.
        """
        with self.transaction() as db:
            row = db.execute("SELECT round, model, result FROM trained WHERE task = ?", (label.task,)).fetchone()
        if row is None or row[0] < label.round:
            return None
        if row[0] > label.round:
            raise StaleLabelError(f"Round {label.round} is over; this node has trained round {row[0]}")
        if row[1] != label.model:
            raise StaleLabelError(f"Another model or train config was sent for round {label.round} before")
        return bytes(row[2])

    def keep_trained(self, label: RoundLabel, result: bytes, *, noised: bool = False) -> None:
        """Keep a training result until the next round replaces it; of several for one round the first one.

        ``noised``: it holds noise of this node's own. There is then one result a round for ever, also when it was
        deleted for newer tasks: fresh noise on the same update would leave its mean.
        """
        with self.transaction() as db:
            known = db.execute("SELECT round, model FROM trained WHERE task = ?", (label.task,)).fetchone()
            if known is not None and tuple(known) == (label.round, label.model):
                return
            if (
                noised
                and not db.execute("INSERT OR IGNORE INTO noised VALUES (?, ?)", (label.task, label.round)).rowcount
            ):
                raise StaleLabelError(f"The update of round {label.round} had its noise before, and is gone")
            row = (label.task, label.round, label.model, result)
            db.execute("INSERT OR REPLACE INTO trained VALUES (?, ?, ?, ?)", row)
            # Updates lie here in clear, so only those of the newest tasks do.
            db.execute(
                "DELETE FROM trained WHERE rowid NOT IN (SELECT rowid FROM trained ORDER BY rowid DESC LIMIT ?)",
                (KEPT_TASKS,),
            )
            db.execute("DELETE FROM answered WHERE task NOT IN (SELECT task FROM trained)")
            db.execute("DELETE FROM carried WHERE task NOT IN (SELECT task FROM trained)")
            db.execute("DELETE FROM answered WHERE task = ? AND round < ?", (label.task, label.round))

    # ------------------------------------------------------------------ what was not sent (compression)
    def carry(self, task: bytes) -> bytes | None:
        """Return what the last answered round of a task left to send, or None."""
        with self.transaction() as db:
            row = db.execute("SELECT carry FROM carried WHERE task = ?", (task,)).fetchone()
        return None if row is None else bytes(row[0])

    def keep_carry(self, task: bytes, carry: bytes) -> None:
        """Keep what waits after training, before anything of it is sent."""
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO carried VALUES (?, ?)", (task, carry))

    # ------------------------------------------------------------------ submission (S9)
    def answered(self, label: RoundLabel) -> bytes | None:
        """Return the reply given for this label, or None; the same label always gets the same reply.

        Raises
        ------
        StaleLabelError
            If a later attempt of the round, or a later round, was answered before.
        """
        with self.transaction() as db:
            row = db.execute("SELECT reply FROM answered WHERE label = ?", (label.hash,)).fetchone()
            if row is not None:
                return bytes(row[0])
            # Never deleted, unlike replies: a second reply under an old label would be equivocation.
            last = db.execute("SELECT round, attempt FROM newest WHERE task = ?", (label.task,)).fetchone()
        if last is not None and (label.round, label.attempt) <= tuple(last):
            raise StaleLabelError(f"Round {last[0]}, attempt {last[1]} was answered before; labels must rise")
        return None

    def keep_answer(self, label: RoundLabel, reply: bytes, carry: bytes = b"") -> bytes:
        """Keep a signed reply before it is sent; return the first one kept for this label, which alone may be sent.

        ``carry`` is what this reply leaves to send, with compression; it is kept with the reply or not at all.
        """
        with self.transaction() as db:
            row = (label.hash, label.task, label.round, label.attempt, reply)
            newest = db.execute("SELECT round, attempt FROM newest WHERE task = ?", (label.task,)).fetchone()
            if newest is None or tuple(newest) < (label.round, label.attempt):
                db.execute("INSERT OR REPLACE INTO newest VALUES (?, ?, ?)", (label.task, label.round, label.attempt))
                db.execute("INSERT OR IGNORE INTO answered VALUES (?, ?, ?, ?, ?)", row)
                if carry:
                    db.execute("INSERT OR REPLACE INTO carried VALUES (?, ?)", (label.task, carry))
            kept = db.execute("SELECT reply FROM answered WHERE label = ?", (label.hash,)).fetchone()
        if kept is None:
            raise StaleLabelError(f"Round {newest[0]}, attempt {newest[1]} was answered before; labels must rise")
        return bytes(kept[0])

    # ------------------------------------------------------------------ block (S9)
    def sign_once(self, task: bytes, label: bytes, place: tuple[int, bytes], block: bytes) -> None:
        """Remember the one block that may be signed under ``label``, before it is.

        Parameters
        ----------
        task, label : bytes
        place : (int, bytes)
            Height of the block, and hash of its parent.
        block : bytes
            Hash of the block.

        Raises
        ------
        StaleLabelError
            If another block was signed under this label: two of them are equivocation, and cost the stake. Or if the
            block is below one that this node signed, beside it with another parent, or above it and not its child:
            what was opened and what is recorded could then be different blocks.
        """
        height, parent = place
        with self.transaction() as db:
            top = db.execute(_NEWEST_SIGNED, (task,)).fetchone()
            known = db.execute("SELECT block FROM signed WHERE label = ?", (label,)).fetchone()
            forks = top is not None and (
                height < top[0]
                or (height == top[0] and parent != top[1])
                or (height == top[0] + 1 and parent != top[2])  # further above: this node missed blocks
            )
            if known is None and not forks:
                db.execute("INSERT INTO signed VALUES (?, ?, ?, ?, ?)", (label, task, height, parent, block))
        if known is None and forks:
            raise StaleLabelError(f"This node signed another block at height {top[0]}; the chain does not go back")
        if known is not None and known[0] != block:
            raise StaleLabelError("This node signed another block under this label; a new attempt is needed")

    def check_head(self, task: bytes, height: int, head: bytes) -> None:
        """Raise :class:`StaleLabelError` if this node signed a block of the task that a chain with this end lacks."""
        with self.transaction() as db:
            top = db.execute(_NEWEST_SIGNED, (task,)).fetchone()
        if top is not None and (top[0] > height or (top[0] == height and top[2] != head)):
            raise StaleLabelError(f"The chain lacks the block at height {top[0]} that this node signed")

    # ------------------------------------------------------------------ opening (S8, S20)
    def reserve(
        self, task: bytes, round_: int, block: bytes, price: Callable[[int], float], limit: float = math.inf
    ) -> tuple[bytes | None, int]:
        """Reserve the one opening of a round for ``block``, and pay for it, durably, before anything is decrypted.

        One transaction, so that two requests at once cannot both take the last opening.

        Parameters
        ----------
        task, round_, block
            What is to be opened.
        price : callable
            Given how many rounds of the task are opened then, returns the task's epsilon (0 without noise), or raises
            :class:`BudgetExhaustedError`.
        limit : float (default: inf)
            Largest sum of epsilon over all tasks of this node.

        Returns
        -------
        answer : bytes or None
            What was answered for this very block before; None if nothing was.
        openings : int
            Rounds of the task that are opened or reserved, this one included.

        Raises
        ------
        AlreadyOpenedError
            If the round's opening belongs to another block.
        BudgetExhaustedError
            If the task or the node may not open more; nothing is reserved then.
        """
        with self.transaction() as db:
            db.execute("INSERT OR IGNORE INTO opened VALUES (?, ?, ?, NULL)", (task, round_, block))
            known, answer = db.execute(
                "SELECT block, answer FROM opened WHERE task = ? AND round = ?", (task, round_)
            ).fetchone()
            if known != block:
                raise AlreadyOpenedError(f"Another block of round {round_} was opened or refused before")
            (openings,) = db.execute("SELECT count(*) FROM opened WHERE task = ?", (task,)).fetchone()
            _spend(db, task, price(openings), limit)
        return (None if answer is None else bytes(answer)), int(openings)

    def charge(self, task: bytes, round_: int, price: Callable[[int], float], limit: float = math.inf) -> None:
        """Pay for a round once, durably; the parameters are those of :meth:`reserve`.

        Raises
        ------
        BudgetExhaustedError
            If the task or the node may not spend more; nothing is charged then.
        """
        with self.transaction() as db:
            db.execute("INSERT OR IGNORE INTO charged VALUES (?, ?)", (task, round_))
            (rounds,) = db.execute("SELECT count(*) FROM charged WHERE task = ?", (task,)).fetchone()
            _spend(db, task, price(rounds), limit)

    def openings(self, task: bytes) -> int:
        """Return how many rounds of a task are opened or reserved."""
        with self.transaction() as db:
            (count,) = db.execute("SELECT count(*) FROM opened WHERE task = ?", (task,)).fetchone()
        return int(count)

    def keep_opening(self, task: bytes, round_: int, answer: bytes) -> bytes:
        """Keep the answer (empty: refused) before it is sent, and return the one that counts.

        Requests for one block that run at once each draw their own noise; the first answer kept is everybody's, or
        averaging over the answers would remove the noise.
        """
        with self.transaction() as db:
            place = (task, round_)
            db.execute("UPDATE opened SET answer = ? WHERE task = ? AND round = ? AND answer IS NULL", (answer, *place))
            (kept,) = db.execute("SELECT answer FROM opened WHERE task = ? AND round = ?", place).fetchone()
            # Nobody asks for earlier rounds any more; empty: not NULL, which would mean that they may be answered.
            db.execute("UPDATE opened SET answer = x'' WHERE task = ? AND round < ? AND answer IS NOT NULL", place)
        return bytes(kept)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Open the file, alone among writers; what was written is on disk when the block ends without an error."""
        db = sqlite3.connect(self._path, timeout=30, isolation_level=None)
        try:
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA secure_delete = ON")
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")
        except (sqlite3.DataError, OverflowError):
            raise CodecError("The model is too large for this node's memory: SQLite holds 1 GB a value") from None
        finally:
            db.close()


def _spend(db: sqlite3.Connection, task: bytes, epsilon: float, limit: float) -> None:
    """Note what a task has cost, which never falls.

    Raises
    ------
    BudgetExhaustedError
        If all tasks together would cost more than ``limit``.
    """
    (others,) = db.execute("SELECT total(epsilon) FROM spent WHERE task != ?", (task,)).fetchone()
    if others + epsilon > limit:
        raise BudgetExhaustedError(
            f"All tasks together would spend epsilon = {others + epsilon:.4g}; this node's policy allows "
            f"max-total-epsilon = {limit:g}"
        )
    db.execute(
        "INSERT INTO spent VALUES (?, ?) ON CONFLICT (task) DO UPDATE SET epsilon = max(epsilon, excluded.epsilon)",
        (task, epsilon),
    )
