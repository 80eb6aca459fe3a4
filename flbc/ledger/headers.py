"""Headers of the chain's blocks: a block's number and time, bound by its hash.

A block's hash is keccak-256 of the RLP list of its header's fields (Yellow Paper, section 4.4.3; later forks append
fields). With these fields a reader who knows no more than the hash can check when something was recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..crypto.signing import keccak256
from ..errors import VerificationError
from .records import Header

#: Fields in the order of the header: frontier to paris, then london, shanghai, cancun, prague.
_ORDER = (
    "parentHash", "sha3Uncles", "miner", "stateRoot", "transactionsRoot", "receiptsRoot", "logsBloom",
    "difficulty", "number", "gasLimit", "gasUsed", "timestamp", "extraData",
    "mixHash", "nonce", "baseFeePerGas",
    "withdrawalsRoot", "blobGasUsed", "excessBlobGas",
    "parentBeaconBlockRoot", "requestsHash",
)  # fmt: skip
_NUMBER, _TIME, _EXTRA = (_ORDER.index(name) for name in ("number", "timestamp", "extraData"))
_BLOOM_BYTES = 256


def header_of(block: Mapping[str, Any]) -> Header:
    """Return the header of a block as web3 gives it; without fields if they do not hash to the block's hash."""
    number, time, digest = int(block["number"]), int(block["timestamp"]), bytes(block["hash"])
    fields = [_field(name, block[name]) for name in _ORDER if block.get(name) is not None]
    if len(fields) > _EXTRA:
        # eth-tester pads empty extra data with zeros, but not in what it hashes.
        for extra in (fields[_EXTRA], b""):
            fields[_EXTRA] = extra
            if header_hash(fields) == digest:
                return Header(number, time, digest, tuple(fields))
    return Header(number, time, digest, ())


def check_header(header: Header) -> None:
    """Raise :class:`VerificationError` unless number and time are those of the header that hashes to its hash."""
    if not header.fields:
        return
    if len(header.fields) <= _EXTRA or header_hash(header.fields) != header.hash:
        raise VerificationError("the fields do not hash to the block's hash")
    if header.fields[_NUMBER] != _uint(header.number) or header.fields[_TIME] != _uint(header.time):
        raise VerificationError("number or time are not those in the fields")


def header_hash(fields: Iterable[bytes]) -> bytes:
    """Return keccak-256 of the RLP list of these byte strings."""
    body = b"".join(_rlp(field) for field in fields)
    return keccak256(_prefix(len(body), 0xC0) + body)


def _field(name: str, value: Any) -> bytes:
    if isinstance(value, int):
        return _uint(value)
    raw = bytes.fromhex(value.removeprefix("0x")) if isinstance(value, str) else bytes(value)
    return raw.rjust(_BLOOM_BYTES, b"\0") if name == "logsBloom" else raw  # eth-tester drops leading zeros


def _uint(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def _rlp(data: bytes) -> bytes:
    """Encode one byte string (Yellow Paper, appendix B)."""
    return data if len(data) == 1 and data[0] < 0x80 else _prefix(len(data), 0x80) + data


def _prefix(length: int, offset: int) -> bytes:
    if length < 56:
        return bytes([offset + length])
    size = _uint(length)
    return bytes([offset + 55 + len(size)]) + size
