"""What is signed about a task as a whole: who takes part, what is paid for, how the result was judged.

Like the values of a round (:mod:`flbc.round`) these are EIP-712 structs: a node signs them and the contracts hash them
again. The two tokens are those of ESB-FL (section 4.2): sigma1 binds the task to its participants, sigma2 binds the
final model, its link and its accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .round import Members, Struct


@dataclass(frozen=True)
class Register(Struct):
    """Proof that an account owns a signing key: signed by that key, sent by the account.

    Parameters
    ----------
    account, signer, vrf : bytes
        Addresses (20 bytes) of the account that stakes and is paid, of the signing key, and of the VRF key.
    encryption, scheme_key : bytes
        X25519 public key, and fingerprint of the scheme key (zeros without one).
    examples : int
        Declared size of the training set.
    roles : int
        Bits of :data:`flbc.roster.ROLE_BITS`.
    name : bytes
        The party's name in ASCII, padded with zeros to 32 bytes.
    """

    account: bytes
    signer: bytes
    vrf: bytes
    encryption: bytes
    scheme_key: bytes
    examples: int
    roles: int
    name: bytes

    MEMBERS: ClassVar[Members] = (
        ("address", "account"),
        ("address", "signer"),
        ("address", "vrf"),
        ("bytes32", "encryption"),
        ("bytes32", "schemeKey"),
        ("uint32", "examples"),
        ("uint8", "roles"),
        ("bytes32", "name"),
    )


@dataclass(frozen=True)
class Genesis(Struct):
    """What a task starts from: hashes of the initial arrays, the TaskConfig and the roster. Parent of block 1."""

    model: bytes
    config: bytes
    roster: bytes

    MEMBERS: ClassVar[Members] = (("bytes32", "model"), ("bytes32", "config"), ("bytes32", "roster"))


@dataclass(frozen=True)
class TaskToken(Struct):
    """sigma1: the publisher binds the task to its participants.

    Parameters
    ----------
    task, genesis : bytes
        Id of the task, and hash of its :class:`Genesis`.
    participants : bytes
        keccak-256 of the participants as the contract froze them.
    reward : int
        Escrow in wei.
    accuracy_bps : int
        Accuracy to reach, in hundredths of a per cent; 0: none.
    deadline : int
        Unix time in seconds.
    quorum : int
        Votes that a block needs.
    vrf : bool
        Whether the contract verifies leaders' proofs itself.
    """

    task: bytes
    genesis: bytes
    participants: bytes
    reward: int
    accuracy_bps: int
    deadline: int
    quorum: int
    vrf: bool

    MEMBERS: ClassVar[Members] = (
        ("bytes32", "task"),
        ("bytes32", "genesis"),
        ("bytes32", "participants"),
        ("uint128", "reward"),
        ("uint16", "accuracyBps"),
        ("uint64", "deadline"),
        ("uint16", "quorum"),
        ("bool", "vrf"),
    )


@dataclass(frozen=True)
class ModelToken(Struct):
    """sigma2: a leader binds the final model, its link and its accuracy to the last block."""

    task: bytes
    head: bytes
    model: bytes
    link: str
    accuracy_bps: int

    MEMBERS: ClassVar[Members] = (
        ("bytes32", "task"),
        ("bytes32", "head"),
        ("bytes32", "model"),
        ("string", "link"),
        ("uint16", "accuracyBps"),
    )


@dataclass(frozen=True)
class Evaluation(Struct):
    """A committee member's accuracy of the final model on its own data."""

    task: bytes
    model: bytes
    party: int
    accuracy_bps: int
    examples: int

    MEMBERS: ClassVar[Members] = (
        ("bytes32", "task"),
        ("bytes32", "model"),
        ("uint16", "party"),
        ("uint16", "accuracyBps"),
        ("uint32", "examples"),
    )


@dataclass(frozen=True)
class Result(Struct):
    """What the committee votes on at the end: hashes of sigma2's struct, of the evaluations and of the payouts."""

    model_token: bytes
    evaluations: bytes
    payouts: bytes

    MEMBERS: ClassVar[Members] = (("bytes32", "modelToken"), ("bytes32", "evaluations"), ("bytes32", "payouts"))
