import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flbc.codec import exact
from flbc.errors import CodecError

bits_ = st.integers(8, 32)
numbers = st.floats(-exact.LARGEST, exact.LARGEST)


@given(bits_, st.lists(numbers, max_size=8))
def test_round_trip_within_the_resolution(bits, values):
    values = np.array(values, np.float64)
    digits = exact.split(values, bits)
    assert digits.dtype == np.int64
    assert digits.shape == (len(values) * exact.limbs(bits),)
    assert np.all(np.abs(digits) < 2 ** (bits - 1))
    assert np.all(np.abs(exact.join(digits, bits) - values) <= exact.RESOLUTION / 2)


@given(bits_, st.lists(st.integers(-(2**44) + 1, 2**44 - 1), min_size=1, max_size=40))
def test_sum_of_digits_is_the_sum_of_numbers(bits, fixed):
    digits = [exact.split(np.array([number * exact.RESOLUTION]), bits) for number in fixed]
    assert exact.join(sum(digits), bits).tolist() == [sum(fixed) * exact.RESOLUTION]


@pytest.mark.parametrize(("bits", "expected"), [(8, 7), (12, 4), (16, 3), (23, 2), (32, 2)])
def test_limbs(bits, expected):
    assert exact.limbs(bits) == expected


def test_known_digits():
    # 1.5 = 98304 / 2^16, and 98304 = 3 * 32768 + 0
    assert exact.split(np.array([1.5, -1.5]), 16).tolist() == [0, 3, 0, 0, -3, 0]


@pytest.mark.parametrize("bits", range(8, 33))
@pytest.mark.parametrize("sign", [1, -1])
def test_largest_number_survives(bits, sign):
    values = np.array([sign * exact.LARGEST])
    assert exact.join(exact.split(values, bits), bits).tolist() == values.tolist()


@pytest.mark.parametrize("value", [2.0**28, -(2.0**28), np.nextafter(2.0**28, 0), 1e300, np.inf, np.nan])
@pytest.mark.parametrize("bits", [8, 12, 16, 23, 32])
def test_too_large_is_an_error_that_says_what_to_do(bits, value):
    with pytest.raises(CodecError, match=r"exceeds 268,435,456; report metrics as means"):
        exact.split(np.array([0.0, value]), bits)


def test_nothing_to_split():
    assert exact.split(np.zeros(0), 16).shape == (0,)
    assert exact.join(np.zeros(0, np.int64), 16).shape == (0,)
