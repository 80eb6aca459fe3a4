"""Write ``contracts/test/Vectors.sol``: VRF proofs for the forge tests, which cannot make them.

Run ``python tests/contracts/vectors.py > contracts/test/Vectors.sol``; a test compares the file with :func:`render`.
"""

from flbc import election
from flbc.crypto import vrf
from flbc.crypto.signing import SigningKey, keccak256

SEED = keccak256(b"flbc/forge")
#: (name, party of the forge tests, height)
CASES = (("PARTY_0_HEIGHT_1", 0, 1), ("PARTY_0_HEIGHT_2", 0, 2), ("PARTY_1_HEIGHT_2", 1, 2))


def vrf_key(party: int) -> SigningKey:
    """``World.vrfOf``: the party's signing key plus 2^128."""
    return SigningKey.from_bytes((0xC0FFEE + party + (1 << 128)).to_bytes(32, "big"))


def render() -> str:
    lines = [
        "// SPDX-License-Identifier: Apache-2.0",
        "pragma solidity ^0.8.24;",
        "",
        "// Written by tests/contracts/vectors.py: packed VRF proofs of parties for the seed and a height.",
        "",
        f"bytes32 constant SEED = 0x{SEED.hex()};",
    ]
    for name, party, height in CASES:
        key = vrf_key(party)
        alpha = election.alpha(SEED, height)
        packed = vrf.pack(key.public, alpha, vrf.prove(key, alpha)).hex()
        first, *rest = (f'hex"{packed[at : at + 96]}"' for at in range(0, len(packed), 96))
        lines += [f"bytes constant {name} = {first}", *(f"    {word}" for word in rest)]
        lines[-1] += ";"
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(render(), end="")
