"""Keys for masking as they travel: what a client dealt for a round, and the keys that its boxes are sealed to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Self

from ..cards import SchemeKey
from ..crypto.eip712 import Domain
from ..crypto.keystream import EncryptionKey
from ..crypto.signing import SigningKey, keccak256
from ..encoding import Json, canonical, parse, unhex
from ..errors import ProtocolError
from ..roster import Party
from ..round import Members, Signed, Struct
from ..schemes.masking_keys import Dealing
from .scheme_keys import key_domain

if TYPE_CHECKING:
    from .identity import Identity
    from .ticket import Ticket

SCHEME, MODE = "masked", "pairwise"
#: Shows whether a public key can be agreed with: one that cannot would stop all its neighbours.
_PROBE = EncryptionKey.generate()


@dataclass(frozen=True)
class MaskKey(Struct):
    """A party's word on what it dealt for one round (S24).

    Parameters
    ----------
    task : bytes
    round : int
    public : bytes
        Its ephemeral key.
    group : bytes
        Hash of all who take part in the round with their keys for boxes (:attr:`MaskedKeys.group`): the shares went to
        nobody else, so that whoever opens one secret of the round belongs to the same people.
    sharing : bytes
        Hash of commitments, threshold and boxes.
    """

    task: bytes
    round: int
    public: bytes
    group: bytes
    sharing: bytes

    MEMBERS: ClassVar[Members] = (
        ("bytes32", "task"),
        ("uint32", "round"),
        ("bytes32", "public"),
        ("bytes32", "group"),
        ("bytes32", "sharing"),
    )


@dataclass(frozen=True)
class Deposit:
    """A dealing with its owner's signature, as it rides on a submission or comes from a set-up trip."""

    dealing: Dealing
    signature: bytes

    @cached_property
    def sharing(self) -> bytes:
        """Hash of commitments, threshold and boxes, 32 bytes."""
        return keccak256(canonical(self._json()))

    @cached_property
    def encoded(self) -> bytes:
        """Canonical bytes."""
        return canonical({**self._json(), "public": self.dealing.public.hex(), "signature": self.signature.hex()})

    def _json(self) -> dict[str, Json]:
        dealing = self.dealing
        boxes: Json = {name: box.hex() for name, box in dealing.boxes.items()}
        commitments: Json = [part.hex() for part in dealing.commitments]
        return {"commitments": commitments, "threshold": dealing.threshold, "boxes": boxes}

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Undo :attr:`encoded`; the signature is not checked here."""
        value = parse(data, "deposit")
        members = {"public", "commitments", "threshold", "boxes", "signature"}
        if set(value) != members or not isinstance(value["boxes"], dict) or type(value["threshold"]) is not int:
            raise ProtocolError(f"A deposit must hold {', '.join(sorted(members))}")
        boxes = {name: unhex(box, None, "box") for name, box in value["boxes"].items()}
        key, seed = _entry(value["commitments"], (32, 32))
        public = unhex(value["public"], 32, "public key")
        dealing = Dealing(public, (key, seed), value["threshold"], MappingProxyType(boxes))
        dealing.check_form()
        return cls(dealing, unhex(value["signature"], 65, "signature"))

    @classmethod
    def sign(cls, dealing: Dealing, task: bytes, round_: int, group: bytes, key: SigningKey, where: Domain) -> Self:
        """Sign what was dealt for a round among ``group``."""
        word = MaskKey(task, round_, dealing.public, group, cls(dealing, b"").sharing)
        return cls(dealing, Signed.make(word, key, where).signature)


@dataclass(frozen=True)
class MaskedKeys:
    """The ``keys`` of a ticket.

    Parameters
    ----------
    boxes : mapping of str to (bytes, bytes)
        By the name of everybody who takes part: the key that its boxes are sealed to, and its signature on it.
    masks : mapping of str to (bytes, bytes, bytes)
        Ephemeral key, hash of the rest of the dealing, and signature on both. Empty in a set-up trip, and where
        nothing is summed.
    """

    boxes: Mapping[str, tuple[bytes, bytes]] = field(default_factory=lambda: MappingProxyType({}))
    masks: Mapping[str, tuple[bytes, bytes, bytes]] = field(default_factory=lambda: MappingProxyType({}))

    @cached_property
    def encoded(self) -> bytes:
        """Canonical bytes."""
        boxes: Json = {name: [part.hex() for part in entry] for name, entry in self.boxes.items()}
        masks: Json = {name: [part.hex() for part in entry] for name, entry in self.masks.items()}
        return canonical({"boxes": boxes, "masks": masks})

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Undo :attr:`encoded`; no signature is checked here."""
        value = parse(data, "scheme keys")
        if set(value) != {"boxes", "masks"} or not all(isinstance(part, dict) for part in value.values()):
            raise ProtocolError("The scheme keys must hold the keys for boxes and for masks")
        boxes, masks = {}, {}
        for name, entry in value["boxes"].items():
            public, signature = _entry(entry, (32, 65))
            boxes[name] = public, signature
        for name, entry in value["masks"].items():
            public, sharing, signature = _entry(entry, (32, 32, 65))
            masks[name] = public, sharing, signature
        return cls(MappingProxyType(boxes), MappingProxyType(masks))

    @cached_property
    def names(self) -> list[str]:
        """Who takes part, in order."""
        return sorted(self.boxes)

    @cached_property
    def group(self) -> bytes:
        """Hash of who takes part with which keys for boxes, 32 bytes."""
        return keccak256(canonical({name: public.hex() for name, (public, _) in self.boxes.items()}))


def _entry(value: object, sizes: tuple[int, ...]) -> list[bytes]:
    if not isinstance(value, list) or len(value) != len(sizes):
        raise ProtocolError("An entry of the scheme keys has a wrong number of parts")
    return [unhex(part, size, "scheme key") for part, size in zip(value, sizes, strict=True)]


@lru_cache(maxsize=8)
def _decode(data: bytes) -> MaskedKeys:
    return MaskedKeys.decode(data)


def keys_of(ticket: Ticket) -> MaskedKeys:
    """Return a ticket's keys, decoded once."""
    return _decode(ticket.keys)


# ---------------------------------------------------------------------- keys for boxes (hello)
def box_statement(me: Identity, key: EncryptionKey) -> bytes:
    """Return what a node says in ``hello``: the key that boxes for it are sealed to in this run, signed."""
    word = SchemeKey(SCHEME, keccak256(key.public + me.keys.encryption.public))
    signature = Signed.make(word, me.keys.signing, key_domain(me.simulation)).signature
    return canonical({"public": key.public.hex(), "signature": signature.hex()})


def read_box_statement(data: bytes) -> tuple[bytes, bytes]:
    """Undo :func:`box_statement`; nothing is verified but the form."""
    value = parse(data, "scheme key")
    if set(value) != {"public", "signature"}:
        raise ProtocolError("A key for boxes must come with its owner's signature")
    return unhex(value["public"], 32, "public key"), unhex(value["signature"], 65, "signature")


def check_public(public: bytes) -> None:
    """Raise :class:`VerificationError` if nobody can agree on a key with this one (RFC 7748, section 6.1)."""
    _PROBE.agree(public, b"flbc/masking/probe/1")


def check_box_key(party: Party, public: bytes, signature: bytes, simulation: bool) -> None:
    """Raise :class:`VerificationError` unless a party signed this key for boxes as its own, and it can be used."""
    check_public(public)
    word = SchemeKey(SCHEME, keccak256(public + party.encryption))
    Signed(word, signature).verify(party.address, key_domain(simulation))
