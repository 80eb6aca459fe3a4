"""The bundled app's data sets by name: ``heart``, ``digits``, ``fashion``, ``mnist``, ``cifar10``, ``xray``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from . import heart
from .base import Config, Dataset, Defaults, Split
from .cifar import Cifar10
from .digits import Digits
from .fashion import Fashion
from .logistic import logistic_regression
from .mnist import Mnist
from .xray import XRay

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["DATASETS", "Dataset", "Defaults", "Heart", "Split", "dataset"]


class Heart(Dataset):
    """Heart disease at four hospitals, a partition each; logistic regression in full batches."""

    name: ClassVar[str] = "heart"
    shape: ClassVar[tuple[int, ...]] = (len(heart.FEATURE_NAMES),)
    classes: ClassVar[int] = 2
    partitions: ClassVar[int | None] = len(heart.HOSPITALS)
    # See baselines.Settings for how they were chosen.
    defaults: ClassVar[Defaults] = Defaults(learning_rate=1.0, gradient_rate=1.0, batch_size=0, local_epochs=1)

    def load(self, partition: int, partitions: int, fold: int, config: Config) -> Split:
        """Return the patients of one hospital."""
        if not 0 <= partition < len(heart.HOSPITALS):
            raise ConfigError(
                f"Partition {partition} has no data: the demo has {len(heart.HOSPITALS)} hospitals, from 0"
            )
        rows = heart.split(heart.HOSPITALS[partition], fold)
        return Split(rows.train_x, rows.train_y, rows.test_x, rows.test_y)

    def examples(self, partition: int, partitions: int, fold: int, config: Config) -> int:
        """Return the number of training patients."""
        return len(self.load(partition, partitions, fold, config).train_y)

    def model(self) -> nn.Module:
        """Make the linear model in float64."""
        return logistic_regression(len(heart.FEATURE_NAMES)).double()

    def initial(self) -> dict[str, NDArray[Any]]:
        """Return zeros, without loading torch."""
        return {"linear.weight": np.zeros((1, len(heart.FEATURE_NAMES))), "linear.bias": np.zeros(1)}

    def tensors(self, x: NDArray[Any], y: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return features and labels in float64."""
        import torch

        return torch.from_numpy(x), torch.from_numpy(y).double()

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Binary cross-entropy of log-odds."""
        import torch

        return torch.nn.functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none")

    def predict(self, outputs: Tensor) -> Tensor:
        """Return 1 where disease is more likely than not."""
        return (outputs > 0).long()


DATASETS: dict[str, Dataset] = {data.name: data for data in (Heart(), Digits(), Fashion(), Mnist(), Cifar10(), XRay())}


def dataset(name: str) -> Dataset:
    """Return a data set by name.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    if name not in DATASETS:
        raise ConfigError(f"Run-config dataset = {name!r} is unknown; choose one of {', '.join(DATASETS)}")
    return DATASETS[name]
