"""A client's part in opening a masked sum: one share of every member of its groups, for one block a round (S8, S24).

It sees neither payloads nor the sum. What it hands out opens nothing by itself, and never both secrets of a client:
the first block of a round that it is asked about decides who is a survivor and who is gone, on disk, before a share
leaves the node.
"""

from __future__ import annotations

from ..crypto.keystream import EncryptionKey
from ..errors import OpeningRefusedError, ProtocolError
from ..schemes.masking_keys import KEY, SEED
from ..schemes.masking_opening import give_shares, read_request
from .identity import Identity
from .mask_keys import SCHEME, keys_of
from .mask_memory import MaskMemory
from .masked import context_of, mask_publics, own_box
from .memory import NodeMemory
from .opening import OpenRequest, check_request, reserve_free
from .pins import Pins
from .ticket import Ticket, admit


class ShareHolder:
    """A training node when a sum is opened.

    Parameters
    ----------
    me : Identity
    pins : Pins
    memory : NodeMemory
        Durable: it keeps which block of a round was answered, and which kind of share was given for each key.
    """

    def __init__(self, me: Identity, pins: Pins, memory: NodeMemory) -> None:
        self.me, self.pins, self.memory = me, pins, memory

    def unmask(self, ticket: Ticket, request: OpenRequest, body: bytes) -> bytes:
        """Give shares for a block.

        Parameters
        ----------
        ticket : Ticket
        request : OpenRequest
            The block, its submissions and, with a ledger, the committee's signatures; no sum.
        body : bytes
            The boxes for this node (:meth:`flbc.schemes.masking_opening.MaskingCombiner.requests`).

        Returns
        -------
        bytes
            Shares in the order of the boxes' owners. The same block gets the same bytes again.

        Raises
        ------
        OpeningRefusedError
            If shares were given for another block of the round or the other kind of shares for one of these clients,
            or too few survived.
        FlbcError
            If anything about the ticket, block or submissions does not verify.
        """
        admit(ticket, self.me, self.pins, self.memory)
        if ticket.config.scheme != SCHEME or not keys_of(ticket).masks:
            raise ProtocolError("Only sums of scheme 'masked' are opened with shares")
        key = own_box(ticket, self.me, self.memory)
        survivors = check_request(ticket, request, self.pins.policy, with_sum=False)
        alive = {ticket.roster.parties[entry.party].name for entry in survivors}
        label, block = ticket.label, request.block.hash
        MaskMemory(self.memory).join(label, keys_of(ticket).group)
        answer = reserve_free(ticket, block, self.memory)
        if answer is None:
            answer = self.memory.keep_opening(label.task, label.round, self._shares(ticket, key, alive, body))
        if not answer:
            raise OpeningRefusedError("Shares for a later round were given; this round is over")
        return answer

    def _shares(self, ticket: Ticket, key: EncryptionKey, alive: set[str], body: bytes) -> bytes:
        store, label = MaskMemory(self.memory), ticket.label
        owners = list(read_request(body))
        if not owners:
            raise ProtocolError("The request for shares holds no box")
        publics = mask_publics(ticket, owners)
        kinds = {owner: SEED if owner in alive else KEY for owner in owners}
        store.give({publics[owner]: kinds[owner] for owner in owners})
        own = None
        if self.me.name in alive and self.me.name in publics:
            own = store.share(publics[self.me.name], label)
        return give_shares(key, self.me.name, context_of(ticket, label.round), body, publics, kinds, own)
