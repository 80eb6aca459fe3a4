"""A PyTorch module as a list of steps, or a refusal that names everything that is in the way.

Steps must compute exactly what the module computes in evaluation, for else nodes would judge another model than the one
that is summed. So only types that are known are translated, not their subclasses, and what cannot be seen in a trace is
refused: hooks, replaced ``forward`` methods, in-place operations on values that are read elsewhere.
"""

from __future__ import annotations

import copy
import threading
import warnings
from typing import Any

import torch
from torch import fx, nn

from ..errors import ConfigError
from .steps import Step
from .translation import NAME, SAMPLES, Translation

# While it traces, torch.fx replaces how modules are called, in all threads: no other model may run meanwhile.
_TRACING = threading.Lock()


class _Root(nn.Module):
    """Holds the module, because a layer that is the root of a trace would be traced into."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.add_module(NAME, module)

    def forward(self, x: torch.Tensor) -> Any:
        """Pass one input on."""
        return self.get_submodule(NAME)(x)


class _Shapes(fx.Interpreter):
    """Runs a graph and keeps the shape of every tensor."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.seen: dict[fx.Node, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run a node and note the shape of its result."""
        result = super().run_node(n)
        if isinstance(result, torch.Tensor):
            self.seen[n] = tuple(result.shape)
        return result


def trace(module: nn.Module, input_shape: tuple[int, ...]) -> tuple[list[Step], int, int]:
    """Translate a module, as it computes in evaluation; it is not changed.

    Parameters
    ----------
    module : nn.Module
    input_shape : tuple of int
        Shape of one sample.

    Returns
    -------
    list of Step
        In order of computation; some may be superfluous.
    int
        Slot of the logits.
    int
        Number of classes.

    Raises
    ------
    ConfigError
        Lists everything that is not supported.
    """
    root = _Root(copy.deepcopy(module)).eval().cpu()
    floats = [tensor for tensor in root.state_dict().values() if torch.is_floating_point(tensor)]
    example = torch.zeros(SAMPLES, *input_shape, dtype=floats[0].dtype if floats else torch.float32)
    with _TRACING:
        try:
            graph = fx.symbolic_trace(root)
        except Exception as error:  # whatever a user's forward may raise
            raise ConfigError(
                f"torch.fx cannot trace {type(module).__name__}: {_first_line(error)}. Its forward must not depend on "
                "values"
            ) from error
        shapes = _Shapes(graph)
        try:
            with torch.no_grad(), warnings.catch_warnings(action="ignore"):  # of users' layers, about speed
                shapes.run(example)
        except Exception as error:
            raise ConfigError(
                f"{type(module).__name__} fails on samples of shape {input_shape}: {_first_line(error)}. Give the "
                "shape of one sample, without a batch axis"
            ) from error
    translation = Translation(dict(graph.named_modules()), shapes.seen)
    for node in graph.graph.nodes:
        translation.visit(node)
    return translation.result()


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".") or type(error).__name__
