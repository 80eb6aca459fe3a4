"""What the three modes of non-interactive designated-decryptor functional encryption (NDD-FE, ESB-FL 4.1) share.

A function key opens one inner product ⟨x, y⟩ of hidden vectors with public integer factors y, and nothing else. It
takes two helpers that must not be one: the *generator* derives the key from what it shares with every client, and adds
the noise; the *decryptor* opens with it. The server carries bytes between them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from ..errors import CodecError, ConfigError, ProtocolError
from .base import Exchange, IntVector, SumSpec, vector_from_bytes

_LENGTH_BYTES = 8


class FunctionalCombiner(ABC):
    """Server half: weigh and add hidden vectors, get a function key, have the sum opened with it.

    Parameters
    ----------
    spec : SumSpec
    multipliers : sequence of int
        Public factor of each party, by roster index.
    generator, decryptor : str
        Names in the roster.

    Raises
    ------
    ConfigError
        If one party is to serve as both.
    """

    def __init__(self, spec: SumSpec, multipliers: Sequence[int], generator: str, decryptor: str) -> None:
        if generator == decryptor:
            raise ConfigError(f"{generator!r} cannot be generator and decryptor: it could open every single client")
        self._spec, self._multipliers = spec, multipliers
        self._generator, self._decryptor = generator, decryptor

    @abstractmethod
    def check(self, payload: bytes) -> None:
        """Raise :class:`~flbc.errors.CiphertextError` if a payload is malformed."""

    @abstractmethod
    def combine(self, payloads: Mapping[int, bytes]) -> bytes:
        """Return the hidden inner product of the payloads (by roster index) with their multipliers."""

    def factor(self, party: int) -> int:
        """Return a party's public factor; :class:`ProtocolError` if it has none, or one that is out of range."""
        if not 0 <= party < len(self._multipliers):
            raise ProtocolError(
                f"There are multipliers for {len(self._multipliers)} parties, and none for party {party}"
            )
        if not 1 <= self._multipliers[party] <= self._spec.max_multiplier:
            raise ProtocolError(f"The multiplier of party {party} is not from 1 to {self._spec.max_multiplier}")
        return self._multipliers[party]

    def open(self, hidden: bytes, exchange: Exchange) -> IntVector | None:
        """Ask the generator for the key and the decryptor for the sum; None when one of them did not answer."""
        key = exchange({self._generator: b""}).get(self._generator)
        if key is None:
            return None
        answer = exchange({self._decryptor: join_request(key, hidden)}).get(self._decryptor)
        return None if answer is None else vector_from_bytes(answer, self._spec.length)


def join_request(key: bytes, hidden: bytes) -> bytes:
    """Return what the decryptor is sent: the length of the key's statement, the statement, the hidden sum."""
    return len(key).to_bytes(_LENGTH_BYTES, "big") + key + hidden


def split_request(request: bytes) -> tuple[bytes, bytes]:
    """Undo :func:`join_request`; :class:`ProtocolError` if the lengths do not fit."""
    size, rest = int.from_bytes(request[:_LENGTH_BYTES], "big"), memoryview(request)[_LENGTH_BYTES:]
    if len(request) < _LENGTH_BYTES or size > len(rest):
        raise ProtocolError("The request to open is shorter than the function key that it announces")
    return bytes(rest[:size]), bytes(rest[size:])


def derivation(purpose: bytes, label: bytes, nonce: bytes) -> bytes:
    """Return a derivation's context: fixed-length parts, so that it cannot be ambiguous."""
    if len(label) != 32 or len(nonce) != 32:
        raise CodecError("A label hash and a nonce are 32 bytes each")
    return purpose + label + nonce
