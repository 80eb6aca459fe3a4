"""Seconds of a whole round: Masked and plain FedAvg (Message API), Flower's own SecAgg+ and FedAvg (legacy API).

Real ``flwr run``s in the simulation engine with a Flower home of their own. Training takes no time, so a round is
messages and cryptography: Masked makes two trips to every client, SecAgg+ four, a plain round one.

    python benchmarks/masked_rounds.py
    python benchmarks/masked_rounds.py --clients 30
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from flbc.demo.run import flower_home, report_status
from flbc.schemes.masking_graph import degree, threshold

APPS = {"Message API": "_masked_rounds", "legacy API": "_legacy_secagg"}
NAMES = {"Message API": "Masked", "legacy API": "SecAgg+"}


def seconds(app: str, settings: str, clients: int, environment: Mapping[str, str]) -> list[float]:
    """Run an app once; return the seconds of its rounds, none if it failed."""
    nodes = f"num-supernodes={clients} client-resources-num-cpus=1"
    folder = str(Path(__file__).parent / app)
    command = ["flwr", "run", folder, "--stream", "--federation-config", nodes, "-c", settings]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    if report_status(environment):
        print("\n".join((done.stdout + done.stderr).splitlines()[-40:]), file=sys.stderr)
        return []
    return [float(number) for number in re.findall(r"seconds of round \d+: ([0-9.]+)", done.stdout + done.stderr)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--parameters", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error("--rounds must be at least 2: the first one starts the engine and does not count")
    group = degree(options.clients) + 1
    common = f"clients={options.clients} parameters={options.parameters} num-server-rounds={options.rounds}"
    sharing = f" shares={group} threshold={threshold(group)}"
    print(f"{options.clients} clients, {options.parameters:,} parameters, {os.cpu_count()} processors, medians without "
          "the first round:")  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="flbc-bench-") as home:
        os.environ["FLBC_HOME"] = home
        for api, app in APPS.items():
            found = {}
            for secure in ("false", "true"):
                settings = f"secure={secure} {common}" + (sharing if api == "legacy API" else "")
                with flower_home() as environment:
                    rounds = seconds(app, settings, options.clients, environment)
                if len(rounds) != options.rounds:
                    print(f"Only {len(rounds)} of {options.rounds} rounds were completed", file=sys.stderr)
                    return 1
                found[secure] = median(rounds[1:])
            print(f"{api}: plain {found['false']:.2f} s, {NAMES[api]} {found['true']:.2f} s a round: "
                  f"{found['true'] - found['false']:.2f} s more", flush=True)  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
