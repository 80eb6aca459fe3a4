"""Single values of run-config, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import ConfigError


def get(config: Mapping[str, Any], key: str, kind: type) -> Any:
    """Return a value of one type; whole numbers serve as floats.

    Raises
    ------
    ConfigError
        If the key is missing, or its value has another type.
    """
    if key not in config:
        raise ConfigError(f"Run-config lacks {key!r}; it belongs in [tool.flwr.app.config] of the app's pyproject.toml")
    value = config[key]
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ConfigError(f"Run-config {key} = {value!r} must be of type {kind.__name__}")
    return value


def choice(config: Mapping[str, Any], key: str, choices: tuple[str, ...]) -> Any:
    """Return one of some texts; :class:`ConfigError` if it is another."""
    value = get(config, key, str)
    if value not in choices:
        raise ConfigError(f"Run-config {key} = {value!r} is unknown; choose one of {', '.join(choices)}")
    return value
