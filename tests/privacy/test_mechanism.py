"""Sensitivities hold for the integers that are really summed, and a mechanism cannot be tampered with."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flbc.errors import PrivacyConfigError, SensitivityError
from flbc.privacy import GaussianMechanism, Privacy, clip_update, plan
from flbc.privacy.accountant import solve_noise_multiplier

STEP16 = 1.0 / (2**15 - 1)


def client(dimension: int = 10, **changes: Any) -> GaussianMechanism:
    options = {"epsilon": 3.0, **changes}
    return plan(Privacy(**options), dimension=dimension, rounds=5, client_step=STEP16)


def example(dimension: int = 10, **changes: Any) -> GaussianMechanism:
    return plan(Privacy(epsilon=1.0, unit="example", **changes), dimension=dimension, rounds=30, max_examples=250)


def test_numbers_of_the_example_unit() -> None:
    m = example(100, clip_norm=0.5)
    assert m.step == 0.5 / 200
    assert m.sensitivity == pytest.approx(210)
    assert m.replace_one_sensitivity == pytest.approx(410)
    assert m.max_abs == 250 * 200 + 1
    assert m.sigma == m.noise_multiplier * m.sensitivity
    assert m.noise_tail() == math.ceil(9 * m.sigma) + 1


def test_numbers_of_the_client_unit() -> None:
    m = client(100)
    assert m.sensitivity == pytest.approx(32767 + 5)
    assert m.replace_one_sensitivity == pytest.approx(2 * 32767 + 10)
    assert m.max_abs in (32768, 32769)
    s = plan(Privacy(epsilon=3.0), dimension=100, rounds=5, client_step=STEP16, stochastic=True)
    assert s.sensitivity == pytest.approx(32767 + 10)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0, 50.0])
@pytest.mark.parametrize("rounds", [1, 30, 1000])
def test_budget_is_used_up_exactly(epsilon: float, rounds: int) -> None:
    m = plan(Privacy(epsilon=epsilon, unit="example"), dimension=1000, rounds=rounds)
    assert m.affordable_rounds() == rounds
    assert m.epsilon_after(0) == 0
    assert m.epsilon_after(rounds) <= epsilon
    assert m.epsilon_after(rounds) == pytest.approx(epsilon, rel=1e-6)
    assert m.epsilon_after(rounds + 1) > epsilon
    assert m.epsilon_after(rounds) < m.replace_one_epsilon_after(rounds)


def test_given_multiplier() -> None:
    z = solve_noise_multiplier(3.0, 1e-5, 5)
    assert client(noise_multiplier=z).affordable_rounds() == 5
    assert client(noise_multiplier=2 * z).affordable_rounds() == 20
    with pytest.raises(PrivacyConfigError, match="which pays for 4 rounds"):
        client(noise_multiplier=z * 0.999)


def test_rounds_of_the_budget() -> None:
    assert client(rounds=50).affordable_rounds() == 50
    with pytest.raises(PrivacyConfigError, match="budget is for 4 rounds"):
        client(rounds=4)


def test_plan_refuses() -> None:
    with pytest.raises(PrivacyConfigError, match="client_step"):
        plan(Privacy(epsilon=1.0), dimension=3, rounds=1)
    with pytest.raises(PrivacyConfigError, match="step"):
        plan(Privacy(epsilon=1.0), dimension=3, rounds=1, client_step=0.0)
    with pytest.raises(PrivacyConfigError, match="dimension"):
        plan(Privacy(epsilon=1.0), dimension=0, rounds=1, client_step=0.1)
    with pytest.raises(PrivacyConfigError, match="fewer bits"):
        plan(Privacy(epsilon=0.01), dimension=3, rounds=10, client_step=2.0**-42)
    with pytest.raises(PrivacyConfigError, match="nothing is left of delta"):
        plan(Privacy(epsilon=300.0, unit="example"), dimension=10**6, rounds=100)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.floats(0.1, 1e3), st.integers(4, 16), st.integers(0, 2**32))
def test_client_sensitivity_covers_encoded_updates(d: int, scale: float, bits: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, d)) * scale / math.sqrt(d)
    step = 1.0 / (2 ** (bits - 1) - 1)
    u = rng.random(d)
    for stochastic in (False, True):
        m = plan(Privacy(epsilon=8.0), dimension=d, rounds=1, client_step=step, stochastic=stochastic)

        def encode(x: np.ndarray[Any, Any], stochastic: bool = stochastic) -> np.ndarray[Any, Any]:
            clipped = clip_update({"x": x}, 1.0)[0]["x"] / step
            return (np.floor(clipped + u) if stochastic else np.rint(clipped)).astype(np.int64)

        m.check(encode(a))
        assert np.linalg.norm(encode(a)) <= m.sensitivity
        assert np.linalg.norm(encode(a) - encode(b)) <= m.replace_one_sensitivity


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 100), st.integers(1, 40), st.integers(0, 2**32))
def test_example_sensitivity_covers_rounded_sums(d: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n + 1, d))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    m = plan(Privacy(epsilon=1.0, unit="example"), dimension=d, rounds=3, max_examples=n)
    full, null = np.rint(rows[:n].sum(axis=0) / m.step), np.rint(rows[1:n].sum(axis=0) / m.step)
    other = np.rint((rows[1:n].sum(axis=0) + rows[n]) / m.step)
    m.check(full.astype(np.int64))
    assert np.linalg.norm(full - null) <= m.sensitivity
    assert np.linalg.norm(full - other) <= m.replace_one_sensitivity


def test_check_refuses_without_disclosing_values() -> None:
    m = client(4)
    m.check(np.array([32767, 0, 0, 0]))
    with pytest.raises(SensitivityError, match="L2 norm above") as caught:
        m.check(np.array([24321, 24321, 0, 0]))
    assert "24321" not in str(caught.value)
    for bad in (np.array([40000, 0, 0, 0]), np.array([np.iinfo(np.int64).min, 0, 0, 0])):
        with pytest.raises(SensitivityError, match="coordinate"):
            m.check(bad)
    for bad in (np.zeros(5, np.int64), np.zeros(4, np.int32), np.zeros((2, 2), np.int64)):
        with pytest.raises(SensitivityError, match="sized for int64"):
            m.check(bad)


def test_check_of_the_example_unit_bounds_coordinates() -> None:
    m = example(4)
    m.check(np.full(4, m.max_abs))
    with pytest.raises(SensitivityError, match="declare the true number"):
        m.check(np.full(4, m.max_abs + 1))


def test_dictionary_says_who_adds_the_noise_and_what_is_assumed() -> None:
    shared = plan(
        Privacy(epsilon=3.0, where="clients", colluders=2), dimension=9, rounds=1, client_step=STEP16, min_survivors=6
    )
    for m, where, parties in ((client(), "opener", 1), (shared, "clients", 4)):
        assert (m.to_dict()["where"], m.to_dict()["noisy_parties"]) == (where, parties)


@pytest.mark.parametrize("m", [client(7), example(33)], ids=["client", "example"])
def test_round_trip_through_json(m: GaussianMechanism) -> None:
    assert GaussianMechanism.from_dict(json.loads(json.dumps(m.to_dict()))) == m
    assert all(type(value) in (int, float, str, bool) for value in m.to_dict().values())


@pytest.mark.parametrize("m", [client(7), example(33)], ids=["client", "example"])
@pytest.mark.parametrize(
    "changes",
    [
        {"sensitivity": 0.9},
        {"replace_one_sensitivity": 0.9},
        {"sigma": 0.9},
        {"sigma": 0.9, "sensitivity": 0.9},
        {"sigma": 0.9, "noise_multiplier": 0.9},
        {"epsilon": 0.9},
        {"delta": 0.5},
        {"rounds": 2},
        {"clip_norm": 2.0},
        {"step": 2.0},
        {"max_abs": 2},
        {"dimension": 2},
    ],
    ids=lambda changes: "+".join(changes),
)
def test_a_server_cannot_flatter_a_mechanism(m: GaussianMechanism, changes: dict[str, float]) -> None:
    values = m.to_dict()
    for name, factor in changes.items():
        values[name] = type(values[name])(values[name] * factor)  # type: ignore[operator]
    with pytest.raises(PrivacyConfigError):
        GaussianMechanism.from_dict(values)


@pytest.mark.parametrize(
    "changes",
    [
        {"unit": "patient"},
        {"sigma": math.nan},
        {"rounds": 5.0},
        {"dimension": True},
        {"stochastic": 1},
        {"extra": 1},
        {"max_examples": 0},
    ],
)
def test_malformed_mechanisms(changes: dict[str, Any]) -> None:
    with pytest.raises(PrivacyConfigError):
        GaussianMechanism.from_dict(client().to_dict() | changes)
    with pytest.raises(PrivacyConfigError, match="missing or unknown"):
        GaussianMechanism.from_dict({"unit": "client"})
