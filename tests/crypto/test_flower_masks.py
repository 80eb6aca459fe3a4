"""Why Flower's own mask generator is not used: attacks on ``pseudo_rand_gen`` of Flower 1.41, and on ours.

It folds a seed of any length to 32 bits by XOR and runs the Mersenne Twister on them, which is no cryptographic
generator. In SecAgg+ one unknown mask is all that stands between the server and a client whose other neighbours dropped
or collude. Each attack here takes such a mask off; `flbc.crypto.keystream` is put in its place at the end.
"""

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen

from flbc.crypto.keystream import keystream, prf_words

# Defaults of Flower's SecAggPlusWorkflow: values are integers below the first, masks are added modulo the second.
QUANTIZATION_RANGE, MODULUS_RANGE = 1 << 22, 1 << 32

SEED = bytes(range(100, 132))
WORDS = [SEED[i : i + 4] for i in range(0, 32, 4)]
COLLIDING = {
    "words in another order": b"".join(reversed(WORDS)),
    "one word added twice": b"".join(bytes(b ^ 0x5A for b in w) if i in (2, 5) else w for i, w in enumerate(WORDS)),
    "the folded word alone": np.bitwise_xor.reduce(np.frombuffer(SEED, "<u4")).tobytes() + bytes(28),
}


def mask(seed, count, modulus=MODULUS_RANGE):
    return pseudo_rand_gen(seed, modulus, [(count,)])[0]


def folded(seed):
    return int(np.bitwise_xor.reduce(np.frombuffer(seed, "<u4")))


def first_outputs(seeds, count):
    """The first `count` outputs (at most 227) of the Mersenne Twister for many 32-bit seeds at once.

    Matsumoto and Nishimura, ACM TOMACS 8(1), 1998, with the initialisation of 2002.
    """
    word, kept = seeds.astype(np.uint32), []
    for i in range(397 + count):
        kept.append(word)
        word = np.uint32(1812433253) * (word ^ word >> np.uint32(30)) + np.uint32(i + 1)
    for i in range(count):
        y = kept[i] & np.uint32(0x80000000) | kept[i + 1] & np.uint32(0x7FFFFFFF)
        y = kept[i + 397] ^ y >> np.uint32(1) ^ (y & np.uint32(1)) * np.uint32(0x9908B0DF)
        y ^= y >> np.uint32(11)
        y ^= y << np.uint32(7) & np.uint32(0x9D2C5680)
        y ^= y << np.uint32(15) & np.uint32(0xEFC60000)
        yield y ^ y >> np.uint32(18)


def states_of(outputs):
    """The words of the twister's state behind 624 outputs: what it does to them last can be undone."""
    y = outputs.astype(np.uint32)
    y ^= y >> np.uint32(18)
    y ^= y << np.uint32(15) & np.uint32(0xEFC60000)
    x = y
    for _ in range(4):
        x = y ^ x << np.uint32(7) & np.uint32(0x9D2C5680)
    y = x
    for _ in range(2):
        x = y ^ x >> np.uint32(11)
    return x


@pytest.mark.parametrize("other", COLLIDING.values(), ids=COLLIDING)
def test_different_seeds_make_one_mask(other):
    assert other != SEED
    assert np.array_equal(mask(SEED, 1000), mask(other, 1000))


def test_masks_are_the_twisters_raw_outputs():
    """With the default modulus nothing is done to them, so that what follows needs no more than its definition."""
    expected = np.array(list(first_outputs(np.array([folded(SEED)]), 227)))[:, 0]
    assert np.array_equal(mask(SEED, 227), expected)


def test_a_masked_update_is_opened_by_search():
    """From the masked vector alone: values are below 2^22, so that only the right mask leaves them all in range.

    Here 16 of the 32 bits are given and the others searched in one go; all 32 are 2^16 such goes.
    """
    rng = np.random.default_rng(1)
    update = rng.integers(0, QUANTIZATION_RANGE, 1000)
    seed = rng.bytes(32)
    masked = (update + mask(seed, len(update))) % MODULUS_RANGE

    candidates = np.uint32(folded(seed) & 0xFFFF0000) | np.arange(1 << 16, dtype=np.uint32)
    fitting = np.ones(len(candidates), bool)
    for value, output in zip(masked, first_outputs(candidates, 6), strict=False):
        fitting &= np.uint32(value) - output < QUANTIZATION_RANGE
    (found,) = candidates[fitting].tolist()

    opened = (masked - mask(found.to_bytes(4, "little"), len(masked))) % MODULUS_RANGE
    assert np.array_equal(opened, update)


def test_pairwise_seeds_have_28_bits_at_most():
    """They are folded as base64 text, in which every byte's top bit is zero: a search is 16 times shorter still."""
    seen = 0
    for _ in range(40):
        mine, peer = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
        seen |= folded(generate_shared_key(mine, peer.public_key()))
    assert seen == 0x7F7F7F7F


def test_a_mask_is_continued_without_any_search():
    """Whoever knows 624 coordinates, such as a frozen layer's, has the state and so the mask of all that follow."""
    whole = mask(SEED, 5000)
    generator = np.random.RandomState()
    generator.set_state(("MT19937", states_of(whole[:624]), 624))
    assert np.array_equal(generator.randint(0, MODULUS_RANGE - 1, 5000 - 624, dtype=np.int64), whole[624:])


@pytest.mark.parametrize("modulus", [2, 4, 256])
def test_the_top_value_never_occurs(modulus):
    """``randint`` leaves its upper bound out, and is given ``modulus - 1``; modulo 2 nothing is hidden at all."""
    assert set(mask(SEED, 20_000, modulus).tolist()) == set(range(modulus - 1))


@pytest.mark.parametrize("other", COLLIDING.values(), ids=COLLIDING)
def test_ours_are_different_for_those_seeds(other):
    ours, theirs = (np.frombuffer(keystream(seed, 4000), "<u4") for seed in (SEED, other))
    assert (ours == theirs).sum() <= 1  # 1000 words, of which each agrees by chance with a probability of 2^-32


def test_ours_depends_on_every_bit_of_the_seed():
    pads = set()
    for bit in range(256):
        seed = bytearray(SEED)
        seed[bit // 8] ^= 1 << bit % 8
        pads.add(keystream(bytes(seed), 16))
    assert len(pads) == 256
    assert keystream(SEED, 16) not in pads


def test_ours_takes_every_value():
    assert set(prf_words(SEED, 20_000, 8).tolist()) == set(range(256))
    assert set(prf_words(SEED, 1000, 1).tolist()) == {0, 1}


def test_ours_is_not_continued_by_the_twister():
    """The attack above, on our keystream."""
    whole = np.frombuffer(keystream(SEED, 4 * 5000), "<u4")
    generator = np.random.RandomState()
    generator.set_state(("MT19937", states_of(whole[:624]), 624))
    assert (generator.randint(0, MODULUS_RANGE - 1, 5000 - 624, dtype=np.int64) == whole[624:]).sum() <= 1
