"""A client's part in opening a masked sum: one share of every member of its groups, for one block a round (S8, S24).

It sees neither payloads nor the sum. What it hands out opens nothing by itself, and never both secrets of a client:
the first block of a round that it is asked about decides who is a survivor and who is gone, on disk, before a share
leaves the node.
"""

from __future__ import annotations

from ..errors import OpeningRefusedError, ProtocolError
from ..schemes.masking_graph import threshold
from ..schemes.masking_keys import KEY, SEED
from ..schemes.masking_opening import give_shares, read_request
from .identity import Identity
from .mask_memory import MaskMemory
from .masked import SCHEME, context_of, fraction_of, graph_of, keys_of, mask_publics
from .memory import NodeMemory
from .opening import OpenRequest, check_request, reserve, reserve_free
from .pins import Pins
from .terms import client_noise
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
        index = admit(ticket, self.me, self.pins, self.memory)
        if ticket.config.scheme != SCHEME:
            raise ProtocolError("Only sums of scheme 'masked' are opened with shares")
        survivors = check_request(ticket, request, self.pins.policy, with_sum=False)
        alive = {ticket.roster.parties[entry.party].name for entry in survivors}
        if index in {entry.party for entry in survivors}:
            self._check_group(ticket, alive)
        label, block = ticket.label, request.block.hash
        if client_noise(ticket.config) is None:
            answer = reserve_free(ticket, block, self.memory)
        else:  # this node's own noise is in the sum, so the budget is its own, too (S20)
            answer, _ = reserve(ticket, block, self.memory, self.pins.policy.max_total_epsilon)
        if answer is None:
            answer = self.memory.keep_opening(label.task, label.round, self._shares(ticket, alive, body))
        if not answer:
            raise OpeningRefusedError("Shares for a later round were given; this round is over")
        return answer

    def _check_group(self, ticket: Ticket, alive: set[str]) -> None:
        """Refuse to be summed among neighbours of whom too many are gone (Bell et al. 2020, section 3.2)."""
        group = graph_of(ticket, ticket.label.round)[self.me.name]
        need = threshold(len(group) + 1, fraction_of(ticket))
        if len(alive & set(group)) + 1 < need:
            raise OpeningRefusedError(
                f"Fewer than {need} of the {len(group) + 1} clients of this node's group survived"
            )

    def _shares(self, ticket: Ticket, alive: set[str], body: bytes) -> bytes:
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
        key = store.box_key_of(keys_of(ticket).boxes[self.me.name][0])
        return give_shares(key, self.me.name, context_of(ticket, label.round), body, publics, kinds, own)
