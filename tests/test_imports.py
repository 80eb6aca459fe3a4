import ast
import subprocess
import sys
from pathlib import Path

import pytest

import flbc

ROOT = Path(flbc.__file__).parent
HEAVY = {"torch", "opacus", "scipy", "web3", "matplotlib", "pandas", "ray"}


def loaded_by(code: str) -> set[str]:
    """Top-level packages that a fresh interpreter has loaded after running ``code``."""
    code += "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules})"
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


# Mods run in a new process per message in deployment.
def test_client_mod_loads_nothing_heavy():
    loaded = loaded_by("import flbc\nfrom flbc import SecureMod\nfrom flbc.flower.mod import SecureMod as Same")
    assert "flwr" in loaded
    assert not loaded & HEAVY


def test_strategy_loads_nothing_heavy():
    loaded = loaded_by("from flbc import Paillier")
    assert "flwr" in loaded
    assert not loaded & {"torch", "opacus", "web3"}


def test_import_flbc_does_not_load_flower():
    loaded = loaded_by("import flbc")
    assert "numpy" in loaded
    assert not loaded & (HEAVY | {"flwr", "grpc"})


def test_command_line_does_not_load_flower():
    loaded = loaded_by("import flbc.cli")
    assert "typer" in loaded
    assert not loaded & (HEAVY | {"flwr"})


# ---------------------------------------------------------------------- who may import what
def imports_of(path: Path) -> set[str]:
    """Absolute names of all modules that a file imports, anywhere in it."""
    package = ["flbc", *path.relative_to(ROOT).parent.parts]
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *(node.module.split(".") if node.module else [])])
            names.update(f"{module}.{alias.name}" for alias in node.names)
    return names


IMPORTS = {path.relative_to(ROOT).as_posix(): imports_of(path) for path in sorted(ROOT.rglob("*.py"))}


def importers(prefix: str) -> set[str]:
    return {file for file, names in IMPORTS.items() if any((name + ".").startswith(prefix + ".") for name in names)}


def test_walk_sees_relative_and_absolute_imports():
    assert {"flwr.app.Context", "flbc.node.ticket.admit"} <= IMPORTS["flower/mod.py"]
    assert "flbc.crypto.signing.keccak256" in IMPORTS["codec/layout.py"]
    assert len(IMPORTS) > 40


def test_only_the_flower_room_imports_flower():
    assert {file.split("/")[0] for file in importers("flwr")} == {"flower"}


def test_only_the_ledger_imports_web3():
    for package in ("web3", "eth_account", "eth_tester"):
        assert all(file.startswith("ledger/") for file in importers(package)), package


def test_nodes_use_the_ledgers_pure_files_only():
    files = [names for file, names in IMPORTS.items() if file.startswith("node/")]
    used = {".".join(name.split(".")[:3]) for names in files for name in names if name.startswith("flbc.ledger")}
    assert used == {"flbc.ledger.packing", "flbc.ledger.payouts"}


def test_only_interop_imports_phe():
    assert importers("phe") == {"crypto/phe_interop.py"}


def test_nothing_but_apps_imports_the_flower_room():
    outside = {file for file in importers("flbc.flower") if not file.startswith("flower/")}
    assert outside <= {"__init__.py", "cli.py"}


@pytest.mark.parametrize(
    ("room", "allowed"),
    [
        ("crypto", {"crypto", "errors"}),
        ("codec", {"codec", "crypto", "encoding", "errors"}),
        ("privacy", {"privacy", "errors"}),
        ("schemes", {"schemes", "crypto", "errors"}),
        ("verification", {"verification", "crypto", "errors"}),
        # Of the ledger only the packed forms and the payout rule, which load no web3.
        (
            "node",
            {
                "node",
                "cards",
                "codec",
                "crypto",
                "election",
                "encoding",
                "errors",
                "ledger",
                "privacy",
                "roster",
                "round",
                "schemes",
                "task",
                "tokens",
                "verification",
            },
        ),
        (
            "ledger",
            {
                "ledger",
                "crypto",
                "election",
                "encoding",
                "errors",
                "node",
                "privacy",
                "roster",
                "round",
                "task",
                "tokens",
            },
        ),
    ],
)
def test_arrows_go_one_way(room, allowed):
    files = [file for file in IMPORTS if file.startswith(f"{room}/")]
    assert files
    for file in files:
        used = {name.split(".")[1] for name in IMPORTS[file] if name.startswith("flbc.")}
        assert used <= allowed, file


def test_only_checking_models_loads_torch():
    """What verifiers do in a second message, and everything clients do, works without."""
    loaded = loaded_by("import flbc.flower.panel, flbc.node.checked, flbc.node.verified, flbc.node.model_plan")
    assert not loaded & HEAVY
