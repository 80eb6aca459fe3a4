"""The bundled app, client and server, on every data set, in one process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from flbc.demo import heart
from flbc.demo.attacks import Attack, LabelFlip, malicious
from flbc.demo.datasets import dataset
from flbc.errors import ConfigError, FlbcError
from flbc.flower.app import client, server
from flbc.flower.app.settings import AppSettings
from tests.flower.test_app_settings import defaults
from tests.support import idx, synthetic_xray
from tests.support.apps import numpy_of, record
from tests.support.local_grid import LocalGrid
from tests.support.parties import KEY_BITS

torch = pytest.importorskip("torch")

FAST = {"key-bits": KEY_BITS, "ledger.url": "", "node-wait": 2.0, "stage-timeout": 2.0, "compare": False}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def play(ready_key: Callable[..., None]) -> Callable[..., LocalGrid]:
    """Return a function that runs the app as the strategy's pyproject.toml says, with overrides."""

    def run(trainers: int, **overrides: Any) -> LocalGrid:
        ready_key(trainers + 1)
        config = {**defaults(), **FAST, **{key.replace("_", "-"): value for key, value in overrides.items()}}
        grid = LocalGrid(client.app, trainers + 1, run_config=config)
        server.app(grid, Context(1, 0, {}, RecordDict(), config, 1))
        return grid

    return run


def accuracies(caplog: pytest.LogCaptureFixture) -> list[float]:
    lines = [r.getMessage() for r in caplog.records if "accuracy: overall" in r.getMessage()]
    return [float(line.split("overall ")[1].split()[0]) for line in lines]


def errors(grid: LocalGrid) -> list[str]:
    return [message.error.reason for message in grid.received if message.has_error()]


# ---------------------------------------------------------------------- a run per data set
def test_heart_with_its_table(play: Any, caplog: Any, capsys: Any) -> None:
    caplog.set_level(logging.INFO)
    grid = play(4, num_server_rounds=2, compare=True)
    assert not errors(grid)
    assert "switzerland" in caplog.text
    table = capsys.readouterr().out
    assert "(this run)" in table
    assert "epsilon spent 1.000" in table
    assert accuracies(caplog)[-1] > 0.7


def test_heart_without_privacy_is_plain_fedavg(play: Any, caplog: Any) -> None:
    from flbc.demo.baselines import Settings, fedavg, fold_data

    caplog.set_level(logging.INFO)
    play(4, num_server_rounds=3, privacy_unit="none", local_steps=2, fold=1, codec_bits=24)
    expected = fedavg(fold_data(1), Settings(rounds=3, local_steps=2))
    assert accuracies(caplog) == pytest.approx(expected.curve, abs=6e-4)  # printed with three digits


@pytest.mark.parametrize("where", ["opener", "clients"])
def test_heart_masked_without_a_helper(caplog: Any, capsys: Any, home: Path, where: str) -> None:
    caplog.set_level(logging.INFO)
    overrides = {"num-server-rounds": 2, "epsilon": 3.0, "min-survivors": 4, "privacy-where": where, "compare": True}
    config = {**defaults("masked"), **FAST, **overrides}
    grid = LocalGrid(client.app, 4, run_config=config)
    server.app(grid, Context(1, 0, {}, RecordDict(), config, 1))
    assert not errors(grid)
    assert accuracies(caplog)[-1] > 0.7
    assert "epsilon 3.000 of 3" in caplog.text
    assert "epsilon spent 3.000" in capsys.readouterr().out
    assert ("the server, which knows the exact sum" in caplog.text) is (where == "opener")


@pytest.mark.parametrize("overrides", [{"sampling-rate": 0.3}, {"privacy-where": "local"}], ids=str)
def test_heart_sampled_and_with_local_noise(play: Any, caplog: Any, overrides: dict[str, Any]) -> None:
    caplog.set_level(logging.INFO)
    config = {name.replace("-", "_"): value for name, value in overrides.items()}
    grid = play(4, num_server_rounds=2, epsilon=3.0, **config)
    assert not errors(grid)
    assert any(f"epsilon {spent} of 3 at" in caplog.text for spent in ("3.000", "2.999", "2.998"))
    assert len(accuracies(caplog)) == 2


def test_digits(play: Any, caplog: Any, capsys: Any) -> None:
    caplog.set_level(logging.INFO)
    grid = play(3, dataset="digits", privacy_unit="none", num_server_rounds=2, local_epochs=1, compare=True)
    assert not errors(grid)
    assert "of 3 nodes" in caplog.text
    assert accuracies(caplog)[-1] > 0.8
    assert "this run" not in capsys.readouterr().out, "the table is for heart data"


#: Seven clients, of which two flip labels (malicious(7, 0.3, 0)), and three verifiers.
FLIPPED = {"attack-fraction": 0.3, "num-server-rounds": 2, "local-epochs": 1}


def verified(**overrides: Any) -> LocalGrid:
    config = {**defaults("verified"), **FAST, "stage-timeout": 90.0, **FLIPPED, **overrides}
    grid = LocalGrid(client.app, 10, run_config=config)
    server.app(grid, Context(1, 0, {}, RecordDict(), config, 1))
    return grid


def rejected(caplog: pytest.LogCaptureFixture) -> list[set[str]]:
    """Return the names that each round's checks rejected."""
    lines = [r.getMessage() for r in caplog.records if "models checked" in r.getMessage()]
    return [set(line.partition("rejected ")[2].split(", ")) - {""} for line in lines]


def test_digits_verified(caplog: Any, home: Path) -> None:
    caplog.set_level(logging.INFO)
    grid = verified()
    assert not errors(grid)
    flipped = {f"node-{i}" for i in malicious(7, 0.3, 0)}
    assert len(flipped) == 2
    assert [flipped <= names for names in rejected(caplog)] == [True, True]
    assert f"label-flip by {', '.join(sorted(flipped))}" in caplog.text
    assert accuracies(caplog)[-1] > 0.7  # measured: 0.82
    assert caplog.text.count("7 models checked on 243 samples") == 2


def test_a_deployed_node_does_no_harm_for_whoever_starts_a_run() -> None:
    settings = AppSettings.read(defaults("verified"))
    bad = min(malicious(10, 0.4, 0))
    mine = {"partition-id": bad, "num-partitions": 10}
    here = Context(1, 1, {**mine, "flbc-key": "/secure/key"}, RecordDict(), {}, 1)
    with pytest.raises(ConfigError, match="for simulations; set attack"):
        client._attack(here, settings, bad, 10)
    simulated = Context(1, 1, {**mine, "flbc-dev": True}, RecordDict(), {}, 1)
    assert isinstance(client._attack(simulated, settings, bad, 10), LabelFlip)
    assert type(client._attack(simulated, settings, 0, 10)) is Attack


def test_verifiers_load_rows_of_their_own() -> None:
    config = defaults("verified")
    sets = [client.validation(Context(1, 1, {"partition-id": i, "num-partitions": 3}, RecordDict(), config, 1))
            for i in range(3)]  # fmt: skip
    for x, y in sets:
        assert x.shape[1:] == (1, 28, 28)
        assert x.dtype == torch.float32
        assert 0 <= float(x.min()) <= float(x.max()) <= 1
        assert len(x) == len(y) == pytest.approx(80, abs=2)
    assert not torch.equal(sets[0][0][:50], sets[1][0][:50])
    with pytest.raises(ConfigError, match="Verifier 3 has no data"):
        client.validation(Context(1, 1, {"partition-id": 3, "num-partitions": 4}, RecordDict(), config, 1))
    with pytest.raises(ConfigError, match="checked with strategy"):
        client.validation(context({"partition-id": 0, "num-partitions": 3}))


@pytest.mark.parametrize("unit", ["none", "example"])
def test_fashion(play: Any, caplog: Any, tmp_path: Path, unit: str) -> None:
    folder = idx.write(tmp_path / "fashion", (90, 30))
    caplog.set_level(logging.INFO)
    grid = play(3, dataset="fashion", data_dir=str(folder), privacy_unit=unit, num_server_rounds=1, epsilon=4.0)
    assert not errors(grid)
    assert len(accuracies(caplog)) == 1
    if unit == "example":
        assert "epsilon 4.000 of 4" in caplog.text


def test_xray(play: Any, caplog: Any, tmp_path: Path) -> None:
    folder = synthetic_xray.write(tmp_path / "chest_xray", 6)
    caplog.set_level(logging.INFO)
    grid = play(3, dataset="xray", data_dir=str(folder), privacy_unit="none", num_server_rounds=1)
    assert not errors(grid)
    assert len(accuracies(caplog)) == 1


# ---------------------------------------------------------------------- whose data
def context(node: dict[str, Any], **overrides: Any) -> Context:
    config = {**defaults(), **{key.replace("_", "-"): value for key, value in overrides.items()}}
    return Context(1, 1, node, RecordDict(), config, 1)


def test_sizes_are_declared_without_the_authoritys_partition() -> None:
    nodes = [{"partition-id": i, "num-partitions": 10} for i in range(10)]
    assert sum(client.declared(context(node, dataset="digits")) for node in nodes) == 4000
    for i, name in enumerate(heart.HOSPITALS):
        assert client.declared(context({"partition-id": i}, fold=3)) == len(heart.split(name, 3).train_y)


@pytest.mark.parametrize(
    ("node", "name", "words"),
    [
        ({}, "heart", "add partition-id"),
        ({"partition-id": "0"}, "heart", "add partition-id"),
        ({"partition-id": 0}, "digits", "add num-partitions"),
        ({"partition-id": 3, "num-partitions": 3}, "digits", "Partition 3 has no data"),
        ({"partition-id": 4, "num-partitions": 9}, "heart", "4 hospitals"),
        ({"partition-id": 0, "num-partitions": 2}, "xray", "need data-dir"),
    ],
)
def test_a_node_without_data_is_told_what_to_add(node: dict[str, Any], name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        client.declared(context(node, dataset=name))


def test_a_nodes_own_folder_comes_first(tmp_path: Path) -> None:
    mine = str(idx.write(tmp_path / "mine", (40, 10)))
    node = {"partition-id": 0, "num-partitions": 1, "data-dir": mine}
    # Whoever starts the run chooses run-config: it must not point a hospital elsewhere.
    assert client.declared(context(node, dataset="fashion", data_dir=str(tmp_path / "theirs"))) == 40


def test_a_broken_image_is_not_named_to_the_server(play: Any, tmp_path: Path, caplog: Any) -> None:
    folder = synthetic_xray.write(tmp_path / "chest_xray", 6)
    for path in folder.rglob("person*_virus_*"):
        path.write_bytes(b"cut off")
    with pytest.raises(FlbcError, match="No round was finished"):
        play(3, dataset="xray", data_dir=str(folder), privacy_unit="none", num_server_rounds=1)
    assert "person" in caplog.text, "the node's log names it"
    server_side = [r.getMessage() for r in caplog.records if r.name == "flwr"]
    assert any("cannot be read" in text for text in server_side)
    assert not any("person" in text for text in server_side)


def test_the_round_orders_the_batches(tmp_path: Path) -> None:
    data = dataset("fashion")
    first = record(data.initial())
    here = context(
        {"partition-id": 0, "num-partitions": 1, "data-dir": str(idx.write(tmp_path, (60, 20)))},
        dataset="fashion",
        privacy_unit="none",
        batch_size=8,
    )

    def trained(config: dict[str, ConfigRecord]) -> np.ndarray:
        content = RecordDict({"arrays": first, **config})
        reply = client.train(Message(content, dst_node_id=1, message_type="train"), here)
        return numpy_of(reply.content["arrays"])["linear2.weight"]

    one, again, two, unsaid = (
        trained({"config": ConfigRecord({"server-round": 1})}),
        trained({"config": ConfigRecord({"server-round": 1})}),
        trained({"config": ConfigRecord({"server-round": 2})}),
        trained({}),
    )
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, two)
    assert np.isfinite(unsaid).all()
