"""What rounds cost: the solver, its headroom, replace-one bounds, and what the mechanism makes of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from flbc.errors import PrivacyConfigError
from flbc.privacy import GaussianMechanism, Privacy, plan
from flbc.privacy.accountant import gaussian_epsilon, solve_noise_multiplier
from flbc.privacy.budget import Cost, solve
from flbc.privacy.mechanism import affordable
from flbc.privacy.subsampled import sampled_epsilon

pytest.importorskip("opacus")


def sampled(**options: Any) -> GaussianMechanism:
    privacy = Privacy(**{"epsilon": 1.0, "unit": "example", "sampling_rate": 0.05, **options})
    return plan(privacy, dimension=100, rounds=50, max_examples=80)


@pytest.mark.parametrize("accountant", ["prv", "rdp"])
@pytest.mark.parametrize(
    ("epsilon", "delta", "rounds", "rate"),
    [(1.0, 1e-5, 100, 0.05), (3.0, 1e-5, 1000, 0.01), (0.2, 1e-6, 10, 0.3), (8.0, 1e-5, 30, 0.9), (2.0, 1e-5, 1, 1e-4)],
)
def test_the_multiplier_is_enough_and_little_more(
    epsilon: float, delta: float, rounds: int, rate: float, accountant: Any
) -> None:
    z = solve(epsilon, delta, rounds, slack=0.0, rate=rate, accountant=accountant)
    cost = Cost(z, 0.0, rate, accountant)
    assert cost.pays_for(epsilon, delta, rounds)
    assert not Cost(z * 0.995, 0.0, rate, accountant).pays_for(epsilon, delta, rounds)
    # Another platform's floats may differ in their last digits, by far less than this.
    assert Cost(z * (1 - 1e-6), 0.0, rate, accountant).epsilon(delta, rounds) < epsilon * (1 - 1e-6)
    assert z <= solve_noise_multiplier(epsilon, delta, rounds)
    assert cost.epsilon(delta, 0) == 0


def test_without_sampling_nothing_changed() -> None:
    cost = Cost(5.0, 0.0)
    assert cost.epsilon(1e-5, 7) == gaussian_epsilon(1e-5, 5.0, 7)
    assert cost.replace_one_epsilon(1e-5, 7, 2.0) == gaussian_epsilon(1e-5, 2.5, 7)
    assert solve(1.0, 1e-5, 7, slack=0.0) == solve_noise_multiplier(1.0, 1e-5, 7)
    assert plan(Privacy(epsilon=1.0), dimension=9, rounds=7, client_step=0.1).accountant == "prv"


def test_sampling_never_costs_more_than_none() -> None:
    for rate in (1e-6, 0.01, 0.5, 0.9999):
        assert Cost(3.0, 0.0, rate).epsilon(1e-5, 20) <= gaussian_epsilon(1e-5, 3.0, 20)


def test_delta_pays_for_the_slack_or_there_is_no_bound() -> None:
    plain = Cost(1.0, 0.0, 0.05).epsilon(1e-5, 20)
    assert plain <= Cost(1.0, 1e-16, 0.05).epsilon(1e-5, 20) <= plain * 1.0001
    assert math.isinf(Cost(0.3, 1e-9, 0.5).epsilon(1e-9, 20))
    with pytest.raises(PrivacyConfigError, match="nothing is left of delta"):
        solve(1.0, 1e-9, 20, slack=1e-9, rate=0.5)


def test_replace_one_is_two_steps_over_the_null_record() -> None:
    """(e, d) twice is (2e, (1 + exp(e)) d); the bound stands on RDP, and is never above the one without sampling."""
    cost = Cost(1.2, 0.0, 0.02)
    bound = cost.replace_one_epsilon(1e-5, 100, 1.9)
    half = bound / 2
    step = sampled_epsilon(1e-5 / (1 + math.exp(half)) * (1 - 2.0**-20), 1.2, 0.02, 100, "rdp")
    assert step <= half <= step * 1.01
    assert bound > 2 * cost.epsilon(1e-5, 100)
    assert Cost(1.2, 0.0, 0.999).replace_one_epsilon(1e-5, 1, 1.9) == gaussian_epsilon(1e-5, 1.2 / 1.9, 1)
    assert cost.replace_one_epsilon(1e-5, 0, 1.9) == 0
    assert math.isinf(Cost(0.01, 1e-40, 0.9).replace_one_epsilon(1e-5, 100, 2.0))


def test_a_sampled_plan_needs_less_noise_for_the_same_epsilon() -> None:
    whole, part = sampled(sampling_rate=1.0), sampled()
    assert part.noise_multiplier < whole.noise_multiplier / 8
    assert part.sensitivity == whole.sensitivity
    assert part.max_abs == whole.max_abs, "a sample may happen to hold everybody"
    assert 0.998 < part.epsilon_after(50) <= 1.0
    assert part.replace_one_epsilon_after(50) > 2 * part.epsilon_after(50)
    assert part.affordable_rounds() == 50
    assert GaussianMechanism.from_dict(part.to_dict()) == part


@pytest.mark.parametrize("where", ["opener", "clients", "local"])
def test_sampling_goes_with_everybody_s_noise(where: Any) -> None:
    privacy = Privacy(epsilon=1.0, unit="example", sampling_rate=0.1, where=where)
    made = plan(privacy, dimension=100, rounds=20, max_examples=80, min_survivors=4)
    assert 0.998 < made.epsilon_after(20) <= 1.0
    assert made.draw(5).dtype == np.int64


def test_one_round_more_than_planned_is_not_paid_for() -> None:
    given = Privacy(
        epsilon=1.0, unit="example", sampling_rate=0.05, noise_multiplier=sampled().noise_multiplier, rounds=53
    )
    assert affordable(given, dimension=100, most=53) in (50, 51)
    assert affordable(given, dimension=100, most=20) == 20
    with pytest.raises(PrivacyConfigError, match=r"53 rounds .* above the budget of 1 .*: lower the rounds"):
        plan(given, dimension=100, rounds=53, max_examples=80)


@pytest.mark.parametrize(
    "changes",
    [
        {"sampling_rate": 0.01},
        {"sampling_rate": 0.051},
        {"sampling_rate": 1.0},
        {"accountant": "rdp"},
    ],
    ids=str,
)
def test_a_mechanism_is_checked_with_the_rate_that_it_states(changes: dict[str, Any]) -> None:
    """Lower rates than planned are fine by themselves (the app has to keep them); larger ones are refused."""
    values = sampled().to_dict() | changes
    if changes == {"sampling_rate": 0.01}:
        assert GaussianMechanism.from_dict(values).epsilon_after(50) < 0.3
        return
    with pytest.raises(PrivacyConfigError, match="above the budget of 1"):
        GaussianMechanism.from_dict(values)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sampling_rate": 0.0}, "above 0 and at most 1"),
        ({"sampling_rate": math.nan}, "above 0 and at most 1"),
        ({"sampling_rate": 1.5}, "above 0 and at most 1"),
        ({"sampling_rate": 1}, "not of type float"),
        ({"sampling_rate": True}, "not of type float"),
        ({"accountant": "gdp"}, 'accountant="prv" or accountant="rdp"'),
        ({"sampler": "numpy"}, 'sampler="rounded" or sampler="opendp"'),
        ({"where": "server"}, "noise by 'server'"),
        ({"where": "local", "noisy_parties": 3}, "noise by 'local' among 3"),
    ],
    ids=str,
)
def test_what_a_server_may_not_state(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(PrivacyConfigError, match=words):
        GaussianMechanism.from_dict(sampled(sampling_rate=1.0).to_dict() | changes)


def test_the_client_unit_is_not_sampled() -> None:
    with pytest.raises(PrivacyConfigError, match='pass unit="example", or leave sampling_rate out'):
        Privacy(epsilon=1.0, sampling_rate=0.5)
    values = plan(Privacy(epsilon=1.0), dimension=9, rounds=3, client_step=0.1).to_dict()
    with pytest.raises(PrivacyConfigError, match="nothing is sampled secretly"):
        GaussianMechanism.from_dict(values | {"sampling_rate": 0.5})


def test_rounding_keeps_the_sensitivity_of_a_drawn_record_and_moves_nothing_for_another() -> None:
    """The claim of flbc.privacy.sampling, on integers: the same draw of the others, with and without the record."""
    rng = np.random.default_rng(3)
    mechanism = sampled()
    worst = 0.0
    for _ in range(300):
        others, record = rng.normal(size=(2, 100)) * 3, rng.normal(size=100)
        record *= mechanism.clip_norm / np.linalg.norm(record)
        base = np.rint(others[0] / mechanism.step)
        assert (np.rint((others[0] + 0 * record) / mechanism.step) == base).all()
        worst = max(worst, float(np.linalg.norm(np.rint((others[0] + record) / mechanism.step) - base)))
    assert 0.9 * mechanism.sensitivity < worst <= mechanism.sensitivity


def test_local_noise_is_all_of_it_and_inside_the_client_s_own_bound() -> None:
    mechanism = sampled(where="local", sampling_rate=1.0)
    opener = sampled(sampling_rate=1.0)
    assert mechanism.sigma == mechanism.local_sigma == opener.sigma
    assert (mechanism.opener_sigma, opener.opener_sigma) == (0.0, opener.sigma)
    assert mechanism.noise_tail(4) == 0
    assert mechanism.vector_bound == mechanism.max_abs + opener.noise_tail()
    assert opener.vector_bound == opener.max_abs
    vector = np.full(100, mechanism.max_abs)
    far = mechanism.add_local(vector, np.full(100, 10**15))
    assert (far == mechanism.vector_bound).all(), "cut off, and no error that would tell"
    assert (mechanism.add_local(-vector, np.full(100, -(10**15))) == -mechanism.vector_bound).all()
    assert mechanism.epsilon_after(50) == opener.epsilon_after(50)
    assert 0.8 * mechanism.sigma < mechanism.draw(4000).std() < 1.2 * mechanism.sigma
