"""Fashion-MNIST: 70,000 pictures of clothes in ten classes, from Debian's package ``dataset-fashion-mnist``.

H. Xiao, K. Rasul and R. Vollgraf (2017): *Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms*, MIT licence. The four files are gzipped IDX, the format of MNIST. Training and test files are put together
and dealt to nodes and folds like the other data sets, so accuracies are not those of the original test set.
"""

from __future__ import annotations

import gzip
import math
import zlib
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .base import Config
from .dealing import Rows
from .digits import SIDE, SmallImages
from .images import Labels, Pixels

FOLDER = Path("/usr/share/datasets/fashion-mnist")
FILES = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz",
         "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")  # fmt: skip
_WHERE = (
    "On Debian and Ubuntu: apt-get install dataset-fashion-mnist. Or download the four files of "
    "https://github.com/zalandoresearch/fashion-mnist and set run-config data-dir to their folder"
)
_LARGEST = 60_000 * SIDE * SIDE
"""Values in the largest of the files; a header that promises more is not believed."""


class Fashion(SmallImages):
    """T-shirt, trouser, pullover, dress, coat, sandal, shirt, sneaker, bag, ankle boot."""

    name: ClassVar[str] = "fashion"

    def labels(self, config: Config) -> tuple[Labels, None]:
        """Return the classes."""
        return _read(_folder(config))[1], None

    def pixels(self, rows: Rows, config: Config) -> Pixels:
        """Return images, light on black."""
        return _read(_folder(config))[0][rows]


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read a gzipped IDX file of bytes.

    The format: two zero bytes, 0x08 for bytes, the number of dimensions; each dimension in 4 bytes, big-endian; values.

    Parameters
    ----------
    path : Path
    dimensions : int
        How many dimensions the array must have.

    Raises
    ------
    ConfigError
        If the file is missing, or is not what its header says.
    """
    header = 4 + 4 * dimensions
    try:
        with gzip.open(path, "rb") as stream:
            data = stream.read(header + _LARGEST + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist. {_WHERE}") from None
    except (OSError, EOFError, zlib.error) as error:  # gzip.BadGzipFile is an OSError
        raise ConfigError(f"{path} cannot be read ({type(error).__name__}). {_WHERE}") from None
    if len(data) < header or data[:4] != bytes((0, 0, 8, dimensions)):
        raise ConfigError(f"{path} is not an IDX file of bytes in {dimensions} dimensions. {_WHERE}")
    shape = tuple(int.from_bytes(data[i : i + 4], "big") for i in range(4, header, 4))
    if math.prod(shape) != len(data) - header:
        raise ConfigError(f"{path} holds {len(data) - header} values, its header says {shape}. {_WHERE}")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def _folder(config: Config) -> Path:
    return Path(config.get("data-dir") or FOLDER).expanduser()


@lru_cache(maxsize=1)
def _read(folder: Path) -> tuple[Pixels, Labels]:
    images, labels = [], []
    for pictures, classes in (FILES[:2], FILES[2:]):
        x, y = read_idx(folder / pictures, 3), read_idx(folder / classes, 1)
        if x.shape != (len(y), SIDE, SIDE) or (len(y) and y.max() > 9):
            raise ConfigError(f"{folder / pictures} and {classes} do not belong together. {_WHERE}")
        images.append(x[:, None])
        labels.append(y.astype(np.int64))
    return np.concatenate(images), np.concatenate(labels)
