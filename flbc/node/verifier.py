"""A verifier: checks a round's hidden models together with two others, and gives its part of their sum (S8, S25).

Two answers a round. For an attempt it says, once and signed, which models may be summed, and keeps its part of the sum
on disk. For a block that lists exactly those, once a round, it gives the part.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ..cards import Verdict
from ..codec import Layout
from ..codec.layout import Arrays
from ..crypto.signing import keccak256
from ..encoding import Json
from ..errors import (
    AlreadyOpenedError,
    CiphertextError,
    OpeningRefusedError,
    ProtocolError,
    StaleLabelError,
    VerificationError,
)
from ..round import UNBOUNDED, Opening, Signed, Submission
from ..schemes import IntVector
from ..schemes.base import vector_from_bytes, vector_to_bytes
from ..schemes.sharing import open_box
from ..verification.committee import Data, Outcome, Round, check_and_sum
from ..verification.link import Link
from ..verification.program import Program
from ..verification.session import begin
from ..verification.sharing import Shared
from .mask_memory import MaskMemory
from .model_request import ModelsRequest
from .opening import OpenRequest, check_request, check_submissions, reserve_free
from .seats import SCHEME, seats_of, verifiers
from .terms import model_plan, policy_of, program_of
from .verdict import Answer

if TYPE_CHECKING:
    from ..crypto.keystream import EncryptionKey
    from .identity import Identity
    from .memory import NodeMemory
    from .pins import Pins
    from .ticket import Ticket

_SCHEMA = """
CREATE TABLE IF NOT EXISTS checked (
    label BLOB PRIMARY KEY, task BLOB NOT NULL, round INTEGER NOT NULL, context BLOB NOT NULL, verdict TEXT,
    part BLOB) STRICT;
"""


@dataclass(frozen=True)
class Checked:
    """What a verifier kept of an attempt: which submissions it summed, whom it rejected, its part of the sum."""

    summed: tuple[bytes, ...]
    rejected: tuple[int, ...]
    part: bytes


class CheckMemory:
    """The verifier's part of a node's memory, in the same file.

    Parameters
    ----------
    memory : NodeMemory
    """

    def __init__(self, memory: NodeMemory) -> None:
        self._memory = memory
        memory.prepare(_SCHEMA)

    def begin(self, ticket: Ticket, context: bytes) -> None:
        """Remember what an attempt asks about, before anything of it is computed.

        Raises
        ------
        AlreadyOpenedError
            If the attempt asked about other models before: each set of models that is compared says a little more
            about them. Or if the round is opened.
        StaleLabelError
            If a later attempt or round was checked.
        """
        label = ticket.label
        with self._memory.transaction() as db:
            opened = db.execute("SELECT 1 FROM opened WHERE task = ? AND round >= ?", (label.task, label.round))
            if opened.fetchone() is not None:
                raise AlreadyOpenedError(f"Round {label.round} was opened; its models are not checked again")
            later = db.execute("SELECT 1 FROM checked WHERE task = ? AND round > ?", (label.task, label.round))
            if later.fetchone() is not None:
                raise StaleLabelError("Models of a later round were checked; rounds do not go back")
            row = (label.hash, label.task, label.round, context)
            db.execute("INSERT OR IGNORE INTO checked VALUES (?, ?, ?, ?, NULL, NULL)", row)
            (known,) = db.execute("SELECT context FROM checked WHERE label = ?", (label.hash,)).fetchone()
        if known != context:
            raise AlreadyOpenedError("This attempt asked about other models before")

    def keep(self, ticket: Ticket, summed: Sequence[bytes], rejected: Sequence[int], part: bytes) -> None:
        """Keep the verdict and the part before they are said; parts of other attempts are erased."""
        label = ticket.label
        with self._memory.transaction() as db:
            verdict = json.dumps([[item.hex() for item in summed], list(rejected)])
            db.execute("UPDATE checked SET verdict = ?, part = ? WHERE label = ?", (verdict, part, label.hash))
            db.execute("UPDATE checked SET part = NULL WHERE task = ? AND label != ?", (label.task, label.hash))

    def kept(self, ticket: Ticket) -> Checked | None:
        """Return what was kept of an attempt; None if it was not checked to the end, or too few passed."""
        with self._memory.transaction() as db:
            row = db.execute("SELECT verdict, part FROM checked WHERE label = ?", (ticket.label.hash,)).fetchone()
        if row is None or row[0] is None or not row[1]:
            return None
        summed, rejected = json.loads(row[0])
        return Checked(tuple(bytes.fromhex(item) for item in summed), tuple(rejected), bytes(row[1]))


class Verifier:
    """A node with the role ``verifier``.

    Parameters
    ----------
    me : Identity
    pins : Pins
    memory : NodeMemory
        Durable.
    """

    def __init__(self, me: Identity, pins: Pins, memory: NodeMemory) -> None:
        self.me, self.pins, self.memory = me, pins, memory

    def seat(self, ticket: Ticket) -> int:
        """Return this node's seat; :class:`ProtocolError` if it has none."""
        names = [party.name for party in verifiers(ticket.roster)]
        if ticket.config.scheme != SCHEME or self.me.name not in names:
            raise ProtocolError("This node checks no models of this task")
        return names.index(self.me.name)

    @staticmethod
    def needs_root(ticket: Ticket) -> bool:
        """Whether the policy compares updates with the verifiers' own."""
        return policy_of(ticket.config).cosine

    def verify(
        self,
        ticket: Ticket,
        request: ModelsRequest,
        arrays: Arrays,
        program: Program,
        data: Data,
        connect: Callable[[int], Link],
    ) -> bytes:
        """Check the models of an attempt together with the other two.

        Parameters
        ----------
        ticket : Ticket
            Already admitted.
        request : ModelsRequest
            The submissions, with payloads.
        arrays : mapping of str to ndarray
            The global model, which the label commits to.
        program : Program
            What this node compiled of its own model.
        data : Data
            This node's.
        connect : callable
            Returns a link to the others, given the seat.

        Returns
        -------
        bytes
            See :class:`Answer`.

        Raises
        ------
        FlbcError
            If anything does not verify, or one of the three is missing. Nothing was said of any model then.
        """
        seat, config = self.seat(ticket), ticket.config
        if program.hash != program_of(config):
            raise ProtocolError("The task's models are checked with another program than this node compiled")
        check_submissions([entry.signed for entry in request.entries], ticket)
        for entry in request.entries:
            if entry.submission.payload != keccak256(entry.payload):
                raise VerificationError("A payload is not the one that its maker signed")
        least = config.min_survivors  # the node's own policy was compared with it when the ticket was admitted
        if len(request.entries) < least:
            raise OpeningRefusedError(f"{len(request.entries)} models are fewer than min_survivors = {least}")
        plan = model_plan(config, Layout.of(arrays, private=True))
        check_parameters(program, plan.layout)
        context = keccak256(ticket.label.hash + request.models)
        CheckMemory(self.memory).begin(ticket, context)
        key = self._box_key(ticket)
        low, high = (torch.from_numpy(bound) for bound in plan.bounds())
        parties = [ticket.roster.parties[entry.submission.party] for entry in request.entries]
        weights = tuple(min(party.examples or plan.max_weight, plan.max_weight) for party in parties)
        model = torch.from_numpy(plan.model(arrays))
        round_ = Round(policy_of(config), program, ticket.label.round, model, low, high, weights, least, context)
        shares = [self._shares(seat, key, ticket, entry.submission, entry.payload) for entry in request.entries]
        link = connect(seat)
        try:
            outcome = check_and_sum(begin(link, context), round_, shares, data)
        finally:
            link.close()
        return self._answer(ticket, request, outcome)

    def give(self, ticket: Ticket, request: OpenRequest) -> tuple[Signed, IntVector]:
        """Give this node's part of the sum of a block, once a round.

        Raises
        ------
        OpeningRefusedError
            If the block sums others than those that passed, or another block of the round was opened.
        FlbcError
            If anything about ticket, block or submissions does not verify.
        """
        self.seat(ticket)
        check_request(ticket, request, self.pins.policy)
        label, block = ticket.label, request.block
        checked = CheckMemory(self.memory).kept(ticket)
        answer = reserve_free(ticket, block.hash, self.memory) if checked is not None else None
        if answer is None:
            if checked is None:
                raise OpeningRefusedError("This node has checked no models of this attempt, or too few passed")
            if block.submissions != checked.summed or not set(checked.rejected) <= set(block.rejected):
                raise OpeningRefusedError("The block does not sum exactly the models that passed")
            answer = self.memory.keep_opening(label.task, label.round, checked.part)
        if not answer:
            raise OpeningRefusedError("A later round was opened; this round is over")
        part = vector_from_bytes(answer, ticket.spec.length)
        signed = Signed.make(Opening(block.hash, keccak256(answer), 0, UNBOUNDED), self.me.keys.signing, label.domain)
        return signed, part

    # ------------------------------------------------------------------ helpers
    def _box_key(self, ticket: Ticket) -> EncryptionKey:
        if self.me.simulation:
            return self.me.keys.encryption
        return MaskMemory(self.memory).box_key_of(seats_of(ticket)[self.seat(ticket)].box, ticket.label.task)

    @staticmethod
    def _shares(seat: int, key: EncryptionKey, ticket: Ticket, submission: Submission, payload: bytes) -> Shared | None:
        try:
            sender = ticket.roster.parties[submission.party].address
            own, after = open_box(seat, key, ticket.label.hash, sender, submission.nonce, payload, ticket.spec.length)
        except CiphertextError:
            return None
        return Shared(torch.from_numpy(own), torch.from_numpy(after))

    def _answer(self, ticket: Ticket, request: ModelsRequest, outcome: Outcome) -> bytes:
        parties, verdict = [entry.submission.party for entry in request.entries], outcome.verdict
        failed = verdict.malformed if verdict.accepted is None else [not ok for ok in verdict.accepted]
        rejected = tuple(party for party, bad in zip(parties, failed, strict=True) if bad)
        part = b"" if outcome.part is None else vector_to_bytes(outcome.part.numpy())
        summed = [e.submission.hash for e in request.entries if e.submission.party not in rejected]
        CheckMemory(self.memory).keep(ticket, summed, rejected, part)
        word = Verdict(ticket.label.hash, request.models, rejected, verdict.enough)
        signed = Signed.make(word, self.me.keys.signing, ticket.label.domain)
        stages: Json = {name: [round(s, 4), n, size] for name, (s, n, size) in outcome.stages.items()}
        accepted = -1 if verdict.count is None else verdict.count
        report: dict[str, Json] = {"samples": outcome.samples, "accepted": accepted, "stages": stages}
        return Answer(signed, report).encoded


def check_parameters(program: Program, layout: Layout) -> None:
    """Raise :class:`ProtocolError` unless the program computes with exactly the arrays that are summed."""
    shared = {tensor.name: tuple(tensor.shape) for tensor, _ in layout.float_slices()}
    compiled = {name: tuple(shape) for name, shape in program.parameters.items()}
    if list(shared.items()) != list(compiled.items()):
        names = sorted(set(shared) ^ set(compiled)) or [n for n in shared if shared[n] != compiled[n]] or list(shared)
        raise ProtocolError(
            f"SecureMod(model=...) of the verifiers has other parameters than the global model: {', '.join(names[:5])}"
        )
