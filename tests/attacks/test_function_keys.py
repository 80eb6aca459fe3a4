"""S1, S7, S8, S12, S13, S20, S23: what generator and decryptor of functional encryption agree to do."""

from __future__ import annotations

import multiprocessing
import os
import secrets
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flbc.cards import SchemeKey
from flbc.crypto.keystore import PartyKeys
from flbc.crypto.signing import keccak256
from flbc.encoding import parse
from flbc.errors import (
    AlreadyOpenedError,
    BudgetExhaustedError,
    CiphertextError,
    CodecError,
    FlbcError,
    OpeningRefusedError,
    PolicyError,
    ProtocolError,
    RosterError,
    SignatureError,
    VerificationError,
)
from flbc.node import NodeMemory, Policy, halves
from flbc.node.nddfe import NddFeKeys, check_statement, decryptor_half, own_statement, read_statement
from flbc.node.opening import OpenRequest, pack_signed, unpack_key
from flbc.node.scheme_keys import key_domain
from flbc.privacy import Privacy
from flbc.privacy import mechanism as mechanism_module
from flbc.privacy.planning import plan
from flbc.roster import Roster
from flbc.round import FunctionKey, Signed
from tests.support.functional import FunctionalConsortium
from tests.support.parties import HOSPITALS, identity

Make = Callable[..., FunctionalConsortium]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def make(**options: Any) -> FunctionalConsortium:
        return FunctionalConsortium.found(tmp_path, **options)

    return make


def declared(c: FunctionalConsortium, names: tuple[str, ...] = HOSPITALS) -> list[int] | None:
    return None if c.config.codec["max_multiplier"] is None else [c.me[n].examples for n in names]


def expected(c: FunctionalConsortium, names: tuple[str, ...] = HOSPITALS) -> float:
    """Weighted mean of the updates: everybody's weight is 10 unless sizes are declared."""
    return float(np.average([0.25 * (HOSPITALS.index(n) + 1) / 4 for n in names], weights=declared(c, names)))


def opened(c: FunctionalConsortium, round_: int = 1, names: tuple[str, ...] = HOSPITALS) -> np.ndarray[Any, Any]:
    """Walk a whole round as the honest server; return the decoded mean of one array."""
    ticket = c.ticket(round_)
    replies = {n: c.train(n, ticket) for n in names}
    request = c.request(ticket, replies)
    key = c.generator().derive(ticket, replace(request, hidden=b""))
    _, total = c.decryptor(c.decryptor_name(round_)).open(ticket, request, key)
    sizes = declared(c, names)
    return c.plan.decode(total, len(names), 1, ticket.frame, declared=None if sizes is None else sum(sizes)).mean["w"]


# ---------------------------------------------------------------------- the honest way
@pytest.mark.parametrize("mode", ["pad", "group", "paper"])
@pytest.mark.parametrize("multiplier", [None, 64])
def test_every_mode_opens_the_weighted_mean(mode: str, multiplier: int | None, make: Make) -> None:
    c = make(mode=mode, max_multiplier=multiplier, dimension=2, policy=Policy(schemes=("nddfe", "nddfe-paper")))
    np.testing.assert_allclose(opened(c), expected(c), atol=1e-3)


def test_a_client_that_dropped_is_not_in_the_sum(make: Make) -> None:
    c = make()
    decryptor = c.decryptor_name()
    names = tuple(n for n in HOSPITALS if n == decryptor or n != next(m for m in HOSPITALS if m != decryptor))
    assert len(names) == 3
    np.testing.assert_allclose(opened(c, names=names), expected(c, names), atol=1e-3)


# ---------------------------------------------------------------------- one key per round (S8)
def test_a_second_function_key_opens_the_dropped_client_so_there_is_none(make: Make) -> None:
    """Attack (iv) on ESB-FL: keys before and after a dropout differ by what hides the dropped client."""
    c = make()
    ticket = c.ticket()
    replies = c.train_all(ticket)
    gone = next(n for n in HOSPITALS if n != c.decryptor_name())
    fewer = {n: r for n, r in replies.items() if n != gone}
    # The weak form: a generator that forgets. Its two keys and one decryptor isolate the client.
    forgetful = [c.generator(NodeMemory(c.folder / f"forgetful-{i}")) for i in range(2)]
    keys = [
        g.derive(ticket, c.request(ticket, r, hidden=b"")) for g, r in zip(forgetful, (replies, fewer), strict=True)
    ]
    words = [np.frombuffer(unpack_key(key)[1], "<u4") for key in keys]
    pad = words[0] - words[1]
    hidden = np.frombuffer(replies[gone].payload, "<u4") - pad  # the client under the decryptor's pad alone
    own = c.me[c.decryptor_name()]
    survivors = [halves.contribution(ticket, ticket.roster.index(gone), replies[gone].submission.value.nonce)]
    alone = decryptor_half(ticket, own, c.folder).open(
        hidden.tobytes(), bytes(len(hidden) * 4), ticket.label.hash, survivors
    )
    weight = c.plan.decode(alone, 1, 1, ticket.frame).mean["w"]
    np.testing.assert_allclose(weight, expected(c, (gone,)), atol=1e-3)
    # Ours: the second is refused, whatever the attempt, also after a restart.
    c.generator().derive(ticket, c.request(ticket, replies, hidden=b""))
    with pytest.raises(AlreadyOpenedError):
        c.generator().derive(ticket, c.request(ticket, fewer, hidden=b""))


def test_a_new_attempt_after_the_key_is_refused(make: Make) -> None:
    c = make()
    ticket = c.ticket()
    c.generator().derive(ticket, c.request(ticket, c.train_all(ticket), hidden=b""))
    again = c.ticket(attempt=1, passed=1)
    replies = {name: c.participant(name).submit(again) for name in HOSPITALS}
    with pytest.raises(AlreadyOpenedError):
        c.generator().derive(again, c.request(again, replies, hidden=b""))


def test_two_rosters_in_one_round_get_one_key(make: Make) -> None:
    """Sums over rosters that differ by one hospital, of the same updates, would show that hospital's."""
    c = make()
    ticket = c.ticket()
    c.generator().derive(ticket, c.request(ticket, c.train_all(ticket), hidden=b""))
    gone = next(n for n in HOSPITALS if n != c.decryptor_name())
    smaller = Roster(tuple(party for party in c.roster.parties if party.name != gone))
    again = c.ticket(attempt=1, roster=smaller)
    replies = {name: c.participant(name).submit(again) for name in HOSPITALS if name != gone}
    with pytest.raises(AlreadyOpenedError):
        c.generator().derive(again, c.request(again, replies, hidden=b""))


def test_a_new_attempt_before_the_key_protects_the_same_update_again(make: Make) -> None:
    c = make()
    ticket = c.ticket()
    first = c.train_all(ticket)
    again = c.ticket(attempt=1, passed=1)
    replies = {name: c.participant(name).submit(again) for name in HOSPITALS}
    assert all(replies[name].payload != first[name].payload for name in HOSPITALS)
    request = c.request(again, replies)
    key = c.generator().derive(again, replace(request, hidden=b""))
    _, total = c.decryptor(c.decryptor_name(passed=1)).open(again, request, key)
    np.testing.assert_allclose(c.plan.decode(total, 4, 1, again.frame).mean["w"], expected(c), atol=1e-3)


def test_the_same_block_gets_the_same_bytes(make: Make) -> None:
    """Also with noise, and after a restart: else averaging over the answers would remove it."""
    mechanism = plan(Privacy(epsilon=1.0, unit="example"), dimension=6, rounds=2, max_examples=50)
    c = make(mechanism=mechanism, rounds=2)
    ticket = c.ticket()
    request = c.request(ticket, c.train_all(ticket))
    keys = {c.generator().derive(ticket, replace(request, hidden=b"")) for _ in range(2)}
    assert len(keys) == 1
    decryptor = c.decryptor_name()
    (first, total), (second, again) = (c.decryptor(decryptor).open(ticket, request, *keys) for _ in range(2))
    assert first == second
    assert np.array_equal(total, again)


def test_a_block_asked_for_by_many_at_once_has_one_key(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    mechanism = plan(Privacy(epsilon=1.0, unit="example"), dimension=6, rounds=1, max_examples=50)
    c = make(mechanism=mechanism, rounds=1)
    ticket = c.ticket()
    request = c.request(ticket, c.train_all(ticket), hidden=b"")
    together, draw = threading.Barrier(4), mechanism_module.rounded_gaussian

    def noise(count: int, sigma: float) -> Any:
        together.wait(timeout=20)  # all four have reserved, none has answered
        return draw(count, sigma)

    monkeypatch.setattr(mechanism_module, "rounded_gaussian", noise)
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(lambda _: c.generator().derive(ticket, request), range(4)))) == 1


def _derive_and_die(c: FunctionalConsortium, ticket: Any, request: OpenRequest) -> None:
    NodeMemory.keep_opening = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment,method-assign]
    c.generator().derive(ticket, request)


def test_kill_minus_nine_while_deriving(make: Make) -> None:
    """Killed after the round is reserved and before the key is kept: only the same block gets one afterwards."""
    c = make()
    ticket = c.ticket()
    replies = c.train_all(ticket)
    request = c.request(ticket, replies, hidden=b"")
    process = multiprocessing.get_context("fork").Process(target=_derive_and_die, args=(c, ticket, request))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    fewer = {n: r for n, r in replies.items() if n != HOSPITALS[0]}
    with pytest.raises(AlreadyOpenedError):
        c.generator().derive(ticket, c.request(ticket, fewer, hidden=b""))
    assert c.generator().derive(ticket, request)


def test_the_decryptor_opens_one_block_a_round(make: Make) -> None:
    c = make()
    ticket = c.ticket()
    replies = c.train_all(ticket)
    request, decryptor = c.request(ticket, replies), c.decryptor_name()
    c.decryptor(decryptor).open(ticket, request, c.generator().derive(ticket, request))
    gone = next(n for n in HOSPITALS if n != decryptor)
    other = c.request(ticket, {n: r for n, r in replies.items() if n != gone})
    forgetful = c.generator(NodeMemory(c.folder / "forgetful"))
    with pytest.raises(AlreadyOpenedError):
        c.decryptor(decryptor).open(ticket, other, forgetful.derive(ticket, other))


# ---------------------------------------------------------------------- budget and noise (S20, S23)
def test_the_noise_is_in_the_key(make: Make) -> None:
    """What the decryptor sees is noised: with the noise taken out of the key it would open the exact sum."""
    mechanism = plan(Privacy(epsilon=1.0, unit="example"), dimension=6, rounds=2, max_examples=50)
    c = make(mechanism=mechanism, rounds=2)
    ticket = c.ticket()
    request = c.request(ticket, c.train_all(ticket))
    signed, _ = unpack_key(key := c.generator().derive(ticket, request))
    opening, total = c.decryptor(c.decryptor_name()).open(ticket, request, key)
    value, said = signed.value, opening.value
    assert isinstance(value, FunctionKey)
    assert (said.sigma, said.epsilon) == (value.sigma, value.epsilon)
    assert 0 < value.epsilon <= 1_000_000
    exact = sum(np.rint(np.full(6, 0.25 * (i + 1) / 4) / mechanism.step) for i in range(4))
    assert not np.array_equal(total, exact)
    assert np.abs(total - exact).max() < 9 * mechanism.sigma


def test_the_generator_keeps_the_budget(make: Make) -> None:
    mechanism = plan(Privacy(epsilon=1.0, unit="example"), dimension=6, rounds=1, max_examples=50)
    c = make(mechanism=mechanism, rounds=3)
    ticket = c.ticket(1)
    c.generator().derive(ticket, c.request(ticket, c.train_all(ticket), hidden=b""))
    ticket = c.ticket(2)
    with pytest.raises(BudgetExhaustedError):
        c.generator().derive(ticket, c.request(ticket, c.train_all(ticket), hidden=b""))


def test_too_few_survivors_get_no_key(make: Make) -> None:
    c = make()
    ticket = c.ticket()
    two = {name: c.train(name, ticket) for name in HOSPITALS[:2]}
    with pytest.raises(OpeningRefusedError, match="2 survivors are fewer"):
        c.generator().derive(ticket, c.request(ticket, two, hidden=b""))


# ---------------------------------------------------------------------- what the decryptor checks
def test_a_key_of_another_round_is_refused(make: Make) -> None:
    c = make()
    before = c.ticket(1)
    old = c.generator().derive(before, c.request(before, c.train_all(before)))
    ticket = c.ticket(2)
    request = c.request(ticket, c.train_all(ticket))
    with pytest.raises(VerificationError, match="belongs to another block"):
        c.decryptor(c.decryptor_name(2)).open(ticket, request, old)


@pytest.mark.parametrize("what", ["bytes", "signer", "noise", "form"])
def test_a_forged_key_is_refused(what: str, make: Make) -> None:
    c = make()
    ticket = c.ticket()
    request = c.request(ticket, c.train_all(ticket))
    signed, key = unpack_key(c.generator().derive(ticket, request))
    signer = c.me["generator"]
    value = signed.value
    if what == "bytes":
        key = bytes([key[0] ^ 1]) + key[1:]
    elif what == "signer":
        signed = Signed.make(value, identity("generator", ("generator",)).keys.signing, ticket.label.domain)
    elif what == "noise":
        signed = Signed.make(replace(value, sigma=1), signer.keys.signing, ticket.label.domain)
    else:
        signed = Signed.make(value, signer.keys.signing, ticket.label.domain)
        key += b"\0"
    with pytest.raises(VerificationError):
        c.decryptor(c.decryptor_name()).open(ticket, request, pack_signed(signed, key))


@pytest.mark.parametrize("size", [-4, 4])
def test_a_signed_key_of_the_wrong_length_is_refused(size: int, make: Make) -> None:
    c = make()
    ticket = c.ticket()
    request = c.request(ticket, c.train_all(ticket))
    signed, key = unpack_key(c.generator().derive(ticket, request))
    key = key[:size] if size < 0 else key + bytes(size)
    value = replace(signed.value, key=keccak256(key))
    forged = Signed.make(value, c.me["generator"].keys.signing, ticket.label.domain)
    with pytest.raises(CiphertextError, match="bytes, expected"):
        c.decryptor(c.decryptor_name()).open(ticket, request, pack_signed(forged, key))


def test_another_sum_is_refused(make: Make) -> None:
    """A sum that holds a client twice keeps its pads, and so opens to noise."""
    c = make()
    ticket = c.ticket()
    replies = c.train_all(ticket)
    by_index = {ticket.roster.index(n): r.payload for n, r in replies.items()}
    twice = np.frombuffer(c.combiner.combine(by_index), "<u4") + np.frombuffer(replies["hungary"].payload, "<u4")
    request = c.request(ticket, replies, hidden=twice.tobytes())
    with pytest.raises(OpeningRefusedError, match=r"Coordinate \d+ of the sum"):
        c.decryptor(c.decryptor_name()).open(ticket, request, c.generator().derive(ticket, request))


def test_another_training_node_is_not_the_decryptor(make: Make) -> None:
    c = make()
    ticket = c.ticket()
    request = c.request(ticket, c.train_all(ticket))
    other = next(n for n in HOSPITALS if n != c.decryptor_name())
    with pytest.raises(RosterError, match="Another node is the decryptor"):
        c.decryptor(other).open(ticket, request, c.generator().derive(ticket, request))


# ---------------------------------------------------------------------- what every node checks of a ticket
def test_a_decryptor_whose_turn_it_is_not(make: Make) -> None:
    """A server cannot choose the decryptor: each one that it passes over costs an attempt."""
    c = make()
    with pytest.raises(VerificationError, match="whose turn it is not"):
        c.participant("hungary").must_train(t := c.ticket(passed=1), t.label.model)
    ticket = c.ticket(attempt=1, passed=1)
    assert c.participant("hungary").must_train(ticket, ticket.label.model)


def test_the_generator_is_never_the_decryptor(make: Make) -> None:
    c = make()
    ticket = c.ticket(keys=NddFeKeys("generator").encoded)
    with pytest.raises(ProtocolError, match="one of the training nodes"):
        c.participant("hungary").must_train(ticket, ticket.label.model)


def test_a_generator_that_trains_is_refused(make: Make) -> None:
    c = make()
    both = identity("generator", ("generator", "hospital"))
    c.me["generator"] = both
    c.pins = replace(c.pins, parties={**(c.pins.parties or {}), "generator": both.party()})
    ticket = c.ticket()
    with pytest.raises(RosterError, match="serves in no other role"):
        c.participant("hungary").must_train(ticket, ticket.label.model)


@pytest.mark.parametrize("count", [0, 2])
def test_there_is_exactly_one_generator(count: int, make: Make) -> None:
    c = make()
    if count:
        c.me["another"] = identity("another", ("generator",))
        c.pins = replace(c.pins, parties={**(c.pins.parties or {}), "another": c.me["another"].party()})
    else:
        del c.me["generator"]
    ticket = c.ticket()
    with pytest.raises(RosterError, match="exactly one generator"):
        c.participant("hungary").must_train(ticket, ticket.label.model)


def test_paper_mode_needs_the_nodes_own_policy(make: Make) -> None:
    c = make(mode="paper")
    ticket = c.ticket()
    with pytest.raises(PolicyError, match="'nddfe-paper'"):
        c.participant("hungary").must_train(ticket, ticket.label.model)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"mode": "fast"}, ProtocolError),
        ({"key_bits": 2048}, ProtocolError),
        ({"scheme_keys": (bytes(32),)}, ProtocolError),
    ],
)
def test_terms_that_contradict_themselves(changes: dict[str, Any], error: type[FlbcError], make: Make) -> None:
    c = make()
    ticket = c.ticket(config=replace(c.config, **changes))
    with pytest.raises(error):
        c.participant("hungary").must_train(ticket, ticket.label.model)


def test_declared_weights_with_privacy_are_refused(make: Make) -> None:
    mechanism = plan(Privacy(epsilon=1.0, unit="example"), dimension=6, rounds=2, max_examples=50)
    c = make(mechanism=mechanism, rounds=2)
    ticket = c.ticket(config=replace(c.config, codec={**c.config.codec, "max_multiplier": 64}))
    with pytest.raises(ProtocolError, match="no declared weights"):
        c.participant("hungary").must_train(ticket, ticket.label.model)


def test_a_swapped_point_is_refused(make: Make) -> None:
    """S1: in the group modes points come through the server, signed by their owners beside their encryption keys."""
    c = make(mode="group", dimension=1)
    honest = NddFeKeys.decode(c.ticket().keys)
    evil = NddFeKeys.decode(make(mode="group", dimension=1).ticket().keys)
    name = c.decryptor_name()
    # A statement of an encryption key that was replaced since, by the same signing key.
    retired = replace(c.me[name], keys=replace_encryption(c.me[name]))
    old = read_statement(parse(own_statement(retired)))
    victim = next(n for n in HOSPITALS if n != name)
    for statement in (evil.publics[name], (evil.publics[name][0], honest.publics[name][1]), old):
        ticket = c.ticket(keys=NddFeKeys(honest.decryptor, {**honest.publics, name: statement}).encoded)
        node = c.participant(victim)
        if node.must_train(ticket, ticket.label.model):
            node.keep(ticket, c.update(victim))
        with pytest.raises(SignatureError):
            node.submit(ticket)


def replace_encryption(who: Any) -> PartyKeys:
    fresh = PartyKeys.generate(who.name)
    return PartyKeys(who.name, who.keys.signing, fresh.encryption, who.keys.vrf, None)


@pytest.mark.parametrize("mode", ["group", "paper"])
def test_one_point_for_two_parties_is_refused(mode: str, make: Make) -> None:
    """A hospital that signs a victim's point as its own could hand in the victim's payload: it would count twice."""
    c = make(mode=mode, dimension=1, policy=Policy(schemes=("nddfe", "nddfe-paper")))
    honest = NddFeKeys.decode(c.ticket().keys)
    point = honest.publics["hungary"][0]
    evil = c.me["zurich"]
    claim = SchemeKey("nddfe", keccak256(point + evil.keys.encryption.public))
    signed = Signed.make(claim, evil.keys.signing, key_domain(False))
    check_statement(evil.party(), point, signed, False)  # the statement alone is in order
    ticket = c.ticket(keys=NddFeKeys(honest.decryptor, {**honest.publics, "zurich": (point, signed)}).encoded)
    with pytest.raises(RosterError, match="same scheme key"):
        c.participant("cleveland").must_train(ticket, ticket.label.model)


def test_a_missing_point_is_refused(make: Make) -> None:
    c = make(mode="group", dimension=1)
    honest = NddFeKeys.decode(c.ticket().keys)
    keys = NddFeKeys(honest.decryptor, {n: v for n, v in honest.publics.items() if n != "generator"})
    ticket = c.ticket(keys=keys.encoded)
    with pytest.raises(ProtocolError, match="lacks the public key of 'generator'"):
        c.participant("cleveland").must_train(ticket, ticket.label.model)


def test_a_seventh_attempt_is_refused(make: Make) -> None:
    """Each attempt may name another decryptor: a server must not walk through all of them."""
    c = make()
    ticket = c.ticket(attempt=6)
    with pytest.raises(ProtocolError, match="at most 6 attempts"):
        c.participant("hungary").must_train(ticket, ticket.label.model)


def test_a_block_led_by_another_than_the_decryptor_gets_no_key(make: Make) -> None:
    c = make()
    ticket = c.ticket()
    request = c.request(ticket, c.train_all(ticket))
    other = ticket.roster.index(next(n for n in HOSPITALS if n != c.decryptor_name()))
    led = replace(request, block=replace(request.block, leader=other))
    with pytest.raises(VerificationError, match="must be one"):
        c.generator().derive(ticket, led)


def test_declared_weights_need_declared_examples(make: Make) -> None:
    c = make(max_multiplier=64)
    c.me["hungary"] = replace(c.me["hungary"], examples=0)
    c.pins = replace(c.pins, parties={**(c.pins.parties or {}), "hungary": c.me["hungary"].party()})
    ticket = c.ticket()
    with pytest.raises(CodecError, match="declares none"):
        c.train("hungary", ticket)


@pytest.mark.parametrize("mode", ["pad", "paper"])
def test_more_examples_than_the_task_was_sized_for(mode: str, make: Make) -> None:
    c = make(mode=mode, max_multiplier=32, policy=Policy(schemes=("nddfe", "nddfe-paper")))  # zurich declares 40
    ticket = c.ticket()
    with pytest.raises(CodecError, match="from 1 to 32, and this node declares 40"):
        c.train("zurich", ticket)


def test_a_factor_out_of_range_gets_no_key_and_burns_no_round(make: Make) -> None:
    c = make(mode="paper", max_multiplier=64, dimension=2, policy=Policy(schemes=("nddfe", "nddfe-paper")))
    ticket = c.ticket()
    request = c.request(ticket, c.train_all(ticket), hidden=b"")
    c.config = replace(c.config, codec={**c.config.codec, "max_multiplier": 32})
    c.task = secrets.token_bytes(32)
    narrow = c.ticket()
    forged = []
    for signed in request.submissions:  # a dishonest hospital signs all the same
        name = narrow.roster.parties[signed.value.party].name
        value = replace(signed.value, label=narrow.label.hash)
        forged.append(Signed.make(value, c.me[name].keys.signing, narrow.label.domain))
    block = replace(request.block, label=narrow.label.hash, submissions=tuple(s.value.hash for s in forged))
    with pytest.raises(VerificationError, match="'zurich' declares 40 examples; the task was sized for 1 to 32"):
        c.generator().derive(narrow, OpenRequest(block, tuple(forged), b""))
    assert c.memory("generator").openings(c.task) == 0
