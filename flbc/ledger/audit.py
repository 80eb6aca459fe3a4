"""Re-verify everything about a task from what the chain says, and nothing else.

The contracts have checked most of it before they recorded it. An audit does not believe them: it recomputes every hash
and verifies every signature, and it checks what contracts leave to the committee (who was elected, the accuracy, the
payouts) or cannot know (the privacy budget). It needs no web3 and no network, so that an exported history can be
audited anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from .audit_payment import PaymentAudit, PayoutRow
from .audit_rounds import BlockRow, RoundAudit
from .audit_task import Lineup, Terms, check_lineup, check_publication, check_seed
from .doubts import Clock, Doubts
from .packing import PackedSubmission, PackedVote, unpack_all
from .records import TaskHistory


@dataclass(frozen=True)
class AuditReport:
    """What an audit found.

    Parameters
    ----------
    doubts : tuple of str
        What does not verify, each naming the record and the field. Empty: everything holds.
    notes : tuple of str
        What to know beside, e.g. that compute times are stated by software.
    chain_id, hub, simulation, task, publisher, status
        Which task, where.
    parties, committee, quorum : int
    election, attestor : str
        As agreed; empty if the terms cannot be read.
    reward, paid, refunded : int
        Wei in escrow, claimed by participants, returned to the publisher.
    accuracy_bps : int or None
        Of the final model; None unless settled.
    link : str
        Where the final model is.
    rounds : tuple of BlockRow
    payouts : tuple of PayoutRow
    epsilon, epsilon_budget : float or None
        Spent after the last recorded opening, and allowed; None without differential privacy.
    """

    doubts: tuple[str, ...]
    notes: tuple[str, ...]
    chain_id: int
    hub: bytes
    simulation: bool
    task: bytes
    publisher: bytes
    status: str
    reward: int
    parties: int = 0
    committee: int = 0
    quorum: int = 0
    election: str = ""
    attestor: str = ""
    paid: int = 0
    refunded: int = 0
    accuracy_bps: int | None = None
    link: str = ""
    rounds: tuple[BlockRow, ...] = field(default=())
    payouts: tuple[PayoutRow, ...] = field(default=())
    epsilon: float | None = None
    epsilon_budget: float | None = None

    @property
    def ok(self) -> bool:
        """Whether everything verifies."""
        return not self.doubts

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; bytes become hexadecimal, amounts decimal text, infinity None."""
        data: dict[str, Any] = _plain(asdict(self))
        for owner in (data, *data["payouts"]):
            for name in {"reward", "paid", "refunded", "amount"} & set(owner):
                owner[name] = str(owner[name])
        return {"ok": self.ok, **data}


def audit(history: TaskHistory) -> AuditReport:
    """Verify a task's history. Raises nothing: whatever does not hold is among the report's doubts."""
    doubts, found = Doubts(), _Findings()
    with doubts.about("history"):  # every part has its own guard; this one is for what nobody thought of
        _verify(history, doubts, found)
    return _report(history, doubts, found)


@dataclass
class _Findings:
    """What an audit has come to know, as far as it got."""

    terms: Terms | None = None
    lineup: Lineup | None = None
    rounds: RoundAudit | None = None
    payment: PaymentAudit | None = None


def _verify(history: TaskHistory, doubts: Doubts, found: _Findings) -> None:
    clock = Clock(history, doubts)
    found.terms = terms = check_publication(history, clock, doubts)
    if terms is None:
        return
    if terms.covenant.attestor.startswith("software"):
        doubts.notes.append(f"Compute times are attested by {terms.covenant.attestor}: a party can state any time")
    if history.start is not None:
        found.lineup = check_lineup(history, history.start, terms, clock, doubts)
        check_seed(history, terms, clock, doubts)
    elif history.blocks or history.settlement or history.seed:
        doubts.add("start", "there are records of a task that was not started")
    found.payment = payment = PaymentAudit(history, clock, doubts)
    if (lineup := found.lineup) is not None:
        found.rounds = rounds = RoundAudit(history, terms, lineup, clock, doubts)
        rounds.run()
        _suspensions(history, lineup, clock, doubts)
        if history.settlement is not None:
            payment.settlement(history.settlement, terms, lineup, rounds.head, rounds.accepted)
        if terms.covenant.election != "vrf" and any(not record.proof for record in history.blocks):
            doubts.notes.append("Leaders' VRF proofs are not on the chain: that is left to the committee")
    payment.claims()
    _order(history, clock, doubts)


def _order(history: TaskHistory, clock: Clock, doubts: Doubts) -> None:
    """Check that records follow each other, and that the contract's status says the same."""
    middle = (*history.postponements, history.seed, *history.blocks, history.settlement)
    chain = (history.publication, history.start, *middle, *history.claims, history.refund)
    clock.check_order([record for record in chain if record is not None], "history", doubts)
    follows = "published" if history.start is None else "started"
    if history.settlement is not None:
        follows = "settled"
    elif history.refund is not None:
        follows = "refunded"
    doubts.same("state.status", history.state.status, follows)
    if history.start is None:
        unset = ("started_block", "seed_block", "members", "committee", "height", "round", "attempt")
        for name in unset:
            doubts.same(f"state.{name}", getattr(history.state, name), 0)
        doubts.same("state.head", history.state.head, history.state.genesis)
        doubts.same("state.seed", history.state.seed, bytes(32))
    if history.settlement is None:
        doubts.same("state.payout_root", history.state.payout_root, bytes(32))
        doubts.unless(not history.claims, "claims", "the task was not settled")


def _suspensions(history: TaskHistory, lineup: Lineup, clock: Clock, doubts: Doubts) -> None:
    """Check that nobody signed while it was suspended."""
    accounts = {seat.account: party for party, seat in enumerate(lineup.seats)}
    since: dict[int, int] = {}
    spans: list[tuple[int, int, float]] = []  # party, from, to: numbers of the chain's blocks, both excluded
    clock.check_order(history.suspensions, "suspensions", doubts)
    for index, record in enumerate(history.suspensions):
        where = f"suspensions[{index}]"
        with doubts.about(where):
            party, number = accounts[record.account], clock.number(record.at)
            doubts.unless(record.on == (party not in since), f"{where}.on", "changes nothing")
            if record.on:
                since[party] = number
            else:
                spans.append((party, since.pop(party), number))
    spans += [(party, number, float("inf")) for party, number in since.items()]
    for height, block in enumerate(history.blocks if spans else (), start=1):
        where = f"block {height}"
        with doubts.about(where):
            number = clock.number(block.at)
            signed = {entry.party for entry in unpack_all(PackedSubmission, block.submissions)}
            signed |= {entry.party for entry in unpack_all(PackedVote, block.votes)} | {block.leader}
            for party, first, last in spans:
                if party in signed and first < number < last:
                    doubts.add(where, f"{lineup.name(party)} was suspended when it was recorded")


def _report(history: TaskHistory, doubts: Doubts, found: _Findings) -> AuditReport:
    terms, lineup, rounds, payment = found.terms, found.lineup, found.rounds, found.payment
    spent = [row.epsilon for row in rounds.rows if row.epsilon is not None] if rounds else []
    private = terms is not None and terms.mechanism is not None
    settled = history.settlement
    return AuditReport(
        doubts=tuple(doubts.found),
        notes=tuple(dict.fromkeys(doubts.notes)),
        chain_id=history.chain_id,
        hub=history.hub,
        simulation=history.simulation,
        task=history.task,
        publisher=history.publication.publisher,
        status=history.state.status,
        reward=history.publication.reward,
        parties=len(lineup.seats) if lineup else 0,
        committee=len(lineup.roster.with_role("committee")) if lineup else 0,
        quorum=history.publication.quorum,
        election=terms.covenant.election if terms else "",
        attestor=terms.covenant.attestor if terms else "",
        paid=payment.paid if payment else 0,
        refunded=payment.refunded if payment else 0,
        accuracy_bps=None if settled is None else settled.accuracy_bps,
        link="" if settled is None else settled.link,
        rounds=tuple(rounds.rows) if rounds else (),
        payouts=tuple(payment.rows) if payment else (),
        epsilon=spent[-1] if private and spent else (0.0 if private else None),
        epsilon_budget=terms.mechanism.epsilon if terms and terms.mechanism else None,
    )


def _plain(value: object) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if value == float("inf") else value
