"""Plain on N nodes equals swapped on N + 1: round 1 within the quantisation bound, later rounds within a tolerance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedProx, FedYogi, Strategy

from flbc import Codec
from tests.flower.conftest import run, secure
from tests.support.apps import MODEL, make_app, numpy_of
from tests.support.local_grid import LocalGrid

ROUNDS = 4
STRATEGIES: dict[str, tuple[Any, float]] = {
    # Adaptive optimisers divide by the size of the update, so they magnify a quantisation step: hence the tolerances.
    "FedAvg": (FedAvg, 1e-4),
    "FedAvgM": (lambda: FedAvgM(server_learning_rate=0.9, server_momentum=0.5), 2e-4),
    "FedProx": (lambda: FedProx(proximal_mu=0.1), 1e-4),
    "FedAdam": (lambda: FedAdam(eta=0.01, tau=0.01), 2e-3),
    "FedYogi": (lambda: FedYogi(eta=0.01, tau=0.01), 2e-3),
    "FedAdagrad": (lambda: FedAdagrad(eta=0.01, tau=0.01), 2e-3),
}


def plain(strategy: Strategy, rounds: int) -> dict[str, Any]:
    return numpy_of(run(strategy, LocalGrid(make_app(mods=[]), 4), rounds).arrays)


@pytest.mark.parametrize("name", STRATEGIES)
def test_wrapped_equals_plain(name: str, grid: Any) -> None:
    make, tolerance = STRATEGIES[name]
    expected, got = plain(make(), ROUNDS), numpy_of(run(secure(make()), grid(), ROUNDS).arrays)
    assert list(got) == list(MODEL)
    for key, value in MODEL.items():
        assert got[key].shape == value.shape
        assert got[key].dtype == value.dtype
        # Integer buffers are rounded every round, where plain FedAvg lets them become floats.
        np.testing.assert_allclose(got[key], expected[key], atol=tolerance if value.dtype.kind == "f" else ROUNDS / 2)
    assert np.abs(got["weight"] - MODEL["weight"]).max() > 0.01, "training moved the model"


def test_round_one_is_within_the_quantisation_bound(grid: Any) -> None:
    expected, got = plain(FedAvg(), 1), numpy_of(run(secure(), grid(), 1).arrays)
    # Four clients with weights 10 to 40, scaled by 64: each rounds by less than one step of range / (2^15 - 1).
    step = 1.0 / (2**15 - 1)
    bound = 4 * step * 64 / 100
    for key in ("weight", "bias"):
        assert np.abs(got[key] - expected[key]).max() <= bound + 1e-7
    assert got["batches"] == MODEL["batches"] + round((2 * 10 + 4 * 20 + 6 * 30 + 8 * 40) / 100)


def test_more_bits_are_closer(grid: Any) -> None:
    expected = plain(FedAvg(), 1)
    errors = []
    for bits in (8, 12, 24):
        got = numpy_of(run(secure(codec=Codec(bits=bits)), grid(), 1).arrays)
        errors.append(
            float(np.abs(got["bias"] - expected["bias"]).max() + np.abs(got["weight"] - expected["weight"]).max())
        )
    assert errors[2] < errors[1] < errors[0]
    assert errors[2] < 1e-6


def test_metrics_are_the_weighted_means(grid: Any) -> None:
    plain_run = run(FedAvg(), LocalGrid(make_app(mods=[]), 4), 1)
    got = run(secure(), grid(), 1)
    assert got.train_metrics_clientapp[1]["loss"] == pytest.approx(
        plain_run.train_metrics_clientapp[1]["loss"], abs=1e-4
    )
    assert got.evaluate_metrics_clientapp[1]["accuracy"] == pytest.approx(
        plain_run.evaluate_metrics_clientapp[1]["accuracy"]
    )


def test_clients_that_pull_apart_stay_exact_over_many_rounds(grid: Any) -> None:
    """Means shrink as training converges, single updates do not: nothing may be cut off."""
    wrapped = run(secure(), grid(), 12)
    expected, got = plain(FedAvg(), 12), numpy_of(wrapped.arrays)
    np.testing.assert_allclose(got["weight"], expected["weight"], atol=3e-4)
    assert all(wrapped.train_metrics_clientapp[r]["flbc-saturated"] == 0 for r in range(1, 13))
