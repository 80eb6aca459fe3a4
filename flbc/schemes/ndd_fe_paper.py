"""INSECURE: NDD-FE exactly as ESB-FL prints it (section 4.1). Mode ``"paper"``, to study and to measure, never to use.

In secp256k1, with generator key (pk1, sk1), clients' keys (pk2_i, sk2_i), decryptor key (pk3, sk3)::

    r_i = H1(pk1^{sk2_i}, ctr, aux) = H1(pk2_i^{sk1}, ctr, aux)
    c_ij = pk1^{r_i} · pk3^{x_ij}
    sk⊗ = Σ y_i r_i
    E_j = Π c_ij^{y_i} / pk1^{sk⊗} = pk3^{<x_j, y>},   E*_j = E_j^{1/sk3} = g^{<x_j, y>}, and a small logarithm

Five flaws; ``tests/attacks/test_nddfe_paper.py`` runs them, here and on the modes that replace this one

    1. One r_i serves all coordinates: ``c_ij / c_i0 = pk3^{x_ij - x_i0}``. *Anybody* reads all differences of a
       client's coordinates from its ciphertext alone.
    2. ``E_j = pk3^{<x_j, y>}`` is a power of a *public* key with a small exponent: whoever has the function key opens
       the sum without sk3. The "designated" decryptor designates nobody, and the paper posts the key on its chain.
    3. The generator knows every r_i: it reads every single client. (Theorem 1 says that it cannot, "since sk_0 is
       unknown for him"; it needs pk_0 only.)
    4. Two function keys of one counter, such as before and after a dropout, differ by y_i r_i: that client's key.
    5. The weights of section 5.2.1, y_i = 1/h modulo q, do not give the mean: the logarithm is small only if h
       divides the sum. Integer weights, divided by afterwards, do.

The repairs are in :mod:`flbc.schemes.ndd_fe_group`. Nothing here adds what the paper lacks: no nonce, no mask, and no
noise, since its key is one number for all coordinates.

Who learns what
    *Everybody who sees a payload*: every client's vector up to one constant, and all of it if one coordinate is
    known. *Whoever has the function key, and sees the hidden sum*: the sum. *Generator*: every single client's
    vector, from its payload. *Decryptor*: the sum; it needs no payloads, but if it sees them it is an outsider too.
    A coalition learns what its members learn, and no more is left to learn.
What is not detected
    Adding known numbers to payloads or sums, moving coordinates within a payload, and sending it again for the same
    counter: nothing binds a ciphertext to its coordinate. A sum of other clients is refused, as in the group mode.
Dropouts
    Before its payload arrived a client is not in the sum; a second key for fewer clients is flaw 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..crypto.dlog import DiscreteLog
from ..crypto.group import (
    ORDER,
    FixedBase,
    GroupKey,
    Point,
    WeightedSum,
    add,
    decode_scalar,
    encode_points,
    encode_scalar,
    multiply,
    nonzero_scalar,
    parse_point,
    parse_sums,
    product_terms,
)
from ..errors import ConfigError
from .base import Contribution, IntVector, Noise, SumSpec, check_survivors
from .functional import derivation
from .ndd_fe_group import GroupCombiner, check_bound, check_keys, read_sums

_H1 = b"flbc/ndd-fe/paper/1"
_NO_NONCE = bytes(32)


# ---------------------------------------------------------------------- the algorithms of section 4.1
@dataclass(frozen=True, slots=True)
class Parameters:
    """pp = (G, p, g): the group, its order p (q elsewhere in this package), a base point g of 33 bytes."""

    group: str
    p: int
    g: bytes


def setup() -> Parameters:
    """NDD-FE.Setup(1^λ) → pp, for λ = 128; H1 is :func:`h1`."""
    return Parameters("secp256k1", ORDER, encode_points([Point.from_valid_secret(encode_scalar(1))]))


def key_gen(_: Parameters) -> GroupKey:
    """NDD-FE.KeyGen(pp) → (pk, sk): s from Z_p, pk = g^s. The key object holds both."""
    return GroupKey.generate()


def h1(own: GroupKey, peer: bytes, ctr_aux: bytes) -> int:
    """H1(peer^{sk}, ctr, aux) in Z_p*: HKDF-SHA256, which also takes in both public keys.

    Parameters
    ----------
    ctr_aux : bytes
        Counter and auxiliary information; here the label's hash of 32 bytes, which names task, round and attempt.
    """
    return nonzero_scalar(own.agree(peer, derivation(_H1, ctr_aux, _NO_NONCE), 64))


def key_derive(sk1: GroupKey, pk2: Sequence[bytes], ctr_aux: bytes, y: Sequence[int]) -> int:
    """NDD-FE.KeyDerive(pk1, sk1, {pk2_i}, ctr, y, aux) → sk⊗ = Σ r_i y_i, by the generator."""
    return sum(h1(sk1, key, ctr_aux) * factor for key, factor in zip(pk2, y, strict=True)) % ORDER


def encrypt(pk1: bytes, sk2: GroupKey, pk3: bytes, ctr_aux: bytes, x: Sequence[int], max_abs: int) -> bytes:
    """NDD-FE.Encrypt(pk1, sk2_i, pk3, ctr, x_i, aux) → c_ij = pk1^{r_i} · pk3^{x_ij} for each j, by a client.

    One r_i serves all coordinates j, as in section 5.2.2: flaw 1.

    Parameters
    ----------
    x : sequence of int
        One client's vector.
    max_abs : int
        Largest magnitude in x: it sizes the table of pk3's multiples.
    """
    decryptor = parse_point(pk3, "the decryptor's key")
    r = h1(sk2, pk1, ctr_aux)
    # Shifted by max_abs, no exponent is negative: pk1^r · pk3^{-max_abs} · pk3^{x + max_abs}.
    hiding = product_terms(parse_point(pk1, "the generator's key"), [r]) + product_terms(decryptor, [-max_abs])
    table = FixedBase(decryptor, len(x), ((2 * max_abs).bit_length() + 7) // 8)
    start = add(hiding)
    common = [] if start is None else [start]
    return encode_points(add(common + table.terms(value + max_abs)) for value in x)


def decrypt(
    pk1: bytes, sk: int, sk3: GroupKey, c: Sequence[bytes], y: Sequence[int], length: int
) -> Iterator[Point | None]:
    """NDD-FE.Decrypt(pk1, sk⊗, sk3, {c_i}, y) → g^{<x_j, y>} for each j, by the decryptor; the BSGS step is apart.

    Parameters
    ----------
    c : sequence of bytes
        Hidden vectors, or a product of hidden vectors with y = [1].
    length : int
        Coordinates of a vector.
    """
    return sk3.divide(unlock(pk1, sk, c, y, length))


def unlock(pk1: bytes, sk: int, c: Sequence[bytes], y: Sequence[int], length: int) -> Iterator[Point | None]:
    """Return ``E_j = Π c_ij^{y_i} / pk1^{sk⊗} = pk3^{<x_j, y>}``, for which sk3 is not needed: flaw 2."""
    taken = multiply(parse_point(pk1, "the generator's key"), -sk)
    vectors = [parse_sums(vector, length, f"hidden vector {i}") for i, vector in enumerate(c)]
    weigh = WeightedSum(y)
    for column in zip(*vectors, strict=True):
        yield add([point for point in (weigh(column), taken) if point is not None])


# ---------------------------------------------------------------------- as a scheme
class PaperProtector:
    """Client half; parameters as for :class:`~flbc.schemes.ndd_fe_group.GroupProtector`."""

    def __init__(self, spec: SumSpec, generator: bytes, decryptor: bytes, key: GroupKey) -> None:
        check_keys(generator, decryptor)
        check_bound(spec)
        self._spec, self._generator, self._decryptor, self._key = spec, generator, decryptor, key

    def protect(self, values: IntVector, label: bytes, nonce: bytes) -> bytes:
        """Return the ciphertext, 33 bytes per coordinate. The nonce is not used: the paper has none."""
        self._spec.check(values)
        return encrypt(self._generator, self._key, self._decryptor, label, values.tolist(), self._spec.max_abs)


class PaperCombiner(GroupCombiner):
    """Server half: ``Π c_i^{y_i}``, which the paper leaves to the decryptor."""


class PaperGenerator:
    """Generator half; see :class:`~flbc.schemes.ndd_fe_group.GroupGenerator`."""

    def __init__(self, spec: SumSpec, key: GroupKey) -> None:
        self._spec, self._key = spec, key

    def derive(self, label: bytes, survivors: Sequence[Contribution], noise: Noise | None) -> bytes:
        """Return sk⊗, 32 bytes.

        Raises
        ------
        ConfigError
            If noise is asked for.
        """
        if noise is not None:
            raise ConfigError("The paper's function key cannot carry noise: use the mode 'pad' or 'group'")
        check_survivors(self._spec, survivors)
        sk = key_derive(self._key, [c.encryption for c in survivors], label, [c.multiplier for c in survivors])
        return encode_scalar(sk)


class PaperDecryptor:
    """Decryptor half; parameters as for :class:`~flbc.schemes.ndd_fe_group.GroupDecryptor`."""

    def __init__(self, spec: SumSpec, key: GroupKey, generator: bytes, tables: Path | None = None) -> None:
        check_keys(generator, key.public)
        check_bound(spec)
        self._spec, self._key, self._generator, self._tables = spec, key, generator, tables
        self._solver: DiscreteLog | None = None

    def open(self, hidden: bytes, function_key: bytes, label: bytes, survivors: Sequence[Contribution]) -> IntVector:
        """Return the sum of exactly ``survivors``; errors as in the group mode."""
        check_survivors(self._spec, survivors)
        sk = decode_scalar(function_key, "the function key")
        powers = decrypt(self._generator, sk, self._key, [hidden], [1], self._spec.length)
        if self._solver is None:
            self._solver = DiscreteLog(setup().g, self._spec.bound, self._tables)
        return read_sums(powers, self._solver, self._spec, survivors)
