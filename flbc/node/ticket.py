"""What a node gets with every stage of a round, and what it checks before it acts on it (S1, S2, S5, S6)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..cards import Hello
from ..codec import Frame
from ..crypto.signing import keccak256
from ..encoding import canonical, parse
from ..errors import PolicyError, ProtocolError, RosterError
from ..roster import Party, Roster
from ..round import RoundLabel
from ..schemes import SumSpec
from ..task import TaskConfig
from . import halves
from .covenant import Beacon, check_covenant
from .identity import Identity
from .memory import NodeMemory
from .paillier import check_pinned
from .pins import Pins
from .terms import check_frame, chosen_coordinates, sum_spec

#: Size classes of late joiners and silent leaders need another attempt each; more mean that somebody plays games.
MAX_ATTEMPTS = 6
#: Members of a ticket on the wire.
PARTS = ("label", "config", "roster", "frame", "keys", "beacon")


@dataclass(frozen=True)
class Ticket:
    """A label and everything it commits to.

    Parameters
    ----------
    label : RoundLabel
    config : TaskConfig
    roster : Roster
    frame : Frame
    keys : bytes
        What every client needs of the scheme, e.g. the authority's signed public key.
    beacon : Beacon or None
        Where the chain stands; None without a ledger.
    """

    label: RoundLabel
    config: TaskConfig
    roster: Roster
    frame: Frame
    keys: bytes
    beacon: Beacon | None = None

    def __post_init__(self) -> None:
        parts = {
            "roster": self.roster.hash,
            "config": self.config.hash,
            "frame": self.frame.hash,
            "keys": keys_hash(self.keys, self.beacon),
        }
        for name, digest in parts.items():
            if getattr(self.label, name) != digest:
                raise ProtocolError(f"The label commits to another {name} than the one that was sent")

    def to_wire(self) -> dict[str, bytes]:
        """Return byte strings by name."""
        return {
            "label": canonical(self.label.to_dict()),
            "config": self.config.encoded,
            "roster": self.roster.encoded,
            "frame": self.frame.encoded,
            "keys": self.keys,
            "beacon": b"" if self.beacon is None else self.beacon.encoded,
        }

    @classmethod
    def from_wire(cls, parts: dict[str, bytes]) -> Self:
        """Parse and check that the parts are those of the label."""
        for name in PARTS:
            if not isinstance(parts.get(name), bytes):
                raise ProtocolError(f"The ticket lacks its {name}")
        return cls(
            RoundLabel.from_dict(parse(parts["label"], "label")),
            TaskConfig.decode(parts["config"]),
            Roster.decode(parts["roster"]),
            Frame.decode(parts["frame"]),
            parts["keys"],
            Beacon.decode(parts["beacon"]) if parts["beacon"] else None,
        )

    @cached_property
    def spec(self) -> SumSpec:
        """How large the attempt's sum can get."""
        return sum_spec(self.config, max(self.label.round, 1))

    @cached_property
    def indices(self) -> NDArray[np.int64] | None:
        """The float coordinates that this round sends, sorted; None: all of them.

        Raises
        ------
        CodecError
            If the set that follows from the round's public numbers is another one than the server's.
        """
        return chosen_coordinates(self.config, self.label, self.frame)

    def only(self, role: str) -> Party:
        """Return the one party that serves a role; :class:`RosterError` if there is not exactly one."""
        found = self.roster.with_role(role)
        if len(found) != 1:
            raise RosterError(f"The roster must name exactly one {role}, not {len(found)}")
        return found[0][1]


def keys_hash(keys: bytes, beacon: Beacon | None) -> bytes:
    """Return what a label commits to as ``keys``: the scheme's keys and, with a ledger, the beacon."""
    return keccak256(keys) if beacon is None else keccak256(keccak256(keys) + keccak256(beacon.encoded))


def admit(ticket: Ticket, me: Identity, pins: Pins, memory: NodeMemory) -> int:
    """Check a ticket against this node's pins, policy and memory.

    Returns
    -------
    int
        This node's index in the roster.

    Raises
    ------
    RosterError
        If a party is not pinned, or this node is not in the roster as itself.
    PolicyError
        If the task breaks this node's policy.
    StaleLabelError
        If the task's configuration changed.
    """
    if ticket.label.simulation != me.simulation:
        kind = "a simulation" if ticket.label.simulation else "a deployment"
        raise PolicyError(f"The label belongs to {kind}, this node's keys do not (development keys: flbc-dev=true)")
    index = ticket.roster.index(me.name)
    mine = ticket.roster.parties[index]
    own = me.party(mine.scheme_key)
    if mine != own:
        raise RosterError("The roster lists this node with keys, roles or a number of examples that are not its own")
    pins.check_roster(ticket.roster)
    pins.policy.check(ticket.config)
    pins.policy.check_chain(ticket.label.chain_id, ticket.label.hub)
    check_covenant(ticket.config, ticket.roster, ticket.label, ticket.beacon)
    if ticket.beacon is not None:
        pins.policy.check_committee(len(ticket.roster.with_role("committee")))
    halves.check(ticket)
    check_pinned(ticket.config, ticket.roster, pins)
    check_frame(ticket.config, ticket.frame)
    if not 1 <= ticket.label.round <= ticket.config.rounds or ticket.label.attempt >= MAX_ATTEMPTS:
        raise ProtocolError(
            f"This task has the rounds 1 to {ticket.config.rounds}, each with at most {MAX_ATTEMPTS} attempts"
        )
    memory.agree(ticket.label.task, ticket.config.hash)
    return index


def hello(nonce: bytes, party: bytes, keys: bytes) -> Hello:
    """Return what a node signs to say who it is, to a server that sent ``nonce``."""
    if len(nonce) != 32:
        raise ProtocolError("The nonce of a hello must have 32 bytes")
    return Hello(nonce, keccak256(party), keccak256(keys))
