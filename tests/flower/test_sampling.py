"""Poisson samples and local noise through the wrapper: what is stated, what is shown, what is divided by."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.serverapp.strategy import FedAvg

from flbc import ConfigError, Masked, NddFe, Privacy
from flbc.flower import wire
from flbc.node.opening import unpack_opening
from flbc.privacy import plan, poisson_sample
from tests.flower.conftest import run, secure
from tests.support.apps import make_app, numpy_of, reply
from tests.support.local_grid import LocalGrid

pytest.importorskip("opacus")

WEIGHTS = {"w": np.zeros(8, np.float32)}
RATE = 0.25


def sampling_app(rate: float = RATE, stated: Any = RATE, examples: int = 80, dimension: int = 8) -> Any:
    """Every example's gradient is the same vector of norm below 1."""

    def train(message: Message, context: Context) -> Message:
        drawn = len(poisson_sample(examples, rate))
        metrics = {"num-examples": examples, "clip-norm": 1.0} | ({} if stated is None else {"sample-rate": stated})
        return reply(message, {"w": np.full(dimension, 0.3 * drawn / np.sqrt(dimension))}, metrics)

    return make_app(train, examples=examples)


def private(**options: Any) -> Privacy:
    return Privacy(**{"epsilon": 1.0, "unit": "example", "clip_norm": 1.0, "sampling_rate": RATE, **options})


def test_epsilon_is_reported_after_every_round(grid: Any, caplog: Any) -> None:
    caplog.set_level(logging.INFO)
    strategy = secure(privacy=private(rounds=3), reveal_metrics=["sample-rate"])
    g = grid(sampling_app())
    result = run(strategy, g, 3, WEIGHTS)
    mechanism = plan(private(rounds=3), dimension=8, rounds=3, max_examples=80)
    spent = [result.train_metrics_clientapp[r]["flbc-epsilon"] for r in (1, 2, 3)]
    assert spent == [mechanism.epsilon_after(r) for r in (1, 2, 3)]
    assert spent == sorted(spent)
    assert 0.998 < spent[2] <= 1.0
    assert "epsilon 1.000 of 1 at delta 1e-05" in caplog.text
    for message in g.received:
        for metrics in message.content.metric_records.values():
            assert "sample-rate" not in metrics, "it stays on the node"


def test_the_mean_is_over_the_expected_number(grid: Any) -> None:
    """Not over the number drawn, which is data: seen in the mean of many coordinates."""
    dimension = 4000
    got = numpy_of(
        run(
            secure(privacy=private(epsilon=50.0)),
            grid(sampling_app(examples=4000, dimension=dimension)),
            1,
            {"w": np.zeros(dimension)},
        ).arrays
    )["w"]
    # 4 nodes, each 1,000 of 4,000 expected, deviation sqrt(750): together sqrt(3,000) of 4,000.
    expected = -0.3 / np.sqrt(dimension)
    assert got.mean() == pytest.approx(expected, rel=5.2 * np.sqrt(3000) / 4000 + 0.01)


@pytest.mark.parametrize("stated", [None, 1.0, 0.2500001, 0.3, [RATE]])
def test_an_app_that_does_not_state_the_rate_sends_nothing(stated: Any, grid: Any, caplog: Any) -> None:
    g = grid(sampling_app(rate=1.0, stated=stated))
    result = run(secure(privacy=private()), g, 1, WEIGHTS)
    assert not result.arrays
    assert not any(wire.PAYLOAD in m.content for m in g.received if m.has_content())
    assert "PolicyError" in caplog.text
    assert f"flbc.privacy.poisson_sample(examples, {RATE})" in caplog.text
    assert f'MetricRecord must say so: "sample-rate": {RATE} (it stays on the node)' in caplog.text


@pytest.mark.parametrize(("stated", "accepted"), [(None, True), (1.0, True), (1, True), (RATE, False)])
def test_without_sampling_an_app_may_say_so_or_nothing(stated: Any, accepted: bool, grid: Any) -> None:
    """An app that samples in a task that does not would be safe, and its mean wrong."""
    result = run(secure(privacy=private(sampling_rate=1.0)), grid(sampling_app(stated=stated)), 1, WEIGHTS)
    assert bool(result.arrays) is accepted


@pytest.mark.parametrize(
    ("privacy", "words"),
    [
        (private(sampling_rate=0.05), "each node draws every example with probability 0.05, secretly: counted (prv "),
        (private(sampling_rate=0.05, accountant="rdp"), "secretly: counted (rdp accountant); clients are chosen by"),
        (private(sampling_rate=1.0), "Sampling: every example of a node takes part in every round; clients are chosen"),
        (Privacy(epsilon=1.0), "Sampling: none; clients are chosen by the server: not counted"),
        (Privacy(epsilon=1.0, where="local"), "noise added by every client to its own update: nobody is trusted"),
    ],
)
def test_the_summary_says_which_sampling_is_counted(privacy: Privacy, words: str, caplog: Any) -> None:
    caplog.set_level(logging.INFO)
    secure(FedAvg(fraction_train=0.5), privacy=privacy).summary()
    assert words in caplog.text


def test_epsilon_is_the_same_whatever_share_of_the_clients_takes_part(grid: Any) -> None:
    results = [
        run(secure(FedAvg(fraction_train=f), privacy=private(rounds=2)), grid(sampling_app(), run_id=i), 2, WEIGHTS)
        for i, f in ((1, 1.0), (2, 0.75))
    ]
    first, second = ([r.train_metrics_clientapp[n]["flbc-epsilon"] for n in (1, 2)] for r in results)
    assert first == second


# ---------------------------------------------------------------------- local noise
LOCAL = {"epsilon": 3.0, "unit": "example", "clip_norm": 1.0, "where": "local"}
STRATEGIES = {
    "paillier": lambda **o: secure(**o),
    "nddfe-pad": lambda **o: NddFe(FedAvg(), node_wait=2, stage_timeout=5, **o),
    "nddfe-group": lambda **o: NddFe(FedAvg(), mode="group", node_wait=2, stage_timeout=30, **o),
    "masked": lambda **o: Masked(FedAvg(), node_wait=2, stage_timeout=5, **o),
}


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_local_noise_with_every_strategy(name: str, grid: Any, caplog: Any, home: Any) -> None:
    """The sum of four carries four times the variance."""
    caplog.set_level(logging.INFO)
    dimension = 40 if name == "nddfe-group" else 1200
    privacy = Privacy(**LOCAL)
    app = sampling_app(rate=1.0, stated=None, examples=5, dimension=dimension)
    g = LocalGrid(app, 4) if name == "masked" else grid(app)
    result = run(STRATEGIES[name](privacy=privacy), g, 1, {"w": np.zeros(dimension)})
    got = numpy_of(result.arrays)["w"]
    mechanism = plan(privacy, dimension=dimension, rounds=1, max_examples=5)
    deviation = 2 * mechanism.sigma * mechanism.step / 20
    assert got.std() == pytest.approx(deviation, rel=5.2 / np.sqrt(2 * dimension))
    assert result.train_metrics_clientapp[1]["flbc-epsilon"] == pytest.approx(3.0, rel=1e-6)
    assert "noise added by every client to its own update" in caplog.text


def test_the_opener_adds_nothing_and_says_so(grid: Any) -> None:
    g = grid(sampling_app(rate=1.0, stated=None))
    run(secure(privacy=Privacy(**LOCAL)), g, 1, WEIGHTS)
    (answer,) = [m for m in g.received if m.content.config_records.get("flbc", {}).get("stage") == wire.OPEN]
    signed, _ = unpack_opening(wire.unseal(answer.content), 8)
    assert signed.value.sigma == 0
    assert signed.value.epsilon == pytest.approx(3_000_000, abs=2)


def test_local_noise_in_the_client_unit(grid: Any) -> None:
    dimension = 1000

    def train(message: Message, context: Context) -> Message:
        return reply(message, {"w": np.full(dimension, 1.0)}, {"num-examples": 3})

    privacy = Privacy(epsilon=8.0, clip_norm=1.0, where="local")
    got = numpy_of(run(secure(privacy=privacy), grid(make_app(train)), 1, {"w": np.zeros(dimension)}).arrays)["w"]
    step = 1.0 / (2**15 - 1)
    mechanism = plan(privacy, dimension=dimension, rounds=1, client_step=step)
    assert got.std() == pytest.approx(mechanism.sigma * step / 2, rel=0.13)


def test_noise_in_shares_still_belongs_to_masked() -> None:
    with pytest.raises(ConfigError, match="belongs to Masked"):
        secure(privacy=Privacy(epsilon=1.0, where="clients"))
