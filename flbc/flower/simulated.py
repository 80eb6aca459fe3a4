"""A shared key in simulation: the first holder that is asked deals, and all read their share from its folder.

Simulation is one trust domain (S3), and development keys are public: this protects nothing, and shows everything else.
"""

from __future__ import annotations

import fcntl
import os
from functools import lru_cache
from pathlib import Path

from ..crypto import keystore, paillier
from ..crypto.keystore import PartyKeys
from ..crypto.paillier_threshold import ShareKey, check_threshold, deal, majority
from ..errors import KeyFileError
from ..node.identity import development_identity, development_name

DEVELOPMENT_PASSWORD = "development"  # noqa: S105 - simulation keys are public


def development_share(folder: Path, name: str, holders: int, key_bits: int | None, threshold: int | None) -> ShareKey:
    """Return a simulated holder's share.

    Parameters
    ----------
    folder : Path
        The run's, the same for all holders.
    name : str
        The holder's.
    holders : int
        How many simulated nodes are in the committee, from the first partition on.
    key_bits, threshold : int or None
        None: the key must have been dealt. A threshold of 0 is the majority of the holders.

    Raises
    ------
    ConfigError
        If the threshold is not more than half of the holders, and at most all; names both.
    KeyFileError
        If it was not dealt, or this node is no holder.
    """
    path = folder / f"{name}.key"
    if not path.exists():
        if key_bits is None or threshold is None:
            raise KeyFileError("The simulated share holders have lost their key; start a new run")
        threshold = threshold or majority(holders)
        check_threshold(threshold, holders)
        _deal(folder, holders, key_bits, threshold)
    return _load(path)


def _deal(folder: Path, holders: int, key_bits: int, threshold: int) -> None:
    """Write a key file for every holder, unless another holder was faster."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        last = folder / f"{development_name(holders - 1)}.key"
        if last.exists():  # it is written last
            return
        shares = deal(paillier.generate(key_bits), threshold, holders)
        for partition, share in enumerate(shares):
            keys = development_identity(partition).keys
            made = PartyKeys(keys.name, keys.signing, keys.encryption, keys.vrf, None, share)
            path = folder / f"{keys.name}.key"
            path.unlink(missing_ok=True)  # of a dealer that was killed
            keystore.save(path, made, DEVELOPMENT_PASSWORD)
    finally:
        os.close(lock)


@lru_cache(maxsize=32)
def _load(path: Path) -> ShareKey:
    share = keystore.load(path, DEVELOPMENT_PASSWORD).share if path.exists() else None
    if share is None:
        raise KeyFileError("This simulated node has no share: it is not in the committee")
    return share
