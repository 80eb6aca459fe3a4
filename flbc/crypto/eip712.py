"""EIP-712 typed data for flat structs: what a party signs is what a contract can hash again.

Members may be ``bytes32``, ``address``, ``uint8`` … ``uint256``, ``bool``, ``string``, ``bytes``, and the arrays
``bytes32[]`` and ``uintN[]``; nothing nests. Unlike most libraries nothing is converted: an int is not read from text,
a bool is not an int, bytes are not padded. A value that does not fit its type raises, so that two programs can never
sign different bytes for what looks the same.

The domain always has all five fields of the specification (https://eips.ethereum.org/EIPS/eip-712).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from flbc.crypto.signing import keccak256
from flbc.errors import ProtocolError

Members = Sequence[tuple[str, str]]

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ATOMS = frozenset({"bytes32", "address", "bool", "string", "bytes"})
_UINTS = {f"uint{bits}": bits for bits in range(8, 257, 8)}

_DOMAIN_MEMBERS: Members = (
    ("string", "name"),
    ("string", "version"),
    ("uint256", "chainId"),
    ("address", "verifyingContract"),
    ("bytes32", "salt"),
)


@dataclass(frozen=True, slots=True)
class Domain:
    """Where a signature is valid: the same struct signed for another domain is another signature.

    Parameters
    ----------
    name, version : str
        The protocol's name and the version of its types.
    chain_id : int
        EIP-155 chain id, below 2^256.
    verifying_contract : bytes
        20 bytes; zeros when there is no contract.
    salt : bytes
        32 bytes, for whatever else must separate two domains.

    Raises
    ------
    ProtocolError
        If a field does not fit.
    """

    name: str
    version: str
    chain_id: int
    verifying_contract: bytes
    salt: bytes

    def __post_init__(self) -> None:
        self.separator()  # fails here, not at the first signature

    def separator(self) -> bytes:
        """Return the 32-byte hash of the domain (EIP-712, "Definition of domainSeparator")."""
        return _separator(self.name, self.version, self.chain_id, self.verifying_contract, self.salt)


def encode_type(name: str, members: Members) -> str:
    """Write a struct's type, for instance ``Vote(bytes32 block,uint8 choice)``.

    Parameters
    ----------
    name : str
        The struct's name, an ASCII identifier.
    members : sequence of (type, name)
        In the order of the Solidity struct.

    Raises
    ------
    ProtocolError
        For an unknown type, a name that is not an identifier, or a name that occurs twice.
    """
    seen: set[str] = set()
    for kind, member in members:
        _check_type(kind)
        if not isinstance(member, str) or not _IDENTIFIER.fullmatch(member) or member in seen:
            raise ProtocolError(f"{member!r} is not a fresh identifier: rename this member of {name}")
        seen.add(member)
    if not isinstance(name, str) or not _IDENTIFIER.fullmatch(name):
        raise ProtocolError(f"{name!r} cannot name a struct: use letters, digits and underscores")
    return f"{name}({','.join(f'{kind} {member}' for kind, member in members)})"


def hash_struct(name: str, members: Members, values: Mapping[str, object]) -> bytes:
    """Hash one struct: ``keccak(typeHash ‖ encodeData)`` (EIP-712, "Definition of hashStruct").

    Parameters
    ----------
    name, members
        As for `encode_type`.
    values : mapping
        A value for each member and no others: bytes of 32 or 20 bytes, int, bool, str, bytes, or a list or tuple.

    Returns
    -------
    bytes
        32 bytes.

    Raises
    ------
    ProtocolError
        If members are missing or unknown, or a value does not have exactly its member's type and range.
    """
    header = _type_hash(name, tuple(members))
    names = {member for _, member in members}
    if set(values) != names:
        wrong = ", ".join(sorted(map(str, names ^ set(values))))
        raise ProtocolError(f"{name} needs exactly its own members; missing or unknown: {wrong}")
    return keccak256(header + b"".join(_encode(kind, f"{name}.{member}", values[member]) for kind, member in members))


# Every signature of a run has the same domain and one of a few types; hashing them anew takes longer than the rest.
@lru_cache(maxsize=64, typed=True)  # True is not 1
def _separator(*values: object) -> bytes:
    names = (member for _, member in _DOMAIN_MEMBERS)
    return hash_struct("EIP712Domain", _DOMAIN_MEMBERS, dict(zip(names, values, strict=True)))


@lru_cache(maxsize=64)
def _type_hash(name: str, members: tuple[tuple[str, str], ...]) -> bytes:
    return keccak256(encode_type(name, members).encode("ascii"))


def typed_digest(domain: Domain, struct_hash: bytes) -> bytes:
    """Return the 32-byte digest to sign: ``keccak(0x19 0x01 ‖ domainSeparator ‖ hashStruct(message))``."""
    return keccak256(b"\x19\x01" + domain.separator() + _exact_bytes("struct_hash", struct_hash, 32))


def _check_type(kind: object) -> None:
    element = kind.removesuffix("[]") if isinstance(kind, str) else ""
    if element in _UINTS or element == "bytes32" or kind in _ATOMS:
        return
    raise ProtocolError(f"{kind!r} is not supported: use bytes32, address, uintN, bool, string, bytes or an array")


def _encode(kind: str, where: str, value: object) -> bytes:
    """Encode one member into 32 bytes (EIP-712, "Definition of encodeData")."""
    if kind.endswith("[]"):
        if not isinstance(value, list | tuple):
            raise ProtocolError(f"{where} must be a list or tuple, not {type(value).__name__}")
        element = kind.removesuffix("[]")
        return keccak256(b"".join(_encode(element, f"{where}[{i}]", v) for i, v in enumerate(value)))
    if kind in _UINTS:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ProtocolError(f"{where} must be an int, not {type(value).__name__}")
        if not 0 <= value < 1 << _UINTS[kind]:
            raise ProtocolError(f"{where} does not fit {kind}")
        return value.to_bytes(32, "big")
    if kind == "bool":
        if not isinstance(value, bool):
            raise ProtocolError(f"{where} must be a bool, not {type(value).__name__}")
        return int(value).to_bytes(32, "big")
    if kind == "bytes32":
        return _exact_bytes(where, value, 32)
    if kind == "address":
        return bytes(12) + _exact_bytes(where, value, 20)
    if kind == "bytes":
        return keccak256(_exact_bytes(where, value, None))
    if not isinstance(value, str):
        raise ProtocolError(f"{where} must be text, not {type(value).__name__}")
    try:
        return keccak256(value.encode("utf-8"))
    except UnicodeEncodeError:  # lone surrogates
        raise ProtocolError(f"{where} is not valid Unicode text") from None


def _exact_bytes(where: str, value: object, length: int | None) -> bytes:
    if not isinstance(value, bytes):
        raise ProtocolError(f"{where} must be bytes, not {type(value).__name__}")
    if length is not None and len(value) != length:
        raise ProtocolError(f"{where} must be {length} bytes, not {len(value)}")
    return value
