"""Replicated sharing: exact arithmetic modulo 2^64, truncation within one unit, and what a party sees."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flbc.errors import LinkError
from flbc.verification.sharing import ArithmeticParty, Shared
from tests.support.three import together

WORDS = st.integers(-(2**63), 2**63 - 1)
few = settings(max_examples=20, deadline=None)


def tensor(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


def uniform(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(-(2**63), 2**63 - 1, shape, np.int64, endpoint=True))


def put(party: ArithmeticParty, owner: int, values: torch.Tensor) -> Shared:
    return party.share(owner, values if party.rank == owner else None, values.shape)


@pytest.mark.parametrize("owner", [0, 1, 2])
def test_what_one_party_shares_all_can_open(owner: int) -> None:
    values = uniform((3, 4), owner)
    opened, links = together(lambda party: party.open(put(party, owner, values)))
    assert all(torch.equal(result, values) for result in opened)
    assert links[owner].traffic.sent_bytes == 2 * values.numel() * 8
    assert links[(owner + 2) % 3].traffic.sent_bytes == values.numel() * 8


def test_neighbours_hold_the_same_share() -> None:
    values = uniform((5,))
    shares, _ = together(lambda party: party.multiply(put(party, 0, values), put(party, 1, values)))
    for rank in range(3):
        assert torch.equal(shares[rank].next, shares[(rank + 1) % 3].own)


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=8))
@few
def test_sums_and_products_are_exact(pairs: list[tuple[int, int]]) -> None:
    a, b = (tensor([pair[i] for pair in pairs]) for i in (0, 1))

    def work(party: ArithmeticParty) -> tuple[torch.Tensor, ...]:
        x, y = put(party, 0, a), put(party, 2, b)
        linear = x.times(3) - y + party.constant(b) + (-x)
        return party.open(linear), party.open(party.multiply(x, y))

    for linear, product in together(work)[0]:
        assert torch.equal(linear, 2 * a)
        assert torch.equal(product, a * b)


def test_matrix_products_and_convolutions() -> None:
    a, b = uniform((4, 6), 1), uniform((6, 3), 2)
    image, kernel = uniform((2, 3, 5, 5), 3), uniform((4, 3, 3, 3), 4)

    def work(party: ArithmeticParty) -> tuple[torch.Tensor, ...]:
        matrix = party.reshare(party.product(torch.matmul, put(party, 0, a), put(party, 1, b)))
        turned = party.product(torch.nn.functional.conv2d, put(party, 1, image), put(party, 2, kernel))
        return party.open(matrix), party.open(party.reshare(turned))

    for matrix, turned in together(work)[0]:
        assert torch.equal(matrix, a @ b)
        assert torch.equal(turned, torch.nn.functional.conv2d(image, kernel))


@given(st.lists(st.integers(-(2**30), 2**30), min_size=1, max_size=16), st.integers(1, 30))
@few
def test_truncation_is_off_by_one_at_most(numbers: list[int], bits: int) -> None:
    """A value below 2^31 fails with a probability of 2^-32 each (ABY3, section 5.1.1)."""
    values = tensor(numbers)

    def work(party: ArithmeticParty) -> tuple[torch.Tensor, ...]:
        x, one = put(party, 1, values), party.constant(torch.ones_like(values))
        return party.open(party.truncate(x, bits)), party.open(
            party.truncate_part(party.product(torch.mul, x, one), bits)
        )

    for results in together(work)[0]:
        for result in results:
            assert int((result - (values >> bits)).abs().max()) <= 1


def test_every_party_s_part_is_masked() -> None:
    """Parts of one product differ from run to run, though the values do not: the zeros are fresh."""
    values = torch.zeros(64, dtype=torch.int64)
    work = lambda party: party.product(torch.mul, put(party, 0, values), put(party, 1, values))  # noqa: E731
    first, second = together(work)[0], together(work)[0]
    for rank in range(3):
        assert not torch.equal(first[rank], second[rank])
        assert int((first[rank] == 0).sum()) < 4
    assert torch.equal(first[0] + first[1] + first[2], values)


def test_one_party_s_shares_say_nothing() -> None:
    """Whatever the value, each of a party's shares that is not public has bits that are set half of the time."""
    for value in (0, -1, 12345):
        shares, _ = together(lambda party, v=value: put(party, 0, torch.full((4096,), v, dtype=torch.int64)))
        for share in (shares[0].own, shares[0].next, shares[1].own, shares[2].next):
            bits = np.unpackbits(share.numpy().view(np.uint8)).mean()
            assert abs(bits - 0.5) < 0.01


def test_a_message_of_another_size_is_refused() -> None:
    def work(party: ArithmeticParty) -> str:
        if party.rank == 0:
            party.link.send(1, b"short")
            return ""
        if party.rank == 1:
            with pytest.raises(LinkError, match="5 bytes where 16 were agreed"):
                party.recv(0, (2,))
        return ""

    together(work)


@pytest.mark.parametrize("values", [None, torch.zeros(3), torch.zeros(2, dtype=torch.int64)])
def test_an_owner_shares_what_was_agreed(values: Any) -> None:
    def work(party: ArithmeticParty) -> None:
        if party.rank == 0:
            with pytest.raises(ValueError, match="int64 values of the agreed shape"):
                party.share(0, values, (3,))

    together(work)
