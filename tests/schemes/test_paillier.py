import math
from hashlib import sha256

import numpy as np
import pytest
from gmpy2 import mpz
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flbc.codec import Codec
from flbc.crypto import paillier
from flbc.crypto.keystream import EncryptionKey, prf_words
from flbc.crypto.packing import SlotLayout
from flbc.errors import CiphertextError, CodecError, ConfigError, OpeningRefusedError
from flbc.schemes import Contribution, SumSpec
from flbc.schemes.paillier import PaillierCombiner, PaillierOpener, PaillierProtector
from flbc.schemes.paillier_layout import tag_info

LABEL = sha256(b"label").digest()
# 4 clients of |value| <= 10: 7 bits a slot; 140 slots at 1024 bits, so 200 values leave 80 slots unused.
SPEC = SumSpec(200, 10, 4)


def nonce(party: int, draw: int = 0) -> bytes:
    return sha256(b"%d %d" % (party, draw)).digest()


@pytest.fixture
def listed(clients):
    return [Contribution(party, key.public, nonce(party)) for party, key in enumerate(clients[:3])]


@pytest.fixture
def payloads(private, clients, authority):
    """Three clients that all send 1, 2, 3, ... modulo 7."""
    values = np.arange(SPEC.length, dtype=np.int64) % 7
    protectors = [PaillierProtector(private.public, SPEC, authority.public, key) for key in clients[:3]]
    return {party: p.protect(values, LABEL, nonce(party)) for party, p in enumerate(protectors)}


@pytest.fixture
def combiner(private):
    return PaillierCombiner(private.public, SPEC, "authority")


@pytest.fixture
def opener(private, authority):
    return PaillierOpener(private, SPEC, authority)


@pytest.fixture
def layout(private):
    return SlotLayout.plan(private.public.bits, SPEC.slot_bits, SPEC.max_parties)


def ciphertexts(private, payload):
    return paillier.ciphertexts_from_bytes(private.public, payload, 2)


def to_bytes(private, vector):
    return paillier.ciphertexts_to_bytes(private.public, vector)


def add_to_plaintext(private, payload, position, amount):
    """Change a plaintext without any key: multiply the ciphertext by (1 + n)^amount."""
    n = private.public.n
    vector = ciphertexts(private, payload)
    vector[position] = vector[position] * (1 + mpz(amount) * n) % (n * n)
    return to_bytes(private, vector)


# ---------------------------------------------------------------------- tags (S11)
def test_honest_sum_opens(combiner, opener, payloads, listed):
    total = opener.open(combiner.combine(payloads), LABEL, listed, None)
    assert np.array_equal(total, 3 * (np.arange(SPEC.length) % 7))


def test_tag_field_is_the_prf_of_the_agreed_key(private, clients, authority, payloads, layout):
    plaintexts = private.decrypt(ciphertexts(private, payloads[1]))
    key = authority.agree(clients[1].public, tag_info(LABEL, nonce(1)))
    assert [int(m >> layout.low_bits) for m in plaintexts] == prf_words(key, 2, layout.tag_bits).tolist()
    assert layout.tag_bits >= 40


def test_payload_counted_twice_is_refused(combiner, opener, payloads, listed):
    twice = combiner.combine({0: payloads[0], 1: payloads[0]})
    for survivors in (listed[:2], listed[:1], [listed[0], listed[0]]):
        with pytest.raises(OpeningRefusedError):
            opener.open(twice, LABEL, survivors, None)


def test_payload_under_another_index_is_refused(combiner, opener, payloads, listed):
    stolen = combiner.combine({0: payloads[0], 1: payloads[1], 2: payloads[1]})
    with pytest.raises(OpeningRefusedError):
        opener.open(stolen, LABEL, listed, None)


def test_scaled_ciphertext_is_refused(private, opener, payloads, listed):
    n_squared = private.public.n**2
    tripled = to_bytes(private, [pow(c, 3, n_squared) for c in ciphertexts(private, payloads[0])])
    with pytest.raises(OpeningRefusedError):
        opener.open(tripled, LABEL, listed[:1], None)


def test_ciphertexts_in_another_order_are_refused(private, opener, payloads, listed):
    swapped = to_bytes(private, ciphertexts(private, payloads[0])[::-1])
    with pytest.raises(OpeningRefusedError):
        opener.open(swapped, LABEL, listed[:1], None)


def test_too_many_survivors_are_refused(combiner, opener, payloads, listed, clients):
    more = [*listed, *(Contribution(p, clients[p % 5].public, nonce(p)) for p in (3, 4))]
    with pytest.raises(OpeningRefusedError, match="too long"):
        opener.open(combiner.combine(payloads), LABEL, more, None)


def test_refusal_gives_no_detail(private, combiner, opener, payloads, listed, layout):
    hidden = combiner.combine(payloads)
    texts = set()
    for bad in (
        add_to_plaintext(private, hidden, 0, 1 << layout.low_bits),  # tag
        add_to_plaintext(private, hidden, 1, 1 << (layout.slot_bits * (layout.slots - 1))),  # padding
    ):
        with pytest.raises(OpeningRefusedError) as refusal:
            opener.open(bad, LABEL, listed, None)
        texts.add(str(refusal.value))
    assert len(texts) == 1
    assert not any(character.isdigit() for text in texts for character in text)


# ---------------------------------------------------------------------- unused slots
@pytest.mark.parametrize("amount", [1, -1, 4])
@pytest.mark.parametrize("slot", ["first unused", "last"])
def test_every_unused_slot_is_checked(private, combiner, opener, payloads, listed, layout, slot, amount):
    position = SPEC.length - layout.slots if slot == "first unused" else layout.slots - 1
    shifted = amount << (layout.slot_bits * position) if amount > 0 else -(1 << (layout.slot_bits * position))
    with pytest.raises(OpeningRefusedError):
        opener.open(add_to_plaintext(private, combiner.combine(payloads), 1, shifted), LABEL, listed, None)


def test_offset_in_a_used_slot_is_not_detected(private, combiner, opener, payloads, listed):
    # Documented: whoever touches the hidden sum can add a number of its own choice, which tells it nothing.
    changed = add_to_plaintext(private, combiner.combine(payloads), 0, 5)
    assert opener.open(changed, LABEL, listed, None)[0] == 5


def test_overflow_of_a_slot_spoils_its_neighbour_and_the_last_one_is_refused(
    private, combiner, opener, payloads, listed, layout
):
    # Documented: a carry between used slots cannot be seen; one out of the last slot changes the tag.
    hidden, one_slot = combiner.combine(payloads), 1 << layout.slot_bits
    assert opener.open(add_to_plaintext(private, hidden, 0, one_slot), LABEL, listed, None)[1] == 3 * 1 + 1
    with pytest.raises(OpeningRefusedError):
        opener.open(add_to_plaintext(private, hidden, 0, 1 << layout.low_bits), LABEL, listed, None)


# ---------------------------------------------------------------------- what is bound
@pytest.mark.parametrize("changed", ["nonce", "label", "encryption"])
def test_nonce_label_and_key_are_bound(combiner, opener, payloads, listed, clients, changed):
    label, survivors = LABEL, list(listed)
    if changed == "label":
        label = sha256(b"another label").digest()
    elif changed == "nonce":
        survivors[2] = Contribution(2, clients[2].public, nonce(2, draw=1))
    else:
        survivors[2] = Contribution(2, clients[3].public, nonce(2))
    with pytest.raises(OpeningRefusedError):
        opener.open(combiner.combine(payloads), label, survivors, None)


def test_another_authority_cannot_check_tags(private, combiner, payloads, listed):
    stranger = PaillierOpener(private, SPEC, EncryptionKey.generate())
    with pytest.raises(OpeningRefusedError):
        stranger.open(combiner.combine(payloads), LABEL, listed, None)


def test_payload_for_another_key_is_refused(combiner, opener, payloads, listed, clients, authority):
    other = paillier.generate(1024, insecure_key_bits_for_tests=True)
    protector = PaillierProtector(other.public, SPEC, authority.public, clients[2])
    payloads[2] = protector.protect(np.zeros(SPEC.length, np.int64), LABEL, nonce(2))
    with pytest.raises((CiphertextError, OpeningRefusedError)):
        opener.open(combiner.combine(payloads), LABEL, listed, None)


@pytest.mark.parametrize(("label", "nonce_"), [(b"", bytes(32)), (bytes(32), bytes(31)), (bytes(33), bytes(31))])
def test_label_and_nonce_are_32_bytes(private, clients, authority, label, nonce_):
    protector = PaillierProtector(private.public, SPEC, authority.public, clients[0])
    with pytest.raises(CodecError, match="32 bytes each"):
        protector.protect(np.zeros(SPEC.length, np.int64), label, nonce_)


# ---------------------------------------------------------------------- secrecy of payloads
def test_equal_updates_give_unrelated_ciphertexts(private, clients, authority):
    values = np.zeros(SPEC.length, np.int64)
    seen = set()
    for party in (0, 1):
        protector = PaillierProtector(private.public, SPEC, authority.public, clients[party])
        for draw in (0, 0, 1):
            seen.update(ciphertexts(private, protector.protect(values, LABEL, nonce(party, draw))))
    assert len(seen) == 2 * 3 * 2


def test_same_client_gets_new_tags_with_a_new_nonce(private, clients, authority, layout):
    protector = PaillierProtector(private.public, SPEC, authority.public, clients[0])
    values = np.zeros(SPEC.length, np.int64)
    tags = set()
    for draw in (0, 1):
        vector = ciphertexts(private, protector.protect(values, LABEL, nonce(0, draw)))
        tags.update(int(m >> layout.low_bits) for m in private.decrypt(vector))
    assert len(tags) == 4


# ---------------------------------------------------------------------- malformed
@pytest.mark.parametrize("bad", [0, "n", "n squared"])
def test_numbers_outside_the_group_are_refused(private, combiner, opener, payloads, bad):
    n = int(private.public.n)
    number = {"n": n, "n squared": n * n}.get(bad, 0)
    size = private.public.ciphertext_bytes
    payload = number.to_bytes(size, "big") + payloads[0][size:]
    for refuse in (combiner.check, lambda p: combiner.combine({0: p}), lambda p: opener.open(p, LABEL, [], None)):
        with pytest.raises((CiphertextError, OpeningRefusedError)):
            refuse(payload)


def test_nothing_to_combine(combiner):
    with pytest.raises(CiphertextError, match="no encrypted vector"):
        combiner.combine({})


def test_payload_bytes_is_the_size_on_the_wire(combiner, payloads):
    assert {len(payload) for payload in payloads.values()} == {combiner.payload_bytes}
    assert len(combiner.combine(payloads)) == combiner.payload_bytes


# ---------------------------------------------------------------------- sizes (S13)
@given(st.integers(1, 2**40), st.integers(1, 60000), st.integers(0, 2**50))
def test_slot_holds_the_worst_sum_and_no_bit_more(max_abs, parties, tail):
    worst = parties * 2 * max_abs + 2 * tail
    bits = SumSpec(1, max_abs, parties, tail).slot_bits
    assert 2 ** (bits - 1) <= worst < 2**bits


@given(
    max_abs=st.integers(1, 2**31 - 1),
    parties=st.integers(1, 5),
    tail=st.integers(0, 2**35),
    signs=st.lists(st.sampled_from([-1, 1]), min_size=4, max_size=4),
    noise_signs=st.lists(st.sampled_from([-1, 1]), min_size=4, max_size=4),
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_carry_at_the_extremes(private, clients, authority, max_abs, parties, tail, signs, noise_signs):
    layout = SlotLayout.plan(1024, SumSpec(1, max_abs, parties, tail).slot_bits, parties)
    length = min(layout.slots + 1, 24)
    spec = SumSpec(length, max_abs, parties, tail)
    extreme = np.resize(np.array(signs, np.int64), length)
    noise = np.resize(np.array(noise_signs, np.int64), length) * tail
    protectors = [PaillierProtector(private.public, spec, authority.public, key) for key in clients[:parties]]
    payloads = {i: p.protect(extreme * max_abs, LABEL, nonce(i)) for i, p in enumerate(protectors)}
    survivors = [Contribution(i, clients[i].public, nonce(i)) for i in range(parties)]
    hidden = PaillierCombiner(private.public, spec, "authority").combine(payloads)
    total = PaillierOpener(private, spec, authority).open(hidden, LABEL, survivors, lambda count: noise)
    assert np.array_equal(total, extreme * max_abs * parties + noise)


def test_bytes_per_value_meets_the_budget():
    public = paillier.PublicKey(mpz(2) ** 3071 + 1, mpz(2))  # sizes only: nothing is encrypted
    combiner = PaillierCombiner(public, SumSpec(1_000_000, Codec(bits=16).max_abs, 10), "authority")
    slots = SlotLayout.plan(3072, 20, 10).slots
    assert combiner.payload_bytes == math.ceil(1_000_000 / slots) * 768
    assert combiner.payload_bytes / 1_000_000 <= 5.1


def test_values_too_wide_for_a_slot_are_refused(private, clients, authority):
    spec = SumSpec(4, 2**60, 10)
    for make in (
        lambda: PaillierProtector(private.public, spec, authority.public, clients[0]),
        lambda: PaillierCombiner(private.public, spec, "authority"),
        lambda: PaillierOpener(private, spec, authority),
    ):
        with pytest.raises(ConfigError, match="lower slot_bits"):
            make()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length": 0}, "no array that can be summed"),
        ({"max_abs": 0}, "needs max_abs, .* >= 1"),
        ({"max_parties": 0}, "needs .*max_parties .* >= 1"),
        ({"max_multiplier": 0}, "needs .*max_multiplier >= 1"),
        ({"noise_tail": -1}, "noise_tail >= 0"),
    ],
)
def test_spec_out_of_range(changes, message):
    settings_ = {"length": 1, "max_abs": 1, "max_parties": 1, "noise_tail": 0} | changes
    with pytest.raises(ConfigError, match=message):
        SumSpec(**settings_)
