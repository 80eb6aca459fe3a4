"""The bundled app's run-config, checked before anything starts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ...codec import Codec, Compression
from ...demo.base import Dataset
from ...demo.baselines import Settings
from ...demo.checkable import checkable
from ...demo.datasets import dataset
from ...demo.training import Local
from ...errors import ConfigError
from ...ledger.settings import Ledger
from ...node.paillier import ALONE, MODES
from ...privacy import Privacy
from ...privacy.spec import ACCOUNTANTS, SAMPLERS, WHERES, Accountant, Sampler, Where
from .reading import choice, get
from .verifying import STRATEGY, Verifying

_NO_NOISE = (
    'Run-config privacy-where = "{}" says who adds noise, and privacy-unit = "none" that there is none: set '
    'privacy-unit, or privacy-where = "opener"'
)
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
    sampling_rate: float
    privacy_accountant: Accountant
    privacy_sampler: Sampler
    learning_rate: float
    local_steps: int
    local_epochs: int
    batch_size: int
    fold: int
    key_bits: int
    opening: str
    opening_threshold: int
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
    verifying: Verifying | None

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """Read the run-config.

        Raises
        ------
        ConfigError
            Names the key that is missing, has the wrong type or an unknown value, or contradicts another one.
        """
        strategy = get(config, "strategy", str)
        unit = choice(config, "privacy-unit", PRIVACY_UNITS)
        survivors = get(config, "min-survivors", int)
        where, colluders = _noise(config, strategy, unit, survivors)
        fold = get(config, "fold", int)
        if not 0 <= fold < 5:
            raise ConfigError(f"Run-config fold = {fold} must be 0 to 4: the data are split into five folds")
        data = (checkable if strategy == STRATEGY else dataset)(get(config, "dataset", str))
        rate, batch_size, epochs = _training(config, data, unit)
        rounds, steps = get(config, "num-server-rounds", int), get(config, "local-steps", int)
        if rounds < 1 or steps < 1:
            raise ConfigError("Run-config num-server-rounds and local-steps must be at least 1")
        return cls(
            strategy=strategy,
            data=data,
            data_dir=get(config, "data-dir", str),
            rounds=rounds,
            privacy_unit=unit,
            epsilon=get(config, "epsilon", float),
            delta=get(config, "delta", float),
            clip_norm=get(config, "clip-norm", float),
            privacy_where=where,
            privacy_colluders=colluders,
            sampling_rate=_sampling(config, unit),
            privacy_accountant=choice(config, "privacy-accountant", ACCOUNTANTS),
            privacy_sampler=choice(config, "privacy-sampler", SAMPLERS),
            learning_rate=rate,
            local_steps=steps,
            local_epochs=epochs,
            batch_size=batch_size,
            fold=fold,
            key_bits=get(config, "key-bits", int),
            opening=_opening(config, strategy),
            opening_threshold=get(config, "opening-threshold", int),
            codec_bits=get(config, "codec-bits", int),
            compression=_compression(config),
            mode=get(config, "mode", str),
            weights=get(config, "weights", str),
            threshold=get(config, "threshold", float),
            min_survivors=survivors,
            stage_timeout=get(config, "stage-timeout", float),
            node_wait=get(config, "node-wait", float),
            reveal_metrics=tuple(filter(None, (n.strip() for n in get(config, "reveal-metrics", str).split(",")))),
            compare=get(config, "compare", bool),
            ledger=_ledger(config),
            verifying=_verifying(config) if strategy == STRATEGY else None,
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
            sampling_rate=self.sampling_rate,
            accountant=self.privacy_accountant,
            sampler=self.privacy_sampler,
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
    where: Where = choice(config, "privacy-where", WHERES)
    colluders = get(config, "privacy-colluders", int)
    if where != "clients":
        if colluders != 1:
            raise ConfigError(
                f'Run-config privacy-colluders = {colluders} belongs to privacy-where = "clients": set that, or leave '
                "privacy-colluders at 1"
            )
        if where == "local" and unit == "none":
            raise ConfigError(_NO_NOISE.format(where))
        return where, colluders
    if strategy != "masked":
        raise ConfigError(
            f'Run-config privacy-where = "clients" needs strategy = "masked", and strategy = {strategy!r}: run '
            'strategies/masked, or set privacy-where = "opener"'
        )
    if unit == "none":
        raise ConfigError(_NO_NOISE.format(where))
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


def _sampling(config: Mapping[str, Any], unit: str) -> float:
    """Return the rate at which nodes draw their examples."""
    rate = get(config, "sampling-rate", float)
    if not 0 < rate <= 1:
        raise ConfigError(f"Run-config sampling-rate = {rate} must be above 0 and at most 1; 1.0: all examples")
    if rate != 1 and unit != "example":
        raise ConfigError(
            f'Run-config sampling-rate = {rate} belongs to privacy-unit = "example": set that, or leave sampling-rate '
            "at 1.0"
        )
    return float(rate)


def _opening(config: Mapping[str, Any], strategy: str) -> str:
    """Return who opens sums of ``Paillier``; refuse what other strategies could only ignore."""
    opening: str = choice(config, "opening", MODES)
    if opening != ALONE and strategy != "paillier":
        raise ConfigError(
            f'Run-config opening = {opening!r} needs strategy = "paillier", and strategy = {strategy!r}: run '
            f"strategies/paillier, or set opening = {ALONE!r}"
        )
    return opening


def _training(config: Mapping[str, Any], data: Dataset, unit: str) -> tuple[float, int, int]:
    """Return learning rate, batch size and local epochs; the data set's own where run-config says 0."""
    rate = get(config, "learning-rate", float)
    size, epochs = get(config, "batch-size", int), get(config, "local-epochs", int)
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
    rate, momentum = (get(config, f"compression.{name}", float) for name in ("rate", "momentum"))
    return Compression(rate=rate, momentum=momentum) if rate else None


def _verifying(config: Mapping[str, Any]) -> Verifying:
    """Return what belongs to ``Verified``; refuse what it could only ignore."""
    if _compression(config) is not None:
        raise ConfigError(
            'Run-config compression.rate does not go with strategy = "verified", which checks whole models: set it to 0'
        )
    return Verifying.read(config)


def _ledger(config: Mapping[str, Any]) -> Ledger | None:
    """Return the strategy's ``ledger`` argument from the keys ``ledger.*``; an empty ``ledger.url`` means none."""
    url = get(config, "ledger.url", str)
    if not url:
        return None
    confirmations = get(config, "ledger.confirmations", int)
    return Ledger(
        url=url,
        reward=get(config, "ledger.reward", float),
        accuracy=get(config, "ledger.accuracy", float),
        deadline=get(config, "ledger.deadline", float),
        payout=get(config, "ledger.payout", str),
        election=get(config, "ledger.election", str),
        quorum=get(config, "ledger.quorum", int) or None,
        committee=get(config, "ledger.committee", int),
        link=get(config, "ledger.link", str),
        require_final=get(config, "ledger.require-final", bool),
        confirmations=None if confirmations < 0 else confirmations,
        key=get(config, "ledger.key", str) or None,
        deployment=get(config, "ledger.deployment", str) or None,
        publish_wait=get(config, "ledger.publish-wait", float),
        settle_wait=get(config, "ledger.settle-wait", float),
        publisher=get(config, "ledger.publisher", str),
    )
