"""What a task's configuration means: the noise, the size of the sum, the layout of the vector."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..codec import Codec, Frame, Layout, VectorPlan
from ..codec.indices import index_set, selection_hash, unpack_indices
from ..encoding import unhex
from ..errors import CodecError, LayoutError, ProtocolError
from ..privacy.mechanism import GaussianMechanism
from ..roster import Roster
from ..round import RoundLabel
from ..schemes import Noise, SumSpec
from ..task import TaskConfig
from ..verification.policy import METRIC_BOUND, Policy
from .model_plan import ModelPlan

P = TypeVar("P", VectorPlan, ModelPlan)
#: Modes in which the server multiplies hidden integers by public weights: insecure ones.
WEIGHED_BY_SERVER = ("paper",)
#: Longest vector; far beyond what fits a node, it bounds what hostile terms can make it compute.
MAX_LENGTH = 2**40
_EXTRA = ("layout", "length", "floats", "max_abs", "weight_key", "max_multiplier")


def codec_terms(
    plan: VectorPlan | ModelPlan,
    mechanism: GaussianMechanism | None,
    weight_key: str = "num-examples",
    max_multiplier: int | None = None,
) -> dict[str, Any]:
    """Return the codec part of a task configuration: settings, and what nodes without the model must know.

    ``max_multiplier`` is None where weights are nobody's business; else they are the declared numbers of examples, at
    most this.
    """
    max_abs = plan.codec.max_abs if mechanism is None else mechanism.vector_bound
    if isinstance(plan, ModelPlan):
        max_abs = plan.max_abs
    fixed: dict[str, Any] = {"layout": plan.layout.hash.hex(), "length": plan.length, "max_abs": max_abs}
    fixed |= {"floats": plan.layout.count("float"), "weight_key": weight_key, "max_multiplier": max_multiplier}
    return {**plan.codec.to_dict(), **fixed}


def mechanism_of(config: TaskConfig) -> GaussianMechanism | None:
    """Return the task's noise mechanism, re-validated; None without differential privacy."""
    return None if config.privacy is None else GaussianMechanism.from_dict(config.privacy)


def client_noise(config: TaskConfig) -> Noise | None:
    """Return what draws a client's share of the noise; None where clients add none, or all of it for themselves."""
    mechanism = mechanism_of(config)
    return None if mechanism is None or mechanism.where != "clients" else mechanism.draw


def codec_of(config: TaskConfig) -> Codec:
    """Return the task's codec."""
    if not set(_EXTRA) <= set(config.codec):
        raise ProtocolError(f"The codec of the task configuration lacks one of {', '.join(_EXTRA)}")
    return Codec.from_dict({name: value for name, value in config.codec.items() if name not in _EXTRA})


def policy_of(config: TaskConfig) -> Policy:
    """Return what hidden models must satisfy; :class:`ProtocolError` if the task does not say."""
    terms = config.verification
    if terms is None or set(terms) != {"policy", "program"} or not isinstance(terms["policy"], dict):
        raise ProtocolError("The task configuration does not say what models are checked with")
    return Policy.from_dict(terms["policy"])


def program_of(config: TaskConfig) -> bytes:
    """Return the hash of the compiled model with which hidden models are checked."""
    policy_of(config)
    return unhex((config.verification or {}).get("program"), 32, "program")


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
    if not integers or type(multiplier) not in (int, type(None)) or not 0 <= floats <= length <= MAX_LENGTH:
        raise ProtocolError("The codec's length, floats, max_abs and max_multiplier must be integers that fit")
    if codec.compression is not None and mechanism is not None:
        raise ProtocolError("Compression and differential privacy do not go together")
    if codec.compression is not None and not floats:
        raise ProtocolError("A model without floating-point arrays has nothing to compress")
    if config.verification is not None:
        return _shared_spec(config, codec, length, floats, max_abs)
    agreed = (codec.max_abs, length) if mechanism is None else (mechanism.vector_bound, mechanism.dimension)
    if (max_abs, length) != agreed:
        raise ProtocolError("The task configuration contradicts itself: length or max_abs do not fit codec and privacy")
    if codec.compression is not None:
        length += codec.compression.kept(round_, floats) - floats
    tail = 0 if mechanism is None else mechanism.noise_tail(config.max_parties)
    factor = multiplier if multiplier is not None and config.mode in WEIGHED_BY_SERVER else 1
    return SumSpec(length, max_abs, config.max_parties, tail, factor)


def _shared_spec(config: TaskConfig, codec: Codec, length: int, floats: int, max_abs: int) -> SumSpec:
    """Return how large sums of checked models can get, which the checks bound."""
    policy = policy_of(config)
    if codec.compression is not None or config.privacy is not None or codec.max_examples is None:
        raise ProtocolError("Hidden models are checked without compression and privacy, and weights need a bound")
    weight = int(codec.max_examples)
    policy.check_size(floats, weight, config.max_parties)
    if length != floats + codec.max_metrics + 1 or max_abs != max(policy.change_bound, METRIC_BOUND, weight):
        raise ProtocolError("The task configuration contradicts itself: length or max_abs do not fit the policy")
    return SumSpec(length, max_abs, config.max_parties, 0, weight)


def check_frame(config: TaskConfig, frame: Frame) -> None:
    """Raise :class:`ProtocolError` unless a frame's largest weight is one that an honest server states.

    A client refuses, or asks for another frame, when its weight is larger. A server that could state any number would
    find the hidden weight by asking with one after the other.
    """
    if config.privacy is not None:
        return
    declared, stated = codec_of(config).max_examples, frame.max_weight
    if config.verification is not None and frame != Frame((), float(declared or 0)):
        raise ProtocolError("Models that are checked have one frame for the whole task, and this is another")
    if stated != declared if declared is not None else stated and math.frexp(stated)[0] != 0.5:
        raise ProtocolError("The frame's largest weight is neither the agreed one nor a power of two")


def multipliers(config: TaskConfig, roster: Roster) -> tuple[int, ...]:
    """Return the public factor of each party's vector in the sum, by roster index.

    1 but in the mode that does as ESB-FL prints it; there the declared number of examples (y), 0 for who declares none.
    """
    if config.codec["max_multiplier"] is None or config.mode not in WEIGHED_BY_SERVER:
        return (1,) * len(roster.parties)
    return tuple(party.examples for party in roster.parties)


def declared_weight(config: TaskConfig, examples: int) -> float | None:
    """Return the weight with which a party that declares so many examples encodes; None: the one it trained on.

    Weights are applied by the client, before rounding. Applied to rounded integers, as y in ESB-FL is, they would make
    the opened sum a knapsack: coordinates that are small beside the differences of the weights (marks, for one) could
    be read off for every single client.

    Raises
    ------
    CodecError
        If the party declares none, or more than the task was sized for.
    """
    largest = config.codec["max_multiplier"]
    if largest is None:
        return None
    if not 1 <= examples <= largest:
        raise CodecError(
            f"This task weighs updates by declared numbers of examples from 1 to {largest}, and this node declares "
            f"{examples or 'none'}; use SecureMod(examples=...) or `examples` in the roster, and start a new task"
        )
    return 1.0 if config.mode in WEIGHED_BY_SERVER else float(examples)


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


def model_plan(config: TaskConfig, layout: Layout) -> ModelPlan:
    """Return the plan of a node that shares its model; the errors are those of :func:`vector_plan`."""
    return _agreed(ModelPlan(layout, codec_of(config), policy_of(config)), config, layout)


def vector_plan(config: TaskConfig, layout: Layout) -> VectorPlan:
    """Return the plan of a node that has the model; :class:`LayoutError` if the model is not the agreed one."""
    return _agreed(VectorPlan(layout, codec_of(config), private=config.privacy is not None), config, layout)


def _agreed(plan: P, config: TaskConfig, layout: Layout) -> P:
    if layout.hash.hex() != config.codec["layout"] or plan.length != config.codec["length"]:
        raise LayoutError("The global model's arrays differ from those the task configuration commits to")
    return plan
