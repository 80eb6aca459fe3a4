"""``flbc register``: a party's keys, roles and stake in the Registry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..crypto.keystore import PartyKeys
from ..crypto.signing import checksum_address
from ..errors import ConfigError, RosterError
from ..node.identity import parse_roles
from ..roster import ROLE_BITS, TRAIN_ROLE, check_name
from .amounts import ether, moment, parse_ether
from .console import facts, say, show
from .finding import name_of
from .keyfiles import open_keys
from .options import EMBEDDED, DeploymentFile, Rpc
from .session import Account, account_of, hub_at, spent

if TYPE_CHECKING:
    from ..ledger.hub import Hub
    from ..ledger.members import Member
    from ..tokens import Register

app = typer.Typer()
_MAX_EXAMPLES = 2**32 - 1


@app.command(epilog="Example: flbc register --key cleveland.key --role hospital,committee --examples 242 --stake 1")
def register(
    key: Annotated[Path, typer.Option(metavar="FILE", help="The party's key file.")],
    role: Annotated[
        str, typer.Option(metavar="ROLE[,ROLE]", help="hospital, committee, authority, generator; as in the roster.")
    ] = "",
    examples: Annotated[
        int, typer.Option(min=0, max=_MAX_EXAMPLES, help="Declared size of the training set, as in the roster.")
    ] = 0,
    stake: Annotated[
        str, typer.Option(metavar="ETHER", help="Stake to hold; what is missing is sent along. Without one: no leader.")
    ] = "0",
    publisher: Annotated[bool, typer.Option("--publisher", help="May also publish tasks and pay for them.")] = False,
    account: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Key file of the account that sends, stakes and is paid; default: --key.",
        ),
    ] = None,
    rpc: Rpc = EMBEDDED,
    deployment: DeploymentFile = None,
) -> None:
    """Register a party, or change what is registered. Repeating it changes nothing."""
    roles = parse_roles(role) if role else ()
    if not roles and not publisher:
        raise ConfigError("Name the party's roles with --role, or --publisher for one that only publishes tasks")
    target = parse_ether(stake, "--stake")
    keys = open_keys(key)
    payer = keys.signing if account is None else open_keys(account).signing
    bits = sum(ROLE_BITS[name] for name in (*roles, *(["publisher"] if publisher else [])))
    entry = _entry(keys, payer.address, examples, bits)
    with hub_at(rpc, deployment) as hub:
        if hub.deployment.simulation:
            say(
                "These contracts are for simulation: a run with key files needs others, `flbc deploy --no-simulation`",
                "yellow",
            )
        with account_of(hub.chain, payer) as sender:  # opened first: an earlier command's registration may be queued
            member = hub.registry.member(payer.address)
            missing = max(0, target - member.stake)
            if _holds(member, entry) and not missing:
                say(f"{keys.name} is registered so already; nothing was sent")
            else:
                _send(hub, keys, sender, entry, missing)
        member = hub.registry.member(payer.address)
        show_member(hub, payer.address, member)
        if TRAIN_ROLE in roles and not member.stake:
            say("without a stake this party can never lead a block", "yellow")


def _entry(keys: PartyKeys, account: bytes, examples: int, roles: int) -> Register:
    from ..errors import ProtocolError
    from ..ledger.packing import pack_name
    from ..tokens import Register

    check_name(keys.name)
    try:
        name = pack_name(keys.name)
    except ProtocolError as error:
        raise RosterError(str(error)) from None
    fingerprint = keys.scheme_key or bytes(32)
    return Register(
        account, keys.signing.address, keys.vrf.address, keys.encryption.public, fingerprint, examples, roles, name
    )  # fmt: skip


def _holds(member: Member, entry: Register) -> bool:
    names = ("signer", "vrf", "encryption", "scheme_key", "examples", "roles", "name")
    return not member.unlock_at and all(getattr(member, name) == getattr(entry, name) for name in names)


def _send(hub: Hub, keys: PartyKeys, sender: Account, entry: Register, stake: int) -> None:
    from ..round import Signed, domain

    where = domain(hub.chain.chain_id, hub.address, hub.deployment.simulation)
    proof = Signed.make(entry, keys.signing, where).signature
    receipt = sender.send(f"registering {keys.name}", hub.registry.register(entry, proof, stake))
    say(f"registered {keys.name} ({spent(receipt)})")


def show_member(hub: Hub, account: bytes, member: Member) -> None:
    """Print what the Registry holds of an account."""
    now = hub.chain.now()
    roles = [name for name, bit in ROLE_BITS.items() if member.roles & bit]
    rows: list[tuple[str, object]] = [
        ("name", name_of(member)),
        ("account", checksum_address(account)),
        ("signing address", checksum_address(member.signer)),
        ("VRF address", checksum_address(member.vrf)),
        ("encryption key", member.encryption.hex()),
        ("roles", ", ".join(roles)),
        ("examples", member.examples or "not declared"),
        ("stake", ether(member.stake)),
        ("keys since", f"block {member.since}"),
    ]
    if member.scheme_key != bytes(32):
        rows.insert(5, ("scheme key", member.scheme_key.hex()))
    if member.locked_until > now:
        rows.append(("stake locked", f"for a task, until {moment(member.locked_until, now)}"))
    if member.unlock_at:
        rows.append(("leaving", f"the stake can be withdrawn from {moment(member.unlock_at, now)}"))
    if member.suspended:
        rows.append(("suspended", "by the authority"))
    show(facts(rows))
