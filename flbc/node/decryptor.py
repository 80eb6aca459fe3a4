"""The designated decryptor of ESB-FL: opens one sum a round with the generator's function key, and signs it.

It is a training node: the leader of the block with a ledger, else drawn for the round (:mod:`flbc.node.nddfe`). It
learns the opened sum, as everybody does who sees the next model, and nothing without the generator's key.
"""

from __future__ import annotations

from ..crypto.signing import keccak256
from ..errors import OpeningRefusedError, RosterError
from ..roster import GENERATOR
from ..round import Opening, Signed
from ..schemes import IntVector
from ..schemes.base import vector_to_bytes
from .identity import Identity
from .memory import NodeMemory
from .nddfe import SCHEME, NddFeKit, check_decryptor_leads, decryptor_half
from .opening import (
    OpenRequest,
    check_key,
    check_request,
    pack_opening,
    reserve_free,
    unpack_key,
    unpack_opening,
)
from .pins import Pins
from .ticket import Ticket, admit


class SumDecryptor:
    """A training node in its round as decryptor.

    Parameters
    ----------
    me : Identity
    pins : Pins
    memory : NodeMemory
        Durable: it keeps the one sum opened per round. Tables of discrete logarithms lie in the same directory.
    """

    def __init__(self, me: Identity, pins: Pins, memory: NodeMemory) -> None:
        self.me, self.pins, self.memory = me, pins, memory

    def open(self, ticket: Ticket, request: OpenRequest, answer: bytes) -> tuple[Signed, IntVector]:
        """Open the sum of a block.

        Parameters
        ----------
        ticket : Ticket
        request : OpenRequest
        answer : bytes
            What the generator answered: its signed statement and the function key.

        Returns
        -------
        opening : Signed
            Signed :class:`~flbc.round.Opening`; noise and epsilon are those that the generator stated.
        total : ndarray of int64, shape (length,)

        Raises
        ------
        OpeningRefusedError
            If this is not the sum of exactly the block's clients, or another block of the round was opened.
        FlbcError
            If anything about the ticket, block, submissions or key does not verify.
        """
        index = admit(ticket, self.me, self.pins, self.memory)
        if ticket.config.scheme != SCHEME or NddFeKit().decryptor(ticket) != index:
            raise RosterError("Another node is the decryptor of this attempt")
        check_decryptor_leads(ticket, request.block)
        survivors = check_request(ticket, request, self.pins.policy)
        signed, key = unpack_key(answer)
        stated = check_key(signed, key, request.block, ticket, ticket.only(GENERATOR).address)
        label, block = ticket.label, request.block.hash
        kept, reason = reserve_free(ticket, block, self.memory), "The round is over: refused, or a later one was opened"
        if kept is None:
            half = decryptor_half(ticket, self.me, self.memory.directory)
            try:
                total = half.open(request.hidden, key, label.hash, survivors)
                opening = Opening(block, keccak256(vector_to_bytes(total)), stated.sigma, stated.epsilon)
                mine = pack_opening(Signed.make(opening, self.me.keys.signing, label.domain), total)
            except OpeningRefusedError as error:
                mine, reason = b"", str(error)
            kept = self.memory.keep_opening(label.task, label.round, mine)
        if not kept:
            raise OpeningRefusedError(reason)
        return unpack_opening(kept, ticket.spec.length)
