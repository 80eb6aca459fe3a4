"""The key authority: opens one sum a round, of clients it recognises, and adds the noise itself.

Rules kept here and in :mod:`flbc.node.opening`: S8 one opening per (task, round), remembered before it is answered,
over restarts; S11 exactly these clients once each (by the scheme's tags); S12 enough survivors; S17 the noise; S20 the
budget.
"""

from __future__ import annotations

from ..cards import SchemeKey
from ..crypto import paillier
from ..crypto.signing import keccak256
from ..errors import ConfigError, OpeningRefusedError, RosterError
from ..roster import AUTHORITY
from ..round import Opening, Signed
from ..schemes import IntVector
from ..schemes.base import vector_to_bytes
from ..schemes.paillier import PaillierOpener
from .identity import Identity
from .memory import NodeMemory
from .opening import OpenRequest, check_request, epsilon_of, noise_of, pack_opening, reserve, sigma_of, unpack_opening
from .paillier import public_key
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

    def open(self, ticket: Ticket, request: OpenRequest) -> tuple[Signed, IntVector]:
        """Open the sum of a block.

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
        answer, openings = reserve(ticket, block, self.memory, self.pins.policy.max_total_epsilon)
        if answer is None:
            opener = PaillierOpener(self.private, ticket.spec, self.me.keys.encryption)
            try:
                total = opener.open(request.hidden, label.hash, survivors, noise_of(ticket.config))
                mine = self._sign(ticket, block, total, openings)
            except OpeningRefusedError:
                mine = b""
            # Only the answer that was kept first may leave: a refusal, too, depends on the noise that was drawn.
            answer = self.memory.keep_opening(label.task, label.round, mine)
        if not answer:
            raise OpeningRefusedError("This is not the sum of exactly these survivors; the round is burnt")
        return unpack_opening(answer, ticket.spec.length)

    def _sign(self, ticket: Ticket, block: bytes, total: IntVector, openings: int) -> bytes:
        """Return the signed opening and the sum, encoded."""
        digest, config = keccak256(vector_to_bytes(total)), ticket.config
        opening = Opening(block, digest, sigma_of(config), epsilon_of(config, openings))
        return pack_opening(Signed.make(opening, self.me.keys.signing, ticket.label.domain), total)
