"""Where the tools of the contracts are, and why a test that needs one is skipped."""

import os
import shutil
from pathlib import Path

import pytest

CONTRACTS = Path(__file__).resolve().parents[2] / "contracts"
MODULES = CONTRACTS / "node_modules"
SOLC = CONTRACTS / "tools" / "solc"


def need_node() -> None:
    """Skip without node and the packages of contracts/package.json."""
    if not shutil.which("node"):
        pytest.skip("node is not installed: the contracts' own tests need Node.js 18 or newer")
    if not (MODULES / "solc").is_dir():
        pytest.skip("contracts/node_modules is missing: run `npm ci` in contracts/")


def slither() -> str:
    """Path of slither: FLBC_SLITHER, contracts/.slither (`make tools`), or PATH."""
    own = CONTRACTS / ".slither" / "bin" / "slither"
    found = os.environ.get("FLBC_SLITHER") or (str(own) if own.is_file() else shutil.which("slither"))
    if not found:
        pytest.skip("slither is not installed: run `make tools`, or set FLBC_SLITHER")
    return found
