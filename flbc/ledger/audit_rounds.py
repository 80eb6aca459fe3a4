"""Second part of an audit: every block, who led it, who signed it, and what was opened."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from ..crypto import vrf
from ..crypto.signing import address_of
from ..election import Candidate, alpha, public_draw, rank
from ..errors import VerificationError
from ..roster import TRAIN_ROLE
from ..round import UNBOUNDED, Block, RoundLabel, Vote
from .audit_task import Lineup, Terms
from .doubts import Clock, Doubts
from .packing import PackedOpening, PackedSubmission, PackedVote, compact, unpack_all, unpack_parties
from .records import BlockRecord, TaskHistory

_COMMITTEE = "committee"
_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class BlockRow:
    """One line of the audit's table.

    Parameters
    ----------
    height, round, attempt : int
    leader : str
    rank : int or None
        Place of the leader in the election from 0; None if it was no candidate.
    submissions, rejected, votes, quorum : int
        ``votes`` counts a leader of the committee.
    compute_ms : int
        Sum of the stated training times.
    epsilon : float or None
        Epsilon of the task after the block was opened; None if no opening is recorded, infinite without noise.
    chain_block : int
        Number of the chain's block.
    doubts : int
        How many there are about this block.
    """

    height: int
    round: int
    attempt: int
    leader: str
    rank: int | None
    submissions: int
    rejected: int
    votes: int
    quorum: int
    compute_ms: int
    epsilon: float | None
    chain_block: int
    doubts: int


class RoundAudit:
    """Walks the blocks in order; afterwards ``rows``, ``accepted`` (blocks per party) and ``head`` are there."""

    def __init__(self, history: TaskHistory, terms: Terms, lineup: Lineup, clock: Clock, doubts: Doubts) -> None:
        self.history, self.terms, self.lineup, self.clock, self.doubts = history, terms, lineup, clock, doubts
        self.rows: list[BlockRow] = []
        self.accepted: Counter[int] = Counter()
        self.head = terms.genesis
        self.openings = 0  # as the opener counts: burnt ones included
        self.opened_rounds: set[int] = set()
        self._rounds: set[int] = set()
        self._draws: dict[int, int] = {}
        self._last = (0, 0)

    def run(self) -> None:
        """Check all blocks and the state that follows from them."""
        history, state, doubts = self.history, self.history.state, self.doubts
        for height, record in enumerate(history.blocks, start=1):
            # The opening of a block travels with the next one.
            following = history.blocks[height : height + 1]
            later = following[0] if following else history.settlement
            where = f"block {height}"
            with doubts.about(where):
                self._block(height, record, later.opening if later else b"", where)
        if history.blocks and history.blocks[0].opening:
            doubts.add("block 1.opening", "there was no block to open before it")
        if history.settlement and history.settlement.opening and not history.blocks:
            doubts.add("settlement.opening", "there was no block to open")
        doubts.same("state.height", state.height, len(history.blocks))
        doubts.same("state.head", state.head, self.head)
        doubts.same("state.round and attempt", (state.round, state.attempt), self._last)
        unopened = len(history.blocks) - len(self.opened_rounds)
        if unopened > 0:
            note = f"{unopened} blocks have no opening on the chain: they may have been opened all the same"
            if not self.terms.config.signs_openings:
                note = (
                    "masked sums are opened by all survivors together; nobody signs that, so every block counts as open"
                )
            elif self.terms.mechanism is not None:
                worst = self.terms.mechanism.epsilon_after(max(self.openings, len(self._rounds)))
                note += f"; if they were, epsilon is {worst:.4g}"
            doubts.notes.append(note)
        burnt = self.openings - len(self.opened_rounds)
        if burnt > 0:
            doubts.notes.append(f"{burnt} sums were opened or refused without a record; epsilon counts them")

    # ------------------------------------------------------------------ one block
    def _block(self, height: int, record: BlockRecord, opening: bytes, where: str) -> None:
        terms, doubts, before = self.terms, self.doubts, len(self.doubts.found)
        rising = record.round >= 1 and (record.round, record.attempt) > self._last
        # A task's first block may be of attempt 0 of round 1, which is above (0, 0).
        doubts.unless(rising, f"{where}.round", f"({record.round}, {record.attempt}) is not above {self._last}")
        self._last = (record.round, record.attempt)
        with doubts.about(f"{where}.at"):
            late = self.clock.time(record.at) > self.history.publication.deadline
            doubts.unless(not late, f"{where}.at", "is after the deadline")
        label = self._label(record)
        doubts.same(f"{where}.label", record.label, label)
        doubts.same(f"{where}.parent", record.parent, self.head)

        submissions: tuple[PackedSubmission, ...] = ()
        with doubts.about(f"{where}.submissions"):
            submissions = unpack_all(PackedSubmission, record.submissions)
            self._submissions(submissions, label, f"{where}.submissions")
        rejected: tuple[int, ...] = ()
        with doubts.about(f"{where}.rejected"):
            rejected = unpack_parties(record.rejected)
            self._rejected(rejected, submissions)
        block = Block(
            self.head, label, record.leader, tuple(entry.hash(label) for entry in submissions), rejected, record.hidden
        )  # fmt: skip
        doubts.same(f"{where}.hash", record.hash, block.hash)
        with doubts.about(f"{where}.leader_signature"):
            self.lineup.check(block, record.leader_signature, record.leader, terms.where)
        place = None
        with doubts.about(f"{where}.leader"):
            place = self._leader(height, record)
        with doubts.about(f"{where}.proof"):
            self._proof(height, record)
        votes = 0
        with doubts.about(f"{where}.votes"):
            votes = self._votes(record, Vote(label, block.hash))

        self._draws = {entry.party: entry.draw for entry in submissions}
        self.accepted.update(list(self._draws))  # a mapping would be added up
        self.head = block.hash
        epsilon = None
        if opening:
            with doubts.about(f"opening of {where}"):
                epsilon = self._opening(record, opening)
        self._rounds.add(record.round)
        if not terms.config.signs_openings and terms.mechanism is not None:
            epsilon = terms.mechanism.epsilon_after(len(self._rounds))  # nobody says that it was not opened
        number = 0
        with doubts.about(f"{where}.at"):
            number = self.clock.number(record.at)
        name = self.lineup.name(record.leader)
        compute = sum(entry.compute_ms for entry in submissions)
        row = BlockRow(
            height, record.round, record.attempt, name, place, len(submissions), len(rejected), votes,
            self.history.publication.quorum, compute, epsilon, number, len(doubts.found) - before,
        )  # fmt: skip
        self.rows.append(row)

    def _label(self, record: BlockRecord) -> bytes:
        history = self.history
        return RoundLabel(
            history.task, record.round, record.attempt, history.publication.roster, self.terms.config.hash,
            record.model, record.frame, record.keys, history.chain_id, history.hub, history.simulation,
        ).hash  # fmt: skip

    def _submissions(self, submissions: tuple[PackedSubmission, ...], label: bytes, where: str) -> None:
        config, lineup = self.terms.config, self.lineup
        few, many = max(config.min_survivors, 1), config.max_parties
        if not few <= len(submissions) <= many:
            self.doubts.add(where, f"{len(submissions)} are summed; the task allows {few} to {many}")
        for index, entry in enumerate(submissions):
            which = f"{where}[{index}]"
            self.doubts.unless(lineup.has(entry.party, TRAIN_ROLE), which, f"{lineup.name(entry.party)} does not train")
            with self.doubts.about(which):
                signer = entry.signer(label, self.terms.where)
                if entry.party >= len(lineup.seats) or signer != lineup.seats[entry.party].signer:
                    raise VerificationError(f"was not signed by {lineup.name(entry.party)}")

    def _rejected(self, rejected: tuple[int, ...], submissions: tuple[PackedSubmission, ...]) -> None:
        if both := set(rejected) & {entry.party for entry in submissions}:
            raise VerificationError(f"{', '.join(map(self.lineup.name, sorted(both)))} are summed as well")
        if strange := [party for party in rejected if not self.lineup.has(party, TRAIN_ROLE)]:
            raise VerificationError(f"{self.lineup.name(strange[0])} does not train")

    # ------------------------------------------------------------------ election
    def _leader(self, height: int, record: BlockRecord) -> int:
        """Check that the leader was elected, and return its place."""
        seats = self.lineup.seats
        draws = self._draws
        if self.history.seed is None:
            raise VerificationError("nobody can be elected before the seed is drawn")
        if not any(
            party < len(seats) and seats[party].stake for party in draws
        ):  # block 1, or a parent of nobody staked
            seed = self.history.seed.seed if height == 1 else alpha(self.history.seed.seed, height)
            draws = {i: public_draw(seed, seats[i].signer) for i, _ in self.lineup.roster.with_role(TRAIN_ROLE)}
        ranked = rank(
            Candidate(party, seats[party].signer, seats[party].stake, draw)
            for party, draw in draws.items()
            if party < len(seats) and seats[party].stake > 0
        )
        places = {candidate.index: place for place, candidate in enumerate(ranked)}
        if record.leader not in places:
            raise VerificationError(f"{self.lineup.name(record.leader)} was no candidate")
        place = places[record.leader]
        if place > record.attempt:
            raise VerificationError(
                f"{self.lineup.name(record.leader)} has rank {place}, but attempt {record.attempt} of the round may be "
                f"led by ranks 0 to {record.attempt} only"
            )
        return place

    def _proof(self, height: int, record: BlockRecord) -> None:
        """Check the leader's VRF proof, and that it gives the draw that elected it."""
        if not record.proof and not self.history.publication.vrf:
            return  # by agreement the committee alone saw it
        if self.history.seed is None or record.leader >= len(self.lineup.seats):
            raise VerificationError("there is no seed or no such leader")
        public, proof = vrf.unpack(record.proof)
        if address_of(public) != self.lineup.seats[record.leader].vrf:
            raise VerificationError("was made with another key than the leader's registered one")
        challenge = alpha(self.history.seed.seed, height)
        beta = vrf.verify(public, challenge, proof)
        if vrf.pack(public, challenge, proof) != record.proof:
            raise VerificationError("carries hints that are not those of the proof")
        if record.leader in self._draws and self._draws[record.leader] != vrf.draw_of(beta):
            raise VerificationError("does not give the draw that the block before recorded")

    def _votes(self, record: BlockRecord, vote: Vote) -> int:
        """Check the votes and return how many count."""
        votes = unpack_all(PackedVote, record.votes)
        for index, entry in enumerate(votes):
            if entry.party == record.leader or not self.lineup.has(entry.party, _COMMITTEE):
                raise VerificationError(f"vote {index} is by {self.lineup.name(entry.party)}, which may not vote")
            self.lineup.check(vote, compact(entry.signature), entry.party, self.terms.where)
        count, quorum = len(votes) + self.lineup.has(record.leader, _COMMITTEE), self.history.publication.quorum
        if count < quorum:
            raise VerificationError(f"{count} of the committee signed, the quorum is {quorum}")
        return count

    # ------------------------------------------------------------------ openings
    def _opening(self, record: BlockRecord, packed: bytes) -> float:
        """Check the opening of the block that is the head now; return epsilon after it."""
        config, mechanism = self.terms.config, self.terms.mechanism
        entry = PackedOpening.unpack(packed)
        self.lineup.check(entry.signed(self.head).value, compact(entry.signature), entry.party, self.terms.where)
        allowed = self.lineup.seats[entry.party].roles & self.history.publication.openers
        if not allowed or not self.lineup.has(entry.party, config.opener):
            raise VerificationError(f"{self.lineup.name(entry.party)} may not open sums")
        if config.leader_opens and entry.party != record.leader:
            raise VerificationError(f"was signed by {self.lineup.name(entry.party)}, which did not lead the block")
        if record.round in self.opened_rounds:
            raise VerificationError(f"round {record.round} was opened before, with another block")
        self.opened_rounds.add(record.round)
        sigma = 0 if mechanism is None else round(mechanism.opener_sigma * _MILLION)
        if entry.sigma != sigma:
            raise VerificationError(f"states a noise of {entry.sigma} millionths; the task's is {sigma}")
        # The opener counts every round that it answered once, also one whose record was lost or whose sum it refused.
        counts = range(self.openings + 1, min(record.round, config.rounds) + 1)
        # Under sampling epsilon comes from a Fourier transform, whose last digits depend on the platform.
        slip = 2 if mechanism is not None and mechanism.sampling_rate < 1 else 0
        count = next((n for n in counts if abs(entry.epsilon - self._micro_epsilon(n)) <= slip), None)
        if count is None:
            raise VerificationError(
                f"states epsilon = {entry.epsilon} millionths, which is not the cost of {self.openings + 1} openings "
                f"(or, with lost records, up to {min(record.round, config.rounds)})"
            )
        self.openings = count
        return math.inf if entry.epsilon == UNBOUNDED else entry.epsilon / _MILLION

    def _micro_epsilon(self, openings: int) -> int:
        """Return the task's epsilon after so many openings, in millionths, rounded up."""
        if self.terms.mechanism is None:
            return UNBOUNDED
        epsilon = self.terms.mechanism.epsilon_after(openings)
        return math.ceil(epsilon * _MILLION) if math.isfinite(epsilon) else UNBOUNDED
