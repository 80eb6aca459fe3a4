"""How raw connections between parties come about, and how places are written.

A road is not trusted: who is at its end is decided by TLS (:mod:`flbc.verification.tls`).
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import selectors
import socket
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ..errors import ConfigError

#: Callers that the system keeps until they are accepted: a full queue makes the peer wait for seconds.
_BACKLOG = 1024
#: Seconds for an attempt to dial; a first packet that is lost is sent again after one.
_CONNECT = 3.0


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

    #: Whether somebody else than the peer may be at the other end of a connection that was dialled. Then another
    #: certificate than the pinned one is no reason to give up.
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
        listener.listen(_BACKLOG)

    def out(self, peer: int, seconds: float) -> socket.socket:
        """Dial."""
        place = self._peers[peer]
        return socket.create_connection((place.host, place.port), timeout=min(seconds, _CONNECT))

    def into(self, missing: Collection[int], seconds: float) -> socket.socket:
        """Accept."""
        self._listener.settimeout(seconds)
        return self._listener.accept()[0]

    def close(self) -> None:
        """Close the listener."""
        self._listener.close()


@dataclass(slots=True)
class _Room:
    """Who is in one part of the lobby, oldest first: network, and until when; how many fit, and for how long."""

    places: int
    seconds: float
    guests: dict[socket.socket, tuple[str, float]] = field(default_factory=dict)


class Lobby:
    """Connections that came in, and of which nobody knows yet whose they are: most may be strangers'.

    Who has said nothing gets little time, and takes no place of those who talk. Where all places are taken, the network
    that has most of them loses its oldest: whoever knocks often puts out himself, not the newcomer from elsewhere.
    Not for several threads.

    Parameters
    ----------
    places : int
        For those who have said nothing, and as many for those who talk.
    silent_seconds, seconds : float
        How long a connection may stay before and after its first byte.
    """

    def __init__(self, places: int, silent_seconds: float, seconds: float) -> None:
        self._silent, self._talking = _Room(places, silent_seconds), _Room(places, seconds)
        self._selector = selectors.DefaultSelector()

    def __len__(self) -> int:
        return len(self._silent.guests) + len(self._talking.guests)

    def admit(self, plain: socket.socket) -> None:
        """Take in a connection that was just accepted; from now on it does not block."""
        try:
            network = network_of(plain.getpeername()[0])
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.setblocking(False)
        except OSError:  # gone already
            plain.close()
            return
        self._enter(self._silent, plain, network)

    def move(self, plain: socket.socket) -> str:
        """Let a connection go, and return its network for :meth:`talk`."""
        self._selector.unregister(plain)
        room = self._silent if plain in self._silent.guests else self._talking
        return room.guests.pop(plain)[0]

    def talk(self, connection: socket.socket, network: str) -> None:
        """Take a connection back in, as one that has said something."""
        self._enter(self._talking, connection, network)

    def put_out(self, plain: socket.socket) -> None:
        """Close a connection."""
        self.move(plain)
        plain.close()

    def spoken(self) -> Iterator[socket.socket]:
        """Give those from which something came; then put out those whose time is over."""
        for key, _ in self._selector.select(0):
            plain = key.fileobj
            # Meanwhile another may have taken its place.
            if isinstance(plain, socket.socket) and (plain in self._silent.guests or plain in self._talking.guests):
                yield plain
        now = time.monotonic()
        for room in (self._silent, self._talking):
            while room.guests and (oldest := next(iter(room.guests.items())))[1][1] <= now:
                self.put_out(oldest[0])

    def close(self) -> None:
        """Close all that are left."""
        for room in (self._silent, self._talking):
            for plain in list(room.guests):
                with contextlib.suppress(OSError):
                    self.put_out(plain)
        self._selector.close()

    def _enter(self, room: _Room, plain: socket.socket, network: str) -> None:
        if len(room.guests) >= room.places:
            here = [guest[0] for guest in room.guests.values()]
            crowd = Counter([*here, network]).most_common(1)[0][0]
            oldest = next((guest for guest, (host, _) in room.guests.items() if host == crowd), next(iter(room.guests)))
            self.put_out(oldest)
        room.guests[plain] = network, time.monotonic() + room.seconds
        self._selector.register(plain, selectors.EVENT_READ)
