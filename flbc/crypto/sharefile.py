"""A share of a Paillier key on its way from the dealer to a holder: a box that only the holder opens.

The file is JSON of version 1, with what everybody may know in clear::

    {"format": "flbc-share", "version": 1, "holder": name, "key": {…}, "box": hex}

A box says nothing about who made it (:mod:`flbc.crypto.boxes`): holders compare the key's fingerprint with the one that
the dealer says by another channel. Comparing with each other is not enough, if all files went through the same hands.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flbc.crypto import boxes
from flbc.crypto._files import read_private, write_new
from flbc.crypto.keystore import PartyKeys
from flbc.crypto.paillier_threshold import ShareKey, ThresholdKey
from flbc.errors import KeyFileError, VerificationError

_FORMAT, _VERSION, _PURPOSE = "flbc-share", 1, b"flbc/paillier/share/1\n"
_MAX_FILE_BYTES = 1 << 16


def save_share(path: Path, share: ShareKey, name: str, encryption: bytes) -> None:
    """Write a new file with a share for one holder.

    Parameters
    ----------
    path : Path
        Must not exist.
    share : ShareKey
    name : str
        The holder's.
    encryption : bytes
        The holder's X25519 public key.

    Raises
    ------
    KeyFileError
        If the file exists or cannot be written.
    VerificationError
        If the holder's key is not usable.
    """
    box = boxes.seal(encryption, _PURPOSE + name.encode(), share.to_bytes())
    content = {"format": _FORMAT, "version": _VERSION, "holder": name, "key": describe(share.key), "box": box.hex()}
    write_new(path, json.dumps(content, indent=1).encode() + b"\n")


def load_share(path: Path, keys: PartyKeys) -> ShareKey:
    """Open a holder's share.

    Raises
    ------
    KeyFileError
        If it is no such file, or was made for somebody else.
    """
    try:
        content = json.loads(read_private(path, _MAX_FILE_BYTES, "share file"))
        sealed = bytes.fromhex(content["box"])
        kind = content["format"], content["version"]
    except (ValueError, TypeError, KeyError, RecursionError):
        kind, sealed = None, b""
    if kind != (_FORMAT, _VERSION):
        raise KeyFileError(f"{path} is no share of version {_VERSION}: the dealer makes them with `flbc keys deal`")
    try:
        return ShareKey.from_bytes(boxes.unseal(keys.encryption, _PURPOSE + keys.name.encode(), sealed))
    except VerificationError:
        raise KeyFileError(
            f"{path} does not open with the keys of {keys.name!r}: it was changed, or dealt to another key file"
        ) from None


def describe(key: ThresholdKey) -> dict[str, Any]:
    """Return what everybody may know of a shared key, ready for JSON."""
    return {
        "bits": key.public.bits,
        "threshold": key.threshold,
        "holders": key.holders,
        "fingerprint": key.fingerprint.hex(),
    }
