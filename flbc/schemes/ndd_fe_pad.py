"""NDD-FE in Z_2^k: the inner products of ESB-FL (section 4.1) with two one-time pads. The mode ``"pad"``, the default.

Client i hides its vector under two keystreams, one that it shares with the generator and one with the decryptor::

    c_i = x_i + P_i + D_i   (mod 2^k)      P_i = AES-256-CTR(HKDF(X25519(i, generator), label, nonce_i)), D_i likewise

    server      h = Σ y_i c_i
    generator   f = Σ y_i P_i − noise      the function key, one word per coordinate
    decryptor   h − f − Σ y_i D_i = Σ y_i x_i + noise

Next to the paper's group elements it costs no discrete logarithm and runs near the speed of memory; the function key
is as long as the vector instead of one scalar (:mod:`flbc.schemes.ndd_fe_group`). Words have 32 bits where sum and
noise take at most 24, else 64.

Who learns what
    *Server, outsiders*: nothing but the opened sum. *Generator*: nothing, not even the sum: single payloads stay
    under D, and it sees no opened value. *Decryptor*: the (noised) sum; without the function key nothing. *Server and
    generator*, *server and decryptor*: as each alone, the second pad is missing; but who draws the noise and sees the
    noised sum knows the exact one.
    *Generator and decryptor* with the payloads: everything. That is the trust that the paper asks for too
    (Assumption 2), and why one node never serves as both. *Server and some clients*: the sum of the others, which is
    why ``min_survivors`` exists. A client learns nothing.
Why a key opens one sum only
    For fixed survivors the pads P are uniform given Σ y_i P_i, so f says nothing beyond ⟨x, y⟩. Two keys in one round
    would give their difference, and so a client that is in one of them only: the generator derives one key per
    (task, round), remembered over restarts (S8). A sum of anything but ``Σ y_i c_i`` leaves a pad in: the result is
    uniform, in range with a probability of at most 2^-8 per coordinate, and refused.
Public weights
    With small integer x and factors y that differ much, ⟨x, y⟩ is a knapsack from which single x can be read, whatever
    hides them: that is the function, not the scheme. flbc multiplies on the client, before rounding, and uses y = 1
    here (:func:`flbc.node.terms.declared_weight`); other factors are for study (``tests/attacks/test_knapsack.py``).
What is not detected
    Whoever handles hidden sum or function key may add known numbers to it; the signed function key and the block
    commit to both. A client may send any integers (poisoning), whose carry cannot reach other coordinates.
Dropouts
    Before its payload arrived a client is not in the sum; afterwards it is not needed. A decryptor that is gone before
    the key was derived is replaced in a new attempt; afterwards the round is lost and the model kept. Without the
    generator nothing is opened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..crypto.keystream import EncryptionKey, add_keystream
from ..errors import CiphertextError, CodecError, ConfigError
from .base import Contribution, IntVector, Noise, SumSpec, check_range, check_survivors
from .functional import FunctionalCombiner, derivation

Words: TypeAlias = NDArray[np.unsignedinteger[Any]]

#: Bits of a word beyond what a sum takes.
SPARE_BITS = 8
_GENERATOR, _DECRYPTOR = b"flbc/ndd-fe/pad/generator/1", b"flbc/ndd-fe/pad/decryptor/1"


def word_type(spec: SumSpec) -> np.dtype[np.unsignedinteger[Any]]:
    """Return the word that holds any noised sum of ``spec``, and 8 bits more: uint32 or uint64.

    Of words that no honest sum makes (a pad is left in) so at most one in 256 is in range.

    Raises
    ------
    CodecError
        If 64 bits are too few.
    """
    bits = spec.slot_bits + SPARE_BITS
    if bits > 64:
        raise CodecError(f"The sum needs words of {bits} bits, and at most 64 are possible; lower Codec(bits)")
    return np.dtype(np.uint32 if bits <= 32 else np.uint64)


class PadProtector:
    """Client half: add two pads.

    Parameters
    ----------
    spec : SumSpec
    generator, decryptor : bytes
        X25519 public keys, from the roster.
    key : EncryptionKey
        The client's own.

    Raises
    ------
    ConfigError
        If generator and decryptor are one.
    """

    def __init__(self, spec: SumSpec, generator: bytes, decryptor: bytes, key: EncryptionKey) -> None:
        if generator == decryptor:
            raise ConfigError("One node cannot be generator and decryptor: it could open every single client")
        self._spec, self._word = spec, word_type(spec)
        self._generator, self._decryptor, self._key = generator, decryptor, key

    def protect(self, values: IntVector, label: bytes, nonce: bytes) -> bytes:
        """Return the hidden vector, little-endian words."""
        self._spec.check(values)
        words = values.astype(self._word)
        # Of the decryptor's own vector this is an agreement with itself, which nobody else knows either.
        add_keystream(self._key.agree(self._decryptor, derivation(_DECRYPTOR, label, nonce)), words)
        add_keystream(self._key.agree(self._generator, derivation(_GENERATOR, label, nonce)), words)
        return words.astype(self._word.newbyteorder("<"), copy=False).tobytes()


class PadCombiner(FunctionalCombiner):
    """Server half; see :class:`~flbc.schemes.functional.FunctionalCombiner`."""

    def check(self, payload: bytes) -> None:
        """Raise :class:`CiphertextError` unless the payload has the agreed length."""
        words_of(payload, self._spec)

    def combine(self, payloads: Mapping[int, bytes]) -> bytes:
        """Return ``Σ y_i c_i``."""
        word = word_type(self._spec)
        total: Words = np.zeros(self._spec.length, word)
        for party in sorted(payloads):
            words, factor = words_of(payloads[party], self._spec), self.factor(party)
            np.add(total, words if factor == 1 else words * word.type(factor), out=total)
        return total.astype(word.newbyteorder("<"), copy=False).tobytes()


class PadGenerator:
    """Generator half: what it shares with the survivors, weighed and added, minus the noise (S23).

    It trusts its caller with S8 (one key per round), S12 (enough survivors) and S20 (budget); see
    :mod:`flbc.node.generator`.

    Parameters
    ----------
    spec : SumSpec
    key : EncryptionKey
        The generator's own.
    purpose : bytes
        What the pads are derived for; every scheme has its own, so that no pad ever serves two.
    """

    def __init__(self, spec: SumSpec, key: EncryptionKey, purpose: bytes = _GENERATOR) -> None:
        self._spec, self._key, self._word, self._purpose = spec, key, word_type(spec), purpose

    def derive(self, label: bytes, survivors: Sequence[Contribution], noise: Noise | None) -> bytes:
        """Return the function key, little-endian words."""
        check_survivors(self._spec, survivors)
        words: Words = np.zeros(self._spec.length, self._word)
        for c in survivors:
            pad = self._key.agree(c.encryption, derivation(self._purpose, label, c.nonce))
            add_keystream(pad, words, c.multiplier)
        if noise is not None:  # in the group of the sum, so that a carry costs accuracy and not the guarantee (S13)
            np.subtract(words, noise(self._spec.length).astype(self._word), out=words)
        return words.astype(self._word.newbyteorder("<"), copy=False).tobytes()


class PadDecryptor:
    """Decryptor half: take both away. Like the generator it leaves S8 to its caller."""

    def __init__(self, spec: SumSpec, key: EncryptionKey) -> None:
        self._spec, self._key, self._word = spec, key, word_type(spec)

    def open(self, hidden: bytes, function_key: bytes, label: bytes, survivors: Sequence[Contribution]) -> IntVector:
        """Return the (noised) sum of exactly ``survivors``.

        Raises
        ------
        CiphertextError
            If the hidden sum or the key has another length.
        OpeningRefusedError
            If a coordinate is larger than these survivors can make it.
        """
        check_survivors(self._spec, survivors)
        words = words_of(hidden, self._spec) - words_of(function_key, self._spec)
        for c in survivors:
            pad = self._key.agree(c.encryption, derivation(_DECRYPTOR, label, c.nonce))
            add_keystream(pad, words, -c.multiplier)
        total = words.view(np.int32 if words.dtype.itemsize == 4 else np.int64).astype(np.int64)
        check_range(total, self._spec, survivors)
        return total


def words_of(data: bytes, spec: SumSpec) -> Words:
    """Read a hidden vector or a function key; :class:`CiphertextError` if it has another length than agreed."""
    word = word_type(spec)
    if len(data) != spec.length * word.itemsize:
        raise CiphertextError(f"A hidden vector has {len(data)} bytes, expected {spec.length * word.itemsize}")
    return np.frombuffer(data, word.newbyteorder("<")).astype(word, copy=False)
