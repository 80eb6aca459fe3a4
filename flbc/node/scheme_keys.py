"""Scheme keys as they travel: a public key, and the word of the party that says it is its own (S1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..cards import KeyShare, SchemeKey
from ..crypto import paillier
from ..crypto.eip712 import Domain
from ..crypto.paillier_threshold import ThresholdKey
from ..encoding import Json, canonical, parse, unhex
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


def holder_statement(key: ThresholdKey, signature: Signed) -> bytes:
    """Encode what a holder says of the shared key: the key, and its word that it has a share of it."""
    return canonical({"key": key.to_bytes().hex(), "signed": signature.to_dict()})


def read_holder(statement: bytes) -> tuple[ThresholdKey, Signed]:
    """Undo :func:`holder_statement`; nothing is verified but the form."""
    value = parse(statement, "scheme key")
    if set(value) != {"key", "signed"}:
        raise ProtocolError("A holder's scheme key must be the shared key and a signature")
    key = ThresholdKey.from_bytes(unhex(value["key"], None, "shared key"))
    return key, Signed.from_dict(KeyShare, value["signed"])


def check_holder(key: ThresholdKey, signed: Signed, holder: Party, simulation: bool) -> int:
    """Return a holder's place; raise unless the roster names it for this key and it says that it has a share (S1)."""
    if holder.scheme_key != key.fingerprint:
        raise RosterError(f"The roster names {holder.name!r} for another shared key, or for none")
    place = signed.value.place if isinstance(signed.value, KeyShare) else 0
    if signed.value != KeyShare("paillier", key.fingerprint, place):
        raise SignatureError(f"The signature of {holder.name!r} covers another scheme key")
    if not 1 <= place <= key.holders:
        raise RosterError(f"{holder.name!r} says that its share has place {place}, and there are {key.holders}")
    signed.verify(holder.address, key_domain(simulation))
    return place


def shared_keys(statements: Mapping[str, bytes]) -> bytes:
    """Encode what clients need of a shared key, from the statements of its holders by name."""
    key: ThresholdKey | None = None
    words: dict[str, Json] = {}
    for name, statement in statements.items():
        key, signed = read_holder(statement)
        words[name] = signed.to_dict()
    if key is None:
        raise ProtocolError("Nobody in the roster has a share of the key")
    return canonical({"key": key.to_bytes().hex(), "signed": words})


def check_shared(keys: bytes, config: TaskConfig, holders: Sequence[Party], simulation: bool) -> ThresholdKey:
    """Return the shared key after checking it against roster, configuration and every holder's signature (S1).

    Raises
    ------
    SignatureError
        If a pinned holder did not sign this key.
    RosterError
        If it is not the key that the roster or the configuration name, the holders are too few or too many, or two say
        that they have the same share.
    CiphertextError
        If it is not a usable key.
    """
    value = parse(keys, "scheme keys")
    if set(value) != {"key", "signed"} or not isinstance(value["signed"], dict):
        raise ProtocolError("The scheme keys must hold the shared key and its holders' signatures")
    key = ThresholdKey.from_bytes(unhex(value["key"], None, "shared key"))
    if set(value["signed"]) != {holder.name for holder in holders}:
        raise ProtocolError("The scheme keys must hold the signature of every holder in the roster, and no other")
    owners: dict[int, str] = {}
    for holder in holders:
        signed = Signed.from_dict(KeyShare, value["signed"][holder.name])
        place = check_holder(key, signed, holder, simulation)
        other = owners.setdefault(place, holder.name)
        if other != holder.name:
            raise RosterError(
                f"{other!r} and {holder.name!r} say that they have the same share, number {place}: one of "
                "them put another's share into its key file, or lies"
            )
    if config.scheme_keys != (key.fingerprint,) or key.public.bits != config.key_bits:
        raise RosterError("The shared key is not the one that the task configuration names")
    if not key.threshold <= len(holders) <= key.holders:
        raise RosterError(
            f"The roster names {len(holders)} holders of a shared key, and it takes {key.threshold} to {key.holders}"
        )
    return key


def stated_place(keys: bytes, name: str) -> int:
    """Return the place that a holder said its share has; `keys` were checked with :func:`check_shared`."""
    value = parse(keys, "scheme keys")
    if not isinstance(value["signed"], dict):
        raise ProtocolError("The scheme keys must hold the shared key and its holders' signatures")
    word = Signed.from_dict(KeyShare, value["signed"][name]).value
    return word.place if isinstance(word, KeyShare) else 0
