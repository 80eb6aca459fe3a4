"""The two-line change protects a user's own project, run by ``flwr run`` in Flower's simulation engine."""

from __future__ import annotations

import difflib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from flbc.demo.run import flower_home, report_status

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

PROJECT = Path(__file__).parent / "quickstart"
NODES = 3
# The change that README.md shows: an import and a wrapper or mod on each side.
SWAP = {
    "server_app.py": {
        "from quickstart.task import Net\n": "from flbc import Paillier\nfrom quickstart.task import Net\n",
        "strategy = FedAvg(fraction_train=1.0)": "strategy = Paillier(FedAvg(fraction_train=1.0))",
    },
    "client_app.py": {
        "from quickstart.task import Net, load_data\n": "from flbc import SecureMod\n"
        "from quickstart.task import Net, load_data\n",
        "app = ClientApp()": "app = ClientApp(mods=[SecureMod()])",
    },
}


def swapped(folder: Path) -> Path:
    """Copy the project and change those lines, and no other."""
    copy = folder / "swapped"
    shutil.copytree(PROJECT, copy)
    for name, lines in SWAP.items():
        path = copy / "quickstart" / name
        before = after = path.read_text()
        for old, new in lines.items():
            assert after.count(old) == 1
            after = after.replace(old, new)
        path.write_text(after)
        changed = [d for d in difflib.ndiff(before.splitlines(), after.splitlines()) if d[0] in "+-"]
        assert len(changed) == 3, "one import is added, one line is changed"
    return copy


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    with flower_home() as env:
        yield env


def flwr_run(app: Path, nodes: int, out: Path, environment: dict[str, str]) -> dict[int, dict[str, np.ndarray]]:
    out.mkdir()
    command = ["flwr", "run", str(app), "--stream", "-c", f'out="{out}"']
    command += ["--federation-config", f"num-supernodes={nodes} client-resources-num-cpus=1"]
    log = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=400)
    assert report_status(environment) == 0, log.stdout[-3000:]
    return {r: dict(np.load(out / f"round-{r}.npz")) for r in range(4)}


def test_plain_on_n_nodes_equals_swapped_on_n_plus_one(tmp_path: Path, environment: dict[str, str]) -> None:
    plain = flwr_run(PROJECT, NODES, tmp_path / "plain-out", environment)
    secure = flwr_run(swapped(tmp_path), NODES + 1, tmp_path / "secure-out", environment)
    # Round 1: three clients of at most 128 examples, each rounding by less than a step of range 1 / (2^15 - 1).
    weights = 242
    bound = NODES * 128 / weights / (2**15 - 1)
    for name, value in plain[1].items():
        assert secure[0][name].dtype == secure[1][name].dtype, "dtypes stay"
        if secure[1][name].dtype.kind == "i":
            assert abs(float(secure[1][name]) - float(value)) <= 0.5
        else:
            assert np.abs(secure[1][name] - value).max() <= bound + 1e-6, name
    # Later rounds start from models that differ by that much, and train on: a tolerance, far below what training moves.
    for name, value in plain[3].items():
        if value.dtype.kind == "f" and value.ndim:
            assert np.abs(secure[3][name] - value).max() < 2e-3, name
    assert np.abs(plain[3]["second.weight"] - plain[0]["second.weight"]).max() > 0.02, "training moved the model"
