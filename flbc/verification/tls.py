"""Links between nodes: mutual TLS 1.3 with certificates that are pinned one by one.

There is no certificate authority. Each node makes a certificate for one session, and the others learn its bytes in a
way that they trust (signed by the node's pinned key); a connection counts only if the peer shows exactly that
certificate, and its place in the computation follows from which one it is. How the raw connections come about is a
:class:`.road.Road`: straight to where the others listen, or through a relay (:mod:`flbc.verification.rendezvous`).
"""

from __future__ import annotations

import contextlib
import queue
import random
import socket
import ssl
import struct
import threading
import time
from collections.abc import Mapping
from typing import Self

from ..crypto.signing import keccak256
from ..errors import LinkError
from .link import PARTIES, Traffic, silent
from .road import DirectRoad as DirectRoad
from .road import Endpoint as Endpoint
from .road import Lobby, Road
from .road import parse_address as parse_address
from .session_key import SessionKey as SessionKey

#: Longest message in bytes; a share of a model of 128 million parameters fits.
MAX_MESSAGE = 1 << 30
_LENGTH = struct.Struct("<Q")
_DOMAIN = b"flbc link 2\n"
#: What a party says once it has taken a connection in: in TLS 1.3 the one that dials is done before the other is.
_WELCOME = b"\x06"
#: Up to this size in bytes, length and message leave together.
_SMALL = 1 << 14
#: Seconds for a handshake, and for its first byte; how many may be there at once before and after it (most of them are
#: strangers: :class:`.road.Lobby`).
_HANDSHAKE, _SILENT, _PLACES = 10.0, 1.5, 192
#: Seconds that the first attempt to shake hands gets; each gets twice as many as the one before.
_PATIENCE = 2.0
#: Seconds between attempts, more or less; between looks at what else has happened; and while somebody is at the door.
_PAUSE, _LOOK, _GLANCE = 0.05, 0.02, 0.001
_RANDOM = random.SystemRandom()
#: Seconds at the end for what is still to be delivered; the second if the computation has failed.
_LINGER, _LINGER_FAILED = 10.0, 1.0


class _OtherCertificateError(LinkError):
    """Who was dialled is not who was meant."""


class TlsLink:
    """A party's connections to the two others, one for each direction: it dials both to send, and is dialled by both.

    A TLS connection must not be read and written by two threads at once (OpenSSL), and sending has a thread of its own.

    Parameters
    ----------
    rank : int
        0, 1 or 2.
    key : SessionKey
    listener : socket
        Bound and listening, where the others were told; closed once all are connected.
    peers : mapping of int to Endpoint
        The two others by rank.
    timeout : float (default: 60)
        Seconds to connect, and to wait for a message.
    context : bytes (default: empty)
        Names the computation. The TLS handshake covers its hash: two that work at different computations of one session
        do not connect.

    Raises
    ------
    LinkError
        If a party does not appear in time, or shows another certificate than the pinned one.
    """

    rank: int
    traffic: Traffic

    def __init__(
        self,
        rank: int,
        key: SessionKey,
        listener: socket.socket,
        peers: Mapping[int, Endpoint],
        timeout: float = 60.0,
        context: bytes = b"",
    ) -> None:
        pinned = {peer: place.certificate for peer, place in peers.items()}
        self._connect(rank, key, DirectRoad(listener, peers), pinned, timeout, context)

    @classmethod
    def over(
        cls, road: Road, rank: int, key: SessionKey, pinned: Mapping[int, bytes], timeout: float, context: bytes
    ) -> Self:
        """Connect over a road, which is closed once all are connected; ``pinned`` holds the two others by rank."""
        link = cls.__new__(cls)
        link._connect(rank, key, road, pinned, timeout, context)
        return link

    # ------------------------------------------------------------------ connecting
    def _connect(
        self, rank: int, key: SessionKey, road: Road, pinned: Mapping[int, bytes], timeout: float, context: bytes
    ) -> None:
        if {rank, *pinned} != set(range(PARTIES)) or rank in pinned:
            raise LinkError(f"A computation has the parties 0 to {PARTIES - 1}; this one got other ranks")
        self.rank, self.traffic, self._timeout = rank, Traffic(), timeout
        self._protocol = f"flbc {keccak256(_DOMAIN + context).hex()}"
        self._into: dict[int, ssl.SSLSocket] = {}
        self._out: dict[int, ssl.SSLSocket] = {}
        self._outbox: dict[int, queue.Queue[bytes | None]] = {peer: queue.Queue() for peer in pinned}
        self._failed: dict[int, str] = {}
        self._couriers: list[threading.Thread] = []
        self._given_up = False
        self._lock = threading.Lock()
        end, refused = time.monotonic() + timeout, list[LinkError]()

        def answer() -> None:
            try:
                self._answer(key, road, pinned, end)
            except LinkError as error:
                refused.append(error)

        door = threading.Thread(target=answer, daemon=True)
        door.start()
        try:
            self._dial(key, road, pinned, end)
            door.join()
            if refused:
                raise refused[0]
        except BaseException:
            self.close()
            raise
        finally:
            road.close()
        for peer in pinned:
            self._into[peer].settimeout(timeout)
            self._out[peer].settimeout(timeout)
            self._couriers.append(threading.Thread(target=self._deliver, args=(peer,), daemon=True))
            self._couriers[-1].start()

    def _dial(self, key: SessionKey, road: Road, pinned: Mapping[int, bytes], end: float) -> None:
        for peer, certificate in pinned.items():
            context = key.context(server=False, pinned={peer: certificate}, protocol=self._protocol)
            problem, patience = silent(peer, self._timeout), _PATIENCE
            while peer not in self._out:
                left = end - time.monotonic()
                if left <= 0:
                    raise problem
                try:
                    plain = road.out(peer, left)
                    plain.settimeout(max(min(end - time.monotonic(), patience, _HANDSHAKE), _GLANCE))
                    self._out[peer] = self._secure(context, plain, {peer: certificate}, end)
                except _OtherCertificateError as error:
                    if not road.open:
                        raise
                    problem = error
                except LinkError as error:
                    # Strangers may have crowded this party out at the other's door: the next attempt may get through.
                    problem, patience = error, 2 * patience
                except OSError:  # it may not listen yet
                    pass
                if peer not in self._out:
                    time.sleep(min(_PAUSE * _RANDOM.uniform(0.2, 1.8), left))

    def _secure(
        self, context: ssl.SSLContext, plain: socket.socket, pinned: Mapping[int, bytes], end: float
    ) -> ssl.SSLSocket:
        """Shake hands with the one that was dialled, and wait until it has taken the connection in."""
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = context.wrap_socket(plain)
        except ssl.SSLCertVerificationError:
            plain.close()
            raise _OtherCertificateError("A peer showed another certificate than the pinned one") from None
        except OSError:
            plain.close()
            raise _unfinished() from None
        try:
            self._whose(connection, pinned)
            # From here on the other may count on this connection: it gets its time, however short the attempt was.
            connection.settimeout(max(min(end - time.monotonic(), _HANDSHAKE), _GLANCE))
            if connection.recv(1) != _WELCOME:
                raise _unfinished()
        except OSError:
            connection.close()
            raise _unfinished() from None
        except LinkError:
            connection.close()
            raise
        return connection

    def _whose(self, connection: ssl.SSLSocket, pinned: Mapping[int, bytes]) -> int:
        """Say who the other end is."""
        if connection.selected_alpn_protocol() != self._protocol:
            raise LinkError("A peer works at another computation than this party")
        shown = connection.getpeercert(binary_form=True)
        for peer, certificate in pinned.items():
            if shown == certificate:
                return peer
        raise _OtherCertificateError("A peer showed another certificate than the pinned one")

    def _answer(self, key: SessionKey, road: Road, pinned: Mapping[int, bytes], end: float) -> None:
        context = key.context(server=True, pinned=pinned, protocol=self._protocol)
        with contextlib.closing(Lobby(_PLACES, _SILENT, _HANDSHAKE)) as lobby:
            while missing := set(pinned) - set(self._into):
                left = end - time.monotonic()
                if left <= 0 or self._given_up:
                    raise silent(min(missing), self._timeout)
                try:
                    lobby.admit(road.into(missing, min(left, _GLANCE if len(lobby) else _LOOK)))
                except TimeoutError:
                    pass
                except OSError:
                    time.sleep(min(_PAUSE, left))
                for plain in lobby.spoken():
                    self._welcome(lobby, plain, context, pinned)

    def _welcome(
        self, lobby: Lobby, plain: socket.socket, context: ssl.SSLContext, pinned: Mapping[int, bytes]
    ) -> None:
        """Go on with a handshake as far as what has come allows; none ever waits for another."""
        connection = plain
        try:
            if not isinstance(connection, ssl.SSLSocket):
                network = lobby.move(plain)
                try:
                    connection = context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
                except OSError:
                    plain.close()
                    return
                lobby.talk(connection, network)
            connection.do_handshake()
            peer = self._whose(connection, pinned)
            connection.send(_WELCOME)
        except ssl.SSLWantReadError:
            return
        except (OSError, LinkError):  # a stranger: the one that is waited for may still come
            lobby.put_out(connection)
            return
        lobby.move(connection)
        with self._lock:
            # The newest counts: a party that dials again has left the connection that it had.
            before = connection if self._given_up else self._into.get(peer)
            if not self._given_up:
                self._into[peer] = connection
        if before is not None:
            before.close()

    # ------------------------------------------------------------------ messages
    def send(self, to: int, data: bytes) -> None:
        """Queue bytes; a thread delivers them, because two parties may both send more than buffers hold."""
        if to in self._failed:
            raise LinkError(self._failed[to])
        self.traffic.messages += 1
        self.traffic.sent_bytes += len(data)
        self._outbox[to].put(bytes(data))

    def recv(self, sender: int) -> bytes:
        """Wait for a message; :class:`LinkError` if it does not come in time, or the sender has gone."""
        self.traffic.rounds += 1
        (size,) = _LENGTH.unpack(self._read(sender, _LENGTH.size))
        if size > MAX_MESSAGE:
            raise LinkError(f"Party {sender} announces a message of {size} bytes; at most {MAX_MESSAGE} are taken")
        return self._read(sender, size)

    def _read(self, sender: int, size: int) -> bytes:
        buffer = bytearray(size)
        view, place = memoryview(buffer), 0
        while place < size:
            try:
                count = self._into[sender].recv_into(view[place:])
            except TimeoutError:
                self._given_up = True
                raise silent(sender, self._timeout) from None
            except (OSError, ValueError):
                count = 0
            if not count:
                self._given_up = True
                raise LinkError(f"Party {sender} of the computation has stopped; it is given up")
            place += count
        return bytes(buffer)

    def _deliver(self, to: int) -> None:
        while (data := self._outbox[to].get()) is not None:
            size, rest = _LENGTH.pack(len(data)), data
            if len(data) <= _SMALL:
                size, rest = size + data, b""
            try:
                self._out[to].sendall(size)
                if rest:
                    self._out[to].sendall(rest)
            except OSError:
                self._failed[to] = f"Party {to} of the computation takes no more messages; it is given up"
                return

    def close(self) -> None:
        """Deliver what is queued, as far as the others take it, and close the connections."""
        for line in self._outbox.values():
            line.put(None)
        end = time.monotonic() + (_LINGER_FAILED if self._given_up or self._failed else min(_LINGER, self._timeout))
        for courier in self._couriers:
            courier.join(max(0.0, end - time.monotonic()))
        with self._lock:
            self._given_up = True
            connections = (*self._out.values(), *self._into.values())
            for connection in connections:
                with contextlib.suppress(OSError):  # the other end may have done it
                    # The socket below TLS: SSLSocket.shutdown and close first drop the encryption, and a thread that
                    # is in the middle of a message would send its rest in clear.
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
            for courier in self._couriers:
                courier.join()
            for connection in connections:
                connection.close()


def _unfinished() -> LinkError:
    return LinkError("A peer did not complete the TLS handshake; does it have another certificate?")
