"""Membership inference: whether an image was among those that were trained on.

From what a party sees of *one round*: the likelihood ratio of "the sum holds this image's gradient" to "it does not",
where everything else in the sum is Gaussian, with the mean and covariance of gradients of other images. It is the best
linear test of that kind; the idea to look for an example's gradient in an update is that of M. Nasr et al. 2019,
*Comprehensive Privacy Analysis of Deep Learning*. The attacker has 1,500 images of the same distribution.

From the *final model*, which everybody has: the loss (S. Yeom et al. 2018, *Privacy Risk in Machine Learning*), a
likelihood ratio over shadow models (N. Carlini et al. 2022, *Membership Inference Attacks From First Principles*, with
one variance for all examples, as they do for few shadow models), and ART's ``MembershipInferenceBlackBox``, which is
told of half of the images whether they are members, and asked about the others.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .problem import CLASSES, SIDE, Images, Network, Parameters

Scores = NDArray[np.float64]
#: Variance of gradients that the attacker's images do not span, as a share of what they do; found by trying.
SPREAD = 0.1


@dataclass(frozen=True)
class Rates:
    """How well scores separate members from others.

    Parameters
    ----------
    auc : float
        Area under the ROC curve: the chance that a member scores above another image; a half is chance.
    at_one_percent : float
        Share of members that are found where one in a hundred others is taken for one.
    """

    auc: float
    at_one_percent: float


def rates(members: Scores, others: Scores) -> Rates:
    """Return both rates, ties counting half."""
    order = np.sort(others)
    below = np.searchsorted(order, members, "left") + np.searchsorted(order, members, "right")
    limit = order[-(len(others) // 100) - 1]
    return Rates(float(below.mean() / 2 / len(others)), float(np.mean(members > limit)))


class RoundAttack:
    """Looks for one gradient in a sum of many.

    Parameters
    ----------
    public : Tensor, shape (images, size)
        Gradients of images that the attacker has, clipped as clients clip.
    count : int
        Examples in the sum.
    sigma : float
        Deviation of the noise in each coordinate.
    """

    def __init__(self, public: Tensor, count: int, sigma: float) -> None:
        self._mean, self._count = public.mean(dim=0), count
        self._z = public - self._mean
        own = float(self._z.square().mean())
        #: Standard deviation of one gradient's coordinates.
        self.scale = own**0.5
        self._floor = sigma**2 + SPREAD * count * own
        scale = self._floor * len(public) / count
        self._kernel = torch.linalg.inv(self._z @ self._z.T + scale * torch.eye(len(public)))

    def scores(self, values: Tensor, candidates: Tensor) -> Scores:
        """Return the logarithm of each candidate's likelihood ratio, up to a constant factor."""
        g = candidates - self._mean
        w = g - (g @ self._z.T @ self._kernel) @ self._z
        return (w @ (values - self._count * self._mean) - (w * g).sum(dim=1) / 2).double().numpy()


# ---------------------------------------------------------------------- the final model
def by_loss(network: Network, model: Parameters, members: Images, others: Images) -> Rates:
    """Members have the smaller loss."""
    return rates(-network.losses(model, members), -network.losses(model, others))


def confidences(network: Network, model: Parameters, images: Images) -> Scores:
    """Return the logit of the right class's probability, which is nearly Gaussian over models."""
    loss = np.clip(network.losses(model, images), 1e-7, 50)
    return np.asarray(-loss - np.log(-np.expm1(-loss)))


def by_shadows(
    network: Network,
    model: Parameters,
    pool: Images,
    member: NDArray[np.bool_],
    shadows: Sequence[tuple[Parameters, NDArray[np.bool_]]],
) -> Rates:
    """Compare with models whose members the attacker chose.

    Parameters
    ----------
    network, model
    pool : Images
    member : ndarray of bool
        Which of the pool the model was trained on; only used to score the answer.
    shadows : sequence of (parameters, ndarray of bool)
        Models, and which of the pool each was trained on.
    """
    seen = np.stack([confidences(network, shadow, pool) for shadow, _ in shadows])
    inside = np.stack([chosen for _, chosen in shadows])

    def mean(of: NDArray[np.bool_]) -> Scores:
        return np.asarray((seen * of).sum(axis=0) / np.maximum(of.sum(axis=0), 1))

    with_it, without = mean(inside), mean(~inside)
    left = seen - np.where(inside, with_it, without)
    found = confidences(network, model, pool)
    scores = ((found - without) ** 2 - (found - with_it) ** 2) / (2 * left.var() + 1e-9)
    usable = inside.any(axis=0) & ~inside.all(axis=0)
    return rates(scores[member & usable], scores[~member & usable])


def by_art(network: Network, model: Parameters, members: Images, others: Images) -> Rates:
    """Run ART's attack, with a random forest."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ART's imports
        from art.attacks.inference.membership_inference import MembershipInferenceBlackBox

        attack = MembershipInferenceBlackBox(classifier(network, model), attack_model_type="rf")
        half_in, half_out = len(members) // 2, len(others) // 2
        known = (members.part(slice(half_in)), others.part(slice(half_out)))
        asked = (members.part(slice(half_in, None)), others.part(slice(half_out, None)))
        attack.fit(known[0].x.numpy(), known[0].y.numpy(), known[1].x.numpy(), known[1].y.numpy())
        found = [np.asarray(attack.infer(part.x.numpy(), part.y.numpy(), probabilities=True)) for part in asked]
    return rates(*(scores.reshape(len(scores), -1)[:, -1].astype(np.float64) for scores in found))


def classifier(network: Network, model: Parameters) -> object:
    """Return ART's view of a model: probabilities of ten classes."""
    from art.estimators.classification import PyTorchClassifier

    module = nn.Sequential(network.module, nn.Softmax(dim=1))
    network.module.load_state_dict(model)
    module.eval()
    return PyTorchClassifier(
        module,
        loss=nn.NLLLoss(),
        input_shape=(1, SIDE, SIDE),
        nb_classes=CLASSES,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
