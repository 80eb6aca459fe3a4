"""``flbc task publish``: put the reward into escrow, freeze the participants, draw the seed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..crypto.signing import SigningKey, checksum_address
from ..errors import ConfigError, LedgerError
from ..roster import ROLE_BITS, Roster
from .amounts import ether, moment, parse_ether
from .console import say, show, waiting
from .keyfiles import open_keys
from .options import EMBEDDED, DeploymentFile, Rpc
from .session import account_of, hub_at
from .task_tables import terms

if TYPE_CHECKING:
    from ..ledger.hub import Hub
    from ..ledger.outbox import Outbox
    from ..ledger.publishing import TaskFile
    from ..ledger.records import TaskState


def publish(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What a run wrote when it asked for its publisher.")],
    key: Annotated[Path, typer.Option(metavar="FILE", help="The publisher's key file, which signs.")],
    reward: Annotated[
        str | None, typer.Option(metavar="ETHER", help="Escrow; default: what the file suggests.")
    ] = None,
    deadline: Annotated[
        int | None, typer.Option(min=1, help="Seconds from now to settle in; default: what the file suggests.")
    ] = None,
    account: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Key file of the account that pays; default: --key."),
    ] = None,
    rpc: Rpc = EMBEDDED,
    deployment: DeploymentFile = None,
) -> None:
    """Publish and start the task that a run waits for. Every step that was done before is left as it is."""
    wei = None if reward is None else parse_ether(reward, "--reward")
    if wei == 0:
        raise ConfigError("--reward must be more than 0: the contract takes no task without an escrow")
    from ..ledger.publishing import TaskFile

    wanted = TaskFile.load(file)
    escrow = wanted.reward if wei is None else wei
    seconds = wanted.seconds if deadline is None else deadline
    show(*terms(wanted, escrow, seconds))
    signer = open_keys(key).signing
    payer = signer if account is None else open_keys(account).signing
    with hub_at(rpc, deployment) as hub, account_of(hub.chain, payer) as sender:
        task = _publish(hub, sender.outbox, wanted, escrow, seconds, asked=wei)
        _start(hub, sender.outbox, wanted, task, signer)
        _draw_seed(hub, sender.outbox, task)
        say(f"the run that wrote {file} goes on by itself; `flbc task status {task.hex()[:8]}` shows how far it is")


def _publish(hub: Hub, outbox: Outbox, file: TaskFile, reward: int, seconds: int, *, asked: int | None) -> bytes:
    from ..ledger import publishing

    task = hub.task_id(outbox.account, file.salt)
    if hub.exists(task):
        state = hub.task(task)
        say(f"1. published before: task {task.hex()}, escrow {ether(state.reward)}")
        if asked not in (None, state.reward):
            say("   --reward was ignored: an escrow cannot be changed", "yellow")
        _check_open(hub, task, state)
        return task
    _check_parties(hub, outbox.account, file)
    with waiting("publishing"):
        publishing.publish(hub, outbox, file, reward, seconds)
    say(f"1. published task {task.hex()}, escrow {ether(reward)}")
    return task


def _check_open(hub: Hub, task: bytes, state: TaskState) -> None:
    now = hub.chain.now()
    if state.status in ("settled", "refunded"):
        raise LedgerError(f"This task is {state.status}; for another one start the run again")
    if now > state.deadline:
        raise LedgerError(
            f"This task ended {moment(state.deadline, now)}: `flbc task refund {task.hex()[:8]}` returns the escrow, "
            "then start the run again"
        )


def _check_parties(hub: Hub, payer: bytes, file: TaskFile) -> None:
    """Find out before there is money in escrow what the start would refuse."""
    member = hub.registry.member(payer)
    if not member.roles & ROLE_BITS["publisher"]:
        raise ConfigError(
            f"Account {checksum_address(payer)} may not publish: register it with `flbc register --publisher`, or name "
            "the account that is with --account"
        )
    roster, covenant = Roster.decode(file.roster), file.covenant
    covenant.check_roster(roster)
    for party in roster.parties:
        account, found = hub.registry.find(party)
        what = f"{party.name!r} (account {checksum_address(account)})"
        if found.suspended or found.unlock_at:
            raise LedgerError(
                f"{what} {'is suspended' if found.suspended else 'has left'}: have it come back, or start the run "
                "again without it"
            )
        agreed = covenant.stake(party.name) * 10**9
        if found.stake // 10**9 * 10**9 != agreed:
            raise LedgerError(
                f"The stake of {what} is {ether(found.stake)}, the task's terms say {ether(agreed)}: it changed since "
                "the run looked; start the run again"
            )


def _start(hub: Hub, outbox: Outbox, file: TaskFile, task: bytes, signer: SigningKey) -> None:
    from ..ledger import publishing

    if hub.task(task).status == "started":
        say(f"2. started before, in block {hub.task(task).started_block}")
        return
    registered = hub.registry.member(outbox.account).signer
    if registered != signer.address:
        raise ConfigError(
            f"The publisher registered the signing key {checksum_address(registered)}: name its file with --key, not "
            f"that of {checksum_address(signer.address)}"
        )
    with waiting("starting"):
        publishing.start(hub, outbox, task, file, signer)
    state = hub.task(task)
    say(f"2. started with {state.members} participants, {state.committee} of them in the committee")


def _draw_seed(hub: Hub, outbox: Outbox, task: bytes) -> None:
    from ..ledger import publishing

    before = hub.task(task).seed
    with waiting("drawing the seed of the election from a block after the start"):
        seed = publishing.draw_seed(hub, outbox, task)
    say(f"3. the seed {'was drawn before' if before == seed else 'is drawn'}: {seed.hex()}")
