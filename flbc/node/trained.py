"""A training result on the node: kept until the next round, and with compression what of it waits to be sent (S14)."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..codec import EncodedUpdate, Layout, VectorPlan
from ..codec.compression import Compression
from ..codec.sparsify import Carry, Residual, accumulate, give_back, split
from ..errors import ProtocolError
from ..roster import TRAIN_ROLE
from .memory import NodeMemory
from .ticket import Ticket


@dataclass(frozen=True, slots=True)
class Trained:
    """A training result as it stays on the node until the next round.

    Parameters
    ----------
    layout : Layout
        Of the global model.
    update : dict of str to ndarray
        ``new - global`` (float64 or int64), or the clipped gradient sum (example unit).
    weight : float
        Number of examples.
    metrics : dict
        Numbers or lists of numbers.
    compute_ms : int
        Training time in milliseconds.
    noise : ndarray of int64 or None (default: None)
        With local noise: what is added to the encoded update, the same in every attempt of the round. Several noised
        copies of one update would tell their mean.
    """

    layout: Layout
    update: dict[str, NDArray[Any]]
    weight: float
    metrics: dict[str, float | list[float]]
    compute_ms: int
    noise: NDArray[np.int64] | None = None

    def to_bytes(self) -> bytes:
        """Encode without pickle: a JSON header and arrays in .npy form."""
        names = list(self.update)
        fields = {"layout": self.layout.to_list(), "names": names, "weight": self.weight}
        fields |= {"noise": self.noise is not None}
        head = json.dumps({**fields, "metrics": self.metrics, "compute_ms": self.compute_ms}).encode()
        stream = io.BytesIO()
        stream.write(len(head).to_bytes(4, "big") + head)
        for array in (*self.update.values(), *(() if self.noise is None else (self.noise,))):
            np.save(stream, array, allow_pickle=False)
        return stream.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Trained:
        """Undo :meth:`to_bytes`."""
        stream = io.BytesIO(data)
        head = json.loads(stream.read(int.from_bytes(stream.read(4), "big")))
        update = {name: np.load(stream, allow_pickle=False) for name in head["names"]}
        noise = np.load(stream, allow_pickle=False) if head.get("noise") else None
        layout = Layout.from_list(head["layout"])
        return cls(layout, update, head["weight"], head["metrics"], head["compute_ms"], noise)


def gather(ticket: Ticket, trained: Trained, compression: Compression, memory: NodeMemory) -> None:
    """Add a round's update to what waits, once and before anything is sent."""
    label, layout = ticket.label, trained.layout
    stored = memory.carry(label.task)
    last = None if stored is None else Carry.from_bytes(stored)
    rest = Residual.empty(layout.count("float")) if last is None else last.after
    update = np.concatenate([trained.update[t.name].reshape(-1) for t in layout.of_kind("float")])
    waiting = accumulate(rest, update, compression, len(ticket.roster.with_role(TRAIN_ROLE)))
    memory.keep_carry(label.task, Carry(waiting, waiting, label.round).to_bytes())


def encode_waiting(
    ticket: Ticket, trained: Trained, plan: VectorPlan, indices: NDArray[np.int64], memory: NodeMemory
) -> tuple[EncodedUpdate, bytes]:
    """Encode the round's coordinates of everything that waits.

    Parameters
    ----------
    ticket : Ticket
        Of a task with compression.
    trained : Trained
    plan : VectorPlan
    indices : ndarray of int64
        The round's coordinates.
    memory : NodeMemory
        Holds what waits (:func:`gather`).

    Returns
    -------
    encoded : EncodedUpdate
    carry : bytes
        What this leaves to send, to be kept together with the answer.

    Raises
    ------
    ProtocolError
        If nothing was gathered for this round.
    """
    label, layout = ticket.label, trained.layout
    stored = memory.carry(label.task)
    last = None if stored is None else Carry.from_bytes(stored)
    if last is None or last.round != label.round:
        raise ProtocolError(f"This node has nothing gathered for round {label.round}; it lost it or never trained")
    waiting = last.before  # an earlier attempt's answer was not opened: one opening a round (S8)
    wanted, left = split(waiting, indices)
    arrays = {t.name: waiting.pending[place].reshape(t.shape) for t, place in layout.float_slices()}
    encoded = plan.encode({**trained.update, **arrays}, trained.weight, trained.metrics, ticket.frame, indices)
    left = give_back(left, indices, wanted, encoded.carried)
    return encoded, Carry(waiting, left, label.round).to_bytes()
