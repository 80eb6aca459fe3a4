"""What a node must know of the scheme ``verified``: three seats, keys to boxes, and the policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ProtocolError
from ..schemes import Combiner, Contribution, Protector
from ..schemes.sharing import SharingCombiner, SharingProtector
from .kit import FixedKeys
from .seats import MODE, seats_of, verifiers
from .terms import policy_of, program_of

if TYPE_CHECKING:
    from .identity import Identity
    from .memory import NodeMemory
    from .ticket import Ticket


class VerifiedKit(FixedKeys):
    """See :class:`flbc.node.kit.Kit`."""

    def check(self, ticket: Ticket) -> None:
        """Check mode and policy, that three different nodes have the seats, and that they compiled one model."""
        config = ticket.config
        if config.mode != MODE or config.key_bits or config.scheme_keys:
            raise ProtocolError(f"Scheme 'verified' has the mode {MODE!r} and no scheme key of its own")
        if config.privacy is not None:
            raise ProtocolError("Scheme 'verified' takes no differential privacy yet")
        if config.codec["max_multiplier"] is not None:
            raise ProtocolError("Scheme 'verified' has no declared weights; weights are inside the sum")
        if policy_of(config).reveal != "bit" and config.ledger is not None:
            raise ProtocolError("With a ledger it is written down who was rejected: Policy(reveal='bit')")
        _ = ticket.spec
        program = program_of(config)
        for party, seat in zip(verifiers(ticket.roster), seats_of(ticket), strict=True):
            if seat.program != program:
                raise ProtocolError(f"The verifier {party.name!r} checks another model than the task's")

    def protector(self, ticket: Ticket, me: Identity, memory: NodeMemory) -> Protector:
        """Share among the three seats."""
        return SharingProtector(ticket.spec, me.keys.signing.address, [seat.box for seat in seats_of(ticket)])

    def combiner(self, ticket: Ticket) -> Combiner:
        """Keep payloads apart."""
        return SharingCombiner(ticket.spec)

    def contribution(self, ticket: Ticket, party: int, nonce: bytes) -> Contribution:
        """Nothing is derived from a survivor's key."""
        return Contribution(party, ticket.roster.parties[party].encryption, nonce)

    def decryptor(self, ticket: Ticket) -> None:
        """Any attempt is opened by the three verifiers."""
