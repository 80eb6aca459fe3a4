"""CIFAR-10: 60,000 colour photographs of 32 × 32 pixels in ten classes, read with torchvision from a user's folder.

A. Krizhevsky (2009): *Learning Multiple Layers of Features from Tiny Images*. It is not shipped, and nothing is
downloaded here. Training and test files are put together and dealt to nodes and folds like the other data sets.

**The files are Python pickles**, and loading a pickle can run whatever is in it. torchvision opens them only if their
MD5 is the published one. That is enough against files that somebody else swapped on the way here: to forge a file with
a *given* MD5 nobody knows how. It is not enough against somebody who can write into the folder while it is read, who
could do the same to this package.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..errors import ConfigError
from .base import Config, Defaults
from .dealing import Rows
from .images import Images, Labels, Pixels, folder_of
from .networks import colour_cnn
from .torchvision_cpu import datasets

if TYPE_CHECKING:
    from torch import nn

SIDE = 32
WHERE = (
    "Set data-dir to the folder that holds cifar-10-batches-py, unpacked from cifar-10-python.tar.gz of "
    "https://www.cs.toronto.edu/~kriz/cifar.html: data_batch_1 to data_batch_5, test_batch and batches.meta"
)


class Cifar10(Images):
    """Airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck."""

    name: ClassVar[str] = "cifar10"
    shape: ClassVar[tuple[int, ...]] = (3, SIDE, SIDE)
    classes: ClassVar[int] = 10
    # Not tuned: the files were not at hand.
    defaults: ClassVar[Defaults] = Defaults(learning_rate=0.05, gradient_rate=0.5, batch_size=32, local_epochs=1)

    def labels(self, config: Config) -> tuple[Labels, None]:
        """Return the classes."""
        return _read(folder_of(config, WHERE))[1], None

    def pixels(self, rows: Rows, config: Config) -> Pixels:
        """Return images, channels first."""
        return _read(folder_of(config, WHERE))[0][rows]

    def model(self) -> nn.Module:
        """Make the network."""
        return colour_cnn(self.classes)


@lru_cache(maxsize=1)
def _read(folder: Path) -> tuple[Pixels, Labels]:
    kind = datasets().CIFAR10
    place = folder / kind.base_folder
    names = [name for name, _ in (*kind.train_list, *kind.test_list)] + [kind.meta["filename"]]
    missing = [name for name in names if not (place / name).is_file()]
    if missing:
        raise ConfigError(f"{place} lacks {', '.join(missing)}. {WHERE}")
    images, labels = [], []
    for train in (True, False):
        try:
            part = kind(str(folder), train=train, download=False)
            x, y = np.asarray(part.data), np.asarray(part.targets, np.int64)
        except RuntimeError as error:  # torchvision's word for another MD5
            raise ConfigError(
                f"A file in {place} has another MD5 than the published one, and was not opened: it is a pickle, which "
                f"could run any code. {WHERE}"
            ) from error
        except (OSError, ValueError, KeyError, TypeError, EOFError, UnpicklingError) as error:
            raise ConfigError(f"The files in {place} are not CIFAR-10's ({type(error).__name__}). {WHERE}") from None
        if x.dtype != np.uint8 or x.shape != (len(y), SIDE, SIDE, 3) or not len(y) or not 0 <= y.min() <= y.max() < 10:
            raise ConfigError(f"Images and labels in {place} do not belong together: {x.shape}, {y.shape}. {WHERE}")
        images.append(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
        labels.append(y)
    return np.concatenate(images), np.concatenate(labels)
