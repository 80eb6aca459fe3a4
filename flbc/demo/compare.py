"""The table at the end of the demo: this run beside what else one could have done with the same patients."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from ..privacy import Privacy
from .baselines import Settings, alone, fedavg, fold_data, local_noise, mechanism
from .encrypted import EncryptedMean
from .heart import HOSPITALS


@dataclass(frozen=True, slots=True)
class Row:
    """One way to train: accuracy over all held-out patients, and per hospital."""

    name: str
    overall: float
    by_hospital: Mapping[str, float]


def compare(
    run: Mapping[str, float], fold: int, settings: Settings, privacy: Privacy | None, key_bits: int
) -> list[Row]:
    """Train the alternatives in this process on the same fold.

    Parameters
    ----------
    run : mapping
        The run's accuracy per hospital and ``"overall"``.
    fold : int
        The held-out fold.
    settings : Settings
    privacy : Privacy or None
        The run's.
    key_bits : int
        Size of the key for the encrypted comparison.
    """
    data = fold_data(fold)
    name = "encrypted, no DP" if privacy is None else f"encrypted, epsilon = {privacy.epsilon:g} per {privacy.unit}"
    rows = [Row(f"{name} (this run)", run["overall"], {h: run[h] for h in HOSPITALS})]
    others = {"plain FedAvg": fedavg(data, settings)}
    if privacy is not None:
        others = {"encrypted, no DP": fedavg(data, settings, EncryptedMean(key_bits)), **others}
    if privacy is not None and privacy.unit == "example":
        noise = mechanism(privacy.epsilon, data, settings, privacy.delta)
        others[f"noise added at each hospital, epsilon = {privacy.epsilon:g}"] = local_noise(data, settings, noise)
    for hospital in HOSPITALS:
        others[f"{hospital} alone"] = alone(hospital, data, settings)
    return rows + [Row(title, result.accuracy, result.by_hospital) for title, result in others.items()]


def render(rows: list[Row], fold: int, epsilon: float, delta: float) -> str:
    """Return the table as text."""
    spent = f"epsilon spent {epsilon:.3f} at delta {delta:g}" if epsilon else "no differential privacy"
    patients = sum(len(data.test_y) for data in fold_data(fold).values())
    table = Table(
        title=f"Accuracy on held-out patients, fold {fold} of 5 ({spent})",
        caption="The first row was trained by this run; the others in this process, on the same fold. One fold of "
        f"{patients} patients is a small test: benchmarks/heart.py averages over all five. Accuracies are outside "
        "epsilon.",
    )
    table.add_column("trained")
    table.add_column("all", justify="right")
    for hospital in HOSPITALS:
        table.add_column(hospital, justify="right")
    for row in rows:
        table.add_row(row.name, f"{row.overall:.3f}", *(f"{row.by_hospital[h]:.3f}" for h in HOSPITALS))
    stream = io.StringIO()
    Console(file=stream, width=118).print(table)
    return stream.getvalue()
