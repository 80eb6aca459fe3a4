"""S1, S2: a server that swaps any key, or loosens any term, gets a refusal and no payload."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from flbc.cards import SchemeKey
from flbc.crypto import paillier
from flbc.crypto.keystream import EncryptionKey
from flbc.crypto.signing import SigningKey
from flbc.errors import FlbcError, PolicyError, RosterError, SignatureError
from flbc.node import Policy, Ticket, development_identity
from flbc.node.scheme_keys import key_domain, paillier_keys
from flbc.privacy import Privacy
from flbc.privacy.planning import plan
from flbc.roster import Roster
from flbc.round import Signed
from tests.support.parties import Consortium, identity


def swapped(c: Consortium, name: str, **changes: Any) -> Roster:
    parties = [replace(p, **changes) if p.name == name else p for p in c.roster.parties]
    return Roster(tuple(parties))


def nothing_is_sent(c: Consortium, ticket: Ticket, error: type[FlbcError]) -> None:
    node = c.participant("hungary")
    with pytest.raises(error):
        node.must_train(ticket, ticket.label.model)
    with pytest.raises(error):  # whatever order the server sends its stages in
        node.submit(ticket)


def test_the_honest_ticket_is_accepted(consortium: Any) -> None:
    c = consortium()
    assert c.train("hungary", c.ticket()).payload


@pytest.mark.parametrize("name", ["authority", "cleveland", "hungary"])
@pytest.mark.parametrize("member", ["address", "encryption"])
def test_swapped_keys_of_any_party(name: str, member: str, consortium: Any) -> None:
    c = consortium()
    new = SigningKey.generate().address if member == "address" else EncryptionKey.generate().public
    nothing_is_sent(c, c.ticket(roster=swapped(c, name, **{member: new})), RosterError)


def test_a_stranger_in_the_roster(consortium: Any) -> None:
    c = consortium()
    stranger = identity("sybil", ("hospital",)).party()
    roster = Roster(tuple(sorted((*c.roster.parties, stranger), key=lambda p: p.name)))
    nothing_is_sent(c, c.ticket(roster=roster), RosterError)


def test_a_party_with_another_role(consortium: Any) -> None:
    c = consortium()
    nothing_is_sent(c, c.ticket(roster=swapped(c, "cleveland", roles=("authority", "hospital"))), RosterError)


def test_a_second_authority(consortium: Any) -> None:
    c = consortium()
    c.pins.parties["zurich"] = replace(c.pins.parties["zurich"], roles=("authority", "hospital"))
    roster = swapped(c, "zurich", roles=("authority", "hospital"))
    with pytest.raises(RosterError, match="exactly one authority"):
        c.train("hungary", c.ticket(roster=roster))


def test_the_servers_own_opening_key(consortium: Any, opening_key: paillier.PrivateKey) -> None:
    """The server makes a Paillier key and presents it as the authority's, with every signature it can make."""
    c = consortium()
    evil = paillier.generate(2048)
    impostor = SigningKey.generate()
    signed = Signed.make(SchemeKey("paillier", evil.public.fingerprint), impostor, key_domain(False))
    keys = paillier_keys(evil.public, signed)
    config = replace(c.config, scheme_keys=(evil.public.fingerprint,))
    roster = swapped(c, "authority", scheme_key=evil.public.fingerprint)
    nothing_is_sent(c, c.ticket(keys=keys, config=config, roster=roster), RosterError)  # pinned fingerprint
    c.pins.parties["authority"] = replace(c.pins.parties["authority"], scheme_key=b"")  # only the signing key is pinned
    ticket = c.ticket(keys=keys, config=config, roster=roster)
    node = c.participant("hungary")
    assert node.must_train(ticket, ticket.label.model)  # training is harmless ...
    node.keep(ticket, c.update("hungary"))
    with pytest.raises(SignatureError):  # ... and nothing is encrypted under a key that the authority did not sign
        node.submit(ticket)


def test_another_key_of_the_right_authority_than_the_task_names(consortium: Any) -> None:
    c = consortium()
    other = paillier.generate(2048)
    c.pins.parties["authority"] = replace(c.pins.parties["authority"], scheme_key=b"")
    signed = Signed.make(
        SchemeKey("paillier", other.public.fingerprint), c.me["authority"].keys.signing, key_domain(False)
    )
    ticket = c.ticket(keys=paillier_keys(other.public, signed))
    node = c.participant("hungary")
    node.must_train(ticket, ticket.label.model)
    node.keep(ticket, c.update("hungary"))
    with pytest.raises(RosterError):
        node.submit(ticket)


def test_a_key_signed_for_another_scheme(consortium: Any) -> None:
    c = consortium()
    public = c.key.public
    signed = Signed.make(SchemeKey("nddfe", public.fingerprint), c.me["authority"].keys.signing, key_domain(False))
    ticket = c.ticket(keys=paillier_keys(public, signed))
    node = c.participant("hungary")
    node.must_train(ticket, ticket.label.model)
    node.keep(ticket, c.update("hungary"))
    with pytest.raises(SignatureError):
        node.submit(ticket)


# ---------------------------------------------------------------------- policy: run-config can never loosen it
def mechanism(epsilon: float = 1.0) -> Any:
    return plan(Privacy(epsilon=epsilon, unit="example"), dimension=6, rounds=5, max_examples=50)


@pytest.mark.parametrize(
    ("policy", "private", "rule"),
    [
        (Policy(min_key_bits=2048, schemes=("masked",)), False, "scheme"),
        (Policy(min_key_bits=3072), False, "3072 bits"),
        (Policy(min_key_bits=2048, min_survivors=4), False, "min_survivors"),
        (Policy(min_key_bits=2048, max_epsilon=1.0), False, "requires differential privacy"),
        (Policy(min_key_bits=2048, min_noise_multiplier=0.1), False, "requires differential privacy"),
        (Policy(min_key_bits=2048, max_epsilon=0.5), True, "epsilon <= 0.5"),
        (Policy(min_key_bits=2048, min_noise_multiplier=100.0), True, "noise multiplier >= 100"),
        (Policy(min_key_bits=2048, max_clip_norm=0.5), True, "clipping norm <= 0.5"),
        (Policy(min_key_bits=2048, max_delta=1e-6), True, "delta <= 1e-06"),
        (Policy(min_key_bits=2048, max_total_epsilon=1.0), False, "requires differential privacy"),
    ],
)
def test_policy_of_a_node_holds(policy: Policy, private: bool, rule: str, consortium: Any) -> None:
    c = consortium(policy=policy, mechanism=mechanism() if private else None)
    ticket = c.ticket()
    node, authority, request = c.participant("hungary"), c.authority(), c.request(ticket, {}, hidden=b"")
    with pytest.raises(PolicyError, match=rule):
        node.must_train(ticket, ticket.label.model)
    with pytest.raises(PolicyError, match=rule):
        authority.open(ticket, request)


def test_a_server_cannot_understate_the_noise_it_asks_for(consortium: Any) -> None:
    """The mechanism is recomputed from its own numbers: a smaller sigma or sensitivity is refused."""
    c = consortium(mechanism=mechanism())
    for name in ("sigma", "sensitivity", "noise_multiplier"):
        privacy = {**c.config.privacy, name: c.config.privacy[name] / 2}
        ticket = c.ticket(config=replace(c.config, privacy=privacy))
        with pytest.raises(FlbcError):
            c.participant("hungary").must_train(ticket, ticket.label.model)


# ---------------------------------------------------------------------- development identities (S2)
def test_a_deployed_node_refuses_a_simulation_label(consortium: Any) -> None:
    c = consortium()
    nothing_is_sent(c, c.ticket(simulation=True), PolicyError)


def test_development_keys_do_not_sign_for_deployments(consortium: Any) -> None:
    c = consortium()
    sim = development_identity(0)
    label = c.ticket().label
    signed = Signed.make(SchemeKey("paillier", bytes(32)), sim.keys.signing, replace(label, simulation=True).domain)
    with pytest.raises(SignatureError):
        signed.verify(sim.keys.signing.address, label.domain)
