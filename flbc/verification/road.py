"""How raw connections between parties come about, and how places are written.

A road is not trusted: who is at its end is decided by TLS (:mod:`flbc.verification.tls`).
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from ..errors import ConfigError


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a party listens, and the certificate that it will show (DER)."""

    host: str
    port: int
    certificate: bytes


def parse_address(text: str, lowest_port: int = 1) -> tuple[str, int]:
    """Read ``HOST:PORT``.

    Parameters
    ----------
    text : str
        A name or an IPv4 address, or an IPv6 address in brackets: ``node.example:9600``, ``[::1]:9600``.
    lowest_port : int (default: 1)
        0 where a free port may be taken.

    Raises
    ------
    ConfigError
        If it is something else.
    """
    host, colon, port = text.rpartition(":")
    shown = repr(text[:80])
    if not colon:
        raise ConfigError(f"{shown} lacks a port: write HOST:PORT, for instance 127.0.0.1:9600")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise ConfigError(f"{shown} has no IPv6 address in its brackets: write [::1]:9600") from None
    elif ":" in host:
        raise ConfigError(f"{shown} has several colons: write an IPv6 address in brackets, [::1]:9600")
    elif not re.fullmatch(r"[A-Za-z0-9._-]{1,253}", host):
        raise ConfigError(f"{shown} has no host that can be dialled: write a name or an IP address, then :PORT")
    if not re.fullmatch(r"[0-9]{1,5}", port) or not lowest_port <= int(port) <= 65_535:
        raise ConfigError(f"{shown} has no port from {lowest_port} to 65535 after the colon")
    return host, int(port)


def format_address(host: str, port: int) -> str:
    """Write what :func:`parse_address` reads."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def network_of(host: str) -> str:
    """Return who counts as one: an IPv4 address, or the 64 bits of an IPv6 address that a subscriber gets whole."""
    if ":" not in host:
        return host
    return str(ipaddress.IPv6Network((int(ipaddress.IPv6Address(host)) >> 64 << 64, 64)))


class Road(Protocol):
    """How raw connections to and from the others come about. All methods may raise OSError: try again."""

    #: Whether somebody else than the peer may be at the other end of a connection that was dialled. Then a handshake
    #: that fails is no reason to give up.
    open: bool

    def out(self, peer: int, seconds: float) -> socket.socket:
        """Return a connection to a party."""
        ...

    def into(self, missing: Collection[int], seconds: float) -> socket.socket:
        """Return a connection from one of ``missing``, or from a stranger."""
        ...

    def close(self) -> None:
        """Take no more connections."""
        ...


class DirectRoad:
    """Dials the others where they listen, and listens itself; the parameters are those of :class:`.tls.TlsLink`."""

    open = False

    def __init__(self, listener: socket.socket, peers: Mapping[int, Endpoint]) -> None:
        self._listener, self._peers = listener, peers

    def out(self, peer: int, seconds: float) -> socket.socket:
        """Dial."""
        return socket.create_connection((self._peers[peer].host, self._peers[peer].port), timeout=seconds)

    def into(self, missing: Collection[int], seconds: float) -> socket.socket:
        """Accept."""
        self._listener.settimeout(seconds)
        return self._listener.accept()[0]

    def close(self) -> None:
        """Close the listener."""
        self._listener.close()
