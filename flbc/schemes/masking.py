"""Pairwise masks in Z_2^k that cancel in the sum: secure aggregation in the SecAgg+ line, in two trips of a client.

After Bonawitz et al. 2017 (*Practical Secure Aggregation*, section 4) and Bell et al. 2020 (*Secure Single-Server
Aggregation*, section 3). Client i has an ephemeral key E_i and a seed b_i for this attempt (:mod:`.masking_keys`) and
neighbours N(i) (:mod:`.masking_graph`). It sends ::

    c_i = x_i + PRG(b_i, label, nonce_i) + Σ_{j in N(i)} ± PRG(X25519(E_i, E_j), label)   (mod 2^k)

with ``+`` where i's name comes before j's. All ± cancel between clients that both sent. To open the sum of the
survivors, each client gives, for every neighbour, one share: of b_j if j is in the sum, of E_j's secret if it is not.
From a threshold of shares the server takes the seeds' masks off the sum, and the masks that the missing clients left
in it. PRG is AES-256-CTR under a key from HKDF-SHA256; k is the number of bits that hold the sum, rounded up to bytes.

Trips
    The ephemeral public key and the sealed shares for round t + 1 ride on the signed submission of round t, so a round
    is two trips: send the masked vector, give the shares. Shares belong to those who take part in their round: when
    somebody comes or leaves, all deal anew, in one trip before. An ephemeral key is good for one round, and its owner
    uses it for one attempt; all attempts of a round are among the same clients.
Who learns what
    *Server, alone*: the sum of the survivors; single vectors stay under the seed's mask or under those of the
    neighbours. *Clients, outsiders*: nothing but what the next model shows. *Server and f members of a client's group
    of g*: still nothing of that client if f < 2t - g, t the threshold; with t > 2g/3 that is a third of the group (the
    count is below). With *f >= t* they read it. *Server and c clients of n*: the sum of the n - c others, which is why
    ``min_survivors`` exists.
Two stories
    A server may tell holders different lists of survivors. An honest holder answers one list per round, on disk before
    a share leaves it, and only a list in which every survivor has t of its group. To read a client of a full graph of n
    the server needs t - f honest holders that were told of each of the n - 1 - f honest neighbours as gone; each of the
    n - f can be told of n - t at most. With f < 2t - n that does not add up: (n - 1 - f)(t - f) > (n - f)(n - t). It
    can add up to a *sum* over fewer clients than any list names, though, of h = n - f honest ones about
    h - ⌊h (n - t)/(t - f)⌋: 9 of 16 without colluders, 2 with f just below the bound. On a ring (more than 19 clients)
    stories can differ from one side to the other: by estimate 3 colluders of 40 clients, 4 of 100, at places of the
    server's choice, suffice to read a client. **With a ledger** there is one story: the committee signs one list of
    survivors a round. Without one, a consistency round (Bonawitz et al., figure 4, round 3) would do the same for one
    more trip; it is not built.
The ring
    Its order follows from the task's number or, with a ledger, the chain's seed, and from who takes part. Who decides
    that, the server, can try many and keep one in which colluders lie well: they then cut the ring in two, and learn
    the sum of each part (by calculation, 14 colluders of 100 and half of the clients taking part: sums of 22). A third
    of ``min_survivors``, not of all clients, is what may collude.
Later theft
    Boxes are sealed to keys that nodes make for one run and use in one task; the long-term keys open none of them. A
    node keeps those of its eight newest tasks: who copies the files of t members of a group, and recorded the traffic,
    opens the rounds of these tasks.
Noise
    *Central*: the server adds it to the sum it opened; it knows the exact sum, and the guarantee holds against
    everybody else. *Distributed*: every client adds its part before masking; nobody sees a sum with less noise than
    that of the survivors who do not collude (:mod:`flbc.privacy.distributed`). Without a ledger that supposes one story
    about who survived: a sum over fewer clients carries less noise, and a larger epsilon.
What is not detected
    A client may send any integers (poisoning); they spoil the sum, as in the clear. Wrong shares are noticed, one
    liar in a group is named, more abandon the round; whose shares cannot be opened or do not fit is left out for some
    rounds.
Dropouts
    Before its vector arrived: its neighbours' masks are taken off with the shares of its key. After that: it is in the
    sum, its seed comes from the others. Before it gave shares: a threshold of the others suffices. Fewer in the group
    of any survivor, before or after: the round is abandoned and the model kept; nobody gives shares for another list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from ..crypto.keystream import KEY_BYTES, EncryptionKey, add_keystreams
from ..errors import CiphertextError, ConfigError
from .base import IntVector, Noise, SumSpec
from .masking_keys import MaskSecrets

Words: TypeAlias = NDArray[np.unsignedinteger[Any]]

_PAIR, _SELF = b"flbc/masking/pair/1", b"flbc/masking/self/1"


class Modulus:
    """Z_2^k with k = 8 * ``size``: how many bytes a value takes, and the words in which it is computed.

    Words are the residue in their low k bits. Whatever stands above means nothing: it is never packed, and carries only
    go up.

    Parameters
    ----------
    spec : SumSpec
    size : int or None (default: None)
        Bytes of a value; None: as few as hold the sum.

    Raises
    ------
    ConfigError
        If the sum does not fit.
    """

    def __init__(self, spec: SumSpec, size: int | None = None) -> None:
        self.size = -(-spec.slot_bits // 8) if size is None else size
        if not 1 <= self.size <= 8 or 8 * self.size < spec.slot_bits:
            raise ConfigError(
                f"A modulus of {8 * self.size} bits cannot hold the sum, which needs {spec.slot_bits}, and 64 are the "
                "most; lower Codec(bits=...), or the noise"
            )
        #: Masks are made for whole words, so words are the smallest that hold a value.
        self.word: np.dtype[Any] = np.dtype(f"u{1 << (self.size - 1).bit_length()}")
        self._wire = self.word.newbyteorder("<")

    def pack(self, words: Words) -> bytes:
        """Return the low bytes of every word, little-endian."""
        data = np.ascontiguousarray(words, self._wire)
        # As void: NumPy copies such fields one by one, at twice the speed of an array of their bytes.
        return np.ndarray(len(data), f"V{self.size}", data, 0, (self.word.itemsize,)).tobytes()

    def unpack(self, data: bytes, length: int) -> Words:
        """Undo :meth:`pack`, in fresh words; :class:`CiphertextError` if the length is wrong."""
        if len(data) != length * self.size:
            raise CiphertextError(f"A masked vector has {len(data)} bytes, expected {length * self.size}")
        # Whole words are read where values begin, so they overlap: above its own bytes a word has those of the next
        # value, or of the padding after the last.
        padded = data + bytes(self.word.itemsize - self.size)
        values: Words = np.ndarray(length, self._wire, padded, 0, (self.size,))
        return values.astype(self.word)

    def signed(self, words: Words) -> IntVector:
        """Return the residues between -2^(k-1) and 2^(k-1)."""
        shift = 8 * (self.word.itemsize - self.size)
        signed = (words << self.word.type(shift)).view(np.dtype(f"i{self.word.itemsize}"))
        result: IntVector = (signed >> shift).astype(np.int64)
        return result


def pair_key(own: EncryptionKey, peer: bytes, label: bytes) -> bytes:
    """Return the key of the mask that two clients share; :class:`VerificationError` if the peer's key is unusable."""
    return own.agree(peer, _PAIR + label)


def seed_key(seed: bytes, label: bytes, nonce: bytes) -> bytes:
    """Return the key of a client's own mask: the nonce makes it fresh in every submission (S7)."""
    return HKDF(SHA256(), KEY_BYTES, None, _SELF + label + nonce).derive(seed)


class MaskingProtector:
    """Client half: add noise, if it is the client's to add, and the masks.

    Parameters
    ----------
    spec : SumSpec
    name : str
        The client's.
    secrets : MaskSecrets
        Made for this attempt, used once.
    peers : mapping of str to bytes
        The neighbours' ephemeral public keys by name, verified by the caller.
    noise : callable or None (default: None)
        Draws the client's part of distributed noise.
    """

    def __init__(
        self, spec: SumSpec, name: str, secrets: MaskSecrets, peers: Mapping[str, bytes], noise: Noise | None = None
    ) -> None:
        self._spec, self._name, self._secrets, self._peers, self._noise = spec, name, secrets, dict(peers), noise
        self._modulus = Modulus(spec)

    def protect(self, values: IntVector, label: bytes, nonce: bytes) -> bytes:
        """Return the masked vector, ``Modulus.size`` bytes a value."""
        self._spec.check(values)
        words: Words = values.astype(self._modulus.word)
        if self._noise is not None:
            np.add(words, self._noise(self._spec.length).astype(self._modulus.word), out=words)
        masks = [(seed_key(self._secrets.seed, label, nonce), 1)]
        for name, public in self._peers.items():
            masks.append((pair_key(self._secrets.key, public, label), 1 if self._name < name else -1))
        add_keystreams(masks, words)
        return self._modulus.pack(words)


class MaskingAdder:
    """Adds masked vectors; what leader and committee recompute."""

    def __init__(self, spec: SumSpec) -> None:
        self.spec, self.modulus = spec, Modulus(spec)

    def check(self, payload: bytes) -> None:
        """Raise :class:`CiphertextError` unless the payload has the agreed length."""
        if len(payload) != self.spec.length * self.modulus.size:
            self.modulus.unpack(payload, self.spec.length)

    def combine(self, payloads: Mapping[int, bytes]) -> bytes:
        """Return the masked sum."""
        total: Words = np.zeros(self.spec.length, self.modulus.word)
        for party in sorted(payloads):
            np.add(total, self.modulus.unpack(payloads[party], self.spec.length), out=total)
        return self.modulus.pack(total)

    def unmask(
        self,
        hidden: bytes,
        label: bytes,
        seeds: Sequence[tuple[bytes, bytes]],
        gone: Sequence[tuple[str, EncryptionKey, Mapping[str, bytes]]],
        noise: Noise | None,
    ) -> IntVector:
        """Take off what is left of the masks, and add noise in the group of the sum (S13).

        Parameters
        ----------
        hidden : bytes
        label : bytes
        seeds : sequence of (bytes, bytes)
            Seed and nonce of every survivor.
        gone : sequence of (str, EncryptionKey, mapping)
            Name, ephemeral key, and surviving neighbours' public keys by name, of every client that is not in the sum.
        noise : callable or None
        """
        words = self.modulus.unpack(hidden, self.spec.length)
        masks = [(seed_key(seed, label, nonce), -1) for seed, nonce in seeds]
        for name, key, peers in gone:
            for peer, public in peers.items():  # the peer's mask towards the client that is gone stands in the sum
                masks.append((pair_key(key, public, label), -1 if peer < name else 1))
        add_keystreams(masks, words)
        if noise is not None:
            np.add(words, noise(self.spec.length).astype(self.modulus.word), out=words)
        return self.modulus.signed(words)
