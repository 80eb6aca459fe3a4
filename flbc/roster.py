"""Who takes part: one pinned identity per party, and the list that a round's label commits to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import Any, Self

from .crypto.signing import keccak256
from .encoding import canonical, parse, unhex
from .errors import ProtocolError, RosterError

TRAIN_ROLE = "hospital"
#: Holds the key that opens sums of the scheme paillier.
AUTHORITY = "authority"
#: Derives function keys; never trains, decrypts or votes (S23).
GENERATOR = "generator"
#: Checks hidden models together with two others (S25).
VERIFIER = "verifier"
ROLES = (TRAIN_ROLE, "committee", AUTHORITY, GENERATOR, VERIFIER)
#: Roles as bits, as contracts hold them; a publisher pays for tasks and need not be in a roster.
ROLE_BITS = {TRAIN_ROLE: 1, "committee": 2, AUTHORITY: 4, "publisher": 8, GENERATOR: 16, VERIFIER: 32}
#: Largest number of parties: indices are uint16, and the last one means "no leader".
MAX_PARTIES = 0xFFFF
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KEYS = (attrgetter("address"), attrgetter("encryption"))


def check_name(name: str) -> None:
    """Raise :class:`RosterError` unless ``name`` can name a party."""
    if not _NAME.fullmatch(name):
        raise RosterError(
            "A party's name must be 1 to 64 ASCII letters, digits, '-', '_' or '.', and begin with a letter or digit"
        )


@dataclass(frozen=True, slots=True)
class Party:
    """One pinned identity.

    Parameters
    ----------
    name : str
        Unique in a roster.
    roles : tuple of str
        Some of :data:`ROLES`, sorted.
    address : bytes
        20-byte address of the signing key.
    encryption : bytes
        32-byte X25519 public key.
    scheme_key : bytes
        Fingerprint of the party's scheme key (the authority's Paillier key); empty for others.
    examples : int
        Declared size of the training set, a public constant (S15); 0 when it is not declared.
    vrf : bytes
        20-byte address of the key that proves draws for the leader (S22); empty without a ledger.
    """

    name: str
    roles: tuple[str, ...]
    address: bytes
    encryption: bytes
    scheme_key: bytes = b""
    examples: int = 0
    vrf: bytes = b""

    def __post_init__(self) -> None:
        check_name(self.name)
        if not self.roles or tuple(sorted(set(self.roles))) != self.roles or set(self.roles) - set(ROLES):
            raise RosterError(f"Party {self.name!r}: roles must be one or more of {', '.join(ROLES)}, sorted")
        if len(self.address) != 20 or len(self.encryption) != 32 or len(self.scheme_key) not in (0, 32):
            raise RosterError(f"Party {self.name!r}: address, encryption key or scheme key has a wrong length")
        if len(self.vrf) not in (0, 20):
            raise RosterError(f"Party {self.name!r}: the VRF key's address has a wrong length")
        if self.examples < 0:
            raise RosterError(f"Party {self.name!r}: the number of examples must not be negative")

    def has(self, role: str) -> bool:
        """Whether the party serves ``role``."""
        return role in self.roles

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "name": self.name,
            "roles": list(self.roles),
            "address": self.address.hex(),
            "encryption": self.encryption.hex(),
            "scheme_key": self.scheme_key.hex(),
            "examples": self.examples,
            "vrf": self.vrf.hex(),
        }

    @classmethod
    def from_dict(cls, data: object) -> Self:
        """Rebuild from the JSON form."""
        names = {"name", "roles", "address", "encryption", "scheme_key", "examples", "vrf"}
        if not isinstance(data, dict) or set(data) != names:
            raise ProtocolError(f"A party must have exactly the members {', '.join(sorted(names))}")
        roles, examples = data["roles"], data["examples"]
        if not isinstance(data["name"], str) or not isinstance(roles, list) or type(examples) is not int:
            raise ProtocolError("A party's name, roles or examples have the wrong type")
        return cls(
            data["name"],
            tuple(str(role) for role in roles),
            unhex(data["address"], 20, "party address"),
            unhex(data["encryption"], 32, "party encryption key"),
            unhex(data["scheme_key"], None, "party scheme key"),
            examples,
            unhex(data["vrf"], None, "party VRF address"),
        )


@dataclass(frozen=True)
class Roster:
    """Who takes part in a round, by rising name; the position is the party's index."""

    parties: tuple[Party, ...]

    def __post_init__(self) -> None:
        names = [party.name for party in self.parties]
        if names != sorted(set(names)):
            raise RosterError("Parties of a roster must have different names and stand in order")
        if any(len({key(party) for party in self.parties}) != len(names) for key in _KEYS):
            raise RosterError("Two parties of the roster have the same signing address or encryption key")
        if len(names) >= MAX_PARTIES:
            raise RosterError(f"A roster has fewer than {MAX_PARTIES} parties")

    @cached_property
    def encoded(self) -> bytes:
        """Canonical bytes."""
        return canonical({"parties": [party.to_dict() for party in self.parties]})

    @cached_property
    def hash(self) -> bytes:
        """keccak-256 of the canonical bytes."""
        return keccak256(self.encoded)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse canonical bytes."""
        value = parse(data, "roster")
        parties = value.get("parties")
        if set(value) != {"parties"} or not isinstance(parties, list):
            raise ProtocolError("The roster must have a list of parties, and nothing else")
        return cls(tuple(Party.from_dict(party) for party in parties))

    def index(self, name: str) -> int:
        """Return the position of the party called ``name``; :class:`RosterError` if it is not in the roster."""
        for position, party in enumerate(self.parties):
            if party.name == name:
                return position
        raise RosterError(f"Party {name!r} is not in the roster of this round")

    def with_role(self, role: str) -> list[tuple[int, Party]]:
        """Return positions and parties that serve ``role``."""
        return [(i, party) for i, party in enumerate(self.parties) if party.has(role)]
