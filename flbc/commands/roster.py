"""``flbc roster``: whom a node trusts, and what it agrees to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..crypto.signing import checksum_address
from ..errors import RosterError
from ..node.rosterfile import Entry, default_schemes, write_roster
from .console import say

app = typer.Typer()


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
    scheme: Annotated[
        list[str] | None,
        typer.Option(
            help="Accepted scheme; may be repeated. Else paillier-threshold if a party has a share of a key, "
            "paillier-split if there are a generator and a Paillier key, or paillier."
        ),
    ] = None,
    min_key_bits: Annotated[int, typer.Option(help="Smallest scheme key in bits.")] = 3072,
    min_survivors: Annotated[int, typer.Option(help="Fewest clients in a sum.")] = 3,
    min_threshold: Annotated[
        float | None,
        typer.Option(help="With masks: smallest fraction of a group that opens a secret; else 2/3."),
    ] = None,
    noise_by: Annotated[
        str,
        typer.Option(
            help="clients: accept only noise that clients add in shares; local: only noise that each adds to its own "
            "update; opener: only that of whoever opens."
        ),
    ] = "",
    min_noise_multiplier: Annotated[float, typer.Option(help="Above 0: require differential privacy.")] = 0.0,
    max_epsilon: Annotated[float | None, typer.Option(help="Require differential privacy with at most this.")] = None,
    max_delta: Annotated[float | None, typer.Option(help="Largest delta; 0.001 when not given.")] = None,
    max_clip_norm: Annotated[float | None, typer.Option(help="Largest clipping norm.")] = None,
    max_total_epsilon: Annotated[
        float | None, typer.Option(help="Largest sum of epsilon over all tasks that this node opens or adds noise to.")
    ] = None,
    reveal_metric: Annotated[
        list[str] | None, typer.Option(help="With privacy: a metric that may leave in clear; may be repeated.")
    ] = None,
    deployment: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Accept tasks on this deployment only, as `flbc deploy` wrote it."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing roster.")] = False,
) -> None:
    """Assemble a node's pins: whom it trusts, and what it agrees to. Every party checks the file it uses."""
    entries = [Entry.parse(text) for text in parties]
    schemes = scheme or default_schemes(entries)
    policy: dict[str, object] = {
        "schemes": schemes,
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
    if min_threshold is not None:
        policy["min-threshold"] = min_threshold
    if noise_by:
        policy["noise-by"] = noise_by
    if deployment is not None:
        from ..ledger.deployment import Deployment

        contracts = Deployment.load(deployment)
        policy |= {"chain-id": contracts.chain_id, "hub": checksum_address(contracts.hub)}
    if out.exists() and not force:
        raise RosterError(f"{out} exists; add --force to replace it, or choose another --out")
    pins = write_roster(out, entries, policy)
    say(f"wrote {out}; compare these lines with each party, by telephone or in person")
    for party in pins.values():
        typer.echo(f"{party.name}  ({', '.join(party.roles)}; examples: {party.examples or 'not declared'})")
        typer.echo(f"  signing address   {checksum_address(party.address)}")
        typer.echo(f"  encryption key    {party.encryption.hex()}")
        if party.scheme_key:
            typer.echo(f"  scheme key        {party.scheme_key.hex()}")
    typer.echo(f"accepted schemes: {', '.join(schemes)}")
    if deployment is not None:
        typer.echo(f"tasks on chain {policy['chain-id']}, hub {policy['hub']} only")
