"""The contract of a scheme: it adds integer vectors, and knows nothing of models, Flower, privacy or chains.

Three halves, each a few plain functions, so that a scheme is tested without any network:

* a :class:`Protector` on every client hides a vector,
* a :class:`Combiner` on the server adds hidden vectors and asks helper nodes to open the sum,
* an :class:`Opener` on the helper node opens it; noise is injected, integers in, integers out. With functional
  encryption it takes two helpers: a :class:`Generator` derives a function key, a :class:`Decryptor` opens with it.

Every scheme passes ``tests/schemes/contract.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import CodecError, ConfigError, OpeningRefusedError

IntVector: TypeAlias = NDArray[np.int64]
#: Draws ``count`` integers of noise.
Noise: TypeAlias = Callable[[int], IntVector]
#: Sends ``request`` bytes to each named party and returns the answers of those that answered.
Exchange: TypeAlias = Callable[[Mapping[str, bytes]], Mapping[str, bytes]]

_BLOCK = 1 << 16


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
    max_multiplier : int
        Largest public factor of one client's vector in the sum; 1 for a plain sum.
    """

    length: int
    max_abs: int
    max_parties: int
    noise_tail: int = 0
    max_multiplier: int = 1

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ConfigError("The model has no array that can be summed")
        if min(self.max_abs, self.max_parties, self.max_multiplier) < 1 or self.noise_tail < 0:
            raise ConfigError("A sum needs max_abs, max_parties and max_multiplier >= 1, and noise_tail >= 0")

    @property
    def bound(self) -> int:
        """Largest magnitude of a coordinate of the noised sum."""
        return self.max_parties * self.max_multiplier * self.max_abs + self.noise_tail

    @property
    def slot_bits(self) -> int:
        """Bits that hold any sum of shifted values plus shifted noise without a carry."""
        return (2 * self.bound).bit_length()

    def check(self, values: IntVector) -> None:
        """Raise :class:`CodecError` unless ``values`` is one client's vector of this sum."""
        if values.dtype != np.int64 or values.shape != (self.length,):
            raise CodecError(f"Expected int64 values of shape ({self.length},), got {values.dtype} {values.shape}")
        for start in range(0, self.length, _BLOCK):
            block = values[start : start + _BLOCK]  # stays in the cache for the second look
            # Not np.abs, whose result for the smallest int64 is negative.
            if int(block.max()) > self.max_abs or int(block.min()) < -self.max_abs:
                raise CodecError(f"A value exceeds the agreed magnitude {self.max_abs}")


@dataclass(frozen=True, slots=True)
class Contribution:
    """What an opener must know of one survivor.

    Parameters
    ----------
    party : int
        Roster index.
    encryption : bytes
        The public key that the scheme's derivations start from: X25519 (32 bytes), or a point (33 bytes).
    nonce : bytes
        The submission's, 32 bytes.
    multiplier : int
        Public factor of the party's vector in the sum, at least 1.
    """

    party: int
    encryption: bytes
    nonce: bytes
    multiplier: int = 1


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


class Generator(Protocol):
    """Helper half of functional encryption: makes the key to one inner product, and never sees what it opens."""

    def derive(self, label: bytes, survivors: Sequence[Contribution], noise: Noise | None) -> bytes:
        """Return the function key to the sum of exactly these survivors plus ``noise``."""
        ...


class Decryptor(Protocol):
    """Helper half of functional encryption: opens with a function key; never the generator (S23)."""

    def open(self, hidden: bytes, function_key: bytes, label: bytes, survivors: Sequence[Contribution]) -> IntVector:
        """Open the (noised) sum of exactly these survivors."""
        ...


def check_survivors(spec: SumSpec, survivors: Sequence[Contribution]) -> None:
    """Raise :class:`OpeningRefusedError` unless these are different parties that a sum of this spec can hold."""
    if not 0 < len(survivors) <= spec.max_parties or len({c.party for c in survivors}) != len(survivors):
        raise OpeningRefusedError("The list of survivors is empty, too long or names a party twice")
    if not all(1 <= c.multiplier <= spec.max_multiplier for c in survivors):
        raise OpeningRefusedError(f"A survivor's multiplier is not from 1 to {spec.max_multiplier}")


def check_range(total: IntVector, spec: SumSpec, survivors: Sequence[Contribution]) -> None:
    """Raise :class:`OpeningRefusedError`, naming a coordinate, unless these survivors can have such a sum."""
    check_magnitude(total, sum(c.multiplier for c in survivors) * spec.max_abs + spec.noise_tail)


def check_magnitude(total: IntVector, limit: int) -> None:
    """Raise :class:`OpeningRefusedError`, naming a coordinate, unless all are at most ``limit``."""
    outside = np.flatnonzero((total > limit) | (total < -limit))
    if len(outside):
        raise OpeningRefusedError(
            f"Coordinate {int(outside[0])} of the sum ({len(outside)} in all) is out of range: it is not the sum of "
            "exactly these survivors, or one of them sent values that are too large; the round is burnt"
        )


def vector_to_bytes(values: IntVector) -> bytes:
    """Little-endian int64."""
    return values.astype("<i8").tobytes()


def vector_from_bytes(data: bytes, length: int) -> IntVector:
    """Undo :func:`vector_to_bytes`; :class:`CodecError` if the length is wrong."""
    if len(data) != 8 * length:
        raise CodecError(f"The vector has {len(data)} bytes, expected {8 * length}")
    return np.frombuffer(data, "<i8").astype(np.int64)
