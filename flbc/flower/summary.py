"""What a secure strategy logs of its settings when a run begins, in Flower's tree of lines."""

from __future__ import annotations

from collections.abc import Sequence
from logging import INFO
from urllib.parse import urlsplit

from flwr.common.logger import log

from ..ledger.settings import Ledger
from ..privacy import Privacy


def noise_by(privacy: Privacy | None) -> str:
    """Say who adds the noise, where the scheme does not say otherwise."""
    if privacy is not None and privacy.where == "local":
        return "every client to its own update: nobody is trusted, and the sum carries all of it"
    return "whoever opens the sum, who is trusted"


def sampling(privacy: Privacy) -> str:
    """Say which sampling is counted in epsilon, and which is not (S19)."""
    counted = "every example of a node takes part in every round"
    if privacy.sampling_rate < 1:
        counted = (
            f"each node draws every example with probability {privacy.sampling_rate:g}, secretly: counted "
            f"({privacy.accountant} accountant)"
        )
    elif privacy.unit == "client":
        counted = "none"
    return f"{counted}; clients are chosen by the server: not counted"


def log_privacy(privacy: Privacy | None, noise: str, revealed: Sequence[str]) -> None:
    """Log what the differential privacy of the run covers, or that there is none.

    Parameters
    ----------
    privacy : Privacy or None
    noise : str
        Who adds the noise.
    revealed : sequence of str
        Metrics that leave in clear.
    """
    if privacy is None:
        log(INFO, "\t│\t└── no differential privacy: the exact mean of the updates is opened every round")
        return
    log(INFO, "\t│\t├── Differential privacy: epsilon %g, delta %g", privacy.epsilon, privacy.delta)
    log(INFO, "\t│\t├── Unit: one %s; neighbours: zero-out (replace-one is printed beside it)", privacy.unit)
    log(INFO, "\t│\t├── Clipping norm %g; noise added by %s", privacy.clip_norm, noise)
    log(INFO, "\t│\t├── Sampling: %s", sampling(privacy))
    log(INFO, "\t│\t└── Metrics in clear, outside epsilon: %s", ", ".join(revealed) or "none")


def log_ledger(ledger: Ledger) -> None:
    """Log where the run is written down and what is paid for."""
    where = urlsplit(ledger.url).hostname or "embedded"  # the host alone: paths may be keys
    log(INFO, "\t│\t├── Ledger: %s; election: %s", where, ledger.election)
    paid = f"if the accuracy reaches {ledger.accuracy:g}" if ledger.accuracy else "for the rounds alone"
    log(INFO, "\t│\t└── Reward: %g ether, split by %s, %s", ledger.reward, ledger.payout, paid)
