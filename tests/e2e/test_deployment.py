"""SuperLink and five SuperNodes as processes, with their own key files and rosters.

Two rounds; one hospital is killed with -9 in the second; the run completes with the three that are left. While the
server waits for the lost one, its memory is searched for secrets (S3).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from flbc.demo.heart import HOSPITALS, split
from tests.support.deployment import Deployment, descendants, memory_holds

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

APP = Path(__file__).resolve().parents[2] / "strategies" / "paillier"
VICTIM = "hungary"


def secrets_of(deployment: Deployment) -> dict[str, bytes]:
    needles: dict[str, bytes] = {}
    for name, keys in deployment.keys.items():
        for kind, key in (("signing", keys.signing), ("encryption", keys.encryption), ("vrf", keys.vrf)):
            needles[f"{name} {kind}"] = key.to_bytes()
            needles[f"{name} {kind} hex"] = key.to_bytes().hex().encode()
    private = deployment.keys["authority"].paillier
    assert private is not None
    for prime in private.primes():
        size = (int(prime).bit_length() + 7) // 8
        needles["prime"] = int(prime).to_bytes(size, "big")
        needles["prime, little-endian"] = int(prime).to_bytes(size, "little")
    return needles


def test_two_rounds_with_a_hospital_killed_in_the_second(tmp_path: Path) -> None:
    sizes = {name: len(split(name, 0).train_y) for name in HOSPITALS}
    policy = {
        "schemes": ["paillier"],
        "min-key-bits": 3072,
        "min-survivors": 3,
        "max-epsilon": 2.0,
        "reveal-metrics": ["accuracy"],
    }
    with Deployment(tmp_path, sizes, 3072, policy) as d:
        run = d.flwr(
            "run", str(APP), "test", "--stream", "-c", 'num-server-rounds=2 epsilon=2.0 compare=false ledger.url=""'
        )
        d.wait(lambda: any(row[0] == 2 for row in d.query(VICTIM, "SELECT round FROM trained")), 240)
        d.kill(VICTIM)
        assert d.query(VICTIM, "SELECT round FROM trained") == [(2,)]

        if sys.platform == "linux":
            found, public = set(), d.keys["cleveland"].signing.address.hex().encode()
            for pid in descendants(d.processes["superlink"].pid):
                found |= memory_holds(pid, {**secrets_of(d), "control": public})
            assert found == {"control"}, "the server knows public addresses and no secret"

        output, _ = run.communicate(timeout=240)
        listing, _ = d.flwr("ls", "test", "--format", "json").communicate(timeout=60)
        assert json.loads(listing)["runs"][0]["status"] == "finished:completed", output[-3000:]
        assert f"{VICTIM} sent no update" in output
        assert "flbc: 4 clients" in output
        assert "flbc: 3 clients" in output
        assert "epsilon 2.000 of 2" in output
        assert len(d.query("authority", "SELECT round FROM opened WHERE answer IS NOT NULL")) == 2
        for name in d.keys:
            assert d.keys[name].signing.to_bytes().hex() not in output
        for name in (*HOSPITALS, "authority"):
            folder = tmp_path / "flbc" / name
            assert all(path.stat().st_mode & 0o077 == 0 for path in folder.rglob("*.sqlite"))
