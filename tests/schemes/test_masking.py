"""Masks that cancel: the scheme's contract, dropouts, the graph, and shares that do not fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flbc.crypto.keystream import EncryptionKey
from flbc.crypto.shamir import SHARE_BYTES
from flbc.errors import CiphertextError, CodecError, ConfigError, OpeningRefusedError, ProtocolError, VerificationError
from flbc.schemes import IntVector, SumSpec
from flbc.schemes.masking import MaskingAdder, MaskingProtector, Modulus
from flbc.schemes.masking_graph import degree, neighbours, threshold
from flbc.schemes.masking_keys import BOX_BYTES, KEY, SEED, Dealing, MaskSecrets, deal, frame, open_box, unframe
from flbc.schemes.masking_opening import NO_SHARE, MaskingCombiner, give_shares, read_request
from tests.schemes.contract import LABEL, Halves, SchemeContract, constant, few, nonce, pattern

CONTEXT = sha256(b"task").digest() + b"\0\0\0\1"


@dataclass
class Round:
    """Clients that have dealt for a round, and an honest server."""

    spec: SumSpec
    names: list[str]
    graph: dict[str, tuple[str, ...]]
    box_keys: dict[str, EncryptionKey]
    secrets: dict[str, MaskSecrets]
    dealings: dict[str, Dealing]

    @classmethod
    def make(cls, spec: SumSpec, clients: int, share: float = 2 / 3) -> Round:
        names = [f"client-{i:03d}" for i in range(clients)]
        graph = neighbours(names, b"seed")
        keys = {name: EncryptionKey.generate() for name in names}
        secrets, dealings = {}, {}
        for name in names:
            holders = {peer: keys[peer].public for peer in graph[name]}
            dealt = deal(CONTEXT, name, holders, threshold(len(holders) + 1, share))
            secrets[name], dealings[name] = dealt
        return cls(spec, names, graph, keys, secrets, dealings)

    def protector(self, name: str, noise: Any = None) -> MaskingProtector:
        peers = {peer: self.dealings[peer].public for peer in self.graph[name]}
        return MaskingProtector(self.spec, name, self.secrets[name], peers, noise)

    def combiner(self, survivors: Sequence[int], label: bytes = LABEL, noise: Any = None) -> MaskingCombiner:
        nonces = {self.names[i]: nonce(i) for i in survivors}
        return MaskingCombiner(self.spec, label, self.dealings, nonces, self.graph, noise)

    def give(self, holder: str, request: bytes, alive: set[str]) -> bytes:
        publics = {name: dealing.public for name, dealing in self.dealings.items()}
        kinds = {name: SEED if name in alive else KEY for name in self.names}
        own = self.secrets[holder].share if holder in alive else None
        return give_shares(self.box_keys[holder], holder, CONTEXT, request, publics, kinds, own)

    def open(
        self,
        payloads: dict[int, bytes],
        gone_before_unmask: Sequence[int] = (),
        change: Callable[[str, bytes], bytes] = lambda name, answer: answer,
        noise: Any = None,
    ) -> IntVector | None:
        combiner = self.combiner(sorted(payloads), noise=noise)
        alive, silent = {self.names[i] for i in payloads}, {self.names[i] for i in gone_before_unmask}

        def exchange(requests):
            return {
                name: change(name, self.give(name, request, alive))
                for name, request in requests.items()
                if name in alive - silent
            }

        total = combiner.open(combiner.combine(payloads), exchange)
        self.liars = combiner.liars
        return total

    def payloads(self, vectors: dict[int, IntVector]) -> dict[int, bytes]:
        return {i: self.protector(self.names[i]).protect(v, LABEL, nonce(i)) for i, v in vectors.items()}


@dataclass
class MaskedHalves(Halves):
    """The contract's view: a combiner knows the survivors of one opening."""

    round: Round = field(kw_only=True)

    def open(self, payloads, survivors=None, noise=None, label=LABEL, hidden=None):
        draw = None if noise is None else (lambda count: noise[:count])
        listed = sorted(payloads) if survivors is None else list(survivors)
        if len(set(listed)) != len(listed):
            raise OpeningRefusedError("twice")  # a mapping by name cannot say it
        combiner = self.round.combiner(listed, label, draw)
        alive = {self.round.names[i] for i in listed}

        def exchange(requests):
            # Holders of dealings that are not in the sum help all the same.
            return {name: self.round.give(name, request, alive) for name, request in requests.items()}

        return combiner.open(combiner.combine(payloads) if hidden is None else hidden, exchange)


class TestMasking(SchemeContract):
    detects_tampering = False

    @pytest.fixture(scope="session")
    @classmethod
    def make(cls):
        def make(spec: SumSpec, parties: int) -> Halves:
            made = Round.make(spec, parties)
            protectors = [made.protector(name) for name in made.names]
            combiner = made.combiner(range(parties))

            def serve(*arguments: Any) -> bytes:
                raise AssertionError("MaskedHalves opens by itself")

            publics = [made.dealings[name].public for name in made.names]
            return MaskedHalves(spec, protectors, combiner, serve, publics, round=made)

        return make

    @pytest.fixture(scope="session")
    @classmethod
    def slots(cls):
        return 8


SPEC = SumSpec(50, 1000, 32)


def vectors(parties: Sequence[int]) -> dict[int, IntVector]:
    return {i: pattern(SPEC, i) for i in parties}


# ---------------------------------------------------------------------- dropouts
@pytest.mark.parametrize(
    ("clients", "before_upload", "before_unmask"),
    [
        (3, (), ()),
        (4, (), (2,)),
        (4, (1,), ()),
        (10, (), (0, 4, 9)),
        (10, (0, 4, 9), ()),
        (10, (1, 2), (7,)),
        (24, (0, 5), (11,)),
        (24, (), (3, 17)),
    ],
)
def test_dropouts_are_recovered(clients: int, before_upload: tuple[int, ...], before_unmask: tuple[int, ...]) -> None:
    made = Round.make(SPEC, clients)
    sent = vectors([i for i in range(clients) if i not in before_upload])
    assert np.array_equal(made.open(made.payloads(sent), before_unmask), sum(sent.values()))


@pytest.mark.parametrize(("clients", "silent"), [(3, (1,)), (4, (0, 1)), (10, (0, 1, 2, 3))])
def test_below_the_threshold_nothing_is_opened(clients: int, silent: tuple[int, ...]) -> None:
    made = Round.make(SPEC, clients)
    assert made.open(made.payloads(vectors(range(clients))), silent) is None


@few
@given(st.data())
def test_any_dropouts_within_the_threshold(data: Any) -> None:
    clients = data.draw(st.integers(3, 12))
    slack = clients - threshold(clients)
    gone = data.draw(st.sets(st.integers(0, clients - 1), max_size=slack))
    early = data.draw(st.sets(st.sampled_from(sorted(gone)))) if gone else set()
    made = Round.make(SPEC, clients)
    sent = vectors([i for i in range(clients) if i not in early])
    assert np.array_equal(made.open(made.payloads(sent), sorted(gone - early)), sum(sent.values()))


def test_a_single_share_short_is_not_enough_of_the_key() -> None:
    """The server cannot take a seed's mask off with fewer shares than the threshold."""
    made = Round.make(SPEC, 4)
    payloads = made.payloads(vectors(range(4)))
    combiner = made.combiner(range(4))
    given = {n: combiner.read(n, made.give(n, r, set(made.names))) for n, r in combiner.requests().items()}
    assert combiner.missing(given) == []
    for name in made.names[:2]:
        del given[name]
    assert combiner.missing(given) == made.names
    assert payloads


def test_noise_of_clients_is_inside_the_masks() -> None:
    made = Round.make(SPEC, 4)
    noisy = {i: made.protector(made.names[i], lambda count, i=i: np.full(count, 10**i)) for i in range(4)}
    payloads = {i: p.protect(constant(SPEC, 0), LABEL, nonce(i)) for i, p in noisy.items()}
    assert np.array_equal(made.open(payloads), constant(SPEC, 1111))


# ---------------------------------------------------------------------- graph and threshold
@pytest.mark.parametrize(
    ("clients", "expected"), [(3, 2), (10, 9), (16, 15), (18, 17), (20, 18), (100, 28), (1000, 40)]
)
def test_degree(clients: int, expected: int) -> None:
    assert degree(clients) == expected


@given(st.integers(1, 60), st.binary(min_size=1, max_size=8))
def test_neighbours_are_mutual_and_as_many_as_agreed(clients: int, seed: bytes) -> None:
    names = [str(i) for i in range(clients)]
    graph = neighbours(names, seed)
    assert sorted(graph) == sorted(names)
    for name, peers in graph.items():
        assert len(set(peers)) == len(peers) == degree(clients)
        assert name not in peers
        assert list(peers) == sorted(peers)
        assert all(name in graph[peer] for peer in peers)


def test_the_ring_depends_on_the_seed() -> None:
    names = [str(i) for i in range(40)]
    assert neighbours(names, b"a") == neighbours(names[::-1], b"a")
    assert neighbours(names, b"a") != neighbours(names, b"b")


@pytest.mark.parametrize(("group", "need"), [(3, 3), (4, 3), (5, 4), (6, 5), (9, 7), (10, 7), (29, 20), (100, 67)])
def test_threshold_is_more_than_two_thirds(group: int, need: int) -> None:
    assert threshold(group) == need
    assert 3 * need > 2 * group


@pytest.mark.parametrize("fraction", [0.49, 1.0, -1.0, 2.0, float("nan"), 1, "2/3", None])
def test_a_threshold_that_protects_nobody_is_refused(fraction: Any) -> None:
    with pytest.raises(ConfigError, match="threshold"):
        threshold(10, fraction)


@given(st.integers(3, 200), st.floats(0.5, 0.99))
def test_two_kinds_of_shares_never_both_reach_the_threshold(group: int, fraction: float) -> None:
    """Honest members give one share each; t of both kinds take 2t > group of them."""
    assert 2 * threshold(group, fraction) > group


# ---------------------------------------------------------------------- modulus
@pytest.mark.parametrize(
    ("max_abs", "parties", "size"),
    [(1, 1, 1), (63, 1, 1), (64, 2, 2), (32767, 10, 3), (2**29, 3, 4), (2**31, 3, 5), (2**60, 3, 8)],
)
def test_as_few_bytes_as_hold_the_sum(max_abs: int, parties: int, size: int) -> None:
    spec = SumSpec(3, max_abs, parties)
    modulus = Modulus(spec)
    assert modulus.size == size
    extremes = np.array([spec.bound, -spec.bound, 0])
    words = extremes.astype(modulus.word)
    assert np.array_equal(modulus.signed(words), extremes)
    assert np.array_equal(modulus.signed(modulus.unpack(modulus.pack(words), 3)), extremes)


@pytest.mark.parametrize(("max_abs", "size"), [(2**62, None), (127, 1), (2**31, 4), (1, 0), (1, 9)])
def test_a_modulus_too_small_for_the_sum_is_refused_at_construction(max_abs: int, size: int | None) -> None:
    with pytest.raises(ConfigError, match="cannot hold the sum"):
        Modulus(SumSpec(3, max_abs, 2), size)


def residues(modulus: Modulus, words: Any) -> list[int]:
    """Return words without what stands above the modulus."""
    return [int(word) % 2 ** (8 * modulus.size) for word in words]


@given(st.integers(1, 8), st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=40))
def test_pack_is_undone(size: int, numbers: list[int]) -> None:
    """Every size, every length from 1, and anything above the modulus."""
    modulus = Modulus(SumSpec(len(numbers), 1, 1), size)
    words = np.array(numbers, np.uint64).astype(modulus.word)
    packed = modulus.pack(words)
    assert packed == b"".join((n % 256**size).to_bytes(size, "little") for n in numbers)
    unpacked = modulus.unpack(packed, len(numbers))
    assert residues(modulus, unpacked) == [n % 256**size for n in numbers]
    assert modulus.pack(unpacked) == packed
    unpacked += 1  # in fresh memory, and writable
    assert modulus.pack(words) == packed
    half, whole = 2 ** (8 * size - 1), 256**size
    assert modulus.signed(words).tolist() == [(n + half) % whole - half for n in numbers]


@pytest.mark.parametrize("size", range(1, 9))
def test_pack_of_more_values_than_a_block_of_the_cache(size: int) -> None:
    modulus = Modulus(SumSpec(100_003, 1, 1), size)
    words = np.random.default_rng(size).integers(0, 2**64, 100_003, np.uint64).astype(modulus.word)
    packed = modulus.pack(words)
    assert (
        packed == words.astype(words.dtype.newbyteorder("<")).view(np.uint8).reshape(len(words), -1)[:, :size].tobytes()
    )
    assert residues(modulus, modulus.unpack(packed, len(words))) == residues(modulus, words)


@given(st.integers(1, 8), st.lists(st.integers(0, 2**64), min_size=9, max_size=9))
def test_what_stands_above_the_modulus_changes_no_sum(size: int, above: list[int]) -> None:
    rows = np.array([[1, -1, 0], [1, 1, 0], [1, 1, -1]])
    modulus = Modulus(SumSpec(3, 1, 3), size)
    word = 256**modulus.word.itemsize
    dirty = [(int(n) + high * 256**size) % word for n, high in zip(rows.flat, above, strict=True)]
    total = np.array(dirty, np.uint64).astype(modulus.word).reshape(3, 3).sum(axis=0, dtype=modulus.word)
    assert modulus.signed(total).tolist() == [3, 1, -1]
    assert modulus.signed(modulus.unpack(modulus.pack(total), 3)).tolist() == [3, 1, -1]


@pytest.mark.parametrize(("size", "word"), [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (6, 8), (7, 8), (8, 8)])
def test_words_are_the_smallest_that_hold_a_value(size: int, word: int) -> None:
    modulus = Modulus(SumSpec(3, 1, 1), size)
    assert modulus.word == np.dtype(f"u{word}")


@pytest.mark.parametrize("size", range(1, 9))
@pytest.mark.parametrize("change", [-1, 1])
def test_a_vector_of_another_length_is_refused(size: int, change: int) -> None:
    modulus = Modulus(SumSpec(3, 1, 1), size)
    with pytest.raises(CiphertextError, match=f"{3 * size + change} bytes, expected {3 * size}"):
        modulus.unpack(bytes(3 * size + change), 3)


# ---------------------------------------------------------------------- shares that do not fit
def damaged(answer: bytes, place: int = 0) -> bytes:
    start = place * SHARE_BYTES
    share = int.from_bytes(answer[start : start + SHARE_BYTES]) ^ 1
    return answer[:start] + share.to_bytes(SHARE_BYTES) + answer[start + SHARE_BYTES :]


def test_one_liar_among_more_than_a_threshold_is_named() -> None:
    made = Round.make(SPEC, 10)
    sent = vectors(range(10))
    lie = lambda name, answer: damaged(answer, 4) if name == made.names[2] else answer  # noqa: E731
    assert np.array_equal(made.open(made.payloads(sent), (), lie), sum(sent.values()))
    assert made.liars == {made.names[2]}


def test_shares_that_do_not_fit_burn_the_round() -> None:
    made = Round.make(SPEC, 4)
    lie = lambda name, answer: damaged(answer) if name in made.names[1:3] else answer  # noqa: E731
    with pytest.raises(OpeningRefusedError, match="do not fit what it dealt"):
        made.open(made.payloads(vectors(range(4))), (), lie)


def test_a_client_that_dealt_something_else_than_it_used_is_noticed() -> None:
    made = Round.make(SPEC, 4)
    payloads = made.payloads(vectors(range(4)))
    other = Round.make(SPEC, 4)
    name = made.names[0]
    made.dealings[name] = Dealing(
        made.dealings[name].public, other.dealings[name].commitments, 3, made.dealings[name].boxes
    )
    with pytest.raises(OpeningRefusedError, match="'client-000' do not fit"):
        made.open(payloads)


@pytest.mark.parametrize("change", [lambda a: a[:-1], lambda a: a + b"\0", lambda a: b""])
def test_shares_of_a_wrong_length_are_refused(change: Callable[[bytes], bytes]) -> None:
    made = Round.make(SPEC, 4)
    with pytest.raises(CodecError, match="bytes, expected"):
        made.open(made.payloads(vectors(range(4))), (), lambda name, answer: change(answer))


# ---------------------------------------------------------------------- boxes
@pytest.fixture
def four() -> Round:
    return Round.make(SPEC, 4)


def test_a_box_opens_for_its_recipient_round_key_and_sender_only(four: Round) -> None:
    sender, recipient, other = four.names[:3]
    dealing = four.dealings[sender]
    box, key = dealing.boxes[recipient], four.box_keys[recipient]
    shares = open_box(key, CONTEXT, dealing.public, sender, recipient, box)
    assert set(shares) == {KEY, SEED}
    for arguments in [
        (four.box_keys[other], CONTEXT, dealing.public, sender, recipient),
        (key, sha256(b"another task").digest() + CONTEXT[32:], dealing.public, sender, recipient),
        (key, CONTEXT[:-1] + b"\2", dealing.public, sender, recipient),
        (key, CONTEXT, four.dealings[other].public, sender, recipient),
        (key, CONTEXT, dealing.public, other, recipient),
        (key, CONTEXT, dealing.public, sender, other),
    ]:
        with pytest.raises(VerificationError):
            open_box(*arguments, box)


def test_a_box_that_cannot_be_opened_stops_nobody_else(four: Round) -> None:
    """A client that seals rubbish to one neighbour: that share is missing, the others are given."""
    victim = four.names[1]
    rubbish = dict(four.dealings[four.names[0]].boxes) | {victim: bytes(BOX_BYTES)}
    old = four.dealings[four.names[0]]
    four.dealings[four.names[0]] = Dealing(old.public, old.commitments, old.threshold, rubbish)
    sent = vectors(range(4))
    assert np.array_equal(four.open(four.payloads(sent)), sum(sent.values()))


def test_a_request_with_a_stranger_is_refused(four: Round) -> None:
    request = four.combiner(range(4)).requests()[four.names[0]]
    publics = {name: four.dealings[name].public for name in four.names[:3]}
    with pytest.raises(ProtocolError, match="'client-003', who takes no part"):
        give_shares(
            four.box_keys[four.names[0]],
            four.names[0],
            CONTEXT,
            request,
            publics,
            dict.fromkeys(four.names, SEED),
            None,
        )


@pytest.mark.parametrize(
    "request_",
    [
        b"x", frame([b"a"]), frame([b"a", b"short"]), frame([b"a", b"", b"a", b""]), frame([b"b", b"", b"a", b""]),
        frame([b"\xff", b""]), frame([b"a", b""])[:-1],
    ],
)  # fmt: skip
def test_malformed_requests_are_refused(request_: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_request(request_)


def test_nobody_gives_a_share_of_itself_unless_it_survived(four: Round) -> None:
    combiner = four.combiner((1, 2, 3))
    request = combiner.requests()[four.names[0]]
    assert four.names[0] not in read_request(request)
    own = combiner.requests()[four.names[1]]
    assert read_request(own)[four.names[1]] == b""
    answer = four.give(four.names[1], own, set(four.names[2:]))
    assert NO_SHARE in {answer[i : i + SHARE_BYTES] for i in range(0, len(answer), SHARE_BYTES)}


@pytest.mark.parametrize(
    "change",
    [
        {"public": b"short"}, {"commitments": (b"", b"")}, {"threshold": 0}, {"threshold": 5},
        {"boxes": {"a": b"", "b": b""}}, {"boxes": {"a": b"", "b": b"short"}}, {"boxes": {}},
    ],
)  # fmt: skip
def test_malformed_dealings_are_refused(four: Round, change: dict[str, Any]) -> None:
    good = four.dealings[four.names[0]]
    parts = {"public": good.public, "commitments": good.commitments, "threshold": 3, "boxes": good.boxes} | change
    with pytest.raises(ProtocolError):
        Dealing(**parts).check_form()


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_frame_is_undone(parts: list[bytes]) -> None:
    assert unframe(frame(parts)) == parts


def test_secrets_have_no_readable_form(four: Round) -> None:
    secrets = four.secrets[four.names[0]]
    shown = repr(secrets)
    assert secrets.seed.hex() not in shown
    assert secrets.key.to_bytes().hex() not in shown
    assert MaskSecrets.from_bytes(secrets.to_bytes()).to_bytes() == secrets.to_bytes()
    with pytest.raises(ProtocolError):
        MaskSecrets.from_bytes(b"short")


def test_what_leader_and_committee_recompute_is_the_server_s_sum(four: Round) -> None:
    payloads = four.payloads(vectors(range(4)))
    assert MaskingAdder(SPEC).combine(payloads) == four.combiner(range(4)).combine(payloads)
