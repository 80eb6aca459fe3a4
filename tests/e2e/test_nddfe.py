"""NddFe as processes: four hospitals and a generator, which is killed with -9 in the second round and comes back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flbc.demo.heart import HOSPITALS, split
from tests.support.deployment import Deployment

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

APP = Path(__file__).resolve().parents[2] / "strategies" / "nddfe"


def test_two_rounds_with_the_generator_killed_in_the_second(tmp_path: Path) -> None:
    sizes = {name: len(split(name, 0).train_y) for name in HOSPITALS}
    policy = {"schemes": ["nddfe"], "min-survivors": 3, "max-epsilon": 2.0, "reveal-metrics": ["accuracy"]}
    with Deployment(tmp_path, sizes, 0, policy, helpers=("generator",)) as d:
        config = 'num-server-rounds=2 epsilon=2.0 privacy-unit="example" compare=false ledger.url=""'
        run = d.flwr("run", str(APP), "test", "--stream", "-c", config)
        d.wait(lambda: any(row[0] == 2 for row in d.query("cleveland", "SELECT round FROM trained")), 240)
        d.kill("generator")
        d.start_node("generator", len(HOSPITALS))  # the same key file and memory, another node id
        output, _ = run.communicate(timeout=300)
        listing, _ = d.flwr("ls", "test", "--format", "json").communicate(timeout=60)
        assert json.loads(listing)["runs"][0]["status"] == "finished:completed", output[-3000:]
        assert output.count("flbc: 4 clients") == 2, output[-3000:]
        assert "epsilon 2.000 of 2" in output
        keys = d.query("generator", "SELECT round FROM opened WHERE answer IS NOT NULL")
        assert sorted(keys) == [(1,), (2,)]
        opened = [row for name in HOSPITALS for row in d.query(name, "SELECT round FROM opened")]
        assert sorted(opened) == [(1,), (2,)], "each round was opened by one hospital"
