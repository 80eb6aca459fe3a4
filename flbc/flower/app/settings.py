"""The bundled app's run-config, checked before anything starts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ...codec import Codec, Compression
from ...demo.base import Dataset
from ...demo.baselines import Settings
from ...demo.datasets import dataset
from ...demo.training import Local
from ...errors import ConfigError
from ...ledger.settings import Ledger
from ...privacy import Privacy
from ...privacy.spec import WHERES, Where

PRIVACY_UNITS = ("none", "example", "client")


@dataclass(frozen=True, slots=True)
class AppSettings:
    """What ``strategies/*/pyproject.toml`` sets and ``flwr run -c`` overrides; see the strategy's README.

    ``learning_rate``, ``batch_size`` and ``local_epochs`` are what holds: where run-config says 0, the data set's own.
    """

    strategy: str
    data: Dataset
    data_dir: str
    rounds: int
    privacy_unit: str
    epsilon: float
    delta: float
    clip_norm: float
    privacy_where: Where
    privacy_colluders: int
    learning_rate: float
    local_steps: int
    local_epochs: int
    batch_size: int
    fold: int
    key_bits: int
    codec_bits: int
    compression: Compression | None
    mode: str
    weights: str
    threshold: float
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
            Names the key that is missing, has the wrong type or an unknown value, or contradicts another one.
        """
        strategy = _get(config, "strategy", str)
        unit = _choice(config, "privacy-unit", PRIVACY_UNITS)
        survivors = _get(config, "min-survivors", int)
        where, colluders = _noise(config, strategy, unit, survivors)
        fold = _get(config, "fold", int)
        if not 0 <= fold < 5:
            raise ConfigError(f"Run-config fold = {fold} must be 0 to 4: the data are split into five folds")
        data = dataset(_get(config, "dataset", str))
        rate, batch_size, epochs = _training(config, data, unit)
        rounds, steps = _get(config, "num-server-rounds", int), _get(config, "local-steps", int)
        if rounds < 1 or steps < 1:
            raise ConfigError("Run-config num-server-rounds and local-steps must be at least 1")
        return cls(
            strategy=strategy,
            data=data,
            data_dir=_get(config, "data-dir", str),
            rounds=rounds,
            privacy_unit=unit,
            epsilon=_get(config, "epsilon", float),
            delta=_get(config, "delta", float),
            clip_norm=_get(config, "clip-norm", float),
            privacy_where=where,
            privacy_colluders=colluders,
            learning_rate=rate,
            local_steps=steps,
            local_epochs=epochs,
            batch_size=batch_size,
            fold=fold,
            key_bits=_get(config, "key-bits", int),
            codec_bits=_get(config, "codec-bits", int),
            compression=_compression(config),
            mode=_get(config, "mode", str),
            weights=_get(config, "weights", str),
            threshold=_get(config, "threshold", float),
            min_survivors=survivors,
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
            where=self.privacy_where,
            colluders=self.privacy_colluders,
        )

    @property
    def codec(self) -> Codec:
        """The strategy's ``codec`` argument."""
        return Codec(bits=self.codec_bits, compression=self.compression)

    @property
    def local(self) -> Local:
        """How a node trains, unless it sends a clipped gradient sum."""
        full = self.data.defaults.batch_size == 0
        epochs = self.local_steps if full else self.local_epochs
        return Local(learning_rate=self.learning_rate, batch_size=self.batch_size, epochs=epochs)

    @property
    def training(self) -> Settings:
        """Hyper-parameters for the comparisons on heart data."""
        return Settings(
            rounds=self.rounds,
            learning_rate=self.learning_rate,
            local_steps=self.local_steps,
            clip_norm=self.clip_norm,
        )


def _noise(config: Mapping[str, Any], strategy: str, unit: str, survivors: int) -> tuple[Where, int]:
    """Return who adds the noise, and how many clients are assumed to work with the server."""
    where: Where = _choice(config, "privacy-where", WHERES)
    colluders = _get(config, "privacy-colluders", int)
    if where == "opener":
        if colluders != 1:
            raise ConfigError(
                f'Run-config privacy-colluders = {colluders} belongs to privacy-where = "clients": set that, or leave '
                "privacy-colluders at 1"
            )
        return where, colluders
    if strategy != "masked":
        raise ConfigError(
            f'Run-config privacy-where = "clients" needs strategy = "masked", and strategy = {strategy!r}: run '
            'strategies/masked, or set privacy-where = "opener"'
        )
    if unit == "none":
        raise ConfigError(
            'Run-config privacy-where = "clients" says who adds noise, and privacy-unit = "none" that there is none: '
            'set privacy-unit, or privacy-where = "opener"'
        )
    if colluders < 1:
        raise ConfigError(
            f"Run-config privacy-colluders = {colluders} must be at least 1: every client knows the noise that it adds"
        )
    if survivors - colluders < 2:
        raise ConfigError(
            f"Run-config min-survivors = {survivors} with privacy-colluders = {colluders} leaves fewer than two honest "
            f"clients to add the noise: set min-survivors to at least {colluders + 2}, or lower privacy-colluders"
        )
    return where, colluders


def _training(config: Mapping[str, Any], data: Dataset, unit: str) -> tuple[float, int, int]:
    """Return learning rate, batch size and local epochs; the data set's own where run-config says 0."""
    rate = _get(config, "learning-rate", float)
    size, epochs = _get(config, "batch-size", int), _get(config, "local-epochs", int)
    if not (math.isfinite(rate) and rate >= 0) or size < 0 or epochs < 0:
        raise ConfigError(
            "Run-config learning-rate, batch-size and local-epochs must not be negative; 0: the data set's own"
        )
    own = data.defaults
    if own.batch_size == 0 and (size or epochs):
        raise ConfigError(
            f"Run-config dataset = {data.name!r} is trained in full batches: set local-steps, and leave batch-size and "
            "local-epochs at 0"
        )
    rate = rate or (own.gradient_rate if unit == "example" else own.learning_rate)
    return rate, size or own.batch_size, epochs or own.local_epochs


def _compression(config: Mapping[str, Any]) -> Compression | None:
    """Return the codec's ``compression`` from the keys ``compression.*``; a rate of 0 means none."""
    rate, momentum = (_get(config, f"compression.{name}", float) for name in ("rate", "momentum"))
    return Compression(rate=rate, momentum=momentum) if rate else None


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


def _choice(config: Mapping[str, Any], key: str, choices: tuple[str, ...]) -> Any:
    value = _get(config, key, str)
    if value not in choices:
        raise ConfigError(f"Run-config {key} = {value!r} is unknown; choose one of {', '.join(choices)}")
    return value


def _get(config: Mapping[str, Any], key: str, kind: type) -> Any:
    if key not in config:
        raise ConfigError(f"Run-config lacks {key!r}; it belongs in [tool.flwr.app.config] of the app's pyproject.toml")
    value = config[key]
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ConfigError(f"Run-config {key} = {value!r} must be of type {kind.__name__}")
    return value
