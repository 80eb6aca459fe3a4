"""Masked as processes: four hospitals, one of which is killed with -9 between its upload and the unmasking."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from flbc.demo.heart import HOSPITALS, split
from flbc.demo.run import flower_home, report_status
from tests.support.deployment import Deployment

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
APP, ROUNDS = ROOT / "strategies" / "masked", ROOT / "benchmarks" / "_masked_rounds"
VICTIM, SLOW = "hungary", "cleveland"


def answered(d: Deployment, name: str, round_: int) -> bool:
    return any(row[0] == round_ for row in d.query(name, "SELECT round FROM answered WHERE length(reply) > 0"))


def asked_to_train_again(d: Deployment, name: str) -> bool:
    """Whether the node has round 2's model: the first message of type train after an evaluation."""
    _, evaluated, after = d.log(name).partition("Sending: evaluate message")
    return bool(evaluated) and "Receiving: train message" in after


def opened(d: Deployment, name: str) -> set[int]:
    return {row[0] for row in d.query(name, "SELECT round FROM opened WHERE answer IS NOT NULL")}


def test_a_hospital_killed_between_upload_and_unmasking_is_in_the_sum(tmp_path: Path) -> None:
    """Round 2 sums all four, with the shares of three; in round 3 the victim is back with one set-up trip."""
    sizes = {name: len(split(name, 0).train_y) for name in HOSPITALS}
    policy = {"schemes": ["masked"], "min-survivors": 3, "max-epsilon": 2.0, "reveal-metrics": ["accuracy"]}
    with Deployment(tmp_path, sizes, 0, policy, helpers=()) as d:
        config = (
            'num-server-rounds=3 epsilon=2.0 privacy-unit="example" privacy-where="clients" compare=false ledger.url=""'
        )
        run = d.flwr("run", str(APP), "test", "--stream", "-c", config)
        d.wait(lambda: asked_to_train_again(d, SLOW), 240)
        d.pause(SLOW)  # so that nothing is opened before the victim's upload is at the server and the victim is dead
        d.wait(lambda: answered(d, VICTIM, 2), 120)
        d.wait(lambda: "Sent successfully" in d.log(VICTIM).rpartition("Receiving: train message")[2], 60)
        d.kill(VICTIM)
        d.resume(SLOW)
        d.wait(lambda: all(2 in opened(d, name) for name in HOSPITALS if name != VICTIM), 120)
        assert 2 not in opened(d, VICTIM)
        d.start_node(VICTIM, list(HOSPITALS).index(VICTIM))
        output, _ = run.communicate(timeout=400)
        listing, _ = d.flwr("ls", "test", "--format", "json").communicate(timeout=60)
        assert json.loads(listing)["runs"][0]["status"] == "finished:completed", output[-3000:]
        print(*(line for line in output.splitlines() if "flbc: 4 clients" in line), sep="\n")  # seconds: pytest -rP
        assert output.count("flbc: 4 clients") == 3, output[-3000:]
        assert "epsilon 2.000 of 2" in output
        assert {1, 3} <= opened(d, VICTIM)  # and 2 if it was back before the question was taken away
        for name in HOSPITALS:
            assert d.query(name, "SELECT count(*) FROM mask WHERE secrets IS NOT NULL") == [(0,)], "used and not erased"


def test_a_hundred_virtual_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In Flower's simulation engine, on a ring of 28 neighbours each; the app checks the mean of every round itself."""
    monkeypatch.setenv("FLBC_HOME", str(tmp_path))
    nodes = "num-supernodes=100 client-resources-num-cpus=1"
    settings = "secure=true clients=100 parameters=5000 num-server-rounds=2"
    command = ["flwr", "run", str(ROUNDS), "--stream", "--federation-config", nodes, "-c", settings]
    with flower_home() as environment:
        done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=500)
        output = done.stdout + done.stderr
        assert report_status(environment) == 0, output[-3000:]
    assert output.count("flbc: 100 clients, 15,210 B each") == 2, output[-3000:]
    assert output.count("seconds of round") == 2
