"""What calls and layers are told, in the forms in which PyTorch lets them be written."""

from __future__ import annotations

import operator
from typing import Any

from torch import fx, nn

from .steps import Pair


class UnsupportedError(Exception):
    """One node of a network cannot be translated; the text says why. Never leaves :mod:`.tracing`."""


def pair(value: Any) -> Pair:
    """Return two sizes where one stands for both."""
    both = (value, value) if isinstance(value, int) else value
    if not isinstance(both, tuple | list) or len(both) != 2 or not all(isinstance(item, int) for item in both):
        raise UnsupportedError("has a size that is not one or two whole numbers")
    return both[0], both[1]


def windows(kernel: Any, stride: Any, padding: Any, ceil_mode: bool) -> dict[str, Pair]:
    """Return kernel and stride of a pool."""
    if pair(padding) != (0, 0) or ceil_mode:
        raise UnsupportedError("must be without padding and ceil_mode")
    size = pair(kernel)
    return {"kernel": size, "stride": pair(stride) if stride not in (None, (), []) else size}


def convolution(layer: nn.Conv2d) -> dict[str, Any]:
    """Return the attributes of a convolution, with padding as numbers."""
    if layer.padding_mode != "zeros":
        raise UnsupportedError(f"pads with padding_mode={layer.padding_mode!r}, not with zeros")
    dilation = pair(layer.dilation)
    if layer.padding == "same":
        total = [step * (size - 1) for step, size in zip(dilation, pair(layer.kernel_size), strict=True)]
        (top, bottom), (left, right) = ((amount // 2, amount - amount // 2) for amount in total)
    else:
        height, width = (0, 0) if layer.padding == "valid" else pair(layer.padding)
        top, bottom, left, right = height, height, width, width
    return {
        "stride": pair(layer.stride),
        "padding": (left, right, top, bottom),
        "dilation": dilation,
        "groups": layer.groups,
    }


def is_size(node: Any) -> bool:
    """Whether a node is ``x.size()`` or ``x.shape``."""
    if not isinstance(node, fx.Node):
        return False
    if node.op == "call_method":
        return node.target == "size" and len(node.args) == 1 and not node.kwargs
    return node.op == "call_function" and node.target is getattr and node.args[1] == "shape"


def is_batch_size(node: Any) -> bool:
    """Whether a node is the number of samples, in one of the usual ways of writing."""
    if not isinstance(node, fx.Node):
        return False
    if node.op == "call_method":
        return node.target == "size" and node.args[1:] == (0,) and not node.kwargs
    return node.target is operator.getitem and is_size(node.args[0]) and bool(node.args[1] == 0)


def tells_shape(node: fx.Node) -> bool:
    """Whether a node reads no values, but the shape of a tensor."""
    return is_size(node) or is_batch_size(node)
