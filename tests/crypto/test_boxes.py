"""Sealed boxes: HPKE as RFC 9180 has it, and all the ways in which a box must not open."""

import hmac
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from flbc.crypto.boxes import OVERHEAD, seal, unseal
from flbc.crypto.keystream import EncryptionKey
from flbc.errors import VerificationError

VECTORS = Path(__file__).parent.parent / "vectors" / "boxes.json"
KEY = EncryptionKey.generate()
INFO = b"label, sender, recipient"
PLAIN = bytes(range(33))
BOX = seal(KEY.public, INFO, PLAIN)

REFUSAL = "^the box does not open: it was changed or sealed for another purpose or key$"


# ---------------------------------------------------------------------- HPKE written out from the RFC, as the oracle
KEM_SUITE = b"KEM\x00\x20"  # section 4.1
SUITE = b"HPKE\x00\x20\x00\x01\x00\x03"  # section 5.1: KEM, KDF and AEAD


def extract(suite, salt, label, ikm):
    """LabeledExtract of section 4."""
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + ikm, "sha256")


def expand(suite, prk, label, info, length):
    """LabeledExpand of section 4; no output here is longer than one block of HKDF-Expand."""
    data = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return hmac.digest(prk, data + b"\x01", "sha256")[:length]


def shared_secret(mine, theirs, enc, recipient):
    """Encap and Decap of section 4.1, whose secret halves differ."""
    dh = X25519PrivateKey.from_private_bytes(mine).exchange(X25519PublicKey.from_public_bytes(theirs))
    prk = extract(KEM_SUITE, b"", b"eae_prk", dh)
    return expand(KEM_SUITE, prk, b"shared_secret", enc + recipient, 32)


def key_schedule(shared, info):
    """KeySchedule of section 5.1 in base mode: key and base nonce, which is the nonce of the first message."""
    id_hash, info_hash = extract(SUITE, b"", b"psk_id_hash", b""), extract(SUITE, b"", b"info_hash", info)
    context = b"\x00" + id_hash + info_hash
    secret = extract(SUITE, shared, b"secret", b"")
    return expand(SUITE, secret, b"key", context, 32), expand(SUITE, secret, b"base_nonce", context, 12)


def oracle_seal(ephemeral, recipient, info, plaintext, associated_data=b""):
    enc = public_of(ephemeral)
    key, nonce = key_schedule(shared_secret(ephemeral, recipient, enc, recipient), info)
    return enc + ChaCha20Poly1305(key).encrypt(nonce, plaintext, associated_data)


def oracle_unseal(secret, info, box):
    enc, ciphertext = box[:32], box[32:]
    key, nonce = key_schedule(shared_secret(secret, enc, enc, public_of(secret)), info)
    return ChaCha20Poly1305(key).decrypt(nonce, ciphertext, b"")


def public_of(secret):
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


@pytest.fixture(scope="module")
def rfc():
    vector = json.loads(VECTORS.read_text("utf-8"))["rfc9180_a2"]
    return {name: bytes.fromhex(value) for name, value in vector.items() if name != "source"}


def test_oracle_is_the_rfcs(rfc):
    """The RFC's messages carry associated data, which our boxes have not: this ties the oracle to the RFC, and the
    next tests tie our boxes to the oracle."""
    enc, recipient = rfc["enc"], rfc["recipient_public"]
    assert public_of(rfc["ephemeral_secret"]) == enc
    assert public_of(rfc["recipient_secret"]) == recipient
    shared = shared_secret(rfc["ephemeral_secret"], recipient, enc, recipient)
    assert shared == shared_secret(rfc["recipient_secret"], enc, enc, recipient) == rfc["shared_secret"]
    assert key_schedule(shared, rfc["info"]) == (rfc["key"], rfc["base_nonce"])
    box = oracle_seal(rfc["ephemeral_secret"], recipient, rfc["info"], rfc["plaintext"], rfc["associated_data"])
    assert box == enc + rfc["ciphertext"]


def test_known_answer(rfc):
    """The keys and the info of the RFC's vector, with a box that has no associated data."""
    box = oracle_seal(rfc["ephemeral_secret"], rfc["recipient_public"], rfc["info"], rfc["plaintext"])
    # ChaCha20-Poly1305 has the same ciphertext whatever the associated data are; only the tag is another one.
    assert box[:-16] == (rfc["enc"] + rfc["ciphertext"])[:-16]
    assert unseal(EncryptionKey.from_bytes(rfc["recipient_secret"]), rfc["info"], box) == rfc["plaintext"]


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32), st.binary(), st.binary(max_size=200))
def test_oracle_and_boxes_open_each_other(secret, ephemeral, info, plaintext):
    key = EncryptionKey.from_bytes(secret)
    assert unseal(key, info, oracle_seal(ephemeral, key.public, info, plaintext)) == plaintext
    assert oracle_unseal(secret, info, seal(key.public, info, plaintext)) == plaintext


# ---------------------------------------------------------------------- what a box is
@pytest.mark.parametrize("length", [0, 1, 32, 66, 100_000])
def test_overhead(length):
    box = seal(KEY.public, INFO, bytes(length))
    assert len(box) == length + OVERHEAD
    assert unseal(KEY, INFO, box) == bytes(length)


def test_equal_contents_make_different_boxes():
    boxes = [seal(KEY.public, INFO, PLAIN) for _ in range(50)]
    assert len({box[:32] for box in boxes}) == len({box[32:] for box in boxes}) == 50


def test_info_and_contents_are_not_in_the_box():
    assert INFO not in BOX
    assert PLAIN[:8] not in BOX


# ---------------------------------------------------------------------- what must not open
def test_any_flipped_bit_is_noticed():
    """Ephemeral key (also its highest bit, which X25519 itself ignores), ciphertext and tag."""
    for place in range(8 * len(BOX)):
        forged = bytearray(BOX)
        forged[place // 8] ^= 1 << place % 8
        with pytest.raises(VerificationError, match=REFUSAL):
            unseal(KEY, INFO, bytes(forged))


def test_any_other_length_is_refused():
    for box in [*(BOX[:length] for length in range(len(BOX))), BOX + b"\0", b"\0" + BOX, BOX + BOX]:
        with pytest.raises(VerificationError, match=REFUSAL):
            unseal(KEY, INFO, box)


def test_box_belongs_to_one_key():
    with pytest.raises(VerificationError, match=REFUSAL):
        unseal(EncryptionKey.generate(), INFO, BOX)


@pytest.mark.parametrize("info", [b"", INFO[:-1], INFO + b"\0", INFO.upper(), bytes(len(INFO))])
def test_box_belongs_to_one_info(info):
    with pytest.raises(VerificationError, match=REFUSAL):
        unseal(KEY, info, BOX)


def test_a_box_sent_on_as_ones_own_does_not_open():
    """Mallory puts Alice's box for Bob into her own signed message, and waits for Bob to give its contents away."""
    box = seal(KEY.public, b"round 1, alice, bob", PLAIN)
    assert unseal(KEY, b"round 1, alice, bob", box) == PLAIN
    for expected in (b"round 1, mallory, bob", b"round 2, alice, bob", b"round 1, alice, carol"):
        with pytest.raises(VerificationError, match=REFUSAL):
            unseal(KEY, expected, box)


def test_parts_of_two_boxes_do_not_fit():
    other = seal(KEY.public, INFO, PLAIN)
    for cut in (32, len(BOX) - 16):
        with pytest.raises(VerificationError, match=REFUSAL):
            unseal(KEY, INFO, BOX[:cut] + other[cut:])


LOW_ORDER = [
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    2**255 - 20,
    2**255 - 19,
    2**255 - 18,
]


@pytest.mark.parametrize("point", LOW_ORDER, ids=["0", "1", "order 8", "order 8 twin", "p-1", "p", "p+1"])
def test_low_order_keys_are_refused(point):
    """The points of order 1, 2, 4 and 8 (https://cr.yp.to/ecdh.html, "validation"): their shared secret is zero."""
    data = point.to_bytes(32, "little")
    with pytest.raises(VerificationError, match="not usable: it must send a fresh one"):
        seal(data, INFO, PLAIN)
    # As an ephemeral key: the box of somebody who needs no secret to make it.
    key, nonce = key_schedule(
        expand(KEM_SUITE, extract(KEM_SUITE, b"", b"eae_prk", bytes(32)), b"shared_secret", data + KEY.public, 32), INFO
    )
    with pytest.raises(VerificationError, match=REFUSAL):
        unseal(KEY, INFO, data + ChaCha20Poly1305(key).encrypt(nonce, PLAIN, b""))


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_keys_of_another_length_are_refused(length):
    with pytest.raises(VerificationError, match=f"must be 32 bytes, not {length}"):
        seal(bytes(length), INFO, PLAIN)


def test_refusals_have_no_cause():
    """The library's own exception could say which check failed."""
    for box, key in ((BOX[:40], KEY), (BOX[:-1] + bytes([BOX[-1] ^ 1]), KEY), (BOX, EncryptionKey.generate())):
        with pytest.raises(VerificationError) as failure:
            unseal(key, INFO, box)
        assert failure.value.__cause__ is None
        assert failure.value.__suppress_context__
        assert len(failure.value.args) == 1


def test_types_come_first():
    for arguments in [(None, INFO, PLAIN), (KEY.public, "info", PLAIN), (KEY.public, INFO, "text")]:
        with pytest.raises(TypeError, match="must be bytes"):
            seal(*arguments)
    with pytest.raises(TypeError, match="key must be an EncryptionKey, not bytes"):
        unseal(KEY.to_bytes(), INFO, BOX)
    for arguments in [(KEY, None, BOX), (KEY, INFO, BOX.hex())]:
        with pytest.raises(TypeError, match="must be bytes"):
            unseal(*arguments)
    assert unseal(KEY, bytearray(INFO), memoryview(BOX)) == PLAIN
