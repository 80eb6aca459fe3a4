"""A round after training: verify replies, combine, have the sum opened, decode."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from logging import WARNING
from typing import Any

from flwr.app import ArrayRecord, Message, RecordDict
from flwr.common.logger import log

from ..codec import OpenedUpdate
from ..codec.metrics import count_metrics
from ..crypto.signing import keccak256
from ..errors import OpeningRefusedError
from ..node import halves
from ..node.committee import AttestRequest
from ..node.endorsement import Endorsement
from ..node.model_plan import ModelPlan
from ..node.opening import OpenRequest
from ..node.terms import multipliers
from ..node.ticket import MAX_ATTEMPTS, Ticket
from ..round import NO_LEADER, Block, Signed
from ..schemes import Combiner, IntVector
from . import wire
from .chain import UnsignedError, attest, propose
from .collect import Accepted, Collected, Collector
from .grid import exchange
from .helpers import AbandonedError, Helpers
from .report import RoundReport
from .session import Session


def _request(
    ticket: Ticket,
    accepted: Mapping[int, Accepted],
    rejected: Mapping[int, Accepted],
    hidden: bytes,
    parent: bytes,
    verdicts: tuple[Signed, ...],
) -> AttestRequest:
    """Return an attempt's block, without a leader, and everything in it."""
    summed = tuple(accepted[index].entry for index in sorted(accepted))
    dropped = tuple(rejected[index].entry for index in sorted(rejected))
    hashes = tuple(entry.submission.hash for entry in summed)
    block = Block(parent, ticket.label.hash, NO_LEADER, hashes, tuple(sorted(rejected)), keccak256(hidden))
    return AttestRequest(block, summed, dropped, None, verdicts)


@dataclass
class SecureRound:
    """One round.

    Parameters
    ----------
    session : Session
    number : int
    arrays : ArrayRecord
        The global model that was sent.
    sent : RecordDict
        What clients got: model and train config.
    ticket : Ticket
        Of the last attempt.
    begin : float
        ``time.monotonic()`` when training was configured.
    timeout : float
        Seconds for a stage.
    skipped : int
        Leaders or decryptors that were silent so far.
    """

    session: Session
    number: int
    arrays: ArrayRecord
    sent: RecordDict
    ticket: Ticket
    begin: float
    timeout: float
    skipped: int = 0
    _combiner: tuple[bytes, Combiner] | None = None

    @property
    def combiner(self) -> Combiner:
        """The scheme's server half for the last attempt."""
        label = self.ticket.label.hash
        if self._combiner is None or self._combiner[0] != label:
            self._combiner = (label, halves.combiner(self.ticket))
        return self._combiner[1]

    def finish(
        self, replies: Mapping[int, Message]
    ) -> tuple[OpenedUpdate, tuple[str, ...], list[Mapping[str, Any]], RoundReport]:
        """Walk from the clients' replies to the decoded mean.

        Returns
        -------
        opened : OpenedUpdate
        metric_names : tuple of str
            Of the metrics inside the sum.
        clear : list of mapping
            Per accepted client, the metrics it revealed.
        report : RoundReport

        Raises
        ------
        FlbcError
            Says why the round is abandoned. If it was opened before, it counts in epsilon all the same.
        """
        session, trained = self.session, time.monotonic()
        request, endorsement, accepted, metric_names, hidden, seconds = self._block(replies)
        opening = time.monotonic()
        session.opened.add(self.number)  # before asking: an answer that gets lost on the way was paid for
        submissions = tuple(entry.signed for entry in request.summed)
        asked = OpenRequest(request.block, submissions, hidden, endorsement)
        if session.opening is not None:
            total = session.opening(session, self.ticket, asked)
        else:
            total = Helpers(session, self.ticket, asked, self.timeout).open(self.combiner)
        done = time.monotonic()
        session.parent = request.block.hash
        opened = self._decode(total, sorted(accepted), metric_names)
        session.frame = session.plan.next_frame(self.ticket.frame, opened)
        if session.progress is not None and self.ticket.indices is not None:
            session.progress.opened(self.number, session.plan.layout, opened.mean, self.ticket.indices)
        report = RoundReport(
            self.number,
            survivors=len(accepted),
            bytes_per_client=max(len(entry.reply.payload) for entry in accepted.values()),
            saturated=opened.saturated,
            train_seconds=trained - self.begin,
            combine_seconds=seconds,
            attest_seconds=opening - trained - seconds,
            open_seconds=done - opening,
        )
        return opened, metric_names, [entry.clear for entry in accepted.values()], report

    def _block(
        self, replies: Mapping[int, Message]
    ) -> tuple[AttestRequest, Endorsement | None, dict[int, Accepted], tuple[str, ...], bytes, float]:
        """Combine, and with a ledger have the block signed; another attempt under the next leader if it is not."""
        session, seconds = self.session, 0.0
        while True:
            collected = self._collect(replies)
            accepted, metric_names = self._agreeing(collected.accepted)
            if accepted and session.mechanism is not None and session.mechanism.where != "opener":
                session.paid.add(self.number)  # every client has paid for the round with its upload
            if len(accepted) < session.config.min_survivors:
                need = session.config.min_survivors
                raise AbandonedError(f"{len(accepted)} updates arrived, fewer than min_survivors = {need}")
            try:
                halves.check_survivors(self.ticket, accepted)  # as those will who open: before anything is paid for
            except OpeningRefusedError as error:
                raise AbandonedError(str(error)) from None
            decryptor = halves.decryptor(self.ticket)
            if session.dealers is not None and session.chain is not None:
                # One block a round is signed, so nobody is asked for a signature under a leader that is gone already.
                leader = session.chain.leader(self.ticket.roster, self.skipped)
                muted = (session.chain.beacon.height, leader) in session.muted
                if (muted or leader not in accepted) and leader != NO_LEADER:
                    log(WARNING, "flbc: round %d: the leader %s is silent; the next one takes over", self.number,
                        self.ticket.roster.parties[leader].name)  # fmt: skip
                    replies = self._pass_over(replies)
                    continue
            if session.chain is None and decryptor is not None and decryptor not in accepted:
                # It sent no update, so it may not open the sum either; replace it before there is a function key.
                log(WARNING, "flbc: round %d: the decryptor %s is silent; the next one takes over", self.number,
                    self.ticket.roster.parties[decryptor].name)  # fmt: skip
                replies = self._pass_over(replies)
                continue
            rejected, verdicts = collected.rejected, tuple[Signed, ...]()
            if session.verifying is not None:
                checks = session.verifying(session, self.ticket, self.sent, accepted)
                rejected = {**rejected, **{index: accepted[index] for index in checks.rejected}}
                accepted = {index: entry for index, entry in accepted.items() if index not in rejected}
                verdicts = checks.verdicts
            begin = time.monotonic()
            hidden = self.combiner.combine({index: entry.reply.payload for index, entry in accepted.items()})
            seconds += time.monotonic() - begin
            request = _request(self.ticket, accepted, rejected, hidden, session.parent, verdicts)
            if session.chain is None:
                return request, None, accepted, metric_names, hidden, seconds
            request = propose(session.chain, self.ticket, self.skipped, request)
            try:
                endorsement = attest(session, session.chain, self.ticket, request, self.timeout)
            except UnsignedError as error:
                if session.dealers is not None:
                    session.muted.add((session.chain.beacon.height, request.block.leader))
                    raise AbandonedError(f"{error}; with masks one block a round is signed") from None
                log(WARNING, "flbc: round %d, attempt %d: %s", self.number, self.ticket.label.attempt, error)
                replies = self._pass_over(replies)
                continue
            return request, endorsement, accepted, metric_names, hidden, seconds

    def _pass_over(self, replies: Mapping[int, Message]) -> dict[int, Message]:
        """Begin another attempt under the next leader or decryptor."""
        nodes = [node for node, reply in replies.items() if reply.has_content()]
        decryptor = halves.decryptor(self.ticket)
        gone = decryptor is not None and self.ticket.roster.parties[decryptor] not in map(
            self.session.directory.party, nodes
        )
        if self.session.chain is not None or not gone:  # who leaves the roster is out of turn anyway
            self.skipped += 1
        return self._reprotect(nodes)

    def _agreeing(self, accepted: dict[int, Accepted]) -> tuple[dict[int, Accepted], tuple[str, ...]]:
        """Keep the clients that report the metrics most report; their sums stand in the same coordinates."""
        groups = Counter(entry.reply.metric_names for entry in accepted.values())
        if not groups:
            return {}, ()
        names = groups.most_common(1)[0][0]
        for index, entry in accepted.items():
            if entry.reply.metric_names != names:
                party = self.ticket.roster.parties[index].name
                log(WARNING, "flbc: the reply of %s is left out: it reports other metrics than most", party)
        return {i: entry for i, entry in accepted.items() if entry.reply.metric_names == names}, names

    def _collect(self, replies: Mapping[int, Message]) -> Collected:
        """Verify replies, asking for another attempt where a client's weight does not fit the frame."""
        session = self.session
        while True:
            collected = Collector(session, self.combiner, self.ticket).collect(replies)
            if session.dealers is not None:
                session.dealers.collected(self.ticket, collected.riding, collected.unused)
            if not collected.classes:
                return collected
            session.frame = replace(session.frame, max_weight=max(*collected.classes, session.frame.max_weight))
            replies = self._reprotect([node for node, reply in replies.items() if reply.has_content()])

    def _reprotect(self, nodes: list[int]) -> dict[int, Message]:
        """Begin another attempt: the same updates, protected for a new label (S14)."""
        label = self.ticket.label
        if label.attempt + 1 >= MAX_ATTEMPTS:
            raise AbandonedError(f"{MAX_ATTEMPTS} attempts were not enough")
        among = None if self.session.dealers is None else self.ticket.roster  # masked attempts: always the same people
        self.ticket = self.session.ticket(label.round, label.attempt + 1, nodes, label.model, self.skipped, among=among)
        nodes = [node for node in nodes if self.session.sums(self.ticket, node)]
        parts = self.ticket.to_wire()
        messages = [wire.request(wire.REPROTECT, parts, node, self.number) for node in nodes]
        return exchange(self.session.grid, messages, self.timeout)

    def _decode(self, total: IntVector, parties: list[int], metric_names: tuple[str, ...]) -> OpenedUpdate:
        session, roster = self.session, self.ticket.roster
        if isinstance(session.plan, ModelPlan):
            return session.plan.decode(total, count_metrics(metric_names))
        if session.mechanism is None:
            factors = multipliers(session.config, roster)
            count = sum(factors[index] for index in parties)
            metrics, ticket = count_metrics(metric_names), self.ticket
            declared = None
            if session.config.codec["max_multiplier"] is not None:
                declared = float(sum(roster.parties[index].examples for index in parties))
            opened = session.plan.decode(total, count, metrics, ticket.frame, ticket.indices, declared)
            if opened.saturated:
                log(WARNING, "flbc: %d coordinates did not fit their range (see Codec)", opened.saturated)
            return opened
        example = session.mechanism.unit == "example"
        # The expected number: how many were drawn is data.
        examples = session.mechanism.sampling_rate * sum(roster.parties[index].examples for index in parties)
        return session.plan.decode_private(total, session.mechanism.step, examples if example else len(parties))
