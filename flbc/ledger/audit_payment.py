"""Last part of an audit: the final model, who is paid, and what left the contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..crypto.signing import keccak256
from ..errors import VerificationError
from ..node.settlement import accuracy_of
from ..tokens import ModelToken, Result
from .audit_task import Lineup, Terms
from .doubts import Clock, Doubts
from .packing import PackedEvaluation, PackedPayout, PackedVote, compact, unpack_all
from .payouts import merkle_root, payouts
from .records import Settlement, TaskHistory

_COMMITTEE = "committee"
_MAX_BPS = 10_000


@dataclass(frozen=True, slots=True)
class PayoutRow:
    """What one party earned: accepted blocks, wei, and whether it has fetched them."""

    party: int
    name: str
    account: bytes
    blocks: int
    amount: int
    claimed: bool


class PaymentAudit:
    """Checks settlement, claims and refund; afterwards ``rows``, ``paid`` and ``refunded`` are there."""

    def __init__(self, history: TaskHistory, clock: Clock, doubts: Doubts) -> None:
        self.history, self.clock, self.doubts = history, clock, doubts
        self.rows: list[PayoutRow] = []
        self.paid = self.refunded = 0

    def settlement(
        self, record: Settlement, terms: Terms, lineup: Lineup, head: bytes, accepted: Mapping[int, int]
    ) -> None:
        """Check sigma2, evaluations, votes and payouts."""
        history, doubts = self.history, self.doubts
        with doubts.about("settlement.at"):
            late = self.clock.time(record.at) > history.publication.deadline
            doubts.unless(not late, "settlement", "is after the deadline")
        doubts.unless(bool(history.blocks), "settlement", "a task without a block was settled")
        token = ModelToken(history.task, head, record.model, record.link, record.accuracy_bps)
        with doubts.about("settlement.model_signature"):
            if not lineup.has(record.party, "hospital") and not lineup.has(record.party, _COMMITTEE):
                raise VerificationError(f"{lineup.name(record.party)} may not sign the final model")
            lineup.check(token, record.model_signature, record.party, terms.where)
        with doubts.about("settlement.evaluations"):
            self._evaluations(record, terms, lineup)
        with doubts.about("settlement.votes"):
            result = Result(token.hash, keccak256(record.evaluations), keccak256(record.payouts))
            self._votes(record, result, terms, lineup)
        with doubts.about("settlement.payouts"):
            self._payouts(record, terms, lineup, accepted)

    def claims(self) -> None:
        """Check that everybody was paid at most once, and what is due; or that the publisher was refunded."""
        history, doubts = self.history, self.doubts
        due = {row.party: row for row in self.rows}
        claimed: set[int] = set()
        self.clock.check_order(history.claims, "claims", doubts)
        for number, claim in enumerate(history.claims):
            where, row = f"claims[{number}]", due.get(claim.index)
            if row is None:
                doubts.add(where, f"nothing is due to party {claim.index}")
            else:
                doubts.same(f"{where}.account", claim.account, row.account)
                doubts.same(f"{where}.amount", claim.amount, row.amount)
            doubts.unless(claim.index not in claimed, where, f"party {claim.index} was paid twice")
            claimed.add(claim.index)
            self.paid += claim.amount
            with doubts.about(f"{where}.at"):
                self.clock.number(claim.at)
        self.rows = [
            PayoutRow(row.party, row.name, row.account, row.blocks, row.amount, row.party in claimed)
            for row in self.rows
        ]
        if history.refund is not None:
            self._refund()
        out = self.paid + self.refunded
        reward = history.publication.reward
        doubts.unless(out <= reward, "balance", f"{out} wei left the contract, but the escrow was {reward}")

    def _refund(self) -> None:
        history, doubts, refund = self.history, self.doubts, self.history.refund
        if refund is None:
            return
        doubts.same("refund.amount", refund.amount, history.publication.reward)
        if history.settlement is not None or history.claims:
            doubts.add("refund", "the task was settled: its escrow belongs to the participants")
        with doubts.about("refund.at"):
            early = self.clock.time(refund.at) <= history.publication.deadline
            doubts.unless(not early, "refund.at", "is not after the deadline")
        self.refunded = refund.amount

    # ------------------------------------------------------------------ parts of the settlement
    def _evaluations(self, record: Settlement, terms: Terms, lineup: Lineup) -> None:
        entries = unpack_all(PackedEvaluation, record.evaluations)
        for index, entry in enumerate(entries):
            which = f"settlement.evaluations[{index}]"
            may = lineup.has(entry.party, _COMMITTEE)
            self.doubts.unless(may, which, f"{lineup.name(entry.party)} is not in the committee")
            # One impossible accuracy would outweigh the others in the mean.
            possible = entry.accuracy_bps <= _MAX_BPS and entry.examples > 0
            self.doubts.unless(possible, which, "states more than 100 %, or was made on no example")
            with self.doubts.about(which):
                value = entry.signed(self.history.task, record.model).value
                lineup.check(value, compact(entry.signature), entry.party, terms.where)
        bar = terms.covenant.accuracy_bps
        if not bar:  # the task asked for no accuracy: nobody need measure one
            self.doubts.same("settlement.accuracy_bps", record.accuracy_bps, 0)
            return
        if len(entries) < terms.covenant.quorum:
            raise VerificationError(f"{len(entries)} members judged the model; the quorum is {terms.covenant.quorum}")
        if not all(entry.examples for entry in entries):
            return  # told above; no mean follows
        judged = [(entry.party, entry.accuracy_bps, entry.examples) for entry in entries]
        mean = accuracy_of(judged, [party.examples for party in lineup.roster.parties])
        self.doubts.same("settlement.accuracy_bps", record.accuracy_bps, mean)
        reached = bar <= record.accuracy_bps <= _MAX_BPS
        self.doubts.unless(reached, "settlement.accuracy_bps", f"{record.accuracy_bps}; the task wants {bar}")

    def _votes(self, record: Settlement, result: Result, terms: Terms, lineup: Lineup) -> None:
        votes = unpack_all(PackedVote, record.votes)
        for index, entry in enumerate(votes):
            if not lineup.has(entry.party, _COMMITTEE):
                raise VerificationError(f"vote {index} is by {lineup.name(entry.party)}, which may not vote")
            lineup.check(result, compact(entry.signature), entry.party, terms.where)
        quorum = self.history.publication.quorum
        if len(votes) < quorum:
            raise VerificationError(f"{len(votes)} of the committee signed, the quorum is {quorum}")

    def _payouts(self, record: Settlement, terms: Terms, lineup: Lineup, accepted: Mapping[int, int]) -> None:
        reward = self.history.publication.reward
        examples = {party: seat.examples for party, seat in enumerate(lineup.seats)}
        follows = payouts(reward, terms.covenant.payout, accepted, examples)
        stated = {entry.party: entry.amount for entry in unpack_all(PackedPayout, record.payouts)}
        self.doubts.same("settlement.payouts", sum(stated.values()), reward)
        for party in sorted(stated.keys() | follows.keys()):
            which = f"settlement.payouts of {lineup.name(party)}"
            self.doubts.same(which, stated.get(party, 0), follows.get(party, 0))
        accounts = [seat.account for seat in lineup.seats]
        root = merkle_root(stated, accounts)
        self.doubts.same("settlement.payout_root", record.payout_root, root)
        self.doubts.same("state.payout_root", self.history.state.payout_root, root)
        self.rows = [
            PayoutRow(party, lineup.name(party), accounts[party], accepted.get(party, 0), amount, False)
            for party, amount in stated.items()
        ]
