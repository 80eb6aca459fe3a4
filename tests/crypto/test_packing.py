import numpy as np
import pytest
from gmpy2 import mpz
from hypothesis import given
from hypothesis import strategies as st

from flbc.crypto.packing import (
    MAX_SLOT_BITS,
    MIN_TAG_BITS,
    SlotLayout,
    attach_tags,
    pack,
    split_tag,
    split_tags,
    unpack,
)
from flbc.errors import CodecError, ConfigError

LAYOUT = SlotLayout.plan(1024, 20, 10)

plans = st.builds(
    SlotLayout.plan, st.sampled_from([512, 1024, 2048, 3072]), st.integers(1, MAX_SLOT_BITS), st.integers(1, 1 << 20)
)


@st.composite
def _packed(draw, vectors=1):
    """A layout and vectors whose sum fits every slot, extremes included."""
    layout = draw(plans)
    highest = (2**layout.slot_bits - 1) // vectors
    count = draw(st.integers(0, 3 * layout.slots + 1).map(lambda n: min(n, 500)))
    element = st.sampled_from([0, 1 if highest else 0, highest]) | st.integers(0, highest)
    values = draw(st.lists(st.lists(element, min_size=count, max_size=count), min_size=vectors, max_size=vectors))
    return layout, [np.array(v, np.uint64) for v in values]


def reference(values, layout):
    """Packing by definition, one Python integer at a time."""
    slots = layout.slots
    rows = [values[i : i + slots].tolist() for i in range(0, len(values), slots)]
    return [sum(v << (layout.slot_bits * j) for j, v in enumerate(row)) for row in rows]


def test_layout_of_the_default_key():
    layout = SlotLayout.plan(3072, 20, 10)
    assert layout.slots == 151
    assert 2 * 3072 / 8 / layout.slots <= 5.09
    assert (layout.tag_bits, layout.tag_field_bits, layout.low_bits) == (47, 51, 3020)


@given(st.integers(128, 4096), st.integers(1, MAX_SLOT_BITS), st.integers(1, 1 << 24))
def test_plan_uses_all_the_room_there_is(modulus_bits, slot_bits, summands):
    carry = (summands - 1).bit_length()
    layout = SlotLayout.plan(modulus_bits, slot_bits, summands)
    assert layout.low_bits + layout.tag_field_bits == modulus_bits - 1
    assert layout.tag_bits >= MIN_TAG_BITS
    assert summands * (2**layout.tag_bits - 1) < 2 ** min(layout.tag_field_bits, 64)
    assert (layout.slots + 1) * slot_bits + MIN_TAG_BITS + carry > modulus_bits - 1


@given(_packed())
def test_pack_follows_its_definition(case):
    layout, (values,) = case
    assert pack(values, layout) == reference(values, layout)


@given(_packed())
def test_round_trip(case):
    layout, (values,) = case
    plaintexts = pack(values, layout)
    assert len(plaintexts) == layout.plaintexts(len(values)) == -(-len(values) // layout.slots)
    unpacked = unpack(plaintexts, layout, len(values))
    assert unpacked.dtype == np.uint64
    assert np.array_equal(unpacked, values)


@given(_packed(vectors=3), st.data())
def test_sum_of_packed_is_packed_sum_and_tags_add_exactly(case, data):
    layout, vectors = case
    rows = layout.plaintexts(len(vectors[0]))
    tag = st.sampled_from([0, 2**layout.tag_bits - 1]) | st.integers(0, 2**layout.tag_bits - 1)
    tags = [np.array(data.draw(st.lists(tag, min_size=rows, max_size=rows)), np.uint64) for _ in vectors]
    # Three summands may be more than the layout was planned for; the field must still have room for two bits of carry.
    if layout.tag_field_bits < layout.tag_bits + 2:
        tags[1:] = [np.zeros_like(tags[0])] * 2
    tagged = [attach_tags(pack(v, layout), t, layout) for v, t in zip(vectors, tags, strict=True)]
    total = [sum(column) for column in zip(*tagged, strict=True)]
    fields, lows = split_tags(total, layout)
    assert fields == [sum(int(t[i]) for t in tags) for i in range(rows)]
    assert np.array_equal(unpack(total, layout, len(vectors[0])), sum(vectors))
    assert np.array_equal(unpack(lows, layout, len(vectors[0])), sum(vectors))
    assert all(m.bit_length() < layout.modulus_bits for m in total)


@pytest.mark.parametrize("slot_bits", range(1, MAX_SLOT_BITS + 1))
def test_extremes_at_every_width(slot_bits):
    layout = SlotLayout.plan(2048, slot_bits, 10)
    top = np.full(layout.slots + 1, 2**slot_bits - 1, np.uint64)
    assert pack(top, layout) == [2**layout.low_bits - 1, 2**slot_bits - 1]
    assert np.array_equal(unpack(pack(top, layout), layout, len(top)), top)


def test_slots_past_the_end_are_zero():
    values = np.ones(LAYOUT.slots + 1, np.uint64)
    padded = unpack(pack(values, LAYOUT), LAYOUT, 2 * LAYOUT.slots)
    assert padded[len(values) :].sum() == 0


def test_overflow_carries_into_the_neighbour():
    # What a cheating client can do; here so that nobody believes slots are walls.
    values = np.array([2**20 - 1, 5], np.uint64)
    (total,) = (a + b for a, b in zip(pack(values, LAYOUT), pack(np.array([1, 0], np.uint64), LAYOUT), strict=True))
    assert unpack([total], LAYOUT, 2).tolist() == [0, 6]


def test_values_that_do_not_fit_are_refused():
    for values in (np.array([2**20], np.uint64), np.array([3, 2**63], np.uint64)):
        with pytest.raises(CodecError, match="does not fit its slot of 20 bits"):
            pack(values, LAYOUT)


@pytest.mark.parametrize(
    "values", [[1, 2], np.array([1, 2]), np.array([1.0]), np.zeros((2, 2), np.uint64), np.array(-1, np.int64)]
)
def test_other_arrays_are_refused(values):
    with pytest.raises(CodecError, match="one-dimensional array of uint64"):
        pack(values, LAYOUT)


def test_wrong_number_of_plaintexts_is_refused():
    plaintexts = pack(np.ones(60, np.uint64), LAYOUT)
    for count in (0, LAYOUT.slots * 2 + 1, LAYOUT.slots):
        with pytest.raises(CodecError, match="plaintexts, got 2"):
            unpack(plaintexts, LAYOUT, count)


@pytest.mark.parametrize("plaintext", [-1, 1 << 1024])
def test_plaintexts_out_of_range_are_refused(plaintext):
    with pytest.raises(CodecError, match="between 0"):
        split_tag(plaintext, LAYOUT)
    with pytest.raises(CodecError, match="between 0"):
        unpack([plaintext], LAYOUT, 1)


def test_split_tag_shows_every_bit_above_the_slots():
    top = mpz(1) << 1023
    assert split_tag(top, LAYOUT) == (1 << (1023 - LAYOUT.low_bits), 0)
    assert split_tag(top + 7, LAYOUT)[1] == 7


def test_tags_are_attached_once_and_must_fit():
    (plaintext,) = pack(np.ones(3, np.uint64), LAYOUT)
    one = np.ones(1, np.uint64)
    with pytest.raises(CodecError, match="already in use"):
        attach_tags(attach_tags([plaintext], one, LAYOUT), one, LAYOUT)
    with pytest.raises(CodecError, match="exceeds"):
        attach_tags([plaintext], one << np.uint64(LAYOUT.tag_bits), LAYOUT)
    for tags in (np.ones(2, np.uint64), np.ones(1, np.int64)):
        with pytest.raises(CodecError, match="one tag for each"):
            attach_tags([plaintext], tags, LAYOUT)


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        ((100, 62, 10), "lower slot_bits"),
        ((3072, 63, 10), "lower slot_bits"),
        ((3072, 0, 10), "raise slot_bits"),
        ((3072, 20, 1 << 25), "lower summands"),
        ((3072, 20, 0), "raise summands"),
        ((32, 20, 1), "raise modulus_bits"),
    ],
)
def test_impossible_plans_name_the_parameter(arguments, cure):
    with pytest.raises(ConfigError, match=cure):
        SlotLayout.plan(*arguments)


def test_layouts_made_by_hand_are_checked():
    with pytest.raises(ConfigError, match="lower slots"):
        SlotLayout(1024, 20, 50, 40)
    with pytest.raises(ConfigError, match="raise tag_bits"):
        SlotLayout(1024, 20, 10, 39)
    with pytest.raises(TypeError, match="slots must be an int"):
        SlotLayout(1024, 20, 10.0, 40)
