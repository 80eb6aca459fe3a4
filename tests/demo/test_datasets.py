"""What all data sets have in common: how rows are dealt, and how models are trained."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from flbc.demo import baselines, heart
from flbc.demo.datasets import DATASETS, Split, dataset
from flbc.demo.dealing import FOLDS, deal
from flbc.demo.digits import Digits
from flbc.demo.training import Local, accuracy, arrays_of, fit, gradient_sum
from flbc.errors import ConfigError

PARAMETERS = {"heart": 33, "digits": 26_874, "fashion": 26_874, "mnist": 26_874, "cifar10": 34_058, "xray": 14_355}


# ---------------------------------------------------------------------- dealing
@given(
    labels=st.lists(st.integers(0, 3), min_size=40, max_size=200),
    partitions=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_every_row_goes_to_one_node_and_is_tested_once(labels: list[int], partitions: int, seed: int) -> None:
    y = np.array(labels)
    tested: list[int] = []
    counts = []
    for partition in range(partitions):
        mine = None
        for fold in range(FOLDS):
            train, test = deal(y, partition, partitions, fold, seed=seed)
            assert not set(train) & set(test)
            tested += list(test)
            rows = sorted([*train, *test])
            assert mine in (None, rows), "folds of a partition share its rows"
            mine = rows
            counts.append(Counter(y[test]))
    assert sorted(tested) == list(range(len(y)))
    sizes = [sum(count.values()) for count in counts]
    assert max(sizes) - min(sizes) <= 1
    for value in range(4):
        assert max(c[value] for c in counts) - min(c[value] for c in counts) <= 1


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 2)), min_size=150, max_size=300), st.integers(1, 3))
def test_groups_stay_together_and_classes_even(rows: list[tuple[int, int]], partitions: int) -> None:
    groups = np.array([f"g{group}" for group, _ in rows])
    if len(set(groups)) < partitions * FOLDS * 3:
        return
    y = np.array([group % 3 for group, _ in rows])  # a class per group
    where: dict[str, tuple[int, int]] = {}
    counts = []
    for partition in range(partitions):
        for fold in range(FOLDS):
            train, test = deal(y, partition, partitions, fold, groups=groups)
            assert not set(groups[train]) & set(groups[test])
            for group in groups[test]:
                assert where.setdefault(group, (partition, fold)) == (partition, fold)
            counts.append(Counter(y[test]))
    assert set(where) == set(groups)
    largest = max(Counter(groups).values())
    for value in range(3):
        assert max(c[value] for c in counts) - min(c[value] for c in counts) <= largest


def test_dealing_is_seeded() -> None:
    y = np.arange(100) % 2
    first, again, other = (deal(y, 1, 3, 2, seed=seed)[0] for seed in (7, 7, 8))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((3, 3, 0), "Partition 3"), ((-1, 3, 0), "Partition -1"), ((0, 3, 5), "Fold 5"), ((0, 3, -1), "Fold -1"),
     ((2, 30, 0), "too many"), ((0, 0, 0), "Partition 0")],
)  # fmt: skip
def test_what_cannot_be_dealt(arguments: tuple[int, int, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        deal(np.zeros(20, np.int64), *arguments)


# ---------------------------------------------------------------------- registry and models
def test_names() -> None:
    assert list(DATASETS) == ["heart", "digits", "fashion", "mnist", "cifar10", "xray"]
    assert all(dataset(name).name == name for name in DATASETS)
    with pytest.raises(
        ConfigError, match="'emnist' is unknown; choose one of heart, digits, fashion, mnist, cifar10, xray"
    ):
        dataset("emnist")


@pytest.mark.parametrize("name", DATASETS)
def test_models(name: str, one_thread: None) -> None:
    import torch

    data = dataset(name)
    state, again = data.initial(), data.initial()
    assert sum(value.size for value in state.values()) == PARAMETERS[name]
    model = data.model()
    model.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
    for key, value in model.state_dict().items():
        assert value.numpy().dtype == state[key].dtype
        np.testing.assert_array_equal(again[key], state[key])
    x = np.random.default_rng(0).integers(0, 255, (3, *data.shape), dtype=np.uint8)
    inputs, targets = data.tensors(x.astype(np.float64) if name == "heart" else x, np.array([0, 1, 1]))
    outputs = model(inputs)
    losses, predicted = data.losses(outputs, targets), data.predict(outputs)
    assert losses.shape == predicted.shape == (3,)
    assert losses.isfinite().all()
    assert 0 <= int(predicted.min()) <= int(predicted.max()) < data.classes
    # No example's output may depend on the others of its batch: otherwise its gradient is not its own (S16).
    for i in range(3):
        torch.testing.assert_close(model(inputs[i : i + 1]), outputs[i : i + 1], rtol=1e-4, atol=1e-5)
    assert not list(model.buffers()), "running statistics keep their first value under privacy"


def test_the_first_model_leaves_the_generator_alone() -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    dataset("digits").initial()
    assert torch.rand(1) == expected


def test_nothing_heavy_is_loaded_before_training() -> None:
    code = (
        "import sys; from flbc.demo.datasets import dataset; from flbc.flower.app.settings import AppSettings; "
        "dataset('heart').initial(); dataset('digits').examples(0, 3, 0, {}); "
        "print(*{'torch', 'PIL', 'pandas', 'sklearn', 'matplotlib'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


# ---------------------------------------------------------------------- heart, as it was
@pytest.mark.parametrize("partition", range(4))
def test_heart_is_the_hospitals_split(partition: int) -> None:
    data, expected = dataset("heart"), heart.split(heart.HOSPITALS[partition], 2)
    got = data.load(partition, 4, 2, {})
    for field in ("train_x", "train_y", "test_x", "test_y"):
        np.testing.assert_array_equal(getattr(got, field), getattr(expected, field))
    assert data.examples(partition, 4, 2, {}) == len(expected.train_y)


@pytest.mark.parametrize("partition", [4, -1])
def test_heart_has_four_partitions(partition: int) -> None:
    with pytest.raises(ConfigError, match="4 hospitals"):
        dataset("heart").load(partition, 4, 0, {})


def test_heart_trains_as_the_reference_does(one_thread: None) -> None:
    data, rows, steps = dataset("heart"), heart.split("hungary", 0), 4
    model = data.model()
    fit(data, model, dataset("heart").load(1, 4, 0, {}), Local(learning_rate=1.0, batch_size=0, epochs=steps))
    settings = baselines.Settings(rounds=1, local_steps=steps)
    expected = baselines.alone("hungary", {"hungary": rows}, settings)
    got = arrays_of(model)
    np.testing.assert_allclose(got["linear.weight"][0], expected.weights[:-1], atol=1e-12)
    np.testing.assert_allclose(got["linear.bias"][0], expected.weights[-1], atol=1e-12)
    assert accuracy(data, model, dataset("heart").load(1, 4, 0, {})) == pytest.approx(expected.accuracy)


# ---------------------------------------------------------------------- training
def images(rows: int, seed: int = 0) -> Split:
    """Pictures whose upper (0) or lower (1) half is bright, told apart at once."""
    x = np.random.default_rng(seed).integers(0, 80, (rows, 1, 28, 28), dtype=np.uint8)
    y = np.arange(rows) % 2
    x[y == 0, :, :14] += 150
    x[y == 1, :, 14:] += 150
    return Split(x, y, x, y)


def test_training_is_repeatable_and_ordered_by_its_seed(one_thread: None) -> None:
    data, rows, local = dataset("digits"), images(20), Local(learning_rate=0.05, batch_size=4, epochs=1)
    models = []
    for _ in range(3):
        models.append(data.model())
        models[-1].load_state_dict(models[0].state_dict())
    for model, seed in zip(models, ((0, 1), (0, 1), (0, 2)), strict=True):
        fit(data, model, rows, local, seed)
    one, same, other = (arrays_of(model)["linear2.weight"] for model in models)
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_training_reaches_every_row_and_learns(one_thread: None) -> None:
    seen: list[list[bytes]] = []

    class Recorder(Digits):
        def tensors(self, x: NDArray[Any], y: NDArray[np.int64]) -> Any:
            seen.append([row.tobytes() for row in x])
            return super().tensors(x, y)

    data, rows = Recorder(), images(22)
    model = data.model()
    fit(data, model, rows, Local(learning_rate=0.05, batch_size=4, epochs=6))
    assert [len(batch) for batch in seen] == [4, 4, 4, 4, 4, 2] * 6
    everyone = sorted(row.tobytes() for row in rows.train_x)
    for epoch in range(6):
        assert sorted(row for batch in seen[6 * epoch : 6 * epoch + 6] for row in batch) == everyone
    assert accuracy(data, model, rows) == 1.0


def test_accuracy_counts_every_test_row(one_thread: None) -> None:
    data, rows = dataset("digits"), images(150)  # more than two chunks
    model = data.model()
    fit(data, model, rows, Local(learning_rate=0.05, batch_size=16, epochs=2))
    assert accuracy(data, model, rows) == 1.0
    wrong = rows.test_y.copy()
    wrong[[0, 70, 149]] = 9
    assert accuracy(data, model, Split(rows.train_x, rows.train_y, rows.test_x, wrong)) == pytest.approx(147 / 150)


@pytest.mark.parametrize("name", ["digits", "heart"])
def test_one_row_moves_the_clipped_sum_by_at_most_the_norm(name: str, one_thread: None) -> None:
    pytest.importorskip("opacus")
    data = dataset(name)
    rows = images(9) if name == "digits" else data.load(0, 4, 0, {})
    without = Split(rows.train_x[1:], rows.train_y[1:], rows.test_x, rows.test_y)
    model, clip = data.model(), 0.01
    full, less = gradient_sum(data, model, rows, clip), gradient_sum(data, model, without, clip)
    assert set(full) == set(data.initial())
    moved = np.sqrt(sum(float(np.square(full[key] - less[key]).sum()) for key in full))
    assert 0.99 * clip < moved <= clip, "this row's gradient is longer than the norm, and is cut to it"
