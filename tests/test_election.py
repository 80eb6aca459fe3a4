import decimal
import random
from collections import Counter
from fractions import Fraction
from itertools import pairwise, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flbc.crypto.signing import keccak256
from flbc.election import Candidate, alpha, neg_log, public_draw, rank

SEED = bytes(range(32))
TOP = 2**64 - 1

draws = st.integers(0, TOP)
stakes = st.integers(0, 2**64 - 1)


def address(number):
    return number.to_bytes(20, "big")


def candidates_of(pairs):
    return [Candidate(i, address(1000 - i), stake, draw) for i, (stake, draw) in enumerate(pairs)]


tables = st.lists(st.tuples(stakes, draws), max_size=12).map(candidates_of)


# ---------------------------------------------------------------------- the logarithm
def series_neg_log(draw, bits=400):
    """-ln((draw+1)/2⁶⁴)·2⁵⁶ by an integer series: 64·ln 2 - ln(draw+1), each as a sum of inverse tangents."""

    def two_atanh(numerator, denominator):  # ln of (denominator + numerator) / (denominator - numerator)
        term = total = (numerator << bits) // denominator
        odd = 1
        while term:
            term = term * numerator * numerator // (denominator * denominator)
            odd += 2
            total += term // odd
        return 2 * total

    ln2 = two_atanh(1, 3)
    exponent = (draw + 1).bit_length() - 1
    power = 1 << exponent
    logarithm = exponent * ln2 + (two_atanh(draw + 1 - power, draw + 1 + power) if draw + 1 != power else 0)
    return (64 * ln2 - logarithm) >> (bits - 56)


KNOWN = {
    # by mpmath at 100 digits
    0: 3196577161300663914,
    1: 3146630643155341041,
    2: 3117413802998738369,
    12345678901234567890: 28937015913145190,
    2**63 - 1: 49946518145322873,
    2**64 - 300: 1,
    TOP - 1: 0,
    TOP: 0,
}


@pytest.mark.parametrize("draw", KNOWN)
def test_logarithm_known_answers(draw):
    assert neg_log(draw) == KNOWN[draw]


@given(draws)
def test_logarithm_agrees_with_an_integer_series(draw):
    assert neg_log(draw) == series_neg_log(draw)


@given(draws)
def test_logarithm_is_no_float(draw):
    # Whatever precision and traps the caller has set, the answer is the same.
    expected = neg_log(draw)
    traps = [decimal.Inexact, decimal.Rounded]
    with decimal.localcontext(decimal.Context(prec=3, rounding=decimal.ROUND_UP, traps=traps)):
        assert neg_log(draw) == expected
    assert type(expected) is int


@given(draws, draws)
def test_logarithm_falls(one, other):
    low, high = sorted((one, other))
    assert neg_log(low) >= neg_log(high) >= 0
    assert neg_log(low) <= neg_log(0) < 2**62


def test_pure_python_decimal_agrees():
    # libmpdec and CPython's pure Python twin are two implementations of one specification.
    import _pydecimal

    import flbc.election as election

    expected = [neg_log(draw) for draw in KNOWN]
    names = ("Context", "Decimal", "InvalidOperation")
    kept = {name: getattr(election, name) for name in names}
    try:
        for name in names:
            setattr(election, name, getattr(_pydecimal, name))
        assert [neg_log(draw) for draw in KNOWN] == expected
    finally:
        for name, value in kept.items():
            setattr(election, name, value)


# ---------------------------------------------------------------------- inputs
def test_alpha_and_public_draw_are_what_a_contract_encodes():
    assert alpha(SEED, 1) == keccak256(SEED + bytes(31) + b"\x01")
    assert alpha(SEED, 2**256 - 1) == keccak256(SEED + b"\xff" * 32)
    hashed = keccak256(SEED + bytes(12) + b"\xaa" * 20)
    assert public_draw(SEED, b"\xaa" * 20) == int.from_bytes(hashed[:8], "big")
    assert len({alpha(SEED, h) for h in range(1, 50)} | {alpha(SEED[::-1], h) for h in range(1, 50)}) == 98


def test_agrees_with_the_abi_encoder():
    abi = pytest.importorskip("eth_abi")
    assert alpha(SEED, 7) == keccak256(abi.encode(["bytes32", "uint256"], [SEED, 7]))
    hashed = keccak256(abi.encode(["bytes32", "address"], [SEED, "0x" + "c3" * 20]))
    assert public_draw(SEED, b"\xc3" * 20) == int.from_bytes(hashed[:8], "big")


@pytest.mark.parametrize(
    "call",
    [
        lambda: alpha(SEED[:31], 1),
        lambda: alpha(SEED, 0),
        lambda: alpha(SEED, -1),
        lambda: public_draw(SEED, bytes(19)),
        lambda: public_draw(bytes(33), bytes(20)),
        lambda: neg_log(-1),
        lambda: neg_log(2**64),
        lambda: Candidate(-1, bytes(20), 1, 1),
        lambda: Candidate(2**16, bytes(20), 1, 1),
        lambda: Candidate(0, bytes(21), 1, 1),
        lambda: Candidate(0, bytes(20), -1, 1),
        lambda: Candidate(0, bytes(20), 1, 2**64),
    ],
)
def test_values_out_of_range_are_refused(call):
    with pytest.raises(ValueError, match="must"):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: alpha("00" * 32, 1),
        lambda: alpha(SEED, 1.0),
        lambda: neg_log(1.0),
        lambda: Candidate(0, bytes(20), 1, True),
    ],
)
def test_types_come_first(call):
    with pytest.raises(TypeError, match="must be"):
        call()


# ---------------------------------------------------------------------- the order
@given(tables)
def test_order_is_by_exact_score_then_address(candidates):
    ranked = rank(candidates)
    assert sorted(c.index for c in ranked) == [c.index for c in candidates if c.stake > 0]
    for first, second in pairwise(ranked):
        left, right = neg_log(first.draw) * second.stake, neg_log(second.draw) * first.stake
        assert left < right or (left == right and first.address < second.address)


@given(tables, st.randoms(use_true_random=False))
def test_order_of_the_input_does_not_matter(candidates, shuffler):
    shuffled = list(candidates)
    shuffler.shuffle(shuffled)
    assert rank(shuffled) == rank(iter(candidates)) == rank(candidates)


@given(tables, st.data())
def test_who_leaves_does_not_change_the_others(candidates, data):
    ranked = rank(candidates)
    gone = data.draw(st.sets(st.integers(0, 11)))
    assert rank(c for c in candidates if c.index not in gone) == [c for c in ranked if c.index not in gone]


@given(tables.filter(lambda table: rank(table)), st.data())
def test_more_stake_or_a_higher_draw_never_hurts(candidates, data):
    one = data.draw(st.sampled_from(rank(candidates)))
    before = [c.index for c in rank(candidates)].index(one.index)
    stake, draw = data.draw(st.integers(one.stake, 2**64 - 1)), data.draw(st.integers(one.draw, TOP))
    better = Candidate(one.index, one.address, stake, draw)
    ranked = rank([better if c == one else c for c in candidates])
    assert ranked.index(better) <= before


def test_no_stake_no_candidate():
    assert rank([]) == rank(candidates_of([(0, TOP)])) == []
    assert [c.index for c in rank(candidates_of([(0, TOP), (1, 0), (0, 5)]))] == [1]


def test_ties_go_to_the_lower_address():
    tied = [Candidate(i, address(number), 5, 77) for i, number in enumerate((9, 3, 6))]
    for order in permutations(tied):
        assert [c.index for c in rank(order)] == [1, 2, 0]
    # equal as fractions, though neither stakes nor draws are equal: both logarithms are 0
    near = [Candidate(0, address(2), 1, TOP), Candidate(1, address(1), 9, TOP - 3)]
    assert [c.index for c in rank(near)] == [1, 0]


def test_scores_closer_than_a_float_are_told_apart():
    huge = 2**63 - 1  # stakes that differ in the last bit, far below a float's 53 bits
    first, second = Candidate(0, address(1), huge, 12345), Candidate(1, address(2), huge + 1, 12345)
    assert float(first.score) == float(second.score)
    assert [c.index for c in rank([first, second])] == [1, 0]
    assert first.score == Fraction(neg_log(12345), huge)


def test_a_party_counts_once():
    with pytest.raises(ValueError, match="same address"):
        rank([Candidate(0, address(1), 1, 1), Candidate(1, address(1), 1, 2)])
    with pytest.raises(ValueError, match="same index"):
        rank([Candidate(0, address(1), 1, 1), Candidate(0, address(2), 1, 2)])


# ---------------------------------------------------------------------- the lottery
def wins(stakes_by_party, races, order=rank, seed=2026):
    source = random.Random(seed)
    tally = Counter()
    for _ in range(races):
        race = [Candidate(i, address(i), stake, source.getrandbits(64)) for i, stake in enumerate(stakes_by_party)]
        tally[order(race)[0].index] += 1
    return tally


def chi_square(tally, shares, races):
    return sum((tally[i] - races * share) ** 2 / (races * share) for i, share in enumerate(shares))


def test_three_times_the_stake_wins_three_times_as_often():
    races = 6000
    tally = wins([1, 3], races)
    # 3.84 is the 5 % point of chi-square with one degree of freedom; the seed is fixed.
    assert chi_square(tally, [1 / 4, 3 / 4], races) < 3.84
    assert 2.7 < tally[1] / tally[0] < 3.3


def test_many_parties_win_by_their_share():
    stakes_by_party, races = [10**9, 2 * 10**9, 3 * 10**9, 4 * 10**9, 0], 5000
    tally = wins(stakes_by_party, races)
    assert tally[4] == 0
    assert chi_square(tally, [0.1, 0.2, 0.3, 0.4], races) < 7.81  # 5 % point, three degrees of freedom


def test_splitting_a_stake_gains_nothing():
    races = 2000
    tally = wins([6, 1, 1, 1, 1, 1, 1], races)
    assert chi_square({0: tally[0], 1: races - tally[0]}, [1 / 2, 1 / 2], races) < 3.84


def test_draw_over_stake_is_not_proportional():
    """S22: with U/stake, a stake of 3 against 1 wins 5/6 of the races, five times as often instead of three."""

    def naive(race):
        return sorted(race, key=lambda c: Fraction(c.draw, c.stake))

    races = 6000
    tally = wins([1, 3], races, naive)
    assert chi_square(tally, [1 / 4, 3 / 4], races) > 100
    assert chi_square(tally, [1 / 6, 5 / 6], races) < 3.84


def test_the_second_place_is_a_lottery_among_the_rest():
    def runner_up(race):
        first, *rest = rank(race)
        return rest if first.index == 2 else [first]  # count only races that party 2 won

    races = 6000
    tally = wins([1, 3, 4], races, runner_up)
    assert 2.6 < (tally[1] / tally[0]) < 3.4


def test_public_draws_are_uniform():
    counts = Counter(public_draw(SEED, address(i)) >> 60 for i in range(4000))
    assert chi_square(counts, [1 / 16] * 16, 4000) < 25.0  # 5 % point, 15 degrees of freedom
