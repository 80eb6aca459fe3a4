"""Which halves of which scheme a ticket asks for: the one place where a scheme's name becomes its classes.

Everything else on a node, and the server, works with the contract of :mod:`flbc.schemes.base` alone.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from ..errors import ProtocolError
from ..schemes import Combiner, Contribution, Protector
from .kit import Kit
from .masked import MaskedKit
from .nddfe import NddFeKit
from .paillier import PaillierKit
from .terms import client_noise
from .verified import VerifiedKit

if TYPE_CHECKING:
    from .identity import Identity
    from .memory import NodeMemory
    from .ticket import Ticket


KITS: dict[str, Kit] = {
    "paillier": PaillierKit(),
    "nddfe": NddFeKit(),
    "masked": MaskedKit(),
    "verified": VerifiedKit(),
}


def kit_of(ticket: Ticket) -> Kit:
    """Return the kit of a ticket's scheme; :class:`ProtocolError` if this version of flbc does not know it."""
    scheme = ticket.config.scheme
    if scheme not in KITS:
        raise ProtocolError(f"This version of flbc does not know scheme {scheme!r}; known: {', '.join(KITS)}")
    return KITS[scheme]


def check(ticket: Ticket) -> None:
    """Check what a ticket says of its scheme; see :meth:`Kit.check`."""
    config = ticket.config
    if config.scheme != "masked" and (config.sharing is not None or client_noise(config) is not None):
        raise ProtocolError("Only clients of scheme 'masked' share secrets, or add noise themselves")
    if config.scheme != "verified" and config.verification is not None:
        raise ProtocolError("Only models of scheme 'verified' are checked")
    kit_of(ticket).check(ticket)


def protector(ticket: Ticket, me: Identity, memory: NodeMemory) -> Protector:
    """Return the client half that a ticket asks for."""
    return kit_of(ticket).protector(ticket, me, memory)


def next_keys(ticket: Ticket, me: Identity, memory: NodeMemory) -> bytes:
    """Return what rides on a submission for the next round."""
    return kit_of(ticket).next_keys(ticket, me, memory)


def combiner(ticket: Ticket) -> Combiner:
    """Return the server half that a ticket asks for."""
    return kit_of(ticket).combiner(ticket)


def contribution(ticket: Ticket, party: int, nonce: bytes) -> Contribution:
    """Return what helpers must know of a survivor."""
    return kit_of(ticket).contribution(ticket, party, nonce)


def decryptor(ticket: Ticket) -> int | None:
    """Return the roster index of the one node that can open this attempt, if there is only one."""
    return kit_of(ticket).decryptor(ticket)


def set_up(ticket: Ticket, me: Identity, memory: NodeMemory) -> bytes:
    """Return what a node deals for the ticket's own round."""
    return kit_of(ticket).set_up(ticket, me, memory)


def answered(ticket: Ticket, memory: NodeMemory) -> None:
    """Erase what a node does not need any more once its reply is kept."""
    kit_of(ticket).answered(ticket, memory)


def check_survivors(ticket: Ticket, parties: Collection[int]) -> None:
    """Raise :class:`OpeningRefusedError` unless these parties, by roster index, may be summed."""
    kit_of(ticket).check_survivors(ticket, parties)
