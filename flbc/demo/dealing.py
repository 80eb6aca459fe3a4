"""Deal rows out to nodes and to folds: every class evenly, nobody's rows to two sides."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError

FOLDS = 5
Rows = NDArray[np.int64]


def deal(
    labels: NDArray[np.int64],
    partition: int,
    partitions: int,
    fold: int,
    *,
    groups: NDArray[Any] | None = None,
    seed: int = 2025,
) -> tuple[Rows, Rows]:
    """Return the indices of one partition's training rows, and of those held out in one fold.

    The groups of each class are shuffled, ordered by size, and dealt in turn to ``partitions * FOLDS`` piles. Within a
    class two piles differ by at most the rows of its largest group, because they are dealt from a falling sequence;
    without ``groups`` by at most one row, in each class and in total.

    Parameters
    ----------
    labels : ndarray of int64, shape (rows,)
        Classes.
    partition, partitions : int
        Which of how many parts.
    fold : int
        Which fifth of the part is held out, 0 to 4.
    groups : ndarray or None, shape (rows,)
        Rows of equal value stay together, in training or in test, on one node: pass the patient where one patient has
        several rows. A group is dealt with the class of its first row. None: each row by itself.
    seed : int (default: 2025)
        Seed of the shuffle. It decides who is tested, and protects nothing.

    Raises
    ------
    ConfigError
        If an argument is out of range, or there are too many partitions for every one to get rows on both sides.
    """
    if not 0 <= partition < partitions:
        raise ConfigError(
            f"Partition {partition} has no data: there are {partitions}, from 0 on; check partition-id and "
            "num-partitions in --node-config"
        )
    if not 0 <= fold < FOLDS:
        raise ConfigError(f"Fold {fold} is out of range: choose 0 to {FOLDS - 1}")
    if groups is None:
        groups = np.arange(len(labels))
    _, first, group_of, sizes = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    pile = np.empty(len(first), np.int64)
    rng, dealt = np.random.default_rng(seed), 0
    for value in np.unique(labels[first]):
        members = rng.permutation(np.flatnonzero(labels[first] == value))
        members = members[np.argsort(-sizes[members], kind="stable")]
        # Dealing goes on where the last class stopped, which keeps the piles equally large.
        pile[members] = (np.arange(len(members)) + dealt) % (partitions * FOLDS)
        dealt += len(members)
    piles = pile[group_of]
    mine, held_out = piles % partitions == partition, piles // partitions == fold
    train, test = np.flatnonzero(mine & ~held_out), np.flatnonzero(mine & held_out)
    if not len(train) or not len(test):
        raise ConfigError(
            f"{partitions} partitions are too many for {len(labels)} rows: a partition would have none to train on, or "
            "none to test on"
        )
    return train, test
