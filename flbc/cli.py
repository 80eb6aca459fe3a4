"""The ``flbc`` command. Each group of commands has a file in :mod:`flbc.commands`."""

from __future__ import annotations

import sys

import typer

from .commands import audit, chain, contracts, deploy, discipline, keys, register, relay, roster, stake, task
from .commands.console import complain
from .commands.cures import explain
from .errors import FlbcError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Secure aggregation for Flower: key files, rosters, the ledger, the demo.",
)
_KEYS, _LEDGER, _TASKS = "Parties", "Chain and contracts", "Tasks"


@app.command(epilog="Example: flbc demo", rich_help_panel=_TASKS)
def demo() -> None:
    """Train on four hospitals' records under encryption, with epsilon = 1 per patient (what `make demo` runs)."""
    from .demo.run import run_demo

    raise typer.Exit(run_demo())


app.add_typer(keys.app, name="keys", rich_help_panel=_KEYS)
app.add_typer(stake.app, name="stake", rich_help_panel=_KEYS)
app.add_typer(chain.app, name="chain", rich_help_panel=_LEDGER)
app.add_typer(contracts.app, name="contracts", rich_help_panel=_LEDGER)
app.add_typer(task.app, name="task", rich_help_panel=_TASKS)
for _part, _panel in (
    (roster.app, _KEYS),
    (register.app, _KEYS),
    (discipline.app, _KEYS),
    (relay.app, _KEYS),
    (deploy.app, _LEDGER),
    (audit.app, _TASKS),
):
    for _command in _part.registered_commands:
        _command.rich_help_panel = _panel
        app.registered_commands.append(_command)


def main() -> None:
    """Run the command; flbc's errors are printed without a traceback, and with what helps."""
    try:
        app()
    except FlbcError as error:
        complain(explain(error))
        sys.exit(1)
