"""What is attacked: MNIST digits, a small network, and the gradients that clients compute on their digits.

Images are MNIST's (:mod:`flbc.demo.digits`), the network is the demo's :func:`~flbc.demo.networks.lean_cnn` with 5,386
parameters, which all strategies can train. Everything is drawn from seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from flbc.demo.digits import Digits
from flbc.demo.networks import lean_cnn

CLASSES, SIDE = 10, 28
Parameters = dict[str, Tensor]


@dataclass(frozen=True)
class Images:
    """Images, shape (n, 1, 28, 28), pixels 0 to 1, and their digits, shape (n,)."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def part(self, rows: Any) -> Images:
        """Return some rows."""
        return Images(self.x[rows], self.y[rows])

    @cached_property
    def means(self) -> Tensor:
        """Mean image of each digit, shape (10, 1, 28, 28): the guess of an attacker who knows labels, and no more."""
        return torch.stack([self.x[self.y == digit].mean(dim=0) for digit in range(CLASSES)])


def digits(seed: int = 0) -> Images:
    """Return all 5,000 digits in an order drawn from a seed."""
    data = Digits()
    labels, _ = data.labels({})
    rows = np.random.default_rng([seed, 5000]).permutation(len(labels))
    return Images(*data.tensors(data.pixels(rows, {}), labels[rows]))


class Network:
    """A network as a function of its parameters, so that gradients of gradients are ordinary values.

    Parameters
    ----------
    make : callable (default: ``lean_cnn`` for ten digits)
        Returns the network, freshly initialised.
    seed : int (default: 0)
        Of its weights.
    """

    def __init__(self, make: Callable[[], nn.Module] = lambda: lean_cnn(CLASSES), seed: int = 0) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.module = make()
        self.start: Parameters = {name: value.detach().clone() for name, value in self.module.named_parameters()}

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(value.numel() for value in self.start.values())

    def logits(self, parameters: Parameters, x: Tensor) -> Tensor:
        """Return logits, shape (n, 10)."""
        found: Tensor = functional_call(self.module, parameters, (x,))
        return found

    def loss(self, parameters: Parameters, x: Tensor, y: Tensor) -> Tensor:
        """Return the mean cross-entropy of a batch."""
        return nn.functional.cross_entropy(self.logits(parameters, x), y)

    def gradient(self, parameters: Parameters, x: Tensor, y: Tensor) -> Tensor:
        """Return the gradient of a batch's mean loss, flat."""
        return flat(grad(self.loss)(parameters, x, y))

    def each(self, parameters: Parameters, images: Images, block: int = 500) -> Tensor:
        """Return every image's own gradient, shape (n, size)."""
        one = vmap(lambda x, y: self.gradient(parameters, x[None], y[None]))
        return torch.cat([one(images.x[i : i + block], images.y[i : i + block]) for i in range(0, len(images), block)])

    def losses(self, parameters: Parameters, images: Images) -> NDArray[np.float64]:
        """Return every image's loss."""
        with torch.no_grad():
            found = nn.functional.cross_entropy(self.logits(parameters, images.x), images.y, reduction="none")
        return found.double().numpy()

    def accuracy(self, parameters: Parameters, images: Images) -> float:
        """Return the share of images that are recognised."""
        with torch.no_grad():
            return float((self.logits(parameters, images.x).argmax(dim=1) == images.y).float().mean())

    def split(self, vector: Any) -> dict[str, NDArray[np.float64]]:
        """Cut a flat vector into arrays by parameter name."""
        sizes = np.cumsum([value.numel() for value in self.start.values()])[:-1]
        parts = np.split(np.asarray(vector, np.float64), sizes)
        return {
            name: part.reshape(tuple(value.shape))
            for (name, value), part in zip(self.start.items(), parts, strict=True)
        }

    def moved(self, parameters: Parameters, change: Any) -> Parameters:
        """Return parameters plus a flat change."""
        parts = self.split(change)
        return {name: value + torch.from_numpy(parts[name]).float() for name, value in parameters.items()}


def softmax_regression() -> nn.Module:
    """Make one linear layer, the model that Fredrikson et al. inverted; 7,850 parameters."""
    return nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, CLASSES))


def flat(arrays: Parameters) -> Tensor:
    """Join arrays into one vector."""
    return torch.cat([value.reshape(-1) for value in arrays.values()])


def clipped(gradients: Tensor, norm: float) -> Tensor:
    """Scale rows whose norm is larger down to ``norm``, as differentially private clients do."""
    return gradients * (norm / gradients.norm(dim=1, keepdim=True)).clamp(max=1)


# ---------------------------------------------------------------------- how good a reconstruction is
def psnr(guess: Tensor, truth: Tensor) -> float:
    """Return the peak signal-to-noise ratio in dB of images with pixels 0 to 1."""
    return float(-10 * torch.log10(((guess - truth) ** 2).mean().clamp(min=1e-12)))


def ssim(guess: Tensor, truth: Tensor) -> float:
    """Return the structural similarity, 1 for equal images.

    Z. Wang et al. 2004, *Image Quality Assessment: From Error Visibility to Structural Similarity*, equation 13, with
    flat windows of 7 × 7 pixels.
    """

    def mean(x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(x[None], 7, stride=1)[0]

    a, b = guess, truth
    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    c1, c2 = 0.01**2, 0.03**2
    return float(((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))).mean())
