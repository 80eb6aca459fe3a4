"""Which Flower strategies can work on a sum, and which cannot."""

from __future__ import annotations

from flwr.serverapp.strategy import (
    Bulyan,
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    FedXgbBagging,
    FedXgbCyclic,
    FedYogi,
    Krum,
    MultiKrum,
    QFedAvg,
    Strategy,
)

from ..errors import UnsupportedStrategyError

MEAN_BASED = (FedAvg, FedAvgM, FedAdagrad, FedAdam, FedYogi, FedProx)
_ROBUST = (Krum, MultiKrum, Bulyan, FedMedian, FedTrimmedAvg)
_TREES = (FedXgbBagging, FedXgbCyclic)
_PRIVATE = (
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
)


def check_wrapped(strategy: object, assume_mean_based: bool) -> Strategy:
    """Return the strategy if it can be given one mean instead of many replies.

    Raises
    ------
    UnsupportedStrategyError
        Says why it cannot, and what to use instead.
    """
    name = type(strategy).__name__
    if getattr(strategy, "is_flbc_wrapper", False):
        raise UnsupportedStrategyError(f"{name} hides updates already; wrap a plain Flower strategy once")
    if not isinstance(strategy, Strategy):
        raise UnsupportedStrategyError(f"Expected a flwr.serverapp.strategy.Strategy, got {name}")
    if isinstance(strategy, _ROBUST):
        raise UnsupportedStrategyError(
            f"{name} compares single updates, which nobody may see. Use FedAvg here; checks on hidden updates are "
            "the job of the Verified strategy"
        )
    if isinstance(strategy, _TREES):
        raise UnsupportedStrategyError(f"{name} concatenates trees; only sums can be hidden. Use another model")
    if isinstance(strategy, QFedAvg):
        raise UnsupportedStrategyError("QFedAvg weighs clients by their own loss, which nobody may see. Use FedAvg")
    if isinstance(strategy, _PRIVATE):
        raise UnsupportedStrategyError(
            f"{name} adds noise to single or averaged updates in clear. Wrap its inner strategy and pass "
            "privacy=Privacy(epsilon=...) instead: the noise is then added when the sum is opened"
        )
    if type(strategy).start is not Strategy.start:
        raise UnsupportedStrategyError(f"{name} overrides start(), so its messages cannot be protected")
    if type(strategy) not in MEAN_BASED and not assume_mean_based:
        raise UnsupportedStrategyError(
            f"{name} is not known to work on the mean alone. If its aggregate_train() gives the same result for one "
            "reply that holds the weighted mean, pass assume_mean_based=True"
        )
    return strategy
