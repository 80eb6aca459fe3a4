"""The engine in the clear: the ring's arithmetic, and the same answers as three parties."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flbc.verification.bits import ComparingParty
from flbc.verification.engine import concatenate, stack
from flbc.verification.plain import Clear, PlainEngine
from tests.support.three import together
from tests.verification.test_sharing import WORDS, put, tensor, uniform

few = settings(max_examples=10, deadline=None)
ENGINE = PlainEngine()


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=8))
@few
def test_arithmetic_wraps(pairs: list[tuple[int, int]]) -> None:
    def wrapped(number: int) -> int:
        return (number + 2**63) % 2**64 - 2**63

    x, y = (Clear(tensor([pair[i] for pair in pairs])) for i in (0, 1))
    assert (x + y).values.tolist() == [wrapped(a + b) for a, b in pairs]
    assert (x - y).values.tolist() == [wrapped(a - b) for a, b in pairs]
    assert (-x).values.tolist() == [wrapped(-a) for a, _ in pairs]
    assert x.times(3).values.tolist() == [wrapped(3 * a) for a, _ in pairs]
    assert ENGINE.multiply(x, y).values.tolist() == [wrapped(a * b) for a, b in pairs]
    assert ENGINE.relu(x).values.tolist() == [max(a, 0) for a, _ in pairs]
    assert ENGINE.truncate(x, 7).values.tolist() == [a // 128 for a, _ in pairs]
    assert ENGINE.truncate_part(ENGINE.product(torch.mul, x, y), 5).values.tolist() == [
        wrapped(a * b) // 32 for a, b in pairs
    ]


def test_every_operation_answers_as_three_parties_do() -> None:
    a, b = uniform((3, 70), 1), uniform((3, 70), 2)
    a[0], b[0] = torch.arange(70) - 35, torch.arange(70) % 3  # rows with flags of both kinds

    def steps(engine: ComparingParty | PlainEngine, x: Any, y: Any) -> list[torch.Tensor]:
        flags = engine.not_negative(x)
        ones = engine.constant(torch.ones(3, 70, dtype=torch.int64))
        row, column = (engine.constant(torch.ones(shape, dtype=torch.int64)) for shape in ((1, 70), (3, 1)))
        outcome = [
            x + y - x.times(5),
            -x,
            engine.multiply(x, y),
            engine.reshare(engine.product(lambda p, q: p @ q.T, x, y)),
            engine.relu(x),
            engine.maximum(x, y),
            engine.select(flags, y),
            engine.select(flags, ones),
            engine.select(engine.all_rows(flags), row),
            engine.select(engine.all_columns(flags), column),
            stack([x, y]).map(lambda t: t.permute(2, 0, 1)),
            concatenate([x, y], dim=1),
        ]
        return [engine.open(value) for value in outcome]

    expected = steps(ENGINE, Clear(a), Clear(b))
    opened, _ = together(lambda party: steps(party, put(party, 0, a), put(party, 2, b)), ComparingParty)
    for results in opened:
        for number, (got, wanted) in enumerate(zip(results, expected, strict=True)):
            assert torch.equal(got, wanted), number


def test_truncation_of_three_parties_is_off_by_one_at_most() -> None:
    values = uniform((200,)) >> 33

    def work(party: ComparingParty) -> torch.Tensor:
        return party.open(party.truncate(put(party, 1, values), 13))

    difference = together(work, ComparingParty)[0][0] - ENGINE.truncate(Clear(values), 13).values
    assert int(difference.abs().max()) <= 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int32, torch.bool])
def test_only_words_are_values(dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match="int64"):
        ENGINE.constant(torch.zeros(2, dtype=dtype))


def test_shapes_that_three_parties_refuse_are_refused_here() -> None:
    with pytest.raises(ValueError, match="matrix"):
        ENGINE.not_negative(Clear(tensor([1, 2])))
    with pytest.raises(ValueError, match="do not fit"):
        ENGINE.select(torch.ones(1, 2, dtype=torch.bool), Clear(tensor([[1], [2]])))
