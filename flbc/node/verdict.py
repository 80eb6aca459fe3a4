"""What a verifier answers, as it travels: a signed verdict, and what the checks cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..cards import Verdict
from ..crypto.signing import keccak256
from ..encoding import Json, canonical, parse
from ..errors import ProtocolError, VerificationError
from ..round import Signed, Submission
from .seats import verifiers

if TYPE_CHECKING:
    from .ticket import Ticket


@dataclass(frozen=True)
class Answer:
    """A verifier's answer about the models of an attempt.

    Parameters
    ----------
    verdict : Signed
        Of a :class:`flbc.cards.Verdict`.
    report : mapping
        Public measurements, not signed: ``samples``, ``accepted`` (-1: not shown), and by stage seconds, rounds of
        messages and bytes sent.
    """

    verdict: Signed
    report: Mapping[str, Json]

    @property
    def encoded(self) -> bytes:
        """Canonical bytes."""
        return canonical({"verdict": self.verdict.to_dict(), "report": dict(self.report)})

    @classmethod
    def decode(cls, data: bytes) -> Answer:
        """Undo :attr:`encoded`; the signature is not checked here."""
        value = parse(data, "verdict")
        if set(value) != {"verdict", "report"} or not isinstance(value["report"], dict):
            raise ProtocolError("A verifier must answer with a verdict and a report")
        return cls(Signed.from_dict(Verdict, value["verdict"]), value["report"])


def models_hash(submissions: Sequence[Submission]) -> bytes:
    """Return what a verdict commits to: the hash of the hashes of submissions, in order."""
    return keccak256(b"".join(submission.hash for submission in submissions))


def check_verdicts(ticket: Ticket, verdicts: Sequence[Signed], models: bytes) -> Verdict:
    """Return what all three verifiers say of an attempt's models.

    Raises
    ------
    VerificationError
        If one did not sign, or they disagree: one of them deviates.
    """
    parties, found = verifiers(ticket.roster), verdicts[0].value if verdicts else None
    if len(verdicts) != len(parties):
        raise VerificationError(f"A verdict needs the signatures of all {len(parties)} verifiers, not {len(verdicts)}")
    for party, signed in zip(parties, verdicts, strict=True):
        if signed.value != found:
            raise VerificationError("The verifiers disagree about which models may be summed")
        signed.verify(party.address, ticket.label.domain)
    if not isinstance(found, Verdict) or found.label != ticket.label.hash or found.models != models:
        raise VerificationError("A verdict belongs to another attempt, or to other models")
    return found
