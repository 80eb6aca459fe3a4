"""ESB-FL's functional encryption as printed is broken in five ways (``flbc/schemes/ndd_fe_paper.py``).

Each attack is one function over three modes. It works against the mode ``paper``; the same code finds nothing in
``group`` and ``pad``.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, ClassVar

import numpy as np
import pytest

from flbc.crypto.dlog import DiscreteLog
from flbc.crypto.group import (
    ORDER,
    GroupKey,
    add,
    decode_scalar,
    encode_scalar,
    hash_to_curve,
    multiply,
    negate,
    parse_points,
)
from flbc.crypto.keystream import EncryptionKey
from flbc.errors import OpeningRefusedError
from flbc.schemes import Contribution, SumSpec
from flbc.schemes.ndd_fe_group import GroupCombiner, GroupDecryptor, GroupGenerator, GroupProtector
from flbc.schemes.ndd_fe_pad import PadCombiner, PadDecryptor, PadGenerator, PadProtector
from flbc.schemes.ndd_fe_paper import (
    PaperCombiner,
    PaperDecryptor,
    PaperGenerator,
    PaperProtector,
    decrypt,
    encrypt,
    key_derive,
    setup,
    unlock,
)

CLIENTS, LENGTH, DROPPED = 4, 12, 2
LABEL = sha256(b"round 7").digest()
SPEC = SumSpec(LENGTH, 1000, CLIENTS)
X = np.random.default_rng(5).integers(-1000, 1000, (CLIENTS, LENGTH), np.int64, endpoint=True)
NOTHING = [None] * LENGTH

Element = Any
Found = list[int | None]


def secret(name: str) -> EncryptionKey:
    # Fixed keys: a pad that happens to look like a small number would otherwise fail a test once in 10^5 runs.
    return EncryptionKey.from_bytes(sha256(name.encode()).digest())


class Mode:
    """One mode after one round: what travelled, and what everybody can compute with it."""

    name: ClassVar[str]
    derived: ClassVar[Any] = GroupKey.derive

    def __init__(self) -> None:
        self.generator_key, self.decryptor_key = self.derived(secret("generator")), self.derived(secret("decryptor"))
        self.clients = [self.derived(secret(f"client {i}")) for i in range(CLIENTS)]
        self.pk1, self.pk3 = self.generator_key.public, self.decryptor_key.public
        self.nonces = [sha256(b"nonce %d" % i).digest() for i in range(CLIENTS)]
        self.protector, self.combiner, self.generator, self.decryptor = self.halves()
        self.payloads = {i: self.protect(i, X[i]) for i in range(CLIENTS)}

    def halves(self) -> tuple[Any, Any, Any, Any]:
        raise NotImplementedError

    def protect(self, client: int, vector: Any) -> bytes:
        half = self.protector(SPEC, self.pk1, self.pk3, self.clients[client])
        payload: bytes = half.protect(vector, LABEL, self.nonces[client])
        return payload

    def survivors(self, parties: Sequence[int], factor: int = 1) -> list[Contribution]:
        return [Contribution(i, self.clients[i].public, self.nonces[i], factor) for i in parties]

    def hidden(self, parties: Sequence[int], factor: int = 1) -> bytes:
        combiner = self.combiner(SPEC, [factor] * CLIENTS, "generator", "decryptor")
        return combiner.combine({i: self.payloads[i] for i in parties})

    def key(self, parties: Sequence[int]) -> bytes:
        """The generator's answer for these survivors."""
        return self.generator.derive(LABEL, self.survivors(parties), None)

    def opened(self, factor: int) -> Found:
        """The sum of all, each times a factor."""
        listed = self.survivors(range(CLIENTS), factor)
        key = self.generator.derive(LABEL, listed, None)
        return self.decryptor.open(self.hidden(range(CLIENTS), factor), key, LABEL, listed).tolist()

    def masks(self, client: int) -> list[Element]:
        """What the decryptor can take away from a payload (nothing in the paper's scheme).

        It is what is left of a protected zero vector once the generator's part is gone.
        """
        return self.unlocked(self.protect(client, 0 * X[client]), self.key([client]))

    # What an attacker does with hidden numbers, without anybody's secret:
    def elements(self, hidden: bytes) -> list[Element]:
        raise NotImplementedError

    def minus(self, a: Element, b: Element) -> Element:
        raise NotImplementedError

    def unlocked(self, hidden: bytes, key: bytes) -> list[Element]:
        """Take the generator's part away with a function key."""
        raise NotImplementedError

    def key_difference(self, a: bytes, b: bytes) -> bytes:
        raise NotImplementedError

    def read(self, elements: Sequence[Element]) -> Found:
        """Find the small numbers that stand there in clear."""
        raise NotImplementedError


class GroupMode(Mode):
    name = "group"

    def halves(self) -> tuple[Any, Any, Any, Any]:
        self.base = DiscreteLog(self.pk3, SPEC.bound)
        generator = GroupGenerator(SPEC, self.generator_key, self.pk3)
        return GroupProtector, GroupCombiner, generator, GroupDecryptor(SPEC, self.decryptor_key, self.pk1)

    def elements(self, hidden: bytes) -> list[Element]:
        return list(parse_points(hidden, LENGTH, "payload"))

    def minus(self, a: Element, b: Element) -> Element:
        return a if b is None else add([a, negate(b)])

    def unlocked(self, hidden: bytes, key: bytes) -> list[Element]:
        bases, f = hash_to_curve(LABEL, LENGTH), decode_scalar(key, "key")
        return [self.minus(c, multiply(H, f)) for c, H in zip(self.elements(hidden), bases, strict=True)]

    def key_difference(self, a: bytes, b: bytes) -> bytes:
        return encode_scalar(decode_scalar(a, "key") - decode_scalar(b, "key"))

    def read(self, elements: Sequence[Element]) -> Found:
        return self.base.solve(elements)  # pk3 is public


class PaperMode(GroupMode):
    name = "paper"

    def halves(self) -> tuple[Any, Any, Any, Any]:
        self.base = DiscreteLog(self.pk3, SPEC.bound)
        generator = PaperGenerator(SPEC, self.generator_key)
        return PaperProtector, PaperCombiner, generator, PaperDecryptor(SPEC, self.decryptor_key, self.pk1)

    def unlocked(self, hidden: bytes, key: bytes) -> list[Element]:
        return list(unlock(self.pk1, decode_scalar(key, "key"), [hidden], [1], LENGTH))

    def opened(self, factor: int) -> Found:
        """As printed: our halves refuse such a factor before they compute anything."""
        y = [factor] * CLIENTS
        c = [encrypt(self.pk1, key, self.pk3, LABEL, x, 1000) for key, x in zip(self.clients, X.tolist(), strict=True)]
        sk = key_derive(self.generator_key, [key.public for key in self.clients], LABEL, y)
        return DiscreteLog(setup().g, SPEC.bound).solve(list(decrypt(self.pk1, sk, self.decryptor_key, c, y, LENGTH)))


class PadMode(Mode):
    name = "pad"
    derived = staticmethod(lambda key: key)

    def halves(self) -> tuple[Any, Any, Any, Any]:
        decryptor = PadDecryptor(SPEC, self.decryptor_key)
        return PadProtector, PadCombiner, PadGenerator(SPEC, self.generator_key), decryptor

    def elements(self, hidden: bytes) -> list[Element]:
        return list(np.frombuffer(hidden, "<u4"))

    def minus(self, a: Element, b: Element) -> Element:
        return np.uint32((int(a) - int(b)) % 2**32)

    def unlocked(self, hidden: bytes, key: bytes) -> list[Element]:
        return [self.minus(c, f) for c, f in zip(self.elements(hidden), self.elements(key), strict=True)]

    def key_difference(self, a: bytes, b: bytes) -> bytes:
        return (np.frombuffer(a, "<u4") - np.frombuffer(b, "<u4")).astype("<u4").tobytes()

    def read(self, elements: Sequence[Element]) -> Found:
        signed = np.array(elements, np.uint32).view(np.int32).tolist()
        return [value if abs(value) <= SPEC.bound else None for value in signed]


@pytest.fixture(scope="module", params=[PaperMode, GroupMode, PadMode], ids=lambda kind: kind.name)
def mode(request) -> Mode:
    return request.param()


EVERYBODY = range(CLIENTS)
STAYED = [i for i in EVERYBODY if i != DROPPED]


# ---------------------------------------------------------------------- the attacks
def differences_of_one_payload(mode: Mode, client: int) -> Found:
    """Whoever sees a payload divides its elements by the first one."""
    first, *rest = mode.elements(mode.payloads[client])
    return mode.read([mode.minus(element, first) for element in rest])


def differences_by_the_decryptor(mode: Mode, client: int) -> Found:
    """The decryptor does it after taking the mask away; it has no function key."""
    pairs = zip(mode.elements(mode.payloads[client]), mode.masks(client), strict=True)
    first, *rest = [mode.minus(element, mask) for element, mask in pairs]
    return mode.read([mode.minus(element, first) for element in rest])


def sum_with_the_key_alone(mode: Mode, hidden: bytes, key: bytes) -> Found:
    """Whoever has a function key takes the generator's part away, and reads what is left."""
    return mode.read(mode.unlocked(hidden, key))


def client_with_the_generators_secret(mode: Mode, client: int) -> Found:
    """The generator makes itself a key to a single client."""
    return sum_with_the_key_alone(mode, mode.payloads[client], mode.key([client]))


def client_between_two_keys(mode: Mode, client: int) -> tuple[bytes, Found]:
    """Whoever has the keys with and without a client subtracts them: that is the key to this client."""
    key = mode.key_difference(mode.key(EVERYBODY), mode.key([i for i in EVERYBODY if i != client]))
    return key, sum_with_the_key_alone(mode, mode.payloads[client], key)


def mean_under_encryption(mode: Mode) -> Found:
    """Weights 1/h, as section 5.2.1 sets them."""
    return mode.opened(pow(CLIENTS, -1, ORDER))


# ---------------------------------------------------------------------- what comes of them
def test_the_round_opens_for_those_it_is_meant_for(mode):
    """All three modes give the decryptor the sum, so what fails below fails for a reason."""
    assert mode.opened(1) == X.sum(0).tolist()


def test_i_an_outsider_reads_differences_from_one_payload(mode):
    """Anybody who sees one client's payload divides its elements by the first and reads all differences of its values.

    The hardened modes hide every coordinate under a base or pad words of its own, so that a quotient says nothing.
    """
    for client in EVERYBODY:
        found = differences_of_one_payload(mode, client)
        truth = (X[client, 1:] - X[client, 0]).tolist()
        assert found == (truth if mode.name == "paper" else NOTHING[1:])


def test_i_the_decryptor_reads_them_neither(mode):
    """The decryptor takes its mask away from a payload and reads differences as the outsider does.

    What is left in the hardened modes, a base or pad word of its own for every coordinate, takes the function key.
    """
    for client in EVERYBODY:
        found = differences_by_the_decryptor(mode, client)
        truth = (X[client, 1:] - X[client, 0]).tolist()
        assert found == (truth if mode.name == "paper" else NOTHING[1:])


def test_i_one_known_coordinate_gives_the_client_away():
    """What differences are worth: a coordinate that is known, such as a dead unit's zero, makes them the vector."""
    found = differences_of_one_payload(PaperMode(), 1)
    assert [X[1, 0] + difference for difference in found] == X[1, 1:].tolist()


def test_ii_the_function_key_opens_without_the_decryptors_secret(mode):
    """Whoever gets hold of the function key, which the paper posts on its chain, opens the sum without being the
    decryptor.

    The hardened modes add a mask of each client that only the decryptor's secret takes away.
    """
    found = sum_with_the_key_alone(mode, mode.hidden(EVERYBODY), mode.key(EVERYBODY))
    assert found == (X.sum(0).tolist() if mode.name == "paper" else NOTHING)


def test_iii_the_generator_reads_every_client(mode):
    """The generator knows each client's randomness, takes it away from a single payload and reads the client.

    The hardened modes leave the client's mask for the decryptor in place, which the generator does not know.
    """
    for client in EVERYBODY:
        found = client_with_the_generators_secret(mode, client)
        assert found == (X[client].tolist() if mode.name == "paper" else NOTHING)


def test_iv_two_keys_of_one_round_open_the_client_between_them(mode):
    """Two function keys of one round, one from before and one from after a dropout, differ by the key to the dropped
    client, which anybody can then read.

    In the hardened modes the difference is useless without the decryptor's secret; against the decryptor itself only
    the generator's memory helps, which derives one key per round and no second one.
    """
    _, found = client_between_two_keys(mode, DROPPED)
    assert found == (X[DROPPED].tolist() if mode.name == "paper" else NOTHING)


def test_iv_the_decryptor_with_two_keys_reads_the_client_in_every_mode(mode):
    """No mode's mathematics stops the decryptor here: that is what rule S8, one key per task and round, is for."""
    key, _ = client_between_two_keys(mode, DROPPED)
    found = mode.decryptor.open(mode.payloads[DROPPED], key, LABEL, mode.survivors([DROPPED]))
    assert found.tolist() == X[DROPPED].tolist()
    # With the first key, or the second, the payload stays shut.
    for parties in (EVERYBODY, STAYED):
        with pytest.raises(OpeningRefusedError):
            mode.decryptor.open(mode.payloads[DROPPED], mode.key(parties), LABEL, mode.survivors([DROPPED]))


def test_v_weights_of_one_over_h_do_not_decode(mode):
    """The paper's weights 1/h modulo the order give a small logarithm, and so a result, only where h divides the sum.

    The hardened modes take small integer weights alone and divide the opened sum, which always decodes.
    """
    total = X.sum(0)
    if mode.name == "paper":
        truth = [int(s) // CLIENTS if s % CLIENTS == 0 else None for s in total]
        assert len(set(truth) - {None}) >= 2
        assert None in truth
        assert mean_under_encryption(mode) == truth
    else:
        with pytest.raises(OpeningRefusedError, match="multiplier is not from 1"):
            mean_under_encryption(mode)
    assert (np.array(mode.opened(1)) / CLIENTS == X.mean(0)).all()


def test_the_attacks_read_what_is_in_clear(mode):
    """The failures above are not the attacks' own: without mask and generator's part the same code reads on."""
    elements = mode.unlocked(mode.payloads[0], mode.key([0]))
    assert mode.read([mode.minus(a, b) for a, b in zip(elements, mode.masks(0), strict=True)]) == X[0].tolist()
