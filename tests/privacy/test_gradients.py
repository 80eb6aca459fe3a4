"""Clipped per-example sums against a plain loop, and every way to get them wrong."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from flbc.errors import DependencyError, PrivacyConfigError
from flbc.privacy import clipped_gradient_sum
from flbc.privacy.gradients import EXAMPLE_HEADROOM

torch = pytest.importorskip("torch")
pytest.importorskip("opacus")
nn = torch.nn
LOSS = nn.CrossEntropyLoss(reduction="none")


class Scaled(nn.Module):
    """A home-made layer, for which Opacus has no rule (functorch takes over)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([0.5, 1.5, -1.0]))

    def forward(self, x: Any) -> Any:
        return x * self.scale


def models() -> dict[str, tuple[Any, tuple[int, ...]]]:
    torch.manual_seed(3)
    conv = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 25, 3)
    )
    return {
        "linear": (nn.Linear(6, 3), (6,)),
        "mlp": (nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 3)), (6,)),
        "conv": (conv, (1, 5, 5)),
        "custom": (nn.Sequential(nn.Linear(6, 3), Scaled()), (6,)),
    }


def data(shape: tuple[int, ...], n: int = 13) -> tuple[Any, Any]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(n, *shape, generator=generator) * 2, torch.randint(0, 3, (n,), generator=generator)


def naive(model: Any, batch: tuple[Any, Any], clip: float) -> dict[str, Any]:
    total = {name: np.zeros(p.shape) for name, p in model.named_parameters() if p.requires_grad}
    for x, y in zip(*batch, strict=True):
        model.zero_grad()
        LOSS(model(x[None]), y[None]).sum().backward()
        row = {name: p.grad.double().numpy() for name, p in model.named_parameters() if p.requires_grad}
        norm = np.sqrt(sum((g**2).sum() for g in row.values()))
        for name, g in row.items():
            total[name] += g * min(1.0, clip * EXAMPLE_HEADROOM / norm)
    model.zero_grad()
    return total


def norm(sums: dict[str, Any]) -> float:
    return float(np.sqrt(sum((g**2).sum() for g in sums.values())))


def minus(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    return {name: a[name] - b[name] for name in a}


@pytest.mark.parametrize("name", ["linear", "mlp", "conv", "custom"])
@pytest.mark.parametrize("clip", [0.5, 2.0, 1e6])
def test_equals_a_loop_over_single_examples(name: str, clip: float) -> None:
    model, shape = models()[name]
    batch = data(shape)
    got = clipped_gradient_sum(model, LOSS, batch, clip)
    for key, value in naive(model, batch, clip).items():
        assert got[key].dtype == np.float64
        np.testing.assert_allclose(got[key], value, rtol=2e-5, atol=2e-5)
    assert set(got) <= set(model.state_dict())


@pytest.mark.parametrize("max_batch", [1, 4, 13, 100])
def test_micro_batches_do_not_change_the_result(max_batch: int) -> None:
    model, shape = models()["conv"]
    whole = clipped_gradient_sum(model.double(), LOSS, (data(shape)[0].double(), data(shape)[1]), 1.0)
    parts = clipped_gradient_sum(model, LOSS, (data(shape)[0].double(), data(shape)[1]), 1.0, max_batch=max_batch)
    for key in whole:
        np.testing.assert_allclose(parts[key], whole[key], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["mlp", "conv"])
def test_nulling_one_record_moves_the_sum_by_at_most_the_clip(name: str) -> None:
    model, shape = models()[name]
    x, y = data(shape)
    full = clipped_gradient_sum(model, LOSS, (x, y), 0.7)
    for i in range(len(x)):
        keep = [j for j in range(len(x)) if j != i]
        without = clipped_gradient_sum(model, LOSS, (x[keep], y[keep]), 0.7)
        assert norm(minus(full, without)) <= 0.7
    assert norm(clipped_gradient_sum(model, LOSS, (x[:1], y[:1]), 1e-3)) <= 1e-3


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e38])
def test_a_non_finite_example_counts_as_zero(bad: float) -> None:
    model, shape = models()["mlp"]
    x, y = data(shape)
    broken = x.clone()
    broken[4] = bad
    keep = [j for j in range(len(x)) if j != 4]
    got = clipped_gradient_sum(model, LOSS, (broken, y), 1.0)
    expected = clipped_gradient_sum(model, LOSS, (x[keep], y[keep]), 1.0)
    assert all(np.isfinite(value).all() for value in got.values())
    assert norm(minus(got, expected)) <= (1e-5 if bad != 1e38 else 1.0)


def test_empty_batch_gives_zeros() -> None:
    model, shape = models()["conv"]
    got = clipped_gradient_sum(model, LOSS, (torch.zeros(0, *shape), torch.zeros(0, dtype=torch.long)), 1.0)
    assert set(got) == {name for name, _ in model.named_parameters()}
    assert norm(got) == 0


def test_frozen_and_unused_parameters() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 3))
    model[0].weight.requires_grad_(False)
    model.register_parameter("unused", nn.Parameter(torch.ones(2)))
    got = clipped_gradient_sum(model, LOSS, data((6,)), 1.0)
    assert set(got) == {"0.bias", "1.weight", "1.bias", "unused"}
    assert norm({"unused": got["unused"]}) == 0
    for p in model.parameters():
        p.requires_grad_(False)
    with pytest.raises(PrivacyConfigError, match="no trainable"):
        clipped_gradient_sum(model, LOSS, data((6,)), 1.0)


@pytest.mark.parametrize("fails", [False, True])
def test_leaves_the_model_as_it_was(fails: bool) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), Scaled8(), nn.Linear(8, 3)).eval()
    model[1].train()
    model[0].bias.grad = torch.ones(8)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def loss(outputs: Any, targets: Any) -> Any:
        if fails:
            raise RuntimeError("the user's own mistake")
        return LOSS(outputs, targets)

    if fails:
        with pytest.raises(RuntimeError, match="own mistake"):
            clipped_gradient_sum(model, loss, data((6,)), 1.0)
    else:
        clipped_gradient_sum(model, loss, data((6,)), 1.0)
    assert [m.training for m in model.modules()] == [False, False, True, False, False]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(model[0].bias.grad, torch.ones(8))
    assert model[3].weight.grad is None
    leftovers = {"grad_sample", "activations", "_forward_counter", "autograd_grad_sample_hooks", "max_batch_len"}
    for thing in (*model.modules(), *model.parameters()):
        assert not leftovers & set(vars(thing))
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._backward_hooks
    clipped_gradient_sum(model, LOSS, data((6,)), 1.0)


class Scaled8(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8))

    def forward(self, x: Any) -> Any:
        return x * self.scale


@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_is_refused(affine: bool) -> None:
    model = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3, affine=affine))
    with pytest.raises(PrivacyConfigError, match=r"\['1'\].*GroupNorm"):
        clipped_gradient_sum(model, LOSS, data((6,)), 1.0)


def test_other_layers_that_opacus_refuses() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(6, 3, batch_first=True)

    with pytest.raises(PrivacyConfigError, match="DPLSTM"):
        clipped_gradient_sum(Recurrent(), LOSS, data((6,)), 1.0)


def test_wrong_losses_batches_and_settings() -> None:
    model, shape = models()["linear"]
    x, y = data(shape)
    with pytest.raises(PrivacyConfigError, match='reduction="none"'):
        clipped_gradient_sum(model, nn.CrossEntropyLoss(), (x, y), 1.0)
    with pytest.raises(PrivacyConfigError, match="one per example"):
        clipped_gradient_sum(model, LOSS, (x, y[:-1]), 1.0)
    with pytest.raises(PrivacyConfigError, match="clip_norm"):
        clipped_gradient_sum(model, LOSS, (x, y), 0.0)
    with pytest.raises(PrivacyConfigError, match="max_batch"):
        clipped_gradient_sum(model, LOSS, (x, y), 1.0, max_batch=0)


def test_an_already_hooked_model_is_refused() -> None:
    from opacus.grad_sample import GradSampleModule

    with pytest.raises(PrivacyConfigError, match="already hooked"):
        clipped_gradient_sum(GradSampleModule(nn.Linear(6, 3)), LOSS, data((6,)), 1.0)


@pytest.mark.parametrize("package", ["torch", "opacus.grad_sample"])
def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DependencyError, match=r"flbc\[torch\]"):
        clipped_gradient_sum(None, LOSS, (None, None), 1.0)  # type: ignore[arg-type]
