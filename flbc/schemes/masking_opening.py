"""Opening a masked sum: which shares are asked of whom, which of them are given, and what the server makes of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from ..crypto.keystream import EncryptionKey
from ..crypto.shamir import SHARE_BYTES, recover
from ..errors import CodecError, OpeningRefusedError, ProtocolError, VerificationError
from .base import Exchange, IntVector, Noise, SumSpec, check_magnitude
from .masking import MaskingAdder
from .masking_keys import BOX_BYTES, KEY, SEED, Dealing, commitment_of, frame, open_box, unframe

#: What a holder answers for a box that it cannot open; no share has this value.
NO_SHARE = b"\xff" * SHARE_BYTES


class MaskingCombiner(MaskingAdder):
    """Server half.

    Parameters
    ----------
    spec : SumSpec
    label : bytes (default: b"")
        Hash of the attempt's label.
    dealings : mapping of str to Dealing or None (default: None)
        What everybody who was asked to take part has dealt; None where the sum is only recomputed.
    survivors : mapping of str to bytes or None (default: None)
        Nonce of every submission in the sum, by name.
    graph : mapping of str to tuple of str or None (default: None)
        Who masked with whom.
    noise : callable or None (default: None)
        Draws central noise.
    """

    def __init__(
        self,
        spec: SumSpec,
        label: bytes = b"",
        dealings: Mapping[str, Dealing] | None = None,
        survivors: Mapping[str, bytes] | None = None,
        graph: Mapping[str, tuple[str, ...]] | None = None,
        noise: Noise | None = None,
    ) -> None:
        super().__init__(spec)
        self._label, self._noise, self._graph = label, noise, dict(graph or {})
        self._dealings, self._survivors = dict(dealings or {}), dict(survivors or {})
        self._owners: dict[str, list[str]] = {}
        for owner in sorted(self._dealings):
            for holder in self._dealings[owner].boxes:
                if holder != owner or owner in self._survivors:
                    self._owners.setdefault(holder, []).append(owner)
        #: Holders whose shares were wrong, after :meth:`open`: they, or who dealt to them, cheated.
        self.liars: set[str] = set()

    def requests(self) -> dict[str, bytes]:
        """Return for every holder the boxes it is to open."""
        return {
            holder: frame(part for owner in owners for part in (owner.encode(), self._dealings[owner].boxes[holder]))
            for holder, owners in self._owners.items()
        }

    def read(self, holder: str, answer: bytes) -> dict[str, bytes]:
        """Return a holder's shares by their owner; :class:`CodecError` if the answer has another length."""
        owners = self._owners.get(holder, [])
        if len(answer) != len(owners) * SHARE_BYTES:
            raise CodecError(f"The shares have {len(answer)} bytes, expected {len(owners) * SHARE_BYTES}")
        parts = (answer[i * SHARE_BYTES : (i + 1) * SHARE_BYTES] for i in range(len(owners)))
        return {owner: share for owner, share in zip(owners, parts, strict=True) if share != NO_SHARE}

    def missing(self, given: Mapping[str, Mapping[str, bytes]]) -> list[str]:
        """Return whose secrets cannot be recovered from these shares, by holder and owner."""
        counts = Counter(owner for shares in given.values() for owner in shares)
        return [
            owner
            for owner, dealing in self._dealings.items()
            if self._needed(owner) and counts[owner] < dealing.threshold
        ]

    def misfits(self, given: Mapping[str, Mapping[str, bytes]]) -> list[str]:
        """Return whose secrets do not come out of enough shares: more of them may, if one or two are false."""
        wrong, short = [], set(self.missing(given))
        for owner in self._dealings:
            if owner not in short and self._needed(owner):
                try:
                    self._recover(owner, given, SEED if owner in self._survivors else KEY)
                except OpeningRefusedError:
                    wrong.append(owner)
        return wrong

    def guilty(self, given: Mapping[str, Mapping[str, bytes]]) -> list[str]:
        """Return who probably dealt what cannot be opened, after too many answers for anything else.

        A holder that opens less than half of its boxes is not believed. If the secrets of more than a third do not come
        out, it is the holders who lie, and nobody is named.
        """
        believed = [h for h, shares in given.items() if 2 * len(shares) >= len(self._owners.get(h, []))]
        named = self.misfits(given)
        for owner, dealing in self._dealings.items():
            holders = set(dealing.boxes) - ({owner} if owner not in self._survivors else set())
            refused = [holder for holder in holders.intersection(believed) if owner not in given[holder]]
            if self._needed(owner) and len(refused) > len(dealing.boxes) - dealing.threshold:
                named.append(owner)
        return named if 3 * len(named) <= len(self._dealings) else []

    def open(self, hidden: bytes, exchange: Exchange) -> IntVector | None:
        """Have shares given, and take the masks off; None if too few holders answered.

        Raises
        ------
        CodecError
            If an answer has a wrong length.
        OpeningRefusedError
            If shares do not fit what was dealt, or the sum is out of range.
        """
        if not self._survivors:
            raise OpeningRefusedError("There is nobody in the sum")
        answers = exchange(self.requests())
        given = {holder: self.read(holder, answer) for holder, answer in answers.items()}
        if self.missing(given):
            return None
        seeds, gone = [], []
        for owner in self._dealings:
            if owner in self._survivors:
                seeds.append((self._recover(owner, given, SEED), self._survivors[owner]))
            elif self._needed(owner):
                peers = {name: self._dealings[name].public for name in self._graph[owner] if name in self._survivors}
                key = EncryptionKey.from_bytes(self._recover(owner, given, KEY))
                if key.public != self._dealings[owner].public:
                    raise OpeningRefusedError(f"{owner!r} dealt another key than its masks were made with")
                gone.append((owner, key, peers))
        total = self.unmask(hidden, self._label, seeds, gone, self._noise)
        check_magnitude(total, len(self._survivors) * self.spec.max_abs + self.spec.noise_tail)
        return total

    def _needed(self, owner: str) -> bool:
        """Whether a client's secret has to be recovered: of those that are gone, if a neighbour is not."""
        return owner in self._survivors or any(name in self._survivors for name in self._graph.get(owner, ()))

    def _recover(self, owner: str, given: Mapping[str, Mapping[str, bytes]], kind: str) -> bytes:
        dealing = self._dealings[owner]

        commitment = dealing.commitments[0 if kind == KEY else 1]

        def fits(secret: bytes) -> bool:
            return commitment_of(kind, secret) == commitment

        names = {dealing.position(holder): holder for holder in dealing.boxes}
        shares = {place: given[name][owner] for place, name in names.items() if owner in given.get(name, {})}
        try:
            secret, wrong = recover(shares, dealing.threshold, fits)
        except (ProtocolError, VerificationError):
            raise OpeningRefusedError(
                f"The shares of {owner!r} do not fit what it dealt: it, or several holders, cheated; the round is burnt"
            ) from None
        self.liars |= {names[place] for place in wrong}
        return secret


def give_shares(
    key: EncryptionKey, me: str, context: bytes, request: bytes, publics: Mapping[str, bytes], kinds: Mapping[str, str],
    own: bytes | None,
) -> bytes:  # fmt: skip
    """Open the boxes of a request, and return one share of each.

    Parameters
    ----------
    key : EncryptionKey
        That boxes are sealed to.
    me : str
        The holder's name.
    context : bytes
        Names task and round.
    request : bytes
    publics : mapping of str to bytes
        Ephemeral public keys by owner, verified by the caller.
    kinds : mapping of str to str
        Which share to give, by owner: the caller has made sure that the other one is never given.
    own : bytes or None
        The holder's share of its own seed, if it is in the sum.

    Raises
    ------
    ProtocolError
        If the request is malformed or names somebody who takes no part.
    """
    answer = []
    for owner, box in read_request(request).items():
        if owner not in publics:
            raise ProtocolError(f"The request holds a box of {owner!r}, who takes no part in this attempt")
        if owner == me:
            answer.append(own if own is not None else NO_SHARE)
            continue
        try:
            answer.append(open_box(key, context, publics[owner], owner, me, box)[kinds[owner]])
        except VerificationError:  # its owner's fault; the others shall not suffer for it
            answer.append(NO_SHARE)
    return b"".join(answer)


def read_request(request: bytes) -> dict[str, bytes]:
    """Return the boxes of a request by their owner; :class:`ProtocolError` if it is malformed."""
    parts = unframe(request)
    try:
        owners = [name.decode() for name in parts[::2]]
    except UnicodeDecodeError:
        raise ProtocolError("A name in the request for shares is not text") from None
    boxes = dict(zip(owners, parts[1::2], strict=False))
    if len(parts) != 2 * len(boxes) or list(boxes) != sorted(boxes):
        raise ProtocolError("A request for shares must hold one box for each of different owners, in order")
    if any(len(box) not in (0, BOX_BYTES) for box in boxes.values()):
        raise ProtocolError(f"A box must have {BOX_BYTES} bytes")
    return boxes
