"""Who this node is: keys from its own key file, or a development identity in simulation (S2)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ..crypto import keystore
from ..crypto._files import read_private
from ..crypto.keystore import PartyKeys
from ..crypto.keystream import EncryptionKey
from ..crypto.signing import SigningKey
from ..errors import ConfigError, KeyFileError
from ..roster import ROLES, TRAIN_ROLE, Party

#: Public on purpose: everybody can compute every development identity, so they protect nothing outside a simulation.
DEVELOPMENT_MNEMONIC = b"test test test test test test test test test test test junk"
_MAX_PASSWORD_BYTES = 4096
PASSWORD_VARIABLE = "FLBC_KEY_PASSWORD"  # noqa: S105 - the name of a variable


@dataclass(frozen=True, slots=True)
class Identity:
    """A party's name, roles and keys.

    Parameters
    ----------
    name : str
        As in the roster.
    roles : tuple of str
        Sorted.
    keys : PartyKeys
        Secret; never printed.
    simulation : bool
        Whether these are development keys.
    examples : int
        Declared size of the training set; 0 when it is not declared.
    """

    name: str
    roles: tuple[str, ...]
    keys: PartyKeys = field(repr=False)
    simulation: bool
    examples: int = 0

    def party(self, scheme_key: bytes = b"") -> Party:
        """Return the public part; ``scheme_key`` is the fingerprint of the opening key, if the node holds one."""
        keys = self.keys
        return Party(
            self.name, self.roles, keys.signing.address, keys.encryption.public, scheme_key, self.examples,
            keys.vrf.address,
        )  # fmt: skip


@lru_cache(maxsize=1024)
def development_identity(partition: int, roles: tuple[str, ...] = (TRAIN_ROLE,), examples: int = 0) -> Identity:
    """Derive the identity of simulated node ``partition`` from the public mnemonic.

    The derivation is HKDF-SHA256 (RFC 5869) over the mnemonic with the partition and the purpose as info.
    """

    def secret(purpose: str) -> bytes:
        info = f"flbc/development/{partition}/{purpose}".encode()
        return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(DEVELOPMENT_MNEMONIC)

    name = development_name(partition)
    keys = PartyKeys(
        name=name,
        signing=SigningKey.from_bytes(secret("signing")),
        encryption=EncryptionKey.from_bytes(secret("encryption")),
        vrf=SigningKey.from_bytes(secret("vrf")),
        paillier=None,
    )
    return Identity(name, roles, keys, simulation=True, examples=examples)


def development_name(partition: int) -> str:
    """Return the name of simulated node ``partition``."""
    return f"node-{partition}"


def load_identity(node_config: Mapping[str, object]) -> Identity:
    """Load a deployed node's identity.

    Parameters
    ----------
    node_config : mapping
        ``flbc-key`` is the path of the key file, ``flbc-role`` the node's roles separated by commas. The password
        comes from the file named by ``flbc-key-password-file``, or from the environment variable FLBC_KEY_PASSWORD.

    Raises
    ------
    ConfigError
        If a setting is missing or a role unknown.
    KeyFileError
        If the key file does not exist or does not open.
    """
    path = node_config.get("flbc-key")
    if not isinstance(path, str):
        raise ConfigError(
            "This node has no key file. Make one with `flbc keys new NAME`, and start the SuperNode with "
            '--node-config \'flbc-key="/path/NAME.key" flbc-roster="/path/roster.toml" flbc-role="hospital"\' '
            "(development identities are allowed only in simulation, or with flbc-dev=true)"
        )
    keys = _load_keys(path, key_password(node_config))
    return Identity(keys.name, parse_roles(node_config.get("flbc-role", TRAIN_ROLE)), keys, simulation=False)


def key_password(node_config: Mapping[str, object]) -> str:
    """Read the key file's password from a 0600 file or the environment."""
    file = node_config.get("flbc-key-password-file")
    if isinstance(file, str):
        try:
            return read_private(Path(file), _MAX_PASSWORD_BYTES, "password file").decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:  # its text would quote a byte of the password
            raise KeyFileError(f"Cannot read the password file {file}: it is not UTF-8 text") from None
    if PASSWORD_VARIABLE in os.environ:
        return os.environ[PASSWORD_VARIABLE]
    raise KeyFileError(
        f"The key file needs a password: set {PASSWORD_VARIABLE}, or flbc-key-password-file in --node-config"
    )


def parse_roles(value: object) -> tuple[str, ...]:
    """Split ``"hospital,committee"``; :class:`ConfigError` names an unknown role."""
    roles = tuple(sorted({role.strip() for role in str(value).split(",")}))
    unknown = [role for role in roles if role not in ROLES]
    if unknown:
        raise ConfigError(f"Unknown role {unknown[0]!r} in flbc-role; choose from {', '.join(ROLES)}")
    return roles


@lru_cache(maxsize=8)
def _load_keys(path: str, password: str) -> PartyKeys:
    # scrypt costs 0.1 s; a simulation's or test's process answers many messages with one key file.
    return keystore.load(Path(path), password)
