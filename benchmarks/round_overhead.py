"""What a round costs more: plain FedAvg, Flower's own differential privacy, and the four strategies.

Real ``flwr run``s in the simulation engine, one process and one Flower home for each strategy and number of clients.
Training takes no time, so a round is messages and cryptography. The model is a perceptron of about 10,000, 100,000 and
1,000,000 parameters: only ``Verified`` looks at it, with its default policy and 32 images for each verifier; the
others see arrays. Every strategy has its defaults: 16 bits, Paillier with 3072 bits, no ledger, no privacy, but for
Flower's wrapper, ``DifferentialPrivacyServerSideFixedClipping``. Every mean is checked.

Seconds are wall time, medians without the first round, in which nodes introduce themselves, and keys are made. Clients
share the cores of this machine with each other, the helpers and the server: what ten clients compute takes as long as
five do one after the other on two cores, and a deployment does not wait for that. *processor* are the seconds of all
processes together (on Linux), which hardly depend on what else the machine does; wall time does. *check* is verifying
replies, and with ``Verified`` the encrypted inference; *rest* is all else, decoding and averaging among it. Bytes are
those of one client; *beside* is what helpers and whoever opens get and send on top, over all of them; what verifiers
send each other is not in it, and stands below.

    python benchmarks/round_overhead.py --quick       # 10,000 parameters, 4 clients: about 3 minutes, no budget
    python benchmarks/round_overhead.py               # everything: tens of minutes on 2 cores
    python benchmarks/round_overhead.py --only masked nddfe --parameters 100000 --clients 10

The budgets, for 100,000 parameters and 10 clients: ``NddFe`` and ``Masked`` add at most 0.5 s, ``Paillier`` at most
6 s, and where local training takes 20 s a round becomes at most 1.3 times longer. One that is missed is printed with
both numbers, and gives exit status 1.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from rich import box
from rich.console import Console
from rich.table import Table

from flbc.demo.run import flower_home, report_status
from flbc.flower.node import HELPERS

APP = Path(__file__).parent / "_round_overhead"
PLAIN = "plain"
NAMES = {
    PLAIN: "FedAvg",
    "flower-dp": "Flower's DP wrapper",
    "masked": "Masked",
    "nddfe": "NddFe",
    "paillier": "Paillier",
    "verified": "Verified",
}
PARAMETERS, CLIENTS = (10_000, 100_000, 1_000_000), (4, 10)
ROUNDS, LARGE, ROUNDS_OF_LARGE = 5, 1_000_000, 3
#: Paillier opens a million values in half a minute; one round behind the first has to do.
SLOW = {("paillier", 100_000): 3, ("paillier", LARGE): 2, ("verified", LARGE): 2}
#: A run that takes longer hangs.
LIMIT_SECONDS = 900
#: Where the budgets hold: parameters and clients.
BUDGET_CASE = (100_000, 10)
MAX_ADDED = {"masked": 0.5, "nddfe": 0.5, "paillier": 6.0}
TRAINING_SECONDS, MAX_RATIO = 20.0, 1.3
#: Smallest number on the plot's axis: what one round differs from another.
FLOOR = 0.01
STAGES = ("train", "combine", "attest", "open")


@dataclass(frozen=True)
class Cost:
    """A strategy's rounds: seconds, those of its stages, and bytes of a client and of others.

    ``links`` is what the three verifiers send each other, together; ``load`` the load average at the end.
    """

    first: float
    seconds: float
    processor: float
    stages: Mapping[str, float]
    rest: float
    down: float
    up: float
    beside: float
    links: float
    load: float


#: Strategy, parameters, clients.
Case = tuple[str, int, int]


# ---------------------------------------------------------------------- runs
def rounds_of(strategy: str, parameters: int) -> int:
    return SLOW.get((strategy, parameters), ROUNDS_OF_LARGE if parameters == LARGE else ROUNDS)


def measure(strategy: str, parameters: Sequence[int], clients: int) -> dict[Case, Cost]:
    """Run one strategy in a process of its own; return nothing, and say why, if Flower did not complete it."""
    sizes = ",".join(f"{size}:{rounds_of(strategy, size)}" for size in parameters)
    nodes = f"num-supernodes={clients + len(HELPERS.get(strategy, ()))} client-resources-num-cpus=1"
    with tempfile.TemporaryDirectory(prefix="flbc-bench-") as folder:
        os.environ["FLBC_HOME"], result = folder, Path(folder) / "result.json"
        settings = f'strategy="{strategy}" sizes="{sizes}" clients={clients} result="{result}"'
        command = ["flwr", "run", str(APP), "--stream", "--federation-config", nodes, "-c", settings]
        with flower_home() as environment:
            try:
                done = subprocess.run(
                    command, env=environment, check=False, capture_output=True, text=True, timeout=LIMIT_SECONDS
                )
            except subprocess.TimeoutExpired:
                print(f"{NAMES[strategy]} took more than {LIMIT_SECONDS} s and was stopped", file=sys.stderr)
                return {}
            output = done.stdout + done.stderr
            if report_status(environment) or not result.exists():
                print("\n".join(output.splitlines()[-40:]), file=sys.stderr)
                return {}
        found = json.loads(result.read_text())
    sent = [3e6 * float(number) for number in re.findall(r"([0-9.]+) MB sent by each", output)]
    return {(strategy, int(size), clients): cost(rounds, sent) for size, rounds in found.items()}


def cost(rounds: Sequence[Mapping[str, float]], sent: Sequence[float]) -> Cost:
    """Return medians without the first round."""

    def middle(key: str) -> float:
        return median(entry.get(key, 0.0) for entry in rounds[1:])

    stages = {stage: middle(stage) for stage in STAGES}
    rest = median(entry["seconds"] - sum(entry.get(stage, 0.0) for stage in STAGES) for entry in rounds[1:])
    sizes = (middle(key) for key in ("down", "up", "beside"))
    links = median(sent) if sent else 0.0
    seconds = rounds[0]["seconds"], middle("seconds"), middle("processor")
    return Cost(*seconds, stages, rest, *sizes, links, os.getloadavg()[0])


def runs(
    strategies: Iterable[str], parameters: Sequence[int], clients: Iterable[int]
) -> list[tuple[str, list[int], int]]:
    """Return what each process measures: all sizes, but one where verifiers prepare a network for it."""
    return [
        (strategy, list(sizes), count)
        for count in clients
        for strategy in strategies
        for sizes in ([[size] for size in parameters] if strategy == "verified" else [parameters])
    ]


def read(path: str | None) -> dict[Case, Cost]:
    """Return what an earlier call measured and kept."""
    if path is None or not Path(path).exists():
        return {}
    entries = json.loads(Path(path).read_text())
    return {(strategy, size, clients): Cost(**values) for strategy, size, clients, values in entries}


def write(path: str | None, found: Mapping[Case, Cost]) -> None:
    if path is not None:
        Path(path).write_text(json.dumps([[*case, asdict(one)] for case, one in found.items()]))


# ---------------------------------------------------------------------- what is shown
def table(found: Mapping[Case, Cost], parameters: int, clients: int) -> Table:
    plain = found[PLAIN, parameters, clients]
    result = Table(title=f"{parameters:,} parameters, {clients} clients: seconds of a round, bytes", box=box.MARKDOWN)
    result.add_column("strategy")
    headings = ("round", "adds", "processor", "train", "combine", "check", "open", "rest", "first round",
                "client gets", "client sends", "beside")  # fmt: skip
    for heading in headings:
        result.add_column(heading, justify="right")
    for strategy, name in NAMES.items():
        if (one := found.get((strategy, parameters, clients))) is not None:
            adds = "–" if strategy == PLAIN else f"{round(one.seconds - plain.seconds, 2) + 0.0:.2f}"
            secure = strategy in HELPERS
            stages = [f"{one.stages[stage]:.2f}" if secure or stage == "train" else "–" for stage in STAGES]
            seconds = [
                f"{one.seconds:.2f}",
                adds,
                f"{one.processor:.2f}",
                *stages,
                f"{one.rest:.2f}",
                f"{one.first:.2f}",
            ]
            result.add_row(name, *seconds, *(f"{number:,.0f}" for number in (one.down, one.up, one.beside)))
    return result


def judge(found: Mapping[Case, Cost]) -> tuple[list[str], bool]:
    """Return a line for each budget that could be checked, and whether all are kept."""
    lines, kept = [], True
    plain = found.get((PLAIN, *BUDGET_CASE))
    for strategy, most in MAX_ADDED.items():
        one = found.get((strategy, *BUDGET_CASE))
        if one is None or plain is None:
            continue
        ratio = (TRAINING_SECONDS + one.seconds) / (TRAINING_SECONDS + plain.seconds)
        checks = (
            ("adds", one.seconds - plain.seconds, most, " s"),
            (f"beside {TRAINING_SECONDS:.0f} s of training a round is", ratio, MAX_RATIO, " times as long"),
        )
        for what, value, limit, unit in checks:
            good = value <= limit
            verdict = "budget kept" if good else f"budget missed by {value - limit:.2f}{unit}"
            lines.append(f"{verdict}: {NAMES[strategy]} {what} {value:.2f}{unit}, at most {limit:g}{unit}")
            kept = kept and good
    return lines, kept


COLORS = {"flower-dp": "#999999", "masked": "#0b6e4f", "nddfe": "#3a7ca5", "paillier": "#c8553d", "verified": "#8a5fa8"}


def plot(found: Mapping[Case, Cost], path: str) -> None:
    """Draw added seconds by parameters, a panel for each number of clients."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    counts = sorted({clients for _, _, clients in found})
    fig, axes = plt.subplots(1, len(counts), figsize=(4.8 * len(counts), 4.4), sharey=True, squeeze=False,
                             layout="constrained")  # fmt: skip
    for axis, clients in zip(axes[0], counts, strict=True):
        plain = {size: one.seconds for (name, size, of), one in found.items() if name == PLAIN and of == clients}
        axis.plot(list(plain), list(plain.values()), ":", color="#222222", label="a round of FedAvg, for comparison")
        for strategy, color in COLORS.items():
            added = {size: max(found[strategy, size, clients].seconds - seconds, FLOOR)
                     for size, seconds in plain.items() if (strategy, size, clients) in found}  # fmt: skip
            axis.plot(list(added), list(added.values()), "o-", color=color, label=NAMES[strategy], markersize=5)
        axis.set(xscale="log", yscale="log", title=f"{clients} clients", xlabel="parameters")
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#eeeeee")
    axes[0][0].set_ylabel(f"seconds a round takes longer (at least {FLOOR:g})")
    fig.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    fig.savefig(path, dpi=150)
    plt.close(fig)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="10,000 parameters and 4 clients; no budget")
    parser.add_argument("--only", nargs="+", choices=[*NAMES][1:], default=[*NAMES][1:], help="besides plain FedAvg")
    parser.add_argument("--parameters", nargs="+", type=int, choices=PARAMETERS, default=PARAMETERS)
    parser.add_argument("--clients", nargs="+", type=int, default=CLIENTS)
    parser.add_argument("--record", metavar="PATH", help="keep measurements in this file, and do not repeat them")
    parser.add_argument("--plot", metavar="PATH", help="draw the result into this PNG")
    options = parser.parse_args(arguments)
    if min(options.clients) < 3:
        parser.error("--clients must be at least 3: nobody opens a sum of fewer")
    sizes, counts = ((PARAMETERS[0],), (4,)) if options.quick else (sorted(options.parameters), options.clients)
    start, found = time.perf_counter(), read(options.record)
    for strategy, run, clients in runs([PLAIN, *options.only], sizes, counts):
        run = [size for size in run if (strategy, size, clients) not in found]
        if not run:
            continue
        begin, measured = time.perf_counter(), measure(strategy, run, clients)
        if not measured:
            return 1
        found |= measured
        write(options.record, found)
        print(f"{NAMES[strategy]}, {clients} clients, {len(run)} sizes: {time.perf_counter() - begin:.0f} s, "
              f"load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)  # fmt: skip
    console = Console(width=200)
    found = {case: one for case, one in found.items() if case[1] in sizes and case[2] in counts}
    for clients in counts:
        for size in sizes:
            console.print(table(found, size, clients))
            if (checked := found.get(("verified", size, clients))) is not None:
                console.print(f"The three verifiers send each other {checked.links / 1e6:,.0f} MB a round.")
    loads, processors = [one.load for one in found.values()], os.cpu_count()
    print(f"\n{processors} processors, load average {min(loads):.1f} to {max(loads):.1f} at the end of the runs; much "
          f"above {processors} something else was running, and wall time is too long. "
          f"Took {time.perf_counter() - start:.0f} s.")  # fmt: skip
    if options.plot:
        plot(found, options.plot)
        print(f"Plot: {options.plot}")
    lines, kept = judge(found)
    print("\n".join(lines))
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
