"""Model inversion: what a class looks like, from the final model alone.

M. Fredrikson et al. 2015, *Model Inversion Attacks that Exploit Confidence Information*, algorithm MIFace, in ART's
implementation: starting from a black image, follow the gradient of a class's probability. The result is no training
image: it shows what the model takes for the class. Everybody has the final model, so no way to compute sums can help.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .guessing import correlation
from .membership import classifier
from .problem import CLASSES, SIDE, Images, Network, Parameters


@dataclass(frozen=True)
class Likeness:
    """How much inverted classes look like their digits.

    Parameters
    ----------
    recognised : float
        Share that another network, trained on other images, takes for the right digit; a tenth is chance.
    correlation : float
        With the mean image of the digit, mean over digits.
    images : Tensor, shape (10, 1, 28, 28)
    """

    recognised: float
    correlation: float
    images: Tensor


def train_judge(network: Network, images: Images, epochs: int, seed: int = 0) -> Parameters:
    """Train the network that judges, on images that nobody else trains on."""
    torch.manual_seed(seed)
    own = {name: value.clone().requires_grad_() for name, value in network.start.items()}
    adam = torch.optim.Adam(own.values(), lr=0.003)
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(50):
            adam.zero_grad()
            nn.functional.cross_entropy(network.logits(own, images.x[rows]), images.y[rows]).backward()
            adam.step()
    return {name: value.detach() for name, value in own.items()}


def invert_classes(
    network: Network,
    model: Parameters,
    judges: Network,
    judge: Parameters,
    means: Tensor,
    iterations: int = 300,
) -> Likeness:
    """Run MIFace for all ten classes.

    Parameters
    ----------
    network, model
        The model that is attacked.
    judges, judge
        The network that judges, trained elsewhere.
    means : Tensor, shape (10, 1, 28, 28)
    iterations : int
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ART's imports
        from art.attacks.inference.model_inversion.mi_face import MIFace

        attack = MIFace(classifier(network, model), max_iter=iterations, batch_size=CLASSES, verbose=False)  # type: ignore[arg-type]
        black = np.zeros((CLASSES, 1, SIDE, SIDE), np.float32)
        found = torch.from_numpy(attack.infer(black, np.arange(CLASSES)))
    labels = torch.arange(CLASSES)
    alike = [correlation(a.reshape(-1).numpy(), b.reshape(-1).numpy()) for a, b in zip(found, means, strict=True)]
    return Likeness(judges.accuracy(judge, Images(found, labels)), float(np.mean(alike)), found)
