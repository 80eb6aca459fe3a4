"""Secret shares of a vector for three nodes, in boxes that a server carries.

Replicated secret sharing in Z_2^64 (Araki et al. 2016): ``x = s_0 + s_1 + s_2 (mod 2^64)``, and node i gets ``s_i`` and
``s_{i+1}``. Two of the three are grown from seeds by AES-256-CTR, so that a client sends one share, 8 bytes a value,
encrypted once under a key that only nodes 1 and 2 get, and three small boxes (HPKE) with seeds and that key ::

    node 0: seed_0, seed_1        node 1: seed_1, key        node 2: key, seed_0
    payload = box_0 ‖ box_1 ‖ box_2 ‖ ChaCha20-Poly1305(key, s_2)

Who learns what
    *The server, clients, outsiders*: nothing, also all of them together. *One of the three nodes, alone or with the
    server*: nothing. *Two of the three*: every vector.
What binds a payload
    Boxes name label, sender, nonce and seat; the label names the round. Without the sender, clients could hand in
    copies of another's payload as their own, and a sum of "three" models would be one of them times three. The client
    signs the payload's hash. That two nodes were given the same share they find out by comparing hashes
    (:mod:`flbc.verification.session`).
Later theft
    Who recorded the traffic and steals the keys to two nodes' boxes reads the vectors. Those keys are made for a run.
Dropouts
    A client that sends nothing is not in the sum. A node of the three that is missing: nothing is checked, nothing is
    opened, the round is abandoned.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from numpy.typing import NDArray

from ..crypto.boxes import OVERHEAD, seal, unseal
from ..crypto.keystream import KEY_BYTES, EncryptionKey, Keystream
from ..crypto.signing import keccak256
from ..errors import CiphertextError, ProtocolError, VerificationError
from .base import Exchange, IntVector, SumSpec

SEATS = 3
_BOX_BYTES = 2 * KEY_BYTES + OVERHEAD
_TAG_BYTES = 16
# A key serves one share, so the nonce may be constant (RFC 8439, section 2.8).
_NONCE = bytes(12)


def payload_bytes(length: int) -> int:
    """Return the size of a payload for a vector of ``length`` values."""
    return SEATS * _BOX_BYTES + 8 * length + _TAG_BYTES


def _info(label: bytes, sender: bytes, nonce: bytes, seat: int) -> bytes:
    return b"flbc/shares/1" + label + sender + nonce + bytes([seat])


def _grown(seed: bytes, length: int) -> IntVector:
    words = np.empty(length, np.int64)
    Keystream(seed).read_into(words)
    return words


class SharingProtector:
    """Client half.

    Parameters
    ----------
    spec : SumSpec
    sender : bytes
        Address of the client's signing key, 20 bytes.
    recipients : sequence of bytes
        Public keys for the boxes of the three nodes, by seat, already verified.
    """

    def __init__(self, spec: SumSpec, sender: bytes, recipients: Sequence[bytes]) -> None:
        if len(recipients) != SEATS or len(set(recipients)) != SEATS:
            raise ProtocolError(f"Shares are for {SEATS} different nodes")
        self._spec, self._sender, self._recipients = spec, sender, tuple(recipients)

    def protect(self, values: IntVector, label: bytes, nonce: bytes) -> bytes:
        """Share ``values`` for the attempt with label hash ``label``."""
        self._spec.check(values)
        first, second, key = (secrets.token_bytes(KEY_BYTES) for _ in range(3))
        rest = values - _grown(first, len(values))
        rest -= _grown(second, len(values))
        contents = (first + second, second + key, key + first)
        boxes = [
            seal(recipient, _info(label, self._sender, nonce, seat), content)
            for seat, (recipient, content) in enumerate(zip(self._recipients, contents, strict=True))
        ]
        body = ChaCha20Poly1305(key).encrypt(_NONCE, rest.astype("<i8", copy=False).tobytes(), None)
        return b"".join(boxes) + body


class SharingCombiner:
    """Server half: it keeps payloads apart, because which of them are summed is not known yet.

    Parameters
    ----------
    spec : SumSpec
    """

    def __init__(self, spec: SumSpec) -> None:
        self._spec = spec

    def check(self, payload: bytes) -> None:
        """Raise :class:`CiphertextError` if a payload has another size."""
        wanted = payload_bytes(self._spec.length)
        if len(payload) != wanted:
            raise CiphertextError(f"A payload has {len(payload)} bytes instead of {wanted}")

    def combine(self, payloads: Mapping[int, bytes]) -> bytes:
        """Return what a block commits to: the hash of every payload, by roster index."""
        for payload in payloads.values():
            self.check(payload)
        return b"".join(index.to_bytes(2, "big") + keccak256(payloads[index]) for index in sorted(payloads))

    def open(self, hidden: bytes, exchange: Exchange) -> IntVector | None:
        """Not here: the three nodes check models before they sum them."""
        raise ProtocolError("Shared sums are opened by the nodes that checked the models")


def open_box(
    seat: int, key: EncryptionKey, label: bytes, sender: bytes, nonce: bytes, payload: bytes, length: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return a node's two shares of a payload.

    Parameters
    ----------
    seat : int
        0, 1 or 2.
    key : EncryptionKey
        The node's.
    label, sender, nonce : bytes
        Of the submission, and its maker's address.
    payload : bytes
    length : int
        Values in a vector.

    Returns
    -------
    own, next : ndarray of int64, shape (length,)
        Shares ``seat`` and ``seat + 1``.

    Raises
    ------
    CiphertextError
        If the payload has another size, or was not made for this label, sender, nonce and node.
    """
    if len(payload) != payload_bytes(length):
        raise CiphertextError(f"A payload has {len(payload)} bytes instead of {payload_bytes(length)}")
    try:
        content = unseal(key, _info(label, sender, nonce, seat), payload[seat * _BOX_BYTES : (seat + 1) * _BOX_BYTES])
    except VerificationError:
        raise CiphertextError("A box does not open for this round and this node") from None
    first, second = content[:KEY_BYTES], content[KEY_BYTES:]

    def sent(body_key: bytes) -> NDArray[np.int64]:
        try:
            body = ChaCha20Poly1305(body_key).decrypt(_NONCE, payload[SEATS * _BOX_BYTES :], None)
        except InvalidTag:
            raise CiphertextError("A share does not open with the key that came with it") from None
        return np.frombuffer(body, "<i8").astype(np.int64)

    own = sent(first) if seat == SEATS - 1 else _grown(first, length)
    after = sent(second) if seat == SEATS - 2 else _grown(second, length)
    return own, after


def open_parts(parts: Sequence[IntVector]) -> IntVector:
    """Add what the three nodes give of a sum."""
    if len(parts) != SEATS or len({part.shape for part in parts}) != 1:
        raise ProtocolError(f"A sum is opened with {SEATS} parts of one length")
    total = parts[0] + parts[1]
    return total + parts[2]
