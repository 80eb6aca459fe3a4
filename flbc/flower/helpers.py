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
from ..node.ticket import Ticket
from ..roster import GENERATOR, Party
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
            answers: dict[str, bytes] = {}
            for name, body in bodies.items():
                helper = self.ticket.roster.parties[self.ticket.roster.index(name)]
                answer = self._ask(helper, body)
                if answer is None:
                    silent.append(name)
                else:
                    answers[name] = answer
            return answers

        for _ in range(_TRIES):
            total = combiner.open(self.request.hidden, ask)
            if total is not None:
                return total
        raise AbandonedError(f"{silent[-1]} did not help to open the sum within {_TRIES} x {self.timeout:g} s")

    def _ask(self, helper: Party, body: bytes) -> bytes | None:
        """Ask a helper wherever it is now: a restarted node has a new id. None if it does not answer."""
        session, begin = self.session, time.monotonic()
        stage = wire.DERIVE if helper.has(GENERATOR) else wire.OPEN
        parts = {**self.ticket.to_wire(), "request": self.request.header()}
        nodes = [node for node, card in session.directory.cards(session.grid).items() if card.party == helper]
        messages = [wire.request(stage, parts, node, self.ticket.label.round, body) for node in nodes]
        for reply in exchange(session.grid, messages, self.timeout).values():
            if not reply.has_error():
                return self._key(reply, helper) if stage == wire.DERIVE else self._sum(reply, helper)
            reason = (reply.error.reason or "no reason").strip().splitlines()[-1]
            if reply.error.code == wire.REFUSED:  # asking again cannot help
                raise AbandonedError(f"{helper.name} refused: {reason}")
            log(WARNING, "flbc: %s did not help to open the sum (error %d): %s", helper.name, reply.error.code, reason)
        while not nodes and time.monotonic() - begin < self.timeout and not self._online(helper):
            time.sleep(min(1.0, self.timeout / 10))  # offline: give it the rest of the stage to come back
        return None

    def _online(self, helper: Party) -> bool:
        return any(card.party == helper for card in self.session.directory.cards(self.session.grid).values())

    def _key(self, reply: Message, helper: Party) -> bytes:
        """Verify a function key; the decryptor is sent the answer as it came."""
        answer = wire.unseal(reply.content)
        check_key(*unpack_key(answer), self.request.block, self.ticket, helper.address)
        return answer

    def _sum(self, reply: Message, helper: Party) -> bytes:
        """Verify an opened sum, and keep the opener's word for the ledger."""
        signed, total = unpack_opening(wire.unseal(reply.content), self.ticket.spec.length)
        check_opening(signed, total, self.request.block, self.ticket, helper.address)
        if self.session.chain is not None:
            self.session.chain.opening = SignedOpening(signed, self.ticket.roster.index(helper.name))
        return vector_to_bytes(total)
