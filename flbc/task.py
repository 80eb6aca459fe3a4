"""The immutable terms of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from types import MappingProxyType
from typing import Any, Self

from .crypto.signing import keccak256
from .encoding import canonical, parse, unhex
from .errors import ProtocolError
from .roster import AUTHORITY, TRAIN_ROLE, VERIFIER

#: Role that opens sums, by scheme; in ESB-FL the decryptor is a training node, with masking all of them together.
_OPENERS = {"paillier": AUTHORITY, "nddfe": TRAIN_ROLE, "masked": TRAIN_ROLE, "verified": VERIFIER}
_OPTIONAL = ("privacy", "ledger", "sharing", "verification")
#: Schemes whose sums are opened by several nodes, each of which has a part of it.
_JOINTLY = ("masked", "verified")


@dataclass(frozen=True)
class TaskConfig:
    """The immutable terms of a training run (S5). Its hash is in every label; nodes remember it and refuse a change.

    Parameters
    ----------
    scheme, mode : str
        How the sum is hidden, e.g. ``"paillier"`` and ``"authority"``.
    codec : mapping
        Settings of the codec and the hash of the model's layout.
    privacy : mapping or None
        The noise mechanism with all its numbers; None without differential privacy.
    rounds : int
        Rounds that may be opened at most.
    min_survivors : int
        Fewest submissions in a sum that may be opened (S12).
    max_parties : int
        Most submissions in a sum; slots and moduli are sized for it (S13).
    key_bits : int
        Size of the scheme key in bits; 0 when the scheme has none.
    scheme_keys : tuple of bytes
        Fingerprints of the scheme keys.
    reveal_metrics : tuple of str
        Metrics that clients may send in clear, outside epsilon (S18); sorted.
    ledger : mapping or None
        What is agreed about the ledger (see :class:`flbc.node.covenant.Covenant`); None without one.
    sharing : mapping or None
        With masking: ``threshold``, the fraction of a group whose shares open a secret; None with other schemes.
    verification : mapping or None
        With checks of hidden models: ``policy`` (:class:`flbc.Policy`) and ``program``, the hash of the compiled model.
    """

    scheme: str
    mode: str
    codec: Mapping[str, Any]
    privacy: Mapping[str, Any] | None
    rounds: int
    min_survivors: int
    max_parties: int
    key_bits: int
    scheme_keys: tuple[bytes, ...]
    reveal_metrics: tuple[str, ...]
    ledger: Mapping[str, Any] | None = None
    sharing: Mapping[str, Any] | None = None
    verification: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        # Copies that cannot be changed: the hash is computed once and must stay true.
        object.__setattr__(self, "codec", MappingProxyType(dict(self.codec)))
        for name in _OPTIONAL:
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, MappingProxyType(dict(value)))

    @property
    def opener(self) -> str:
        """Role of the party that signs openings; :class:`ProtocolError` if the scheme is unknown."""
        if self.scheme not in _OPENERS:
            raise ProtocolError(f"Nobody knows who opens sums of scheme {self.scheme!r}")
        return _OPENERS[self.scheme]

    @property
    def floats_only(self) -> bool:
        """Whether integer buffers and running statistics keep their global values: no noise or check covers them."""
        return self.privacy is not None or self.verification is not None

    @property
    def leader_opens(self) -> bool:
        """Whether only the leader can open the sum of its block: ESB-FL's decryptor is its aggregation node."""
        return self.scheme == "nddfe"

    @property
    def signs_openings(self) -> bool:
        """Whether somebody signs what was opened: some sums are opened by several, each of whom knows a part."""
        return self.scheme not in _JOINTLY

    @cached_property
    def encoded(self) -> bytes:
        """Canonical bytes."""
        data: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        data["codec"] = dict(self.codec)
        for name in _OPTIONAL:
            data[name] = None if data[name] is None else dict(data[name])
        data["scheme_keys"] = [key.hex() for key in self.scheme_keys]
        data["reveal_metrics"] = list(self.reveal_metrics)
        return canonical(data)

    @cached_property
    def hash(self) -> bytes:
        """keccak-256 of the canonical bytes."""
        return keccak256(self.encoded)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse canonical bytes; :class:`ProtocolError` names what is missing or has the wrong type."""
        value = parse(data, "task configuration")
        kinds: dict[str, type | tuple[type, ...]] = {
            "scheme": str,
            "mode": str,
            "codec": dict,
            "privacy": (dict, type(None)),
            "rounds": int,
            "min_survivors": int,
            "max_parties": int,
            "key_bits": int,
            "scheme_keys": list,
            "reveal_metrics": list,
            "ledger": (dict, type(None)),
            "sharing": (dict, type(None)),
            "verification": (dict, type(None)),
        }
        if set(value) != set(kinds):
            raise ProtocolError(f"The task configuration must have exactly the members {', '.join(kinds)}")
        for name, kind in kinds.items():
            if not isinstance(value[name], kind) or isinstance(value[name], bool):
                raise ProtocolError(f"Member {name!r} of the task configuration has the wrong type")
        value["scheme_keys"] = tuple(unhex(key, 32, "scheme key") for key in value["scheme_keys"])
        metrics = value["reveal_metrics"]
        if not all(isinstance(name, str) for name in metrics) or metrics != sorted(set(metrics)):
            raise ProtocolError("Member 'reveal_metrics' of the task configuration must be different names in order")
        value["reveal_metrics"] = tuple(metrics)
        if value["rounds"] < 1 or not 1 <= value["min_survivors"] <= value["max_parties"]:
            raise ProtocolError("The task configuration needs rounds >= 1 and 1 <= min_survivors <= max_parties")
        return cls(**value)
