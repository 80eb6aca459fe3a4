"""Verify what clients sent for an attempt; what does not verify is left out, and the log says why."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from logging import WARNING
from typing import Any

from flwr.app import Message
from flwr.common.logger import log

from ..codec.metrics import count_metrics
from ..crypto.signing import keccak256
from ..errors import CiphertextError, CodecError, ProtocolError, VerificationError
from ..node.committee import Entry
from ..node.draw import check_draw
from ..node.opening import check_submissions
from ..node.participant import MAX_WEIGHT, Reply, content_of
from ..node.ticket import Ticket
from ..round import Signed, Submission
from ..schemes import Combiner
from . import wire
from .session import Session


@dataclass(frozen=True, slots=True)
class Accepted:
    """A verified submission, its payload, and the metrics the client revealed."""

    signed: Signed
    reply: Reply
    clear: Mapping[str, Any]

    @property
    def entry(self) -> Entry:
        """The submission as leader and committee get it."""
        return Entry(self.signed, self.reply.proof, self.reply.payload)


@dataclass(frozen=True, slots=True)
class Collected:
    """Replies by roster index, and the size classes that were asked for.

    ``rejected`` are signed submissions with a payload that no sum can hold; with a ledger they are recorded as such.
    ``riding`` is what rode on verified submissions for the next round, ``unused`` who sent a size class instead.
    """

    accepted: dict[int, Accepted] = field(default_factory=dict)
    rejected: dict[int, Accepted] = field(default_factory=dict)
    classes: list[float] = field(default_factory=list)
    riding: dict[str, bytes] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Collector:
    """Verifies the replies to one ticket."""

    session: Session
    combiner: Combiner
    ticket: Ticket

    def collect(self, replies: Mapping[int, Message]) -> Collected:
        """Sort replies, by node, into accepted, rejected, and left out."""
        found = Collected()
        for node, message in replies.items():
            party = self.session.directory.party(node)
            name = str(node) if party is None else party.name
            if message.has_error():
                reason = (message.error.reason or "no reason").strip().splitlines()[-1]
                log(WARNING, "flbc: %s sent no update: %s", name, reason)
                continue
            try:
                reply = _read_reply(message)
                if reply.submission is None:
                    found.classes.append(self._size_class(reply.size_class))
                    found.unused.append(name)
                    continue
                index = self._check(reply, reply.submission, name)
                entry = Accepted(reply.submission, reply, self._clear(message))
                found.riding[name] = reply.next_keys
                try:
                    self.combiner.check(reply.payload)
                except CiphertextError:
                    found.rejected[index] = entry
                    raise
                found.accepted[index] = entry
            except (ProtocolError, VerificationError, CiphertextError, CodecError) as error:
                log(WARNING, "flbc: the reply of %s is left out: %s", name, error)
        return found

    def _size_class(self, asked: float) -> float:
        """Return a requested size class; :class:`ProtocolError` unless it is a power of two that is needed."""
        config = self.session.config
        if config.privacy is not None or config.codec["max_examples"] is not None:
            raise ProtocolError("it asks for a size class, and this task has none")
        if not self.ticket.frame.max_weight < asked <= MAX_WEIGHT or math.frexp(asked)[0] != 0.5:
            raise ProtocolError("it asks for a size class that is none, or that holds already")
        return asked

    def _clear(self, message: Message) -> dict[str, Any]:
        """Return the metrics that the task reveals; a client may not slip in others."""
        records = message.content.metric_records.values()
        allowed = self.session.config.reveal_metrics
        return {name: value for record in records for name, value in record.items() if name in allowed}

    def _check(self, reply: Reply, signed: Signed, name: str) -> int:
        """Verify one reply of the party called ``name``; return its roster index."""
        roster = self.ticket.roster
        check_submissions([signed], self.ticket)
        value = signed.value
        if not isinstance(value, Submission) or roster.parties[value.party].name != name:
            raise VerificationError("it signed as another party")
        if value.payload != keccak256(reply.payload):
            raise VerificationError("the payload is not the one it signed")
        if value.next_keys != content_of(reply.next_keys):
            raise VerificationError("what rides on its submission is not what it signed")
        if count_metrics(reply.metric_names) > self.session.plan.codec.max_metrics:
            raise ProtocolError("it names more metrics than the codec holds")
        beacon = self.ticket.beacon
        if beacon is not None:
            if value.vrf != keccak256(reply.proof):
                raise VerificationError("the proof of its draw is not the one it signed")
            check_draw(reply.proof, roster.parties[value.party], beacon.seed, beacon.height + 1, value.draw)
        return value.party


def _read_reply(message: Message) -> Reply:
    record = wire.read_record(message.content)
    if record is None:
        raise ProtocolError("it is not protected; is SecureMod() the first of the ClientApp's mods?")
    payload = wire.unseal(message.content) if message.content.array_records else b""
    return Reply.parse(wire.bytes_of(record, "reply")["reply"], payload)
