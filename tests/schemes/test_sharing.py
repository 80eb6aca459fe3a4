"""Shares for three nodes: the contract of all schemes, and what boxes are bound to."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, ClassVar

import numpy as np
import pytest

from flbc.crypto.keystream import EncryptionKey
from flbc.errors import CiphertextError, OpeningRefusedError, ProtocolError
from flbc.schemes import Contribution, IntVector, SumSpec
from flbc.schemes.base import check_survivors, vector_from_bytes, vector_to_bytes
from flbc.schemes.sharing import SEATS, SharingCombiner, SharingProtector, open_box, open_parts, payload_bytes
from tests.schemes.contract import LABEL, MAX_ABS, OLD_LABEL, PARTIES, TAIL, Halves, SchemeContract, constant, nonce

KEYS = [EncryptionKey.from_bytes(sha256(b"seat %d" % seat).digest()) for seat in range(SEATS)]
PUBLICS = [key.public for key in KEYS]


def sender(party: int) -> bytes:
    return sha256(b"client %d" % party).digest()[:20]


class Summing(SharingCombiner):
    """The three nodes without their checks: each opens its boxes, adds its shares, and gives the sum."""

    def combine(self, payloads: Mapping[int, bytes]) -> bytes:
        super().combine(payloads)
        return b"".join(party.to_bytes(2, "big") + payloads[party] for party in sorted(payloads))

    def open(self, hidden: bytes, exchange: Any) -> IntVector | None:
        answers = exchange({str(seat): hidden for seat in range(SEATS)})
        if len(answers) < SEATS:
            return None
        return open_parts([vector_from_bytes(answers[str(seat)], self._spec.length) for seat in range(SEATS)])


def serve(name: str, hidden: bytes, label: bytes, listed: Sequence[Contribution], spec: SumSpec) -> bytes:
    size = 2 + payload_bytes(spec.length)
    if len(hidden) % size:
        raise CiphertextError("not whole payloads")
    entries = {int.from_bytes(hidden[i : i + 2], "big"): hidden[i + 2 : i + size] for i in range(0, len(hidden), size)}
    check_survivors(spec, listed)
    if set(entries) != {c.party for c in listed}:
        raise OpeningRefusedError("others than those that are listed")
    total = np.zeros(spec.length, np.int64)
    for c in listed:
        own, _ = open_box(int(name), KEYS[int(name)], label, c.encryption, c.nonce, entries[c.party], spec.length)
        total += own
    return vector_to_bytes(total)


class TestSharing(SchemeContract):
    takes_noise: ClassVar[bool] = False

    @pytest.fixture(scope="session")
    @classmethod
    def make(cls):
        def make(spec, parties):
            protectors = [SharingProtector(spec, sender(party), PUBLICS) for party in range(parties)]

            def answer(name, request, label, listed, draw):
                return serve(name, request, label, listed, spec)

            return Halves(spec, protectors, Summing(spec), answer, [sender(party) for party in range(parties)])

        return make

    @pytest.fixture(scope="session")
    @classmethod
    def slots(cls):
        return 7

    def test_payload_for_another_codec_is_refused(self, make, halves):
        """Not here: how large shared numbers are, the nodes' checks find out (tests/verification/test_checks.py)."""
        spec = SumSpec(halves.spec.length, 4 * MAX_ABS, PARTIES, TAIL)
        foreign = make(spec, PARTIES).payloads({0: constant(spec, 4 * MAX_ABS)})[0]
        assert halves.open({0: foreign, **halves.payloads({1: constant(halves.spec, 0)})})[0] == 4 * MAX_ABS


SPEC = SumSpec(9, 100, 5)


def box(party: int = 0, label: bytes = LABEL, value: int = 5) -> bytes:
    return SharingProtector(SPEC, sender(party), PUBLICS).protect(constant(SPEC, value), label, nonce(party))


def opened(payload: bytes, party: int = 0, label: bytes = LABEL, seat: int = 0, used: int | None = None) -> Any:
    return open_box(seat, KEYS[seat], label, sender(party), nonce(party if used is None else used), payload, 9)


def test_neighbours_get_the_same_share_and_three_make_the_vector() -> None:
    payload = box()
    views = [opened(payload, seat=seat) for seat in range(SEATS)]
    for seat in range(SEATS):
        assert np.array_equal(views[seat][1], views[(seat + 1) % SEATS][0])
    assert np.array_equal(sum(view[0] for view in views), constant(SPEC, 5))


@pytest.mark.parametrize("seat", range(SEATS))
def test_a_copy_of_anothers_payload_does_not_open(seat: int) -> None:
    """Three "models" of which two are copies would sum to the one times three."""
    with pytest.raises(CiphertextError, match="this round and this node"):
        opened(box(0), party=1, seat=seat, used=0)


@pytest.mark.parametrize("seat", range(SEATS))
def test_boxes_of_another_round_nonce_or_seat_do_not_open(seat: int) -> None:
    with pytest.raises(CiphertextError):
        opened(box(label=OLD_LABEL), seat=seat)
    with pytest.raises(CiphertextError):
        opened(box(), seat=seat, used=3)
    with pytest.raises(CiphertextError):
        open_box(seat, KEYS[(seat + 1) % 3], LABEL, sender(0), nonce(0), box(), 9)


def test_a_changed_share_does_not_open() -> None:
    payload = bytearray(box())
    payload[-20] ^= 1
    opened(bytes(payload), seat=0)  # it has seeds alone
    for seat in (1, 2):
        with pytest.raises(CiphertextError, match="key that came with it"):
            opened(bytes(payload), seat=seat)


def test_what_one_node_and_the_server_see_is_uniform() -> None:
    """Node i knows two shares of three; whatever the vector, they are fresh random numbers."""
    for seat in range(SEATS):
        first, second = (opened(box(value=0), seat=seat) for _ in range(2))
        for a, b in zip(first, second, strict=True):
            assert np.count_nonzero(a == b) == 0


@pytest.mark.parametrize("keys", [PUBLICS[:2], [*PUBLICS, secrets.token_bytes(32)], [PUBLICS[0]] * 3])
def test_three_different_nodes(keys: list[bytes]) -> None:
    with pytest.raises(ProtocolError, match="3 different nodes"):
        SharingProtector(SPEC, sender(0), keys)


def test_the_server_alone_opens_nothing() -> None:
    with pytest.raises(ProtocolError, match="nodes that checked"):
        SharingCombiner(SPEC).open(b"", lambda requests: {})
    with pytest.raises(ProtocolError, match="3 parts"):
        open_parts([np.zeros(3, np.int64)] * 2)
