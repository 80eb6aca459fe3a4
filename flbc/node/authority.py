"""The key authority: opens one sum a round, of clients it recognises.

In the mode ``"authority"`` it opens alone, adds the noise itself and keeps the budget. In the mode ``"split"`` it needs
the generator's part for this very block, which holds the noise; the budget is the generator's
(:mod:`flbc.node.generator`).

Rules kept here and in :mod:`flbc.node.opening`: S8 one opening per (task, round), remembered before it is answered,
over restarts; S11 exactly these clients once each (by the scheme's tags); S12 enough survivors; S17 the noise; S20 the
budget.
"""

from __future__ import annotations

from ..cards import SchemeKey
from ..crypto import paillier
from ..crypto.signing import keccak256
from ..errors import CiphertextError, ConfigError, OpeningRefusedError, RosterError
from ..roster import AUTHORITY, GENERATOR
from ..round import Opening, Signed
from ..schemes import Contribution, IntVector
from ..schemes.base import vector_to_bytes
from ..schemes.paillier import PaillierOpener
from ..schemes.paillier_split import SplitDecryptor
from .identity import Identity
from .memory import NodeMemory
from .opening import (
    OpenRequest,
    check_key,
    check_request,
    epsilon_of,
    noise_of,
    pack_opening,
    reserve,
    reserve_free,
    sigma_of,
    unpack_key,
    unpack_opening,
)
from .paillier import ALONE, SPLIT, public_key
from .pins import Pins
from .scheme_keys import key_domain
from .ticket import Ticket, admit


class Authority:
    """The node that holds the Paillier key.

    Parameters
    ----------
    me : Identity
        Must have the role ``authority``.
    private : PrivateKey
    pins : Pins
    memory : NodeMemory
        Durable; losing it loses S8 and S20, so a new key and new tasks are due then.
    """

    def __init__(self, me: Identity, private: paillier.PrivateKey, pins: Pins, memory: NodeMemory) -> None:
        if AUTHORITY not in me.roles:
            raise ConfigError('This node does not serve as authority; set flbc-role="authority" in --node-config')
        self.me, self.private, self.pins, self.memory = me, private, pins, memory

    def scheme_key(self, scheme: str = "paillier") -> Signed:
        """Return the signed statement that the public key is this authority's."""
        value = SchemeKey(scheme, self.private.public.fingerprint)
        return Signed.make(value, self.me.keys.signing, key_domain(self.me.simulation))

    def open(self, ticket: Ticket, request: OpenRequest, part: bytes = b"") -> tuple[Signed, IntVector]:
        """Open the sum of a block.

        Parameters
        ----------
        ticket : Ticket
        request : OpenRequest
        part : bytes (default: b"")
            In the mode ``"split"``, what the generator answered: its signed statement and the sum of the pads.

        Returns
        -------
        opening : Signed
            Signed :class:`~flbc.round.Opening`.
        total : ndarray of int64, shape (length,)
            The sum, with noise if the task has differential privacy.

        Raises
        ------
        OpeningRefusedError
            If this is not the sum of exactly the block's clients, another block of the round was opened, too few
            survived, or the budget is spent.
        FlbcError
            If anything about the ticket, block or submissions does not verify.
        """
        admit(ticket, self.me, self.pins, self.memory)
        public = public_key(ticket)
        if ticket.only(AUTHORITY).name != self.me.name or public.fingerprint != self.private.public.fingerprint:
            raise RosterError("The roster or the task names another opening key than this authority's")
        survivors = check_request(ticket, request, self.pins.policy)
        label, block = ticket.label, request.block.hash
        if ticket.config.mode == SPLIT:
            signed, key = unpack_key(part)
            stated = check_key(signed, key, request.block, ticket, ticket.only(GENERATOR).address)
            answer, said = reserve_free(ticket, block, self.memory), (stated.sigma, stated.epsilon)
        elif ticket.config.mode == ALONE and not part:
            key = b""
            answer, openings = reserve(ticket, block, self.memory, self.pins.policy.max_total_epsilon)
            said = sigma_of(ticket.config), epsilon_of(ticket.config, openings)
        else:
            raise RosterError(f"This authority does not open sums of the mode {ticket.config.mode!r} like this")
        if answer is None:
            try:
                total = self._total(ticket, request.hidden, key, survivors)
                opening = Opening(block, keccak256(vector_to_bytes(total)), *said)
                mine = pack_opening(Signed.make(opening, self.me.keys.signing, label.domain), total)
            except (OpeningRefusedError, CiphertextError):  # the latter: not blinded with this key's base, or malformed
                mine = b""
            # Only the answer that was kept first may leave: a refusal, too, depends on the noise that was drawn.
            answer = self.memory.keep_opening(label.task, label.round, mine)
        if not answer:
            raise OpeningRefusedError("This is not the sum of exactly these survivors; the round is burnt")
        return unpack_opening(answer, ticket.spec.length)

    def _total(self, ticket: Ticket, hidden: bytes, key: bytes, survivors: list[Contribution]) -> IntVector:
        """Return the noised sum; the noise is in ``key``, or drawn here."""
        label, mine = ticket.label.hash, self.me.keys.encryption
        if ticket.config.mode == SPLIT:
            return SplitDecryptor(self.private, ticket.spec, mine).open(hidden, key, label, survivors)
        return PaillierOpener(self.private, ticket.spec, mine).open(hidden, label, survivors, noise_of(ticket.config))
