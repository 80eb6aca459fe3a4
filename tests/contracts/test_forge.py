"""Runs the Solidity tests in contracts/test: unit, fuzz and invariant tests. Compiling them takes half a minute."""

import json
import re
import subprocess

import pytest

from flbc.ledger import build

from .tools import CONTRACTS, MODULES, SOLC, need_node

#: At least so many must have run: a suite that silently loses its tests must not pass.
UNIT, FUZZ, INVARIANT = 90, 10, 4


@pytest.fixture(scope="module")
def results():
    need_node()
    forge = MODULES / ".bin" / "forge"
    command = [str(forge), "test", "--use", str(SOLC), "--offline", "--json"]
    run = subprocess.run(command, cwd=CONTRACTS, capture_output=True, text=True, check=False)
    lines = run.stdout.strip().splitlines()
    if not lines or not lines[-1].startswith("{"):
        pytest.fail(f"forge did not run the tests:\n{run.stdout[-3000:]}\n{run.stderr[-3000:]}")
    suites = json.loads(lines[-1])
    return {
        f"{suite}:{name}": result for suite, found in suites.items() for name, result in found["test_results"].items()
    }


@pytest.mark.timeout(3600)
def test_all_pass(results):
    failed = {name: result["reason"] or "" for name, result in results.items() if result["status"] != "Success"}
    assert failed == {}


def test_enough_of_each_kind_ran(results):
    kinds = [next(iter(result["kind"])) for result in results.values()]
    assert kinds.count("Unit") >= UNIT
    assert kinds.count("Fuzz") >= FUZZ
    assert kinds.count("Invariant") >= INVARIANT
    for result in results.values():
        for kind, numbers in result["kind"].items():
            if kind == "Fuzz":
                assert numbers["runs"] >= 256
            if kind == "Invariant":
                assert numbers["calls"] >= 2048
                assert numbers["reverts"] == 0


def test_every_custom_error_is_provoked():
    text = "\n".join(path.read_text("utf-8") for path in sorted((CONTRACTS / "test").glob("*.t.sol")))
    provoked = set(re.findall(r"(\w+)\.selector", text))
    errors = {
        entry["name"] for name in build.CONTRACTS for entry in build.artifact(name)["abi"] if entry["type"] == "error"
    }
    assert errors - provoked == set()


def test_interfaces_of_the_tests_are_those_of_the_contracts(results):
    """Tests see the contracts through test/Interfaces.sol; what it says must be in the artifacts, word for word."""
    for name in build.CONTRACTS:
        declared = json.loads((CONTRACTS / "out" / "Interfaces.sol" / f"{name}.json").read_text())["abi"]
        actual = build.artifact(name)["abi"]
        assert {signature(entry) for entry in declared} <= {signature(entry) for entry in actual}


def signature(entry):
    def kinds(members):
        return tuple(
            (m["type"], m.get("indexed"), kinds(m["components"]) if "components" in m else ()) for m in members
        )

    outputs = kinds(entry.get("outputs", []))
    if entry.get("name") == "lock":  # the tests do not look at what it returns
        outputs = ()
    return entry["type"], entry.get("name"), kinds(entry["inputs"]), outputs, entry.get("stateMutability")


def test_sources_are_formatted():
    need_node()
    forge = str(MODULES / ".bin" / "forge")
    run = subprocess.run([forge, "fmt", "--check"], cwd=CONTRACTS, capture_output=True, text=True, check=False)
    assert run.returncode == 0, f"{run.stdout[-2000:]}\nrun `node_modules/.bin/forge fmt` in contracts/"
