"""The ``flbc`` command: key files, rosters, the demo."""

from __future__ import annotations

import getpass
import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from .crypto import keystore
from .crypto.keystore import PartyKeys
from .crypto.signing import checksum_address
from .errors import ConfigError, FlbcError, KeyFileError, RosterError
from .node.identity import PASSWORD_VARIABLE
from .node.rosterfile import Entry, write_roster
from .roster import check_name

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Secure aggregation for Flower: key files, rosters, the demo.",
)
keys_app = typer.Typer(no_args_is_help=True, help="Make and show a party's key file.")
app.add_typer(keys_app, name="keys")
console = Console(stderr=True)


@keys_app.command("new", epilog="Example: flbc keys new authority --paillier-bits 3072 --out /secure/authority.key")
def keys_new(
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
    password = _new_password()
    with console.status(f"making keys for {name} ..."):
        keystore.save(path, PartyKeys.generate(name, paillier_bits=paillier_bits), password)
    message = f"wrote {path} (mode 0600); keep it and its password on this party's machine alone"
    console.print(message, markup=False, highlight=False, soft_wrap=True)
    _show(path)


@keys_app.command("show", epilog="Example: flbc keys show cleveland.key > cleveland.public.json")
def keys_show(path: Annotated[Path, typer.Argument(help="A key file.")]) -> None:
    """Print the public part as JSON: what the others need for their rosters. No password is asked for."""
    _show(path)


@app.command(
    epilog="Example: flbc roster cleveland.public.json:hospital:242 hungary.public.json:hospital:235 "
    "authority.public.json:authority --max-epsilon 1 --out roster.toml"
)
def roster(
    parties: Annotated[
        list[str],
        typer.Argument(help="FILE:ROLE[,ROLE][:EXAMPLES] for each party; FILE as `flbc keys show` prints it."),
    ],
    out: Annotated[Path, typer.Option(help="Where to write.")] = Path("roster.toml"),
    scheme: Annotated[list[str] | None, typer.Option(help="Accepted scheme; may be repeated.")] = None,
    min_key_bits: Annotated[int, typer.Option(help="Smallest scheme key in bits.")] = 3072,
    min_survivors: Annotated[int, typer.Option(help="Fewest clients in a sum.")] = 3,
    min_noise_multiplier: Annotated[float, typer.Option(help="Above 0: require differential privacy.")] = 0.0,
    max_epsilon: Annotated[float | None, typer.Option(help="Require differential privacy with at most this.")] = None,
    max_delta: Annotated[float | None, typer.Option(help="Largest delta; 0.001 when not given.")] = None,
    max_clip_norm: Annotated[float | None, typer.Option(help="Largest clipping norm.")] = None,
    max_total_epsilon: Annotated[
        float | None, typer.Option(help="For the authority: largest sum of epsilon over all tasks.")
    ] = None,
    reveal_metric: Annotated[
        list[str] | None, typer.Option(help="With privacy: a metric that may leave in clear; may be repeated.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing roster.")] = False,
) -> None:
    """Assemble a node's pins: whom it trusts, and what it agrees to. Every party checks the file it uses."""
    entries = [Entry.parse(text) for text in parties]
    policy: dict[str, object] = {
        "schemes": scheme or ["paillier"],
        "min-key-bits": min_key_bits,
        "min-survivors": min_survivors,
        "min-noise-multiplier": min_noise_multiplier,
        "reveal-metrics": reveal_metric or [],
    }
    limits = {
        "epsilon": max_epsilon,
        "delta": max_delta,
        "clip-norm": max_clip_norm,
        "total-epsilon": max_total_epsilon,
    }
    policy.update({f"max-{name}": limit for name, limit in limits.items() if limit is not None})
    if out.exists() and not force:
        raise RosterError(f"{out} exists; add --force to replace it, or choose another --out")
    pins = write_roster(out, entries, policy)
    console.print(
        f"wrote {escape(str(out))}; compare these lines with each party, by telephone or in person", soft_wrap=True
    )
    for party in pins.values():
        typer.echo(f"{party.name}  ({', '.join(party.roles)}; examples: {party.examples or 'not declared'})")
        typer.echo(f"  signing address   {checksum_address(party.address)}")
        typer.echo(f"  encryption key    {party.encryption.hex()}")
        if party.scheme_key:
            typer.echo(f"  scheme key        {party.scheme_key.hex()}")


@app.command(epilog="Example: flbc demo")
def demo() -> None:
    """Train on four hospitals' records under encryption, with epsilon = 1 per patient (what `make demo` runs)."""
    from .demo.run import run_demo

    raise typer.Exit(run_demo())


def main() -> None:
    """Run the command; flbc's errors are printed without a traceback."""
    try:
        app()
    except FlbcError as error:
        # Messages quote [policy] and paths, which are no markup, and commands, which must not be wrapped.
        console.print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(1)


def _show(path: Path) -> None:
    typer.echo(json.dumps(keystore.read_public(path), indent=2))


def _new_password() -> str:
    if PASSWORD_VARIABLE in os.environ:
        return os.environ[PASSWORD_VARIABLE]
    if not sys.stdin.isatty():
        raise ConfigError(f"Nobody can type a password here; set {PASSWORD_VARIABLE}")
    first, second = getpass.getpass("Password of the new key file: "), getpass.getpass("Again: ")
    if not first or first != second:
        raise ConfigError("The passwords are empty or differ; nothing was written")
    return first
