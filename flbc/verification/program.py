"""Compiled models: what nodes must know of a network to run it on weights that they cannot see.

A program is public and has no weights. All nodes and the server compile the same module and compare
:attr:`Program.hash` before they compute. BatchNorm is a scale and a shift, as clients fold it (:mod:`.folding`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ..crypto.signing import keccak256
from ..errors import ConfigError, LayoutError
from . import steps
from .engine import FRACTION
from .folding import summed
from .steps import Step
from .tracing import trace

#: What truncation and the roundings of weights may add to a magnitude: two units.
_SLACK = 2.0 * 2.0**-FRACTION


@dataclass(frozen=True)
class Program:
    """A network as steps.

    Parameters
    ----------
    steps : tuple of Step
        Step i fills slot i + 1; slot 0 is the input, the last slot holds the logits.
    input_shape : tuple of int
        Of one sample.
    classes : int
        Length of the logits of one sample.
    parameters : dict of str to tuple of int
        Shapes of all parameters in the order of the state dict. ``weight`` and ``bias`` of a BatchNorm are its scale
        and shift.
    """

    steps: tuple[Step, ...]
    input_shape: tuple[int, ...]
    classes: int
    parameters: dict[str, tuple[int, ...]]

    @cached_property
    def hash(self) -> bytes:
        """keccak-256 of the canonical JSON form, 32 bytes: equal for modules that compute alike."""
        return keccak256(json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":")).encode())

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "classes": self.classes,
            "fraction": FRACTION,
            "input_shape": list(self.input_shape),
            "parameters": [[name, list(shape)] for name, shape in self.parameters.items()],
            "steps": [step.to_dict() for step in self.steps],
        }

    def gain(self, bounds: Mapping[str, torch.Tensor], largest_input: float) -> float:
        """Return how large integers can become during inference, in bits.

        Nothing is known of weights and inputs but their magnitudes, so signs are taken as bad as they can be.

        Parameters
        ----------
        bounds : mapping of str to Tensor
            Largest magnitude of every coordinate of every parameter, public.
        largest_input : float
            Largest magnitude of a sample's coordinate.

        Returns
        -------
        float
            Binary logarithm of the largest magnitude that any accumulator before its truncation (fixed point with 26
            fractional bits) or any difference that is compared (13) may take; at least 0.

        Raises
        ------
        LayoutError
            If a parameter is missing or has another shape.
        """
        for name, shape in self.parameters.items():
            if name not in bounds or tuple(bounds[name].shape) != shape:
                raise LayoutError(f"Bounds of {name} must have shape {shape}")
        limits = {name: bounds[name].to(torch.float64).abs() + _SLACK for name in self.parameters}
        reach = [torch.full((1, *self.input_shape), largest_input + _SLACK, dtype=torch.float64)]
        largest = 1.0
        for step in self.steps:
            accumulator, result = _reach(step, [reach[slot] for slot in step.inputs], limits)
            reach.append(result)
            largest = max(largest, float(accumulator.max()), float(result.max()) * 2 ** (FRACTION + 1))
        return math.log2(largest)


def compile_model(module: nn.Module, example_shape: Sequence[int]) -> Program:
    """Compile a network, as it computes in evaluation; it is not changed.

    No thread of the process may run or train any model meanwhile (torch.fx replaces how modules are called); several
    may compile.

    Parameters
    ----------
    module : nn.Module
        From a float tensor of shape (N, *example_shape) to logits of shape (N, classes).
    example_shape : sequence of int
        Shape of one sample, without a batch axis.

    Returns
    -------
    Program

    Raises
    ------
    ConfigError
        Lists everything in the network that cannot be computed on shares. Also if there are parameters without
        influence on the logits: they would be summed unchecked.
    """
    shape = tuple(int(size) for size in example_shape)
    if not shape or min(shape) < 1:
        raise ConfigError(f"example_shape={tuple(example_shape)} must be the shape of one sample, e.g. (1, 28, 28)")
    parameters = _parameters(module)
    found, logits, classes = trace(module, shape)
    kept = _numbered(_pools_first(_needed(found, logits)))
    used = {name for step in kept for name in step.parameters}
    unused = [name for name in parameters if name not in used]
    if unused or not used <= set(parameters):
        raise ConfigError(
            f"{', '.join(unused) or 'Parameters that the state dict lacks'}: they would be summed without having been "
            "checked, because the logits do not depend on them; remove them from the module"
        )
    return Program(kept, shape, classes, parameters)


def _parameters(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of what is summed, in order."""
    names: dict[int, str] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if names.setdefault(id(parameter), name) != name:
            raise ConfigError(
                f"{name} and {names[id(parameter)]} are one tensor: clients could share two; make them parameters of "
                "their own, or use one module twice"
            )
    state = module.state_dict()
    for name, tensor in state.items():
        floating = isinstance(tensor, torch.Tensor) and (tensor.is_floating_point() or tensor.is_complex())
        if not isinstance(tensor, torch.Tensor) or (floating and tensor.dtype not in (torch.float32, torch.float64)):
            raise ConfigError(f"{name}: the state dict must hold float32 or float64 tensors")
    try:
        order = summed({name: tensor.detach().cpu().numpy() for name, tensor in state.items()})
    except LayoutError as error:
        raise ConfigError(str(error)) from None
    if not order:
        raise ConfigError(f"{type(module).__name__} has no parameters: there is nothing to sum")
    return {name: tuple(state[name].shape) for name in order}


# ---------------------------------------------------------------------- rewriting
def _needed(found: list[Step], logits: int) -> list[Step]:
    """Keep the steps on which the logits depend."""
    needed, kept = {logits}, []
    for step in reversed(found):
        if step.output in needed:
            needed.update(step.inputs)
            kept.append(step)
    return kept[::-1]


def _pools_first(found: list[Step]) -> list[Step]:
    """Let a pool take the largest values before negative ones become 0, which is the same, and fewer comparisons."""
    made = list(found)
    for place, step in enumerate(made):
        readers = [other for other in made if step.output in other.inputs]
        if isinstance(step, steps.Relu) and len(readers) == 1:
            pool = readers[0]
            if isinstance(pool, steps.MaxPool):
                later = made.index(pool)
                made[place] = replace(pool, inputs=step.inputs, output=step.output)
                made[later] = replace(step, inputs=pool.inputs, output=pool.output)
    return made


def _numbered(found: list[Step]) -> tuple[Step, ...]:
    """Number slots in order: modules that compute alike become programs that are equal."""
    slots = {0: 0} | {step.output: place + 1 for place, step in enumerate(found)}
    return tuple(
        replace(step, inputs=tuple(slots[slot] for slot in step.inputs), output=slots[step.output]) for step in found
    )


# ---------------------------------------------------------------------- bounds
def _reach(
    step: Step, inputs: list[torch.Tensor], limits: Mapping[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return bounds of a step's accumulator, as an integer, and of its result, as a real number."""
    x = inputs[0]
    channels: tuple[int, ...]
    match step:
        case steps.Linear():
            made, channels = x @ limits[step.weight].T, (-1,)
        case steps.Conv():
            made = convolve(x, limits[step.weight], step)
            channels = (-1, 1, 1)
        case steps.Scale():
            channels = (-1, *(1,) * (x.ndim - 2))
            made = x * limits[step.weight].reshape(channels)
        case steps.AvgPool():
            mean = functional.avg_pool2d(x, step.kernel, step.stride)
            sums = mean * (step.kernel[0] * step.kernel[1] * step.factor)
            return sums * 2**FRACTION, sums / 2**step.shift + _SLACK
        case steps.MaxPool():
            made = functional.max_pool2d(x, step.kernel, step.stride)
            return made, made
        case steps.Add():
            made = x + inputs[1]
            return made, made
        case steps.Flatten():
            return x, x.flatten(1)
        case _:
            return x, x
    shift = limits[step.bias].reshape(channels) if step.bias is not None else 0.0
    return made * 2 ** (2 * FRACTION), made + shift + _SLACK


def convolve(x: torch.Tensor, weight: torch.Tensor, step: steps.Conv) -> torch.Tensor:
    """Convolve as a step says, without its bias."""
    left, right, top, bottom = step.padding
    if left != right or top != bottom:
        x, left, top = functional.pad(x, step.padding), 0, 0
    return functional.conv2d(x, weight, None, step.stride, (top, left), step.dilation, step.groups)
