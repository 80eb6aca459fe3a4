"""Compile the contracts, and tell whether the artifacts that flbc ships are those of the sources.

Users never compile: ABI and bytecode of the contracts are in the package (:func:`artifact`). :func:`build` makes them
anew from ``contracts/`` of the repository, with solc :data:`SOLC` from wherever there is one:

1. the program that ``FLBC_SOLC`` names;
2. one that py-solc-x has installed (``solcx.install_solc``);
3. ``contracts/tools/solc``: npm's compiler, after ``npm ci`` in ``contracts/`` (needs node, no native compiler).

All give the same bytes. The compiler is handed the text of every source, imported ones included, and reads no files, so
nothing of the machine enters the result.
"""

from __future__ import annotations

import importlib
import json
import os
import posixpath
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..crypto.signing import keccak256
from ..errors import ConfigError, DependencyError, LedgerError

#: Version of the compiler, as in contracts/package.json.
SOLC = "0.8.37"
#: Contracts that are deployed, and the files they are in.
CONTRACTS = {"Registry": "src/Registry.sol", "TaskHub": "src/TaskHub.sol"}
#: As in contracts/foundry.toml. Paris: Ganache stops at Shanghai; via-IR: the hub's functions need more stack.
SETTINGS: Mapping[str, Any] = {
    "evmVersion": "paris",
    "viaIR": True,
    "optimizer": {"enabled": True, "runs": 1000},
}
#: Import prefixes of the libraries and their folders in node_modules.
LIBRARIES = {"@openzeppelin/contracts/": "@openzeppelin/contracts/", "solady/": "solady/src/"}

_IMPORT = re.compile(r'^\s*import\s+(?:[^;"]*?\sfrom\s+)?"([^"]+)"\s*;', re.MULTILINE)


def artifact(name: str) -> dict[str, Any]:
    """Return the artifact of a contract as it is shipped.

    Parameters
    ----------
    name : {"Registry", "TaskHub"}

    Returns
    -------
    dict
        ``contractName``, ``sourceName``, ``abi``, ``bytecode`` and ``deployedBytecode`` (hexadecimal with 0x),
        ``immutableReferences`` (start and length of the bytes in ``deployedBytecode`` that the constructor fills in),
        ``compiler``, ``settings``, ``sources`` (keccak-256 of each file) and ``sourceHash`` (of them all).

    Raises
    ------
    ConfigError
        For another name, or if the package was built without artifacts.
    """
    if name not in CONTRACTS:
        raise ConfigError(f"There is no contract {name!r}: choose one of {', '.join(CONTRACTS)}")
    try:
        text = (files("flbc.ledger") / "artifacts" / f"{name}.json").read_text("utf-8")
    except FileNotFoundError:
        raise ConfigError(f"The artifact of {name} is missing: run `flbc contracts build` in the repository") from None
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def build() -> dict[str, dict[str, Any]]:
    """Compile the contracts and write ``flbc/ledger/artifacts/*.json``.

    Returns
    -------
    dict
        Name to artifact, see :func:`artifact`.

    Raises
    ------
    ConfigError
        Outside a repository, if ``FLBC_SOLC`` is no solc of the right version, or if the sources do not compile.
    DependencyError
        Without py-solc-x, without a compiler, or without the imported libraries.
    """
    made = compile_contracts()
    folder = Path(__file__).parent / "artifacts"
    folder.mkdir(exist_ok=True)
    for name, content in made.items():
        (folder / f"{name}.json").write_text(render(content), "utf-8")
    return made


def check() -> None:
    """Raise :class:`~flbc.errors.LedgerError` unless a rebuild gives exactly the artifacts that are shipped."""
    for name, content in compile_contracts().items():
        shipped = artifact(name)
        different = sorted(key for key in content.keys() | shipped.keys() if content.get(key) != shipped.get(key))
        if different:
            raise LedgerError(
                f"The artifact of {name} is not that of its sources ({', '.join(different)} differ): run "
                "`flbc contracts build` and commit the result"
            )


def compile_contracts() -> dict[str, dict[str, Any]]:
    """Compile, and return the artifacts without writing them; errors as for :func:`build`."""
    sources = read_sources()
    outputs = ["abi", "metadata", "evm.bytecode.object", "evm.deployedBytecode"]
    request = {
        "language": "Solidity",
        "sources": {name: {"content": text} for name, text in sources.items()},
        "settings": {**SETTINGS, "outputSelection": {name: {"*": outputs} for name in CONTRACTS.values()}},
    }
    solcx = _solcx()
    try:
        answer = solcx.compile_standard(request, solc_binary=_compiler(solcx))
    except solcx.exceptions.SolcError as error:
        raise ConfigError(f"The contracts do not compile:\n{error.message}") from None
    return {name: _artifact(name, answer["contracts"][file][name], sources) for name, file in CONTRACTS.items()}


def read_sources() -> dict[str, str]:
    """Return the text of all sources that the contracts need, own and imported, by the name they are imported by."""
    root = repository()
    found: dict[str, str] = {}
    waiting = list(CONTRACTS.values())
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found[name] = _read(root, name)
        for target in _IMPORT.findall(found[name]):
            relative = target.startswith(".")
            waiting.append(posixpath.normpath(posixpath.join(posixpath.dirname(name), target)) if relative else target)
    return dict(sorted(found.items()))


def repository() -> Path:
    """Return ``contracts/`` of the repository that this file is in; :class:`ConfigError` if it is installed without."""
    root = Path(__file__).resolve().parents[2] / "contracts"
    if not (root / "foundry.toml").is_file():
        raise ConfigError(
            "The sources of the contracts are not part of the installed package: clone the repository, install it with "
            "`pip install -e .` and run this again there"
        )
    return root


def render(content: Mapping[str, Any]) -> str:
    """Return the text of an artifact file: the same bytes for the same content."""
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def _read(root: Path, name: str) -> str:
    for prefix, folder in LIBRARIES.items():
        if name.startswith(prefix):
            path = root / "node_modules" / folder / name.removeprefix(prefix)
            if not path.is_file():
                raise DependencyError(f"{name} is missing: run `npm ci` in {root}")
            return path.read_text("utf-8")
    path = root / name
    if not path.is_file():
        raise ConfigError(f"{name} is imported, and neither in {root} nor in a library that build.py knows")
    return path.read_text("utf-8")


def _solcx() -> Any:
    try:
        return importlib.import_module("solcx")
    except ImportError:
        raise DependencyError("Building the contracts needs py-solc-x: run `pip install py-solc-x`") from None


def _compiler(solcx: Any) -> Path:
    """Find a solc of the right version; see the module's docstring for the order."""
    chosen = os.environ.get("FLBC_SOLC")
    if chosen:
        return _checked(solcx, Path(chosen))
    if SOLC in {str(version) for version in solcx.get_installed_solc_versions()}:
        return Path(solcx.install.get_executable(SOLC))
    wrapper = repository() / "tools" / "solc"
    if (repository() / "node_modules" / "solc").is_dir():
        return _checked(solcx, wrapper)
    raise DependencyError(
        f"There is no solc {SOLC}: run `npm ci` in {repository()}, set FLBC_SOLC to the program, or install one by "
        f"`python -c 'import solcx; solcx.install_solc(\"{SOLC}\")'`"
    )


def _checked(solcx: Any, program: Path) -> Path:
    try:
        version = str(solcx.wrapper.get_solc_version(program))
    except Exception as error:  # not executable, no output, anything that is not solc
        raise ConfigError(
            f"{program} does not run as solc ({error}): check FLBC_SOLC, and that node is installed"
        ) from None
    if version != SOLC:
        raise ConfigError(
            f"{program} is solc {version}, and the artifacts are made with {SOLC}: point FLBC_SOLC to that"
        )
    return program


def _artifact(name: str, output: Mapping[str, Any], sources: Mapping[str, str]) -> dict[str, Any]:
    metadata = json.loads(output["metadata"])
    used = sorted(metadata["sources"])
    hashes = {source: "0x" + keccak256(sources[source].encode()).hex() for source in used}
    runtime = output["evm"]["deployedBytecode"]
    places = [place for group in runtime.get("immutableReferences", {}).values() for place in group]
    return {
        "abi": output["abi"],
        "bytecode": "0x" + output["evm"]["bytecode"]["object"],
        "compiler": metadata["compiler"]["version"],
        "contractName": name,
        "deployedBytecode": "0x" + runtime["object"],
        "immutableReferences": sorted([place["start"], place["length"]] for place in places),
        "settings": dict(SETTINGS),
        "sourceHash": "0x" + keccak256("".join(f"{source} {hashes[source]}\n" for source in used).encode()).hex(),
        "sourceName": CONTRACTS[name],
        "sources": hashes,
    }
