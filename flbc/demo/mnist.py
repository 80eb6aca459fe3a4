"""MNIST in full: 70,000 handwritten digits, read with torchvision from a folder that the user has.

Y. LeCun, C. Cortes and C. J. C. Burges: *The MNIST database of handwritten digits*. It is not shipped, and nothing is
downloaded here: every node reads its own folder. Training and test files are put together and dealt to nodes and folds
like the other data sets, so accuracies are not those of the original test set; writers are not kept together, for the
files do not say who wrote what. The 5,000 digits of :mod:`flbc.demo.digits` come with a package.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np

from ..errors import ConfigError
from .base import Config
from .dealing import Rows
from .digits import SIDE, SmallImages
from .images import Labels, Pixels, folder_of
from .torchvision_cpu import datasets

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
"""Below ``data-dir``, in ``MNIST/raw``."""
WHERE = (
    "Set data-dir to the folder that holds MNIST/raw with the four unpacked files, as torchvision keeps them: on a "
    "computer with network, python -c \"import torchvision; torchvision.datasets.MNIST('DIR', download=True)\""
)


class Mnist(SmallImages):
    """The digits 0 to 9."""

    name: ClassVar[str] = "mnist"

    def labels(self, config: Config) -> tuple[Labels, None]:
        """Return the digits."""
        return _read(folder_of(config, WHERE))[1], None

    def pixels(self, rows: Rows, config: Config) -> Pixels:
        """Return images, white ink on black."""
        return _read(folder_of(config, WHERE))[0][rows]


@lru_cache(maxsize=1)
def _read(folder: Path) -> tuple[Pixels, Labels]:
    raw = folder / "MNIST" / "raw"
    missing = [name for name in FILES if not (raw / name).is_file()]
    if missing:
        raise ConfigError(f"{raw} lacks {', '.join(missing)}. {WHERE}")
    images, labels = [], []
    for train in (True, False):
        try:
            part = datasets().MNIST(str(folder), train=train, download=False)
            x, y = part.data.numpy(), part.targets.numpy()
        except (OSError, RuntimeError, ValueError, TypeError, KeyError, AssertionError) as error:
            raise ConfigError(f"The files in {raw} are not MNIST's ({type(error).__name__}). {WHERE}") from None
        if x.shape != (len(y), SIDE, SIDE) or not len(y) or y.max() > 9:
            raise ConfigError(f"Images and labels in {raw} do not belong together: {x.shape}, {y.shape}. {WHERE}")
        images.append(x[:, None])
        labels.append(y.astype(np.int64))
    return np.concatenate(images), np.concatenate(labels)
