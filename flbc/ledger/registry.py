"""Typed client of the Registry: a call to send for every function that parties use, and typed reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..crypto.signing import checksum_address
from ..errors import RosterError
from ..roster import Party
from ..tokens import Register
from .build import artifact
from .members import Member, registered_name, role_bits
from .packing import compact
from .transactions import Call

if TYPE_CHECKING:
    from .chain import Chain


class Registry:
    """Who takes part: keys, roles, stakes.

    Parameters
    ----------
    chain : Chain
    address : bytes
        Of the contract, 20 bytes.
    """

    def __init__(self, chain: Chain, address: bytes) -> None:
        self.chain, self.address = chain, address
        self.contract = chain.contract(address, artifact("Registry")["abi"])

    # ------------------------------------------------------------------ calls to send
    def register(self, entry: Register, proof: bytes, stake: int = 0) -> Call:
        """Register the sender, or change its keys, and add ``stake`` wei.

        Parameters
        ----------
        entry : Register
            What is registered; ``entry.account`` must send the call.
        proof : bytes
            Signature of the signing key over ``entry``, 65 bytes.
        stake : int (default: 0)
            Wei to add to the stake.
        """
        arguments = (
            checksum_address(entry.signer), checksum_address(entry.vrf), entry.encryption, entry.scheme_key,
            entry.examples, entry.roles, entry.name,
        )  # fmt: skip
        return self._call("register", arguments, compact(proof), value=stake)

    def top_up(self, stake: int) -> Call:
        """Add ``stake`` wei to the sender's stake."""
        return self._call("topUp", value=stake)

    def begin_unstake(self) -> Call:
        """Leave: no further task; the stake can be withdrawn after the unbonding time."""
        return self._call("beginUnstake")

    def withdraw_stake(self) -> Call:
        """Pay the sender's stake back, once unbonding and all locks have ended."""
        return self._call("withdrawStake")

    def suspend(self, account: bytes, on: bool = True) -> Call:
        """Suspend an account, or lift it; only the authority's account may send this."""
        return self._call("suspend", checksum_address(account), on)

    def withdraw_slashed(self) -> Call:
        """Pay what was slashed to the treasury; anybody may send this."""
        return self._call("withdrawSlashed")

    def transfer_ownership(self, account: bytes) -> Call:
        """Offer the authority's right to suspend to another account, which must accept it."""
        return self._call("transferOwnership", checksum_address(account))

    def accept_ownership(self) -> Call:
        """Accept what :meth:`transfer_ownership` offered to the sender."""
        return self._call("acceptOwnership")

    # ------------------------------------------------------------------ reads
    def member(self, account: bytes) -> Member:
        """Return an account as it is registered now; see :attr:`Member.registered`."""
        raw = self._read("member", checksum_address(account))
        return Member(
            signer=address_bytes(raw[0]), roles=raw[1], suspended=raw[2], examples=raw[3], vrf=address_bytes(raw[4]),
            since=raw[5], stake=raw[6], unlock_at=raw[7], locked_until=raw[8], encryption=bytes(raw[9]),
            scheme_key=bytes(raw[10]), name=bytes(raw[11]),
        )  # fmt: skip

    def account_of(self, signer: bytes) -> bytes | None:
        """Return the account that a signing key belongs to, None if it was never registered."""
        account = address_bytes(self._read("accountOf", checksum_address(signer)))
        return None if account == bytes(20) else account

    def find(self, party: Party) -> tuple[bytes, Member]:
        """Return account and registration of a roster's party.

        Raises
        ------
        RosterError
            If its key is not registered, or was registered with other data: with the cure.
        """
        account = self.account_of(party.address)
        if account is None:
            raise RosterError(
                f"Party {party.name!r} is not registered on this chain: run `flbc register` with its key file"
            )
        member = self.member(account)
        registered = member.party()
        wrong = [name for name in Party.__dataclass_fields__ if getattr(registered, name) != getattr(party, name)]
        if wrong:
            raise RosterError(
                f"Party {party.name!r} is registered with other values of {', '.join(wrong)} than in the roster: "
                "register again, or correct the roster"
            )
        return account, member

    def suspensions(self) -> int:
        """Return how often anybody was suspended or lifted."""
        return int(self._read("suspensions"))

    def authority(self) -> bytes:
        """Return the account that may suspend."""
        return address_bytes(self._read("owner"))

    def treasury(self) -> bytes:
        """Return the account that gets what was slashed."""
        return address_bytes(self._read("treasury"))

    def hub(self) -> bytes:
        """Return the hub that may lock and slash."""
        return address_bytes(self._read("hub"))

    def unbonding(self) -> int:
        """Return the seconds between leaving and withdrawing."""
        return int(self._read("unbonding"))

    def _call(self, name: str, *arguments: Any, value: int = 0) -> Call:
        return Call.of(self.contract.functions[name](*arguments), value)

    def _read(self, name: str, *arguments: Any) -> Any:
        return self.chain.call(self.contract.functions[name](*arguments))


def registration(party: Party, account: bytes, publisher: bool = False) -> Register:
    """Return what ``account`` registers for a roster's party, to be signed by the party's signing key.

    Parameters
    ----------
    party : Party
    account : bytes
        Sends the call, stakes, and is paid; 20 bytes.
    publisher : bool (default: False)
        Also take the role that may publish tasks.

    Raises
    ------
    RosterError
        If the name does not fit into 32 ASCII characters.
    """
    roles = (*party.roles, "publisher") if publisher else party.roles
    return Register(
        account, party.address, party.vrf or bytes(20), party.encryption, party.scheme_key or bytes(32),
        party.examples, role_bits(roles), registered_name(party),
    )  # fmt: skip


def address_bytes(text: str) -> bytes:
    """Return the 20 bytes of an address as web3 writes it."""
    return bytes.fromhex(text.removeprefix("0x"))
