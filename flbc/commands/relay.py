"""``flbc relay``: ties nodes together that can only dial out."""

from __future__ import annotations

import ipaddress
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Any

import typer

from .console import facts, say, show

app = typer.Typer()
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: As in RelayLimits, which is not loaded for the help.
_PAIRS, _WAITING = 192, 128


@app.command(epilog="Example: flbc relay --listen 0.0.0.0:9600")
def relay(
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where the nodes dial to; port 0 takes a free one.")
    ] = "127.0.0.1:9600",
    pairs: Annotated[int, typer.Option(min=1, help="Connections passed on at once; a computation takes six.")] = _PAIRS,
    waiting: Annotated[int, typer.Option(min=1, help="Connections that may wait for the other.")] = _WAITING,
) -> None:
    """Pass on what three committee nodes compute together, where they cannot dial each other. Runs until Ctrl-C.

    It holds no key and sees only ciphertext. It can delay and cut, and sees who computes with whom, and how much.
    """
    from ..verification.relay import RelayHub, RelayLimits
    from ..verification.road import format_address, parse_address

    host, port = parse_address(listen, lowest_port=0)
    with _until_stopped() as stopped, RelayHub(host, port, RelayLimits(pairs=pairs, waiting=waiting)) as hub, _shown():
        rows = [
            ("address", format_address(*hub.address)),
            ("sees", "ciphertext only: addresses, times and sizes"),
            ("pairs", f"at most {pairs}; {waiting} connections waiting"),
            ("stop", "Ctrl-C"),
        ]
        show(facts(rows))
        if not ipaddress.ip_address(hub.address[0]).is_loopback:
            say("note: whoever reaches this port can take up places: let the firewall admit the committee's nodes only")
        while not stopped.wait(1.0):  # not for ever at once: a signal would wait as long on some systems
            pass
    say("the relay was stopped")


class _Lines(logging.Handler):
    """Prints what the relay logs to standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        say(f"{self.format(record)}")


@contextmanager
def _shown() -> Iterator[None]:
    """Print the relay's log as long as it runs."""
    logger, lines = logging.getLogger("flbc.verification.relay"), _Lines()
    lines.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    before = logger.level, logger.propagate
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(lines)
        logger.setLevel(before[0])
        logger.propagate = before[1]


@contextmanager
def _until_stopped() -> Iterator[threading.Event]:
    """Have Ctrl-C and SIGTERM set an event; at the end they do what they did before."""
    stopped = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.set()

    before: dict[signal.Signals, Any] = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
