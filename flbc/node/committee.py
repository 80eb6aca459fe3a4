"""Leader and committee: recompute a block from the submissions, and sign it once (S9, S10, S22).

Whoever signs has every payload of the block, checks who made it, combines them itself and compares the result with
the block's hidden sum. Payloads are hidden from it as they are from the server: it learns who took part, and sizes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from ..cards import Verdict
from ..crypto.signing import keccak256
from ..election import Candidate, alpha, public_draw, rank
from ..encoding import Json, canonical, parse, unhex
from ..errors import CiphertextError, ConfigError, ProtocolError, VerificationError
from ..roster import TRAIN_ROLE, Roster
from ..round import Block, Signed, Submission, Vote, submission_hash
from . import halves
from .covenant import Beacon, Covenant
from .draw import PROOF_BYTES, check_draw, make_draw
from .endorsement import COMMITTEE, Endorsement, check_endorsement
from .identity import Identity
from .mask_keys import SCHEME as MASKED
from .memory import NodeMemory
from .opening import check_submissions
from .pins import Pins
from .ticket import Ticket, admit
from .verdict import check_verdicts, models_hash


@dataclass(frozen=True, slots=True)
class Summary:
    """A submission without its content: what elects the next leader, and what is paid for."""

    party: int
    draw: int
    compute_ms: int
    content: bytes

    @classmethod
    def of(cls, submission: Submission) -> Self:
        """Leave out the content."""
        return cls(submission.party, submission.draw, submission.compute_ms, submission.content)

    def hash(self, label: bytes) -> bytes:
        """Return the hash of the submission under ``label``."""
        return submission_hash(label, self.party, self.draw, self.compute_ms, self.content)

    def to_json(self) -> list[Json]:
        """Return the JSON form."""
        return [self.party, self.draw, self.compute_ms, self.content.hex()]

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Undo :meth:`to_json`."""
        if not isinstance(data, list) or len(data) != 4 or any(type(item) is not int for item in data[:3]):
            raise ProtocolError("The summary of a submission must be party, draw, compute_ms and content")
        return cls(data[0], data[1], data[2], unhex(data[3], 32, "content"))


@dataclass(frozen=True, slots=True)
class Link:
    """A block of the chain with the summaries of its submissions."""

    block: Block
    submissions: tuple[Summary, ...]

    def check(self) -> None:
        """Raise :class:`VerificationError` unless the summaries are those of the block."""
        hashes = tuple(entry.hash(self.block.label) for entry in self.submissions)
        if hashes != self.block.submissions:
            raise VerificationError("The submissions of a block differ from those it commits to")

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"block": self.block.to_dict(), "submissions": [entry.to_json() for entry in self.submissions]}

    @classmethod
    def from_dict(cls, data: object) -> Self:
        """Undo :meth:`to_dict`."""
        if not isinstance(data, Mapping) or set(data) != {"block", "submissions"}:
            raise ProtocolError("A link must hold a block and its submissions")
        if not isinstance(data["block"], dict) or not isinstance(data["submissions"], list):
            raise ProtocolError("A link must hold a block and a list of submissions")
        return cls(Block.from_dict(data["block"]), tuple(Summary.from_json(entry) for entry in data["submissions"]))


@dataclass(frozen=True, slots=True)
class Entry:
    """A submission as its maker sent it: signed, with the proof of its draw and the payload."""

    signed: Signed
    proof: bytes
    payload: bytes

    @property
    def submission(self) -> Submission:
        """The signed value; :class:`ProtocolError` if it is none."""
        if not isinstance(self.signed.value, Submission):
            raise ProtocolError("A submission was expected")
        return self.signed.value


@dataclass(frozen=True, slots=True)
class AttestRequest:
    """What leader and committee are asked to sign.

    Parameters
    ----------
    block : Block
    summed, rejected : tuple of Entry
        By rising party; ``rejected`` are signed submissions whose payload no sum can hold.
    previous : (Link, Endorsement) or None
        The block's parent and the signatures under it; None at height 1.
    verdicts : tuple of Signed (default: ())
        With checks of hidden models, what the three verifiers found.
    """

    block: Block
    summed: tuple[Entry, ...]
    rejected: tuple[Entry, ...]
    previous: tuple[Link, Endorsement] | None
    verdicts: tuple[Signed, ...] = ()

    def to_wire(self) -> tuple[bytes, bytes]:
        """Return a header, and the payloads one after another."""
        entries = (*self.summed, *self.rejected)
        header = canonical(
            {
                "block": self.block.to_dict(),
                "entries": [[e.signed.to_dict(), e.proof.hex(), len(e.payload)] for e in entries],
                "rejected": len(self.rejected),
                "previous": None if self.previous is None else [part.to_dict() for part in self.previous],
                "verdicts": [signed.to_dict() for signed in self.verdicts],
            }
        )
        return header, b"".join(entry.payload for entry in entries)

    @classmethod
    def from_wire(cls, header: bytes, body: bytes) -> Self:
        """Undo :meth:`to_wire`; nothing is verified but the form."""
        value = parse(header, "request to attest")
        listed, rejected, verdicts = value.get("entries"), value.get("rejected"), value.get("verdicts")
        known = {"block", "entries", "rejected", "previous", "verdicts"}
        if set(value) != known or not isinstance(listed, list) or not isinstance(verdicts, list):
            raise ProtocolError("A request to attest must hold block, entries, rejected, previous and verdicts")
        if not isinstance(value["block"], dict) or type(rejected) is not int or not 0 <= rejected <= len(listed):
            raise ProtocolError("A request to attest has a malformed block or number of rejected submissions")
        entries, offset = [], 0
        for item in listed:
            if not isinstance(item, list) or len(item) != 3 or type(item[2]) is not int or item[2] < 0:
                raise ProtocolError("An entry must be a submission, a proof and the size of its payload")
            payload = body[offset : offset + item[2]]
            offset += item[2]
            entries.append(Entry(Signed.from_dict(Submission, item[0]), unhex(item[1], PROOF_BYTES, "proof"), payload))
        if offset != len(body):
            raise ProtocolError("The payloads' sizes do not add up to the body's")
        split = len(entries) - rejected
        previous = None if value["previous"] is None else endorsed_link(value["previous"])
        words = tuple(Signed.from_dict(Verdict, entry) for entry in verdicts)
        return cls(Block.from_dict(value["block"]), tuple(entries[:split]), tuple(entries[split:]), previous, words)


def endorsed_link(item: object) -> tuple[Link, Endorsement]:
    """Read a link with the signatures under it; nothing is verified but the form."""
    if not isinstance(item, list) or len(item) != 2:
        raise ProtocolError("A link must come with its endorsement")
    return Link.from_dict(item[0]), Endorsement.from_dict(item[1])


@dataclass(frozen=True, slots=True)
class Attestation:
    """A node's answer: the block signed by its leader with the proof of its draw, or a member's vote."""

    leader: bytes = b""
    proof: bytes = b""
    vote: bytes = b""


def ranking(roster: Roster, covenant: Covenant, beacon: Beacon, previous: Link | None) -> list[Candidate]:
    """Return who may lead the block that ``beacon`` announces, best first.

    At height 1 everybody's draw is public; later the parent's submissions carry the draws, so that the chain alone
    shows who was elected. If nobody who submitted to the parent has a stake, draws are public again.

    Raises
    ------
    VerificationError
        If ``previous`` is not the parent.
    """
    parties = roster.parties
    draws: list[tuple[int, int]] = []
    if beacon.height > 1:
        if previous is None or previous.block.hash != beacon.parent:
            raise VerificationError("The block before this one was not sent, or it is another one")
        previous.check()
        draws = [(entry.party, entry.draw) for entry in previous.submissions]
    if not any(covenant.stake(parties[index].name) for index, _ in draws):
        seed = beacon.seed if beacon.height == 1 else alpha(beacon.seed, beacon.height)
        draws = [(index, public_draw(seed, party.address)) for index, party in roster.with_role(TRAIN_ROLE)]
    return rank(
        [
            Candidate(index, parties[index].address, stake, draw)
            for index, draw in draws
            if (stake := covenant.stake(parties[index].name)) > 0
        ]
    )


class Attester:
    """A node with the role ``committee``, or one that leads a block.

    Parameters
    ----------
    me : Identity
    pins : Pins
    memory : NodeMemory
        Durable: it keeps the one block signed per label.
    """

    def __init__(self, me: Identity, pins: Pins, memory: NodeMemory) -> None:
        if COMMITTEE not in me.roles and TRAIN_ROLE not in me.roles:
            raise ConfigError('This node neither leads nor votes; set flbc-role="hospital,committee" in --node-config')
        self.me, self.pins, self.memory = me, pins, memory

    def attest(self, ticket: Ticket, request: AttestRequest) -> Attestation:
        """Check and sign one block of this label, as its leader or as a committee member.

        Raises
        ------
        VerificationError
            Says what is wrong with the block.
        StaleLabelError
            If another block was signed under this label.
        """
        index = admit(ticket, self.me, self.pins, self.memory)
        covenant, beacon = Covenant.of(ticket.config), ticket.beacon
        if covenant is None or beacon is None:
            raise ProtocolError("This task has no ledger, so there is nothing to attest")
        block, leads = request.block, request.block.leader == index
        if not leads and COMMITTEE not in self.me.roles:
            raise ProtocolError("This node does not lead this block, and is no committee member")
        check_block(ticket, covenant, beacon, request)
        if halves.decryptor(ticket) not in (None, block.leader):
            raise VerificationError("The block's leader and the attempt's decryptor must be one")
        check_sum(ticket, request)
        place = (beacon.height, beacon.parent)
        self.memory.sign_once(ticket.label.task, once(ticket), place, block.hash)
        where, key = ticket.label.domain, self.me.keys.signing
        if leads:
            _, proof = make_draw(self.me.keys, beacon.seed, beacon.height)
            return Attestation(leader=Signed.make(block, key, where).signature, proof=proof)
        return Attestation(vote=Signed.make(Vote(block.label, block.hash), key, where).signature)


def once(ticket: Ticket) -> bytes:
    """Return what a node signs one block for: an attempt, or the whole round where every attempt could be opened.

    Shares of masks are held by many, so that two signed lists of survivors could be opened by different ones.
    """
    label = ticket.label
    return label.hash if ticket.config.scheme != MASKED else keccak256(label.task + label.round.to_bytes(4, "big"))


def check_block(ticket: Ticket, covenant: Covenant, beacon: Beacon, request: AttestRequest) -> None:
    """Check everything about a block but the sum itself; :class:`VerificationError` says what is wrong."""
    block, label, roster = request.block, ticket.label, ticket.roster
    if block.label != label.hash or block.parent != beacon.parent:
        raise VerificationError("The block belongs to another label, or follows another block")
    if len(request.summed) < max(ticket.config.min_survivors, 1):
        raise VerificationError("The block sums fewer submissions than min_survivors")
    _check_entries(ticket, beacon, request.summed)
    _check_entries(ticket, beacon, request.rejected)
    halves.check_survivors(ticket, [entry.submission.party for entry in request.summed])
    if block.submissions != tuple(entry.submission.hash for entry in request.summed):
        raise VerificationError("The block does not list exactly the submissions that were sent")
    rejected = tuple(entry.submission.party for entry in request.rejected)
    if block.rejected != rejected or set(rejected) & {entry.submission.party for entry in request.summed}:
        raise VerificationError("The block does not list exactly the rejected parties")
    previous = None
    if request.previous is not None:  # without its signatures a server could make up a parent, and with it a leader
        previous, endorsement = request.previous
        check_endorsement(previous.block, roster, covenant, label.domain, endorsement)
    ranked = ranking(roster, covenant, beacon, previous)
    # Every silent leader costs an attempt, so a server cannot pass over leaders unseen.
    if block.leader not in [candidate.index for candidate in ranked[: label.attempt + 1]]:
        raise VerificationError("The block's leader was not elected")


def check_sum(ticket: Ticket, request: AttestRequest) -> None:
    """Recompute the hidden sum; :class:`VerificationError` if it is another one, or a rejection is unfounded."""
    combiner, sound = halves.combiner(ticket), list[Entry]()
    for entry in request.rejected:
        try:
            combiner.check(entry.payload)
        except CiphertextError:
            continue
        sound.append(entry)
    if ticket.config.verification is not None:
        _check_verdict(ticket, request, sound)
    elif sound or request.verdicts:
        raise VerificationError("A submission is rejected although its payload is well formed")
    hidden = combiner.combine({entry.submission.party: entry.payload for entry in request.summed})
    if keccak256(hidden) != request.block.hidden:
        raise VerificationError("The hidden sum is not that of the block's submissions")


def _check_verdict(ticket: Ticket, request: AttestRequest, sound: Sequence[Entry]) -> None:
    """Raise unless the verifiers found exactly the well-formed ones among the rejected to be bad."""
    checked = sorted((entry.submission for entry in (*request.summed, *sound)), key=lambda s: s.party)
    found = check_verdicts(ticket, request.verdicts, models_hash(checked))
    if not found.enough or set(found.rejected) != {entry.submission.party for entry in sound}:
        raise VerificationError("A submission is rejected, or summed, against what the verifiers found")


def _check_entries(ticket: Ticket, beacon: Beacon, entries: Sequence[Entry]) -> None:
    check_submissions([entry.signed for entry in entries], ticket)
    for entry in entries:
        submission = entry.submission
        if submission.payload != keccak256(entry.payload) or submission.vrf != keccak256(entry.proof):
            raise VerificationError("A payload or a proof is not the one that its maker signed")
        party = ticket.roster.parties[submission.party]
        check_draw(entry.proof, party, beacon.seed, beacon.height + 1, submission.draw)
