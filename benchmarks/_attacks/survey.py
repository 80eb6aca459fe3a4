"""All rows and columns: which party of which strategy sees what, and how well each kind of sight can be attacked.

What parties see differs between strategies in who sees it, not in what it is: sums of some clients' gradients, exact or
with noise. That is measured for every sight (:func:`doubts`); then each *kind* is attacked once, on rounds of a
strategy that shows it, and the result stands for all sights of the kind. Hidden bytes are attacked for each strategy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from .guessing import correlation
from .inversion import Quality, invert, judge
from .membership import Rates, RoundAttack, rates
from .problem import Images, Network, clipped
from .rounds import CLIP, Sight, Terms, Vector
from .views import VICTIM, Strategy

#: Relative error of a sum that was exact but for rounding; error of the measured deviation of noise.
ROUNDING, DEVIATION = 0.1, 0.1
#: Standard deviations by which a hidden sight may correlate with the truth.
SIGMAS = 5.0


@dataclass(frozen=True)
class Row:
    """A strategy under some terms."""

    strategy: str
    epsilon: float | None = None
    where: str = "opener"

    @property
    def title(self) -> str:
        """What the tables call it."""
        if self.epsilon is None:
            return self.strategy
        by = ", noise by clients" if self.where == "clients" else ""
        return f"{self.strategy}, ε = {self.epsilon:g}{by}"


@dataclass(frozen=True)
class Kind:
    """What all sights of a kind have in common.

    Parameters
    ----------
    clients : int
        How many are summed; 0: hidden.
    sigma : float
        Of the noise, rounded.
    private : bool
        Whether gradients were clipped and rounded for privacy.
    source : str
        Of hidden bytes: strategy and party.
    """

    clients: int
    sigma: float = 0.0
    private: bool = False
    source: str = ""

    @property
    def title(self) -> str:
        """What the tables call it."""
        if self.source:
            return f"hidden: {self.source}"
        of = "one update" if self.clients == 1 else f"sum of {self.clients}"
        return f"{of}, noise {self.sigma:.3g}" if self.sigma else of


def kind_of(row: Row, sight: Sight) -> Kind:
    """Return the kind of a sight."""
    if sight.hidden:
        return Kind(0, source=f"{row.strategy}, {sight.party}")
    return Kind(len(sight.clients), float(f"{sight.sigma:.4g}"), row.epsilon is not None)


def rows(strategies: Mapping[str, Strategy], epsilons: Sequence[float] = (3.0, 1.0)) -> list[Row]:
    """Return all rows of the tables."""
    found = [Row(name) for name in strategies]
    for epsilon in epsilons:
        found += [Row(name, epsilon) for name, strategy in strategies.items() if strategy.private]
        found += [Row(name, epsilon, "clients") for name in strategies if name == "Masked"]
    return found


@dataclass(frozen=True)
class Scene:
    """A network, its images, and how many clients with how many images take part.

    Parameters
    ----------
    network : Network
    images : Images
        Of which clients get some in each round.
    each : Tensor, shape (images, size)
        Their gradients.
    clients, examples : int
    """

    network: Network
    images: Images
    each: torch.Tensor
    clients: int
    examples: int

    def terms(self, row: Row) -> Terms:
        """Return what is agreed on."""
        return Terms(self.network, self.clients, self.examples, row.epsilon, row.where)

    def deal(self, seed: int) -> NDArray[np.int64]:
        """Return an order of the images for a round: client after client, then those that nobody has."""
        return np.random.default_rng([seed, self.clients, self.examples, 9]).permutation(len(self.images))

    def held(self, order: NDArray[np.int64], clients: Sequence[int]) -> NDArray[np.int64]:
        """Return the images of some clients."""
        return order[: self.clients * self.examples].reshape(self.clients, -1)[list(clients)].reshape(-1)

    def sums(self, row: Row, order: NDArray[np.int64]) -> list[Vector]:
        """Return every client's sum of gradients."""
        each = protected(row, self.each[order[: self.clients * self.examples]]).double().numpy()
        return list(each.reshape(self.clients, self.examples, -1).sum(axis=1))


def protected(row: Row, gradients: torch.Tensor) -> torch.Tensor:
    """Return gradients as a client sums them."""
    return gradients if row.epsilon is None else clipped(gradients, CLIP * (1 - 2.0**-20))


def doubts(row: Row, sight: Sight, sums: Sequence[Vector]) -> str:
    """Return in which way a sight is not what it says it is; empty if it is."""
    if sight.hidden:
        found = correlation(sight.values, sums[VICTIM])
        limit = SIGMAS / np.sqrt(len(sight.values))
        return f"{row.title}: hidden {sight.party} correlates {found:.3f}" if abs(found) > limit else ""
    truth = sum(sums[client] for client in sight.clients)
    rest = sight.values - truth
    if sight.sigma and abs(rest.std() / sight.sigma - 1) > DEVIATION:
        return f"{row.title}: noise of {rest.std():.3g} before {sight.party}, expected {sight.sigma:.3g}"
    if not sight.sigma and np.linalg.norm(rest) > ROUNDING * np.linalg.norm(truth):
        return f"{row.title}: {sight.party} does not see the sum of {len(sight.clients)}"
    return ""


@dataclass(frozen=True)
class Found:
    """What a scene's rows show.

    Parameters
    ----------
    cells : mapping of (Row, party) to list of Kind
    makers : mapping of Kind to (Row, party)
        A strategy that shows the kind quickly.
    missed : list of str
        Sights that were not what they should be.
    """

    cells: Mapping[tuple[Row, str], list[Kind]]
    makers: Mapping[Kind, tuple[Row, str]]
    missed: list[str]


def explore(scene: Scene, strategies: Mapping[str, Strategy], which: Sequence[Row]) -> Found:
    """Run one round for every row, and check what every party sees."""
    cells: dict[tuple[Row, str], list[Kind]] = {}
    makers: dict[Kind, tuple[Row, str]] = {}
    missed = []
    for row in sorted(which, key=lambda row: row.strategy == "Paillier"):  # the slow one last
        sums = scene.sums(row, scene.deal(0))
        for sight in strategies[row.strategy].look(scene.terms(row), sums):
            kind = kind_of(row, sight)
            cells.setdefault((row, sight.party), []).append(kind)
            makers.setdefault(kind, (row, sight.party))
            if doubt := doubts(row, sight, sums):
                missed.append(doubt)
    return Found(cells, makers, missed)


def sights(
    scene: Scene, strategies: Mapping[str, Strategy], found: Found, kind: Kind, seed: int
) -> tuple[Sight, NDArray[np.int64]]:
    """Run another round, and return its sight of a kind with the order of its images."""
    row, party = found.makers[kind]
    order = scene.deal(seed)
    for sight in strategies[row.strategy].look(scene.terms(row), scene.sums(row, order)):
        if sight.party == party and kind_of(row, sight) == kind:
            return sight, order
    raise LookupError(f"{row.title} does not show {kind.title}")


# ---------------------------------------------------------------------- attacks on all kinds
@dataclass(frozen=True)
class Picture:
    """One image and what was made of it, for the plot."""

    truth: torch.Tensor
    guess: torch.Tensor


def invert_kinds(
    scene: Scene,
    strategies: Mapping[str, Strategy],
    found: Found,
    kinds: Sequence[Kind],
    repeats: Mapping[int, int],
    iterations: int,
    means: torch.Tensor,
) -> tuple[dict[Kind, Quality], dict[Kind, Picture]]:
    """Attack images in sums of clients with one image each.

    Parameters
    ----------
    repeats : mapping of int to int
        How many rounds are attacked, by images in the sum.
    """
    results, pictures = {}, {}
    for count in sorted({max(kind.clients, 1) for kind in kinds}):
        group = [kind for kind in kinds if max(kind.clients, 1) == count]
        seen = [[sights(scene, strategies, found, kind, 1 + i) for i in range(repeats[count])] for kind in group]
        truth = [[scene.images.part(scene.held(order, s.clients or [VICTIM])) for s, order in part] for part in seen]
        values = torch.from_numpy(np.stack([sight.values for part in seen for sight, _ in part])).float()
        # Of unit length, so that rounding errors do not depend on the scale of a ciphertext.
        values /= values.norm(dim=1, keepdim=True)
        labels = torch.stack([images.y for part in truth for images in part])
        # All at once: small layers cost more to call than to compute.
        guesses = invert(scene.network, values, labels, iterations).split(repeats[count])
        for kind, images, made in zip(group, truth, guesses, strict=True):
            results[kind] = judge(made, images, means)
            own = images[0].x[0]
            pictures[kind] = Picture(own, min(made[0], key=lambda one: float(((one - own) ** 2).mean())))
    return results, pictures


def search_kinds(
    scene: Scene,
    strategies: Mapping[str, Strategy],
    found: Found,
    kinds: Sequence[Kind],
    trials: int,
    public: torch.Tensor,
) -> dict[Kind, Rates]:
    """Look for the victim's images in what is seen of rounds; as many images of nobody are candidates, too.

    Parameters
    ----------
    public : Tensor, shape (images, size)
        Gradients of the attacker's images.
    """
    results = {}
    for kind in kinds:
        row, _ = found.makers[kind]
        count = max(kind.clients, 1) * scene.examples
        attack = RoundAttack(protected(row, public), count, kind.sigma)
        inside, outside = [], []
        for i in range(trials):
            sight, order = sights(scene, strategies, found, kind, 100 + i)
            values = torch.from_numpy(sight.values).float()
            if sight.hidden:  # brought to the scale that an update would have
                values *= count**0.5 * attack.scale / values.std()
            victim, nobody = scene.held(order, [VICTIM]), order[-scene.examples :]
            inside.append(attack.scores(values, protected(row, scene.each[victim])))
            outside.append(attack.scores(values, protected(row, scene.each[nobody])))
        results[kind] = rates(np.concatenate(inside), np.concatenate(outside))
    return results
