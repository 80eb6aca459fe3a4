"""NDD-FE in a group, hardened: the inner products of ESB-FL (section 4.1) with a short function key. Mode ``"group"``.

The paper's scheme (:mod:`flbc.schemes.ndd_fe_paper`) with a base of its own for every coordinate, and with a mask that
only the decryptor can take away, in secp256k1::

    c_ij = H_j^{r_i} · pk3^{x_ij + m_ij}     H_j = hash-to-curve(label, j), the same for all clients
                                             r_i = HKDF(DH(i, generator), label, nonce_i), one scalar
                                             m_ij = stream of HKDF(DH(i, decryptor), label, nonce_i), modulo q

    server      h_j = Π c_ij^{y_i}
    generator   f = Σ y_i r_i                the function key: 32 bytes, whatever the length of the vector
    decryptor   h_j / H_j^f / pk3^{Σ y_i m_ij} = pk3^{Σ y_i x_ij}, and a small discrete logarithm

``H_j^{r_i}`` is a key-homomorphic pseudo-random function (decisional Diffie-Hellman, random oracle): Joye-Libert and
Shi et al. aggregate with it too. Next to :mod:`flbc.schemes.ndd_fe_pad` the key is short, and a sum of other clients
passes with a chance of 2^-200 only; the price is some ten thousand times the work: a mode for small models.

Noise
    One scalar could only carry the same noise for all coordinates. So the generator takes part as one more client,
    whose vector is the noise, with a fresh random scalar r_g: ``f = Σ y_i r_i + r_g``, and behind f travel ``N_j =
    H_j^{r_g} · pk3^{noise_j + m_gj}``. The decryptor can take m_g away, but neither N_j nor h_j opens with f: one
    needs r_g, the other Σ y_i r_i, and f is only their sum. What opens is h_j · N_j, the noised sum, and nothing
    else (S23: from a noise that it saw apart, the decryptor would get the exact sum). m_g makes the noise a vector
    like any client's, also for what follows. It is derived from a random nonce that travels with the key, so that
    deriving twice for one label can never hide two noises under one mask.
Who learns what
    *Server, outsiders*: nothing but the opened sum. *Generator*: nothing, not even the sum: without m the exponents
    are uniform. *Decryptor*: the (noised) sum; without the function key nothing. *Server and generator*, *server and
    decryptor*: as each alone. *Generator and decryptor* with the payloads: everything (Assumption 2 of the paper).
    The noise stays hidden from a decryptor that colludes with all clients but one; the generator knows it (S20).
    *Server and some clients*: the sum of the others, which is why ``min_survivors`` exists. A client learns nothing.
    A nonce that repeats under one label would give the difference of two vectors: nonces are random (S7).
Why a key opens one sum only
    Any other product of payloads leaves some H_j^r in, which is pseudo-random: the logarithm fails. Two keys in one
    round would give their difference, and so a client that is in one of them only, to whoever has the decryptor's
    secret: the generator derives one key per (task, round), remembered over restarts (S8).
What is not detected
    Whoever handles a payload, the hidden sum or the noise points may add known numbers (powers of pk3); the signed
    payload hash, block and function key commit to all three. A client may send any integers (poisoning): a sum out of
    range is refused, and costs the round.
Dropouts
    Before its payload arrived a client is not in the sum; afterwards it is not needed. A decryptor that is gone before
    the key was derived is replaced in a new attempt; afterwards the round is lost and the model kept. Without the
    generator nothing is opened.
Timing
    Products with H_j are not constant time in r_i. What they tell is at most what the generator knows anyway, and
    that is useless without m. Products with pk3 tell about x + m, which without m says nothing about x. r_g, whose
    leak would tell the decryptor the noise, goes in two random shares.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, repeat
from pathlib import Path

import numpy as np

from ..crypto.dlog import MAX_LIMIT, DiscreteLog
from ..crypto.group import (
    ORDER,
    POINT_BYTES,
    SCALAR_BYTES,
    FixedBase,
    GroupKey,
    Point,
    WeightedSum,
    add,
    decode_scalar,
    encode_points,
    encode_scalar,
    hash_to_curve,
    nonzero_scalar,
    parse_point,
    parse_points,
    parse_sums,
    product_terms,
    random_shares,
    scalar_stream,
)
from ..errors import CiphertextError, CodecError, ConfigError, OpeningRefusedError
from .base import Contribution, IntVector, Noise, SumSpec, check_survivors
from .functional import FunctionalCombiner, derivation

_GENERATOR, _DECRYPTOR = b"flbc/ndd-fe/group/generator/1", b"flbc/ndd-fe/group/decryptor/1"
_NOISE = b"flbc/ndd-fe/group/noise/1"
_WIDE_BYTES, _NONCE_BYTES = 64, 32
# Coordinates whose logarithms are looked for together; a hidden sum that is nobody's is refused after so many.
_BATCH = 64


def check_bound(spec: SumSpec) -> None:
    """Raise :class:`CodecError` if a sum's logarithm would take too long."""
    if spec.bound > MAX_LIMIT:
        raise CodecError(
            f"A sum can reach {spec.bound}, and logarithms are found up to {MAX_LIMIT}: lower Codec(bits) or the "
            "weights, or use the mode 'pad'"
        )


class GroupProtector:
    """Client half: mask, and multiply by a point that the function key can take away.

    Parameters
    ----------
    spec : SumSpec
    generator, decryptor : bytes
        Group keys, 33 bytes, already checked against the roster.
    key : GroupKey
        The client's own.

    Raises
    ------
    ConfigError
        If generator and decryptor are one.
    CodecError
        If the sum can get too large for a logarithm.
    CiphertextError
        If the decryptor's key is no point.
    """

    def __init__(self, spec: SumSpec, generator: bytes, decryptor: bytes, key: GroupKey) -> None:
        check_keys(generator, decryptor)
        check_bound(spec)
        self._spec, self._generator, self._decryptor, self._key = spec, generator, decryptor, key
        self._pk3 = FixedBase(parse_point(decryptor, "the decryptor's key"), spec.length)

    def protect(self, values: IntVector, label: bytes, nonce: bytes) -> bytes:
        """Return the hidden vector, 33 bytes per coordinate."""
        self._spec.check(values)
        wide = self._key.agree(self._generator, derivation(_GENERATOR, label, nonce), _WIDE_BYTES)
        r = encode_scalar(nonzero_scalar(wide))
        # Of the decryptor's own vector this is an agreement with itself, which nobody else knows either.
        masks = scalar_stream(self._key.agree(self._decryptor, derivation(_DECRYPTOR, label, nonce)))
        bases = hash_to_curve(label, self._spec.length)
        columns = zip(values.tolist(), bases, masks, strict=False)
        return encode_points(add([H.multiply(r), *self._pk3.terms((x + m) % ORDER)]) for x, H, m in columns)


class GroupCombiner(FunctionalCombiner):
    """Server half; see :class:`~flbc.schemes.functional.FunctionalCombiner`."""

    def check(self, payload: bytes) -> None:
        """Raise :class:`CiphertextError`, naming a point, unless the payload holds as many as were agreed."""
        for _ in parse_points(payload, self._spec.length, "a hidden vector"):
            pass

    def combine(self, payloads: Mapping[int, bytes]) -> bytes:
        """Return ``Π c_i^{y_i}``, which may be infinite here and there."""
        parties = sorted(payloads)
        weigh = WeightedSum([self.factor(party) for party in parties])
        vectors = [
            parse_points(payloads[party], self._spec.length, f"the hidden vector of party {party}") for party in parties
        ]
        return encode_points(weigh(column) for column in zip(*vectors, strict=True))


class GroupGenerator:
    """Generator half: the sum of what it shares with the survivors, and the noise as one more client (S23).

    It trusts its caller with S8 (one key per round), S12 (enough survivors) and S20 (budget); see
    :mod:`flbc.node.generator`.

    Parameters
    ----------
    spec : SumSpec
    key : GroupKey
        The generator's own.
    decryptor : bytes
        The decryptor's group key, 33 bytes.
    """

    def __init__(self, spec: SumSpec, key: GroupKey, decryptor: bytes) -> None:
        check_keys(key.public, decryptor)
        self._spec, self._key, self._decryptor = spec, key, decryptor

    def derive(self, label: bytes, survivors: Sequence[Contribution], noise: Noise | None) -> bytes:
        """Return the function key: 32 bytes; with noise 32 more and 33 per coordinate."""
        check_survivors(self._spec, survivors)
        f = 0
        for c in survivors:
            wide = self._key.agree(c.encryption, derivation(_GENERATOR, label, c.nonce), _WIDE_BYTES)
            f += c.multiplier * nonzero_scalar(wide)
        if noise is None:
            return encode_scalar(f)
        nonce, r_g = os.urandom(_NONCE_BYTES), 1 + secrets.randbelow(ORDER - 1)
        points = self._hide(noise(self._spec.length), r_g, label, nonce)
        return encode_scalar(f + r_g) + nonce + encode_points(points)

    def _hide(self, noise: IntVector, r_g: int, label: bytes, nonce: bytes) -> Iterator[Point | None]:
        pk3 = FixedBase(parse_point(self._decryptor, "the decryptor's key"), self._spec.length)
        masks = scalar_stream(self._key.agree(self._decryptor, derivation(_NOISE, label, nonce)))
        shares, bases = random_shares(r_g), hash_to_curve(label, self._spec.length)
        for value, H, m in zip(noise.tolist(), bases, masks, strict=False):
            yield add(product_terms(H, shares) + pk3.terms((value + m) % ORDER))


class GroupDecryptor:
    """Decryptor half: take both away, and find the logarithm. Like the generator it leaves S8 to its caller.

    Parameters
    ----------
    spec : SumSpec
    key : GroupKey
        The decryptor's own.
    generator : bytes
        The generator's group key, 33 bytes.
    tables : Path, optional
        Where the table for logarithms is kept from one process to the next.
    """

    def __init__(self, spec: SumSpec, key: GroupKey, generator: bytes, tables: Path | None = None) -> None:
        check_keys(generator, key.public)
        check_bound(spec)
        self._spec, self._key, self._generator, self._tables = spec, key, generator, tables
        self._solver: DiscreteLog | None = None

    def open(self, hidden: bytes, function_key: bytes, label: bytes, survivors: Sequence[Contribution]) -> IntVector:
        """Return the (noised) sum of exactly ``survivors``.

        Raises
        ------
        CiphertextError
            If the hidden sum or the key is malformed.
        OpeningRefusedError
            If a coordinate is larger than these survivors can make it.
        """
        check_survivors(self._spec, survivors)
        elements = self._unlock(hidden, function_key, label, survivors)
        if self._solver is None:
            self._solver = DiscreteLog(self._key.public, self._spec.bound, self._tables)
        return read_sums(elements, self._solver, self._spec, survivors)

    def _unlock(
        self, hidden: bytes, function_key: bytes, label: bytes, survivors: Sequence[Contribution]
    ) -> Iterator[Point | None]:
        """Return the powers of pk3; what is malformed in lengths and numbers is refused before the first one."""
        length = self._spec.length
        f, nonce, noise = _split_key(function_key, length)
        sums = parse_sums(hidden, length, "the hidden sum")
        masks = [
            (scalar_stream(self._key.agree(c.encryption, derivation(_DECRYPTOR, label, c.nonce))), c.multiplier)
            for c in survivors
        ]
        if nonce is not None:
            masks.append((scalar_stream(self._key.agree(self._generator, derivation(_NOISE, label, nonce))), 1))
        return self._powers(sums, noise, hash_to_curve(label, length), masks, encode_scalar(-f))

    def _powers(
        self,
        sums: Iterable[Point | None],
        noise: Iterable[Point | None],
        bases: Iterable[Point],
        masks: Sequence[tuple[Iterator[int], int]],
        minus_f: bytes,
    ) -> Iterator[Point | None]:
        pk3 = FixedBase(parse_point(self._key.public, "the decryptor's key"), self._spec.length)
        for h, N, H in zip(sums, noise, bases, strict=False):
            mask = sum(factor * next(stream) for stream, factor in masks)
            terms = [point for point in (h, N) if point is not None]
            yield add([*terms, H.multiply(minus_f), *pk3.terms(-mask % ORDER)])


# ---------------------------------------------------------------------- what the mode "paper" needs too
def check_keys(generator: bytes, decryptor: bytes) -> None:
    """Raise :class:`ConfigError` if generator and decryptor are one."""
    if generator == decryptor:
        raise ConfigError("One node cannot be generator and decryptor: it could open every single client")


def read_sums(
    elements: Iterator[Point | None], solver: DiscreteLog, spec: SumSpec, survivors: Sequence[Contribution]
) -> IntVector:
    """Return the logarithms; :class:`OpeningRefusedError`, naming a coordinate, if these survivors cannot have one."""
    limit = sum(c.multiplier for c in survivors) * spec.max_abs + spec.noise_tail
    total = np.empty(spec.length, np.int64)
    for start in range(0, spec.length, _BATCH):
        for at, value in enumerate(solver.solve(list(islice(elements, _BATCH)), limit), start):
            if value is None:
                raise OpeningRefusedError(
                    f"Coordinate {at} of the sum is out of range: it is not the sum of exactly these survivors, or "
                    "one of them sent values that are too large; the round is burnt"
                )
            total[at] = value
    return total


def _split_key(key: bytes, length: int) -> tuple[int, bytes | None, Iterable[Point | None]]:
    """Return the scalar, the nonce, and the noise points; None and nothing without noise."""
    long = SCALAR_BYTES + _NONCE_BYTES + length * POINT_BYTES
    if len(key) not in (SCALAR_BYTES, long):
        raise CiphertextError(f"A function key has {len(key)} bytes, expected {SCALAR_BYTES}, or {long} with noise")
    f, rest = decode_scalar(key[:SCALAR_BYTES], "the function key's number"), key[SCALAR_BYTES:]
    if not rest:
        return f, None, repeat(None, length)
    return f, rest[:_NONCE_BYTES], parse_points(rest[_NONCE_BYTES:], length, "the function key's noise")
