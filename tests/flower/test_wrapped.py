"""What can be wrapped, what is refused at construction, and what the summary says."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from flwr.common.logger import FLOWER_LOGGER
from flwr.serverapp.strategy import (
    Bulyan,
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAvg,
    FedMedian,
    FedTrimmedAvg,
    FedXgbBagging,
    FedXgbCyclic,
    Krum,
    MultiKrum,
    QFedAvg,
)

from flbc import Codec, ConfigError, Paillier, Privacy, UnsupportedStrategyError


class MySubclass(FedAvg):
    pass


class MyLoop(FedAvg):
    def start(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError


REFUSED = [
    (lambda: Krum(num_malicious_nodes=1), "Verified"),
    (lambda: MultiKrum(num_malicious_nodes=1, num_nodes_to_select=2), "Verified"),
    (lambda: Bulyan(num_malicious_nodes=1), "Verified"),
    (FedMedian, "Use FedAvg"),
    (FedTrimmedAvg, "Use FedAvg"),
    (FedXgbBagging, "trees"),
    (FedXgbCyclic, "trees"),
    (lambda: QFedAvg(client_learning_rate=0.1), "Use FedAvg"),
    (lambda: DifferentialPrivacyClientSideFixedClipping(FedAvg(), 1.0, 1.0, 4), "privacy=Privacy"),
    (lambda: DifferentialPrivacyServerSideFixedClipping(FedAvg(), 1.0, 1.0, 4), "privacy=Privacy"),
    (lambda: DifferentialPrivacyClientSideAdaptiveClipping(FedAvg(), 1.0, 400), "privacy=Privacy"),
    (lambda: DifferentialPrivacyServerSideAdaptiveClipping(FedAvg(), 1.0, 400), "privacy=Privacy"),
    (lambda: Paillier(FedAvg()), "once"),
    (MyLoop, r"overrides start\(\)"),
    (MySubclass, "assume_mean_based=True"),
    (object, "flwr.serverapp.strategy.Strategy"),
]


@pytest.mark.parametrize(("make", "advice"), REFUSED, ids=range(len(REFUSED)))
def test_refused_with_advice(make: Any, advice: str) -> None:
    with pytest.raises(UnsupportedStrategyError, match=advice):
        Paillier(make())


def test_unknown_subclass_on_the_users_word() -> None:
    Paillier(MySubclass(), assume_mean_based=True)


def test_robust_strategies_stay_refused_on_the_users_word() -> None:
    with pytest.raises(UnsupportedStrategyError):
        Paillier(FedMedian(), assume_mean_based=True)


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({"key_bits": 1024}, "2048, 3072, 4096"),
        ({"min_survivors": 2}, "at least 3"),
        ({"min_survivors": 3.0}, "at least 3"),
        ({"stage_timeout": 0}, "positive"),
        ({"node_wait": -1}, "positive"),
        ({"codec": 16}, "flbc.Codec"),
        ({"privacy": 1.0}, "flbc.Privacy"),
        ({"reveal_metrics": "accuracy"}, "list of names"),
        ({"reveal_metrics": ["accuracy"]}, "privacy="),
    ],
)
def test_bad_settings_are_refused(options: dict[str, Any], advice: str) -> None:
    with pytest.raises(ConfigError, match=advice):
        Paillier(FedAvg(), **options)


@pytest.mark.parametrize("options", [{"epsilon": 0}, {"epsilon": 1, "clip_norm": 0}, {"epsilon": -1}])
def test_bad_privacy_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Privacy(**options)


def test_configure_train_without_start_says_what_to_call() -> None:
    with pytest.raises(ConfigError, match=r"start\(\)"):
        Paillier(FedAvg()).configure_train(1, None, None, None)  # type: ignore[arg-type]


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += record.getMessage() + "\n"


@pytest.fixture
def lines() -> Any:
    handler = Lines()
    FLOWER_LOGGER.addHandler(handler)
    yield handler
    FLOWER_LOGGER.removeHandler(handler)


def test_summary_says_that_there_is_no_privacy(lines: Lines) -> None:
    Paillier(FedAvg(), codec=Codec(bits=20)).summary()
    assert "no differential privacy" in lines.text
    assert "3072 bits" in lines.text
    assert "'bits': 20" in lines.text
    assert "Sampling" in lines.text, "the wrapped strategy's own summary follows"


def test_summary_says_what_privacy_there_is(lines: Lines) -> None:
    Paillier(FedAvg(), privacy=Privacy(epsilon=2.5, unit="example"), reveal_metrics=["auc"]).summary()
    for words in ("epsilon 2.5", "one example", "zero-out", "outside epsilon: auc", "who is trusted"):
        assert words in lines.text
    assert "no differential privacy" not in lines.text
