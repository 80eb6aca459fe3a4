import copy
import hmac
import pickle
from hashlib import sha256, sha512
from itertools import islice

import coincurve
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flbc.crypto.group import (
    INFINITY,
    ORDER,
    FixedBase,
    GroupKey,
    WeightedSum,
    add,
    decode_scalar,
    encode_points,
    encode_scalar,
    hash_to_curve,
    multiply,
    negate,
    nonzero_scalar,
    parse_point,
    parse_points,
    parse_sums,
    product_terms,
    random_shares,
    scalar_stream,
)
from flbc.crypto.keystream import EncryptionKey, keystream
from flbc.errors import CiphertextError

FIELD = 2**256 - 2**32 - 977  # SEC 2, version 2.0, section 2.4.1
G = parse_point(bytes.fromhex("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"), "G")
LABEL = sha256(b"label").digest()

few = settings(max_examples=25)
scalars = st.one_of(st.integers(0, ORDER - 1), st.sampled_from([0, 1, 2, 255, 256, ORDER - 1, ORDER - 256]))
small = st.integers(-300, 300)


# ---------------------------------------------------------------------- an oracle in integers (SEC 1, section 2.2.1)
Affine = tuple[int, int] | None


def affine(point):
    return None if point is None else point.point()


def plus(a: Affine, b: Affine) -> Affine:
    if a is None or b is None:
        return a or b
    if a[0] == b[0] and (a[1] + b[1]) % FIELD == 0:
        return None
    slope = 3 * a[0] ** 2 * pow(2 * a[1], -1, FIELD) if a == b else (b[1] - a[1]) * pow(b[0] - a[0], -1, FIELD)
    x = (slope**2 - a[0] - b[0]) % FIELD
    return x, (slope * (a[0] - x) - a[1]) % FIELD


def times(number: int, point: Affine) -> Affine:
    total: Affine = None
    for bit in bin(number % ORDER)[2:]:
        total = plus(total, total)
        total = plus(total, point) if bit == "1" else total
    return total


def of(number: int):
    return multiply(G, number)


# ---------------------------------------------------------------------- sums and products
@given(scalars)
@few
def test_products_are_the_textbooks(number):
    expected = times(number, G.point())
    assert affine(of(number)) == expected
    assert affine(add(FixedBase(G, 0).terms(number))) == expected
    assert affine(add(product_terms(G, random_shares(number)))) == expected


def test_shares_of_a_secret_are_new_each_time():
    split = [random_shares(5) for _ in range(20)]
    assert all((a + b) % ORDER == 5 for a, b in split)
    assert len({share for shares in split for share in shares}) == 40


def test_order_is_the_groups():
    assert of(ORDER) is None
    assert of(ORDER + 1) == G
    assert of(-1) == negate(G)


@pytest.fixture(scope="module")
def table():
    return FixedBase(G, 10**6)


@given(scalars)
def test_table_of_any_scalar(table, number):
    assert len(table._rows) == 32
    assert add(table.terms(number)) == of(number)


@pytest.mark.parametrize("uses", [0, 10**6])
def test_table_of_small_numbers(uses):
    table = FixedBase(G, uses, 2)
    assert len(table._rows) == (2 if uses else 0)
    for number in (0, 1, 255, 256, 257, 511, 65279, 65535):
        assert add(table.terms(number)) == of(number)
    with pytest.raises(OverflowError):
        FixedBase(G, 10**6, 2).terms(65536)


def test_add_knows_infinity():
    assert add([]) is None
    assert add([G]) == G
    assert add([G, G]) == of(2)
    assert add([G, negate(G)]) is None
    assert add([G, negate(G), G]) == G
    assert add([of(2), of(3), of(-5)]) is None


@given(st.lists(st.tuples(scalars | small, small | st.integers(0, ORDER)), min_size=1, max_size=12))
@few
def test_weighted_sum(terms):
    total = WeightedSum([factor for _, factor in terms])([of(number) for number, _ in terms])
    assert total == of(sum(number * factor for number, factor in terms))


@pytest.mark.parametrize("factors", [(1, 1, 1), (303, 294, 46), (0, 5, 0), (2**40, 1, 3), (0, 0, 0)])
def test_weighted_sum_of_points_that_are_infinite(factors):
    weigh = WeightedSum(factors)
    assert weigh([None, None, None]) is None
    assert weigh([G, None, of(7)]) == of(factors[0] + 7 * factors[2])
    assert weigh([G, of(2), None]) == of(factors[0] + 2 * factors[1])


def test_weighted_sum_that_passes_through_infinity():
    # Horner's rule has 1·2·G - 1·2·G in between: 3·G + 3·(-G) + 1·G.
    assert WeightedSum([3, 3, 1])([G, negate(G), G]) == G
    assert WeightedSum([3, 3])([G, negate(G)]) is None


def test_few_bits_take_horners_rule_and_many_take_products():
    assert WeightedSum([303, 294, 46, 1, 27])._digits is not None
    assert WeightedSum([2**31] * 5)._digits is None
    assert WeightedSum([1])._digits is not None
    assert WeightedSum([])([]) is None


# ---------------------------------------------------------------------- bytes
def test_points_round_trip():
    points = [G, of(2), of(-7)]
    assert list(parse_points(encode_points(points), 3, "v")) == points
    sums = [G, None, of(5), None]
    data = encode_points(sums)
    assert data[33:66] == data[-33:] == INFINITY
    assert list(parse_sums(data, 4, "v")) == sums


def not_on_the_curve() -> bytes:
    """An x for which x^3 + 7 is no square."""
    x = next(x for x in range(1, 99) if pow(x**3 + 7, (FIELD - 1) // 2, FIELD) != 1)
    return b"\2" + x.to_bytes(32, "big")


uncompressed = G.format(compressed=False)
BAD = {
    "off the curve": not_on_the_curve(),
    "infinity": INFINITY,
    "x is the prime": b"\2" + FIELD.to_bytes(32, "big"),
    "x beyond the prime": b"\2" + (FIELD + 1).to_bytes(32, "big"),
    "uncompressed, cut": uncompressed[:33],
    "hybrid, cut": b"\6" + uncompressed[1:33],
    "other hybrid, cut": b"\7" + uncompressed[1:33],
    "no such form": b"\5" + uncompressed[1:33],
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
@pytest.mark.parametrize("index", [0, 2])
def test_malformed_points_are_named(bad, index):
    parts = [G.format()] * 3
    parts[index] = bad
    with pytest.raises(CiphertextError, match=rf"^the vector: point {index} is not 33 bytes of a compressed point"):
        list(parse_points(b"".join(parts), 3, "the vector"))
    if bad != INFINITY:
        with pytest.raises(CiphertextError, match=f"point {index}"):
            list(parse_sums(b"".join(parts), 3, "the vector"))
    with pytest.raises(CiphertextError, match="the key is not 33 bytes"):
        parse_point(bad, "the key")
    with pytest.raises(CiphertextError, match="the peer's group key"):
        GroupKey.generate().agree(bad, b"")


@pytest.mark.parametrize("whole", [b"", b"\2", uncompressed, b"\6" + uncompressed[1:], b"\7" + uncompressed[1:]])
def test_points_of_another_length(whole):
    # The library itself reads 65 bytes.
    with pytest.raises(CiphertextError, match="33 bytes"):
        parse_point(whole, "p")
    with pytest.raises(CiphertextError, match="33 bytes"):
        GroupKey.generate().agree(whole, b"")


@pytest.mark.parametrize("size", [0, 32, 65, 67, 99])
def test_vector_of_another_length_is_refused_at_once(size):
    for parse in (parse_points, parse_sums):
        with pytest.raises(CiphertextError, match=f"v has {size} bytes, expected 66"):
            parse(bytes(size), 2, "v")


@given(st.binary(max_size=70))
def test_parsing_is_strict(data):
    """Property: bytes are refused, or they are the encoding of what was read."""
    try:
        points = list(parse_sums(data, 1, "v"))
    except CiphertextError:
        return
    assert encode_points(points) == data


def test_scalars_in_bytes():
    assert decode_scalar(encode_scalar(-5), "s") == ORDER - 5
    for bad in (bytes(32), ORDER.to_bytes(32, "big"), b"\xff" * 32, b"\1", bytes(31) + b"\1\1"):
        with pytest.raises(CiphertextError, match="the scalar is not 32 bytes of a number between 1"):
            decode_scalar(bad, "the scalar")


def test_wide_bytes_reduce_to_scalars():
    assert nonzero_scalar(bytes(64)) == 1
    assert nonzero_scalar((ORDER - 2).to_bytes(64, "big")) == ORDER - 1
    assert nonzero_scalar((ORDER - 1).to_bytes(64, "big")) == 1


# ---------------------------------------------------------------------- streams and bases
def test_scalar_stream_is_the_keystream():
    key = bytes(range(32))
    stream = keystream(key, 48 * 1100)  # longer than one internal block
    expected = [int.from_bytes(stream[at : at + 48], "big") for at in range(0, len(stream), 48)]
    assert list(islice(scalar_stream(key), 1100)) == expected


def test_bases_by_an_independent_construction():
    def base(index):
        for counter in range(256):
            message = b"flbc/group/base/1" + LABEL + index.to_bytes(8, "big") + bytes([counter])
            digest = sha512(message).digest()
            x = int.from_bytes(digest[:32], "big")
            y = pow(x**3 + 7, (FIELD + 1) // 4, FIELD)
            if x < FIELD and (y * y - x**3 - 7) % FIELD == 0:
                return x, y if y % 2 == digest[32] % 2 else FIELD - y
        raise AssertionError

    points = [point.point() for point in hash_to_curve(LABEL, 40)]
    assert points == [base(index) for index in range(40)]
    assert {y % 2 for _, y in points} == {0, 1}


def test_bases_depend_on_label_and_index():
    other = sha256(b"another label").digest()
    encoded = {point.format()[1:] for label in (LABEL, other) for point in hash_to_curve(label, 50)}
    assert len(encoded) == 100
    with pytest.raises(ValueError, match="label must be 32 bytes"):
        next(hash_to_curve(b"short", 1))


# ---------------------------------------------------------------------- keys
def test_derived_key_known_construction():
    encryption = EncryptionKey.from_bytes(bytes(range(32)))
    prk = hmac.digest(bytes(32), encryption.to_bytes(), "sha256")  # RFC 5869, written out
    one = hmac.digest(prk, b"flbc/group/key/1\1", "sha256")
    two = hmac.digest(prk, one + b"flbc/group/key/1\2", "sha256")
    secret = int.from_bytes(one + two, "big") % (ORDER - 1) + 1
    assert GroupKey.derive(encryption).public == encode_points([of(secret)])
    assert GroupKey.derive(EncryptionKey.generate()).public != GroupKey.derive(encryption).public


def test_agreement_known_construction():
    alice, bob = GroupKey(coincurve.PrivateKey(encode_scalar(11))), GroupKey(coincurve.PrivateKey(encode_scalar(13)))
    ikm = sha256(of(11 * 13).format()).digest()
    low, high = sorted((alice.public, bob.public))
    prk = hmac.digest(bytes(32), ikm, "sha256")
    one = hmac.digest(prk, b"info" + low + high + b"\1", "sha256")
    two = hmac.digest(prk, one + b"info" + low + high + b"\2", "sha256")
    assert alice.agree(bob.public, b"info") == bob.agree(alice.public, b"info") == one
    assert alice.agree(bob.public, b"info", 64) == bob.agree(alice.public, b"info", 64) == one + two
    for length in (31, 65):
        with pytest.raises(ValueError, match="length"):
            alice.agree(bob.public, b"", length)


def test_agreement_is_bound_to_info_and_both_parties():
    alice, bob, carol = (GroupKey.generate() for _ in range(3))
    derived = {alice.agree(bob.public, b"1"), alice.agree(bob.public, b"2"), alice.agree(carol.public, b"1")}
    assert len(derived) == 3
    # Of P and of -P the shared x is the same, and the keys must not be.
    assert alice.agree(encode_points([negate(parse_point(bob.public, ""))]), b"1") not in derived


def test_division_by_the_secret():
    key = GroupKey.generate()
    public = parse_point(key.public, "")
    quotients = list(key.divide([public, None, multiply(public, 7), multiply(public, -1)]))
    assert quotients == [G, None, of(7), of(-1)]


def test_keys_stay_secret():
    secret = 0x1234567890ABCDEF << 128 | 0xFEDCBA
    key = GroupKey(coincurve.PrivateKey(encode_scalar(secret)))
    assert key.public.hex() in repr(key)
    assert not any(form in f"{key!r}{key}" for form in (str(secret), f"{secret:x}"))
    assert not hasattr(key, "__dict__")
    for escape in (pickle.dumps, copy.copy, copy.deepcopy, lambda k: k.__getstate__()):
        with pytest.raises(TypeError, match="holds a secret"):
            escape(key)


def test_keys_are_made_from_keys():
    with pytest.raises(TypeError, match="derive"):
        GroupKey(bytes(32))
    with pytest.raises(TypeError, match="must be an EncryptionKey"):
        GroupKey.derive(bytes(32))
