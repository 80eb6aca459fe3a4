"""Gradient inversion: images from a sum of their gradients.

The attack is that of J. Geiping et al. 2020, *Inverting Gradients: How easy is it to break privacy in federated
learning?*, sections 4 and 5, after L. Zhu et al. 2019, *Deep Leakage from Gradients*: dummy images are moved by Adam,
with the sign of the gradient, until the gradient of their loss points where the observed one does (cosine), under a
penalty on total variation. Two things are ours: the penalty falls during the attack, and so does the step, by a cosine.

The attacker is given more than it would know in earnest: the labels, and how many images are in the sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad, vmap

from .problem import SIDE, Images, Network, flat, psnr, ssim

#: Adam's first step, in units of the range of a pixel.
STEP = 0.1
#: Weight of the total variation at the beginning and at the end; values that gave the best results for one image, and
#: for four and ten.
ONE, SEVERAL = (0.1, 0.001), (0.01, 0.01)


def invert(network: Network, sums: Tensor, labels: Tensor, iterations: int = 600, seed: int = 0) -> Tensor:
    """Reconstruct the images of several sums at once, each by itself.

    Parameters
    ----------
    network : Network
        At its start weights, at which the gradients were computed.
    sums : Tensor, shape (sums, size)
        What is known of the gradients; its scale does not matter.
    labels : Tensor of int64, shape (sums, images)
    iterations : int
    seed : int
        Of the first dummy images.

    Returns
    -------
    Tensor, shape (sums, images, 1, 28, 28)
    """

    def objective(x: Tensor, y: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        found = flat(grad(network.loss)(network.start, x, y))
        cosine = (found @ target) / (found.norm() * target.norm() + 1e-12)
        variation = (x[..., 1:] - x[..., :-1]).abs().mean() + (x[..., 1:, :] - x[..., :-1, :]).abs().mean()
        return 1 - cosine + weight * variation

    slope = vmap(grad(objective), in_dims=(0, 0, 0, None))
    x = torch.rand(*labels.shape, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    adam = torch.optim.Adam([x], lr=STEP)
    steps = torch.optim.lr_scheduler.CosineAnnealingLR(adam, iterations)
    first, last = ONE if labels.shape[1] == 1 else SEVERAL
    for i in range(iterations):
        weight = torch.tensor(first * (last / first) ** (i / iterations))
        x.grad = slope(x, labels, sums, weight).sign()
        adam.step()
        steps.step()
        x.clamp_(0, 1)
    return x


def from_linear_layer(weights: Tensor, biases: Tensor) -> Tensor:
    """Return the one input of a linear layer from the layer's gradients, exactly.

    Each row of the weights' gradient is the input times the bias's gradient: L. T. Phong et al. 2018,
    *Privacy-Preserving Deep Learning via Additively Homomorphic Encryption*, section 3.

    Parameters
    ----------
    weights : Tensor, shape (outputs, inputs)
    biases : Tensor, shape (outputs,)
    """
    row = int(biases.abs().argmax())
    return weights[row] / biases[row]


@dataclass(frozen=True)
class Quality:
    """How well images were reconstructed, means over images.

    Parameters
    ----------
    decibels : float
        PSNR of the best match among the sum's reconstructions.
    similarity : float
        SSIM of the same.
    baseline : float
        PSNR of the best match among the mean images of the sum's digits, which the labels alone give away.
    images : int
    """

    decibels: float
    similarity: float
    baseline: float
    images: int


def judge(found: Tensor, truth: list[Images], means: Tensor) -> Quality:
    """Compare reconstructions with the images of each sum.

    Parameters
    ----------
    found : Tensor, shape (sums, images, 1, 28, 28)
    truth : list of Images
        Of each sum; a hidden payload has one.
    means : Tensor, shape (10, 1, 28, 28)
        Mean images of each digit, of images that nobody trains on.
    """
    noise, alike, guess = [], [], []
    for guesses, images in zip(found, truth, strict=True):
        for image in images.x:
            match = max(guesses, key=lambda one: psnr(one, image))
            noise.append(psnr(match, image))
            alike.append(ssim(match, image))
            guess.append(max(psnr(one, image) for one in means[images.y]))
    return Quality(*(float(torch.tensor(part).mean()) for part in (noise, alike, guess)), len(noise))
