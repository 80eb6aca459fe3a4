"""The end of a run with a ledger: the committee judges the final model, and the task is paid or left to be refunded."""

from __future__ import annotations

from collections.abc import Mapping
from logging import INFO, WARNING

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.common.logger import log

from ..encoding import parse
from ..errors import FlbcError, ProtocolError, VerificationError
from ..ledger.record import SettleRecord
from ..node.endorsement import COMMITTEE
from ..node.settlement import BPS, Settlement, SettleRequest, check_settlement, unpack_answer
from ..node.ticket import Ticket
from ..roster import Party
from ..round import Signed
from ..tokens import Evaluation
from . import wire
from .chain import Chain
from .grid import exchange
from .session import Session

#: Seconds for the committee to evaluate and to sign; apps evaluate on a whole data set.
_TIMEOUT = 600.0


def settle(session: Session, chain: Chain, arrays: ArrayRecord, evaluation: tuple[str, str, ConfigRecord]) -> bool:
    """Judge the final model, have the result signed, and write it to the ledger.

    Parameters
    ----------
    session : Session
    chain : Chain
    arrays : ArrayRecord
        The final model.
    evaluation : (str, str, ConfigRecord)
        Names of the records in an evaluate message of the wrapped strategy, and its config.

    Returns
    -------
    bool
        False if the task is not paid: the log says why, and the escrow goes back after the deadline.
    """
    try:
        if not arrays or not chain.links:
            raise VerificationError("no round was recorded")
        evaluations = _judge(session, arrays, evaluation) if chain.covenant.accuracy_bps else ()
        model = wire.arrays_hash(arrays)
        request = SettleRequest(
            chain.started.initial, tuple(chain.links), evaluations, model, chain.book.link, chain.started.reward
        )
        ticket = session.ticket(session.config.rounds, 0, (), model, summed=False)
        settled = check_settlement(ticket, request)
        chain.book.settle(_signed(session, chain, ticket, request, settled))
    except FlbcError as error:
        log(
            WARNING,
            "flbc: the task is not settled; after its deadline `flbc task refund` returns the escrow: %s",
            error,
        )
        return False
    if chain.covenant.accuracy_bps:
        log(INFO, "flbc: the task is settled; accuracy %.2f %%", settled.token.accuracy_bps / 100)
    else:
        log(INFO, "flbc: the task is settled, paid for the rounds alone")
    return True


def _judge(session: Session, arrays: ArrayRecord, evaluation: tuple[str, str, ConfigRecord]) -> tuple[Signed, ...]:
    """Return the committee's signed evaluations by rising roster index."""
    arrays_name, config_name, config = evaluation
    config["server-round"] = session.config.rounds
    content = RecordDict({arrays_name: arrays, config_name: config})
    ticket = session.ticket(session.config.rounds, 0, (), wire.content_hash(content), summed=False)
    content[wire.RECORD] = wire.stage_record(wire.JUDGE, ticket.to_wire())
    online = session.directory.online(session.grid, COMMITTEE)
    members = {node: card.party for node, card in online.items() if session.takes_part(node)}
    messages = [Message(content, dst_node_id=n, message_type="evaluate", group_id="settle") for n in members]
    found: dict[int, Signed] = {}
    model = wire.arrays_hash(arrays)
    for node, message in _answers(session, messages, "judge the model").items():
        party = members[node]
        try:
            found[ticket.roster.index(party.name)] = _evaluation(message, ticket, party, model)
        except FlbcError as error:
            log(WARNING, "flbc: the evaluation of %s is left out: %s", party.name, error)
    return tuple(found[index] for index in sorted(found))


def _evaluation(message: Message, ticket: Ticket, party: Party, model: bytes) -> Signed:
    record = wire.read_record(message.content)
    if record is None:
        raise ProtocolError("it holds no flbc record")
    signed = Signed.from_dict(Evaluation, parse(wire.bytes_of(record, "evaluation")["evaluation"], "evaluation"))
    value = signed.value
    if not isinstance(value, Evaluation) or ticket.roster.parties[value.party : value.party + 1] != (party,):
        raise ProtocolError("it is of another party")
    if (value.task, value.model) != (ticket.label.task, model):
        raise ProtocolError("it is about another task or model")
    if value.accuracy_bps > BPS or not value.examples:
        raise ProtocolError("it states an impossible accuracy")
    signed.verify(party.address, ticket.label.domain)
    return signed


def _signed(
    session: Session, chain: Chain, ticket: Ticket, request: SettleRequest, settled: Settlement
) -> SettleRecord:
    """Ask the last leader and the committee for their signatures."""
    roster, where = ticket.roster, ticket.label.domain
    last = chain.links[-1][0].block.leader
    wanted = {party.name for _, party in roster.with_role(COMMITTEE)} | {roster.parties[last].name}
    cards = session.directory.cards(session.grid).items()
    nodes = {n: card.party for n, card in cards if card.party.name in wanted and session.takes_part(n)}
    body = request.encode()
    messages = [wire.request(wire.SETTLE, ticket.to_wire(), node, ticket.label.round, body) for node in nodes]
    tokens: dict[int, bytes] = {}
    votes: dict[int, bytes] = {}
    for node, message in _answers(session, messages, "sign the settlement").items():
        party, index = nodes[node], roster.index(nodes[node].name)
        try:
            record = wire.read_record(message.content)
            if record is None:
                raise ProtocolError("it holds no flbc record")
            signature, vote = unpack_answer(wire.bytes_of(record, "model", "vote"))
            Signed(settled.token, signature).verify(party.address, where)
            tokens[index] = signature
            if vote:
                Signed(settled.result, vote).verify(party.address, where)
                votes[index] = vote
        except FlbcError as error:
            log(WARNING, "flbc: the signature of %s is left out: %s", party.name, error)
    if not tokens or len(votes) < chain.covenant.quorum:
        raise VerificationError(f"{len(votes)} members signed the settlement; the quorum is {chain.covenant.quorum}")
    signer = last if last in tokens else min(tokens)  # the last leader, or who stands in when it is silent
    return SettleRecord(
        settled.token, signer, tokens[signer], settled.evaluations, settled.payouts, sorted(votes.items()),
        chain.opening,
    )  # fmt: skip


def _answers(session: Session, messages: list[Message], what: str) -> Mapping[int, Message]:
    """Send, and return the answers that are no errors."""
    replies = exchange(session.grid, messages, _TIMEOUT)
    good: dict[int, Message] = {}
    for node, message in replies.items():
        if message.has_error():
            party = session.directory.party(node)
            reason = (message.error.reason or "no reason").strip().splitlines()[-1]
            log(WARNING, "flbc: %s did not %s: %s", party.name if party else node, what, reason)
        else:
            good[node] = message
    return good
