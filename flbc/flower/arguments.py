"""What every secure strategy checks of its arguments, before anything starts."""

from __future__ import annotations

from collections.abc import Sequence

from ..codec import Codec
from ..errors import ConfigError
from ..ledger.settings import Ledger
from ..privacy import Privacy


def check_common(privacy: object, codec: object, ledger: object, min_survivors: object) -> None:
    """Raise :class:`ConfigError` for arguments of a wrong type, or sums of too few clients."""
    if not isinstance(codec, Codec):
        raise ConfigError("codec must be a flbc.Codec")
    if privacy is not None and not isinstance(privacy, Privacy):
        raise ConfigError("privacy must be a flbc.Privacy, or None for no differential privacy")
    if ledger is not None and not isinstance(ledger, Ledger):
        raise ConfigError("ledger must be a flbc.Ledger, or None to write nothing down")
    if type(min_survivors) is not int or min_survivors < 3:
        raise ConfigError("min_survivors must be at least 3: a sum of two shows each of the two the other's update")


def check_seconds(stage_timeout: float, node_wait: float | None) -> None:
    """Raise :class:`ConfigError` unless both are positive; ``node_wait`` may be None."""
    if not stage_timeout > 0 or (node_wait is not None and not node_wait > 0):
        raise ConfigError("stage_timeout and node_wait are seconds and must be positive")


def check_privacy(name: str, scheme: str, privacy: Privacy | None, codec: Codec) -> None:
    """Raise :class:`ConfigError` for noise that the scheme cannot add, or that would not cover what is sent."""
    if privacy is None:
        return
    if privacy.where == "clients" and scheme != "masked":
        raise ConfigError(f"Privacy(where='clients') belongs to Masked; {name} adds the noise when a sum is opened")
    if codec.compression is not None:
        raise ConfigError(
            "Compression keeps what a round does not send for later, so that one record reaches several sums and "
            "the noise of one sum does not cover it; leave out Codec(compression=...) with privacy"
        )


def check_revealed(names: Sequence[str], weight_key: str | None, privacy: Privacy | None) -> None:
    """Raise :class:`ConfigError` unless the metrics may travel in clear beside a sum with noise."""
    if isinstance(names, str):
        raise ConfigError(f"reveal_metrics must be a list of names, e.g. ({names!r},)")
    if weight_key in names:
        raise ConfigError("reveal_metrics must not name the weight: with privacy all weights are public counts")
    if names and privacy is None:
        raise ConfigError("reveal_metrics belongs to privacy=Privacy(...); without it metrics are averaged as usual")
