"""Flower's own SecAgg+ as a Flower app: the legacy API's workflow and mod around an update that takes no time.

Every client returns the model plus a constant of its own, so that the server can check the mean. With ``secure=false``
the same app runs Flower's default workflow, so that the difference of two runs is what SecAgg+ adds.
"""

from __future__ import annotations

import time
from logging import INFO

import numpy as np
from flwr.client import NumPyClient
from flwr.client.mod import secaggplus_mod
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable
from flwr.common import Context, Message, NDArrays, Scalar, ndarrays_to_parameters
from flwr.common.logger import log
from flwr.server import LegacyContext, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.server.workflow import DefaultWorkflow, SecAggPlusWorkflow
from flwr.serverapp import Grid, ServerApp

STEP = 0.001
#: SecAgg+ rounds to steps of 2 * 8 / 2**22 and clips to [-8, 8]; float32 adds its own.
TOLERANCE = 1e-4


class Client(NumPyClient):
    """Adds a constant to every parameter."""

    def __init__(self, partition: int) -> None:
        self._update = np.float32(STEP * (partition + 1))

    def fit(self, parameters: NDArrays, config: dict[str, Scalar]) -> tuple[NDArrays, int, dict[str, Scalar]]:
        """Return the changed model and a weight."""
        return [array + self._update for array in parameters], 100, {}


def secagg_if_asked(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Run the mod, or the app alone."""
    return secaggplus_mod(message, context, call_next) if context.run_config["secure"] else call_next(message, context)


client_app = ClientApp(
    client_fn=lambda context: Client(int(context.node_config["partition-id"])).to_client(), mods=[secagg_if_asked]
)
server_app = ServerApp()


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds, and log the seconds of each."""
    config = context.run_config
    clients, size = int(config["clients"]), int(config["parameters"])
    ended = []

    def evaluate(number: int, arrays: NDArrays, _: dict[str, Scalar]) -> tuple[float, dict[str, Scalar]]:
        ended.append(time.perf_counter())
        expected = number * STEP * (clients + 1) / 2
        error = float(np.abs(arrays[0] - expected).max())
        if error > number * TOLERANCE:
            raise ValueError(f"After round {number} the model is off by {error}")
        if number:
            log(INFO, "seconds of round %d: %.3f", number, ended[-1] - ended[-2])
        return error, {}

    strategy = FedAvg(
        fraction_evaluate=0.0,
        min_fit_clients=clients,
        min_available_clients=clients,
        evaluate_fn=evaluate,
        initial_parameters=ndarrays_to_parameters([np.zeros(size, np.float32)]),
    )
    workflow = SecAggPlusWorkflow(int(config["shares"]), int(config["threshold"])) if config["secure"] else None
    legacy = LegacyContext(context, ServerConfig(num_rounds=int(config["num-server-rounds"])), strategy)
    DefaultWorkflow(fit_workflow=workflow)(grid, legacy)
