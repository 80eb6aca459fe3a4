"""What a node signs beside submissions and blocks: who it is, which scheme key is its own (S1), what it found (S25)."""

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
class KeyShare(Struct):
    """A party's word that it has the share of this place, from 1 on, of a shared key (S1)."""

    scheme: str
    fingerprint: bytes
    place: int

    MEMBERS: ClassVar[Members] = (("string", "scheme"), ("bytes32", "fingerprint"), ("uint64", "place"))


@dataclass(frozen=True)
class Hello(Struct):
    """A node's answer to "who are you": the server's nonce, and the hashes of what it says of itself."""

    nonce: bytes
    party: bytes
    keys: bytes

    MEMBERS: ClassVar[Members] = (("bytes32", "nonce"), ("bytes32", "party"), ("bytes32", "keys"))


@dataclass(frozen=True)
class PartialOpening(Struct):
    """A share holder's word on what it answered for a block: the hash of a box that the authority opens."""

    block: bytes
    box: bytes

    MEMBERS: ClassVar[Members] = (("bytes32", "block"), ("bytes32", "box"))


@dataclass(frozen=True)
class Verdict(Struct):
    """A verifier's word on the models of one attempt.

    Parameters
    ----------
    label : bytes
        Hash of the label.
    models : bytes
        Hash of the submissions that were checked, in order (:func:`models_hash`).
    rejected : tuple of int
        Roster indices of those that may not be summed, as far as the policy shows it; rising.
    enough : bool
        Whether at least ``min_survivors`` passed.
    """

    label: bytes
    models: bytes
    rejected: tuple[int, ...]
    enough: bool

    MEMBERS: ClassVar[Members] = (
        ("bytes32", "label"),
        ("bytes32", "models"),
        ("uint16[]", "rejected"),
        ("bool", "enough"),
    )
