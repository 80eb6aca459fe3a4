"""The key that a node shows to the others of one session: a fresh TLS key with its self-signed certificate."""

from __future__ import annotations

import datetime
import os
import secrets
import ssl
import tempfile
from collections.abc import Mapping
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import NameOID

from ..crypto._checks import Secret, check_bytes
from ..errors import ConfigError, LinkError

_MAGIC = b"flbc session key 1\n"
_SCALAR_BYTES = 32
_AGREED_BYTES = 32
#: Ours have about 350 bytes.
_MAX_CERTIFICATE = 4096
_CURVE = ec.SECP256R1
#: Before the key was made: clocks differ.
_EARLIER = datetime.timedelta(days=2)
#: "No well-defined expiration date" (RFC 5280, section 4.1.2.5): pins end with the session, which may take weeks.
_NEVER = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)


class SessionKey(Secret):
    """A key and its self-signed certificate, made for one session.

    A node handles each message in a process of its own, so it makes the key once and keeps :meth:`to_bytes` in its
    private memory. TLS 1.3 agrees on fresh keys for each connection: a session key that is stolen later opens none of
    the connections that were recorded.
    """

    __slots__ = ("_key", "certificate")

    _key: ec.EllipticCurvePrivateKey
    #: The certificate in DER form: public, and what the others pin.
    certificate: bytes

    def __init__(self) -> None:
        self._key = ec.generate_private_key(_CURVE())
        # Names differ: issuers are looked up by name, and the wrong one of two with the same name may be tried.
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"flbc {secrets.token_hex(16)}")])
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.datetime.now(datetime.UTC) - _EARLIER)
            .not_valid_after(_NEVER)
            .sign(self._key, hashes.SHA256())
        )
        self.certificate = made.public_bytes(serialization.Encoding.DER)

    # ------------------------------------------------------------------ keeping it
    def to_bytes(self) -> bytes:
        """Return the secret key with its certificate, for the node's private memory (mode 0600) only."""
        scalar = self._key.private_numbers().private_value
        return _MAGIC + scalar.to_bytes(_SCALAR_BYTES, "big") + self.certificate

    @classmethod
    def from_bytes(cls, secret: bytes) -> SessionKey:
        """Load what :meth:`to_bytes` returned: the same key, and the same bytes of the certificate.

        Raises
        ------
        ConfigError
            If the bytes are malformed, or the certificate is not this key's. The message repeats nothing of them.
        """
        data = check_bytes("a session key", secret)
        scalar, certificate = data[len(_MAGIC) :][:_SCALAR_BYTES], data[len(_MAGIC) + _SCALAR_BYTES :]
        if not data.startswith(_MAGIC) or not certificate or len(certificate) > _MAX_CERTIFICATE:
            raise _malformed()
        try:
            key = ec.derive_private_key(int.from_bytes(scalar, "big"), _CURVE())
            shown = x509.load_der_x509_certificate(certificate)
            shown.verify_directly_issued_by(shown)
            fits = shown.public_key() == key.public_key()
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            raise _malformed() from None
        if not fits or shown.public_bytes(serialization.Encoding.DER) != certificate:
            raise _malformed()
        loaded = cls.__new__(cls)
        loaded._key, loaded.certificate = key, certificate
        return loaded

    # ------------------------------------------------------------------ using it
    def context(self, server: bool, pinned: Mapping[int, bytes], protocol: str = "flbc") -> ssl.SSLContext:
        """Return TLS settings for one end of a connection.

        Parameters
        ----------
        server : bool
            Whether this end was dialled.
        pinned : mapping of int to bytes
            Certificates (DER) by rank, one of which the other end has to show.
        protocol : str (default: "flbc")
            What this end wants to do (ALPN): part of what the handshake signs, and visible on the wire.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # the certificate itself is pinned, whatever its name
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the pinned certificate is trusted as it is
        if server:
            # No session is resumed. Tickets that nobody reads would turn the end of a connection into a reset, and
            # a reset may overtake the last message.
            context.num_tickets = 0
        context.set_alpn_protocols([protocol])
        for certificate in pinned.values():
            context.load_verify_locations(cadata=certificate)
        secret = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        with tempfile.TemporaryDirectory() as folder:  # ssl reads keys from files only; the folder is 0700
            path = Path(folder) / "session.pem"
            with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "wb") as file:
                file.write(secret + ssl.DER_cert_to_PEM_cert(self.certificate).encode())
            context.load_cert_chain(path)
        return context

    def agree(self, certificate: bytes, info: bytes) -> bytes:
        """Return a secret that only this key and the key of another certificate can compute.

        Both ends get the same. The key also signs handshakes; HKDF keeps the two uses apart (signing never shows a
        Diffie-Hellman value), and nothing but its output leaves this method.

        Parameters
        ----------
        certificate : bytes
            Of the other, in DER form; whose it is, the caller has to know.
        info : bytes
            What the secret is for: others give others.

        Returns
        -------
        bytes
            HKDF-SHA256 (RFC 5869, no salt) of the Diffie-Hellman value on P-256: 32 bytes.

        Raises
        ------
        LinkError
            If the certificate is none, or holds no key on P-256.
        """
        shown = check_bytes("a certificate", certificate)
        try:
            other = x509.load_der_x509_certificate(shown).public_key() if len(shown) <= _MAX_CERTIFICATE else None
        except (ValueError, TypeError, UnsupportedAlgorithm):  # also for points that are not on the curve
            other = None
        if not isinstance(other, ec.EllipticCurvePublicKey) or not isinstance(other.curve, _CURVE):
            raise LinkError("A peer's certificate holds no key on P-256: it was not made by SessionKey")
        shared = self._key.exchange(ec.ECDH(), other)
        return HKDF(algorithm=hashes.SHA256(), length=_AGREED_BYTES, salt=None, info=info).derive(shared)


def _malformed() -> ConfigError:
    return ConfigError("This is no session key that was kept, or it was changed: start the session again")
