"""MNIST and CIFAR-10 from a folder: tiny files in the real formats, read by torchvision."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flbc.demo import cifar, mnist
from flbc.demo.cifar import Cifar10
from flbc.demo.mnist import FILES, Mnist
from flbc.demo.torchvision_cpu import datasets
from flbc.demo.training import gradient_sum
from flbc.errors import ConfigError
from tests.support.idx import idx

pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(find_spec("torchvision") is None, reason="torchvision is not installed")

ROWS = 100


@pytest.fixture(autouse=True)
def unread() -> Iterator[None]:
    """Forget files of other tests."""
    mnist._read.cache_clear()
    cifar._read.cache_clear()
    yield
    mnist._read.cache_clear()
    cifar._read.cache_clear()


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("tried to download")

    monkeypatch.setattr(datasets().utils, "download_url", refuse)
    monkeypatch.setattr("urllib.request.urlopen", refuse)


# ---------------------------------------------------------------------- MNIST
def digits(folder: Path, rows: tuple[int, int] = (80, 20)) -> dict[str, str]:
    rng, raw = np.random.default_rng(0), folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for (pictures, classes), count in zip((FILES[:2], FILES[2:]), rows, strict=True):
        (raw / pictures).write_bytes(idx(rng.integers(0, 256, (count, 28, 28))))
        (raw / classes).write_bytes(idx(np.arange(count) % 10))
    return {"data-dir": str(folder)}


def test_digits_are_read_and_dealt(tmp_path: Path, no_network: None) -> None:
    data, config = Mnist(), digits(tmp_path)
    labels, groups = data.labels(config)
    assert groups is None
    np.testing.assert_array_equal(np.bincount(labels), [10] * 10)
    parts = [data.load(i, 2, 0, config) for i in range(2)]
    assert [len(part.train_y) for part in parts] == [40, 40] == [data.examples(i, 2, 0, config) for i in range(2)]
    assert parts[0].test_x.shape == (10, 1, 28, 28)
    raw = (tmp_path / "MNIST" / "raw" / FILES[2]).read_bytes()[16 : 16 + 784]
    np.testing.assert_array_equal(data.pixels(np.array([80]), config)[0, 0].tobytes(), raw)


def test_missing_digits_are_named(tmp_path: Path, no_network: None) -> None:
    with pytest.raises(ConfigError, match=r"needs run-config data-dir.*download=True"):
        Mnist().examples(0, 2, 0, {"data-dir": ""})
    config = digits(tmp_path)
    (tmp_path / "MNIST" / "raw" / FILES[1]).unlink()
    with pytest.raises(ConfigError, match=rf"lacks {FILES[1]}\. Set data-dir"):
        Mnist().examples(0, 2, 0, config)


@pytest.mark.parametrize(
    "content",
    [b"", b"\0\0\x08\x03", idx(np.zeros((80, 28))), idx(np.zeros((79, 28, 28))), idx(np.zeros((80, 27, 28))),
     b"\0\0\x0d\x03" + idx(np.zeros((80, 28, 28)))[4:], idx(np.zeros((80, 28, 28)))[:-1]],
)  # fmt: skip
def test_broken_digits_are_refused(tmp_path: Path, content: bytes) -> None:
    config = digits(tmp_path)
    (tmp_path / "MNIST" / "raw" / FILES[0]).write_bytes(content)
    with pytest.raises(ConfigError, match=r"are not MNIST's|do not belong together"):
        Mnist().examples(0, 2, 0, config)


# ---------------------------------------------------------------------- CIFAR-10
def photographs(folder: Path, monkeypatch: pytest.MonkeyPatch, **changed: Any) -> dict[str, str]:
    """Write the seven files, and have torchvision take their MD5 for the published ones."""
    place, rng = folder / "cifar-10-batches-py", np.random.default_rng(0)
    place.mkdir(parents=True)
    kind, sums = datasets().CIFAR10, {}
    names = [name for name, _ in (*kind.train_list, *kind.test_list)]
    for name in names:
        batch = {"data": rng.integers(0, 256, (20, 3072), dtype=np.uint8), "labels": [i % 10 for i in range(20)]}
        sums[name] = save(place / name, {**batch, **changed})
    sums["batches.meta"] = save(place / "batches.meta", {"label_names": [str(i) for i in range(10)]})
    trust(monkeypatch, sums)
    return {"data-dir": str(folder)}


def save(path: Path, content: object) -> str:
    path.write_bytes(pickle.dumps(content))
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def trust(monkeypatch: pytest.MonkeyPatch, sums: dict[str, str]) -> None:
    kind = datasets().CIFAR10
    for list_ in ("train_list", "test_list"):
        monkeypatch.setattr(kind, list_, [[name, sums[name]] for name, _ in getattr(kind, list_)])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": sums["batches.meta"]})


def test_photographs_are_read_and_dealt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None) -> None:
    data, config = Cifar10(), photographs(tmp_path, monkeypatch)
    rows = data.load(1, 2, 0, config)
    assert rows.train_x.shape == (48, 3, 32, 32)
    assert rows.train_x.dtype == np.uint8
    assert data.examples(1, 2, 0, config) == 48
    with (tmp_path / "cifar-10-batches-py" / "test_batch").open("rb") as file:
        first = pickle.load(file)["data"][0]  # noqa: S301
    # Red, green and blue planes, row by row: https://www.cs.toronto.edu/~kriz/cifar.html
    np.testing.assert_array_equal(data.pixels(np.array([100]), config).reshape(-1), first)


def test_a_gradient_of_photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    pytest.importorskip("opacus")
    data = Cifar10()
    rows = data.load(0, 10, 0, photographs(tmp_path, monkeypatch))
    total = gradient_sum(data, data.model(), rows, 3.0)
    assert set(total) == set(data.initial())
    assert 0 < np.sqrt(sum(float(np.square(value).sum()) for value in total.values())) <= 3.0 * len(rows.train_y)


class Bomb:
    """Runs when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_pickle_of_another_md5_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    config, mark = photographs(tmp_path, monkeypatch), tmp_path / "ran"
    bad = tmp_path / "cifar-10-batches-py" / name
    digest = save(bad, Bomb(mark))
    with pytest.raises(ConfigError, match="another MD5"):
        Cifar10().labels(config)
    assert not mark.exists()
    # The attack is real: were the file's MD5 the known one, it would run.
    kind = datasets().CIFAR10
    known = dict((*kind.train_list, *kind.test_list, ("batches.meta", kind.meta["md5"])))
    trust(monkeypatch, {**known, name: digest})
    with pytest.raises((ConfigError, TypeError)):
        Cifar10().labels(config)
    assert mark.exists()


def test_missing_photographs_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None) -> None:
    with pytest.raises(ConfigError, match=r"needs run-config data-dir.*cs\.toronto\.edu"):
        Cifar10().examples(0, 2, 0, {})
    config = photographs(tmp_path, monkeypatch)
    (tmp_path / "cifar-10-batches-py" / "data_batch_2").unlink()
    with pytest.raises(ConfigError, match=r"lacks data_batch_2\. Set data-dir"):
        Cifar10().examples(0, 2, 0, config)


@pytest.mark.parametrize(
    "changed",
    [{"data": None}, {"data": np.zeros((20, 3000), np.uint8)}, {"data": np.zeros((20, 3072))},
     {"labels": [10] * 20}, {"labels": [0]}],
)  # fmt: skip
def test_photographs_of_another_form_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]
) -> None:
    config = photographs(tmp_path, monkeypatch, **changed)
    with pytest.raises(ConfigError, match=r"are not CIFAR-10's|do not belong together"):
        Cifar10().labels(config)
