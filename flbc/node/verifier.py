"""A verifier: checks a round's hidden models together with two others (S25). Loads torch.

For an attempt it says, signed, which models may be summed, and keeps its part of the sum on disk; giving that part is
another message (:mod:`flbc.node.checked`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from ..cards import Verdict
from ..codec import Layout
from ..codec.layout import Arrays
from ..crypto.signing import keccak256
from ..encoding import Json
from ..errors import (
    CiphertextError,
    OpeningRefusedError,
    ProtocolError,
    VerificationError,
)
from ..round import Signed, Submission
from ..schemes.base import vector_to_bytes
from ..schemes.sharing import open_box
from ..verification.committee import Data, Outcome, Round, check_and_sum
from ..verification.link import Link
from ..verification.program import Program
from ..verification.session import begin
from ..verification.sharing import Shared
from .checked import CheckMemory, seat_of
from .mask_memory import MaskMemory
from .model_request import ModelsRequest
from .opening import check_submissions
from .seats import seats_of
from .terms import model_plan, policy_of, program_of
from .verdict import Answer

if TYPE_CHECKING:
    from ..crypto.keystream import EncryptionKey
    from .identity import Identity
    from .memory import NodeMemory
    from .pins import Pins
    from .ticket import Ticket


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
        seat, config = seat_of(ticket, self.me), ticket.config
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
        known = CheckMemory(self.memory).begin(ticket, context)
        if known is not None:
            return known
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

    # ------------------------------------------------------------------ helpers
    def _box_key(self, ticket: Ticket) -> EncryptionKey:
        if self.me.simulation:
            return self.me.keys.encryption
        return MaskMemory(self.memory).box_key_of(seats_of(ticket)[seat_of(ticket, self.me)].box, ticket.label.task)

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
        word = Verdict(ticket.label.hash, request.models, rejected, verdict.enough)
        signed = Signed.make(word, self.me.keys.signing, ticket.label.domain)
        stages: Json = {name: [round(s, 4), n, size] for name, (s, n, size) in outcome.stages.items()}
        accepted = -1 if verdict.count is None else verdict.count
        report: dict[str, Json] = {"samples": outcome.samples, "accepted": accepted, "stages": stages}
        answer = Answer(signed, report).encoded
        CheckMemory(self.memory).keep(ticket, summed, rejected, part, answer)
        return answer


def check_parameters(program: Program, layout: Layout) -> None:
    """Raise :class:`ProtocolError` unless the program computes with exactly the arrays that are summed."""
    shared = {tensor.name: tuple(tensor.shape) for tensor, _ in layout.float_slices()}
    compiled = {name: tuple(shape) for name, shape in program.parameters.items()}
    if list(shared.items()) != list(compiled.items()):
        names = sorted(set(shared) ^ set(compiled)) or [n for n in shared if shared[n] != compiled[n]] or list(shared)
        raise ProtocolError(
            f"SecureMod(model=...) of the verifiers has other parameters than the global model: {', '.join(names[:5])}"
        )
