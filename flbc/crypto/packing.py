"""Many small integers in one big one: how a vector fits into Paillier plaintexts.

One plaintext, most significant bit first::

    bit modulus_bits - 1                                                     bit 0
    0 │ tag field: tag_field_bits │ slot s-1 │ … │ slot 1 │ slot 0 : slot_bits each

The top bit stays zero so that the plaintext, and the sum of all of them, is below the modulus. Adding plaintexts adds
every slot and the tags, as long as no slot's sum reaches ``2**slot_bits``: the caller sizes the slots for the sum. A
client that breaks this carries into the next slot, which nobody can see inside a ciphertext.

The tag field holds one number of `tag_bits` random bits per summand and has room for the carries of their sum, so the
sum of the tags is exact. What the tags mean is the scheme's business.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import gcd

import numpy as np
from gmpy2 import bit_mask, mpz
from numpy.typing import NDArray

from flbc.crypto._checks import check_int
from flbc.errors import CodecError, ConfigError

# A forged sum passes one ciphertext's tag check with probability 2^-40; the opener answers once a round.
MIN_TAG_BITS = 40
# A tag and the sum of all tags fit one 64-bit word, so that both come out of numpy exactly.
MAX_TAG_FIELD_BITS = 64
MAX_SLOT_BITS = 62

# A piece of a slot is shifted by up to 7 bits inside one 64-bit word.
_PIECE_BITS = 56


@dataclass(frozen=True, slots=True)
class SlotLayout:
    """How one plaintext is divided. Use `plan`, or give all four numbers as they were agreed.

    Parameters
    ----------
    modulus_bits : int
        Bits of the Paillier modulus n.
    slot_bits : int
        Width of a slot, 1 to 62: enough for the *sum* of all summands.
    slots : int
        Slots in one plaintext.
    tag_bits : int
        Random bits in one summand's tag, at least `MIN_TAG_BITS`.

    Raises
    ------
    ConfigError
        If the parts do not fit below the modulus.
    """

    modulus_bits: int
    slot_bits: int
    slots: int
    tag_bits: int

    def __post_init__(self) -> None:
        _check_setting("modulus_bits", self.modulus_bits, 64, 1 << 16)
        _check_setting("slot_bits", self.slot_bits, 1, MAX_SLOT_BITS)
        _check_setting("slots", self.slots, 1, 1 << 16)
        _check_setting("tag_bits", self.tag_bits, MIN_TAG_BITS, MAX_TAG_FIELD_BITS)
        if self.tag_bits > self.tag_field_bits:
            raise ConfigError(
                f"{self.slots} slots of {self.slot_bits} bits and a tag of {self.tag_bits} bits do not fit below a "
                f"{self.modulus_bits}-bit modulus: lower slots"
            )

    @classmethod
    def plan(cls, modulus_bits: int, slot_bits: int, summands: int) -> SlotLayout:
        """Divide a plaintext into as many slots as leave room for the tags of `summands` vectors.

        Parameters
        ----------
        modulus_bits : int
            Bits of the Paillier modulus, for instance 3072.
        slot_bits : int
            Width of a slot, 1 to 62; it must hold the sum.
        summands : int
            The largest number of vectors that will be added, at least 1.

        Raises
        ------
        ConfigError
            If not even one slot fits; the message names the parameter to lower.
        """
        _check_setting("modulus_bits", modulus_bits, 64, 1 << 16)
        _check_setting("slot_bits", slot_bits, 1, MAX_SLOT_BITS)
        carry_bits = (
            _check_setting("summands", summands, 1, 1 << (MAX_TAG_FIELD_BITS - MIN_TAG_BITS)) - 1
        ).bit_length()
        slots = (modulus_bits - 1 - MIN_TAG_BITS - carry_bits) // slot_bits
        if slots < 1:
            raise ConfigError(
                f"a {modulus_bits}-bit modulus has no room for one slot of {slot_bits} bits beside the tags: lower "
                "slot_bits (fewer Codec(bits=...), fewer clients, less noise) or use a larger key"
            )
        field_bits = min(modulus_bits - 1 - slots * slot_bits, MAX_TAG_FIELD_BITS)
        return cls(modulus_bits, slot_bits, slots, field_bits - carry_bits)

    @property
    def low_bits(self) -> int:
        """Bits of all slots together: where the tag field begins."""
        return self.slots * self.slot_bits

    @property
    def tag_field_bits(self) -> int:
        """Bits between the slots and the top bit: room for the sum of the tags."""
        return self.modulus_bits - 1 - self.low_bits

    def plaintexts(self, count: int) -> int:
        """How many plaintexts `count` values take."""
        return -(-check_int("count", count, 0, 1 << 48) // self.slots)


def pack(values: NDArray[np.uint64], layout: SlotLayout) -> list[mpz]:
    """Pack values into plaintexts with an empty tag field; slots past the last value are zero.

    Parameters
    ----------
    values : ndarray of uint64, shape (count,)
        Each below ``2**slot_bits``.
    layout : SlotLayout

    Returns
    -------
    list of mpz
        ``ceil(count / slots)`` integers.

    Raises
    ------
    CodecError
        If the array has another shape or dtype, or a value does not fit its slot.
    """
    if not isinstance(values, np.ndarray) or values.dtype != np.uint64 or values.ndim != 1:
        raise CodecError("values to pack must be a one-dimensional array of uint64: encode them first")
    if values.size and int(values.max()) >> layout.slot_bits:
        raise CodecError(f"a value does not fit its slot of {layout.slot_bits} bits: clip and quantise before packing")
    group, group_bytes = _group(layout.slot_bits)
    rows, columns = layout.plaintexts(values.size), -(-layout.slots // group) * group
    grid = np.zeros((rows, columns), np.uint64)
    flat = np.zeros(rows * layout.slots, np.uint64)
    flat[: values.size] = values
    grid[:, : layout.slots] = flat.reshape(rows, layout.slots)
    lanes = grid.reshape(-1, group)
    out = np.zeros((len(lanes), group_bytes), np.uint8)
    for lane in range(group):
        for start, byte, offset, width in _pieces(lane, layout.slot_bits):
            piece = ((lanes[:, lane] >> start) & _mask(width)) << offset
            size = _bytes(offset + width)
            # Lanes share the bytes at their borders but never a bit, hence "or".
            out[:, byte : byte + size] |= piece.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :size]
    row_bytes = columns // group * group_bytes
    data = out.tobytes()
    return [mpz.from_bytes(data[i * row_bytes : (i + 1) * row_bytes], "little") for i in range(rows)]


def unpack(plaintexts: Sequence[int], layout: SlotLayout, count: int) -> NDArray[np.uint64]:
    """Read the slots of (sums of) packed plaintexts, whatever their tag field holds.

    Parameters
    ----------
    plaintexts : sequence of int
        ``ceil(count / slots)`` integers of at most `modulus_bits` bits. Check the tags first.
    layout : SlotLayout
    count : int
        How many values were packed.

    Returns
    -------
    ndarray of uint64, shape (count,)

    Raises
    ------
    CodecError
        If the number of plaintexts does not belong to `count`, or one is out of range.
    """
    if len(plaintexts) != layout.plaintexts(count):
        raise CodecError(f"{count} values take {layout.plaintexts(count)} plaintexts, got {len(plaintexts)}")
    group, group_bytes = _group(layout.slot_bits)
    columns = -(-layout.slots // group) * group
    row_bytes = columns // group * group_bytes
    data = b"".join(low.to_bytes(row_bytes, "little") for _, low in (split_tag(m, layout) for m in plaintexts))
    packed = np.frombuffer(data, np.uint8).reshape(-1, group_bytes)
    lanes = np.zeros((len(packed), group), np.uint64)
    for lane in range(group):
        for start, byte, offset, width in _pieces(lane, layout.slot_bits):
            size = _bytes(offset + width)
            word = np.zeros((len(packed), 8), np.uint8)
            word[:, :size] = packed[:, byte : byte + size]
            piece = word.view("<u8").reshape(-1).astype(np.uint64)
            lanes[:, lane] |= ((piece >> offset) & _mask(width)) << start
    return lanes.reshape(-1, columns)[:, : layout.slots].reshape(-1)[:count]


def attach_tags(plaintexts: Sequence[int], tags: NDArray[np.uint64], layout: SlotLayout) -> list[mpz]:
    """Put one tag below ``2**tag_bits`` into the tag field of each packed plaintext, which must be empty.

    Raises
    ------
    CodecError
        If there is not one tag per plaintext, a tag is too large, or a tag field is in use.
    """
    if tags.dtype != np.uint64 or tags.shape != (len(plaintexts),):
        raise CodecError("tags must be an array of uint64 with one tag for each plaintext")
    if tags.size and int(tags.max()) >> layout.tag_bits > 0:
        raise CodecError(f"a tag exceeds {layout.tag_bits} bits")
    if any(not 0 <= m < 1 << layout.low_bits for m in plaintexts):
        raise CodecError("a tag field is already in use: attach tags once, to what pack() returned")
    return [m + (mpz(tag) << layout.low_bits) for m, tag in zip(plaintexts, tags.tolist(), strict=True)]


def split_tag(plaintext: int, layout: SlotLayout) -> tuple[int, mpz]:
    """Split a plaintext into its tag field and its slots.

    Returns
    -------
    tag_field : int
        Everything above the slots. In an honest sum it is the exact sum of the tags, below ``2**tag_field_bits``; after
        tampering it can be anything up to the modulus, so compare it as an integer.
    low : mpz
        The slots, below ``2**(slots * slot_bits)``.

    Raises
    ------
    CodecError
        If the plaintext is negative or has more than `modulus_bits` bits.
    """
    value = mpz(plaintext)
    if value < 0 or value.bit_length() > layout.modulus_bits:
        raise CodecError(f"a plaintext must lie between 0 and 2**{layout.modulus_bits}")
    return int(value >> layout.low_bits), value & bit_mask(layout.low_bits)


def split_tags(plaintexts: Sequence[int], layout: SlotLayout) -> tuple[list[int], list[mpz]]:
    """Split many plaintexts: the list of tag fields and the list of slot parts (see `split_tag`)."""
    parts = [split_tag(m, layout) for m in plaintexts]
    return [tag for tag, _ in parts], [low for _, low in parts]


def _check_setting(name: str, value: int, low: int, high: int) -> int:
    try:
        return check_int(name, value, low, high)
    except ValueError as exc:
        raise ConfigError(f"{exc}, not {value}: {'lower' if value > high else 'raise'} {name}") from None


def _group(slot_bits: int) -> tuple[int, int]:
    """Return the smallest number of slots that fill whole bytes, and how many bytes."""
    group = 8 // gcd(slot_bits, 8)
    return group, group * slot_bits // 8


def _pieces(lane: int, slot_bits: int) -> Iterator[tuple[np.uint64, int, np.uint64, int]]:
    """Cut one slot of a group into pieces that fit a 64-bit word after their shift to a byte border.

    Yields
    ------
    start, byte, offset, width
        Bits `start` to `start + width` of the slot lie in the group from bit `offset` of byte `byte` on.
    """
    for start in range(0, slot_bits, _PIECE_BITS):
        byte, offset = divmod(lane * slot_bits + start, 8)
        yield np.uint64(start), byte, np.uint64(offset), min(_PIECE_BITS, slot_bits - start)


def _bytes(bits: int | np.uint64) -> int:
    return (int(bits) + 7) // 8


def _mask(width: int) -> np.uint64:
    return np.uint64((1 << width) - 1)
