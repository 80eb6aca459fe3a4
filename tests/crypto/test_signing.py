import pytest
from eth_account import Account
from hypothesis import given
from hypothesis import strategies as st

from flbc.crypto import signing
from flbc.crypto.signing import SigningKey, checksum_address, keccak256, parse_address, recover, verify
from flbc.errors import ConfigError, SignatureError

KEY = SigningKey.from_bytes(bytes(31) + b"\x07")
DIGEST = keccak256(b"a message")

secret_keys = st.integers(1, signing.CURVE_ORDER - 1).map(lambda n: n.to_bytes(32, "big"))
digests = st.binary(min_size=32, max_size=32)


def test_keccak_known_answers(vectors):
    for vector in vectors["keccak256"]["vectors"]:
        assert keccak256(bytes.fromhex(vector["data"])).hex() == vector["hash"]


def test_checksum_known_answers(vectors):
    for text in vectors["eip55"]["addresses"]:
        assert checksum_address(bytes.fromhex(text[2:])) == text
        assert parse_address(text).hex() == text[2:].lower()


def test_deterministic_nonce_known_answer(vectors):
    vector = vectors["rfc6979_secp256k1"]
    signature = SigningKey.from_bytes(bytes.fromhex(vector["secret"])).sign(bytes.fromhex(vector["digest"]))
    assert signature[:32].hex() == vector["r"]
    assert signature[32:64].hex() == vector["s"]


@given(secret_keys, digests)
def test_agrees_with_eth_account(secret, digest):
    ours = SigningKey.from_bytes(secret)
    theirs = Account.from_key(secret)
    assert checksum_address(ours.address) == theirs.address
    assert ours.sign(digest) == bytes(theirs.unsafe_sign_hash(digest).signature)
    assert Account._recover_hash(digest, signature=ours.sign(digest)) == theirs.address


@given(secret_keys, digests)
def test_signature_is_canonical_and_verifies(secret, digest):
    key = SigningKey.from_bytes(secret)
    signature = key.sign(digest)
    assert len(signature) == 65
    assert signature[64] in (27, 28)
    assert int.from_bytes(signature[32:64], "big") <= signing.CURVE_ORDER // 2
    assert recover(digest, signature) == key.address
    verify(digest, signature, key.address)


def test_public_key_hashes_to_the_address():
    import coincurve

    point = coincurve.PublicKey(KEY.public).format(compressed=False)
    assert keccak256(point[1:])[-20:] == KEY.address


def test_generated_keys_differ_and_reload():
    first, second = SigningKey.generate(), SigningKey.generate()
    assert first.to_bytes() != second.to_bytes()
    assert SigningKey.from_bytes(first.to_bytes()).address == first.address


def test_verify_refuses_another_address_and_another_digest():
    signature = KEY.sign(DIGEST)
    with pytest.raises(SignatureError, match="not made by"):
        verify(DIGEST, signature, SigningKey.generate().address)
    with pytest.raises(SignatureError):
        verify(keccak256(b"another message"), signature, KEY.address)


@given(st.integers(0, 64 * 8 - 1))
def test_any_flipped_bit_is_noticed(bit):
    signature = bytearray(KEY.sign(DIGEST))
    signature[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SignatureError):
        verify(DIGEST, bytes(signature), KEY.address)


def test_high_s_is_refused():
    # (r, n - s) with the other parity is the same ECDSA signature: accepting it would give each message two hashes.
    signature = KEY.sign(DIGEST)
    s = signing.CURVE_ORDER - int.from_bytes(signature[32:64], "big")
    twin = signature[:32] + s.to_bytes(32, "big") + bytes([55 - signature[64]])
    with pytest.raises(SignatureError, match="lower half"):
        recover(DIGEST, twin)


@pytest.mark.parametrize("v", [0, 1, 2, 26, 29, 255])
def test_other_recovery_bytes_are_refused(v):
    with pytest.raises(SignatureError, match="27 or 28"):
        recover(DIGEST, KEY.sign(DIGEST)[:64] + bytes([v]))


@pytest.mark.parametrize(
    ("r", "s"), [(0, 1), (1, 0), (signing.CURVE_ORDER, 1), (2**256 - 1, 1), (1, signing.CURVE_ORDER)]
)
def test_numbers_out_of_range_are_refused(r, s):
    with pytest.raises(SignatureError, match="out of range"):
        recover(DIGEST, r.to_bytes(32, "big") + s.to_bytes(32, "big") + b"\x1b")


def test_r_off_the_curve_is_refused():
    # 5³ + 7 = 132 is no square modulo the field's prime
    with pytest.raises(SignatureError, match="no public key"):
        recover(DIGEST, (5).to_bytes(32, "big") + (1).to_bytes(32, "big") + b"\x1b")


@given(st.binary(max_size=80).filter(lambda data: len(data) != 65))
def test_other_lengths_are_refused(signature):
    with pytest.raises(SignatureError, match="65 bytes"):
        recover(DIGEST, signature)


@given(st.binary(min_size=65, max_size=65))
def test_garbage_raises_or_recovers_somebody_else(signature):
    with pytest.raises(SignatureError):
        verify(DIGEST, signature, KEY.address)


def test_types_come_first():
    with pytest.raises(TypeError, match="digest must be bytes, not str"):
        KEY.sign("00" * 32)
    with pytest.raises(ValueError, match="digest must be 32 bytes, not 31"):
        KEY.sign(bytes(31))
    with pytest.raises(TypeError, match="signature must be bytes"):
        recover(DIGEST, None)
    with pytest.raises(TypeError, match="data must be bytes"):
        keccak256("text")
    with pytest.raises(TypeError, match="from_bytes"):
        SigningKey(b"\x01" * 32)


@pytest.mark.parametrize("secret", [bytes(32), signing.CURVE_ORDER.to_bytes(32, "big"), b"\xff" * 32])
def test_secret_out_of_range_is_refused(secret):
    with pytest.raises(ConfigError, match="between 1 and the order"):
        SigningKey.from_bytes(secret)


@given(st.binary(min_size=20, max_size=20))
def test_addresses_round_trip(address):
    text = checksum_address(address)
    assert parse_address(text) == parse_address(text.lower()) == parse_address("0x" + text[2:].upper()) == address


def test_wrong_checksum_is_refused():
    with pytest.raises(ConfigError, match="mistyped"):
        parse_address("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1Beaed")


@pytest.mark.parametrize(
    "text", ["", "0x", "5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "0x" + "g" * 40, "0x" + " 0" * 20]
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ConfigError, match="40 hex digits"):
        parse_address(text)
