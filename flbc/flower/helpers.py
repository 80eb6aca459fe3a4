"""Have a sum opened: carry bytes between the nodes that help, and verify what they say before it counts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from logging import WARNING

from flwr.app import Message
from flwr.common.logger import log

from ..errors import FlbcError
from ..ledger.record import SignedOpening
from ..node.opening import OpenRequest, check_key, check_opening, unpack_key, unpack_opening
from ..node.paillier import SCHEME as PAILLIER
from ..node.paillier import THRESHOLD, shared_key
from ..node.threshold import check_partial, unpack_partial
from ..node.ticket import Ticket
from ..roster import AUTHORITY, GENERATOR, Party
from ..schemes import Combiner, IntVector
from ..schemes.base import vector_to_bytes
from . import wire
from .grid import exchange
from .session import Session

#: A helper that does not answer is asked again: the same block gets the same bytes.
_TRIES = 2


class AbandonedError(FlbcError):
    """A round cannot be finished; the model is kept."""


@dataclass(frozen=True, slots=True)
class Helpers:
    """The nodes that open the sum of one attempt.

    Parameters
    ----------
    session : Session
    ticket : Ticket
    request : OpenRequest
    timeout : float
        Seconds for an answer.
    """

    session: Session
    ticket: Ticket
    request: OpenRequest
    timeout: float

    def open(self, combiner: Combiner) -> IntVector:
        """Return the opened sum, verified.

        Raises
        ------
        AbandonedError
            If a helper refuses, or is silent twice.
        VerificationError
            If its answer is not what was asked for.
        """
        silent: list[str] = []

        def ask(bodies: Mapping[str, bytes]) -> dict[str, bytes]:
            answers = self._ask(bodies)
            silent.extend(name for name in bodies if name not in answers)
            return answers

        for _ in range(_TRIES):
            total = combiner.open(self.request.hidden, ask)
            if total is not None:
                return total
        names = ", ".join(dict.fromkeys(silent[-1:] if len(set(silent)) == 1 else silent))
        raise AbandonedError(f"{names} did not help to open the sum within {_TRIES} x {self.timeout:g} s")

    def _ask(self, bodies: Mapping[str, bytes]) -> dict[str, bytes]:
        """Ask helpers, all at once, wherever they are now: a restarted node has a new id.

        A single helper that is offline gets the rest of the stage to come back. Of several, those that refuse or answer
        falsely are left out, because the others may be enough.
        """
        session, begin = self.session, time.monotonic()
        roster = self.ticket.roster
        helpers = {name: roster.parties[roster.index(name)] for name in bodies}
        parts = {**self.ticket.to_wire(), "request": self.request.header()}
        names = {helper: name for name, helper in helpers.items()}
        cards = session.directory.cards(session.grid).items()
        nodes = {node: names[card.party] for node, card in cards if card.party in names}
        messages = [
            wire.request(self._stage(helpers[name]), parts, node, self.ticket.label.round, bodies[name])
            for node, name in nodes.items()
        ]
        needed = shared_key(self.ticket).threshold if len(bodies) > 1 else 1
        read: dict[int, bytes | None] = {}

        def verified(replies: dict[int, Message]) -> int:
            """Read what is new, and return how many answers are good: a false one must not end the wait for others."""
            for node in replies.keys() - read.keys():
                read[node] = self._read_one_of(len(bodies), replies[node], helpers[nodes[node]])
            return sum(answer is not None for answer in read.values())

        verified(
            exchange(
                session.grid,
                messages,
                self.timeout,
                # One to spare: an answer that its holder signed may still be false, which the authority alone can see.
                enough=lambda replies: verified(replies) > needed,
                nearly=lambda replies: verified(replies) == needed,
            )
        )
        answers = {nodes[node]: answer for node, answer in read.items() if answer is not None}
        if len(helpers) == 1:
            (helper,) = helpers.values()
            while not nodes and time.monotonic() - begin < self.timeout and not self._online(helper):
                time.sleep(min(1.0, self.timeout / 10))
        return answers

    def _read_one_of(self, asked: int, reply: Message, helper: Party) -> bytes | None:
        """Verify an answer; None if it does not count, because others were asked too and may be enough."""
        try:
            return self._read(reply, helper)
        except FlbcError as error:
            if asked == 1:
                raise
            log(WARNING, "flbc: the answer of %s is left out: %s", helper.name, error)
            return None

    def _stage(self, helper: Party) -> str:
        if helper.has(GENERATOR):
            return wire.DERIVE
        shared = (self.ticket.config.scheme, self.ticket.config.mode) == (PAILLIER, THRESHOLD)
        return wire.PARTIAL if shared and not helper.has(AUTHORITY) else wire.OPEN

    def _read(self, reply: Message, helper: Party) -> bytes | None:
        """Verify an answer; None if it is an error after which asking again may help."""
        if not reply.has_error():
            stage = self._stage(helper)
            if stage == wire.DERIVE:
                return self._key(reply, helper)
            return self._partial(reply, helper) if stage == wire.PARTIAL else self._sum(reply, helper)
        reason = (reply.error.reason or "no reason").strip().splitlines()[-1]
        if reply.error.code == wire.REFUSED:  # asking again cannot help
            raise AbandonedError(f"{helper.name} refused: {reason}")
        log(WARNING, "flbc: %s did not help to open the sum (error %d): %s", helper.name, reply.error.code, reason)
        return None

    def _online(self, helper: Party) -> bool:
        return any(card.party == helper for card in self.session.directory.cards(self.session.grid).values())

    def _key(self, reply: Message, helper: Party) -> bytes:
        """Verify a function key; the decryptor is sent the answer as it came."""
        answer = wire.unseal(reply.content)
        check_key(*unpack_key(answer), self.request.block, self.ticket, helper.address)
        return answer

    def _partial(self, reply: Message, helper: Party) -> bytes:
        """Verify a holder's signature; the authority is sent the answer as it came, in its box."""
        answer = wire.unseal(reply.content)
        check_partial(*unpack_partial(answer), self.request.block, self.ticket, helper)
        return answer

    def _sum(self, reply: Message, helper: Party) -> bytes:
        """Verify an opened sum, and keep the opener's word for the ledger."""
        signed, total = unpack_opening(wire.unseal(reply.content), self.ticket.spec.length)
        check_opening(signed, total, self.request.block, self.ticket, helper.address)
        if self.session.chain is not None:
            self.session.chain.opening = SignedOpening(signed, self.ticket.roster.index(helper.name))
        return vector_to_bytes(total)
