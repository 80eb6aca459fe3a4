"""Write a roster file from what parties published (``flbc roster``)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import tomli_w

from ..crypto.signing import checksum_address, parse_address
from ..errors import RosterError
from ..roster import GENERATOR, Party
from .identity import parse_roles
from .pins import Pins


@dataclass(frozen=True, slots=True)
class Entry:
    """One party for the roster: its public part, roles, and declared number of examples (0: not declared)."""

    public: Mapping[str, Any]
    roles: tuple[str, ...]
    examples: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``FILE:ROLE[,ROLE][:EXAMPLES]``.

        Raises
        ------
        RosterError
            If the text or the file is malformed.
        """
        file, colon, rest = text.partition(":")
        roles, _, examples = rest.partition(":")
        if not colon or (examples and not examples.isdecimal()):
            raise RosterError(f"{text!r} must be FILE:ROLE[,ROLE][:EXAMPLES], e.g. cleveland.public.json:hospital:242")
        try:
            public = json.loads(Path(file).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise RosterError(f"Cannot read {file}; make it with `flbc keys show NAME.key > {file}`") from None
        if not isinstance(public, dict):
            raise RosterError(f"{file} does not hold the public part of a key file")
        return cls(public, parse_roles(roles), int(examples or 0))

    def to_toml(self) -> dict[str, Any]:
        """Return the ``[[party]]`` table."""
        try:
            table: dict[str, Any] = {
                "name": str(self.public["name"]),
                "roles": list(self.roles),
                "address": checksum_address(parse_address(self.public["address"])),
                "encryption": str(self.public["encryption"]),
                "vrf": checksum_address(parse_address(self.public["vrf_address"])),
            }
            scheme_key = self.public["paillier"] or self.public.get("share")
            if scheme_key is not None:
                table["scheme-key"] = str(scheme_key["fingerprint"])
        except (KeyError, TypeError) as error:
            raise RosterError(f"The public part of a key file lacks {error}; make it with `flbc keys show`") from None
        if self.examples:
            table["examples"] = self.examples
        return table


def default_schemes(entries: Sequence[Entry]) -> list[str]:
    """Return the strictest opening that these parties are made for: what a node accepts if nobody says.

    Shares of a key, or a generator beside a Paillier key, were made so that the authority opens nothing alone. A policy
    that accepts ``paillier`` would let server and authority go back to that.
    """
    if any(entry.public.get("share") for entry in entries):
        return ["paillier-threshold"]
    if any(GENERATOR in entry.roles for entry in entries) and any(entry.public.get("paillier") for entry in entries):
        return ["paillier-split"]
    return ["paillier"]


def write_roster(path: Path, entries: Sequence[Entry], policy: Mapping[str, object]) -> dict[str, Party]:
    """Check a roster, write it to ``path``, and return its parties by name; nothing is written if it is malformed."""
    tables = sorted((entry.to_toml() for entry in entries), key=lambda table: str(table["name"]))
    data = {"version": 1, "policy": dict(policy), "party": tables}
    pins = Pins.from_toml(data, path)
    try:
        path.write_text(tomli_w.dumps(data), encoding="utf-8")
    except OSError as error:
        raise RosterError(f"Cannot write the roster {path}: {error.strerror}") from None
    return dict(pins.parties or {})
