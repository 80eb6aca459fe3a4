r"""Poisson sampling of examples from the operating system's CSPRNG, and why it amplifies here.

Every example of a node is taken in a round with probability q, independently of the others and of other rounds. The
sum then says less about one record, which is in it only sometimes, *as long as nobody but the node learns who was
drawn*.

**The pair that dominates.** Neighbours: a record is replaced by a null record of zero gradient (zero-out). Fix the draw
of all other records. Let a be the integers of the sum without the record, a + v those with it, \|v\| <= s, the
sensitivity with rounding (:mod:`flbc.privacy.sensitivity`: the node rounds its sum once, after sampling; with the
record drawn, two rounded sums are compared as without sampling, and with the record left out the sums are the *same*
numbers, null record or not). The opened sum is ``(1 - q) N(a) + q N(a + v)`` for the data set with the record and
``N(a)`` for the one without. By joint convexity of the hockey-stick divergence the average over the others' draw is no
worse than the worst of them; along v this is the pair ((1 - q) N(0, z²) + q N(1, z²), N(0, z²)) after division by s,
the one of add/remove neighbours. Both orders of the pair count (:mod:`flbc.privacy.subsampled`). The server divides by
the public number q n, not by the number drawn, which would be data.

**Only this sampling counts.** Clients that a server samples (``fraction_train``) amplify nothing: the server chooses
them and knows who they are.

**Bias.** Records are drawn where a 64-bit uniform is below ``floor(q 2**64)``: with probability q' <= q, short of q by
less than 2**-64. No slack is needed: the pair at q' is the pair at q mixed with (N(0), N(0)), so its divergences are
smaller (joint convexity again).

What remains visible is how long training took, which depends on the number drawn; it is coarse and outside epsilon.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..errors import PrivacyConfigError
from .noise import take_bytes
from .spec import require_rate

_CHUNK = 1 << 20
"""Examples decided at once, to bound memory."""


def poisson_sample(count: int, rate: float, random_bytes: Callable[[int], bytes] = os.urandom) -> NDArray[np.int64]:
    """Draw each of ``count`` examples with probability ``rate``.

    Parameters
    ----------
    count : int
        Number of examples, >= 0.
    rate : float
        Probability q, in (0, 1].
    random_bytes : callable (default: os.urandom)
        ``random_bytes(n)`` returns n bytes of a CSPRNG. Anything else voids the amplification; tests pass known bytes.

    Returns
    -------
    ndarray of int64, shape (m,)
        Indices, rising; possibly none, and then zeros have to be summed. Keep them on the node, and their number too.

    Raises
    ------
    PrivacyConfigError
        If a value is out of range.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise PrivacyConfigError(f"count is {count!r}: pass the number of examples, an integer of 0 or more")
    require_rate(rate)
    if rate == 1:
        return np.arange(count, dtype=np.int64)
    limit = np.uint64(int(rate * 2.0**64))  # the product is exact, int() rounds down
    drawn = [np.empty(0, np.int64)]
    for start in range(0, count, _CHUNK):
        size = min(_CHUNK, count - start)
        words = np.frombuffer(take_bytes(random_bytes, 8 * size), dtype="<u8")
        drawn.append(np.flatnonzero(words < limit).astype(np.int64) + start)
    return np.concatenate(drawn)
