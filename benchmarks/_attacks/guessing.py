"""Whether hidden bytes say anything: a game with two known updates, and correlation with the truth."""

from __future__ import annotations

import numpy as np

from flbc.schemes import SumSpec

from .views import Strategy

#: Of the game's vectors.
LENGTH, MAX_ABS = 200, 2**15 - 1


def which_of_two(strategy: Strategy, clients: int, trials: int, seed: int = 0) -> float:
    """Return how often an attacker tells which of two updates a payload hides; a half is chance.

    The attacker knows both updates, reads the payload in the scheme's own encoding, and looks along two directions: the
    difference of the updates, and the difference of the means of payloads that it was told the content of, a half of
    all. Its answer about the other half is the better direction's, which flatters it.

    Parameters
    ----------
    strategy : Strategy
    clients : int
        For how many the sum is sized.
    trials : int
        Payloads, an even number.
    seed : int
        Of updates and choices; payloads are random by themselves.
    """
    rng, spec = np.random.default_rng([seed, 2]), SumSpec(LENGTH, MAX_ABS, clients)
    worlds = rng.integers(-MAX_ABS, MAX_ABS, (2, LENGTH))
    truth = np.arange(trials) % 2
    hide = strategy.hide(spec)
    read = np.array([strategy.guess(spec, hide(worlds[world])) for world in truth], np.float64)
    read /= np.abs(read).max()
    known, asked = slice(0, trials // 2), slice(trials // 2, None)
    learned = read[known][truth[known] == 1].mean(axis=0) - read[known][truth[known] == 0].mean(axis=0)
    rates = []
    for direction in (worlds[1] - worlds[0], learned):
        projected = read @ direction
        middle = (projected[known][truth[known] == 1].mean() + projected[known][truth[known] == 0].mean()) / 2
        rates.append(float(np.mean((projected[asked] > middle) == (truth[asked] == 1))))
    return max(rates)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return the correlation of two vectors; 0 if one is constant."""
    return float(np.corrcoef(a, b)[0, 1]) if a.std() and b.std() else 0.0
