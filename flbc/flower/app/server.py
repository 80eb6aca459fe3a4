"""ServerApp: wraps FedAvg in the strategy, shows every round, and compares at the end."""

from __future__ import annotations

from logging import INFO
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from ...demo.compare import compare, render
from ...demo.heart import FEATURE_NAMES, HOSPITALS
from ...errors import FlbcError
from ..paillier import Paillier
from .settings import AppSettings

app = ServerApp()


class HeartDemo(Paillier):
    """Paillier that shows the hospitals' accuracy by name. Users need no subclass."""

    rounds = 0
    last: dict[str, float]

    def on_evaluation(self, server_round: int, metrics: dict[str, dict[str, Any]]) -> None:
        """Log each hospital's accuracy and the overall one (weighted by test patients)."""
        if not all("accuracy" in values for values in metrics.values()) or not metrics:
            return
        order = sorted(metrics, key=lambda name: (name.partition("node-")[2].zfill(9), name))
        shown = {hospital(name): float(metrics[name]["accuracy"]) for name in order}
        weights = [float(metrics[name]["num-examples"]) for name in order]
        overall = float(np.average(list(shown.values()), weights=weights))
        self.last = {**shown, "overall": overall}
        text = "  ".join(f"{name} {value:.3f}" for name, value in shown.items())
        log(INFO, "flbc: round %d/%d accuracy: overall %.3f  %s  (in clear, outside epsilon)",
            server_round, self.rounds, overall, text)  # fmt: skip


def hospital(party: str) -> str:
    """Return the hospital's name of a simulated node; deployed parties carry their own names."""
    _, _, number = party.partition("node-")
    return HOSPITALS[int(number)] if number.isdigit() and int(number) < len(HOSPITALS) else party


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train, then print the comparison."""
    settings = AppSettings.read(context.run_config)
    strategy = HeartDemo(
        FedAvg(min_train_nodes=settings.min_survivors, min_evaluate_nodes=settings.min_survivors,
               min_available_nodes=settings.min_survivors),
        privacy=settings.privacy,
        codec=settings.codec,
        key_bits=settings.key_bits,
        min_survivors=settings.min_survivors,
        stage_timeout=settings.stage_timeout,
        node_wait=settings.node_wait or None,
        reveal_metrics=settings.reveal_metrics if settings.privacy else (),
        ledger=settings.ledger,
    )  # fmt: skip
    strategy.rounds, strategy.last = settings.rounds, {}
    weights = {"linear.weight": np.zeros((1, len(FEATURE_NAMES))), "linear.bias": np.zeros(1)}
    initial = ArrayRecord({name: Array(value) for name, value in weights.items()})
    result = strategy.start(grid=grid, initial_arrays=initial, num_rounds=settings.rounds)
    if not result.arrays:
        raise FlbcError("No round was finished; the log above says why")
    if settings.compare and set(strategy.last) == {*HOSPITALS, "overall"}:
        spent = result.train_metrics_clientapp[max(result.train_metrics_clientapp)].get("flbc-epsilon", 0.0)
        log(INFO, "flbc: computing the comparison in this process ...")
        rows = compare(strategy.last, settings.fold, settings.training, settings.privacy, settings.key_bits)
        print(render(rows, settings.fold, spent if isinstance(spent, float) else 0.0, settings.delta), flush=True)
