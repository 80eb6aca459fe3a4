"""What a node remembers for masking: its secrets until they are used, and which share of whom it gave away (S24)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..crypto.keystream import EncryptionKey
from ..errors import AlreadyOpenedError, StaleLabelError
from ..round import RoundLabel
from ..schemes.masking_keys import MaskSecrets
from .memory import KEPT_TASKS, NodeMemory

_SCHEMA = """
CREATE TABLE IF NOT EXISTS box_key (
    run TEXT PRIMARY KEY, public BLOB NOT NULL, secret BLOB NOT NULL, task BLOB) STRICT;
CREATE TABLE IF NOT EXISTS joined (task BLOB PRIMARY KEY, round INTEGER NOT NULL, party BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS mask (
    public BLOB PRIMARY KEY, task BLOB NOT NULL, round INTEGER NOT NULL, label BLOB, secrets BLOB, share BLOB) STRICT;
CREATE TABLE IF NOT EXISTS given (public BLOB PRIMARY KEY, kind TEXT NOT NULL) STRICT;
"""
# Used and unused ones apart, so that greetings of other runs do not push out the key of one that goes on.
_OLD_KEYS = (
    "DELETE FROM box_key WHERE task IS NULL AND rowid NOT IN "
    "(SELECT rowid FROM box_key WHERE task IS NULL ORDER BY rowid DESC LIMIT ?)",
    "DELETE FROM box_key WHERE task IS NOT NULL AND rowid NOT IN "
    "(SELECT rowid FROM box_key WHERE task IS NOT NULL ORDER BY rowid DESC LIMIT ?)",
)


class MaskMemory:
    """The masks' part of a node's memory, in the same file.

    Parameters
    ----------
    memory : NodeMemory
    """

    def __init__(self, memory: NodeMemory) -> None:
        self._memory = memory
        memory.prepare(_SCHEMA)

    # ------------------------------------------------------------------ keys that boxes are sealed to
    def box_key(self, run: str) -> EncryptionKey:
        """Return this node's key for a run, made on first use; those of the newest runs are kept, older ones erased."""
        fresh = EncryptionKey.generate()
        with self._memory.transaction() as db:
            db.execute("INSERT OR IGNORE INTO box_key VALUES (?, ?, ?, NULL)", (run, fresh.public, fresh.to_bytes()))
            for old in _OLD_KEYS:
                db.execute(old, (KEPT_TASKS,))
            row = db.execute("SELECT secret FROM box_key WHERE run = ?", (run,)).fetchone()
        if row is None:
            raise StaleLabelError("This run is older than those whose keys this node keeps; start a new run")
        return EncryptionKey.from_bytes(bytes(row[0]))

    def box_key_of(self, public: bytes, task: bytes) -> EncryptionKey:
        """Return the secret of a key made by :meth:`box_key`, which serves the first task that it is asked for.

        Raises
        ------
        StaleLabelError
            If it is not kept, or belongs to another task: who stole it then would open the boxes of this one.
        """
        with self._memory.transaction() as db:
            db.execute("UPDATE box_key SET task = ? WHERE public = ? AND task IS NULL", (task, public))
            row = db.execute("SELECT secret, task FROM box_key WHERE public = ?", (public,)).fetchone()
        if row is None or row[1] != task:
            raise StaleLabelError("This task's boxes are sealed to a key that this node does not have, or used before")
        return EncryptionKey.from_bytes(bytes(row[0]))

    # ------------------------------------------------------------------ who takes part
    def join(self, label: RoundLabel, party: bytes) -> None:
        """Remember with whom this node masks in a round, for all its attempts.

        Raises
        ------
        StaleLabelError
            If an earlier attempt was with others, or a later round has begun. Two attempts among different people could
            both be opened, each by those who know nothing of the other.
        """
        with self._memory.transaction() as db:
            db.execute("INSERT OR IGNORE INTO joined VALUES (?, ?, ?)", (label.task, label.round, party))
            newest, known = db.execute("SELECT round, party FROM joined WHERE task = ?", (label.task,)).fetchone()
            if newest < label.round:
                place = (label.round, party, label.task)
                db.execute("UPDATE joined SET round = ?, party = ? WHERE task = ?", place)
                newest, known = label.round, party
        if newest > label.round:
            raise StaleLabelError(f"Round {label.round} is over; this node takes part in round {newest}")
        if known != party:
            raise StaleLabelError(f"Round {label.round} began with others; its attempts are all among the same clients")

    # ------------------------------------------------------------------ own secrets
    def keep(self, task: bytes, round_: int, secrets: MaskSecrets) -> None:
        """Keep what was dealt for a round, before it is announced."""
        with self._memory.transaction() as db:
            row = (secrets.key.public, task, round_, secrets.to_bytes(), secrets.share)
            db.execute("INSERT INTO mask VALUES (?, ?, ?, NULL, ?, ?)", row)
            db.execute("DELETE FROM mask WHERE task = ? AND round < ?", (task, round_ - 1))
            db.execute(
                "DELETE FROM mask WHERE task NOT IN "
                "(SELECT task FROM mask GROUP BY task ORDER BY max(rowid) DESC LIMIT ?)",
                (KEPT_TASKS,),
            )

    def use(self, public: bytes, label: RoundLabel) -> MaskSecrets:
        """Return the secrets of an ephemeral key for this attempt, and for no other ever.

        Raises
        ------
        StaleLabelError
            If this node does not have them, or they are another round's or were used for another attempt.
        """
        with self._memory.transaction() as db:
            place = (label.hash, public, label.task, label.round)
            db.execute("UPDATE mask SET label = ? WHERE public = ? AND task = ? AND round = ? AND label IS NULL", place)
            row = db.execute("SELECT label, secrets FROM mask WHERE public = ?", (public,)).fetchone()
        if row is None or row[0] != label.hash or row[1] is None:
            raise StaleLabelError(
                "The ticket names an ephemeral key that this node used before, lost, or made for another round; it "
                "needs a set-up trip"
            )
        return MaskSecrets.from_bytes(bytes(row[1]))

    def erase(self, label: RoundLabel) -> None:
        """Erase the secrets used for an attempt whose reply is kept; the own share stays."""
        with self._memory.transaction() as db:
            db.execute("UPDATE mask SET secrets = NULL WHERE label = ?", (label.hash,))

    def share(self, public: bytes, label: RoundLabel) -> bytes | None:
        """Return the own share of the seed used in an attempt, None if it was not used there."""
        with self._memory.transaction() as db:
            row = db.execute("SELECT share FROM mask WHERE public = ? AND label = ?", (public, label.hash)).fetchone()
        return None if row is None else bytes(row[0])

    # ------------------------------------------------------------------ others' secrets
    def give(self, kinds: Mapping[bytes, str]) -> None:
        """Remember which share is given for each ephemeral key, before one is.

        Raises
        ------
        AlreadyOpenedError
            If the other share was given for one of them; nothing is remembered then. Both together would open that
            client's vector.
        """
        with self._memory.transaction() as db:
            for public, kind in kinds.items():
                db.execute("INSERT OR IGNORE INTO given VALUES (?, ?)", (public, kind))
                if db.execute("SELECT kind FROM given WHERE public = ?", (public,)).fetchone()[0] != kind:
                    raise AlreadyOpenedError(
                        "This node gave the other kind of share for one of these clients: as survivor or as dropped, "
                        "never as both"
                    )

    def was_given(self, publics: Iterable[bytes]) -> bool:
        """Whether a share was given for one of these keys: its secret, or its owner's seed, may be known."""
        with self._memory.transaction() as db:
            found = (db.execute("SELECT 1 FROM given WHERE public = ?", (public,)).fetchone() for public in publics)
            return any(row is not None for row in found)
