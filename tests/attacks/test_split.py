"""``Paillier(opening="split")``: what each of the two nodes that open can do, alone and with the server (S8, S20, S23).

The weak form of every attack is plain packed Paillier, where the authority's key opens whatever it gets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from flbc.crypto import paillier
from flbc.crypto.keystream import EncryptionKey
from flbc.crypto.packing import unpack
from flbc.errors import (
    AlreadyOpenedError,
    BudgetExhaustedError,
    CiphertextError,
    CodecError,
    ConfigError,
    FlbcError,
    OpeningRefusedError,
    PolicyError,
    RosterError,
    VerificationError,
)
from flbc.node import NodeMemory, Policy, halves
from flbc.node.generator import KeyGenerator
from flbc.node.opening import pack_signed, unpack_key
from flbc.privacy import Privacy
from flbc.privacy.noise import rounded_gaussian
from flbc.privacy.planning import plan
from flbc.roster import Roster
from flbc.round import Signed
from flbc.schemes import Contribution, SumSpec
from flbc.schemes.base import vector_from_bytes
from flbc.schemes.paillier_split import (
    SplitCombiner,
    SplitDecryptor,
    SplitGenerator,
    SplitProtector,
    split_geometry,
    split_slot_bits,
)
from tests.support.parties import HOSPITALS, KEY_BITS, Consortium, identity

CLIENTS = 4
LABEL, NONCE = b"\x05" * 32, b"\x06" * 32


# ---------------------------------------------------------------------- the scheme alone
class Setup:
    """Four clients, an authority and a generator; the fourth client may collude."""

    def __init__(self, key: paillier.PrivateKey, length: int, tail: int = 0, max_abs: int = 2**15 - 1) -> None:
        self.key, self.spec = key, SumSpec(length, max_abs, CLIENTS, tail)
        self.authority, self.generator = EncryptionKey.generate(), EncryptionKey.generate()
        self.clients = [EncryptionKey.generate() for _ in range(CLIENTS)]
        self.survivors = [Contribution(i, k.public, NONCE) for i, k in enumerate(self.clients)]
        self.combiner = SplitCombiner(key.public, self.spec, "authority", "generator")
        self.decryptor = SplitDecryptor(key, self.spec, self.authority)
        self.geometry = self.decryptor._geometry

    def protect(self, client: int, values: Any) -> bytes:
        keys = self.authority.public, self.generator.public, self.clients[client]
        return SplitProtector(self.key.public, self.spec, *keys).protect(np.asarray(values, np.int64), LABEL, NONCE)

    def derive(self, survivors: list[Contribution], noise: Any = None) -> bytes:
        return SplitGenerator(self.spec, self.generator).derive(LABEL, survivors, noise)

    def slots(self, hidden: bytes) -> Any:
        """What the authority's key shows: every slot of a ciphertext vector, the tags cut off."""
        g = self.geometry
        vector = paillier.ciphertexts_from_bytes(g.public, hidden, g.count)
        low = [int(m) % (1 << g.layout.low_bits) for m in self.key.decrypt(vector)]
        return unpack(low, g.layout, g.padded)[: self.spec.length]


@pytest.fixture(scope="module")
def setup(opening_key: paillier.PrivateKey) -> Setup:
    return Setup(opening_key, 2000)


@pytest.mark.parametrize("value", [0, 2**15 - 1, -(2**15 - 1)])
def test_the_authority_reads_uniform_slots_of_a_single_client(setup: Setup, value: int) -> None:
    """Weak form: the same payload without pads is the value itself. Split: 2000 slots pass a chi-square test."""
    seen = setup.slots(setup.protect(0, np.full(2000, value)))
    bins = np.bincount((seen >> np.uint64(setup.spec.slot_bits - 4)).astype(np.int64), minlength=16)
    assert seen.max() < 2**setup.spec.slot_bits
    assert chisquare(bins).pvalue > 1e-6  # uniform: below this once in a million runs


def test_authority_and_server_cannot_use_the_generators_part_for_one_client(setup: Setup) -> None:
    """They hold all payloads, the key to every ciphertext, and the part for the sum of four."""
    values = [np.full(2000, 100 * (i + 1)) for i in range(CLIENTS)]
    payloads = {i: setup.protect(i, v) for i, v in enumerate(values)}
    key = setup.derive(setup.survivors)
    assert np.array_equal(
        setup.decryptor.open(setup.combiner.combine(payloads), key, LABEL, setup.survivors), sum(values)
    )
    with pytest.raises(OpeningRefusedError):  # as the honest code sees it: three clients' pads are left in
        setup.decryptor.open(payloads[0], key, LABEL, setup.survivors[:1])
    alone = (setup.slots(payloads[0]).astype(np.uint32) - np.frombuffer(key, "<u4")) % 2**setup.spec.slot_bits
    bins = np.bincount((alone >> (setup.spec.slot_bits - 4)).astype(np.int64), minlength=16)
    assert chisquare(bins).pvalue > 1e-6


def test_a_part_for_other_survivors_is_useless(setup: Setup) -> None:
    """The fourth client's pads are left in: uniform words, of which about all pass the range check of four clients."""
    payloads = {i: setup.protect(i, np.full(2000, 7)) for i in range(CLIENTS)}
    key = setup.derive(setup.survivors[:3])
    try:
        total = setup.decryptor.open(setup.combiner.combine(payloads), key, LABEL, setup.survivors)
    except OpeningRefusedError:
        return
    bins = np.bincount((total + 2 ** (setup.spec.slot_bits - 1)) >> (setup.spec.slot_bits - 4), minlength=16)
    assert chisquare(bins).pvalue > 1e-6


def test_the_generator_holds_nothing_that_opens_a_ciphertext(setup: Setup) -> None:
    """Its pads and the payload, as a server would hand it over: the Paillier key is still needed, and tags too."""
    payload = setup.protect(0, np.full(2000, 7))
    stranger = paillier.generate(1024, insecure_key_bits_for_tests=True)
    with pytest.raises(FlbcError):
        SplitDecryptor(stranger, setup.spec, setup.generator).open(payload, setup.derive([]), LABEL, setup.survivors)
    with pytest.raises(OpeningRefusedError):  # the right Paillier key under the generator's X25519: no tag fits
        SplitDecryptor(setup.key, setup.spec, setup.generator).open(
            payload, setup.derive(setup.survivors[:1]), LABEL, setup.survivors[:1]
        )


MALLEABLE: dict[str, Callable[[Any, int], list[Any]]] = {
    "copied": lambda v, n2: [v[0], v[1], v[2], v[0]],
    "scaled": lambda v, n2: [[pow(c, 3, n2) for c in v[0]], *v[1:]],
    "shifted": lambda v, n2: [[pow(c, 1 << 20, n2) for c in v[0]], *v[1:]],
    "dropped": lambda v, n2: v[1:],
    "one alone": lambda v, n2: [v[0]],
    "swapped": lambda v, n2: [v[0][::-1], *v[1:]],
}


@pytest.mark.parametrize("attack", MALLEABLE)
def test_copies_scaled_and_shifted_ciphertexts_are_refused(attack: str, setup: Setup) -> None:
    g = setup.geometry
    vectors = [
        paillier.ciphertexts_from_bytes(g.public, setup.protect(i, np.full(2000, i)), g.count) for i in range(CLIENTS)
    ]
    changed = MALLEABLE[attack](vectors, int(g.public.n) ** 2)
    hidden = paillier.ciphertexts_to_bytes(g.public, paillier.add(g.public, changed))
    with pytest.raises(OpeningRefusedError, match="exactly these survivors"):
        setup.decryptor.open(hidden, setup.derive(setup.survivors), LABEL, setup.survivors)


@given(
    st.integers(1, 2**20),
    st.integers(1, CLIENTS),
    st.integers(0, 2**20),
    st.lists(st.sampled_from([-1, 1]), min_size=6),
)
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_carry_at_the_extremes(
    opening_key: paillier.PrivateKey, max_abs: int, parties: int, tail: int, signs: list[int]
) -> None:
    s = Setup(opening_key, len(signs), tail, max_abs)
    extreme = np.array(signs, np.int64)
    payloads = {i: s.protect(i, extreme * max_abs) for i in range(parties)}
    part = s.derive(s.survivors[:parties], lambda count: extreme * tail)
    total = s.decryptor.open(s.combiner.combine(payloads), part, LABEL, s.survivors[:parties])
    assert np.array_equal(total, extreme * (parties * max_abs + tail))


def test_a_carry_of_a_malicious_client_depends_on_pads_and_on_nobodys_values(opening_key: paillier.PrivateKey) -> None:
    """S13: a slot filled up to its last bit. It makes the neighbour one larger or not, whatever the honest sum is."""
    s, carried = Setup(opening_key, 2), {99: 0, 100: 0}
    g, trials = s.geometry, 60
    k, slot = s.spec.slot_bits, s.geometry.layout.slot_bits
    for first in carried:
        for trial in range(trials):
            nonce = bytes([trial, first]) * 16
            listed = [Contribution(i, c.public, nonce) for i, c in enumerate(s.clients)]
            payloads = {
                i: SplitProtector(s.key.public, s.spec, s.authority.public, s.generator.public, s.clients[i]).protect(
                    np.array([first if i == 0 else 0, 0], np.int64), LABEL, nonce
                )
                for i in range(CLIENTS)
            }
            vector = paillier.ciphertexts_from_bytes(g.public, s.combiner.combine(payloads), g.count)
            # On top of its honest payload: 2^slot - 2 · 2^k, so that slot 0 overflows if the padded sum exceeds half.
            n = int(g.public.n)
            vector[0] = vector[0] * (1 + ((1 << slot) - (2 << k)) * n) % (n * n)
            total = s.decryptor.open(
                paillier.ciphertexts_to_bytes(g.public, vector),
                SplitGenerator(s.spec, s.generator).derive(LABEL, listed, None),
                LABEL,
                listed,
            )
            assert total[0] == first  # what was added is a multiple of 2^k
            carried[first] += int(total[1])
    assert abs(carried[99] - carried[100]) < 4.5 * np.sqrt(2 * trials * 0.25)
    assert 0 < carried[99] < trials


def test_noise_in_the_part_is_in_the_sum_before_anything_is_read(opening_key: paillier.PrivateKey) -> None:
    s = Setup(opening_key, 50, tail=9000)
    drawn: list[Any] = []

    def noise(count: int) -> Any:
        drawn.append(rounded_gaussian(count, 1000.0))
        return drawn[-1]

    payloads = {i: s.protect(i, np.full(50, 5)) for i in range(CLIENTS)}
    total = s.decryptor.open(s.combiner.combine(payloads), s.derive(s.survivors, noise), LABEL, s.survivors)
    assert np.array_equal(total, 20 + drawn[0])


def test_one_key_cannot_serve_as_both(setup: Setup) -> None:
    key, client = EncryptionKey.generate().public, setup.clients[0]
    with pytest.raises(ConfigError, match="cannot be authority and generator"):
        SplitProtector(setup.key.public, setup.spec, key, key, client)
    with pytest.raises(ConfigError, match="cannot be authority and generator"):
        SplitCombiner(setup.key.public, setup.spec, "x", "x")


@pytest.mark.parametrize("size", [0, 4, 7999, 8004])
def test_a_part_of_a_wrong_length_is_refused(setup: Setup, size: int) -> None:
    payloads = {i: setup.protect(i, np.zeros(2000)) for i in range(3)}
    with pytest.raises(CiphertextError, match="bytes, expected 8000"):
        setup.decryptor.open(setup.combiner.combine(payloads), bytes(size), LABEL, setup.survivors[:3])


# ---------------------------------------------------------------------- the nodes
@pytest.fixture
def make(tmp_path: Path, opening_key: paillier.PrivateKey) -> Callable[..., Consortium]:
    def make(**options: Any) -> Consortium:
        return Consortium.make(tmp_path / "nodes", opening_key, mode="split", **options)

    return make


Make = Callable[..., Consortium]


def test_a_round(make: Make) -> None:
    c = make()
    ticket = c.ticket()
    request = c.request(ticket, c.train_all(ticket))
    part = c.generator().derive(ticket, replace(request, hidden=b""))
    opening, total = c.authority().open(ticket, request, part)
    opening.verify(c.me["authority"].keys.signing.address, ticket.label.domain)
    mean = c.plan.decode(total, 4, 1, ticket.frame).mean["w"]
    np.testing.assert_allclose(mean, np.mean([0.25 * (i + 1) / 4 for i in range(4)]), atol=1e-3)


def trained(c: Consortium, round_: int = 1, attempt: int = 0) -> tuple[Any, Any]:
    ticket = c.ticket(round_, attempt)
    return ticket, c.train_all(ticket)


def test_the_authority_opens_nothing_without_the_generators_part(make: Make) -> None:
    c = make()
    ticket, replies = trained(c)
    with pytest.raises(FlbcError):
        c.authority().open(ticket, c.request(ticket, replies))


def test_the_part_of_an_authority_task_is_refused(make: Make) -> None:
    """A task of the mode "authority" has no use for a generator, and its authority for no part."""
    c = make()
    ticket, replies = trained(c)
    request = c.request(ticket, replies)
    part = c.generator().derive(ticket, request)
    c.config = replace(c.config, mode="authority")
    c.task = b"\x01" * 32
    plain, answers = trained(c)
    with pytest.raises(RosterError, match="without a generator"):
        c.generator().derive(plain, c.request(plain, answers))
    with pytest.raises(RosterError, match="does not open sums"):
        c.authority().open(plain, c.request(plain, answers), part)


@pytest.mark.parametrize("bits", [50, 57, 61])
def test_slots_that_are_too_wide_say_what_to_lower(bits: int, opening_key: paillier.PrivateKey) -> None:
    spec = SumSpec(5, 1 << bits, 200, 0, 1)
    advice = r"opening='split'.*fewer parties, fewer codec bits or fewer examples per client; or opening='authority'"
    with pytest.raises(CodecError, match=advice):
        split_geometry(opening_key.public, spec)
    with pytest.raises(CodecError, match=advice):
        split_slot_bits(spec)


def test_slots_are_as_wide_as_they_can_be(opening_key: paillier.PrivateKey) -> None:
    spec = SumSpec(5, 1 << 50, 8, 0, 1)
    assert split_geometry(opening_key.public, spec).layout.slot_bits == split_slot_bits(spec) == 58


def test_a_task_whose_slots_are_too_wide_is_refused_before_anybody_trains(make: Make) -> None:
    ticket = make().ticket()
    halves.check(ticket)
    vars(ticket)["spec"] = SumSpec(6, 1 << 57, 4, 0, 1)  # otherwise computed from the task on first use
    with pytest.raises(CodecError, match="or opening='authority'"):
        halves.check(ticket)


def test_a_second_part_in_a_round_would_give_the_difference_so_there_is_none(make: Make) -> None:
    """Weak form: a generator that forgets. The parts of four and of three differ by one client's pads."""
    c = make()
    ticket, replies = trained(c)
    fewer = {n: r for n, r in replies.items() if n != HOSPITALS[0]}
    forgetful = [c.generator(NodeMemory(c.folder / f"forgetful-{i}")) for i in range(2)]
    words = [
        np.frombuffer(unpack_key(g.derive(ticket, c.request(ticket, r)))[1], "<u4")
        for g, r in zip(forgetful, (replies, fewer), strict=True)
    ]
    decryptor = SplitDecryptor(c.key, ticket.spec, c.me["authority"].keys.encryption)
    nonce = replies[HOSPITALS[0]].submission.value.nonce
    who = Contribution(ticket.roster.index(HOSPITALS[0]), c.me[HOSPITALS[0]].keys.encryption.public, nonce)
    alone = decryptor.open(
        replies[HOSPITALS[0]].payload, (words[0] - words[1]).astype("<u4").tobytes(), ticket.label.hash, [who]
    )
    np.testing.assert_allclose(c.plan.decode(alone, 1, 1, ticket.frame).mean["w"], 0.25 / 4, atol=1e-3)
    # Ours remembers, over restarts.
    c.generator().derive(ticket, c.request(ticket, replies))
    with pytest.raises(AlreadyOpenedError):
        c.generator().derive(ticket, c.request(ticket, fewer))


def test_a_new_attempt_after_the_part_is_refused_and_the_same_block_gets_the_same_bytes(make: Make) -> None:
    mechanism = plan(Privacy(epsilon=1.0, unit="example"), dimension=6, rounds=2, max_examples=50)
    c = make(mechanism=mechanism, rounds=2)
    ticket = c.ticket()
    request = c.request(ticket, c.train_all(ticket))
    parts = {c.generator().derive(ticket, request) for _ in range(2)}
    assert len(parts) == 1
    answers = [c.authority().open(ticket, request, *parts) for _ in range(2)]
    assert vector_from_bytes(answers[0][1].tobytes(), 6).tolist() == answers[1][1].tolist()
    again = c.ticket(attempt=1)
    replies = {name: c.participant(name).submit(again) for name in HOSPITALS}
    with pytest.raises(AlreadyOpenedError):
        c.generator().derive(again, c.request(again, replies))


def test_the_budget_is_the_generators(make: Make) -> None:
    mechanism = plan(Privacy(epsilon=1.0, unit="example"), dimension=6, rounds=1, max_examples=50)
    c = make(mechanism=mechanism, rounds=3)
    ticket = c.ticket(1)
    request = c.request(ticket, c.train_all(ticket))
    opening, _ = c.authority().open(ticket, request, c.generator().derive(ticket, request))
    assert (opening.value.sigma > 0, 0 < opening.value.epsilon <= 1_000_000) == (True, True)
    ticket = c.ticket(2)
    with pytest.raises(BudgetExhaustedError):
        c.generator().derive(ticket, c.request(ticket, c.train_all(ticket)))


def test_a_part_of_another_block_or_of_another_signer_is_refused(make: Make) -> None:
    c = make()
    first, replies = trained(c)
    old = c.generator().derive(first, c.request(first, replies))
    ticket, replies = trained(c, 2)
    request = c.request(ticket, replies)
    with pytest.raises(VerificationError, match="another block"):
        c.authority().open(ticket, request, old)
    signed, key = unpack_key(c.generator().derive(ticket, request))
    forged = Signed.make(signed.value, identity("generator", ("generator",)).keys.signing, ticket.label.domain)
    with pytest.raises(VerificationError):
        c.authority().open(ticket, request, pack_signed(forged, key))
    with pytest.raises(VerificationError, match="not the one that the generator signed"):
        c.authority().open(ticket, request, pack_signed(signed, key[:-1] + bytes([key[-1] ^ 1])))


def test_a_wrong_sum_burns_the_round_of_the_authority(make: Make) -> None:
    c = make()
    ticket, replies = trained(c)
    by_index = {ticket.roster.index(n): r.payload for n, r in replies.items()}
    twice = c.combiner.combine({**by_index, 9: replies["hungary"].payload})
    request = c.request(ticket, replies, hidden=twice)
    part = c.generator().derive(ticket, request)
    with pytest.raises(OpeningRefusedError, match="burnt"):
        c.authority().open(ticket, request, part)
    honest = c.request(ticket, replies)
    forgetful = c.generator(NodeMemory(c.folder / "forgetful"))
    with pytest.raises(AlreadyOpenedError):
        c.authority().open(ticket, honest, forgetful.derive(ticket, honest))


def test_too_few_survivors_get_no_part(make: Make) -> None:
    c = make()
    ticket = c.ticket()
    with pytest.raises(OpeningRefusedError, match="2 survivors are fewer"):
        c.generator().derive(ticket, c.request(ticket, {n: c.train(n, ticket) for n in HOSPITALS[:2]}))


def test_the_generator_serves_in_no_other_role(make: Make) -> None:
    c = make()
    both = identity("generator", ("committee", "generator"))
    with pytest.raises(ConfigError, match='flbc-role="generator"'):
        KeyGenerator(both, c.pins, c.memory("generator"))
    c.me["generator"] = both
    c.pins.parties["generator"] = both.party()  # type: ignore[index]
    ticket = c.ticket(roster=c.roster)
    with pytest.raises(RosterError, match="serves in no other role"):
        c.train("cleveland", ticket)


def test_a_roster_without_a_generator_is_refused(make: Make) -> None:
    c = make()
    roster = Roster(tuple(party for party in c.roster.parties if party.name != "generator"))
    with pytest.raises(RosterError, match="exactly one generator, not 0"):
        c.train("cleveland", c.ticket(roster=roster))


def test_a_node_that_wants_two_to_open_is_not_talked_out_of_it(make: Make) -> None:
    """The server starts a task of the mode "authority" with the same keys. Weak form: a policy that names no mode."""
    c = make(policy=Policy(schemes=("paillier-split",), min_key_bits=KEY_BITS))
    trained(c)
    c.config, c.task = replace(c.config, mode="authority"), b"\x01" * 32
    with pytest.raises(PolicyError, match=r"does not accept scheme 'paillier', only \('paillier-split',\)"):
        trained(c)
    weak = make(policy=Policy(min_key_bits=KEY_BITS))
    weak.config = replace(weak.config, mode="authority")
    trained(weak)
