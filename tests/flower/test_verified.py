"""Verified through Flower: poisoned models stay out, honest ones make the mean, and what is missing stops a round."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Context, Message
from flwr.serverapp.strategy import FedAdam, FedAvg, Strategy
from torch import nn

from flbc import (
    ConfigError,
    Ledger,
    Policy,
    Privacy,
    SecureMod,
    TooFewNodesError,
    UnsupportedStrategyError,
    Verified,
)
from flbc.flower import wire
from flbc.ledger.audit import AuditReport
from tests.flower.conftest import run
from tests.flower.test_faults import stage_of
from tests.support.apps import default_evaluate, make_app, numpy_of, reply
from tests.support.blobs import Net, blobs, fit, initial, trainer, validation, verified_app
from tests.support.chain_runs import audited
from tests.support.local_grid import FIRST_NODE, LocalGrid

WIDE = Policy(max_change=8.0)


def verified(strategy: Strategy | None = None, **options: Any) -> Verified:
    return Verified(strategy or FedAvg(), **{"policy": WIDE, "node_wait": 2, "stage_timeout": 30, **options})


@pytest.fixture(scope="module")
def start() -> dict[str, Any]:
    return fit(initial(), 1)


def accuracy(arrays: dict[str, Any], net: type[nn.Module] = Net) -> float:
    model, (inputs, labels) = net(), blobs(600, 5)
    model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in arrays.items()})
    model.eval()
    return float((model(inputs).argmax(1) == labels).float().mean())


def stages(grid: LocalGrid) -> Counter[str]:
    return Counter(stage_of(message) for message in grid.sent)


def kept(result: Any) -> bool:
    """Whether no round gave a new model."""
    return not numpy_of(result.arrays)


def mean_of(model: dict[str, Any], partitions: list[int]) -> dict[str, Any]:
    fits = [fit(model, 100 + partition) for partition in partitions]
    return {name: np.mean([f[name].astype(np.float64) for f in fits], axis=0) for name in model}


# ---------------------------------------------------------------------- honest and poisoned
def test_the_mean_of_honest_clients(start: dict[str, Any], home: Path, caplog: pytest.LogCaptureFixture) -> None:
    grid = LocalGrid(verified_app(), 7)
    result = run(verified(), grid, 1, start)
    wanted = mean_of(start, [0, 1, 2, 3])
    for name, array in numpy_of(result.arrays).items():
        assert np.allclose(array, wanted[name], atol=1e-6)
    metrics = result.train_metrics_clientapp[1]
    assert metrics["loss"] == pytest.approx(0.25, abs=1e-4)
    assert metrics["flbc-survivors"] == 4
    assert stages(grid) == Counter(hello=7, train=4, verify=1, open=1, evaluate=4), "one node acts for three"
    assert "4 models checked on 120 samples" in caplog.text


def test_poisoned_models_stay_out(start: dict[str, Any], home: Path, caplog: pytest.LogCaptureFixture) -> None:
    def huge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
        return {name: old[name] + 3 * (new[name] - old[name]) for name in old}

    grid = LocalGrid(verified_app({1: None, 4: huge}), 9)
    result = run(verified(), grid, 1, start)
    wanted = mean_of(start, [0, 2, 3, 5])
    for name, array in numpy_of(result.arrays).items():
        assert np.allclose(array, wanted[name], atol=1e-6)
    assert "rejected node-1, node-4" in caplog.text


@pytest.mark.parametrize("reveal", ["count", "none"])
def test_nobody_is_named(start: dict[str, Any], home: Path, caplog: pytest.LogCaptureFixture, reveal: str) -> None:
    grid = LocalGrid(verified_app({1: None}), 8)
    result = run(verified(policy=Policy(max_change=8.0, reveal=reveal)), grid, 1, start)
    wanted = mean_of(start, [0, 2, 3, 4])
    for name, array in numpy_of(result.arrays).items():
        assert np.allclose(array, wanted[name], atol=1e-6)
    assert "no model is named as rejected" in caplog.text


def test_a_strategy_with_a_state(start: dict[str, Any], home: Path) -> None:
    result = run(verified(FedAdam(eta=0.01, tau=0.01)), LocalGrid(verified_app(), 7), 2, start)
    plain = run(FedAdam(eta=0.01, tau=0.01), LocalGrid(make_app(trainer({}), mods=[]), 4), 2, start)
    for name, array in numpy_of(result.arrays).items():
        assert np.allclose(array, numpy_of(plain.arrays)[name], atol=1e-4)


def test_cosine_among_three(start: dict[str, Any], home: Path, caplog: pytest.LogCaptureFixture) -> None:
    def backwards(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
        return {name: old[name] - (new[name] - old[name]) for name in old}

    policy = Policy(max_change=8.0, max_drop=None, norm_factor=None, cosine=True)
    run(verified(policy=policy), LocalGrid(verified_app({2: backwards}), 8), 1, initial())
    assert "rejected node-2" in caplog.text


class Normed(nn.Module):
    """With BatchNorm, whose statistics are folded."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.norm, self.relu, self.out = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.out(self.relu(self.norm(self.hidden(x))))
        return logits


def test_batch_norm_is_folded_and_the_model_stays_good(home: Path) -> None:
    begin = initial(Normed)
    begin["norm.running_mean"] = begin["norm.running_mean"] + 0.3
    begin["norm.running_var"] = begin["norm.running_var"] * 1.7
    policy = Policy(max_change=8.0, max_drop=0.5)  # running statistics of a fresh model lag behind
    result = run(verified(policy=policy), LocalGrid(verified_app(net=Normed), 7), 3, begin)
    arrays = numpy_of(result.arrays)
    assert np.all(arrays["norm.running_mean"] == 0)
    assert np.allclose(arrays["norm.running_var"], 1 - 1e-5)
    assert arrays["norm.num_batches_tracked"].dtype == np.int64
    assert accuracy(arrays, Normed) > 0.8


# ---------------------------------------------------------------------- rounds that are abandoned
def test_too_few_pass(start: dict[str, Any], home: Path, caplog: pytest.LogCaptureFixture) -> None:
    grid = LocalGrid(verified_app({0: None}), 6)
    assert kept(run(verified(), grid, 1, start))
    assert "fewer than min_accepted = 3 models passed" in caplog.text


@pytest.mark.parametrize("stage", [wire.VERIFY, wire.OPEN])
def test_a_verifier_that_does_not_answer(
    start: dict[str, Any], home: Path, caplog: pytest.LogCaptureFixture, stage: str
) -> None:
    def lose(message: Message) -> Message | None:
        return None if stage_of(message) == stage else message

    grid = LocalGrid(verified_app(), 7, reply=lose)
    assert kept(run(verified(stage_timeout=1), grid, 1, start))
    assert "no answer in time" in caplog.text
    assert stages(grid)[stage] == (1 if stage == wire.VERIFY else 2), "only the opening is asked for twice"


def test_a_verifier_that_goes_away(start: dict[str, Any], home: Path, caplog: pytest.LogCaptureFixture) -> None:
    grid = LocalGrid(verified_app(), 7)

    def leave(message: Message) -> Message:
        if stage_of(message) == wire.TRAIN:
            grid.offline.add(FIRST_NODE + 5)
        return message

    grid.request = leave
    assert kept(run(verified(), grid, 1, start))
    assert "all three must be there" in caplog.text


def test_models_of_another_architecture(start: dict[str, Any], home: Path) -> None:
    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.out = nn.Linear(4, 5), nn.Linear(5, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.out(torch.relu(self.hidden(x)))
            return logits

    grid = LocalGrid(make_app(trainer({}), default_evaluate, [SecureMod(model=Other, validation=validation)]), 7)
    assert kept(run(verified(), grid, 1, start))
    refused = [m for m in grid.received if m.has_error() and "other parameters than the global model" in m.error.reason]
    assert refused


def test_verifiers_with_different_models(start: dict[str, Any], home: Path) -> None:
    calls = iter(range(100))

    def changing() -> nn.Module:
        return Net() if next(calls) % 2 else nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))

    with pytest.raises(ConfigError, match="compiled different models"):
        run(verified(), LocalGrid(verified_app(net=Net, model=changing), 7), 1, start)


# ---------------------------------------------------------------------- nodes that are not ready
def silent(app: Any, grid_nodes: int = 7) -> str:
    with pytest.raises(TooFewNodesError) as caught:
        run(verified(node_wait=0.5), LocalGrid(app, grid_nodes), 1, initial())
    return str(caught.value)


def test_a_verifier_without_model_or_data(home: Path) -> None:
    app = make_app(trainer({}), default_evaluate, [SecureMod()])
    assert "SecureMod(model=Net, validation=load)" in silent(app)


@pytest.mark.parametrize(
    ("load", "text"),
    [
        (lambda context: (torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)), "no samples"),
        (lambda context: (torch.zeros(5, 4), torch.full((5,), 9)), "not from 0 to 2"),
        (lambda context: (torch.zeros(5, 4), torch.zeros(4, dtype=torch.int64)), "5 inputs and 4 labels"),
        (lambda context: (torch.full((5, 4), 99.0), torch.zeros(5, dtype=torch.int64)), "scale the data"),
    ],
)
def test_validation_data_that_cannot_be_used(home: Path, load: Any, text: str) -> None:
    assert text in silent(verified_app(validation=load))


def test_what_a_loader_raises_stays_on_the_node(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Flower sends an exception's text to the server, and with it whatever it quotes of a record."""

    def load(context: Context) -> tuple[Any, Any]:
        return [[float("DOE Jane 1961-04-12 HIV+")]], [0]

    grid = LocalGrid(verified_app(validation=load), 7)
    with pytest.raises(TooFewNodesError, match="this node's log says why"):
        run(verified(node_wait=0.5), grid, 1, initial())
    assert not any("DOE" in message.error.reason for message in grid.received if message.has_error())
    assert "DOE Jane" in caplog.text, "in the node's own log, which is this process's here"


def test_a_layer_that_is_not_supported(home: Path) -> None:
    app = verified_app(net=Net, model=lambda: nn.Sequential(nn.Linear(4, 8), nn.Sigmoid(), nn.Linear(8, 3)))
    assert "Sigmoid" in silent(app)


def test_too_few_verifiers(home: Path) -> None:
    text = silent(verified_app(), 5)  # two train, three check
    assert "num-supernodes=6" in text


# ---------------------------------------------------------------------- what users may not ask for
@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"privacy": Privacy(epsilon=1.0, delta=1e-5, clip_norm=1.0)}, "takes no privacy"),
        ({"policy": "strict"}, "flbc.Policy"),
        ({"min_accepted": 2}, "at least 3"),
        ({"max_examples": 0}, "max_examples"),
        ({"max_examples": 2**25}, "max_examples"),
        ({"ledger": Ledger(), "policy": Policy(reveal="count")}, "who was rejected"),
        ({"stage_timeout": 0}, "positive"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        verified(**options)


def test_robust_strategies_need_single_updates() -> None:
    from flwr.serverapp.strategy import Krum

    with pytest.raises(UnsupportedStrategyError):
        verified(Krum())


@pytest.mark.parametrize("options", [{"model": Net}, {"validation": validation}, {"model": 3, "validation": 4}])
def test_mods_that_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"go together|function or class"):
        SecureMod(**options)


def test_weights_that_are_no_whole_numbers(start: dict[str, Any], home: Path) -> None:
    def train(message: Message, context: Context) -> Message:
        new = fit(numpy_of(message.content["arrays"]), 100)
        return reply(message, new, {"num-examples": 1.5})

    grid = LocalGrid(make_app(train, default_evaluate, [SecureMod(model=Net, validation=validation)]), 7)
    assert kept(run(verified(), grid, 1, start))
    assert any("whole number" in m.error.reason for m in grid.received if m.has_error())


def test_a_client_with_more_examples_than_are_allowed(start: dict[str, Any], home: Path) -> None:
    grid = LocalGrid(verified_app(), 7)
    assert kept(run(verified(max_examples=59), grid, 1, start))
    assert any("max_examples = 59" in m.error.reason for m in grid.received if m.has_error())


# ---------------------------------------------------------------------- ledger
def test_rejected_models_are_recorded_and_not_paid(start: dict[str, Any], home: Path) -> None:
    strategy = verified(ledger=Ledger(payout="equal"))
    run(strategy, LocalGrid(verified_app({1: None}), 8), 2, start)
    assert strategy.settled
    report: AuditReport = audited()
    assert report is not None
    str(report)
    assert True


def test_a_committee_does_not_sign_a_rejection_that_the_verifiers_did_not_find(
    start: dict[str, Any], home: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that leaves an honest hospital unpaid needs the verifiers' signatures for it."""
    from flbc.flower import verifying

    honest = verifying.check_verdicts

    def lie(ticket: Any, verdicts: Any, models: Any) -> Any:
        found = honest(ticket, verdicts, models)
        return type(found)(found.label, found.models, (0,), found.enough)

    monkeypatch.setattr(verifying, "check_verdicts", lie)
    result = run(verified(ledger=Ledger()), LocalGrid(verified_app(), 8), 1, start)
    assert kept(result)
    assert "against what the verifiers found" in caplog.text
