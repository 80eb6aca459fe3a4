"""The plot: reconstructions by what was seen, and both attacks on rounds as bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Column:
    """One sight in the plot.

    Parameters
    ----------
    title : str
    truth, guess : Tensor, shape (1, 28, 28)
    decibels, baseline, auc : float
    color : str
    """

    title: str
    truth: Tensor
    guess: Tensor
    decibels: float
    baseline: float
    auc: float
    color: str


def draw(columns: Sequence[Column], classes: Sequence[tuple[str, Tensor]], path: str) -> None:
    """Write a PNG.

    Parameters
    ----------
    columns : sequence of Column
    classes : sequence of (str, Tensor of shape (10, 1, 28, 28))
        What model inversion made of each digit.
    path : str
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    fig = plt.figure(figsize=(13, 8), layout="constrained")
    top, middle, low = fig.subfigures(3, 1, height_ratios=[1.25, 1.5, 0.3 + 0.45 * len(classes)])
    grid = top.subplots(2, len(columns))
    for place, column in enumerate(columns):
        for axis, image in zip(grid[:, place], (column.truth, column.guess), strict=True):
            _show(axis, image[0])
        grid[0, place].set_title(column.title, fontsize=9)
    grid[0, 0].set_ylabel("image", fontsize=9)
    grid[1, 0].set_ylabel("attack", fontsize=9)
    left, right = middle.subplots(1, 2)
    names, colors = [column.title for column in columns], [column.color for column in columns]
    left.bar(names, [column.decibels for column in columns], color=colors)
    left.plot(names, [column.baseline for column in columns], "k_", markersize=28, label="guessing the digit's mean")
    left.set(title="gradient inversion: PSNR of the best match, dB")
    left.legend(frameon=False, fontsize=8)
    right.bar(names, [column.auc for column in columns], color=colors)
    right.axhline(0.5, color="#222222", linestyle=":", linewidth=1)
    right.set(title="membership in one round: AUC", ylim=(0.4, 1.02))
    for axis in (left, right):
        axis.tick_params(axis="x", labelsize=7, rotation=40)
        axis.spines[["top", "right"]].set_visible(False)
    faces = low.subplots(len(classes), 10, squeeze=False)
    for line, (title, images) in zip(faces, classes, strict=True):
        for axis, image in zip(line, images, strict=True):
            _show(axis, image[0], float(image.max()))
        line[0].set_ylabel(title, fontsize=8, rotation=0, ha="right", va="center")
    low.suptitle("model inversion: what the final model takes for each digit", fontsize=10)
    fig.savefig(path, dpi=110)
    plt.close(fig)


def _show(axis: Any, image: Tensor, white: float = 1.0) -> None:
    axis.imshow(image, cmap="gray", vmin=0, vmax=white)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
