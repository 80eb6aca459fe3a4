"""Seconds of a whole round of Flower's own SecAgg+, beside a round of the same app without it.

A real ``flwr run`` in the simulation engine with a Flower home of its own. Training takes no time, so a round is
messages and cryptography: SecAgg+ makes four trips to every client, a plain round one.

    python benchmarks/_legacy_secagg/rounds.py
    python benchmarks/_legacy_secagg/rounds.py --clients 30 --shares 21 --threshold 15
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from flbc.demo.run import flower_home, report_status


def seconds(settings: str, clients: int, environment: Mapping[str, str]) -> list[float]:
    """Run the app once; return the seconds of its rounds, none if it failed."""
    nodes = f"num-supernodes={clients} client-resources-num-cpus=1"
    command = ["flwr", "run", str(Path(__file__).parent), "--stream", "--federation-config", nodes, "-c", settings]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    if report_status(environment):
        print("\n".join((done.stdout + done.stderr).splitlines()[-40:]), file=sys.stderr)
        return []
    return [float(number) for number in re.findall(r"seconds of round \d+: ([0-9.]+)", done.stdout + done.stderr)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--shares", type=int, default=10, help="size of a client's group, itself included")
    parser.add_argument("--threshold", type=int, default=7)
    parser.add_argument("--parameters", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error("--rounds must be at least 2: the first one starts the engine and does not count")
    fixed = (
        f"clients={options.clients} shares={options.shares} threshold={options.threshold} "
        f"parameters={options.parameters} num-server-rounds={options.rounds}"
    )
    found = {}
    with flower_home() as environment:
        for secure in ("false", "true"):
            rounds = seconds(f"secure={secure} {fixed}", options.clients, environment)
            if len(rounds) != options.rounds:
                print(f"Only {len(rounds)} of {options.rounds} rounds were completed", file=sys.stderr)
                return 1
            found[secure] = median(rounds[1:])
    print(
        f"{options.clients} clients, {options.parameters:,} parameters, {os.cpu_count()} processors, medians without "
        f"the first round:\nplain {found['false']:.2f} s, SecAgg+ {found['true']:.2f} s a round: "
        f"{found['true'] - found['false']:.2f} s more"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
