"""What the chain says about a task, as frozen values with one JSON form.

:func:`flbc.ledger.history.read_task` fills them from a chain; :mod:`flbc.ledger.audit` needs nothing else. They hold
no fact twice without need, and none that nothing vouches for: whatever is in them is bound by a signature, by a hash,
or by a second source to compare with. So a byte that was changed in an exported file is found. (What a file cannot show
is that a chain holds it: compare the hash of one of its blocks with a node's, or audit from the chain.)

A record's ``at`` is the hash of the chain's block that contains it, and refers to a :class:`Header`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

from ..encoding import MAX_BYTES, canonical, parse
from ..errors import LedgerError
from .strict import Address, Hash, Record, Signature, Wei

__all__ = ["Address", "Hash", "Record"]

STATUSES = ("published", "started", "settled", "refunded")


@dataclass(frozen=True)
class Header(Record):
    """A block of the chain.

    Parameters
    ----------
    number, time : int
        Height, and Unix time in seconds.
    hash : bytes
        keccak-256 of the RLP list of ``fields``.
    fields : tuple of bytes
        The header's fields in order; empty where the chain's header has a form of its own, so that number and time
        stand on the node's word.
    """

    number: int
    time: int
    hash: Hash
    fields: tuple[bytes, ...]


@dataclass(frozen=True)
class Registration(Record):
    """An account's keys, roles and name as it registered them; ``proof`` is empty if it did so through a contract."""

    at: Hash
    account: Address
    signer: Address
    vrf: Address
    encryption: Hash
    scheme_key: Hash
    examples: int
    roles: int
    name: Hash
    proof: bytes


@dataclass(frozen=True)
class Publication(Record):
    """Publication of the task; ``config`` is the canonical JSON of the TaskConfig, ``reward`` is in wei."""

    at: Hash
    publisher: Address
    salt: Hash
    model: Hash
    roster: Hash
    accuracy_bps: int
    deadline: int
    quorum: int
    vrf: bool
    openers: int
    reward: Wei
    config: bytes


@dataclass(frozen=True)
class Start(Record):
    """Start of the task: accounts in roster order, what the contract froze of them, and the publisher's sigma1."""

    at: Hash
    accounts: tuple[Address, ...]
    participants: bytes
    sigma1: Signature


@dataclass(frozen=True)
class Postponement(Record):
    """Nobody drew the seed in time; it comes from the block with this number."""

    at: Hash
    anchor: int


@dataclass(frozen=True)
class Seed(Record):
    """Draw of the seed from the hash of the block with the number ``anchor``."""

    at: Hash
    anchor: int
    block: Hash
    seed: Hash


@dataclass(frozen=True)
class BlockRecord(Record):
    """One recorded block: what the transaction said, and what the contract made of it (parent, label, hash)."""

    at: Hash
    round: int
    attempt: int
    model: Hash
    frame: Hash
    keys: Hash
    leader: int
    hidden: Hash
    submissions: bytes
    rejected: bytes
    leader_signature: Signature
    votes: bytes
    proof: bytes
    opening: bytes
    parent: Hash
    label: Hash
    hash: Hash


@dataclass(frozen=True)
class Settlement(Record):
    """Settlement: sigma2 over model, link and accuracy, the committee's evaluations and votes, the payouts."""

    at: Hash
    model: Hash
    link: str
    accuracy_bps: int
    party: int
    model_signature: Signature
    evaluations: bytes
    payouts: bytes
    votes: bytes
    opening: bytes
    payout_root: Hash


@dataclass(frozen=True)
class Claim(Record):
    """A payout that was claimed; ``index`` is the party."""

    at: Hash
    index: int
    account: Address
    amount: Wei


@dataclass(frozen=True)
class Refund(Record):
    """The publisher got the escrow back."""

    at: Hash
    amount: Wei


@dataclass(frozen=True)
class Suspension(Record):
    """The authority suspended an account (or lifted it) after the start."""

    at: Hash
    account: Address
    on: bool


@dataclass(frozen=True)
class TaskState(Record):
    """A task as the contract holds it now.

    Parameters
    ----------
    status : {"published", "started", "settled", "refunded"}
    publisher : bytes
        Account that pays, and is refunded.
    reward : int
        Escrow in wei.
    accuracy_bps, deadline, quorum, vrf, openers
        As published.
    round, attempt, height : int
        Of the last recorded block; ``height`` is the number of blocks.
    published_block, started_block, seed_block : int
        Numbers of the chain's blocks; 0 before they are known.
    members, committee : int
        Number of participants, and of those in the committee.
    config, roster, genesis, head, seed, payout_root : bytes
        Hashes; zeros before they are known. ``head`` is the genesis hash before the first block.
    """

    status: Literal["published", "started", "settled", "refunded"]
    publisher: Address
    reward: Wei
    accuracy_bps: int
    deadline: int
    quorum: int
    vrf: bool
    openers: int
    round: int
    attempt: int
    height: int
    published_block: int
    started_block: int
    seed_block: int
    members: int
    committee: int
    config: Hash
    roster: Hash
    genesis: Hash
    head: Hash
    seed: Hash
    payout_root: Hash


@dataclass(frozen=True)
class TaskHistory(Record):
    """Everything that the chain says about one task, in the chain's order.

    Parameters
    ----------
    version : int
        Of this form.
    chain_id, hub, simulation : int, bytes, bool
        Where signatures are valid.
    task : bytes
        The task's id.
    registrations : tuple of Registration
        Those of the participants and the publisher up to the start; several if somebody registered again.
    start, seed, settlement, refund : Record or None
        None if that has not happened.
    state : TaskState
        What the contract says now.
    headers : tuple of Header
        The chain's blocks that the records refer to, by rising number.
    """

    version: Literal[1]
    chain_id: int
    hub: Address
    simulation: bool
    task: Hash
    publication: Publication
    registrations: tuple[Registration, ...]
    start: Start | None
    postponements: tuple[Postponement, ...]
    seed: Seed | None
    blocks: tuple[BlockRecord, ...]
    suspensions: tuple[Suspension, ...]
    settlement: Settlement | None
    claims: tuple[Claim, ...]
    refund: Refund | None
    state: TaskState
    headers: tuple[Header, ...]

    def pack(self) -> bytes:
        """Encode as canonical JSON, for a file."""
        data = canonical(self.to_dict())
        if len(data) > MAX_BYTES:
            raise LedgerError(
                f"The task's history takes {len(data)} bytes, more than the {MAX_BYTES} that can be read back: "
                "audit it from the chain"
            )
        return data

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Undo :meth:`pack`; :class:`ProtocolError` names what is malformed. Nothing is verified but the form."""
        return cls.from_dict(parse(data, "exported history"), "history")
