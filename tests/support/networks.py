"""Networks for tests of compiled models, real and random."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from hypothesis import strategies as st
from torch import nn

from flbc.verification.engine import FRACTION
from flbc.verification.folding import fold


def encode(values: torch.Tensor) -> torch.Tensor:
    """Real numbers as fixed point with 13 fractional bits."""
    return torch.round(values.detach().double() * 2**FRACTION).to(torch.int64)


def decode(values: torch.Tensor) -> torch.Tensor:
    return values.double() / 2**FRACTION


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    """A module's folded state dict, encoded; with what is not shared, which programs do not read."""
    arrays = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    return {name: encode(torch.from_numpy(np.asarray(array))) for name, array in fold(arrays).items()}


def bounds(module: nn.Module) -> Mapping[str, torch.Tensor]:
    return {name: tensor.detach().abs() for name, tensor in module.state_dict().items()}


class Residual(nn.Module):
    """``x + body(x)``."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


def cnn(pool: type[nn.Module] = nn.MaxPool2d) -> nn.Sequential:
    """Two convolutions for 8 x 8 pixels, with BatchNorm and a residual block; 10 classes."""
    return sane(
        nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            pool(2),
            Residual(nn.Sequential(nn.Conv2d(4, 4, 3, padding="same"), nn.ReLU())),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 10),
        ),
        0,
    )


def mlp() -> nn.Sequential:
    return sane(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), 0)


def sane(network: nn.Sequential, seed: int) -> nn.Sequential:
    """Draw statistics of BatchNorms, as training would leave them, and weights; put the network in evaluation."""
    generator = torch.Generator().manual_seed(seed)

    def between(shape: torch.Size, low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.copy_(between(layer.running_mean.shape, -0.5, 0.5))
            layer.running_var.copy_(between(layer.running_var.shape, 0.5, 2.0))
        for name, parameter in layer.named_parameters(recurse=False):
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                drawn = between(parameter.shape, 0.5, 1.2) if name == "weight" else between(parameter.shape, -0.3, 0.3)
            else:
                reach = 1.0 / parameter[0].numel() ** 0.5 if parameter.ndim > 1 else 0.3
                drawn = between(parameter.shape, -reach, reach)
            parameter.data.copy_(drawn)
    return network.eval()


@st.composite
def networks(draw: st.DrawFn) -> tuple[nn.Sequential, tuple[int, ...]]:
    """A random network of supported layers, and the shape of its samples."""
    if not draw(st.booleans()):
        features = draw(st.integers(1, 6))
        return sane(nn.Sequential(*_dense(draw, features)), draw(st.integers(0, 2**20))), (features,)
    shape = draw(st.tuples(st.integers(1, 3), st.integers(5, 9), st.integers(5, 9)))
    channels, height, width = shape
    layers: list[nn.Module] = []
    for _ in range(draw(st.integers(1, 4))):
        layer, channels = _image_layer(draw, channels, height, width)
        layers.append(layer)
        with torch.no_grad():
            height, width = layer.eval()(torch.zeros(1, _inputs(layer, channels), height, width)).shape[2:]
    if draw(st.booleans()):
        layers.append(nn.AdaptiveAvgPool2d(1))
        height = width = 1
    layers.append(nn.Flatten())
    layers += _dense(draw, channels * height * width)
    return sane(nn.Sequential(*layers), draw(st.integers(0, 2**20))), shape


def _inputs(layer: nn.Module, channels: int) -> int:
    return layer.in_channels if isinstance(layer, nn.Conv2d) else channels


def _image_layer(draw: st.DrawFn, channels: int, height: int, width: int) -> tuple[nn.Module, int]:
    small = min(height, width)
    kind = draw(st.sampled_from(["conv", "conv", "norm", "relu", "max", "avg", "residual", "dropped"]))
    if kind == "conv":
        groups = draw(st.sampled_from([1, channels]))
        made = groups * draw(st.integers(1, 3))
        size = (draw(st.integers(1, min(3, height))), draw(st.integers(1, min(3, width))))
        if draw(st.booleans()):
            stride, dilation, padding = 1, draw(st.integers(1, 2)), draw(st.sampled_from(["same", "valid"]))
            if dilation == 2 and (2 * (max(size) - 1) >= small or padding == "same"):
                dilation = 1
        else:
            stride, dilation, padding = draw(st.integers(1, 2)), 1, draw(st.sampled_from([0, 1, (1, 0), (0, 2)]))
        bias = draw(st.booleans())
        return nn.Conv2d(channels, made, size, stride, padding, dilation, groups, bias), made
    if kind in ("max", "avg"):
        size = (draw(st.integers(1, min(3, height))), draw(st.integers(1, min(3, width))))
        stride = draw(st.sampled_from([None, 1, 2, (2, 1)]))
        return (nn.MaxPool2d if kind == "max" else nn.AvgPool2d)(size, stride), channels
    if kind == "residual":
        body = [nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]
        return Residual(nn.Sequential(*body[: draw(st.integers(1, 3))])), channels
    plain = {"norm": nn.BatchNorm2d(channels), "relu": nn.ReLU(), "dropped": nn.Dropout2d()}
    return plain[kind], channels


def _dense(draw: st.DrawFn, features: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for _ in range(draw(st.integers(0, 2))):
        width = draw(st.integers(1, 8))
        layers += [nn.Linear(features, width, bias=draw(st.booleans())), *draw(st.sampled_from([[], [nn.ReLU()]]))]
        if draw(st.booleans()):
            layers.append(nn.BatchNorm1d(width))
        features = width
    return [*layers, nn.Linear(features, draw(st.integers(2, 5)))]
