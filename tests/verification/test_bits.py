"""Comparisons on shares: right for every value of the ring, and in as many rounds as said."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flbc.verification.bits import Bits, ComparingParty, planes, unslice
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


def test_rounds_and_bytes_of_a_comparison() -> None:
    """64 values: 8 messages in a row at most, and about 130 bytes a value from a party."""
    values = uniform((640,))
    begin: dict[int, tuple[int, int]] = {}

    def work(party: ComparingParty) -> Bits:
        x = put(party, 0, values)
        begin[party.rank] = party.link.traffic.rounds, party.link.traffic.sent_bytes
        return party.negative(x)

    _, links = together(work, ComparingParty)
    for rank, link in enumerate(links):
        rounds, sent = begin[rank]
        assert link.traffic.rounds - rounds <= 8
        assert (link.traffic.sent_bytes - sent) / len(values) < 32


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
