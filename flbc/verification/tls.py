"""Links between nodes: mutual TLS 1.3 with certificates that are pinned one by one.

There is no certificate authority. Each node makes a certificate for one session, and the others learn its bytes in a
way that they trust (signed by the node's pinned key); a connection counts only if the peer shows exactly that
certificate, and its place in the computation follows from which one it is.
"""

from __future__ import annotations

import datetime
import os
import queue
import secrets
import socket
import ssl
import struct
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ..crypto._checks import Secret
from ..errors import LinkError
from .link import PARTIES, Traffic, silent

#: Longest message in bytes; a share of a model of 128 million parameters fits.
MAX_MESSAGE = 1 << 30
_LENGTH = struct.Struct("<Q")
_DAYS = 2


class SessionKey(Secret):
    """A key and its self-signed certificate, made for one session."""

    __slots__ = ("_pem", "certificate")

    def __init__(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        # Names differ: issuers are looked up by name, and the wrong one of two with the same name may be tried.
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"flbc {secrets.token_hex(16)}")])
        now = datetime.datetime.now(datetime.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=_DAYS))
            .not_valid_after(now + datetime.timedelta(days=_DAYS))
            .sign(key, hashes.SHA256())
        )
        #: The certificate in DER form: public, and what the others pin.
        self.certificate = made.public_bytes(serialization.Encoding.DER)
        self._pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def context(self, server: bool, pinned: Mapping[int, bytes]) -> ssl.SSLContext:
        """Return TLS settings for one end of a connection to one of ``pinned`` (DER certificates by rank)."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # the certificate itself is pinned, whatever its name
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the pinned certificate is trusted as it is
        for certificate in pinned.values():
            context.load_verify_locations(cadata=certificate)
        with tempfile.TemporaryDirectory() as folder:  # ssl reads keys from files only; the folder is 0700
            path = Path(folder) / "session.pem"
            with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "wb") as file:
                file.write(self._pem + ssl.DER_cert_to_PEM_cert(self.certificate).encode())
            context.load_cert_chain(path)
        return context


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a party listens, and the certificate that it will show (DER)."""

    host: str
    port: int
    certificate: bytes


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

    Raises
    ------
    LinkError
        If a party does not appear in time, or shows another certificate than the pinned one.
    """

    def __init__(
        self, rank: int, key: SessionKey, listener: socket.socket, peers: Mapping[int, Endpoint], timeout: float = 60.0
    ) -> None:
        if {rank, *peers} != set(range(PARTIES)) or rank in peers:
            raise LinkError(f"A computation has the parties 0 to {PARTIES - 1}; this one got other ranks")
        self.rank, self.traffic, self._timeout = rank, Traffic(), timeout
        self._into: dict[int, ssl.SSLSocket] = {}
        self._out: dict[int, ssl.SSLSocket] = {}
        self._outbox: dict[int, queue.Queue[bytes | None]] = {peer: queue.Queue() for peer in peers}
        self._failed: dict[int, str] = {}
        end, refused = time.monotonic() + timeout, list[LinkError]()

        def answer() -> None:
            try:
                self._answer(key, listener, {peer: place.certificate for peer, place in peers.items()}, end)
            except LinkError as error:
                refused.append(error)

        door = threading.Thread(target=answer, daemon=True)
        door.start()
        try:
            self._dial(key, peers, end)
            door.join()
            if refused:
                raise refused[0]
        except BaseException:
            self.close()
            raise
        finally:
            listener.close()
        for peer in peers:
            self._into[peer].settimeout(timeout)
            self._out[peer].settimeout(timeout)
            threading.Thread(target=self._deliver, args=(peer,), daemon=True).start()

    # ------------------------------------------------------------------ connecting
    def _dial(self, key: SessionKey, peers: Mapping[int, Endpoint], end: float) -> None:
        for peer, place in peers.items():
            context = key.context(server=False, pinned={peer: place.certificate})
            while True:
                left = end - time.monotonic()
                if left <= 0:
                    raise silent(peer, self._timeout)
                try:
                    plain = socket.create_connection((place.host, place.port), timeout=left)
                except OSError:  # it may not listen yet
                    time.sleep(min(0.05, left))
                    continue
                self._out[peer] = self._secure(context, plain, server=False, pinned={peer: place.certificate})[1]
                break

    def _answer(self, key: SessionKey, listener: socket.socket, pinned: Mapping[int, bytes], end: float) -> None:
        context = key.context(server=True, pinned=pinned)
        while missing := set(pinned) - set(self._into):
            left = end - time.monotonic()
            if left <= 0:
                raise silent(min(missing), self._timeout)
            listener.settimeout(left)
            try:
                plain, _ = listener.accept()
            except OSError:  # too late, or this party has given up
                raise silent(min(missing), self._timeout) from None
            plain.settimeout(left)
            try:
                peer, connection = self._secure(context, plain, server=True, pinned=pinned)
            except LinkError:  # a stranger at the door: the one that is waited for may still come
                continue
            if peer in self._into:
                connection.close()
                continue
            self._into[peer] = connection

    @staticmethod
    def _secure(
        context: ssl.SSLContext, plain: socket.socket, server: bool, pinned: Mapping[int, bytes]
    ) -> tuple[int, ssl.SSLSocket]:
        """Shake hands, and say who the other end is."""
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = context.wrap_socket(plain, server_side=server)
            shown = connection.getpeercert(binary_form=True)
        except (OSError, ssl.SSLError):
            plain.close()
            raise LinkError("A peer did not complete the TLS handshake; does it have another certificate?") from None
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
                raise silent(sender, self._timeout) from None
            except (OSError, ValueError):
                count = 0
            if not count:
                raise LinkError(f"Party {sender} of the computation has stopped; it is given up")
            place += count
        return bytes(buffer)

    def _deliver(self, to: int) -> None:
        while (data := self._outbox[to].get()) is not None:
            try:
                self._out[to].sendall(_LENGTH.pack(len(data)))
                self._out[to].sendall(data)
            except OSError:
                self._failed[to] = f"Party {to} of the computation takes no more messages; it is given up"
                return

    def close(self) -> None:
        """Deliver what is queued, as far as the others take it, and close the connections."""
        for line in self._outbox.values():
            line.put(None)
        end = time.monotonic() + 1
        while time.monotonic() < end and any(
            not line.empty() for peer, line in self._outbox.items() if peer not in self._failed
        ):
            time.sleep(0.005)
        for connection in (*self._out.values(), *self._into.values()):
            connection.close()
