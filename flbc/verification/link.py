"""Links between the three parties of a computation on shares: bytes to a party, bytes from a party, and a time limit.

A computation takes tens of rounds of messages, so it runs over direct links inside one Flower message. Everything above
a link works with :class:`Link` alone: threads of one process in tests and in simulation (:func:`queue_links`), mutual
TLS between nodes (:mod:`flbc.verification.tls`). No link waits for ever: a party that stops makes the others stop with
:class:`LinkError`, and the round is abandoned (S25).
"""

from __future__ import annotations

import queue
from dataclasses import dataclass
from typing import Protocol

from ..errors import LinkError

PARTIES = 3


@dataclass
class Traffic:
    """What went over a party's links: messages and bytes sent, and how often it waited for another party."""

    messages: int = 0
    sent_bytes: int = 0
    rounds: int = 0


class Link(Protocol):
    """A party's end of its links to the two others."""

    rank: int
    traffic: Traffic

    def send(self, to: int, data: bytes) -> None:
        """Hand over bytes for a party, without waiting for it."""
        ...

    def recv(self, sender: int) -> bytes:
        """Return the next bytes of a party; :class:`LinkError` if none come in time."""
        ...

    def close(self) -> None:
        """Free what the link holds; others that wait for this party get :class:`LinkError`."""
        ...


class QueueLink:
    """A link to threads of the same process; made by :func:`queue_links`."""

    def __init__(self, rank: int, queues: dict[tuple[int, int], queue.Queue[bytes | None]], timeout: float) -> None:
        self.rank, self.traffic = rank, Traffic()
        self._queues, self._timeout = queues, timeout

    def send(self, to: int, data: bytes) -> None:
        """Put bytes into the queue of the pair."""
        self.traffic.messages += 1
        self.traffic.sent_bytes += len(data)
        self._queues[self.rank, to].put(bytes(data))

    def recv(self, sender: int) -> bytes:
        """Wait for bytes; :class:`LinkError` after the time limit, or if the sender has closed its end."""
        self.traffic.rounds += 1
        try:
            data = self._queues[sender, self.rank].get(timeout=self._timeout)
        except queue.Empty:
            raise silent(sender, self._timeout) from None
        if data is None:
            self._queues[sender, self.rank].put(None)  # for whoever asks again
            raise LinkError(f"Party {sender} of the computation has stopped; it is given up")
        return data

    def close(self) -> None:
        """Tell the others that nothing more comes."""
        for (sender, _), line in self._queues.items():
            if sender == self.rank:
                line.put(None)


def queue_links(timeout: float = 60.0) -> tuple[QueueLink, QueueLink, QueueLink]:
    """Return the three ends of links between threads.

    Parameters
    ----------
    timeout : float (default: 60)
        Seconds to wait for a message.
    """
    pairs = [(a, b) for a in range(PARTIES) for b in range(PARTIES) if a != b]
    queues: dict[tuple[int, int], queue.Queue[bytes | None]] = {pair: queue.Queue() for pair in pairs}
    first, second, third = (QueueLink(rank, queues, timeout) for rank in range(PARTIES))
    return first, second, third


def silent(party: int, seconds: float) -> LinkError:
    """Return the error about a party of which nothing was heard."""
    return LinkError(f"Party {party} of the computation sent nothing for {seconds:g} s; it is given up")
