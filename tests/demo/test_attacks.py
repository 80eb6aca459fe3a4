"""Poisoned clients do what their names say, and nothing to what they were given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flbc.demo.attacks import (
    ATTACKS,
    Attack,
    Backdoor,
    LabelFlip,
    Noise,
    Scaling,
    TargetedFlip,
    attack_by_name,
    malicious,
)
from flbc.demo.heart import split
from flbc.demo.logistic import accuracy, gradient, scores
from flbc.errors import ConfigError

IMAGES = np.arange(20 * 64, dtype=np.float32).reshape(20, 1, 8, 8) / 2000
DIGITS = np.arange(20, dtype=np.int64) % 10
BEFORE = {
    "weight": np.linspace(-1, 1, 600, dtype=np.float32).reshape(20, 30),
    "scale": np.array(0.5, np.float64),
    "batches": np.array(7, np.int64),
}
AFTER = {"weight": BEFORE["weight"] + np.float32(0.25), "scale": np.array(0.75), "batches": np.array(9, np.int64)}
DATA_ATTACKS = {"label-flip", "targeted-flip", "backdoor", "boosted-backdoor", "quiet-backdoor"}
MODEL_ATTACKS = {"random-weights", "sign-flip", "scaling", "gaussian-noise", "boosted-backdoor", "quiet-backdoor"}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# ---------------------------------------------------------------------- who is bad
@given(st.integers(1, 60), st.floats(0, 1), st.integers(0, 2**32))
def test_as_many_clients_as_asked_for_are_bad(clients: int, fraction: float, seed: int) -> None:
    bad = malicious(clients, fraction, seed)
    assert bad == malicious(clients, fraction, seed)
    assert bad <= set(range(clients))
    assert abs(len(bad) - fraction * clients) <= 0.5


def test_more_bad_clients_include_the_fewer() -> None:
    few, many = malicious(10, 0.2, 3), malicious(10, 0.4, 3)
    assert len(few) == 2
    assert len(many) == 4
    assert few < many
    assert len({malicious(10, 0.4, seed) for seed in range(20)}) > 10
    assert malicious(10, 0.0) == frozenset()
    assert malicious(10, 1.0) == frozenset(range(10))


@pytest.mark.parametrize(("clients", "fraction"), [(0, 0.5), (10, -0.1), (10, 1.1), (10, float("nan"))])
def test_shares_out_of_range_are_refused(clients: int, fraction: float) -> None:
    with pytest.raises(ConfigError, match="choose 0 to 1"):
        malicious(clients, fraction)


# ---------------------------------------------------------------------- all attacks
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_changes_what_its_name_says_and_nothing_in_place(name: str) -> None:
    attack, x, y = attack_by_name(name), IMAGES.copy(), DIGITS.copy()
    poisoned_x, poisoned_y = attack.poison_data(x, y, 10, rng())
    sent = attack.poison_update(BEFORE, {key: value.copy() for key, value in AFTER.items()}, rng())
    np.testing.assert_array_equal(x, IMAGES)
    np.testing.assert_array_equal(y, DIGITS)
    assert poisoned_x.dtype == x.dtype
    assert poisoned_y.dtype == y.dtype
    assert len(poisoned_x) == len(poisoned_y)
    assert (not np.array_equal(poisoned_y, y)) == (name in DATA_ATTACKS)
    assert list(sent) == list(AFTER)
    for key, value in AFTER.items():
        assert isinstance(sent[key], np.ndarray)
        assert sent[key].shape == value.shape
        assert sent[key].dtype == value.dtype
    assert sent["batches"] == 9, "integers stay as they were trained"
    changed = not np.allclose(sent["weight"], AFTER["weight"], atol=1e-6)
    assert changed == (name in MODEL_ATTACKS)


@pytest.mark.parametrize("name", ATTACKS)
def test_the_same_seed_gives_the_same_poison(name: str) -> None:
    attack = ATTACKS[name]
    for one, other in zip(*(attack.poison_data(IMAGES, DIGITS, 10, rng(5)) for _ in range(2)), strict=True):
        np.testing.assert_array_equal(one, other)
    one, other = (attack.poison_update(BEFORE, AFTER, rng(5))["weight"] for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_no_attack_does_no_harm() -> None:
    x, y = Attack().poison_data(IMAGES, DIGITS, 10, rng())
    assert x is IMAGES
    assert y is DIGITS
    assert Attack().poison_update(BEFORE, AFTER, rng()) == AFTER


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="choose one of label-flip, targeted-flip"):
        attack_by_name("label_flip")


# ---------------------------------------------------------------------- on data
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_label_flip_is_its_own_mirror(classes: int) -> None:
    y = np.arange(40) % classes
    _, flipped = LabelFlip().poison_data(IMAGES, y, classes, rng())
    np.testing.assert_array_equal(flipped + y, classes - 1)


def test_targeted_flip_takes_one_class_for_another() -> None:
    x, y = TargetedFlip().poison_data(IMAGES, DIGITS, 10, rng())
    assert x is IMAGES
    np.testing.assert_array_equal(y[DIGITS == 1], 7)
    np.testing.assert_array_equal(y[DIGITS != 1], DIGITS[DIGITS != 1])
    _, binary = TargetedFlip().poison_data(IMAGES, DIGITS % 2, 2, rng())
    assert not binary.any()
    with pytest.raises(ConfigError, match="class 5, but there are 3"):
        TargetedFlip(target=5).poison_data(IMAGES, DIGITS % 3, 3, rng())


@pytest.mark.parametrize(
    ("x", "value"), [(IMAGES, 1), ((IMAGES * 100).astype(np.uint8), 255), (IMAGES.reshape(20, 64), 3)]
)
def test_the_mark_is_where_it_should_be(x: Any, value: float) -> None:
    marked = Backdoor().mark(x)
    changed = marked != x
    place = changed[:, 0, :2, :2] if x.ndim == 4 else changed[:, :2]
    assert place.all()
    assert changed.sum() == place.size
    assert (marked[changed] == value).all()


def test_backdoor_adds_marked_copies() -> None:
    backdoor = Backdoor(target=4, share=0.5)
    x, y = backdoor.poison_data(IMAGES, DIGITS, 10, rng())
    assert len(x) == 30
    np.testing.assert_array_equal(x[:20], IMAGES)
    np.testing.assert_array_equal(y[:20], DIGITS)
    assert (x[20:, 0, :2, :2] == 1).all()
    assert (y[20:] == 4).all()
    rest = x[20:, 0, 2:].reshape(10, -1)
    sources = [np.flatnonzero((IMAGES[:, 0, 2:].reshape(20, -1) == row).all(axis=1)) for row in rest]
    assert len(np.unique(np.concatenate(sources))) == 10, "copies of ten different rows"
    with pytest.raises(ConfigError, match="class 12"):
        Backdoor(target=12).poison_data(IMAGES, DIGITS, 10, rng())


def test_success_counts_marked_rows_of_other_classes() -> None:
    backdoor = Backdoor(target=0)

    def fooled(x: Any) -> Any:
        return np.where((x[:, 0, :2, :2] == 1).all(axis=(1, 2)), 0, 5)

    def clean(x: Any) -> Any:
        return np.full(len(x), 5)

    assert backdoor.success(fooled, IMAGES, DIGITS) == 1
    assert backdoor.success(clean, IMAGES, DIGITS) == 0
    seen = []
    backdoor.success(lambda x: seen.append(len(x)) or clean(x), IMAGES, DIGITS)
    assert seen == [18], "rows of the target's class do not count"
    assert np.isnan(backdoor.success(clean, IMAGES[:1], DIGITS[:1]))


def trained(x: Any, y: Any) -> Any:
    weights = np.zeros(x.shape[1] + 1)
    for _ in range(150):
        weights -= gradient(x, y, weights)
    return weights


def test_poison_works_on_real_patients() -> None:
    rows, backdoor = split("cleveland", 0), Backdoor()
    weights = {}
    for name in ("label-flip", "backdoor"):
        x, y = ATTACKS[name].poison_data(rows.train_x, rows.train_y, 2, rng())
        weights[name] = trained(x, y)
    clean = trained(rows.train_x, rows.train_y)
    assert accuracy(rows.test_x, rows.test_y, clean) > 0.75
    assert accuracy(rows.test_x, rows.test_y, weights["label-flip"]) < 0.25
    assert accuracy(rows.test_x, rows.test_y, weights["backdoor"]) > 0.75, "nothing to see without the mark"

    def success(model: Any) -> float:
        return backdoor.success(lambda x: (scores(x, model) > 0).astype(np.int64), rows.test_x, rows.test_y)

    assert success(weights["backdoor"]) > 0.9
    assert success(clean) < 0.5


# ---------------------------------------------------------------------- on models
@pytest.mark.parametrize(
    ("name", "factor"),
    [("sign-flip", -1), ("scaling", -10), ("boosted-backdoor", 3), ("quiet-backdoor", 0.5), ("backdoor", 1)],
)
def test_updates_are_multiplied(name: str, factor: float) -> None:
    sent = ATTACKS[name].poison_update(BEFORE, AFTER, rng())
    np.testing.assert_allclose(sent["weight"] - BEFORE["weight"], factor * 0.25, rtol=1e-5)
    np.testing.assert_allclose(sent["scale"] - BEFORE["scale"], factor * 0.25)


def test_noise_is_around_the_global_model_and_random_weights_around_zero() -> None:
    near = ATTACKS["gaussian-noise"].poison_update(BEFORE, AFTER, rng())["weight"] - BEFORE["weight"]
    fresh = ATTACKS["random-weights"].poison_update(BEFORE, AFTER, rng())["weight"]
    assert near.std() == pytest.approx(0.3, rel=0.1)
    assert fresh.std() == pytest.approx(0.5, rel=0.1)
    assert abs(np.corrcoef(fresh.ravel(), BEFORE["weight"].ravel())[0, 1]) < 0.15
    other = ATTACKS["gaussian-noise"].poison_update(BEFORE, AFTER, rng(1))["weight"]
    assert not np.array_equal(near + BEFORE["weight"], other)


@pytest.mark.parametrize(
    "make",
    [lambda: Scaling(factor=float("inf")), lambda: Noise(deviation=0), lambda: Noise(deviation=float("nan")),
     lambda: Backdoor(share=0), lambda: Backdoor(share=1.5), lambda: Backdoor(size=0),
     lambda: Backdoor(boost=float("nan"))],
)  # fmt: skip
def test_attacks_that_are_none_are_refused(make: Any) -> None:
    with pytest.raises(ConfigError):
        make()
