"""``flbc keys``: a party's key file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..crypto import keystore
from ..crypto.keystore import PartyKeys
from ..errors import KeyFileError
from ..roster import check_name
from .console import say, waiting
from .keyfiles import new_password

app = typer.Typer(no_args_is_help=True, help="Make and show a party's key file.")


@app.command("new", epilog="Example: flbc keys new authority --paillier-bits 3072 --out /secure/authority.key")
def new(
    name: Annotated[str, typer.Argument(help="The party's name, as it will stand in the roster.")],
    out: Annotated[Path | None, typer.Option(help="Where to write; default NAME.key in this folder.")] = None,
    paillier_bits: Annotated[
        int | None, typer.Option(help="Also make a Paillier key (the authority needs one): 2048, 3072 or 4096.")
    ] = None,
) -> None:
    """Make a key file, encrypted with a password (asked for, or from FLBC_KEY_PASSWORD)."""
    check_name(name)
    path = out or Path(f"{name}.key")
    if path.exists():
        raise KeyFileError(f"{path} exists; a key file is never overwritten. Choose another --out")
    password = new_password()
    with waiting(f"making keys for {name}"):
        keystore.save(path, PartyKeys.generate(name, paillier_bits=paillier_bits), password)
    say(f"wrote {path} (mode 0600); keep it and its password on this party's machine alone")
    _print(path)


@app.command("show", epilog="Example: flbc keys show cleveland.key > cleveland.public.json")
def show_public(path: Annotated[Path, typer.Argument(help="A key file.")]) -> None:
    """Print the public part as JSON: what the others need for their rosters. No password is asked for."""
    _print(path)


def _print(path: Path) -> None:
    typer.echo(json.dumps(keystore.read_public(path), indent=2))
