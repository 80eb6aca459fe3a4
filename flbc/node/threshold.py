"""The nodes that open sums under a shared Paillier key: holders of shares, and the authority that joins their answers.

A holder opens one hidden sum a round in part, remembered over restarts (S8), for as many rounds as the task may open
and its budget pays for (S20), of enough survivors (S12), and with a ledger only for a block that leader and committee
signed. It cannot tell a sum from another ciphertext, because the tags are the authority's.

The authority has no share. It joins the answers, adds the noise (S17), keeps the budget (S20), checks tags (S11) and
signs, once a round (S8). Answers travel in boxes that only the authority opens: t of them, with the hidden sum, are the
exact sum. The boxes are for the authority's lasting key, so that who steals it later and has recorded everything opens
the sums of earlier rounds, without noise, and no single client.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from ..cards import KeyShare, PartialOpening
from ..crypto import boxes
from ..crypto.paillier_threshold import ShareKey, ThresholdKey
from ..crypto.signing import keccak256
from ..encoding import canonical, parse
from ..errors import (
    ConfigError,
    OpeningRefusedError,
    ProtocolError,
    RosterError,
    VerificationError,
)
from ..roster import AUTHORITY, Party
from ..round import Block, Opening, Signed
from ..schemes import IntVector
from ..schemes.base import vector_to_bytes
from ..schemes.paillier_threshold import PartialOpener, ThresholdOpener
from .identity import Identity
from .memory import NodeMemory
from .opening import (
    OpenRequest,
    check_request,
    epsilon_of,
    noise_of,
    pack_opening,
    pack_signed,
    reserve,
    sigma_of,
    unpack_opening,
)
from .paillier import HOLDER, SCHEME, THRESHOLD, holders_of, shared_key
from .pins import Pins
from .scheme_keys import holder_statement, key_domain, stated_place
from .ticket import Ticket, admit


class KeyHolder:
    """A node that holds a share of the Paillier key.

    Parameters
    ----------
    me : Identity
        Must have the role ``committee``.
    share : ShareKey
    pins : Pins
    memory : NodeMemory
        Durable; losing it loses S8, so a new key and new tasks are due then.
    """

    def __init__(self, me: Identity, share: ShareKey, pins: Pins, memory: NodeMemory) -> None:
        if HOLDER not in me.roles:
            raise ConfigError('This node does not serve as share holder; set flbc-role="committee" in --node-config')
        self.me, self.share, self.pins, self.memory = me, share, pins, memory

    def statement(self) -> bytes:
        """Return the shared key with this holder's word which share of it is its own."""
        value = KeyShare(SCHEME, self.share.key.fingerprint, self.share.place)
        return holder_statement(
            self.share.key, Signed.make(value, self.me.keys.signing, key_domain(self.me.simulation))
        )

    def open(self, ticket: Ticket, request: OpenRequest) -> bytes:
        """Open the hidden sum of a block in part.

        Returns
        -------
        bytes
            Signed :class:`~flbc.cards.PartialOpening` and a box for the authority. The same block gets the same bytes
            again.

        Raises
        ------
        OpeningRefusedError
            If another block of the round was opened, too few survived, or the budget is spent.
        FlbcError
            If anything about the ticket, block or submissions does not verify.
        """
        admit(ticket, self.me, self.pins, self.memory)
        if shared_key_of(ticket).fingerprint != self.share.key.fingerprint:
            raise RosterError("The task names another shared key than the one that this node has a share of")
        check_request(ticket, request, self.pins.policy)
        label, block, authority = ticket.label, request.block.hash, ticket.only(AUTHORITY)
        answer, _ = reserve(ticket, block, self.memory, self.pins.policy.max_total_epsilon)
        if answer is None:
            part = PartialOpener(self.share, ticket.spec).open(request.hidden)
            box = boxes.seal(authority.encryption, _info(label.hash, block, self.me.name, authority.name), part)
            mine = pack_signed(
                Signed.make(PartialOpening(block, keccak256(box)), self.me.keys.signing, label.domain), box
            )
            answer = self.memory.keep_opening(label.task, label.round, mine)
        if not answer:
            raise OpeningRefusedError("A sum of a later round was opened; this round is over")
        return answer


class JointAuthority:
    """The node that joins what holders of shares answer.

    Parameters
    ----------
    me : Identity
        Must have the role ``authority``, and no other.
    pins : Pins
    memory : NodeMemory
        Durable; losing it loses S8 and S20, so new tasks are due then.
    """

    def __init__(self, me: Identity, pins: Pins, memory: NodeMemory) -> None:
        if me.roles != (AUTHORITY,):
            raise ConfigError('This node does not serve as authority alone; set flbc-role="authority" in --node-config')
        self.me, self.pins, self.memory = me, pins, memory

    def open(self, ticket: Ticket, request: OpenRequest, answers: Sequence[bytes]) -> tuple[Signed, IntVector]:
        """Open the sum of a block with what holders answered.

        Returns
        -------
        opening : Signed
            Signed :class:`~flbc.round.Opening`.
        total : ndarray of int64, shape (length,)
            The sum, with noise if the task has differential privacy.

        Raises
        ------
        OpeningRefusedError
            If the answers do not open it, this is not the sum of exactly the block's clients, another block of the
            round was opened, too few survived, or the budget is spent. A refused round stays closed: it is not tried
            again with other answers.
        FlbcError
            If anything about the ticket, block, submissions or answers does not verify.
        """
        admit(ticket, self.me, self.pins, self.memory)
        key = shared_key_of(ticket)
        if ticket.only(AUTHORITY).name != self.me.name:
            raise RosterError("The roster names another authority than this node")
        survivors = check_request(ticket, request, self.pins.policy)
        parts = self._unbox(ticket, request.block, answers)
        if len(parts) < key.threshold:
            raise ProtocolError(f"{key.threshold} holders must answer, and {len(parts)} did: ask more of them")
        label, block = ticket.label, request.block.hash
        answer, openings = reserve(ticket, block, self.memory, self.pins.policy.max_total_epsilon)
        if answer is None:
            opener = ThresholdOpener(key, ticket.spec, self.me.keys.encryption)
            try:
                total = opener.open(request.hidden, parts, label.hash, survivors, noise_of(ticket.config))
                said = sigma_of(ticket.config), epsilon_of(ticket.config, openings)
                opening = Opening(block, keccak256(vector_to_bytes(total)), *said)
                mine = pack_opening(Signed.make(opening, self.me.keys.signing, label.domain), total)
            except OpeningRefusedError:
                mine = b""
            answer = self.memory.keep_opening(label.task, label.round, mine)
        if not answer:
            raise OpeningRefusedError(
                "A holder answered falsely, or this is not the sum of exactly these survivors; the round is burnt"
            )
        return unpack_opening(answer, ticket.spec.length)

    def _unbox(self, ticket: Ticket, block: Block, answers: Sequence[bytes]) -> list[bytes]:
        """Open the boxes of different holders, each signed by one of them for this block."""
        label, holders = ticket.label, holders_of(ticket)
        parts, names = [], set()
        for answer in answers:
            signed, box = unpack_partial(answer)
            holder = next((party for party in holders if _signed_by(signed, party, ticket)), None)
            if holder is None:
                raise VerificationError("A partial opening was not signed by any holder of the roster")
            check_partial(signed, box, block, ticket, holder)
            if holder.name in names:
                raise VerificationError(f"{holder.name!r} answered twice in one request")
            names.add(holder.name)
            info = _info(label.hash, block.hash, holder.name, self.me.name)
            with suppress(VerificationError):  # a box that its holder made badly is one answer fewer
                part = boxes.unseal(self.me.keys.encryption, info, box)
                # So is one in another's place, which would push that one out.
                if part[:1] == bytes([stated_place(ticket.keys, holder.name)]):
                    parts.append(part)
        return parts


def shared_key_of(ticket: Ticket) -> ThresholdKey:
    """Return the shared key of a ticket of the mode ``threshold``; :class:`RosterError` for another mode."""
    if (ticket.config.scheme, ticket.config.mode) != (SCHEME, THRESHOLD):
        raise RosterError(f"Sums of the mode {ticket.config.mode!r} are opened without a shared key")
    return shared_key(ticket)


def unpack_partial(answer: bytes) -> tuple[Signed, bytes]:
    """Read a holder's answer, its signed statement and the box; the signature is not checked here."""
    size = int.from_bytes(answer[:4], "big")
    return Signed.from_dict(PartialOpening, parse(answer[4 : 4 + size], "partial opening")), answer[4 + size :]


def check_partial(signed: Signed, box: bytes, block: Block, ticket: Ticket, holder: Party) -> None:
    """Raise :class:`VerificationError` unless a holder signed this box for this block and label."""
    value = signed.value
    if not isinstance(value, PartialOpening) or value.block != block.hash:
        raise VerificationError("The partial opening belongs to another block")
    if value.box != keccak256(box):
        raise VerificationError(f"The partial opening is not the one that {holder.name!r} signed")
    signed.verify(holder.address, ticket.label.domain)


def _signed_by(signed: Signed, party: Party, ticket: Ticket) -> bool:
    try:
        signed.verify(party.address, ticket.label.domain)
    except VerificationError:
        return False
    return True


def _info(label: bytes, block: bytes, sender: str, recipient: str) -> bytes:
    """Return what binds a box to label, block, sender and recipient."""
    return canonical(
        {
            "purpose": "flbc/paillier/partial/1",
            "label": label.hex(),
            "block": block.hex(),
            "from": sender,
            "to": recipient,
        }
    )
