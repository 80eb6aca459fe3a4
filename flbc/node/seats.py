"""The three seats at the table where hidden models are checked: who sits there, and how the others reach it.

Each verifier says in ``hello`` under which key its boxes are sealed in this run, where it listens, with which
certificate, which model it compiled and on how many samples it will check; signed with its pinned key (S1). A ticket's
``keys`` hold the three statements. In simulation one node acts for all three, so they have no address and no
certificate, and boxes are sealed to the development keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

from ..cards import SchemeKey
from ..crypto.signing import keccak256
from ..encoding import Json, canonical, parse, unhex
from ..errors import ProtocolError, RosterError
from ..roster import VERIFIER, Party, Roster
from ..round import Signed
from ..schemes.sharing import SEATS
from ..verification.session_key import SessionKey
from .memory import KEPT_TASKS, NodeMemory
from .scheme_keys import key_domain

if TYPE_CHECKING:
    from .identity import Identity
    from .ticket import Ticket

SCHEME = "verified"
MODE = "committee"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS link_key (run TEXT PRIMARY KEY, certificate BLOB NOT NULL, secret BLOB NOT NULL) STRICT;
"""


@dataclass(frozen=True)
class Seat:
    """What a verifier says of itself.

    Parameters
    ----------
    box : bytes
        X25519 key to which shares are sealed in this run.
    address : str
        ``host:port`` where it listens, ``relay://host:port`` where all three meet; empty in simulation.
    certificate : bytes
        That it shows to the others (DER); empty in simulation.
    program : bytes
        Hash of the model that it compiled.
    samples : int
        Number of its validation samples when it said so; public.
    signature : bytes
        65 bytes, by its pinned key.
    """

    box: bytes
    address: str
    certificate: bytes
    program: bytes
    samples: int
    signature: bytes = b""

    def _word(self, party: Party) -> SchemeKey:
        parts: list[Json] = [self.box.hex(), self.address, self.certificate.hex(), self.program.hex(), self.samples]
        return SchemeKey(SCHEME, keccak256(canonical({"seat": [*parts, party.encryption.hex()]})))

    def signed(self, me: Identity) -> Seat:
        """Return the statement with its maker's signature."""
        signature = Signed.make(self._word(me.party()), me.keys.signing, key_domain(me.simulation)).signature
        return Seat(self.box, self.address, self.certificate, self.program, self.samples, signature)

    def check(self, party: Party, simulation: bool) -> None:
        """Raise :class:`VerificationError` unless ``party`` signed this, :class:`ProtocolError` if it cannot be."""
        if self.samples < 1 or bool(self.certificate) == simulation or bool(self.address) == simulation:
            raise ProtocolError(f"The seat of {party.name!r} has no samples, or no address and certificate")
        if simulation and self.box != party.encryption:
            raise RosterError(f"The box key of {party.name!r} is not its development key")
        Signed(self._word(party), self.signature).verify(party.address, key_domain(simulation))

    def to_json(self) -> Json:
        """Return the JSON form."""
        return [self.box.hex(), self.address, self.certificate.hex(), self.program.hex(), self.samples,
                self.signature.hex()]  # fmt: skip

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Undo :meth:`to_json`; nothing is verified but the form."""
        if not isinstance(data, list) or len(data) != 6 or type(data[4]) is not int or not isinstance(data[1], str):
            raise ProtocolError("A seat must hold key, address, certificate, program, samples and signature")
        box, certificate, program = unhex(data[0], 32, "key"), unhex(data[2], None, "certificate"), data[3]
        signature = unhex(data[5], 65, "signature")
        return cls(box, data[1], certificate, unhex(program, 32, "program"), data[4], signature)

    @property
    def encoded(self) -> bytes:
        """Canonical bytes: what a node says in ``hello``."""
        return canonical({"seat": self.to_json()})

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Undo :attr:`encoded`."""
        value = parse(data, "seat")
        if set(value) != {"seat"}:
            raise ProtocolError("A verifier must say where it sits")
        return cls.from_json(value["seat"])


@dataclass(frozen=True)
class Table:
    """The ``keys`` of a ticket: the seats by the names of those who hold them."""

    seats: Mapping[str, Seat] = field(default_factory=lambda: MappingProxyType({}))

    @cached_property
    def encoded(self) -> bytes:
        """Canonical bytes."""
        return canonical({"table": {name: self.seats[name].to_json() for name in sorted(self.seats)}})

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Undo :attr:`encoded`; no signature is checked here."""
        value = parse(data, "table")
        if set(value) != {"table"} or not isinstance(value["table"], dict):
            raise ProtocolError("The scheme keys must hold the verifiers' seats")
        return cls(MappingProxyType({name: Seat.from_json(entry) for name, entry in value["table"].items()}))


@lru_cache(maxsize=8)
def _decode(data: bytes) -> Table:
    return Table.decode(data)


def verifiers(roster: Roster) -> list[Party]:
    """Return the three verifiers by seat; :class:`RosterError` if there are not exactly three."""
    found = [party for _, party in roster.with_role(VERIFIER)]
    if len(found) != SEATS:
        raise RosterError(
            f"Models are checked by exactly {SEATS} nodes, and {len(found)} have the role {VERIFIER!r}; start "
            f"{SEATS} SuperNodes with --node-config 'flbc-role=\"{VERIFIER}\" …', each with a key of its own"
        )
    return found


def seats_of(ticket: Ticket) -> list[Seat]:
    """Return the seats of a ticket by rank, verified.

    Raises
    ------
    RosterError
        If there are not three different nodes.
    VerificationError
        If a seat is not signed by who holds it.
    """
    table, parties = _decode(ticket.keys).seats, verifiers(ticket.roster)
    if set(table) != {party.name for party in parties}:
        raise RosterError("The scheme keys name others than the three verifiers of the roster")
    seats = [table[party.name] for party in parties]
    for party, seat in zip(parties, seats, strict=True):
        seat.check(party, ticket.label.simulation)
    if len({seat.box for seat in seats}) != SEATS:
        raise RosterError("One node sits in two seats: two verifiers have the same key")
    certificates = [seat.certificate for seat in seats if seat.certificate]
    if len(set(certificates)) != len(certificates):
        raise RosterError("One node sits in two seats: two verifiers have the same certificate")
    return seats


class LinkMemory:
    """Keeps the certificate, and its key, that a verifier shows to the other two in a run.

    Parameters
    ----------
    memory : NodeMemory
    """

    def __init__(self, memory: NodeMemory) -> None:
        self._memory = memory
        memory.prepare(_SCHEMA)

    def key(self, run: str) -> SessionKey:
        """Return this node's key for a run, made on first use; older ones are erased."""
        fresh = SessionKey()
        with self._memory.transaction() as db:
            row = (run, fresh.certificate, fresh.to_bytes())
            db.execute("INSERT OR IGNORE INTO link_key VALUES (?, ?, ?)", row)
            db.execute(
                "DELETE FROM link_key WHERE rowid NOT IN (SELECT rowid FROM link_key ORDER BY rowid DESC LIMIT ?)",
                (KEPT_TASKS,),
            )
            (secret,) = db.execute("SELECT secret FROM link_key WHERE run = ?", (run,)).fetchone()
        return SessionKey.from_bytes(bytes(secret))

    def key_of(self, certificate: bytes) -> SessionKey:
        """Return the key to a certificate made by :meth:`key`; :class:`ProtocolError` if it is not this node's."""
        with self._memory.transaction() as db:
            row = db.execute("SELECT secret FROM link_key WHERE certificate = ?", (certificate,)).fetchone()
        if row is None:
            raise ProtocolError("The ticket names a certificate that this node did not make, or has erased")
        return SessionKey.from_bytes(bytes(row[0]))
