"""Differential privacy through the wrapper: what is summed, what is shown, when it stops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.serverapp.exception import InconsistentMessageReplies
from flwr.serverapp.strategy import FedAvg

from flbc import Codec, ConfigError, Privacy
from flbc.flower import wire
from flbc.node.opening import unpack_opening
from flbc.privacy.planning import plan
from tests.flower.conftest import run, secure
from tests.support.apps import make_app, numpy_of, reply

WEIGHTS = {"w": np.zeros(8, np.float32), "bn.running_mean": np.full(2, 5.0, np.float32), "count": np.array(3)}


def gradient_app(examples: int = 50, declared: Any = 50, size: float = 1.0, **extra: Any) -> Any:
    def train(message: Message, context: Context) -> Message:
        return reply(
            message, {"w": np.full(8, size)}, {"num-examples": examples, "loss": 0.7, "clip-norm": 1.0, **extra}
        )

    return make_app(train, examples=declared)


def private(epsilon: float = 1.0, **options: Any) -> Privacy:
    return Privacy(**{"epsilon": epsilon, "unit": "example", "clip_norm": 1.0, **options})


def test_epsilon_is_reported_after_every_round(grid: Any) -> None:
    result = run(secure(privacy=private(rounds=3)), grid(gradient_app()), 3, WEIGHTS)
    spent = [result.train_metrics_clientapp[r]["flbc-epsilon"] for r in (1, 2, 3)]
    replace_one = [result.train_metrics_clientapp[r]["flbc-epsilon-replace-one"] for r in (1, 2, 3)]
    assert spent == sorted(spent)
    assert spent[2] == pytest.approx(1.0, abs=1e-6)
    assert spent[2] <= 1.0
    assert all(b > a for a, b in zip(spent, replace_one, strict=True))


def test_the_run_stops_before_the_budget_is_exceeded(grid: Any, caplog: Any) -> None:
    result = run(secure(privacy=private(rounds=2)), grid(gradient_app()), 5, WEIGHTS)
    assert sorted(result.train_metrics_clientapp) == [1, 2]
    assert "allows 2 of 5 rounds" in caplog.text


def test_with_a_given_multiplier_the_run_stops_where_epsilon_is_reached(grid: Any) -> None:
    z = plan(private(rounds=3), dimension=8, rounds=3, max_examples=50).noise_multiplier
    result = run(secure(privacy=private(noise_multiplier=z)), grid(gradient_app()), 9, WEIGHTS)
    assert max(result.train_metrics_clientapp) == 3


def test_a_multiplier_that_does_not_pay_for_one_round_is_refused(grid: Any) -> None:
    with pytest.raises(ConfigError, match="first round"):
        run(secure(privacy=private(noise_multiplier=0.01)), grid(gradient_app()), 1, WEIGHTS)


def test_noise_has_the_promised_size_and_buffers_stay(grid: Any) -> None:
    """S17, S18: the opened mean is the true mean plus noise of sigma * step / count."""
    dimension = 4000
    model = {"w": np.zeros(dimension), "bn.running_mean": np.full(2, 5.0), "count": np.array(3)}

    def train(message: Message, context: Context) -> Message:
        arrays = {"w": np.full(dimension, 0.25), "bn.running_mean": np.full(2, 99.0)}
        arrays.pop("bn.running_mean")
        return reply(message, arrays, {"num-examples": 50, "clip-norm": 1.0})

    got = numpy_of(run(secure(privacy=private(epsilon=2.0)), grid(make_app(train, examples=50)), 1, model).arrays)
    mechanism = plan(private(epsilon=2.0), dimension=dimension, rounds=1, max_examples=50)
    expected, deviation = -0.25 * 4 / 200, mechanism.sigma * mechanism.step / 200
    assert abs(got["w"].mean() - expected) < 5 * deviation / np.sqrt(dimension)
    assert got["w"].std() == pytest.approx(deviation, rel=0.08)
    assert (got["bn.running_mean"] == 5).all()
    assert got["count"] == 3


def test_client_unit_clips_the_whole_update_and_weighs_equally(grid: Any) -> None:
    dimension = 3000

    def train(message: Message, context: Context) -> Message:
        partition = int(context.node_config["partition-id"])
        arrays = {"w": np.full(dimension, 1000.0 if partition == 0 else 0.0), "n": np.array(9)}
        return reply(message, arrays, {"num-examples": 10**6 if partition == 0 else 1})

    privacy = Privacy(epsilon=50.0, unit="client", clip_norm=2.0)
    model = {"w": np.zeros(dimension), "n": np.array(1)}
    got = numpy_of(run(secure(privacy=privacy), grid(make_app(train)), 1, model).arrays)
    step = 2.0 / Codec().max_abs
    mechanism = plan(privacy, dimension=dimension, rounds=1, client_step=step)
    deviation = mechanism.sigma * step / 4
    expected = 2.0 / np.sqrt(dimension) / 4  # one clipped update, divided by the number of clients
    assert abs(got["w"].mean() - expected) < 5 * deviation / np.sqrt(dimension)
    assert got["n"] == 1


def test_metrics_stay_at_home_unless_they_are_listed(grid: Any) -> None:
    """S18."""
    g = grid(gradient_app())
    result = run(secure(privacy=private(), reveal_metrics=["accuracy", "loss"]), g, 1, WEIGHTS)
    assert result.train_metrics_clientapp[1]["loss"] == pytest.approx(0.7)
    assert set(result.evaluate_metrics_clientapp[1]) == {"accuracy"}
    result = run(secure(privacy=private()), grid(gradient_app(), run_id=2), 1, WEIGHTS)
    assert "loss" not in result.train_metrics_clientapp[1]
    assert not dict(result.evaluate_metrics_clientapp[1])


def test_no_weight_no_metric_no_name_of_a_metric_leaves(grid: Any) -> None:
    g = grid(gradient_app(secret_metric=1.0))
    run(secure(privacy=private()), g, 1, WEIGHTS)
    for message in g.received:
        for group in message.content.config_records.values():
            assert b"secret_metric" not in bytes(group.get("reply", b""))
        for metrics in message.content.metric_records.values():
            assert set(metrics) <= {"num-examples"}, "evaluation carries the size of the test set only"


def test_more_examples_than_declared_is_an_error(grid: Any, caplog: Any) -> None:
    result = run(secure(privacy=private()), grid(gradient_app(examples=51)), 1, WEIGHTS)
    assert "Trained on more than the 50 examples that are declared" in caplog.text
    assert not result.arrays


def test_undeclared_sizes_are_refused_with_the_cure(grid: Any) -> None:
    with pytest.raises(ConfigError, match=r"SecureMod\(examples="):
        run(secure(privacy=private()), grid(gradient_app(declared=None)), 1, WEIGHTS)


def test_an_update_beyond_the_sensitivity_is_not_sent(grid: Any, caplog: Any) -> None:
    """S16: 50 examples of norm 1 cannot sum to 100 in a coordinate."""
    result = run(secure(privacy=private()), grid(gradient_app(size=100.0)), 1, WEIGHTS)
    assert "SensitivityError" in caplog.text
    assert not result.arrays


def test_noise_is_added_by_the_authority_and_not_by_the_server(grid: Any) -> None:
    """What the authority sends is no exact sum, and the server applies it as it is."""
    g = grid(gradient_app())
    got = numpy_of(run(secure(privacy=private()), g, 1, WEIGHTS).arrays)["w"]
    (answer,) = [m for m in g.received if m.content.config_records.get("flbc", {}).get("stage") == wire.OPEN]
    _, total = unpack_opening(wire.unseal(answer.content), 8)
    step = plan(private(), dimension=8, rounds=1, max_examples=50).step
    assert not (total == 4 * round(1.0 / step)).any()
    np.testing.assert_allclose(got, -total * step / 200, rtol=1e-6)


def test_frozen_parameters_may_be_absent_from_the_gradient(grid: Any) -> None:
    model = {**WEIGHTS, "frozen.weight": np.ones(3, np.float32)}
    got = numpy_of(run(secure(privacy=private(epsilon=100.0)), grid(gradient_app()), 1, model).arrays)
    assert np.abs(got["frozen.weight"] - 1).max() < 0.5


@pytest.mark.parametrize("said", [None, 2.0, "1.0"])
def test_an_app_that_did_not_clip_to_the_tasks_norm_sends_nothing(said: Any, grid: Any, caplog: Any) -> None:
    """A server may tell the app another unit or norm through run-config; the node compares before it sends."""

    def train(message: Message, context: Context) -> Message:
        metrics = {"num-examples": 50} | ({} if said is None else {"clip-norm": said})
        if isinstance(said, str):
            metrics["clip-norm"] = [1.0]
        return reply(message, {"w": np.ones(8)}, metrics)

    result = run(secure(privacy=private()), grid(make_app(train, examples=50)), 1, WEIGHTS)
    assert '"clip-norm": 1.0 (it stays on the node)' in caplog.text
    assert not result.arrays


def test_the_clip_norm_stays_on_the_node(grid: Any) -> None:
    g = grid(gradient_app())
    run(secure(privacy=private(), reveal_metrics=["clip-norm"]), g, 1, WEIGHTS)
    assert all("clip-norm" not in metrics for m in g.received for metrics in m.content.metric_records.values())


def test_evaluation_does_not_let_the_server_choose_what_counts_as_weight(grid: Any) -> None:
    """The server once named the weight itself, and so read any metric, lists included."""

    def evaluate(message: Message, context: Context) -> Message:
        return reply(message, None, {"num-examples": [0.1, 2.5], "per-patient": [0.1, 2.5, 0.3]})

    g = grid(make_app(gradient_app_train, evaluate, examples=50))
    strategy = secure(FedAvg(weighted_by_key="per-patient"), privacy=private())
    run(strategy, g, 1, WEIGHTS)
    refusals = [m.error for m in g.received if m.has_error()]
    assert refusals
    assert all(error.code == 6 and "SecureMod(weight_key" in error.reason for error in refusals)
    g = grid(make_app(gradient_app_train, evaluate, examples=50), run_id=2)
    with pytest.raises(InconsistentMessageReplies):  # nothing is left to weigh by
        run(secure(privacy=private()), g, 1, WEIGHTS)
    assert not any(dict(r) for m in g.received if m.has_content() for r in m.content.metric_records.values())


def gradient_app_train(message: Message, context: Context) -> Message:
    return reply(message, {"w": np.ones(8)}, {"num-examples": 50, "clip-norm": 1.0})


def test_an_exceptions_text_stays_on_the_node(grid: Any, caplog: Any) -> None:
    def train(message: Message, context: Context) -> Message:
        raise ValueError("bad row: Doe, John")

    g = grid(make_app(train, examples=50))
    run(secure(privacy=private()), g, 1, WEIGHTS)
    reasons = [m.error.reason for m in g.received if m.has_error()]
    assert len(reasons) == 4
    assert all("Doe" not in reason for reason in reasons)
    assert "Doe, John" in caplog.text, "but the node's own log says why"


def test_non_finite_gradients_count_as_zero(grid: Any) -> None:
    """S19: a record does not decide whether an error is raised."""

    def train(message: Message, context: Context) -> Message:
        broken = context.node_config["partition-id"] == 0
        return reply(message, {"w": np.full(8, np.nan if broken else 1.0)}, {"num-examples": 50, "clip-norm": 1.0})

    result = run(secure(privacy=private()), grid(make_app(train, examples=50)), 1, WEIGHTS)
    assert result.train_metrics_clientapp[1]["flbc-survivors"] == 4
    assert np.isfinite(numpy_of(result.arrays)["w"]).all()


@pytest.mark.parametrize("value", [float("nan"), 0.0, 1e9])
def test_a_client_cannot_spoil_the_run_through_clear_metrics(value: float, grid: Any) -> None:
    """Neither by a weight in clear, nor by a metric that the task does not reveal, nor by one that is not finite."""

    def slip_in(message: Message) -> Message:
        mine = message.has_content() and message.metadata.src_node_id == 100
        if mine and wire.PAYLOAD in message.content and "metrics" in message.content:
            for name in ("num-examples", "flbc-epsilon", "loss", "hidden"):
                message.content["metrics"][name] = value
        return message

    result = run(secure(privacy=private(), reveal_metrics=["loss"]), grid(gradient_app(), reply=slip_in), 1, WEIGHTS)
    got = result.train_metrics_clientapp[1]
    assert np.isfinite(numpy_of(result.arrays)["w"]).all()
    assert "hidden" not in got
    assert got["flbc-epsilon"] == pytest.approx(1.0)
    assert ("loss" in got) == np.isfinite(value)


def test_the_weight_is_no_metric_to_reveal() -> None:
    with pytest.raises(ConfigError, match="must not name the weight"):
        secure(privacy=private(), reveal_metrics=["num-examples"])
