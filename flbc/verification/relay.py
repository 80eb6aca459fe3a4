"""A relay for nodes that can only dial out: it ties two connections together and passes bytes on, unread.

What comes through is TLS from end to end (:mod:`flbc.verification.rendezvous`, where it is said who can do what). The
relay holds no key. Whoever reaches its port can take up its places and its bandwidth; these limits keep that small:

* A connection has to say where it wants to go at once, in a hello of fixed size, and is closed if it does not.
* Few connections may wait. The next one takes the place of the oldest from the address that has most of them, so that
  somebody who knocks often puts out himself first.
* At each rendezvous one waits for each role, and the newest counts.
* Bytes are read only as fast as the other end takes them, into one small buffer for each direction.
* A pair that passes nothing on for long is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
import socket
import threading
from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Self, TypeAlias

from ..errors import ConfigError
from .rendezvous import HELLO_BYTES, MAGIC, MET, OFFER, TAKE, TOKEN_BYTES
from .rendezvous import relay_link as relay_link
from .road import format_address, network_of

_log = logging.getLogger(__name__)
#: Read at once, in bytes: what the relay holds of a connection at most, beside the system's buffers.
_CHUNK = 1 << 16
#: Seconds without accepting when the system has no more descriptors.
_PAUSE = 0.1
_BACKLOG = 128
#: Seconds between two warnings.
_QUIET_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class RelayLimits:
    """What strangers may use of a relay.

    Parameters
    ----------
    waiting : int (default: 128)
        Connections that are not tied to another yet.
    pairs : int (default: 192)
        Pairs of connections; a computation among three has six.
    hello_seconds : float (default: 5)
        Time for the hello.
    waiting_seconds : float (default: 300)
        Time until the other has to come.
    idle_seconds : float (default: 900)
        Time in which a pair has to pass something on.

    Raises
    ------
    ConfigError
        If one is not above zero.
    """

    waiting: int = 128
    pairs: int = 192
    hello_seconds: float = 5.0
    waiting_seconds: float = 300.0
    idle_seconds: float = 900.0

    def __post_init__(self) -> None:
        for limit in fields(self):
            if not getattr(self, limit.name) > 0:
                raise ConfigError(f"RelayLimits({limit.name}={getattr(self, limit.name)!r}) must be above zero")


@dataclass(eq=False, slots=True)
class _Guest:
    """A connection, and the task that looks after it until it is tied to another."""

    socket: socket.socket
    host: str
    task: asyncio.Task[None] | None = None
    taken: bool = False


_Place: TypeAlias = tuple[bytes, bytes]  # token and role


@dataclass(slots=True)
class _Pair:
    """When something was passed on last, and how many bytes in all."""

    last: float
    passed: int = 0


@dataclass(slots=True)
class _Rooms:
    """Who is there: connections that are not tied yet, oldest first; those of them that wait; tasks of all."""

    guests: dict[_Guest, None] = field(default_factory=dict)
    waiting: dict[_Place, _Guest] = field(default_factory=dict)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    pairs: int = 0


class RelayHub:
    """A relay that runs in a thread of its own until it is closed.

    It logs one line when a pair is made and one when it ends, with addresses and amounts and without tokens.

    Parameters
    ----------
    host : str (default: "127.0.0.1")
        Address to listen on.
    port : int (default: 0)
        0 takes a free one.
    limits : RelayLimits, optional

    Attributes
    ----------
    address : (str, int)
        Where it listens.

    Raises
    ------
    ConfigError
        If it cannot listen there.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0, limits: RelayLimits | None = None) -> None:
        self.limits = limits or RelayLimits()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        except OSError as error:
            place = format_address(host, port)
            raise ConfigError(f"The relay cannot listen on {place}: {error.strerror}. Choose another address") from None
        self._listener.setblocking(False)
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self._rooms, self._numbers = _Rooms(), itertools.count(1)
        self._quiet_until, self._unsaid = 0.0, 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="flbc-relay", daemon=True)
        self._stop = asyncio.Event()
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cut all connections, and stop."""
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # another thread has closed it meanwhile
                self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    # ------------------------------------------------------------------ accepting
    def _run(self) -> None:
        with contextlib.closing(self._loop), self._listener:
            self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        accepting = asyncio.create_task(self._accept())
        await self._stop.wait()
        tasks = [accepting, *self._rooms.tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self) -> None:
        while True:
            try:
                plain, address = await self._loop.sock_accept(self._listener)
            except OSError as error:
                self._warn("event=refused", error.strerror)
                await asyncio.sleep(_PAUSE)
                continue
            plain.setblocking(False)
            guest = _Guest(plain, network_of(address[0]))
            self._make_room(guest.host)
            self._rooms.guests[guest] = None
            guest.task = asyncio.create_task(self._host(guest))
            self._rooms.tasks.add(guest.task)
            guest.task.add_done_callback(functools.partial(self._left, guest))
            await asyncio.sleep(0)  # a queue of callers must not keep the others waiting

    def _left(self, guest: _Guest, task: asyncio.Task[None]) -> None:
        self._rooms.tasks.discard(task)
        if not guest.taken:
            guest.socket.close()

    def _make_room(self, host: str) -> None:
        """Put somebody out if all places are taken."""
        guests = self._rooms.guests
        if len(guests) < self.limits.waiting:
            return
        crowd = Counter([host, *(guest.host for guest in guests)]).most_common(1)[0][0]
        oldest = next((guest for guest in guests if guest.host == crowd), next(iter(guests)))
        self._put_out(oldest)
        self._warn("event=full waiting", oldest.host)

    def _warn(self, event: str, about: str | None) -> None:
        """Log what strangers can cause, once in a while."""
        self._unsaid += 1
        if self._loop.time() >= self._quiet_until:
            self._quiet_until = self._loop.time() + _QUIET_SECONDS
            _log.warning("%s last=%s times=%d", event, about, self._unsaid)
            self._unsaid = 0

    def _put_out(self, guest: _Guest) -> None:
        self._rooms.guests.pop(guest, None)
        if guest.task is not None:
            guest.task.cancel()

    # ------------------------------------------------------------------ tying together
    async def _host(self, guest: _Guest) -> None:
        place: _Place | None = None
        try:
            with contextlib.suppress(OSError):  # too late, or gone
                guest.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                guest.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                async with asyncio.timeout(self.limits.hello_seconds):
                    place = await self._hello(guest.socket)
                if place is None:
                    return
                token, role = place
                other = self._rooms.waiting.pop((token, TAKE if role == OFFER else OFFER), None)
                if other is not None:
                    await self._tie(guest, other)
                    return
                if (before := self._rooms.waiting.get(place)) is not None:
                    self._put_out(before)
                self._rooms.waiting[place] = guest
                async with asyncio.timeout(self.limits.waiting_seconds):
                    # Nothing may come before the other does: this ends when the guest hangs up, or talks too soon.
                    await self._loop.sock_recv(guest.socket, 1)
        finally:
            self._rooms.guests.pop(guest, None)
            if place is not None and self._rooms.waiting.get(place) is guest:
                del self._rooms.waiting[place]

    async def _hello(self, plain: socket.socket) -> _Place | None:
        data = b""
        while len(data) < HELLO_BYTES:
            more = await self._loop.sock_recv(plain, HELLO_BYTES - len(data))
            if not more:
                return None
            data += more
        role, token = data[len(MAGIC) : -TOKEN_BYTES], data[-TOKEN_BYTES:]
        return (token, role) if data.startswith(MAGIC) and role in (OFFER, TAKE) else None

    async def _tie(self, guest: _Guest, other: _Guest) -> None:
        """Take over a guest that waits, and pass on until one of the two has gone."""
        other.taken = True
        self._put_out(other)
        self._rooms.guests.pop(guest, None)
        with other.socket:
            if self._rooms.pairs >= self.limits.pairs:
                self._warn("event=full pairs", guest.host)
                return
            self._rooms.pairs += 1
            number, begin = next(self._numbers), self._loop.time()
            pair, reason = _Pair(begin), "stopped"
            _log.info("event=paired pair=%d first=%s second=%s", number, other.host, guest.host)
            try:
                if other.task is not None:
                    await asyncio.wait([other.task])  # until it reads no more
                for end in (other, guest):
                    await self._loop.sock_sendall(end.socket, MET)
                reason = await self._splice(pair, guest.socket, other.socket)
            finally:
                self._rooms.pairs -= 1
                seconds = self._loop.time() - begin
                _log.info("event=ended pair=%d bytes=%d seconds=%.1f reason=%s", number, pair.passed, seconds, reason)

    async def _splice(self, pair: _Pair, a: socket.socket, b: socket.socket) -> str:
        """Pass bytes on both ways; return why it ended."""
        both = {asyncio.create_task(self._pump(pair, a, b)), asyncio.create_task(self._pump(pair, b, a))}
        try:
            while running := {task for task in both if not task.done()}:
                left = pair.last + self.limits.idle_seconds - self._loop.time()
                if left <= 0:
                    return "idle"
                done, _ = await asyncio.wait(running, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if any(task.exception() for task in done):
                    return "cut"
            return "closed"
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)

    async def _pump(self, pair: _Pair, source: socket.socket, sink: socket.socket) -> None:
        buffer = memoryview(bytearray(_CHUNK))
        while count := await self._loop.sock_recv_into(source, buffer):
            await self._loop.sock_sendall(sink, buffer[:count])
            pair.last, pair.passed = self._loop.time(), pair.passed + count
            await asyncio.sleep(0)  # reading and sending that never wait would keep all others waiting
        sink.shutdown(socket.SHUT_WR)
