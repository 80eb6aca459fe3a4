"""What every step costs in gas, beside designs in which each client sends a transaction.

Everything is measured on the embedded chain with real signatures and VRF proofs (see tests/support/gas.py, also for the
contract that the other designs run). Exit status 1 if a budget is missed or contracts/gas.json is out of date.

    python benchmarks/gas.py            # compare with contracts/gas.json
    python benchmarks/gas.py --write    # and write it anew
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich import box
from rich.console import Console
from rich.table import Table

from flbc.ledger.chain import connect
from tests.support.gas import BUDGETS, GAS_FILE, TOLERANCE, measure


def table(found: dict[str, int], expected: dict[str, int]) -> Table:
    shown = Table(box=box.MARKDOWN, title="gas", title_justify="left")
    for name in ("step", "gas", "budget", "contracts/gas.json"):
        shown.add_column(name, justify="left" if name == "step" else "right")
    for name, gas in found.items():
        before = expected.get(name)
        change = "new" if before is None else f"{(gas - before) / before:+.1%}"
        budget = f"{BUDGETS[name]:,}" if name in BUDGETS else ""
        shown.add_row(name, f"{gas:,}", budget, change)
    return shown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write contracts/gas.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FLBC_HOME"] = folder
        with connect(f"embedded:{folder}/chain.sqlite") as chain:
            found = measure(chain, Path(folder))
    expected = json.loads(GAS_FILE.read_text()) if GAS_FILE.exists() else {}
    Console(width=110).print(table(found, expected))
    if options.write:
        GAS_FILE.write_text(json.dumps(found, indent=1) + "\n")
        expected = found
    missed = [name for name, budget in BUDGETS.items() if found[name] > budget]
    for name in missed:
        print(f"{name}: {found[name]:,} gas is more than the budget of {BUDGETS[name]:,}")
    late = found.keys() != expected.keys() or any(
        abs(found[name] - gas) > TOLERANCE * gas for name, gas in expected.items()
    )
    if late:
        print("contracts/gas.json is out of date: run `python benchmarks/gas.py --write`, and say why in the commit")
    return 1 if missed or late else 0


if __name__ == "__main__":
    sys.exit(main())
