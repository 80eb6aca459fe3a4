"""Packed Paillier with a pad in every slot: the key holder and a second node open a sum only together.

With :mod:`flbc.schemes.paillier` alone, who holds the Paillier key reads every ciphertext it gets hold of. Here each
client i hides its values under pads that it shares with a *generator*, before it packs and encrypts for the
*authority*::

    slot        u_i = (x_i + P_i) mod 2^k       P_i = AES-256-CTR(HKDF(X25519(i, generator), label, nonce_i))
    server      Enc(Σ u_i)                      as before: it multiplies ciphertexts
    generator   f = Σ P_i − noise  (mod 2^k)    over the survivors; signed, one a round, without seeing a ciphertext
    authority   (Σ u_i − f) mod 2^k = Σ x_i + noise, read as a signed number

k bits hold every noised sum, and a slot has ``ceil(log2(max_parties))`` bits more, so that padded values add without a
carry. Tags and fixed unused slots are those of :mod:`flbc.schemes.paillier`. The pads are those of
:mod:`flbc.schemes.ndd_fe_pad`, derived for a purpose of their own.

Who learns what
    *Authority*, also together with the server, which hands it single ciphertexts: every slot is uniform, and with f it
    reads the noised sum of the survivors that f was derived for, and no other. *Generator*: nothing; together with the
    server: payloads under a Paillier key that it lacks. But it draws the noise, and who has both the noise and the
    published noised sum has the exact one. *Generator and authority* with the payloads: everything, which is why one
    node never serves as both. *Server and some clients*: the sum of the others, which is why ``min_survivors`` exists.
Why the parts of a sum that exceed 2^k tell nothing
    The u_i are uniform and independent of the x_i. What the authority decrypts, carries above bit k included, is a
    function of them alone, and given the u_i the key f is a function of Σ x_i + noise. So all that the authority says
    before it takes f away (whether tags and unused slots fit) depends on no update, and needs no noise; all that it
    says afterwards is a function of the noised sum. This is S13, with the noise in Z_2^k.
Malicious clients
    A client may send any integers (poisoning). One that fills a slot beyond its bits changes the next slot by a carry
    that depends on pads, not on anybody's values: it spoils accuracy, and does not learn from it.
What is not detected
    Whoever handles the hidden sum may add known numbers to its slots. Sums out of range are refused
    (:func:`flbc.schemes.base.check_range`).
Dropouts
    Before its payload arrived a client is not in the sum; afterwards it is not needed. Once f is derived, authority and
    generator answer for these survivors alone. Without either of them nothing is opened.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..crypto import paillier
from ..crypto.keystream import EncryptionKey, add_keystream
from ..crypto.packing import MAX_SLOT_BITS
from ..errors import CodecError, ConfigError
from .base import Contribution, Exchange, IntVector, SumSpec, check_range, check_survivors, vector_from_bytes
from .functional import derivation, join_request
from .ndd_fe_pad import SPARE_BITS, PadGenerator, word_type, words_of
from .paillier import PaillierCombiner, PaillierProtector
from .paillier_layout import Geometry, tag_info

_PAD = b"flbc/paillier/split/pad/1"


class SplitProtector(PaillierProtector):
    """Client half: pad, pack, tag, encrypt.

    Parameters
    ----------
    public : PublicKey
        The authority's key, already checked against the pins.
    spec : SumSpec
    authority, generator : bytes
        X25519 public keys, from the roster.
    key : EncryptionKey
        The client's own.

    Raises
    ------
    ConfigError
        If authority and generator are one.
    """

    def __init__(
        self, public: paillier.PublicKey, spec: SumSpec, authority: bytes, generator: bytes, key: EncryptionKey
    ) -> None:
        if authority == generator:
            raise ConfigError("One node cannot be authority and generator: it could open every single client")
        geometry = split_geometry(public, spec)
        super().__init__(public, spec, authority, key)
        self._geometry, self._word, self._generator = geometry, word_type(spec), generator

    def protect(self, values: IntVector, label: bytes, nonce: bytes) -> bytes:
        """Return the ciphertexts, fixed width, big-endian."""
        g = self._geometry
        g.spec.check(values)
        words = values.astype(self._word)
        add_keystream(self._key.agree(self._generator, derivation(_PAD, label, nonce)), words)
        words &= _mask(g.spec)
        tags = g.tags(self._key.agree(self._authority, tag_info(label, nonce)))
        plaintexts = g.pack(words.astype(np.uint64), tags)
        return paillier.ciphertexts_to_bytes(g.public, self._encryptor.encrypt(plaintexts))


class SplitCombiner(PaillierCombiner):
    """Server half: multiply ciphertexts, get the sum of the pads, have the sum opened with it.

    Parameters
    ----------
    public, spec
        As for the client.
    authority, generator : str
        Names in the roster.

    Raises
    ------
    ConfigError
        If one party is to serve as both.
    """

    def __init__(self, public: paillier.PublicKey, spec: SumSpec, authority: str, generator: str) -> None:
        super().__init__(public, spec, authority)
        if authority == generator:
            raise ConfigError(f"{authority!r} cannot be authority and generator: it could open every single client")
        self._geometry, self._generator = split_geometry(public, spec), generator

    def open(self, hidden: bytes, exchange: Exchange) -> IntVector | None:
        """Ask the generator, then the authority; None when one of them did not answer."""
        key = exchange({self._generator: b""}).get(self._generator)
        if key is None:
            return None
        answer = exchange({self._authority: join_request(key, hidden)}).get(self._authority)
        return None if answer is None else vector_from_bytes(answer, self._geometry.spec.length)


class SplitGenerator(PadGenerator):
    """Generator half: the pads of the survivors, added, minus the noise (S23)."""

    def __init__(self, spec: SumSpec, key: EncryptionKey) -> None:
        super().__init__(spec, key, _PAD)


class SplitDecryptor:
    """Authority half: decrypt, check tags and unused slots, take the generator's part away.

    It trusts its caller with S8 (one opening per round) and S12 (enough survivors); see :mod:`flbc.node.authority`.
    """

    def __init__(self, private: paillier.PrivateKey, spec: SumSpec, key: EncryptionKey) -> None:
        self._private, self._key = private, key
        self._geometry = split_geometry(private.public, spec)

    def open(self, hidden: bytes, function_key: bytes, label: bytes, survivors: Sequence[Contribution]) -> IntVector:
        """Return the (noised) sum of exactly ``survivors``.

        Raises
        ------
        CiphertextError
            If the hidden sum or the generator's part is malformed.
        OpeningRefusedError
            If it is not the sum of exactly these survivors, or a coordinate is larger than they can make it.
        """
        g = self._geometry
        check_survivors(g.spec, survivors)
        ciphertexts = paillier.ciphertexts_from_bytes(g.public, hidden, g.count)
        pads = words_of(function_key, g.spec)
        expected = g.tag_sums(self._key, label, survivors)
        words = g.read(self._private.decrypt(ciphertexts), expected, len(survivors)).astype(pads.dtype)
        np.subtract(words, pads, out=words)
        words &= _mask(g.spec)
        total = words.astype(np.int64)
        total[words >> np.uint8(g.spec.slot_bits - 1) > 0] -= 1 << g.spec.slot_bits
        check_range(total, g.spec, survivors)
        return total


def split_geometry(public: paillier.PublicKey, spec: SumSpec) -> Geometry:
    """Return how padded vectors lie in plaintexts, in slots of :func:`split_slot_bits`."""
    return Geometry(public, spec, split_slot_bits(spec))


def split_slot_bits(spec: SumSpec) -> int:
    """Return the width of a slot, which holds ``max_parties`` words of ``spec.slot_bits`` bits.

    Raises
    ------
    CodecError
        If it is too wide; says what to lower.
    """
    bits, word = spec.slot_bits + (spec.max_parties - 1).bit_length(), spec.slot_bits + SPARE_BITS
    if bits > MAX_SLOT_BITS or word > 64:
        raise CodecError(
            f"With opening='split' a slot takes {bits} bits (at most {MAX_SLOT_BITS}) and a padded sum {word} (at most "
            "64): fewer parties, fewer codec bits or fewer examples per client; or opening='authority'"
        )
    return bits


def _mask(spec: SumSpec) -> np.unsignedinteger:
    return word_type(spec).type((1 << spec.slot_bits) - 1)
