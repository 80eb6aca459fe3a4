"""What a node must know of the scheme ``nddfe``: who generates keys, who decrypts, and with which public keys.

The mathematics is in :mod:`flbc.schemes.ndd_fe_pad` (mode ``"pad"``), :mod:`flbc.schemes.ndd_fe_group` (``"group"``)
and :mod:`flbc.schemes.ndd_fe_paper` (``"paper"``, insecure, for study).

**Decryptor.** ESB-FL's aggregation node. With a ledger it is the leader elected for the block that the attempt makes:
leader and committee verify that, and the generator derives a key only for a block that they signed. Without a ledger it
is a training node of the attempt, drawn from task and round by :func:`rotation`, which every node checks. That bounds
what honest servers do. A dishonest one names a decryptor of its choice in some attempt, which gains nothing unless that
decryptor colludes with the generator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

from ..cards import SchemeKey
from ..crypto.group import GroupKey
from ..crypto.signing import keccak256
from ..election import Candidate, alpha, public_draw, rank
from ..encoding import Json, canonical, parse, unhex
from ..errors import ProtocolError, RosterError, SignatureError, VerificationError
from ..roster import GENERATOR, TRAIN_ROLE, Party, Roster
from ..round import NO_LEADER, Block, Signed
from ..schemes import Combiner, Contribution, Decryptor, Generator, Protector
from ..schemes.ndd_fe_pad import PadCombiner, PadDecryptor, PadGenerator, PadProtector, word_type
from .kit import FixedKeys
from .scheme_keys import key_domain
from .terms import multipliers

if TYPE_CHECKING:
    from .identity import Identity
    from .memory import NodeMemory
    from .ticket import Ticket

SCHEME = "nddfe"
PAD, GROUP, PAPER = "pad", "group", "paper"
MODES = (PAD, GROUP, PAPER)


@dataclass(frozen=True)
class NddFeKeys:
    """The ``keys`` of a ticket.

    Parameters
    ----------
    decryptor : str
        Name of the node that opens this attempt.
    publics : mapping of str to (bytes, Signed)
        In the group modes each party's point, 33 bytes, and its word that the point is its own (S1).
    """

    decryptor: str
    publics: Mapping[str, tuple[bytes, Signed]] = field(default_factory=lambda: MappingProxyType({}))

    @cached_property
    def encoded(self) -> bytes:
        """Canonical bytes."""
        publics: Json = {name: public_statement(*entry) for name, entry in self.publics.items()}
        return canonical({"decryptor": self.decryptor, "publics": publics})

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Undo :attr:`encoded`; no signature is checked here."""
        value = parse(data, "scheme keys")
        if set(value) != {"decryptor", "publics"} or not isinstance(value["publics"], dict):
            raise ProtocolError("The scheme keys must hold the decryptor's name and the public keys")
        if not isinstance(value["decryptor"], str):
            raise ProtocolError("The decryptor must be a name")
        return cls(value["decryptor"], {name: read_statement(entry) for name, entry in value["publics"].items()})


def public_statement(public: bytes, signed: Signed) -> Json:
    """Return a public key with its owner's word on it, as JSON values."""
    return {"public": public.hex(), "signed": signed.to_dict()}


def read_statement(value: object) -> tuple[bytes, Signed]:
    """Undo :func:`public_statement`; nothing is verified but the form."""
    if not isinstance(value, Mapping) or set(value) != {"public", "signed"}:
        raise ProtocolError("A scheme key must come with its owner's signature")
    return unhex(value["public"], 33, "public key"), Signed.from_dict(SchemeKey, value["signed"])


def own_statement(me: Identity) -> bytes:
    """Return a node's own point and its word on it, canonical bytes."""
    public = GroupKey.derive(me.keys.encryption).public
    word = SchemeKey(SCHEME, _fingerprint(public, me.keys.encryption.public))
    signed = Signed.make(word, me.keys.signing, key_domain(me.simulation))
    statement: Json = public_statement(public, signed)
    return canonical(statement)


@lru_cache(maxsize=8)
def rotation(roster: Roster, task: bytes, round_: int) -> tuple[int, ...]:
    """Return the roster indices of those that may decrypt a round without a ledger, best first.

    Kept, because every check of a ticket asks, and a logarithm of 60 digits for each party takes milliseconds.
    """
    seed = alpha(task, round_)
    draws = [(i, party, public_draw(seed, party.address)) for i, party in roster.with_role(TRAIN_ROLE)]
    return tuple(c.index for c in rank(Candidate(i, party.address, 1, draw) for i, party, draw in draws))


class NddFeKit(FixedKeys):
    """See :class:`flbc.node.kit.Kit`."""

    def check(self, ticket: Ticket) -> None:
        """Check mode, roles, and that the decryptor is one that may be."""
        config, spec = ticket.config, ticket.spec  # the terms are checked first
        if config.mode not in MODES:
            raise ProtocolError(f"Scheme 'nddfe' has the modes {', '.join(MODES)}, not {config.mode!r}")
        if config.key_bits or config.scheme_keys:
            raise ProtocolError("Scheme 'nddfe' has no scheme key of its own: key_bits is 0 and scheme_keys empty")
        if config.privacy is not None and (config.mode == PAPER or config.codec["max_multiplier"] is not None):
            raise ProtocolError("Differential privacy needs the mode 'pad' or 'group', and no declared weights")
        if config.mode == PAD:
            word_type(spec)  # raises where no word is large enough
        else:
            from ..schemes.ndd_fe_group import check_bound

            check_bound(spec)  # raises where a discrete logarithm would take too long
        if self.generator_of(ticket).roles != (GENERATOR,):
            raise RosterError("The generator serves in no other role: with the decryptor's key it reads every client")
        if config.mode != PAD:
            self._check_points(ticket)
        index = self.decryptor(ticket)
        if ticket.beacon is None:
            # Who is passed over costs an attempt, and a round has few.
            allowed = rotation(ticket.roster, ticket.label.task, ticket.label.round)[: ticket.label.attempt + 1]
            if index not in allowed:
                raise VerificationError("The ticket names a decryptor whose turn it is not")

    def _check_points(self, ticket: Ticket) -> None:
        """Refuse missing points, and one point for two: who signed another's as its own could hand in its payload."""
        wanted = {p.name for role in (TRAIN_ROLE, GENERATOR) for _, p in ticket.roster.with_role(role)}
        publics = _keys(ticket.keys).publics
        if missing := sorted(wanted - set(publics)):
            raise ProtocolError(f"The ticket lacks the public key of {missing[0]!r}")
        if len({publics[name][0] for name in wanted}) != len(wanted):
            raise RosterError("Two parties of the roster have the same scheme key")

    def protector(self, ticket: Ticket, me: Identity, memory: NodeMemory) -> Protector:
        """Hide under what is shared with generator and decryptor."""
        generator, decryptor = self.generator_of(ticket), ticket.roster.parties[self.decryptor(ticket)]
        if generator.name == me.name:
            raise ProtocolError("The generator does not train")
        if ticket.config.mode == PAD:
            return PadProtector(ticket.spec, generator.encryption, decryptor.encryption, me.keys.encryption)
        points = public_key(ticket, generator), public_key(ticket, decryptor)
        key = GroupKey.derive(me.keys.encryption)
        if ticket.config.mode == GROUP:
            from ..schemes.ndd_fe_group import GroupProtector

            return GroupProtector(ticket.spec, *points, key)
        from ..schemes.ndd_fe_paper import PaperProtector

        return PaperProtector(ticket.spec, *points, key)

    def combiner(self, ticket: Ticket) -> Combiner:
        """Weigh by the public multipliers, and add."""
        names = self.generator_of(ticket).name, ticket.roster.parties[self.decryptor(ticket)].name
        factors = multipliers(ticket.config, ticket.roster)
        if ticket.config.mode == PAD:
            return PadCombiner(ticket.spec, factors, *names)
        if ticket.config.mode == GROUP:
            from ..schemes.ndd_fe_group import GroupCombiner

            return GroupCombiner(ticket.spec, factors, *names)
        from ..schemes.ndd_fe_paper import PaperCombiner

        return PaperCombiner(ticket.spec, factors, *names)

    def contribution(self, ticket: Ticket, party: int, nonce: bytes) -> Contribution:
        """Pads come from the X25519 key in the roster, group elements from the signed point."""
        who = ticket.roster.parties[party]
        key = who.encryption if ticket.config.mode == PAD else public_key(ticket, who)
        factor = multipliers(ticket.config, ticket.roster)[party]
        if not 1 <= factor <= ticket.spec.max_multiplier:
            raise VerificationError(
                f"{who.name!r} declares {factor} examples; the task was sized for 1 to {ticket.spec.max_multiplier}"
            )
        return Contribution(party, key, nonce, factor)

    def decryptor(self, ticket: Ticket) -> int:
        """Return the roster index of the attempt's decryptor, a training party."""
        index = ticket.roster.index(_keys(ticket.keys).decryptor)
        if not ticket.roster.parties[index].has(TRAIN_ROLE):
            raise ProtocolError("The decryptor must be one of the training nodes")
        return index

    def generator_of(self, ticket: Ticket) -> Party:
        """Return the party that derives function keys."""
        return ticket.only(GENERATOR)


def public_key(ticket: Ticket, party: Party) -> bytes:
    """Return a party's point after checking its word on it (S1); :class:`SignatureError` if it is not its own."""
    public, signed = _keys(ticket.keys).publics[party.name]  # there: NddFeKit.check
    check_statement(party, public, signed, ticket.label.simulation)
    return public


def check_statement(party: Party, public: bytes, signed: Signed, simulation: bool) -> None:
    """Raise :class:`SignatureError` unless a party signed this point as its own, beside its encryption key."""
    if signed.value != SchemeKey(SCHEME, _fingerprint(public, party.encryption)):
        raise SignatureError(f"The signature of {party.name!r} covers another scheme key")
    signed.verify(party.address, key_domain(simulation))


def check_card(party: Party, keys: bytes, simulation: bool) -> None:
    """Check what a node says of its point in ``hello``."""
    check_statement(party, *read_statement(parse(keys, "scheme key")), simulation)


def check_decryptor_leads(ticket: Ticket, block: Block) -> None:
    """Raise :class:`VerificationError` unless who decrypts the attempt leads the block, where somebody leads it."""
    if block.leader not in (NddFeKit().decryptor(ticket), NO_LEADER):
        raise VerificationError("The block's leader and the attempt's decryptor must be one")


def _fingerprint(public: bytes, encryption: bytes) -> bytes:
    """Bind a point to the encryption key that it was derived from: with that key it is retired."""
    return keccak256(public + encryption)


@lru_cache(maxsize=8)
def _keys(data: bytes) -> NddFeKeys:
    """Decode a ticket's keys once: every survivor needs them."""
    return NddFeKeys.decode(data)


def generator_half(ticket: Ticket, me: Identity) -> Generator:
    """Return the scheme's half for the generator's node."""
    if ticket.config.mode == PAD:
        return PadGenerator(ticket.spec, me.keys.encryption)
    key = GroupKey.derive(me.keys.encryption)
    if ticket.config.mode == GROUP:
        from ..schemes.ndd_fe_group import GroupGenerator

        return GroupGenerator(ticket.spec, key, public_key(ticket, ticket.roster.parties[NddFeKit().decryptor(ticket)]))
    from ..schemes.ndd_fe_paper import PaperGenerator

    return PaperGenerator(ticket.spec, key)


def decryptor_half(ticket: Ticket, me: Identity, tables: Path) -> Decryptor:
    """Return the scheme's half for the decryptor's node; ``tables`` is where discrete logarithms keep theirs."""
    if ticket.config.mode == PAD:
        return PadDecryptor(ticket.spec, me.keys.encryption)
    key, generator = GroupKey.derive(me.keys.encryption), public_key(ticket, ticket.only(GENERATOR))
    if ticket.config.mode == GROUP:
        from ..schemes.ndd_fe_group import GroupDecryptor

        return GroupDecryptor(ticket.spec, key, generator, tables)
    from ..schemes.ndd_fe_paper import PaperDecryptor

    return PaperDecryptor(ticket.spec, key, generator, tables)
