"""Shares that tno's distributed key generation made, without a dealer, open what ours encrypts. Needs the extra dkg."""

from __future__ import annotations

import asyncio
import itertools
import socket
from typing import Any

import pytest

from flbc.crypto.paillier import Encryptor
from flbc.crypto.paillier_threshold import ShareKey, combine
from flbc.crypto.tno_interop import common_base, from_tno
from flbc.errors import CiphertextError

# Some versions of the package's parts do not go together: importing them raises ImportError then.
_REASON = "needs a working tno.mpc.protocols.distributed_keygen: pip install flbc[dkg]"
PARTIES, BITS, TRIES = 4, 512, 4


def _ports() -> list[int]:
    sockets = [socket.socket() for _ in range(PARTIES)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


async def _generate(key_length: int) -> list[Any]:
    """Run the protocol among four parties on this machine; return their shared keys."""
    communication = pytest.importorskip("tno.mpc.communication", reason=_REASON, exc_type=ImportError)
    keygen = pytest.importorskip("tno.mpc.protocols.distributed_keygen", reason=_REASON, exc_type=ImportError)
    ports, pools = _ports(), []
    for mine in range(PARTIES):
        pool = communication.Pool()
        pool.add_http_server(port=ports[mine], addr="127.0.0.1")
        for other in range(PARTIES):
            if other != mine:
                pool.add_http_client(f"party{other}", addr="127.0.0.1", port=ports[other])
        pools.append(pool)
    try:
        make = keygen.DistributedPaillier.from_security_parameter
        # Weak parameters, as for its own tests: how sure the modulus is one of two primes is not what is tested here.
        weak = {"prime_threshold": 200, "correct_param_biprime": 20, "stat_sec_shamir": 20, "distributed": False}
        runs = [make(pool, corruption_threshold=1, key_length=key_length, **weak) for pool in pools]
        return [scheme.secret_key for scheme in await asyncio.gather(*runs)]
    finally:
        for pool in pools:
            await pool.shutdown()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(900)
def test_shares_without_a_dealer_open_our_ciphertexts() -> None:
    shares: list[ShareKey] = []
    for _ in range(TRIES):
        keys = asyncio.run(_generate(BITS - 4))
        if keys[0].n.bit_length() == BITS:
            shares = [from_tno(key, insecure_key_bits_for_tests=True) for key in keys]
            break
        with pytest.raises(CiphertextError, match="run the protocol again"):  # 511 bits, one time in five
            from_tno(keys[0], insecure_key_bits_for_tests=True)
    else:
        pytest.skip(f"no modulus of {BITS} bits in {TRIES} tries")
    key = shares[0].key
    assert {share.key.fingerprint for share in shares} == {key.fingerprint}
    plaintexts = [0, 1, int(key.public.n) - 1, 12345]
    ciphertexts = Encryptor(key.public).encrypt(plaintexts)
    again = [ShareKey.from_bytes(share.to_bytes(), insecure_key_bits_for_tests=True) for share in shares]
    for chosen in itertools.combinations(again, key.threshold):
        assert combine(key, {share.place: share.partial(ciphertexts) for share in chosen})[0] == plaintexts


def test_the_common_base_is_an_nth_residue_that_everybody_gets(opening_key: Any) -> None:
    base = common_base(int(opening_key.public.n))
    assert base == common_base(int(opening_key.public.n))
    assert opening_key.decrypt([base]) == [0]
