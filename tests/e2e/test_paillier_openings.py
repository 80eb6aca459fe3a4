"""Paillier's other openings as processes: two nodes that open together, and a key that nobody holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flbc.demo.heart import HOSPITALS, split
from tests.support.deployment import Deployment

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

APP = Path(__file__).resolve().parents[2] / "strategies" / "paillier"
SIZES = {name: len(split(name, 0).train_y) for name in HOSPITALS}
VICTIM = "hungary"
OPENED = "SELECT round FROM opened WHERE answer IS NOT NULL"


def policy(scheme: str) -> dict[str, object]:
    """Accept this opening and no other: an authority alone could read every update."""
    return {"schemes": [scheme], "min-survivors": 3, "max-epsilon": 2.0, "reveal-metrics": ["accuracy"]}


def run(d: Deployment, opening: str) -> tuple[str, ...]:
    settings = f'opening="{opening}" num-server-rounds=2 epsilon=2.0 compare=false ledger.url=""'
    return ("run", str(APP), "test", "--stream", "-c", settings)


def completed(d: Deployment, output: str) -> None:
    listing, _ = d.flwr("ls", "test", "--format", "json").communicate(timeout=60)
    assert json.loads(listing)["runs"][0]["status"] == "finished:completed", output[-3000:]
    assert "epsilon 2.000 of 2" in output, output[-5000:]


def test_split_with_the_generator_killed_in_the_second_round(tmp_path: Path) -> None:
    """It comes back with its memory: it alone keeps the budget, and the authority reads noised sums."""
    helpers = ("authority", "generator")
    with Deployment(tmp_path, SIZES, 3072, policy("paillier-split"), helpers=helpers) as d:
        process = d.flwr(*run(d, "split"))
        d.wait(lambda: any(row[0] == 2 for row in d.query("cleveland", "SELECT round FROM trained")), 240)
        d.kill("generator")
        d.start_node("generator", len(HOSPITALS) + helpers.index("generator"))
        output, _ = process.communicate(timeout=300)
        completed(d, output)
        assert output.count("flbc: 4 clients") == 2, output[-3000:]
        assert sorted(d.query("generator", OPENED)) == sorted(d.query("authority", OPENED)) == [(1,), (2,)]
        paid = {name: d.query(name, "SELECT round(epsilon, 2) FROM spent") for name in helpers}
        assert paid["generator"] == [(2.0,)]
        assert paid["authority"] in ([], [(0.0,)])


def test_three_of_four_hospitals_open_although_one_is_killed(tmp_path: Path) -> None:
    """Nobody holds the key, and the hospital that was killed with -9 is needed neither for its update nor its share."""
    with Deployment(tmp_path, SIZES, 3072, policy("paillier-threshold"), committee=True, threshold=3) as d:
        assert d.keys["authority"].paillier is None
        process = d.flwr(*run(d, "threshold"))
        d.wait(lambda: any(row[0] == 2 for row in d.query(VICTIM, "SELECT round FROM trained")), 300)
        d.kill(VICTIM)
        output, _ = process.communicate(timeout=300)
        completed(d, output)
        assert "flbc: 3 clients" in output, output[-3000:]
        assert sorted(d.query("authority", OPENED)) == [(1,), (2,)]
        for name in HOSPITALS:
            assert d.query(name, OPENED) == ([(1,)] if name == VICTIM else [(1,), (2,)])
