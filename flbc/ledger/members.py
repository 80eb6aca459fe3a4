"""A party as the Registry holds it, and as a roster holds it. No web3 in this file."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import RosterError
from ..roster import ROLE_BITS, ROLES, Party
from .packing import pack_name, unpack_name

_ZERO_ADDRESS, _ZERO_HASH = bytes(20), bytes(32)
_KNOWN_BITS = sum(ROLE_BITS.values())


@dataclass(frozen=True, slots=True)
class Member:
    """An account as the Registry holds it now.

    Parameters
    ----------
    signer, vrf : bytes
        Addresses of the signing key and the VRF key; ``vrf`` is zero for accounts that never lead.
    roles : int
        Bits of :data:`flbc.roster.ROLE_BITS`.
    suspended : bool
        By the authority.
    examples : int
        Declared size of the training set.
    since : int
        Number of the chain's block in which the signer or the VRF key changed last.
    stake : int
        In wei.
    unlock_at, locked_until : int
        Unix times: end of unbonding (0 unless the account is leaving), and until when a task counts on the stake.
    encryption, scheme_key, name : bytes
        32 bytes each.
    """

    signer: bytes
    roles: int
    suspended: bool
    examples: int
    vrf: bytes
    since: int
    stake: int
    unlock_at: int
    locked_until: int
    encryption: bytes
    scheme_key: bytes
    name: bytes

    @property
    def registered(self) -> bool:
        """Whether the account has ever registered."""
        return self.signer != _ZERO_ADDRESS

    def party(self) -> Party:
        """Return the entry of a roster; :class:`RosterError` if there is none for this account."""
        return party_of(
            self.name, self.roles, self.signer, self.encryption, self.scheme_key, self.examples, self.vrf
        )  # fmt: skip


def party_of(
    name: bytes, roles: int, signer: bytes, encryption: bytes, scheme_key: bytes, examples: int, vrf: bytes
) -> Party:
    """Convert what the Registry holds into a roster's entry.

    Raises
    ------
    RosterError
        If nobody registered, or name or roles mean nothing in a roster.
    """
    if signer == _ZERO_ADDRESS:
        raise RosterError("This account has not registered: run `flbc register` with its key file")
    if roles & ~_KNOWN_BITS:
        raise RosterError(f"The account registered for unknown roles (bits {roles:#04x}): update flbc, or leave it out")
    served = tuple(sorted(role for role in ROLES if roles & ROLE_BITS[role]))
    try:
        text = unpack_name(name)
    except ValueError as error:
        raise RosterError(str(error)) from None
    return Party(
        text,
        served,
        signer,
        encryption,
        b"" if scheme_key == _ZERO_HASH else scheme_key,
        examples,
        b"" if vrf == _ZERO_ADDRESS else vrf,
    )


def registered_name(party: Party) -> bytes:
    """Return a party's name in 32 bytes; :class:`RosterError` if a contract cannot hold it."""
    try:
        return pack_name(party.name)
    except ValueError as error:
        raise RosterError(str(error)) from None


def role_bits(roles: tuple[str, ...]) -> int:
    """Return the bits of these roles, ``"publisher"`` among them."""
    return sum(ROLE_BITS[role] for role in roles)
