"""What every scheme must keep, written once.

A scheme's test class inherits :class:`SchemeContract`, implements :meth:`SchemeContract.make`, and sets the flags of
the properties that it cannot have. See ``test_contract.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flbc.errors import CiphertextError, CodecError, FlbcError, OpeningRefusedError
from flbc.schemes import Combiner, Contribution, IntVector, Noise, Protector, SumSpec

LABEL, OLD_LABEL = sha256(b"round 2").digest(), sha256(b"round 1").digest()
MAX_ABS, PARTIES, TAIL = 100, 5, 40
few = settings(max_examples=15, suppress_health_check=[HealthCheck.differing_executors])


def nonce(party: int) -> bytes:
    return sha256(b"nonce %d" % party).digest()


@dataclass
class Halves:
    """A scheme set up for some parties, and the honest server's part in using it.

    ``serve`` is what a helper answers: (its name, request, label, survivors, noise) to bytes.
    """

    spec: SumSpec
    protectors: Sequence[Protector]
    combiner: Combiner
    serve: Callable[[str, bytes, bytes, Sequence[Contribution], Noise | None], bytes]
    encryption: Sequence[bytes]
    multipliers: Sequence[int] = (1,) * PARTIES

    def contributions(self, parties: Sequence[int]) -> list[Contribution]:
        return [Contribution(p, self.encryption[p], nonce(p), self.multipliers[p]) for p in parties]

    def expected(self, vectors: dict[int, IntVector]) -> IntVector:
        return sum(self.multipliers[party] * vector for party, vector in vectors.items())

    def payloads(self, vectors: dict[int, IntVector], label: bytes = LABEL) -> dict[int, bytes]:
        return {party: self.protectors[party].protect(v, label, nonce(party)) for party, v in vectors.items()}

    def open(
        self,
        payloads: dict[int, bytes],
        survivors: Sequence[int] | None = None,
        noise: IntVector | None = None,
        label: bytes = LABEL,
        hidden: bytes | None = None,
    ) -> IntVector:
        """Combine and open, through an exchange of bytes as between nodes."""
        listed = self.contributions(sorted(payloads) if survivors is None else survivors)
        draw = None if noise is None else (lambda count: noise[:count])

        def exchange(requests):
            return {name: self.serve(name, request, label, listed, draw) for name, request in requests.items()}

        return self.combiner.open(self.combiner.combine(payloads) if hidden is None else hidden, exchange)

    def sum(self, vectors: dict[int, IntVector], noise: IntVector | None = None) -> IntVector:
        return self.open(self.payloads(vectors), noise=noise)


def constant(spec: SumSpec, value: int) -> IntVector:
    return np.full(spec.length, value, np.int64)


def pattern(spec: SumSpec, seed: int = 0) -> IntVector:
    return np.random.default_rng(seed).integers(-spec.max_abs, spec.max_abs, spec.length, np.int64, endpoint=True)


class SchemeContract:
    """Inherit, implement ``make``, and clear the flags of what the scheme cannot do."""

    #: A payload says nothing about its vector.
    hides: ClassVar[bool] = True
    #: A damaged payload or another codec's is refused (else its maker's signature is what protects it).
    detects_tampering: ClassVar[bool] = True
    #: The sum of other clients than those listed is refused.
    binds_survivors: ClassVar[bool] = True
    #: The helper can add noise while it opens.
    takes_noise: ClassVar[bool] = True
    #: The nonce enters a payload, so that one vector under one label is never hidden twice in the same way.
    uses_nonce: ClassVar[bool] = True

    @pytest.fixture(scope="session")
    @classmethod
    def make(cls) -> Callable[[SumSpec, int], Halves]:
        """Return a function from spec and number of parties to :class:`Halves`."""
        raise NotImplementedError

    @pytest.fixture(scope="session")
    @classmethod
    def slots(cls) -> int:
        """Coordinates that share one ciphertext (any number greater than 1 where nothing is packed)."""
        raise NotImplementedError

    @pytest.fixture(scope="session")
    @classmethod
    def halves(cls, make, slots) -> Halves:
        """Five parties and a vector that fills one ciphertext and half of another."""
        return make(SumSpec(slots + slots // 2, MAX_ABS, PARTIES, TAIL), PARTIES)

    # ------------------------------------------------------------------ exact sums
    @given(data=st.data())
    @few
    def test_sum_is_exact(self, halves, data):
        parties = data.draw(st.sets(st.integers(0, PARTIES - 1), min_size=1))
        value = st.integers(-MAX_ABS, MAX_ABS)
        vectors = {}
        for party in parties:
            head = data.draw(st.lists(value, min_size=3, max_size=3))
            vectors[party] = pattern(halves.spec, data.draw(st.integers(0, 99)))
            vectors[party][:3] = head
        assert np.array_equal(halves.sum(vectors), halves.expected(vectors))

    @pytest.mark.parametrize("value", [MAX_ABS, -MAX_ABS, 0])
    @pytest.mark.parametrize("noise", [None, TAIL, -TAIL])
    def test_saturation_in_every_slot(self, halves, value, noise):
        self.need_noise(noise)
        vectors = {party: constant(halves.spec, value) for party in range(PARTIES)}
        added = None if noise is None else constant(halves.spec, noise)
        assert np.array_equal(halves.sum(vectors, added), halves.expected(vectors) + (noise or 0))

    def test_alternating_extremes(self, halves):
        signs = np.where(np.arange(halves.spec.length) % 2, 1, -1)
        vectors = dict.fromkeys(range(PARTIES), signs * MAX_ABS)
        noise = signs * TAIL if self.takes_noise else None
        assert np.array_equal(halves.sum(vectors, noise), halves.expected(vectors) + (0 if noise is None else noise))

    @pytest.mark.parametrize(
        "length", [lambda s: 1, lambda s: s - 1, lambda s: s, lambda s: s + 1, lambda s: 2 * s, lambda s: 3 * s + 2]
    )
    def test_any_length(self, make, slots, length):
        spec = SumSpec(length(slots), MAX_ABS, 3, TAIL)
        vectors = {party: pattern(spec, party) for party in range(3)}
        noise = pattern(SumSpec(spec.length, TAIL, 1), 9) if self.takes_noise else None
        made = make(spec, 3)
        total = made.sum(vectors, noise)
        assert total.dtype == np.int64
        assert np.array_equal(total, made.expected(vectors) + (0 if noise is None else noise))

    def test_one_party_is_a_sum_too(self, make, slots):
        spec = SumSpec(slots, MAX_ABS, 1)
        made = make(spec, 1)
        assert np.array_equal(made.sum({0: pattern(spec)}), made.expected({0: pattern(spec)}))

    @pytest.mark.parametrize("survivors", [(0, 1, 2, 3), (1, 3, 4), (0, 4), (2,)])
    def test_parties_that_drop_before_upload_are_not_in_the_sum(self, halves, survivors):
        vectors = {party: pattern(halves.spec, party) for party in survivors}
        assert np.array_equal(halves.sum(vectors), halves.expected(vectors))

    # ------------------------------------------------------------------ noise
    def need_noise(self, noise: object = True) -> None:
        if noise is not None and not self.takes_noise:
            pytest.skip("this scheme takes no noise")

    def test_noise_is_added_exactly(self, halves):
        self.need_noise()
        vectors = {party: pattern(halves.spec, party) for party in range(3)}
        noise = pattern(SumSpec(halves.spec.length, TAIL, 1), 7)
        noise[:3] = TAIL, -TAIL, 0
        assert np.array_equal(halves.sum(vectors, noise), halves.expected(vectors) + noise)

    @pytest.mark.parametrize("excess", [1, 50])
    def test_noise_beyond_the_tail_is_not_cut_off(self, halves, excess):
        self.need_noise()
        noise = constant(halves.spec, 0)
        noise[0], noise[1], noise[-1] = TAIL + excess, -TAIL - excess, TAIL + excess
        vectors = {party: constant(halves.spec, 0) for party in range(PARTIES)}  # so that no slot overflows
        assert np.array_equal(halves.sum(vectors, noise), noise)

    # ------------------------------------------------------------------ helpers that do not answer
    def test_open_returns_none_when_no_helper_answers(self, halves):
        hidden = halves.combiner.combine(halves.payloads({0: constant(halves.spec, 1)}))
        assert halves.combiner.open(hidden, lambda requests: {}) is None

    def test_answer_of_a_wrong_length_is_refused(self, halves):
        hidden = halves.combiner.combine(halves.payloads({0: constant(halves.spec, 1)}))
        with pytest.raises(CodecError, match="bytes, expected"):
            halves.combiner.open(hidden, lambda requests: dict.fromkeys(requests, b"short"))

    # ------------------------------------------------------------------ other rounds
    def test_payload_of_an_old_label_is_refused(self, halves):
        payloads = halves.payloads({1: constant(halves.spec, 1), 2: constant(halves.spec, 2)})
        payloads |= halves.payloads({0: constant(halves.spec, 1)}, OLD_LABEL)
        with pytest.raises((OpeningRefusedError, CiphertextError)):
            halves.open(payloads)

    def test_sum_of_an_old_label_is_refused(self, halves):
        payloads = halves.payloads({party: constant(halves.spec, 1) for party in range(3)}, OLD_LABEL)
        with pytest.raises((OpeningRefusedError, CiphertextError)):
            halves.open(payloads)

    # ------------------------------------------------------------------ malformed and tampered payloads
    @pytest.mark.parametrize("damage", [lambda p: b"", lambda p: p[:-1], lambda p: p + b"\0", lambda p: p + p])
    def test_payload_of_a_wrong_length_is_refused(self, halves, damage):
        payloads = halves.payloads({0: constant(halves.spec, 1), 1: constant(halves.spec, 1)})
        damaged = damage(payloads[1])
        with pytest.raises(CiphertextError, match=r"bytes|length"):
            halves.combiner.check(damaged)
        with pytest.raises(CiphertextError, match=r"bytes|length"):
            halves.combiner.combine({0: payloads[0], 1: damaged})
        with pytest.raises(FlbcError):
            halves.open(payloads, [0], hidden=damaged)

    def test_honest_payload_passes_the_check(self, halves):
        for payload in halves.payloads({party: pattern(halves.spec, party) for party in range(2)}).values():
            halves.combiner.check(payload)

    def test_tampered_payload(self, halves):
        payloads = halves.payloads({party: constant(halves.spec, 0) for party in range(3)})
        payloads[1] = payloads[1][:-8] + bytes([payloads[1][-8] ^ 1]) + payloads[1][-7:]
        if self.detects_tampering:
            with pytest.raises((OpeningRefusedError, CiphertextError)):
                halves.open(payloads)
        else:
            assert np.count_nonzero(halves.open(payloads)) == 1

    def test_payload_for_another_length_is_refused(self, make, slots, halves):
        other = make(SumSpec(2 * slots + 1, MAX_ABS, PARTIES, TAIL), PARTIES)
        payload = other.payloads({0: constant(other.spec, 1)})[0]
        assert halves.combiner.combine(halves.payloads({0: constant(halves.spec, 1)}))
        with pytest.raises(CiphertextError, match=r"bytes|length"):
            halves.combiner.check(payload)

    def test_payload_for_another_codec_is_refused(self, make, halves):
        spec = SumSpec(halves.spec.length, 4 * MAX_ABS, PARTIES, TAIL)
        foreign = make(spec, PARTIES).payloads({0: constant(spec, 4 * MAX_ABS)})[0]
        payloads = {0: foreign, **halves.payloads({1: constant(halves.spec, 0)})}
        try:
            total = halves.open(payloads)
        except (OpeningRefusedError, CiphertextError):
            return
        assert not self.detects_tampering
        assert total[0] == halves.multipliers[0] * 4 * MAX_ABS

    # ------------------------------------------------------------------ vectors that do not fit
    @pytest.mark.parametrize("value", [MAX_ABS + 1, -MAX_ABS - 1, 2**62, np.iinfo(np.int64).min])
    def test_value_above_max_abs_is_not_protected(self, halves, value):
        values = constant(halves.spec, 0)
        values[-1] = value
        with pytest.raises(CodecError, match=f"exceeds the agreed magnitude {MAX_ABS}"):
            halves.protectors[0].protect(values, LABEL, nonce(0))

    @pytest.mark.parametrize("dtype", [np.int32, np.uint64, np.float64, np.bool_])
    def test_other_dtypes_are_not_protected(self, halves, dtype):
        with pytest.raises(CodecError, match="Expected int64 values"):
            halves.protectors[0].protect(np.zeros(halves.spec.length, dtype), LABEL, nonce(0))

    @pytest.mark.parametrize("shape", [lambda n: n - 1, lambda n: n + 1, lambda n: (n, 1), lambda n: 0])
    def test_other_shapes_are_not_protected(self, halves, shape):
        with pytest.raises(CodecError, match="Expected int64 values of shape"):
            halves.protectors[0].protect(np.zeros(shape(halves.spec.length), np.int64), LABEL, nonce(0))

    def test_protect_leaves_the_vector_alone(self, halves):
        values = pattern(halves.spec)
        halves.protectors[0].protect(values, LABEL, nonce(0))
        assert np.array_equal(values, pattern(halves.spec))

    # ------------------------------------------------------------------ exactly these clients, once each
    @pytest.mark.parametrize("listed", [(0, 1), (0, 1, 3), (0, 1, 2, 3), (2, 3, 4), (0, 1, 1), ()])
    def test_wrong_list_of_survivors(self, halves, listed):
        payloads = halves.payloads({party: constant(halves.spec, 1) for party in range(3)})
        if self.binds_survivors:
            with pytest.raises(OpeningRefusedError):
                halves.open(payloads, listed)
        else:
            assert np.array_equal(halves.open(payloads, listed), constant(halves.spec, 3))

    # ------------------------------------------------------------------ secrecy
    def test_payload_hides_its_vector(self, halves):
        spec = halves.spec
        same = halves.payloads({0: constant(spec, 7), 1: constant(spec, 7)})
        again = halves.protectors[0].protect(constant(spec, 7), LABEL, nonce(9))
        distinct = {same[0], same[1], again}
        assert len(distinct) == (1 if not self.hides else 3 if self.uses_nonce else 2)
        sizes = {len(p) for p in halves.payloads({0: constant(spec, 0), 1: constant(spec, MAX_ABS)}).values()}
        assert sizes == {len(again)}
