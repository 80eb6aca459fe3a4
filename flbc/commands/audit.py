"""``flbc audit``: verify a task again, from the chain alone or from an exported file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..encoding import MAX_BYTES
from ..errors import ConfigError, ProtocolError
from ..ledger.records import TaskHistory
from .audit_table import report_of
from .console import read, say, show, waiting, write
from .finding import find_task, newest_task
from .options import EMBEDDED, DeploymentFile, Rpc
from .session import hub_at

app = typer.Typer()


@app.command(epilog="Example: flbc audit 3f9a --rpc http://127.0.0.1:8545 --export task.json")
def audit(
    task: Annotated[
        str | None,
        typer.Argument(metavar="[TASK]", help="A task's id, or enough of its first digits; default: the newest task."),
    ] = None,
    rpc: Rpc = EMBEDDED,
    deployment: DeploymentFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    export: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write all records to a file, to be audited anywhere.")
    ] = None,
    from_file: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="Audit what --export wrote; asks no chain.")
    ] = None,
) -> None:
    """Recompute every hash and verify every signature, election, vote, opening and payout of a task.

    Exits with 0 only if nothing is in doubt.
    """
    from ..ledger.audit import audit as verify

    history = _read(task, rpc, deployment) if from_file is None else _load(from_file, task)
    if export is not None:
        write(export, history.pack() + b"\n")
        say(f"wrote {export}; `flbc audit --from {export}` audits it without a chain")
    with waiting("verifying"):
        report = verify(history)
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2, allow_nan=False))
    else:
        show(*report_of(report))
        if from_file is not None:
            say(
                "note: this file was compared with no chain. It agrees with itself; so does one that somebody made "
                "up with keys of their own: compare hub and accounts with what you know, or audit with --rpc"
            )
    if not report.ok:
        raise typer.Exit(1)


def _read(task: str | None, rpc: str, deployment: Path | None) -> TaskHistory:
    with hub_at(rpc, deployment) as hub:
        from ..ledger.history import read_task

        which = newest_task(hub) if task is None else find_task(hub, task)
        with waiting(f"reading task {which.hex()[:16]}… from the chain"):
            return read_task(hub.chain, hub.deployment, which)


def _load(file: Path, task: str | None) -> TaskHistory:
    data = read(file, "exported history", MAX_BYTES + 1)
    try:
        history = TaskHistory.unpack(data.removesuffix(b"\n"))
    except ProtocolError as error:
        raise ConfigError(f"{file} is nothing that `flbc audit --export` wrote, or it was changed: {error}") from None
    if task is not None and not history.task.hex().startswith(task.removeprefix("0x").lower()):
        raise ConfigError(f"{file} is about task {history.task.hex()}, not {task}")
    return history
