"""How commands print: results to standard output, everything else to standard error.

Names, links, paths and nodes' answers come from others. They are printed as they are: never read as markup, and a
character that would move the terminal's cursor or turn the text around is made visible.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from ..errors import ConfigError

_err = Console(stderr=True)
#: Columns of a table that is written to a file or a pipe; a terminal tells its own.
_WIDTH = 160


def visible(text: str) -> str:
    """Write control and invisible characters as escapes; line breaks stay."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode("ascii") for c in text)


def plain(value: object, style: str = "") -> Text:
    """Return a value as text for a table."""
    return Text(visible(str(value)), style=style)


def say(text: str, style: str = "") -> None:
    """Print a line to standard error, not wrapped: it may hold a command."""
    _err.print(plain(text, style), highlight=False, soft_wrap=True)


def complain(text: str) -> None:
    """Print an error."""
    _err.print(Text.assemble(("error:", "red"), " ", visible(text)), highlight=False, soft_wrap=True)


def show(*things: RenderableType) -> None:
    """Print tables and results to standard output."""
    out = Console(highlight=False)
    if not out.is_terminal and "COLUMNS" not in os.environ:
        out = Console(highlight=False, width=_WIDTH)
    for thing in things:
        out.print(thing)


def facts(rows: Iterable[tuple[str, object]]) -> Table:
    """Return names and values in two columns."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value if isinstance(value, Text) else plain(value))
    return table


def table_of(title: str, *columns: str, right: Iterable[str] = ()) -> Table:
    """Return an empty table; the columns named in ``right`` hold numbers."""
    table = Table(
        title=plain(title) if title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    aligned = set(right)
    for name in columns:
        table.add_column(name, justify="right" if name in aligned else "left", overflow="fold")
    return table


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Show what is being waited for: a spinner on a terminal, else a line. Not to be nested."""
    if _err.is_terminal:
        with _err.status(plain(text)):
            yield
    else:
        say(f"{text} ...")
        yield


def write(path: Path, data: bytes) -> None:
    """Write a file that the user named."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise ConfigError(f"Cannot write {path}: {error.strerror}") from None


def read(path: Path, what: str, limit: int) -> bytes:
    """Read a file that the user named; :class:`ConfigError` if there is none, or a larger one than ``limit``."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise ConfigError(f"Cannot read the {what} {path}: {error.strerror}") from None
    if len(data) > limit:
        raise ConfigError(f"{path} is larger than {limit} bytes: it is no {what}")
    return data
