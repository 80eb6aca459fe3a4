"""Paillier keys that open about five times faster, because all blindings lie in a small hidden subgroup.

After Jurik's thesis ("Extensions to the Paillier cryptosystem with applications to cryptological protocols", Aarhus
2003) and Ma, Han and Lei ("Optimized Paillier's cryptosystem with fast encryption and decryption", ACSAC 2021)::

    primes      p = 2αu + 1 and q = 2βv + 1, with secret primes α, β of `order_bits` and primes u, v of the rest
    blinding    hs = h^n modulo n², where h has the order αβ modulo n; a ciphertext of m is still (1 + mn) · hs^a
    opening     c^α = 1 + αmn modulo p², because hs^α = 1: an exponent of 264 bits instead of 1536, for 3072-bit keys

It opens nothing else. Modulo p² a unit is a product of a power of 1 + p, which holds the plaintext, and of a root of
unity of order p - 1, which is the blinding. The remainder of c^α modulo p is 1 exactly if the blinding lies in the
subgroup of order α, and then what is read is what textbook Paillier reads. Everything else, such as a textbook
ciphertext with its r^n, is refused; read without this check it would be garbage that tells about the key (of n² - 1:
the number αq + βp).

Assumption
    Beside composite residuosity: that powers of this hs with short exponents look like random n-th residues, although
    p - 1 and q - 1 have the secret factors α and β. Knowing either of them, or an exponent a with hs^a = 1 modulo one
    of the primes only, factors n; the generic search for one takes about the square root of α. Hence α has twice the
    bits of the security level (`flbc.crypto.paillier_keys`), and eight more, because its top three are fixed.
    Exponents are as long as for other keys, hence shorter than αβ, so that the short-exponent assumption is made here
    as it is there. In return public keys have one form, and no way is known to tell the kind of a key from it.
What a refusal tells
    Whether c modulo n lies in the subgroup of order αβ: nothing of a plaintext, as (1 + mn) is 1 modulo n. Whoever asks
    knows the answer beforehand: for products of ciphertexts under hs it is yes; for any other unit no, except with a
    chance of αβ / φ(n). Of the elements of small order, which could tell more, anybody knows -1 alone, and (-1)^α
    is -1 because α is odd; with prime u and v the next larger order is α. To reach the subgroup from outside takes
    exponents that are multiples of uv, and both halves must agree, so that no question can be put to one prime.
"""

from __future__ import annotations

import secrets

from gmpy2 import gcd, is_prime, mpz, powmod

from flbc.crypto.paillier_public import PRIME_ROUNDS

_ORDER_BITS = {2048: 232, 3072: 264, 4096: 312}
_TEST_ORDER_BITS = 128
_TOP = 7  # with the top three bits set in both factors, a product has its top two set


def order_bits(bits: int) -> int:
    """Return the bits of the secret orders α and β of a key whose modulus has `bits` bits."""
    return _ORDER_BITS.get(bits, _TEST_ORDER_BITS)


def subgroup_prime(bits: int) -> tuple[mpz, mpz]:
    """Draw a prime p = 2αu + 1 of ``bits / 2`` bits, the top two set; return p and the prime α.

    p is 3 modulo 4, because α and u are odd.
    """
    size = order_bits(bits)
    rest = _random_prime(bits // 2 - 1 - size)
    while True:
        order = _random_prime(size)  # the short one is redrawn: finding it takes a fraction of testing p
        candidate = 2 * order * rest + 1
        if is_prime(candidate, PRIME_ROUNDS):
            return candidate, order


def subgroup_base(p: mpz, q: mpz, alpha: mpz, beta: mpz) -> mpz:
    """Draw hs = h^n modulo n² for a random h of order αβ modulo n."""
    n = p * q
    while True:
        y = mpz(1 + secrets.randbelow(int(n) - 1))
        h = powmod(y, (p - 1) // alpha * ((q - 1) // beta), n)
        if gcd(h * (h - 1), n) == 1:  # else h is no unit, or its order lacks α or β: never happens at secure sizes
            return powmod(h, n, n * n)


def sound_orders(p: mpz, q: mpz, hs: mpz, orders: tuple[mpz, mpz], bits: int) -> bool:
    """Whether α and β are what `subgroup_prime` draws for these primes, and hs has exactly the order αβ.

    The primes are believed to be primes.
    """
    alpha, beta = orders
    return alpha != beta and all(
        order.bit_length() == order_bits(bits)
        and is_prime(order, PRIME_ROUNDS)
        and (prime - 1) % (2 * order) == 0
        and is_prime((prime - 1) // (2 * order), PRIME_ROUNDS)
        and powmod(hs, order, prime**2) == 1
        and hs % prime != 1
        for prime, order in ((p, alpha), (q, beta))
    )


def _random_prime(bits: int) -> mpz:
    while True:
        candidate = mpz(secrets.randbits(bits) | _TOP << (bits - 3) | 1)
        if is_prime(candidate, PRIME_ROUNDS):
            return candidate
