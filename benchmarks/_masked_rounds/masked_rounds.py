"""Masked as a Flower app around an update that takes no time; with ``secure=false`` plain FedAvg.

The same model, updates and check of the mean as in ``_legacy_secagg``, in the Message API.
"""

from __future__ import annotations

import time
from logging import INFO

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from flbc import Codec, Masked, SecureMod

STEP = 0.001
#: 16 bits in a range that follows the updates.
TOLERANCE = 1e-4


def secure_if_asked(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Run the mod, or the app alone."""
    return SecureMod()(message, context, call_next) if context.run_config["secure"] else call_next(message, context)


client_app = ClientApp(mods=[secure_if_asked])
server_app = ServerApp()


@client_app.train()
def train(message: Message, context: Context) -> Message:
    """Add a constant to every parameter."""
    step = np.float32(STEP * (int(context.node_config["partition-id"]) + 1))
    arrays = ArrayRecord({name: Array(array.numpy() + step) for name, array in message.content["arrays"].items()})
    return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 100})}), reply_to=message)


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds, and log the seconds of each."""
    config = context.run_config
    clients, size = int(config["clients"]), int(config["parameters"])
    ended = []

    def evaluate(number: int, arrays: ArrayRecord) -> MetricRecord:
        ended.append(time.perf_counter())
        expected = number * STEP * (clients + 1) / 2
        error = float(np.abs(arrays["w"].numpy() - expected).max())
        if error > number * TOLERANCE:
            raise ValueError(f"After round {number} the model is off by {error}")
        if number:
            log(INFO, "seconds of round %d: %.3f", number, ended[-1] - ended[-2])
        return MetricRecord({"error": error})

    plain = FedAvg(fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients)
    strategy = Masked(plain, codec=Codec(max_examples=128)) if config["secure"] else plain
    model = ArrayRecord({"w": Array(np.zeros(size, np.float32))})
    strategy.start(grid, model, num_rounds=int(config["num-server-rounds"]), evaluate_fn=evaluate)
