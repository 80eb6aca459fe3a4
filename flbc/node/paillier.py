"""What a node must know of the scheme ``paillier``, however its sums are opened.

``mode`` of a task says how: ``"authority"`` (:mod:`flbc.schemes.paillier`), ``"split"``
(:mod:`flbc.schemes.paillier_split`) or ``"threshold"`` (:mod:`flbc.schemes.paillier_threshold`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..crypto import paillier
from ..crypto.paillier_threshold import ThresholdKey
from ..errors import ProtocolError, RosterError
from ..roster import AUTHORITY, GENERATOR, Party, Roster
from ..schemes import Combiner, Contribution, Protector
from ..schemes.paillier import PaillierCombiner, PaillierProtector
from ..schemes.paillier_split import SplitCombiner, SplitProtector, split_slot_bits
from ..schemes.paillier_threshold import ThresholdCombiner
from .kit import FixedKeys
from .scheme_keys import check_keys, check_shared

if TYPE_CHECKING:
    from ..task import TaskConfig
    from .identity import Identity
    from .memory import NodeMemory
    from .pins import Pins
    from .ticket import Ticket

SCHEME = "paillier"
#: Who opens: the authority alone, authority and generator together, or some holders of shares and the authority.
ALONE, SPLIT, THRESHOLD = "authority", "split", "threshold"
MODES = (ALONE, SPLIT, THRESHOLD)
#: Who holds a share of the key.
HOLDER = "committee"


class PaillierKit(FixedKeys):
    """See :class:`flbc.node.kit.Kit`."""

    def check(self, ticket: Ticket) -> None:
        """Refuse unknown modes, multipliers, and roles that must not meet in one node."""
        config = ticket.config
        if config.mode not in MODES:
            raise ProtocolError(f"Scheme 'paillier' has the modes {', '.join(MODES)}, not {config.mode!r}")
        if ticket.spec.max_multiplier != 1 or config.codec["max_multiplier"] is not None:
            raise ProtocolError("Scheme 'paillier' has no declared weights; weights are inside the sum")
        if config.mode == SPLIT:
            split_slot_bits(ticket.spec)  # raises where slots would be too wide
            if ticket.only(GENERATOR).roles != (GENERATOR,):
                raise RosterError("The generator serves in no other role: with the authority's key it opens everything")
        if config.mode == THRESHOLD:
            authority = ticket.only(AUTHORITY)
            if authority.roles != (AUTHORITY,) or authority.scheme_key:
                raise RosterError("With a shared key the authority serves in no other role and holds no key of its own")
            shared_key(ticket)  # before anybody trains for a key that its holders do not vouch for

    def protector(self, ticket: Ticket, me: Identity, memory: NodeMemory) -> Protector:
        """Encrypt under the authority's key, which was checked."""
        authority = ticket.only(AUTHORITY)
        if authority.name == me.name:
            raise ProtocolError("A node cannot train and hold the opening key")
        public, key = public_key(ticket), me.keys.encryption
        if ticket.config.mode == SPLIT:
            return SplitProtector(public, ticket.spec, authority.encryption, ticket.only(GENERATOR).encryption, key)
        return PaillierProtector(public, ticket.spec, authority.encryption, key)

    def combiner(self, ticket: Ticket) -> Combiner:
        """Multiply ciphertexts of the authority's key, which was checked."""
        public, authority = public_key(ticket), ticket.only(AUTHORITY).name
        if ticket.config.mode == SPLIT:
            return SplitCombiner(public, ticket.spec, authority, ticket.only(GENERATOR).name)
        if ticket.config.mode == THRESHOLD:
            names = [party.name for party in holders_of(ticket)]
            return ThresholdCombiner(shared_key(ticket), ticket.spec, authority, names)
        return PaillierCombiner(public, ticket.spec, authority)

    def contribution(self, ticket: Ticket, party: int, nonce: bytes) -> Contribution:
        """Tags and pads come from the X25519 key in the roster."""
        return Contribution(party, ticket.roster.parties[party].encryption, nonce)

    def decryptor(self, ticket: Ticket) -> None:
        """Any attempt can be opened by the authority."""


def holders_of(ticket: Ticket) -> list[Party]:
    """Return who holds a share of the key: the committee."""
    return [party for _, party in ticket.roster.with_role(HOLDER)]


def check_pinned(config: TaskConfig, roster: Roster, pins: Pins) -> None:
    """Raise :class:`RosterError` unless a deployed node's own roster file names the shared key of every holder (S1).

    A holder's word for a key is not enough: fewer than t dishonest holders could deal a key of their own, and name
    themselves alone.
    """
    if (config.scheme, config.mode) != (SCHEME, THRESHOLD) or pins.parties is None:
        return
    for _, party in roster.with_role(HOLDER):
        if not pins.parties[party.name].scheme_key:
            raise RosterError(
                f"This node's roster file has no scheme-key for {party.name!r}, a holder of a share: make the roster "
                "from the public parts after `flbc keys accept`"
            )


def shared_key(ticket: Ticket) -> ThresholdKey:
    """Return the shared key after checking it against roster, configuration and all holders' signatures (S1)."""
    return check_shared(ticket.keys, ticket.config, holders_of(ticket), ticket.label.simulation)


def public_key(ticket: Ticket) -> paillier.PublicKey:
    """Return what clients encrypt under, after checking it (S1)."""
    if ticket.config.mode == THRESHOLD:
        return shared_key(ticket).public
    return check_keys(ticket.keys, ticket.config, ticket.only(AUTHORITY), ticket.label.simulation)
