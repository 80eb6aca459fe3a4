"""Type checks that run before any cryptography, so that a wrong argument never reaches it."""

from __future__ import annotations

from typing import NoReturn


def check_bytes(name: str, value: object, length: int | None = None) -> bytes:
    """Return `value` as immutable bytes of the given length.

    Parameters
    ----------
    name : str
        What to call the value in the error message.
    value : object
        Must be bytes, bytearray or memoryview.
    length : int, optional
        Exact number of bytes; any length when omitted.

    Raises
    ------
    TypeError
        If `value` is not bytes-like.
    ValueError
        If it has another length. Neither message repeats the value, which may be secret.
    """
    if not isinstance(value, bytes | bytearray | memoryview):
        raise TypeError(f"{name} must be bytes, not {type(value).__name__}")
    data = bytes(value)
    if length is not None and len(data) != length:
        raise ValueError(f"{name} must be {length} bytes, not {len(data)}")
    return data


def check_int(name: str, value: object, low: int, high: int) -> int:
    """Return `value` if it is an int (no bool) in [low, high]; TypeError or ValueError otherwise."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if not low <= value <= high:
        raise ValueError(f"{name} must lie in [{low}, {high}]")
    return value


class Secret:
    """Base of everything that holds a secret: it cannot be pickled, copied or printed.

    Flower and Ray pickle what they are handed; a key that travels by accident is a key that is lost.
    """

    __slots__ = ()

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds a secret and is never pickled or copied: pass its key file")

    def __getstate__(self) -> NoReturn:
        self.__reduce__()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: secret>"
