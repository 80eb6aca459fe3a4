"""What every node that helps to open a sum has in common: the request, its checks, the price, the signed answer.

Rules kept here: S8 one opening per (task, round), remembered before it is answered; S10 what is signed; S12 enough
survivors; S20 the budget.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from ..crypto.signing import keccak256
from ..encoding import canonical, parse
from ..errors import BudgetExhaustedError, OpeningRefusedError, ProtocolError, VerificationError
from ..privacy.mechanism import GaussianMechanism
from ..roster import TRAIN_ROLE
from ..round import UNBOUNDED, Block, FunctionKey, Opening, Signed, Submission
from ..schemes import Contribution, IntVector, Noise
from ..schemes.base import vector_from_bytes, vector_to_bytes
from ..task import TaskConfig
from . import halves
from .covenant import Covenant
from .endorsement import Endorsement, check_endorsement
from .memory import NodeMemory
from .pins import Policy
from .terms import mechanism_of
from .ticket import Ticket

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """What is to be opened.

    Parameters
    ----------
    block : Block
    submissions : tuple of Signed
        Those in the block.
    hidden : bytes
        The hidden sum; empty for a generator, which has no use for it.
    endorsement : Endorsement or None
        Signatures of leader and committee; None without a ledger.
    """

    block: Block
    submissions: tuple[Signed, ...]
    hidden: bytes
    endorsement: Endorsement | None = None

    def header(self) -> bytes:
        """Encode all but the hidden sum."""
        return canonical(
            {
                "block": self.block.to_dict(),
                "submissions": [signed.to_dict() for signed in self.submissions],
                "endorsement": None if self.endorsement is None else self.endorsement.to_dict(),
            }
        )

    @classmethod
    def parse(cls, header: bytes, hidden: bytes) -> OpenRequest:
        """Undo :meth:`header`; signatures are not checked here."""
        value = parse(header, "request to open")
        if set(value) != {"block", "submissions", "endorsement"} or not isinstance(value["submissions"], list):
            raise ProtocolError("A request to open must hold a block, its submissions and its endorsement")
        if not isinstance(value["block"], dict):
            raise ProtocolError("The block must be an object")
        submissions = tuple(Signed.from_dict(Submission, entry) for entry in value["submissions"])
        endorsed = value["endorsement"]
        endorsement = None if endorsed is None else Endorsement.from_dict(endorsed)
        return cls(Block.from_dict(value["block"]), submissions, hidden, endorsement)


def check_request(ticket: Ticket, request: OpenRequest, policy: Policy, with_sum: bool = True) -> list[Contribution]:
    """Check block, submissions and endorsement; return what the scheme must know of each survivor.

    Parameters
    ----------
    ticket : Ticket
        Already admitted.
    request : OpenRequest
    policy : Policy
        This node's.
    with_sum : bool (default: True)
        Whether the request brings the hidden sum that the block commits to.

    Raises
    ------
    OpeningRefusedError
        If too few survived.
    VerificationError
        If anything about block or submissions does not verify.
    """
    block, label, config = request.block, ticket.label, ticket.config
    if block.label != label.hash or (with_sum and block.hidden != keccak256(request.hidden)):
        raise VerificationError("The block commits to another label or hidden sum than those that were sent")
    if block.submissions != tuple(signed.value.hash for signed in request.submissions):
        raise VerificationError("The block does not list exactly the submissions that were sent")
    if len(request.submissions) < max(config.min_survivors, policy.min_survivors):
        raise OpeningRefusedError(f"{len(request.submissions)} survivors are fewer than min_survivors")
    covenant = Covenant.of(config)
    if covenant is not None:
        if request.endorsement is None or ticket.beacon is None or block.parent != ticket.beacon.parent:
            raise VerificationError("With a ledger only a block that leader and committee signed is opened")
        check_endorsement(block, ticket.roster, covenant, label.domain, request.endorsement)
    survivors = check_submissions(request.submissions, ticket)
    halves.check_survivors(ticket, [entry.party for entry in survivors])
    return survivors


def check_submissions(submissions: Sequence[Signed], ticket: Ticket) -> list[Contribution]:
    """Verify signed submissions of one label, by rising party index, each a training party of the roster.

    Raises
    ------
    VerificationError
        If one belongs elsewhere, is out of order, or was not signed by its party.
    """
    label, roster = ticket.label, ticket.roster
    if len(submissions) > ticket.config.max_parties:
        raise VerificationError(f"The sum is sized for {ticket.config.max_parties} parties")
    contributions: list[Contribution] = []
    for signed in submissions:
        value = signed.value
        if not isinstance(value, Submission) or value.label != label.hash:
            raise VerificationError("A submission was made for another label")
        if value.party >= len(roster.parties) or (contributions and value.party <= contributions[-1].party):
            raise VerificationError("Submissions must be of different parties of the roster, in order")
        party = roster.parties[value.party]
        if not party.has(TRAIN_ROLE):
            raise VerificationError(f"Party {party.name!r} does not train")
        signed.verify(party.address, label.domain)
        contributions.append(halves.contribution(ticket, value.party, value.nonce))
    return contributions


def reserve(ticket: Ticket, block: bytes, memory: NodeMemory, limit: float = math.inf) -> tuple[bytes | None, int]:
    """Take the one opening of the ticket's round for ``block``, and pay for it; see :meth:`NodeMemory.reserve`."""
    label = ticket.label
    return memory.reserve(label.task, label.round, block, partial(_price, ticket.config), limit)


def charge(ticket: Ticket, memory: NodeMemory, limit: float = math.inf) -> None:
    """Pay for a round in which this node's own noise hides its update, before the update leaves the node (S20).

    Once a round, whatever becomes of its attempts: one of them may be opened without this node.

    Raises
    ------
    BudgetExhaustedError
        If the task, or this node, may not spend more.
    """
    memory.charge(ticket.label.task, ticket.label.round, partial(_price, ticket.config), limit)


def reserve_free(ticket: Ticket, block: bytes, memory: NodeMemory) -> bytes | None:
    """Take the one opening of the ticket's round on a node that adds no noise, and so holds no budget."""
    label = ticket.label
    return memory.reserve(label.task, label.round, block, lambda _: 0.0)[0]


def noise_of(config: TaskConfig) -> Noise | None:
    """Return what draws the noise that whoever opens adds (S17); None where nobody does, or the clients did."""
    mechanism = mechanism_of(config)
    return None if mechanism is None or mechanism.where != "opener" else mechanism.draw


def sigma_of(config: TaskConfig) -> int:
    """Return the deviation of the noise that whoever opens adds, in millionths of a quantisation step.

    0 without privacy, and where the clients add the noise: an opener vouches for what it did itself.
    """
    mechanism = mechanism_of(config)
    return 0 if mechanism is None else round(mechanism.opener_sigma * _MILLION)


def epsilon_of(config: TaskConfig, openings: int) -> int:
    """Return the task's epsilon after so many openings, in millionths, rounded up."""
    mechanism = mechanism_of(config)
    epsilon = math.inf if mechanism is None else mechanism.epsilon_after(openings)
    return math.ceil(epsilon * _MILLION) if math.isfinite(epsilon) else UNBOUNDED


def _price(config: TaskConfig, openings: int) -> float:
    """Return the task's epsilon after ``openings``; raise before the one that would exceed its rounds or epsilon."""
    mechanism: GaussianMechanism | None = mechanism_of(config)
    if openings > config.rounds:
        raise BudgetExhaustedError(f"The task allows {config.rounds} openings, all are used")
    if mechanism is None:
        return 0.0
    if openings > mechanism.affordable_rounds():
        raise BudgetExhaustedError(f"Opening {openings} sums would exceed epsilon = {mechanism.epsilon:g}")
    return mechanism.epsilon_after(openings)


def pack_signed(signed: Signed, body: bytes) -> bytes:
    """Encode an answer: length and JSON of what was signed, then what it commits to."""
    head = canonical(signed.to_dict())
    return len(head).to_bytes(4, "big") + head + body


def unpack_opening(answer: bytes, length: int) -> tuple[Signed, IntVector]:
    """Read an opener's answer, a signed :class:`Opening` and the sum; the signature is not checked here."""
    size = int.from_bytes(answer[:4], "big")
    signed = Signed.from_dict(Opening, parse(answer[4 : 4 + size], "opening"))
    return signed, vector_from_bytes(answer[4 + size :], length)


def pack_opening(signed: Signed, total: IntVector) -> bytes:
    """Undo :func:`unpack_opening`."""
    return pack_signed(signed, vector_to_bytes(total))


def check_opening(signed: Signed, total: IntVector, block: Block, ticket: Ticket, opener: bytes) -> Opening:
    """Verify an opener's word on what it opened.

    Parameters
    ----------
    signed : Signed
    total : ndarray of int64
    block : Block
    ticket : Ticket
    opener : bytes
        Address of the opener's signing key.

    Raises
    ------
    VerificationError
        If it opened another block, signed another sum, or states another noise than the task's.
    """
    opening = signed.value
    if not isinstance(opening, Opening) or opening.block != block.hash:
        raise VerificationError("The opening belongs to another block")
    if opening.total != keccak256(vector_to_bytes(total)):
        raise VerificationError("The opened sum is not the one that the opener signed")
    if opening.sigma != sigma_of(ticket.config):
        raise VerificationError("The opener signed another noise than the task's")
    signed.verify(opener, ticket.label.domain)
    return opening


def unpack_key(answer: bytes) -> tuple[Signed, bytes]:
    """Read a generator's answer, a signed :class:`FunctionKey` and the key; the signature is not checked here."""
    size = int.from_bytes(answer[:4], "big")
    return Signed.from_dict(FunctionKey, parse(answer[4 : 4 + size], "function key")), answer[4 + size :]


def check_key(signed: Signed, key: bytes, block: Block, ticket: Ticket, generator: bytes) -> FunctionKey:
    """Verify a generator's word on a function key; the parameters are those of :func:`check_opening`.

    Raises
    ------
    VerificationError
        If it was derived for another block or round, is another key, or holds another noise than the task's.
    """
    value = signed.value
    if not isinstance(value, FunctionKey) or value.block != block.hash:
        raise VerificationError("The function key belongs to another block")
    if value.key != keccak256(key):
        raise VerificationError("The function key is not the one that the generator signed")
    if value.sigma != sigma_of(ticket.config):
        raise VerificationError("The generator signed another noise than the task's")
    signed.verify(generator, ticket.label.domain)
    return value
