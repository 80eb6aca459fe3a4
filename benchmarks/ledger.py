"""Seconds per recorded round, and per audit, on the three chains.

A consortium with real keys records rounds on the embedded chain, on Anvil and on Ganache (skipped, and said so, where
node is not installed). A round is one transaction: submissions of everybody, leader with VRF proof, four votes of five
members, the opening of the round before. Signing is not in the times. Prints a markdown table.

    python benchmarks/ledger.py
    python benchmarks/ledger.py --participants 4 10 --rounds 5
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flbc.errors import FlbcError
from flbc.ledger import nodes
from flbc.ledger.audit import audit
from flbc.ledger.chain import Chain, connect
from flbc.ledger.history import read_task
from tests.support.ledger import Consortium, Setting, deploy_contracts


def measure(chain: Chain, folder: Path, participants: int, rounds: int) -> tuple[float, float, float, float]:
    """Return seconds: start of the task, one round (median), settlement, audit (reading and verifying)."""
    setting = Setting(hospitals=participants, members=5, overlap=0, rounds=rounds, private=True)
    c = Consortium(chain, deploy_contracts(chain, folder), setting, salt=f"{participants}")
    begin = time.perf_counter()
    c.begin()
    started, seconds = time.perf_counter() - begin, []
    for number in range(1, rounds + 1):
        record = c.make_round(number)
        begin = time.perf_counter()
        c.record(record)
        seconds.append(time.perf_counter() - begin)
    settlement = c.make_settlement()
    begin = time.perf_counter()
    c.settle(settlement)
    settled = time.perf_counter() - begin
    begin = time.perf_counter()
    report = audit(read_task(chain, c.deployment, c.task))
    audited = time.perf_counter() - begin
    if report.doubts:
        raise SystemExit(f"the audit has doubts: {report.doubts}")
    return started, statistics.median(seconds), settled, audited


def main() -> int:
    """Print the table; exit status 0 if every chain that is installed was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--participants", type=int, nargs="+", default=[4, 10, 100])
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    print("| chain | participants | register, publish, start (s) | one round (s) | settle (s) | audit (s) |")
    print("|---|---|---|---|---|---|")
    for kind in ("embedded", "anvil", "ganache"):
        for participants in options.participants:
            with tempfile.TemporaryDirectory() as folder:
                os.environ["FLBC_HOME"] = folder
                node = None
                try:
                    url = "embedded"
                    if kind != "embedded":
                        node = nodes.start(kind, 0, log=Path(folder) / "node.log")
                        url = node.url
                except FlbcError as error:
                    print(f"{kind}: skipped: {error}", file=sys.stderr)
                    break
                try:
                    with connect(url) as chain:
                        found = measure(chain, Path(folder), participants, options.rounds)
                finally:
                    if node is not None:
                        node.stop()
            numbers = " | ".join(f"{value:.3f}" if value < 1 else f"{value:.2f}" for value in found)
            print(f"| {kind} | {participants} | {numbers} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
