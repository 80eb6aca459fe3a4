"""From a budget to noise: what a user asks for, and a vector's length, become a mechanism.

The dimension, the codec's step and the rounds are known when a task begins; the noise multiplier is solved for them.
"""

from __future__ import annotations

import math

from ..errors import PrivacyConfigError
from .budget import Cost, solve
from .distributed import check_local_sigma, discrete_sigma, effective_multiplier, is_discrete, noisy_parties, slack
from .mechanism import GaussianMechanism
from .sensitivity import derive, settings_of
from .spec import Privacy, require_count


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
