"""The comparison trains, and its orderings are the ones that theory gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flbc.demo import baselines
from flbc.demo.baselines import Settings, alone, fedavg, fold_data, local_noise, mechanism, noise_at_opener
from flbc.demo.heart import HOSPITALS
from flbc.demo.logistic import clipped_sum, gradient
from flbc.errors import ConfigError

DATA = fold_data(0)
SETTINGS = Settings()


def test_one_local_step_is_gradient_descent_on_everyone() -> None:
    x = np.vstack([s.train_x for s in DATA.values()])
    y = np.concatenate([s.train_y for s in DATA.values()])
    w = np.zeros(x.shape[1] + 1)
    for _ in range(3):
        w = w - SETTINGS.learning_rate * gradient(x, y, w)
    np.testing.assert_allclose(fedavg(DATA, replace(SETTINGS, rounds=3)).weights, w, atol=1e-12)


def test_aggregate_is_injected() -> None:
    seen = []

    def aggregate(updates, weights):  # type: ignore[no-untyped-def]
        seen.append(tuple(weights))
        return baselines.weighted_mean(updates, weights)

    result = fedavg(DATA, replace(SETTINGS, rounds=2), aggregate)
    assert seen == [(242, 235, 160, 98)] * 2
    np.testing.assert_array_equal(result.weights, fedavg(DATA, replace(SETTINGS, rounds=2)).weights)


def test_learns_more_together_than_alone() -> None:
    together = np.mean([fedavg(fold_data(fold), SETTINGS).accuracy for fold in range(5)])
    assert together > 0.81
    for hospital in HOSPITALS:
        assert np.mean([alone(hospital, fold_data(fold), SETTINGS).accuracy for fold in range(5)]) < together
    with pytest.raises(ConfigError, match="unknown hospital"):
        alone("elsewhere", DATA, SETTINGS)


def test_patient_level_noise_costs_little() -> None:
    scores = [noise_at_opener(d, SETTINGS, mechanism(3.0, d, SETTINGS)).accuracy for d in map(fold_data, range(5))]
    assert np.mean(scores) > 0.77


@pytest.mark.parametrize(("train", "sources"), [(noise_at_opener, 1), (local_noise, 4)])
def test_noise_has_the_variance_that_was_planned(train, sources) -> None:  # type: ignore[no-untyped-def]
    one = replace(SETTINGS, rounds=1)
    noise = mechanism(0.5, DATA, one)
    count = sum(len(s.train_y) for s in DATA.values())
    zero = np.zeros(noise.dimension)
    exact = sum(np.rint(clipped_sum(s.train_x, s.train_y, zero, one.clip_norm) / noise.step) for s in DATA.values())
    drawn = np.concatenate(
        [-train(DATA, one, noise).weights * count / noise.step / one.learning_rate - exact for _ in range(200)]
    )
    assert drawn == pytest.approx(np.rint(drawn), abs=1e-6)
    assert drawn.std() == pytest.approx(noise.sigma * np.sqrt(sources), rel=0.06)


def test_results_describe_the_run() -> None:
    result = fedavg(DATA, SETTINGS)
    assert len(result.curve) == SETTINGS.rounds
    assert result.curve[-1] == result.accuracy
    sizes = [len(s.test_y) for s in DATA.values()]
    assert np.average(list(result.by_hospital.values()), weights=sizes) == pytest.approx(result.accuracy)
