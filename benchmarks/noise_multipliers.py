"""Noise multipliers for docs/privacy.md: by budget, rounds and sampling rate, with both accountants, and the demo's.

Prints three markdown tables: multipliers z for (epsilon, delta = 1e-5) over rounds and sampling rates, with "prv" (and
"rdp"); the deviation of the noise in the mean gradient, in clipping norms per coordinate, for 10,000 examples; and the
heart demo's numbers with the settings of strategies/paillier, sampled and not. Nothing is trained.

    python benchmarks/noise_multipliers.py
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from flbc.demo.baselines import Settings, fold_data
from flbc.demo.heart import FEATURE_NAMES
from flbc.privacy import Privacy, plan
from flbc.privacy.budget import solve

if TYPE_CHECKING:
    from flbc.privacy.spec import Accountant

DELTA = 1e-5
EPSILONS = (1.0, 3.0)
ROUNDS = (30, 300, 1000)
RATES = (1.0, 0.1, 0.05, 0.01)
EXAMPLES = 10_000
ACCOUNTANTS: tuple[Accountant, ...] = ("prv", "rdp")


def cell(epsilon: float, rounds: int, rate: float) -> str:
    prv, rdp = (
        solve(epsilon, DELTA, rounds, slack=0.0, rate=rate, accountant=accountant) for accountant in ACCOUNTANTS
    )
    return f"{prv:.2f}" if rate == 1 else f"{prv:.3f} ({rdp:.3f})"


def multipliers() -> None:
    print("| ε | rounds | " + " | ".join(f"q = {rate:g}" for rate in RATES) + " |")
    print("|---|---|" + "---|" * len(RATES))
    for epsilon in EPSILONS:
        for rounds in ROUNDS:
            cells = " | ".join(cell(epsilon, rounds, rate) for rate in RATES)
            print(f"| {epsilon:g} | {rounds:,} | {cells} |")


def means() -> None:
    """Print z / (q n): how far the noise moves a coordinate of the mean gradient, for a clipping norm of 1."""
    print("\n| ε | rounds | " + " | ".join(f"q = {rate:g}" for rate in RATES) + " |")
    print("|---|---|" + "---|" * len(RATES))
    for epsilon in EPSILONS:
        for rounds in ROUNDS:
            noise = (solve(epsilon, DELTA, rounds, slack=0.0, rate=rate) / (rate * EXAMPLES) for rate in RATES)
            print(f"| {epsilon:g} | {rounds:,} | " + " | ".join(f"{value:.4f}" for value in noise) + " |")


def heart() -> None:
    """Print what the demo's settings come to."""
    sizes = [len(split.train_y) for split in fold_data(0).values()]
    dimension, settings = len(FEATURE_NAMES) + 1, Settings()
    print(f"\nheart, fold 0: {dimension} parameters, examples {sizes}, together {sum(sizes)}")
    print(f"clipping norm {settings.clip_norm:g}, {settings.rounds} rounds, delta {DELTA:g}\n")
    print("| ε | q | where | z | sensitivity | σ, integers | noise in the mean gradient | replace-one ε |")
    print("|---|---|---|---|---|---|---|---|")
    for epsilon, rate, where in ((1.0, 1.0, "opener"), (3.0, 1.0, "opener"), (1.0, 0.2, "opener"), (1.0, 1.0, "local")):
        privacy = Privacy(
            epsilon=epsilon, delta=DELTA, unit="example", clip_norm=settings.clip_norm, sampling_rate=rate,
            where="local" if where == "local" else "opener",
        )  # fmt: skip
        made = plan(privacy, dimension=dimension, rounds=settings.rounds, max_examples=max(sizes))
        parties = len(sizes) if where == "local" else 1
        noise = made.sigma * parties**0.5 * made.step / (rate * sum(sizes))
        replace_one = made.replace_one_epsilon_after(settings.rounds)
        print(
            f"| {epsilon:g} | {rate:g} | {where} | {made.noise_multiplier:.3f} | {made.sensitivity:.1f} | "
            f"{made.sigma:,.0f} | {noise:.4f} | {replace_one:.2f} |"
        )


if __name__ == "__main__":
    begin = time.monotonic()
    multipliers()
    means()
    heart()
    print(f"\n{time.monotonic() - begin:.0f} s")
