"""Accuracy on the four-hospital heart data: plain, encrypted, with patient-level privacy, with local noise, alone.

Five-fold cross-validation within every hospital; noise is fresh from the operating system in every repeat. The
noisy rows sum the product's integers without encrypting them: decryption is exact, so it would change nothing. Prints a
markdown table (mean ± standard deviation over folds and repeats) and, with ``--plot``, draws it.

    python benchmarks/heart.py --plot docs/img/heart.png
    python benchmarks/heart.py --quick
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from flbc.demo.baselines import Result, Settings, alone, fedavg, fold_data, local_noise, mechanism, noise_at_opener
from flbc.demo.heart import HOSPITALS, Split
from flbc.demo.logistic import scores

Data = dict[str, Split]
SHORT = {"cleveland": "Cleveland", "hungary": "Hungary", "va-long-beach": "Long Beach", "switzerland": "Switzerland"}
DELTA = 1e-5
MIN_AGREEMENT = 0.995
"""Share of predictions that encryption without noise must leave as plain FedAvg has them."""
COLORS = {
    "plain FedAvg": "#222222",
    "encrypted, no noise": "#e0a030",
    "noise at opening, ε = 3 per patient": "#0b6e4f",
    "noise at opening, ε = 1 per patient": "#3a7ca5",
    "local noise, ε = 1 per patient": "#c8553d",
}


@dataclass(frozen=True)
class Row:
    """One method: how to run it on a fold, and whether repeating a fold gives another result."""

    name: str
    run: Callable[[Data], Result]
    random: bool = False


def methods(settings: Settings, encrypted: bool) -> list[Row]:
    def noisy(train: Callable[..., Result], epsilon: float) -> Callable[[Data], Result]:
        return lambda data: train(data, settings, mechanism(epsilon, data, settings, DELTA))

    rows = [Row("plain FedAvg", lambda data: fedavg(data, settings))]
    if encrypted:
        from flbc.demo.encrypted import EncryptedMean

        # A fresh one for every training, because the codec's ranges follow from round to round.
        rows.append(Row("encrypted, no noise", lambda data: fedavg(data, settings, EncryptedMean())))
    rows += [
        Row("noise at opening, ε = 3 per patient", noisy(noise_at_opener, 3.0), random=True),
        Row("noise at opening, ε = 1 per patient", noisy(noise_at_opener, 1.0), random=True),
        Row("local noise, ε = 1 per patient", noisy(local_noise, 1.0), random=True),
    ]
    rows += [Row(f"{SHORT[h]} alone", lambda data, h=h: alone(h, data, settings)) for h in HOSPITALS]
    return rows


def measure(rows: Sequence[Row], folds: int, repeats: int, total_folds: int = 5) -> dict[str, list[Result]]:
    results: dict[str, list[Result]] = {row.name: [] for row in rows}
    for fold in range(folds):
        data = fold_data(fold, total_folds)
        for row in rows:
            results[row.name] += [row.run(data) for _ in range(repeats if row.random else 1)]
    return results


def table(results: dict[str, list[Result]]) -> str:
    lines = [
        "| method | all hospitals | " + " | ".join(SHORT.values()) + " |",
        "|---|---|" + "---|" * len(SHORT),
    ]
    for name, runs in results.items():
        overall = np.array([r.accuracy for r in runs])
        sites = (np.mean([r.by_hospital[h] for r in runs]) for h in HOSPITALS)
        lines.append(
            f"| {name} | {overall.mean():.3f} ± {overall.std():.3f} | " + " | ".join(f"{s:.3f}" for s in sites) + " |"
        )
    return "\n".join(lines)


def agreement(results: dict[str, list[Result]], folds: int, total_folds: int = 5) -> float:
    """Share of held-out patients whom the encrypted model and plain FedAvg diagnose alike."""
    alike = []
    for fold in range(folds):
        x = np.vstack([s.test_x for s in fold_data(fold, total_folds).values()])
        plain, hidden = (results[name][fold].weights for name in ("plain FedAvg", "encrypted, no noise"))
        alike.append((scores(x, plain) > 0) == (scores(x, hidden) > 0))
    return float(np.concatenate(alike).mean())


def plot(results: dict[str, list[Result]], path: str) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    together = [name for name in results if not name.endswith("alone")]
    separate = [name for name in results if name.endswith("alone")]
    fig, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.2), width_ratios=[1.15, 1], layout="constrained")
    for name in together:
        curves = np.array([r.curve for r in results[name]])
        rounds = np.arange(1, curves.shape[1] + 1)
        mean, spread = curves.mean(axis=0), curves.std(axis=0)
        style = "--" if name == "encrypted, no noise" else "-"
        left.plot(rounds, mean, style, color=COLORS[name], label=name, linewidth=1.8)
        if "ε" in name:
            left.fill_between(rounds, mean - spread, mean + spread, color=COLORS[name], alpha=0.12, linewidth=0)
    left.set(xlabel="round", ylabel="accuracy on unseen patients", title="Four hospitals train together")
    left.legend(loc="lower right", frameon=False, fontsize=8.5)
    names = [*together, *separate]
    means = [float(np.mean([r.accuracy for r in results[n]])) for n in names]
    spreads = [float(np.std([r.accuracy for r in results[n]])) for n in names]
    places = np.arange(len(names))[::-1]
    right.barh(
        places, means, xerr=spreads, color=[COLORS.get(n, "#cfcfcf") for n in names], height=0.7, error_kw={"lw": 1}
    )
    for place, mean, spread in zip(places, means, spreads, strict=True):
        right.text(mean + spread + 0.006, place, f"{mean:.3f}", va="center", fontsize=8.5)
    right.set_yticks(places, names, fontsize=8.5)
    right.set(xlim=(0.5, 0.93), xlabel="accuracy, all hospitals' test patients", title="Final model (bar ends: ± 1 sd)")
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    fig.savefig(path, dpi=150)
    plt.close(fig)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one fold, two repeats")
    parser.add_argument("--repeats", type=int, default=5, help="runs of every noisy method on every fold")
    parser.add_argument("--plot", metavar="PATH", help="draw the result into this PNG")
    parser.add_argument("--no-encrypted", action="store_true", help="leave out the row that runs the real encryption")
    options = parser.parse_args(arguments)
    settings = Settings()
    folds, repeats = (1, 2) if options.quick else (5, options.repeats)
    start = time.perf_counter()
    results = measure(methods(settings, not options.no_encrypted), folds, repeats)
    print(table(results))
    noise = mechanism(1.0, fold_data(0), settings, DELTA)
    print(
        f"\nLogistic regression, {settings.rounds} rounds, {folds} of 5 folds, {repeats} repeats of noisy rows; "
        f"δ = {DELTA:g}."
        f" Neighbours differ in one patient's gradient being zero; if instead one patient is exchanged for any other,"
        f" ε = 1 reads ε = {noise.replace_one_epsilon_after(noise.rounds):.2f}."
        f" Took {time.perf_counter() - start:.0f} s."
    )
    if not options.no_encrypted:
        same = agreement(results, folds)
        print(f"Encrypted without noise and plain FedAvg give the same diagnosis for {same:.2%} of the test patients.")
        if same < MIN_AGREEMENT:
            sys.exit(f"fewer than {MIN_AGREEMENT:.1%}: encryption changed the model")
    if options.plot:
        plot(results, options.plot)
        print(f"Plot: {options.plot}")


if __name__ == "__main__":
    main()
