"""Shamir's sharing: what any `threshold` shares give, that fewer give nothing, and who is caught lying."""

import secrets as randomness

import gmpy2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flbc.crypto import shamir
from flbc.crypto.keystream import EncryptionKey
from flbc.crypto.shamir import MAX_HOLDER, PRIME, SECRET_BYTES, SHARE_BYTES, combine, recover, split
from flbc.errors import ConfigError, ProtocolError, VerificationError

SECRET = bytes(range(32))

thirty_two_bytes = st.one_of(st.binary(min_size=32, max_size=32), st.sampled_from([bytes(32), b"\xff" * 32]))
holder_sets = st.lists(st.integers(1, MAX_HOLDER), min_size=1, max_size=9, unique=True)


# ---------------------------------------------------------------------- an independent oracle: Python's integers
def number(data):
    return int.from_bytes(data, "big")


def encode(value):
    return (value % PRIME).to_bytes(33, "big")


def evaluate(coefficients, x):
    return sum(c * pow(x, k, PRIME) for k, c in enumerate(coefficients)) % PRIME


def through(points, at):
    """The value at a place of the polynomial through points, by Lagrange's formula as it stands in books."""
    total = 0
    for x, y in points.items():
        for other in points:
            if other != x:
                y = y * (at - other) * pow(x - other, -1, PRIME) % PRIME
        total += y
    return total % PRIME


def fits(secret):
    return lambda candidate: candidate == secret


def dealt(threshold, count, secret=SECRET):
    return split(secret, threshold, range(1, count + 1))


def broken(shares, *holders):
    """The shares with false ones, well-formed, for some holders."""
    return shares | {x: encode(number(shares[x]) + 1 + x * x) for x in holders}


# ---------------------------------------------------------------------- known answers
def test_the_prime_is_the_smallest_above_two_to_the_256():
    assert PRIME == 2**256 + 297
    assert gmpy2.is_prime(PRIME, 50)
    assert not any(gmpy2.is_prime(candidate) for candidate in range(2**256 + 1, PRIME))
    assert (SECRET_BYTES, SHARE_BYTES) == (32, 33)
    assert (PRIME - 1).bit_length() == 257  # one byte more than a secret


@pytest.mark.parametrize(
    ("secret", "coefficients", "values"),
    [
        # 1 + 2x + 3x², by hand
        (1, [2, 3], {1: 6, 2: 17, 3: 34, 10: 321}),
        # 1 - x, by hand: below zero it wraps
        (1, [PRIME - 1], {1: 0, 2: PRIME - 1, 3: PRIME - 2, MAX_HOLDER: PRIME + 2 - 2**32}),
        # 2^256 - 1 + x: above q it wraps
        (2**256 - 1, [1], {1: 2**256, 297: 2**256 + 296, 298: 0, 299: 1}),
        # a leading coefficient of zero is as good as any other
        (7, [0, 0], {1: 7, 2: 7, 5: 7}),
        # a threshold of one: everybody holds the secret
        (7, [], {1: 7, 9: 7}),
    ],
)
def test_known_answers(monkeypatch, secret, coefficients, values):
    drawn = iter(coefficients)
    monkeypatch.setattr(shamir.secrets, "randbelow", lambda _: next(drawn))
    shares = split(secret.to_bytes(32, "big"), len(coefficients) + 1, list(values))
    assert shares == {x: value.to_bytes(33, "big") for x, value in values.items()}
    assert combine(shares) == secret.to_bytes(32, "big")


def test_coefficients_are_the_operating_systems_and_uniform(monkeypatch):
    bounds = []

    def spy(bound):
        bounds.append(bound)
        return randomness.SystemRandom().randrange(bound)

    monkeypatch.setattr(shamir.secrets, "randbelow", spy)
    dealt(5, 9)
    assert bounds == [PRIME] * 4


def test_shares_differ_each_time():
    assert len({share for _ in range(20) for share in dealt(2, 3).values()}) == 60


# ---------------------------------------------------------------------- enough shares
@given(thirty_two_bytes, holder_sets, st.data())
def test_any_threshold_shares_recover(secret, holders, data):
    threshold = data.draw(st.integers(1, len(holders)))
    shares = split(secret, threshold, holders)
    assert list(shares) == sorted(holders)
    assert all(len(share) == 33 for share in shares.values())
    chosen = data.draw(st.permutations(holders))[: data.draw(st.integers(threshold, len(holders)))]
    given_shares = {x: shares[x] for x in chosen}
    assert through({x: number(share) for x, share in given_shares.items()}, 0) == number(secret)
    assert combine(given_shares) == secret
    assert recover(given_shares, threshold, fits(secret)) == (secret, frozenset())


@given(st.lists(st.integers(0, PRIME - 1), min_size=1, max_size=6), holder_sets)
def test_combining_is_evaluation_at_zero(coefficients, holders):
    coefficients = coefficients[: len(holders)]
    shares = {x: encode(evaluate(coefficients, x)) for x in holders}
    if coefficients[0] < 2**256:
        assert combine(shares) == coefficients[0].to_bytes(32, "big")
    else:
        with pytest.raises(VerificationError):
            combine(shares)


def test_many_holders():
    shares = dealt(67, 100)
    assert combine({x: shares[x] for x in range(34, 101)}) == SECRET
    assert recover(broken(shares, 40), 67, fits(SECRET)) == (SECRET, {40})


def test_what_is_cached_are_public_places():
    shamir._weights.cache_clear()
    for _ in range(3):
        combine({x: share for x, share in dealt(3, 5).items() if x > 2})
    info = shamir._weights.cache_info()
    assert (info.misses, info.hits) == (1, 2)
    # In any order of holders the weights are the same ones.
    combine(dict(reversed([(x, share) for x, share in dealt(3, 5).items() if x > 2])))
    assert shamir._weights.cache_info().misses == 1


# ---------------------------------------------------------------------- too few shares
@given(thirty_two_bytes, thirty_two_bytes, holder_sets.filter(lambda holders: len(holders) > 1))
def test_one_share_too_few_fits_every_secret(secret, other, holders):
    """Through the shares and any candidate there is one polynomial: the shares do not tell it from the truth."""
    *few, missing = holders
    shares = split(secret, len(holders), holders)
    known = {x: shares[x] for x in few}
    made_up = encode(through({0: number(other)} | {x: number(share) for x, share in known.items()}, missing))
    assert combine(known | {missing: made_up}) == other
    assert (made_up == shares[missing]) == (other == secret)


def test_all_polynomials_of_a_secret_are_drawn_alike(monkeypatch):
    """In a field of 5: whatever the secret, a share of two takes each value once over all draws."""
    monkeypatch.setattr(shamir, "_Q", gmpy2.mpz(5))
    seen = {}
    for secret in range(5):
        for draw in range(5):
            monkeypatch.setattr(shamir.secrets, "randbelow", lambda _, draw=draw: draw)
            seen.setdefault(secret, []).append(number(split(secret.to_bytes(32, "big"), 2, [1, 3])[3]))
    assert {tuple(sorted(values)) for values in seen.values()} == {(0, 1, 2, 3, 4)}


# ---------------------------------------------------------------------- liars
@given(st.integers(1, 6), st.integers(1, 3), st.data())
@settings(max_examples=60)
def test_one_liar_is_survived_and_named(threshold, spare, data):
    shares = dealt(threshold, threshold + spare)
    liar = data.draw(st.sampled_from(list(shares)))
    false = encode(number(shares[liar]) + data.draw(st.integers(1, PRIME - 1)))
    assert recover(shares | {liar: false}, threshold, fits(SECRET)) == (SECRET, {liar})


@pytest.mark.parametrize(
    "share", [b"", bytes(32), bytes(34), encode(PRIME - 1) + b"\0", PRIME.to_bytes(33, "big"), b"\xff" * 33]
)
def test_malformed_shares_are_set_aside_and_named(share):
    shares = dealt(3, 6)
    assert recover(shares | {2: share}, 3, fits(SECRET)) == (SECRET, {2})
    assert recover(broken(shares, 1) | {2: share, 5: share}, 3, fits(SECRET)) == (SECRET, {1, 2, 5})
    with pytest.raises(ProtocolError, match="3 well-formed shares are needed and 2 came"):
        recover({x: shares[x] for x in (1, 2, 3)} | {2: share}, 3, fits(SECRET))


def test_liars_beyond_the_ones_that_are_used_are_named_too():
    assert recover(broken(dealt(3, 8), 5, 7, 8), 3, fits(SECRET)) == (SECRET, {5, 7, 8})
    assert recover(broken(dealt(3, 8), 2, 7, 8), 3, fits(SECRET)) == (SECRET, {2, 7, 8})


def test_two_liars_among_those_used_are_an_error():
    for liars in [(1, 2), (2, 4), (1, 4)]:
        with pytest.raises(VerificationError, match="more than one of them is wrong"):
            recover(broken(dealt(3, 4), *liars), 3, fits(SECRET))


def test_without_a_spare_share_a_liar_is_an_error():
    with pytest.raises(VerificationError, match="do not fit"):
        recover(broken(dealt(3, 3), 2), 3, fits(SECRET))


def test_shares_of_another_secret_are_an_error_at_once():
    """They all lie on one polynomial, so that leaving any out is not even tried."""
    asked = []
    with pytest.raises(VerificationError, match="the dealer dealt wrong ones"):
        recover(dealt(3, 7), 3, lambda candidate: bool(asked.append(candidate)))
    assert asked == [SECRET]


def test_work_is_bounded_whatever_is_sent():
    for threshold in (1, 4, 20):
        asked = []
        everybody = range(1, 41)
        with pytest.raises(VerificationError):
            recover(
                broken(dealt(threshold, 40), *everybody),
                threshold,
                lambda candidate, asked=asked: bool(asked.append(candidate)),
            )
        assert len(asked) <= threshold + 1


def test_what_is_no_secret_is_not_offered():
    """Shares of a number between 2^256 and q: no 32 bytes to ask about."""
    shares = {x: encode(evaluate([2**256, 5], x)) for x in (1, 2, 3)}
    with pytest.raises(VerificationError, match="do not fit"):
        recover(shares, 2, lambda _: pytest.fail("asked"))
    with pytest.raises(VerificationError, match="do not belong to one secret"):
        combine(shares)


def test_a_loose_test_lets_a_liar_name_others():
    """X25519 ignores five bits of a secret: a public key alone does not say which of 32 secrets was shared."""
    key = EncryptionKey.generate()
    secret, public, twin_bit = key.to_bytes(), key.public, 1 << 248  # the lowest bit of the little-endian first byte
    shares = split(secret, 2, [1, 2, 3, 4])
    # At 0 the share of holder 1 counts 2/(2 - 1) times: half the bit there moves the secret by the bit.
    shares[1] = encode(number(shares[1]) + twin_bit // 2)

    def loose(candidate):
        return EncryptionKey.from_bytes(candidate).public == public

    def strict(candidate):
        return not candidate[0] & 7 and candidate[31] & 192 == 64 and loose(candidate)

    twin, framed = recover(shares, 2, loose)
    assert twin != secret
    assert framed == {3, 4}
    assert recover(shares, 2, strict) == (secret, {1})


def test_a_test_that_fails_is_not_swallowed():
    def failing(_):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        recover(dealt(2, 3), 2, failing)


# ---------------------------------------------------------------------- refusals
@pytest.mark.parametrize("holders", [[0, 1], [1, 2, 0], [-1, 2], [1, 2**32], [1, PRIME + 1], [PRIME, 1]])
def test_places_out_of_range_are_refused(holders):
    """Holder 0 would get the secret itself, and holders that are equal modulo q have one share."""
    with pytest.raises(ConfigError, match="between 1 and 4294967295"):
        split(SECRET, 2, holders)
    with pytest.raises(ProtocolError, match="between 1 and 4294967295"):
        combine(dict.fromkeys(holders, bytes(33)))
    with pytest.raises(ProtocolError, match="between 1 and 4294967295"):
        recover(dict.fromkeys(holders, bytes(33)), 1, fits(SECRET))


def test_duplicate_holders_are_refused():
    with pytest.raises(ConfigError, match="name each one once"):
        split(SECRET, 2, [3, 4, 3])


@pytest.mark.parametrize("threshold", [-1, 0, 4, 2**40])
def test_thresholds_out_of_range_are_refused(threshold):
    with pytest.raises(ConfigError, match="between 1 and the number of holders, which is 3"):
        split(SECRET, threshold, [1, 2, 3])
    with pytest.raises(ProtocolError):
        recover(dealt(3, 3), threshold, fits(SECRET))


def test_nobody_to_share_with_and_nothing_to_combine():
    with pytest.raises(ConfigError, match="which is 0"):
        split(SECRET, 1, [])
    with pytest.raises(ProtocolError, match="no share was given"):
        combine({})
    with pytest.raises(ProtocolError, match="2 well-formed shares are needed and 0 came"):
        recover({}, 2, fits(SECRET))


@pytest.mark.parametrize("share", [b"", bytes(32), bytes(34), PRIME.to_bytes(33, "big"), b"\xff" * 33])
def test_malformed_shares_are_refused(share):
    with pytest.raises(ProtocolError, match="share of holder 2 is not 33 bytes"):
        combine(dealt(2, 2) | {2: share})


def test_largest_share_is_one():
    assert combine({1: encode(-1), 2: encode(-2)}) == bytes(32)  # the polynomial -x


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_secrets_of_another_length_are_refused(length):
    with pytest.raises(ValueError, match=f"a secret must be 32 bytes, not {length}"):
        split(bytes(length), 1, [1])


def test_types_come_first():
    with pytest.raises(TypeError, match="a secret must be bytes, not str"):
        split("s" * 32, 1, [1])
    for wrong in (1.0, True, "1", None):
        with pytest.raises(TypeError, match=f"threshold must be an int, not {type(wrong).__name__}"):
            split(SECRET, wrong, [1])
        with pytest.raises(TypeError, match=f"threshold must be an int, not {type(wrong).__name__}"):
            recover(dealt(1, 1), wrong, fits(SECRET))
        with pytest.raises(TypeError, match=f"a holder must be an int, not {type(wrong).__name__}"):
            split(SECRET, 1, [wrong])
        with pytest.raises(TypeError, match=f"a holder must be an int, not {type(wrong).__name__}"):
            combine({wrong: bytes(33)})
    for ask in (lambda shares: combine(shares), lambda shares: recover(shares, 1, fits(SECRET))):
        with pytest.raises(TypeError, match="a share must be bytes, not int"):
            ask({1: 5})


def test_errors_hold_no_share_and_no_secret():
    shares = dealt(3, 4)
    attempts = [
        lambda: split(SECRET + b"\1", 1, [1]),
        lambda: split(SECRET, 9, [1]),
        lambda: combine({1: shares[1], 2: shares[2] + b"\1"}),
        lambda: combine({x: encode(evaluate([2**256, number(SECRET)], x)) for x in (1, 2)}),
        lambda: recover(broken(shares, 1, 2), 3, fits(SECRET)),
        lambda: recover(shares, 5, fits(SECRET)),
    ]
    for attempt in attempts:
        with pytest.raises(ValueError) as failure:  # noqa: PT011 each message is tested above
            attempt()
        text = repr(failure.value)
        for secret in (SECRET, *shares.values()):
            assert secret.hex() not in text
            assert str(number(secret)) not in text
            assert repr(secret)[2:20] not in text
