"""``flbc suspend`` and ``flbc report``: what happens to parties that misbehave."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer

from ..crypto.eip712 import Domain, typed_digest
from ..crypto.signing import checksum_address, recover
from ..errors import ConfigError, LedgerError, ProtocolError, SignatureError
from ..round import Block, Signed, Struct, Submission, Vote, domain
from .amounts import ether
from .console import read, say
from .finding import find_account, name_of
from .options import EMBEDDED, DeploymentFile, Payer, Rpc
from .register import show_member
from .session import account_of, hub_at, paying_key, spent

app = typer.Typer()
_KINDS: tuple[type[Struct], ...] = (Submission, Block, Vote)
# A block of a thousand submissions.
_MAX_EVIDENCE = 100_000
# Python's recursion limit does not stop a deep nesting once web3 is loaded, see flbc.encoding; a block has four.
_MAX_BRACKETS = 8


@app.command(epilog="Example: flbc suspend hungary --key authority.key")
def suspend(
    who: Annotated[str, typer.Argument(metavar="NAME-OR-ACCOUNT", help="A registered party.")],
    key: Payer = None,
    lift: Annotated[bool, typer.Option("--lift", help="Lift the suspension.")] = False,
    rpc: Rpc = EMBEDDED,
    deployment: DeploymentFile = None,
) -> None:
    """Keep a party out of all tasks, running ones included. For the authority; stakes and payouts stay the party's."""
    with hub_at(rpc, deployment) as hub:
        account, member = find_account(hub, who)
        name = name_of(member)
        if member.suspended != lift:
            say(f"{name} is {'not ' * lift}suspended already; nothing was sent")
        else:
            signer, authority = paying_key(hub.chain, key), hub.registry.authority()
            if signer.address != authority:
                raise ConfigError(
                    f"Only the authority may suspend, and that is account {checksum_address(authority)}: take its key "
                    f"file, not that of {checksum_address(signer.address)}"
                )
            with account_of(hub.chain, signer) as sender:
                what = "lifting the suspension of" if lift else "suspending"
                receipt = sender.send(f"{what} {name}", hub.registry.suspend(account, not lift))
            say(f"{name} is {'no longer ' * lift}suspended ({spent(receipt)})")
        show_member(hub, account, hub.registry.member(account))


@app.command(epilog="Example: flbc report first-vote.json second-vote.json")
def report(
    first: Annotated[Path, typer.Argument(metavar="FIRST", help="A signed submission, block or vote, as JSON.")],
    second: Annotated[Path, typer.Argument(metavar="SECOND", help="Another one by the same party and label.")],
    key: Payer = None,
    rpc: Rpc = EMBEDDED,
    deployment: DeploymentFile = None,
) -> None:
    """Prove that a party signed two different things under one label; the contract takes its whole stake."""
    a, b = _evidence(first), _evidence(second)
    with hub_at(rpc, deployment) as hub:
        where = domain(hub.chain.chain_id, hub.address, hub.deployment.simulation)
        signer = _proven(a, b, where)
        account = hub.registry.account_of(signer)
        if account is None:
            raise LedgerError(f"The signer {checksum_address(signer)} was never registered: is it the right chain?")
        before = hub.registry.member(account)
        with account_of(hub.chain, paying_key(hub.chain, key)) as sender:
            receipt = sender.send("reporting the equivocation", hub.report(a, b))
        kind = type(a.value).__name__.lower()
        say(f"{name_of(before)} signed two {kind}s: {ether(before.stake)} of stake were taken ({spent(receipt)})")
        show_member(hub, account, hub.registry.member(account))


def _evidence(path: Path) -> Signed:
    """Read what ``Signed.to_dict()`` wrote; its members tell what it is."""
    data = read(path, "evidence", _MAX_EVIDENCE)
    try:
        if data.count(b"[") + data.count(b"{") > _MAX_BRACKETS:
            raise ProtocolError("it is nested too deep")
        content = json.loads(data)
        members = set(content["value"])
        kind = next(kind for kind in _KINDS if {field.name for field in fields(kind)} == members)  # type: ignore[arg-type]
        return Signed.from_dict(kind, content)
    except ProtocolError as error:
        raise ConfigError(f"{path} is no signed submission, block or vote: {error}") from None
    except (ValueError, TypeError, KeyError, StopIteration):
        raise ConfigError(
            f"{path} is no signed submission, block or vote: it must hold what Signed.to_dict() gives, as JSON"
        ) from None


def _proven(a: Signed, b: Signed, where: Domain) -> bytes:
    """Return who signed both; :class:`ConfigError` says why they prove nothing."""
    if type(a.value) is not type(b.value):
        raise ConfigError("One is a different kind of thing than the other: that proves nothing")
    if a.value.label != b.value.label:  # type: ignore[attr-defined]
        raise ConfigError("They were signed under different labels, as each new attempt asks for: no equivocation")
    if a.value.hash == b.value.hash:
        raise ConfigError("Both say the same: no equivocation")
    try:
        signers = {recover(typed_digest(where, signed.value.hash), signed.signature) for signed in (a, b)}
    except SignatureError as error:
        raise ConfigError(f"A signature is malformed: {error}") from None
    if len(signers) > 1:
        listed = " and ".join(checksum_address(signer) for signer in sorted(signers))
        raise ConfigError(f"They were signed by different keys ({listed}), or for another chain")
    return signers.pop()
