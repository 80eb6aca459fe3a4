"""Data sets of images: bytes until they are trained on."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .base import Config, Dataset, Split
from .dealing import Rows, deal

if TYPE_CHECKING:
    from torch import Tensor

Labels = NDArray[np.int64]
Pixels = NDArray[np.uint8]


class Images(Dataset):
    """Images with one class each, dealt evenly to any number of nodes; pixels are scaled to 0 … 1."""

    @abstractmethod
    def labels(self, config: Config) -> tuple[Labels, NDArray[Any] | None]:
        """Return the class of every image, and the groups that must stay together (see :func:`deal`)."""

    @abstractmethod
    def pixels(self, rows: Rows, config: Config) -> Pixels:
        """Return some images by index, shape (rows, *shape)."""

    def load(self, partition: int, partitions: int, fold: int, config: Config) -> Split:
        """Return the images of one node."""
        labels, groups = self.labels(config)
        train, test = self.dealt(labels, groups, partition, partitions, fold)
        return Split(self.pixels(train, config), labels[train], self.pixels(test, config), labels[test])

    def examples(self, partition: int, partitions: int, fold: int, config: Config) -> int:
        """Return the number of training images; reads no pixels that :meth:`labels` does not read."""
        labels, groups = self.labels(config)
        return len(self.dealt(labels, groups, partition, partitions, fold)[0])

    def dealt(
        self, labels: Labels, groups: NDArray[Any] | None, partition: int, partitions: int, fold: int
    ) -> tuple[Rows, Rows]:
        """Return the indices of a node's training and test rows."""
        return deal(labels, partition, partitions, fold, groups=groups)

    def tensors(self, x: NDArray[Any], y: Labels) -> tuple[Tensor, Tensor]:
        """Scale bytes to 0 … 1."""
        import torch

        return torch.from_numpy(x).float().div_(255), torch.from_numpy(y)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy."""
        import torch

        return torch.nn.functional.cross_entropy(outputs, targets, reduction="none")

    def predict(self, outputs: Tensor) -> Tensor:
        """Return the class of the largest logit."""
        return outputs.argmax(dim=1)


def folder_of(config: Config, where: str) -> Path:
    """Return the folder of ``data-dir``; :class:`ConfigError`, with ``where`` to get the files, if none is set."""
    folder = config.get("data-dir")
    if not folder:
        raise ConfigError(f"This data set needs run-config data-dir. {where}")
    return Path(str(folder)).expanduser()
