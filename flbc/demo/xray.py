"""Chest X-rays of children with and without pneumonia: ESB-FL's data set, from a folder that the user has.

D. Kermany, K. Zhang and M. Goldbaum (2018): *Labeled Optical Coherence Tomography (OCT) and Chest X-Ray Images for
Classification*, https://doi.org/10.17632/rscbjbr9sj.2, CC BY 4.0; in the form of P. Mooney's *Chest X-Ray Images
(Pneumonia)* on Kaggle. It is not shipped: 1.2 GB, and behind a login.

Three classes, as in the paper: normal, virus, bacteria; the last two are in the names of the files. Images become
greyscale and 200 × 200. The folders train, val and test are put together and dealt out anew (val has 16 images, and
test another mix of classes than train), so accuracies are not those of Kaggle's test folder.

A child may have several images: by the names of the files they stay together, on one node and in one fold. The example
unit of privacy protects an image; a child with k images has k times the epsilon. An image that cannot be read stops
the node, with privacy too: load a folder once before a run, so that this says nothing about an image during one.
"""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DependencyError
from .base import Config, Defaults
from .dealing import Rows
from .images import Images, Labels, Pixels
from .networks import dense_block

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn
    from torch.optim import Optimizer

SIDE = 200
CLASSES = ("normal", "virus", "bacteria")
PARTS = ("train", "val", "test")
SUFFIXES = (".jpeg", ".jpg", ".png")
LAYOUT = (
    'Get "Chest X-Ray Images (Pneumonia)" by Paul Mooney (CC BY 4.0) from '
    "https://www.kaggle.com/datasets/paultimothymooney/chest-xray-pneumonia, unpack it, and set data-dir to the folder "
    "that holds train/, val/ and test/, each with NORMAL/ and PNEUMONIA/; names of images in PNEUMONIA contain virus "
    "or bacteria"
)
_PATIENT = re.compile(r"person\d+(?=_)|(?:NORMAL2-)?IM-\d+(?=-)")

_log = logging.getLogger(__name__)


class XRay(Images):
    """Normal, virus or bacteria."""

    name: ClassVar[str] = "xray"
    shape: ClassVar[tuple[int, ...]] = (1, SIDE, SIDE)
    classes: ClassVar[int] = len(CLASSES)
    # Rate and batch are the paper's (section 7.1.2); it does not say how long a miner trains before it sends.
    defaults: ClassVar[Defaults] = Defaults(learning_rate=1e-4, gradient_rate=0.5, batch_size=2, local_epochs=1)
    # Per-example gradients of 200 × 200 maps take about 0.1 GB an image.
    chunk: ClassVar[int] = 4

    def labels(self, config: Config) -> tuple[Labels, NDArray[Any]]:
        """Return classes and patients, from the names of the files alone."""
        files = find(_folder(config))
        labels = np.array([CLASSES.index(_class_of(path)) for path in files], dtype=np.int64)
        return labels, np.array([_patient_of(path) for path in files])

    def pixels(self, rows: Rows, config: Config) -> Pixels:
        """Return images as bytes, 0 for black."""
        files = find(_folder(config))
        return np.stack([_image(files[row], files[row].stat().st_mtime_ns) for row in rows])[:, None]

    def model(self) -> nn.Module:
        """Make the dense block."""
        return dense_block(self.classes)

    def optimizer(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> Optimizer:
        """Adam: the paper names a rate and no optimiser, and at its 1e-4 plain SGD hardly moves."""
        import torch

        return torch.optim.Adam(parameters, lr=learning_rate)


def find(folder: Path) -> list[Path]:
    """Return all images, in the same order everywhere.

    Hidden files (``.DS_Store``) and files that are no images by their suffix are passed over.

    Raises
    ------
    ConfigError
        If a folder is missing, a class has no image, or an image of PNEUMONIA has no cause in its name.
    """
    found = []
    for part in PARTS:
        for kind in ("NORMAL", "PNEUMONIA"):
            place = folder / part / kind
            if not place.is_dir():
                raise ConfigError(f"{place} is not a folder. {LAYOUT}")
            names = sorted(path.name for path in place.iterdir() if not path.name.startswith("."))
            found += [place / name for name in names if name.lower().endswith(SUFFIXES)]
    unknown = [path for path in found if not _class_of(path)]
    if unknown:
        # Flower sends an error's text to the server, and a name may say who somebody is: names stay in the log.
        _log.error("flbc: these images name neither virus nor bacteria: %s", ", ".join(map(str, unknown[:10])))
        raise ConfigError(
            f"{len(unknown)} images of PNEUMONIA name neither virus nor bacteria, or both; this node's log says which. "
            f"{LAYOUT}"
        )
    for name in set(CLASSES) - {_class_of(path) for path in found}:
        raise ConfigError(f"{folder} has no image of class {name}. {LAYOUT}")
    return found


def _class_of(path: Path) -> str:
    """Return the class, empty if the name does not say it."""
    if path.parent.name == "NORMAL":
        return CLASSES[0]
    causes = [cause for cause in CLASSES[1:] if cause in path.name.lower()]
    return causes[0] if len(causes) == 1 else ""


def _patient_of(path: Path) -> str:
    """Return what the file's name says of the patient; the whole name if that is nothing.

    ``person7_virus_1.jpeg`` in train and ``person7_bacteria_2.jpeg`` in test need not be one child. Keeping them
    together is the safe side.
    """
    match = _PATIENT.match(path.name)
    return match[0] if match else f"{path.parent.parent.name}/{path.name}"


@lru_cache(maxsize=6000)  # all of Kaggle's 5,856 images: 234 MB
def _image(path: Path, _modified: int) -> NDArray[np.uint8]:
    """Return one image in greyscale, shape (200, 200)."""
    try:
        from PIL import Image
    except ImportError as error:
        raise DependencyError('X-rays are read with Pillow: pip install "flbc[demo]"') from error
    try:
        with Image.open(path, formats=("JPEG", "PNG")) as image:
            image.draft("L", (2 * SIDE, 2 * SIDE))  # JPEG: decode at a fraction of its size
            pixels = np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        _log.error("flbc: %s cannot be read: %s", path, error)
        raise ConfigError(
            f"An image cannot be read ({type(error).__name__}); this node's log says which. Unpack the archive again, "
            f"or remove the image. {LAYOUT}"
        ) from None
    return pixels


def _folder(config: Config) -> Path:
    folder = config.get("data-dir")
    if not folder:
        raise ConfigError(f"The X-rays need data-dir. {LAYOUT}")
    return Path(str(folder)).expanduser()
