"""What a round cost: bytes, seconds, epsilon."""

from __future__ import annotations

from dataclasses import dataclass
from logging import INFO
from typing import Any

from flwr.app import MetricRecord
from flwr.common.logger import log

from ..privacy import Privacy


@dataclass(frozen=True, slots=True)
class RoundReport:
    """Measured by the server.

    Parameters
    ----------
    round : int
    survivors : int
        Clients in the sum; 0 when the round was abandoned.
    bytes_per_client : int
        Protected payload each client sent.
    saturated : int
        Coordinates that did not fit their range, over all clients.
    train_seconds, combine_seconds, attest_seconds, open_seconds, apply_seconds : float
        Wall time of the stages; ``attest_seconds`` is that of leader and committee, and of verifying replies.
    epsilon, epsilon_replace_one : float or None
        Spent so far; None without differential privacy.
    """

    round: int
    survivors: int = 0
    bytes_per_client: int = 0
    saturated: int = 0
    train_seconds: float = 0.0
    combine_seconds: float = 0.0
    attest_seconds: float = 0.0
    open_seconds: float = 0.0
    apply_seconds: float = 0.0
    epsilon: float | None = None
    epsilon_replace_one: float | None = None

    def metrics(self) -> MetricRecord:
        """Return the report as metrics whose names start with ``flbc-``."""
        record = MetricRecord(
            {
                "flbc-survivors": self.survivors,
                "flbc-bytes-per-client": self.bytes_per_client,
                "flbc-saturated": self.saturated,
                "flbc-train-seconds": self.train_seconds,
                "flbc-combine-seconds": self.combine_seconds,
                "flbc-attest-seconds": self.attest_seconds,
                "flbc-open-seconds": self.open_seconds,
            }
        )
        if self.epsilon is not None and self.epsilon_replace_one is not None:
            record["flbc-epsilon"] = self.epsilon
            record["flbc-epsilon-replace-one"] = self.epsilon_replace_one
        return record

    def log(self, privacy: Privacy | None) -> None:
        """Log one line."""
        spent = "no differential privacy"
        if privacy is not None and self.epsilon is not None:
            spent = f"epsilon {self.epsilon:.3f} of {privacy.epsilon:g} at delta {privacy.delta:g}"
            spent += f" (replace-one {self.epsilon_replace_one:.3f})"
        log(
            INFO,
            "flbc: %d clients, %s B each; train %.2f s, combine %.2f s, attest %.2f s, open %.2f s, apply %.2f s; %s",
            self.survivors,
            f"{self.bytes_per_client:,}",
            self.train_seconds,
            self.combine_seconds,
            self.attest_seconds,
            self.open_seconds,
            self.apply_seconds,
            spent,
        )


def log_evaluation(round_: int, metrics: dict[str, dict[str, Any]], weight_key: str, private: bool) -> None:
    """Log each party's clear metrics in one line."""
    shown = {
        party: {name: value for name, value in values.items() if name != weight_key}
        for party, values in sorted(metrics.items())
    }
    text = "; ".join(
        f"{party}: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items() if isinstance(value, float))
        for party, values in shown.items()
        if values
    )
    if text:
        log(INFO, "flbc: round %d%s: %s", round_, ", in clear, outside epsilon" if private else ", in clear", text)
