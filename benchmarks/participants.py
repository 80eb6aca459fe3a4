"""Seconds and gas of each round of a real ``flwr run`` with many participants and the embedded ledger.

Flower's simulation engine trains the digits network (26,874 parameters) on every node; one round is training, block,
function key (NddFe), opening, record and evaluation.

    python benchmarks/participants.py                      # NddFe, 100 participants: some minutes
    python benchmarks/participants.py --participants 10 --strategy paillier
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from flbc.crypto.signing import keccak256
from flbc.demo.run import flower_home, report_status
from flbc.flower.node import HELPERS
from flbc.ledger import deployment
from flbc.ledger.chain import connect
from flbc.ledger.hub import Hub
from flbc.ledger.publishing import event_signature


def run(strategy: str, participants: int, rounds: int) -> int:
    """Run a strategy's app on the digits with the embedded ledger; return 0 if Flower completed it."""
    app = Path(__file__).resolve().parents[1] / "strategies" / strategy
    settings = (
        'dataset="digits" privacy-unit="none" learning-rate=0.05 batch-size=32 local-epochs=1 compare=false '
        f"num-server-rounds={rounds} min-survivors={max(3, participants // 2)} stage-timeout=600.0 ledger.accuracy=0.0"
    )
    nodes = f"num-supernodes={participants + len(HELPERS[strategy])} client-resources-num-cpus=1"
    command = ["flwr", "run", str(app), "--stream", "--federation-config", nodes, "-c", settings]
    with tempfile.TemporaryDirectory(prefix="flbc-bench-") as folder:
        os.environ["FLBC_HOME"] = folder
        with flower_home() as environment:
            pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
            with subprocess.Popen(command, env=environment, **pipe) as process:
                begun, lines = [], []
                for line in process.stdout or ():
                    lines.append(line.rstrip())
                    if re.search(r"\[ROUND \d+/\d+\]", line):
                        begun.append(time.monotonic())
                    if "flbc:" in line:
                        print(line.rstrip(), flush=True)
                ended = time.monotonic()
            if report_status(environment):
                print("\n".join(lines[-30:]), file=sys.stderr)
                return 1
        with connect("embedded") as chain:
            hub = Hub(chain, deployment.find(chain))
            topic = "0x" + keccak256(event_signature(hub.contract.events.RoundRecorded().abi)).hex()
            sent = [entry["transactionHash"] for entry in chain.logs(hub.address, [topic])]
            gas = [chain.w3.eth.get_transaction_receipt(hash_)["gasUsed"] for hash_ in sent]
    if not len(begun) == len(gas) == rounds:
        print(f"Only {len(gas)} of {rounds} rounds were recorded; the log above says why", file=sys.stderr)
        return 1
    votes = [int(number) for number in re.findall(r"signed by (\d+) of the committee", "\n".join(lines))]
    seconds = [after - before for before, after in zip(begun, [*begun[1:], ended], strict=True)]
    print(f"\n{strategy}: {participants} participants and a helper, {rounds} rounds, {os.cpu_count()} processors:")
    for number, (took, used, signed) in enumerate(zip(seconds, gas, votes, strict=True), 1):
        last = " (settling and shutting down included)" if number == rounds else ""
        print(f"round {number}: {took:.1f} s{last}, {used:,} gas with {signed} votes")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--strategy", choices=sorted(HELPERS), default="nddfe")
    parser.add_argument("--participants", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    return run(options.strategy, options.participants, options.rounds)


if __name__ == "__main__":
    sys.exit(main())
