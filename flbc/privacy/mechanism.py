r"""The Gaussian mechanism on integer sums: sensitivity carried by the object that the noise step must ask.

How large the sensitivity is: :mod:`flbc.privacy.sensitivity`. Who adds the noise, and who is trusted with it:
``where="opener"`` is whoever opens the sum, which adds all of it, a rounded Gaussian (:mod:`flbc.privacy.noise`);
``where="clients"`` is every client, which adds a share, a discrete Gaussian (:mod:`flbc.privacy.distributed`);
``where="local"`` is every client, which adds all of it to its own vector: a sum of m then carries m times the variance.
``sampler="opendp"`` draws a discrete Gaussian in all of these places (:mod:`flbc.privacy.opendp`).

What rounds cost, with and without sampling: :mod:`flbc.privacy.budget`.

**Delta** is shared with the sampler: T rounds of d draws, each within tau of ideal in total variation, use
T d (1 + e^epsilon) tau of it (:func:`flbc.privacy.noise.total_variation_bound`, or
:func:`flbc.privacy.distributed.slack` in place of d tau); the Gaussian gets the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import PrivacyConfigError, SensitivityError
from .budget import Cost, solve
from .discrete import discrete_gaussian
from .distributed import (
    check_local_sigma,
    check_parties,
    discrete_sigma,
    effective_multiplier,
    is_discrete,
    noisy_parties,
    slack,
)
from .noise import MAX_SIGMA, rounded_gaussian
from .opendp import opendp_gaussian
from .sensitivity import check_settings, derive, settings_of
from .spec import (
    Accountant,
    Privacy,
    Sampler,
    Unit,
    Where,
    check_choices,
    require_count,
    require_delta,
    require_positive,
)


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
        Standard deviation in integer units of the noise that the guarantee counts on: the opener's, the sum of
        ``noisy_parties`` clients' shares, or what each client adds to its own vector.
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
    where : {"opener", "clients", "local"} (default: "opener")
        Who adds the noise.
    noisy_parties : int (default: 1)
        ``where="clients"``: honest clients whose shares make the noise, at least 2: ``min_survivors - colluders``.
        Else 1.
    sampling_rate : float (default: 1.0)
        Example unit: probability with which each example is in a round's sum.
    accountant : {"prv", "rdp"} (default: "prv")
        How rounds are composed if ``sampling_rate`` is below 1.
    sampler : {"rounded", "opendp"} (default: "rounded")
        What draws the noise.

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
    where: Where = "opener"
    noisy_parties: int = 1
    sampling_rate: float = 1.0
    accountant: Accountant = "prv"
    sampler: Sampler = "rounded"

    def __post_init__(self) -> None:
        """Check ranges, then recompute what follows from them."""
        check_settings(self.unit, self.dimension, self.clip_norm, self.step, self.max_examples, self.stochastic)
        require_positive("noise_multiplier", self.noise_multiplier, "for example 1.0")
        require_positive("epsilon", self.epsilon, "for example 3.0")
        require_delta(self.delta)
        require_count("rounds", self.rounds)
        check_parties(self.where, self.noisy_parties)
        check_choices(self.unit, self.sampling_rate, self.accountant, self.sampler)
        derived = derive(self.unit, self.dimension, self.clip_norm, self.step, self.max_examples, self.stochastic)
        derived["sigma"] = self.noise_multiplier * derived["sensitivity"]
        for name, value in derived.items():
            # Sums, products, quotients and roots are correctly rounded by IEEE 754: equality holds on every platform.
            if getattr(self, name) != value:
                raise PrivacyConfigError(
                    f"{name} is {getattr(self, name)!r}, but the mechanism's own settings imply {value!r}: do not edit "
                    "a mechanism, make one with plan()"
                )
        if not self.sigma <= MAX_SIGMA or self.vector_bound >= 2**62:
            raise PrivacyConfigError(
                f"noise deviation {self.sigma:.3g} or coordinate bound {self.max_abs:.3g} exceeds 64-bit integers: use "
                "fewer bits in the codec, fewer examples per client, or a larger epsilon"
            )
        if is_discrete(self.where, self.sampler):
            check_local_sigma(self.local_sigma)
        if not self._cost().pays_for(self.epsilon, self.delta, self.rounds):
            # Under sampling a search for the number would let a server keep its nodes busy.
            paid = f", which pays for {self.affordable_rounds()} rounds" if self.sampling_rate == 1 else ""
            raise PrivacyConfigError(
                f"{self.rounds} rounds at noise multiplier {self.noise_multiplier:g} cost epsilon "
                f"{self.epsilon_after(self.rounds):.4g}, above the budget of {self.epsilon:g} at delta {self.delta:g}"
                f"{paid}: lower the rounds, or leave noise_multiplier unset"
            )

    @property
    def local_sigma(self) -> float:
        """Standard deviation of what one party adds to each integer: a client's share, or all of the opener's noise."""
        return self.sigma / math.sqrt(self.noisy_parties)

    @property
    def opener_sigma(self) -> float:
        """Standard deviation of what whoever opens a sum adds to it; 0 where clients add the noise."""
        return self.sigma if self.where == "opener" else 0.0

    @property
    def vector_bound(self) -> int:
        """Largest magnitude of a coordinate that a client hides: ``max_abs``, and with local noise nine deviations."""
        return self.max_abs + (_tail(self.sigma) if self.where == "local" else 0)

    def draw(self, count: int) -> NDArray[np.int64]:
        """Draw what one party adds to ``count`` integers: the opener's noise, one client's share, or its own noise."""
        if self.sampler == "opendp":
            return opendp_gaussian(count, self.local_sigma)
        if self.where == "clients":
            return discrete_gaussian(count, self.local_sigma)
        return rounded_gaussian(count, self.sigma)

    def add_local(self, vector: NDArray[np.int64], noise: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return a client's checked vector with its own noise, cut off at ``vector_bound`` (post-processing)."""
        bounded: NDArray[np.int64] = np.clip(vector + noise, -self.vector_bound, self.vector_bound)
        return bounded

    def check_survivors(self, min_survivors: int) -> None:
        """Refuse to rely on more honest clients than a sum of ``min_survivors`` surely has.

        Without this a server could name so many noisy parties that every share is next to nothing.

        Raises
        ------
        PrivacyConfigError
            If clients add the noise and not even one of ``min_survivors`` is assumed to collude.
        """
        if self.where == "clients" and not self.noisy_parties < min_survivors:
            raise PrivacyConfigError(
                f"the noise is divided among {self.noisy_parties} clients, but sums of {min_survivors} may be opened, "
                "and one of them knows its own share: raise min_survivors, or make the mechanism with plan()"
            )

    def epsilon_after(self, rounds: int) -> float:
        """Epsilon (zero-out neighbours, at the budget's delta) that ``rounds`` opened rounds have cost, rounded up."""
        return self._cost().epsilon(self.delta, rounds)

    def replace_one_epsilon_after(self, rounds: int) -> float:
        """Epsilon for replace-one neighbours, roughly twice as large, of the same noise after ``rounds`` rounds."""
        factor = self.replace_one_sensitivity / self.sensitivity * (1 + 2.0**-50)
        return self._cost().replace_one_epsilon(self.delta, rounds, factor)

    def affordable_rounds(self) -> int:
        """Return how many rounds may be opened within (epsilon, delta) in total; can exceed ``rounds``, never below.

        Under sampling it is not looked for beyond ``rounds``.
        """
        return self._cost().affordable_rounds(self.epsilon, self.delta, self.rounds)

    def noise_tail(self, parties: int = 1) -> int:
        """Magnitude that slots and moduli reserve for the noise of one coordinate, in integers (nine deviations).

        A draw exceeds it with probability 2e-19; the sum then wraps in that coordinate, which spoils accuracy, not
        privacy (a wrap is post-processing).

        Parameters
        ----------
        parties : int (default: 1)
            Clients whose shares are in the sum: all that may survive, not ``noisy_parties``. No matter for the opener.

        Returns
        -------
        int
            0 with local noise, which is inside each client's own ``vector_bound``.
        """
        if self.where == "local":
            return 0
        return _tail(self.local_sigma * math.sqrt(parties) if self.where == "clients" else self.sigma)

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

    def _cost(self) -> Cost:
        multiplier = effective_multiplier(self.where, self.sigma, self.sensitivity, self.sampler)
        lost = slack(self.noisy_parties, self.dimension, self.sampler)
        return Cost(multiplier, lost, self.sampling_rate, self.accountant)


def _tail(deviation: float) -> int:
    return math.ceil(9 * deviation) + 1


def plan(
    privacy: Privacy,
    *,
    dimension: int,
    rounds: int,
    max_examples: int = 1,
    client_step: float | None = None,
    stochastic: bool = False,
    min_survivors: int | None = None,
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
    min_survivors : int or None (default: None)
        Needed when clients add the noise: the fewest clients whose sum is ever opened.

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
    settings = settings_of(privacy, dimension, max_examples, client_step, stochastic)
    parties, derived = noisy_parties(privacy, min_survivors), derive(**settings)
    multiplier = privacy.noise_multiplier
    if multiplier is None:
        lost, rate = slack(parties, dimension, privacy.sampler), float(privacy.sampling_rate)
        multiplier = solve(
            privacy.epsilon, privacy.delta, budgeted, slack=lost, rate=rate, accountant=privacy.accountant
        )
        if is_discrete(privacy.where, privacy.sampler):
            multiplier = discrete_sigma(multiplier * derived["sensitivity"], parties) / derived["sensitivity"]
    return GaussianMechanism(
        **settings,
        **derived,
        noise_multiplier=float(multiplier),
        sigma=float(multiplier) * derived["sensitivity"],
        epsilon=float(privacy.epsilon),
        delta=float(privacy.delta),
        rounds=budgeted,
        where=privacy.where,
        noisy_parties=parties,
        sampling_rate=float(privacy.sampling_rate),
        accountant=privacy.accountant,
        sampler=privacy.sampler,
    )


def affordable(
    privacy: Privacy,
    *,
    dimension: int,
    client_step: float | None = None,
    stochastic: bool = False,
    min_survivors: int | None = None,
    most: int = 10_000,
) -> int:
    """Return how many rounds the budget pays for at ``privacy.noise_multiplier``; 0 if not even one.

    The parameters are those of :func:`plan`. Under sampling no more than ``most`` are looked for.

    Raises
    ------
    PrivacyConfigError
        If ``noise_multiplier`` is not set (it is then solved for any number of rounds), or a value is out of range.
    """
    if privacy.noise_multiplier is None:
        raise PrivacyConfigError("noise_multiplier is None, and any number of rounds can be planned: call plan()")
    sensitivity = derive(**settings_of(privacy, dimension, 1, client_step, stochastic))["sensitivity"]
    parties, sigma = noisy_parties(privacy, min_survivors), privacy.noise_multiplier * sensitivity
    if is_discrete(privacy.where, privacy.sampler):
        check_local_sigma(sigma / math.sqrt(parties))
    multiplier = effective_multiplier(privacy.where, sigma, sensitivity, privacy.sampler)
    cost = Cost(multiplier, slack(parties, dimension, privacy.sampler), privacy.sampling_rate, privacy.accountant)
    return cost.affordable_rounds(privacy.epsilon, privacy.delta, most)
