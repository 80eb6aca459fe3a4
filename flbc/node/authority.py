"""The key authority: opens one sum a round, of clients it recognises, and adds the noise itself.

Rules kept here: S8 one opening per (task, round), remembered before it is answered, over restarts; S11 exactly these
clients once each (by the scheme's tags); S12 enough survivors; S17 the noise; S20 the budget.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from ..crypto import paillier
from ..crypto.signing import keccak256
from ..encoding import canonical, parse
from ..errors import (
    BudgetExhaustedError,
    ConfigError,
    OpeningRefusedError,
    ProtocolError,
    RosterError,
    VerificationError,
)
from ..privacy.mechanism import GaussianMechanism
from ..privacy.noise import rounded_gaussian
from ..roster import TRAIN_ROLE, Roster
from ..round import UNBOUNDED, Block, Opening, RoundLabel, SchemeKey, Signed, Submission
from ..schemes import Contribution, IntVector
from ..schemes.base import vector_from_bytes, vector_to_bytes
from ..schemes.paillier import PaillierOpener
from ..task import TaskConfig
from .covenant import Covenant
from .endorsement import Endorsement, check_endorsement
from .identity import Identity
from .memory import NodeMemory
from .pins import Pins
from .terms import mechanism_of, sum_spec
from .ticket import Ticket, admit, check_keys, key_domain

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """What the authority is asked to open.

    Parameters
    ----------
    block : Block
    submissions : tuple of Signed
        Those in the block.
    hidden : bytes
        The hidden sum.
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


class Authority:
    """The node that holds the Paillier key.

    Parameters
    ----------
    me : Identity
        Must have the role ``authority``.
    private : PrivateKey
    pins : Pins
    memory : NodeMemory
        Durable; losing it loses S8 and S20, so a new key and new tasks are due then.
    """

    def __init__(self, me: Identity, private: paillier.PrivateKey, pins: Pins, memory: NodeMemory) -> None:
        if "authority" not in me.roles:
            raise ConfigError('This node does not serve as authority; set flbc-role="authority" in --node-config')
        self.me, self.private, self.pins, self.memory = me, private, pins, memory

    def scheme_key(self, scheme: str = "paillier") -> Signed:
        """Return the signed statement that the public key is this authority's."""
        value = SchemeKey(scheme, self.private.public.fingerprint)
        return Signed.make(value, self.me.keys.signing, key_domain(self.me.simulation))

    def open(self, ticket: Ticket, request: OpenRequest) -> tuple[Signed, IntVector]:
        """Open the sum of a block.

        Returns
        -------
        opening : Signed
            Signed :class:`~flbc.round.Opening`.
        total : ndarray of int64, shape (length,)
            The sum, with noise if the task has differential privacy.

        Raises
        ------
        OpeningRefusedError
            If this is not the sum of exactly the block's clients, another block of the round was opened, too few
            survived, or the budget is spent.
        FlbcError
            If anything about the ticket, block or submissions does not verify.
        """
        admit(ticket, self.me, self.pins, self.memory)
        public = check_keys(ticket.keys, ticket.config, ticket.authority, ticket.label.simulation)
        if ticket.authority.name != self.me.name or public.fingerprint != self.private.public.fingerprint:
            raise RosterError("The roster or the task names another opening key than this authority's")
        survivors = self._survivors(ticket, request)
        label, mechanism = ticket.label, mechanism_of(ticket.config)
        spec = sum_spec(ticket.config)
        block = request.block.hash
        price = partial(_price, ticket.config, mechanism)
        limit = self.pins.policy.max_total_epsilon
        answer, openings = self.memory.reserve(label.task, label.round, block, price, limit)
        if answer is None:
            opener = PaillierOpener(self.private, spec, self.me.keys.encryption)
            noise = None if mechanism is None else (lambda count: rounded_gaussian(count, mechanism.sigma))
            try:
                total = opener.open(request.hidden, label.hash, survivors, noise)
                mine = self._sign(ticket, block, mechanism, total, openings)
            except OpeningRefusedError:
                mine = b""
            # Only the answer that was kept first may leave: a refusal, too, depends on the noise that was drawn.
            answer = self.memory.keep_opening(label.task, label.round, mine)
        if not answer:
            raise OpeningRefusedError("This is not the sum of exactly these survivors; the round is burnt")
        return unpack_opening(answer, spec.length)

    def _sign(
        self, ticket: Ticket, block: bytes, mechanism: GaussianMechanism | None, total: IntVector, openings: int
    ) -> bytes:
        """Return the signed opening and the sum, encoded."""
        sigma = 0 if mechanism is None else round(mechanism.sigma * _MILLION)
        opening = Opening(block, keccak256(vector_to_bytes(total)), sigma, _micro_epsilon(mechanism, openings))
        return pack_opening(Signed.make(opening, self.me.keys.signing, ticket.label.domain), total)

    def _survivors(self, ticket: Ticket, request: OpenRequest) -> list[Contribution]:
        """Check block and submissions; return what the scheme must know of each survivor."""
        block, label, config = request.block, ticket.label, ticket.config
        if block.label != label.hash or block.hidden != keccak256(request.hidden):
            raise VerificationError("The block commits to another label or hidden sum than those that were sent")
        if block.submissions != tuple(signed.value.hash for signed in request.submissions):
            raise VerificationError("The block does not list exactly the submissions that were sent")
        if len(request.submissions) < max(config.min_survivors, self.pins.policy.min_survivors):
            raise OpeningRefusedError(f"{len(request.submissions)} survivors are fewer than min_survivors")
        covenant = Covenant.of(config)
        if covenant is not None:
            if request.endorsement is None or ticket.beacon is None or block.parent != ticket.beacon.parent:
                raise VerificationError("With a ledger only a block that leader and committee signed is opened")
            check_endorsement(block, ticket.roster, covenant, label.domain, request.endorsement)
        return check_submissions(request.submissions, label, ticket.roster, config)


def _price(config: TaskConfig, mechanism: GaussianMechanism | None, openings: int) -> float:
    """Return the task's epsilon after ``openings``; raise before the one that would exceed its rounds or epsilon."""
    if openings > config.rounds:
        raise BudgetExhaustedError(f"The task allows {config.rounds} openings, all are used")
    if mechanism is None:
        return 0.0
    if openings > mechanism.affordable_rounds():
        raise BudgetExhaustedError(f"Opening {openings} sums would exceed epsilon = {mechanism.epsilon:g}")
    return mechanism.epsilon_after(openings)


def _micro_epsilon(mechanism: GaussianMechanism | None, openings: int) -> int:
    epsilon = math.inf if mechanism is None else mechanism.epsilon_after(openings)
    return math.ceil(epsilon * _MILLION) if math.isfinite(epsilon) else UNBOUNDED


def check_submissions(
    submissions: Sequence[Signed], label: RoundLabel, roster: Roster, config: TaskConfig
) -> list[Contribution]:
    """Verify signed submissions of one label, by rising party index, each a training party of the roster.

    Raises
    ------
    VerificationError
        If one belongs elsewhere, is out of order, or was not signed by its party.
    """
    if len(submissions) > config.max_parties:
        raise VerificationError(f"The sum is sized for {config.max_parties} parties")
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
        contributions.append(Contribution(value.party, party.encryption, value.nonce))
    return contributions


def pack_opening(signed: Signed, total: IntVector) -> bytes:
    """Encode the authority's answer: length and JSON of the signed opening, then the sum."""
    head = canonical(signed.to_dict())
    return len(head).to_bytes(4, "big") + head + vector_to_bytes(total)


def unpack_opening(answer: bytes, length: int) -> tuple[Signed, IntVector]:
    """Undo :func:`pack_opening`; the signature is not checked here."""
    size = int.from_bytes(answer[:4], "big")
    signed = Signed.from_dict(Opening, parse(answer[4 : 4 + size], "opening"))
    return signed, vector_from_bytes(answer[4 + size :], length)


def check_opening(
    signed: Signed, total: IntVector, block: Block, label: RoundLabel, authority: bytes, config: TaskConfig
) -> Opening:
    """Verify the authority's word on what it opened.

    Raises
    ------
    VerificationError
        If it opened another block, signed another sum, or added less noise than the task says.
    """
    opening = signed.value
    if not isinstance(opening, Opening) or opening.block != block.hash:
        raise VerificationError("The opening belongs to another block")
    if opening.total != keccak256(vector_to_bytes(total)):
        raise VerificationError("The opened sum is not the one that the authority signed")
    mechanism = mechanism_of(config)
    if opening.sigma != (0 if mechanism is None else round(mechanism.sigma * _MILLION)):
        raise VerificationError("The authority signed another noise than the task's")
    signed.verify(authority, label.domain)
    return opening
