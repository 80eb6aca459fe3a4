"""The verifiers' two trips of a round: have the models checked, and have the sum of those that passed opened."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from logging import INFO, WARNING

from flwr.app import Message, RecordDict
from flwr.common.logger import log

from ..cards import Verdict
from ..errors import FlbcError, TooFewNodesError
from ..node.model_request import ModelsRequest, unpack_many
from ..node.opening import OpenRequest, check_opening, unpack_opening
from ..node.seats import Seat, Table, verifiers
from ..node.ticket import Ticket
from ..node.verdict import Answer, check_verdicts
from ..roster import VERIFIER, Party, Roster
from ..round import Signed
from ..schemes import IntVector
from ..schemes.base import check_magnitude
from ..schemes.sharing import open_parts
from . import wire
from .collect import Accepted
from .grid import exchange
from .helpers import AbandonedError
from .session import Session

#: Verifiers that did not give their part are asked again: the same block gets the same bytes.
_TRIES = 2
#: Part of a stage that a verifier waits for a message of another one.
_PATIENCE = 3


@dataclass(frozen=True, slots=True)
class Checks:
    """What the verifiers found.

    Parameters
    ----------
    rejected : frozenset of int
        Roster indices of models that may not be summed, as far as the policy shows it.
    verdicts : tuple of Signed
        Of all three.
    """

    rejected: frozenset[int]
    verdicts: tuple[Signed, ...]


def _one_failed(replies: Mapping[int, Message]) -> bool:
    return any(reply.has_error() for reply in replies.values())


def _totals(stages: object) -> tuple[float, int, int]:
    """Return seconds, rounds of messages and bytes over all stages of a report, which nobody signed."""
    seconds, rounds, sent = 0.0, 0, 0
    for row in stages.values() if isinstance(stages, dict) else ():
        if isinstance(row, list) and len(row) == 3 and all(isinstance(number, int | float) for number in row):
            seconds, rounds, sent = seconds + row[0], rounds + int(row[1]), sent + int(row[2])
    return seconds, rounds, sent


@dataclass(frozen=True)
class Seats:
    """Makes the keys of an attempt: the verifiers' seats; see :class:`flbc.flower.session.KeyMaker`."""

    def __call__(
        self, session: Session, roster: Roster, server_round: int, skipped: int, attempt: int, nodes: Iterable[int]
    ) -> bytes:
        """Return what the three said of themselves.

        Raises
        ------
        TooFewNodesError
            If one of them is not there.
        """
        known = {card.party.name: card.keys for card in session.directory.known()}
        seats = {}
        for party in verifiers(roster):
            if not known.get(party.name):
                raise TooFewNodesError(f"The verifier {party.name!r} has not said where it sits")
            seats[party.name] = Seat.decode(known[party.name])
        return Table(seats).encoded


@dataclass
class Verification:
    """Has models checked and sums opened; see :class:`flbc.flower.session.Verifying` and :class:`.session.Opening`.

    Parameters
    ----------
    timeout : float
        Seconds for an answer.
    """

    timeout: float
    _told: set[str] = field(default_factory=set)

    def check(self, session: Session, ticket: Ticket, sent: RecordDict, accepted: Mapping[int, Accepted]) -> Checks:
        """Have an attempt's models checked.

        Raises
        ------
        AbandonedError
            If a verifier is missing, refuses or disagrees, or too few models passed.
        """
        entries = tuple(accepted[index].entry for index in sorted(accepted))
        request = ModelsRequest(entries)
        header, body = request.to_wire()
        parts: dict[str, bytes | str | int] = {
            **ticket.to_wire(), "request": header, "seconds": max(1, int(self.timeout / _PATIENCE))
        }  # fmt: skip
        messages = {}
        for node in self._nodes(session, ticket):
            content = RecordDict({**sent, wire.RECORD: wire.stage_record(wire.VERIFY, parts)})
            content[wire.PAYLOAD] = wire.seal(body)
            messages[node] = Message(content, dst_node_id=node, message_type="train", group_id=str(ticket.label.round))
        # One that refuses or is gone ends it for all three.
        replies = exchange(session.grid, messages.values(), self.timeout, _one_failed)
        answers = [
            Answer.decode(answer) for answer in self._collect(ticket, list(messages), replies, "checked nothing")
        ]
        verdicts = tuple(answer.verdict for answer in answers)
        try:
            found = check_verdicts(ticket, verdicts, request.models)
        except FlbcError as error:
            raise AbandonedError(f"the verifiers gave no verdict: {error}") from None
        report = answers[0].report
        self._log(ticket, len(entries), found, report)
        if not found.enough:
            raise AbandonedError(f"fewer than min_accepted = {ticket.config.min_survivors} models passed the checks")
        return Checks(frozenset(found.rejected), verdicts)

    def open(self, session: Session, ticket: Ticket, request: OpenRequest) -> IntVector:
        """Return the sum of the models that passed.

        Raises
        ------
        AbandonedError
            If a verifier does not give its part.
        """
        parts = {**ticket.to_wire(), "request": request.header()}
        for attempt in range(_TRIES):
            nodes = self._nodes(session, ticket)
            messages = [wire.request(wire.OPEN, parts, node, ticket.label.round, request.hidden) for node in nodes]
            replies = exchange(session.grid, messages, self.timeout, _one_failed)
            try:
                answers = self._collect(ticket, nodes, replies, "gave no part of the sum")
                break
            except AbandonedError:
                if attempt + 1 == _TRIES:
                    raise
        vectors = []
        for party, answer in zip(verifiers(ticket.roster), answers, strict=True):
            signed, part = unpack_opening(answer, ticket.spec.length)
            check_opening(signed, part, request.block, ticket, party.address)
            vectors.append(part)
        total, spec = open_parts(vectors), ticket.spec
        check_magnitude(total, len(request.submissions) * spec.max_multiplier * spec.max_abs)
        return total

    # ------------------------------------------------------------------ helpers
    @staticmethod
    def _nodes(session: Session, ticket: Ticket) -> list[int]:
        """Return the verifiers' nodes by seat; in simulation the first acts for all three."""
        places: dict[str, int] = {
            card.party.name: node for node, card in session.directory.online(session.grid, VERIFIER).items()
        }
        parties = verifiers(ticket.roster)
        gone = [party.name for party in parties if party.name not in places]
        if gone:
            raise AbandonedError(f"the verifier {gone[0]} is offline; all three must be there")
        nodes = [places[party.name] for party in parties]
        return nodes[:1] if session.simulation else nodes

    @staticmethod
    def _collect(ticket: Ticket, nodes: list[int], replies: Mapping[int, Message], what: str) -> list[bytes]:
        """Return the answers by seat."""
        parties: list[Party] = verifiers(ticket.roster)
        answers: list[bytes] = []
        failed: list[str] = []
        for node, party in zip(nodes, parties, strict=False):
            reply = replies.get(node)
            if reply is None or reply.has_error():
                reason = "no answer in time" if reply is None else (reply.error.reason or "no reason")
                failed.append(f"{party.name} {what}: {reason.strip().splitlines()[-1]}")
                continue
            answers += unpack_many(wire.unseal(reply.content))
        for text in failed:
            log(WARNING, "flbc: round %d: %s", ticket.label.round, text)
        if failed or len(answers) != len(parties):
            raise AbandonedError(failed[0] if failed else "the verifiers sent another number of answers")
        return answers

    @staticmethod
    def _log(ticket: Ticket, models: int, found: Verdict, report: Mapping[str, object]) -> None:
        """Say what was found, and what it cost one verifier by its own account."""
        names = [ticket.roster.parties[index].name for index in found.rejected]
        seconds, rounds, sent = _totals(report.get("stages"))
        log(
            INFO, "flbc: %d models checked on %s samples in %.2f s, %d rounds of messages, %.1f MB sent by each: %s",
            models, report.get("samples"), seconds, rounds, sent / 1e6,
            f"rejected {', '.join(names)}" if names else "no model is named as rejected",
        )  # fmt: skip
