"""A task's ledger as the server sees it during a run: where the chain stands, and what is written next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from logging import INFO, WARNING
from typing import TYPE_CHECKING

from flwr.app import Message
from flwr.common.logger import log

from ..crypto import vrf
from ..election import alpha
from ..errors import FlbcError, ProtocolError, RevertedError, VerificationError
from ..ledger.record import Book, RoundRecord, SignedOpening, Started
from ..node.committee import Attestation, AttestRequest, Link, Summary, ranking
from ..node.covenant import Beacon, Covenant
from ..node.draw import check_draw
from ..node.endorsement import COMMITTEE, Endorsement, check_endorsement, check_leader
from ..node.ticket import Ticket
from ..roster import Roster
from ..round import NO_LEADER, Block, RoundLabel, Signed, Vote
from . import wire
from .grid import exchange

if TYPE_CHECKING:
    from .session import Session


@dataclass
class Chain:
    """A started task.

    Parameters
    ----------
    book : Book
        Writes to the ledger.
    covenant : Covenant
    started : Started
    links : list of (Link, Endorsement)
        Blocks that leader and committee signed, in order.
    opening : SignedOpening or None
        Of the last block; recorded with the next one, or at the end.
    """

    book: Book
    covenant: Covenant
    started: Started
    links: list[tuple[Link, Endorsement]] = field(default_factory=list)
    opening: SignedOpening | None = None

    @property
    def beacon(self) -> Beacon:
        """What elects the leader of the next block."""
        return Beacon(self.started.seed, len(self.links) + 1, self.parent, self.started.initial)

    @property
    def parent(self) -> bytes:
        """Hash of the last block, or of the genesis."""
        return self.links[-1][0].block.hash if self.links else self.started.genesis

    @property
    def last(self) -> Link | None:
        """The last block."""
        return self.links[-1][0] if self.links else None

    def leader(self, roster: Roster, skipped: int) -> int:
        """Return the roster index of the leader after passing over ``skipped`` silent ones."""
        ranked = ranking(roster, self.covenant, self.beacon, self.last)
        if not ranked:
            return NO_LEADER
        return ranked[min(skipped, len(ranked) - 1)].index

    def append(self, label: RoundLabel, request: AttestRequest, endorsement: Endorsement, proof: bytes) -> None:
        """Take a signed block into the chain, and hand it to the ledger with the opening of the one before.

        Raises
        ------
        RevertedError
            If the contract refuses it, and the ledger waits for that: the chain is what it was before.
        """
        block, beacon = request.block, self.beacon
        submissions = [entry.signed for entry in request.summed]
        record = RoundRecord(
            label, block, submissions, endorsement.leader, endorsement.votes, alpha(beacon.seed, beacon.height), proof,
            self.opening,
        )  # fmt: skip
        opening, self.opening = self.opening, None
        self.links.append((Link(block, tuple(Summary.of(entry.submission) for entry in request.summed)), endorsement))
        try:
            self.book.record(record)
        except RevertedError:
            self.links.pop()
            self.opening = opening
            raise


class UnsignedError(VerificationError):
    """A block did not get its leader's signature or its quorum; another attempt may."""


def attest(session: Session, chain: Chain, ticket: Ticket, request: AttestRequest, timeout: float) -> Endorsement:
    """Have a block signed by its leader and the committee, and take it into the chain.

    Raises
    ------
    UnsignedError
        If the leader is silent or too few members sign.
    LedgerError
        If the ledger refused an earlier block: nothing after it can be recorded, so nothing more is opened.
    """
    block, roster = request.block, ticket.roster
    chain.book.check()
    name = roster.parties[block.leader].name
    members = {party.name for _, party in roster.with_role(COMMITTEE)} | {name}
    nodes = {n: card.party.name for n, card in session.directory.cards(session.grid).items()}
    suspended = chain.book.suspended()  # the contract refuses their signatures
    asked = [node for node, party in nodes.items() if party in members and party not in suspended]
    header, body = request.to_wire()
    parts = {**ticket.to_wire(), "request": header}
    messages = [wire.request(wire.ATTEST, parts, node, ticket.label.round, body) for node in asked]

    told: set[int] = set()

    def gathered(replies: Mapping[int, Message]) -> tuple[bytes, bytes, list[tuple[int, bytes]]]:
        leader, proof, votes = b"", b"", {}
        for node, message in replies.items():
            if message.has_error():
                continue
            try:
                answer = _read(message)
                index = roster.index(nodes[node])
                if index == block.leader:
                    check_leader(block, roster, chain.covenant, ticket.label.domain, answer.leader)
                    _check_proof(chain, answer.proof, roster.parties[index].name, ticket)
                    leader, proof = answer.leader, answer.proof
                else:
                    vote = Signed(Vote(block.label, block.hash), answer.vote)
                    vote.verify(roster.parties[index].address, ticket.label.domain)
                    votes[index] = answer.vote
            except FlbcError as error:
                if node not in told:
                    log(WARNING, "flbc: the answer of %s is left out: %s", nodes[node], error)
                told.add(node)
        return leader, proof, sorted(votes.items())

    def enough(replies: Mapping[int, Message]) -> bool:
        leader, _, votes = gathered(replies)
        return bool(leader) and len(votes) + roster.parties[block.leader].has(COMMITTEE) >= chain.covenant.quorum

    replies = exchange(session.grid, messages, timeout, enough)
    for node, message in replies.items():
        if message.has_error():
            reason = (message.error.reason or "no reason").strip().splitlines()[-1]
            log(WARNING, "flbc: %s did not sign the block: %s", nodes[node], reason)
    leader, proof, votes = gathered(replies)
    if not leader:
        raise UnsignedError(f"the leader {name} is silent or refused")
    endorsement = Endorsement(leader, tuple(votes))
    try:
        check_endorsement(block, roster, chain.covenant, ticket.label.domain, endorsement)
    except VerificationError as error:
        raise UnsignedError(str(error)) from None
    chain.append(ticket.label, request, endorsement, proof)
    signers = len(votes) + roster.parties[block.leader].has(COMMITTEE)
    log(INFO, "flbc: block %d led by %s, signed by %d of the committee", len(chain.links), name, signers)
    return endorsement


def _read(message: Message) -> Attestation:
    record = wire.read_record(message.content)
    if record is None:
        raise ProtocolError("it holds no flbc record")
    return Attestation(**wire.bytes_of(record, "leader", "proof", "vote"))


def _check_proof(chain: Chain, proof: bytes, name: str, ticket: Ticket) -> None:
    """Check the leader's proof for this height against the draw that its parent block recorded."""
    beacon = chain.beacon
    index = ticket.roster.index(name)
    recorded = {} if chain.last is None else {entry.party: entry.draw for entry in chain.last.submissions}
    # Elected by a public draw, the leader has none in the parent; its proof only shows whose key it is.
    draw = recorded.get(index, vrf.draw_of(vrf.beta_of(proof[33:])))
    check_draw(proof, ticket.roster.parties[index], beacon.seed, beacon.height, draw)


def propose(chain: Chain, ticket: Ticket, skipped: int, parts: AttestRequest) -> AttestRequest:
    """Return the request with its block completed: parent and elected leader."""
    block = parts.block
    leader = chain.leader(ticket.roster, skipped)
    made = Block(chain.parent, block.label, leader, block.submissions, block.rejected, block.hidden)
    return replace(parts, block=made, previous=chain.links[-1] if chain.links else None)
