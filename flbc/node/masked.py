"""What a node must know of the scheme ``masked``: who takes part, with which keys, and who is whose neighbour.

The mathematics is in :mod:`flbc.schemes.masking` and its neighbours. A ticket's ``keys`` list who takes part: in a
set-up trip with the keys that boxes are sealed to, in a round also with the ephemeral keys of this attempt. Both are
signed by their owners (S1); a node verifies those it uses.
"""

from __future__ import annotations

from collections.abc import Collection
from hashlib import sha256
from typing import TYPE_CHECKING

from ..crypto.keystream import EncryptionKey
from ..errors import OpeningRefusedError, ProtocolError, RosterError, StaleLabelError, VerificationError
from ..roster import TRAIN_ROLE
from ..round import Signed
from ..schemes import Combiner, Contribution
from ..schemes.masking import MaskingProtector, Modulus
from ..schemes.masking_graph import neighbours, threshold
from ..schemes.masking_keys import deal
from ..schemes.masking_opening import MaskingCombiner
from .mask_keys import MODE, Deposit, MaskKey, check_box_key, keys_of
from .mask_memory import MaskMemory
from .terms import client_noise, mechanism_of

if TYPE_CHECKING:
    from .identity import Identity
    from .memory import NodeMemory
    from .ticket import Ticket


# ---------------------------------------------------------------------- who is whose neighbour
def context_of(ticket: Ticket, round_: int) -> bytes:
    """Return what binds boxes to a task and a round."""
    return ticket.label.task + round_.to_bytes(4, "big")


def graph_of(ticket: Ticket, round_: int) -> dict[str, tuple[str, ...]]:
    """Return who masks with whom in a round with these parties; with a ledger its seed decides, else the task's id."""
    seed = ticket.label.task if ticket.beacon is None else ticket.beacon.seed
    # The group's hash too: whoever decides who takes part can try orders, and not choose one.
    place = sha256(b"flbc/masking/graph/1" + seed + round_.to_bytes(4, "big") + keys_of(ticket).group).digest()
    return neighbours(keys_of(ticket).names, place)


def fraction_of(ticket: Ticket) -> float:
    """Return the agreed threshold; :class:`ProtocolError` if there is none."""
    sharing = ticket.config.sharing
    if sharing is None or set(sharing) != {"threshold"}:
        raise ProtocolError("Scheme 'masked' needs a threshold in the task configuration")
    return float(sharing["threshold"])


def deposit_for(ticket: Ticket, me: Identity, memory: NodeMemory, round_: int) -> bytes:
    """Deal for a round with the parties of this ticket, and keep the secrets before the deposit leaves the node.

    Raises
    ------
    SignatureError
        If the key of a neighbour is not its own.
    """
    if not 1 <= round_ <= ticket.config.rounds:
        raise ProtocolError(f"The task has {ticket.config.rounds} rounds; there is nothing to deal for round {round_}")
    keys, parties = keys_of(ticket), {party.name: party for party in ticket.roster.parties}
    own_box(ticket, me, memory)
    holders = {}
    for name in graph_of(ticket, round_).get(me.name, ()):
        public, signature = keys.boxes[name]
        check_box_key(parties[name], public, signature, ticket.label.simulation)
        holders[name] = public
    if not holders:
        raise ProtocolError("The ticket names nobody with whom this node could mask its update")
    shares = threshold(len(holders) + 1, fraction_of(ticket))
    secrets, dealing = deal(context_of(ticket, round_), me.name, holders, shares)
    MaskMemory(memory).keep(ticket.label.task, round_, secrets)
    return Deposit.sign(dealing, ticket.label.task, round_, keys.group, me.keys.signing, ticket.label.domain).encoded


def own_box(ticket: Ticket, me: Identity, memory: NodeMemory) -> EncryptionKey:
    """Return the key to this node's boxes in a task.

    Raises
    ------
    ProtocolError
        If the node takes no part.
    StaleLabelError
        If the ticket lists a key that this node does not have, or used in another task.
    """
    boxes = keys_of(ticket).boxes
    if me.name not in boxes:
        raise ProtocolError("This node takes no part in this attempt")
    return MaskMemory(memory).box_key_of(boxes[me.name][0], ticket.label.task)


def mask_publics(ticket: Ticket, names: list[str] | tuple[str, ...]) -> dict[str, bytes]:
    """Return ephemeral keys by name after checking that their owners signed them for this round."""
    keys, label = keys_of(ticket), ticket.label
    parties = {party.name: party for party in ticket.roster.parties}
    publics = {}
    for name in names:
        if name not in keys.masks:
            raise VerificationError(f"{name!r} takes no part in this attempt")
        public, sharing, signature = keys.masks[name]
        word = MaskKey(label.task, label.round, public, keys.group, sharing)
        Signed(word, signature).verify(parties[name].address, label.domain)
        publics[name] = public
    return publics


class MaskedKit:
    """See :class:`flbc.node.kit.Kit`."""

    def check(self, ticket: Ticket) -> None:
        """Check mode and modulus, and that those who take part are different training parties, and enough."""
        config, keys = ticket.config, keys_of(ticket)
        if config.mode != MODE or config.key_bits or config.scheme_keys:
            raise ProtocolError(f"Scheme 'masked' has the mode {MODE!r} and no scheme key of its own")
        if config.codec["max_multiplier"] is not None:
            raise ProtocolError("Scheme 'masked' has no declared weights; weights are inside the sum")
        threshold(config.min_survivors, fraction_of(ticket))
        mechanism = mechanism_of(config)
        if mechanism is not None:
            mechanism.check_survivors(config.min_survivors)
        Modulus(ticket.spec)
        training = {party.name for _, party in ticket.roster.with_role(TRAIN_ROLE)}
        if set(keys.boxes) - training:
            raise ProtocolError("The scheme keys name somebody who is not a training party of the roster")
        if keys.boxes and len(keys.boxes) < config.min_survivors:
            raise ProtocolError(f"{len(keys.boxes)} take part, and min_survivors is {config.min_survivors}")
        if keys.masks and set(keys.masks) != set(keys.boxes):
            raise ProtocolError("The scheme keys name others with keys for masks than with keys for boxes")
        for entries in (keys.boxes, keys.masks):
            # X25519 ignores the highest bit (RFC 7748, section 5).
            if len({(entry[0][:-1], entry[0][-1] & 127) for entry in entries.values()}) != len(entries):
                raise RosterError("Two parties have the same key: one of them took the other's")

    def protector(self, ticket: Ticket, me: Identity, memory: NodeMemory) -> MaskingProtector:
        """Mask under the ephemeral key that the ticket names, which serves this attempt alone."""
        store = MaskMemory(memory)
        own_box(ticket, me, memory)
        store.join(ticket.label, keys_of(ticket).group)
        peers = mask_publics(ticket, graph_of(ticket, ticket.label.round).get(me.name, ()))
        if store.was_given(peers.values()):
            raise StaleLabelError("The ticket names an ephemeral key of which this node gave a share before")
        secrets = store.use(mask_publics(ticket, [me.name])[me.name], ticket.label)
        return MaskingProtector(ticket.spec, me.name, secrets, peers, client_noise(ticket.config))

    def set_up(self, ticket: Ticket, me: Identity, memory: NodeMemory) -> bytes:
        """Deal for the ticket's own round: who comes new, comes back, or used up what it dealt before."""
        return deposit_for(ticket, me, memory, ticket.label.round)

    def next_keys(self, ticket: Ticket, me: Identity, memory: NodeMemory) -> bytes:
        """Deal for the next round, if there is one."""
        if ticket.label.round >= ticket.config.rounds:
            return b""
        return deposit_for(ticket, me, memory, ticket.label.round + 1)

    def answered(self, ticket: Ticket, memory: NodeMemory) -> None:
        """Erase ephemeral key and seed; the own share of the seed stays until the sum is opened."""
        MaskMemory(memory).erase(ticket.label)

    def combiner(self, ticket: Ticket) -> Combiner:
        """Add; to open takes what was dealt (:mod:`flbc.flower.unmasking`)."""
        return MaskingCombiner(ticket.spec)

    def contribution(self, ticket: Ticket, party: int, nonce: bytes) -> Contribution:
        """Refuse who takes no part in the attempt."""
        name = ticket.roster.parties[party].name
        if name not in keys_of(ticket).masks:
            raise VerificationError(f"{name!r} is no party of this attempt and cannot be in its sum")
        return Contribution(party, keys_of(ticket).masks[name][0], nonce)

    def decryptor(self, ticket: Ticket) -> None:
        """Any attempt can be opened by its survivors."""

    def check_survivors(self, ticket: Ticket, parties: Collection[int]) -> None:
        """Refuse a sum in which one of the survivors has lost too many of its group.

        Its masks with neighbours that are gone come off with their keys; if enough of them were gone, in one list of
        survivors or in several that a server tells to several holders, nothing but its seed would hide it.
        """
        alive = {ticket.roster.parties[party].name for party in parties}
        graph, fraction = graph_of(ticket, ticket.label.round), fraction_of(ticket)
        for name in sorted(alive):
            group = {name, *graph[name]}
            if len(alive & group) < threshold(len(group), fraction):
                raise OpeningRefusedError(
                    f"Only {len(alive & group)} of the {len(group)} clients in the group of {name!r} survived; "
                    f"{threshold(len(group), fraction)} are needed"
                )
