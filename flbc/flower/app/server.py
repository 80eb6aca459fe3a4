"""ServerApp: wraps FedAvg in the strategy of run-config, shows every round, and compares at the end."""

from __future__ import annotations

from collections.abc import Callable
from logging import INFO
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from ...demo.compare import compare, render
from ...demo.heart import HOSPITALS
from ...errors import ConfigError, FlbcError
from ..masked import Masked
from ..nddfe import NddFe
from ..paillier import Paillier
from ..strategy import SecureStrategy
from ..verified import Verified
from .settings import AppSettings
from .verifying import STRATEGY, Verifying

app = ServerApp()


class Demo(SecureStrategy):
    """Mixin that logs accuracies: of heart data by hospital, of others the spread. Users need no subclass."""

    data = "heart"
    rounds = 0
    last: dict[str, float]

    def on_evaluation(self, server_round: int, metrics: dict[str, dict[str, Any]]) -> None:
        """Log the overall accuracy (weighted by test examples) and the nodes'."""
        if not all("accuracy" in values for values in metrics.values()) or not metrics:
            return
        order = sorted(metrics, key=lambda name: (name.partition("node-")[2].zfill(9), name))
        names = {party: hospital(party) if self.data == "heart" else party for party in order}
        shown = {names[party]: float(metrics[party]["accuracy"]) for party in order}
        weights = [float(metrics[party]["num-examples"]) for party in order]
        overall = float(np.average(list(shown.values()), weights=weights))
        self.last = {**shown, "overall": overall}
        if self.data == "heart":
            text = "  ".join(f"{name} {value:.3f}" for name, value in shown.items())
        else:
            text = f"lowest {min(shown.values()):.3f}  highest {max(shown.values()):.3f}  of {len(shown)} nodes"
        log(INFO, "flbc: round %d/%d accuracy: overall %.3f  %s  (in clear, outside epsilon)",
            server_round, self.rounds, overall, text)  # fmt: skip


class PaillierDemo(Demo, Paillier):
    """The strategy Paillier, with that line."""


class NddFeDemo(Demo, NddFe):
    """The strategy NddFe, with that line."""


class MaskedDemo(Demo, Masked):
    """The strategy Masked, with that line."""


class VerifiedDemo(Demo, Verified):
    """The strategy Verified, with that line, and one that says who does harm in a demonstration."""

    verifying: Verifying

    def on_evaluation(self, server_round: int, metrics: dict[str, dict[str, Any]]) -> None:
        """Name the attackers beside the first accuracies."""
        bad = sorted(self.verifying.attackers(max(len(metrics), 1)))
        if server_round == 1 and bad:
            log(
                INFO, "flbc: a demonstration: %s by %s", self.verifying.attack_name, ", ".join(f"node-{i}" for i in bad)
            )
        super().on_evaluation(server_round, metrics)


def hospital(party: str) -> str:
    """Return the hospital's name of a simulated node; deployed parties carry their own names."""
    _, _, number = party.partition("node-")
    return HOSPITALS[int(number)] if number.isdigit() and int(number) < len(HOSPITALS) else party


def _wrapped(settings: AppSettings) -> FedAvg:
    least = settings.min_survivors
    return FedAvg(min_train_nodes=least, min_evaluate_nodes=least, min_available_nodes=least)


def _common(settings: AppSettings) -> dict[str, Any]:
    """Return the arguments that every strategy takes."""
    return {
        "privacy": settings.privacy,
        "codec": settings.codec,
        "min_survivors": settings.min_survivors,
        "stage_timeout": settings.stage_timeout,
        "node_wait": settings.node_wait or None,
        "reveal_metrics": settings.reveal_metrics if settings.privacy else (),
        "ledger": settings.ledger,
    }


def _verified(settings: AppSettings) -> Demo:
    """Return Verified, which has no codec and reveals no metrics but those outside its sums."""
    verifying = settings.verifying
    if verifying is None:
        raise ConfigError('Run-config strategy must be "verified" for the keys policy-* to be read')
    strategy = VerifiedDemo(
        _wrapped(settings),
        policy=verifying.policy,
        min_accepted=verifying.min_accepted,
        privacy=settings.privacy,
        stage_timeout=settings.stage_timeout,
        node_wait=settings.node_wait or None,
        ledger=settings.ledger,
    )
    strategy.verifying = verifying
    return strategy


#: How run-config ``strategy`` becomes one.
STRATEGIES: dict[str, Callable[[AppSettings], Demo]] = {
    "paillier": lambda settings: PaillierDemo(
        _wrapped(settings),
        key_bits=settings.key_bits,
        opening=settings.opening,
        threshold=settings.opening_threshold or None,
        **_common(settings),
    ),
    "nddfe": lambda settings: NddFeDemo(
        _wrapped(settings), mode=settings.mode, weights=settings.weights, **_common(settings)
    ),
    "masked": lambda settings: MaskedDemo(_wrapped(settings), threshold=settings.threshold, **_common(settings)),
    STRATEGY: _verified,
}


def strategy_of(settings: AppSettings) -> Demo:
    """Return the strategy that run-config asks for.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    if settings.strategy not in STRATEGIES:
        raise ConfigError(
            f"Run-config strategy = {settings.strategy!r} is unknown; choose one of {', '.join(STRATEGIES)}"
        )
    strategy = STRATEGIES[settings.strategy](settings)
    strategy.data, strategy.rounds, strategy.last = settings.data.name, settings.rounds, {}
    return strategy


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train, then print the comparison if it is heart data."""
    settings = AppSettings.read(context.run_config)
    strategy = strategy_of(settings)
    initial = ArrayRecord({name: Array(value) for name, value in settings.data.initial().items()})
    result = strategy.start(grid=grid, initial_arrays=initial, num_rounds=settings.rounds)
    if not result.arrays:
        raise FlbcError("No round was finished; the log above says why")
    heart = settings.data.name == "heart"
    if settings.compare and heart and set(strategy.last) == {*HOSPITALS, "overall"}:
        spent = result.train_metrics_clientapp[max(result.train_metrics_clientapp)].get("flbc-epsilon", 0.0)
        log(INFO, "flbc: computing the comparison in this process ...")
        rows = compare(strategy.last, settings.fold, settings.training, settings.privacy, settings.key_bits)
        print(render(rows, settings.fold, spent if isinstance(spent, float) else 0.0, settings.delta), flush=True)
