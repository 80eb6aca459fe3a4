"""The generator: derives one function key a round, for clients it recognises, with the noise inside (S23).

It is ESB-FL's generator, the task publisher's node, and the second node of ``Paillier(opening="split")``. It sees
neither payloads nor sums; what it hands out opens one sum, and only to the decryptor or the authority. Rules kept here
and in :mod:`flbc.node.opening`: S8 one key per (task, round), of survivors that a block commits to with their random
bytes, remembered over restarts; S12 enough survivors; S17 the noise; S20 the budget.
"""

from __future__ import annotations

from ..crypto.signing import keccak256
from ..errors import ConfigError, OpeningRefusedError, RosterError
from ..roster import GENERATOR
from ..round import FunctionKey, Signed
from ..schemes import Generator
from ..schemes.paillier_split import SplitGenerator
from .identity import Identity
from .memory import NodeMemory
from .nddfe import SCHEME, check_decryptor_leads, generator_half
from .opening import OpenRequest, check_request, epsilon_of, noise_of, pack_signed, reserve, sigma_of
from .paillier import SCHEME as PAILLIER
from .paillier import SPLIT
from .pins import Pins
from .ticket import Ticket, admit


class KeyGenerator:
    """The node that derives function keys.

    Parameters
    ----------
    me : Identity
        Must have the role ``generator``, and no other.
    pins : Pins
    memory : NodeMemory
        Durable; losing it loses S8 and S20, so new keys and new tasks are due then.
    """

    def __init__(self, me: Identity, pins: Pins, memory: NodeMemory) -> None:
        if me.roles != (GENERATOR,):
            raise ConfigError('This node does not serve as generator alone; set flbc-role="generator" in --node-config')
        self.me, self.pins, self.memory = me, pins, memory

    def derive(self, ticket: Ticket, request: OpenRequest) -> bytes:
        """Derive the function key to the sum of a block.

        Returns
        -------
        bytes
            Signed :class:`~flbc.round.FunctionKey` and the key (:func:`flbc.node.opening.unpack_key`). The same block
            gets the same bytes again.

        Raises
        ------
        OpeningRefusedError
            If a key for another block of the round was derived, too few survived, or the budget is spent.
        FlbcError
            If anything about the ticket, block or submissions does not verify.
        """
        admit(ticket, self.me, self.pins, self.memory)
        half = self._half(ticket)
        if ticket.only(GENERATOR).name != self.me.name:
            raise RosterError("The roster or the task names another generator than this node")
        if ticket.config.scheme == SCHEME:
            check_decryptor_leads(ticket, request.block)
        survivors = check_request(ticket, request, self.pins.policy, with_sum=False)
        label, config, block = ticket.label, ticket.config, request.block.hash
        answer, openings = reserve(ticket, block, self.memory, self.pins.policy.max_total_epsilon)
        if answer is None:
            key = half.derive(label.hash, survivors, noise_of(config))
            value = FunctionKey(block, keccak256(key), sigma_of(config), epsilon_of(config, openings))
            mine = pack_signed(Signed.make(value, self.me.keys.signing, label.domain), key)
            answer = self.memory.keep_opening(label.task, label.round, mine)
        if not answer:
            raise OpeningRefusedError("A key for a later round was derived; this round is over")
        return answer

    def _half(self, ticket: Ticket) -> Generator:
        """Return the scheme's half; :class:`RosterError` if the task has no use for a generator."""
        scheme, mode = ticket.config.scheme, ticket.config.mode
        if scheme == SCHEME:
            return generator_half(ticket, self.me)
        if (scheme, mode) == (PAILLIER, SPLIT):
            return SplitGenerator(ticket.spec, self.me.keys.encryption)
        raise RosterError(f"Sums of scheme {scheme!r} in mode {mode!r} are opened without a generator")
