"""What the checks of ``Verified`` stop when some of ten clients are poisoned, and what they let through.

Federated training in one process: ten clients train a network on their own rows, some do harm
(:mod:`flbc.demo.attacks`), a defence makes one model of theirs. Two problems: a convolutional network on the 1,797
digits of scikit-learn (8 × 8 pixels), and a perceptron on the heart data of four hospitals, pooled and dealt evenly.

``Verified`` decides with the product's own checks (:func:`flbc.verification.checks.decide`) in the clear: three parties
on shares compute the same integers, apart from rounding in the last place. The committee checks with 3 × 80 samples
that nobody trains on. Bad clients cut updates off at ``max_change`` as good ones do: beyond it nothing passes. Columns:

* *undefended*: the mean of all updates;
* *accuracy*: no bounds but one so wide (64 for each coordinate) that it stops overflows only;
* *default*: ``Policy()``, accuracy and norms;
* *+ cosine*: ``Policy(cosine=True)``, where the committee's members also train on their samples;
* Flower's own Krum, FedMedian and FedTrimmedAvg, which must see every update, and need no committee with data. Krum is
  told how many clients are bad, which nobody knows in earnest. FedTrimmedAvg drops Flower's default of a fifth at each
  end of every coordinate; two fifths, for four bad clients, would leave what FedMedian takes.

Every client counts the same. Accuracy is on held-out rows, the mean over the last rounds and over seeds. Networks and
data are small: read differences, not digits behind the point. Attackers do not adapt, but for one: who halves a
backdoor's update stays under all bounds, and passes. Plain backdoors are refused where their updates happen to be long.

    python benchmarks/poisoning.py --plot docs/img/poisoning.png     # about 20 minutes on two processors
    python benchmarks/poisoning.py --quick                           # under 3 minutes

The exit status is 1 if the default policy misses what :func:`judge` asks of it.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple, dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg, FedMedian, FedTrimmedAvg, Krum
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import nn
from torch.func import functional_call, grad, vmap

from flbc.demo import heart
from flbc.demo.attacks import Attack, Backdoor, attack_by_name, malicious
from flbc.verification.checks import ROOT_FRACTION, Evidence, decide, within
from flbc.verification.engine import FRACTION, SUM_FRACTION
from flbc.verification.plain import Clear, PlainEngine
from flbc.verification.policy import Policy
from flbc.verification.program import compile_model
from flbc.verification.root import root_update

Arrays = dict[str, NDArray[Any]]
Rows = tuple[NDArray[np.float32], NDArray[np.int64]]

CLIENTS = 10
#: Validation samples of each of the committee's three members.
SAMPLES = 80
#: What the default policy may cost in accuracy against a training without bad clients, as a share (:func:`judge`).
MAX_LOSS = 0.05
#: How many more marked rows than without bad clients a boosted backdoor may fool, and how many good updates may be
#: refused where nobody is bad, as shares.
MAX_FOOLED, MAX_REFUSED = 0.1, 0.15
#: Fewer accepted updates than this are not summed: the model stays as it is.
MIN_ACCEPTED = 3
CLEAN = "none"
NAN = float("nan")
#: Of local training: SGD's momentum, and the largest norm of a batch's gradient.
MOMENTUM, CLIP = 0.9, 5.0
ATTACKS = ("label-flip", "random-weights", "sign-flip", "scaling", "gaussian-noise", "targeted-flip", "backdoor",
           "boosted-backdoor", "quiet-backdoor")  # fmt: skip
#: Attacks that anyone sees who looks at accuracy or norms.
SEEN = ("label-flip", "random-weights", "sign-flip", "scaling", "gaussian-noise", "boosted-backdoor")
QUICK = ("label-flip", "scaling", "boosted-backdoor")
VERIFIED = {"accuracy": Policy(norm_factor=None, max_change=64.0), "default": Policy(), "+ cosine": Policy(cosine=True)}
DATA = ("digits", "heart")
DEFENCES = ("undefended", *VERIFIED, "Krum", "FedMedian", "FedTrimmedAvg")


# ---------------------------------------------------------------------- problems
@dataclass(frozen=True)
class Problem:
    """A network, rows for everybody, and how clients train: SGD with momentum in small batches.

    Parameters
    ----------
    clients : sequence of (x, y)
        Rows of each client.
    committee, test : (x, y)
        Rows that no client trains on.
    """

    classes: int
    clients: Sequence[Rows]
    committee: Rows
    test: Rows
    network: Callable[[], nn.Module]
    learning_rate: float
    epochs: int
    batch: int = 16


def digits_network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip


def heart_network() -> nn.Module:
    return nn.Sequential(nn.Linear(len(heart.FEATURE_NAMES), 16), nn.ReLU(), nn.Linear(16, 2))


def digits_rows() -> Rows:
    from sklearn.datasets import load_digits  # comes with mlxtend

    found = load_digits()
    return (found.images[:, None] / 16).astype(np.float32), found.target.astype(np.int64)


def heart_rows() -> Rows:
    records = heart.load()
    x = np.stack([heart.features(record) for record in records]).astype(np.float32)
    return x, np.array([heart.label(record) for record in records], np.int64)


@lru_cache(maxsize=2)
def problem(name: str, seed: int) -> Problem:
    """Deal the rows of a data set by a seed: a quarter for testing, 240 for the committee, the rest for clients."""
    read, classes, network, rate, epochs = {
        "digits": (digits_rows, 10, digits_network, 0.1, 3),
        "heart": (heart_rows, 2, heart_network, 0.05, 4),
    }[name]
    x, y = read()
    order = np.random.default_rng([seed, 1]).permutation(len(y))
    tested = len(y) // 4
    test, committee, rest = np.split(order, [tested, tested + 3 * SAMPLES])
    each = len(rest) // CLIENTS
    clients = [(x[part], y[part]) for part in rest[: each * CLIENTS].reshape(CLIENTS, each)]
    return Problem(classes, clients, (x[committee], y[committee]), (x[test], y[test]), network, rate, epochs)


# ---------------------------------------------------------------------- clients
def train(how: Problem, before: Arrays, rows: Sequence[Rows], seeds: Sequence[Sequence[int]]) -> list[Arrays]:
    """Train from ``before`` on the rows of each client; its seed orders its batches, the same for every defence."""
    by_size: dict[int, list[int]] = {}
    for i, (_, y) in enumerate(rows):
        by_size.setdefault(len(y), []).append(i)
    found: dict[int, Arrays] = {}
    for size, group in by_size.items():
        x, y = (torch.from_numpy(np.stack([rows[i][part] for i in group])) for part in (0, 1))
        found |= zip(group, _side_by_side(how, before, x, y, [seeds[i] for i in group], size), strict=True)
    return [found[i] for i in range(len(rows))]


def _side_by_side(
    how: Problem, before: Arrays, x: torch.Tensor, y: torch.Tensor, seeds: Sequence[Sequence[int]], size: int
) -> list[Arrays]:
    """Train K models at once, each on its own rows: small layers cost more to call than to compute."""
    network, everyone = how.network(), torch.arange(len(seeds))[:, None]

    def loss(weights: dict[str, torch.Tensor], inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(functional_call(network, weights, (inputs,)), targets)

    slopes = vmap(grad(loss))
    weights = {name: torch.tensor(value).expand(len(seeds), *value.shape).clone() for name, value in before.items()}
    moving = {name: torch.zeros_like(value) for name, value in weights.items()}
    generators = [np.random.default_rng(seed) for seed in seeds]
    for _ in range(how.epochs):
        order = torch.from_numpy(np.stack([rng.permutation(size) for rng in generators]))
        for batch in order.split(how.batch, dim=1):
            gradients = slopes(weights, x[everyone, batch], y[everyone, batch])
            # Without a limit an undefended model diverges to NaN, and nothing could be compared any more.
            lengths = torch.stack([g.flatten(1).norm(dim=1) for g in gradients.values()]).norm(dim=0)
            factors = (CLIP / (lengths + 1e-6)).clamp(max=1)
            for name, gradient in gradients.items():
                moving[name].mul_(MOMENTUM).add_(gradient * factors.view(-1, *[1] * (gradient.dim() - 1)))
                weights[name].sub_(how.learning_rate * moving[name])
    return [{name: value[k].numpy().copy() for name, value in weights.items()} for k in range(len(seeds))]


def arrays_of(model: nn.Module) -> Arrays:
    return {name: value.detach().numpy().copy() for name, value in model.state_dict().items()}


def place(model: nn.Module, arrays: Mapping[str, NDArray[Any]]) -> None:
    model.load_state_dict({name: torch.tensor(value) for name, value in arrays.items()})


def predict(model: nn.Module, x: NDArray[np.float32]) -> NDArray[np.int64]:
    with torch.no_grad():
        return model(torch.from_numpy(x)).argmax(dim=1).numpy()


# ---------------------------------------------------------------------- defences
class Defence(Protocol):
    """Makes one model of many."""

    def aggregate(self, round_: int, before: Arrays, sent: Sequence[Arrays]) -> tuple[Arrays, Sequence[bool] | None]:
        """Return the next global model, and who was accepted if the defence says so."""
        ...


class Flower:
    """A strategy of Flower, which gets real messages."""

    def __init__(self, strategy: FedAvg) -> None:
        self._strategy = strategy

    def aggregate(self, round_: int, before: Arrays, sent: Sequence[Arrays]) -> tuple[Arrays, None]:
        """Call the strategy's own ``aggregate_train``."""
        found, _ = self._strategy.aggregate_train(round_, [self._reply(i, arrays) for i, arrays in enumerate(sent)])
        assert found is not None
        return {name: array.numpy().astype(before[name].dtype) for name, array in found.items()}, None

    @staticmethod
    def _reply(client: int, arrays: Arrays) -> Message:
        record = ArrayRecord({name: Array(value) for name, value in arrays.items()})
        content = RecordDict({"arrays": record, "metrics": MetricRecord({"num-examples": 1})})
        return Message(content, reply_to=Message(RecordDict(), dst_node_id=client + 1, message_type="train"))


class Verified:
    """The product's checks, in the clear."""

    def __init__(self, policy: Policy, how: Problem) -> None:
        self._policy, self._how, self._engine = policy, how, PlainEngine()
        x, y = how.committee
        self._program = compile_model(how.network(), x.shape[1:])
        self._samples = Clear(fixed(x, FRACTION))
        self._labels = Clear(torch.eye(how.classes, dtype=torch.int64)[torch.from_numpy(y)])
        self._own = how.network()

    def aggregate(self, round_: int, before: Arrays, sent: Sequence[Arrays]) -> tuple[Arrays, Sequence[bool]]:
        """Check all updates, and add the mean of those accepted."""
        start = self._vector(before)
        # A client's mod cuts off what max_change forbids; who sends it nevertheless is refused for that alone.
        limit = self._policy.max_change
        changes = np.clip(np.stack([self._vector(arrays) - start for arrays in sent]), -limit, limit)
        model, updates = fixed(start, SUM_FRACTION), Clear(fixed(changes, SUM_FRACTION))
        bound = torch.full(model.shape, self._policy.change_bound, dtype=torch.int64)
        inside = within(self._engine, updates, -bound, bound)
        evidence = Evidence(self._samples, self._labels, self._root(before) if self._policy.cosine else None)
        verdict = decide(self._engine, self._policy, self._program, round_, model, updates, inside, evidence)
        accepted = self._engine.open(verdict).numpy().astype(bool)
        if accepted.sum() < MIN_ACCEPTED:
            return before, accepted.tolist()
        moved = start + changes[accepted].mean(axis=0)
        return self._arrays(moved, before), accepted.tolist()

    def _root(self, before: Arrays) -> Clear:
        """Add the directions in which the members' own data pull; each trains on its own."""
        total = torch.zeros(sum(value.size for value in before.values()), dtype=torch.int64)
        x, y = (torch.from_numpy(part) for part in self._how.committee)
        for own, labels in zip(x.split(SAMPLES), y.split(SAMPLES), strict=True):
            moved = root_update(self._own, before, own, labels)
            total += fixed((moved / moved.norm()).numpy(), ROOT_FRACTION)
        return Clear(total)

    def _vector(self, arrays: Arrays) -> NDArray[np.float64]:
        return np.concatenate([arrays[name].ravel() for name in self._program.parameters]).astype(np.float64)

    def _arrays(self, vector: NDArray[np.float64], like: Arrays) -> Arrays:
        names = list(self._program.parameters)
        parts = np.split(vector, np.cumsum([like[name].size for name in names])[:-1])
        return {
            name: part.reshape(like[name].shape).astype(like[name].dtype)
            for name, part in zip(names, parts, strict=True)
        }


def fixed(values: NDArray[Any], bits: int) -> torch.Tensor:
    """Round to integers in units of ``2^-bits``."""
    return torch.from_numpy(np.rint(values.astype(np.float64) * 2.0**bits).astype(np.int64))


def defence(name: str, how: Problem, bad: int) -> Defence:
    if name in VERIFIED:
        return Verified(VERIFIED[name], how)
    strategies: dict[str, Callable[[], FedAvg]] = {
        "undefended": FedAvg,
        "Krum": lambda: Krum(num_malicious_nodes=bad),
        "FedMedian": FedMedian,
        "FedTrimmedAvg": FedTrimmedAvg,
    }
    return Flower(strategies[name]())


# ---------------------------------------------------------------------- one training
@dataclass(frozen=True)
class Job:
    """One training from scratch."""

    data: str
    attack: str
    bad: int
    defence: str
    seed: int
    rounds: int


@dataclass(frozen=True)
class Outcome:
    """How a training went.

    Parameters
    ----------
    accuracy : float
        On held-out rows, the mean over the last rounds.
    fooled : float
        Share of held-out rows that the backdoor's mark sends to its target; without a backdoor, what errors alone do.
    refused_bad, refused_good : float
        Shares of updates that were refused; NaN for defences that do not refuse, and where nobody is bad.
    """

    accuracy: float
    fooled: float
    refused_bad: float
    refused_good: float


def run(job: Job) -> Outcome:
    how, bad = problem(job.data, job.seed), malicious(CLIENTS, job.bad / CLIENTS, job.seed)
    attack = Attack() if job.attack == CLEAN else attack_by_name(job.attack)
    torch.manual_seed(job.seed)
    model = how.network()
    arrays, guard = arrays_of(model), defence(job.defence, how, job.bad)
    rows = [
        attack.poison_data(*own, how.classes, np.random.default_rng([job.seed, i])) if i in bad else own
        for i, own in enumerate(how.clients)
    ]
    curve, verdicts = [], []
    for round_ in range(1, job.rounds + 1):
        sent = train(how, arrays, rows, [[job.seed, round_, i] for i in range(CLIENTS)])
        for i in bad:
            sent[i] = attack.poison_update(arrays, sent[i], np.random.default_rng([job.seed, round_, i]))
        arrays, accepted = guard.aggregate(round_, arrays, sent)
        verdicts += [accepted] if accepted is not None else []
        place(model, arrays)
        x, y = how.test
        curve.append(float(np.mean(predict(model, x) == y)))
    marker = attack if isinstance(attack, Backdoor) else Backdoor()
    fooled = marker.success(lambda x: predict(model, x), *how.test)
    return Outcome(float(np.mean(curve[-last(job.rounds) :])), fooled, *refusals(verdicts, bad))


def last(rounds: int) -> int:
    """How many rounds at the end an accuracy is the mean of."""
    return min(4, max(1, rounds // 2))


def refusals(verdicts: Sequence[Sequence[bool]], bad: Iterable[int]) -> tuple[float, float]:
    """Return the shares of bad and of good clients' updates that were refused."""
    refused = ~np.array(verdicts, bool).reshape(-1, CLIENTS)
    guilty = np.isin(np.arange(CLIENTS), list(bad))
    of_bad, of_good = (float(part.mean()) if part.size else NAN for part in (refused[:, guilty], refused[:, ~guilty]))
    return of_bad, of_good


def prepare() -> None:
    """Set up a worker: one thread, and no line of Flower's log for every aggregation."""
    torch.set_num_threads(1)
    logging.getLogger("flwr").setLevel(logging.ERROR)
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1


# ---------------------------------------------------------------------- all trainings
Case = tuple[str, str, int, str]
"""Data, attack, number of bad clients, defence."""


def plan(quick: bool, seeds: int, rounds: int) -> list[Job]:
    attacks, numbers = (QUICK, (4,)) if quick else (ATTACKS, (2, 4))
    cases = [(CLEAN, 0), *((attack, bad) for attack in attacks for bad in numbers)]
    return [
        Job(data, attack, bad, name, seed, rounds)
        for data in DATA
        for attack, bad in cases
        for name in DEFENCES
        for seed in range(seeds)
    ]


def measure(jobs: Sequence[Job], processes: int) -> dict[Case, Outcome]:
    """Run all trainings; return the means over seeds."""
    found: dict[Case, list[Outcome]] = {}
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), initializer=prepare) as pool:
        done = track(pool.map(run, jobs), "training", len(jobs), console=Console(stderr=True))
        for job, outcome in zip(jobs, done, strict=True):
            found.setdefault((job.data, job.attack, job.bad, job.defence), []).append(outcome)
    return {case: Outcome(*np.mean([astuple(one) for one in several], axis=0)) for case, several in found.items()}


def tables(found: Mapping[Case, Outcome], console: Console) -> None:
    """Print accuracies, who was refused, and what backdoors achieve."""

    def table(title: str, data: str, names: Sequence[str], cell: Callable[[Outcome], str], only: str = "") -> None:
        console.print(f"\n| {data}: {title} | bad | {' | '.join(names)} |", soft_wrap=True, highlight=False)
        console.print("|---|---|" + "---|" * len(names), soft_wrap=True, highlight=False)
        for attack, bad in cases(found, data):
            if only in attack or attack == CLEAN:
                cells = " | ".join(cell(found[data, attack, bad, name]) for name in names)
                console.print(f"| {attack} | {bad} | {cells} |", soft_wrap=True, highlight=False)

    for data in DATA:
        table("accuracy, %", data, DEFENCES, lambda one: f"{100 * one.accuracy:.1f}")
        table("refused of bad / of good, %", data, list(VERIFIED),
              lambda one: f"{percent(one.refused_bad)} / {percent(one.refused_good)}")  # fmt: skip
        table("marked rows taken for the target, %", data, DEFENCES, lambda one: percent(one.fooled), "backdoor")


def cases(found: Mapping[Case, Outcome], data: str) -> list[tuple[str, int]]:
    return list(dict.fromkeys((attack, bad) for of, attack, bad, _ in found if of == data))


def percent(value: float) -> str:
    return "–" if np.isnan(value) else f"{100 * value:.0f}"


def judge(found: Mapping[Case, Outcome]) -> list[str]:
    """Return what the default policy misses: under attacks that it should see, it costs little and lets nothing by."""
    missed = []
    for data in DATA:
        clean = found[data, CLEAN, 0, "undefended"]
        refused = found[data, CLEAN, 0, "default"].refused_good
        if refused > MAX_REFUSED:
            missed.append(f"{data}: {refused:.0%} of the updates refused where nobody is bad")
        for attack, bad in cases(found, data):
            got = found[data, attack, bad, "default"]
            if attack in (CLEAN, *SEEN) and got.accuracy < clean.accuracy - MAX_LOSS:
                missed.append(f"{data}, {attack}, {bad} bad: {got.accuracy:.1%}, without bad {clean.accuracy:.1%}")
            if attack == "boosted-backdoor" and got.fooled > clean.fooled + MAX_FOOLED:
                missed.append(f"{data}, {attack}, {bad} bad: {got.fooled:.0%} of the marked rows fool the model")
    return missed


LOOKS: dict[str, dict[str, Any]] = {
    "undefended": {"marker": "X", "color": "#c8553d", "s": 60},
    "accuracy": {"marker": "o", "facecolors": "none", "edgecolors": "#0b6e4f", "s": 130},
    "default": {"marker": "o", "color": "#0b6e4f", "s": 60},
    "+ cosine": {"marker": "D", "color": "#3a7ca5", "s": 26},
    "Krum": {"marker": "^", "color": "#999999", "s": 30},
    "FedMedian": {"marker": "s", "color": "#999999", "s": 26},
    "FedTrimmedAvg": {"marker": "v", "color": "#555555", "s": 30},
}
NAMES = {"accuracy": "Verified, accuracy only", "default": "Verified, default", "+ cosine": "Verified, + cosine"}


def plot(found: Mapping[Case, Outcome], path: str) -> None:
    """Draw the cases with most bad clients: accuracy of each data set, and what backdoors achieve."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    most = max(bad for _, _, bad, _ in found)
    attacks = [attack for attack, bad in cases(found, DATA[0]) if bad == most]
    backdoors = [attack for attack in attacks if "backdoor" in attack]
    fig, axes = plt.subplots(1, 3, figsize=(13, 4.6), width_ratios=[1, 1, 0.8], layout="constrained")
    for axis, data in zip(axes, DATA, strict=False):
        rows = [(data, attack) for attack in attacks]
        _dots(axis, [(found, of, attack, most) for of, attack in rows], lambda one: one.accuracy)
        clean = found[data, CLEAN, 0, "undefended"].accuracy
        axis.axvline(clean, color="#222222", linestyle=":", linewidth=1, label="nobody bad, undefended")
        axis.set_yticks(range(len(rows)), attacks if axis is axes[0] else [""] * len(rows), fontsize=9)
        axis.set(title=f"{data}, {most} of {CLIENTS} clients bad", xlabel="accuracy on unseen rows")
    rows = [(data, attack) for data in DATA for attack in backdoors]
    _dots(axes[2], [(found, of, attack, most) for of, attack in rows], lambda one: one.fooled)
    axes[2].set_yticks(range(len(rows)), [f"{of}, {attack}" for of, attack in rows], fontsize=9)
    axes[2].set(title="backdoors", xlabel="marked rows taken for the target", xlim=(-0.05, 1.05))
    for axis in axes:
        axis.invert_yaxis()
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#eeeeee")
        axis.set_axisbelow(True)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    fig.savefig(path, dpi=150)
    plt.close(fig)


def _dots(
    axis: Any, rows: Sequence[tuple[Mapping[Case, Outcome], str, str, int]], of: Callable[[Outcome], float]
) -> None:
    for name in DEFENCES[::-1]:
        values = [of(found[data, attack, bad, name]) for found, data, attack, bad in rows]
        axis.scatter(values, range(len(rows)), label=NAMES.get(name, name), zorder=3, **LOOKS[name])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one seed, three attacks, four bad clients, six rounds")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--plot", metavar="PATH", help="draw the result into this PNG")
    options = parser.parse_args(arguments)
    seeds, rounds = (1, 6) if options.quick else (options.seeds, options.rounds)
    start, console = time.perf_counter(), Console()
    found = measure(plan(options.quick, seeds, rounds), options.processes)
    tables(found, console)
    print(f"\n{CLIENTS} clients, {rounds} rounds, accuracy over the last {last(rounds)}; means over {seeds} seeds. "
          f"Took {time.perf_counter() - start:.0f} s.")  # fmt: skip
    passes = [
        f"{data} {percent(found[data, attack, bad, 'default'].fooled)} %"
        for data in DATA
        for attack, bad in cases(found, data)
        if (attack, bad) == ("quiet-backdoor", 4)
    ]
    if passes:
        print("Quiet backdoors pass the default policy. Marked rows that 4 bad clients send to their target: "
              f"{', '.join(passes)}.")  # fmt: skip
    if options.plot:
        plot(found, options.plot)
        print(f"Plot: {options.plot}")
    missed = judge(found)
    for line in missed:
        print(f"missed: {line}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
