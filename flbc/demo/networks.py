"""Networks of the image data sets. No layer mixes the examples of a batch: BatchNorm would, GroupNorm does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import require_torch

if TYPE_CHECKING:
    from torch import Tensor, nn

_CHANNELS = 16
"""Output channels of each layer of the dense block (ESB-FL, section 7.1.2)."""


def small_cnn(classes: int) -> nn.Module:
    """Make a network for 28 × 28 pixels: two convolutions, two linear layers; 26,874 parameters for ten classes.

    Inputs have shape (B, 1, 28, 28); outputs are logits, shape (B, classes).
    """
    require_torch()
    from torch import nn

    layers = {
        "conv1": nn.Conv2d(1, 8, 5, padding=2),
        "norm1": nn.GroupNorm(4, 8),
        "relu1": nn.ReLU(),
        "pool1": nn.MaxPool2d(2),
        "conv2": nn.Conv2d(8, 16, 3, padding=1),
        "norm2": nn.GroupNorm(4, 16),
        "relu2": nn.ReLU(),
        "pool2": nn.MaxPool2d(2),
        "flatten": nn.Flatten(),
        "linear1": nn.Linear(16 * 7 * 7, 32),
        "relu3": nn.ReLU(),
        "linear2": nn.Linear(32, classes),
    }
    model: nn.Module = nn.Sequential()
    for name, layer in layers.items():
        model.add_module(name, layer)
    return model


def lean_cnn(classes: int) -> nn.Module:
    """Make a network for 28 × 28 pixels that can be computed on shares; 5,386 parameters for ten classes.

    No GroupNorm, which cannot; and strides instead of pools: comparisons are what costs on shares, and an image takes
    1,200 here.

    Inputs have shape (B, 1, 28, 28); outputs are logits, shape (B, classes).
    """
    require_torch()
    from torch import nn

    layers = {
        "conv1": nn.Conv2d(1, 8, 5, stride=3, padding=2),
        "relu1": nn.ReLU(),
        "conv2": nn.Conv2d(8, 16, 3, stride=2, padding=1),
        "relu2": nn.ReLU(),
        "flatten": nn.Flatten(),
        "linear": nn.Linear(16 * 5 * 5, classes),
    }
    model: nn.Module = nn.Sequential()
    for name, layer in layers.items():
        model.add_module(name, layer)
    return model


def colour_cnn(classes: int) -> nn.Module:
    """Make a network for 32 × 32 colours: three convolutions, one linear layer; 34,058 parameters for ten classes.

    Small, because noise grows with the number of parameters, and so does what is sent; in the manner of
    :func:`small_cnn`, whose GroupNorm keeps gradients of a size that clipping hardly cuts.

    Inputs have shape (B, 3, 32, 32); outputs are logits, shape (B, classes).
    """
    require_torch()
    from torch import nn

    layers: dict[str, nn.Module] = {}
    for i, (before, after) in enumerate(((3, 16), (16, 32), (32, 64)), start=1):
        layers[f"conv{i}"] = nn.Conv2d(before, after, 3, padding=1)
        layers[f"norm{i}"] = nn.GroupNorm(4, after)
        layers[f"relu{i}"] = nn.ReLU()
        layers[f"pool{i}"] = nn.MaxPool2d(2)
    layers["flatten"] = nn.Flatten()
    layers["linear"] = nn.Linear(64 * 4 * 4, classes)
    model: nn.Module = nn.Sequential()
    for name, layer in layers.items():
        model.add_module(name, layer)
    return model


def dense_block(classes: int) -> nn.Module:
    """Make ESB-FL's feature network with a classification head; 14,355 parameters for three classes.

    B. Chen et al. (*ESB-FL: Efficient and Secure Blockchain-Based Federated Learning with Fair Payment*, section 7.1.2)
    extract features with a dense block of four 3 × 3 convolutions with 1×16, 16×16, 32×16 and 48×16 channels: each
    layer reads the outputs of all earlier ones. Then they locate and classify with an SSD network of five layers.

    What differs: the SSD part is left out, because the data set has one label per image and no boxes. Features are
    averaged over the image and classified by one linear layer. The paper names neither normalisation nor activation;
    here each convolution is followed by GroupNorm and ReLU, where the original dense block has BatchNorm and ReLU.

    Inputs have shape (B, 1, H, W), any size; outputs are logits, shape (B, classes).
    """
    require_torch()
    import torch

    class DenseBlock(torch.nn.Module):
        """Four layers, each of which reads all before it."""

        def __init__(self) -> None:
            super().__init__()
            widths = (1, *(_CHANNELS * i for i in (1, 2, 3)))
            self.convs = torch.nn.ModuleList(torch.nn.Conv2d(w, _CHANNELS, 3, padding=1) for w in widths)
            self.norms = torch.nn.ModuleList(torch.nn.GroupNorm(4, _CHANNELS) for _ in widths)
            self.head = torch.nn.Linear(_CHANNELS * len(widths), classes)

        def forward(self, x: Tensor) -> Tensor:
            """Logits, shape (B, classes)."""
            maps: list[Tensor] = []
            for conv, norm in zip(self.convs, self.norms, strict=True):
                seen = torch.cat(maps, dim=1) if maps else x
                maps.append(torch.relu(norm(conv(seen))))
            logits: Tensor = self.head(torch.cat(maps, dim=1).mean(dim=(2, 3)))
            return logits

    return DenseBlock()
