"""What contracts accept, because it is for the committee to check, and an audit does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flbc.crypto.signing import keccak256
from flbc.election import alpha
from flbc.node.draw import make_draw
from flbc.round import Signed, Vote
from flbc.tokens import Genesis
from tests.ledger.audit.conftest import SMALL, audit_of
from tests.support.ledger import Consortium, mine


def doubts_of(run: Consortium) -> str:
    return "\n".join(audit_of(run).doubts)


def test_a_leader_that_was_not_elected(begin):
    run = begin()
    run.record(run.make_round(1, leader=run.ranking()[1]))
    assert "block 1.leader: hospital" in doubts_of(run)
    assert "has rank 1, but attempt 0" in doubts_of(run)


def test_a_later_leader_that_was_no_candidate(begin):
    run = begin()
    absent = run.ranking()[2]
    run.record(run.make_round(1, submitters=[i for i in run.hospitals if i != absent]))
    run.record(run.make_round(2, attempt=5, leader=absent))
    assert f"block 2.leader: {run.actors[absent].name} was no candidate" in doubts_of(run)


def test_a_draw_that_was_made_up(begin):
    """A party records the best of all draws, and leads the next block with a proof that gives another one."""
    run = begin()
    record = run.make_round(1)
    cheat, honest = record.submissions[1], record.submissions[1].value
    cheat = Signed.make(replace(honest, draw=2**64 - 1), run.actors[honest.party].keys.signing, run.where)
    submissions = [record.submissions[0], cheat, record.submissions[2]]
    block = replace(record.block, submissions=tuple(signed.value.hash for signed in submissions))
    signature = Signed.make(block, run.actors[block.leader].keys.signing, run.where).signature
    votes = run.votes(Vote(block.label, block.hash), leader=block.leader)
    run.record(replace(record, block=block, submissions=submissions, leader=signature, votes=votes))
    assert run.ranking()[0] == honest.party
    run.record(run.make_round(2))
    assert doubts_of(run) == "block 2.proof: does not give the draw that the block before recorded"


def test_a_proof_with_another_key(begin):
    run = begin(replace(SMALL, election="committee"))  # where the contract does not look
    record = run.make_round(1)
    other = next(i for i in run.hospitals if i != record.block.leader)
    _, proof = make_draw(run.actors[other].keys, run.seed, 1)
    run.record(replace(record, proof=proof, alpha=alpha(run.seed, 1)))
    assert "block 1.proof: was made with another key" in doubts_of(run)


def test_too_few_in_a_sum(begin):
    run = begin()
    run.record(run.make_round(1, submitters=run.hospitals[:1], leader=run.ranking()[0]))
    assert "1 are summed; the task allows 2 to 3" in doubts_of(run)


def test_a_rejected_party_that_is_summed(begin):
    run = begin()
    record = run.make_round(1)
    block = replace(record.block, rejected=(run.hospitals[0], run.roster.index("authority")))
    block = replace(block, rejected=tuple(sorted(block.rejected)))
    signature = Signed.make(block, run.actors[block.leader].keys.signing, run.where).signature
    votes = run.votes(Vote(block.label, block.hash), leader=block.leader)
    run.record(replace(record, block=block, leader=signature, votes=votes))
    assert "block 1.rejected: hospital-000 are summed as well" in doubts_of(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilon": 1}, "states epsilon = 1 millionths"),
        ({"sigma": 1}, "states a noise of 1 millionths"),
    ],
)
def test_an_opening_that_lies_about_privacy(begin, change, message):
    run = begin()
    run.record(run.make_round(1))
    run.openings -= 1
    run.opening = run.open(**change)
    run.record(run.make_round(2))
    assert f"opening of block 1: {message}" in doubts_of(run)


def test_a_round_that_was_opened_twice(begin):
    run = begin()
    run.record(run.make_round(1))
    run.record(run.make_round(1, attempt=1))
    run.record(run.make_round(2))
    assert doubts_of(run) == "opening of block 2: round 1 was opened before, with another block"


def test_more_openings_than_rounds(begin):
    run = begin(replace(SMALL, rounds=2)).run_rounds(4)
    assert "opening of block 3: states epsilon" in doubts_of(run)


def test_an_opener_that_the_configuration_does_not_name(begin):
    run = begin(openers=1 | 4)  # the publisher lets hospitals open, which the configuration does not say
    run.record(run.make_round(1))
    hospital = run.hospitals[0]
    value = run.opening.signed.value
    signed = Signed.make(value, run.actors[hospital].keys.signing, run.where)
    run.opening = replace(run.opening, signed=signed, party=hospital)
    run.record(run.make_round(2))
    assert "opening of block 1: hospital-000 may not open sums" in doubts_of(run)


@pytest.mark.parametrize(
    ("settle", "message"),
    [
        (lambda run: run.make_settlement(accuracy_bps=9000), "settlement.accuracy_bps: is 9000, but 81"),
        (lambda run: run.make_settlement([7000, 7000, 10_400]), "evaluations[2]: states more than 100 %"),
        (lambda run: run.make_settlement([9000, 9000]), "2 members judged the model; the quorum is 3"),
        (
            lambda run: run.make_settlement(amounts={run.hospitals[0]: run.setting.reward}),
            "settlement.payouts of hospital-000: is 1000000000000000007, but",
        ),
    ],
)
def test_a_settlement_that_the_committee_should_not_have_signed(begin, settle, message):
    run = begin().run_rounds(1)
    run.settle(settle(run))
    assert message in doubts_of(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quorum": 2}, "publication.quorum: is 2, but 3 follows"),
        ({"vrf": False}, "publication.vrf: is False, but True follows"),
        ({"accuracy_bps": 1}, "publication.accuracy_bps: is 1, but 7000 follows"),
        ({"roster": keccak256(b"other")}, "publication.roster"),
        ({"config": b"{}"}, "publication.config: The task configuration must have exactly"),
        ({"config": b"\xff"}, "publication.config: The task configuration is not JSON"),
    ],
)
def test_a_publication_that_contradicts_itself(world, change, message):
    run = Consortium(*world, SMALL, salt=f"publication {change}")
    run.register_all()
    mine(run.chain)
    run.publish(**change)
    # sigma1 is over what the contract holds
    if "config" in change or "roster" in change:
        config = keccak256(change.get("config", run.config.encoded))
        run.genesis = Genesis(run.model, config, change.get("roster", run.roster.hash)).hash
    tokens = {name: value for name, value in change.items() if name in ("quorum", "vrf", "accuracy_bps")}
    run.send("start", run.publisher.account, run.start_call(**tokens), 2_000_000)
    assert message in doubts_of(run)


def test_terms_without_a_ledger(world):
    run = Consortium(*world, SMALL, salt="no ledger")
    run.register_all()
    mine(run.chain)
    run.config = replace(run.config, ledger=None)
    run.publish()
    assert doubts_of(run) == "publication.config: the task's configuration has no terms for a ledger"


def test_stakes_that_are_not_those_of_the_terms(world):
    run = Consortium(*world, SMALL, salt="stakes")
    run.register_all()
    actor = run.actors[run.hospitals[0]]
    mine(run.chain)
    terms = {**run.config.ledger, "stakes": {**run.config.ledger["stakes"], actor.name: actor.stake + 1}}
    run.config = replace(run.config, ledger=terms)
    run.genesis = Genesis(run.model, run.config.hash, run.roster.hash).hash
    run.publish()
    run.start()
    assert f"start.participants[{run.hospitals[0]}]" in doubts_of(run)
