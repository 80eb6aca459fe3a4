"""The nodes of a traced network as steps, one by one."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import fx, nn
from torch.nn import functional

from ..errors import ConfigError
from . import steps
from .arguments import UnsupportedError, convolution, is_batch_size, pair, tells_shape, windows
from .engine import FRACTION
from .folding import EPSILON
from .steps import Step

SUPPORTED = (
    "Linear on (N, features), Conv2d with padding by zeros, ReLU, MaxPool2d and AvgPool2d without padding, "
    "AdaptiveAvgPool2d(1), Flatten(1), Dropout, Identity, sums of two values of one shape, and BatchNorm1d and "
    f"BatchNorm2d with running statistics, affine, eps={EPSILON:g}; modules, and for ReLU, pools, flatten and sums "
    "functions too"
)
#: Samples of the example that a network is traced with, and the name of the network in the trace.
SAMPLES, NAME = 3, "model"
_DROPPED: Final = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)


class Translation:
    """Steps as they come about; names of methods' parameters are PyTorch's, since calls are bound to them."""

    def __init__(self, modules: dict[str, nn.Module], shapes: dict[fx.Node, tuple[int, ...]]) -> None:
        self.modules, self.shapes = modules, shapes
        self.steps: list[Step] = []
        self.slots: dict[fx.Node, int] = {}
        self.views: dict[fx.Node, fx.Node] = {}
        self.problems: list[str] = []
        self.logits: fx.Node | None = None
        functions: dict[Any, Callable[..., None]] = {
            functional.relu: self._relu,
            torch.relu: self._relu,
            torch.relu_: self._relu_,
            functional.max_pool2d: self._max_pool,
            functional.avg_pool2d: self._avg_pool,
            functional.adaptive_avg_pool2d: self._adaptive_avg_pool,
            functional.dropout: self._dropout,
            torch.flatten: self._flatten,
            operator.add: self._add,
            torch.add: self._add,
            operator.iadd: self._add_,
        }
        self.functions = functions
        self.methods: dict[str, Callable[..., None]] = {
            "relu": self._relu,
            "relu_": self._relu_,
            "flatten": self._flatten,
            "view": self._view,
            "reshape": self._view,
            "add": self._add,
            "add_": self._add_,
        }

    def result(self) -> tuple[list[Step], int, int]:
        """Return steps, the slot of the logits and the number of classes; raise if anything was in the way."""
        if self.problems or self.logits is None:
            raise ConfigError(
                f"The model cannot be computed on shares because of: {'; '.join(self.problems)}. Supported: {SUPPORTED}"
            )
        return self.steps, self.slots[self.logits], self.shapes[self.logits][1]

    def visit(self, node: fx.Node) -> None:
        """Translate one node, or note what is wrong with it."""
        try:
            if node.op == "placeholder":
                self.slots[node] = 0
            elif node.op == "call_module":
                self._module(node, str(node.target))
            elif node.op == "call_function":
                self._call(node, self.functions.get(node.target))
            elif node.op == "call_method":
                self._call(node, self.methods.get(str(node.target)))
            elif node.op == "output":
                self._output(node.args[0])
            else:
                raise UnsupportedError("used outside of its layer")
        except UnsupportedError as error:
            reason = str(error)
            self.problems.append(f"{self.label(node)}{': ' if reason else ''}{reason}")
            # One reason per value: what follows from a node that is not supported is looked at nevertheless.
            self.slots.setdefault(node, 0)

    def label(self, node: fx.Node) -> str:
        """Name a node and its type."""
        target = str(node.target).removeprefix(f"{NAME}.")
        if node.op == "call_module":
            return f"{target} ({type(self.modules[str(node.target)]).__name__})"
        if node.op == "call_function":
            return f"{node.name} ({getattr(node.target, '__name__', target)})"
        return f"{node.name} ({target})"

    # ------------------------------------------------------------------ what a node reads and fills
    def _emit(self, node: fx.Node, kind: type[Step], *inputs: Any, **attributes: Any) -> None:
        slots = tuple(self.slots[value] for value in inputs)
        self.slots[node] = len(self.steps) + 1
        self.steps.append(kind(inputs=slots, output=len(self.steps) + 1, **attributes))

    def _alias(self, node: fx.Node, input: Any) -> None:
        self.slots[node] = self.slots[input]
        self.views[node] = input

    def _axes(self, input: Any, count: int) -> tuple[int, ...]:
        """Return the shape of an input that must have so many axes."""
        shape = self.shapes.get(input, ()) if isinstance(input, fx.Node) else ()
        if len(shape) != count:
            raise UnsupportedError(f"works on {count} axes here, got shape {('N', *shape[1:])}")
        return shape

    def _overwrite(self, input: Any) -> None:
        """Raise if anybody else reads the memory that an in-place operation overwrites."""
        node: fx.Node | None = input
        while node is not None:
            if sum(not tells_shape(user) for user in node.users) > 1:
                raise UnsupportedError("overwrites a value that is read elsewhere")
            node = self.views.get(node)

    def _output(self, value: Any) -> None:
        shape = self.shapes.get(value, ()) if isinstance(value, fx.Node) else ()
        if len(shape) != 2 or shape[0] != SAMPLES or shape[1] < 2:
            raise UnsupportedError(
                f"must be logits of shape (N, classes) for two classes or more, got {('N', *shape[1:])}"
            )
        self.logits = value

    # ------------------------------------------------------------------ modules
    def _module(self, node: fx.Node, target: str) -> None:
        """Translate a layer. Subclasses may compute anything, so types are compared exactly."""
        layer: Any = self.modules[target]
        name = target.removeprefix(NAME).removeprefix(".")
        kind, input = type(layer), node.args[0] if node.args else None
        prefix = f"{name}." if name else ""
        bias = f"{prefix}bias" if getattr(layer, "bias", None) is not None else None
        if layer._forward_hooks or layer._forward_pre_hooks or "forward" in vars(layer):
            raise UnsupportedError("has hooks or a forward of its own")
        if len(node.args) != 1 or node.kwargs or not isinstance(input, fx.Node):
            raise UnsupportedError("must be called with one value")
        if kind in _DROPPED:
            self._alias(node, input)
        elif kind is nn.ReLU:
            self._relu(node, input, layer.inplace)
        elif kind is nn.Linear:
            self._axes(input, 2)
            self._emit(node, steps.Linear, input, weight=f"{prefix}weight", bias=bias)
        elif kind is nn.Conv2d:
            self._axes(input, 4)
            self._emit(node, steps.Conv, input, weight=f"{prefix}weight", bias=bias, **convolution(layer))
        elif kind in (nn.BatchNorm1d, nn.BatchNorm2d):
            self._axes(input, 2 if kind is nn.BatchNorm1d else 4)
            if not layer.affine or layer.running_mean is None or layer.running_var is None or layer.eps != EPSILON:
                raise UnsupportedError(f"must be affine, with running statistics and eps={EPSILON:g}")
            self._emit(node, steps.Scale, input, weight=f"{prefix}weight", bias=f"{prefix}bias")
        elif kind is nn.MaxPool2d:
            size, stride, padding = layer.kernel_size, layer.stride, layer.padding
            self._max_pool(node, input, size, stride, padding, layer.dilation, layer.ceil_mode, layer.return_indices)
        elif kind is nn.AvgPool2d:
            size, stride, padding = layer.kernel_size, layer.stride, layer.padding
            self._avg_pool(node, input, size, stride, padding, layer.ceil_mode, True, layer.divisor_override)
        elif kind is nn.AdaptiveAvgPool2d:
            self._adaptive_avg_pool(node, input, layer.output_size)
        elif kind is nn.Flatten:
            self._flatten(node, input, layer.start_dim, layer.end_dim)
        else:
            raise UnsupportedError

    # ------------------------------------------------------------------ functions and methods
    def _call(self, node: fx.Node, translate: Callable[..., None] | None) -> None:
        """Translate a call, whose arguments must fit the parameters of the method below."""
        if tells_shape(node):
            return
        if translate is None:
            raise UnsupportedError
        try:
            bound = inspect.signature(translate).bind(node, *node.args, **node.kwargs)
        except TypeError:
            raise UnsupportedError("has arguments that are not known") from None
        if not isinstance(bound.arguments.get("input"), fx.Node):
            raise UnsupportedError("works on what is no value of the network")
        translate(*bound.args, **bound.kwargs)

    def _relu(self, node: fx.Node, input: Any, inplace: bool = False) -> None:
        if inplace:
            self._overwrite(input)
        self._emit(node, steps.Relu, input)

    def _relu_(self, node: fx.Node, input: Any) -> None:
        self._relu(node, input, inplace=True)

    def _dropout(self, node: fx.Node, input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> None:
        if training is not False:
            raise UnsupportedError("drops in evaluation too; pass training=self.training")
        self._alias(node, input)

    def _flatten(self, node: fx.Node, input: Any, start_dim: int = 0, end_dim: int = -1) -> None:
        if start_dim != 1 or end_dim not in (-1, len(self.shapes[input]) - 1):
            raise UnsupportedError("must begin with axis 1 and end with the last")
        self._rows(node, input)

    def _view(self, node: fx.Node, input: Any, *shape: Any) -> None:
        sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
        # The samples must stay apart: their axis is left to be found out, or is the input's.
        if len(sizes) != 2 or not (sizes[0] == -1 or is_batch_size(sizes[0])) or isinstance(sizes[1], fx.Node):
            raise UnsupportedError("must flatten, as x.view(x.size(0), -1) does")
        if self.shapes[node][0] != SAMPLES:
            raise UnsupportedError("mixes samples")
        self._rows(node, input)

    def _rows(self, node: fx.Node, input: Any) -> None:
        if len(self.shapes[input]) > 2:
            self._emit(node, steps.Flatten, input)
            self.views[node] = input
        else:
            self._alias(node, input)

    def _add(self, node: fx.Node, input: Any, other: Any, alpha: float = 1) -> None:
        if not isinstance(other, fx.Node) or alpha != 1:
            raise UnsupportedError("must add two values of the network")
        if self.shapes.get(input, ()) != self.shapes.get(other):
            raise UnsupportedError("must add values of one shape")
        self._emit(node, steps.Add, input, other)

    def _add_(self, node: fx.Node, input: Any, other: Any, alpha: float = 1) -> None:
        self._overwrite(input)
        self._add(node, input, other, alpha)

    # ------------------------------------------------------------------ pools
    def _max_pool(
        self,
        node: fx.Node,
        input: Any,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> None:
        if pair(dilation) != (1, 1) or return_indices:
            raise UnsupportedError("must be without dilation and indices")
        self._axes(input, 4)
        self._emit(node, steps.MaxPool, input, **windows(kernel_size, stride, padding, ceil_mode))

    def _avg_pool(
        self,
        node: fx.Node,
        input: Any,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        if divisor_override is not None:
            raise UnsupportedError("must divide by the size of its windows")
        self._axes(input, 4)
        self._average(node, input, **windows(kernel_size, stride, padding, ceil_mode))

    def _adaptive_avg_pool(self, node: fx.Node, input: Any, output_size: Any) -> None:
        if pair(output_size) != (1, 1):
            raise UnsupportedError("must have output size 1")
        _, _, height, width = self._axes(input, 4)
        self._average(node, input, kernel=(height, width), stride=(height, width))

    def _average(self, node: fx.Node, input: Any, kernel: steps.Pair, stride: steps.Pair) -> None:
        count = kernel[0] * kernel[1]
        # 1/count with 14 significant bits; by a power of two, a shift alone is exact.
        shift = (count - 1).bit_length() if count & (count - 1) == 0 else count.bit_length() + FRACTION
        factor = round(2**shift / count)
        self._emit(node, steps.AvgPool, input, kernel=kernel, stride=stride, factor=factor, shift=shift)
