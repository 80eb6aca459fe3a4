"""Frozen values with one JSON form, which is read back strictly: what is not exactly that form is refused.

Bytes are lower-case hexadecimal, amounts of wei decimal text; there are no floats.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Self, get_args, get_origin, get_type_hints

from ..encoding import unhex
from ..errors import ProtocolError

Address = Annotated[bytes, 20]
Hash = Annotated[bytes, 32]
Signature = Annotated[bytes, 64]
#: Amounts are decimal text in JSON: wei exceed the 53 bits that other languages' readers keep.
Wei = Annotated[int, "wei"]
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,77}", re.ASCII)


class Record:
    """Base of the records: dataclasses of int, bool, str, bytes, records, tuples of these, and None where allowed."""

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        kinds = get_type_hints(type(self), include_extras=True)
        return {name: _to_json(getattr(self, name), kind) for name, kind in kinds.items()}

    @classmethod
    def from_dict(cls, data: object, where: str = "") -> Self:
        """Rebuild from the JSON form; :class:`ProtocolError` names the first member that is not as it must be."""
        where = where or cls.__name__
        kinds = get_type_hints(cls, include_extras=True)
        if not isinstance(data, Mapping) or set(data) != set(kinds):
            raise ProtocolError(f"{where} must have exactly the members {', '.join(kinds)}")
        return cls(**{name: _from_json(data[name], kind, f"{where}.{name}") for name, kind in kinds.items()})


def _to_json(value: object, kind: Any = None) -> object:
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, tuple):
        return [_to_json(item) for item in value]
    if kind == Wei:
        return str(value)
    return value.hex() if isinstance(value, bytes) else value


def _from_json(value: object, kind: Any, where: str) -> object:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind == Wei:
        if not isinstance(value, str) or not _DECIMAL.fullmatch(value) or int(value) >= 1 << 256:
            raise ProtocolError(f"{where} must be an amount of wei in decimal text")
        return int(value)
    if origin is Annotated:
        return unhex(value, arguments[1], where)
    if origin is tuple:
        if not isinstance(value, list):
            raise ProtocolError(f"{where} must be a list")
        return tuple(_from_json(item, arguments[0], f"{where}[{i}]") for i, item in enumerate(value))
    if origin is UnionType:
        return None if value is None else _from_json(value, next(a for a in arguments if a is not NoneType), where)
    if origin is Literal:
        if value not in arguments or type(value) is not type(arguments[0]):
            raise ProtocolError(f"{where} must be {' or '.join(map(str, arguments))}, not {value!r}")
        return value
    if kind is bytes:
        return unhex(value, None, where)
    if issubclass(kind, Record):
        return kind.from_dict(value, where)
    if type(value) is not kind or (kind is int and not 0 <= value < 1 << 256):  # type: ignore[operator]
        raise ProtocolError(f"{where} must be a value of type {kind.__name__}, not negative")
    return value
