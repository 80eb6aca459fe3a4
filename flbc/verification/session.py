"""Begin a computation among three: agree on what it is about, on keys, and on which shares are sound."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Sequence
from hashlib import sha256

import numpy as np

from ..errors import LinkError, VerificationError
from .bits import ComparingParty
from .link import PARTIES, Link
from .sharing import Shared

_KEY_BYTES = 32


def begin(link: Link, context: bytes) -> ComparingParty:
    """Agree on fresh keys with both neighbours.

    Parameters
    ----------
    link : Link
        Authenticated and encrypted, or inside one process.
    context : bytes
        Names everything that the three must have been told alike: round, policy, models. 32 bytes.

    Raises
    ------
    VerificationError
        If a neighbour was told something else.
    LinkError
        If one is silent.
    """
    rank = link.rank
    after, before = (rank + 1) % PARTIES, (rank - 1) % PARTIES
    own = secrets.token_bytes(_KEY_BYTES)
    link.send(before, context + own)  # who holds share index `rank` beside this party
    told = link.recv(after)
    if len(told) != len(context) + _KEY_BYTES:
        raise LinkError(f"Party {after} began the computation with a malformed message; it is given up")
    if not hmac.compare_digest(told[: len(context)], context):
        raise VerificationError(
            f"Party {after} was asked about another round or other models than this one; the computation is given up"
        )
    return ComparingParty(link, own, told[len(context) :])


def sound(party: ComparingParty, shares: Sequence[Shared | None], context: bytes) -> list[bool]:
    """Return which models all three hold consistent shares of; two messages in a row.

    Share i is held twice. Its holders compare a hash of it, which the third party must not see: it knows the other two
    shares and could try out models.

    Parameters
    ----------
    party : ComparingParty
    shares : sequence of Shared or None
        One for each model; None where the box did not open.
    context : bytes
        As in :func:`begin`.
    """
    link, count = party.link, len(shares)
    link.send(party.before, b"".join(_digest(None if s is None else s.own.numpy(), context) for s in shares))
    told = link.recv(party.after)
    if len(told) != 32 * count:
        raise LinkError(f"Party {party.after} compared another number of models; it is given up")
    mine = bytes(
        s is not None and hmac.compare_digest(told[32 * i : 32 * i + 32], _digest(s.next.numpy(), context))
        for i, s in enumerate(shares)
    )
    for peer in (party.before, party.after):
        link.send(peer, mine)
    views = [mine, *(link.recv(peer) for peer in (party.before, party.after))]
    if any(len(view) != count or set(view) - {0, 1} for view in views):
        raise LinkError("A party reported on another number of models; the computation is given up")
    return [all(view[i] for view in views) for i in range(count)]


def _digest(share: np.ndarray[tuple[int, ...], np.dtype[np.int64]] | None, context: bytes) -> bytes:
    # A box that did not open gets a random digest, which equals nothing.
    if share is None:
        return secrets.token_bytes(32)
    return sha256(context + np.ascontiguousarray(share).astype("<i8", copy=False).tobytes()).digest()
