"""The end of a task: the committee judges the final model and signs what is paid (ESB-FL sections 4.2 and 6.3).

A member signs only what it recomputed: every block of the chain is signed by its leader and a quorum, the accuracy is
the mean of signed evaluations weighted by their data, and the payouts follow from the accepted blocks by the task's
rule. The accounts are the contract's business: it pays the accounts that it froze with the participants.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from ..crypto.eip712 import Domain
from ..crypto.signing import keccak256
from ..encoding import canonical, parse, unhex
from ..errors import ConfigError, ProtocolError, VerificationError
from ..ledger.packing import PackedEvaluation, PackedPayout, pack_all
from ..ledger.payouts import payouts
from ..roster import TRAIN_ROLE, Roster
from ..round import Signed
from ..tokens import Evaluation, ModelToken, Result
from .committee import Link, endorsed_link
from .covenant import Covenant, genesis_of
from .endorsement import COMMITTEE, Endorsement, check_endorsement
from .identity import Identity
from .memory import NodeMemory
from .pins import Pins
from .ticket import Ticket, admit

#: Metric of an app's evaluate reply that a settlement is about.
ACCURACY = "accuracy"
#: Accuracies are recorded in hundredths of a per cent.
BPS = 10_000


@dataclass(frozen=True, slots=True)
class SettleRequest:
    """What leader and committee are asked to sign at the end.

    Parameters
    ----------
    initial : bytes
        Hash of the initial arrays, from which the genesis follows.
    links : tuple of (Link, Endorsement)
        All recorded blocks in order.
    evaluations : tuple of Signed
        Signed :class:`~flbc.tokens.Evaluation` of committee members, by rising roster index; empty when the task asks
        for no accuracy.
    model : bytes
        Hash of the final arrays.
    link : str
        Where the final model can be had.
    reward : int
        The escrow in wei.
    """

    initial: bytes
    links: tuple[tuple[Link, Endorsement], ...]
    evaluations: tuple[Signed, ...]
    model: bytes
    link: str
    reward: int

    def encode(self) -> bytes:
        """Canonical bytes."""
        return canonical(
            {
                "initial": self.initial.hex(),
                "links": [[link.to_dict(), endorsement.to_dict()] for link, endorsement in self.links],
                "evaluations": [signed.to_dict() for signed in self.evaluations],
                "model": self.model.hex(),
                "link": self.link,
                "reward": str(self.reward),  # wei do not fit the integers that JSON readers agree on
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Undo :meth:`encode`; nothing is verified but the form."""
        value = parse(data, "request to settle")
        if set(value) != {"initial", "links", "evaluations", "model", "link", "reward"}:
            raise ProtocolError("A request to settle must hold initial, links, evaluations, model, link and reward")
        if not isinstance(value["links"], list) or not isinstance(value["evaluations"], list):
            raise ProtocolError("Links and evaluations must be lists")
        if not isinstance(value["link"], str) or not str(value["reward"]).isdecimal():
            raise ProtocolError("The link must be text, the reward a decimal number of wei")
        return cls(
            unhex(value["initial"], 32, "initial"),
            tuple(endorsed_link(item) for item in value["links"]),
            tuple(Signed.from_dict(Evaluation, item) for item in value["evaluations"]),
            unhex(value["model"], 32, "model"),
            value["link"],
            int(value["reward"]),
        )


@dataclass(frozen=True, slots=True)
class Settlement:
    """What follows from a :class:`SettleRequest`: both signed structs, and the packed bytes they commit to."""

    token: ModelToken
    result: Result
    evaluations: bytes
    payouts: bytes


class Judge:
    """A node with the role ``committee``, or the leader of the last block, at the end of a task."""

    def __init__(self, me: Identity, pins: Pins, memory: NodeMemory) -> None:
        if COMMITTEE not in me.roles and TRAIN_ROLE not in me.roles:
            raise ConfigError('This node settles nothing; set flbc-role="hospital,committee" in --node-config')
        self.me, self.pins, self.memory = me, pins, memory

    def evaluate(self, ticket: Ticket, model: bytes, accuracy: float, examples: int) -> Signed:
        """Sign this member's accuracy of the final model.

        Parameters
        ----------
        ticket : Ticket
            Its label commits to the message that brought the model.
        model : bytes
            Hash of the arrays that were evaluated.
        accuracy : float
            Between 0 and 1; rounded down to hundredths of a per cent.
        examples : int
            Examples it was measured on.
        """
        index = admit(ticket, self.me, self.pins, self.memory)
        if COMMITTEE not in self.me.roles:
            raise ProtocolError("Only committee members judge the final model")
        if not 0 <= accuracy <= 1 or not 0 < examples < 2**32:
            raise ProtocolError("The app's evaluate function must return an accuracy from 0 to 1, and a count above 0")
        # A float of 0.29 times 10,000 is 2,899.9999…; rounding to a millionth first keeps what was meant.
        bps = int(round(accuracy * BPS, 6))
        value = Evaluation(ticket.label.task, model, index, bps, examples)
        return Signed.make(value, self.me.keys.signing, ticket.label.domain)

    def settle(self, ticket: Ticket, request: SettleRequest) -> tuple[bytes, bytes]:
        """Check everything and sign.

        Returns
        -------
        model_signature, vote : bytes
            sigma2, and the vote on the result (empty if this node is no committee member), 65 bytes each.

        Raises
        ------
        VerificationError
            Says what does not hold.
        """
        admit(ticket, self.me, self.pins, self.memory)
        settled = check_settlement(ticket, request)
        self.memory.check_head(ticket.label.task, len(request.links), settled.token.head)
        where, key = ticket.label.domain, self.me.keys.signing
        vote = Signed.make(settled.result, key, where).signature if COMMITTEE in self.me.roles else b""
        return Signed.make(settled.token, key, where).signature, vote


def check_settlement(ticket: Ticket, request: SettleRequest) -> Settlement:
    """Verify the chain and the evaluations, and compute what is paid.

    Raises
    ------
    VerificationError
        If a block, a signature or the accuracy does not hold.
    """
    covenant, roster = Covenant.of(ticket.config), ticket.roster
    if covenant is None:
        raise ProtocolError("This task has no ledger, so there is nothing to settle")
    where = ticket.label.domain
    genesis = genesis_of(request.initial, ticket.config, roster)
    head, accepted = _check_chain(request, genesis, roster, covenant, where)
    accuracy_bps = _accuracy(ticket, request, covenant) if covenant.accuracy_bps else 0
    if accuracy_bps < covenant.accuracy_bps:
        raise VerificationError(
            f"The final model reaches {accuracy_bps / 100:.2f} %, the task wants {covenant.accuracy_bps / 100:.2f} %"
        )
    examples = {index: party.examples for index, party in enumerate(roster.parties)}
    amounts = payouts(request.reward, covenant.payout, accepted, examples)
    paid = pack_all([PackedPayout(party, amount) for party, amount in amounts.items()])
    judged = pack_all([PackedEvaluation.of(signed) for signed in request.evaluations])
    token = ModelToken(ticket.label.task, head, request.model, request.link, accuracy_bps)
    return Settlement(token, Result(token.hash, keccak256(judged), keccak256(paid)), judged, paid)


def accuracy_of(judged: Sequence[tuple[int, int, int]], declared: Sequence[int]) -> int:
    """Return the mean accuracy in hundredths of a per cent, weighted by examples, rounded down.

    Parameters
    ----------
    judged : sequence of (int, int, int)
        Party, accuracy in hundredths of a per cent, examples it was measured on.
    declared : sequence of int
        Declared examples of every party of the roster. A member's examples are its own word, so they count up to what
        it declared before the task; those of a member that declared none, up to the largest declaration. Otherwise
        one member could decide alone.
    """
    largest = max(declared, default=0)
    weights = [min(examples, declared[party] or largest or examples) for party, _, examples in judged]
    return sum(bps * weight for (_, bps, _), weight in zip(judged, weights, strict=True)) // sum(weights)


def _check_chain(
    request: SettleRequest, genesis: bytes, roster: Roster, covenant: Covenant, where: Domain
) -> tuple[bytes, dict[int, int]]:
    """Return the last block's hash, and how many accepted blocks hold each party's submission."""
    head, accepted = genesis, Counter[int]()
    for link, endorsement in request.links:
        if link.block.parent != head:
            raise VerificationError("The blocks do not form a chain from the genesis")
        link.check()
        check_endorsement(link.block, roster, covenant, where, endorsement)
        accepted.update(entry.party for entry in link.submissions)
        head = link.block.hash
    if not request.links:
        raise VerificationError("No block was recorded, so nothing can be paid")
    return head, dict(accepted)


def _accuracy(ticket: Ticket, request: SettleRequest, covenant: Covenant) -> int:
    roster, values, last = ticket.roster, [], -1
    for signed in request.evaluations:
        value = signed.value
        if not isinstance(value, Evaluation) or (value.task, value.model) != (ticket.label.task, request.model):
            raise VerificationError("An evaluation belongs to another task or model")
        if not last < value.party < len(roster.parties) or not roster.parties[value.party].has(COMMITTEE):
            raise VerificationError("Evaluations must be of different members of the committee, in order")
        if value.accuracy_bps > BPS or not value.examples:
            raise VerificationError("An evaluation must state an accuracy of at most 100 %, on at least one example")
        signed.verify(roster.parties[value.party].address, ticket.label.domain)
        values.append(value)
        last = value.party
    if len(values) < covenant.quorum:
        raise VerificationError(f"{len(values)} members judged the model; the quorum is {covenant.quorum}")
    judged = [(value.party, value.accuracy_bps, value.examples) for value in values]
    return accuracy_of(judged, [party.examples for party in roster.parties])


def unpack_answer(value: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """Return sigma2 and the vote of an answer's members; :class:`ProtocolError` if their lengths are wrong."""
    signature, vote = value["model"], value["vote"]
    if len(signature) != 65 or len(vote) not in (0, 65):
        raise ProtocolError("A settlement's signatures must have 65 bytes")
    return signature, vote
