"""The trainings that ``benchmarks/dp_accuracy.py`` compares: ten hospitals in one process.

*Ours* is the product's own code without its messages: :func:`flbc.privacy.plan`, ``poisson_sample`` and
``clipped_gradient_sum`` at every hospital, ``VectorPlan.encode_private``, a sum of integers, the mechanism's noise, the
decoding and the server's step. What the schemes add to it are exact sums; the first round of one training goes through
one of them to show it.
"""

from __future__ import annotations

import copy
import math
import os
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray
from torch import nn

from flbc.codec import Codec, Layout, VectorPlan
from flbc.crypto.keystream import EncryptionKey
from flbc.demo.base import Dataset, Split
from flbc.demo.datasets import dataset
from flbc.demo.training import Local, accuracy, arrays_of, fit
from flbc.flower.apply import apply_mean
from flbc.privacy import GaussianMechanism, Privacy, clipped_gradient_sum, plan, poisson_sample
from flbc.schemes import Contribution, SumSpec
from flbc.schemes.ndd_fe_pad import PadCombiner, PadDecryptor, PadGenerator, PadProtector

HOSPITALS = 10
DELTA = 1e-5
CURVE_ROWS = 2000
"""Held-out rows behind a point of a curve; the last one is on all of them."""

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Setting:
    """What all private rows of one data set and epsilon have in common.

    Parameters
    ----------
    clip : float
        The paper's (section 4.2).
    rounds : int
    rate : float
        Probability of each example to be in a round.
    step : float
        Learning rate on the mean of the clipped gradients.
    local_step : float
        The same for local noise, where ``step`` is too long: ten times the variance.
    plain_step : float
        Plain FedSGD's: without clipping, long gradients make longer steps diverge.
    average_rounds, average_step : int, float
        Plain FedAvg: rounds of one local epoch, and its learning rate.
    """

    clip: float
    rounds: int
    rate: float
    step: float
    local_step: float
    plain_step: float = 0.1
    average_rounds: int = 10
    average_step: float = 0.05


@dataclass(frozen=True)
class Job:
    """One training."""

    row: str
    data: str
    folder: str
    epsilon: float
    setting: Setting
    seed: int
    check: bool = False


@dataclass(frozen=True)
class Curve:
    """How a training went.

    Parameters
    ----------
    rounds : sequence of int
        Where accuracy was looked at.
    accuracies : sequence of float
        On held-out rows, as shares; the last one on all of them.
    epsilon : float
        Spent at delta = 1e-5, for zero-out neighbours; infinite without noise.
    """

    rounds: Sequence[int]
    accuracies: Sequence[float]
    epsilon: float


@dataclass(frozen=True)
class Problem:
    """Rows of the hospitals, a held-out set, and the model all rows of a seed start from."""

    data: Dataset
    hospitals: Sequence[Split]
    test: Split
    model: nn.Module

    @property
    def examples(self) -> int:
        return sum(len(one.train_y) for one in self.hospitals)


@lru_cache(maxsize=1)
def problem(name: str, folder: str, seed: int) -> Problem:
    """Deal the rows as the bundled app does, one fold for each seed."""
    data = dataset(name)
    hospitals = [data.load(i, HOSPITALS, seed % 5, {"data-dir": folder}) for i in range(HOSPITALS)]
    x, y = (np.concatenate([getattr(one, part) for one in hospitals]) for part in ("test_x", "test_y"))
    order = np.random.default_rng(seed).permutation(len(y))  # the first of them stand for all in curves
    torch.manual_seed(seed)
    return Problem(data, hospitals, Split(x[:0], y[:0], x[order], y[order]), data.model())


Train = Callable[[Problem, Job, nn.Module], Generator[None, None, float]]
"""Trains the model in place, yields after every round, and returns the epsilon spent."""


def run(job: Job) -> Curve:
    """Train once."""
    torch.set_num_threads(1)
    for known in ("Secure RNG turned off", "Full backward hook is firing", "Optimal order is"):  # said by Opacus
        warnings.filterwarnings("ignore", message=known)
    how = problem(job.data, job.folder, job.seed)
    model = copy.deepcopy(how.model)
    some = Split(how.test.train_x, how.test.train_y, how.test.test_x[:CURVE_ROWS], how.test.test_y[:CURVE_ROWS])
    torch.manual_seed(1000 + job.seed)
    total = job.setting.average_rounds if job.row == FED_AVG else job.setting.rounds
    stops = sorted({round(total * i / 20) for i in range(1, 21)} - {0})
    training, found = ROWS[job.row](how, job, model), []
    for round_ in range(1, total + 1):
        next(training)
        if round_ in stops:
            found.append(accuracy(how.data, model, how.test if round_ == total else some))
    try:
        next(training)
    except StopIteration as end:
        return Curve(stops, found, end.value)
    raise AssertionError(f"{job.row} trains for more than {total} rounds")


# ---------------------------------------------------------------------- ours, and with local noise
def mechanism(how: Problem, job: Job) -> GaussianMechanism:
    """Plan the noise as the product does."""
    budget = Privacy(
        epsilon=job.epsilon,
        delta=DELTA,
        unit="example",
        clip_norm=job.setting.clip,
        sampling_rate=job.setting.rate,
        rounds=job.setting.rounds,
        where="local" if job.row in LOCAL else "opener",
    )
    return plan(
        budget,
        dimension=sum(p.numel() for p in how.model.parameters()),
        rounds=job.setting.rounds,
        max_examples=max(len(one.train_y) for one in how.hospitals),
    )


def ours(how: Problem, job: Job, model: nn.Module) -> Generator[None, None, float]:
    """Noise on the sum (``where="opener"``), or by every hospital on its own integers (``where="local"``)."""
    noise, names = mechanism(how, job), list(arrays_of(model))
    layout = VectorPlan(Layout.of(arrays_of(model), private=True), Codec(), private=True)
    step = job.setting.local_step if job.row == LOCAL_TUNED else job.setting.step
    for round_ in range(job.setting.rounds):
        vectors = []
        for one in how.hospitals:
            vector = layout.encode_private(sampled_sum(how.data, model, one, job.setting), noise.step).values
            noise.check(vector)
            vectors.append(noise.add_local(vector, noise.draw(len(vector))) if noise.where == "local" else vector)
        drawn = noise.draw(layout.length) if noise.where == "opener" else np.zeros(layout.length, np.int64)
        total: Integers = np.sum(vectors, axis=0) + drawn
        if job.check and round_ == 0:
            assert np.array_equal(through_a_scheme(vectors, noise, drawn), total), "the scheme's sum differs"
        opened = layout.decode_private(total, noise.step, job.setting.rate * how.examples)
        before = ArrayRecord({name: Array(value) for name, value in arrays_of(model).items()})
        after = apply_mean(before, opened.mean, -step)
        model.load_state_dict({name: torch.tensor(after[name].numpy()) for name in names})
        yield
    return noise.epsilon_after(job.setting.rounds)


def sampled_sum(data: Dataset, model: nn.Module, one: Split, how: Setting) -> Mapping[str, NDArray[np.float64]]:
    drawn = poisson_sample(len(one.train_y), how.rate)
    batch = data.tensors(one.train_x[drawn], one.train_y[drawn])
    return clipped_gradient_sum(model, data.losses, batch, how.clip, max_batch=data.chunk)


def through_a_scheme(vectors: Sequence[Integers], noise: GaussianMechanism, drawn: Integers) -> Integers:
    """Hide, add and open the vectors with the strategy NddFe's default scheme."""
    spec = SumSpec(len(drawn), noise.vector_bound, len(vectors), noise.noise_tail(len(vectors)))
    keys = [EncryptionKey.generate() for _ in vectors]
    generator, decryptor, label = EncryptionKey.generate(), EncryptionKey.generate(), os.urandom(32)
    listed = [Contribution(i, key.public, os.urandom(32)) for i, key in enumerate(keys)]
    payloads = {
        c.party: PadProtector(spec, generator.public, decryptor.public, key).protect(vector, label, c.nonce)
        for c, key, vector in zip(listed, keys, vectors, strict=True)
    }
    hidden = PadCombiner(spec, [1] * len(keys), "generator", "decryptor").combine(payloads)
    function_key = PadGenerator(spec, generator).derive(label, listed, lambda count: drawn[:count])
    return PadDecryptor(spec, decryptor).open(hidden, function_key, label, listed)


# ---------------------------------------------------------------------- peers
def central(how: Problem, job: Job, model: nn.Module) -> Generator[None, None, float]:
    """DP-SGD by Opacus on the pooled data: its sampling, clipping, noise and accountant."""
    from opacus import PrivacyEngine
    from torch.utils.data import DataLoader, TensorDataset

    batches = round(1 / job.setting.rate)
    x, y = (np.concatenate([getattr(one, part) for one in how.hospitals]) for part in ("train_x", "train_y"))
    rows = TensorDataset(*how.data.tensors(x, y))
    model.train()
    engine = PrivacyEngine()
    private, optimizer, loader = engine.make_private_with_epsilon(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=job.setting.step),
        data_loader=DataLoader(rows, batch_size=-(-len(rows) // batches)),
        target_epsilon=job.epsilon,
        target_delta=DELTA,
        epochs=(job.setting.rounds + 0.5) / batches,  # Opacus rounds the number of steps down
        max_grad_norm=job.setting.clip,
    )
    assert len(loader) == batches, "another sampling rate than in the other rows"
    done = 0
    while done < job.setting.rounds:
        for inputs, targets in loader:
            private.train()
            optimizer.zero_grad()
            how.data.losses(private(inputs), targets).mean().backward()
            optimizer.step()
            done += 1
            yield
            if done == job.setting.rounds:
                break
    return float(engine.get_epsilon(DELTA))


def fed_sgd(how: Problem, job: Job, model: nn.Module) -> Generator[None, None, float]:
    """Nothing clipped, nothing noised: as many rounds and examples."""
    optimizer = torch.optim.SGD(model.parameters(), lr=job.setting.plain_step)
    for _ in range(job.setting.rounds):
        model.train()
        optimizer.zero_grad()
        for one in how.hospitals:
            drawn = poisson_sample(len(one.train_y), job.setting.rate)
            inputs, targets = how.data.tensors(one.train_x[drawn], one.train_y[drawn])
            (how.data.losses(model(inputs), targets).sum() / (job.setting.rate * how.examples)).backward()
        optimizer.step()
        yield
    return math.inf


def fed_avg(how: Problem, job: Job, model: nn.Module) -> Generator[None, None, float]:
    """One local epoch of the product's demo training in a round, then the mean weighted by examples."""
    local = Local(learning_rate=job.setting.average_step, batch_size=how.data.defaults.batch_size, epochs=1)
    for round_ in range(job.setting.average_rounds):
        mean = {name: np.zeros(value.shape) for name, value in arrays_of(model).items()}
        for i, one in enumerate(how.hospitals):
            own = copy.deepcopy(model)
            fit(how.data, own, one, local, (job.seed, round_, i))
            for name, value in arrays_of(own).items():
                mean[name] += value.astype(np.float64) * (len(one.train_y) / how.examples)
        model.load_state_dict({name: torch.tensor(value, dtype=torch.float32) for name, value in mean.items()})
        yield
    return math.inf


FED_AVG, FED_SGD, OURS, CENTRAL = "plain FedAvg", "plain FedSGD", "ours", "central DP-SGD (Opacus)"
LOCAL_SAME, LOCAL_TUNED = "local noise", "local noise, own learning rate"
LOCAL = (LOCAL_SAME, LOCAL_TUNED)
PLAIN = (FED_AVG, FED_SGD)
ROWS: Mapping[str, Train] = {
    FED_AVG: fed_avg,
    FED_SGD: fed_sgd,
    CENTRAL: central,
    OURS: ours,
    LOCAL_TUNED: ours,
    LOCAL_SAME: ours,
}
