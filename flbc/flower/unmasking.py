"""The second trip of a masked round: ask for shares, all holders at once, and open the sum."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from logging import WARNING
from pathlib import Path

from flwr.app import Message
from flwr.common.logger import log

from ..errors import FlbcError
from ..node.masked import graph_of
from ..node.memory import NodeMemory
from ..node.opening import OpenRequest, noise_of, reserve
from ..node.ticket import Ticket
from ..round import Submission
from ..schemes import IntVector
from ..schemes.masking_opening import MaskingCombiner
from . import wire
from .dealers import Dealers
from .grid import exchange
from .helpers import AbandonedError
from .session import Session

#: Holders that did not answer are asked again: the same block gets the same bytes.
_TRIES = 2


class Unmasking:
    """Opens the sums of a task; see :class:`flbc.flower.session.Opening`.

    Parameters
    ----------
    dealers : Dealers
    timeout : float
        Seconds for an answer.
    directory : Path
        Where the server remembers what it opened, and what of the budget is spent when the noise is its own (S20).
    """

    def __init__(self, dealers: Dealers, timeout: float, directory: Path) -> None:
        self._dealers, self._timeout, self._directory = dealers, timeout, directory

    def __call__(self, session: Session, ticket: Ticket, request: OpenRequest) -> IntVector:
        """Return the opened sum.

        Raises
        ------
        AbandonedError
            If fewer holders than the threshold answer. Who dealt what cannot be opened is left out for some rounds.
        OpeningRefusedError
            If shares do not fit, or the sum is out of range.
        BudgetExhaustedError
            If the noise is the server's, and the budget does not pay for another sum.
        """
        names = [party.name for party in ticket.roster.parties]
        survivors = {}
        for signed in request.submissions:
            if isinstance(signed.value, Submission):
                survivors[names[signed.value.party]] = signed.value.nonce
        noise = noise_of(ticket.config)
        if noise is not None:
            reserve(ticket, request.block.hash, NodeMemory(self._directory))
        dealings = {name: deposit.dealing for name, deposit in self._dealers.deposits(ticket).items()}
        graph = graph_of(ticket, ticket.label.round)
        opening = MaskingCombiner(ticket.spec, ticket.label.hash, dealings, survivors, graph, noise)
        answers = self._answers(session, ticket, request, opening)
        given = {name: opening.read(name, answer) for name, answer in answers.items()}
        guilty = opening.guilty(given)
        self._dealers.suspend(guilty, ticket.label.round, "its shares cannot be opened, or do not fit what it dealt")
        total = opening.open(request.hidden, lambda requests: answers)
        if total is None:
            raise AbandonedError(
                f"{len(answers)} of {len(dealings)} clients gave their shares within {_TRIES} x {self._timeout:g} s, "
                f"too few to take off the masks of {', '.join(opening.missing(given))}"
            )
        for name in sorted(opening.liars):
            log(WARNING, "flbc: round %d: %s gave a wrong share, or was dealt one", ticket.label.round, name)
        return total

    def _answers(
        self, session: Session, ticket: Ticket, request: OpenRequest, opening: MaskingCombiner
    ) -> dict[str, bytes]:
        """Ask every holder that is online until there are enough shares; a second time those that were silent."""
        bodies, answers = opening.requests(), dict[str, bytes]()
        parts = {**ticket.to_wire(), "request": request.header()}
        for _ in range(_TRIES):
            cards = session.directory.cards(session.grid)
            asked = {
                node: card.party.name
                for node, card in cards.items()
                if card.party in ticket.roster.parties and card.party.name in bodies and card.party.name not in answers
            }
            messages = [
                wire.request(wire.UNMASK, parts, node, ticket.label.round, bodies[name]) for node, name in asked.items()
            ]

            enough = partial(self._enough, opening, answers, asked)
            replies = exchange(session.grid, messages, self._timeout, enough)
            answers = {**answers, **self._read(replies, asked, opening, quiet=False)}
            if self._settled(opening, answers):
                break
        return answers

    def _enough(
        self,
        opening: MaskingCombiner,
        before: Mapping[str, bytes],
        asked: Mapping[int, str],
        replies: Mapping[int, Message],
    ) -> bool:
        return self._settled(opening, {**before, **self._read(replies, asked, opening, quiet=True)})

    @staticmethod
    def _settled(opening: MaskingCombiner, answers: Mapping[str, bytes]) -> bool:
        """Whether there are enough shares, and they fit: with a false one among few, more are waited for."""
        given = {name: opening.read(name, answer) for name, answer in answers.items()}
        return not opening.missing(given) and not opening.misfits(given)

    @staticmethod
    def _read(
        replies: Mapping[int, Message], asked: Mapping[int, str], opening: MaskingCombiner, quiet: bool
    ) -> dict[str, bytes]:
        """Return well-formed answers by holder."""
        answers = {}
        for node, reply in replies.items():
            name = asked[node]
            try:
                if reply.has_error():
                    reason = (reply.error.reason or "no reason").strip().splitlines()[-1]
                    raise AbandonedError(f"error {reply.error.code}: {reason}")
                answer = wire.unseal(reply.content)
                opening.read(name, answer)
                answers[name] = answer
            except FlbcError as error:
                if not quiet:
                    log(WARNING, "flbc: %s gave no shares: %s", name, error)
        return answers
