"""secp256k1 signatures over keccak-256 in Ethereum's form, so that a contract can check them with ``ecrecover``.

A signature is ``r ‖ s ‖ v``: 32 + 32 + 1 bytes, big-endian, v in {27, 28}, s in the lower half of the group order
(EIP-2). Nonces are deterministic (RFC 6979), so a bad random generator cannot leak a key. The curve arithmetic is
libsecp256k1's, which is constant time in the secret.

A signer is known by its address: the last 20 bytes of the keccak-256 of its public key. Two keys with one address cost
about 2^80 work to find, a second key for a given address about 2^160.
"""

from __future__ import annotations

import secrets

import coincurve
from Crypto.Hash import keccak

from flbc.crypto._checks import Secret, check_bytes
from flbc.errors import ConfigError, SignatureError

ADDRESS_BYTES = 20
DIGEST_BYTES = 32
SIGNATURE_BYTES = 65
# Order of secp256k1's group (SEC 2, version 2.0, section 2.4.1).
CURVE_ORDER = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141


def keccak256(data: bytes) -> bytes:
    """Keccak-256 with the original padding, as Ethereum uses it (not SHA3-256).

    Parameters
    ----------
    data : bytes
        Any length.

    Returns
    -------
    bytes
        32 bytes.
    """
    return keccak.new(digest_bits=256, data=check_bytes("data", data)).digest()


class SigningKey(Secret):
    """A secp256k1 secret key. Its repr shows the address only, and it refuses to be pickled.

    Make one with `generate` or `from_bytes`.
    """

    __slots__ = ("_address", "_key")

    def __init__(self, key: coincurve.PrivateKey) -> None:
        if not isinstance(key, coincurve.PrivateKey):
            raise TypeError("use SigningKey.generate() or SigningKey.from_bytes(secret)")
        self._key = key
        self._address = _address_of(key.public_key)

    @classmethod
    def generate(cls) -> SigningKey:
        """Draw a fresh key from the operating system's random generator."""
        # Uniform on [1, order - 1].
        return cls.from_bytes((1 + secrets.randbelow(CURVE_ORDER - 1)).to_bytes(32, "big"))

    @classmethod
    def from_bytes(cls, secret32: bytes) -> SigningKey:
        """Load a secret scalar of 32 big-endian bytes; ConfigError if it is zero or not below the group order."""
        secret = check_bytes("a signing key", secret32, 32)
        if not 0 < int.from_bytes(secret, "big") < CURVE_ORDER:
            raise ConfigError("a signing key must lie between 1 and the order of secp256k1: generate a new one")
        return cls(coincurve.PrivateKey(secret))

    def to_bytes(self) -> bytes:
        """Return the secret scalar, 32 bytes, for an encrypted key file only."""
        secret: bytes = self._key.secret
        return secret

    @property
    def address(self) -> bytes:
        """The signer's 20-byte Ethereum address."""
        return self._address

    @property
    def public(self) -> bytes:
        """The public key as a compressed point, 33 bytes (SEC 1, section 2.3.3)."""
        return self._key.public_key.format(compressed=True)

    def sign(self, digest: bytes) -> bytes:
        """Sign a 32-byte digest.

        Parameters
        ----------
        digest : bytes
            32 bytes, the output of a hash: signing raw data of an attacker's choice is not safe.

        Returns
        -------
        bytes
            65 bytes ``r ‖ s ‖ v``; the same digest always gets the same signature.
        """
        compact = self._key.sign_recoverable(check_bytes("digest", digest, DIGEST_BYTES), hasher=None)
        if compact[64] > 1:  # r overflowed the order: chance 2^-128, and Ethereum has no v for it
            raise SignatureError("this digest has no Ethereum signature under this key: change the message")
        return compact[:64] + bytes([27 + compact[64]])

    def __repr__(self) -> str:
        return f"<SigningKey {checksum_address(self._address)}>"


def recover(digest: bytes, signature: bytes) -> bytes:
    """Return the address whose key made this signature.

    Any well-formed signature recovers to *some* address: compare it, or use `verify`.

    Parameters
    ----------
    digest : bytes
        32 bytes.
    signature : bytes
        65 bytes ``r ‖ s ‖ v``.

    Returns
    -------
    bytes
        20 bytes.

    Raises
    ------
    SignatureError
        If the length is wrong, v is not 27 or 28, r or s is out of range, s is in the upper half (each signature must
        have one form only), or r is not on the curve.
    """
    digest = check_bytes("digest", digest, DIGEST_BYTES)
    raw = check_bytes("signature", signature)
    if len(raw) != SIGNATURE_BYTES:
        raise SignatureError(f"a signature must be {SIGNATURE_BYTES} bytes r, s, v; got {len(raw)}")
    r, s, v = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:64], "big"), raw[64]
    if v not in (27, 28):
        raise SignatureError("the last byte of a signature must be 27 or 28")
    if not 0 < r < CURVE_ORDER or not 0 < s <= CURVE_ORDER // 2:
        raise SignatureError("r or s of the signature is out of range (s must be in the lower half)")
    try:
        key = coincurve.PublicKey.from_signature_and_message(raw[:64] + bytes([v - 27]), digest, hasher=None)
    except Exception:  # coincurve raises a bare Exception when no public key fits
        raise SignatureError("the signature belongs to no public key") from None
    return _address_of(key)


def verify(digest: bytes, signature: bytes, address: bytes) -> None:
    """Raise SignatureError unless `signature` on `digest` (32 bytes) was made by `address` (20 bytes)."""
    address = check_bytes("address", address, ADDRESS_BYTES)
    if recover(digest, signature) != address:
        raise SignatureError(f"the signature was not made by {checksum_address(address)}")


def checksum_address(address: bytes) -> str:
    """Write a 20-byte address as ``0x`` and 40 hex digits whose case is a checksum (EIP-55)."""
    digits = check_bytes("address", address, ADDRESS_BYTES).hex()
    case = keccak256(digits.encode("ascii")).hex()
    return "0x" + "".join(d.upper() if int(c, 16) >= 8 else d for d, c in zip(digits, case, strict=False))


def parse_address(text: str) -> bytes:
    """Read ``0x`` and 40 hex digits; in mixed case they must carry the right EIP-55 checksum.

    Returns
    -------
    bytes
        20 bytes.

    Raises
    ------
    ConfigError
        If the text is not an address, or its checksum is wrong, which is a typing error.
    """
    if not isinstance(text, str):
        raise TypeError(f"an address must be text, not {type(text).__name__}")
    digits = text[2:]
    if not text.startswith("0x") or len(digits) != 2 * ADDRESS_BYTES or not set(digits) <= _HEX_DIGITS:
        raise ConfigError("an address is 0x followed by 40 hex digits")
    address = bytes.fromhex(digits)
    if digits not in (digits.lower(), digits.upper()) and checksum_address(address) != text:
        raise ConfigError(f"the checksum of {text} is wrong: one of its digits is mistyped; copy it again")
    return address


_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")


def address_of(public: bytes) -> bytes:
    """Return the 20-byte address of a compressed public key (33 bytes); SignatureError if it is none."""
    if len(check_bytes("public key", public)) != 33:
        raise SignatureError(f"a compressed public key must be 33 bytes; got {len(public)}")
    try:
        return _address_of(coincurve.PublicKey(public))
    except ValueError:
        raise SignatureError("these 33 bytes are no point of secp256k1") from None


def _address_of(key: coincurve.PublicKey) -> bytes:
    # The leading 0x04 of the uncompressed form is not part of what Ethereum hashes (Yellow Paper, appendix F).
    return keccak256(key.format(compressed=False)[1:])[-ADDRESS_BYTES:]
