import json
import re

import pytest

from flbc.ledger import build

from .tools import CONTRACTS

README = (CONTRACTS / "README.md").read_text("utf-8")


@pytest.mark.parametrize("kind", ["error", "event"])
def test_every_error_and_event_is_listed(kind):
    abis = [entry for name in build.CONTRACTS for entry in build.artifact(name)["abi"]]
    missing = {entry["name"] for entry in abis if entry["type"] == kind and f"`{entry['name']}`" not in README}
    assert missing == set()


def test_no_error_or_event_is_made_up():
    tables = README[README.index("## Events") : README.index("## Gas")]
    named = {name for name in re.findall(r"`([A-Z]\w+)`", tables) if name not in build.CONTRACTS}
    known = {entry.get("name") for name in build.CONTRACTS for entry in build.artifact(name)["abi"]}
    assert named - known == set()


def test_sizes_are_those_of_the_artifacts():
    hub, registry = (len(build.artifact(name)["deployedBytecode"]) // 2 - 1 for name in ("TaskHub", "Registry"))
    assert f"Hub {hub:,} bytes, registry {registry:,}" in README


def test_gas_table_is_gas_json():
    table = re.search(r"<!-- gas -->\n(.*?)<!-- /gas -->", README, re.DOTALL)[1]
    rows = dict(re.findall(r"^\| (.+?) \| ([\d,]+) \|$", table, re.MULTILINE))
    measured = json.loads((CONTRACTS / "gas.json").read_text())
    assert rows == {step: f"{gas:,}" for step, gas in measured.items()}, "copy contracts/gas.json into the table"


def test_files_exist():
    for path in re.findall(r"`(src/\w+\.sol)`|\]\(([\w./]+)\)", README):
        assert (CONTRACTS / (path[0] or path[1])).exists(), path
