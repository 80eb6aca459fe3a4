"""Verified in deployment: three verifiers as SuperNodes with TLS between them, one of which is killed with -9."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.e2e.test_verified import APP
from tests.support.deployment import VERIFIERS, Deployment

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

VICTIM, OTHER = VERIFIERS[1], VERIFIERS[2]
STARTED = "SELECT 1 FROM checked WHERE round = 2"


def test_a_verifier_killed_while_models_are_checked(tmp_path: Path) -> None:
    """Round 1 sums; round 2 is abandoned when a verifier dies; it comes back, and round 3 sums again."""
    hospitals = dict.fromkeys(("cleveland", "hungary", "switzerland"), 0)
    policy = {"schemes": ["verified"], "min-survivors": 3}
    with Deployment(tmp_path, hospitals, 0, policy, helpers=(), verifiers=True) as d:
        settings = 'attack="" num-server-rounds=3 local-epochs=1 stage-timeout=60.0 policy-max-drop=0.5 node-wait=120.0'
        run = d.flwr("run", str(APP), "test", "--stream", "-c", settings)
        d.wait(lambda: bool(d.query(OTHER, STARTED)), 300)
        d.kill(VICTIM)
        d.wait(lambda: bool(d.query(OTHER, "SELECT 1 FROM checked WHERE round = 2 AND verdict IS NULL")), 5)
        d.start_node(VICTIM, len(hospitals) + VERIFIERS.index(VICTIM))
        output, _ = run.communicate(timeout=500)
        listing, _ = d.flwr("ls", "test", "--format", "json").communicate(timeout=60)
        assert json.loads(listing)["runs"][0]["status"] == "finished:completed", output[-3000:]
        print(*(line for line in output.splitlines() if "flbc:" in line), sep="\n")  # seconds: pytest -rP
        checked = re.findall(r"3 models checked on (\d+) samples", output)
        assert len(checked) == 2, output[-4000:]
        assert "flbc: round 2 is abandoned, the model is kept" in output
        assert output.count("flbc: 3 clients") == 2, output[-4000:]
        for name in VERIFIERS:
            assert d.query(name, "SELECT round FROM opened WHERE answer IS NOT NULL ORDER BY round") == [(1,), (3,)]
