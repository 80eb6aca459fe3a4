"""Why the hidden orders of keys with fast opening have twice the bits of the security level: √α steps factor n.

A giant-step baby-step search without a table, as one cannot look up numbers modulo an unknown p. With
F(X) = Π_{j<m} (X - g^j) modulo n, and g of order α modulo p, F(g^e) is 0 modulo p for every e with e - α in [0, m).
F has m + 1 coefficients, which the q-binomial theorem gives, and one multiplication of polynomials (Bluestein's) takes
it to all of the e = start + i·m at once. With orders of 36 bits and a modulus of 512 it took 10 seconds on one core.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from gmpy2 import gcd, invert, mpz, powmod

from flbc.crypto import paillier
from flbc.crypto.paillier_subgroup import order_bits

TOP_BITS = 3  # of α are known: they are set


def factor(n: mpz, g: mpz, bits: int) -> mpz | None:
    """Return a prime factor of n modulo which g has an order of `bits` bits."""
    m = 1 << (bits - TOP_BITS + 1) // 2
    points = (1 << (bits - TOP_BITS)) // m + 1
    start, step = powmod(g, mpz(7) << (bits - TOP_BITS), n), powmod(g, m, n)
    # F at start·step^i, with i·k = T(i + k) - T(i) - T(k) and T(x) = x(x - 1) / 2; step^-T(i) changes no gcd.
    down = triangular(invert(step, n), m + 1, n)
    scaled, power = [], mpz(1)
    for coefficient, factor_ in zip(coefficients(g, m, n), down, strict=True):
        scaled.append(coefficient * power * factor_ % n)
        power = power * start % n
    values = product(scaled[::-1], triangular(step, m + points, n), n)[m : m + points]
    for i, value in enumerate(values):
        found = gcd(value, n)
        if found == n:  # the orders modulo both primes are among these m: one by one
            last = (7 << (bits - TOP_BITS)) + i * m
            found = next(f for e in range(last - m + 1, last + 1) if (f := gcd(powmod(g, e, n) - 1, n)) > 1)
        if 1 < found < n:
            return found
    return None


def coefficients(g: mpz, m: int, n: mpz) -> list[mpz]:
    """Those of Π_{j<m} (X - g^j), the lowest first: for X^(m-k), (-1)^k g^(k(k-1)/2) times the q-binomial of m, k."""
    powers = [mpz(1)]
    for _ in range(m):
        powers.append(powers[-1] * g % n)
    found = [mpz(1)]
    for k in range(m):
        ratio = powers[k] * (1 - powers[m - k]) * invert(1 - powers[k + 1], n)
        found.append(-found[-1] * ratio % n)
    return found[::-1]


def triangular(base: mpz, count: int, n: mpz) -> list[mpz]:
    """base^(x(x-1)/2) for x from 0."""
    found, power = [mpz(1)], mpz(1)
    while len(found) < count:
        found.append(found[-1] * power % n)
        power = power * base % n
    return found


def product(a: Sequence[mpz], b: Sequence[mpz], n: mpz) -> list[mpz]:
    """Of two polynomials modulo n, by one multiplication of long integers."""
    size = (2 * n.bit_length() + max(len(a), len(b)).bit_length() + 7) // 8
    left, right = (mpz.from_bytes(b"".join(x.to_bytes(size, "little") for x in v), "little") for v in (a, b))
    raw = (left * right).to_bytes(size * (len(a) + len(b)), "little")
    return [mpz.from_bytes(raw[i : i + size], "little") % n for i in range(0, len(raw), size)]


@pytest.mark.parametrize("bits", [24, 28])
def test_weak_form_small_orders_factor_the_modulus(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flbc.crypto.paillier_subgroup._TEST_ORDER_BITS", bits)
    key = paillier.generate(512, fast_opening=True, insecure_key_bits_for_tests=True)
    assert factor(key.public.n, key.public.hs % key.public.n, bits) in key.primes()


@pytest.mark.parametrize(("modulus", "level"), [(2048, 112), (3072, 128), (4096, 152)])
def test_the_search_takes_more_steps_than_the_security_level_says(modulus: int, level: int) -> None:
    """Although it may skip even numbers (one bit) and multiples of 3, 5, 7 (two), and has two orders to find (one)."""
    assert (order_bits(modulus) - TOP_BITS - 1 - 2 - 1) / 2 >= level
