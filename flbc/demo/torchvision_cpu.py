"""torchvision beside a CPU build of torch.

PyPI's torchvision wheel for Linux has compiled operators that are linked to CUDA. Beside a torch without CUDA they do
not load, which would be no loss, but ``import torchvision`` then fails: it describes two of these operators to torch,
which has never heard of them. Declaring the two is enough for data sets, transforms and models; calling them raises
``RuntimeError`` as torchvision intends.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from ..errors import DependencyError

if TYPE_CHECKING:
    from torch.library import Library

_OPERATORS = ("nms", "qnms")
_SCHEMA = "{}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def datasets() -> ModuleType:
    """Return ``torchvision.datasets``.

    Raises
    ------
    DependencyError
        If torch or torchvision is not installed, or they do not go together.
    """
    try:
        declare_operators()
        import torchvision.datasets
    except (ImportError, RuntimeError) as error:
        raise DependencyError(
            f"This data set is read with torchvision, which cannot be imported ({type(error).__name__}): "
            'pip install "flbc[torch,demo]"'
        ) from error
    module: ModuleType = torchvision.datasets
    return module


@lru_cache(maxsize=1)
def declare_operators() -> Library | None:
    """Declare torchvision's operators if its own do not load and torch has no CUDA; once per process.

    Returns
    -------
    Library or None
        What torch forgets once it is dropped; so it is kept here. None if nothing had to be declared.
    """
    import torch

    if torch.version.cuda is not None or "torchvision" in sys.modules:
        return None
    spec = find_spec("torchvision")
    if spec is None or _own_operators(Path(folder) for folder in spec.submodule_search_locations or ()):
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in _OPERATORS:
        if not hasattr(torch.ops.torchvision, name):
            library.define(_SCHEMA.format(name))  # type: ignore[no-untyped-call]
    return library


def _own_operators(folders: Iterable[Path]) -> bool:
    """Load torchvision's own operators, as it would itself; tell whether they are there."""
    import torch

    for folder in folders:
        for path in sorted((*folder.glob("_C*.so"), *folder.glob("_C*.pyd"))):
            try:
                torch.ops.load_library(path)  # type: ignore[no-untyped-call]
            except OSError:
                continue
    return all(hasattr(torch.ops.torchvision, name) for name in _OPERATORS)
