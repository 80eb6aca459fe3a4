"""Canonical JSON: one byte string for one value, so that its hash means the value.

Used for everything that is hashed or signed but is not an EIP-712 struct: task configurations, rosters, frames.
The form is RFC 8259 JSON in ASCII with sorted keys and no white space; numbers are Python ints or the shortest
``repr`` of a finite float. Parsing accepts nothing but that form, so no two byte strings mean the same value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, NoReturn, TypeAlias

from .errors import ProtocolError

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"

#: Longest document that is parsed, in bytes. A roster of 10,000 parties takes about 3 MB.
MAX_BYTES = 16 * 2**20
#: Deepest nesting that is parsed; flbc's own documents need 5. Python's recursion limit is no protection: packages such
#: as py_ecc raise it to where the parser overflows the stack and takes the process down.
MAX_DEPTH = 32
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def canonical(value: Json) -> bytes:
    """Encode ``value`` in its only accepted form.

    Raises
    ------
    ProtocolError
        If the value holds NaN, infinity, or a type that JSON does not have.
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ProtocolError(f"Cannot encode this value as canonical JSON: {error}") from None
    return text.encode("ascii")


def parse(data: bytes, what: str = "document") -> dict[str, Any]:
    """Decode an object that :func:`canonical` made.

    Parameters
    ----------
    data : bytes
        The encoded object.
    what : str
        Name of the thing, for the error message.

    Raises
    ------
    ProtocolError
        If ``data`` is not the canonical form of a JSON object.
    """
    if len(data) > MAX_BYTES:
        raise ProtocolError(f"The {what} is longer than {MAX_BYTES} bytes")
    if _depth(data) > MAX_DEPTH:
        raise ProtocolError(f"The {what} is nested more than {MAX_DEPTH} deep")
    try:
        value = json.loads(data.decode("ascii"), parse_constant=_refuse)
        same = isinstance(value, dict) and canonical(value) == data
    except (UnicodeDecodeError, ValueError, RecursionError):
        raise ProtocolError(f"The {what} is not JSON") from None
    if not same:
        raise ProtocolError(f"The {what} is not a JSON object in canonical form")
    return value  # type: ignore[no-any-return]


def unhex(value: object, length: int | None, what: str) -> bytes:
    """Decode a hexadecimal string of ``length`` bytes, or raise :class:`ProtocolError` naming ``what``."""
    if not isinstance(value, str):
        raise ProtocolError(f"{what} must be a hexadecimal string")
    try:
        data = bytes.fromhex(value)
    except ValueError:
        raise ProtocolError(f"{what} is not hexadecimal") from None
    if data.hex() != value or (length is not None and len(data) != length):
        raise ProtocolError(f"{what} must be {length} bytes in lower-case hexadecimal")
    return data


def _depth(data: bytes) -> int:
    """Return how deep brackets nest outside of strings, without recursion."""
    outside = data.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2]
    brackets = b"".join(outside).translate(None, _NO_BRACKETS)
    return max(accumulate(1 if bracket in b"[{" else -1 for bracket in brackets), default=0)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)
