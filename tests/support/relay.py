"""Three parties that meet at a relay, and a relay that does what it should not."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from flbc.verification.rendezvous import HELLO_BYTES, MAGIC, MET, OFFER, relay_link
from flbc.verification.tls import SessionKey, TlsLink


def relay_links(
    hub: tuple[str, int],
    timeout: float = 10.0,
    keys: Sequence[SessionKey] | None = None,
    contexts: Sequence[bytes] = (b"round 1", b"round 1", b"round 1"),
    shown: dict[int, SessionKey] | None = None,
) -> list[TlsLink]:
    """Connect three parties; ``shown`` replaces the key that a party really uses."""
    keys = keys or [SessionKey() for _ in range(3)]
    certificates = {rank: key.certificate for rank, key in enumerate(keys)}

    def connect(rank: int) -> TlsLink:
        key = (shown or {}).get(rank, keys[rank])
        others = {peer: certificate for peer, certificate in certificates.items() if peer != rank}
        return relay_link(rank, key, hub, others, contexts[rank], timeout)

    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(connect, rank) for rank in range(3)]
    made = [each.result() for each in asked if each.exception() is None]
    for each in asked:
        if (error := each.exception()) is not None:
            for link in made:
                link.close()
            raise error
    return made


class RogueHub:
    """A relay that ties together whom it likes, changes bytes, and remembers all it sees.

    Parameters
    ----------
    place : callable
        Given a token and a role, returns what counts in the token's place.
    change : callable
        Given bytes on their way, whether they come from the one that dialled the other, and how many went that way
        before; returns what is passed on.
    """

    def __init__(
        self,
        place: Callable[[bytes, bytes], bytes] = lambda token, role: token,
        change: Callable[[bytes, bool, int], bytes] = lambda data, forward, before: data,
    ) -> None:
        self._place, self._change = place, change
        self._door = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._door.getsockname()
        self.seen: list[bytes] = []
        self.pairs = 0
        self._ends: list[socket.socket] = []
        self._waiting: dict[tuple[bytes, bytes], socket.socket] = {}
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._door.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._door.close()
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._door.accept()
            except OSError:
                return
            self._ends.append(plain)
            data = plain.recv(HELLO_BYTES, socket.MSG_WAITALL)
            if len(data) < HELLO_BYTES:
                continue
            role = data[len(MAGIC) : len(MAGIC) + 1]
            token = self._place(data[len(MAGIC) + 1 :], role)
            other = self._waiting.pop((token, bytes([3 - role[0]])), None)
            if other is None:
                self._waiting[token, role] = plain
                continue
            self.pairs += 1
            with contextlib.suppress(OSError):
                other.sendall(MET)
                plain.sendall(MET)
            for source, sink in ((plain, other), (other, plain)):
                forward = (source is plain) == (role == OFFER)
                threading.Thread(target=self._pass_on, args=(source, sink, forward), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, forward: bool) -> None:
        before = 0
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self.seen.append(data)
                sink.sendall(self._change(data, forward, before))
                before += len(data)
            sink.shutdown(socket.SHUT_WR)
