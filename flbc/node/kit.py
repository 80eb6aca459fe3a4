"""What a node must know of a scheme beside its mathematics."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Protocol

from ..errors import ProtocolError
from ..schemes import Combiner, Contribution, Protector

if TYPE_CHECKING:
    from .identity import Identity
    from .memory import NodeMemory
    from .ticket import Ticket


class Kit(Protocol):
    """What a node must know of a scheme."""

    def check(self, ticket: Ticket) -> None:
        """Raise unless modes, roles and scheme keys of the ticket fit together and verify (S1)."""
        ...

    def protector(self, ticket: Ticket, me: Identity, memory: NodeMemory) -> Protector:
        """Return the client half."""
        ...

    def set_up(self, ticket: Ticket, me: Identity, memory: NodeMemory) -> bytes:
        """Return what the node deals for the ticket's own round."""
        ...

    def next_keys(self, ticket: Ticket, me: Identity, memory: NodeMemory) -> bytes:
        """Return what rides on a submission for the next round; empty where a scheme needs nothing."""
        ...

    def answered(self, ticket: Ticket, memory: NodeMemory) -> None:
        """Erase what the node does not need any more once its reply is kept."""
        ...

    def combiner(self, ticket: Ticket) -> Combiner:
        """Return the server half, with which leader and committee recompute the sum."""
        ...

    def contribution(self, ticket: Ticket, party: int, nonce: bytes) -> Contribution:
        """Return what helpers must know of the party with this roster index."""
        ...

    def check_survivors(self, ticket: Ticket, parties: Collection[int]) -> None:
        """Raise :class:`OpeningRefusedError` unless these parties, by roster index, may be summed."""
        ...

    def decryptor(self, ticket: Ticket) -> int | None:
        """Return the roster index of the one node that can open this attempt; None if any attempt's helper can."""
        ...


class FixedKeys:
    """The part of a kit of schemes whose keys stay the same over rounds."""

    def check_survivors(self, ticket: Ticket, parties: Collection[int]) -> None:
        """Any that are enough may be summed."""

    def set_up(self, ticket: Ticket, me: Identity, memory: NodeMemory) -> bytes:
        """Refuse: there is nothing to deal."""
        raise ProtocolError(f"Scheme {ticket.config.scheme!r} has no set-up trip")

    def next_keys(self, ticket: Ticket, me: Identity, memory: NodeMemory) -> bytes:
        """Nothing rides on submissions."""
        return b""

    def answered(self, ticket: Ticket, memory: NodeMemory) -> None:
        """Nothing has to be erased."""
