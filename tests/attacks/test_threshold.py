"""``Paillier(opening="threshold")``: what holders, authority and server can do alone and together (S1, S8, S11)."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flbc.cards import KeyShare
from flbc.crypto import boxes, paillier
from flbc.crypto.paillier_threshold import combine, deal
from flbc.crypto.signing import keccak256
from flbc.errors import (
    AlreadyOpenedError,
    BudgetExhaustedError,
    ConfigError,
    OpeningRefusedError,
    PolicyError,
    ProtocolError,
    RosterError,
    SignatureError,
    VerificationError,
)
from flbc.node import NodeMemory, Pins, Policy
from flbc.node.opening import pack_signed
from flbc.node.paillier import shared_key
from flbc.node.scheme_keys import holder_statement, key_domain, shared_keys
from flbc.node.threshold import JointAuthority, KeyHolder, _info, unpack_partial
from flbc.privacy import Privacy
from flbc.privacy.planning import plan
from flbc.roster import Party, Roster
from flbc.round import Signed
from flbc.schemes.paillier_threshold import PartialOpener
from tests.support.parties import HOSPITALS, KEY_BITS, Consortium, identity

HOLDERS = ("holder-a", "holder-b", "holder-c")


class Shared(Consortium):
    """Four hospitals, three holders of which two open, and an authority without a key; the test plays the server."""

    shares: dict[str, Any]

    @classmethod
    def found(
        cls,
        folder: Path,
        key: paillier.PrivateKey,
        policy: Policy | None = None,
        threshold: int = 2,
        holders: tuple[str, ...] = HOLDERS,
        **options: Any,
    ) -> Shared:
        policy = policy or Policy(min_key_bits=KEY_BITS)
        made = cls.make(folder, key, policy=policy, **options)
        made.me["authority"] = identity("authority", ("authority",))
        made.shares = dict(zip(holders, deal(key, threshold, len(holders)), strict=True))
        made.me |= {name: identity(name, ("committee",)) for name in holders}
        made.pins = Pins({party.name: party for party in made.roster.parties}, policy)
        fingerprint = made.shares["holder-a"].key.fingerprint
        made.config = replace(made.config, mode="threshold", scheme_keys=(fingerprint,))
        made.keys = shared_keys({name: made.holder(name).statement() for name in holders})
        return made

    @property
    def roster(self) -> Roster:
        parties = [who.party(self._fingerprint(name)) for name, who in self.me.items()]
        return Roster(tuple(sorted(parties, key=lambda party: party.name)))

    def _fingerprint(self, name: str) -> bytes:
        return self.shares[name].key.fingerprint if name in getattr(self, "shares", {}) else b""

    def holder(self, name: str, memory: NodeMemory | None = None) -> KeyHolder:
        return KeyHolder(self.me[name], self.shares[name], self.pins, memory or self.memory(name))

    def joint(self) -> JointAuthority:
        return JointAuthority(self.me["authority"], self.pins, self.memory("authority"))

    def answers(self, ticket: Any, request: Any, *names: str) -> list[bytes]:
        return [self.holder(name).open(ticket, request) for name in names or HOLDERS[:2]]

    def forged(self, ticket: Any, request: Any, name: str, part: bytes) -> bytes:
        """A dishonest holder's answer: signed and boxed as it should be, with a part of its choice."""
        answer = self.holder(name).open(ticket, request)
        signed, _ = unpack_partial(answer)
        info = _info(ticket.label.hash, request.block.hash, name, "authority")
        box = boxes.seal(self.me["authority"].keys.encryption.public, info, part)
        word = replace(signed.value, box=keccak256(box))
        head = Signed.make(word, self.me[name].keys.signing, ticket.label.domain)
        return pack_signed(head, box)


@pytest.fixture
def shared(tmp_path: Path, opening_key: paillier.PrivateKey) -> Any:
    def make(**options: Any) -> Shared:
        return Shared.found(tmp_path / secrets.token_hex(4), opening_key, **options)

    return make


def asked(c: Shared, round_: int = 1, attempt: int = 0, hidden: bytes | None = None) -> tuple[Any, Any]:
    ticket = c.ticket(round_, attempt)
    return ticket, c.request(ticket, c.train_all(ticket), hidden)


def test_a_round_with_any_two(shared: Any) -> None:
    c = shared()
    ticket, request = asked(c)
    opening, total = c.joint().open(ticket, request, c.answers(ticket, request, "holder-c", "holder-a"))
    opening.verify(c.me["authority"].keys.signing.address, ticket.label.domain)
    mean = c.plan.decode(total, 4, 1, ticket.frame).mean["w"]
    np.testing.assert_allclose(mean, np.mean([0.25 * (i + 1) / 4 for i in range(4)]), atol=1e-3)


# ---------------------------------------------------------------------- fewer than t
def test_one_holder_and_the_authority_open_nothing(shared: Any) -> None:
    c = shared()
    ticket, request = asked(c)
    one = c.answers(ticket, request, "holder-a")
    with pytest.raises(ProtocolError, match="2 holders must answer, and 1 did"):
        c.joint().open(ticket, request, one)
    with pytest.raises(VerificationError, match="answered twice"):
        c.joint().open(ticket, request, one * 2)


def test_two_holders_have_everything(shared: Any) -> None:
    """The trust line: with the server's payloads t holders read each client. One holder alone does not."""
    c = shared()
    ticket = c.ticket()
    payload = c.train("zurich", ticket).payload
    spec = ticket.spec
    parts = {s.place: PartialOpener(s, spec).open(payload)[1:] for s in c.shares.values()}
    public = c.key.public
    vectors = {place: paillier.ciphertexts_from_bytes(public, part, 1) for place, part in parts.items()}
    key = c.shares["holder-a"].key
    opened, _ = combine(key, {1: vectors[1], 3: vectors[3]})
    assert opened == c.key.decrypt(paillier.ciphertexts_from_bytes(public, payload, 1))
    with pytest.raises(ProtocolError, match="ask more holders"):
        combine(key, {1: vectors[1]})


def test_a_box_opens_for_the_authority_alone_and_in_its_round_alone(shared: Any) -> None:
    """The server carries the boxes: with t of them it would open the sum, without noise."""
    c = shared()
    ticket, request = asked(c)
    _, box = unpack_partial(c.answers(ticket, request)[0])
    mine = c.me["authority"].keys.encryption
    info = _info(ticket.label.hash, request.block.hash, "holder-a", "authority")
    assert boxes.unseal(mine, info, box)[0] == 1
    for name in (*HOSPITALS, *HOLDERS):
        with pytest.raises(VerificationError):
            boxes.unseal(c.me[name].keys.encryption, info, box)
    for other in (
        _info(bytes(32), request.block.hash, "holder-a", "authority"),
        _info(ticket.label.hash, bytes(32), "holder-a", "authority"),
        _info(ticket.label.hash, request.block.hash, "holder-b", "authority"),
    ):
        with pytest.raises(VerificationError):
            boxes.unseal(mine, other, box)


# ---------------------------------------------------------------------- one ciphertext a round (S8)
def test_holders_open_one_block_a_round_over_restarts(shared: Any) -> None:
    c = shared()
    ticket = c.ticket()
    replies = c.train_all(ticket)
    request = c.request(ticket, replies)
    first = c.answers(ticket, request)
    assert first == c.answers(ticket, request)  # the same block gets the same bytes
    fewer = c.request(ticket, {n: r for n, r in replies.items() if n != "zurich"})
    for name in HOLDERS[:2]:
        with pytest.raises(AlreadyOpenedError):
            c.holder(name).open(ticket, fewer)
    again = c.ticket(attempt=1)
    later = c.request(again, {name: c.participant(name).submit(again) for name in HOSPITALS})
    with pytest.raises(AlreadyOpenedError):
        c.holder("holder-a").open(again, later)


def test_server_and_authority_get_one_ciphertext_of_their_choice_without_a_ledger(shared: Any) -> None:
    """Documented: holders cannot tell it from a sum. The honest authority refuses it, and the round is burnt."""
    c = shared()
    ticket = c.ticket()
    replies = c.train_all(ticket)
    request = c.request(ticket, replies, hidden=replies["zurich"].payload)
    answers = c.answers(ticket, request)  # holders answer
    with pytest.raises(OpeningRefusedError, match="burnt"):
        c.joint().open(ticket, request, answers)
    with pytest.raises(AlreadyOpenedError):
        c.answers(ticket, c.request(ticket, replies))


def test_two_groups_of_holders_cannot_be_shown_two_blocks_of_one_round(
    shared: Any, opening_key: paillier.PrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weak form: with two of four, each group keeps to one block, and server and authority read two hospitals."""
    with pytest.raises(ConfigError, match="two groups of holders could open two sums of one round"):
        deal(opening_key, 2, 4)

    def read(c: Shared, holders: tuple[str, ...], victims: tuple[str, ...], groups: tuple[tuple[str, ...], ...]) -> int:
        """Show every group the payload of one hospital as the sum, and return how many of them were opened."""
        ticket, count = c.ticket(), 0
        replies = c.train_all(ticket)
        mine = c.me["authority"].keys.encryption
        for group, victim in zip(groups, victims, strict=True):
            request = c.request(ticket, replies, replies[victim].payload)
            parts = {}
            for name in group:
                _, box = unpack_partial(c.holder(name).open(ticket, request))
                raw = boxes.unseal(mine, _info(ticket.label.hash, request.block.hash, name, "authority"), box)
                parts[raw[0]] = paillier.ciphertexts_from_bytes(c.key.public, raw[1:], 1)
            opened, _ = combine(c.shares[holders[0]].key, parts)
            assert opened == c.key.decrypt(paillier.ciphertexts_from_bytes(c.key.public, replies[victim].payload, 1))
            count += 1
        return count

    c = shared()
    pairs = (("holder-a", "holder-b"), ("holder-b", "holder-c"))
    with pytest.raises(AlreadyOpenedError):  # any two groups of two of three have a holder in common
        read(c, HOLDERS, HOSPITALS[:2], pairs)
    four = (*HOLDERS, "holder-d")
    monkeypatch.setattr("flbc.crypto.paillier_threshold.check_threshold", lambda threshold, holders: None)
    weak = shared(threshold=2, holders=four)
    assert read(weak, four, HOSPITALS[:2], (four[:2], four[2:])) == 2


def test_too_few_survivors_and_spent_budgets_get_no_answer(shared: Any) -> None:
    mechanism = plan(Privacy(epsilon=1.0, unit="example"), dimension=6, rounds=1, max_examples=50)
    c = shared(mechanism=mechanism, rounds=3)
    ticket, request = asked(c)
    opening, _ = c.joint().open(ticket, request, c.answers(ticket, request))
    assert opening.value.sigma > 0
    ticket, request = asked(c, 2)
    with pytest.raises(BudgetExhaustedError):
        c.holder("holder-a").open(ticket, request)
    ticket = c.ticket(3)
    few = c.request(ticket, {n: c.train(n, ticket) for n in HOSPITALS[:2]})
    with pytest.raises(OpeningRefusedError, match="2 survivors are fewer"):
        c.holder("holder-b").open(ticket, few)


def test_the_noise_is_drawn_once(shared: Any) -> None:
    mechanism = plan(Privacy(epsilon=1.0, unit="example"), dimension=6, rounds=2, max_examples=50)
    c = shared(mechanism=mechanism, rounds=2)
    ticket, request = asked(c)
    totals = [
        c.joint().open(ticket, request, c.answers(ticket, request, *names))[1].tolist()
        for names in (HOLDERS[:2], HOLDERS[1:], HOLDERS)
    ]
    assert totals[0] == totals[1] == totals[2]


# ---------------------------------------------------------------------- dishonest holders
@pytest.mark.parametrize("lie", ["other ciphertext", "malformed", "empty", "other place"])
def test_one_lie_is_survived_with_a_spare_and_burns_the_round_without(shared: Any, lie: str) -> None:
    for names, survives in ((HOLDERS, True), (HOLDERS[:2], False)):
        c = shared()
        ticket, request = asked(c)
        honest = PartialOpener(c.shares["holder-a"], ticket.spec).open(request.hidden)
        part = {
            "other ciphertext": honest[:1] + c.train("cleveland", c.ticket(2)).payload,
            "malformed": honest[:-1],
            "empty": b"",
            "other place": b"\x02" + honest[1:],
        }[lie]
        answers = [c.forged(ticket, request, "holder-a", part), *c.answers(ticket, request, *names[1:])]
        if survives:
            assert c.joint().open(ticket, request, answers)
            continue
        if lie in ("empty", "other place"):  # seen before anything is opened: others may still be asked
            with pytest.raises(ProtocolError, match="2 holders must answer, and 1 did"):
                c.joint().open(ticket, request, answers)
            assert c.joint().open(ticket, request, c.answers(ticket, request, "holder-b", "holder-c"))
            continue
        with pytest.raises(OpeningRefusedError, match="burnt"):
            c.joint().open(ticket, request, answers)
        with pytest.raises(OpeningRefusedError, match="burnt"):  # it is not tried again with other answers
            c.joint().open(ticket, request, c.answers(ticket, request, "holder-b", "holder-c"))


def test_answers_that_no_holder_signed_for_this_block_are_refused(shared: Any) -> None:
    c = shared()
    before, old = asked(c)
    stale = c.answers(before, old)
    ticket, request = asked(c, 2)
    with pytest.raises(VerificationError, match="belongs to another block"):
        c.joint().open(ticket, request, stale)
    answers = c.answers(ticket, request)
    with pytest.raises(VerificationError, match="not the one that 'holder-a' signed"):
        c.joint().open(ticket, request, [answers[0][:-1] + b"\0", answers[1]])
    signed, box = unpack_partial(answers[0])
    stranger = Signed.make(signed.value, identity("x", ("committee",)).keys.signing, ticket.label.domain)
    with pytest.raises(VerificationError, match="not signed by any holder"):
        c.joint().open(ticket, request, [pack_signed(stranger, box), answers[1]])


# ---------------------------------------------------------------------- keys (S1)
def test_a_key_that_the_authority_made_itself_is_refused(shared: Any) -> None:
    """It would open every client: clients want the word of every pinned holder for the very key."""
    c = shared()
    mine = dict(zip(HOLDERS, deal(paillier.generate(KEY_BITS), 2, 3), strict=True))
    evil = {name: identity(name, ("committee",)) for name in HOLDERS}
    statements = {name: KeyHolder(evil[name], mine[name], c.pins, c.memory(name)).statement() for name in HOLDERS}
    fingerprint = mine["holder-a"].key.fingerprint
    config = replace(c.config, scheme_keys=(fingerprint,))
    with pytest.raises(RosterError, match="another shared key"):
        c.train("zurich", c.ticket(keys=shared_keys(statements), config=config))

    def renamed(party: Party) -> Party:
        return replace(party, scheme_key=fingerprint) if party.name in HOLDERS else party

    roster = Roster(tuple(renamed(party) for party in c.roster.parties))
    with pytest.raises(RosterError, match="another scheme key than the pinned one"):
        c.train("zurich", c.ticket(keys=shared_keys(statements), config=config, roster=roster))
    c.pins = Pins({p.name: replace(p, scheme_key=b"") for p in c.roster.parties}, c.pins.policy)  # nothing pinned
    with pytest.raises(SignatureError):
        c.train("zurich", c.ticket(keys=shared_keys(statements), config=config, roster=roster))


def test_two_holders_of_three_cannot_deal_a_key_of_their_own(shared: Any) -> None:
    """Rosters that were made before the shares were dealt pin no key: the word of dishonest holders is no pin."""
    c = shared(threshold=3)
    mine = dict(zip(HOLDERS[:2], deal(paillier.generate(KEY_BITS), 2, 2), strict=True))
    words = {name: KeyHolder(c.me[name], mine[name], c.pins, c.memory(name)).statement() for name in mine}
    fingerprint = mine["holder-a"].key.fingerprint
    config = replace(c.config, scheme_keys=(fingerprint,))
    parties = [
        replace(party, scheme_key=fingerprint) if party.name in mine else party
        for party in c.roster.parties
        if party.name != "holder-c"
    ]
    ticket = c.ticket(keys=shared_keys(words), config=config, roster=Roster(tuple(parties)))
    assert shared_key(ticket) == mine["holder-a"].key  # the weak form: everybody in the roster vouches for it
    c.pins = Pins({p.name: replace(p, scheme_key=b"") for p in c.roster.parties}, c.pins.policy)
    with pytest.raises(
        RosterError, match=r"no scheme-key for 'holder-a'.*from the public parts after `flbc keys accept`"
    ):
        c.train("zurich", ticket)


def test_every_holder_in_the_roster_must_vouch(shared: Any) -> None:
    c = shared()
    two = shared_keys({name: c.holder(name).statement() for name in HOLDERS[:2]})
    with pytest.raises(ProtocolError, match="signature of every holder"):
        c.train("zurich", c.ticket(keys=two))


def test_a_holder_that_claims_anothers_share_is_named_before_anybody_trains(shared: Any) -> None:
    """Weak form, without places in what holders sign: its answer took the other's place, and the round was burnt."""
    c = shared()
    words = {name: c.holder(name).statement() for name in HOLDERS}
    thief = KeyHolder(c.me["holder-a"], c.shares["holder-b"], c.pins, c.memory("holder-a"))
    with pytest.raises(RosterError, match="'holder-a' and 'holder-b' say that they have the same share, number 2"):
        c.train("zurich", c.ticket(keys=shared_keys(words | {"holder-a": thief.statement()})))


def test_a_place_that_the_key_does_not_have(shared: Any) -> None:
    c = shared()
    key, words = c.shares["holder-a"].key, {name: c.holder(name).statement() for name in HOLDERS}
    for place in (0, 4, 256):
        claim = Signed.make(
            KeyShare("paillier", key.fingerprint, place), c.me["holder-a"].keys.signing, key_domain(False)
        )
        forged = shared_keys(words | {"holder-a": holder_statement(key, claim)})
        with pytest.raises(RosterError, match=f"place {place}, and there are 3"):
            c.train("zurich", c.ticket(keys=forged))


def test_too_few_holders_in_the_roster(shared: Any) -> None:
    c = shared()
    roster = Roster(tuple(p for p in c.roster.parties if p.name not in HOLDERS[1:]))
    keys = shared_keys({"holder-a": c.holder("holder-a").statement()})
    with pytest.raises(RosterError, match="1 holders of a shared key, and it takes 2 to 3"):
        c.train("zurich", c.ticket(roster=roster, keys=keys))


def test_the_authority_is_no_holder_and_has_no_key(shared: Any, opening_key: paillier.PrivateKey) -> None:
    c = shared()
    both = identity("authority", ("authority", "committee"))
    with pytest.raises(ConfigError, match="authority alone"):
        JointAuthority(both, c.pins, c.memory("authority"))
    c.me["authority"] = both
    c.pins = Pins({party.name: party for party in c.roster.parties}, c.pins.policy)
    keys = shared_keys({name: c.holder(name).statement() for name in HOLDERS})
    with pytest.raises(RosterError, match="serves in no other role and holds no key"):
        c.train("zurich", c.ticket(keys=keys))


def test_a_node_that_wants_a_shared_key_is_not_talked_out_of_it(
    tmp_path: Path, opening_key: paillier.PrivateKey
) -> None:
    policy = Policy(schemes=("paillier-threshold",), min_key_bits=KEY_BITS)
    c = Consortium.make(tmp_path, opening_key, policy=policy)
    with pytest.raises(PolicyError, match="paillier-threshold"):
        c.train("zurich", c.ticket())


def test_a_share_of_another_key_and_another_role_are_refused(shared: Any, opening_key: paillier.PrivateKey) -> None:
    c = shared()
    ticket, request = asked(c)
    other = deal(opening_key, 3, 3)[0]
    with pytest.raises(RosterError, match="another shared key than the one"):
        KeyHolder(c.me["holder-a"], other, c.pins, c.memory("holder-a")).open(ticket, request)
    with pytest.raises(ConfigError, match='flbc-role="committee"'):
        KeyHolder(c.me["zurich"], other, c.pins, c.memory("zurich"))
