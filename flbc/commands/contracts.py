"""``flbc contracts``: make the shipped artifacts anew."""

from __future__ import annotations

from typing import Annotated

import typer

from .console import say, show, table_of, waiting

app = typer.Typer(no_args_is_help=True, help="Compile the contracts; for those who change them.")


@app.command(epilog="Example: flbc contracts build --check")
def build(
    check: Annotated[bool, typer.Option("--check", help="Compare with what is shipped; write nothing.")] = False,
) -> None:
    """Compile the contracts and write the artifacts that the package ships. Needs a compiler, see the documentation."""
    from ..ledger import build as compiler

    with waiting("compiling the contracts (about 20 seconds)"):
        if check:
            compiler.check()
        made = {name: compiler.artifact(name) for name in compiler.CONTRACTS} if check else compiler.build()
    table = table_of("", "contract", "compiler", "bytes", "source hash", right=["bytes"])
    for name, content in made.items():
        size = (len(content["deployedBytecode"]) - 2) // 2
        table.add_row(name, content["compiler"], f"{size:,}", content["sourceHash"])
    show(table)
    say("the shipped artifacts are those of the sources" if check else "wrote flbc/ledger/artifacts")
