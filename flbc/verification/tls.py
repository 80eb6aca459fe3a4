"""Links between nodes: mutual TLS 1.3 with certificates that are pinned one by one.

There is no certificate authority. Each node makes a certificate for one session, and the others learn its bytes in a
way that they trust (signed by the node's pinned key); a connection counts only if the peer shows exactly that
certificate, and its place in the computation follows from which one it is. How the raw connections come about is a
:class:`.road.Road`: straight to where the others listen, or through a relay (:mod:`flbc.verification.rendezvous`).
"""

from __future__ import annotations

import contextlib
import math
import queue
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
from .road import Road
from .road import parse_address as parse_address
from .session_key import SessionKey as SessionKey

#: Longest message in bytes; a share of a model of 128 million parameters fits.
MAX_MESSAGE = 1 << 30
_LENGTH = struct.Struct("<Q")
_DOMAIN = b"flbc link 1\n"
#: Up to this size in bytes, length and message leave together.
_SMALL = 1 << 14
#: Seconds that whoever knocks has for the handshake, and how many may be at it at once: most of them are strangers.
_HANDSHAKE, _KNOCKING = 10.0, 64
#: Seconds between attempts, and between looks at what else has happened.
_PAUSE, _LOOK = 0.05, 0.02
#: Seconds at the end for what is still to be delivered; the second if the computation has failed.
_LINGER, _LINGER_FAILED = 10.0, 1.0


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
            problem = silent(peer, self._timeout)
            while peer not in self._out:
                left = end - time.monotonic()
                if left <= 0:
                    raise problem
                try:
                    plain = road.out(peer, left)
                except OSError:  # it may not listen yet
                    time.sleep(min(_PAUSE, left))
                    continue
                plain.settimeout(min(left, _HANDSHAKE if road.open else math.inf))
                try:
                    self._out[peer] = self._secure(context, plain, server=False, pinned={peer: certificate})[1]
                except LinkError as error:
                    if not road.open:
                        raise
                    problem = error
                    time.sleep(min(_PAUSE, left))

    def _answer(self, key: SessionKey, road: Road, pinned: Mapping[int, bytes], end: float) -> None:
        context, knocking = (
            key.context(server=True, pinned=pinned, protocol=self._protocol),
            threading.Semaphore(_KNOCKING),
        )

        def welcome(plain: socket.socket) -> None:
            try:
                peer, connection = self._secure(context, plain, server=True, pinned=pinned)
            except LinkError:  # a stranger at the door: the one that is waited for may still come
                return
            finally:
                knocking.release()
            with self._lock:
                if self._given_up or self._into.setdefault(peer, connection) is not connection:
                    connection.close()

        while missing := set(pinned) - set(self._into):
            left = end - time.monotonic()
            if left <= 0 or self._given_up:
                raise silent(min(missing), self._timeout)
            try:
                plain = road.into(missing, min(left, _LOOK))
            except TimeoutError:
                continue
            except OSError:
                time.sleep(min(_PAUSE, left))
                continue
            if not knocking.acquire(blocking=False):
                plain.close()
                continue
            plain.settimeout(min(left, _HANDSHAKE))
            # A thread for each, so that a stranger that says nothing keeps nobody out.
            threading.Thread(target=welcome, args=(plain,), daemon=True).start()

    def _secure(
        self, context: ssl.SSLContext, plain: socket.socket, server: bool, pinned: Mapping[int, bytes]
    ) -> tuple[int, ssl.SSLSocket]:
        """Shake hands, and say who the other end is."""
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = context.wrap_socket(plain, server_side=server)
            shown = connection.getpeercert(binary_form=True)
        except (OSError, ssl.SSLError):
            plain.close()
            raise LinkError("A peer did not complete the TLS handshake; does it have another certificate?") from None
        if connection.selected_alpn_protocol() != self._protocol:
            connection.close()
            raise LinkError("A peer works at another computation than this party")
        for peer, certificate in pinned.items():
            if shown == certificate:
                return peer, connection
        connection.close()
        raise LinkError("A peer showed another certificate than the pinned one")

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
