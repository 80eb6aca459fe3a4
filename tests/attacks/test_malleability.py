"""S11: Paillier ciphertexts are malleable; one-time tags and checked padding make the sum exactly the survivors'.

Each attack is run by a server that colludes with one client (and so knows that client's tags). It succeeds against
plain packed Paillier, and is refused by ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gmpy2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flbc.crypto import paillier
from flbc.crypto.keystream import EncryptionKey
from flbc.crypto.packing import unpack
from flbc.errors import OpeningRefusedError
from flbc.schemes import Contribution, SumSpec
from flbc.schemes.paillier import PaillierCombiner, PaillierOpener, PaillierProtector

CLIENTS = 4
LABEL = b"\x01" * 32
Vector = list[Any]


class Setup:
    """Three honest clients and a colluding fourth, a key, and payloads of one round."""

    def __init__(self, key: paillier.PrivateKey, length: int) -> None:
        self.key, self.public = key, key.public
        self.spec = SumSpec(length, 2**15 - 1, CLIENTS)
        self.authority = EncryptionKey.generate()
        self.clients = [EncryptionKey.generate() for _ in range(CLIENTS)]
        self.nonces = [bytes([i]) * 32 for i in range(CLIENTS)]
        self.survivors = [Contribution(i, k.public, self.nonces[i]) for i, k in enumerate(self.clients)]
        rng = np.random.default_rng(7)
        self.updates = [rng.integers(-3000, 3000, length) for _ in range(CLIENTS)]
        self.opener = PaillierOpener(key, self.spec, self.authority)
        self.geometry = self.opener._geometry
        self.payloads = [self.protect(i, self.updates[i]) for i in range(CLIENTS)]
        self.vectors = [self.ciphertexts(p) for p in self.payloads]

    def protect(self, client: int, update: Any, label: bytes = LABEL, nonce: bytes | None = None) -> bytes:
        protector = PaillierProtector(self.public, self.spec, self.authority.public, self.clients[client])
        return protector.protect(update.astype(np.int64), label, nonce or self.nonces[client])

    def ciphertexts(self, payload: bytes) -> Vector:
        return paillier.ciphertexts_from_bytes(self.public, payload, self.geometry.count)

    def add(self, *vectors: Vector) -> Vector:
        return paillier.add(self.public, vectors)

    def scale(self, vector: Vector, factor: int) -> Vector:
        return [gmpy2.powmod(c, factor, self.public.n**2) for c in vector]

    def encrypt(self, plaintext: int) -> Vector:
        return paillier.Encryptor(self.public).encrypt([plaintext] * self.geometry.count)

    def every_slot(self, value: int) -> int:
        """A plaintext with ``value`` in every slot, and no tag."""
        layout = self.geometry.layout
        return sum(value << (layout.slot_bits * i) for i in range(layout.slots))

    def without_padding(self, client: int) -> Vector:
        """A ciphertext as packed Paillier usually makes it: nothing in unused slots, no tag."""
        slots = (self.updates[client] + self.spec.max_abs).tolist()
        return self.encrypt(sum(v << (self.geometry.layout.slot_bits * i) for i, v in enumerate(slots)))

    def open(self, vector: Vector, survivors: list[Contribution] | None = None) -> Any:
        hidden = paillier.ciphertexts_to_bytes(self.public, vector)
        return self.opener.open(hidden, LABEL, self.survivors if survivors is None else survivors, None)

    def weak_open(self, vector: Vector) -> Any:
        """Packed Paillier as it is usually built: decrypt, unpack, no tags, padding ignored. All slots are returned."""
        g = self.geometry
        low = [int(m) % (1 << (g.layout.slots * g.layout.slot_bits)) for m in self.key.decrypt(vector)]
        return unpack(low, g.layout, g.padded).astype(np.int64)


@pytest.fixture(scope="module")
def full(opening_key: paillier.PrivateKey) -> Setup:
    """Three ciphertexts, the last one partly filled."""
    return Setup(opening_key, 250)


@pytest.fixture(scope="module")
def small(opening_key: paillier.PrivateKey) -> Setup:
    """A heart-sized model: one ciphertext with most slots unused."""
    return Setup(opening_key, 26)


def test_the_honest_sum_opens(full: Setup) -> None:
    combiner = PaillierCombiner(full.public, full.spec, "authority")
    hidden = combiner.combine(dict(enumerate(full.payloads)))
    assert (full.opener.open(hidden, LABEL, full.survivors, None) == sum(full.updates)).all()


ATTACKS: dict[str, Callable[[Setup], Vector]] = {
    "one client alone": lambda s: s.vectors[0],
    "one client, zeros for the rest": lambda s: s.add(s.vectors[0], s.encrypt(0)),
    "one dropped": lambda s: s.add(*s.vectors[1:]),
    "one three times": lambda s: s.add(s.scale(s.vectors[0], 3), *s.vectors[1:]),
    "colluder copies the victim": lambda s: s.add(*s.vectors[:3], s.vectors[0]),
    "colluder adds the victim again": lambda s: s.add(*s.vectors, s.vectors[0]),
    "victim subtracted": lambda s: s.add(*s.vectors, s.scale(s.vectors[0], -1)),
    "victim shifted by one slot": lambda s: s.add(*s.vectors, s.scale(s.vectors[0], 1 << s.geometry.layout.slot_bits)),
    "two ciphertexts swapped": lambda s: (lambda v: [v[1], v[0], *v[2:]])(s.add(*s.vectors)),
    "another round's payload": lambda s: s.add(
        *s.vectors[:3], s.ciphertexts(s.protect(3, s.updates[3], label=b"\x02" * 32))
    ),
    "another nonce's payload": lambda s: s.add(
        *s.vectors[:3], s.ciphertexts(s.protect(3, s.updates[3], nonce=b"\xee" * 32))
    ),
    "ones added to every slot": lambda s: s.add(*s.vectors, s.encrypt(s.every_slot(1))),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_anything_but_the_sum_is_refused(name: str, full: Setup) -> None:
    with pytest.raises(OpeningRefusedError, match="burnt"):
        full.open(ATTACKS[name](full))


def test_weak_form_opens_three_times_the_victim(small: Setup) -> None:
    """What the refusals above are worth: without tags the colluder's copy opens, and gives the victim away."""
    s = small
    opened = s.weak_open(s.add(*s.vectors[:3], s.scale(s.vectors[0], 3)))[: s.spec.length]
    offsets = 6 * s.spec.max_abs
    assert (opened - offsets - s.updates[1] - s.updates[2] == 4 * s.updates[0]).all()


def test_weak_form_opens_the_victim_in_unused_slots(small: Setup) -> None:
    s, d = small, small.spec.length
    vectors = [s.without_padding(i) for i in range(CLIENTS)]
    shifted = s.scale(vectors[0], 1 << (s.geometry.layout.slot_bits * d))
    opened = s.weak_open(s.add(*vectors, shifted))
    assert (opened[d : 2 * d] - s.spec.max_abs == s.updates[0]).all(), "the victim's update, in clear"
    assert (opened[:d] - 4 * s.spec.max_abs == sum(s.updates)).all(), "and the real slots look normal"


def test_claiming_another_set_of_survivors_is_refused(full: Setup) -> None:
    everything = full.add(*full.vectors)
    for survivors in (full.survivors[:3], [*full.survivors[:3], full.survivors[0]], []):
        with pytest.raises(OpeningRefusedError):
            full.open(everything, survivors)
    three = full.add(*full.vectors[:3])
    assert (full.open(three, full.survivors[:3]) == sum(full.updates[:3])).all()


@given(a=st.integers(-8, 8), b=st.integers(-8, 8), shift=st.integers(0, 140))
@settings(max_examples=25)
def test_no_small_combination_of_ciphertexts_passes(small: Setup, a: int, b: int, shift: int) -> None:
    """Property: the honest sum plus any small multiple or shift of single ciphertexts is refused."""
    if a == b == 0:
        return
    layout = small.geometry.layout
    shifted = small.scale(small.vectors[0], a << (layout.slot_bits * (shift % layout.slots)))
    extra = small.add(shifted, small.scale(small.vectors[1], b))
    with pytest.raises(OpeningRefusedError):
        small.open(small.add(*small.vectors, extra))


def multiplier_that_spares_the_tag(s: Setup) -> int:
    """Find a with a * 2^(bits below the tag) mod n small, by the half-extended Euclidean algorithm (a 2-d lattice).

    Then a * victim = a * values + (small) * tag: the tag field stays as it was, and the victim's values, times a number
    the attacker knows, land in unused slots.
    """
    n, layout = int(s.public.n), s.geometry.layout
    low_bits = layout.slots * layout.slot_bits
    room = 1 << (low_bits - layout.slot_bits * s.spec.length - 8)  # a times the used slots must stay below the tag
    r0, r1, a0, a1 = n, pow(2, low_bits, n), 0, 1
    while r1 > 1 << (layout.slot_bits * 4):
        q = r0 // r1
        r0, r1, a0, a1 = r1, r0 - q * r1, a1, a0 - q * a1
        if abs(a1) >= room:
            return a0
    return a1


def test_lattice_attack_beats_tags_alone_and_fails_on_checked_padding(small: Setup) -> None:
    """Tags alone do not protect a small model: there are multipliers that leave the tag field untouched."""
    s = small
    a, n = multiplier_that_spares_the_tag(s), int(s.public.n)
    # What the attacker knows of the victim's plaintext, the offsets in every slot, it takes away again.
    known = s.encrypt(-a * s.every_slot(s.spec.max_abs) % n)
    vectors = s.add(*s.vectors, s.scale(s.vectors[0], a), known)
    layout = s.geometry.layout
    low_bits = layout.slots * layout.slot_bits
    (plaintext,) = (int(m) for m in s.key.decrypt(vectors))
    (honest,) = (int(m) for m in s.key.decrypt(s.add(*s.vectors)))
    # The multiple reaches the tag field only as a carry: a handful of units, which the attacker can cancel by trying.
    moved = (plaintext >> low_bits) - (honest >> low_bits)
    assert abs(moved) <= 2, "the tag field is (nearly) what the authority expects"
    fixed = s.add(vectors, s.encrypt((-moved << low_bits) % n))
    (plaintext,) = (int(m) for m in s.key.decrypt(fixed))
    assert plaintext >> low_bits == honest >> low_bits, "tags alone would open this"
    assert plaintext != honest
    with pytest.raises(OpeningRefusedError, match="burnt"):
        s.open(fixed)
