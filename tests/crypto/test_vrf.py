import json
import secrets
from pathlib import Path

import coincurve
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from flbc.crypto import ecvrf, vrf
from flbc.crypto.signing import CURVE_ORDER, SigningKey, address_of
from flbc.errors import VerificationError

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "vrf.json").read_text("utf-8"))
KEY = SigningKey.from_bytes(bytes(31) + b"\x07")
ALPHA = bytes(range(32))
PI = vrf.prove(KEY, ALPHA)

secret_keys = st.integers(1, CURVE_ORDER - 1).map(lambda n: n.to_bytes(32, "big"))


class Weierstrass:
    """y² = x³ + ax + b over the integers modulo p, p = 3 mod 4: textbook formulas, the oracle."""

    def __init__(self, suite, p, a, b, order, generator):
        self.suite, self.p, self.a, self.b, self.order, self.generator = suite, p, a, b, order, generator

    def decode(self, data):
        x = int.from_bytes(data[1:], "big")
        if len(data) != 33 or data[0] not in (2, 3) or x >= self.p:
            raise ValueError
        square = (x**3 + self.a * x + self.b) % self.p
        y = pow(square, (self.p + 1) // 4, self.p)
        if y * y % self.p != square:
            raise ValueError
        return (x, y) if y % 2 == data[0] % 2 else (x, self.p - y)

    def encode(self, point):
        if point is None:
            raise ValueError
        return bytes([2 + point[1] % 2]) + point[0].to_bytes(32, "big")

    def add(self, left, right):
        if left is None or right is None:
            return left or right
        (x1, y1), (x2, y2), p = left, right, self.p
        if x1 == x2 and (y1 + y2) % p == 0:
            return None
        slope = (3 * x1 * x1 + self.a) * pow(2 * y1, -1, p) if x1 == x2 else (y2 - y1) * pow(x2 - x1, -1, p)
        x = (slope * slope - x1 - x2) % p
        return x, (slope * (x1 - x) - y1) % p

    def multiply(self, scalar, point):
        result = None
        for bit in f"{scalar % self.order:b}":
            result = self.add(result, result)
            result = self.add(result, point) if bit == "1" else result
        return result

    def product(self, secret, point=None):
        return self.multiply(int.from_bytes(secret, "big"), point or self.generator)

    def response(self, nonce, challenge, secret):
        number = int.from_bytes
        return ((number(nonce, "big") + challenge * number(secret, "big")) % self.order).to_bytes(32, "big")

    def difference(self, s, a, c, b):
        return self.add(self.multiply(s, a or self.generator), self.multiply(-c, b))


P256 = Weierstrass(  # SEC 2, section 2.4.2
    0x01,
    2**256 - 2**224 + 2**192 + 2**96 - 1,
    -3,
    0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
    0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    (
        0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
        0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
    ),
)
K256 = Weierstrass(  # SEC 2, section 2.4.1
    0xFE,
    2**256 - 2**32 - 977,
    0,
    7,
    CURVE_ORDER,
    (
        0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
        0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
    ),
)


# ---------------------------------------------------------------------- known answers
@pytest.mark.parametrize("vector", VECTORS["rfc9381_p256_sha256_tai"]["vectors"], ids=["10", "11", "12"])
def test_rfc_9381_vectors(vector):
    value = {name: bytes.fromhex(text) for name, text in vector.items() if name != "counter"}
    assert P256.encode(P256.product(value["secret"])) == value["public"]
    candidates = ecvrf.encode_to_curve(P256, value["public"], value["alpha"])
    assert candidates[-1] == value["h"]
    assert len(candidates) == vector["counter"] + 1
    assert ecvrf.rfc6979_nonce(P256.order, value["secret"], value["h"]) == value["k"]
    assert P256.encode(P256.product(value["k"])) == value["u"]
    assert P256.encode(P256.product(value["k"], P256.decode(value["h"]))) == value["v"]
    assert ecvrf.prove(P256, value["secret"], value["alpha"]) == value["pi"]
    assert ecvrf.beta_of(P256, value["pi"]) == value["beta"]
    assert ecvrf.verify(P256, value["public"], value["alpha"], value["pi"]) == value["beta"]


@pytest.mark.parametrize("vector", VECTORS["secp256k1_sha256_tai"]["vectors"])
def test_answers_of_another_implementation(vector):
    value = {name: bytes.fromhex(text) for name, text in vector.items()}
    key = SigningKey.from_bytes(value["secret"])
    assert key.public == value["public"]
    assert vrf.prove(key, value["alpha"]) == value["pi"]
    beta = vrf.verify(key.public, value["alpha"], value["pi"])
    assert beta == vrf.beta_of(value["pi"]) == value.get("beta", beta)


@pytest.mark.parametrize("vector", VECTORS["rfc6979_p256_sha256"]["vectors"], ids=["sample", "test"])
def test_rfc_6979_nonces(vector):
    secret = bytes.fromhex(VECTORS["rfc6979_p256_sha256"]["secret"])
    assert ecvrf.rfc6979_nonce(P256.order, secret, vector["message"].encode()).hex() == vector["k"]


@hypothesis_settings(max_examples=8)
@given(secret_keys, st.binary(max_size=80))
def test_agrees_with_the_textbook_curve(secret, alpha):
    key = SigningKey.from_bytes(secret)
    pi = vrf.prove(key, alpha)
    assert pi == ecvrf.prove(K256, secret, alpha)
    assert vrf.verify(key.public, alpha, pi) == ecvrf.verify(K256, key.public, alpha, pi)


def test_nonce_outside_the_group_is_drawn_again():
    # An order of 2^252 refuses 15 of 16 candidates, so the loop that a real order never enters runs.
    nonces = {ecvrf.rfc6979_nonce(1 << 252, bytes(31) + b"\x05", bytes([i])) for i in range(20)}
    assert len(nonces) == 20
    assert all(0 < int.from_bytes(nonce, "big") < 1 << 252 for nonce in nonces)


# ---------------------------------------------------------------------- properties
@given(secret_keys, st.binary(max_size=100))
def test_proof_verifies_and_is_deterministic(secret, alpha):
    key = SigningKey.from_bytes(secret)
    pi = vrf.prove(key, alpha)
    assert len(pi) == ecvrf.PROOF_BYTES == 81
    assert pi == vrf.prove(key, alpha)
    assert vrf.verify(key.public, alpha, pi) == vrf.beta_of(pi)
    assert len(vrf.beta_of(pi)) == 32


def test_outputs_differ_by_input_and_by_key():
    keys = [SigningKey.generate() for _ in range(10)]
    betas = {vrf.beta_of(vrf.prove(key, bytes([i]))) for key in keys for i in range(10)}
    assert len(betas) == 100


def test_draw_is_the_first_64_bits():
    assert vrf.draw_of(bytes(range(32))) == 0x0001020304050607
    assert vrf.draw_of(b"\xff" * 32) == 2**64 - 1


def schnorr(secret, alpha, gamma, nonce):
    """Make the (c, s) that an owner would send for any Gamma, with a nonce of its choice."""
    public = K256.encode(K256.product(secret))
    h = ecvrf.encode_to_curve(K256, public, alpha)[-1]
    u, v = K256.encode(K256.product(nonce)), K256.encode(K256.product(nonce, K256.decode(h)))
    c = ecvrf._challenge(K256, public, h, gamma, u, v)
    return gamma + c.to_bytes(16, "big") + K256.response(nonce, c, secret)


def test_another_nonce_gives_another_proof_of_the_same_output():
    proofs = {schnorr(KEY.to_bytes(), ALPHA, PI[:33], secrets.token_bytes(31).rjust(32, b"\0")) for _ in range(5)}
    assert len(proofs | {PI}) == 6
    assert {vrf.verify(KEY.public, ALPHA, proof) for proof in proofs} == {vrf.beta_of(PI)}


def test_owner_cannot_prove_another_point():
    h = K256.decode(ecvrf.encode_to_curve(K256, KEY.public, ALPHA)[-1])
    gamma = K256.decode(PI[:33])
    others = [K256.add(gamma, K256.generator), K256.add(gamma, h), h, K256.generator, (gamma[0], K256.p - gamma[1])]
    for other in others:
        with pytest.raises(VerificationError):
            vrf.verify(KEY.public, ALPHA, schnorr(KEY.to_bytes(), ALPHA, K256.encode(other), b"\x11" * 32))


# ---------------------------------------------------------------------- refusals
@pytest.mark.parametrize("byte", range(81))
def test_any_flipped_bit_is_noticed(byte):
    for bit in range(8):
        forged = bytearray(PI)
        forged[byte] ^= 1 << bit
        with pytest.raises(VerificationError):
            vrf.verify(KEY.public, ALPHA, bytes(forged))


def test_proof_belongs_to_one_key_and_one_input():
    with pytest.raises(VerificationError, match="this key and input"):
        vrf.verify(SigningKey.generate().public, ALPHA, PI)
    with pytest.raises(VerificationError, match="this key and input"):
        vrf.verify(KEY.public, ALPHA[::-1], PI)
    with pytest.raises(VerificationError, match="this key and input"):
        vrf.verify(bytes([KEY.public[0] ^ 1]) + KEY.public[1:], ALPHA, PI)


NO_POINTS = {
    "infinity": b"\0",
    "padded infinity": bytes(33),
    "empty": b"",
    "x = 5 off the curve": b"\2" + (5).to_bytes(32, "big"),
    "x = 0 off the curve": b"\2" + bytes(32),
    "x = p + 1": b"\2" + (K256.p + 1).to_bytes(32, "big"),
    "another prefix": b"\5" + KEY.public[1:],
    "short": KEY.public[:32],
    "uncompressed": coincurve.PublicKey(KEY.public).format(compressed=False),
}


@pytest.mark.parametrize("point", NO_POINTS.values(), ids=NO_POINTS)
def test_what_is_no_point_is_refused(point):
    with pytest.raises(VerificationError, match="VRF key is no compressed point"):
        vrf.verify(point, ALPHA, PI)
    if len(point) == 33:
        with pytest.raises(VerificationError, match="point of the VRF proof is no compressed point"):
            vrf.verify(KEY.public, ALPHA, point + PI[33:])
        with pytest.raises(VerificationError, match="no compressed point"):
            vrf.beta_of(point + PI[33:])


@pytest.mark.parametrize(("c", "s"), [(0, 1), (1, 0), (0, 0), (1, CURVE_ORDER), (1, 2**256 - 1)])
def test_numbers_out_of_range_are_refused(c, s):
    forged = PI[:33] + c.to_bytes(16, "big") + s.to_bytes(32, "big")
    with pytest.raises(VerificationError, match="out of range"):
        vrf.verify(KEY.public, ALPHA, forged)
    with pytest.raises(VerificationError, match="out of range"):
        vrf.beta_of(forged)


def test_points_at_infinity_are_refused():
    # s = c·x makes U and V vanish: there is nothing to hash, so nothing is accepted.
    forged = PI[:33] + (3).to_bytes(16, "big") + (3 * 7).to_bytes(32, "big")
    with pytest.raises(VerificationError, match="not valid"):
        vrf.verify(KEY.public, ALPHA, forged)


@given(st.binary(max_size=100).filter(lambda data: len(data) != 81))
def test_other_lengths_are_refused(pi):
    with pytest.raises(VerificationError, match="81 bytes"):
        vrf.verify(KEY.public, ALPHA, pi)


def test_types_come_first():
    with pytest.raises(TypeError, match="key must be a SigningKey, not bytes"):
        vrf.prove(KEY.to_bytes(), ALPHA)
    with pytest.raises(TypeError, match="alpha must be bytes, not str"):
        vrf.prove(KEY, "alpha")
    for arguments in [(None, ALPHA, PI), (KEY.public, None, PI), (KEY.public, ALPHA, None)]:
        with pytest.raises(TypeError, match="must be bytes, not NoneType"):
            vrf.verify(*arguments)
        with pytest.raises(TypeError, match="must be bytes, not NoneType"):
            vrf.pack(*arguments)
    with pytest.raises(TypeError, match="pi must be bytes"):
        vrf.beta_of(PI.hex())
    with pytest.raises(ValueError, match="beta must be 32 bytes, not 8"):
        vrf.draw_of(bytes(8))
    with pytest.raises(TypeError, match="packed must be bytes"):
        vrf.unpack(None)


# ---------------------------------------------------------------------- secrets
def test_library_never_multiplies_a_point_by_the_bare_secret(monkeypatch):
    scalars = []
    multiply = coincurve.PublicKey.multiply

    def spy(point, scalar, update=False):
        scalars.append(bytes(scalar))
        return multiply(point, scalar, update)

    monkeypatch.setattr(coincurve.PublicKey, "multiply", spy)
    assert vrf.prove(KEY, ALPHA) == vrf.prove(KEY, ALPHA) == PI
    h = ecvrf.encode_to_curve(K256, KEY.public, ALPHA)[-1]
    assert len(set(scalars)) == 2 * 2 * 2  # two products, two shares each, fresh in each run
    assert not {KEY.to_bytes(), ecvrf.rfc6979_nonce(CURVE_ORDER, KEY.to_bytes(), h)} & set(scalars)


def test_errors_hold_no_secret(monkeypatch):
    monkeypatch.setattr(ecvrf, "_challenge", lambda *_: 0)
    with pytest.raises(ValueError, match="greater than 0") as failure:
        vrf.prove(SigningKey.generate(), ALPHA)
    assert len(failure.value.args[0]) < 140


# ---------------------------------------------------------------------- the form for the chain
@given(secret_keys, st.binary(min_size=32, max_size=32))
def test_packing_round_trips(secret, alpha):
    key = SigningKey.from_bytes(secret)
    pi = vrf.prove(key, alpha)
    packed = vrf.pack(key.public, alpha, pi)
    assert vrf.unpack(packed) == (key.public, pi)
    skipped = len(ecvrf.encode_to_curve(K256, key.public, alpha)) - 1
    assert len(packed) == vrf.PACKED_BYTES + 32 * skipped
    assert address_of(vrf.unpack(packed)[0]) == key.address


def test_layout_of_the_packed_form():
    packed = vrf.pack(KEY.public, ALPHA, PI)
    *skipped, h = ecvrf.encode_to_curve(K256, KEY.public, ALPHA)
    words = [int.from_bytes(packed[at : at + 32], "big") for at in range(176, len(packed), 32)]
    c, s = int.from_bytes(packed[128:144], "big"), int.from_bytes(packed[144:176], "big")
    y, gamma, h = K256.decode(KEY.public), K256.decode(PI[:33]), K256.decode(h)
    assert packed[:128] == b"".join(number.to_bytes(32, "big") for number in (*y, *gamma))
    assert PI[33:] == packed[128:176]
    assert (words[0], words[1]) == K256.difference(s, None, c, y)
    assert words[2] == h[1]
    assert (words[3], words[4]) == K256.multiply(s, h)
    assert (words[5], words[6]) == K256.multiply(c, gamma)
    assert words[7] * (words[5] - words[3]) % K256.p == 1
    for root, candidate in zip(words[8:], skipped, strict=True):
        assert root % 2 == 0
        assert (root**2 + int.from_bytes(candidate[1:], "big") ** 3 + 7) % K256.p == 0


def test_candidate_outside_the_field_has_a_zero_witness():
    assert vrf._witness(K256.p) == vrf._witness(2**256 - 1) == bytes(32)


def test_only_valid_proofs_are_packed():
    with pytest.raises(VerificationError, match="this key and input"):
        vrf.pack(KEY.public, ALPHA[::-1], PI)
    with pytest.raises(ValueError, match="alpha must be 32 bytes, not 31"):
        vrf.pack(KEY.public, ALPHA[:31], PI)


@pytest.mark.parametrize("length", [0, 1, 431, 433, 463, 432 + 32 * 256])
def test_packed_forms_of_other_lengths_are_refused(length):
    with pytest.raises(VerificationError, match=f"not {length}"):
        vrf.unpack(bytes(length))


@pytest.mark.parametrize("byte", [0, 31, 32, 63, 64, 127])
def test_packed_points_must_be_on_the_curve(byte):
    packed = bytearray(vrf.pack(KEY.public, ALPHA, PI))
    packed[byte] ^= 1
    with pytest.raises(VerificationError, match="not on the curve"):
        vrf.unpack(bytes(packed))
