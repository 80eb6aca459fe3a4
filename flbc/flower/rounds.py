"""A round after training: verify replies, combine, have the sum opened, decode."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from logging import WARNING
from typing import Any

from flwr.app import ArrayRecord, Message
from flwr.common.logger import log

from ..codec import OpenedUpdate
from ..codec.metrics import count_metrics
from ..crypto.signing import keccak256
from ..errors import CiphertextError, CodecError, FlbcError, ProtocolError, VerificationError
from ..node.authority import OpenRequest, check_opening, check_submissions, unpack_opening
from ..node.participant import MAX_WEIGHT, Reply
from ..node.ticket import Ticket
from ..roster import Party
from ..round import NO_LEADER, Block, Signed, Submission
from ..schemes import Combiner, IntVector
from ..schemes.base import vector_to_bytes
from . import wire
from .grid import exchange
from .report import RoundReport
from .session import Session

#: Size classes of late joiners may need another attempt; more than this many means that a client plays games.
_MAX_ATTEMPTS = 4
#: A helper that does not answer is asked again: the same block gets the same bytes.
_OPEN_TRIES = 2


class AbandonedError(FlbcError):
    """A round cannot be finished; the model is kept."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A verified submission, its payload, and the metrics the client revealed."""

    signed: Signed
    reply: Reply
    clear: Mapping[str, Any]


@dataclass
class SecureRound:
    """One round.

    Parameters
    ----------
    session : Session
    combiner : Combiner
        The scheme's server half.
    number : int
    arrays : ArrayRecord
        The global model that was sent.
    ticket : Ticket
        Of the last attempt.
    begin : float
        ``time.monotonic()`` when training was configured.
    timeout : float
        Seconds for a stage.
    """

    session: Session
    combiner: Combiner
    number: int
    arrays: ArrayRecord
    ticket: Ticket
    begin: float
    timeout: float

    def finish(
        self, replies: Mapping[int, Message]
    ) -> tuple[OpenedUpdate, tuple[str, ...], list[Mapping[str, Any]], RoundReport]:
        """Walk from the clients' replies to the decoded mean.

        Returns
        -------
        opened : OpenedUpdate
        metric_names : tuple of str
            Of the metrics inside the sum.
        clear : list of mapping
            Per accepted client, the metrics it revealed.
        report : RoundReport

        Raises
        ------
        FlbcError
            Says why the round is abandoned. If it was opened before, it counts in epsilon all the same.
        """
        session, trained = self.session, time.monotonic()
        accepted, metric_names = self._agreeing(self._collect(replies))
        if len(accepted) < session.config.min_survivors:
            need = session.config.min_survivors
            raise AbandonedError(f"{len(accepted)} updates arrived, fewer than min_survivors = {need}")
        begin = time.monotonic()
        hidden = self.combiner.combine({index: entry.reply.payload for index, entry in accepted.items()})
        submissions = tuple(accepted[index].signed for index in sorted(accepted))
        hashes = tuple(signed.value.hash for signed in submissions)
        block = Block(session.parent, self.ticket.label.hash, NO_LEADER, hashes, (), keccak256(hidden))
        combined = time.monotonic()
        session.openings += 1  # before asking: an answer that gets lost on the way was paid for
        total = self._open(OpenRequest(block, submissions, hidden))
        done = time.monotonic()
        session.parent = block.hash
        opened = self._decode(total, [self.ticket.roster.parties[index] for index in sorted(accepted)], metric_names)
        session.frame = session.plan.next_frame(self.ticket.frame, opened)
        report = RoundReport(
            self.number,
            survivors=len(accepted),
            bytes_per_client=len(hidden),
            saturated=opened.saturated,
            train_seconds=trained - self.begin,
            combine_seconds=combined - begin,
            open_seconds=done - combined,
        )
        return opened, metric_names, [entry.clear for entry in accepted.values()], report

    def _agreeing(self, accepted: dict[int, Accepted]) -> tuple[dict[int, Accepted], tuple[str, ...]]:
        """Keep the clients that report the metrics most report; their sums stand in the same coordinates."""
        groups = Counter(entry.reply.metric_names for entry in accepted.values())
        if not groups:
            return {}, ()
        names = groups.most_common(1)[0][0]
        for index, entry in accepted.items():
            if entry.reply.metric_names != names:
                party = self.ticket.roster.parties[index].name
                log(WARNING, "flbc: the reply of %s is left out: it reports other metrics than most", party)
        return {i: entry for i, entry in accepted.items() if entry.reply.metric_names == names}, names

    def _collect(self, replies: Mapping[int, Message]) -> dict[int, Accepted]:
        """Verify replies, asking for another attempt where a client's weight does not fit the frame."""
        session = self.session
        while True:
            accepted, classes = self._verify(replies)
            if not classes:
                return accepted
            if self.ticket.label.attempt + 1 >= _MAX_ATTEMPTS:
                raise AbandonedError("clients keep reporting larger weights")
            session.frame = replace(session.frame, max_weight=max(*classes, session.frame.max_weight))
            nodes = [node for node, reply in replies.items() if reply.has_content()]
            label = self.ticket.label
            self.ticket = session.ticket(label.round, label.attempt + 1, nodes, label.model)
            parts = self.ticket.to_wire()
            messages = [wire.request(wire.REPROTECT, parts, node, self.number) for node in nodes]
            replies = exchange(session.grid, messages, self.timeout)

    def _verify(self, replies: Mapping[int, Message]) -> tuple[dict[int, Accepted], list[float]]:
        """Return accepted replies by roster index, and requested size classes; log what is left out and why."""
        accepted: dict[int, Accepted] = {}
        classes: list[float] = []
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
                    classes.append(self._size_class(reply.size_class))
                else:
                    index = self._check(reply, reply.submission, name)
                    accepted[index] = Accepted(reply.submission, reply, self._clear(message))
            except (ProtocolError, VerificationError, CiphertextError, CodecError) as error:
                log(WARNING, "flbc: the reply of %s is left out: %s", name, error)
        return accepted, classes

    def _size_class(self, asked: float) -> float:
        """Return a requested size class; :class:`ProtocolError` unless it is a power of two that is needed."""
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
        config, roster = self.session.config, self.ticket.roster
        check_submissions([signed], self.ticket.label, roster, config)
        value = signed.value
        if not isinstance(value, Submission) or roster.parties[value.party].name != name:
            raise VerificationError("it signed as another party")
        if value.payload != keccak256(reply.payload):
            raise VerificationError("the payload is not the one it signed")
        if count_metrics(reply.metric_names) > self.session.plan.codec.max_metrics:
            raise ProtocolError("it names more metrics than the codec holds")
        self.combiner.check(reply.payload)
        return value.party

    def _open(self, request: OpenRequest) -> IntVector:
        """Have the block opened."""
        helper = self.ticket.authority

        def ask(bodies: Mapping[str, bytes]) -> dict[str, bytes]:
            return self._ask(request, helper, bodies[helper.name])

        for _ in range(_OPEN_TRIES):
            total = self.combiner.open(request.hidden, ask)
            if total is not None:
                return total
        raise AbandonedError(f"{helper.name} did not open the sum within {_OPEN_TRIES} x {self.timeout:g} s")

    def _ask(self, request: OpenRequest, helper: Party, body: bytes) -> dict[str, bytes]:
        """Ask the helper wherever it is now: a restarted node has a new id."""
        session = self.session
        parts = {**self.ticket.to_wire(), "request": request.header()}
        online = session.directory.online(session.grid, session.helpers[0])
        nodes = [node for node, card in online.items() if card.party.name == helper.name]
        messages = [wire.request(wire.OPEN, parts, node, self.number, body) for node in nodes]
        begin = time.monotonic()
        for reply in exchange(session.grid, messages, self.timeout).values():
            if not reply.has_error():
                signed, total = unpack_opening(wire.unseal(reply.content), session.plan.length)
                check_opening(signed, total, request.block, self.ticket.label, helper.address, session.config)
                return {helper.name: vector_to_bytes(total)}
            reason = (reply.error.reason or "no reason").strip().splitlines()[-1]
            if reply.error.code == wire.REFUSED:  # asking again cannot help
                raise AbandonedError(f"{helper.name} refused: {reason}")
            log(WARNING, "flbc: %s did not open the sum (error %d): %s", helper.name, reply.error.code, reason)
        if not nodes:  # offline: give it the rest of the stage to come back
            while time.monotonic() - begin < self.timeout and session.helper is None:
                time.sleep(min(1.0, self.timeout / 10))
        return {}

    def _decode(self, total: IntVector, parties: list[Party], metric_names: tuple[str, ...]) -> OpenedUpdate:
        session = self.session
        if session.mechanism is None:
            opened = session.plan.decode(total, len(parties), count_metrics(metric_names), self.ticket.frame)
            if opened.saturated:
                log(WARNING, "flbc: %d coordinates did not fit their range (see Codec)", opened.saturated)
            return opened
        example = session.mechanism.unit == "example"
        count = sum(party.examples for party in parties) if example else len(parties)
        return session.plan.decode_private(total, session.mechanism.step, count)


def _read_reply(message: Message) -> Reply:
    record = wire.read_record(message.content)
    if record is None:
        raise ProtocolError("it is not protected; is SecureMod() the first of the ClientApp's mods?")
    payload = wire.unseal(message.content) if message.content.array_records else b""
    return Reply.parse(wire.bytes_of(record, "reply")["reply"], payload)
