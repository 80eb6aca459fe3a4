"""What a task's configuration means: the noise, the size of the sum, the layout of the vector."""

from __future__ import annotations

from typing import Any

from ..codec import Codec, Layout, VectorPlan
from ..errors import LayoutError, ProtocolError
from ..privacy.mechanism import GaussianMechanism
from ..schemes import SumSpec
from ..task import TaskConfig

_EXTRA = ("layout", "length", "max_abs", "weight_key")


def codec_terms(
    plan: VectorPlan, mechanism: GaussianMechanism | None, weight_key: str = "num-examples"
) -> dict[str, Any]:
    """Return the codec part of a task configuration: settings, and what nodes without the model must know."""
    max_abs = plan.codec.max_abs if mechanism is None else mechanism.max_abs
    fixed = {"layout": plan.layout.hash.hex(), "length": plan.length, "max_abs": max_abs, "weight_key": weight_key}
    return {**plan.codec.to_dict(), **fixed}


def mechanism_of(config: TaskConfig) -> GaussianMechanism | None:
    """Return the task's noise mechanism, re-validated; None without differential privacy."""
    return None if config.privacy is None else GaussianMechanism.from_dict(config.privacy)


def codec_of(config: TaskConfig) -> Codec:
    """Return the task's codec."""
    if not set(_EXTRA) <= set(config.codec):
        raise ProtocolError(f"The codec of the task configuration lacks one of {', '.join(_EXTRA)}")
    return Codec.from_dict({name: value for name, value in config.codec.items() if name not in _EXTRA})


def sum_spec(config: TaskConfig) -> SumSpec:
    """Return how large the task's sums can get.

    Raises
    ------
    ProtocolError
        If the codec and the mechanism contradict each other.
    """
    codec, mechanism = codec_of(config), mechanism_of(config)
    length, max_abs = config.codec["length"], config.codec["max_abs"]
    if type(length) is not int or type(max_abs) is not int:
        raise ProtocolError("The codec's length and max_abs must be integers")
    agreed = (codec.max_abs, length) if mechanism is None else (mechanism.max_abs, mechanism.dimension)
    if (max_abs, length) != agreed:
        raise ProtocolError("The task configuration contradicts itself: length or max_abs do not fit codec and privacy")
    return SumSpec(length, max_abs, config.max_parties, 0 if mechanism is None else mechanism.noise_tail())


def vector_plan(config: TaskConfig, layout: Layout) -> VectorPlan:
    """Return the plan of a node that has the model; :class:`LayoutError` if the model is not the agreed one."""
    plan = VectorPlan(layout, codec_of(config), private=config.privacy is not None)
    if layout.hash.hex() != config.codec["layout"] or plan.length != config.codec["length"]:
        raise LayoutError("The global model's arrays differ from those the task configuration commits to")
    return plan
