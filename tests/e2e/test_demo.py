"""The demo's command, and that failures are not hidden by ``flwr run``'s exit status of 0."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from flbc.demo.run import _pids_of, run_demo, stop_processes_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def test_two_rounds_with_table_complete(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_demo(overrides="num-server-rounds=2 ledger.accuracy=0.5") == 0
    out = capfd.readouterr().out
    for words in (
        "(this run)",
        "plain FedAvg",
        "encrypted, no DP",
        "noise added at each hospital",
        "switzerland alone",
        "epsilon spent 1.000",
        "round 2/2 accuracy: overall",
        "in clear, outside epsilon",
        "768 B each",
        "block 2 led by node-",
        "the task is settled",
        "everything verifies",
        "= escrow",
    ):
        assert words in out, words
    # Every process of the run has ended; the chain is still there.
    again = subprocess.run([Path(sys.executable).parent / "flbc", "audit", "--json"], check=True, capture_output=True)
    report = json.loads(again.stdout)
    assert report["ok"]
    assert len(report["rounds"]) == 2
    home = Path(os.environ["FLBC_HOME"])
    assert not list((home / "runs").iterdir()), "what simulated nodes keep is removed"


def test_unknown_value_fails_with_the_choices(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_demo(overrides='privacy-unit="exampel"') == 1
    captured = capfd.readouterr()
    assert "is unknown; choose one of none, example, client" in captured.out + captured.err
    assert "The run was not completed: finished:failed" in captured.err


def test_misspelt_key_is_refused_and_nothing_is_left_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "mkdtemp", lambda prefix: str(tmp_path / "home"))
    seen: list[int] = []

    def spy(home: Path) -> None:
        seen.extend(_pids_of(home))
        stop_processes_of(home)

    monkeypatch.setattr("flbc.demo.run.stop_processes_of", spy)
    assert run_demo(overrides="epsilom=3.0") == 1
    captured = capfd.readouterr()
    assert "Invalid run configuration" in captured.out + captured.err, "Flower's own words"
    assert seen, "Flower's local SuperLink outlives `flwr run`"
    assert not _pids_of(tmp_path / "home"), "and is stopped"


def test_demo_outside_a_checkout_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_demo(app=tmp_path) == 2
    assert "checkout" in capfd.readouterr().err
