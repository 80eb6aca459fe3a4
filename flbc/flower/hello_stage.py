"""The first stage: a node says who it is, signed, with its part of the scheme's keys."""

from __future__ import annotations

from flwr.app import ConfigRecord, Message, RecordDict

from ..encoding import canonical
from ..node.mask_keys import SCHEME as MASKED
from ..node.mask_keys import box_statement
from ..node.mask_memory import MaskMemory
from ..node.nddfe import PAD, own_statement
from ..node.nddfe import SCHEME as NDDFE
from ..node.paillier import HOLDER, THRESHOLD
from ..node.paillier import SCHEME as PAILLIER
from ..node.scheme_keys import key_domain, paillier_keys
from ..node.seats import SCHEME as VERIFIED
from ..node.ticket import hello
from ..roster import AUTHORITY, VERIFIER
from ..round import Signed
from . import wire
from .node import Node
from .panel import Panel


def greet(message: Message, record: ConfigRecord, run: int, node: Node, panel: Panel) -> Message:
    """Return this node's card: its party, its scheme keys and its signature over both and the server's nonce."""
    nonce = wire.bytes_of(record, "nonce")["nonce"]
    keys, scheme_key = _statement(record, run, node, panel)
    party = canonical(node.me.party(scheme_key).to_dict())
    card = Signed.make(hello(nonce, party, keys), node.me.keys.signing, key_domain(node.me.simulation))
    parts: dict[str, bytes | str | int] = {
        "party": party,
        "keys": keys,
        "signature": card.signature,
        "simulation": node.me.simulation,
        "partitions": node.partitions,
    }
    return Message(RecordDict({wire.RECORD: wire.stage_record(wire.HELLO, parts)}), reply_to=message)


def _statement(record: ConfigRecord, run: int, node: Node, panel: Panel) -> tuple[bytes, bytes]:
    """Return what this node says of its scheme keys, and the fingerprint of a Paillier key; empty where it has none."""
    scheme, mode = wire.text_of(record, "scheme"), wire.text_of(record, "mode")
    key_bits, shared = wire.number_of(record, "key-bits"), (scheme, mode) == (PAILLIER, THRESHOLD)
    if shared and HOLDER in node.me.roles:
        holder = node.key_holder(key_bits, wire.number_of(record, "threshold"))
        return holder.statement(), holder.share.key.fingerprint
    if AUTHORITY in node.me.roles and not shared:
        authority = node.authority(key_bits)
        public = authority.private.public
        return paillier_keys(public, authority.scheme_key(scheme)), public.fingerprint
    if scheme == NDDFE and mode != PAD:
        return own_statement(node.me), b""
    if scheme == MASKED:
        return box_statement(node.me, MaskMemory(node.memory).box_key(_session(record, run))), b""
    if scheme == VERIFIED and VERIFIER in node.me.roles:
        return panel.statement(_session(record, run)), b""
    return b"", b""


def _session(record: ConfigRecord, run: int) -> str:
    return f"{run}/{wire.bytes_of(record, 'session')['session'].hex()}"
