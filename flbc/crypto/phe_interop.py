"""Keys to and from python-paillier (`phe`), an optional package: ``pip install 'flbc[phe]'``.

Ciphertexts need no conversion: ours are integers that ``PaillierPrivateKey.raw_decrypt`` opens, and ours opens what
``raw_encrypt`` made, unless our key is one with fast opening, which refuses it. `phe` is licensed under the GPL,
version 3; nothing else in flbc imports it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flbc.crypto.paillier_keys import PrivateKey, private_from_primes, random_base
from flbc.crypto.paillier_public import check_size
from flbc.errors import CiphertextError, DependencyError

if TYPE_CHECKING:
    from phe import PaillierPrivateKey


def to_phe(private: PrivateKey) -> PaillierPrivateKey:
    """Return the same key for `phe`; its ``public_key`` attribute is the public half.

    The result is an ordinary object that shows and pickles its secret primes.

    Raises
    ------
    DependencyError
        If `phe` is not installed.
    """
    phe = _phe()
    p, q = private.primes()
    return phe.PaillierPrivateKey(phe.PaillierPublicKey(p * q), p, q)


def from_phe(private: PaillierPrivateKey, *, insecure_key_bits_for_tests: bool = False) -> PrivateKey:
    """Take over a key that `phe` made, with a fresh blinding base (so each call has another fingerprint).

    Parameters
    ----------
    private : phe.PaillierPrivateKey
    insecure_key_bits_for_tests : bool
        Also allow 512 and 1024 bits.

    Raises
    ------
    DependencyError
        If `phe` is not installed.
    CiphertextError
        If the key's size is not allowed or its primes are not of the form that short exponents need (both ≡ 3 mod 4,
        gcd(p − 1, q − 1) = 2), which is so for most keys of `phe`: generate the key here and give it to `phe` instead.
    """
    phe = _phe()
    if not isinstance(private, phe.PaillierPrivateKey):
        raise TypeError(f"private must be a phe.PaillierPrivateKey, not {type(private).__name__}")
    n = private.public_key.n
    check_size(n.bit_length(), insecure_key_bits_for_tests, CiphertextError)
    return private_from_primes(private.p, private.q, random_base(n), n.bit_length())


def _phe() -> Any:
    try:
        import phe
    except ImportError:
        raise DependencyError("python-paillier is not installed: pip install 'flbc[phe]'") from None
    return phe
