"""S8, S11: an authority whose key opens fast refuses other blindings as it refuses wrong sums: the round is burnt.

A client, or the server, may bring a ciphertext that is valid and not blinded with the key's base. The weak form, short
exponents without a look at the remainder, opens it to garbage that depends on the secret key.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from gmpy2 import invert, mpz, powmod

from flbc.crypto import paillier
from flbc.errors import AlreadyOpenedError, BudgetExhaustedError, CiphertextError, OpeningRefusedError
from flbc.privacy import Privacy
from flbc.privacy.planning import plan
from tests.support.parties import HOSPITALS, KEY_BITS, Consortium

BURNT = "^This is not the sum of exactly these survivors; the round is burnt$"


@pytest.fixture(scope="module")
def fast_key() -> paillier.PrivateKey:
    return paillier.generate(KEY_BITS, fast_opening=True)


@pytest.fixture
def make(tmp_path: Any, fast_key: paillier.PrivateKey) -> Callable[..., Consortium]:
    def make(**options: Any) -> Consortium:
        return Consortium.make(tmp_path / "nodes", fast_key, **options)

    return make


def times(c: Consortium, hidden: bytes, factor: mpz) -> bytes:
    """The same plaintexts, otherwise blinded."""
    public = c.key.public
    vector = paillier.ciphertexts_from_bytes(public, hidden, len(hidden) // public.ciphertext_bytes)
    return paillier.ciphertexts_to_bytes(public, [v * factor % public.n**2 for v in vector])


def textbook(c: Consortium) -> mpz:
    """Another blinding: a random n-th power."""
    n = c.key.public.n
    return powmod(1 + secrets.randbelow(int(n) - 1), n, n * n)


BLINDINGS: dict[str, Callable[[Consortium], mpz]] = {
    "textbook": textbook,
    "negative": lambda c: mpz(-1),
    "negative of a blinding": lambda c: -c.key.public.hs,
}


def test_the_honest_sum_opens(make: Any) -> None:
    c = make()
    ticket = c.ticket()
    _, total = c.authority().open(ticket, c.request(ticket, c.train_all(ticket)))
    mean = c.plan.decode(total, 4, 1, ticket.frame).mean["w"]
    np.testing.assert_allclose(mean, np.mean([0.25 * (i + 1) / 4 for i in range(4)]), atol=1e-3)


@pytest.mark.parametrize("name", BLINDINGS)
def test_a_sum_with_another_blinding_burns_the_round(make: Any, name: str) -> None:
    c = make()
    ticket = c.ticket()
    replies = c.train_all(ticket)
    honest = c.request(ticket, replies)
    bad = c.request(ticket, replies, hidden=times(c, honest.hidden, BLINDINGS[name](c)))
    for _ in range(2):
        with pytest.raises(OpeningRefusedError, match=BURNT):
            c.authority().open(ticket, bad)
    with closing(sqlite3.connect(c.folder / "authority" / "memory.sqlite")) as db:
        assert db.execute("SELECT answer FROM opened").fetchall() == [(b"",)]
    with pytest.raises(AlreadyOpenedError):
        c.authority().open(ticket, honest)
    following = c.ticket(2)
    c.authority().open(following, c.request(following, c.train_all(following)))


def test_it_is_refused_in_the_words_of_a_wrong_sum(make: Any) -> None:
    """Nobody is told which of the two it was."""
    c = make()
    said = []
    for round_ in (1, 2):
        ticket = c.ticket(round_)
        replies = c.train_all(ticket)
        hidden = c.combiner.combine({0: replies["zurich"].payload})
        if round_ == 2:
            hidden = times(c, hidden, textbook(c))
        with pytest.raises(OpeningRefusedError) as refusal:
            c.authority().open(ticket, c.request(ticket, replies, hidden=hidden))
        said.append((type(refusal.value), str(refusal.value)))
    assert said[0] == said[1]


def test_the_split_authority_burns_it_too(make: Any) -> None:
    c = make(mode="split")
    ticket = c.ticket()
    replies = c.train_all(ticket)
    honest = c.request(ticket, replies)
    bad = c.request(ticket, replies, hidden=times(c, honest.hidden, textbook(c)))
    part = c.generator().derive(ticket, bad)
    for _ in range(2):
        with pytest.raises(OpeningRefusedError, match=BURNT):
            c.authority().open(ticket, bad, part)


def test_the_refused_round_is_paid_for(make: Any) -> None:
    mechanism = plan(Privacy(epsilon=1.0, unit="example"), dimension=6, rounds=1, max_examples=50)
    c = make(mechanism=mechanism, rounds=2)
    ticket = c.ticket(1)
    replies = c.train_all(ticket)
    hidden = times(c, c.request(ticket, replies).hidden, textbook(c))
    with pytest.raises(OpeningRefusedError, match=BURNT):
        c.authority().open(ticket, c.request(ticket, replies, hidden=hidden))
    ticket = c.ticket(2)
    with pytest.raises(BudgetExhaustedError):
        c.authority().open(ticket, c.request(ticket, c.train_all(ticket)))


def test_one_client_can_burn_a_round_and_nothing_else(make: Any) -> None:
    """A textbook ciphertext of one client passes the server, which cannot tell; it costs the round as garbage does."""
    c = make()
    ticket = c.ticket()
    replies = c.train_all(ticket)
    payloads = {ticket.roster.index(name): reply.payload for name, reply in replies.items()}
    index = ticket.roster.index(HOSPITALS[0])
    payloads[index] = times(c, payloads[index], textbook(c))
    c.combiner.check(payloads[index])
    with pytest.raises(OpeningRefusedError, match=BURNT):
        c.authority().open(ticket, c.request(ticket, replies, hidden=c.combiner.combine(payloads)))


def test_weak_form_tells_about_the_key(make: Any) -> None:
    """Opened with the short exponents and no look at remainders, -1 is the inverse of -(αq + βp) modulo n.

    Anybody can send it, and that number is no business of anybody's: it is shorter than n and made of all four secrets.
    """
    c = make()
    n, (p, q) = c.key.public.n, map(mpz, c.key.primes())
    alpha, beta = c.key._half_p.exponent, c.key._half_q.exponent
    halves = []
    for prime, other, order in ((p, q, alpha), (q, p, beta)):
        power = powmod(-1, order, prime**2)
        halves.append((power - 1) // prime * invert(order * other, prime) % prime)
    opened = halves[0] + (halves[1] - halves[0]) * invert(p, q) % q * p
    assert -invert(opened, n) % n == alpha * q + beta * p
    with pytest.raises(CiphertextError, match="not blinded with this key's base"):
        c.key.decrypt([n * n - 1])
