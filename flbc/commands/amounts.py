"""Ether and times as people write them. Amounts are exact: no float ever holds one."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from ..errors import ConfigError

_DECIMALS = 18
ETHER = 10**_DECIMALS
#: Contracts hold amounts in 128 bits.
_LIMIT = 1 << 128
_AMOUNT = re.compile(r"([0-9]{1,30})(?:\.([0-9]{1,18}))?", re.ASCII)
_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def parse_ether(text: str, what: str) -> int:
    """Read an amount of ether, such as ``"1"`` or ``"0.05"``, exactly.

    Parameters
    ----------
    text : str
        Digits, and at most 18 after a point; no sign, no exponent.
    what : str
        The option, for the error message.

    Returns
    -------
    int
        Wei.

    Raises
    ------
    ConfigError
        If the text is something else, or the amount does not fit 128 bits.
    """
    found = _AMOUNT.fullmatch(text)
    if found is None:
        raise ConfigError(f"{what} takes an amount of ether such as 1 or 0.05 (at most 18 decimals), not {text!r}")
    wei: int = int(found[1]) * ETHER + int((found[2] or "").ljust(_DECIMALS, "0"))
    if wei >= _LIMIT:
        raise ConfigError(f"{what} is more than the contracts can hold: {text} ether")
    return wei


def ether(wei: int) -> str:
    """Write an amount in full, with its unit: ``"0.05 ether"``."""
    return f"{decimal(wei)} ether"


def decimal(wei: int) -> str:
    """Write an amount of ether in full: ``"0.05"``."""
    whole, rest = divmod(wei, ETHER)
    return f"{whole}.{rest:018}".rstrip("0").rstrip(".")


def moment(when: int, now: int | None = None) -> str:
    """Write a Unix time, and how far it is from ``now`` (of the chain, not of this machine)."""
    try:
        text = datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):  # a contract takes any 64 bits for a time
        return f"Unix time {when}"
    if now is None:
        return text
    return f"{text} ({distance(when, now)})"


def distance(when: int, now: int) -> str:
    """Write how far a time is from another one: ``"in 2 h 5 min"``, ``"3 d ago"``."""
    return f"in {span(when - now)}" if when > now else f"{span(now - when)} ago"


def span(seconds: int) -> str:
    """Write a number of seconds in the two largest units that it fills."""
    parts = []
    for size, unit in _UNITS:
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"
