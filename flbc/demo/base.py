"""What the bundled app needs of a data set: rows for a node, a model, a loss, and defaults for training.

Public seeds alone decide who is trained on and who is tested (:mod:`flbc.demo.dealing`); a seed protects nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import DependencyError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn
    from torch.optim import Optimizer

Config = Mapping[str, Any]
"""Run-config, of which data sets read ``data-dir`` only."""


@dataclass(frozen=True, slots=True)
class Split:
    """Training and test rows of one node, in the form in which they are kept (images: bytes).

    Parameters
    ----------
    train_x, test_x : ndarray, shape (rows, *Dataset.shape)
    train_y, test_y : ndarray of int64, shape (rows,)
        Class of each row, 0 to ``Dataset.classes - 1``.
    """

    train_x: NDArray[Any]
    train_y: NDArray[np.int64]
    test_x: NDArray[Any]
    test_y: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Defaults:
    """Hyper-parameters of a data set, for run-config keys that are 0.

    Parameters
    ----------
    learning_rate : float
        Step of the local optimiser.
    gradient_rate : float
        Example unit: the server's step on the mean of the clipped gradients.
    batch_size : int
        Examples per local step; 0: all of them, so that an epoch is one step.
    local_epochs : int
        Passes over the node's training rows in a round.
    """

    learning_rate: float
    gradient_rate: float
    batch_size: int
    local_epochs: int


class Dataset(ABC):
    """A data set, dealt to nodes, with the model that is trained on it.

    Attributes
    ----------
    name : str
        In run-config: ``dataset``.
    shape : tuple of int
        Of one row.
    classes : int
        Number of classes.
    partitions : int or None
        Number of partitions; None: as many as there are training nodes.
    defaults : Defaults
        Hyper-parameters.
    chunk : int
        Examples that are worked on at once where that is a matter of memory, not of the result.
    """

    name: ClassVar[str]
    shape: ClassVar[tuple[int, ...]]
    classes: ClassVar[int]
    partitions: ClassVar[int | None] = None
    defaults: ClassVar[Defaults]
    chunk: ClassVar[int] = 64

    @abstractmethod
    def load(self, partition: int, partitions: int, fold: int, config: Config) -> Split:
        """Return the rows of one node; the same arguments always give the same rows.

        Parameters
        ----------
        partition : int
            Which part, 0 to ``partitions - 1``.
        partitions : int
            Number of parts.
        fold : int
            Which fifth of the part is held out for testing, 0 to 4. Over all folds every row is tested exactly once.
        config : mapping
            Run-config; ``data-dir`` says where files are, if they do not come with a package.

        Raises
        ------
        ConfigError
            If an argument is out of range, or files are missing or broken; says where to get them.
        """

    @abstractmethod
    def examples(self, partition: int, partitions: int, fold: int, config: Config) -> int:
        """Return the number of training rows that :meth:`load` would give, without reading more than that takes."""

    @abstractmethod
    def model(self) -> nn.Module:
        """Make the model; it maps inputs of shape (B, *shape) to what :meth:`losses` and :meth:`predict` take."""

    @abstractmethod
    def tensors(self, x: NDArray[Any], y: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Turn rows into inputs and targets: each row by itself, with public constants."""

    @abstractmethod
    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return one loss per example, in nats, shape (B,)."""

    @abstractmethod
    def predict(self, outputs: Tensor) -> Tensor:
        """Return the most likely class of each example, int64, shape (B,)."""

    def optimizer(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> Optimizer:
        """Return the optimiser of local training; it starts afresh every round. Here: SGD."""
        import torch

        return torch.optim.SGD(parameters, lr=learning_rate)

    def initial(self) -> dict[str, NDArray[Any]]:
        """Return the first global model by name in ``state_dict()``, the same in every run."""
        require_torch()
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2025)
            return {name: value.numpy() for name, value in self.model().state_dict().items()}


def require_torch() -> None:
    """Say what to install if torch is missing.

    Raises
    ------
    DependencyError
        If it is not installed.
    """
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise DependencyError('This demo model needs torch: pip install "flbc[torch]"') from error
