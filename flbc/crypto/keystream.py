"""Shared keys by X25519, and the one-time pads grown from them by AES-256-CTR.

Assumptions: computational Diffie-Hellman on Curve25519 with HKDF-SHA256 as a random oracle, and AES-256 as a
pseudo-random permutation. A key gives one keystream. Whoever needs two keystreams derives two keys, with different
`info`: an `info` that repeats for different data is a two-time pad and reveals the difference of the two.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from flbc.crypto._checks import Secret, check_bytes, check_int
from flbc.errors import VerificationError

KEY_BYTES = 32
PUBLIC_KEY_BYTES = 32

# Encrypting zeros in blocks that stay in the cache is 1.6 times faster than one call over many megabytes. Half as long,
# calls begin to count; twice as long, zeros, keystream and what it is added to no longer fit 1 MB of cache together.
_ZEROS = memoryview(bytes(1 << 17))


class EncryptionKey(Secret):
    """An X25519 secret key (RFC 7748). It has no readable repr and refuses to be pickled.

    Make one with `generate` or `from_bytes`.
    """

    __slots__ = ("_key", "_public")

    def __init__(self, key: X25519PrivateKey) -> None:
        if not isinstance(key, X25519PrivateKey):
            raise TypeError("use EncryptionKey.generate() or EncryptionKey.from_bytes(secret)")
        self._key = key
        self._public = key.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> EncryptionKey:
        """Draw a fresh key from the operating system's random generator."""
        return cls(X25519PrivateKey.generate())

    @classmethod
    def from_bytes(cls, secret32: bytes) -> EncryptionKey:
        """Load a secret of 32 bytes; any 32 bytes are one (they are clamped, RFC 7748, section 5)."""
        return cls(X25519PrivateKey.from_private_bytes(check_bytes("an encryption key", secret32, KEY_BYTES)))

    def to_bytes(self) -> bytes:
        """Return the secret, 32 bytes, for an encrypted key file only."""
        return self._key.private_bytes_raw()

    @property
    def public(self) -> bytes:
        """The public key, 32 bytes."""
        return self._public

    def agree(self, peer_public: bytes, info: bytes) -> bytes:
        """Derive the key that only this party and `peer_public` know, for one purpose.

        HKDF-SHA256 (RFC 5869, no salt) of the X25519 shared secret, with ``info ‖ lower ‖ higher public key``: both
        sides get the same bytes, and the key is bound to both identities.

        Parameters
        ----------
        peer_public : bytes
            32 bytes, already checked against the roster: the agreement itself authenticates nobody.
        info : bytes
            The purpose and the round, never used twice for different data.

        Returns
        -------
        bytes
            32 bytes.

        Raises
        ------
        VerificationError
            If `peer_public` is no key, or one of the low-order points that make every shared secret zero.
        """
        peer = check_bytes("peer_public", peer_public)
        info = check_bytes("info", info)
        if len(peer) != PUBLIC_KEY_BYTES:
            raise VerificationError(f"a peer's encryption key must be {PUBLIC_KEY_BYTES} bytes, not {len(peer)}")
        try:
            shared = self._key.exchange(X25519PublicKey.from_public_bytes(peer))
        except ValueError:
            raise VerificationError("the peer's encryption key is not usable: it must send a fresh one") from None
        low, high = sorted((self._public, peer))
        return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info + low + high).derive(shared)

    def __repr__(self) -> str:
        return f"<EncryptionKey public={self._public.hex()}>"


class Keystream(Secret):
    """AES-256-CTR with a zero nonce (NIST SP 800-38A, section 6.5), read piece by piece.

    The nonce may be zero because each key serves one keystream: it comes from a derivation whose info names the task,
    the round, the attempt, both parties and the direction.

    Parameters
    ----------
    key : bytes
        32 bytes, used for nothing else.
    """

    __slots__ = ("_encryptor",)

    def __init__(self, key: bytes) -> None:
        algorithm = algorithms.AES256(check_bytes("key", key, KEY_BYTES))
        self._encryptor = Cipher(algorithm, modes.CTR(bytes(16))).encryptor()

    def read_into(self, out: NDArray[np.generic]) -> None:
        """Overwrite an array with what comes next, without a copy.

        Parameters
        ----------
        out : ndarray
            Of integers, C-contiguous and writable. Its words are read as little-endian on every machine.
        """
        if not isinstance(out, np.ndarray) or not out.flags.c_contiguous or not out.flags.writeable:
            raise TypeError("out must be a C-contiguous, writable array")
        if out.dtype.kind not in "ui":
            raise TypeError(f"out must hold integers, not {out.dtype}")
        self.fill(out.reshape(-1).view(np.uint8).data)
        if out.dtype.newbyteorder("<") != out.dtype:
            out.byteswap(inplace=True)

    def fill(self, out: memoryview) -> None:
        """Overwrite bytes with what comes next."""
        for start in range(0, len(out), len(_ZEROS)):
            block = out[start : start + len(_ZEROS)]
            self._encryptor.update_into(_ZEROS[: len(block)], block)


def keystream(key: bytes, length: int) -> bytes:
    """Return the first `length` bytes of a :class:`Keystream`.

    Parameters
    ----------
    key : bytes
        32 bytes, used for nothing else.
    length : int
        Number of bytes, at least 0.
    """
    out = np.empty(check_int("length", length, 0, 1 << 62), np.uint8)
    keystream_into(key, out)
    return out.tobytes()


def keystream_into(key: bytes, out: NDArray[np.generic]) -> None:
    """Overwrite an array with the beginning of a :class:`Keystream`: the fast way to make a pad.

    Parameters
    ----------
    key : bytes
        32 bytes, used for nothing else.
    out : ndarray
        As in :meth:`Keystream.read_into`.
    """
    Keystream(key).read_into(out)


def add_keystream(key: bytes, words: NDArray[np.unsignedinteger[Any]], factor: int = 1) -> None:
    """Add ``factor`` times the keystream of `key` to an array: :func:`add_keystreams` with one key."""
    add_keystreams([(key, factor)], words)


def add_keystreams(keys: Iterable[tuple[bytes, int]], words: NDArray[np.unsignedinteger[Any]]) -> None:
    """Add multiples of keystreams to an array, in place and modulo its word size.

    All of them are added to a block that stays in the cache before the next block is touched. With ten keys that takes
    a tenth less time than a pass over the memory for each, and a fifth less where other processes fill the cache.

    Parameters
    ----------
    keys : iterable of (bytes, int)
        Keys of 32 bytes, used for nothing else, and their factors: any integers; -1 takes a keystream away again.
    words : ndarray of uint8, uint16, uint32 or uint64
        One-dimensional, C-contiguous and writable. The keystreams' words are read as little-endian.
    """
    if not isinstance(words, np.ndarray) or words.dtype not in (np.uint8, np.uint16, np.uint32, np.uint64):
        raise TypeError("words must be an array of uint8, uint16, uint32 or uint64")
    if words.ndim != 1 or not words.flags.c_contiguous or not words.flags.writeable:
        raise TypeError("words must be one-dimensional, C-contiguous and writable")
    size = words.dtype.itemsize
    streams = [(Keystream(key), factor, words.dtype.type(factor % (1 << (8 * size)))) for key, factor in keys]
    buffer = memoryview(bytearray(len(_ZEROS)))
    pads = np.frombuffer(buffer, words.dtype.newbyteorder("<"))
    for start in range(0, len(words), len(pads)):
        block = words[start : start + len(pads)]
        pad, filled = pads[: len(block)], buffer[: block.nbytes]
        for stream, factor, multiple in streams:
            stream.fill(filled)
            if factor == 1:
                np.add(block, pad, out=block)
            elif factor == -1:
                np.subtract(block, pad, out=block)
            else:
                np.add(block, pad * multiple, out=block)


def prf_words(key: bytes, count: int, bits: int) -> NDArray[np.uint64]:
    """Return `count` uniform integers of `bits` bits: the keystream's little-endian 8-byte words, masked.

    Parameters
    ----------
    key : bytes
        32 bytes, used for nothing else.
    count : int
        How many words, at least 0.
    bits : int
        1 to 64.

    Returns
    -------
    ndarray of uint64, shape (count,)
        Each below 2**bits.
    """
    words = np.empty(check_int("count", count, 0, 1 << 59), np.uint64)
    mask = np.uint64((1 << check_int("bits", bits, 1, 64)) - 1)
    keystream_into(key, words)
    np.bitwise_and(words, mask, out=words)
    return words
