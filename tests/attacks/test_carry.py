"""S13: a client whose slot overflows exactly when the honest sum exceeds a threshold.

If noise is added after unpacking, the carry into the next slot tells about the exact sum, whatever the noise: two
neighbouring data sets are told apart with certainty. Added in Z_n before anything is read, it tells no more than the
noised sum does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flbc.crypto import paillier
from flbc.crypto.keystream import EncryptionKey
from flbc.crypto.packing import unpack
from flbc.errors import OpeningRefusedError
from flbc.privacy.noise import rounded_gaussian
from flbc.schemes import Contribution, SumSpec
from flbc.schemes.paillier import PaillierOpener, PaillierProtector

SIGMA, LENGTH, TRIALS = 2000.0, 4, 160
LABEL, NONCE = b"\x05" * 32, b"\x06" * 32


class Game:
    """Three honest clients whose first coordinates sum to ``99`` or ``100``, and a malicious fourth."""

    def __init__(self, key: paillier.PrivateKey) -> None:
        tail = int(9 * SIGMA) + 1
        self.spec = SumSpec(LENGTH, 2**15 - 1, 4, tail)
        self.key, self.authority = key, EncryptionKey.generate()
        self.clients = [EncryptionKey.generate() for _ in range(4)]
        self.survivors = [Contribution(i, k.public, NONCE) for i, k in enumerate(self.clients)]
        self.opener = PaillierOpener(key, self.spec, self.authority)
        self.geometry = self.opener._geometry
        self.honest = {0: self._sum(99), 1: self._sum(100)}

    def _sum(self, first: int) -> list[Any]:
        vectors = []
        for i in range(3):
            values = np.zeros(LENGTH, np.int64)
            values[0] = first if i == 0 else 0
            protector = PaillierProtector(self.key.public, self.spec, self.authority.public, self.clients[i])
            payload = protector.protect(values, LABEL, NONCE)
            vectors.append(paillier.ciphertexts_from_bytes(self.key.public, payload, 1))
        return paillier.add(self.key.public, vectors)

    def evil(self, carry_at: int) -> list[Any]:
        """A fourth ciphertext with a valid tag, whose slot 0 overflows iff the whole of slot 0 reaches ``carry_at``."""
        g = self.geometry
        k, offset = g.layout.slot_bits, self.spec.max_abs
        slots = [(1 << k) - carry_at] + [offset] * (g.layout.slots - 1)
        key = self.clients[3].agree(self.authority.public, b"flbc/paillier/tag/1" + LABEL + NONCE)
        tag = int(g.tags(key)[0]) << (k * g.layout.slots)
        return paillier.Encryptor(self.key.public).encrypt([tag + sum(v << (k * i) for i, v in enumerate(slots))])

    def weak(self, secret: int, evil: list[Any]) -> int:
        """Noise added after unpacking; the attacker looks at slot 1."""
        (plaintext,) = self.key.decrypt(paillier.add(self.key.public, [self.honest[secret], evil]))
        g = self.geometry
        low = int(plaintext) % (1 << (g.layout.slots * g.layout.slot_bits))
        slots = unpack([low], g.layout, LENGTH).astype(np.int64) - 4 * self.spec.max_abs
        return int((slots + rounded_gaussian(LENGTH, SIGMA))[0])

    def ours(self, secret: int, evil: list[Any]) -> int:
        vector = paillier.add(self.key.public, [self.honest[secret], evil])
        hidden = paillier.ciphertexts_to_bytes(self.key.public, vector)
        total = self.opener.open(hidden, LABEL, self.survivors, lambda count: rounded_gaussian(count, SIGMA))
        return int(total[0])

    def advantage(self, opened: Any, evil: list[Any]) -> float:
        """How often the best threshold tells 99 from 100."""
        secrets = [i % 2 for i in range(TRIALS)]
        seen = [opened(secret, evil) for secret in secrets]
        middle = (max(seen) + min(seen)) / 2
        right = sum((value > middle) == bool(secret) for secret, value in zip(secrets, seen, strict=True))
        return max(right, TRIALS - right) / TRIALS


@pytest.fixture(scope="module")
def game(opening_key: paillier.PrivateKey) -> Game:
    return Game(opening_key)


def test_weak_form_noise_after_unpacking_tells_neighbours_apart(game: Game) -> None:
    # Slot 0 of three honest clients holds 3 * offset + 99 or 100: carry at 100, noise or not.
    assert game.advantage(game.weak, game.evil(3 * game.spec.max_abs + 100)) == 1.0


def test_noise_in_the_group_of_the_sum_hides_the_carry(game: Game) -> None:
    # The attacker aims at the noised slot's centre: the best it can do is the Gaussian's own advantage (0.5002 here).
    advantage = game.advantage(game.ours, game.evil(3 * game.spec.max_abs + game.spec.noise_tail + 100))
    assert advantage < 0.5 + 4.5 * 0.5 / np.sqrt(TRIALS), "four and a half standard deviations above guessing"


def test_a_carry_out_of_the_last_slot_is_refused_only_through_the_noise(game: Game) -> None:
    """Refusals are answers too: a carry into the tag or the padding depends on the noised sum, not on the exact one."""
    g = game.geometry
    spec = SumSpec(g.layout.slots, game.spec.max_abs, 4, game.spec.noise_tail)
    opener = PaillierOpener(game.key, spec, game.authority)
    last = g.layout.slots - 1
    refused = {0: 0, 1: 0}
    trials = 60
    for secret in (0, 1):
        vectors = []
        for i in range(3):
            values = np.zeros(spec.length, np.int64)
            values[last] = 99 + secret if i == 0 else 0
            protector = PaillierProtector(game.key.public, spec, game.authority.public, game.clients[i])
            vectors.append(paillier.ciphertexts_from_bytes(game.key.public, protector.protect(values, LABEL, NONCE), 1))
        k = g.layout.slot_bits
        slots = [spec.max_abs] * last + [(1 << k) - (3 * spec.max_abs + spec.noise_tail + 100)]
        key = game.clients[3].agree(game.authority.public, b"flbc/paillier/tag/1" + LABEL + NONCE)
        tag = int(g.tags(key)[0]) << (k * g.layout.slots)
        evil = paillier.Encryptor(game.key.public).encrypt([tag + sum(v << (k * i) for i, v in enumerate(slots))])
        hidden = paillier.ciphertexts_to_bytes(game.key.public, paillier.add(game.key.public, [*vectors, evil]))
        for _ in range(trials):
            try:
                opener.open(hidden, LABEL, game.survivors, lambda count: rounded_gaussian(count, SIGMA))
            except OpeningRefusedError:
                refused[secret] += 1
    assert 0 < refused[0] < trials, "with the exact sum this would be never or always"
    assert abs(refused[0] - refused[1]) < 4.5 * np.sqrt(trials / 2)
