"""Static analysis: every finding of high or medium impact is explained in contracts/SLITHER.md."""

import json
import os
import re
import subprocess

import pytest

from flbc.ledger import build

from .tools import CONTRACTS, MODULES, SOLC, need_node, slither

ROW = re.compile(r"^\| (High|Medium) \| ([\w-]+) \| `(.+?)` \| (.+?) \|$", re.MULTILINE)


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    """(impact, detector, place) of all findings."""
    program = slither()
    need_node()
    # Below a foundry.toml slither would take settings from forge. So it sees the sources in a folder without one.
    folder = tmp_path_factory.mktemp("slither")
    os.symlink(CONTRACTS / "src", folder / "src")
    os.symlink(MODULES, folder / "node_modules")
    settings = build.SETTINGS
    remappings = [f"{prefix}=node_modules/{target}" for prefix, target in build.LIBRARIES.items()]
    command = [
        *(program, "src/TaskHub.sol", "--compile-force-framework", "solc", "--solc", str(SOLC)),
        *("--solc-remaps", " ".join(remappings), "--filter-paths", "node_modules", "--json", "found.json"),
        "--solc-args",
        f"--evm-version {settings['evmVersion']} --optimize --optimize-runs {settings['optimizer']['runs']} --via-ir",
    ]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    answer = json.loads((folder / "found.json").read_text()) if (folder / "found.json").exists() else {}
    if not answer.get("success"):
        pytest.fail(f"slither did not run:\n{run.stderr[-3000:]}")
    return [(item["impact"], item["check"], place(item)) for item in answer["results"]["detectors"]]


def place(finding):
    """First function (or contract) that the finding is about, as slither writes it."""
    first = finding["elements"][0]
    parents = []
    while first.get("type_specific_fields", {}).get("parent") and first["type"] != "function":
        first = first["type_specific_fields"]["parent"]
    name = first.get("type_specific_fields", {}).get("signature", first["name"])
    parent = first.get("type_specific_fields", {}).get("parent", {}).get("name")
    parents += [parent] if parent else []
    return ".".join([*parents, name])


@pytest.mark.timeout(600)
def test_high_and_medium_findings_are_explained(findings):
    explained = {row[:3] for row in ROW.findall((CONTRACTS / "SLITHER.md").read_text("utf-8"))}
    found = {finding for finding in findings if finding[0] in ("High", "Medium")}
    assert found - explained == set()
    assert explained - found == set(), "explanations of what is no longer found"


def test_slither_saw_the_contracts(findings):
    assert ("Informational", "assembly", "Packed.submissions(bytes,bytes,bytes32,bytes32,bytes32,uint256)") in findings
    assert any(where.startswith("EcVrf.") for _, _, where in findings)
    assert any(where.startswith("Registry.") for _, _, where in findings)
