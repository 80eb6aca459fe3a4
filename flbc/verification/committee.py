"""What the three do with a round's models: check them, say which passed, and sum those.

Run by each of the three at once (:func:`check_and_sum`). What it shows depends on :attr:`Policy.reveal`; the sum
leaves as one part from each party, and any two parts say nothing about it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from ..errors import ConfigError, LinkError, PolicyError
from .bits import ComparingParty
from .checks import ROOT_FRACTION, Evidence, decide, within
from .engine import FRACTION, SUM_FRACTION, concatenate
from .link import PARTIES
from .policy import Policy
from .program import Program
from .session import sound
from .sharing import Shared

#: Largest magnitude of an input; data sets are scaled to about 1.
INPUT_BOUND = 16.0
#: Largest weight of a global model, in units of 2^-24: up to it roundings among three go wrong once in 2^16 weights or
#: less, and at sane magnitudes once in 2^35 (ABY3, section 5.1.1).
LARGEST_WEIGHT = 2**46
#: Bits that an accumulator of the inference may take.
ACCUMULATOR_BITS = 62


@dataclass(frozen=True)
class Round:
    """What all three know of a round.

    Parameters
    ----------
    policy : Policy
    program : Program
    number : int
        From 1.
    model : Tensor of int64, shape (d,)
        The global model, 24 fractional bits.
    low, high : Tensor of int64, shape (L,)
        Bounds of the L shared numbers of a client: d of its update, then others, its weight last.
    weights : tuple of int
        Largest weight of each client.
    min_accepted : int
        Fewest models in a sum.
    context : bytes
        Hash of all that the three must agree on.
    """

    policy: Policy
    program: Program
    number: int
    model: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    weights: tuple[int, ...]
    min_accepted: int
    context: bytes


@dataclass(frozen=True)
class Data:
    """A party's own validation data.

    Parameters
    ----------
    inputs : Tensor of float, shape (n, ...)
    labels : Tensor of int64, shape (n,)
    root : Tensor of float, shape (d,), or None
        The update that this party computes on its data, with :attr:`Policy.cosine`.
    """

    inputs: torch.Tensor
    labels: torch.Tensor
    root: torch.Tensor | None = None

    def check(self, program: Program) -> None:
        """Raise :class:`ConfigError` unless the model can be tried on this data; says what is wrong."""
        shape, count = tuple(self.inputs.shape[1:]), len(self.inputs)
        if count == 0 or len(self.labels) != count:
            raise ConfigError(f"The validation data has {count} inputs and {len(self.labels)} labels; give one to each")
        if shape != tuple(program.input_shape):
            raise ConfigError(f"A validation input has shape {shape}, the model takes {tuple(program.input_shape)}")
        if self.labels.dtype not in (torch.int64, torch.int32) or self.labels.dim() != 1:
            raise ConfigError("Validation labels must be class numbers, an integer tensor of one dimension")
        if not torch.isfinite(self.inputs).all() or float(self.inputs.abs().max()) > INPUT_BOUND:
            raise ConfigError(f"A validation input exceeds {INPUT_BOUND:g} in magnitude; scale the data to about 1")
        if int(self.labels.min()) < 0 or int(self.labels.max()) >= program.classes:
            raise ConfigError(f"A validation label is not from 0 to {program.classes - 1}, the model's classes")


@dataclass(frozen=True)
class Verdict:
    """What a round's checks showed.

    Parameters
    ----------
    malformed : tuple of bool
        By client: its shares did not open, or did not fit each other.
    accepted : tuple of bool or None
        By client; None if the policy does not show it.
    count : int or None
        Accepted clients; None if the policy does not show it.
    enough : bool
        Whether at least ``min_accepted`` were.
    """

    malformed: tuple[bool, ...]
    accepted: tuple[bool, ...] | None
    count: int | None
    enough: bool


@dataclass(frozen=True)
class Outcome:
    """A party's end of a round.

    Parameters
    ----------
    verdict : Verdict
    part : Tensor of int64, shape (L,), or None
        This party's part of ``Σ weight · (numbers …, 1)`` over accepted clients; None if too few were.
    samples : int
        Validation samples of all three.
    seconds : float
    stages : dict of str to (float, int, int)
        Seconds, rounds of messages and bytes sent by this party, by stage.
    """

    verdict: Verdict
    part: torch.Tensor | None
    samples: int
    seconds: float
    stages: dict[str, tuple[float, int, int]] = field(default_factory=dict)


class _Clock:
    """Measures stages."""

    def __init__(self, party: ComparingParty) -> None:
        self._traffic, self.stages = party.link.traffic, dict[str, tuple[float, int, int]]()
        self.begin = self._now = time.monotonic()
        self._rounds, self._bytes = self._traffic.rounds, self._traffic.sent_bytes

    def lap(self, stage: str) -> None:
        now, t = time.monotonic(), self._traffic
        self.stages[stage] = (now - self._now, t.rounds - self._rounds, t.sent_bytes - self._bytes)
        self._now, self._rounds, self._bytes = now, t.rounds, t.sent_bytes


def check_overflow(round_: Round) -> None:
    """Raise :class:`PolicyError` unless no model within ``max_change`` can overflow during inference."""
    policy, largest = round_.policy, int(round_.model.abs().max())
    if largest >= LARGEST_WEIGHT:
        raise PolicyError(
            f"The global model holds a weight of {largest * 2.0**-SUM_FRACTION:.3g}; it has diverged. Begin again with "
            "a lower learning rate, or a smaller max_change"
        )
    if policy.allow_overflow or not policy.looks_at_accuracy(round_.number):
        return
    bounds, start = {}, 0
    for name, shape in round_.program.parameters.items():
        size = int(torch.Size(shape).numel())
        part = round_.model[start : start + size].to(torch.float64).abs() * 2.0**-SUM_FRACTION
        bounds[name], start = (part + policy.max_change).reshape(tuple(shape)), start + size
    bits = round_.program.gain(bounds, INPUT_BOUND)
    if bits > ACCUMULATOR_BITS:
        raise PolicyError(
            f"A model within Policy(max_change={policy.max_change:g}) could take {bits:.0f} bits during inference and "
            f"overflow to right answers ({ACCUMULATOR_BITS} are there); lower max_change, or accept it with "
            "Policy(allow_overflow=True)"
        )


def check_and_sum(party: ComparingParty, round_: Round, shares: Sequence[Shared | None], data: Data) -> Outcome:
    """Check the models of all clients, and sum those that pass.

    Parameters
    ----------
    party : ComparingParty
    round_ : Round
    shares : sequence of Shared or None
        By client, shape (L,); None where a box did not open.
    data : Data
        This party's.

    Raises
    ------
    PolicyError
        If a hostile model could overflow.
    LinkError
        If another party is silent or deviates in form.
    """
    check_overflow(round_)
    clock = _Clock(party)
    usable = sound(party, shares, round_.context)
    clock.lap("compare shares")
    good = [share for share, ok in zip(shares, usable, strict=True) if ok and share is not None]
    malformed = tuple(not ok for ok in usable)
    if len(good) < round_.min_accepted:
        return Outcome(Verdict(malformed, None, None, False), None, 0, time.monotonic() - clock.begin, clock.stages)
    values = Shared.collect(good, torch.stack)
    evidence = _share_data(party, round_, data)
    clock.lap("share data")
    high = round_.high.repeat(len(good), 1)
    high[:, -1] = torch.tensor([weight for weight, ok in zip(round_.weights, usable, strict=True) if ok])
    inside = within(party, values, round_.low, high)
    clock.lap("bounds")
    updates = values.map(lambda t: t[:, : len(round_.model)])
    program, policy = round_.program, round_.policy
    passed = decide(party, policy, program, round_.number, round_.model, updates, inside, evidence)
    clock.lap("norms and accuracy")
    weights = values.map(lambda t: t[:, -1])
    verdict, factors = _reveal(party, round_, passed, weights, malformed)
    part = None
    if verdict.enough:
        one = party.constant(torch.ones(len(good), 1, dtype=torch.int64))
        vectors = concatenate([values.map(lambda t: t[:, :-1]), one], dim=1)
        part = party.product(lambda c, v: (c[:, None] * v).sum(0), factors, vectors)
    clock.lap("reveal and sum")
    samples = int(evidence.samples.shape[0])
    return Outcome(verdict, part, samples, time.monotonic() - clock.begin, clock.stages)


def _reveal(
    party: ComparingParty, round_: Round, passed: Shared, weights: Shared, malformed: tuple[bool, ...]
) -> tuple[Verdict, Shared]:
    """Open what the policy shows; return it with the factor of every sound client in the sum."""
    least, total = round_.min_accepted, passed.map(lambda t: t.sum().reshape(1))
    if round_.policy.reveal == "bit":
        bits = party.open(passed)
        if set(bits.tolist()) - {0, 1}:
            raise LinkError("The checks came out neither yes nor no: a party deviates; the round is given up")
        flags = iter(bits.tolist())
        accepted = tuple(not bad and bool(next(flags)) for bad in malformed)
        factors = weights.times(bits)
        return Verdict(malformed, accepted, sum(accepted), sum(accepted) >= least), factors
    factors = party.multiply(passed, weights)
    if round_.policy.reveal == "count":
        count = int(party.open(total))
        return Verdict(malformed, None, count, count >= least), factors
    flag = party.not_negative((total - party.constant(torch.tensor([least]))).map(lambda t: t.reshape(1, 1)))
    enough = int(party.open(party.select(flag, party.constant(torch.ones(1, 1, dtype=torch.int64))))) == 1
    return Verdict(malformed, None, None, enough), factors


def _share_data(party: ComparingParty, round_: Round, data: Data) -> Evidence:
    """Share everybody's validation data; how much it is, is told."""
    data.check(round_.program)
    own = len(data.inputs)
    for peer in (party.before, party.after):
        party.link.send(peer, own.to_bytes(8, "little"))
    counts = {party.rank: own}
    for peer in (party.before, party.after):
        counts[peer] = int.from_bytes(party.link.recv(peer), "little")
    if not all(0 < count < 2**24 for count in counts.values()):
        raise LinkError("A party announced an impossible amount of validation data; the round is given up")
    inputs = torch.round(data.inputs.to(torch.float64) * 2.0**FRACTION).to(torch.int64)
    labels = torch.nn.functional.one_hot(data.labels.to(torch.int64), round_.program.classes)

    def from_all(mine: torch.Tensor, shapes: Sequence[Sequence[int]]) -> list[Shared]:
        mine = mine.contiguous()
        return [party.share(rank, mine if rank == party.rank else None, shapes[rank]) for rank in range(PARTIES)]

    samples = concatenate(from_all(inputs, [(counts[r], *round_.program.input_shape) for r in range(PARTIES)]))
    right = concatenate(from_all(labels, [(counts[r], round_.program.classes) for r in range(PARTIES)]))
    root = None
    if round_.policy.cosine:
        if data.root is None:
            raise ConfigError("Policy(cosine=True) needs this node's own update")
        mine = data.root.to(torch.float64)
        length = float(mine.norm())
        mine = torch.round(mine / (length or 1.0) * 2.0**ROOT_FRACTION).to(torch.int64)
        parts = from_all(mine, [tuple(mine.shape)] * PARTIES)
        root = parts[0] + parts[1] + parts[2]
    return Evidence(samples, right, root)
