"""Packed Paillier under a key that nobody holds: t of n share holders open a sum together.

Clients and server do as in :mod:`flbc.schemes.paillier`. The key is shared (:mod:`flbc.crypto.paillier_threshold`):
every holder opens the hidden sum in part, and the *authority*, which has no share and no key, joins t parts, adds the
noise in Z_n, and only then checks tags and unused slots and reads the slots. It is the one that shares tags with the
clients.

Who learns what
    *Fewer than t holders*, with each other: nothing; a partial opening says nothing without t-1 others. *t holders* who
    collude, with the server's payloads: everything. *Server*: nothing; partial openings travel in boxes for the
    authority. *Authority*: the exact sum before it adds the noise, so differential privacy does not hold against it.
    *Server and authority together*: one ciphertext of their choice a round. Holders have no tags, so they cannot tell
    one client's payload from a sum; they open one ciphertext a round, and no more. With a ledger this is closed: a
    holder answers only for the block that leader and committee signed after they had recomputed its sum, so that it
    takes a quorum of dishonest members too. *Server and some clients*: the sum of the others, which is why
    ``min_survivors`` exists.
What is not detected
    A holder may answer falsely. Where there is one answer more than t, one false answer is set aside; else the round is
    burnt, so that a dishonest holder can hold rounds up, and not read or change them unnoticed, but for one thing: like
    everybody who handles the hidden sum, it may add known numbers to it. What clients can do is as with the authority
    alone.
Dropouts
    Any t holders and the authority open. With fewer holders the round is lost and the model kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from ..crypto import paillier
from ..crypto.keystream import EncryptionKey
from ..crypto.paillier_threshold import MAX_HOLDERS, ShareKey, ThresholdKey, combine
from ..errors import CiphertextError, ConfigError, OpeningRefusedError, ProtocolError, VerificationError
from .base import Contribution, Exchange, IntVector, Noise, SumSpec, check_survivors, vector_from_bytes
from .functional import join_request, split_request
from .paillier import PaillierCombiner
from .paillier_layout import Geometry, add_noise, signed_sum

_LENGTH_BYTES = 8


class ThresholdCombiner(PaillierCombiner):
    """Server half: multiply ciphertexts, ask the holders, hand their answers to the authority.

    Parameters
    ----------
    key : ThresholdKey
    spec : SumSpec
    authority : str
        Name in the roster.
    holders : sequence of str
        Names of those that may be asked, at least the threshold.

    Raises
    ------
    ConfigError
        If the authority is a holder.
    """

    def __init__(self, key: ThresholdKey, spec: SumSpec, authority: str, holders: Sequence[str]) -> None:
        super().__init__(key.public, spec, authority)
        if authority in holders:
            raise ConfigError(f"{authority!r} cannot hold a share and combine: it would need one holder fewer")
        self._threshold, self._holders = key.threshold, tuple(holders)

    def open(self, hidden: bytes, exchange: Exchange) -> IntVector | None:
        """Ask all holders at once, then the authority; None when too few of them answered."""
        parts = exchange(dict.fromkeys(self._holders, hidden))
        if len(parts) < self._threshold:
            return None
        request = join_request(join_parts([parts[name] for name in self._holders if name in parts]), hidden)
        answer = exchange({self._authority: request}).get(self._authority)
        return None if answer is None else vector_from_bytes(answer, self._geometry.spec.length)


class PartialOpener:
    """Holder half. It trusts its caller with everything: S8, S12, and whether the ciphertext may be opened.

    Parameters
    ----------
    share : ShareKey
    spec : SumSpec
    """

    def __init__(self, share: ShareKey, spec: SumSpec) -> None:
        self._share, self._geometry = share, Geometry(share.key.public, spec)

    def open(self, hidden: bytes) -> bytes:
        """Return the partial opening: the holder's place, 1 byte, and as many numbers as the hidden sum has.

        Raises
        ------
        CiphertextError
            If ``hidden`` is not a vector of ciphertexts of this key.
        """
        g = self._geometry
        ciphertexts = paillier.ciphertexts_from_bytes(g.public, hidden, g.count)
        opened = self._share.partial(ciphertexts)
        return bytes([self._share.place]) + paillier.ciphertexts_to_bytes(g.public, opened)


class ThresholdOpener:
    """Authority half: combine, add noise, check tags and unused slots, unpack.

    It trusts its caller with S8 (one opening per round), S12 (enough survivors) and S20 (budget); see
    :mod:`flbc.node.threshold`.
    """

    def __init__(self, key: ThresholdKey, spec: SumSpec, mine: EncryptionKey) -> None:
        self._key, self._mine, self._geometry = key, mine, Geometry(key.public, spec)

    def open(
        self,
        hidden: bytes,
        parts: Sequence[bytes],
        label: bytes,
        survivors: Sequence[Contribution],
        noise: Noise | None,
    ) -> IntVector:
        """Return the (noised) sum of exactly ``survivors``.

        Parameters
        ----------
        hidden : bytes
        parts : sequence of bytes
            What holders returned for it.
        label : bytes
        survivors : sequence of Contribution
        noise : callable or None

        Raises
        ------
        CiphertextError
            If ``hidden`` is no vector of ciphertexts of this key.
        OpeningRefusedError
            If the parts do not open it, or it is not the sum of exactly these survivors; no detail is given.
        """
        g = self._geometry
        check_survivors(g.spec, survivors)
        paillier.ciphertexts_from_bytes(g.public, hidden, g.count)
        expected = g.tag_sums(self._mine, label, survivors)
        try:
            plaintexts, _ = combine(self._key, self._read(parts))
        except (ProtocolError, VerificationError) as error:
            raise OpeningRefusedError(f"The round is burnt: {error}") from None
        plaintexts = add_noise(g, plaintexts, noise)
        return signed_sum(g, g.read(plaintexts, expected, len(survivors)), len(survivors), noise)

    def _read(self, parts: Sequence[bytes]) -> Mapping[int, Sequence[int]]:
        """Return the parts by place; malformed ones, and a second one of a place, count as not given."""
        g = self._geometry
        vectors: dict[int, Sequence[int]] = {}
        for part in parts:
            if part and 1 <= part[0] <= self._key.holders:
                with suppress(CiphertextError):
                    vectors.setdefault(part[0], paillier.ciphertexts_from_bytes(g.public, part[1:], g.count))
        return vectors


def join_parts(parts: Sequence[bytes]) -> bytes:
    """Put holders' answers one after another, each after its length."""
    return b"".join(len(part).to_bytes(_LENGTH_BYTES, "big") + part for part in parts)


def split_parts(request: bytes) -> tuple[list[bytes], bytes]:
    """Return the answers and the hidden sum of a request to the authority; :class:`ProtocolError` if malformed."""
    data, hidden = split_request(request)
    parts: list[bytes] = []
    offset = 0
    while offset < len(data):
        size = int.from_bytes(data[offset : offset + _LENGTH_BYTES], "big")
        parts.append(data[offset + _LENGTH_BYTES : offset + _LENGTH_BYTES + size])
        offset += _LENGTH_BYTES + size
    if offset != len(data) or len(parts) > MAX_HOLDERS:
        raise ProtocolError("The partial openings in the request are malformed")
    return parts, hidden
