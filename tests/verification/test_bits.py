"""Comparisons on shares: right for every value of the ring, and in as many rounds as said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flbc.verification.bits import ComparingParty
from flbc.verification.link import Link
from flbc.verification.sharing import BLOCK, Shared
from flbc.verification.slicing import Bits, pieces, planes, unslice
from tests.support.three import together
from tests.verification.test_sharing import WORDS, put, tensor, uniform

few = settings(max_examples=15, deadline=None)
EDGES = [0, 1, -1, 2**62, -(2**62), 2**63 - 1, -(2**63), 2**32, -(2**32), 2**31 - 1]


@given(st.integers(1, 5), st.integers(0, 2**32))
@few
def test_planes_are_a_transposition(words: int, seed: int) -> None:
    values = uniform((64 * words,), seed).numpy().view(np.uint64)
    sliced = planes(values)
    for k in (0, 1, 31, 32, 63):
        assert torch.equal(
            unslice(sliced[k], 64 * words), torch.from_numpy(((values >> np.uint64(k)) & 1).astype(np.int64))
        )


@given(st.lists(WORDS, min_size=1, max_size=130))
@few
def test_signs_are_right_for_every_value(numbers: list[int]) -> None:
    values = tensor(numbers + EDGES)

    def work(party: ComparingParty) -> torch.Tensor:
        return party.open_bits(party.negative(put(party, 2, values)), len(values))

    for got in together(work, ComparingParty)[0]:
        assert torch.equal(got, (values < 0).to(torch.int64))


@pytest.mark.parametrize("shape", [(1,), (63,), (64,), (65,), (3, 50)])
def test_relu_select_and_maximum(shape: tuple[int, ...]) -> None:
    a, b = uniform(shape, 1) >> 2, uniform(shape, 2) >> 2

    def work(party: ComparingParty) -> tuple[torch.Tensor, ...]:
        x, y = put(party, 0, a), put(party, 1, b)
        return (
            party.open(party.relu(x)),
            party.open(party.maximum(x, y)),
            party.open(party.select(party.negative(x), y)),
        )

    for relu, larger, chosen in together(work, ComparingParty)[0]:
        assert torch.equal(relu, a.clamp(min=0))
        assert torch.equal(larger, torch.maximum(a, b))
        assert torch.equal(chosen, torch.where(a < 0, b, torch.zeros_like(b)))


def test_and_not_and_exclusive_or() -> None:
    a, b = uniform((70,), 3), uniform((70,), 4)

    def work(party: ComparingParty) -> tuple[torch.Tensor, ...]:
        x, y = party.negative(put(party, 0, a)), party.negative(put(party, 1, b))
        both, neither = party.both(x, y), party.both(party.invert(x), party.invert(y))
        return party.open_bits(both, 70), party.open_bits(neither, 70), party.open_bits(x ^ y, 70)

    x, y = a < 0, b < 0
    for both, neither, differ in together(work, ComparingParty)[0]:
        assert torch.equal(both, (x & y).long())
        assert torch.equal(neither, (~x & ~y).long())
        assert torch.equal(differ, (x ^ y).long())


class Watched:
    """A link that keeps what it sends."""

    def __init__(self, link: Link) -> None:
        self.link, self.sent = link, list[tuple[int, bytes]]()
        self.rank, self.traffic = link.rank, link.traffic

    def send(self, to: int, data: bytes) -> None:
        self.sent.append((to, bytes(data)))
        self.link.send(to, data)

    def recv(self, sender: int) -> bytes:
        return self.link.recv(sender)

    def close(self) -> None:
        self.link.close()


def watched(values: torch.Tensor, work: Callable[[ComparingParty, Shared], Any]) -> dict[tuple[int, int], list[bytes]]:
    """What each party sends to each other while it works on shared values."""

    def both(party: ComparingParty) -> list[tuple[int, bytes]]:
        x = put(party, 0, values)
        link = party.link = Watched(party.link)
        work(party, x)
        return link.sent

    seen: dict[tuple[int, int], list[bytes]] = {}
    for rank, sent in enumerate(together(both, ComparingParty)[0]):
        for to, data in sent:
            seen.setdefault((rank, to), []).append(data)
    return seen


def half_set(data: bytes) -> bool:
    """Whether a bit is set half of the time, within 6 standard deviations."""
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    return bool(abs(bits.mean() - 0.5) < 3 / np.sqrt(len(bits)))


def test_rounds_and_bytes_of_a_comparison() -> None:
    """Of 64 values: 95 words from party 0, two of 63 back to it, and 57 from each in 5 levels."""
    values = uniform((640,))
    begin: dict[int, int] = {}

    def work(party: ComparingParty, x: Shared) -> Bits:
        begin[party.rank] = party.link.traffic.rounds
        made = party.negative(x)
        assert party.link.traffic.rounds - begin[party.rank] <= 7
        return made

    sent = {pair: sum(map(len, data)) for pair, data in watched(values, work).items()}
    words = {(0, 1): 95, (1, 0): 63 + 57, (2, 0): 63, (2, 1): 57, (0, 2): 57}
    assert sent == {pair: 80 * count for pair, count in words.items()}


def test_bytes_of_a_selection() -> None:
    """5 words a value by all three, and nothing of their sum costs more."""
    values = uniform((640,))
    signs: dict[int, int] = {}

    def work(party: ComparingParty, x: Shared) -> None:
        flags = party.negative(x)
        signs[party.rank] = party.link.traffic.sent_bytes
        party.select(flags, x, x)
        signs[party.rank] = party.link.traffic.sent_bytes - signs[party.rank]

    watched(values, work)
    assert signs == {0: 3 * 8 * 640, 1: 8 * 640, 2: 8 * 640}


@pytest.mark.parametrize("value", [0, -1, 1, 2**63 - 1, 12345])
def test_what_a_party_sees_of_a_comparison_says_nothing(value: int) -> None:
    """Every message, and what party 0 gets of the same blocks from the two others together."""
    seen = watched(torch.full((6400,), value, dtype=torch.int64), lambda party, x: party.relu(x))
    assert all(half_set(data) for messages in seen.values() for data in messages)
    one, other = (np.frombuffer(seen[rank, 0][0], np.uint8) for rank in (1, 2))
    assert len(one) == len(other) == 63 * 800
    assert half_set((one ^ other).tobytes())
    turned, known = np.frombuffer(seen[0, 1][-1], np.int64).reshape(2, -1)
    assert half_set((turned - known).tobytes())
    assert half_set((turned ^ known).tobytes())


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (1, 3 * BLOCK + 5), (40, BLOCK // 7), (2, BLOCK)])
def test_pieces_cover_a_matrix_once(shape: tuple[int, int]) -> None:
    counted = np.zeros(shape, np.int64)
    for place in pieces(shape):
        counted[place] += 1
        assert counted[place].size <= BLOCK
        assert place[0].stop <= shape[0]
    assert (counted == 1).all()


def test_more_values_than_a_piece_holds() -> None:
    """Large enough that every step works on several pieces, the last of them not full."""
    values = uniform((1, 64 * BLOCK + 65), 9)
    values[0, :1000] = torch.arange(-500, 500)
    sample = torch.cat([torch.arange(1000), torch.arange(64 * BLOCK - 500, 64 * BLOCK + 65)])

    def work(party: ComparingParty) -> torch.Tensor:
        made = party.select(party.not_negative(put(party, 1, values)), put(party, 2, values))
        return party.open(made.map(lambda t: t[0, sample]))

    expected = values[0, sample].clamp(min=0)
    assert all(torch.equal(got, expected) for got in together(work, ComparingParty, 60.0)[0])


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=100))
@few
def test_a_sum_may_be_added_to_what_is_selected(pairs: list[tuple[int, int]]) -> None:
    a, b = (tensor([pair[i] for pair in pairs]) for i in (0, 1))

    def work(party: ComparingParty) -> torch.Tensor:
        x, y = put(party, 0, a), put(party, 1, b)
        return party.open(party.select(party.negative(x), x, y))

    for got in together(work, ComparingParty)[0]:
        assert torch.equal(got, b + a.clamp(max=0))


def test_shares_of_bits_are_masked() -> None:
    """The same signs twice: no share that was sent repeats."""
    values = torch.zeros(256, dtype=torch.int64)

    def work(party: ComparingParty) -> Bits:
        x = party.negative(put(party, 0, values))
        return party.both(x, x)

    first, second = together(work, ComparingParty)[0], together(work, ComparingParty)[0]
    for rank in range(3):
        assert not np.array_equal(first[rank].own, second[rank].own)
        assert np.array_equal(first[rank].next, first[(rank + 1) % 3].own)


@pytest.mark.parametrize("shape", [(1, 1), (3, 64), (5, 65), (2, 200), (7, 1)])
def test_flags_of_rows_and_columns(shape: tuple[int, int]) -> None:
    values = uniform(shape, 3)
    values[0] = values[0].abs() >> 1  # one row that is all set
    wanted = values >= 0
    ones = torch.ones(shape, dtype=torch.int64)

    def work(party: ComparingParty) -> tuple[torch.Tensor, ...]:
        flags, one = party.not_negative(put(party, 1, values)), party.constant(ones)
        return (
            party.open(party.select(flags, one)),
            party.open(party.select(party.all_rows(flags), one.map(lambda t: t[:1]))),
            party.open(party.select(party.all_columns(flags), one.map(lambda t: t[:, :1]))),
        )

    for each, rows, columns in together(work, ComparingParty)[0]:
        assert torch.equal(each, wanted.to(torch.int64))
        assert torch.equal(rows, wanted.all(dim=0, keepdim=True).to(torch.int64))
        assert torch.equal(columns, wanted.all(dim=1, keepdim=True).to(torch.int64))
    with pytest.raises(ValueError, match="matrix"):
        together(lambda party: party.not_negative(put(party, 1, values.reshape(-1))), ComparingParty)
