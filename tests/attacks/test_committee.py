"""S9, S10, S22: one block per label, recomputed before it is signed, led by whoever was elected, opened by a quorum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from flbc.crypto.signing import keccak256
from flbc.election import alpha
from flbc.errors import FlbcError, PolicyError, ProtocolError, RosterError, StaleLabelError, VerificationError
from flbc.node import Policy
from flbc.node.committee import AttestRequest, Entry, Link, ranking
from flbc.node.covenant import Beacon, Covenant, default_quorum
from flbc.node.draw import check_draw, make_draw
from flbc.node.endorsement import Endorsement, check_endorsement
from flbc.node.memory import KEPT_TASKS
from flbc.node.scheme_keys import paillier_keys
from flbc.node.settlement import SettleRequest
from flbc.round import Signed, Vote
from tests.support.committee import CHAIN_ID, COVENANT, HUB, INITIAL, SEED, Committee, tampered
from tests.support.parties import HOSPITALS, KEY_BITS, identity

ROLES = ("committee", "hospital")
Make = Callable[..., Committee]


@pytest.fixture
def committee(consortium: Any) -> Make:
    def make(covenant: Covenant = COVENANT, **options: Any) -> Committee:
        return Committee(consortium(covenant=covenant, **{"roles": ROLES, **options}))

    return make


def test_honest_rounds_are_signed_and_opened(committee: Make) -> None:
    m = committee()
    for number in (1, 2):
        ticket, request, endorsement = m.round(number)
        assert len(endorsement.votes) == 3
        m.links.pop()  # the authority is asked with the ticket of the block, before the next one exists
        opening, _ = m.c.authority().open(ticket, m.open_request(request, endorsement))
        assert opening.value.block == request.block.hash  # type: ignore[attr-defined]
        m.append(request, endorsement)


# ---------------------------------------------------------------------- S9
def test_nobody_signs_two_blocks_of_one_label(committee: Make) -> None:
    """Two signed blocks of one label could both be opened somewhere, and they cost the stake."""
    m = committee()
    ticket = m.ticket()
    replies = m.c.train_all(ticket)
    m.endorse(ticket, m.request(ticket, replies))
    other = m.request(ticket, {name: replies[name] for name in HOSPITALS[:3]})
    for name in HOSPITALS:  # each call is a restart from disk
        with pytest.raises(StaleLabelError):
            m.attester(name).attest(ticket, other)


def test_the_same_block_is_signed_again_with_the_same_bytes(committee: Make) -> None:
    m = committee()
    ticket = m.ticket()
    request = m.request(ticket, m.c.train_all(ticket))
    assert m.endorse(ticket, request) == m.endorse(ticket, request)


def test_another_attempt_may_have_another_leader(committee: Make) -> None:
    m = committee()
    first = m.ticket()
    m.request(first, m.c.train_all(first))
    second = m.ticket(attempt=1)
    replies = {name: m.c.participant(name).submit(second) for name in HOSPITALS}
    m.endorse(second, m.request(second, replies, leader=m.ranked(second)[1]))


# ---------------------------------------------------------------------- S10
def lies(m: Committee, ticket: Any, honest: AttestRequest) -> dict[str, AttestRequest]:
    block, first = honest.block, honest.summed[0]
    swapped = replace(first, payload=honest.summed[1].payload)
    changed = tampered(first, draw=7)
    return {
        "hidden sum": replace(honest, block=replace(block, hidden=keccak256(b"x"))),
        "parent": replace(honest, block=replace(block, parent=keccak256(b"x"))),
        "label": replace(honest, block=replace(block, label=keccak256(b"x"))),
        "a submission left out of the sum": replace(honest, summed=honest.summed[1:]),
        "order": replace(honest, summed=honest.summed[::-1]),
        "another's payload": replace(honest, summed=(swapped, *honest.summed[1:])),
        "draw": replace(honest, summed=(changed, *honest.summed[1:])),
        "a proof of another height": replace(honest, summed=(_other_proof(m, first), *honest.summed[1:])),
        "a rejection without a reason": _rejecting(honest, first),
        "twice": replace(honest, summed=(first, *honest.summed)),
    }


def _other_proof(m: Committee, entry: Entry) -> Entry:
    name = m.c.roster.parties[entry.submission.party].name
    _, proof = make_draw(m.c.me[name].keys, SEED, 9)
    return replace(entry, proof=proof)


def _rejecting(honest: AttestRequest, entry: Entry) -> AttestRequest:
    rest = honest.summed[1:]
    block = replace(
        honest.block, submissions=tuple(e.submission.hash for e in rest), rejected=(entry.submission.party,)
    )
    return replace(honest, block=block, summed=rest, rejected=(entry,))


@pytest.mark.parametrize(
    "lie",
    [
        "hidden sum", "parent", "label", "a submission left out of the sum", "order", "another's payload", "draw",
        "a proof of another height", "a rejection without a reason", "twice",
    ],
)  # fmt: skip
def test_nobody_signs_a_false_block(committee: Make, lie: str) -> None:
    m = committee()
    ticket = m.ticket()
    honest = m.request(ticket, m.c.train_all(ticket))
    false = lies(m, ticket, honest)[lie]
    for name in HOSPITALS:
        with pytest.raises(FlbcError):
            m.attester(name).attest(ticket, false)
    m.endorse(ticket, honest)  # and the honest one is still signed


def test_fewer_than_min_survivors_is_not_signed(committee: Make) -> None:
    m = committee()
    ticket = m.ticket()
    replies = m.c.train_all(ticket)
    with pytest.raises(VerificationError, match="min_survivors"):
        m.endorse(ticket, m.request(ticket, {name: replies[name] for name in HOSPITALS[:2]}))


@pytest.mark.parametrize("missing", ["all votes", "leader", "one vote too many left out", "forged vote", "stranger"])
def test_the_authority_opens_only_a_quorum(committee: Make, missing: str) -> None:
    m = committee()
    ticket = m.ticket()
    request = m.request(ticket, m.c.train_all(ticket))
    good = m.endorse(ticket, request)
    party, signature = good.votes[0]
    where, vote = ticket.label.domain, Vote(request.block.label, request.block.hash)
    stranger = Signed.make(vote, m.c.me["authority"].keys.signing, where).signature
    bad = {
        "all votes": None,
        "leader": replace(good, leader=signature),
        "one vote too many left out": replace(good, votes=good.votes[:1]),
        "forged vote": replace(good, votes=((party, good.leader), *good.votes[1:])),
        "stranger": replace(good, votes=((ticket.roster.index("authority"), stranger), *good.votes[:1])),
    }[missing]
    with pytest.raises(VerificationError):
        m.c.authority().open(ticket, m.open_request(request, bad))
    m.c.authority().open(ticket, m.open_request(request, good))


def test_a_member_cannot_vote_twice_or_beside_its_block(committee: Make) -> None:
    m = committee()
    ticket = m.ticket()
    request = m.request(ticket, m.c.train_all(ticket))
    good = m.endorse(ticket, request)
    block, where = request.block, ticket.label.domain
    name = ticket.roster.parties[block.leader].name
    own = (block.leader, Signed.make(Vote(block.label, block.hash), m.c.me[name].keys.signing, where).signature)
    for votes in ((good.votes[0], good.votes[0]), tuple(sorted((own, good.votes[0]))), good.votes[::-1]):
        with pytest.raises(VerificationError, match="in order, without the leader"):
            check_endorsement(block, ticket.roster, m.covenant, where, Endorsement(good.leader, votes))


# ---------------------------------------------------------------------- S22
def test_only_the_elected_leader_gets_signatures(committee: Make) -> None:
    m = committee()
    m.round(1)
    ticket = m.ticket(2)
    replies = m.c.train_all(ticket)
    for name in m.ranked(ticket)[1:]:
        with pytest.raises(VerificationError, match="was not elected"):
            m.endorse(ticket, m.request(ticket, replies, leader=name))


def test_a_server_cannot_choose_the_leader_with_a_false_parent(committee: Make) -> None:
    m = committee()
    m.round(1)
    ticket = m.ticket(2)
    honest = m.request(ticket, m.c.train_all(ticket))
    assert honest.previous is not None
    link, endorsement = honest.previous
    summaries = link.submissions
    forged = replace(link.block, hidden=keccak256(b"x"))
    for previous in (
        None,
        (replace(link, submissions=(replace(summaries[0], draw=0), *summaries[1:])), endorsement),
        (replace(link, block=forged), endorsement),
    ):
        with pytest.raises(VerificationError):
            m.attester(HOSPITALS[0]).attest(ticket, replace(honest, previous=previous))


def test_a_parent_that_no_quorum_signed_is_none(committee: Make) -> None:
    """A made-up parent with chosen draws, and everything after it consistent: the server would choose the leader."""
    m = committee()
    _, _, good = m.round(1)
    link = m.links.pop()[0]
    summaries = tuple(replace(entry, draw=i) for i, entry in enumerate(link.submissions))
    hashes = tuple(entry.hash(link.block.label) for entry in summaries)
    made_up = Link(replace(link.block, submissions=hashes), summaries)
    m.links.append((made_up, good))
    second = m.ticket(2)
    with pytest.raises(VerificationError):
        m.endorse(second, m.request(second, m.c.train_all(second)))


def test_the_chain_does_not_go_back(committee: Make) -> None:
    m = committee()
    m.round(1)
    m.round(2)
    newest = m.links.pop()
    m.links.pop()
    ticket = m.ticket(3)  # as if the first two blocks had never been
    with pytest.raises(StaleLabelError, match="does not go back"):
        m.endorse(ticket, m.request(ticket, m.c.train_all(ticket)))
    assert newest


def test_an_old_label_gets_no_second_submission_after_other_tasks(committee: Make) -> None:
    """A server that starts task after task, until the node forgets the first, and asks again: that costs a stake."""
    m = committee()
    first = m.c.task
    ticket = m.ticket()
    kept = m.c.train("cleveland", ticket).submission
    for number in range(KEPT_TASKS + 1):
        m.c.task = keccak256(b"task %d" % number)
        m.c.train("cleveland", m.ticket())
    m.c.task = first
    with pytest.raises(StaleLabelError):
        m.c.train("cleveland", m.ticket())
    assert kept is not None


def test_an_authority_in_the_committee_is_refused(committee: Make) -> None:
    """It would be sent every single ciphertext, and it holds the key."""
    m = committee(replace(COVENANT, quorum=4))
    other = identity("authority", ("authority", "committee"), m.c.key)
    m.c.me["authority"] = other
    pinned = {**(m.c.pins.parties or {}), "authority": other.party(m.c.key.public.fingerprint)}
    m.c.pins = replace(m.c.pins, parties=pinned)
    m.c.keys = paillier_keys(m.c.key.public, m.c.authority().scheme_key())
    ticket = m.ticket()
    with pytest.raises(ProtocolError, match="authority and generator serve in no other role"):
        m.c.participant("cleveland").must_train(ticket, ticket.label.model)


def test_no_stake_no_lead(committee: Make) -> None:
    m = committee(replace(COVENANT, stakes={**dict.fromkeys(HOSPITALS, 0), "zurich": 5}))
    ticket = m.ticket()
    assert m.ranked(ticket) == ["zurich"]
    with pytest.raises(VerificationError, match="was not elected"):
        m.endorse(ticket, m.request(ticket, m.c.train_all(ticket), leader="hungary"))


def test_a_draw_is_bound_to_its_party_height_and_seed(committee: Make) -> None:
    m = committee()
    me, other = m.c.me["cleveland"], m.c.me["hungary"]
    draw, proof = make_draw(me.keys, SEED, 2)
    check_draw(proof, me.party(), SEED, 2, draw)
    for party, seed, height, claimed in (
        (other.party(), SEED, 2, draw),
        (me.party(), keccak256(b"x"), 2, draw),
        (me.party(), SEED, 3, draw),
        (me.party(), SEED, 2, draw ^ 1),
        (replace(me.party(), vrf=b""), SEED, 2, draw),
    ):
        with pytest.raises(VerificationError):
            check_draw(proof, party, seed, height, claimed)
    assert alpha(SEED, 2) != alpha(SEED, 3)


def test_ranking_of_height_1_needs_no_message(committee: Make) -> None:
    m = committee()
    assert len(ranking(m.c.roster, m.covenant, Beacon(SEED, 1, m.genesis, INITIAL), None)) == 4


# ---------------------------------------------------------------------- what a ticket may say
def test_ledger_terms_chain_and_beacon_come_together(committee: Make) -> None:
    m = committee()
    for changes in ({"chain_id": 0}, {"hub": bytes(20)}, {"beacon": None}):
        ticket = m.ticket(**changes)
        with pytest.raises(ProtocolError):
            m.c.participant("cleveland").must_train(ticket, ticket.label.model)


def test_development_identities_work_on_development_chains_only(committee: Make) -> None:
    from flbc.node.covenant import check_covenant

    m = committee()
    ticket = m.ticket(simulation=True)
    with pytest.raises(PolicyError, match="development chains"):
        check_covenant(ticket.config, ticket.roster, ticket.label, ticket.beacon)


def test_a_hardware_attestor_is_not_pretended(committee: Make) -> None:
    m = committee(replace(COVENANT, attestor="sgx"))
    ticket = m.ticket()
    with pytest.raises(PolicyError, match="attested by 'sgx'"):
        m.c.participant("cleveland").must_train(ticket, ticket.label.model)


@pytest.mark.parametrize("quorum", [0, 1, 2, 5])
def test_a_quorum_is_a_majority_that_exists(committee: Make, quorum: int) -> None:
    m = committee(replace(COVENANT, quorum=quorum))
    ticket = m.ticket()
    with pytest.raises(ProtocolError, match="does not fit 4 committee members"):
        m.c.participant("cleveland").must_train(ticket, ticket.label.model)


@pytest.mark.parametrize("members", range(1, 40))
def test_default_quorums_of_two_thirds_always_share_an_honest_member(members: int) -> None:
    """Two quorums overlap in more than a third: with fewer than a third dishonest, never two blocks of one label."""
    quorum = default_quorum(members)
    assert members < 2 * quorum <= 2 * members
    assert 2 * quorum - members > (members - 1) // 3


def test_a_committee_of_one_is_refused(committee: Make) -> None:
    """The server chooses who takes part; with one colluding member left, its vote would be the quorum."""
    m = committee(replace(COVENANT, quorum=1), roles=("hospital",))
    member = identity("watch", ("committee",))
    m.c.me["watch"] = member
    m.c.pins = replace(m.c.pins, parties={**(m.c.pins.parties or {}), "watch": member.party()})
    ticket = m.ticket()
    with pytest.raises(PolicyError, match="needs 3 committee members, the task has 1"):
        m.c.participant("cleveland").must_train(ticket, ticket.label.model)


def test_what_was_opened_must_be_what_is_recorded(committee: Make) -> None:
    """Two attempts, both signed: the server opens the second with everybody and records the first without one."""
    m = committee()
    first = m.ticket(1)
    replies = m.c.train_all(first)
    short = m.request(first, {name: replies[name] for name in HOSPITALS[:3]})
    recorded = (short, m.endorse(first, short))
    second = m.ticket(1, 1)
    again = {name: m.c.participant(name).submit(second) for name in HOSPITALS}
    m.endorse(second, m.request(second, again))
    m.append(*recorded)
    following = m.ticket(2)
    with pytest.raises(StaleLabelError, match="another block at height 1"):
        m.endorse(following, m.request(following, m.c.train_all(following)))
    end = SettleRequest(INITIAL, tuple(m.links), (), keccak256(b"model"), "", 10**18)
    judged = replace(end, evaluations=tuple(m.judge(n).evaluate(following, end.model, 0.9, 9) for n in HOSPITALS))
    for name in HOSPITALS:
        with pytest.raises(StaleLabelError, match="lacks the block"):
            m.judge(name).settle(following, judged)


def test_policy_pins_chain_and_hub(committee: Make) -> None:
    def admitted(**policy: Any) -> None:
        m = committee(policy=Policy(min_key_bits=KEY_BITS, **policy))
        ticket = m.ticket()
        m.c.participant("cleveland").must_train(ticket, ticket.label.model)

    admitted(chain_id=CHAIN_ID, hub="0x" + HUB.hex())
    with pytest.raises(PolicyError, match="chain 1 only"):
        admitted(chain_id=1)
    with pytest.raises(PolicyError, match="of the hub"):
        admitted(hub="0x" + "33" * 20)


def test_a_roster_without_the_nodes_vrf_key_is_refused(committee: Make) -> None:
    m = committee()
    ticket = m.ticket()
    parties = tuple(replace(p, vrf=b"\x01" * 20) if p.name == "hungary" else p for p in ticket.roster.parties)
    roster = replace(ticket.roster, parties=parties)
    label = replace(ticket.label, roster=roster.hash)
    with pytest.raises(RosterError, match="VRF key"):
        m.c.participant("cleveland").must_train(replace(ticket, label=label, roster=roster), ticket.label.model)
