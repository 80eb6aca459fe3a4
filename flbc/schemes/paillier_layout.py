"""How vectors lie in Paillier plaintexts, and how an opened plaintext is checked: shared by all ways to open.

A plaintext, from the least significant bit::

    | slot 0 | slot 1 | ... | slot s-1 | tag |

What the tag and the unused slots are for is told in :mod:`flbc.schemes.paillier`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from gmpy2 import mpz
from numpy.typing import NDArray

from ..crypto.keystream import EncryptionKey, prf_words
from ..crypto.packing import SlotLayout, attach_tags, pack, split_tags, unpack
from ..crypto.paillier_public import PublicKey
from ..errors import CodecError, OpeningRefusedError
from .base import Contribution, IntVector, Noise, SumSpec

_TAG_INFO = b"flbc/paillier/tag/1"


class Geometry:
    """How vectors of one spec lie in plaintexts of one key.

    Parameters
    ----------
    public : PublicKey
    spec : SumSpec
    slot_bits : int or None (default: None)
        Width of a slot; None: what holds the spec's sums.
    """

    def __init__(self, public: PublicKey, spec: SumSpec, slot_bits: int | None = None) -> None:
        self.public, self.spec = public, spec
        self.layout = SlotLayout.plan(public.bits, slot_bits or spec.slot_bits, spec.max_parties)
        self.count = self.layout.plaintexts(spec.length)

    @cached_property
    def padded(self) -> int:
        """Slots of all ciphertexts, the unused ones of the last included."""
        return self.count * self.layout.slots

    def tags(self, key: bytes) -> NDArray[np.uint64]:
        """Return the tags of one submission, one per ciphertext, from what client and authority agreed on."""
        return prf_words(key, self.count, self.layout.tag_bits)

    def tag_sums(self, key: EncryptionKey, label: bytes, survivors: Sequence[Contribution]) -> list[int]:
        """Return, on the authority's side, the tag field of every ciphertext of an honest sum."""
        sums = [0] * self.count
        for c in survivors:
            tags = self.tags(key.agree(c.encryption, tag_info(label, c.nonce))).tolist()
            sums = [a + b for a, b in zip(sums, tags, strict=True)]
        return sums

    def pack(self, slots: NDArray[np.uint64], tags: NDArray[np.uint64]) -> list[mpz]:
        """Return one client's plaintexts: its slots, ``max_abs`` in every unused one, and its tags."""
        full = np.full(self.padded, self.spec.max_abs, np.uint64)
        full[: self.spec.length] = slots
        return attach_tags(pack(full, self.layout), tags, self.layout)

    def read(self, plaintexts: Sequence[int], expected: Sequence[int], parties: int) -> NDArray[np.int64]:
        """Check tags and unused slots, and return the sums in the used slots.

        Raises
        ------
        OpeningRefusedError
            If this is not the sum of exactly these clients; no detail is given.
        """
        found, low = split_tags(plaintexts, self.layout)
        slots = unpack(low, self.layout, self.padded).astype(np.int64)
        exact = found == list(expected)
        unused = slots[self.spec.length :]
        if not (exact and np.all(unused == parties * self.spec.max_abs)):
            raise OpeningRefusedError("This is not the sum of exactly these survivors; the round is burnt")
        return slots[: self.spec.length]


def tag_info(label: bytes, nonce: bytes) -> bytes:
    """Return the HKDF context of a client's tags: fixed-length parts, so that it cannot be ambiguous."""
    if len(label) != 32 or len(nonce) != 32:
        raise CodecError("A label hash and a nonce are 32 bytes each")
    return _TAG_INFO + label + nonce


def add_noise(geometry: Geometry, plaintexts: Sequence[mpz], noise: Noise | None) -> list[mpz]:
    """Add noise and its tail in Z_n, before anything is checked or read (S13)."""
    if noise is None:
        return list(plaintexts)
    n, added = geometry.public.n, _pack_noise(geometry, noise(geometry.spec.length))
    return [(m + extra) % n for m, extra in zip(plaintexts, added, strict=True)]


def signed_sum(geometry: Geometry, slots: NDArray[np.int64], parties: int, noise: Noise | None) -> IntVector:
    """Take away what made every client's value, and the noise, non-negative."""
    tail = 0 if noise is None else geometry.spec.noise_tail
    return np.asarray(slots - (parties * geometry.spec.max_abs + tail))


def _pack_noise(geometry: Geometry, noise: IntVector) -> list[int]:
    """Noise plus tail in every used slot, as one integer per ciphertext; unused slots get none."""
    spec, layout = geometry.spec, geometry.layout
    shifted = np.zeros(geometry.padded, np.int64)
    shifted[: spec.length] = noise + spec.noise_tail
    inside = np.clip(shifted, 0, (1 << layout.slot_bits) - 1)
    packed = [int(m) for m in pack(inside.astype(np.uint64), layout)]
    # Beyond the tail (probability 2e-19 a draw) the sum carries, and the distribution stays what was promised.
    for j in np.flatnonzero(shifted != inside).tolist():
        packed[j // layout.slots] += int(shifted[j] - inside[j]) << (layout.slot_bits * (j % layout.slots))
    return packed
