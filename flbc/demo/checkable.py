"""Data sets for ``Verified``: a network that verifiers can compute on shares, and rows that no client trains on.

Each of the three verifiers gets about 80 rows of its own, dealt before the clients'; nobody is tested on them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .base import Config
from .dealing import Rows, deal
from .digits import Digits, SmallImages
from .fashion import Fashion
from .images import Labels, Pixels
from .networks import lean_cnn

if TYPE_CHECKING:
    from torch import nn

SEATS = 3
SAMPLES = 80
"""Validation rows of each verifier, or a few more."""
_SEED = 80


class Checkable(SmallImages):
    """Mixin that changes the network, and sets rows aside. Rows are dealt one by one: no group is kept together."""

    def model(self) -> nn.Module:
        """Make the lean network."""
        return lean_cnn(self.classes)

    def dealt(
        self, labels: Labels, groups: NDArray[Any] | None, partition: int, partitions: int, fold: int
    ) -> tuple[Rows, Rows]:
        """Deal what the verifiers leave."""
        taken = np.concatenate([self._aside(labels, seat) for seat in range(SEATS)])
        rest = np.setdiff1d(np.arange(len(labels)), taken)
        train, test = deal(labels[rest], partition, partitions, fold)
        return rest[train], rest[test]

    def validation(self, seat: int, config: Config) -> tuple[Pixels, Labels]:
        """Return the rows of one verifier, 0 to 2.

        Raises
        ------
        ConfigError
            If there is no such seat.
        """
        if not 0 <= seat < SEATS:
            raise ConfigError(f"Verifier {seat} has no data: there are {SEATS}, from 0 on; check its partition-id")
        labels, _ = self.labels(config)
        rows = self._aside(labels, seat)
        return self.pixels(rows, config), labels[rows]

    @staticmethod
    def _aside(labels: Labels, seat: int) -> Rows:
        """Return the indices of a verifier's rows: one small part of many, both sides of it."""
        parts = max(len(labels) // SAMPLES, SEATS)
        return np.sort(np.concatenate(deal(labels, seat, parts, 0, seed=_SEED)))


class CheckableDigits(Checkable, Digits):
    """MNIST's digits 0 to 9."""


class CheckableFashion(Checkable, Fashion):
    """Clothes in ten classes."""


CHECKABLE: dict[str, Checkable] = {data.name: data for data in (CheckableDigits(), CheckableFashion())}


def checkable(name: str) -> Checkable:
    """Return a data set for ``Verified`` by name.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    if name not in CHECKABLE:
        raise ConfigError(
            f"Run-config dataset = {name!r} has no network that verifiers can compute on shares; choose one of "
            f"{', '.join(CHECKABLE)}"
        )
    return CHECKABLE[name]
