"""S19, S20 under sampling and local noise: a server that announces a rate, a restart, an average over attempts."""

from __future__ import annotations

import math
import secrets
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from flbc.errors import BudgetExhaustedError, LayoutError, PolicyError, PrivacyConfigError, StaleLabelError
from flbc.node import Policy, halves
from flbc.node.memory import KEPT_TASKS
from flbc.node.opening import noise_of, sigma_of
from flbc.node.participant import check_sampling
from flbc.node.terms import sum_spec
from flbc.privacy import GaussianMechanism, Privacy, plan
from flbc.schemes.paillier import PaillierOpener
from tests.support.parties import HOSPITALS, KEY_BITS, Consortium

pytest.importorskip("opacus")


@cache
def mechanism(rounds: int = 2, **options: Any) -> GaussianMechanism:
    privacy = Privacy(**{"epsilon": 1.0, "unit": "example", **options})
    return plan(privacy, dimension=6, rounds=rounds, max_examples=50)


# ---------------------------------------------------------------------- a rate that nobody keeps
def test_a_rate_buys_less_noise_so_a_server_would_announce_one(consortium: Any) -> None:
    """The weak form: were the statement not checked, this noise would be accepted, and epsilon would be above 20."""
    little = mechanism(rounds=30, sampling_rate=0.01)
    honest = mechanism(rounds=30)
    assert little.sigma < honest.sigma / 20
    real = GaussianMechanism(**(little.to_dict() | {"sampling_rate": 1.0, "epsilon": 99.0}))
    assert real.epsilon_after(30) > 20
    c = consortium(mechanism=little, rounds=30)
    ticket = c.ticket()
    assert c.participant(HOSPITALS[0]).must_train(ticket, ticket.label.model), "the terms themselves are in order"
    with pytest.raises(PolicyError, match=r"poisson_sample\(examples, 0.01\)"):
        check_sampling(little, None)  # what the mod does with the reply of an app that trained on everything


@pytest.mark.parametrize("said", [None, 1.0, 0.5, "0.01", [0.01], math.nan, True])
def test_only_the_task_s_own_rate_is_accepted(said: object) -> None:
    with pytest.raises(PolicyError, match=r'"sample-rate": 0.01 \(it stays on the node\)'):
        check_sampling(mechanism(sampling_rate=0.01), said)


def test_what_needs_no_statement() -> None:
    check_sampling(None, None)
    check_sampling(None, 0.5)
    check_sampling(mechanism(), None)
    check_sampling(mechanism(), 1.0)
    check_sampling(mechanism(sampling_rate=0.01), 0.01)


def test_the_terms_cannot_state_less_noise_than_the_rate_allows(consortium: Any) -> None:
    c = consortium(mechanism=mechanism(sampling_rate=0.01))
    values = dict(c.config.privacy)
    values["noise_multiplier"] /= 2
    values["sigma"] /= 2
    ticket = c.ticket(config=replace(c.config, privacy=values))
    with pytest.raises(PrivacyConfigError, match="above the budget of 1"):
        c.participant(HOSPITALS[0]).must_train(ticket, ticket.label.model)


def test_the_node_s_policy_bounds_the_multiplier_and_epsilon(consortium: Any) -> None:
    """A small multiplier may be right under sampling, and a node that wants none of it says so."""
    policy = Policy(min_key_bits=KEY_BITS, min_noise_multiplier=1.0)
    c = consortium(mechanism=mechanism(sampling_rate=0.001), policy=policy)
    ticket = c.ticket()
    with pytest.raises(PolicyError, match="noise multiplier >= 1"):
        c.participant(HOSPITALS[0]).must_train(ticket, ticket.label.model)


# ---------------------------------------------------------------------- restart
def test_the_budget_goes_on_after_a_restart(consortium: Any) -> None:
    """Every call makes a new node from what is on disk; the server asks for more rounds than epsilon pays for."""
    sampled = mechanism(rounds=3, sampling_rate=0.1)
    c = consortium(mechanism=sampled, rounds=9)
    spent = []
    for number in (1, 2, 3):
        ticket = c.ticket(number)
        signed, _ = c.authority().open(ticket, c.request(ticket, c.train_all(ticket)))
        spent.append(signed.value.epsilon)
    assert spent == [math.ceil(sampled.epsilon_after(n) * 1e6) for n in (1, 2, 3)]
    assert spent[2] <= 1_000_000
    ticket = c.ticket(4)
    with pytest.raises(BudgetExhaustedError, match="would exceed epsilon = 1"):
        c.authority().open(ticket, c.request(ticket, c.train_all(ticket)))
    assert c.memory("authority").openings(c.task) == 3


def test_with_local_noise_every_hospital_pays_for_its_rounds(consortium: Any) -> None:
    c = consortium(mechanism=mechanism(rounds=2, where="local"), rounds=9)
    for number in (1, 2):
        c.train_all(c.ticket(number))
        c.participant("zurich").submit(c.ticket(number, attempt=1))  # the same round: paid for
    with pytest.raises(BudgetExhaustedError, match="would exceed epsilon = 1"):
        c.train("zurich", c.ticket(3))


# ---------------------------------------------------------------------- local noise against the opener
def opened_alone(c: Consortium, ticket: Any, name: str, reply: Any) -> np.ndarray[Any, Any]:
    """What the holder of the key reads in one client's payload if it breaks its rules."""
    index = ticket.roster.index(name)
    opener = PaillierOpener(c.key, sum_spec(c.config), c.me["authority"].keys.encryption)
    part = c.request(ticket, {name: reply})
    entry = part.submissions[0].value
    return opener.open(part.hidden, ticket.label.hash, [halves.contribution(ticket, index, entry.nonce)], None)


def test_an_opener_that_breaks_its_rules_reads_noise(consortium: Any) -> None:
    """The weak form: with the opener's noise, whoever has the key reads a hospital's exact sum."""
    exact = consortium(mechanism=mechanism(), rounds=2)
    ticket = exact.ticket()
    read = opened_alone(exact, ticket, "zurich", exact.train("zurich", ticket))
    assert (read == np.rint(0.25 / exact.config.privacy["step"])).all()
    local = consortium(mechanism=mechanism(where="local"), rounds=2)
    ticket = local.ticket()
    read = opened_alone(local, ticket, "zurich", local.train("zurich", ticket))
    sigma = local.config.privacy["sigma"]
    off = read - np.rint(0.25 / local.config.privacy["step"])
    assert 0 < np.abs(off).max() < 9 * sigma + 1
    assert np.linalg.norm(off) > 0.2 * sigma


def test_attempts_of_a_round_do_not_average_the_noise_away(consortium: Any) -> None:
    """Fresh noise in each of many attempts would leave a mean without noise; it is drawn once, and kept."""
    c = consortium(mechanism=mechanism(where="local"), rounds=2)
    ticket = c.ticket()
    reads = [opened_alone(c, ticket, "zurich", c.train("zurich", ticket))]
    for attempt in (1, 2, 3):
        ticket = c.ticket(attempt=attempt)
        reads.append(opened_alone(c, ticket, "zurich", c.participant("zurich").submit(ticket)))
    assert all((read == reads[0]).all() for read in reads)
    ticket = c.ticket(2)
    other = opened_alone(c, ticket, "zurich", c.train("zurich", ticket))
    assert (other != reads[0]).any(), "and anew in the next round"


def test_who_adds_what(consortium: Any) -> None:
    opener, local = (consortium(mechanism=mechanism(where=where)).config for where in ("opener", "local"))
    assert noise_of(opener) is not None
    assert noise_of(local) is None
    assert sigma_of(opener) > 0
    assert sigma_of(local) == 0
    assert sum_spec(local).noise_tail == 0
    assert sum_spec(local).bound >= sum_spec(opener).bound, "room for every client's own nine deviations"


def test_the_policy_can_ask_for_local_noise(consortium: Any) -> None:
    policy = Policy(min_key_bits=KEY_BITS, noise_by="local")
    c = consortium(mechanism=mechanism(), policy=policy)
    ticket = c.ticket()
    with pytest.raises(PolicyError, match="added by every client for itself"):
        c.participant(HOSPITALS[0]).must_train(ticket, ticket.label.model)
    c = consortium(mechanism=mechanism(where="local"), policy=policy)
    ticket = c.ticket()
    assert c.participant(HOSPITALS[0]).must_train(ticket, ticket.label.model)


def evict(c: Consortium, name: str) -> None:
    """Make a node forget its update: it trains for many other tasks, which are never answered or paid for."""
    task = c.task
    for _ in range(KEPT_TASKS):
        c.task = secrets.token_bytes(32)
        ticket = c.ticket()
        node = c.participant(name)
        assert node.must_train(ticket, ticket.label.model)
        node.keep(ticket, c.update(name))
    c.task = task


def test_a_server_cannot_have_noise_drawn_again_by_making_a_node_forget(consortium: Any) -> None:
    """Six attempts of one round would give six copies with fresh noise, for the price of one."""
    c = consortium(mechanism=mechanism(where="local"), rounds=2)
    c.train("zurich", c.ticket())
    evict(c, "zurich")
    ticket = c.ticket(attempt=1)
    node = c.participant("zurich")
    assert node.must_train(ticket, ticket.label.model), "the update is gone"
    with pytest.raises(StaleLabelError, match="had its noise before"):
        node.keep(ticket, c.update("zurich"))
    other = c.ticket(attempt=2, model=b"\x07" * 32)
    node = c.participant("zurich")
    assert node.must_train(other, other.label.model)
    with pytest.raises(StaleLabelError, match="had its noise before"):
        node.keep(other, c.update("zurich"))
    c.train("zurich", c.ticket(2))  # the next round goes on


def test_attempts_at_once_share_one_noise(consortium: Any) -> None:
    """All are admitted before the first has trained; what is kept first counts."""
    c = consortium(mechanism=mechanism(where="local"), rounds=2)
    tickets = [c.ticket(attempt=attempt) for attempt in range(6)]
    nodes = [c.participant("zurich") for _ in tickets]
    assert all(node.must_train(ticket, ticket.label.model) for node, ticket in zip(nodes, tickets, strict=True))
    reads = []
    for node, ticket in zip(nodes, tickets, strict=True):
        node.keep(ticket, c.update("zurich"))
        reads.append(opened_alone(c, ticket, "zurich", node.submit(ticket)))
    assert len({read.tobytes() for read in reads}) == 1


def test_terms_that_lie_about_the_length_draw_no_noise(consortium: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that names 2^32 coordinates would make a node draw until its memory is full."""
    long = plan(Privacy(epsilon=1.0, unit="example", where="local"), dimension=7, rounds=2, max_examples=50)
    c = consortium(mechanism=long)
    ticket = c.ticket(config=replace(c.config, codec={**c.config.codec, "length": 7, "floats": 7}))
    node = c.participant("zurich")
    assert node.must_train(ticket, ticket.label.model)
    monkeypatch.setattr(GaussianMechanism, "draw", lambda *_: pytest.fail("drawn before the length was checked"))
    with pytest.raises(LayoutError, match="differ from those"):
        node.keep(ticket, c.update("zurich"))
