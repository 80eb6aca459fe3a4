"""The reader of chest X-rays, on synthetic pictures in Kaggle's layout: the real ones cannot be shipped."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flbc.demo import xray
from flbc.demo.dealing import deal
from flbc.demo.training import Local, fit, gradient_sum
from flbc.errors import ConfigError, DependencyError
from tests.support.synthetic_xray import write

DATA = xray.XRay()
CHILDREN, IMAGES = 10, 14  # of each class: ten children, four of whom have two images


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("xray") / "chest_xray", CHILDREN)


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy that the test may damage."""
    return Path(shutil.copytree(made, tmp_path / "chest_xray"))


def test_three_classes_from_folders_and_names(made: Path) -> None:
    labels, children = DATA.labels({"data-dir": str(made)})
    assert Counter(labels.tolist()) == {0: IMAGES, 1: IMAGES, 2: IMAGES}
    files = xray.find(made)
    assert len(files) == len(labels)
    for path, label in zip(files, labels, strict=True):
        assert {0: path.parent.name == "NORMAL", 1: "virus" in path.name, 2: "bacteria" in path.name}[label]
    # person1_virus and person1_bacteria may be one child.
    assert len(set(children)) == 2 * CHILDREN


@pytest.mark.parametrize(
    ("name", "child"),
    [
        ("person1_bacteria_1.jpeg", "person1"),
        ("person1_virus_6.jpeg", "person1"),
        ("person12_virus_1.jpeg", "person12"),
        ("IM-0115-0001.jpeg", "IM-0115"),
        ("IM-0429-0001-0002.jpeg", "IM-0429"),
        ("NORMAL2-IM-1427-0001.jpeg", "NORMAL2-IM-1427"),
        ("virus of somebody.png", "train/virus of somebody.png"),
    ],
)
def test_the_child_is_in_the_name(name: str, child: str) -> None:
    assert xray._patient_of(Path("/data/train/PNEUMONIA") / name) == child


def test_images_become_grey_squares(made: Path) -> None:
    rows = DATA.load(0, 1, 0, {"data-dir": str(made)})
    assert rows.train_x.shape[1:] == rows.test_x.shape[1:] == DATA.shape == (1, 200, 200)
    assert rows.train_x.dtype == np.uint8
    assert len(rows.train_y) == DATA.examples(0, 1, 0, {"data-dir": str(made)})
    assert len(rows.train_y) + len(rows.test_y) == 3 * IMAGES


def test_a_large_image_is_reduced_as_pillow_would(made: Path) -> None:
    y, x = np.mgrid[0:1, 0:1:2000j]
    picture = Image.fromarray((255 * (x + y)).astype(np.uint8).repeat(1500, axis=0)).convert("RGB")
    path = made.parent / "large.jpeg"
    picture.save(path, quality=95)
    expected = np.asarray(picture.convert("L").resize((200, 200), Image.Resampling.BILINEAR), np.int64)
    assert np.abs(xray._image(path, 0) - expected).max() <= 3


def test_no_child_is_on_two_sides_and_every_image_is_tested_once(made: Path) -> None:
    config = {"data-dir": str(made)}
    labels, children = DATA.labels(config)
    where: dict[str, int] = {}
    tested = 0
    for partition in range(2):
        for fold in range(5):
            train, test = deal(labels, partition, 2, fold, groups=children)
            assert not set(children[train]) & set(children[test])
            for child in children[np.concatenate([train, test])]:
                assert where.setdefault(child, partition) == partition
            tested += len(test)
    assert tested == len(labels)


# ---------------------------------------------------------------------- what is refused, and what it says
def refuses(folder: Path | str, words: str) -> str:
    with pytest.raises(ConfigError, match=words) as caught:
        DATA.load(0, 1, 0, {"data-dir": str(folder)})
    text = str(caught.value)
    for needed in ("Paul Mooney", "CC BY 4.0", "kaggle.com", "train/, val/ and test/", "NORMAL/ and PNEUMONIA/"):
        assert needed in text
    return text


def test_no_folder(tmp_path: Path) -> None:
    refuses("", "need data-dir")
    refuses(tmp_path / "nowhere", "is not a folder")


@pytest.mark.parametrize("part", ["train", "val/NORMAL", "test/PNEUMONIA"])
def test_a_missing_folder_is_named(folder: Path, part: str) -> None:
    shutil.rmtree(folder / part)
    assert str(folder / part) in refuses(folder, "is not a folder")


@pytest.mark.parametrize("kind", xray.CLASSES)
def test_an_empty_class(folder: Path, kind: str) -> None:
    for path in folder.rglob("IM-*" if kind == "normal" else f"*{kind}*"):
        path.unlink()
    refuses(folder, f"no image of class {kind}")


@pytest.mark.parametrize("name", ["person3_1.jpeg", "person3_virus_bacteria_1.jpeg"])
def test_a_name_that_does_not_say_the_cause(folder: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copy(folder / "val/PNEUMONIA/person3_virus_1.jpeg", folder / "val/PNEUMONIA" / name)
    with caplog.at_level(logging.ERROR):
        text = refuses(folder, "1 images of PNEUMONIA name neither")
    assert name not in text, "Flower sends the text to the server"
    assert name in caplog.text


@pytest.mark.parametrize("content", [b"", b"no picture", b"GIF89a" + bytes(64), "cut", "bomb"])
def test_an_image_that_cannot_be_read(
    folder: Path, content: bytes | str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = folder / "train/PNEUMONIA/person1_virus_1.jpeg"
    if content == "bomb":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # twice as many are refused
    else:
        broken.write_bytes(broken.read_bytes()[:900] if isinstance(content, str) else content)
    os.utime(broken, (1, 1))
    with caplog.at_level(logging.ERROR):
        text = refuses(folder, "cannot be read")
    assert "person" not in text
    assert content == "bomb" or str(broken) in caplog.text
    assert DATA.examples(0, 1, 0, {"data-dir": str(folder)}), "sizes need no pixels"


def test_a_replaced_image_is_read_again(folder: Path) -> None:
    path = folder / "train/NORMAL/IM-0000-0001.jpeg"
    before = xray._image(path, path.stat().st_mtime_ns)
    Image.new("L", (50, 50), 255).save(path)
    os.utime(path, (2, 2))
    assert not np.array_equal(before, xray._image(path, path.stat().st_mtime_ns))


def test_without_pillow_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DependencyError, match=r"flbc\[demo\]"):
        DATA.load(0, 1, 0, {"data-dir": str(folder)})


# ---------------------------------------------------------------------- the paper's network
def test_the_dense_block_has_the_papers_channels() -> None:
    torch = pytest.importorskip("torch")
    model = DATA.model()
    shapes = [tuple(value.shape) for value in model.state_dict().values() if value.ndim == 4]
    assert shapes == [(16, 1, 3, 3), (16, 16, 3, 3), (16, 32, 3, 3), (16, 48, 3, 3)]  # section 7.1.2: 1×16, 16×16, …
    assert model(torch.zeros(2, 1, 40, 30)).shape == (2, 3), "any size"


def test_a_few_steps_lower_the_loss(made: Path, one_thread: None) -> None:
    import torch

    rows = DATA.load(0, 6, 0, {"data-dir": str(made)})
    model = DATA.model()
    model.load_state_dict({name: torch.from_numpy(value) for name, value in DATA.initial().items()})
    inputs, targets = DATA.tensors(rows.train_x, rows.train_y)

    def loss() -> float:
        with torch.no_grad():
            return float(DATA.losses(model(inputs), targets).mean())

    before = loss()
    fit(DATA, model, rows, Local(learning_rate=1e-3, batch_size=2, epochs=3))
    assert loss() < before


def test_clipped_gradients_of_the_paper_network(made: Path, one_thread: None) -> None:
    pytest.importorskip("opacus")
    rows = DATA.load(0, 6, 0, {"data-dir": str(made)})
    total = gradient_sum(DATA, DATA.model(), rows, 0.5)
    norm = np.sqrt(sum(float(np.square(value).sum()) for value in total.values()))
    assert 0 < norm <= 0.5 * len(rows.train_y)
