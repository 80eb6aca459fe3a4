"""S1: an authority's key whose blinding base hides nothing is refused by clients before anything is encrypted.

Its fingerprint is pinned and signed all the same: a careless or dishonest authority made it. What is refused is what
anyone can see. A base of small order that is not 1 or 2 is not, and rests on the authority, who could publish its key.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gmpy2 import gcd, invert, mpz, powmod

from flbc.crypto import paillier
from flbc.crypto.keystream import EncryptionKey
from flbc.crypto.packing import unpack
from flbc.crypto.paillier import PrivateKey, PublicKey
from flbc.crypto.paillier_threshold import ThresholdKey
from flbc.errors import CiphertextError
from flbc.schemes import SumSpec
from flbc.schemes.paillier import PaillierProtector
from flbc.schemes.paillier_layout import Geometry
from tests.support.parties import KEY_BITS, Consortium


@pytest.fixture(scope="module")
def fast_key() -> PrivateKey:
    return paillier.generate(KEY_BITS, fast_opening=True)


def one_modulo_q(key: PrivateKey) -> mpz:
    """Of the order α: 1 modulo q²."""
    return powmod(key.public.hs, key._half_q.exponent, key.public.n**2)


def minus_one_modulo_p(key: PrivateKey) -> mpz:
    """Of the order 2: -1 modulo p², 1 modulo q²."""
    p, q = map(mpz, key.primes())
    return (1 - 2 * invert(q * q, p * p) * q * q) % key.public.n**2


BASES: dict[str, Callable[[PrivateKey], mpz]] = {
    "-1": lambda key: key.public.n**2 - 1,
    "1 + n": lambda key: key.public.n + 1,
    "1 + kn": lambda key: 1 + (key.public.n // 3) * key.public.n,
    "-(1 + n)": lambda key: key.public.n**2 - key.public.n - 1,
    "1 modulo q": one_modulo_q,
    "-1 modulo p": minus_one_modulo_p,
}


@pytest.mark.parametrize("name", BASES)
def test_clients_refuse_it_although_the_authority_signed_it(tmp_path: Any, fast_key: PrivateKey, name: str) -> None:
    p, q = fast_key.primes()
    c = Consortium.make(tmp_path / "nodes", PrivateKey(p, q, int(BASES[name](fast_key))))
    ticket = c.ticket()
    with pytest.raises(CiphertextError, match="blinding base has no order above 2"):
        c.train("zurich", ticket)
    assert c.memory("zurich").answered(ticket.label) is None


@pytest.mark.parametrize("name", BASES)
def test_shared_keys_and_key_files_with_it_are_refused(fast_key: PrivateKey, name: str) -> None:
    (p, q), hs = fast_key.primes(), BASES[name](fast_key)
    with pytest.raises(CiphertextError, match="blinding base has no order above 2"):
        ThresholdKey.from_bytes(ThresholdKey(PublicKey(fast_key.public.n, hs), 2, 3, mpz(7)).to_bytes())
    for orders in (None, (int(fast_key._half_p.exponent), int(fast_key._half_q.exponent))):
        with pytest.raises(CiphertextError, match="blinding base has no order above 2"):
            PrivateKey.from_bytes(PrivateKey(p, q, int(hs), orders).to_bytes())


def test_weak_form_lets_anybody_read_an_update(fast_key: PrivateKey) -> None:
    """Unchecked, the base -1: a payload divided by ±1 is the plaintext, which takes no key."""
    n = fast_key.public.n
    public = PublicKey(n, n * n - 1)
    spec = SumSpec(length=5, max_abs=1000, max_parties=4)
    values = np.array([secrets.randbelow(2001) - 1000 for _ in range(5)], np.int64)
    mine, authority = EncryptionKey.generate(), EncryptionKey.generate()
    payload = PaillierProtector(public, spec, authority.public, mine).protect(values, bytes(32), bytes(32))
    g = Geometry(public, spec)
    vector = paillier.ciphertexts_from_bytes(public, payload, g.count)
    plaintexts = [((v if v % n == 1 else n * n - v) - 1) // n for v in vector]
    np.testing.assert_array_equal(unpack(plaintexts, g.layout, 5).astype(np.int64) - spec.max_abs, values)


@pytest.mark.parametrize("name", ["1 modulo q", "-1 modulo p"])
def test_weak_form_lets_anybody_factor(fast_key: PrivateKey, name: str) -> None:
    n, hs = fast_key.public.n, BASES[name](fast_key)
    assert gcd(hs - 1, n) in fast_key.primes()
