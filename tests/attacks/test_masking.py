"""Masked: a server, or clients, that try to read one client, use a key twice, or swap what others dealt (S7, S8, S24).

The weak forms, with a guard taken away, show that the attack is one; the real nodes refuse.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flbc.cards import SchemeKey
from flbc.crypto.keystream import EncryptionKey, add_keystream
from flbc.crypto.shamir import combine
from flbc.crypto.signing import keccak256
from flbc.errors import (
    AlreadyOpenedError,
    BudgetExhaustedError,
    ConfigError,
    FlbcError,
    OpeningRefusedError,
    PolicyError,
    ProtocolError,
    RosterError,
    SignatureError,
    StaleLabelError,
    VerificationError,
)
from flbc.node import NodeMemory, Policy, Ticket
from flbc.node.committee import once
from flbc.node.mask_keys import Deposit, MaskedKeys, check_box_key
from flbc.node.mask_memory import MaskMemory
from flbc.node.masked import MaskedKit, deposit_for, graph_of
from flbc.node.participant import Reply
from flbc.node.scheme_keys import key_domain
from flbc.node.terms import mechanism_of
from flbc.node.unmasking import ShareHolder
from flbc.privacy import Privacy
from flbc.privacy.planning import plan
from flbc.round import ZERO, Signed
from flbc.schemes.masking import Modulus, pair_key, seed_key
from flbc.schemes.masking_graph import threshold
from flbc.schemes.masking_keys import BOX_BYTES, KEY, SEED, frame
from tests.support.masking import RUN, MaskedConsortium
from tests.support.parties import identity

VICTIM = "hospital-02"


@pytest.fixture
def found(tmp_path: Path) -> Callable[..., MaskedConsortium]:
    return lambda **options: MaskedConsortium.found(tmp_path / "nodes", **options)


@pytest.fixture
def six(found: Callable[..., MaskedConsortium]) -> MaskedConsortium:
    return found()


def without(replies: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in replies.items() if name not in names}


# ---------------------------------------------------------------------- honest rounds
def test_rounds_whose_keys_ride_on_submissions(six: MaskedConsortium) -> None:
    """One set-up trip, then two trips a round; dropouts before upload and before unmasking."""
    deposits = six.set_up()
    for number, (early, late) in enumerate([((), ()), ((VICTIM,), ()), ((), ("hospital-00",))], start=1):
        if number == 3:  # who was away in round 2 dealt nothing for round 3
            deposits |= six.set_up(3, names=six.names) if VICTIM not in deposits else {}
        ticket = six.masked(deposits, number)
        names = [name for name in six.names if name not in early]
        replies = six.submit(ticket, names)
        total = six.open(ticket, deposits, replies, [name for name in names if name not in late])
        assert total is not None
        np.testing.assert_allclose(six.mean(ticket, total, len(names)), six.expected(names), atol=1e-3)
        deposits = six.riding(replies)


# ---------------------------------------------------------------------- both secrets of one client
def unmask_with(c: MaskedConsortium, ticket: Ticket, deposits: Any, replies: Any, holders: Any) -> dict[str, Any]:
    """Shares by holder and owner."""
    combiner = c.combiner_of(ticket, deposits, replies)
    return {n: combiner.read(n, a) for n, a in c.ask(ticket, deposits, replies, holders).items()}


def join(c: MaskedConsortium, deposit: Deposit, shares: Mapping[str, Mapping[str, bytes]], owner: str) -> bytes:
    dealing = deposit.dealing
    places = {dealing.position(name): held[owner] for name, held in shares.items() if owner in held}
    return combine(dict(sorted(places.items())[: dealing.threshold]))


def read_victim(
    c: MaskedConsortium, ticket: Ticket, deposits: Mapping[str, Deposit], reply: Reply, key: bytes, seed: bytes
) -> Any:
    """Take all masks off one payload."""
    assert reply.submission is not None
    label, modulus = ticket.label.hash, Modulus(ticket.spec)
    words = modulus.unpack(reply.payload, ticket.spec.length)
    add_keystream(seed_key(seed, label, reply.submission.value.nonce), words, -1)  # type: ignore[attr-defined]
    for peer in graph_of(ticket, ticket.label.round)[VICTIM]:
        pad = pair_key(EncryptionKey.from_bytes(key), deposits[peer].dealing.public, label)
        add_keystream(pad, words, -1 if peer > VICTIM else 1)
    return modulus.signed(words)


def two_stories(c: MaskedConsortium, monkeypatch: pytest.MonkeyPatch | None = None) -> Any:
    """Tell the holders that the victim dropped out, and then, about the same payloads, that it did not.

    With ``monkeypatch`` nodes forget what they answered and gave, as if their memory were lost.
    """
    if monkeypatch is not None:
        monkeypatch.setattr(NodeMemory, "reserve", lambda *_, **__: (None, 1))
        monkeypatch.setattr(NodeMemory, "keep_opening", lambda self, task, round_, answer: answer)
        monkeypatch.setattr(MaskMemory, "give", lambda self, kinds: None)
    deposits = c.set_up()
    ticket = c.masked(deposits)
    replies = c.submit(ticket)
    others = without(replies, VICTIM)
    gone = unmask_with(c, ticket, deposits, others, list(others))
    alive = unmask_with(c, ticket, deposits, replies, list(others))
    key, seed = (join(c, deposits[VICTIM], shares, VICTIM) for shares in (gone, alive))
    return ticket, read_victim(c, ticket, deposits, replies[VICTIM], key, seed)


def test_both_kinds_of_shares_read_a_client_that_forgets(
    six: MaskedConsortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weak form: without memory the server has both secrets, and reads the victim's update."""
    ticket, values = two_stories(six, monkeypatch)
    opened = six.mean(ticket, values, 1)
    np.testing.assert_allclose(opened, six.expected([VICTIM]), atol=1e-3)


def test_the_second_story_is_refused_after_a_restart(six: MaskedConsortium) -> None:
    with pytest.raises(AlreadyOpenedError, match="Another block of round 1"):
        two_stories(six)


def test_two_kinds_of_shares_are_refused_even_for_two_rounds(
    six: MaskedConsortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the rule of one block a round, what was given for each key still decides."""
    monkeypatch.setattr(NodeMemory, "reserve", lambda *_, **__: (None, 1))
    monkeypatch.setattr(NodeMemory, "keep_opening", lambda self, task, round_, answer: answer)
    with pytest.raises(AlreadyOpenedError, match="as survivor or as dropped"):
        two_stories(six)


def test_different_stories_to_different_clients_do_not_reach_the_threshold(six: MaskedConsortium) -> None:
    """Without a ledger: three are told that the victim dropped, two that it did not. Five shares are needed of each."""
    deposits = six.set_up()
    ticket = six.masked(deposits)
    replies = six.submit(ticket)
    others = list(without(replies, VICTIM))
    gone = unmask_with(six, ticket, deposits, without(replies, VICTIM), others[:3])
    alive = unmask_with(six, ticket, deposits, replies, [*others[3:], VICTIM])
    need = deposits[VICTIM].dealing.threshold
    assert need == 5
    for shares in (gone, alive):
        assert sum(VICTIM in held for held in shares.values()) == 3 < need


def test_one_attempt_s_key_cannot_be_reconstructed_for_another(six: MaskedConsortium) -> None:
    """The prototype's attack: attempt 1 says the victim dropped, attempt 2 sums it under the same ephemeral key."""
    deposits = six.set_up()
    first = six.masked(deposits)
    replies = six.submit(first)
    unmask_with(six, first, deposits, without(replies, VICTIM), list(without(replies, VICTIM)))
    second = six.masked(deposits, attempt=1)
    with pytest.raises(StaleLabelError, match="used before"):
        six.participant(VICTIM).submit(second)


def test_a_key_that_was_reconstructed_is_refused_by_its_neighbours(six: MaskedConsortium) -> None:
    """The victim was silent in attempt 0 and takes part in attempt 1 with the same key: no second unmasking."""
    deposits = six.set_up()
    first = six.masked(deposits)
    others = [name for name in six.names if name != VICTIM]
    replies = six.submit(first, others)
    six.ask(first, deposits, replies)
    fresh = six.set_up(attempt=1, only=others) | {VICTIM: deposits[VICTIM]}
    second = six.masked(fresh, attempt=1)
    # Its neighbours see that they gave a share of its key, so that their masks with it would be known.
    with pytest.raises(StaleLabelError, match="gave a share before"):
        six.submit(second, others[:1])


# ---------------------------------------------------------------------- survivors
def test_a_survivor_list_with_a_stranger_is_refused(six: MaskedConsortium) -> None:
    """Signed by a pinned hospital that took no part in the attempt."""
    inside = six.set_up(names=[name for name in six.names if name != VICTIM])
    ticket = six.masked(inside)
    replies = six.submit(ticket, inside)
    assert replies[six.names[0]].submission is not None
    stolen = replies[six.names[0]].submission.value
    forged = replace(stolen, party=six.names.index(VICTIM))
    signed = Signed.make(forged, six.me[VICTIM].keys.signing, ticket.label.domain)
    listed = dict(sorted({**replies, VICTIM: Reply(signed, replies[six.names[0]].payload)}.items()))
    request = replace(six.block_of(ticket, listed), hidden=b"")
    body = six.combiner_of(ticket, inside, replies).requests()[six.names[1]]
    with pytest.raises(VerificationError, match=f"'{VICTIM}' is no party of this attempt"):
        six.holder(six.names[1]).unmask(ticket, request, body)


@pytest.mark.parametrize("survivors", [2, 0])
def test_too_few_survivors_are_not_opened(six: MaskedConsortium, survivors: int) -> None:
    deposits = six.set_up()
    ticket = six.masked(deposits)
    few = dict(list(six.submit(ticket).items())[:survivors])
    request = replace(six.block_of(ticket, few), hidden=b"")
    body = six.combiner_of(ticket, deposits, few).requests().get(six.names[0], b"")
    with pytest.raises(OpeningRefusedError, match="fewer than min_survivors"):
        six.holder(six.names[0]).unmask(ticket, request, body)


def test_a_node_s_own_policy_counts_survivors(found: Callable[..., MaskedConsortium]) -> None:
    c = found(policy=Policy(min_survivors=5), min_survivors=5)
    loose = replace(c.config, min_survivors=3)
    ticket = c.ticket(keys=MaskedKeys(c.boxes()).encoded, config=loose, model=ZERO)
    with pytest.raises(PolicyError, match="min_survivors >= 5"):
        c.participant(VICTIM).set_up(ticket)


def test_nobody_is_summed_among_neighbours_that_are_gone(found: Callable[..., MaskedConsortium]) -> None:
    """Of its group more than a third is missing: the masks that are left might be known to colluders."""
    c = found(hospitals=8)
    deposits = c.set_up()
    ticket = c.masked(deposits)
    replies = dict(list(c.submit(ticket).items())[:5])
    with pytest.raises(OpeningRefusedError, match="Only 5 of the 8 clients in the group of 'hospital-00'"):
        c.ask(ticket, deposits, replies, [c.names[0]])


def test_shares_are_given_to_signed_submissions_only(six: MaskedConsortium) -> None:
    """A server that makes up survivors: the victim sent nothing, and would be opened as if it had."""
    deposits = six.set_up()
    ticket = six.masked(deposits)
    replies = six.submit(ticket)
    assert replies[VICTIM].submission is not None
    stranger = identity(VICTIM, ("hospital",))
    forged = Signed.make(replies[VICTIM].submission.value, stranger.keys.signing, ticket.label.domain)
    with pytest.raises(VerificationError):
        six.ask(ticket, deposits, {**replies, VICTIM: replace(replies[VICTIM], submission=forged)}, six.names[:1])


def test_the_same_block_gets_the_same_bytes_and_another_body_gains_nothing(six: MaskedConsortium) -> None:
    deposits = six.set_up()
    ticket = six.masked(deposits)
    replies = six.submit(ticket)
    request = replace(six.block_of(ticket, replies), hidden=b"")
    body = six.combiner_of(ticket, deposits, replies).requests()[six.names[0]]
    first = six.holder(six.names[0]).unmask(ticket, request, body)
    assert six.holder(six.names[0]).unmask(ticket, request, body) == first
    assert six.holder(six.names[0]).unmask(ticket, request, frame([VICTIM.encode(), bytes(BOX_BYTES)])) == first


def test_many_requests_at_once_get_one_answer(six: MaskedConsortium) -> None:
    deposits = six.set_up()
    ticket = six.masked(deposits)
    replies = six.submit(ticket)
    stories = [replies, without(replies, VICTIM)] * 4

    def ask(story: dict[str, Reply]) -> bytes | None:
        try:
            return six.ask(ticket, deposits, story, [six.names[0]])[six.names[0]]
        except AlreadyOpenedError:
            return None

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, stories))
    assert len({answer for answer in answers if answer is not None}) == 1
    told = {i % 2 for i, answer in enumerate(answers) if answer is not None}
    assert len(told) == 1


def _unmask_and_die(c: MaskedConsortium, name: str, ticket: Any, request: Any, body: bytes, point: str) -> None:
    def die(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    owner: Any = {"give": MaskMemory, "keep_opening": NodeMemory, "_shares": ShareHolder}[point]
    setattr(owner, point, die)
    c.holder(name).unmask(ticket, request, body)


@pytest.mark.parametrize("point", ["_shares", "give", "keep_opening"])
def test_kill_minus_nine_while_shares_are_given(six: MaskedConsortium, point: str) -> None:
    """Killed at any step, the node tells no second story afterwards, and still answers the first."""
    deposits = six.set_up()
    ticket = six.masked(deposits)
    replies = six.submit(ticket)
    request = replace(six.block_of(ticket, replies), hidden=b"")
    body = six.combiner_of(ticket, deposits, replies).requests()[six.names[0]]
    process = multiprocessing.get_context("fork").Process(
        target=_unmask_and_die, args=(six, six.names[0], ticket, request, body, point)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    with pytest.raises(AlreadyOpenedError):
        six.ask(ticket, deposits, without(replies, VICTIM), [six.names[0]])
    total = six.open(ticket, deposits, replies)
    assert total is not None
    np.testing.assert_allclose(six.mean(ticket, total, 6), six.expected(six.names), atol=1e-3)


# ---------------------------------------------------------------------- keys and boxes through the server (S1)
def swapped(deposits: Mapping[str, Deposit], name: str, **changes: Any) -> dict[str, Deposit]:
    old = deposits[name]
    return {**deposits, name: Deposit(replace(old.dealing, **changes), old.signature)}


def test_a_server_s_own_ephemeral_key_is_refused(six: MaskedConsortium) -> None:
    """With it the server would know the mask that the victim shares with that neighbour."""
    deposits = swapped(six.set_up(), six.names[0], public=EncryptionKey.generate().public)
    ticket = six.masked(deposits)
    with pytest.raises(SignatureError):
        six.submit(ticket, [VICTIM])


def test_an_ephemeral_key_of_an_earlier_round_is_refused(six: MaskedConsortium) -> None:
    """A neighbour that dropped out in round 1: its secret was reconstructed there."""
    old = six.set_up()
    ticket = six.masked(old)
    names = [name for name in six.names if name != six.names[0]]
    replies = six.submit(ticket, names)
    six.ask(ticket, old, replies)
    mixed = {**six.riding(replies), six.names[0]: old[six.names[0]]}
    following = six.masked(mixed, 2)
    with pytest.raises(SignatureError):
        six.submit(following, [VICTIM])
    node = six.participant(six.names[0])
    node.must_train(following, following.label.model)
    node.keep(following, six.update(six.names[0]))
    with pytest.raises(FlbcError):
        node.submit(following)


def test_an_ephemeral_key_of_another_task_is_refused(six: MaskedConsortium, monkeypatch: pytest.MonkeyPatch) -> None:
    deposits = six.set_up()
    six.task = bytes(32)
    with pytest.raises(StaleLabelError, match="used before"):
        six.submit(six.masked(deposits), [VICTIM])
    monkeypatch.setattr(MaskMemory, "box_key_of", lambda self, public, task: self.box_key(RUN))
    with pytest.raises(SignatureError):
        six.submit(six.masked(deposits), [VICTIM])


def test_a_server_s_own_key_for_boxes_is_refused(six: MaskedConsortium) -> None:
    """Shares sealed to it would be the server's."""
    boxes = six.boxes()
    boxes[six.names[0]] = EncryptionKey.generate().public, boxes[six.names[0]][1]
    ticket = six.ticket(keys=MaskedKeys(boxes).encoded, model=ZERO)
    with pytest.raises(SignatureError):
        six.participant(VICTIM).set_up(ticket)


def test_one_key_for_two_parties_is_refused(six: MaskedConsortium) -> None:
    """Who passes off another's ephemeral key as its own shares all its masks' keys but one."""
    deposits = six.set_up()
    public = deposits[six.names[1]].dealing.public
    forged = six.me[six.names[0]]
    dealing = replace(deposits[six.names[0]].dealing, public=public)
    copied = Deposit.sign(
        dealing, six.task, 1, MaskedKeys(six.boxes()).group, forged.keys.signing, six.masked(deposits).label.domain
    )
    with pytest.raises(RosterError, match="took the other's"):
        six.submit(six.masked({**deposits, six.names[0]: copied}), [VICTIM])


def test_a_ticket_with_fewer_clients_than_min_survivors_is_refused(six: MaskedConsortium) -> None:
    deposits = dict(list(six.set_up().items())[:2])
    with pytest.raises(ProtocolError, match="2 take part"):
        six.submit(six.masked(deposits), six.names[:1])


def test_a_ticket_that_lists_strangers_is_refused(six: MaskedConsortium) -> None:
    boxes = {**six.boxes(), "mallory": next(iter(six.boxes().values()))}
    with pytest.raises(ProtocolError, match="not a training party"):
        six.participant(VICTIM).set_up(six.ticket(keys=MaskedKeys(boxes).encoded, model=ZERO))


def test_masks_for_some_and_boxes_for_others_are_refused(six: MaskedConsortium) -> None:
    deposits = six.set_up()
    masks = {n: (d.dealing.public, d.sharing, d.signature) for n, d in list(deposits.items())[:4]}
    with pytest.raises(ProtocolError, match="others with keys for masks than with keys for boxes"):
        six.submit(six.ticket(keys=MaskedKeys(six.boxes(), masks).encoded), six.names[:1])


@pytest.mark.parametrize("threshold", [0.5, 0.6])
def test_a_low_threshold_needs_the_node_s_own_consent(
    found: Callable[..., MaskedConsortium], tmp_path: Path, threshold: float
) -> None:
    strict = found(threshold=threshold)
    with pytest.raises(PolicyError, match=r"threshold of at least 0\.66"):
        strict.set_up()
    loose = MaskedConsortium.found(tmp_path / "loose", threshold=threshold, policy=Policy(min_threshold=0.5))
    assert len(loose.set_up()) == 6


@pytest.mark.parametrize("sharing", [None, {}, {"threshold": 0.3}, {"threshold": 1.0}, {"threshold": "x"}])
def test_terms_without_a_threshold_that_protects_are_refused(six: MaskedConsortium, sharing: Any) -> None:
    config = replace(six.config, sharing=sharing)
    ticket = six.ticket(keys=MaskedKeys(six.boxes()).encoded, config=config, model=ZERO)
    with pytest.raises((ProtocolError, PolicyError, ConfigError)):
        six.participant(VICTIM).set_up(ticket)


# ---------------------------------------------------------------------- one key, one attempt (S7)
def test_an_ephemeral_key_serves_one_attempt(six: MaskedConsortium) -> None:
    deposits = six.set_up()
    replies = six.submit(six.masked(deposits), [VICTIM])
    assert six.submit(six.masked(deposits), [VICTIM]) == replies  # the same label: the same bytes
    with pytest.raises(StaleLabelError, match="needs a set-up trip"):
        six.participant(VICTIM).submit(six.masked(deposits, attempt=1))
    fresh = six.set_up(attempt=1)
    again = six.participant(VICTIM).submit(six.masked(fresh, attempt=1))
    assert again.payload != replies[VICTIM].payload


def test_a_node_that_lost_its_state_cannot_mask_twice_with_one_key(six: MaskedConsortium) -> None:
    """The secret is gone with the state; the server can only ask for a new deposit (S7)."""
    deposits = six.set_up()
    ticket = six.masked(deposits)
    six.submit(ticket, [VICTIM])
    for file in (six.folder / VICTIM).iterdir():
        file.unlink()
    with pytest.raises(StaleLabelError, match="does not have"):
        six.submit(ticket, [VICTIM])


def test_used_secrets_are_erased(six: MaskedConsortium) -> None:
    """Who copies a node's files after the round finds neither ephemeral key nor seed."""
    deposits = six.set_up()
    ticket = six.masked(deposits)
    path = six.folder / VICTIM / "memory.sqlite"
    with sqlite3.connect(path) as db:
        (secrets,) = db.execute("SELECT secrets FROM mask").fetchone()
    key, seed = secrets[:32], secrets[32:64]
    assert key in path.read_bytes()
    replies = six.submit(ticket)
    six.ask(ticket, deposits, replies)
    for file in (six.folder / VICTIM).iterdir():
        content = file.read_bytes()
        assert key not in content
        assert seed not in content


def test_theft_of_long_term_keys_opens_no_box(six: MaskedConsortium) -> None:
    """Boxes are sealed to keys made for the run; they are not derived from those in the key file."""
    deposits = six.set_up()
    box = deposits[six.names[0]].dealing.boxes[VICTIM]
    run = MaskMemory(six.memory(VICTIM)).box_key("1")
    assert run.public != six.me[VICTIM].keys.encryption.public
    assert len(box) == BOX_BYTES
    store = MaskMemory(six.memory(VICTIM))
    later = [store.box_key(str(number)) for number in range(2, 12)]
    assert store.box_key_of(run.public, six.task).to_bytes() == run.to_bytes(), "greetings alone push nothing out"
    for number in range(12, 22):
        store.box_key_of(store.box_key(str(number)).public, number.to_bytes(32, "big"))
    assert len({key.public for key in later}) == 10
    store.box_key("the next")
    with pytest.raises(StaleLabelError, match="does not have"):
        store.box_key_of(run.public, six.task)
    assert run.to_bytes() not in (six.folder / VICTIM / "memory.sqlite").read_bytes()


def test_no_message_quotes_a_secret(six: MaskedConsortium) -> None:
    """Flower sends exceptions to the server."""
    deposits = six.set_up()
    with sqlite3.connect(six.folder / VICTIM / "memory.sqlite") as db:
        (secrets,) = db.execute("SELECT secrets FROM mask").fetchone()
    ticket = six.masked(deposits)
    six.submit(ticket)
    texts = []
    for attempt in (1, 2):
        with pytest.raises(FlbcError) as caught:
            six.participant(VICTIM).submit(six.masked(deposits, attempt=attempt))
        texts.append(repr(caught.value) + str(caught.value.__cause__) + str(caught.value.__context__))
    for part in (secrets[:32], secrets[32:64], secrets[64:]):
        assert all(part.hex() not in text and repr(part) not in text for text in texts)


# ---------------------------------------------------------------------- another round, another scheme
def test_shares_of_another_round_do_not_open(six: MaskedConsortium) -> None:
    """Boxes name their round, so that a server that mixes them up gets nothing for them."""
    first = six.set_up()
    ticket = six.masked(first)
    replies = six.submit(ticket)
    second = six.riding(replies)
    boxes = second[VICTIM].dealing.boxes
    mixed = {**first, VICTIM: Deposit(replace(first[VICTIM].dealing, boxes=boxes), first[VICTIM].signature)}
    request = replace(six.block_of(ticket, replies), hidden=b"")
    body = six.combiner_of(ticket, mixed, replies).requests()[six.names[0]]
    answer = six.holder(six.names[0]).unmask(ticket, request, body)
    assert VICTIM not in six.combiner_of(ticket, mixed, replies).read(six.names[0], answer)


def test_a_holder_serves_its_scheme_only(six: MaskedConsortium) -> None:
    config = replace(six.config, scheme="nddfe", mode="pad", sharing=None)
    with pytest.raises(FlbcError):
        six.holder(VICTIM).unmask(six.ticket(config=config), six.block_of(six.ticket(config=config), {}), b"")


@pytest.mark.parametrize("body", [b"", b"rubbish", frame([b"mallory", bytes(BOX_BYTES)]), frame([b"a", b"short"])])
def test_malformed_requests_give_nothing(six: MaskedConsortium, body: bytes) -> None:
    deposits = six.set_up()
    ticket = six.masked(deposits)
    request = replace(six.block_of(ticket, six.submit(ticket)), hidden=b"")
    with pytest.raises(FlbcError):
        six.holder(VICTIM).unmask(ticket, request, body)


def test_kinds_are_remembered_all_or_none(six: MaskedConsortium) -> None:
    store = MaskMemory(six.memory(VICTIM))
    store.give({b"a" * 32: SEED})
    with pytest.raises(AlreadyOpenedError):
        store.give({b"b" * 32: KEY, b"a" * 32: KEY})
    assert not store.was_given([b"b" * 32])
    store.give({b"a" * 32: SEED, b"b" * 32: SEED})


# ---------------------------------------------------------------------- noise of the clients (S20, S21)
def private(found: Callable[..., MaskedConsortium], dimension: int = 6) -> MaskedConsortium:
    privacy = Privacy(epsilon=1.0, unit="example", where="clients", colluders=1)
    mechanism = plan(privacy, dimension=dimension, rounds=2, max_examples=50, min_survivors=4)
    return found(mechanism=mechanism, min_survivors=4, rounds=9, dimension=dimension)


def test_noise_divided_among_too_many_is_refused(found: Callable[..., MaskedConsortium]) -> None:
    """A server that counts on 4 honest clients where 3 are promised makes every share too small."""
    c = private(found)
    privacy = Privacy(epsilon=1.0, unit="example", where="clients", colluders=1)
    thin = plan(privacy, dimension=6, rounds=2, max_examples=50, min_survivors=6)
    config = replace(c.config, privacy=thin.to_dict())
    ticket = c.ticket(keys=MaskedKeys(c.boxes()).encoded, config=config, model=ZERO)
    with pytest.raises(FlbcError, match="divided among 5 clients"):
        c.participant(VICTIM).set_up(ticket)


def test_a_sum_without_noise_of_the_clients_is_never_seen(found: Callable[..., MaskedConsortium]) -> None:
    c = private(found, dimension=400)
    zero = replace(c.update(VICTIM), update={"w": np.zeros(400)})
    c.update = lambda name, value=0.0: zero  # type: ignore[method-assign]
    deposits = c.set_up()
    ticket = c.masked(deposits)
    replies = c.submit(ticket)
    total = c.open(ticket, deposits, replies)
    assert total is not None
    mechanism = mechanism_of(c.config)
    assert mechanism is not None
    # Six shares of variance sigma²/3 each; the deviation of 400 draws is off by more than 25 % once in 10^11 times.
    assert 0.75 < float(np.std(total)) / (mechanism.sigma * 2**0.5) < 1.25


def test_privacy_of_the_clients_belongs_to_masking(six: MaskedConsortium) -> None:
    """Another scheme's helper adds no noise then, and nobody would."""
    mechanism = plan(
        Privacy(epsilon=1.0, unit="example", where="clients", colluders=1),
        dimension=6, rounds=2, max_examples=50, min_survivors=4,
    )  # fmt: skip
    config = replace(six.config, scheme="nddfe", mode="pad", sharing=None, privacy=mechanism.to_dict())
    with pytest.raises(FlbcError):
        six.participant(VICTIM).set_up(six.ticket(config=config, model=ZERO))


def test_a_deposit_is_kept_before_it_leaves(six: MaskedConsortium, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the node dies in between, nobody has seen a key whose secret is lost."""

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(MaskMemory, "keep", fail)
    ticket = six.ticket(keys=MaskedKeys(six.boxes()).encoded, model=ZERO)
    with pytest.raises(OSError, match="disk full"):
        deposit_for(ticket, six.me[VICTIM], six.memory(VICTIM), 1)


# ---------------------------------------------------------------------- who may be summed, and with whom
def rebuild(deposit: Deposit, shares: Mapping[str, bytes]) -> bytes:
    """Combine shares by holder."""
    dealing = deposit.dealing
    places = sorted((dealing.position(name), share) for name, share in shares.items())
    return combine(dict(places[: dealing.threshold]))


def lists_for_everybody(c: MaskedConsortium) -> Any:
    """No colluders, one label: each holder is told another list of three survivors, with the victim always among them.

    Nobody gives both kinds of shares of anybody, and yet the server gets the victim's seed and all neighbours' keys.
    """
    deposits = c.set_up()
    ticket = c.masked(deposits)
    replies = c.submit(ticket)
    others = [name for name in c.names if name != VICTIM]
    held: dict[str, dict[str, bytes]] = {}
    for i, holder in enumerate(others):
        alive = {VICTIM, others[(i + 1) % len(others)], others[(i + 4) % len(others)]}
        story = {name: reply for name, reply in replies.items() if name in alive}
        for owner, share in unmask_with(c, ticket, deposits, story, [holder])[holder].items():
            if owner == VICTIM or owner not in alive:
                held.setdefault(owner, {})[holder] = share
    label, modulus, reply = ticket.label.hash, Modulus(ticket.spec), replies[VICTIM]
    assert reply.submission is not None
    words = modulus.unpack(reply.payload, ticket.spec.length)
    seed = rebuild(deposits[VICTIM], held[VICTIM])
    add_keystream(seed_key(seed, label, reply.submission.value.nonce), words, -1)  # type: ignore[attr-defined]
    for peer in others:
        key = EncryptionKey.from_bytes(rebuild(deposits[peer], held[peer]))
        add_keystream(pair_key(key, deposits[VICTIM].dealing.public, label), words, 1 if peer < VICTIM else -1)
    return ticket, modulus.signed(words)


def test_a_list_of_survivors_for_each_holder_reads_a_client(
    found: Callable[..., MaskedConsortium], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weak form counts survivors only: 13 honest clients, default threshold, min_survivors = 3."""
    monkeypatch.setattr(MaskedKit, "check_survivors", lambda self, ticket, parties: None)
    c = found(hospitals=13)
    ticket, values = lists_for_everybody(c)
    np.testing.assert_allclose(c.mean(ticket, values, 1), c.expected([VICTIM]), atol=1e-3)


def test_a_list_of_survivors_needs_a_threshold_of_every_group(found: Callable[..., MaskedConsortium]) -> None:
    with pytest.raises(OpeningRefusedError, match="Only 3 of the 13 clients in the group"):
        lists_for_everybody(found(hospitals=13))


@pytest.mark.parametrize("clients", range(3, 120))
def test_stories_do_not_add_up_below_the_bound(clients: int) -> None:
    """All with all: with f < 2t - n colluders no stories give a seed and all neighbours' keys (docstring's count).

    Each honest holder tells of at most n - t as gone; each of the n - 1 - f honest neighbours must be gone for t - f.
    """
    t = threshold(clients)
    for colluders in range(max(2 * t - clients, 0)):
        honest = clients - colluders
        assert (honest - 1) * (t - colluders) > honest * (clients - t) or t == clients


def test_neighbours_on_a_ring_cannot_all_be_gone(found: Callable[..., MaskedConsortium]) -> None:
    """One list, the same for all: the victim's neighbours are declared gone, the rest of the ring is there."""
    c = found(hospitals=24)
    deposits = c.set_up()
    ticket = c.masked(deposits)
    neighbours_ = graph_of(ticket, 1)[VICTIM]
    replies = c.submit(ticket, [name for name in c.names if name not in neighbours_])
    with pytest.raises(OpeningRefusedError, match="clients in the group of"):
        c.ask(ticket, deposits, replies, neighbours_[:1])


def test_attempts_among_different_people_are_refused(six: MaskedConsortium) -> None:
    """Else two sums of one round, with and without a client, could be opened by disjoint sets of holders."""
    first = six.set_up(names=six.names[:5])
    six.submit(six.masked(first), [VICTIM])
    second = six.set_up(attempt=1, names=six.names[1:])
    with pytest.raises(StaleLabelError, match="began with others"):
        six.submit(six.masked(second, attempt=1), [VICTIM])


def test_a_holder_of_one_attempt_opens_no_other_people_s(six: MaskedConsortium) -> None:
    first = six.set_up(names=six.names[:5])
    replies = six.submit(six.masked(first), six.names[:5])
    six.ask(six.masked(first), first, replies, [VICTIM])
    second = six.set_up(attempt=1, names=six.names[1:])
    ticket = six.masked(second, attempt=1)
    with pytest.raises(StaleLabelError, match="began with others"):
        six.submit(ticket, [VICTIM])


def test_shares_dealt_among_others_are_refused(six: MaskedConsortium) -> None:
    """A neighbour whose shares lie with people who take no part here: they would be told that it is gone."""
    elsewhere = six.set_up(names=[*six.names[:1], *six.names[3:]])
    here = six.set_up()
    mixed = {**here, six.names[0]: elsewhere[six.names[0]]}
    with pytest.raises(SignatureError):
        six.submit(six.masked(mixed), [VICTIM])


def test_a_set_up_among_fewer_than_min_survivors_is_refused(found: Callable[..., MaskedConsortium]) -> None:
    """Else three colluders would be the victim's whole group, and hold a threshold of its shares."""
    c = found(hospitals=10, min_survivors=8)
    with pytest.raises(ProtocolError, match="4 take part, and min_survivors is 8"):
        c.set_up(names=[VICTIM, *[name for name in c.names if name != VICTIM][:3]], only=[VICTIM])


def test_who_takes_no_part_gives_nothing_and_spends_nothing(six: MaskedConsortium) -> None:
    inside = six.set_up(names=[name for name in six.names if name != VICTIM])
    ticket = six.masked(inside)
    replies = six.submit(ticket, inside)
    request = replace(six.block_of(ticket, replies), hidden=b"")
    body = six.combiner_of(ticket, inside, replies).requests()[six.names[0]]
    with pytest.raises(ProtocolError, match="takes no part"):
        six.holder(VICTIM).unmask(ticket, request, body)
    assert six.memory(VICTIM).openings(six.task) == 0


def test_a_key_for_boxes_serves_one_task(six: MaskedConsortium) -> None:
    """Whoever stole it with an earlier task's files would open the boxes of this one."""
    six.set_up()
    six.task = bytes(32)
    with pytest.raises(StaleLabelError, match="used before"):
        six.set_up()


@pytest.mark.parametrize("public", [bytes(32), b"\1" + bytes(31)])
def test_a_key_for_boxes_that_stops_its_neighbours_is_noticed(six: MaskedConsortium, public: bytes) -> None:
    party = six.me[VICTIM].party()
    word = SchemeKey("masked", keccak256(public + party.encryption))
    signature = Signed.make(word, six.me[VICTIM].keys.signing, key_domain(simulation=False)).signature
    with pytest.raises(VerificationError, match="not usable"):
        check_box_key(party, public, signature, simulation=False)


def test_every_round_with_own_noise_is_paid_for_when_the_update_leaves(
    found: Callable[..., MaskedConsortium],
) -> None:
    """Also by who is never asked for a share: a threshold of the others opens the sum without it."""
    c = private(found)
    deposits = c.set_up()
    for number in (1, 2):
        ticket = c.masked(deposits, number)
        replies = c.submit(ticket)
        assert c.open(ticket, deposits, replies, [name for name in c.names if name != VICTIM]) is not None
        deposits = c.riding(replies)
    with pytest.raises(BudgetExhaustedError, match="would exceed epsilon = 1"):
        c.submit(c.masked(deposits, 3), [VICTIM])


def test_attempts_of_one_round_are_paid_for_once(found: Callable[..., MaskedConsortium]) -> None:
    c = private(found)
    for attempt in range(3):
        c.submit(c.masked(c.set_up(attempt=attempt), attempt=attempt))
    later = c.set_up(2)
    c.submit(c.masked(later, 2))


def test_giving_shares_lowers_no_account(tmp_path: Path) -> None:
    """``max-total-epsilon`` over two tasks of epsilon 1 each, with shares given in between."""
    privacy = Privacy(epsilon=1.0, unit="example", where="clients", colluders=1)
    mechanism = plan(privacy, dimension=6, rounds=1, max_examples=50, min_survivors=4)
    policy = Policy(max_total_epsilon=1.5)
    c = MaskedConsortium.found(tmp_path, mechanism=mechanism, min_survivors=4, rounds=1, policy=policy)
    deposits = c.set_up()
    ticket = c.masked(deposits)
    assert c.open(ticket, deposits, c.submit(ticket)) is not None
    c.task, c.run = bytes(31) + b"2", "2"
    with pytest.raises(BudgetExhaustedError, match="max-total-epsilon"):
        c.submit(c.masked(c.set_up()), [VICTIM])


def test_a_later_round_does_not_make_an_earlier_one_forgotten(six: MaskedConsortium) -> None:
    """Away in round 2, the victim gives shares there; then the server begins round 1 anew, among others."""
    first = six.set_up()
    one = six.masked(first)
    replies = six.submit(one)
    second = six.riding(replies)
    two = six.masked(second, 2)
    others = without(six.submit(two, [name for name in six.names if name != VICTIM]), VICTIM)
    six.ask(two, second, others, [VICTIM])
    again = six.set_up(attempt=1, names=six.names[1:])
    with pytest.raises(StaleLabelError, match="Round 1 is over"):
        six.submit(six.masked(again, attempt=1), [VICTIM])


@pytest.mark.parametrize("bit", [0, 128])
def test_a_copied_key_is_noticed_with_its_highest_bit_flipped(six: MaskedConsortium, bit: int) -> None:
    boxes = six.boxes()
    public, signature = boxes[six.names[1]]
    boxes[six.names[0]] = public[:-1] + bytes([public[-1] ^ bit]), signature
    with pytest.raises(RosterError, match="took the other's"):
        six.participant(VICTIM).set_up(six.ticket(keys=MaskedKeys(boxes).encoded, model=ZERO))


def test_the_committee_signs_one_block_a_round(six: MaskedConsortium) -> None:
    """Not one an attempt: two signed lists of survivors could be opened by different holders."""
    deposits = six.set_up()
    first, again, later = six.masked(deposits), six.masked(deposits, attempt=1), six.masked(deposits, 2)
    assert once(first) == once(again)
    assert once(first) != once(later)
    memory = six.memory(VICTIM)
    memory.sign_once(six.task, once(first), (1, ZERO), b"a" * 32)
    with pytest.raises(StaleLabelError, match="another block"):
        memory.sign_once(six.task, once(again), (1, ZERO), b"b" * 32)
