"""What a verifier remembers of models that it checked, and how it gives its part of their sum (S8). Loads no torch.

An attempt is checked for one set of models. For a block that lists exactly those that passed, once a round, the part is
given.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..crypto.signing import keccak256
from ..errors import AlreadyOpenedError, OpeningRefusedError, ProtocolError, StaleLabelError
from ..round import UNBOUNDED, Opening, Signed
from ..schemes import IntVector
from ..schemes.base import vector_from_bytes
from .memory import KEPT_TASKS, NodeMemory
from .opening import OpenRequest, check_request, reserve_free
from .seats import SCHEME, verifiers

if TYPE_CHECKING:
    from .identity import Identity
    from .pins import Pins
    from .ticket import Ticket

_SCHEMA = """
CREATE TABLE IF NOT EXISTS checked (
    label BLOB PRIMARY KEY, task BLOB NOT NULL, round INTEGER NOT NULL, attempt INTEGER NOT NULL,
    context BLOB NOT NULL, tries INTEGER NOT NULL, verdict TEXT, part BLOB, answer BLOB) STRICT;
"""


_OLD_TASKS = """
DELETE FROM checked WHERE task NOT IN (SELECT task FROM checked GROUP BY task ORDER BY max(rowid) DESC LIMIT ?)
"""
_TRIES = 2


@dataclass(frozen=True)
class Checked:
    """What a verifier kept of an attempt: which submissions it summed, whom it rejected, its part of the sum."""

    summed: tuple[bytes, ...]
    rejected: tuple[int, ...]
    part: bytes


class CheckMemory:
    """The verifier's part of a node's memory, in the same file.

    Parameters
    ----------
    memory : NodeMemory
    """

    def __init__(self, memory: NodeMemory) -> None:
        self._memory = memory
        memory.prepare(_SCHEMA)

    def begin(self, ticket: Ticket, context: bytes) -> bytes | None:
        """Remember what an attempt asks about, before anything of it is computed.

        Each set of models that is compared, and each set of validation samples, says a little more about a model. So an
        attempt is checked once, or twice if the first time came to no end; and without a ledger, where an honest server
        needs no second attempt, a round has one.

        Returns
        -------
        bytes or None
            What was answered before; None if nothing was.

        Raises
        ------
        AlreadyOpenedError
            If the attempt (without a ledger: the round) asked about other models before, or the round is opened.
        StaleLabelError
            If a later attempt or round was checked, or this one came to no end twice.
        """
        label, place = ticket.label, (ticket.label.task, ticket.label.round)
        with self._memory.transaction() as db:
            opened = db.execute("SELECT 1 FROM opened WHERE task = ? AND round >= ?", (label.task, label.round))
            if opened.fetchone() is not None:
                raise AlreadyOpenedError(f"Round {label.round} was opened; its models are not checked again")
            later = "SELECT 1 FROM checked WHERE task = ? AND (round > ? OR (round = ? AND attempt > ?))"
            if db.execute(later, (*place, label.round, label.attempt)).fetchone() is not None:
                raise StaleLabelError("Models of a later attempt or round were checked; labels must rise")
            others = db.execute(
                "SELECT 1 FROM checked WHERE task = ? AND round = ? AND label != ?", (*place, label.hash)
            )
            if ticket.beacon is None and others.fetchone() is not None:
                raise AlreadyOpenedError("The models of this round were checked before; without a ledger that is all")
            row = (label.hash, *place, label.attempt, context)
            db.execute("INSERT OR IGNORE INTO checked VALUES (?, ?, ?, ?, ?, 0, NULL, NULL, NULL)", row)
            db.execute("UPDATE checked SET tries = tries + 1 WHERE label = ?", (label.hash,))
            known, tries, answer = db.execute(
                "SELECT context, tries, answer FROM checked WHERE label = ?", (label.hash,)
            ).fetchone()
            db.execute(_OLD_TASKS, (KEPT_TASKS,))
        if known != context:
            raise AlreadyOpenedError("This attempt asked about other models before")
        if answer is None and tries > _TRIES:
            raise StaleLabelError(f"The models of this attempt were checked {_TRIES} times without coming to an end")
        return None if answer is None else bytes(answer)

    def keep(
        self, ticket: Ticket, summed: Sequence[bytes], rejected: Sequence[int], part: bytes, answer: bytes
    ) -> None:
        """Keep verdict, part and answer before they are said; parts of other attempts are erased."""
        label = ticket.label
        with self._memory.transaction() as db:
            verdict = json.dumps([[item.hex() for item in summed], list(rejected)])
            row = (verdict, part, answer, label.hash)
            db.execute("UPDATE checked SET verdict = ?, part = ?, answer = ? WHERE label = ?", row)
            db.execute("UPDATE checked SET part = NULL WHERE task = ? AND label != ?", (label.task, label.hash))

    def kept(self, ticket: Ticket) -> Checked | None:
        """Return what was kept of an attempt; None if it was not checked to the end, or too few passed."""
        with self._memory.transaction() as db:
            row = db.execute("SELECT verdict, part FROM checked WHERE label = ?", (ticket.label.hash,)).fetchone()
        if row is None or row[0] is None or not row[1]:
            return None
        summed, rejected = json.loads(row[0])
        return Checked(tuple(bytes.fromhex(item) for item in summed), tuple(rejected), bytes(row[1]))


def seat_of(ticket: Ticket, me: Identity) -> int:
    """Return a node's seat; :class:`ProtocolError` if it has none."""
    names = [party.name for party in verifiers(ticket.roster)]
    if ticket.config.scheme != SCHEME or me.name not in names:
        raise ProtocolError("This node checks no models of this task")
    return names.index(me.name)


class PartGiver:
    """A verifier when a sum is opened.

    Parameters
    ----------
    me : Identity
    pins : Pins
    memory : NodeMemory
        Durable.
    """

    def __init__(self, me: Identity, pins: Pins, memory: NodeMemory) -> None:
        self.me, self.pins, self.memory = me, pins, memory

    def give(self, ticket: Ticket, request: OpenRequest) -> tuple[Signed, IntVector]:
        """Give this node's part of the sum of a block, once a round.

        Raises
        ------
        OpeningRefusedError
            If the block sums others than those that passed, or another block of the round was opened.
        FlbcError
            If anything about ticket, block or submissions does not verify.
        """
        seat_of(ticket, self.me)
        check_request(ticket, request, self.pins.policy)
        label, block = ticket.label, request.block
        checked = CheckMemory(self.memory).kept(ticket)
        if checked is None:
            raise OpeningRefusedError("This node has checked no models of this attempt, or too few passed")
        if block.submissions != checked.summed or not set(checked.rejected) <= set(block.rejected):
            raise OpeningRefusedError("The block does not sum exactly the models that passed")
        answer = reserve_free(ticket, block.hash, self.memory)  # after the comparison: a wrong block burns no round
        if answer is None:
            answer = self.memory.keep_opening(label.task, label.round, checked.part)
        if not answer:
            raise OpeningRefusedError("A later round was opened; this round is over")
        part = vector_from_bytes(answer, ticket.spec.length)
        signed = Signed.make(Opening(block.hash, keccak256(answer), 0, UNBOUNDED), self.me.keys.signing, label.domain)
        return signed, part
