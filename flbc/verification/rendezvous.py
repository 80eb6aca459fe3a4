"""Links for nodes that can only dial out: both ends of a connection dial a relay, which ties the two together.

A relay (:mod:`flbc.verification.relay`) knows tokens and addresses, and passes bytes on. TLS runs through it from end
to end, with the same pinned certificates as on direct links.

Who can do what
    *The relay* sees who computes with whom, when, and how many bytes. It can delay and cut. What it changes or
    inserts breaks the connection. Parties that it ties together wrongly, or out of different computations, do not pass
    the handshake, which covers certificates and context.
    *A client, the Flower server, an outsider* know no tokens, though they may know all certificates and the context:
    the two ends of a connection derive its token from a Diffie-Hellman secret of their session keys. They can occupy
    the relay's places; see the limits there.
    *Who knows a token* (the relay, or who reads the wire between a party and the relay, where tokens go in clear) can
    come to a rendezvous first. The handshake fails, and the party tries again: a delay, at worst for as long as the
    squatter goes on.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Collection, Mapping
from typing import Final

from ..crypto._checks import check_bytes
from ..crypto.signing import keccak256
from ..errors import ConfigError, LinkError
from .link import PARTIES
from .session_key import SessionKey
from .tls import TlsLink

#: What a connection begins with: these bytes, a role and a token.
MAGIC: Final = b"flbc/r1"
OFFER, TAKE = b"\x01", b"\x02"
TOKEN_BYTES = 32
HELLO_BYTES = len(MAGIC) + 1 + TOKEN_BYTES
#: What the relay says to both ends when they are tied together; it says nothing else.
MET = b"\x06"
_DOMAIN = b"flbc relay rendezvous 2\n"


def token(key: SessionKey, context: bytes, certificates: Mapping[int, bytes], sender: int, receiver: int) -> bytes:
    """Return where one direction of a link meets: both of its ends compute the same, and nobody else can.

    Parameters
    ----------
    key : SessionKey
        Of the sender or of the receiver.
    context : bytes
        Names one computation: task, round and attempt. Nobody who waits for another one is met by mistake.
    certificates : mapping of int to bytes
        Of all three parties by rank, in DER form.
    sender, receiver : int
        Ranks.

    Returns
    -------
    bytes
        32 bytes that the pair agrees on over all of it (:meth:`.SessionKey.agree`).

    Raises
    ------
    LinkError
        If the key is neither the sender's nor the receiver's, or the other certificate is none.
    """
    ends = certificates[sender], certificates[receiver]
    if key.certificate not in ends:
        raise LinkError("A token is computed by the sender or the receiver; this key is of another party")
    other = ends[1] if key.certificate == ends[0] else ends[0]
    shown = b"".join(keccak256(certificates[rank]) for rank in range(PARTIES))
    return key.agree(other, _DOMAIN + shown + bytes([sender, receiver]) + keccak256(context))


class RelayRoad:
    """Connections by way of a relay.

    Parameters
    ----------
    hub : (str, int)
        Host and port of the relay.
    offers, takes : mapping of int to bytes
        Tokens by rank of the peer: of the connections to it, and from it.
    """

    open = True

    def __init__(self, hub: tuple[str, int], offers: Mapping[int, bytes], takes: Mapping[int, bytes]) -> None:
        self._hub, self._offers, self._takes = hub, offers, takes
        self._waiting: dict[int, socket.socket] = {}

    def out(self, peer: int, seconds: float) -> socket.socket:
        """Dial the relay, and wait there until the peer has come."""
        end = time.monotonic() + seconds
        plain = self._dial(OFFER, self._offers[peer], seconds)
        plain.settimeout(max(end - time.monotonic(), 0.001))
        return _met(plain)

    def into(self, missing: Collection[int], seconds: float) -> socket.socket:
        """Wait at the relay for all that are missing; return the connection from the first that comes."""
        for peer in missing:
            if peer not in self._waiting:
                # Longer than one look: a relay may be far away.
                self._waiting[peer] = self._dial(TAKE, self._takes[peer], max(seconds, 5.0))
        with selectors.DefaultSelector() as selector:
            for peer in missing:
                selector.register(self._waiting[peer], selectors.EVENT_READ, peer)
            come = selector.select(seconds)
        if not come:
            raise TimeoutError
        return _met(self._waiting.pop(come[0][0].data))

    def close(self) -> None:
        """Leave the relay, where this party still waits."""
        while self._waiting:
            self._waiting.popitem()[1].close()

    def _dial(self, role: bytes, place: bytes, seconds: float) -> socket.socket:
        plain = socket.create_connection(self._hub, timeout=seconds)
        try:
            plain.sendall(MAGIC + role + place)
        except OSError:
            plain.close()
            raise
        return plain


def _met(plain: socket.socket) -> socket.socket:
    """Read the relay's word that the other has come."""
    try:
        if plain.recv(1) == MET:
            return plain
    except OSError:
        plain.close()
        raise
    plain.close()
    raise ConnectionAbortedError("the relay closed the connection")


def relay_link(
    rank: int,
    key: SessionKey,
    hub: tuple[str, int],
    certificates: Mapping[int, bytes],
    context: bytes,
    timeout: float = 60.0,
) -> TlsLink:
    """Connect to the two others by way of a relay.

    Parameters
    ----------
    rank : int
        0, 1 or 2.
    key : SessionKey
    hub : (str, int)
        Host and port of the relay, the same for all three.
    certificates : mapping of int to bytes
        What the others will show, in DER form by rank; with this party's own or without.
    context : bytes
        Names this computation: task, round and attempt. The same on all three, and never the same twice.
    timeout : float (default: 60)
        Seconds to connect, and to wait for a message.

    Raises
    ------
    LinkError
        If a party does not appear in time, or shows another certificate than the pinned one; if a certificate is none.
    ConfigError
        If ``context`` is empty.
    """
    if not check_bytes("context", context):
        raise ConfigError("The context of a relayed link is empty: it must name task, round and attempt")
    if certificates.get(rank, key.certificate) != key.certificate:
        raise LinkError("The certificate announced for this party is not that of its session key")
    pinned = {peer: certificate for peer, certificate in certificates.items() if peer != rank}
    if {rank, *pinned} != set(range(PARTIES)):
        raise LinkError(f"A computation has the parties 0 to {PARTIES - 1}; this one got other ranks")
    everybody = {**pinned, rank: key.certificate}
    offers = {peer: token(key, context, everybody, rank, peer) for peer in pinned}
    takes = {peer: token(key, context, everybody, peer, rank) for peer in pinned}
    return TlsLink.over(RelayRoad(hub, offers, takes), rank, key, pinned, timeout, context)
