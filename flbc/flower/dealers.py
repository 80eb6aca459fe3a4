"""The server's part in masking: what clients dealt for which round, and the set-up trip of those who have not.

Deposits ride on submissions (:class:`flbc.node.masked.Deposit`), so that in a steady roster nobody has to be asked.
Whoever comes new or comes back, used its deposit in an attempt that was not opened, or lost too many holders of its
shares to changes of the roster, is asked once, before it trains.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from logging import WARNING
from typing import TYPE_CHECKING

from flwr.common.logger import log

from ..crypto.keystream import EncryptionKey
from ..errors import FlbcError, ProtocolError, TooFewNodesError
from ..node.masked import Deposit, MaskedKeys, MaskKey, fraction_of, graph_of, read_box_statement
from ..node.ticket import Ticket
from ..roster import Party, Roster
from ..round import ZERO, Signed
from ..schemes.masking_graph import threshold
from . import wire
from .grid import exchange

if TYPE_CHECKING:
    from .session import Session

#: Nobody holds the other half of this key: it shows whether a public key can be agreed with.
_PROBE = EncryptionKey.generate()


@dataclass
class Dealers:
    """Makes the keys of an attempt; see :class:`flbc.flower.session.KeyMaker`.

    Parameters
    ----------
    timeout : float
        Seconds for a set-up trip.
    """

    timeout: float
    _deposits: dict[tuple[str, int], Deposit] = field(default_factory=dict)
    _seen: set[bytes] = field(default_factory=set)

    def __call__(
        self, session: Session, roster: Roster, server_round: int, skipped: int, attempt: int, nodes: Iterable[int]
    ) -> bytes:
        """Return the keys for these nodes, after a set-up trip if some have dealt nothing that can be used.

        Raises
        ------
        TooFewNodesError
            If fewer than ``min_survivors`` have dealt in the end.
        """
        cards = {card.party.name: card for card in session.directory.known()}
        listed = {party.name: party for party in roster.parties}
        places = {party.name: node for node in nodes if (party := session.directory.party(node)) is not None}
        boxes = {name: read_box_statement(cards[name].keys) for name in places if name in listed}
        if not boxes:
            return MaskedKeys().encoded  # nothing is summed, e.g. an evaluation
        while True:
            names = set(boxes)
            ready = {name for name in names if self._holds(name, server_round, names)}
            lacking = names - ready
            if not lacking:
                break
            keys = MaskedKeys(boxes)
            ticket = session.label_keys(roster, server_round, attempt, ZERO, keys.encoded)
            self._set_up(session, ticket, {name: places[name] for name in sorted(lacking)})
            silent = {name for name in lacking if (name, server_round) not in self._deposits}
            if not silent:
                break
            boxes = {name: entry for name, entry in boxes.items() if name not in silent}
            if len(boxes) < session.config.min_survivors:
                raise TooFewNodesError(
                    f"{len(boxes)} clients have masking keys for round {server_round}, and min_survivors = "
                    f"{session.config.min_survivors}; {', '.join(sorted(silent))} did not answer the set-up trip"
                )
        masks = {}
        for name in boxes:
            deposit = self._deposits[name, server_round]
            masks[name] = deposit.dealing.public, deposit.sharing, deposit.signature
        return MaskedKeys(boxes, masks).encoded

    def deposits(self, ticket: Ticket) -> dict[str, Deposit]:
        """Return what those who take part in an attempt have dealt for its round."""
        from ..node.masked import keys_of

        return {name: self._deposits[name, ticket.label.round] for name in keys_of(ticket).masks}

    def collected(self, ticket: Ticket, riding: Mapping[str, bytes], unused: Iterable[str]) -> None:
        """Take the deposits that came with replies, and forget those that were used.

        Parameters
        ----------
        ticket : Ticket
        riding : mapping of str to bytes
            What rode on verified submissions, by party.
        unused : iterable of str
            Parties that answered without a submission: their ephemeral keys are as good as before.
        """
        label = ticket.label
        for name, data in riding.items():
            if data:
                self._take(ticket, name, data, label.round + 1)
        self._spent = set(self.deposits(ticket)) - set(unused)

    def renew(self, ticket: Ticket) -> None:
        """Forget the deposits that were used in an attempt, because there will be another one."""
        for name in self._spent:
            self._deposits.pop((name, ticket.label.round), None)
        self._spent = set()

    _spent: set[str] = field(default_factory=set)

    # ------------------------------------------------------------------ helpers
    def _holds(self, name: str, round_: int, present: set[str]) -> bool:
        """Whether a party has dealt for the round, and enough of the holders are there to lose some."""
        deposit = self._deposits.get((name, round_))
        if deposit is None:
            return False
        holders = set(deposit.dealing.boxes)
        spare = len(holders) - deposit.dealing.threshold
        return len(holders - present) <= spare // 2

    def _set_up(self, session: Session, ticket: Ticket, nodes: Mapping[str, int]) -> None:
        """Ask these parties to deal for the ticket's round."""
        by_node = {node: name for name, node in nodes.items()}
        parts = ticket.to_wire()
        messages = [wire.request(wire.SETUP, parts, node, ticket.label.round) for node in by_node]
        for name in nodes:
            self._deposits.pop((name, ticket.label.round), None)
        for node, reply in exchange(session.grid, messages, self.timeout).items():
            if reply.has_error():
                reason = (reply.error.reason or "no reason").strip().splitlines()[-1]
                log(WARNING, "flbc: %s dealt nothing for round %d: %s", by_node[node], ticket.label.round, reason)
                continue
            record = wire.read_record(reply.content)
            data = b"" if record is None else record.get("deposit")
            self._take(ticket, by_node[node], data if isinstance(data, bytes) else b"", ticket.label.round)

    def _take(self, ticket: Ticket, name: str, data: bytes, round_: int) -> None:
        """Keep a deposit if it is in order; who sent another takes a set-up trip."""
        try:
            deposit = Deposit.decode(data)
            self._check(ticket, name, deposit, round_)
        except FlbcError as error:
            log(WARNING, "flbc: what %s dealt for round %d is left out: %s", name, round_, error)
            return
        self._seen.add(deposit.dealing.public)
        self._deposits = {place: kept for place, kept in self._deposits.items() if place[1] >= ticket.label.round}
        self._deposits[name, round_] = deposit

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
        _PROBE.agree(dealing.public, b"flbc/masking/probe/1")  # a key that stops its neighbours stops here
        party: Party = ticket.roster.parties[ticket.roster.index(name)]
        word = MaskKey(label.task, round_, dealing.public, deposit.sharing)
        Signed(word, deposit.signature).verify(party.address, label.domain)
