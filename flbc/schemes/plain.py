"""Sums in the clear: the baseline of the contract tests. It hides nothing and no node's policy accepts it.

Who learns what: the server learns every client's vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import CiphertextError
from .base import Contribution, Exchange, IntVector, Noise, SumSpec, vector_from_bytes, vector_to_bytes

_LABEL_BYTES = 32


class PlainProtector:
    """Writes the label's hash and the values."""

    def __init__(self, spec: SumSpec) -> None:
        self.spec = spec

    def protect(self, values: IntVector, label: bytes, nonce: bytes) -> bytes:
        """Return ``label || values``; the nonce has nothing to hide here."""
        self.spec.check(values)
        return label + vector_to_bytes(values)


class PlainCombiner:
    """Adds, and has the helper called ``opener`` add noise."""

    def __init__(self, spec: SumSpec, opener: str) -> None:
        self.spec, self.opener = spec, opener

    def check(self, payload: bytes) -> None:
        """Raise :class:`CiphertextError` if the payload has a wrong length."""
        if len(payload) != _LABEL_BYTES + 8 * self.spec.length:
            raise CiphertextError("The payload has a wrong length")

    def combine(self, payloads: Mapping[int, bytes]) -> bytes:
        """Add vectors that carry the same label."""
        label: bytes | None = None
        total = np.zeros(self.spec.length, np.int64)
        for party in sorted(payloads):
            payload = payloads[party]
            self.check(payload)
            if label is not None and payload[:_LABEL_BYTES] != label:
                raise CiphertextError(f"The payload of party {party} was made for another round")
            label = payload[:_LABEL_BYTES]
            total += vector_from_bytes(payload[_LABEL_BYTES:], self.spec.length)
        return (label or bytes(_LABEL_BYTES)) + vector_to_bytes(total)

    def open(self, hidden: bytes, exchange: Exchange) -> IntVector | None:
        """Ask the helper."""
        answer = exchange({self.opener: hidden}).get(self.opener)
        return None if answer is None else vector_from_bytes(answer, self.spec.length)


class PlainOpener:
    """Reads the sum and adds noise."""

    def __init__(self, spec: SumSpec) -> None:
        self.spec = spec

    def open(self, hidden: bytes, label: bytes, survivors: Sequence[Contribution], noise: Noise | None) -> IntVector:
        """Return the sum; it can check the label but not who is in the sum."""
        if hidden[:_LABEL_BYTES] != label:
            raise CiphertextError("The sum was made for another round")
        total = vector_from_bytes(hidden[_LABEL_BYTES:], self.spec.length)
        return total if noise is None else total + noise(self.spec.length)
