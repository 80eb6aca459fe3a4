"""A party's key file: its secret keys under a password, and its public keys in clear.

The file is JSON of version 1::

    {"format": "flbc-keys", "version": 1, "public": {…}, "kdf": {…}, "cipher": {…}, "ciphertext": hex}

Secrets are sealed with AES-256-GCM under a key that scrypt (RFC 7914) makes from the password; everything else in the
file is authenticated with them, so a changed header does not open. Files are made with mode 0600 and refused when
others can read them. A lost password cannot be recovered.
"""

from __future__ import annotations

import json
import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from flbc.crypto import paillier_keys
from flbc.crypto._checks import Secret
from flbc.crypto._files import read_private, write_new
from flbc.crypto.keystream import EncryptionKey
from flbc.crypto.paillier_keys import PrivateKey
from flbc.crypto.paillier_threshold import ShareKey
from flbc.crypto.signing import SigningKey, checksum_address
from flbc.errors import ConfigError, FlbcError, KeyFileError, WrongPasswordError

_FORMAT = "flbc-keys"
_VERSION = 1
_FIELDS = {"format", "version", "public", "kdf", "cipher", "ciphertext"}
# 32 MiB and about 0.1 s for each guess: a node opens its file for every message. Lighter than what OWASP advises for
# servers that store many passwords (p = 3 at this n), so a key file that leaves its host needs a long password.
_SCRYPT = {"n": 1 << 15, "r": 8, "p": 1}
# What a file may ask for: at most 128 · n · r = 512 MiB.
_SCRYPT_BOUNDS = {"n": (1 << 14, 1 << 18), "r": (8, 16), "p": (1, 4)}
_SALT_BYTES, _NONCE_BYTES = 16, 12
_MAX_FILE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, repr=False)
class PartyKeys(Secret):
    """All secret keys of one party. The repr shows its name and address; it refuses to be pickled.

    Parameters
    ----------
    name : str
        What the party is called in rosters and tables; public.
    signing : SigningKey
        Signs submissions, blocks and votes; its address is the party's identity.
    encryption : EncryptionKey
        Agrees on pads and tags.
    vrf : SigningKey
        Proves the random draw for the leader. A key of its own, so that no proof is ever a signature.
    paillier : PrivateKey or None
        Opens sums; only a key authority has one.
    share : ShareKey or None (default: None)
        Opens sums in part; only a holder of a shared key has one.
    """

    name: str
    signing: SigningKey
    encryption: EncryptionKey
    vrf: SigningKey
    paillier: PrivateKey | None
    share: ShareKey | None = None

    # A frozen dataclass with slots would otherwise get one that hands out the fields.
    __getstate__ = Secret.__getstate__

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not 0 < len(self.name) <= 64 or not self.name.isprintable():
            raise ConfigError("a party's name must have 1 to 64 printable characters")
        for field, kind in (("signing", SigningKey), ("encryption", EncryptionKey), ("vrf", SigningKey)):
            if not isinstance(getattr(self, field), kind):
                raise TypeError(f"{field} must be a {kind.__name__}")
        if not isinstance(self.paillier, PrivateKey | None):
            raise TypeError("paillier must be a PrivateKey or None")
        if not isinstance(self.share, ShareKey | None):
            raise TypeError("share must be a ShareKey or None")
        if self.paillier is not None and self.share is not None:
            raise ConfigError("a party has a Paillier key or a share of one, not both: make a key file for each role")

    @classmethod
    def generate(cls, name: str, *, paillier_bits: int | None = None, fast_opening: bool = False) -> PartyKeys:
        """Make fresh keys, with a Paillier key (2048, 3072 or 4096 bits; `fast_opening` as there) only if asked for."""
        if fast_opening and paillier_bits is None:
            raise ConfigError("fast_opening is a kind of Paillier key: set paillier_bits too (--paillier-bits 3072)")
        paillier = None
        if paillier_bits is not None:
            paillier = paillier_keys.generate(paillier_bits, fast_opening=fast_opening)
        return cls(name, SigningKey.generate(), EncryptionKey.generate(), SigningKey.generate(), paillier)

    @property
    def scheme_key(self) -> bytes:
        """Fingerprint of the Paillier key, or of the shared one that the party has a share of; empty if neither."""
        if self.share is not None:
            return self.share.key.fingerprint
        return b"" if self.paillier is None else self.paillier.public.fingerprint

    def with_share(self, share: ShareKey) -> PartyKeys:
        """Return the same keys with a share of a Paillier key."""
        return PartyKeys(self.name, self.signing, self.encryption, self.vrf, self.paillier, share)

    def public(self) -> dict[str, Any]:
        """Return what others may know, ready for JSON: name, addresses, public keys and fingerprint."""
        public: dict[str, Any] = {
            "name": self.name,
            "address": checksum_address(self.signing.address),
            "encryption": self.encryption.public.hex(),
            "vrf": self.vrf.public.hex(),
            "vrf_address": checksum_address(self.vrf.address),
            "paillier": None
            if self.paillier is None
            else {
                "bits": self.paillier.public.bits,
                "fingerprint": self.paillier.public.fingerprint.hex(),
                "public_key": self.paillier.public.to_bytes().hex(),
            },
        }
        if self.paillier is not None and self.paillier.fast_opening:
            public["paillier"]["fast_opening"] = True  # for people: on which assumption their secrecy rests
        if self.share is not None:  # not there otherwise, so that older files stay what they are
            key = self.share.key
            public["share"] = {
                "bits": key.public.bits,
                "threshold": key.threshold,
                "holders": key.holders,
                "place": self.share.place,
                "fingerprint": key.fingerprint.hex(),
            }
        return public

    def __repr__(self) -> str:
        return f"<PartyKeys of {self.name!r}, {checksum_address(self.signing.address)}>"


def save(path: Path, keys: PartyKeys, password: str) -> None:
    """Write a new key file, mode 0600, in one step: it is there completely or not at all.

    Parameters
    ----------
    path : Path
        Must not exist: a key file is never overwritten.
    keys : PartyKeys
    password : str
        Not empty.

    Raises
    ------
    KeyFileError
        If the file exists or cannot be written, or the password is empty.
    """
    if not isinstance(keys, PartyKeys):
        raise TypeError(f"keys must be PartyKeys, not {type(keys).__name__}")
    path = Path(path)
    salt, nonce = os.urandom(_SALT_BYTES), os.urandom(_NONCE_BYTES)
    header: dict[str, Any] = {
        "format": _FORMAT,
        "version": _VERSION,
        "public": keys.public(),
        "kdf": {"name": "scrypt", **_SCRYPT, "salt": salt.hex()},
        "cipher": {"name": "AES-256-GCM", "nonce": nonce.hex()},
    }
    secrets = {
        "signing": keys.signing.to_bytes().hex(),
        "encryption": keys.encryption.to_bytes().hex(),
        "vrf": keys.vrf.to_bytes().hex(),
        "paillier": None if keys.paillier is None else keys.paillier.to_bytes().hex(),
    }
    if keys.share is not None:
        secrets["share"] = keys.share.to_bytes().hex()
    key = _derive(password, salt, **_SCRYPT)
    sealed = AESGCM(key).encrypt(nonce, _canonical(secrets), _canonical(header))
    write_new(path, json.dumps({**header, "ciphertext": sealed.hex()}, indent=1, ensure_ascii=False).encode() + b"\n")


def load(path: Path, password: str) -> PartyKeys:
    """Open a key file.

    Raises
    ------
    WrongPasswordError
        If the password is wrong or anything in the file was changed.
    KeyFileError
        If there is no such file, others can read it, or it is no key file of a version known here.
    """
    content = _read(path)
    sealed = _hex(path, content.pop("ciphertext"), None)
    salt, n, r, p = _kdf_settings(path, content["kdf"])
    nonce = _cipher_nonce(path, content["cipher"])
    try:
        plain = AESGCM(_derive(password, salt, n, r, p)).decrypt(nonce, sealed, _canonical(content))
    except InvalidTag:
        raise WrongPasswordError(f"{path} does not open: the password is wrong or the file was changed") from None
    # From here on the content is what someone with the password wrote; still, nothing secret may reach a traceback.
    try:
        keys = _parse_secrets(content["public"]["name"], plain)
        sound = keys.public() == content["public"]
    except (FlbcError, ValueError, TypeError, KeyError):
        sound = False
    if not sound:
        raise KeyFileError(
            f"{path} opens but its keys are not sound, or of a newer flbc: use the flbc that made it, restore a backup "
            "or make new keys"
        ) from None
    return keys


def read_public(path: Path) -> dict[str, Any]:
    """Return the public part of a key file (see `PartyKeys.public`) without the password.

    It is not authenticated: only `load` can tell whether it was changed.

    Raises
    ------
    KeyFileError
        As for `load`.
    """
    public: dict[str, Any] = _read(path)["public"]
    return public


def _parse_secrets(name: str, plain: bytes) -> PartyKeys:
    secrets = json.loads(plain)
    paillier, share = secrets["paillier"], secrets.get("share")
    return PartyKeys(
        name,
        SigningKey.from_bytes(bytes.fromhex(secrets["signing"])),
        EncryptionKey.from_bytes(bytes.fromhex(secrets["encryption"])),
        SigningKey.from_bytes(bytes.fromhex(secrets["vrf"])),
        None if paillier is None else PrivateKey.from_bytes(bytes.fromhex(paillier)),
        None if share is None else ShareKey.from_bytes(bytes.fromhex(share)),
    )


def _read(path: Path) -> dict[str, Any]:
    data = read_private(path, _MAX_FILE_BYTES)
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise KeyFileError(f"{path} is no flbc key file: make one with `flbc keys new`")
    if content.get("version") != _VERSION or isinstance(content["version"], bool):
        raise KeyFileError(f"{path} is a key file of another version than {_VERSION}: use the flbc that made it")
    if set(content) != _FIELDS or not isinstance(content["public"], dict):
        raise _damaged(path)
    return content


def _derive(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    if not isinstance(password, str):
        raise TypeError(f"the password must be text, not {type(password).__name__}")
    if not password:
        raise KeyFileError("the password is empty: choose one")
    try:
        # One form for what keyboards of different systems send (as RFC 8265, section 4.2, does with NFC).
        secret = unicodedata.normalize("NFC", password).encode("utf-8")
    except UnicodeEncodeError:  # its message would hold the password
        raise KeyFileError("the password is not valid Unicode text: choose another one") from None
    return Scrypt(salt=salt, length=32, n=n, r=r, p=p).derive(secret)


def _kdf_settings(path: Path, kdf: object) -> tuple[bytes, int, int, int]:
    if not isinstance(kdf, dict) or set(kdf) != {"name", "n", "r", "p", "salt"} or kdf["name"] != "scrypt":
        raise _damaged(path)
    for name, (low, high) in _SCRYPT_BOUNDS.items():
        if type(kdf[name]) is not int or not low <= kdf[name] <= high:
            raise _damaged(path)
    n, r, p = kdf["n"], kdf["r"], kdf["p"]
    if n & (n - 1):
        raise _damaged(path)
    return _hex(path, kdf["salt"], _SALT_BYTES), n, r, p


def _cipher_nonce(path: Path, cipher: object) -> bytes:
    if not isinstance(cipher, dict) or set(cipher) != {"name", "nonce"} or cipher["name"] != "AES-256-GCM":
        raise _damaged(path)
    return _hex(path, cipher["nonce"], _NONCE_BYTES)


def _hex(path: Path, text: object, length: int | None) -> bytes:
    try:
        data = bytes.fromhex(text) if isinstance(text, str) else None
    except ValueError:
        data = None
    if data is None or (length is not None and len(data) != length):
        raise _damaged(path)
    return data


def _damaged(path: Path) -> KeyFileError:
    return KeyFileError(f"the key file {path} is damaged: restore a backup")


def _canonical(value: object) -> bytes:
    """Return one byte string for one JSON value, whatever the order and spacing in the file."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")
