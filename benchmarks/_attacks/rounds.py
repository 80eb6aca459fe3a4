"""One round of training: what clients encode, and what parties see of it.

What a party sees is brought to one unit, the sum of gradients, so that one attack fits all:

* a *sum* over some clients, perhaps one, perhaps with noise; or
* *hidden* bytes, read as the numbers that the scheme's own encoding would make of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from flbc.codec import Codec, Frame, Layout, VectorPlan
from flbc.privacy import GaussianMechanism, Privacy
from flbc.privacy.planning import plan as plan_noise
from flbc.schemes import IntVector, SumSpec

from .problem import Network

Vector = NDArray[np.float64]
#: Of the paper (section 4.2): the norm to which gradients are clipped for MNIST.
CLIP = 4.0
#: Step of a client without privacy: its update is minus this times its mean gradient.
LEARNING_RATE = 0.1


@dataclass(frozen=True)
class Sight:
    """Something that a party sees.

    Parameters
    ----------
    party : str
    values : ndarray, shape (size,)
        In units of a sum of gradients.
    clients : tuple of int
        Whose gradients are summed in it; empty for hidden bytes.
    sigma : float
        Standard deviation of the noise in each coordinate, in the same units.
    """

    party: str
    values: Vector = field(repr=False)
    clients: tuple[int, ...] = ()
    sigma: float = 0.0

    @property
    def hidden(self) -> bool:
        """Whether these are bytes that should say nothing."""
        return not self.clients


@dataclass(frozen=True)
class Terms:
    """What a round's clients agreed on.

    Parameters
    ----------
    network : Network
    clients, examples : int
        Clients, and examples of each.
    epsilon : float or None
        Budget of example-level privacy; None: no privacy.
    where : {"opener", "clients"}
        Who adds the noise.
    rounds : int (default: 1)
        Rounds that the budget pays for.
    clip : float
        Norm to which private gradients are clipped.
    """

    network: Network
    clients: int
    examples: int
    epsilon: float | None = None
    where: str = "opener"
    rounds: int = 1
    clip: float = CLIP

    @cached_property
    def mechanism(self) -> GaussianMechanism | None:
        """Return the noise."""
        if self.epsilon is None:
            return None
        privacy = Privacy(epsilon=self.epsilon, unit="example", clip_norm=self.clip, where=self.where)  # type: ignore[arg-type]
        return plan_noise(
            privacy,
            dimension=self.network.size,
            rounds=self.rounds,
            max_examples=self.examples,
            min_survivors=self.clients,
        )

    @cached_property
    def plan(self) -> VectorPlan:
        """Return where everything stands in a vector."""
        arrays = {name: value.numpy() for name, value in self.network.start.items()}
        private = self.epsilon is not None
        codec = Codec(max_examples=float(self.examples), max_metrics=1)
        return VectorPlan(Layout.of(arrays, private=private), codec, private=private)

    @cached_property
    def spec(self) -> SumSpec:
        """Return the size of the sum."""
        m = self.mechanism
        if m is None:
            return SumSpec(self.plan.length, self.plan.codec.max_abs, self.clients)
        return SumSpec(self.plan.length, m.max_abs, self.clients, m.noise_tail(self.clients))

    @property
    def opener_noise(self) -> bool:
        """Whether the opener adds noise."""
        return self.mechanism is not None and self.where == "opener"

    def update(self, gradient: Vector) -> dict[str, Vector]:
        """Return the update of a client with this sum of gradients."""
        return self.network.split(gradient * (-LEARNING_RATE / self.examples))

    def frame(self, gradients: Sequence[Vector]) -> Frame:
        """Return the public numbers of the attempt: as after a round with updates like these."""
        frame = self.plan.first_frame()
        if self.mechanism is not None:
            return frame
        total = sum(self._encode(gradient, frame) for gradient in gradients)
        return self.plan.next_frame(frame, self.plan.decode(np.asarray(total), len(gradients), 1, frame))

    def encode(self, gradients: Sequence[Vector], frame: Frame) -> list[IntVector]:
        """Return every client's integers."""
        return [self._encode(gradient, frame) for gradient in gradients]

    def _encode(self, gradient: Vector, frame: Frame) -> IntVector:
        if self.mechanism is None:
            return self.plan.encode(self.update(gradient), self.examples, {"loss": 1.0}, frame).values
        values = self.plan.encode_private(self.network.split(gradient), self.mechanism.step).values
        self.mechanism.check(values)
        return values

    def gradients(self, total: IntVector, frame: Frame) -> Vector:
        """Return what integers of this encoding say, as a sum of gradients; never fails, whatever they are."""
        floats = np.asarray(total[: self.network.size], np.float64)
        if self.mechanism is not None:
            return floats * self.mechanism.step
        scales = [
            np.full(tensor.size, limit / self.plan.codec.max_abs * (frame.max_weight / -LEARNING_RATE))
            for (tensor, _), limit in zip(self.plan.layout.float_slices(), frame.ranges, strict=True)
        ]
        return floats * np.concatenate(scales)

    @property
    def sigma(self) -> float:
        """Standard deviation of the opener's noise, or of one client's, in units of gradients."""
        m = self.mechanism
        return 0.0 if m is None else m.local_sigma * m.step
