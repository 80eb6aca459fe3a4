"""Data sets for Verified: rows that nobody trains on, and a network that can be computed on shares."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flbc.demo.checkable import CHECKABLE, SEATS, checkable
from flbc.demo.datasets import DATASETS
from flbc.demo.training import Local, accuracy, fit
from flbc.errors import ConfigError
from tests.support import idx

DATA = CHECKABLE["digits"]


def rows_of(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


def test_nobody_trains_or_is_tested_on_the_verifiers_rows() -> None:
    aside = [DATA.validation(seat, {}) for seat in range(SEATS)]
    taken = set().union(*(rows_of(x) for x, _ in aside))
    assert len(taken) == sum(len(y) for _, y in aside) == 243, "no row twice"
    seen: set[bytes] = set()
    for partition in range(10):
        rows = DATA.load(partition, 10, 2, {})
        assert len(rows.train_y) == DATA.examples(partition, 10, 2, {})
        for part in (rows.train_x, rows.test_x):
            own = rows_of(part)
            assert not own & (taken | seen)
            seen |= own
    assert len(seen | taken) == 5000


def test_every_verifier_has_every_class() -> None:
    for seat in range(SEATS):
        x, y = DATA.validation(seat, {})
        assert len(x) == len(y)
        counts = np.bincount(y, minlength=10)
        assert counts.min() >= 5
        np.testing.assert_array_equal(DATA.validation(seat, {})[1], y)


def test_labels_belong_to_their_images() -> None:
    known = dict(zip((image.tobytes() for image in DATA.pixels(np.arange(5000), {})), DATA.labels({})[0], strict=True))
    x, y = DATA.validation(1, {})
    assert [known[image.tobytes()] for image in x] == y.tolist()


def test_the_network_can_be_computed_on_shares() -> None:
    pytest.importorskip("torch")
    from flbc.verification.program import compile_model

    program = compile_model(DATA.model(), DATA.shape)
    assert program.classes == DATA.classes
    assert list(program.parameters) == list(DATA.initial())
    assert sum(value.size for value in DATA.initial().values()) == 5386
    with pytest.raises(ConfigError, match="GroupNorm"):
        compile_model(DATASETS["digits"].model(), DATA.shape)


def test_a_node_learns_in_two_epochs(one_thread: None) -> None:
    torch = pytest.importorskip("torch")
    rows, own = DATA.load(0, 3, 0, {}), DATA.defaults
    model = DATA.model()
    model.load_state_dict({name: torch.from_numpy(value) for name, value in DATA.initial().items()})
    fit(DATA, model, rows, Local(learning_rate=own.learning_rate, batch_size=own.batch_size, epochs=2))
    assert accuracy(DATA, model, rows) > 0.8


def test_fashion_too(tmp_path: Path) -> None:
    config = {"data-dir": str(idx.write(tmp_path, (300, 60)))}
    data = checkable("fashion")
    sizes = [len(data.validation(seat, config)[1]) for seat in range(SEATS)]
    clients = [data.load(partition, 2, 0, config) for partition in range(2)]
    assert sum(sizes) + sum(len(rows.train_y) + len(rows.test_y) for rows in clients) == 360


@pytest.mark.parametrize(("seat", "words"), [(-1, "Verifier -1"), (3, "Verifier 3 has no data")])
def test_there_are_three_seats(seat: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        DATA.validation(seat, {})


def test_others_have_no_such_network() -> None:
    with pytest.raises(ConfigError, match=r"'xray' has no network .* choose one of digits, fashion"):
        checkable("xray")
