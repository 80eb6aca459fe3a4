"""A weighted mean through the real codec, keys, tags and ciphertexts, in one process: for comparisons."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..codec import Codec, Layout, VectorPlan
from ..crypto import paillier
from ..crypto.keystream import EncryptionKey
from ..schemes import Contribution, SumSpec
from ..schemes.paillier import PaillierCombiner, PaillierOpener, PaillierProtector


class EncryptedMean:
    """Callable that averages vectors under encryption; ranges follow from call to call, as over rounds.

    Parameters
    ----------
    key_bits : int (default: 3072)
        Size of the Paillier modulus; the key is made once per process.
    codec : Codec (default: Codec())
    """

    def __init__(self, key_bits: int = 3072, codec: Codec = Codec()) -> None:  # noqa: B008 - frozen
        self._private, self._authority = _keys(key_bits)
        self._codec = codec
        self._plan: VectorPlan | None = None

    def __call__(self, updates: Sequence[NDArray[np.float64]], weights: Sequence[int]) -> NDArray[np.float64]:
        """Return the weighted mean of ``updates``, each of shape (d,)."""
        if self._plan is None:
            self._plan = VectorPlan(Layout.of({"w": updates[0]}), self._codec)
            first = self._plan.first_frame()
            self._frame = type(first)(first.ranges, float(2 ** (max(weights) - 1).bit_length()))
            self._clients = [EncryptionKey.generate() for _ in updates]
        spec = SumSpec(self._plan.length, self._codec.max_abs, len(updates))
        public, label = self._private.public, secrets.token_bytes(32)
        payloads, survivors = {}, []
        for i, (update, weight, key) in enumerate(zip(updates, weights, self._clients, strict=True)):
            nonce = secrets.token_bytes(32)
            encoded = self._plan.encode({"w": update}, float(weight), {}, self._frame)
            protector = PaillierProtector(public, spec, self._authority.public, key)
            payloads[i] = protector.protect(encoded.values, label, nonce)
            survivors.append(Contribution(i, key.public, nonce))
        hidden = PaillierCombiner(public, spec, "authority").combine(payloads)
        total = PaillierOpener(self._private, spec, self._authority).open(hidden, label, survivors, None)
        opened = self._plan.decode(total, len(updates), 0, self._frame)
        self._frame = self._plan.next_frame(self._frame, opened)
        return opened.mean["w"]


@lru_cache(maxsize=2)
def _keys(bits: int) -> tuple[paillier.PrivateKey, EncryptionKey]:
    return paillier.generate(bits), EncryptionKey.generate()
