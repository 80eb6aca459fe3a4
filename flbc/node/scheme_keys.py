"""Scheme keys as they travel: a public key, and the word of the party that says it is its own (S1)."""

from __future__ import annotations

from ..cards import SchemeKey
from ..crypto import paillier
from ..crypto.eip712 import Domain
from ..encoding import canonical, parse, unhex
from ..errors import ProtocolError, RosterError, SignatureError
from ..roster import Party
from ..round import NO_HUB, Signed, domain
from ..task import TaskConfig


def key_domain(simulation: bool) -> Domain:
    """EIP-712 domain of scheme keys: they outlive tasks, so it names no chain."""
    return domain(0, NO_HUB, simulation)


def paillier_keys(public: paillier.PublicKey, signature: Signed) -> bytes:
    """Encode what clients need of the authority."""
    return canonical({"public": public.to_bytes().hex(), "signed": signature.to_dict()})


def check_keys(keys: bytes, config: TaskConfig, authority: Party, simulation: bool) -> paillier.PublicKey:
    """Return the authority's public key after checking it against roster, configuration and signature (S1).

    Raises
    ------
    SignatureError
        If the pinned authority did not sign this key.
    RosterError
        If it is not the key that the roster or the configuration name.
    CiphertextError
        If it is not a usable Paillier key.
    """
    value = parse(keys, "scheme keys")
    if set(value) != {"public", "signed"}:
        raise ProtocolError("The scheme keys must hold the authority's public key and signature")
    public = paillier.PublicKey.from_bytes(unhex(value["public"], None, "public key"))
    signed = Signed.from_dict(SchemeKey, value["signed"])
    if signed.value != SchemeKey(config.scheme, public.fingerprint):
        raise SignatureError("The authority's signature covers another scheme key")
    signed.verify(authority.address, key_domain(simulation))
    if config.scheme_keys != (public.fingerprint,) or authority.scheme_key != public.fingerprint:
        raise RosterError("The authority's key is not the one that the roster and the task configuration name")
    if public.bits != config.key_bits:
        raise RosterError(f"The authority's key has {public.bits} bits, the task says {config.key_bits}")
    return public
