"""Shamir's secret sharing (Communications of the ACM 22(11), 1979) of 32 bytes, over the integers modulo q.

q is 2^256 + 297, the smallest prime above 2^256, so that every 32-byte string is a number modulo q. The dealer draws a
polynomial f of degree ``threshold - 1`` with f(0) = secret and gives f(x) to holder x.

Who learns what
    Any `threshold` holders get the secret. Fewer learn nothing at all, whatever they can compute: their shares fit
    every secret equally well. No assumption is needed but the random generator's.
What is not covered
    A share carries no proof. A false one makes another secret, so callers compare what they get with a public key or a
    commitment (`recover`). A share that is off the polynomial may be its holder's doing or the dealer's: only whoever
    kept what the dealer signed can tell the two apart.
Timing
    GMP's arithmetic is not constant time. The secrets that are shared here serve one attempt of one round.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from math import prod

from gmpy2 import invert, mpz

from flbc.crypto._checks import check_bytes
from flbc.errors import ConfigError, FlbcError, ProtocolError, VerificationError

SECRET_BYTES, SHARE_BYTES = 32, 33
#: Holders are numbers from 1 to this one.
MAX_HOLDER = (1 << 32) - 1
#: The smallest prime above 2^256.
PRIME = (1 << 256) + 297

_Q = mpz(PRIME)


def split(secret: bytes, threshold: int, holders: Sequence[int]) -> dict[int, bytes]:
    """Share a secret.

    Parameters
    ----------
    secret : bytes
        32 bytes, with any value.
    threshold : int
        How many shares open it: 1 to the number of holders.
    holders : sequence of int
        Distinct, from 1 to `MAX_HOLDER`. At 0 lies the secret itself.

    Returns
    -------
    dict of int to bytes
        For each holder a share of 33 bytes, big-endian, to be sent where nobody else reads it.

    Raises
    ------
    ConfigError
        If the threshold or the holders are out of range.
    """
    number = mpz.from_bytes(check_bytes("a secret", secret, SECRET_BYTES), "big")
    xs = _checked(holders, ConfigError)
    if not 1 <= _int("threshold", threshold) <= len(xs):
        raise ConfigError(f"a threshold must lie between 1 and the number of holders, which is {len(xs)}")
    # Every coefficient is uniform, zero included: a leading one that is never zero would rule secrets out.
    coefficients = [mpz(secrets.randbelow(PRIME)) for _ in range(threshold - 1)]
    shares = {}
    for x in xs:
        value = mpz(0)
        for coefficient in reversed(coefficients):
            value = (value + coefficient) * x % _Q
        shares[x] = ((value + number) % _Q).to_bytes(SHARE_BYTES, "big")
    return shares


def combine(shares: Mapping[int, bytes]) -> bytes:
    """Return the secret that lies on the polynomial through all the given shares.

    Parameters
    ----------
    shares : mapping of int to bytes
        By holder, exactly as many as the threshold says. One too few gives a random result, and so does a false one;
        one too many is harmless if it is right.

    Returns
    -------
    bytes
        32 bytes. Nothing here says that they are the right ones: see `recover`.

    Raises
    ------
    ProtocolError
        If there is no share, or a share or a holder is out of range.
    VerificationError
        If the result is no secret: a share is wrong or belongs to another one.
    """
    xs = _checked(shares, ProtocolError)
    if not xs:
        raise ProtocolError("no share was given: pass as many as the threshold says")
    values = []
    for x in xs:
        value = _value(shares[x])
        if value is None:
            raise ProtocolError(f"the share of holder {x} is not {SHARE_BYTES} bytes of a number modulo the prime")
        values.append(value)
    secret = _as_secret(_interpolate(xs, values, 0))
    if secret is None:
        raise VerificationError("the shares do not belong to one secret: pass those of one dealer and round")
    return secret


def recover(shares: Mapping[int, bytes], threshold: int, fits: Callable[[bytes], bool]) -> tuple[bytes, frozenset[int]]:
    """Return the secret although one share may be false, and say which shares are.

    Malformed shares are set aside first. Then the `threshold` lowest holders are tried, and if their secret does not
    fit, the lowest ``threshold + 1`` without each of them in turn. One false share is therefore always survived, given
    one share more than the threshold; two are if at most one of them is among these. The work is bounded:
    ``threshold + 1`` calls of `fits`, and ``O(threshold²)`` products for the first secret of the same holders.

    Parameters
    ----------
    shares : mapping of int to bytes
        By holder, at least `threshold` of them.
    threshold : int
        What the secret was split with.
    fits : callable
        Says whether 32 bytes are the secret, for example by its public key or a commitment to it. It must accept one
        value only: with a second one a liar moves the polynomial, and honest holders are named instead. An X25519
        secret has 31 twins with its public key, which differ in the bits that RFC 7748 sets itself.

    Returns
    -------
    secret : bytes
        32 bytes for which `fits` said yes.
    wrong : frozenset of int
        Holders whose shares do not lie on the polynomial of the secret. Who made them wrong, the holder or the dealer,
        the shares do not say.

    Raises
    ------
    ProtocolError
        If fewer than `threshold` shares are well-formed, or the threshold or a holder is out of range.
    VerificationError
        If nothing fits.
    """
    if _int("threshold", threshold) < 1:
        raise ProtocolError("a threshold must be at least 1: pass what the secret was split with")
    found = {x: _value(shares[x]) for x in _checked(shares, ProtocolError)}
    values = {x: value for x, value in found.items() if value is not None}
    if len(values) < threshold:
        raise ProtocolError(f"{threshold} well-formed shares are needed and {len(values)} came: ask more holders")
    for chosen, number in _candidates(values, threshold):
        secret = _as_secret(number)
        if secret is not None and fits(secret):
            picked = [values[x] for x in chosen]
            good = {x for x, value in values.items() if x in chosen or _interpolate(chosen, picked, x) == value}
            return secret, frozenset(found.keys() - good)
    raise VerificationError("the shares do not fit: more than one of them is wrong, or the dealer dealt wrong ones")


# ---------------------------------------------------------------------- checks
def _int(name: str, value: object) -> int:
    """Return an int (no bool) of any size; what range it needs, and whose error it is, the caller knows."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    return value


def _checked(holders: Collection[int], error: type[FlbcError]) -> tuple[int, ...]:
    """Return the holders in rising order; `error` unless they are distinct and in range."""
    for x in holders:
        if not 1 <= _int("a holder", x) <= MAX_HOLDER:
            raise error(f"a holder must lie between 1 and {MAX_HOLDER}: the place 0 is the secret's")
    if len(set(holders)) != len(holders):
        raise error("every holder has a place of its own: name each one once")
    return tuple(sorted(holders))


def _value(share: bytes) -> mpz | None:
    """Return a share as a number, or None if it is malformed."""
    data = check_bytes("a share", share)
    number = mpz.from_bytes(data, "big") if len(data) == SHARE_BYTES else _Q
    return number if number < _Q else None


def _as_secret(number: mpz) -> bytes | None:
    return None if number.bit_length() > 8 * SECRET_BYTES else number.to_bytes(SECRET_BYTES, "big")


# ---------------------------------------------------------------------- interpolation
def _candidates(values: Mapping[int, mpz], threshold: int) -> Iterator[tuple[tuple[int, ...], mpz]]:
    """Yield sets of holders with the secret that each set makes: the first ones, then all but one of one more.

    With Lagrange's weights w at 0 for ``threshold + 1`` holders, those without holder k are w_i · (1 - x_i / x_k). The
    secret without k is therefore A - B / x_k, with A = Σ w_i s_i and B = Σ w_i x_i s_i: one sum serves all k.
    """
    xs = tuple(values)[: threshold + 1]
    first = xs[:threshold]
    yield first, _interpolate(first, [values[x] for x in first], 0)
    if len(xs) == threshold:
        return
    terms = [weight * values[x] for x, weight in zip(xs, _weights(xs, 0), strict=True)]
    a, b = sum(terms) % _Q, sum(x * term for x, term in zip(xs, terms, strict=True)) % _Q
    if b == 0:  # they lie on one polynomial: without any of them it is the same secret again
        return
    for x in first:
        yield tuple(other for other in xs if other != x), (a - b * invert(x, _Q)) % _Q


def _interpolate(xs: tuple[int, ...], values: Sequence[mpz], at: int) -> mpz:
    """Return the value at a place outside `xs` of the polynomial through all points."""
    return sum(weight * value for weight, value in zip(_weights(xs, at), values, strict=True)) % _Q


# One round has many secrets with the same holders. Places are public, and nothing else is remembered here.
@lru_cache(maxsize=1024)
def _weights(xs: tuple[int, ...], at: int) -> tuple[mpz, ...]:
    """Return Lagrange's weights Π_{j≠i} (at - x_j) / (x_i - x_j)."""
    before, after = [mpz(1)], [mpz(1)]
    for x in xs[:-1]:
        before.append(before[-1] * (at - x) % _Q)
    for x in xs[:0:-1]:
        after.append(after[-1] * (at - x) % _Q)
    return tuple(b * a * d % _Q for b, a, d in zip(before, reversed(after), _denominators(xs), strict=True))


@lru_cache(maxsize=1024)
def _denominators(xs: tuple[int, ...]) -> tuple[mpz, ...]:
    """Return 1 / Π_{j≠i} (x_i - x_j), by one inversion for all i (Montgomery's trick)."""
    products = [prod((x - other for other in xs if other != x), start=mpz(1)) % _Q for x in xs]
    partial = [mpz(1)]
    for product in products:
        partial.append(partial[-1] * product % _Q)
    inverse = invert(partial.pop(), _Q)
    inverses = []
    for product, rest in zip(reversed(products), reversed(partial), strict=True):
        inverses.append(inverse * rest % _Q)
        inverse = inverse * product % _Q
    return tuple(reversed(inverses))
