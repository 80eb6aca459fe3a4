"""``flbc keys``: a party's key file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..crypto import keystore
from ..crypto.keystore import PartyKeys
from ..crypto.paillier_keys import generate
from ..crypto.paillier_threshold import check_threshold, deal, majority
from ..crypto.sharefile import describe, load_share, save_share
from ..errors import ConfigError, KeyFileError
from ..roster import check_name
from .console import say, waiting
from .keyfiles import new_password, old_password

app = typer.Typer(no_args_is_help=True, help="Make and show a party's key file.")


@app.command("new", epilog="Example: flbc keys new authority --paillier-bits 3072 --out /secure/authority.key")
def new(
    name: Annotated[str, typer.Argument(help="The party's name, as it will stand in the roster.")],
    out: Annotated[Path | None, typer.Option(help="Where to write; default NAME.key in this folder.")] = None,
    paillier_bits: Annotated[
        int | None, typer.Option(help="Also make a Paillier key (the authority needs one): 2048, 3072 or 4096.")
    ] = None,
    fast_opening: Annotated[
        bool,
        typer.Option(
            "--fast-opening",
            help="Make the Paillier key of the kind that opens about five times faster, on an assumption of its own "
            "(strategies/paillier/README.md, Openings).",
        ),
    ] = False,
) -> None:
    """Make a key file, encrypted with a password (asked for, or from FLBC_KEY_PASSWORD)."""
    check_name(name)
    path = out or Path(f"{name}.key")
    if path.exists():
        raise KeyFileError(f"{path} exists; a key file is never overwritten. Choose another --out")
    if fast_opening and paillier_bits is None:
        raise ConfigError("--fast-opening is a kind of Paillier key: add --paillier-bits 3072")
    password = new_password()
    with waiting(f"making keys for {name}"):
        keys = PartyKeys.generate(name, paillier_bits=paillier_bits, fast_opening=fast_opening)
        keystore.save(path, keys, password)
    say(f"wrote {path} (mode 0600); keep it and its password on this party's machine alone")
    _print(path)


@app.command(
    "deal",
    epilog="Example: flbc keys deal cleveland.public.json hungary.public.json zurich.public.json --threshold 2",
)
def deal_shares(
    holders: Annotated[list[Path], typer.Argument(help="Public part of each holder, as `flbc keys show` prints it.")],
    threshold: Annotated[
        int | None,
        typer.Option(help="Shares that open a sum: more than half of the holders, which is what it is if not given."),
    ] = None,
    bits: Annotated[int, typer.Option(help="Size of the Paillier key: 2048, 3072 or 4096.")] = 3072,
    out: Annotated[Path, typer.Option(help="Folder for one file a holder.")] = Path("."),
) -> None:
    """Make a Paillier key that nobody holds: deal shares, each readable by its holder alone, and forget the key.

    Whoever runs this has the whole key in memory meanwhile: use a machine that all trust, or no dealer at all
    (flbc.crypto.tno_interop).
    """
    threshold = majority(len(holders)) if threshold is None else threshold
    check_threshold(threshold, len(holders))
    parties = [_holder(path) for path in holders]
    if len({name for name, _ in parties}) != len(parties) or len({key for _, key in parties}) != len(parties):
        raise KeyFileError("Two of the holders have the same name or encryption key; name each of them once")
    files = [out / f"{name}.share" for name, _ in parties]
    if taken := [file for file in files if file.exists()]:
        raise KeyFileError(f"{taken[0]} exists; a share is never overwritten. Choose another --out")
    with waiting(f"making a key and {len(parties)} shares"):
        shares = deal(generate(bits), threshold, len(parties))
        for share, file, (name, encryption) in zip(shares, files, parties, strict=True):
            save_share(file, share, name, encryption)
    say(
        "wrote " + ", ".join(map(str, files)) + "; send each to its holder, and say the fingerprint "
        "below by telephone or in person for `flbc keys accept --fingerprint`"
    )
    typer.echo(json.dumps(describe(shares[0].key), indent=2))


@app.command(
    "accept", epilog="Example: flbc keys accept old.key cleveland.share --fingerprint 5e0c…91 --out cleveland.key"
)
def accept(
    path: Annotated[Path, typer.Argument(help="Your key file.")],
    share: Annotated[Path, typer.Argument(help="Your share, from the dealer.")],
    fingerprint: Annotated[
        str,
        typer.Option(
            metavar="HEX",
            help="The key's, all 64 digits, as the dealer says it by telephone or in person: it is what "
            "`flbc keys deal` printed.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Where to write the key file that holds both.")],
) -> None:
    """Put a share into a copy of a key file, under the same password.

    A share file says nothing about who made it: only the fingerprint, from the dealer, tells that the key is the one
    that was dealt.
    """
    if out.exists():
        raise KeyFileError(f"{out} exists; a key file is never overwritten. Choose another --out")
    password = old_password(path)
    keys = keystore.load(path, password)
    mine = load_share(share, keys)
    if mine.key.fingerprint.hex() != "".join(fingerprint.split()).lower():
        raise KeyFileError(
            f"{share} holds a share of a key with the fingerprint {mine.key.fingerprint.hex()}, not the one given with "
            "--fingerprint: ask the dealer, by telephone or in person, for what `flbc keys deal` printed. If they "
            "differ, somebody else made this share"
        )
    keystore.save(out, keys.with_share(mine), password)
    say(f"wrote {out} (mode 0600); {path} and {share} are not needed any more")
    _print(out)


@app.command("show", epilog="Example: flbc keys show cleveland.key > cleveland.public.json")
def show_public(path: Annotated[Path, typer.Argument(help="A key file.")]) -> None:
    """Print the public part as JSON: what the others need for their rosters. No password is asked for."""
    _print(path)


def _print(path: Path) -> None:
    typer.echo(json.dumps(keystore.read_public(path), indent=2))


def _holder(path: Path) -> tuple[str, bytes]:
    """Return name and encryption key from a public part."""
    try:
        public = json.loads(path.read_text(encoding="utf-8"))
        check_name(public["name"])
        return str(public["name"]), bytes.fromhex(public["encryption"])
    except (OSError, ValueError, TypeError, KeyError):
        raise KeyFileError(f"Cannot read {path}; make it with `flbc keys show NAME.key > {path}`") from None
