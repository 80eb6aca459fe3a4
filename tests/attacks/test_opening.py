"""S8, S10, S20: one opening per round, remembered on disk before it is answered; the budget is the authority's."""

from __future__ import annotations

import multiprocessing
import os
import secrets
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flbc.errors import (
    AlreadyOpenedError,
    BudgetExhaustedError,
    OpeningRefusedError,
    ProtocolError,
    VerificationError,
)
from flbc.node import Policy
from flbc.node.opening import check_opening
from flbc.privacy import Privacy
from flbc.privacy import mechanism as mechanism_module
from flbc.privacy.noise import rounded_gaussian
from flbc.privacy.planning import plan
from flbc.round import Signed
from tests.support.parties import HOSPITALS, KEY_BITS, Consortium


def subset(replies: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: replies[name] for name in names}


def test_differencing_two_survivor_sets_of_one_round_fails(consortium: Any) -> None:
    """With the sum of four and the sum of three, the fourth update would be in clear."""
    c = consortium()
    ticket = c.ticket()
    replies = c.train_all(ticket)
    c.authority().open(ticket, c.request(ticket, replies))
    with pytest.raises(AlreadyOpenedError):
        c.authority().open(ticket, c.request(ticket, subset(replies, *HOSPITALS[:3])))


def test_a_new_attempt_does_not_open_a_round_again(consortium: Any) -> None:
    c = consortium()
    ticket = c.ticket()
    c.authority().open(ticket, c.request(ticket, c.train_all(ticket)))
    again = c.ticket(attempt=1)
    replies = {name: c.participant(name).submit(again) for name in HOSPITALS}
    with pytest.raises(AlreadyOpenedError):
        c.authority().open(again, c.request(again, replies))


def test_the_same_block_gets_the_same_bytes_after_a_restart(consortium: Any) -> None:
    """Otherwise averaging over fresh noise would reveal the exact sum."""
    mechanism = plan(Privacy(epsilon=1.0, unit="example"), dimension=6, rounds=5, max_examples=50)
    c = consortium(mechanism=mechanism)
    ticket = c.ticket()
    request = c.request(ticket, c.train_all(ticket))
    first, total = c.authority().open(ticket, request)
    again, same = c.authority().open(ticket, request)  # a new object on the same directory: a restart
    assert (total == same).all()
    assert first == again


def test_a_refused_round_is_burnt(consortium: Any) -> None:
    c = consortium()
    ticket = c.ticket()
    replies = c.train_all(ticket)
    wrong = c.combiner.combine({0: replies["cleveland"].payload})
    bad = c.request(ticket, replies, hidden=wrong)
    for _ in range(2):
        with pytest.raises(OpeningRefusedError, match="burnt"):
            c.authority().open(ticket, bad)
    with pytest.raises(AlreadyOpenedError):
        c.authority().open(ticket, c.request(ticket, replies))
    following = c.ticket(2)
    c.authority().open(following, c.request(following, c.train_all(following)))


def _open_and_die(c: Consortium, ticket: Any, request: Any) -> None:
    def die(count: int, sigma: float) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    mechanism_module.rounded_gaussian = die
    c.authority().open(ticket, request)


def test_kill_minus_nine_while_opening(consortium: Any) -> None:
    """Killed after the round is reserved and before it is answered: only the same block can be opened afterwards."""
    mechanism = plan(Privacy(epsilon=1.0, unit="example"), dimension=6, rounds=1, max_examples=50)
    c = consortium(mechanism=mechanism, rounds=1)
    ticket = c.ticket()
    replies = c.train_all(ticket)
    request = c.request(ticket, replies)
    process = multiprocessing.get_context("fork").Process(target=_open_and_die, args=(c, ticket, request))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    with pytest.raises(AlreadyOpenedError):
        c.authority().open(ticket, c.request(ticket, subset(replies, *HOSPITALS[1:])))
    _, total = c.authority().open(ticket, request)
    assert total.shape == (6,)


# ---------------------------------------------------------------------- budget (S20)
def test_the_budget_is_counted_on_disk(consortium: Any) -> None:
    mechanism = plan(Privacy(epsilon=1.0, unit="example"), dimension=6, rounds=2, max_examples=50)
    c = consortium(mechanism=mechanism, rounds=9)  # the server asks for more rounds than epsilon pays for
    for number in (1, 2):
        ticket = c.ticket(number)
        signed, _ = c.authority().open(ticket, c.request(ticket, c.train_all(ticket)))
    assert signed.value.epsilon <= 1_000_000
    ticket = c.ticket(3)
    with pytest.raises(BudgetExhaustedError, match="epsilon = 1"):
        c.authority().open(ticket, c.request(ticket, c.train_all(ticket)))


def test_rounds_of_the_task_are_counted_without_privacy_too(consortium: Any) -> None:
    c = consortium(rounds=1)
    ticket = c.ticket(1)
    replies = c.train_all(ticket)
    c.authority().open(ticket, c.request(ticket, replies))
    second = c.ticket(2)
    with pytest.raises(ProtocolError, match="rounds 1 to 1"):
        c.train_all(second)
    with pytest.raises(ProtocolError, match="rounds 1 to 1"):
        c.authority().open(second, c.request(ticket, replies))


def test_a_refused_round_counts_in_epsilon(consortium: Any) -> None:
    """A refusal tells one bit about the noised sum, so it is paid for like an opening."""
    mechanism = plan(Privacy(epsilon=1.0, unit="example"), dimension=6, rounds=1, max_examples=50)
    c = consortium(mechanism=mechanism, rounds=2)
    ticket = c.ticket(1)
    replies = c.train_all(ticket)
    with pytest.raises(OpeningRefusedError, match="burnt"):
        c.authority().open(
            ticket, c.request(ticket, replies, hidden=c.combiner.combine({0: replies["zurich"].payload}))
        )
    ticket = c.ticket(2)
    with pytest.raises(BudgetExhaustedError):
        c.authority().open(ticket, c.request(ticket, c.train_all(ticket)))


# ---------------------------------------------------------------------- the opener's word (S10)
@pytest.mark.parametrize("what", ["block", "total", "sigma", "signer"])
def test_the_server_checks_what_the_authority_says(what: str, consortium: Any) -> None:
    mechanism = plan(Privacy(epsilon=1.0, unit="example"), dimension=6, rounds=5, max_examples=50)
    c = consortium(mechanism=mechanism)
    ticket = c.ticket()
    request = c.request(ticket, c.train_all(ticket))
    signed, total = c.authority().open(ticket, request)
    address, block = c.me["authority"].keys.signing.address, request.block
    check_opening(signed, total, block, ticket, address)
    if what == "block":
        block = c.request(ticket, subset(c_replies(c, ticket), *HOSPITALS[:3])).block
    elif what == "total":
        total = total + np.eye(1, 6, dtype=np.int64)[0]
    elif what == "sigma":
        less = replace(signed.value, sigma=signed.value.sigma - 1)
        signed = Signed.make(less, c.me["authority"].keys.signing, ticket.label.domain)
    else:
        address = c.me["zurich"].keys.signing.address
    with pytest.raises(VerificationError):
        check_opening(signed, total, block, ticket, address)


def c_replies(c: Consortium, ticket: Any) -> dict[str, Any]:
    return {name: c.participant(name).submit(ticket) for name in HOSPITALS}


def test_a_budget_over_all_tasks(consortium: Any) -> None:
    """A server may start as many tasks as it likes: the authority adds their epsilons up on disk."""
    mechanism = plan(Privacy(epsilon=1.0, unit="example"), dimension=6, rounds=1, max_examples=50)
    c = consortium(mechanism=mechanism, rounds=1, policy=Policy(min_key_bits=KEY_BITS, max_total_epsilon=2.5))
    for _ in range(2):
        c.task = secrets.token_bytes(32)
        ticket = c.ticket()
        c.authority().open(ticket, c.request(ticket, c.train_all(ticket)))
    c.task = secrets.token_bytes(32)
    ticket = c.ticket()
    with pytest.raises(BudgetExhaustedError, match=r"max-total-epsilon = 2\.5"):
        c.authority().open(ticket, c.request(ticket, c.train_all(ticket)))
    assert c.memory("authority").openings(c.task) == 0


def test_requests_at_once_cannot_share_the_last_opening(consortium: Any) -> None:
    """Two processes ask for two rounds when the budget pays for one: exactly one is opened."""
    mechanism = plan(Privacy(epsilon=1.0, unit="example"), dimension=6, rounds=1, max_examples=50)
    c = consortium(mechanism=mechanism, rounds=9)
    requests = []
    for number in (1, 2):
        ticket = c.ticket(number)
        requests.append((ticket, c.request(ticket, c.train_all(ticket))))
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda pair: _try_open(c, *pair), requests))
    assert sorted(answers) == ["BudgetExhaustedError", "opened"]
    assert c.memory("authority").openings(c.task) == 1


def test_two_blocks_of_a_round_at_once(consortium: Any) -> None:
    c = consortium()
    ticket = c.ticket()
    replies = c.train_all(ticket)
    blocks = [c.request(ticket, replies), c.request(ticket, subset(replies, *HOSPITALS[:3]))]
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda request: _try_open(c, ticket, request), blocks))
    assert sorted(answers) == ["AlreadyOpenedError", "opened"]


def _try_open(c: Consortium, ticket: Any, request: Any) -> str:
    try:
        c.authority().open(ticket, request)
    except OpeningRefusedError as error:
        return type(error).__name__
    return "opened"


def test_one_block_asked_for_by_many_at_once_has_one_answer(consortium: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise each request would draw its own noise, and averaging the answers would remove it."""
    mechanism = plan(Privacy(epsilon=1.0, unit="example"), dimension=6, rounds=1, max_examples=50)
    c = consortium(mechanism=mechanism, rounds=1)
    ticket = c.ticket()
    request = c.request(ticket, c.train_all(ticket))
    together, draws = threading.Barrier(4), []

    def noise(count: int, sigma: float) -> Any:
        drawn = rounded_gaussian(count, sigma)
        draws.append(tuple(drawn.tolist()))
        together.wait(timeout=20)  # all four have reserved, none has answered
        return drawn

    monkeypatch.setattr(mechanism_module, "rounded_gaussian", noise)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: c.authority().open(ticket, request), range(4)))
    assert len(set(draws)) == 4
    assert len({tuple(total.tolist()) for _, total in answers}) == 1
    assert len({signed.signature for signed, _ in answers}) == 1
