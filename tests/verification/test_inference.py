"""Inference: what PyTorch computes, up to fixed point; on shares what comes out in the clear; in rounds that stay."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from flbc.verification.bits import ComparingParty
from flbc.verification.engine import FRACTION
from flbc.verification.inference import infer
from flbc.verification.plain import Clear, PlainEngine
from flbc.verification.program import Program, compile_model
from tests.support.networks import cnn, decode, encode, mlp, networks, sane, weights
from tests.support.three import together
from tests.verification.test_sharing import put

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")
Weights = dict[str, torch.Tensor]


def in_the_clear(program: Program, models: list[Weights], samples: torch.Tensor) -> torch.Tensor:
    clear = [{name: Clear(tensor) for name, tensor in model.items()} for model in models]
    return infer(PlainEngine(), program, clear, Clear(samples)).values


def on_shares(program: Program, models: list[Weights], samples: torch.Tensor) -> tuple[list[torch.Tensor], list[int]]:
    """Logits that the three parties open, and by rank for how many messages they waited."""

    def work(party: ComparingParty) -> tuple[torch.Tensor, int]:
        shared = [
            {name: put(party, k % 3, model[name]) for name in program.parameters} for k, model in enumerate(models)
        ]
        x = put(party, 2, samples)
        before = party.link.traffic.rounds
        logits = infer(party, program, shared, x)
        waited = party.link.traffic.rounds - before
        return party.open(logits), waited

    results, _ = together(work, ComparingParty)
    return [logits for logits, _ in results], [waited for _, waited in results]


def uniform(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return 2 * torch.rand(shape, generator=torch.Generator().manual_seed(seed)) - 1


# ---------------------------------------------------------------------- what PyTorch computes
@given(networks(), st.integers(0, 2**20))
@settings(max_examples=40, deadline=None)
def test_random_networks_compute_what_pytorch_does(drawn: tuple[nn.Sequential, tuple[int, ...]], seed: int) -> None:
    network, shape = drawn
    x = uniform((5, *shape), seed)
    with torch.no_grad():
        expected = network(x).double()
    logits = decode(in_the_clear(compile_model(network, shape), [weights(network)], encode(x)))[0]
    assert logits.shape == expected.shape
    assert float((logits - expected).abs().max()) < 0.02
    ahead = expected.topk(2).values
    clear = ahead[:, 0] - ahead[:, 1] > 0.04
    assert torch.equal(logits.argmax(1)[clear], expected.argmax(1)[clear])


@pytest.mark.parametrize("pool", [nn.MaxPool2d, nn.AvgPool2d])
def test_small_errors_on_a_network_of_usual_size(pool: type[nn.Module]) -> None:
    network = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), pool(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), pool(3, 2), nn.Flatten(), nn.Linear(32 * 36, 10)),
    )
    sane(network, 5)
    x = uniform((20, 1, 28, 28))
    logits = decode(in_the_clear(compile_model(network, (1, 28, 28)), [weights(network)], encode(x)))[0]
    with torch.no_grad():
        assert float((logits - network(x)).abs().max()) < 0.005


def test_asymmetric_padding() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, (2, 4), padding="same"), nn.Flatten(), nn.Linear(60, 2))
    sane(network, 1)
    x = uniform((3, 1, 5, 6))
    logits = decode(in_the_clear(compile_model(network, (1, 5, 6)), [weights(network)], encode(x)))[0]
    with torch.no_grad():
        assert float((logits - network(x)).abs().max()) < 0.005


# ---------------------------------------------------------------------- several models
@given(networks(), st.integers(2, 3))
@settings(max_examples=15, deadline=None)
def test_models_together_are_models_one_by_one(drawn: tuple[nn.Sequential, tuple[int, ...]], count: int) -> None:
    network, shape = drawn
    program, samples = compile_model(network, shape), encode(uniform((4, *shape)))
    models = [weights(sane(network, seed)) for seed in range(count)]
    batched = in_the_clear(program, models, samples)
    assert batched.shape == (count, 4, program.classes)
    for logits, model in zip(batched, models, strict=True):
        assert torch.equal(logits, in_the_clear(program, [model], samples)[0])
    assert not torch.equal(batched[0], batched[1])


# ---------------------------------------------------------------------- on shares
@given(networks(), st.integers(1, 3))
@settings(max_examples=10, deadline=None)
def test_three_parties_compute_what_one_would(drawn: tuple[nn.Sequential, tuple[int, ...]], count: int) -> None:
    network, shape = drawn
    program, samples = compile_model(network, shape), encode(uniform((3, *shape)))
    models = [weights(sane(network, seed)) for seed in range(count)]
    expected = in_the_clear(program, models, samples)
    opened, _ = on_shares(program, models, samples)
    for logits in opened:
        assert logits.shape == expected.shape
        # Every truncation may be off by one; a few layers make of it what is far below what a check looks at.
        assert int((logits - expected).abs().max()) <= 2**FRACTION // 256


@pytest.mark.parametrize(("network", "shape"), [(mlp(), (6,)), (cnn(), (1, 8, 8)), (cnn(nn.AvgPool2d), (1, 8, 8))])
def test_rounds_do_not_grow_with_the_models(network: nn.Sequential, shape: tuple[int, ...]) -> None:
    program, samples = compile_model(network, shape), encode(uniform((2, *shape)))
    one = on_shares(program, [weights(network)], samples)[1]
    three = on_shares(program, [weights(sane(network, seed)) for seed in range(3)], samples)[1]
    assert one == three


@pytest.mark.parametrize(
    ("network", "shape", "waits"),
    # No party gets all messages that follow on each other: of the two of a product with weights one, of the nine of a
    # comparison eight. And one of a mean.
    [(mlp(), (6,), 2 * 1 + 8), (cnn(), (1, 8, 8), 4 * 1 + 4 * 8 + 1)],
)
def test_messages_in_a_row_are_as_said(network: nn.Sequential, shape: tuple[int, ...], waits: int) -> None:
    assert max(on_shares(compile_model(network, shape), [weights(network)], encode(uniform((4, *shape))))[1]) == waits


# ---------------------------------------------------------------------- misuse
def test_shapes_are_checked_before_anything_is_computed() -> None:
    program, samples = compile_model(mlp(), (6,)), Clear(encode(uniform((4, 6))))
    model: dict[str, Any] = {name: Clear(tensor) for name, tensor in weights(mlp()).items()}
    engine = PlainEngine()
    with pytest.raises(ValueError, match="no models"):
        infer(engine, program, [], samples)
    with pytest.raises(ValueError, match=r"Samples must have shape \('N', 6\), got \(4, 5\)"):
        infer(engine, program, [model], samples.map(lambda t: t[:, :5]))
    # A bias of another shape would be broadcast.
    with pytest.raises(ValueError, match=r"must have 0\.bias of shape \(8,\)"):
        infer(engine, program, [model | {"0.bias": model["0.bias"].map(lambda t: t[:1])}], samples)
    with pytest.raises(ValueError, match=r"must have 2\.weight"):
        infer(engine, program, [model, {name: model[name] for name in model if name != "2.weight"}], samples)
