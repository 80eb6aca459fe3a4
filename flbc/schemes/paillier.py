"""Packed Paillier with one-time tags: the sum of Sun & Zhao 2025, section 3.2, steps 2, 3, 5 and 7.

Every client packs its integers into slots of a Paillier plaintext and encrypts them under the authority's key; anybody
multiplies ciphertexts, which adds plaintexts; only the authority decrypts. The paper hands the private key to a leader
(step 7), who could then open any single client. Here the authority keeps the key and opens one sum itself.

A plaintext, from the least significant bit::

    | value 0 | value 1 | ... | value s-1 | tag |        value = v + max_abs, so that every slot is >= 0

**Tags.** Ciphertexts are malleable: a colluding client could add another's ciphertext three times, or shift it into
unused slots. So the bits above the slots carry a one-time tag, PRF(HKDF(X25519(client, authority), label, nonce), i)
for ciphertext i. The authority knows every survivor's tag, and opens only if the tag field of each plaintext is the
sum of the tags of exactly these survivors, each once. A ciphertext taken from another round, scaled, shifted, dropped,
doubled or swapped changes the sum of tags except with probability 2^-tag_bits (at least 2^-40) per ciphertext, and a
failed attempt burns the round. Unused slots hold ``max_abs`` of every survivor, which is checked: otherwise multipliers
exist that leave the tag alone and put a scaled copy of a victim into the unused slots
(``tests/attacks/test_malleability.py`` finds one by lattice reduction).

**Noise** is added to the plaintext in Z_n *before* tags are checked and slots are read. Everything the authority says,
a refusal included, is then a function of the noised sum, so a client that makes a slot overflow exactly when the honest
sum exceeds a threshold learns no more than the noise allows: it spoils accuracy, not the guarantee (S13).

Who learns what
    *Server, clients, outsiders*: nothing but what the authority says (decisional composite residuosity, the
    short-exponent assumption of :mod:`flbc.crypto.paillier`, X25519). *Authority*: only sums it is asked to open;
    without noise the exact sum, with noise it knows its noise and so the exact sum too.
    *Server and authority together*: everything. *Server and some clients*: the sum of the others, which is why
    ``min_survivors`` exists. *Authority and a client*: the sum of the others.
What is not detected
    A client may send any integers within its slots (poisoning), or overflow them and spoil the sum of the round.
    Whoever handles the hidden sum, the server above all, may add known numbers to it; it stays as secret as it was.
Dropouts
    A client that drops before its payload arrived is not in the sum; afterwards it is not needed. The authority must
    be up to open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..crypto import paillier
from ..crypto.keystream import EncryptionKey
from .base import Contribution, Exchange, IntVector, Noise, SumSpec, check_survivors, vector_from_bytes
from .paillier_layout import Geometry, add_noise, signed_sum, tag_info


class PaillierProtector:
    """Client half: pack, tag, encrypt.

    Parameters
    ----------
    public : PublicKey
        The authority's key, already checked against the pins.
    spec : SumSpec
        Size of the sum.
    authority : bytes
        The authority's X25519 public key, from the roster.
    key : EncryptionKey
        The client's own X25519 key.
    """

    def __init__(self, public: paillier.PublicKey, spec: SumSpec, authority: bytes, key: EncryptionKey) -> None:
        self._geometry = Geometry(public, spec)
        self._encryptor = paillier.Encryptor(public)
        self._authority, self._key = authority, key

    @property
    def ciphertexts(self) -> int:
        """How many ciphertexts a payload has, each of which takes a blinding."""
        return self._geometry.count

    def refill(self, blindings: Sequence[int]) -> None:
        """Use blindings that were made ahead, each once."""
        self._encryptor.refill(blindings)

    def protect(self, values: IntVector, label: bytes, nonce: bytes) -> bytes:
        """Return the ciphertexts, fixed width, big-endian."""
        g = self._geometry
        g.spec.check(values)
        tags = g.tags(self._key.agree(self._authority, tag_info(label, nonce)))
        plaintexts = g.pack((values + g.spec.max_abs).astype(np.uint64), tags)
        return paillier.ciphertexts_to_bytes(g.public, self._encryptor.encrypt(plaintexts))


class PaillierCombiner:
    """Server half: multiply ciphertexts, ask the authority.

    Parameters
    ----------
    public, spec
        As for the client.
    authority : str
        Name of the authority in the roster.
    """

    def __init__(self, public: paillier.PublicKey, spec: SumSpec, authority: str) -> None:
        self._geometry, self._authority = Geometry(public, spec), authority

    @property
    def payload_bytes(self) -> int:
        """Length of every payload and of the hidden sum."""
        return self._geometry.count * self._geometry.public.bits // 4

    def check(self, payload: bytes) -> None:
        """Raise :class:`CiphertextError` unless the payload is a vector of ciphertexts of this key."""
        paillier.ciphertexts_from_bytes(self._geometry.public, payload, self._geometry.count)

    def combine(self, payloads: Mapping[int, bytes]) -> bytes:
        """Return the product of the ciphertext vectors."""
        g = self._geometry
        vectors = (paillier.ciphertexts_from_bytes(g.public, payloads[party], g.count) for party in sorted(payloads))
        return paillier.ciphertexts_to_bytes(g.public, paillier.add(g.public, vectors))

    def open(self, hidden: bytes, exchange: Exchange) -> IntVector | None:
        """Ask the authority; None when it did not answer."""
        answer = exchange({self._authority: hidden}).get(self._authority)
        return None if answer is None else vector_from_bytes(answer, self._geometry.spec.length)


class PaillierOpener:
    """Authority half: decrypt, add noise, check tags and padding, unpack.

    It trusts its caller with S8 (one opening per round), S12 (enough survivors) and S20 (budget); see
    :mod:`flbc.node.authority`.
    """

    def __init__(self, private: paillier.PrivateKey, spec: SumSpec, key: EncryptionKey) -> None:
        self._private, self._key = private, key
        self._geometry = Geometry(private.public, spec)

    def open(self, hidden: bytes, label: bytes, survivors: Sequence[Contribution], noise: Noise | None) -> IntVector:
        """Return the (noised) sum of exactly ``survivors``.

        Raises
        ------
        CiphertextError
            If ``hidden`` is not a vector of ciphertexts of this key; a key with fast opening does not open those that
            were blinded otherwise.
        OpeningRefusedError
            If it is not the sum of exactly these survivors; no detail is given.
        """
        g = self._geometry
        check_survivors(g.spec, survivors)
        ciphertexts = paillier.ciphertexts_from_bytes(g.public, hidden, g.count)
        expected = g.tag_sums(self._key, label, survivors)
        plaintexts = add_noise(g, self._private.decrypt(ciphertexts), noise)
        return signed_sum(g, g.read(plaintexts, expected, len(survivors)), len(survivors), noise)
