"""Who masks with whom, and how many shares open a secret (Bell et al. 2020, SecAgg+, sections 3 and 4).

Up to 16 clients everybody masks with everybody, as in Bonawitz et al. 2017. With more, a client's neighbours are the
``k/2`` before and the ``k/2`` after it on a ring whose order is drawn from a public seed (a Harary graph on a random
permutation), with ``k = 2 ⌈2 log2 n⌉``: 28 of 100 clients, 40 of 1,000. The work of a client then grows with log n.

A client's *group* is itself and its neighbours; each member holds a share of the client's secrets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from hashlib import sha256

from ..errors import ConfigError

#: Largest number of clients that all mask with each other.
FULL_GRAPH = 16
#: Fraction of a group that must answer (S24): more than two thirds, so that f corrupt members of a group of g cannot
#: open both secrets of a client unless f >= 2t - g, a third of the group (:mod:`flbc.schemes.masking` has the count).
THRESHOLD = 2 / 3


def degree(clients: int) -> int:
    """Return how many neighbours each of so many clients has."""
    if clients <= FULL_GRAPH:
        return max(clients - 1, 0)
    return min(2 * math.ceil(2 * math.log2(clients)), clients - 1)


def neighbours(names: Sequence[str], seed: bytes) -> dict[str, tuple[str, ...]]:
    """Return every client's neighbours, sorted; the relation is symmetric.

    Parameters
    ----------
    names : sequence of str
        Different.
    seed : bytes
        Public; best one that nobody could choose.
    """
    k = degree(len(names))
    if k == len(names) - 1:
        return {name: tuple(sorted(set(names) - {name})) for name in names}
    ring = sorted(names, key=lambda name: sha256(seed + name.encode()).digest())
    half = [*range(-(k // 2), 0), *range(1, k // 2 + 1)]
    return {name: tuple(sorted(ring[(place + step) % len(ring)] for step in half)) for place, name in enumerate(ring)}


def threshold(group: int, fraction: float = THRESHOLD) -> int:
    """Return how many of a group's members must answer: more than ``fraction`` of them.

    Raises
    ------
    ConfigError
        If the fraction is below one half, where self-mask and pairwise shares could both be collected from honest
        members, or not below 1.
    """
    if not isinstance(fraction, float) or not 0.5 <= fraction < 1:
        raise ConfigError(f"The threshold is {fraction!r}: pass a fraction from 0.5 to below 1, for example 2/3")
    # As a ratio of small numbers: 2/3 of 9 must be 6 whatever float64 makes of it.
    return min(math.floor(Fraction(fraction).limit_denominator(1000) * group) + 1, group)
