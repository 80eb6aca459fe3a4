"""With compression, what the server keeps over the rounds: which coordinates are due."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..codec import Frame, Layout
from ..codec.compression import Compression
from ..codec.indices import Scores, index_set, pack_indices, selection_hash
from ..codec.settings import Selection


@dataclass
class Progress:
    """Everything here is public: it follows from the sums that were opened.

    Parameters
    ----------
    compression : Compression
    size : int
        Float coordinates of the model.
    scores : Scores
    """

    compression: Compression
    size: int
    scores: Scores
    _made: tuple[int, Selection] | None = None

    @classmethod
    def fresh(cls, compression: Compression, size: int) -> Self:
        """Return the state before round 1."""
        return cls(compression, size, Scores.fresh(size))

    def frame(self, frame: Frame, server_round: int, task: bytes) -> Frame:
        """Return a frame with the round's selection, the same in all its attempts."""
        if self._made is None or self._made[0] != server_round:
            top = self.scores.top(server_round, self.compression.ranked(server_round, self.size))
            chosen = index_set(server_round, self.size, self.compression, top, task)
            selection = Selection(pack_indices(top, self.size), selection_hash(chosen))
            self._made = (server_round, selection)
        return replace(frame, selection=self._made[1])

    def opened(
        self, server_round: int, layout: Layout, mean: dict[str, NDArray[Any]], indices: NDArray[np.int64]
    ) -> None:
        """Take note of an opened sum: the mean update per array, and the coordinates it holds."""
        flat = np.concatenate([mean[tensor.name].reshape(-1) for tensor in layout.of_kind("float")])
        self.scores = self.scores.after(server_round, indices, flat[indices])
