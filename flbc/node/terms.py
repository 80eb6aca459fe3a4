"""What a task's configuration means: the noise, the size of the sum, the layout of the vector."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..codec import Codec, Frame, Layout, VectorPlan
from ..codec.indices import index_set, selection_hash, unpack_indices
from ..errors import CodecError, LayoutError, ProtocolError
from ..privacy.mechanism import GaussianMechanism
from ..roster import Roster
from ..round import RoundLabel
from ..schemes import SumSpec
from ..task import TaskConfig

_EXTRA = ("layout", "length", "floats", "max_abs", "weight_key", "max_multiplier")


def codec_terms(
    plan: VectorPlan,
    mechanism: GaussianMechanism | None,
    weight_key: str = "num-examples",
    max_multiplier: int | None = None,
) -> dict[str, Any]:
    """Return the codec part of a task configuration: settings, and what nodes without the model must know.

    ``max_multiplier`` is None where weights are inside the sum; else updates are multiplied by their party's declared
    number of examples, at most this.
    """
    max_abs = plan.codec.max_abs if mechanism is None else mechanism.max_abs
    fixed: dict[str, Any] = {"layout": plan.layout.hash.hex(), "length": plan.length, "max_abs": max_abs}
    fixed |= {"floats": plan.layout.count("float"), "weight_key": weight_key, "max_multiplier": max_multiplier}
    return {**plan.codec.to_dict(), **fixed}


def mechanism_of(config: TaskConfig) -> GaussianMechanism | None:
    """Return the task's noise mechanism, re-validated; None without differential privacy."""
    return None if config.privacy is None else GaussianMechanism.from_dict(config.privacy)


def codec_of(config: TaskConfig) -> Codec:
    """Return the task's codec."""
    if not set(_EXTRA) <= set(config.codec):
        raise ProtocolError(f"The codec of the task configuration lacks one of {', '.join(_EXTRA)}")
    return Codec.from_dict({name: value for name, value in config.codec.items() if name not in _EXTRA})


def sum_spec(config: TaskConfig, round_: int = 1) -> SumSpec:
    """Return how large the task's sums can get in a round; with compression, lengths fall during the warm-up.

    Raises
    ------
    ProtocolError
        If the codec and the mechanism contradict each other.
    """
    codec, mechanism = codec_of(config), mechanism_of(config)
    length, floats, max_abs, multiplier = (
        config.codec[name] for name in ("length", "floats", "max_abs", "max_multiplier")
    )
    integers = all(type(number) is int for number in (length, floats, max_abs))
    if not integers or type(multiplier) not in (int, type(None)) or not 0 <= floats <= length:
        raise ProtocolError("The codec's length, floats, max_abs and max_multiplier must be integers that fit")
    if codec.compression is not None and mechanism is not None:
        raise ProtocolError("Compression and differential privacy do not go together")
    agreed = (codec.max_abs, length) if mechanism is None else (mechanism.max_abs, mechanism.dimension)
    if (max_abs, length) != agreed:
        raise ProtocolError("The task configuration contradicts itself: length or max_abs do not fit codec and privacy")
    if codec.compression is not None:
        length += codec.compression.kept(round_, floats) - floats
    tail = 0 if mechanism is None else mechanism.noise_tail()
    return SumSpec(length, max_abs, config.max_parties, tail, 1 if multiplier is None else multiplier)


def multipliers(config: TaskConfig, roster: Roster) -> tuple[int, ...]:
    """Return the public factor of each party's update in the sum, by roster index.

    1 where weights are inside the sum; else the declared number of examples (y in ESB-FL), 0 for who declares none.
    """
    if config.codec["max_multiplier"] is None:
        return (1,) * len(roster.parties)
    return tuple(party.examples for party in roster.parties)


def chosen_coordinates(config: TaskConfig, label: RoundLabel, frame: Frame) -> NDArray[np.int64] | None:
    """Return the float coordinates that a round sends, sorted; None without compression.

    Raises
    ------
    CodecError
        If the frame holds no selection, or one whose set is not the one that follows from task and round.
    """
    compression, floats = codec_of(config).compression, config.codec["floats"]
    if (compression is None) != (frame.selection is None):
        raise CodecError("A selection of coordinates and compression must come together")
    if compression is None or frame.selection is None:
        return None
    top = unpack_indices(frame.selection.top, floats, compression.ranked(label.round, floats), exactly=False)
    indices = index_set(label.round, floats, compression, top, label.task)
    if selection_hash(indices) != frame.selection.chosen:
        raise CodecError("The server sends another set of coordinates than follows from the round's public numbers")
    return indices


def vector_plan(config: TaskConfig, layout: Layout) -> VectorPlan:
    """Return the plan of a node that has the model; :class:`LayoutError` if the model is not the agreed one."""
    plan = VectorPlan(layout, codec_of(config), private=config.privacy is not None)
    if layout.hash.hex() != config.codec["layout"] or plan.length != config.codec["length"]:
        raise LayoutError("The global model's arrays differ from those the task configuration commits to")
    return plan
