"""What a task agrees about its ledger, and what an attempt needs to know of the chain (S9, S22)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from types import MappingProxyType
from typing import Any, Self

from ..encoding import canonical, parse, unhex
from ..errors import PolicyError, ProtocolError
from ..roster import AUTHORITY, GENERATOR, TRAIN_ROLE, Roster
from ..round import DEVELOPMENT_CHAINS, NO_HUB, RoundLabel
from ..task import TaskConfig
from ..tokens import Genesis
from .attestor import SoftwareAttestor

ELECTIONS = ("vrf", "committee")
PAYOUT_RULES = ("equal", "examples")


def default_quorum(members: int) -> int:
    """Return how many of ``members`` must sign a block: more than two thirds (S9)."""
    return 2 * members // 3 + 1


@dataclass(frozen=True)
class Covenant:
    """The ``ledger`` member of a TaskConfig.

    Parameters
    ----------
    quorum : int
        Committee members that must sign a block; a leader who is a member counts.
    election : str
        ``"vrf"``: the contract verifies the leader's proof itself; ``"committee"``: only the committee does.
    payout : str
        ``"equal"``: the reward is split by accepted blocks; ``"examples"``: by accepted blocks times declared examples.
    accuracy_bps : int
        Accuracy that the final model must reach, in hundredths of a per cent; 0: none.
    attestor : str
        Who vouches for compute times (:mod:`flbc.node.attestor`).
    stakes : mapping of str to int
        Stake of each party in gwei, as the contract freezes it; those of 0 lead no block.
    """

    quorum: int
    election: str
    payout: str
    accuracy_bps: int
    attestor: str
    stakes: Mapping[str, int]

    def __post_init__(self) -> None:
        """Copy the stakes and check the values."""
        object.__setattr__(self, "stakes", MappingProxyType(dict(self.stakes)))
        numbers = {"quorum": self.quorum, "accuracy_bps": self.accuracy_bps}
        if any(type(value) is not int or value < 0 for value in (*numbers.values(), *self.stakes.values())):
            raise ProtocolError("The ledger terms' quorum, accuracy_bps and stakes must be integers, not negative")
        if self.election not in ELECTIONS or self.payout not in PAYOUT_RULES or self.accuracy_bps > 10_000:
            raise ProtocolError(
                f"The ledger terms need election in {ELECTIONS}, payout in {PAYOUT_RULES}, accuracy_bps <= 10000"
            )
        if any(stake >= 2**64 for stake in self.stakes.values()):
            raise ProtocolError("A stake does not fit 64 bits of gwei")

    def to_dict(self) -> dict[str, Any]:
        """Return the member's JSON value."""
        data = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**data, "stakes": dict(self.stakes)}

    @classmethod
    def of(cls, config: TaskConfig) -> Self | None:
        """Return a task's covenant, None without a ledger; :class:`ProtocolError` if it is malformed."""
        if config.ledger is None:
            return None
        if set(config.ledger) != {field.name for field in fields(cls)} or not isinstance(config.ledger["stakes"], dict):
            raise ProtocolError(f"The ledger terms must have exactly {', '.join(f.name for f in fields(cls))}")
        return cls(**config.ledger)

    def stake(self, name: str) -> int:
        """Return a party's stake in gwei."""
        return self.stakes.get(name, 0)

    def check_roster(self, roster: Roster) -> None:
        """Raise :class:`ProtocolError` unless quorum and stakes fit the roster."""
        members = len(roster.with_role("committee"))
        if not members < 2 * self.quorum <= 2 * members:
            raise ProtocolError(f"A quorum of {self.quorum} does not fit {members} committee members")
        if set(self.stakes) - {party.name for party in roster.parties}:
            raise ProtocolError("The ledger terms name a stake of somebody who is not in the roster")
        if any(len(party.roles) > 1 for role in (AUTHORITY, GENERATOR) for _, party in roster.with_role(role)):
            raise ProtocolError(
                "With a ledger authority and generator serve in no other role: a committee member gets every single "
                "ciphertext"
            )
        if not any(self.stake(party.name) for _, party in roster.with_role(TRAIN_ROLE)):
            raise ProtocolError("Nobody in the roster has a stake, so nobody can lead a block")


@dataclass(frozen=True)
class Beacon:
    """Where the chain stands: what elects the leader of the block that this attempt makes.

    Parameters
    ----------
    seed : bytes
        The task's seed, from the hash of a block after its start.
    height : int
        Height of the block to be made, from 1.
    parent : bytes
        Hash of the block before it; the genesis hash at height 1.
    initial : bytes
        Hash of the initial arrays, from which the genesis follows.
    """

    seed: bytes
    height: int
    parent: bytes
    initial: bytes

    @cached_property
    def encoded(self) -> bytes:
        """Canonical bytes."""
        hashes = {name: getattr(self, name).hex() for name in ("seed", "parent", "initial")}
        return canonical({**hashes, "height": self.height})

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Undo :attr:`encoded`."""
        value = parse(data, "beacon")
        members = {"seed", "height", "parent", "initial"}
        if set(value) != members or type(value["height"]) is not int or value["height"] < 1:
            raise ProtocolError("The beacon must hold seed, parent, initial and a height from 1")
        seed, parent, initial = (unhex(value[name], 32, name) for name in ("seed", "parent", "initial"))
        return cls(seed, value["height"], parent, initial)


def genesis_of(initial: bytes, config: TaskConfig, roster: Roster) -> bytes:
    """Return the hash of the genesis with these initial arrays (their hash): the parent of block 1."""
    return Genesis(initial, config.hash, roster.hash).hash


def check_covenant(config: TaskConfig, roster: Roster, label: RoundLabel, beacon: Beacon | None) -> None:
    """Check that a task's ledger terms, its label and its beacon belong together.

    Raises
    ------
    ProtocolError
        If one is there without the others, or the terms do not fit the roster.
    PolicyError
        If development identities are used on a chain that is not a development one (S2), or the task wants an
        attestor that this node does not have.
    """
    covenant = Covenant.of(config)
    on_chain = label.chain_id != 0 and label.hub != NO_HUB
    if (covenant is not None) != on_chain or (beacon is not None) != on_chain:
        raise ProtocolError("Ledger terms, a chain in the label, and a beacon must come together")
    if covenant is None:
        return
    if label.simulation and label.chain_id not in DEVELOPMENT_CHAINS:
        raise PolicyError(f"Development identities work on development chains only, not on chain {label.chain_id}")
    covenant.check_roster(roster)
    if beacon is not None and beacon.height == 1 and beacon.parent != genesis_of(beacon.initial, config, roster):
        raise ProtocolError("The first block must follow the genesis of this model, configuration and roster")
    if covenant.attestor != SoftwareAttestor.kind:
        raise PolicyError(f"The task wants compute times attested by {covenant.attestor!r}; this node has none")
