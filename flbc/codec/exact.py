"""Numbers whose sum must be exact: weights, metrics and integer buffers.

A coordinate of the summed vector is a signed integer of ``bits`` bits, too small for a data-set size. So such a number
is written as a fixed-point integer with :data:`FRACTION_BITS` fractional bits, split into balanced digits to the base
2^(bits-1); digits are summed one by one, and the sum of the numbers is the sum of the digits times their powers.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..errors import CodecError

FRACTION_BITS = 16
#: Bits of magnitude, fraction included: numbers up to 2^28 (268 million) with a resolution of 1.5e-5.
MAGNITUDE_BITS = 44
#: Difference of two neighbouring numbers.
RESOLUTION = 2.0**-FRACTION_BITS
#: Largest magnitude.
LARGEST = 2.0 ** (MAGNITUDE_BITS - FRACTION_BITS) - RESOLUTION


def limbs(bits: int) -> int:
    """Return how many coordinates one number takes: 3 at 16 bits."""
    return math.ceil(MAGNITUDE_BITS / (bits - 1))


def split(values: NDArray[np.float64], bits: int) -> NDArray[np.int64]:
    """Write numbers as digits.

    Parameters
    ----------
    values : ndarray of float64, shape (n,)
        Finite numbers of at most :data:`LARGEST` in magnitude.
    bits : int
        Bits of a coordinate, sign included.

    Returns
    -------
    ndarray of int64, shape (n * limbs(bits),)
        Digits, least significant first, each below 2^(bits-1) in magnitude.

    Raises
    ------
    CodecError
        If a number is too large.
    """
    if not np.all(np.abs(values) <= LARGEST):
        raise CodecError(
            f"A weight, metric or integer buffer times its weight exceeds {LARGEST:,.0f}; "
            "report metrics as means and not as sums"
        )
    fixed = np.rint(values * 2.0**FRACTION_BITS).astype(np.int64)
    sign, rest, digit_bits = np.sign(fixed), np.abs(fixed), bits - 1
    digits = np.empty((len(fixed), limbs(bits)), np.int64)
    for i in range(digits.shape[1]):
        digits[:, i] = sign * (rest & ((1 << digit_bits) - 1))
        rest >>= digit_bits
    return digits.reshape(-1)


def join(digits: NDArray[np.int64], bits: int) -> NDArray[np.float64]:
    """Return the numbers, shape (n,), whose summed digits are ``digits``, shape (n * limbs(bits),)."""
    # Python integers: at 32 bits the sum of a few digits times their powers already exceeds int64.
    powers = np.array([1 << (i * (bits - 1)) for i in range(limbs(bits))], dtype=object)
    totals = digits.reshape(-1, limbs(bits)).astype(object) @ powers
    return np.array([total / 2**FRACTION_BITS for total in totals], np.float64)
