"""What a node signs about itself: who it is, and which scheme key is its own (S1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .round import Members, Struct


@dataclass(frozen=True)
class SchemeKey(Struct):
    """A party's word that a public key of a scheme is its own (S1)."""

    scheme: str
    fingerprint: bytes

    MEMBERS: ClassVar[Members] = (("string", "scheme"), ("bytes32", "fingerprint"))


@dataclass(frozen=True)
class Hello(Struct):
    """A node's answer to "who are you": the server's nonce, and the hashes of what it says of itself."""

    nonce: bytes
    party: bytes
    keys: bytes

    MEMBERS: ClassVar[Members] = (("bytes32", "nonce"), ("bytes32", "party"), ("bytes32", "keys"))
