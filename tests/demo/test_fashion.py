"""Fashion-MNIST: the IDX reader, and the real files where Debian's package is installed."""

from __future__ import annotations

import gzip
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flbc.demo.fashion import FILES, FOLDER, Fashion, read_idx
from flbc.errors import ConfigError
from tests.support.idx import idx, write

#: Without the time, which would be in the names of tests, and differ between workers.
zipped = partial(gzip.compress, mtime=0)

DATA = Fashion()
GOOD = idx(np.arange(12).reshape(2, 2, 3))


@pytest.mark.skipif(not FOLDER.exists(), reason=f"no {FOLDER}: apt-get install dataset-fashion-mnist")
def test_the_real_files() -> None:
    labels, _ = DATA.labels({})
    np.testing.assert_array_equal(np.bincount(labels), [7000] * 10)  # Xiao et al. 2017, table 1
    rows = DATA.load(3, 10, 0, {})
    assert len(rows.train_y) == DATA.examples(3, 10, 0, {}) == 5600
    assert rows.train_x.shape == (5600, 1, 28, 28)


def test_both_pairs_are_dealt_out(tmp_path: Path) -> None:
    config = {"data-dir": str(write(tmp_path, (70, 30)))}
    labels, _ = DATA.labels(config)
    assert len(labels) == 100
    rows = DATA.load(0, 2, 0, config)
    assert (len(rows.train_y), len(rows.test_y)) == (40, 10)
    assert DATA.examples(0, 2, 0, config) == 40
    with gzip.open(tmp_path / FILES[2]) as stream:
        np.testing.assert_array_equal(
            DATA.pixels(np.array([70]), config)[0, 0],
            np.frombuffer(stream.read()[16 : 16 + 784], np.uint8).reshape(28, 28),
        )


def test_missing_files_say_where_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="apt-get install dataset-fashion-mnist") as caught:
        DATA.examples(0, 2, 0, {"data-dir": str(tmp_path)})
    assert "data-dir" in str(caught.value)


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    config = {"data-dir": str(write(tmp_path))}
    (tmp_path / FILES[1]).write_bytes(zipped(idx(np.zeros(59))))
    with pytest.raises(ConfigError, match="do not belong together"):
        DATA.load(0, 2, 0, config)
    (tmp_path / FILES[1]).write_bytes(zipped(idx(np.full(60, 10))))
    with pytest.raises(ConfigError, match="do not belong together"):
        DATA.load(0, 2, 0, config)


def test_an_idx_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.gz").write_bytes(zipped(GOOD))
    np.testing.assert_array_equal(read_idx(tmp_path / "x.gz", 3), np.arange(12).reshape(2, 2, 3))


@pytest.mark.parametrize(
    ("packed", "words"),
    [
        (b"", "not an IDX file"),
        (GOOD, "BadGzipFile"),
        (zipped(GOOD)[:-9], "EOFError"),
        (zipped(GOOD)[:12] + b"\xff" * 20, "error|EOF"),
        (zipped(b"\0\0\x0d\3" + GOOD[4:]), "not an IDX file of bytes"),  # floats
        (zipped(GOOD[:15]), "not an IDX file"),
        (zipped(GOOD[:-1]), "11 values, its header says"),
        (zipped(GOOD + b"\0"), "13 values, its header says"),
        (zipped(GOOD[:4] + b"\xff" * 12), "0 values, its header says"),
        (zipped(idx(np.zeros(4))), "in 3 dimensions"),
        (zipped(bytes(50_000_000), 1), "not an IDX file"),
        (zipped(GOOD + bytes(50_000_000), 1), "47040001 values"),  # no more than the largest real file is read
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, packed: bytes, words: str) -> None:
    (tmp_path / "x.gz").write_bytes(packed)
    with pytest.raises(ConfigError, match=words):
        read_idx(tmp_path / "x.gz", 3)


@given(st.binary(max_size=64), st.booleans(), st.integers(1, 3))
@example(GOOD, True, 3)
def test_whatever_it_is_it_is_read_or_refused(data: bytes, packed: bool, dimensions: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.gz"
        path.write_bytes(zipped(data) if packed else data)
        try:
            array = read_idx(path, dimensions)
        except ConfigError:
            return
    assert idx(array) == data
