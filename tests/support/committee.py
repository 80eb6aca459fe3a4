"""A consortium with a ledger and without Flower or a chain: hospitals that are the committee too."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flbc.crypto.signing import keccak256
from flbc.node.committee import Attestation, Attester, AttestRequest, Entry, Link, Summary, ranking
from flbc.node.covenant import Beacon, Covenant, genesis_of
from flbc.node.endorsement import Endorsement
from flbc.node.opening import OpenRequest
from flbc.node.participant import Reply
from flbc.node.settlement import Judge
from flbc.node.ticket import Ticket, keys_hash
from flbc.round import Block, RoundLabel, Submission
from tests.support.parties import HOSPITALS, Consortium

CHAIN_ID, HUB = 424242, b"\x22" * 20
SEED, INITIAL = keccak256(b"seed"), keccak256(b"initial arrays")
COVENANT = Covenant(3, "vrf", "equal", 5000, "software, not hardware", dict.fromkeys(HOSPITALS, 10**9))


class Committee:
    """The honest server of a consortium with a ledger; a test changes what it says."""

    def __init__(self, consortium: Consortium) -> None:
        self.c = consortium
        self.links: list[tuple[Link, Endorsement]] = []

    @property
    def covenant(self) -> Covenant:
        found = Covenant.of(self.c.config)
        assert found is not None
        return found

    @property
    def beacon(self) -> Beacon:
        parent = self.links[-1][0].block.hash if self.links else self.genesis
        return Beacon(SEED, len(self.links) + 1, parent, INITIAL)

    @property
    def genesis(self) -> bytes:
        return genesis_of(INITIAL, self.c.config, self.c.roster)

    def ticket(self, round_: int = 1, attempt: int = 0, **changes: Any) -> Ticket:
        beacon = changes.pop("beacon", self.beacon)
        c = self.c
        label = RoundLabel(
            c.task, round_, attempt, c.roster.hash, c.config.hash, keccak256(b"model %d" % round_), c.frame.hash,
            keys_hash(c.keys, beacon), CHAIN_ID, HUB, False,
        )  # fmt: skip
        return Ticket(replace(label, **changes), c.config, c.roster, c.frame, c.keys, beacon)

    def attester(self, name: str) -> Attester:
        return Attester(self.c.me[name], self.c.pins, self.c.memory(name))

    def judge(self, name: str) -> Judge:
        return Judge(self.c.me[name], self.c.pins, self.c.memory(name))

    def ranked(self, ticket: Ticket) -> list[str]:
        previous = self.links[-1][0] if self.links else None
        found = ranking(ticket.roster, self.covenant, self.beacon, previous)
        return [ticket.roster.parties[candidate.index].name for candidate in found]

    def request(self, ticket: Ticket, replies: dict[str, Reply], leader: str = "") -> AttestRequest:
        """What an honest server asks leader and committee to sign."""
        order = sorted(replies, key=ticket.roster.index)
        entries = tuple(Entry(r.submission, r.proof, r.payload) for n in order if (r := replies[n]).submission)
        hidden = self.c.combiner.combine({e.submission.party: e.payload for e in entries})
        index = ticket.roster.index(leader or self.ranked(ticket)[0])
        hashes = tuple(e.submission.hash for e in entries)
        block = Block(self.beacon.parent, ticket.label.hash, index, hashes, (), keccak256(hidden))
        return AttestRequest(block, entries, (), self.links[-1] if self.links else None)

    def endorse(self, ticket: Ticket, request: AttestRequest, *names: str) -> Endorsement:
        leader = ticket.roster.parties[request.block.leader].name
        wanted = sorted({leader, *(names or HOSPITALS)}, key=ticket.roster.index)
        answers: dict[str, Attestation] = {name: self.attester(name).attest(ticket, request) for name in wanted}
        votes = tuple((ticket.roster.index(n), a.vote) for n, a in answers.items() if n != leader)
        return Endorsement(answers[leader].leader, votes)

    def append(self, request: AttestRequest, endorsement: Endorsement) -> None:
        summaries = tuple(Summary.of(entry.submission) for entry in request.summed)
        self.links.append((Link(request.block, summaries), endorsement))

    def round(self, round_: int) -> tuple[Ticket, AttestRequest, Endorsement]:
        """One honest round up to the signatures."""
        ticket = self.ticket(round_)
        request = self.request(ticket, self.c.train_all(ticket))
        endorsement = self.endorse(ticket, request)
        self.append(request, endorsement)
        return ticket, request, endorsement

    def open_request(self, request: AttestRequest, endorsement: Endorsement | None) -> OpenRequest:
        payloads = {entry.submission.party: entry.payload for entry in request.summed}
        signed = tuple(entry.signed for entry in request.summed)
        return OpenRequest(request.block, signed, self.c.combiner.combine(payloads), endorsement)


def tampered(entry: Entry, **changes: Any) -> Entry:
    """The entry with another value under the same signature."""
    value = entry.signed.value
    assert isinstance(value, Submission)
    return replace(entry, signed=replace(entry.signed, value=replace(value, **changes)))
