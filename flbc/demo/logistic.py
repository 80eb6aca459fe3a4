"""Logistic regression, once in numpy (the reference and the baselines) and once in torch (what the apps train).

Weights are one vector ``w`` of shape (features + 1,): the coefficients, then the bias. The model is convex and tiny, so
what the tables show is the effect of encryption and noise, not of optimisation luck.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import DependencyError
from ..privacy.gradients import EXAMPLE_HEADROOM

if TYPE_CHECKING:
    from torch import nn

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


def scores(x: Floats, weights: Floats) -> Floats:
    """Log-odds of disease, shape (rows,)."""
    result: Floats = x @ weights[:-1] + weights[-1]
    return result


def loss(x: Floats, y: Labels, weights: Floats) -> float:
    """Mean cross-entropy in nats; 0 for no rows."""
    s = scores(x, weights)
    return float(np.mean(np.logaddexp(0, s) - y * s)) if len(y) else 0.0


def gradient(x: Floats, y: Labels, weights: Floats) -> Floats:
    """Gradient of :func:`loss`, shape (features + 1,); zeros for no rows."""
    mean: Floats = _per_example(x, y, weights).sum(axis=0) / max(len(y), 1)
    return mean


def clipped_sum(x: Floats, y: Labels, weights: Floats, clip_norm: float) -> Floats:
    """Sum of per-example gradients, each clipped to L2 norm ``clip_norm``, shape (features + 1,).

    The numpy twin of :func:`flbc.privacy.clipped_gradient_sum`, headroom included; a non-finite gradient counts as
    zero.
    """
    rows = _per_example(x, y, weights)
    norms = np.linalg.norm(rows, axis=1)
    usable = np.isfinite(norms)
    factor = np.minimum(1.0, clip_norm * EXAMPLE_HEADROOM / np.maximum(norms[usable], np.finfo(np.float64).tiny))
    total: Floats = factor @ rows[usable]
    return total


def accuracy(x: Floats, y: Labels, weights: Floats) -> float:
    """Share of rows whose more likely label is the true one; NaN for no rows."""
    return float(np.mean((scores(x, weights) > 0) == y)) if len(y) else float("nan")


def logistic_regression(features: int) -> nn.Module:
    """Make the torch model: ``linear.weight`` (1, features) and ``linear.bias`` (1,), both zero; output (B,) log-odds.

    Raises
    ------
    DependencyError
        If torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise DependencyError('this demo model needs torch: pip install "flbc[torch]"') from error

    class LogisticRegression(torch.nn.Module):
        """One linear layer."""

        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(features, 1)
            torch.nn.init.zeros_(self.linear.weight)
            torch.nn.init.zeros_(self.linear.bias)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Log-odds, shape (B,)."""
            output: torch.Tensor = self.linear(x).squeeze(-1)
            return output

    return LogisticRegression()


def _per_example(x: Floats, y: Labels, weights: Floats) -> Floats:
    """Gradients of the single losses, shape (rows, features + 1)."""
    s = scores(x, weights)
    residual = 0.5 * (1 + np.tanh(s / 2)) - y  # the sigmoid, without overflow
    return residual[:, None] * np.column_stack([x, np.ones(len(x))])
