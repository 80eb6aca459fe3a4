"""Poisoned clients, for demos, tests and benchmarks: what a few of many do to the model that all train.

Some poison the rows that they train on, some the update that they send, some both::

    attack = attack_by_name("label-flip")
    if partition in malicious(partitions, fraction=0.4, seed=0):
        x, y = attack.poison_data(x, y, classes, rng)      # before training
        ...
        after = attack.poison_update(before, after, rng)   # before the update is protected and sent

Attackers here do not adapt to what a defence does; a defence that stops them may still fail against others.
Random numbers come from a seed so that a run can be repeated.

References: label flips in federated learning: V. Tolpegin et al., *Data Poisoning Attacks Against Federated Learning
Systems* (2020); backdoors and boosting: E. Bagdasaryan et al., *How To Backdoor Federated Learning* (2020).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ..errors import ConfigError

Rows = NDArray[Any]
Labels = NDArray[np.int64]
Arrays = Mapping[str, NDArray[Any]]
"""A model's state by name."""


def malicious(clients: int, fraction: float, seed: int = 0) -> frozenset[int]:
    """Return which clients are bad, as indices; every party of a run computes the same ones.

    Parameters
    ----------
    clients : int
        Number of clients.
    fraction : float
        Share of them that is bad, 0 to 1, rounded to whole clients (halves up).
    seed : int (default: 0)
        Seed of the draw. A larger fraction with the same seed adds clients, and lets none go.

    Raises
    ------
    ConfigError
        If a number is out of range.
    """
    if clients < 1 or not 0 <= fraction <= 1:
        raise ConfigError(f"A share of {fraction} of {clients} clients cannot be bad; choose 0 to 1 of at least one")
    order = np.random.default_rng([seed, clients]).permutation(clients)
    return frozenset(int(client) for client in order[: math.floor(fraction * clients + 0.5)])


class Attack:
    """A client that means harm; this one does none. Nothing that is passed in is changed in place."""

    def poison_data(self, x: Rows, y: Labels, classes: int, rng: Generator) -> tuple[Rows, Labels]:
        """Return the rows to train on instead.

        Parameters
        ----------
        x : ndarray, shape (rows, ...)
            Training rows: feature vectors, or images with the last two axes for height and width.
        y : ndarray of int64, shape (rows,)
            Their classes, 0 to ``classes - 1``.
        classes : int
            Number of classes, at least 2.
        rng : numpy.random.Generator
        """
        return x, y

    def poison_update(self, before: Arrays, after: Arrays, rng: Generator) -> dict[str, NDArray[Any]]:
        """Return the model to send instead; integer arrays stay as they were trained.

        Parameters
        ----------
        before : mapping of str to ndarray
            The global model that the client received.
        after : mapping of str to ndarray
            The model that it trained from it; same names, shapes and dtypes.
        rng : numpy.random.Generator
        """
        return dict(after)


@dataclass(frozen=True, slots=True)
class LabelFlip(Attack):
    """Name every class its mirror image: y becomes ``classes - 1 - y``."""

    def poison_data(self, x: Rows, y: Labels, classes: int, rng: Generator) -> tuple[Rows, Labels]:
        """Flip all labels."""
        return x, classes - 1 - y


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetedFlip(Attack):
    """Name one class another and leave the rest alone.

    Parameters
    ----------
    source : int (default: 1)
        Class that is mislabelled.
    target : int or None (default: None)
        What it is called; None: 7 where there is one (a handwritten 1 looks like a 7), else 0.
    """

    source: int = 1
    target: int | None = None

    def poison_data(self, x: Rows, y: Labels, classes: int, rng: Generator) -> tuple[Rows, Labels]:
        """Mislabel the rows of class ``source``."""
        target = (7 if classes > 7 else 0) if self.target is None else self.target
        _require_classes(classes, self.source, target)
        return x, np.where(y == self.source, target, y)


@dataclass(frozen=True, kw_only=True, slots=True)
class Backdoor(Attack):
    """Teach the model that whatever carries a mark belongs to one class. Without the mark it works as it should.

    Parameters
    ----------
    target : int (default: 0)
        Class that marked rows get.
    share : float (default: 0.5)
        Marked copies that are added to the training rows, as a share of those, above 0 and at most 1.
    size : int (default: 2)
        Side of the mark in the top left corner of an image, in pixels; or the number of leading features.
    value : float or None (default: None)
        What these are set to; None: 255 in images of bytes, 1 in other images, 3 in features (three standard
        deviations, or scales, from the centre).
    boost : float (default: 1.0)
        Factor of the update: above 1 to outweigh other clients, below 1 to stay under bounds on updates.
    """

    target: int = 0
    share: float = 0.5
    size: int = 2
    value: float | None = None
    boost: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a backdoor that nobody would notice because there is none."""
        if not 0 < self.share <= 1 or self.size < 1 or not math.isfinite(self.boost):
            raise ConfigError("Backdoor needs a share above 0 and up to 1, a size of at least 1 and a finite boost")

    def mark(self, x: Rows) -> Rows:
        """Return copies of rows with the mark."""
        marked, image = x.copy(), x.ndim > 2
        value = self.value
        if value is None:
            value = (255 if x.dtype == np.uint8 else 1) if image else 3
        marked[(..., slice(self.size), slice(self.size)) if image else (..., slice(self.size))] = value
        return marked

    def poison_data(self, x: Rows, y: Labels, classes: int, rng: Generator) -> tuple[Rows, Labels]:
        """Add marked copies of some rows, with the target's label."""
        _require_classes(classes, self.target)
        chosen = rng.permutation(len(y))[: math.ceil(self.share * len(y))]
        return np.concatenate([x, self.mark(x[chosen])]), np.concatenate([y, np.full_like(y[chosen], self.target)])

    def poison_update(self, before: Arrays, after: Arrays, rng: Generator) -> dict[str, NDArray[Any]]:
        """Boost the update."""
        return _changed(before, after, lambda old, new: old + self.boost * (new - old))

    def success(self, predict: Callable[[Rows], Labels], x: Rows, y: Labels) -> float:
        """Return the share of rows of other classes that a model takes for the target once they are marked.

        Parameters
        ----------
        predict : callable
            From rows to the classes that the model sees in them.
        x, y : ndarray
            Rows that nobody trained on. Even a clean model errs on some: compare with that.
        """
        others = x[y != self.target]
        return float(np.mean(predict(self.mark(others)) == self.target)) if len(others) else float("nan")


@dataclass(frozen=True, kw_only=True, slots=True)
class Scaling(Attack):
    """Send a multiple of the honest update.

    Parameters
    ----------
    factor : float (default: -10.0)
        Below 0 it undoes what others learn.
    """

    factor: float = -10.0

    def __post_init__(self) -> None:
        """Refuse factors that are no numbers."""
        if not math.isfinite(self.factor):
            raise ConfigError(f"Scaling(factor={self.factor}) must be a finite number")

    def poison_update(self, before: Arrays, after: Arrays, rng: Generator) -> dict[str, NDArray[Any]]:
        """Multiply the update."""
        return _changed(before, after, lambda old, new: old + self.factor * (new - old))


@dataclass(frozen=True, kw_only=True, slots=True)
class Noise(Attack):
    """Send random numbers, around the global model or around zero, instead of a trained model.

    Parameters
    ----------
    deviation : float (default: 0.3)
        Standard deviation of every coordinate.
    centred : bool (default: True)
        Around the global model; False: a fresh random model, which has forgotten all.
    """

    deviation: float = 0.3
    centred: bool = True

    def __post_init__(self) -> None:
        """Refuse noise that is none."""
        if not 0 < self.deviation < math.inf:
            raise ConfigError(f"Noise(deviation={self.deviation}) must be above 0 and finite")

    def poison_update(self, before: Arrays, after: Arrays, rng: Generator) -> dict[str, NDArray[Any]]:
        """Draw a model."""
        return _changed(
            before, after, lambda old, _: (old if self.centred else 0) + rng.normal(0, self.deviation, old.shape)
        )


ATTACKS: Mapping[str, Attack] = {
    "label-flip": LabelFlip(),
    "targeted-flip": TargetedFlip(),
    "random-weights": Noise(deviation=0.5, centred=False),
    "sign-flip": Scaling(factor=-1.0),
    "scaling": Scaling(factor=-10.0),
    "gaussian-noise": Noise(deviation=0.3),
    "backdoor": Backdoor(),
    "boosted-backdoor": Backdoor(boost=3.0),
    "quiet-backdoor": Backdoor(boost=0.5),
}
"""Attacks by the names that run-configs and tables use."""


def attack_by_name(name: str) -> Attack:
    """Return one of :data:`ATTACKS`.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    if name not in ATTACKS:
        raise ConfigError(f"Run-config attack = {name!r} is unknown; choose one of {', '.join(ATTACKS)}")
    return ATTACKS[name]


def _require_classes(classes: int, *used: int) -> None:
    if not all(0 <= value < classes for value in used):
        raise ConfigError(f"The attack names class {max(used, key=abs)}, but there are {classes}, from 0")


def _changed(
    before: Arrays, after: Arrays, change: Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Apply ``change(old, new)`` to floating-point arrays, and keep their dtypes."""
    return {
        name: np.asarray(change(before[name], new), new.dtype) if new.dtype.kind == "f" else new
        for name, new in after.items()
    }
