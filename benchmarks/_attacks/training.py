"""Final models: what everybody has in the end, trained over few images so that they are learned by heart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.func import functional_call

from .problem import Images, Network, Parameters, clipped
from .rounds import LEARNING_RATE, Sight, Terms, Vector
from .views import CLIENT, Strategy


@dataclass(frozen=True)
class Recipe:
    """How models are trained.

    Parameters
    ----------
    clients, examples : int
        Clients, and images of each.
    epsilon : float or None
        None: FedAvg with local epochs. Else: the mean of clipped gradients, with noise, each round.
    rounds, epochs, batch : int
        Rounds; without privacy passes over a client's images in each, and images of a step.
    clip, rate : float
        With privacy: norm of an example's gradient, and the server's step.
    """

    clients: int
    examples: int
    epsilon: float | None = None
    rounds: int = 20
    epochs: int = 3
    batch: int = 10
    clip: float = 1.0
    rate: float = 1.0

    @property
    def images(self) -> int:
        """Images of all clients."""
        return self.clients * self.examples


def train(network: Network, recipe: Recipe, images: Images, seed: int, through: Strategy | None = None) -> Parameters:
    """Train a model from the network's start weights.

    Parameters
    ----------
    network : Network
    recipe : Recipe
    images : Images
        Those of all clients, one client's after the other's.
    seed : int
        Of batches, and of noise where no strategy adds it.
    through : Strategy or None
        Takes every round's sum; None: sums in floating point, for shadow models.
    """
    terms = Terms(network, recipe.clients, recipe.examples, recipe.epsilon, rounds=recipe.rounds, clip=recipe.clip)
    model, rng = dict(network.start), np.random.default_rng([seed, 3])
    for _ in range(recipe.rounds):
        if recipe.epsilon is None:
            sums = [
                _local(network, model, images.part(slice(i, i + recipe.examples)), recipe, rng)
                for i in range(0, recipe.images, recipe.examples)
            ]
            step = -LEARNING_RATE / recipe.images
        else:
            each = clipped(network.each(model, images), recipe.clip * (1 - 2.0**-20)).double().numpy()
            sums = list(each.reshape(recipe.clients, recipe.examples, -1).sum(axis=1))
            step = -recipe.rate / recipe.images
        model = network.moved(model, step * _sum(terms, sums, rng, through))
    return model


def _sum(terms: Terms, sums: list[Vector], rng: np.random.Generator, through: Strategy | None) -> Vector:
    if through is None:
        return np.asarray(sum(sums) + rng.normal(0, 1, terms.network.size) * terms.sigma)
    seen: list[Sight] = through.look(terms, sums)
    return next(sight.values for sight in seen if sight.party == CLIENT)


def _local(network: Network, model: Parameters, images: Images, recipe: Recipe, rng: np.random.Generator) -> Vector:
    """Train on a client's images; return its update as a sum of gradients."""
    own = {name: value.clone().requires_grad_() for name, value in model.items()}
    sgd = torch.optim.SGD(own.values(), lr=LEARNING_RATE)
    for _ in range(recipe.epochs):
        order = rng.permutation(len(images))
        for start in range(0, len(images), recipe.batch):
            part = images.part(order[start : start + recipe.batch])
            sgd.zero_grad()
            nn.functional.cross_entropy(functional_call(network.module, own, (part.x,)), part.y).backward()
            sgd.step()
    moved = torch.cat([(own[name] - value).detach().reshape(-1) for name, value in model.items()])
    return np.asarray(moved.double().numpy() * (recipe.examples / -LEARNING_RATE))


def shadows(
    network: Network, recipe: Recipe, pool: Images, count: int, seed: int
) -> list[tuple[Parameters, np.ndarray]]:
    """Train models on random halves of a pool, as the attacker would; return each with what it was trained on."""
    rng, found = np.random.default_rng([seed, 4]), []
    for i in range(count):
        rows = rng.permutation(len(pool))[: recipe.images]
        chosen = np.zeros(len(pool), bool)
        chosen[rows] = True
        found.append((train(network, recipe, pool.part(rows), seed + i), chosen))
    return found
