"""The stages in which a node opens a sum, or gives its part of an opening, whatever the scheme."""

from __future__ import annotations

from flwr.app import ConfigRecord, Message

from ..node.model_request import pack_many
from ..node.nddfe import SCHEME as NDDFE
from ..node.opening import OpenRequest, pack_opening
from ..node.paillier import SPLIT, THRESHOLD
from ..node.seats import SCHEME as VERIFIED
from ..node.ticket import Ticket
from ..schemes.functional import split_request
from ..schemes.paillier_threshold import split_parts
from . import wire
from .node import Node
from .panel import Panel


def open_sum(message: Message, record: ConfigRecord, ticket: Ticket, node: Node, panel: Panel) -> Message:
    """Open a sum as the node that learns it; a verifier gives its share of the chosen models' sum."""
    header, body = wire.bytes_of(record, "request")["request"], wire.unseal(message.content)
    if ticket.config.scheme == VERIFIED:
        given = panel.give(ticket, OpenRequest.parse(header, body))
        return wire.sealed(message, wire.OPEN, pack_many([pack_opening(*part) for part in given]))
    if ticket.config.scheme == NDDFE:
        key, hidden = split_request(body)
        opened = node.decryptor.open(ticket, OpenRequest.parse(header, hidden), key)
    elif ticket.config.mode == SPLIT:
        key, hidden = split_request(body)
        opened = node.authority().open(ticket, OpenRequest.parse(header, hidden), key)
    elif ticket.config.mode == THRESHOLD:
        parts, hidden = split_parts(body)
        opened = node.joint_authority.open(ticket, OpenRequest.parse(header, hidden), parts)
    else:
        opened = node.authority().open(ticket, OpenRequest.parse(header, body))
    return wire.sealed(message, wire.OPEN, pack_opening(*opened))


def derive(message: Message, record: ConfigRecord, ticket: Ticket, node: Node) -> Message:
    """Derive the key, or the sum of the pads, that opens one sum."""
    request = OpenRequest.parse(wire.bytes_of(record, "request")["request"], b"")
    return wire.sealed(message, wire.DERIVE, node.generator.derive(ticket, request))


def open_in_part(message: Message, record: ConfigRecord, ticket: Ticket, node: Node) -> Message:
    """Open a sum with this node's share of the Paillier key."""
    request = OpenRequest.parse(wire.bytes_of(record, "request")["request"], wire.unseal(message.content))
    return wire.sealed(message, wire.PARTIAL, node.key_holder().open(ticket, request))


def unmask(message: Message, record: ConfigRecord, ticket: Ticket, node: Node) -> Message:
    """Give the shares that take the masks of one sum away."""
    request = OpenRequest.parse(wire.bytes_of(record, "request")["request"], b"")
    shares = node.holder.unmask(ticket, request, wire.unseal(message.content))
    return wire.sealed(message, wire.UNMASK, shares)
