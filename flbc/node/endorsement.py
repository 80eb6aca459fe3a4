"""The signatures under a block: the leader's, and the votes of a committee that recomputed it (S9, S10)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ..crypto.eip712 import Domain
from ..encoding import unhex
from ..errors import ProtocolError, VerificationError
from ..roster import TRAIN_ROLE, Roster
from ..round import Block, Signed, Vote
from .covenant import Covenant

COMMITTEE = "committee"


@dataclass(frozen=True, slots=True)
class Endorsement:
    """Who signed a block.

    Parameters
    ----------
    leader : bytes
        Signature over the :class:`~flbc.round.Block`, 65 bytes.
    votes : tuple of (int, bytes)
        Roster index and signature over the :class:`~flbc.round.Vote`, by rising index.
    """

    leader: bytes
    votes: tuple[tuple[int, bytes], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"leader": self.leader.hex(), "votes": [[party, signature.hex()] for party, signature in self.votes]}

    @classmethod
    def from_dict(cls, data: object) -> Self:
        """Undo :meth:`to_dict`; nothing is verified but the form."""
        if not isinstance(data, Mapping) or set(data) != {"leader", "votes"} or not isinstance(data["votes"], list):
            raise ProtocolError("An endorsement must hold the leader's signature and the votes")
        votes = []
        for vote in data["votes"]:
            if not isinstance(vote, list) or len(vote) != 2 or type(vote[0]) is not int:
                raise ProtocolError("A vote must be a roster index and a signature")
            votes.append((vote[0], unhex(vote[1], 65, "vote")))
        return cls(unhex(data["leader"], 65, "leader's signature"), tuple(votes))


def check_endorsement(
    block: Block, roster: Roster, covenant: Covenant, where: Domain, endorsement: Endorsement
) -> None:
    """Verify a leader's signature and a quorum of votes.

    A leader who is a committee member does not vote beside: its signature on the block counts.

    Raises
    ------
    VerificationError
        If a signature is missing or wrong, somebody signed who may not, or there are too few.
    """
    check_leader(block, roster, covenant, where, endorsement.leader)
    last = -1
    for index, signature in endorsement.votes:
        if not last < index < len(roster.parties) or index == block.leader:
            raise VerificationError("Votes must be of different members of the committee, in order, without the leader")
        member = roster.parties[index]
        if not member.has(COMMITTEE):
            raise VerificationError(f"{member.name!r} voted and is not in the committee")
        Signed(Vote(block.label, block.hash), signature).verify(member.address, where)
        last = index
    count = len(endorsement.votes) + roster.parties[block.leader].has(COMMITTEE)
    if count < covenant.quorum:
        raise VerificationError(f"{count} committee members signed the block; the quorum is {covenant.quorum}")


def check_leader(block: Block, roster: Roster, covenant: Covenant, where: Domain, signature: bytes) -> None:
    """Raise :class:`VerificationError` unless the block's leader may lead and signed it."""
    if block.leader >= len(roster.parties):
        raise VerificationError("The block names no leader of the roster")
    leader = roster.parties[block.leader]
    if not leader.has(TRAIN_ROLE) or not covenant.stake(leader.name):
        raise VerificationError(f"{leader.name!r} cannot lead: it does not train, or has no stake")
    Signed(block, signature).verify(leader.address, where)
