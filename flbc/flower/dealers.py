"""The server's part in masking: who takes part in a round, what they dealt for it, and set-up trips.

Deposits ride on submissions (:class:`flbc.node.masked.Deposit`), dealt among those who took part then. If the same
take part again, nobody has to be asked. Otherwise, because shares belong to those who take part in *their* round, all
are asked at once: a set-up trip. In a later attempt of a round the same take part, and those whose keys were used deal
anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from logging import WARNING
from typing import TYPE_CHECKING

from flwr.common.logger import log

from ..errors import FlbcError, ProtocolError, TooFewNodesError
from ..node.mask_keys import Deposit, MaskedKeys, MaskKey, check_public, keys_of, read_box_statement
from ..node.masked import fraction_of, graph_of
from ..node.ticket import Ticket
from ..roster import Roster
from ..round import ZERO, Signed
from ..schemes.masking_graph import threshold
from . import wire
from .grid import exchange

if TYPE_CHECKING:
    from .session import Session

#: Rounds for which a party is left out that cost the others a round or a trip.
SUSPENDED_ROUNDS = 3
Boxes = Mapping[str, tuple[bytes, bytes]]


@dataclass
class Dealers:
    """Makes the keys of an attempt; see :class:`flbc.flower.session.KeyMaker`.

    Parameters
    ----------
    timeout : float
        Seconds for a set-up trip.
    """

    timeout: float
    _boxes: dict[int, Boxes] = field(default_factory=dict)  # who takes part, by round
    _deposits: dict[tuple[str, int], tuple[bytes, Deposit]] = field(default_factory=dict)  # with the group's hash
    _owners: dict[bytes, str] = field(default_factory=dict)  # of keys for boxes
    _seen: set[bytes] = field(default_factory=set)
    _used: set[str] = field(default_factory=set)  # whose keys the last attempt has used
    _until: dict[str, int] = field(default_factory=dict)  # round from which a party may take part again

    def __call__(
        self, session: Session, roster: Roster, server_round: int, skipped: int, attempt: int, nodes: Iterable[int]
    ) -> bytes:
        """Return the keys for these nodes, after a set-up trip if some have dealt nothing that can be used.

        Raises
        ------
        TooFewNodesError
            If fewer than ``min_survivors`` have dealt in the end.
        """
        places = {party.name: node for node in nodes if (party := session.directory.party(node)) is not None}
        if not places:
            return MaskedKeys().encoded  # nothing is summed, e.g. an evaluation
        if attempt and server_round in self._boxes:
            boxes = self._boxes[server_round]
            asked = {name: node for name, node in places.items() if name in self._used and name in boxes}
            if asked:
                self._set_up(session, roster, server_round, attempt, boxes, asked)
        else:
            boxes = self._fresh(session, roster, server_round, places)
            self._boxes = {server_round: boxes}
        self._used = set()
        masks = {}
        for name in boxes:
            _, deposit = self._deposits[name, server_round]
            masks[name] = deposit.dealing.public, deposit.sharing, deposit.signature
        return MaskedKeys(boxes, masks).encoded

    def deposits(self, ticket: Ticket) -> dict[str, Deposit]:
        """Return what those who take part in an attempt have dealt for its round."""
        return {name: self._deposits[name, ticket.label.round][1] for name in keys_of(ticket).masks}

    def collected(self, ticket: Ticket, riding: Mapping[str, bytes], unused: Iterable[str]) -> None:
        """Take the deposits that came with replies, and note whose keys were used.

        Parameters
        ----------
        ticket : Ticket
        riding : mapping of str to bytes
            What rode on verified submissions, by party.
        unused : iterable of str
            Parties that answered without a submission: their ephemeral keys are as good as before.
        """
        for name, data in riding.items():
            if data:
                self._take(ticket, name, data, ticket.label.round + 1)
        self._used = set(keys_of(ticket).masks) - set(unused)

    def suspend(self, names: Collection[str], round_: int, reason: str) -> None:
        """Leave parties out of the next rounds; not for good, because others may have made them look guilty."""
        for name in sorted(names):
            self._until[name] = round_ + 1 + SUSPENDED_ROUNDS
            log(WARNING, "flbc: %s is left out of the next %d rounds: %s", name, SUSPENDED_ROUNDS, reason)

    # ------------------------------------------------------------------ helpers
    def _fresh(self, session: Session, roster: Roster, round_: int, places: Mapping[str, int]) -> Boxes:
        """Fix who takes part in a round, and have everybody deal who has not."""
        boxes, listed = self._keys(session, places, round_), {party.name for party in roster.parties}
        boxes = {name: entry for name, entry in boxes.items() if name in listed}
        while True:
            if len(boxes) < session.config.min_survivors:
                raise TooFewNodesError(
                    f"{len(boxes)} clients have masking keys for round {round_}, and min_survivors = "
                    f"{session.config.min_survivors}; the log says who did not answer the set-up trip, or is left out"
                )
            group = MaskedKeys(boxes).group
            lacking = [name for name in sorted(boxes) if self._group(name, round_) != group]
            if not lacking:
                return boxes
            self._set_up(session, roster, round_, 0, boxes, {name: places[name] for name in lacking})
            silent = {name for name in lacking if self._group(name, round_) != group}
            self.suspend(silent, round_, "it did not deal, and the others have to deal again without it")
            boxes = {name: entry for name, entry in boxes.items() if name not in silent}

    def _keys(self, session: Session, names: Iterable[str], round_: int) -> dict[str, tuple[bytes, bytes]]:
        """Return the keys for boxes of these parties; who signed another's as its own is left out."""
        boxes: dict[str, tuple[bytes, bytes]] = {}
        for card in session.directory.known():
            name = card.party.name
            if self._until.get(name, 0) > round_ or not card.keys:
                continue
            public, signature = read_box_statement(card.keys)
            owner = self._owners.setdefault(public, name)  # who copies a key has seen it in a ticket, and comes later
            if owner != name:
                log(WARNING, "flbc: %s is left out: its key for boxes is that of %s", name, owner)
            elif name in names:
                boxes[name] = public, signature
        return boxes

    def _group(self, name: str, round_: int) -> bytes:
        """Return among whom a party has dealt for a round."""
        return self._deposits[name, round_][0] if (name, round_) in self._deposits else b""

    def _set_up(
        self, session: Session, roster: Roster, round_: int, attempt: int, boxes: Boxes, nodes: Mapping[str, int]
    ) -> None:
        """Ask these parties to deal for a round."""
        ticket = session.label_keys(roster, round_, attempt, ZERO, MaskedKeys(boxes).encoded)
        names = {node: name for name, node in nodes.items()}
        parts = ticket.to_wire()
        messages = [wire.request(wire.SETUP, parts, node, round_) for node in names]
        for node, reply in exchange(session.grid, messages, self.timeout).items():
            if reply.has_error():
                reason = (reply.error.reason or "no reason").strip().splitlines()[-1]
                log(WARNING, "flbc: %s dealt nothing for round %d: %s", names[node], round_, reason)
                continue
            record = wire.read_record(reply.content)
            data = b"" if record is None else record.get("deposit")
            self._take(ticket, names[node], data if isinstance(data, bytes) else b"", round_)

    def _take(self, ticket: Ticket, name: str, data: bytes, round_: int) -> None:
        """Keep a deposit if it is in order."""
        try:
            deposit = Deposit.decode(data)
            self._check(ticket, name, deposit, round_)
        except FlbcError as error:
            log(WARNING, "flbc: what %s dealt for round %d is left out: %s", name, round_, error)
            return
        self._seen.add(deposit.dealing.public)
        self._deposits = {place: kept for place, kept in self._deposits.items() if place[1] >= ticket.label.round}
        self._deposits[name, round_] = keys_of(ticket).group, deposit

    def _check(self, ticket: Ticket, name: str, deposit: Deposit, round_: int) -> None:
        """Raise unless a deposit is its owner's, fresh, and dealt to the neighbours that it has.

        Raises
        ------
        ProtocolError
            If the ephemeral key was used before, or the boxes are for others.
        VerificationError
            If the signature is not the owner's, or nobody can agree on a mask with this key.
        """
        dealing, label = deposit.dealing, ticket.label
        if dealing.public in self._seen:
            raise ProtocolError("its ephemeral key was used before; every attempt needs a fresh one")
        group = {name, *graph_of(ticket, round_).get(name, ())}
        if set(dealing.boxes) != group or dealing.boxes[name]:
            raise ProtocolError("its shares are for others than its neighbours in that round")
        if dealing.threshold != threshold(len(group), fraction_of(ticket)):
            raise ProtocolError("it was dealt with another threshold than the task's")
        check_public(dealing.public)  # a key that stops its neighbours stops here
        party = ticket.roster.parties[ticket.roster.index(name)]
        word = MaskKey(label.task, round_, dealing.public, keys_of(ticket).group, deposit.sharing)
        Signed(word, deposit.signature).verify(party.address, label.domain)
