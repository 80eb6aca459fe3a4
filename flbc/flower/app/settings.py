"""The bundled app's run-config, checked before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ...codec import Codec
from ...demo.baselines import Settings
from ...errors import ConfigError
from ...ledger.settings import Ledger
from ...privacy import Privacy

PRIVACY_UNITS = ("none", "example", "client")


@dataclass(frozen=True, slots=True)
class AppSettings:
    """What ``strategies/*/pyproject.toml`` sets and ``flwr run -c`` overrides; see the strategy's README."""

    rounds: int
    privacy_unit: str
    epsilon: float
    delta: float
    clip_norm: float
    learning_rate: float
    local_steps: int
    fold: int
    key_bits: int
    codec_bits: int
    min_survivors: int
    stage_timeout: float
    node_wait: float
    reveal_metrics: tuple[str, ...]
    compare: bool
    ledger: Ledger | None

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """Read the run-config.

        Raises
        ------
        ConfigError
            Names the key that is missing, has the wrong type or an unknown value.
        """
        unit = _get(config, "privacy-unit", str)
        if unit not in PRIVACY_UNITS:
            raise ConfigError(
                f"Run-config privacy-unit = {unit!r} is unknown; choose one of {', '.join(PRIVACY_UNITS)}"
            )
        fold = _get(config, "fold", int)
        if not 0 <= fold < 5:
            raise ConfigError(f"Run-config fold = {fold} must be 0 to 4: the patients are split into five folds")
        rounds, steps = _get(config, "num-server-rounds", int), _get(config, "local-steps", int)
        if rounds < 1 or steps < 1:
            raise ConfigError("Run-config num-server-rounds and local-steps must be at least 1")
        return cls(
            rounds=rounds,
            privacy_unit=unit,
            epsilon=_get(config, "epsilon", float),
            delta=_get(config, "delta", float),
            clip_norm=_get(config, "clip-norm", float),
            learning_rate=_get(config, "learning-rate", float),
            local_steps=steps,
            fold=fold,
            key_bits=_get(config, "key-bits", int),
            codec_bits=_get(config, "codec-bits", int),
            min_survivors=_get(config, "min-survivors", int),
            stage_timeout=_get(config, "stage-timeout", float),
            node_wait=_get(config, "node-wait", float),
            reveal_metrics=tuple(filter(None, (n.strip() for n in _get(config, "reveal-metrics", str).split(",")))),
            compare=_get(config, "compare", bool),
            ledger=_ledger(config),
        )

    @property
    def privacy(self) -> Privacy | None:
        """The strategy's ``privacy`` argument."""
        if self.privacy_unit == "none":
            return None
        return Privacy(
            epsilon=self.epsilon,
            delta=self.delta,
            unit="example" if self.privacy_unit == "example" else "client",
            clip_norm=self.clip_norm,
            rounds=self.rounds,
            learning_rate=self.learning_rate,
        )

    @property
    def codec(self) -> Codec:
        """The strategy's ``codec`` argument."""
        return Codec(bits=self.codec_bits)

    @property
    def training(self) -> Settings:
        """Hyper-parameters for the comparisons."""
        return Settings(
            rounds=self.rounds,
            learning_rate=self.learning_rate,
            local_steps=self.local_steps,
            clip_norm=self.clip_norm,
        )


def _ledger(config: Mapping[str, Any]) -> Ledger | None:
    """Return the strategy's ``ledger`` argument from the keys ``ledger.*``; an empty ``ledger.url`` means none."""
    url = _get(config, "ledger.url", str)
    if not url:
        return None
    confirmations = _get(config, "ledger.confirmations", int)
    return Ledger(
        url=url,
        reward=_get(config, "ledger.reward", float),
        accuracy=_get(config, "ledger.accuracy", float),
        deadline=_get(config, "ledger.deadline", float),
        payout=_get(config, "ledger.payout", str),
        election=_get(config, "ledger.election", str),
        quorum=_get(config, "ledger.quorum", int) or None,
        committee=_get(config, "ledger.committee", int),
        link=_get(config, "ledger.link", str),
        require_final=_get(config, "ledger.require-final", bool),
        confirmations=None if confirmations < 0 else confirmations,
        key=_get(config, "ledger.key", str) or None,
        deployment=_get(config, "ledger.deployment", str) or None,
        publish_wait=_get(config, "ledger.publish-wait", float),
        settle_wait=_get(config, "ledger.settle-wait", float),
        publisher=_get(config, "ledger.publisher", str),
    )


def _get(config: Mapping[str, Any], key: str, kind: type) -> Any:
    if key not in config:
        raise ConfigError(f"Run-config lacks {key!r}; it belongs in [tool.flwr.app.config] of the app's pyproject.toml")
    value = config[key]
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ConfigError(f"Run-config {key} = {value!r} must be of type {kind.__name__}")
    return value
