"""What an audit collects instead of stopping at the first thing that does not verify."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager

from ..errors import VerificationError
from .headers import check_header
from .records import Header, Record, TaskHistory


class Doubts:
    """Doubts, each naming the record and the field, and notes: things to know that are no fault."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.notes: list[str] = []

    def add(self, where: str, what: str) -> None:
        """Record a doubt."""
        self.found.append(f"{where}: {what}")

    def unless(self, holds: bool, where: str, what: str) -> None:
        """Record a doubt unless ``holds``."""
        if not holds:
            self.add(where, what)

    def same(self, where: str, stated: object, follows: object) -> None:
        """Record a doubt unless what is stated is what follows from the other records."""
        self.unless(stated == follows, where, f"is {_show(stated)}, but {_show(follows)} follows from other records")

    def about(self, where: str) -> _About:
        """Turn whatever is raised inside into a doubt: what cannot be computed cannot be verified."""
        return _About(self, where)


class _About(AbstractContextManager[None]):
    def __init__(self, doubts: Doubts, where: str) -> None:
        self._doubts, self._where = doubts, where

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, Exception):
            return False
        self._doubts.add(self._where, str(error) or type(error).__name__)
        return True


class Clock:
    """When the records were made: numbers and times of the chain's blocks that they refer to."""

    def __init__(self, history: TaskHistory, doubts: Doubts) -> None:
        self._headers = {header.hash: header for header in history.headers}
        numbers = [header.number for header in history.headers]
        doubts.unless(numbers == sorted(set(numbers)), "headers", "numbers do not rise strictly")
        used = set(_references(history))
        for header in history.headers:
            where = f"header of block {header.number}"
            with doubts.about(where):
                check_header(header)
            doubts.unless(header.hash in used, where, "no record refers to it")
        if not all(header.fields for header in history.headers):
            doubts.notes.append("This chain's headers have a form of their own: times stand on the node's word")

    def header(self, at: bytes) -> Header:
        """Return the header of a block; :class:`VerificationError` if the history does not have it."""
        if at not in self._headers:
            raise VerificationError(f"refers to the chain's block {at.hex()}, whose header is missing")
        return self._headers[at]

    def number(self, at: bytes) -> int:
        """Return a block's number."""
        return self.header(at).number

    def time(self, at: bytes) -> int:
        """Return a block's Unix time."""
        return self.header(at).time

    def check_order(self, records: Iterable[Record], where: str, doubts: Doubts) -> None:
        """Doubt records that do not stand in the chain's order."""
        with doubts.about(where):
            numbers = [self.number(record.at) for record in records]  # type: ignore[attr-defined]
            doubts.unless(numbers == sorted(numbers), where, "records are not in the chain's order")


def _references(value: object) -> Iterator[bytes]:
    """Yield the hashes of all blocks that records refer to."""
    if isinstance(value, tuple):
        for item in value:
            yield from _references(item)
    elif isinstance(value, Record):
        if hasattr(value, "at"):
            yield value.at
        if hasattr(value, "anchor") and hasattr(value, "block"):
            yield value.block
        for name in value.__dict__:
            yield from _references(getattr(value, name))


def _show(value: object) -> str:
    text = value.hex() if isinstance(value, bytes) else repr(value)
    return text if len(text) <= 72 else f"{text[:64]}…"
