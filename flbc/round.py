"""The values that travel in a round: its label, what was submitted, summed and opened.

Everything here is frozen and has one byte form. Labels, submissions, blocks and openings are EIP-712 structs, so the
same hash is computed here, in a wallet and in a contract. (:mod:`flbc.roster` and :mod:`flbc.task` hold what they
refer to.)

A :class:`RoundLabel` is the root: whatever is derived for a round (tags, pads, boxes, signatures) binds its hash, so
nothing made for one round, model, roster or configuration can be used in another (SECURITY rule S6).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar, Self

from .crypto.eip712 import Domain, hash_struct, typed_digest
from .crypto.signing import SigningKey, keccak256, verify
from .encoding import unhex
from .errors import ProtocolError

ZERO = bytes(32)
NO_HUB = bytes(20)
#: ``leader`` of a block that nobody signed (no ledger).
NO_LEADER = 0xFFFF
#: ``epsilon`` of an opening without differential privacy, in millionths: no bound at all.
UNBOUNDED = 2**64 - 1
#: Salt of the EIP-712 domain of runs with development identities: their signatures are void anywhere else (S2).
SIMULATION = keccak256(b"flbc/SIMULATION")
#: Chains on which nothing has value, and development identities may sign: Ganache, Anvil and Hardhat, eth-tester.
DEVELOPMENT_CHAINS = frozenset({1337, 31337, 131277322940537})

Members = tuple[tuple[str, str], ...]


class Struct:
    """A frozen dataclass whose fields are the members of an EIP-712 struct, in order."""

    MEMBERS: ClassVar[Members]

    @cached_property
    def hash(self) -> bytes:
        """EIP-712 ``hashStruct``, 32 bytes."""
        names = [field.name for field in fields(self)]  # type: ignore[arg-type]
        values = {member: getattr(self, name) for (_, member), name in zip(self.MEMBERS, names, strict=True)}
        return hash_struct(type(self).__name__, self.MEMBERS, values)

    def to_dict(self) -> dict[str, Any]:
        """Return the members as JSON values; bytes become hexadecimal."""
        names = [field.name for field in fields(self)]  # type: ignore[arg-type]
        return {name: _to_json(getattr(self, name)) for name in names}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild the struct; :class:`ProtocolError` names what is missing, unknown or malformed."""
        names = [field.name for field in fields(cls)]  # type: ignore[arg-type]
        if set(data) != set(names):
            raise ProtocolError(f"{cls.__name__} must have exactly the members {', '.join(names)}")
        values = {
            name: _from_json(data[name], kind, f"{cls.__name__}.{name}")
            for (kind, _), name in zip(cls.MEMBERS, names, strict=True)
        }
        struct = cls(**values)
        _ = struct.hash  # range checks of every member
        return struct


@dataclass(frozen=True)
class RoundLabel(Struct):
    """What one attempt at one round is about.

    Parameters
    ----------
    task : bytes
        32 random bytes, fixed for a training run.
    round, attempt : int
        Round from 1; attempt from 0. A new attempt protects the same update again, it never retrains (S14).
    roster, config : bytes
        Hashes of the :class:`~flbc.roster.Roster` and the :class:`~flbc.task.TaskConfig`.
    model : bytes
        Hash of the global arrays and the train config that were sent.
    frame : bytes
        Hash of the codec's public numbers of this attempt (ranges, largest weight).
    keys : bytes
        Hash of the scheme keys and of the ticket that every client gets.
    chain_id, hub : int, bytes
        Chain and TaskHub contract the task lives on; 0 and 20 zero bytes without a ledger.
    simulation : bool
        True where development identities take part.
    """

    task: bytes
    round: int
    attempt: int
    roster: bytes
    config: bytes
    model: bytes
    frame: bytes
    keys: bytes
    chain_id: int
    hub: bytes
    simulation: bool

    MEMBERS: ClassVar[Members] = (
        ("bytes32", "task"),
        ("uint32", "round"),
        ("uint32", "attempt"),
        ("bytes32", "roster"),
        ("bytes32", "config"),
        ("bytes32", "model"),
        ("bytes32", "frame"),
        ("bytes32", "keys"),
        ("uint256", "chainId"),
        ("address", "hub"),
        ("bool", "simulation"),
    )

    @property
    def domain(self) -> Domain:
        """EIP-712 domain of every signature made under this label."""
        return domain(self.chain_id, self.hub, self.simulation)


@dataclass(frozen=True)
class Submission(Struct):
    """One party's protected update, as it is signed (S7).

    Parameters
    ----------
    label : bytes
        Hash of the label.
    party : int
        Index in the roster.
    draw : int
        First 64 bits of the party's VRF output for the next block's election (S22); 0 without a ledger.
    compute_ms : int
        Local training time in milliseconds, rounded up to seconds (it is outside epsilon).
    nonce : bytes
        32 fresh random bytes that enter every derivation, so that a node that lost its state cannot repeat a pad.
    payload : bytes
        keccak-256 of the protected update.
    next_keys, vrf : bytes
        keccak-256 of the keys and boxes for the next round, and of the VRF proof; zero when there is none.

    Notes
    -----
    The signed struct is ``Submission(label, party, draw, computeMs, content)`` with ``content`` the hash of
    ``Content(nonce, payload, nextKeys, vrf)``: a chain that verifies the signature is given 46 bytes and the
    signature instead of 142, and still binds all of it.
    """

    label: bytes
    party: int
    draw: int
    compute_ms: int
    nonce: bytes
    payload: bytes
    next_keys: bytes
    vrf: bytes

    SIGNED: ClassVar[Members] = (
        ("bytes32", "label"),
        ("uint16", "party"),
        ("uint64", "draw"),
        ("uint32", "computeMs"),
        ("bytes32", "content"),
    )
    CONTENT: ClassVar[Members] = (
        ("bytes32", "nonce"),
        ("bytes32", "payload"),
        ("bytes32", "nextKeys"),
        ("bytes32", "vrf"),
    )
    MEMBERS: ClassVar[Members] = SIGNED[:-1] + CONTENT

    @cached_property
    def content(self) -> bytes:
        """Hash of what is not needed to verify the signature, 32 bytes."""
        values = (self.nonce, self.payload, self.next_keys, self.vrf)
        return hash_struct("Content", self.CONTENT, dict(zip((n for _, n in self.CONTENT), values, strict=True)))

    @cached_property
    def hash(self) -> bytes:
        """EIP-712 ``hashStruct`` of the signed form, 32 bytes."""
        return submission_hash(self.label, self.party, self.draw, self.compute_ms, self.content)


def submission_hash(label: bytes, party: int, draw: int, compute_ms: int, content: bytes) -> bytes:
    """Return the hash of a submission of which only the hash of its content is known."""
    values = (label, party, draw, compute_ms, content)
    names = (name for _, name in Submission.SIGNED)
    return hash_struct("Submission", Submission.SIGNED, dict(zip(names, values, strict=True)))


@dataclass(frozen=True)
class Block(Struct):
    """What was combined: the submissions in roster order, and the hash of the *hidden* sum (S10).

    Parameters
    ----------
    parent : bytes
        Hash of the block before this one in the task. The first block's parent is the genesis hash with a ledger,
        zero without.
    label : bytes
        Hash of the label.
    leader : int
        Roster index of the elected leader, :data:`NO_LEADER` without a ledger.
    submissions : tuple of bytes
        Hashes of the summed :class:`Submission` values, by rising party index.
    rejected : tuple of int
        Parties whose submissions the committee voted out, rising.
    hidden : bytes
        keccak-256 of the combined payload.
    """

    parent: bytes
    label: bytes
    leader: int
    submissions: tuple[bytes, ...]
    rejected: tuple[int, ...]
    hidden: bytes

    MEMBERS: ClassVar[Members] = (
        ("bytes32", "parent"),
        ("bytes32", "label"),
        ("uint16", "leader"),
        ("bytes32[]", "submissions"),
        ("uint16[]", "rejected"),
        ("bytes32", "hidden"),
    )


@dataclass(frozen=True)
class Vote(Struct):
    """A committee member's word that it recomputed a block and found it right; one block per label (S9)."""

    label: bytes
    block: bytes

    MEMBERS: ClassVar[Members] = (("bytes32", "label"), ("bytes32", "block"))


@dataclass(frozen=True)
class Opening(Struct):
    """The opener's word on what it opened.

    Parameters
    ----------
    block : bytes
        Hash of the block.
    total : bytes
        keccak-256 of the opened (noised) sum as little-endian int64.
    sigma : int
        Standard deviation of the noise that was added at this opening, in millionths of a quantisation step; 0 without
        noise, and where the clients had added it before.
    epsilon : int
        Epsilon of the task after this opening in millionths, rounded up; :data:`UNBOUNDED` without noise.
    """

    block: bytes
    total: bytes
    sigma: int
    epsilon: int

    MEMBERS: ClassVar[Members] = (
        ("bytes32", "block"),
        ("bytes32", "total"),
        ("uint128", "sigmaMicro"),
        ("uint64", "epsilonMicro"),
    )


@dataclass(frozen=True)
class FunctionKey(Struct):
    """The generator's word on a function key (ESB-FL).

    Parameters
    ----------
    block : bytes
        Hash of the block whose sum it opens.
    key : bytes
        keccak-256 of the function key.
    sigma, epsilon : int
        As in :class:`Opening`, which repeats them.
    """

    block: bytes
    key: bytes
    sigma: int
    epsilon: int

    MEMBERS: ClassVar[Members] = (
        ("bytes32", "block"),
        ("bytes32", "key"),
        ("uint128", "sigmaMicro"),
        ("uint64", "epsilonMicro"),
    )


@dataclass(frozen=True, slots=True)
class Signed:
    """A struct and the 65-byte signature of one party over it."""

    value: Struct
    signature: bytes

    @classmethod
    def make(cls, value: Struct, key: SigningKey, where: Domain) -> Self:
        """Sign ``value`` in the EIP-712 domain ``where``."""
        return cls(value, key.sign(typed_digest(where, value.hash)))

    def verify(self, address: bytes, where: Domain) -> None:
        """Raise :class:`~flbc.errors.SignatureError` unless ``address`` signed the value in this domain."""
        verify(typed_digest(where, self.value.hash), self.signature, address)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"value": self.value.to_dict(), "signature": self.signature.hex()}

    @classmethod
    def from_dict(cls, kind: type[Struct], data: object) -> Self:
        """Rebuild from the JSON form; the signature is *not* checked here."""
        if not isinstance(data, dict) or set(data) != {"value", "signature"} or not isinstance(data["value"], dict):
            raise ProtocolError(f"A signed {kind.__name__} must have the members value and signature")
        return cls(kind.from_dict(data["value"]), unhex(data["signature"], 65, f"{kind.__name__} signature"))


def domain(chain_id: int, hub: bytes, simulation: bool) -> Domain:
    """EIP-712 domain of flbc on a chain and hub (0 and zeros without a ledger)."""
    return Domain("flbc", "1", chain_id, hub, SIMULATION if simulation else ZERO)


def _to_json(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [_to_json(item) for item in value]
    return value


def _from_json(value: object, kind: str, what: str) -> object:
    if kind.endswith("[]"):
        if not isinstance(value, list):
            raise ProtocolError(f"{what} must be a list")
        return tuple(_from_json(item, kind[:-2], what) for item in value)
    if kind in ("bytes32", "address"):
        return unhex(value, 32 if kind == "bytes32" else 20, what)
    wanted = {"bool": bool, "string": str}.get(kind, int)
    if type(value) is not wanted:
        raise ProtocolError(f"{what} must be a value of type {kind}")
    return value
