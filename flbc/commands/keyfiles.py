"""Key files and their passwords: from FLBC_KEY_PASSWORD, or typed."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path

from ..crypto import keystore
from ..crypto.keystore import PartyKeys
from ..errors import ConfigError
from ..node.identity import PASSWORD_VARIABLE


def open_keys(path: Path) -> PartyKeys:
    """Open a key file."""
    return keystore.load(path, old_password(path))


def old_password(path: Path) -> str:
    """Return the password of a key file that is there."""
    keystore.read_public(path)  # nobody should type a password for a file that is none
    return _password(f"Password of {path}: ")


def new_password() -> str:
    """Return the password for a new key file; a typed one is asked for twice."""
    first = _password("Password of the new key file: ")
    if PASSWORD_VARIABLE not in os.environ and (not first or first != getpass.getpass("Again: ")):
        raise ConfigError("The passwords are empty or differ; nothing was written")
    return first


def _password(prompt: str) -> str:
    if PASSWORD_VARIABLE in os.environ:
        return os.environ[PASSWORD_VARIABLE]
    if not sys.stdin.isatty():
        raise ConfigError(f"Nobody can type a password here; set {PASSWORD_VARIABLE}")
    return getpass.getpass(prompt)
