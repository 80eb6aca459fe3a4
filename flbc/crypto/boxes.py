"""Sealed boxes: bytes that one recipient can open, carried by others. HPKE (RFC 9180) in its base mode.

The suite is DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and ChaCha20-Poly1305, the one of the RFC's appendix A.2. Each box
is ``enc ‖ ciphertext ‖ tag`` with a fresh ephemeral key, so two boxes with equal contents differ. It shows the length
of what it holds. Assumptions: gap Diffie-Hellman on Curve25519, HKDF-SHA256 as a random oracle, ChaCha20-Poly1305 as
authenticated encryption; a quantum computer would open boxes that were recorded.

What base mode gives
    Nobody but the recipient reads a box (also if it opens other boxes for its enemies), and a changed box does not
    open.
What it does not give
    *A sender.* Anybody can seal a box for a public key. Its sender is whoever signed the message that the box came in.
    *Freshness.* A box opens as often as it is sent.
    *Forward secrecy against theft of the recipient's key.* The stolen key opens every box that was ever sealed for it.
    Keys that receive boxes are therefore made for one run and thrown away after it.
What `info` has to name
    A signature says who sent a box, not who made it, so a client may send the box of another as its own. The recipient
    would take the contents for the client's and, in secure aggregation, hand them out as such. `info` names the
    *sender*, so that the copy does not open; the *recipient*, so that two parties with one key are still two; and the
    *label* of task, round and attempt, so that an old box does not open in a new round.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from flbc.crypto._checks import check_bytes
from flbc.crypto.keystream import PUBLIC_KEY_BYTES, EncryptionKey
from flbc.errors import VerificationError

#: Bytes that a box is longer than its contents: the ephemeral key and the tag (RFC 9180, sections 7.1 and 7.3).
OVERHEAD = 32 + 16

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


def seal(recipient: bytes, info: bytes, plaintext: bytes) -> bytes:
    """Encrypt to one recipient.

    Parameters
    ----------
    recipient : bytes
        Its X25519 public key, 32 bytes, already checked against the roster or signed by its owner.
    info : bytes
        Names label, sender and recipient; the recipient has to pass the same. It is not in the box.
    plaintext : bytes
        Any length.

    Returns
    -------
    bytes
        `OVERHEAD` bytes more than `plaintext`.

    Raises
    ------
    VerificationError
        If `recipient` is no key, or one of the low-order points for which everybody can open.
    """
    recipient, info = check_bytes("recipient", recipient), check_bytes("info", info)
    plaintext = check_bytes("plaintext", plaintext)
    if len(recipient) != PUBLIC_KEY_BYTES:
        raise VerificationError(f"a recipient's key must be {PUBLIC_KEY_BYTES} bytes, not {len(recipient)}")
    try:
        return _SUITE.encrypt(plaintext, X25519PublicKey.from_public_bytes(recipient), info)
    except ValueError:
        raise VerificationError("the recipient's key is not usable: it must send a fresh one") from None


def unseal(key: EncryptionKey, info: bytes, box: bytes) -> bytes:
    """Decrypt a box.

    Parameters
    ----------
    key : EncryptionKey
        The recipient's.
    info : bytes
        What the box was sealed with.
    box : bytes

    Returns
    -------
    bytes
        What was sealed. Who sealed it is another question: see the module.

    Raises
    ------
    VerificationError
        If the box is too short, was changed, or was sealed for another key or another `info`. The message is the same
        for all of these.
    """
    if not isinstance(key, EncryptionKey):
        raise TypeError(f"key must be an EncryptionKey, not {type(key).__name__}")
    info, box = check_bytes("info", info), check_bytes("box", box)
    try:
        return _SUITE.decrypt(box, X25519PrivateKey.from_private_bytes(key.to_bytes()), info)
    except (InvalidTag, ValueError):
        raise VerificationError("the box does not open: it was changed or sealed for another purpose or key") from None
