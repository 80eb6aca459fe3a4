"""ServerApp of the quickstart."""

from pathlib import Path

import numpy as np
import torch
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from quickstart.task import Net

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    torch.manual_seed(1)
    out = Path(str(context.run_config["out"]))

    def save(server_round: int, arrays: ArrayRecord) -> None:
        np.savez(out / f"round-{server_round}.npz", **{name: array.numpy() for name, array in arrays.items()})

    strategy = FedAvg(fraction_train=1.0)
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(Net().state_dict()),
        num_rounds=context.run_config["num-server-rounds"],
        evaluate_fn=save,
    )
