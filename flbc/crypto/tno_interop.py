"""Shares of a Paillier key without a dealer: those of tno.mpc.protocols.distributed_keygen, for use here.

Its parties run a protocol, after which each has a share over the integers of a multiple of the order, and nobody ever
had the key (extra ``dkg``: ``pip install "flbc[dkg]"``). Assumptions and malicious parties are that package's matter;
with corruption threshold c it takes 2c + 1 shares to open. Its primes are sums of one number of each party, so that
nobody chooses the size of the modulus: asked for 4 bits less than 2048, 3072 or 4096, four or five parties get that
size most times, and begin again otherwise; three parties hardly ever do. What it takes grows fast with the size: the
strategy's README says what was measured.
"""

from __future__ import annotations

from hashlib import shake_256
from math import factorial
from typing import TYPE_CHECKING

from gmpy2 import gcd, mpz, powmod

from flbc.crypto.paillier_public import PublicKey, check_public, check_size
from flbc.crypto.paillier_threshold import ShareKey, ThresholdKey
from flbc.errors import CiphertextError

if TYPE_CHECKING:
    from tno.mpc.protocols.distributed_keygen.paillier_shared_key import PaillierSharedKey

_BASE = b"flbc/paillier/threshold/base/1\n"


def from_tno(shared: PaillierSharedKey, *, insecure_key_bits_for_tests: bool = False) -> ShareKey:
    """Return one party's share of a key that was made without a dealer.

    Parameters
    ----------
    shared : PaillierSharedKey
        ``DistributedPaillier.secret_key`` of one party. All parties get the same public side.

    Raises
    ------
    CiphertextError
        If the modulus is not of a size that is used here, or has a visible flaw.
    ConfigError
        If one share would be enough, or there are more than 20 holders.
    """
    n, bits = mpz(shared.n), int(shared.n).bit_length()
    try:
        check_size(bits, insecure_key_bits_for_tests, CiphertextError)
    except CiphertextError as error:
        raise CiphertextError(f"{error}; run the protocol again, with key_length 4 bits below the size") from None
    public = PublicKey(n, common_base(int(n)))
    check_public(public, bits)
    threshold = shared.share.degree + 1
    count = next(k for k in range(1, 32) if factorial(k) >= shared.share.n_fac)
    # Theirs is Δ f(0) ≡ θ in the exponent, ours 2Δ² f(0): see flbc.crypto.paillier_threshold.
    theta = 2 * factorial(count) * mpz(shared.theta) % n
    return ShareKey(
        ThresholdKey(public, threshold, count, theta), shared.player_id, shared.share.shares[shared.player_id]
    )


def common_base(n: int) -> mpz:
    """Return hs = (−y² mod n)^n mod n² for the y that SHAKE-256 makes of n, so that all parties have the same.

    Nobody has to be believed that y is random, and no factor of n is needed.
    """
    n, counter = mpz(n), 0
    while True:
        size = n.bit_length() // 8 + 16
        digest = shake_256(_BASE + bytes(n.to_bytes(n.bit_length() // 8 + 1, "big")) + bytes([counter])).digest(size)
        y = mpz.from_bytes(digest, "big") % n
        if y > 1 and gcd(y, n) == 1:
            return powmod(-y * y % n, n, n * n)
        counter += 1
