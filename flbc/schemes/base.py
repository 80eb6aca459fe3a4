"""The contract of a scheme: it adds integer vectors, and knows nothing of models, Flower, privacy or chains.

Three halves, each a few plain functions, so that a scheme is tested without any network:

* a :class:`Protector` on every client hides a vector,
* a :class:`Combiner` on the server adds hidden vectors and asks helper nodes to open the sum,
* an :class:`Opener` on the helper node opens it; noise is injected, integers in, integers out.

Every scheme passes ``tests/schemes/contract.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import CodecError, ConfigError

IntVector: TypeAlias = NDArray[np.int64]
#: Draws ``count`` integers of noise.
Noise: TypeAlias = Callable[[int], IntVector]
#: Sends ``request`` bytes to each named party and returns the answers of those that answered.
Exchange: TypeAlias = Callable[[Mapping[str, bytes]], Mapping[str, bytes]]


@dataclass(frozen=True, slots=True)
class SumSpec:
    """How large a sum can get; slots and moduli are sized for it (S13).

    Parameters
    ----------
    length : int
        Coordinates of a vector.
    max_abs : int
        Largest magnitude of one client's coordinate.
    max_parties : int
        Most vectors in a sum.
    noise_tail : int
        Magnitude that noise exceeds with negligible probability only (9 sigma); 0 without noise.
    """

    length: int
    max_abs: int
    max_parties: int
    noise_tail: int = 0

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ConfigError("The model has no array that can be summed")
        if self.max_abs < 1 or self.max_parties < 1 or self.noise_tail < 0:
            raise ConfigError("A sum needs max_abs >= 1, max_parties >= 1 and noise_tail >= 0")

    @property
    def slot_bits(self) -> int:
        """Bits that hold any sum of shifted values plus shifted noise without a carry."""
        return (2 * self.max_parties * self.max_abs + 2 * self.noise_tail).bit_length()

    def check(self, values: IntVector) -> None:
        """Raise :class:`CodecError` unless ``values`` is one client's vector of this sum."""
        if values.dtype != np.int64 or values.shape != (self.length,):
            raise CodecError(f"Expected int64 values of shape ({self.length},), got {values.dtype} {values.shape}")
        # Not np.abs, whose result for the smallest int64 is negative.
        if int(values.max()) > self.max_abs or int(values.min()) < -self.max_abs:
            raise CodecError(f"A value exceeds the agreed magnitude {self.max_abs}")


@dataclass(frozen=True, slots=True)
class Contribution:
    """What an opener must know of one survivor: roster index, X25519 public key, and the submission's nonce."""

    party: int
    encryption: bytes
    nonce: bytes


class Protector(Protocol):
    """Client half."""

    def protect(self, values: IntVector, label: bytes, nonce: bytes) -> bytes:
        """Hide ``values`` for the attempt with label hash ``label``; ``nonce`` is 32 fresh random bytes."""
        ...


class Combiner(Protocol):
    """Server half."""

    def check(self, payload: bytes) -> None:
        """Raise :class:`CiphertextError` if a payload is malformed, so that its sender can be left out."""
        ...

    def combine(self, payloads: Mapping[int, bytes]) -> bytes:
        """Add payloads (by roster index) without opening them; :class:`CiphertextError` names a malformed one."""
        ...

    def open(self, hidden: bytes, exchange: Exchange) -> IntVector | None:
        """Have the hidden sum opened; None when the helpers did not answer."""
        ...


class Opener(Protocol):
    """Helper half."""

    def open(self, hidden: bytes, label: bytes, survivors: Sequence[Contribution], noise: Noise | None) -> IntVector:
        """Open the sum of exactly these survivors, each once, and add ``noise`` in the group of the sum."""
        ...


def vector_to_bytes(values: IntVector) -> bytes:
    """Little-endian int64."""
    return values.astype("<i8").tobytes()


def vector_from_bytes(data: bytes, length: int) -> IntVector:
    """Undo :func:`vector_to_bytes`; :class:`CodecError` if the length is wrong."""
    if len(data) != 8 * length:
        raise CodecError(f"The vector has {len(data)} bytes, expected {8 * length}")
    return np.frombuffer(data, "<i8").astype(np.int64)
