"""``flbc stake``: add to it, leave, have it paid back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..crypto.signing import checksum_address
from ..errors import LedgerError, RosterError
from .amounts import ether, moment, parse_ether
from .console import say
from .keyfiles import open_keys
from .options import EMBEDDED, DeploymentFile, Rpc
from .register import show_member
from .session import Account, account_of, hub_at, spent

if TYPE_CHECKING:
    from ..ledger.hub import Hub
    from ..ledger.members import Member

app = typer.Typer(no_args_is_help=True, help="Add to a stake, leave, have the stake paid back.")
Key = Annotated[Path, typer.Option("--key", metavar="FILE", help="Key file of the account that registered.")]
# Not estimated: whether the contract refuses depends on the time of the next block.
_WITHDRAW_GAS = 150_000


@app.command(epilog="Example: flbc stake add 0.5 --key cleveland.key")
def add(
    amount: Annotated[str, typer.Argument(metavar="ETHER", help="How much to add.")],
    key: Key,
    rpc: Rpc = EMBEDDED,
    deployment: DeploymentFile = None,
) -> None:
    """Add to the account's stake. Tasks that run keep the stake that they froze."""
    wei = parse_ether(amount, "ETHER")
    with _member(key, rpc, deployment) as (hub, account, member):
        receipt = account.send("adding to the stake", hub.registry.top_up(wei))
        say(f"added {ether(wei)} ({spent(receipt)})")
        if member.unlock_at:
            say("this account is leaving: `flbc register` brings it back", "yellow")


@app.command(epilog="Example: flbc stake leave --key cleveland.key")
def leave(key: Key, rpc: Rpc = EMBEDDED, deployment: DeploymentFile = None) -> None:
    """Take part in no further task; the stake can be withdrawn after the unbonding time."""
    with _member(key, rpc, deployment) as (hub, account, member):
        if member.unlock_at:
            say("this account is leaving already; nothing was sent")
        else:
            receipt = account.send("leaving", hub.registry.begin_unstake())
            say(f"left ({spent(receipt)}); `flbc register` would bring the account back")


@app.command(epilog="Example: flbc stake withdraw --key cleveland.key")
def withdraw(key: Key, rpc: Rpc = EMBEDDED, deployment: DeploymentFile = None) -> None:
    """Have the whole stake paid back, once the unbonding time and all tasks are over."""
    with _member(key, rpc, deployment) as (hub, account, member):
        until, now = max(member.unlock_at, member.locked_until), hub.chain.now()
        if not member.unlock_at:
            raise LedgerError("This account has not left: `flbc stake leave` comes first, then the unbonding time")
        if now < until:
            raise LedgerError(f"The stake of {ether(member.stake)} can be withdrawn from {moment(until, now)}")
        if not member.stake:
            raise LedgerError("There is no stake to pay back")
        receipt = account.send("withdrawing the stake", hub.registry.withdraw_stake(), _WITHDRAW_GAS)
        say(f"paid back {ether(member.stake)} ({spent(receipt)})")


@contextmanager
def _member(key: Path, rpc: str, deployment: Path | None) -> Iterator[tuple[Hub, Account, Member]]:
    """Open a registered account; at the end show what the Registry holds of it."""
    signer = open_keys(key).signing
    with hub_at(rpc, deployment) as hub, account_of(hub.chain, signer) as account:
        member = hub.registry.member(account.address)
        if not member.registered:
            raise RosterError(_not_registered(hub, account.address))
        yield hub, account, member
        show_member(hub, account.address, hub.registry.member(account.address))


def _not_registered(hub: Hub, address: bytes) -> str:
    text, owner = checksum_address(address), hub.registry.account_of(address)
    if owner is None:
        return f"Account {text} is not registered on this chain: run `flbc register`"
    return f"{text} is the signing key of account {checksum_address(owner)}: take that account's key file"
