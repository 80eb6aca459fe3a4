r"""The Gaussian mechanism on integer sums: sensitivity carried by the object that the noise step must ask.

Write c = clip_norm / step for the clipping norm in integer units and d for the number of coordinates. Clipping happens
in float64 with a little headroom (:mod:`flbc.privacy.clipping`), so that c is never exceeded by float rounding.

**Example unit.** A client sums its clipped per-example gradients in float64 and rounds the sum once, to the nearest
integer. Neighbouring sums a, b differ by at most c before rounding, and ``|rint(a) - rint(b) - (a - b)| <= 1`` in every
coordinate, so the integers differ by at most ``c + sqrt(d)`` (zero-out) or ``2c + sqrt(d)`` (replace-one). With
``step = clip_norm / (20 sqrt(d))``, c is ``20 sqrt(d)``: rounding costs 5 % of sensitivity.

**Client unit.** The neighbour's update is the zero vector, which encodes to zeros, so the sensitivity is the norm of
one encoded vector: ``c + sqrt(d)/2`` with rounding to nearest, ``c + sqrt(d)`` with stochastic rounding ``floor(x +
u)``. Replace-one: two updates a, b have ``|a - b| <= 2c``, and again a coordinate's rounding moves the difference by
at most 1: ``2c + sqrt(d)``. For nearest rounding that is two vectors, each within sqrt(d)/2 of one of norm c. For
stochastic rounding it holds because u is drawn independently of the data: fix u, get ``|floor(a + u) - floor(b + u) -
(a - b)| < 1``, and average the guarantee over u (joint convexity of the hockey-stick divergence).

**Delta** is shared with the sampler: T rounds of d draws, each within tau of ideal in total variation, use
T d (1 + e^epsilon) tau of it (:func:`flbc.privacy.noise.total_variation_bound`); the Gaussian gets the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import PrivacyConfigError, SensitivityError
from .accountant import affordable_rounds, gaussian_delta, gaussian_epsilon, solve_noise_multiplier
from .noise import MAX_SIGMA, total_variation_bound
from .spec import UNITS, Privacy, Unit, require_count, require_delta, require_positive

STEPS_PER_CLIP = 20
"""Example unit: quantisation steps in ``clip_norm / sqrt(d)``. Rounding then costs 1/20 of the sensitivity."""

_FLOAT_MARGIN = 1 - 2.0**-48
"""Multipliers are recomputed as sigma / sensitivity times this, so float64 rounding in sigma never flatters."""


@dataclass(frozen=True, slots=True)
class GaussianMechanism:
    """Everything the noise step has to know, with the assumptions it stands on. Made by :func:`plan`.

    Construction recomputes every derived number and refuses any that differ, so a mechanism that arrives from a server
    cannot claim less sensitivity, less noise or less cost than its own settings imply.

    Parameters
    ----------
    unit : {"client", "example"}
        Unit of protection.
    dimension : int
        Number of coordinates d of the vectors that are summed.
    clip_norm : float
        L2 clipping norm, in parameter units.
    step : float
        Parameter units per integer.
    sensitivity, replace_one_sensitivity : float
        L2 in integer units for zero-out and replace-one neighbours.
    noise_multiplier : float
        Standard deviation of the noise over ``sensitivity``.
    sigma : float
        Standard deviation of the noise in integer units.
    epsilon, delta : float
        Budget of the whole task.
    rounds : int
        Number of rounds that the budget was planned for.
    max_abs : int
        Largest magnitude of a coordinate that one client can contribute.
    max_examples : int (default: 1)
        Example unit: largest number of examples one client sums in a round. Client unit: 1.
    stochastic : bool (default: False)
        Client unit: updates are rounded stochastically.

    Raises
    ------
    PrivacyConfigError
        If a value is out of range, contradicts another one, or ``rounds`` rounds exceed the budget.
    """

    unit: Unit
    dimension: int
    clip_norm: float
    step: float
    sensitivity: float
    replace_one_sensitivity: float
    noise_multiplier: float
    sigma: float
    epsilon: float
    delta: float
    rounds: int
    max_abs: int
    max_examples: int = 1
    stochastic: bool = False

    def __post_init__(self) -> None:
        """Check ranges, then recompute what follows from them."""
        _check_settings(self.unit, self.dimension, self.clip_norm, self.step, self.max_examples, self.stochastic)
        require_positive("noise_multiplier", self.noise_multiplier, "for example 1.0")
        require_positive("epsilon", self.epsilon, "for example 3.0")
        require_delta(self.delta)
        require_count("rounds", self.rounds)
        derived = _derive(self.unit, self.dimension, self.clip_norm, self.step, self.max_examples, self.stochastic)
        derived["sigma"] = self.noise_multiplier * derived["sensitivity"]
        for name, value in derived.items():
            # Sums, products, quotients and roots are correctly rounded by IEEE 754: equality holds on every platform.
            if getattr(self, name) != value:
                raise PrivacyConfigError(
                    f"{name} is {getattr(self, name)!r}, but the mechanism's own settings imply {value!r}: do not edit "
                    "a mechanism, make one with plan()"
                )
        if not self.sigma <= MAX_SIGMA or self.max_abs >= 2**62:
            raise PrivacyConfigError(
                f"noise deviation {self.sigma:.3g} or coordinate bound {self.max_abs:.3g} exceeds 64-bit integers: use "
                "fewer bits in the codec, fewer examples per client, or a larger epsilon"
            )
        if self._delta(self.rounds) > self.delta:
            raise PrivacyConfigError(
                f"{self.rounds} rounds at noise multiplier {self.noise_multiplier:g} cost epsilon "
                f"{self.epsilon_after(self.rounds):.4g}, above the budget of {self.epsilon:g} at delta {self.delta:g}, "
                f"which pays for {self.affordable_rounds()} rounds: lower the rounds, or leave noise_multiplier unset"
            )

    def epsilon_after(self, rounds: int) -> float:
        """Epsilon (zero-out neighbours, at the budget's delta) that ``rounds`` opened rounds have cost, rounded up."""
        return self._epsilon(rounds, self.sensitivity)

    def replace_one_epsilon_after(self, rounds: int) -> float:
        """Epsilon for replace-one neighbours, roughly twice as large, of the same noise after ``rounds`` rounds."""
        return self._epsilon(rounds, self.replace_one_sensitivity)

    def affordable_rounds(self) -> int:
        """Return how many rounds may be opened within (epsilon, delta) in total; can exceed ``rounds``, never below."""
        return affordable_rounds(self.epsilon, self.delta, self._multiplier(self.sensitivity), slack=self._slack())

    def noise_tail(self) -> int:
        """Magnitude that slots and moduli reserve for the noise of one coordinate, in integers (nine deviations).

        A draw exceeds it with probability 2e-19; the sum then wraps in that coordinate, which spoils accuracy, not
        privacy (a wrap is post-processing).
        """
        return math.ceil(9 * self.sigma) + 1

    def check(self, vector: NDArray[np.int64]) -> None:
        """Refuse a client's vector that the noise was not sized for. Called before it is protected.

        For the client unit this is the sensitivity itself. For the example unit only ``max_abs`` can be checked: what
        matters is each single example's share, which a sum does not show; :mod:`flbc.privacy.gradients` bounds it.

        Parameters
        ----------
        vector : ndarray of int64, shape (dimension,)

        Raises
        ------
        SensitivityError
            If the shape or dtype is not the agreed one, or a bound is exceeded. No value is disclosed.
        """
        if vector.dtype != np.int64 or vector.shape != (self.dimension,):
            raise SensitivityError(
                f"the encoded vector has dtype {vector.dtype} and shape {vector.shape}, but the noise was sized for "
                f"int64 and ({self.dimension},): encode it with the codec of this task"
            )
        # Not np.abs, whose result for the smallest int64 is negative.
        if int(vector.max()) > self.max_abs or int(vector.min()) < -self.max_abs:
            raise SensitivityError(
                f"a coordinate of the encoded vector exceeds {self.max_abs}, the most that {self.max_examples} clipped "
                f"{self.unit}(s) can reach: clip before encoding, and declare the true number of examples"
            )
        if self.unit == "client" and float(np.linalg.norm(vector.astype(np.float64))) > self.sensitivity:
            raise SensitivityError(
                f"the encoded update has an L2 norm above the sensitivity {self.sensitivity:.6g} that the noise was "
                "sized for: clip it to clip_norm before encoding (flbc.privacy.clip_update)"
            )

    def to_dict(self) -> dict[str, int | float | str | bool]:
        """Plain values, keyed by field name, for canonical JSON."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild a mechanism and check it against its own numbers.

        Raises
        ------
        PrivacyConfigError
            If a field is missing, unknown or of another type, or the numbers do not belong together.
        """
        types = {f.name: {"int": int, "float": float, "bool": bool}.get(str(f.type), str) for f in fields(cls)}
        if set(values) != set(types):
            wrong = sorted(set(values) ^ set(types))
            raise PrivacyConfigError(
                f"the noise mechanism has missing or unknown fields {wrong}: do server and node agree?"
            )
        for name, kind in types.items():
            if type(values[name]) is not kind:
                raise PrivacyConfigError(f"field {name} of the noise mechanism is not of type {kind.__name__}")
        return cls(**values)

    def _multiplier(self, sensitivity: float) -> float:
        return self.sigma / sensitivity * _FLOAT_MARGIN

    def _slack(self) -> float:
        # The bound at the largest sigma serves every sigma: 2**-204 is small enough, and plan() can use it before it
        # knows sigma.
        return _slack(self.dimension)

    def _delta(self, rounds: int) -> float:
        return gaussian_delta(self.epsilon, self._multiplier(self.sensitivity), rounds, slack=self._slack())

    def _epsilon(self, rounds: int, sensitivity: float) -> float:
        if rounds == 0:
            return 0.0
        return gaussian_epsilon(self.delta, self._multiplier(sensitivity), rounds, slack=self._slack())


def plan(
    privacy: Privacy,
    *,
    dimension: int,
    rounds: int,
    max_examples: int = 1,
    client_step: float | None = None,
    stochastic: bool = False,
) -> GaussianMechanism:
    """Turn a budget into noise for vectors of ``dimension`` integers.

    Parameters
    ----------
    privacy : Privacy
        The budget. Its ``rounds``, if set, may be larger than ``rounds`` (a task that goes on later), not smaller.
    dimension : int
        Number of coordinates that are summed.
    rounds : int
        Rounds that will be run.
    max_examples : int (default: 1)
        Example unit: the largest number of examples that a client sums in one round.
    client_step : float or None (default: None)
        Client unit: the codec's step in parameter units, ``clip_norm / (2**(bits - 1) - 1)``. The example unit chooses
        its own.
    stochastic : bool (default: False)
        Client unit: the codec rounds stochastically.

    Returns
    -------
    GaussianMechanism

    Raises
    ------
    PrivacyConfigError
        If a value is out of range or the budget cannot pay for the rounds.
    """
    require_count("dimension", dimension)
    require_count("rounds", rounds)
    budgeted = rounds if privacy.rounds is None else privacy.rounds
    if budgeted < rounds:
        raise PrivacyConfigError(
            f"the budget is for {budgeted} rounds but {rounds} are to be run: raise Privacy(rounds=...), or run fewer"
        )
    clip_norm = float(privacy.clip_norm)
    if privacy.unit == "example":
        step, stochastic = clip_norm / (STEPS_PER_CLIP * math.sqrt(dimension)), False
    elif client_step is None:
        raise PrivacyConfigError(
            "the client unit needs the codec's step: pass client_step=clip_norm / (2**(bits-1) - 1)"
        )
    else:
        step, max_examples = float(client_step), 1
    _check_settings(privacy.unit, dimension, clip_norm, step, max_examples, stochastic)
    multiplier = privacy.noise_multiplier or solve_noise_multiplier(
        privacy.epsilon, privacy.delta, budgeted, slack=_slack(dimension)
    )
    derived = _derive(privacy.unit, dimension, clip_norm, step, max_examples, stochastic)
    return GaussianMechanism(
        unit=privacy.unit,
        dimension=dimension,
        clip_norm=clip_norm,
        step=step,
        sensitivity=derived["sensitivity"],
        replace_one_sensitivity=derived["replace_one_sensitivity"],
        noise_multiplier=float(multiplier),
        sigma=float(multiplier) * derived["sensitivity"],
        epsilon=float(privacy.epsilon),
        delta=float(privacy.delta),
        rounds=budgeted,
        max_abs=int(derived["max_abs"]),
        max_examples=max_examples,
        stochastic=stochastic,
    )


def _derive(
    unit: Unit, dimension: int, clip_norm: float, step: float, max_examples: int, stochastic: bool
) -> dict[str, Any]:
    """Sensitivities (L2, integer units) and the coordinate bound; see the module docstring."""
    c, root = clip_norm / step, math.sqrt(dimension)
    sensitivity = c + root / 2 if unit == "client" and not stochastic else c + root
    return {
        "sensitivity": sensitivity,
        "replace_one_sensitivity": 2 * c + root,
        "max_abs": math.ceil(max_examples * c) + 1,
    }


def _check_settings(
    unit: Unit, dimension: int, clip_norm: float, step: float, max_examples: int, stochastic: bool
) -> None:
    """Refuse settings that no vector could have, among them a step that is not the one the unit prescribes."""
    if unit not in UNITS or not isinstance(stochastic, bool):
        raise PrivacyConfigError(f'privacy unit is {unit!r}: pass unit="client" or unit="example"')
    require_count("dimension", dimension)
    require_positive("clip_norm", clip_norm, "for example 1.0")
    require_positive("step", step, "the parameter units of one integer")
    require_count("max_examples", max_examples)
    if not math.isfinite(clip_norm / step * max_examples):
        raise PrivacyConfigError(f"step {step!r} is too small for clip_norm {clip_norm!r}: use fewer bits in the codec")
    if unit == "example" and (step != clip_norm / (STEPS_PER_CLIP * math.sqrt(dimension)) or stochastic):
        raise PrivacyConfigError(
            f"the example unit rounds sums to the nearest multiple of clip_norm / ({STEPS_PER_CLIP} sqrt(dimension)), "
            f"not of {step!r}: make the mechanism with plan()"
        )
    if unit == "client" and max_examples != 1:
        raise PrivacyConfigError(f"max_examples is {max_examples}: it belongs to the example unit; leave it at 1")


def _slack(dimension: int) -> float:
    return dimension * total_variation_bound(MAX_SIGMA)
