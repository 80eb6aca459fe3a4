"""What a strategy hands to the ledger, and what it gets back. Loads no web3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ..roster import Party, Roster
from ..round import Block, RoundLabel, Signed
from ..task import TaskConfig
from ..tokens import ModelToken


@dataclass(frozen=True, slots=True)
class SignedOpening:
    """An opening with the roster index of who opened."""

    signed: Signed
    party: int


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """One block with everything that a contract and an auditor need.

    Parameters
    ----------
    label : RoundLabel
    block : Block
    submissions : sequence of Signed
        The summed submissions by rising party.
    leader : bytes
        The leader's signature over the block, 65 bytes.
    votes : sequence of (int, bytes)
        Roster index and signature of each vote.
    alpha, proof : bytes
        Input of the leader's VRF, and its proof (public key 33 bytes, RFC 9381 proof 81 bytes).
    opening : SignedOpening or None
        Of the block before this one.
    """

    label: RoundLabel
    block: Block
    submissions: Sequence[Signed]
    leader: bytes
    votes: Sequence[tuple[int, bytes]]
    alpha: bytes
    proof: bytes
    opening: SignedOpening | None


@dataclass(frozen=True, slots=True)
class SettleRecord:
    """The end of a task: sigma2 with its signer, packed evaluations and payouts, votes, the last opening."""

    token: ModelToken
    party: int
    signature: bytes
    evaluations: bytes
    payouts: bytes
    votes: Sequence[tuple[int, bytes]]
    opening: SignedOpening | None


@dataclass(frozen=True, slots=True)
class Started:
    """A task as it stands on the chain before its first block."""

    task: bytes
    genesis: bytes
    seed: bytes
    reward: int
    initial: bytes


class Book(Protocol):
    """What a strategy needs of a ledger; :class:`flbc.ledger.book.ChainBook` writes to a chain."""

    chain_id: int
    hub: bytes
    #: Whether the contracts are for development identities.
    simulation: bool
    #: Where the final model can be had.
    link: str

    def stakes(self, parties: Sequence[Party]) -> dict[str, int]:
        """Return every party's stake in gwei, after checking that the Registry holds exactly its keys."""
        ...

    def start(self, config: TaskConfig, roster: Roster, model: bytes) -> Started:
        """Have the task published and started; return its seed."""
        ...

    def suspended(self) -> frozenset[str]:
        """Return the names of parties that the authority of the contracts has suspended."""
        ...

    def check(self) -> None:
        """Raise :class:`~flbc.errors.LedgerError` if a block that was handed over is refused for good."""
        ...

    def record(self, record: RoundRecord) -> None:
        """Write a block; returns at once unless records must be final."""
        ...

    def settle(self, record: SettleRecord) -> None:
        """Write the settlement and wait for it."""
        ...

    def close(self) -> None:
        """Stop sending; what is queued stays in the outbox."""
        ...
