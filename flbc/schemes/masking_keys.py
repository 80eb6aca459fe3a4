"""What a client needs to hide one vector, and how others can take its place: ephemeral key, seed, and their shares.

For every attempt a client has an *ephemeral key* (X25519), from which it shares a mask with each neighbour, and a
*seed*, from which it makes a mask of its own. Both secrets are split with Shamir's scheme over the client's group, and
each member gets its two shares in one sealed box. When the sum is opened the members give **one** of the two: the
seed's share if the client is in the sum, the key's share if it is not (SECURITY rule S24). Whoever has both secrets of
a client can take all masks off its vector.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256

from ..crypto._checks import Secret
from ..crypto.boxes import OVERHEAD, seal, unseal
from ..crypto.keystream import KEY_BYTES, EncryptionKey
from ..crypto.shamir import SHARE_BYTES, split
from ..errors import ProtocolError

#: Kinds of shares.
SEED, KEY = "seed", "key"
#: A sealed pair of shares.
BOX_BYTES = OVERHEAD + 2 * SHARE_BYTES
_COMMIT, _BOX = b"flbc/masking/commitment/1", b"flbc/masking/box/1"


@dataclass(frozen=True, slots=True)
class Dealing:
    """The public part of what a client dealt for one round.

    Parameters
    ----------
    public : bytes
        Ephemeral public key, 32 bytes.
    commitments : (bytes, bytes)
        SHA-256 of the key and of the seed, so that wrong shares are noticed. The public key is not enough: several
        secrets have the same one (RFC 7748 sets five bits), and a liar could shift its share to such a twin.
    threshold : int
        Shares that open a secret.
    boxes : mapping of str to bytes
        By the name of its recipient, the owner's own with an empty box. Shares belong to positions 1, 2, … in the
        order of names.
    """

    public: bytes
    commitments: tuple[bytes, bytes]
    threshold: int
    boxes: Mapping[str, bytes]

    def check_form(self) -> None:
        """Raise :class:`ProtocolError` unless all parts have the lengths of a dealing."""
        if len(self.public) != KEY_BYTES or [len(part) for part in self.commitments] != [32, 32]:
            raise ProtocolError("A dealing needs an ephemeral public key and two commitments of 32 bytes each")
        if not 1 <= self.threshold <= len(self.boxes):
            raise ProtocolError("The threshold of a dealing must be from 1 to the number of its holders")
        sizes = sorted(len(box) for box in self.boxes.values())
        if sizes != [0] + [BOX_BYTES] * (len(self.boxes) - 1):
            raise ProtocolError(f"A dealing has one box of {BOX_BYTES} bytes for every holder but its owner")

    def position(self, holder: str) -> int:
        """Return the x-coordinate of a holder's shares; :class:`ProtocolError` if it holds none."""
        if holder not in self.boxes:
            raise ProtocolError(f"{holder!r} holds no share of this dealing")
        return sorted(self.boxes).index(holder) + 1


class MaskSecrets(Secret):
    """The secret part: ephemeral key, seed, and the owner's own share of the seed. It refuses to be pickled."""

    __slots__ = ("key", "seed", "share")

    def __init__(self, key: EncryptionKey, seed: bytes, share: bytes) -> None:
        self.key, self.seed, self.share = key, seed, share

    def to_bytes(self) -> bytes:
        """Return key, seed and share one after another, for the node's own memory only."""
        return self.key.to_bytes() + self.seed + self.share

    @classmethod
    def from_bytes(cls, data: bytes) -> MaskSecrets:
        """Undo :meth:`to_bytes`."""
        if len(data) != 2 * KEY_BYTES + SHARE_BYTES:
            raise ProtocolError("The secrets of a mask have a wrong length")
        key, seed = data[:KEY_BYTES], data[KEY_BYTES : 2 * KEY_BYTES]
        return cls(EncryptionKey.from_bytes(key), seed, data[2 * KEY_BYTES :])

    def __repr__(self) -> str:
        return f"<MaskSecrets public={self.key.public.hex()}>"


def deal(context: bytes, owner: str, holders: Mapping[str, bytes], threshold: int) -> tuple[MaskSecrets, Dealing]:
    """Draw fresh secrets and share them.

    Parameters
    ----------
    context : bytes
        Names task and round; enters every box.
    owner : str
    holders : mapping of str to bytes
        Public keys for boxes, by name: the owner's neighbours.
    threshold : int
        Shares that open a secret, of ``len(holders) + 1``.
    """
    key, seed = EncryptionKey.generate(), secrets.token_bytes(32)
    names = sorted({owner, *holders})
    places = range(1, len(names) + 1)
    key_shares, seed_shares = split(key.to_bytes(), threshold, places), split(seed, threshold, places)
    boxes = {}
    for place, name in zip(places, names, strict=True):
        info = _info(context, key.public, owner, name)
        boxes[name] = b"" if name == owner else seal(holders[name], info, key_shares[place] + seed_shares[place])
    # The owner's share of its own key is nobody's: where it is needed, the owner is gone.
    mine = seed_shares[names.index(owner) + 1]
    commitments = commitment_of(KEY, key.to_bytes()), commitment_of(SEED, seed)
    return MaskSecrets(key, seed, mine), Dealing(key.public, commitments, threshold, boxes)


def open_box(
    key: EncryptionKey, context: bytes, public: bytes, sender: str, recipient: str, box: bytes
) -> dict[str, bytes]:
    """Return the two shares in a box by kind; the caller gives away one of them.

    Raises
    ------
    VerificationError
        If the box was sealed for somebody else, another round or another ephemeral key, or was changed.
    """
    plain = unseal(key, _info(context, public, sender, recipient), box)
    if len(plain) != 2 * SHARE_BYTES:
        raise ProtocolError("A box must hold two shares")
    return {KEY: plain[:SHARE_BYTES], SEED: plain[SHARE_BYTES:]}


def commitment_of(kind: str, secret: bytes) -> bytes:
    """Return what a dealing says of a secret."""
    return sha256(_COMMIT + kind.encode() + secret).digest()


def frame(parts: Iterable[bytes]) -> bytes:
    """Join byte strings so that no two lists give the same: each with its length before it."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def unframe(data: bytes) -> list[bytes]:
    """Undo :func:`frame`; :class:`ProtocolError` if the lengths do not add up."""
    parts, place = [], 0
    while place < len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        parts.append(data[place + 4 : place + 4 + size])
        place += 4 + size
    if place != len(data):
        raise ProtocolError("The parts of this message do not add up to its length")
    return parts


def _info(context: bytes, public: bytes, sender: str, recipient: str) -> bytes:
    return frame([_BOX, context, public, sender.encode(), recipient.encode()])
