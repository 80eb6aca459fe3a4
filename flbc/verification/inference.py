"""Inference on hidden weights and hidden samples, of several models in the same rounds of messages.

Weights, activations and logits are fixed point with 13 fractional bits. Products have 26 and are truncated, which is
off by one unit at most, or by something enormous if a product was too large: bound it first (:meth:`.Program.gain`).

The models are one axis in front: an activation of K models has shape (K, N, ...). Only products with weights are taken
model by model, which needs no messages; their parts are put together before they are truncated.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

import torch

from . import steps
from .engine import FRACTION, Bilinear, Engine, Linear, Value, concatenate, stack
from .program import Program, convolve
from .steps import Step


def infer(engine: Engine, program: Program, models: Sequence[Mapping[str, Value]], samples: Value) -> Any:
    """Return the logits of K models on the same samples.

    The number of messages in a row does not depend on K.

    Parameters
    ----------
    engine : Engine
        Three parties, or the clear.
    program : Program
    models : sequence of mapping of str to Value
        Parameters by name, with the program's shapes; 13 fractional bits.
    samples : Value, shape (N, *program.input_shape)
        13 fractional bits.

    Returns
    -------
    Value, shape (K, N, classes)
        13 fractional bits.

    Raises
    ------
    ValueError
        If there are no models, or shapes are not those of the program.
    """
    _check(program, models, samples)
    last = {slot: place for place, step in enumerate(program.steps) for slot in step.inputs}
    # Until the first weights it is one value for all models, with an axis of length one.
    slots: dict[int, Any] = {0: samples.map(lambda t: t[None])}
    for place, step in enumerate(program.steps):
        inputs = [slots[slot] for slot in step.inputs]
        for slot in step.inputs:
            if last[slot] == place:
                slots.pop(slot, None)
        slots[step.output] = _run(engine, step, models, inputs)
    return slots[program.steps[-1].output]


def _check(program: Program, models: Sequence[Mapping[str, Value]], samples: Value) -> None:
    if not models:
        raise ValueError("There are no models to run")
    if tuple(samples.shape[1:]) != program.input_shape:
        raise ValueError(f"Samples must have shape {('N', *program.input_shape)}, got {tuple(samples.shape)}")
    for model in models:
        for name, shape in program.parameters.items():
            if name not in model or tuple(model[name].shape) != shape:
                raise ValueError(f"Every model must have {name} of shape {shape}")


def _run(engine: Engine, step: Step, models: Sequence[Mapping[str, Value]], inputs: list[Any]) -> Any:
    """Compute one step; values have shape (K, N, ...), or (1, N, ...) if they are the same for all models."""
    x = inputs[0]
    match step:
        case steps.Linear():
            return _weighted(engine, lambda a, w: a @ w.T, step, models, x)
        case steps.Conv():
            return _weighted(engine, lambda a, w: convolve(a, w, step), step, models, x)
        case steps.Scale():
            factors = _per_channel(models, step.weight, len(x.shape))
            made = engine.truncate_part(engine.product(torch.mul, x, factors), FRACTION)
            return made + _per_channel(models, step.bias, len(x.shape))
        case steps.Relu():
            return engine.relu(x)
        case steps.MaxPool():
            return _largest(engine, stack([x.map(window) for window in _windows(step, x.shape)]))
        case steps.AvgPool():
            windows = _windows(step, x.shape)
            sums = x.map(lambda t: sum(window(t) for window in windows)).times(step.factor)
            return engine.truncate(sums, step.shift) if step.shift else sums
        case steps.Flatten():
            return x.map(lambda t: t.flatten(2))
        case steps.Add():
            return x + inputs[1]
        case _:
            raise ValueError(f"Inference does not know the step {step.op!r}")


def _weighted(
    engine: Engine, f: Bilinear, step: steps.Linear | steps.Conv, models: Sequence[Mapping[str, Value]], x: Any
) -> Any:
    """Multiply the activations of every model by its weights; 2 messages in a row for all of them."""
    shared = x.shape[0] == 1
    parts = [
        engine.product(f, x.map(lambda t, k=0 if shared else k: t[k]), model[step.weight])
        for k, model in enumerate(models)
    ]
    made = engine.truncate_part(torch.stack(parts) if len(parts) > 1 else parts[0][None], FRACTION)
    return made if step.bias is None else made + _per_channel(models, step.bias, len(made.shape))


def _per_channel(models: Sequence[Mapping[str, Value]], name: str, axes: int) -> Any:
    """Return a parameter of all models in the shape (K, 1, channels, 1, ...) of so many axes."""
    return stack([model[name] for model in models]).map(lambda t: t.reshape(len(models), 1, -1, *(1,) * (axes - 3)))


def _windows(step: steps.MaxPool | steps.AvgPool, shape: torch.Size) -> list[Linear]:
    """Return for each place in a window what takes the values there from all windows."""
    (height, width), (down, right) = step.kernel, step.stride
    rows, columns = shape[-2] - height + 1, shape[-1] - width + 1
    places = itertools.product(range(height), range(width))
    return [itemgetter((..., slice(i, i + rows, down), slice(j, j + columns, right))) for i, j in places]


def _largest(engine: Engine, values: Any) -> Any:
    """Return the largest along the first axis, by a tournament."""
    while (count := values.shape[0]) > 1:
        half = count // 2
        first, second = (values.map(itemgetter(part)) for part in (slice(half), slice(half, 2 * half)))
        rest = [values.map(itemgetter(slice(2 * half, None)))] if count % 2 else []
        larger = engine.maximum(first, second)
        values = concatenate([larger, *rest]) if rest else larger
    return values.map(lambda t: t[0])
