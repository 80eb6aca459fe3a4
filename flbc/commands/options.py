"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Rpc = Annotated[
    str,
    typer.Option("--rpc", metavar="URL", help="The chain: embedded, embedded:FILE, or an Ethereum node's URL."),
]
DeploymentFile = Annotated[
    Path | None,
    typer.Option("--deployment", metavar="FILE", help="Deployment file; default: the one in FLBC_HOME for this chain."),
]
#: Where it does not matter who sends: what counts is in the transaction.
Payer = Annotated[
    Path | None,
    typer.Option(
        "--key", metavar="FILE", help="Key file of the account that pays; default on a development chain: its own."
    ),
]
TaskId = Annotated[str, typer.Argument(metavar="TASK", help="The task's id, or enough of its first digits.")]
EMBEDDED = "embedded"
