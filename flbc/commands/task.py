"""``flbc task``: publish a task, look at it, fetch the money."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..crypto.signing import SigningKey, checksum_address
from ..errors import AuditError, ConfigError, LedgerError
from .amounts import ether, moment
from .console import say, show
from .finding import all_tasks, find_task, settled_payouts
from .keyfiles import open_keys
from .options import EMBEDDED, DeploymentFile, Payer, Rpc, TaskId
from .publish import publish
from .session import account_of, hub_at, paying_key, spent
from .sync import sync
from .task_tables import details, list_of

if TYPE_CHECKING:
    from ..ledger.hub import Hub

app = typer.Typer(no_args_is_help=True, help="Publish tasks, look at them, fetch what is due.")
app.command(epilog="Example: flbc task publish task.json --key publisher.key --reward 2.5 --rpc http://127.0.0.1:8545")(
    publish
)
app.command(epilog="Example: flbc task sync --rpc http://127.0.0.1:8545 --seconds 60")(sync)
# Not estimated: whether the contract refuses depends on the time of the next block.
_REFUND_GAS = 150_000


@app.command(epilog="Example: flbc task status 3f9a")
def status(
    task: Annotated[
        str | None,
        typer.Argument(metavar="[TASK]", help="A task's id, or enough of its first digits; without it: all tasks."),
    ] = None,
    rpc: Rpc = EMBEDDED,
    deployment: DeploymentFile = None,
) -> None:
    """Show how a task stands, and what can be done next; or list all tasks of the hub."""
    with hub_at(rpc, deployment) as hub:
        if task is not None:
            show(*details(hub, find_task(hub, task)))
        elif tasks := all_tasks(hub):
            show(list_of(hub, tasks))
        else:
            say("there is no task on this hub yet: `flbc demo` runs one")


@app.command(epilog="Example: flbc task claim 3f9a --key cleveland.key")
def claim(
    task: TaskId,
    key: Annotated[Path, typer.Option("--key", metavar="FILE", help="Key file of the account that registered.")],
    rpc: Rpc = EMBEDDED,
    deployment: DeploymentFile = None,
) -> None:
    """Fetch the account's part of a settled task's reward."""
    signer = open_keys(key).signing
    with hub_at(rpc, deployment) as hub:
        which = find_task(hub, task)
        due = settled_payouts(hub, which)
        party = _party_of(hub, which, signer)
        if party not in due:
            raise LedgerError(f"Nothing is due to {checksum_address(signer.address)}: no update of it was accepted")
        proof = _proof(hub, which, due, party)
        with account_of(hub.chain, signer) as account:  # opened first: an earlier command's claim may be queued
            if hub.claimed(which, party):
                say(f"the {ether(due[party])} were fetched before; nothing was sent")
            else:
                receipt = account.send("claiming", hub.claim(which, party, due[party], proof))
                say(f"fetched {ether(due[party])} ({spent(receipt)})")
        say(f"{checksum_address(signer.address)} holds {ether(hub.chain.balance(signer.address))} now")


@app.command(epilog="Example: flbc task refund 3f9a")
def refund(task: TaskId, key: Payer = None, rpc: Rpc = EMBEDDED, deployment: DeploymentFile = None) -> None:
    """Return the escrow of a task that was not settled by its deadline to the publisher, whoever sends this."""
    with hub_at(rpc, deployment) as hub:
        which = find_task(hub, task)
        state, now = hub.task(which), hub.chain.now()
        if state.status == "refunded":
            say("this task was refunded before; nothing was sent")
            return
        if state.status == "settled":
            raise ConfigError("This task is settled: its escrow belongs to the participants, see `flbc task claim`")
        if now <= state.deadline:
            raise LedgerError(f"The task runs until {moment(state.deadline, now)}; the escrow goes back after that")
        with account_of(hub.chain, paying_key(hub.chain, key)) as account:
            if hub.task(which).status == "refunded":
                say("an earlier command's refund was still queued: it is sent now")
                return
            receipt = account.send("refunding", hub.refund(which), _REFUND_GAS)
        say(f"{ether(state.reward)} went back to {checksum_address(state.publisher)} ({spent(receipt)})")


def _party_of(hub: Hub, task: bytes, signer: SigningKey) -> int:
    """Return the account's place among the participants."""
    seats = hub.participants(task)
    for party, seat in enumerate(seats):
        if seat.account == signer.address:
            return party
    for seat in seats:
        if seat.signer == signer.address:
            raise ConfigError(
                f"This party is paid to the account that registered it, {checksum_address(seat.account)}: take that "
                "account's key file"
            )
    raise ConfigError(f"{checksum_address(signer.address)} takes no part in this task")


def _proof(hub: Hub, task: bytes, due: dict[int, int], party: int) -> list[bytes]:
    from ..ledger.payouts import merkle_proof, merkle_root

    accounts = [seat.account for seat in hub.participants(task)]
    if merkle_root(due, accounts) != hub.task(task).payout_root:
        raise AuditError("The payouts in the settlement are not those that the contract accepted: is the node honest?")
    return list(merkle_proof(due, accounts, party))
