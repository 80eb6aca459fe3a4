"""The packed forms in which submissions, votes, openings, evaluations and payouts travel to the contracts.

ABI encoding pads every member to 32 bytes; a round of a hundred submissions would cost twice the gas. So the contracts
take fixed-size records without padding, big-endian, one after the other:

=============  =====  ==================================================================================
record         bytes  layout
=============  =====  ==================================================================================
submission       110  party u16 | draw u64 | computeMs u32 | content 32 | signature 64
vote              66  party u16 | signature 64
evaluation        72  party u16 | accuracyBps u16 | examples u32 | signature 64
opening          122  total 32 | sigmaMicro u128 | epsilonMicro u64 | party u16 | signature 64
payout            18  party u16 | amount u128
participant       73  signer 20 | account 20 | vrf 20 | stake in gwei u64 | examples u32 | roles u8
rejected           2  party u16
=============  =====  ==================================================================================

Lists of submissions, votes, evaluations, payouts and rejected parties are strictly rising by party: that is how the
contracts see that nobody appears twice. A signature is in EIP-2098's compact form here, ``r ‖ (v - 27) << 255 | s``.

No web3 in this file: nodes import it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Self, TypeVar

from ..crypto.eip712 import Domain, typed_digest
from ..crypto.signing import SIGNATURE_BYTES, recover
from ..errors import ProtocolError
from ..round import Opening, Signed, Submission, Vote, submission_hash
from ..tokens import Evaluation

COMPACT_BYTES = 64
#: Gas and JSON-RPC know wei; stakes are frozen in gwei so that they fit eight bytes.
GWEI = 10**9
_HIGH_BIT = 1 << 255


def compact(signature: bytes) -> bytes:
    """Shorten ``r ‖ s ‖ v`` (65 bytes) to EIP-2098's ``r ‖ vs`` (64 bytes).

    Raises
    ------
    ProtocolError
        If there is no such form: wrong length, v not 27 or 28, or s in the upper half of 256 bits.
    """
    if len(signature) != SIGNATURE_BYTES or signature[64] not in (27, 28) or signature[32] & 0x80:
        raise ProtocolError("Only a signature of 65 bytes with v = 27 or 28 and a low s has a compact form")
    vs = int.from_bytes(signature[32:64], "big") | (signature[64] - 27) << 255
    return signature[:32] + vs.to_bytes(32, "big")


def expand(signature: bytes) -> bytes:
    """Undo :func:`compact`; r and s are not checked here, :func:`flbc.crypto.signing.recover` does."""
    if len(signature) != COMPACT_BYTES:
        raise ProtocolError(f"A compact signature has {COMPACT_BYTES} bytes, not {len(signature)}")
    vs = int.from_bytes(signature[32:], "big")
    return signature[:32] + (vs & (_HIGH_BIT - 1)).to_bytes(32, "big") + bytes([27 + (vs >> 255)])


class Packed:
    """A frozen dataclass with one fixed-size byte form; `LAYOUT` lists members and their sizes in bytes.

    Integers are unsigned; ``signature`` is kept in 65 bytes and packed in 64.
    """

    LAYOUT: ClassVar[tuple[tuple[str, int], ...]]

    @classmethod
    def size(cls) -> int:
        """Bytes of one record."""
        return sum(size for _, size in cls.LAYOUT)

    def pack(self) -> bytes:
        """Encode; :class:`ProtocolError` names a member that does not fit."""
        parts = []
        for name, size in self.LAYOUT:
            value = getattr(self, name)
            if name == "signature":
                value = compact(value)
            fits = 0 <= value < 1 << 8 * size if isinstance(value, int) else len(value) == size
            if not fits:
                raise ProtocolError(f"{type(self).__name__}.{name} does not fit {size} bytes")
            parts.append(value.to_bytes(size, "big") if isinstance(value, int) else value)
        return b"".join(parts)

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Decode one record; signatures are not checked here."""
        if len(data) != cls.size():
            raise ProtocolError(f"{cls.__name__} has {cls.size()} bytes, not {len(data)}")
        values: dict[str, object] = {}
        at = 0
        for name, size in cls.LAYOUT:
            raw, at = data[at : at + size], at + size
            is_bytes = cls.__annotations__[name] == "bytes"
            values[name] = expand(raw) if name == "signature" else raw if is_bytes else int.from_bytes(raw, "big")
        return cls(**values)


@dataclass(frozen=True, slots=True)
class PackedSubmission(Packed):
    """What the chain is given of a :class:`~flbc.round.Submission`: ``content`` stands for the rest."""

    party: int
    draw: int
    compute_ms: int
    content: bytes
    signature: bytes

    LAYOUT = (("party", 2), ("draw", 8), ("compute_ms", 4), ("content", 32), ("signature", 64))

    @classmethod
    def of(cls, signed: Signed) -> Self:
        """Shorten a signed submission."""
        value = signed.value
        if not isinstance(value, Submission):
            raise ProtocolError(f"Expected a signed Submission, not {type(value).__name__}")
        return cls(value.party, value.draw, value.compute_ms, value.content, signed.signature)

    def hash(self, label: bytes) -> bytes:
        """Struct hash of the submission under the label with this hash."""
        return submission_hash(label, self.party, self.draw, self.compute_ms, self.content)

    def signer(self, label: bytes, where: Domain) -> bytes:
        """Return the address that signed it; :class:`~flbc.errors.SignatureError` if nobody can have."""
        return recover(typed_digest(where, self.hash(label)), self.signature)


@dataclass(frozen=True, slots=True)
class PackedVote(Packed):
    """A committee member's signature over a :class:`~flbc.round.Vote` or a :class:`~flbc.tokens.Result`."""

    party: int
    signature: bytes

    LAYOUT = (("party", 2), ("signature", 64))

    def signed(self, label: bytes, block: bytes) -> Signed:
        """Return the vote for a block that it is meant to be."""
        return Signed(Vote(label, block), self.signature)


@dataclass(frozen=True, slots=True)
class PackedEvaluation(Packed):
    """A committee member's :class:`~flbc.tokens.Evaluation` of the final model."""

    party: int
    accuracy_bps: int
    examples: int
    signature: bytes

    LAYOUT = (("party", 2), ("accuracy_bps", 2), ("examples", 4), ("signature", 64))

    @classmethod
    def of(cls, signed: Signed) -> Self:
        """Shorten a signed evaluation."""
        value = signed.value
        if not isinstance(value, Evaluation):
            raise ProtocolError(f"Expected a signed Evaluation, not {type(value).__name__}")
        return cls(value.party, value.accuracy_bps, value.examples, signed.signature)

    def signed(self, task: bytes, model: bytes) -> Signed:
        """Return the full evaluation."""
        return Signed(Evaluation(task, model, self.party, self.accuracy_bps, self.examples), self.signature)


@dataclass(frozen=True, slots=True)
class PackedOpening(Packed):
    """An opener's :class:`~flbc.round.Opening` of the last recorded block."""

    total: bytes
    sigma: int
    epsilon: int
    party: int
    signature: bytes

    LAYOUT = (("total", 32), ("sigma", 16), ("epsilon", 8), ("party", 2), ("signature", 64))

    @classmethod
    def of(cls, signed: Signed, party: int) -> Self:
        """Shorten a signed opening of the party with this index."""
        value = signed.value
        if not isinstance(value, Opening):
            raise ProtocolError(f"Expected a signed Opening, not {type(value).__name__}")
        return cls(value.total, value.sigma, value.epsilon, party, signed.signature)

    def signed(self, block: bytes) -> Signed:
        """Return the full opening of the block with this hash."""
        return Signed(Opening(block, self.total, self.sigma, self.epsilon), self.signature)


@dataclass(frozen=True, slots=True)
class PackedPayout(Packed):
    """What one party may claim, in wei. The contract takes the account from the participants that it froze."""

    party: int
    amount: int

    LAYOUT = (("party", 2), ("amount", 16))


@dataclass(frozen=True, slots=True)
class Participant(Packed):
    """One party of a task as the contract froze it at the start; its position is the party's index in the roster."""

    signer: bytes
    account: bytes
    vrf: bytes
    stake: int
    examples: int
    roles: int

    LAYOUT = (("signer", 20), ("account", 20), ("vrf", 20), ("stake", 8), ("examples", 4), ("roles", 1))


_Record = TypeVar("_Record", bound=Packed)
#: Records of these kinds stand in strictly rising order of their party.
_ORDERED = (PackedSubmission, PackedVote, PackedEvaluation, PackedPayout)


def pack_all(records: Iterable[Packed]) -> bytes:
    """Encode records of one kind one after the other; :class:`ProtocolError` if their order is not rising."""
    listed = list(records)
    _check_order(listed)
    return b"".join(record.pack() for record in listed)


def unpack_all(kind: type[_Record], data: bytes) -> tuple[_Record, ...]:
    """Decode a list of records.

    Raises
    ------
    ProtocolError
        If the length is no multiple of the record's, or parties do not rise.
    """
    size = kind.size()
    if len(data) % size:
        raise ProtocolError(f"A list of {kind.__name__} has a multiple of {size} bytes, not {len(data)}")
    records = [kind.unpack(data[at : at + size]) for at in range(0, len(data), size)]
    _check_order(records)
    return tuple(records)


def pack_parties(parties: Iterable[int]) -> bytes:
    """Encode party indices (the rejected ones of a block), strictly rising."""
    listed = list(parties)
    _check_rising(listed)
    if any(not 0 <= party < 1 << 16 for party in listed):
        raise ProtocolError("Party indices lie between 0 and 65535")
    return b"".join(party.to_bytes(2, "big") for party in listed)


def unpack_parties(data: bytes) -> tuple[int, ...]:
    """Undo :func:`pack_parties`."""
    if len(data) % 2:
        raise ProtocolError(f"A list of parties has an even number of bytes, not {len(data)}")
    parties = [int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2)]
    _check_rising(parties)
    return tuple(parties)


def pack_name(name: str) -> bytes:
    """Return a party's name as the Registry holds it: ASCII, zeros behind it, 32 bytes."""
    raw = name.encode("ascii", "replace")
    if not name.isascii() or not 0 < len(raw) <= 32 or b"\0" in raw:
        raise ProtocolError(
            f"The name {name!r} cannot be registered: a contract holds 1 to 32 ASCII characters. Choose a shorter "
            "name and make the key file anew"
        )
    return raw.ljust(32, b"\0")


def unpack_name(name: bytes) -> str:
    """Undo :func:`pack_name`."""
    text = name.rstrip(b"\0").decode("ascii", "replace")
    if pack_name(text) != name:
        raise ProtocolError(f"The registered name {name.hex()} is not ASCII padded with zeros")
    return text


def _check_order(records: list[_Record]) -> None:
    if any(type(record) is not type(records[0]) for record in records):
        raise ProtocolError("A packed list holds records of one kind")
    if records and isinstance(records[0], _ORDERED):
        _check_rising([record.party for record in records])  # type: ignore[attr-defined]


def _check_rising(parties: list[int]) -> None:
    for position in range(1, len(parties)):
        if parties[position] <= parties[position - 1]:
            raise ProtocolError(f"Parties must rise strictly: {parties[position]} at position {position} does not")
