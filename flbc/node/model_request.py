"""What verifiers are asked to check: signed submissions with their payloads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from ..encoding import canonical, parse
from ..errors import ProtocolError
from ..round import Signed, Submission
from ..schemes.sharing import SEATS
from .committee import Entry
from .verdict import models_hash


@dataclass(frozen=True)
class ModelsRequest:
    """The models of an attempt.

    Parameters
    ----------
    entries : tuple of Entry
        By rising party; without proofs.
    """

    entries: tuple[Entry, ...]

    @cached_property
    def models(self) -> bytes:
        """What the verdict commits to."""
        return models_hash([entry.submission for entry in self.entries])

    def to_wire(self) -> tuple[bytes, bytes]:
        """Return a header, and the payloads one after another."""
        header = canonical({"entries": [[entry.signed.to_dict(), len(entry.payload)] for entry in self.entries]})
        return header, b"".join(entry.payload for entry in self.entries)

    @classmethod
    def from_wire(cls, header: bytes, body: bytes) -> Self:
        """Undo :meth:`to_wire`; nothing is verified but the form."""
        value = parse(header, "request to check models")
        if set(value) != {"entries"} or not isinstance(value["entries"], list):
            raise ProtocolError("A request to check models must hold entries")
        entries, offset = [], 0
        for item in value["entries"]:
            if not isinstance(item, list) or len(item) != 2 or type(item[1]) is not int or item[1] < 0:
                raise ProtocolError("An entry must be a submission and the size of its payload")
            entries.append(Entry(Signed.from_dict(Submission, item[0]), b"", body[offset : offset + item[1]]))
            offset += item[1]
        if offset != len(body):
            raise ProtocolError("The payloads' sizes do not add up to the body's")
        return cls(tuple(entries))


def pack_many(answers: Sequence[bytes]) -> bytes:
    """Put answers of several seats one after another, each after its length."""
    return b"".join(len(answer).to_bytes(8, "big") + answer for answer in answers)


def unpack_many(data: bytes) -> list[bytes]:
    """Undo :func:`pack_many`."""
    answers, offset = [], 0
    while offset < len(data):
        size = int.from_bytes(data[offset : offset + 8], "big")
        answers.append(data[offset + 8 : offset + 8 + size])
        offset += 8 + size
    if offset != len(data) or len(answers) > SEATS:
        raise ProtocolError("The answers of the verifiers are malformed")
    return answers
