"""The stages that a node answers only with a ledger: sign a block, judge the final model, sign the settlement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict

from ..encoding import canonical
from ..errors import LayoutError, PolicyError, ProtocolError
from ..node.committee import AttestRequest
from ..node.settlement import ACCURACY, SettleRequest
from ..node.ticket import Ticket, admit
from . import wire
from .node import Node


def attest(message: Message, record: ConfigRecord, ticket: Ticket, node: Node) -> Message:
    """Recompute a block, and sign it as its leader or as a committee member."""
    request = AttestRequest.from_wire(wire.bytes_of(record, "request")["request"], wire.unseal(message.content))
    signed = node.attester.attest(ticket, request)
    parts = {"leader": signed.leader, "proof": signed.proof, "vote": signed.vote}
    return Message(RecordDict({wire.RECORD: wire.stage_record(wire.ATTEST, parts)}), reply_to=message)


def judge(message: Message, ticket: Ticket, node: Node, evaluate: Callable[[], Message], weight_key: str) -> Message:
    """Evaluate the final model on this member's data and sign the accuracy, which goes on the chain in clear.

    Parameters
    ----------
    message : Message
        Brings the final model.
    ticket : Ticket
    node : Node
    evaluate : callable
        Calls the app's evaluate function with the message.
    weight_key : str
        The metric that counts examples.
    """
    admit(ticket, node.me, node.pins, node.memory)
    if ticket.label.model != wire.content_hash(message.content):
        raise ProtocolError("The label commits to another model than the one that was sent to be judged")
    if ticket.config.privacy is not None and ACCURACY not in ticket.config.reveal_metrics:
        raise PolicyError(f'The task does not reveal "{ACCURACY}", so this node does not put it on the ledger')
    model = wire.arrays_hash(only(message.content.array_records, "message to be judged"))
    reply = evaluate()
    if reply.has_error():
        return reply
    metrics = dict(only(reply.content.metric_records, "evaluate reply"))
    accuracy, examples = metrics.get(ACCURACY), metrics.get(weight_key)
    if not isinstance(accuracy, float) or type(examples) is not int:
        raise LayoutError(
            f"To judge a model the app's evaluate function must return {ACCURACY!r} (a float) and "
            f"{weight_key!r} (an int)"
        )
    signed = node.judge.evaluate(ticket, model, accuracy, examples)
    parts = {"evaluation": canonical(signed.to_dict())}
    return Message(RecordDict({wire.RECORD: wire.stage_record(wire.JUDGE, parts)}), reply_to=message)


def settle(message: Message, ticket: Ticket, node: Node) -> Message:
    """Check the whole chain of the task, and sign model, accuracy and payouts."""
    model, vote = node.judge.settle(ticket, SettleRequest.decode(wire.unseal(message.content)))
    parts = {"model": model, "vote": vote}
    return Message(RecordDict({wire.RECORD: wire.stage_record(wire.SETTLE, parts)}), reply_to=message)


def named(records: Any, what: str) -> tuple[str, Any]:
    """Return the one record of a kind with its name; :class:`LayoutError` if there is none, or several."""
    if len(records) != 1:
        raise LayoutError(
            f"The {what} must hold exactly one ArrayRecord and one MetricRecord; found {len(records)} of a kind: "
            f"{', '.join(records) or 'none'}"
        )
    return next(iter(records.items()))  # type: ignore[no-any-return]


def only(records: Any, what: str) -> Any:
    """Return the one record of a kind."""
    return named(records, what)[1]
