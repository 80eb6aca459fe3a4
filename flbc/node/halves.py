"""Which halves of which scheme a ticket asks for: the one place where a scheme's name becomes its classes.

Everything else on a node, and the server, works with the contract of :mod:`flbc.schemes.base` alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ..errors import ProtocolError
from ..schemes import Combiner, Contribution, Protector
from .nddfe import NddFeKit
from .paillier import PaillierKit

if TYPE_CHECKING:
    from .identity import Identity
    from .ticket import Ticket


class Kit(Protocol):
    """What a node must know of a scheme."""

    def check(self, ticket: Ticket) -> None:
        """Raise unless modes, roles and scheme keys of the ticket fit together and verify (S1)."""
        ...

    def protector(self, ticket: Ticket, me: Identity) -> Protector:
        """Return the client half."""
        ...

    def combiner(self, ticket: Ticket) -> Combiner:
        """Return the server half, with which leader and committee recompute the sum."""
        ...

    def contribution(self, ticket: Ticket, party: int, nonce: bytes) -> Contribution:
        """Return what helpers must know of the party with this roster index."""
        ...

    def decryptor(self, ticket: Ticket) -> int | None:
        """Return the roster index of the one node that can open this attempt; None if any attempt's helper can."""
        ...


KITS: dict[str, Kit] = {"paillier": PaillierKit(), "nddfe": NddFeKit()}


def kit_of(ticket: Ticket) -> Kit:
    """Return the kit of a ticket's scheme; :class:`ProtocolError` if this version of flbc does not know it."""
    scheme = ticket.config.scheme
    if scheme not in KITS:
        raise ProtocolError(f"This version of flbc does not know scheme {scheme!r}; known: {', '.join(KITS)}")
    return KITS[scheme]


def check(ticket: Ticket) -> None:
    """Check what a ticket says of its scheme; see :meth:`Kit.check`."""
    kit_of(ticket).check(ticket)


def protector(ticket: Ticket, me: Identity) -> Protector:
    """Return the client half that a ticket asks for."""
    return kit_of(ticket).protector(ticket, me)


def combiner(ticket: Ticket) -> Combiner:
    """Return the server half that a ticket asks for."""
    return kit_of(ticket).combiner(ticket)


def contribution(ticket: Ticket, party: int, nonce: bytes) -> Contribution:
    """Return what helpers must know of a survivor."""
    return kit_of(ticket).contribution(ticket, party, nonce)


def decryptor(ticket: Ticket) -> int | None:
    """Return the roster index of the one node that can open this attempt, if there is only one."""
    return kit_of(ticket).decryptor(ticket)
