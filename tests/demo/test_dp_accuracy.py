"""The experiment of ``benchmarks/dp_accuracy.py``: its parts, its judgement, and that the configs say the same."""

from __future__ import annotations

import importlib
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("opacus")

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("paper-*.toml"))


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Any:
    """Import the benchmark as Python does when it is run."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("dp_accuracy")


def job(bench: Any, row: str, **changed: Any) -> Any:
    setting = replace(bench.SETTINGS["digits"][3.0], rounds=2, average_rounds=1, **changed)
    return bench.Job(row, "digits", "", 3.0, setting, seed=0, check=True)


def test_there_is_a_config_for_each(bench: Any) -> None:
    named = {f"paper-{data}-eps{epsilon:g}" for data, of in bench.SETTINGS.items() for epsilon in of}
    assert named <= {path.stem for path in CONFIGS}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configs_say_what_the_benchmark_does(bench: Any, path: Path) -> None:
    text = path.read_text("utf-8")
    config, local = tomllib.loads(text), "-local-" in path.stem
    how = bench.SETTINGS[config["dataset"]][config["epsilon"]]
    assert f"configs/{path.name} " in text, "its own command"
    assert (config["clip-norm"], config["num-server-rounds"]) == (how.clip, how.rounds)
    assert (config["sampling-rate"], config["delta"]) == (how.rate, bench.DELTA)
    assert config["learning-rate"] == (how.local_step if local else how.step)
    assert config.get("privacy-where", "opener") == ("local" if local else "opener")


def test_a_round_of_ours_is_a_round_of_a_scheme(bench: Any) -> None:
    """``check=True`` sends the first round through NddFe's scheme and compares; epsilon is inside the budget."""
    curve = bench.run(job(bench, bench.OURS))
    assert 2.9 < curve.epsilon <= 3.0
    assert curve.rounds == [1, 2]
    assert all(0 <= value <= 1 for value in curve.accuracies)


@pytest.mark.parametrize("row", ["plain FedAvg", "plain FedSGD"])
def test_plain_rows_promise_nothing(bench: Any, row: str) -> None:
    assert bench.run(job(bench, row)).epsilon == float("inf")


def test_local_noise_is_ten_times_the_variance(bench: Any) -> None:
    training = importlib.import_module("_dp_training")
    drawn: list[float] = []
    how = training.problem("digits", "", 0)
    for row in (bench.OURS, bench.LOCAL_TUNED):
        noise = training.mechanism(how, job(bench, row))
        drawn.append(noise.sigma * (training.HOSPITALS**0.5 if noise.where == "local" else 1))
    assert drawn[1] / drawn[0] == pytest.approx(10**0.5, rel=1e-9)


def curves(bench: Any, values: Sequence[float]) -> list[Any]:
    return [bench.Curve([5, 10], [0.1, value / 100], 2.9) for value in values]


@pytest.mark.parametrize(
    ("ours", "local", "missed"),
    [
        ((92.0, 93.0, 91.0), (80.0, 81.0, 82.0), 0),
        ((89.0, 89.1, 88.9), (80.0, 81.0, 82.0), 1),  # behind by three points, and always
        ((92.0, 93.0, 91.0), (90.0, 91.0, 92.0), 1),  # no better than noise by everybody
        ((10.0, 10.1, 9.9), (10.0, 10.0, 10.0), 2),
    ],
)
def test_the_judgement(bench: Any, ours: Sequence[float], local: Sequence[float], missed: int) -> None:
    found = {
        ("digits", 3.0, bench.CENTRAL): curves(bench, (92.1, 92.4, 91.6)),
        ("digits", 3.0, bench.OURS): curves(bench, ours),
        ("digits", 3.0, bench.LOCAL_TUNED): curves(bench, local),
    }
    assert len(bench.judge(found)) == missed


def test_curves_are_written_and_read(bench: Any, tmp_path: Path) -> None:
    found = {
        ("digits", 3.0, bench.OURS): curves(bench, (92.0, 91.5)),
        ("digits", 0.0, bench.FED_AVG): curves(bench, (97,)),
    }
    bench.write_curves(found, str(tmp_path / "x.csv"))
    again = bench.read_curves([str(tmp_path / "x.csv")])
    assert list(again) == list(found)
    for case, several in found.items():
        for one, other in zip(again[case], several, strict=True):
            np.testing.assert_allclose(one.accuracies, other.accuracies, atol=1e-4)
            assert list(one.rounds) == list(other.rounds)
    pytest.importorskip("matplotlib")
    bench.plot(again, str(tmp_path / "x.png"))
    assert (tmp_path / "x.png").stat().st_size > 10_000
