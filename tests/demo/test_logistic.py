"""The numpy reference against finite differences and against torch."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from flbc.demo.heart import FEATURE_NAMES, split
from flbc.demo.logistic import accuracy, clipped_sum, gradient, logistic_regression, loss
from flbc.errors import DependencyError

S = split("cleveland", 0)


def weights() -> Any:
    return np.random.default_rng(0).normal(size=len(FEATURE_NAMES) + 1)


def test_gradient_is_the_slope_of_the_loss() -> None:
    w, step = weights(), 1e-6
    for i in range(len(w)):
        e = np.eye(len(w))[i] * step
        slope = (loss(S.train_x, S.train_y, w + e) - loss(S.train_x, S.train_y, w - e)) / (2 * step)
        assert gradient(S.train_x, S.train_y, w)[i] == pytest.approx(slope, abs=1e-8)


def test_clipped_sum_bounds_and_limits() -> None:
    w = weights()
    np.testing.assert_allclose(
        clipped_sum(S.train_x, S.train_y, w, 1e9) / len(S.train_y), gradient(S.train_x, S.train_y, w)
    )
    assert np.linalg.norm(clipped_sum(S.train_x[:1], S.train_y[:1], w * 10, 0.5)) <= 0.5
    broken = S.train_x.copy()
    broken[3, 0] = np.nan
    keep = np.arange(len(broken)) != 3
    np.testing.assert_allclose(
        clipped_sum(broken, S.train_y, w, 1.0), clipped_sum(S.train_x[keep], S.train_y[keep], w, 1.0)
    )


def test_no_rows() -> None:
    empty = S.train_x[:0], S.train_y[:0], weights()
    assert not clipped_sum(*empty, 1.0).any()
    assert not gradient(*empty).any()
    assert loss(*empty) == 0
    assert np.isnan(accuracy(*empty))


@pytest.mark.parametrize("clip", [0.3, 2.0])
def test_torch_model_gives_the_same_sum(clip: float) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("opacus")
    from flbc.privacy import clipped_gradient_sum

    w = weights()
    model = logistic_regression(len(FEATURE_NAMES)).double()
    assert not any(value.any() for value in model.state_dict().values())
    model.load_state_dict({"linear.weight": torch.tensor(w[None, :-1]), "linear.bias": torch.tensor(w[-1:])})
    batch = torch.tensor(S.train_x), torch.tensor(S.train_y, dtype=torch.float64)
    got = clipped_gradient_sum(model, torch.nn.BCEWithLogitsLoss(reduction="none"), batch, clip)
    flat = np.concatenate([got["linear.weight"].ravel(), got["linear.bias"]])
    np.testing.assert_allclose(flat, clipped_sum(S.train_x, S.train_y, w, clip), rtol=1e-10, atol=1e-10)


def test_missing_torch_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(DependencyError, match=r"flbc\[torch\]"):
        logistic_regression(3)
