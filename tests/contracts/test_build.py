import copy
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flbc.errors import ConfigError, DependencyError, LedgerError
from flbc.ledger import build

from . import vectors
from .tools import CONTRACTS, MODULES, need_node

ARTIFACTS = {name: build.artifact(name) for name in build.CONTRACTS}


@pytest.fixture(scope="module")
def compiled():
    need_node()
    return build.compile_contracts()


# -------------------------------------------------------------------------------- the artifacts, without a compiler
@pytest.mark.parametrize("name", build.CONTRACTS)
def test_artifact_is_complete(name):
    artifact = ARTIFACTS[name]
    assert artifact["contractName"] == name
    assert artifact["compiler"].startswith(build.SOLC + "+commit.")
    assert artifact["settings"] == build.SETTINGS
    assert len(bytes.fromhex(artifact["deployedBytecode"][2:])) < 24_576  # EIP-170
    assert len(bytes.fromhex(artifact["bytecode"][2:])) < 49_152  # EIP-3860
    assert artifact["immutableReferences"]


@pytest.mark.parametrize("name", build.CONTRACTS)
def test_artifact_file_has_its_one_form(name):
    path = Path(build.__file__).parent / "artifacts" / f"{name}.json"
    assert path.read_text("utf-8") == build.render(ARTIFACTS[name])


def test_artifacts_are_of_these_sources():
    """A changed comment counts: the compiler's metadata, hence the bytecode, contains a hash of each source."""
    for artifact in ARTIFACTS.values():
        for name, expected in artifact["sources"].items():
            if name.startswith("src/"):
                text = (CONTRACTS / name).read_bytes()
                assert "0x" + build.keccak256(text).hex() == expected, f"{name}: run `flbc contracts build`"


def test_sources_hold_no_path_of_this_machine():
    for artifact in ARTIFACTS.values():
        assert str(CONTRACTS) not in json.dumps(artifact)
        assert all(not name.startswith(("/", ".")) for name in artifact["sources"])


def test_import_of_build_loads_no_compiler():
    code = "import sys, flbc.ledger.build; sys.exit('solcx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_versions_and_settings_agree():
    package = json.loads((CONTRACTS / "package.json").read_text())
    assert package["devDependencies"]["solc"] == build.SOLC
    assert all(re.fullmatch(r"[0-9.]+", version) for version in package["devDependencies"].values())  # exact
    foundry = (CONTRACTS / "foundry.toml").read_text()
    assert f'evm_version = "{build.SETTINGS["evmVersion"]}"' in foundry
    assert f"via_ir = true, optimizer = true, optimizer_runs = {build.SETTINGS['optimizer']['runs']}" in foundry


# Optional builds of Foundry for other platforms: in the lock for `npm ci` to accept it, by exact version; their hashes
# are not pinned, since the registry that this lock was made from serves the linux-amd64 ones alone.
UNHASHED = {
    f"node_modules/@foundry-rs/{tool}-{platform}"
    for tool in ("anvil", "forge")
    for platform in ("darwin-amd64", "darwin-arm64", "linux-arm64", "win32-amd64")
}


def test_lockfile_pins_hashes_and_names_no_registry():
    lock = json.loads((CONTRACTS / "package-lock.json").read_text())
    for name, package in lock["packages"].items():
        if name in UNHASHED:
            assert package["optional"] and re.fullmatch(r"[0-9.]+", package["version"]), name
        else:
            assert not name or "integrity" in package or package.get("inBundle"), name
        assert package.get("resolved", "https://registry.npmjs.org/").startswith("https://registry.npmjs.org/"), name


def test_vectors_of_the_forge_tests():
    assert (CONTRACTS / "test" / "Vectors.sol").read_text("utf-8") == vectors.render()


# --------------------------------------------------------------------------------------------------------- rebuilding
def test_rebuild_gives_the_same_bytes(compiled, monkeypatch):
    monkeypatch.setattr(build, "compile_contracts", lambda: compiled)
    assert compiled == ARTIFACTS
    build.check()


def test_check_names_what_differs(monkeypatch):
    changed = copy.deepcopy(ARTIFACTS)
    changed["TaskHub"]["abi"].pop()
    changed["TaskHub"]["sourceHash"] = "0x00"
    monkeypatch.setattr(build, "compile_contracts", lambda: changed)
    with pytest.raises(LedgerError, match=r"TaskHub is not that of its sources \(abi, sourceHash differ\)"):
        build.check()


def test_build_writes_the_files(monkeypatch, tmp_path):
    monkeypatch.setattr(build, "compile_contracts", lambda: ARTIFACTS)
    monkeypatch.setattr(build, "__file__", str(tmp_path / "build.py"))
    assert build.build() == ARTIFACTS
    for name, artifact in ARTIFACTS.items():
        assert json.loads((tmp_path / "artifacts" / f"{name}.json").read_text()) == artifact


def test_every_public_name_is_documented():
    """NatSpec: each function, event and error that a user meets has a @notice in the sources."""
    text = "\n".join(path.read_text("utf-8") for path in sorted((CONTRACTS / "src").glob("*.sol")))
    documented = set()
    for block, name in re.findall(
        r"((?:^[ \t]*///.*\n)+)[ \t]*(?:function|event|error|modifier|struct|enum|contract|library|interface|"
        r"abstract contract|(?:[\w\[\]() =>]+? public (?:constant|immutable)?))\s*(\w+)",
        text,
        re.MULTILINE,
    ):
        if "@notice" in block:
            documented.add(name)
    missing = {
        entry["name"]
        for artifact in ARTIFACTS.values()
        for entry in artifact["abi"]
        if entry["type"] in ("function", "event", "error") and not entry["name"].endswith("_TYPEHASH")
    }
    inherited = {"owner", "pendingOwner", "transferOwnership", "acceptOwnership", "renounceOwnership"}
    inherited |= {"OwnershipTransferred", "OwnershipTransferStarted", "OwnableInvalidOwner"}
    inherited |= {"OwnableUnauthorizedAccount", "ReentrancyGuardReentrantCall"}
    constants = {"HOSPITAL", "COMMITTEE", "AUTHORITY", "PUBLISHER"}  # one notice for the four
    assert missing - documented - inherited - constants == set()


# --------------------------------------------------------------------------------------------- finding the compiler
def test_unknown_contract():
    with pytest.raises(ConfigError, match="no contract 'Token': choose one of Registry, TaskHub"):
        build.artifact("Token")


def test_wheel_without_artifacts(monkeypatch, tmp_path):
    monkeypatch.setattr(build, "files", lambda package: tmp_path)
    with pytest.raises(ConfigError, match="artifact of TaskHub is missing"):
        build.artifact("TaskHub")


def test_installed_without_the_repository(monkeypatch, tmp_path):
    monkeypatch.setattr(build, "__file__", str(tmp_path / "lib" / "flbc" / "ledger" / "build.py"))
    with pytest.raises(ConfigError, match="not part of the installed package: clone the repository"):
        build.read_sources()


def test_without_libraries(monkeypatch, tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "Registry.sol").write_text('import {A} from "solady/A.sol";\n')
    monkeypatch.setattr(build, "repository", lambda: tmp_path)
    monkeypatch.setattr(build, "CONTRACTS", {"Registry": "src/Registry.sol"})
    with pytest.raises(DependencyError, match=r"solady/A.sol is missing: run `npm ci`"):
        build.read_sources()
    (tmp_path / "src" / "Registry.sol").write_text('import "./B.sol";\n')
    with pytest.raises(ConfigError, match=r"src/B.sol is imported"):
        build.read_sources()


def test_without_py_solc_x(monkeypatch):
    monkeypatch.setitem(sys.modules, "solcx", None)
    with pytest.raises(DependencyError, match="pip install py-solc-x"):
        build._solcx()


@pytest.fixture
def solcx(monkeypatch):
    module = pytest.importorskip("solcx")
    monkeypatch.delenv("FLBC_SOLC", raising=False)
    monkeypatch.setattr(module, "get_installed_solc_versions", list)
    return module


def test_compiler_of_the_environment(solcx, monkeypatch, tmp_path):
    program = tmp_path / "solc"
    monkeypatch.setenv("FLBC_SOLC", str(program))
    with pytest.raises(ConfigError, match="does not run as solc"):
        build._compiler(solcx)
    for version, error in (("0.8.24", "is solc 0.8.24, and the artifacts are made with"), (build.SOLC, None)):
        program.write_text(f"#!/bin/sh\necho 'Version: {version}+commit.0123abcd.Linux.g++'\n")
        program.chmod(0o755)
        if error:
            with pytest.raises(ConfigError, match=error):
                build._compiler(solcx)
        else:
            assert build._compiler(solcx) == program


def test_compiler_that_py_solc_x_installed(solcx, monkeypatch, tmp_path):
    monkeypatch.setattr(solcx, "get_installed_solc_versions", lambda: [build.SOLC])
    monkeypatch.setattr(solcx.install, "get_executable", lambda version: tmp_path / f"solc-v{version}")
    assert build._compiler(solcx) == tmp_path / f"solc-v{build.SOLC}"


def test_compiler_of_npm(solcx):
    need_node()
    assert build._compiler(solcx) == CONTRACTS / "tools" / "solc"


def test_no_compiler_at_all(solcx, monkeypatch, tmp_path):
    monkeypatch.setattr(build, "repository", lambda: tmp_path)
    with pytest.raises(DependencyError, match=r"There is no solc .* run `npm ci` in .* set FLBC_SOLC"):
        build._compiler(solcx)


def test_sources_that_do_not_compile(monkeypatch):
    need_node()
    pytest.importorskip("solcx")
    monkeypatch.delenv("FLBC_SOLC", raising=False)
    monkeypatch.setattr(build, "read_sources", lambda: {"src/TaskHub.sol": "contract TaskHub { nonsense }"})
    with pytest.raises(ConfigError, match=r"do not compile:\n(.|\n)*ParserError"):
        build.compile_contracts()


# ------------------------------------------------------------------------------------------- the wrapper around solc
def run_solc(*arguments, stdin=None):
    need_node()
    run = [str(CONTRACTS / "tools" / "solc"), *arguments]
    return subprocess.run(run, input=stdin, capture_output=True, text=True, check=False)


def test_wrapper_speaks_as_native_solc(tmp_path):
    assert re.fullmatch(
        rf"solc, the solidity compiler commandline interface\nVersion: {build.SOLC}\+commit.*\n",
        run_solc("--version").stdout,
    )
    source = tmp_path / "A.sol"
    source.write_text("// SPDX-License-Identifier: MIT\npragma solidity ^0.8.0;\ncontract A {}\n")
    answer = json.loads(run_solc("--combined-json", "abi,bin,hashes", "--optimize", str(source)).stdout)
    assert set(answer["contracts"][f"{source}:A"]) == {"abi", "bin", "hashes"}
    standard = {"language": "Solidity", "sources": {"A.sol": {"urls": [str(source)]}}}
    standard["settings"] = {"outputSelection": {"*": {"*": ["abi"]}}}
    answer = json.loads(run_solc("--standard-json", stdin=json.dumps(standard)).stdout)
    assert answer["contracts"]["A.sol"]["A"]["abi"] == []


def test_wrapper_refuses_what_it_does_not_know():
    refused = run_solc("--ast-compact")
    assert refused.returncode == 1
    assert refused.stderr.startswith("unrecognised option '--ast-compact'")


def test_wrapper_without_its_package(tmp_path):
    need_node()
    copied = tmp_path / "tools" / "solc"
    copied.parent.mkdir()
    copied.write_bytes((CONTRACTS / "tools" / "solc").read_bytes())
    copied.chmod(0o755)
    run = subprocess.run([str(copied), "--version"], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert 'run "npm ci" in contracts/' in run.stderr
    assert MODULES.is_dir()
