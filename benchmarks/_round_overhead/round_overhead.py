"""Any strategy as a Flower app around an update that takes no time; the server writes what a round cost.

The model is a multilayer perceptron, because the checks of ``Verified`` need a network; the others see arrays only.
Every round the mean is compared with what it must be, except under the noise of ``flower-dp``.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg, Strategy

from flbc import Masked, NddFe, Paillier, SecureMod, Verified

if TYPE_CHECKING:
    from torch import nn

#: Inputs and hidden units of a perceptron with ten classes that has about so many parameters.
SHAPES = {10_000: (64, 132), 100_000: (784, 126), 1_000_000: (3072, 324)}
CLASSES = 10
#: Validation images of each of the three verifiers.
SAMPLES = 32
STEP = 0.001
#: Rounding to 16 bits, first in a range of ±1, then in one that follows the updates.
TOLERANCE = 1e-4
SECURE = {"nddfe": NddFe, "masked": Masked, "paillier": Paillier, "verified": Verified}
#: Stages that flbc reports; without it a round is the train trip and the rest.
STAGES = ("train", "combine", "attest", "open")


# ---------------------------------------------------------------------- clients
def network(inputs: int, hidden: int) -> nn.Module:
    """Return the perceptron, for the verifiers."""
    from torch import nn

    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, CLASSES))


def validation(context: Context) -> tuple[Any, Any]:
    """Return noise with classes: what the images show does not change what checking them costs."""
    rng = np.random.default_rng(int(context.node_config["partition-id"]))
    inputs, _ = shape_of(context)
    return rng.random((SAMPLES, inputs), np.float32), rng.integers(0, CLASSES, SAMPLES)


def shape_of(context: Context) -> tuple[int, int]:
    """Return the perceptron that verifiers prepare for: that of the run's first size, so they get one size a run."""
    return SHAPES[next(iter(sizes(str(context.run_config["sizes"]))))]


def secure_if_asked(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Run the mod, or the app alone."""
    if context.run_config["strategy"] not in SECURE:
        return call_next(message, context)
    model = partial(network, *shape_of(context))
    return SecureMod(model=model, validation=validation)(message, context, call_next)


client_app = ClientApp(mods=[secure_if_asked])


@client_app.train()
def train(message: Message, context: Context) -> Message:
    """Add a constant to every parameter."""
    step = np.float32(change(int(context.node_config["partition-id"])))
    arrays = ArrayRecord({name: Array(array.numpy() + step) for name, array in message.content["arrays"].items()})
    return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 100})}), reply_to=message)


def change(client: int) -> float:
    """Return what a client adds: all about the same, so that ``Verified`` refuses nobody."""
    return STEP * (1 + client / 10)


# ---------------------------------------------------------------------- server
class Traffic:
    """Counts the bytes of records that pass a Grid, by node, and notes when the first left and the last came."""

    def __init__(self, grid: Grid) -> None:
        self.down: dict[int, int] = {}
        self.up: dict[int, int] = {}
        self.begin = self.end = 0.0
        self._push, self._pull = grid.push_messages, grid.pull_messages
        grid.push_messages, grid.pull_messages = self.push, self.pull  # type: ignore[method-assign]

    def clear(self) -> None:
        """Begin a new round."""
        self.down, self.up, self.begin = {}, {}, 0.0

    def push(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send, as the Grid does."""
        messages = list(messages)
        self.begin = self.begin or time.monotonic()
        for message in messages:
            node = message.metadata.dst_node_id
            self.down[node] = self.down.get(node, 0) + size(message.content)
        return self._push(messages)

    def pull(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Receive, as the Grid does."""
        messages = list(self._pull(message_ids))
        for message in messages:
            self.end, node = time.monotonic(), message.metadata.src_node_id
            self.up[node] = self.up.get(node, 0) + (size(message.content) if message.has_content() else 0)
        return messages

    def shares(self, clients: int) -> dict[str, float]:
        """Return the bytes of one client, and those of helpers and of who opens beside.

        Training nodes all get and send about the same, but for one that opens, so the median node is a client.
        """
        down, up = median(self.down.values()), median(self.up.values())
        beside = sum(self.down.values()) + sum(self.up.values()) - clients * (down + up)
        return {"down": down, "up": up, "beside": beside}


def size(content: RecordDict) -> int:
    """Return the bytes of arrays, configs and metrics; names, envelopes and TLS come on top."""
    arrays = sum(len(array.data) for record in content.array_records.values() for array in record.values())
    others = [*content.config_records.values(), *content.metric_records.values()]
    return arrays + sum(len(v) if isinstance(v, bytes | str) else 8 for record in others for v in record.values())


def processor_seconds() -> float:
    """Return what all processes of this Flower home have used so far, on Linux; elsewhere 0."""
    home, ticks = os.environ["FLWR_HOME"].encode(), 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if home in (folder / "environ").read_bytes():
                # proc_pid_stat(5): utime, stime, and both of children that ended
                ticks += sum(map(int, (folder / "stat").read_text().rpartition(")")[2].split()[11:15]))
        except OSError:
            continue  # it ended, or is somebody else's
    return ticks / os.sysconf("SC_CLK_TCK")


def wrapped(name: str, clients: int) -> Strategy:
    """Return a strategy with its defaults around FedAvg."""
    plain = FedAvg(fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients)
    if name == "flower-dp":
        return DifferentialPrivacyServerSideFixedClipping(plain, 1.0, 10.0, clients)
    return SECURE[name](plain, stage_timeout=600, node_wait=60) if name in SECURE else plain


def first_model(parameters: int) -> dict[str, np.ndarray]:
    inputs, hidden = SHAPES[parameters]
    shapes = {"0.weight": (hidden, inputs), "0.bias": (hidden,), "2.weight": (CLASSES, hidden), "2.bias": (CLASSES,)}
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, 0.02, shape).astype(np.float32) for name, shape in shapes.items()}


server_app = ServerApp()


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Train models of several sizes, one after the other, and write what their rounds cost."""
    config = context.run_config
    name, clients, traffic = str(config["strategy"]), int(config["clients"]), Traffic(grid)
    found = {}
    for parameters, rounds in sizes(str(config["sizes"])).items():
        found[parameters] = measure(grid, traffic, wrapped(name, clients), parameters, clients, rounds)
    Path(str(config["result"])).write_text(json.dumps(found))


def sizes(text: str) -> dict[int, int]:
    """Return rounds by number of parameters: ``"10000:3,100000:2"``."""
    return {int(size): int(rounds) for size, rounds in (part.split(":") for part in text.split(","))}


def measure(
    grid: Grid, traffic: Traffic, strategy: Strategy, parameters: int, clients: int, rounds: int
) -> list[dict[str, float]]:
    """Run some rounds; return seconds, and bytes of one client and of all others, of each."""
    begin, before, spent = first_model(parameters), 0.0, 0.0
    mean = sum(change(client) for client in range(clients)) / clients
    exact = not isinstance(strategy, DifferentialPrivacyServerSideFixedClipping)
    found: list[dict[str, float]] = []

    def evaluate(number: int, arrays: ArrayRecord) -> MetricRecord:
        nonlocal before, spent
        now, processor = time.monotonic(), processor_seconds()
        if number:
            seconds = {"seconds": now - before, "processor": processor - spent, "train": traffic.end - traffic.begin}
            found.append(seconds | traffic.shares(clients))
        error = max(float(np.abs(arrays[key].numpy() - begin[key] - number * mean).max()) for key in begin)
        if exact and error > number * TOLERANCE:
            raise ValueError(f"After round {number} the model is off by {error}")
        traffic.clear()
        before, spent = time.monotonic(), processor_seconds()
        return MetricRecord({"error": error})

    model = ArrayRecord({key: Array(array) for key, array in begin.items()})
    result = strategy.start(grid, model, num_rounds=rounds, evaluate_fn=evaluate)
    for number, entry in enumerate(found, 1):
        reported = result.train_metrics_clientapp[number]
        entry |= {stage: reported[key] for stage in STAGES if (key := f"flbc-{stage}-seconds") in reported}
    return found
