"""Deep Gradient Compression for a secure sum: send few coordinates a round, keep the rest for later.

Lin, Han, Mao, Wang and Dally, "Deep Gradient Compression", ICLR 2018 (DGC). There every client sends its own largest
coordinates. A secure sum adds vectors position by position, so all clients of a round must send the same coordinates,
and which ones may depend on public numbers only: a client's own choice would show where its update is large. The set
is chosen in :mod:`flbc.codec.indices`; this file is a client's half, which works for any set:

1. :func:`accumulate`: add the round's update to what is pending (momentum correction and local clipping as in DGC);
2. :func:`split`: take the chosen coordinates out; :func:`give_back` puts back what the codec could not carry;
3. :class:`Carry`: what a new attempt of the round starts from, and what the next round does.

What was sent plus what is pending is always the sum of what was added. What was sent in a round that did not count is
gone, as the whole update would be without compression: a value that left the node in one round must not leave it in
another, or two sums that differ in one client alone would show that client's values.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..crypto._checks import Secret
from ..errors import CodecError, NonFiniteError
from .compression import Compression

Floats = NDArray[np.float64]
IntVector = NDArray[np.int64]


@dataclass(frozen=True, eq=False, repr=False)
class Residual(Secret):
    """What a client has not sent yet. Made of its data: it stays on the node, and is neither printed nor pickled.

    Parameters
    ----------
    velocity : ndarray of float64, shape (size,)
        Momentum per coordinate; zeros without momentum.
    pending : ndarray of float64, shape (size,)
        What waits to be sent, in units of the update, flat over all float arrays in layout order.

    Raises
    ------
    CodecError
        If the arrays are not two vectors of one length; :class:`NonFiniteError` if they hold NaN or infinity.
    """

    velocity: Floats
    pending: Floats

    def __post_init__(self) -> None:
        for name in ("velocity", "pending"):
            array = getattr(self, name)
            if array.dtype != np.float64 or array.ndim != 1 or array.shape != self.pending.shape:
                raise CodecError("A residual holds two float64 vectors of one length")
            if not np.isfinite(array).all():
                # It would stay there for ever, and reach everybody through the sum.
                raise NonFiniteError("A residual must not hold NaN or infinity; lower the learning rate")
            view = array.view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)

    @classmethod
    def empty(cls, size: int) -> Self:
        """Return the residual before the first round."""
        return cls(np.zeros(size), np.zeros(size))

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return len(self.pending)

    def to_bytes(self) -> bytes:
        """Encode as two arrays in .npy form, without pickle; a velocity of zeros takes no room."""
        stream = io.BytesIO()
        velocity = self.velocity if self.velocity.any() else np.zeros(0)
        for array in (self.pending, velocity):
            np.save(stream, array.astype("<f8"), allow_pickle=False)
        return stream.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Undo :meth:`to_bytes`; :class:`CodecError` for anything else."""
        stream = io.BytesIO(data)
        pending, velocity = _read_vector(stream), _read_vector(stream)
        if stream.read(1):
            raise CodecError("The stored residual is followed by other bytes; delete it to start again without one")
        return cls(velocity if velocity.size else np.zeros_like(pending), pending)


def accumulate(residual: Residual, update: Floats, compression: Compression, parties: int) -> Residual:
    """Add a round's update: ``velocity = momentum * velocity + update``, ``pending = pending + velocity``.

    Parameters
    ----------
    residual : Residual
        As the last round left it (:meth:`Carry.settled`).
    update : ndarray of float64, shape (size,)
        ``new - global`` of all float arrays, flat, in layout order.
    compression : Compression
    parties : int
        Clients of the round, for the local clipping.

    Returns
    -------
    Residual
        Its ``pending`` is the ``v`` of DGC: everything that may be sent now.

    Raises
    ------
    CodecError
        If the sizes differ; :class:`NonFiniteError` for NaN or infinity.
    """
    if update.shape != residual.pending.shape:
        raise CodecError(f"The update has shape {update.shape}, the residual {residual.pending.shape}")
    if parties < 1:
        raise CodecError("A round has at least one client")
    if compression.clip is not None:
        norm = float(np.linalg.norm(update))
        # A NaN fails this comparison and is refused below.
        if norm > (limit := compression.clip / math.sqrt(parties)):
            update = update * (limit / norm)
    if not compression.momentum:
        return Residual(np.zeros_like(residual.velocity), residual.pending + update)
    velocity = compression.momentum * residual.velocity + update
    return Residual(velocity, residual.pending + velocity)


def split(residual: Residual, indices: IntVector) -> tuple[Floats, Residual]:
    """Take the chosen coordinates out.

    Parameters
    ----------
    residual : Residual
        With this round's update (:func:`accumulate`).
    indices : ndarray of int64, shape (count,)
        The round's index set, sorted and unique.

    Returns
    -------
    sent : ndarray of float64, shape (count,)
        Their pending values.
    left : Residual
        Zero there, in pending and in velocity: what was sent must not go on pushing (momentum factor masking, DGC,
        section 3.3).
    """
    sent = residual.pending[indices]
    velocity, pending = residual.velocity.copy(), residual.pending.copy()
    velocity[indices] = 0.0
    pending[indices] = 0.0
    return sent, Residual(velocity, pending)


def give_back(left: Residual, indices: IntVector, wanted: Floats, carried: Floats) -> Residual:
    """Put back what the codec did not carry: what exceeded its range, or was rounded away.

    Parameters
    ----------
    left : Residual
        From :func:`split`.
    indices : ndarray of int64, shape (count,)
    wanted : ndarray of float64, shape (count,)
        What :func:`split` took out.
    carried : ndarray of float64, shape (count,)
        What the integers that were really summed stand for, in the same unit.
    """
    pending = left.pending.copy()
    pending[indices] += wanted - carried
    return Residual(left.velocity, pending)


@dataclass(frozen=True, eq=False, repr=False)
class Carry(Secret):
    """What a round leaves on the node's disk.

    Parameters
    ----------
    before : Residual
        With this round's update, and nothing sent: another attempt of the round starts from it.
    after : Residual
        Without what was sent: the next round starts from it. The same as ``before`` until the round is answered.
    round : int
        Number of the round, from 1.
    """

    before: Residual
    after: Residual
    round: int

    def __post_init__(self) -> None:
        if self.before.size != self.after.size:
            raise CodecError("A carry holds two residuals of one size")
        if not 1 <= self.round < 2**63:
            raise CodecError("Rounds count from 1")

    def to_bytes(self) -> bytes:
        """Encode without pickle."""
        before = self.before.to_bytes()
        return self.round.to_bytes(8, "big") + len(before).to_bytes(8, "big") + before + self.after.to_bytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Undo :meth:`to_bytes`; :class:`CodecError` for anything else."""
        end = 16 + int.from_bytes(data[8:16], "big")
        number = int.from_bytes(data[:8], "big")
        return cls(Residual.from_bytes(data[16:end]), Residual.from_bytes(data[end:]), number)


def _read_vector(stream: io.BytesIO) -> Floats:
    """Read one little-endian float64 vector in .npy form, version 1.0, and take no room before the bytes are there."""
    try:
        version = np.lib.format.read_magic(stream)
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    except Exception:  # numpy evaluates the header as Python, which fails in many ways
        version, shape, dtype = (0, 0), (), np.dtype(np.void)
    left = stream.getbuffer().nbytes - stream.tell()
    if version != (1, 0) or dtype != np.dtype("<f8") or len(shape) != 1 or not 0 <= 8 * shape[0] <= left:
        raise CodecError("The stored residual is damaged; delete it to start again without one")
    return np.frombuffer(stream.read(8 * shape[0]), "<f8").astype(np.float64)
