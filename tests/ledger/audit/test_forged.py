"""What contracts refuse, and an audit checks too."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flbc.crypto.signing import keccak256
from flbc.ledger.audit import audit
from flbc.ledger.packing import PackedVote, pack_all, unpack_all
from flbc.ledger.records import Postponement, Refund, Suspension, TaskHistory
from flbc.round import Signed, Vote, domain
from flbc.tokens import ModelToken, Result
from tests.ledger.audit.conftest import SMALL, history_of
from tests.support.ledger import actors_of


def forge(history: TaskHistory, **changes: Any) -> str:
    return "\n".join(audit(replace(history, **changes)).doubts)


def forge_block(history: TaskHistory, **changes: Any) -> str:
    return forge(history, blocks=(replace(history.blocks[0], **changes), *history.blocks[1:]))


def test_votes_that_do_not_count(finished):
    block, settlement = finished.blocks[0], finished.settlement
    assert "block 1.votes: 2 of the committee signed, the quorum is 3" in forge_block(finished, votes=block.votes[66:])
    assert "settlement.votes: 2 of the committee signed" in forge(
        finished, settlement=replace(settlement, votes=settlement.votes[66:])
    )
    # Signatures that are right, of parties that may not vote.
    where = domain(finished.chain_id, finished.hub, finished.simulation)
    people = actors_of(SMALL)
    stranger = next(i for i, actor in enumerate(people) if "committee" not in actor.roles and i != block.leader)
    vote = Signed.make(Vote(block.label, block.hash), people[stranger].keys.signing, where)
    assert "which may not vote" in forge_block(finished, votes=PackedVote(stranger, vote.signature).pack())
    token = ModelToken(
        finished.task, finished.blocks[-1].hash, settlement.model, settlement.link, settlement.accuracy_bps
    )
    result = Result(token.hash, keccak256(settlement.evaluations), keccak256(settlement.payouts))
    vote = Signed.make(result, people[stranger].keys.signing, where)
    votes = PackedVote(stranger, vote.signature).pack()
    assert "which may not vote" in forge(finished, settlement=replace(settlement, votes=votes))


def test_a_leader_of_the_committee_does_not_vote_beside(begin):
    run = begin()
    leader = run.hospitals[0]  # in the committee
    place = run.ranking().index(leader)
    run.record(run.make_round(1, attempt=place, leader=leader))
    history = history_of(run)
    block = history.blocks[0]
    assert audit(history).rounds[0].votes == 3
    vote = Signed.make(Vote(block.label, block.hash), run.actors[leader].keys.signing, run.where)
    votes = pack_all(sorted([*unpack_all(PackedVote, block.votes), PackedVote(leader, vote.signature)], key=_party))
    assert "block 1.votes: vote" in forge_block(history, votes=votes)


def _party(vote: PackedVote) -> int:
    return vote.party


def test_a_signature_of_somebody_who_was_suspended(finished):
    leader = finished.start.accounts[finished.blocks[0].leader]
    early = Suspension(finished.seed.at, leader, True)
    doubts = forge(finished, suspensions=(early,))
    assert "was suspended when it was recorded" in doubts
    assert doubts.count("block 1: hospital") == 1
    lifted = Suspension(finished.seed.at, leader, False)
    assert "was suspended when" not in forge(finished, suspensions=(early, lifted))
    assert "changes nothing" in forge(finished, suspensions=(early, early))


def test_paid_and_refunded(finished):
    doubts = forge(finished, refund=Refund(finished.claims[-1].at, SMALL.reward))
    assert "refund: the task was settled" in doubts
    assert "refund.at: is not after the deadline" in doubts
    assert f"balance: {2 * SMALL.reward} wei left the contract" in doubts


def test_paid_twice(finished):
    assert "was paid twice" in forge(finished, claims=(*finished.claims, finished.claims[-1]))


def test_late_records(finished):
    deadline = finished.publication.deadline
    headers = tuple(replace(header, time=header.time + 86_400, fields=()) for header in finished.headers)
    doubts = forge(finished, headers=headers)
    assert deadline
    for record in ("start: is after", "block 1.at: is after", "settlement: is after"):
        assert f"{record} the deadline" in doubts


def test_keys_that_are_younger_than_the_task(finished):
    young = tuple(replace(entry, at=finished.start.at) for entry in finished.registrations)
    assert forge(finished, registrations=young).count("are not older than the task") == 6


def test_a_publisher_without_the_role(finished):
    others = [entry for entry in finished.registrations if entry.account != finished.publication.publisher]
    publisher = next(entry for entry in finished.registrations if entry not in others)
    doubts = forge(finished, registrations=(*others, replace(publisher, roles=1)))
    assert "publication.publisher: has not the publisher role" in doubts
    assert "the publisher has not registered" in forge(finished, registrations=tuple(others))


def test_a_seed_that_somebody_waited_for(finished):
    postponed = Postponement(finished.seed.at, finished.state.seed_block)
    assert "was within reach" in forge(finished, postponements=(postponed,))


def test_simulated_identities_on_a_real_chain(finished):
    # Signatures are void then as well; the reason comes first.
    changed = replace(finished, simulation=True, chain_id=1)
    assert "no development chain" in audit(changed).doubts[0]
