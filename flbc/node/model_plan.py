"""A model update as the numbers that are shared among three verifiers: fixed point, not weighted yet.

One vector holds, in this order::

    floats     update of every trained number, 24 fractional bits, BatchNorm folded (flbc.verification.folding)
    metrics    16 fractional bits, sorted by name, padded to Codec.max_metrics
    weight     a whole number of examples

Weights multiply inside, after the checks: a model is checked as it is, and what was checked is what is summed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..codec import Codec, EncodedUpdate, Frame, Layout, OpenedUpdate
from ..codec.layout import Arrays
from ..codec.metrics import flatten_metrics
from ..errors import CodecError, NonFiniteError
from ..verification.folding import fold
from ..verification.policy import METRIC_BOUND, SUM_FRACTION, Policy

IntVector = NDArray[np.int64]

METRIC_FRACTION = 16


@dataclass(frozen=True)
class ModelPlan:
    """Where everything stands in the shared vector.

    Parameters
    ----------
    layout : Layout
        The model, with running statistics and integers frozen.
    codec : Codec
        Of it only ``max_examples`` and ``max_metrics`` matter.
    policy : Policy
    """

    layout: Layout
    codec: Codec
    policy: Policy

    @property
    def length(self) -> int:
        """Numbers in a vector."""
        return self.layout.count("float") + self.codec.max_metrics + 1

    @property
    def max_weight(self) -> int:
        """Largest number of examples with which a client counts."""
        return int(self.codec.max_examples or 0)

    @property
    def max_abs(self) -> int:
        """Largest magnitude of a number."""
        return max(self.policy.change_bound, METRIC_BOUND, self.max_weight)

    def bounds(self) -> tuple[IntVector, IntVector]:
        """Return the least and the largest value of each number."""
        high = np.full(self.length, self.policy.change_bound, np.int64)
        high[self.layout.count("float") :] = METRIC_BOUND
        high[-1] = self.max_weight
        low = -high
        low[-1] = 0
        return low, high

    def first_frame(self) -> Frame:
        """Return the frame of every round."""
        return Frame((), float(self.max_weight))

    def next_frame(self, frame: Frame, opened: OpenedUpdate) -> Frame:
        """Return the same frame."""
        return frame

    def encode(
        self, update: Arrays, weight: float, metrics: Mapping[str, float | Sequence[float]], frame: Frame
    ) -> EncodedUpdate:
        """Encode an update; coordinates beyond ``Policy.max_change`` are cut off, or the model would be refused.

        Raises
        ------
        CodecError
            If the weight is no whole number, or a metric is too large.
        """
        if not 0 <= weight <= self.max_weight or weight != int(weight):
            raise CodecError(
                f"With Verified the weight (num-examples) must be a whole number from 0 to {self.max_weight}"
            )
        values, bound = np.zeros(self.length, np.int64), self.policy.change_bound
        for tensor, place in self.layout.float_slices():
            scaled = update[tensor.name].reshape(-1).astype(np.float64) * 2.0**SUM_FRACTION
            values[place] = np.clip(np.rint(scaled), -bound, bound).astype(np.int64)
        names, numbers = flatten_metrics(metrics, self.codec.max_metrics)
        fixed = np.rint(np.array(numbers, np.float64) * 2.0**METRIC_FRACTION)
        if np.any(np.abs(fixed) > METRIC_BOUND):
            raise CodecError(f"A metric exceeds {METRIC_BOUND >> METRIC_FRACTION}; report metrics as means")
        start = self.layout.count("float")
        values[start : start + len(fixed)] = fixed.astype(np.int64)
        values[-1] = int(weight)
        return EncodedUpdate(values, names)

    def decode(self, total: IntVector, metric_count: int) -> OpenedUpdate:
        """Decode the sum of weighted vectors; :class:`CodecError` if the weights sum to zero or less."""
        if total.shape != (self.length,):
            raise CodecError(f"The opened sum has shape {total.shape}, expected ({self.length},)")
        weight = float(total[-1])
        if weight <= 0:
            raise CodecError("The weights of all accepted clients sum to zero; every client reported no examples")
        floats = self.layout.count("float")
        means = np.asarray(total[:floats] * (2.0**-SUM_FRACTION / weight), np.float64)
        mean = {tensor.name: means[place].reshape(tensor.shape) for tensor, place in self.layout.float_slices()}
        metrics = total[floats : floats + metric_count] * (2.0**-METRIC_FRACTION / weight)
        return OpenedUpdate(mean, weight, tuple(metrics.tolist()))

    def model(self, arrays: Arrays) -> IntVector:
        """Return a global model as verifiers compute with it, shape (floats,).

        Raises
        ------
        LayoutError, NonFiniteError
            Name the array that does not fit, or holds NaN, infinity or a number beyond 2^38.
        """
        self.layout.check(arrays, what="global model")
        folded = fold(arrays)
        for tensor, _ in self.layout.float_slices():
            if folded[tensor.name].size and float(np.abs(folded[tensor.name]).max()) >= 2.0**38:
                raise NonFiniteError(f"Array {tensor.name!r} of the global model holds a number beyond 2^38")
        parts = [np.asarray(folded[t.name], np.float64).reshape(-1) for t, _ in self.layout.float_slices()]
        return np.rint(np.concatenate(parts) * 2.0**SUM_FRACTION).astype(np.int64)


def folded_update(layout: Layout, old: Arrays, new: Arrays) -> dict[str, NDArray[np.float64]]:
    """Return the change of every summed array; BatchNorm's is that of its scale and shift.

    Raises
    ------
    LayoutError, NonFiniteError
        Name the array.
    """
    layout.check(new)
    before, after = fold(old), fold(new)
    return {
        t.name: after[t.name].astype(np.float64) - before[t.name].astype(np.float64) for t in layout.of_kind("float")
    }
