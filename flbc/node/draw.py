"""A party's draw for the next block's leader: its VRF output, and the proof that it is the only possible one (S22).

A proof travels as 114 bytes: the VRF public key (33) and the RFC 9381 proof (81). The roster pins the key's address.
"""

from __future__ import annotations

from ..crypto import vrf
from ..crypto.keystore import PartyKeys
from ..crypto.signing import address_of
from ..election import alpha
from ..errors import VerificationError
from ..roster import Party

PROOF_BYTES = 33 + 81


def make_draw(keys: PartyKeys, seed: bytes, height: int) -> tuple[int, bytes]:
    """Return the draw for the block at ``height`` and its proof."""
    proof = vrf.prove(keys.vrf, alpha(seed, height))
    return vrf.draw_of(vrf.beta_of(proof)), keys.vrf.public + proof


def check_draw(proof: bytes, party: Party, seed: bytes, height: int, draw: int) -> None:
    """Raise :class:`VerificationError` unless ``proof`` shows that ``draw`` is the party's for this height."""
    if len(proof) != PROOF_BYTES or not party.vrf or address_of(proof[:33]) != party.vrf:
        raise VerificationError(f"The draw of {party.name!r} was not made with its VRF key")
    if vrf.draw_of(vrf.verify(proof[:33], alpha(seed, height), proof[33:])) != draw:
        raise VerificationError(f"The draw of {party.name!r} is not the one its proof shows")
