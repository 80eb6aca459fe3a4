"""What a node must know of the scheme ``paillier``; the mathematics is in :mod:`flbc.schemes.paillier`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..crypto import paillier
from ..errors import ProtocolError
from ..roster import AUTHORITY
from ..schemes import Contribution
from ..schemes.paillier import PaillierCombiner, PaillierProtector
from .kit import FixedKeys
from .scheme_keys import check_keys

if TYPE_CHECKING:
    from .identity import Identity
    from .memory import NodeMemory
    from .ticket import Ticket


class PaillierKit(FixedKeys):
    """See :class:`flbc.node.kit.Kit`."""

    def check(self, ticket: Ticket) -> None:
        """Refuse other modes than "authority", and multipliers."""
        if ticket.config.mode != AUTHORITY:
            raise ProtocolError(f"Scheme 'paillier' knows the mode {AUTHORITY!r} only, not {ticket.config.mode!r}")
        if ticket.spec.max_multiplier != 1 or ticket.config.codec["max_multiplier"] is not None:
            raise ProtocolError("Scheme 'paillier' has no declared weights; weights are inside the sum")

    def protector(self, ticket: Ticket, me: Identity, memory: NodeMemory) -> PaillierProtector:
        """Encrypt under the authority's key, which was checked."""
        authority = ticket.only(AUTHORITY)
        if authority.name == me.name:
            raise ProtocolError("A node cannot train and hold the opening key")
        return PaillierProtector(public_key(ticket), ticket.spec, authority.encryption, me.keys.encryption)

    def combiner(self, ticket: Ticket) -> PaillierCombiner:
        """Multiply ciphertexts of the authority's key, which was checked."""
        return PaillierCombiner(public_key(ticket), ticket.spec, ticket.only(AUTHORITY).name)

    def contribution(self, ticket: Ticket, party: int, nonce: bytes) -> Contribution:
        """Tags come from the X25519 key in the roster."""
        return Contribution(party, ticket.roster.parties[party].encryption, nonce)

    def decryptor(self, ticket: Ticket) -> None:
        """Any attempt can be opened by the authority."""


def public_key(ticket: Ticket) -> paillier.PublicKey:
    """Return the authority's key after checking it against roster, configuration and signature (S1)."""
    return check_keys(ticket.keys, ticket.config, ticket.only(AUTHORITY), ticket.label.simulation)
