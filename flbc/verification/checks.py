"""Which of K hidden models satisfy a policy: norms of their updates, and accuracy by encrypted inference.

All K are checked in the same rounds of messages. Nothing is opened here: the result is one hidden bit for each.

Order of what is safe to believe
    Numbers in the ring wrap around. An update with 50 coordinates of 2^40 has a squared norm of 0 modulo 2^64, and a
    model can be built that overflows to right answers. So every coordinate is compared in full width with public
    bounds first (:func:`within`), and a model that fails there fails, whatever the other checks say of it.
A right answer
    is one whose logit leads all others by :data:`LEAD`. With "at least as large as" a model of zeros would be right
    about everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .engine import FRACTION, SUM_FRACTION, Engine, concatenate
from .inference import infer
from .policy import Policy
from .program import Program

#: By how many units of 2^-13 the right logit must lead.
LEAD = 8
#: Fractional bits of the committee's own update, which has unit length.
ROOT_FRACTION = 20
#: Stands for the squared norm of an update that is out of bounds; above all that are within.
_HUGE = 2**61
#: Numbers that are compared at a time; more at once would only take memory.
_AT_ONCE = 1 << 23


@dataclass(frozen=True, slots=True)
class Evidence:
    """What models are checked with; hidden values of one engine.

    Parameters
    ----------
    samples : Value, shape (N, ...)
        The committee's inputs, 13 fractional bits.
    labels : Value, shape (N, classes)
        1 for the right class, 0 for the others.
    root : Value, shape (d,), or None
        The committee's own update, 20 fractional bits.
    """

    samples: Any
    labels: Any
    root: Any = None


def decide(
    engine: Engine,
    policy: Policy,
    program: Program,
    round_: int,
    model: torch.Tensor,
    updates: Any,
    inside: Any,
    evidence: Evidence,
) -> Any:
    """Return for each of K updates whether it satisfies the policy.

    Parameters
    ----------
    engine : Engine
    policy : Policy
    program : Program
    round_ : int
        From 1.
    model : Tensor of int64, shape (d,)
        The global model, public: all parameters of the program one after another, 24 fractional bits.
    updates : Value, shape (K, d)
        24 fractional bits.
    inside : Value, shape (K,)
        1 for those of whom all numbers are within their bounds (:func:`within`), else 0.
    evidence : Evidence

    Returns
    -------
    Value, shape (K,)
        Zeros and ones.
    """
    count, shift = updates.shape[0], SUM_FRACTION - FRACTION
    sent = engine.constant(model.expand(count, -1))
    weights = engine.truncate(updates + sent, shift)
    conditions = [inside - _ones(engine, inside)]
    if policy.max_norm is not None or policy.norm_factor is not None:
        squares = _squares(engine, weights - engine.constant((model >> shift).expand(count, -1)))
        squares = _of_those_inside(engine, squares, inside)
        conditions += _norm_conditions(engine, policy, squares)
    if policy.cosine:
        conditions.append(_leans(engine, updates, evidence.root))
    if policy.looks_at_accuracy(round_):
        relative = policy.max_drop is not None
        models = concatenate([weights, engine.constant((model >> shift)[None])]) if relative else weights
        right = correct(engine, program, models, evidence)
        conditions += _accuracy_conditions(engine, policy, right, count, evidence.samples.shape[0])
    rows = concatenate([condition.map(lambda t: t[None]) for condition in conditions])
    flags = engine.all_rows(engine.not_negative(rows))
    return engine.select(flags, _ones(engine, inside).map(lambda t: t[None])).map(lambda t: t[0])


def within(engine: Engine, values: Any, low: torch.Tensor, high: torch.Tensor) -> Any:
    """Return for each row 1 if ``low <= values <= high`` everywhere, else 0.

    Compares all 64 bits of every number.

    Parameters
    ----------
    engine : Engine
    values : Value, shape (K, L)
        Any numbers of the ring.
    low, high : Tensor of int64, shape (L,) or (K, L)
        Below 2^62 in magnitude.

    Returns
    -------
    Value, shape (K,)
    """
    count, length = values.shape
    low, high = low.expand(count, length), high.expand(count, length)
    rows, width = max(1, _AT_ONCE // (2 * length)), min(length, _AT_ONCE // 2)
    found = []
    for first in range(0, count, rows):
        group = values.map(lambda t, first=first: t[first : first + rows])
        parts = []
        for left in range(0, length, width):
            some = group.map(lambda t, left=left: t[:, left : left + width])
            below, above = (
                engine.constant(bound[first : first + rows, left : left + width].contiguous()) for bound in (low, high)
            )
            # In the ring x - low is below zero for every x outside of [low, low + 2^63), and high - x likewise.
            parts.append(engine.all_columns(engine.not_negative(concatenate([some - below, above - some], dim=1))))
        ones = engine.constant(torch.ones(group.shape[0], 1, dtype=torch.int64))
        inside = engine.select(parts[0], ones)
        for part in parts[1:]:
            inside = engine.select(part, inside)
        found.append(inside.map(lambda t: t[:, 0]))
    return concatenate(found)


def correct(engine: Engine, program: Program, weights: Any, evidence: Evidence) -> Any:
    """Return how many samples each model gets right.

    Parameters
    ----------
    engine : Engine
    program : Program
    weights : Value, shape (K, d)
        13 fractional bits.
    evidence : Evidence

    Returns
    -------
    Value, shape (K,)
    """
    count, samples = weights.shape[0], evidence.samples.shape[0]
    models = [parameters(program, weights.map(lambda t, i=i: t[i])) for i in range(count)]
    logits = infer(engine, program, models, evidence.samples)
    right = engine.reshare(engine.product(lambda z, y: (z * y).sum(-1), logits, evidence.labels))
    classes = evidence.labels.shape[1]
    others = engine.constant(torch.full((samples, classes), LEAD, dtype=torch.int64)) - evidence.labels.times(LEAD)
    lead = right.map(lambda t: t[..., None].expand(-1, -1, classes)) - logits
    lead = lead - others.map(lambda t: t.expand(count, -1, -1))
    flags = engine.all_rows(engine.not_negative(lead.map(lambda t: t.permute(2, 0, 1).reshape(classes, -1))))
    ones = engine.constant(torch.ones(1, count * samples, dtype=torch.int64))
    return engine.select(flags, ones).map(lambda t: t.reshape(count, samples).sum(1))


def parameters(program: Program, vector: Any) -> Mapping[str, Any]:
    """Cut a model's vector, shape (d,), into its parameters."""
    found, start = {}, 0
    for name, shape in program.parameters.items():
        size = shape.numel() if isinstance(shape, torch.Size) else int(torch.Size(shape).numel())
        found[name] = vector.map(lambda t, a=start, b=start + size, s=shape: t[a:b].reshape(s))
        start += size
    return found


def order_statistic(engine: Engine, values: Any, ranks: list[int]) -> Any:
    """Return from each row the value that ``rank`` others precede; 19 messages in a row.

    Parameters
    ----------
    engine : Engine
    values : Value, shape (R, K)
        Below 2^62 in magnitude.
    ranks : list of int
        One for each row, 0 to K - 1.

    Returns
    -------
    Value, shape (R,)
    """
    rows, count = values.shape
    # Value j precedes value i if it is smaller, or equal and j < i: so no two have the same rank.
    later = (torch.arange(count)[None, :] >= torch.arange(count)[:, None]).to(torch.int64)
    difference = values.map(lambda t: t[:, :, None] - t[:, None, :]) - engine.constant(later.expand(rows, -1, -1))
    before = engine.not_negative(difference.map(lambda t: t.reshape(rows, -1)))
    ones = engine.constant(torch.ones(rows, count * count, dtype=torch.int64))
    rank = engine.select(before, ones).map(lambda t: t.reshape(rows, count, count).sum(2))
    wanted = engine.constant(torch.tensor(ranks, dtype=torch.int64)[:, None].expand(-1, count))
    both = concatenate(
        [(rank - wanted).map(lambda t: t.reshape(1, -1)), (wanted - rank).map(lambda t: t.reshape(1, -1))]
    )
    chosen = engine.select(engine.all_rows(engine.not_negative(both)), values.map(lambda t: t.reshape(1, -1)))
    return chosen.map(lambda t: t.reshape(rows, count).sum(1))


# ---------------------------------------------------------------------- conditions: values that must not be negative
def _norm_conditions(engine: Engine, policy: Policy, squares: Any) -> list[Any]:
    count, conditions = squares.shape[0], []
    if policy.max_norm is not None:
        bound = torch.full((count,), int(policy.max_norm**2 * 2 ** (2 * FRACTION)), dtype=torch.int64)
        conditions.append(engine.constant(bound) - squares)
    if policy.norm_factor is not None:
        # The lower of two middle ones: with fewer than half bad, an honest one is at least as large.
        median = order_statistic(engine, squares.map(lambda t: t[None]), [(count - 1) // 2])
        bar = median.times(round(policy.norm_factor**2 * 256)).map(lambda t: t.expand(count))
        conditions.append(bar - squares.times(256))
    return conditions


def _accuracy_conditions(engine: Engine, policy: Policy, right: Any, count: int, samples: int) -> list[Any]:
    models, conditions = right.map(lambda t: t[:count]), []

    def public(number: int) -> Any:
        return engine.constant(torch.full((count,), number, dtype=torch.int64))

    if policy.min_accuracy is not None:
        conditions.append(models - public(policy.min_correct(samples)))
    if policy.max_drop is not None:
        slack = public(policy.slack(samples))
        conditions.append(models - right.map(lambda t: t[count:].expand(count)) + slack)
        # The upper of two middle ones: with fewer than half bad, an honest one is at most as accurate.
        median = order_statistic(engine, models.map(lambda t: t[None]), [count // 2])
        conditions.append(models - median.map(lambda t: t.expand(count)) + slack)
    return conditions


def _squares(engine: Engine, updates: Any) -> Any:
    """Return squared norms, 26 fractional bits; one message of a number each."""
    return engine.reshare(engine.product(lambda a, b: (a * b).sum(1), updates, updates))


def _of_those_inside(engine: Engine, values: Any, inside: Any) -> Any:
    """Return a huge norm for clients that are out of bounds, whose values may be any number of the ring.

    Numbers near -2^63 are smaller than small norms and, after a wrap, larger than large ones: one could look like the
    median beside an honest client's, and move everybody's bar. Huge ones are ordinary bad values; zeros would be, too,
    but pull the median down, so that honest clients with large norms fail.
    """
    huge = engine.constant(torch.full(tuple(values.shape), _HUGE, dtype=torch.int64))
    return engine.multiply(values - huge, inside) + huge


def _leans(engine: Engine, updates: Any, root: Any) -> Any:
    """Return what is not negative if an update has a positive dot product with the committee's own."""
    dots = engine.reshare(engine.product(lambda a, b: (a * b).sum(1), updates, root))
    return dots - _ones(engine, dots)


def _ones(engine: Engine, like: Any) -> Any:
    return engine.constant(torch.ones(tuple(like.shape), dtype=torch.int64))
