"""The contracts through the typed client: a whole task on each kind of chain, and whatever they must refuse."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest

from flbc.crypto.eip712 import encode_type
from flbc.crypto.signing import CURVE_ORDER, SigningKey, checksum_address, keccak256
from flbc.errors import ChainResetError, ConfigError, LedgerError, ProtocolError, RevertedError, RosterError
from flbc.ledger.accounts import development_key
from flbc.ledger.audit import audit
from flbc.ledger.build import artifact
from flbc.ledger.chain import connect
from flbc.ledger.deployment import Deployment, check, deploy, find
from flbc.ledger.history import read_task
from flbc.ledger.hub import TYPES, Hub
from flbc.ledger.members import Member, party_of, role_bits
from flbc.ledger.outbox import Outbox
from flbc.ledger.packing import PackedSubmission, compact
from flbc.ledger.records import TaskHistory
from flbc.ledger.registry import registration
from flbc.ledger.transactions import Call
from flbc.roster import ROLE_BITS
from flbc.round import Block, Opening, RoundLabel, Signed, Submission, Vote, domain
from flbc.tokens import Evaluation, Genesis, ModelToken, Register, Result, TaskToken
from tests.support.ledger import (
    ETHER,
    GWEI,
    Actor,
    Consortium,
    Setting,
    deploy_contracts,
    mine,
    pass_time,
    secret_key,
    send,
)

SMALL = Setting(hospitals=3, members=2, overlap=1)
STRUCTS = {
    "ROUND_LABEL": RoundLabel, "SUBMISSION": Submission, "BLOCK": Block, "VOTE": Vote, "OPENING": Opening,
    "GENESIS": Genesis, "TASK_TOKEN": TaskToken, "MODEL_TOKEN": ModelToken, "EVALUATION": Evaluation,
    "RESULT": Result,
}  # fmt: skip


# ---------------------------------------------------------------------- a whole task on each chain
def test_the_whole_life_of_a_task(chain, tmp_path):
    deployment = deploy_contracts(chain, tmp_path)
    check(chain, deployment)
    run = Consortium(chain, deployment).begin()
    run.record(run.make_round(1))

    record = run.make_round(2)
    outsider = Signed.make(record.submissions[2].value, secret_key("outsider"), run.where)
    bad = replace(record, submissions=[*record.submissions[:2], outsider, *record.submissions[3:]])
    with pytest.raises(RevertedError, match=r"BadSubmission\(index = 2\)") as refused:
        run.record(bad)
    assert (refused.value.name, refused.value.arguments) == ("BadSubmission", {"index": 2})
    # The leader drops the submission that was named, and sends the rest.
    dropped = record.submissions[2].value.party
    run.record(run.make_round(2, submitters=[i for i in run.hospitals if i != dropped], attempt=1))

    run.settle()
    amounts = run.amounts()
    assert sum(amounts.values()) == run.setting.reward
    assert chain.balance(deployment.hub) >= run.setting.reward
    for party, amount in amounts.items():
        account = run.actors[party].account.address
        before = chain.balance(account)
        receipt = run.claim(party)
        assert chain.balance(account) == before + amount - receipt["gasUsed"] * receipt["effectiveGasPrice"]
        assert run.hub.claimed(run.task, party)

    history = read_task(chain, deployment, run.task)
    report = audit(history)
    assert report.doubts == ()
    assert [(row.submissions, row.attempt) for row in report.rounds] == [(4, 0), (3, 1)]
    assert all(header.fields for header in history.headers)
    assert TaskHistory.unpack(history.pack()) == history


# ---------------------------------------------------------------------- one embedded chain for the rest
@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    with pytest.MonkeyPatch.context() as patch, connect(f"embedded:{folder / 'chain.sqlite'}") as chain:
        patch.setenv("FLBC_HOME", str(folder))
        yield chain, deploy_contracts(chain, folder)


@pytest.fixture
def fresh(world, request) -> Consortium:
    """A consortium whose parties are registered."""
    made = Consortium(*world, SMALL, salt=request.node.name)
    made.register_all()
    mine(made.chain)
    return made


@pytest.fixture
def run(fresh) -> Consortium:
    """A task that waits for its first round."""
    fresh.publish()
    fresh.start()
    fresh.draw_seed()
    return fresh


def refused(run: Consortium, call: Call, key: SigningKey | None = None) -> tuple[str, dict[str, object]]:
    """Return the error with which a contract refuses a call, without sending it."""
    with pytest.raises(RevertedError) as error:
        run.chain.simulate(call, sender=(key or run.relayer).address)
    return error.value.name, error.value.arguments


def signed_block(run: Consortium, record, block: Block):
    """Sign a changed block as its leader and the committee would."""
    signature = Signed.make(block, run.actors[block.leader].keys.signing, run.where).signature
    return replace(
        record, block=block, leader=signature, votes=run.votes(Vote(block.label, block.hash), leader=block.leader)
    )


# ---------------------------------------------------------------------- EIP-712
@pytest.mark.parametrize("name", TYPES)
def test_types_are_those_of_the_contract(world, name):
    struct = STRUCTS[name]
    members = struct.SIGNED if struct is Submission else struct.MEMBERS
    assert Hub(*world).type_hash(name) == keccak256(encode_type(struct.__name__, members).encode())


def test_every_type_is_compared():
    assert set(STRUCTS) == set(TYPES)


def test_register_type_and_domain_are_those_of_the_contract(world):
    chain, deployment = world
    hub = Hub(chain, deployment)
    assert bytes(chain.call(hub.registry.contract.functions.REGISTER_TYPEHASH())) == keccak256(
        encode_type("Register", Register.MEMBERS).encode()
    )
    where = domain(chain.chain_id, deployment.hub, deployment.simulation).separator()
    assert hub.separator() == where
    assert bytes(chain.call(hub.registry.contract.functions.separator())) == where


def test_contracts_for_simulation_have_another_domain(world, tmp_path):
    chain = world[0]
    simulated = deploy_contracts(chain, tmp_path, simulation=True)
    hub = Hub(chain, simulated)
    assert hub.simulation()
    assert hub.separator() == domain(chain.chain_id, simulated.hub, True).separator()
    assert hub.separator() != domain(chain.chain_id, simulated.hub, False).separator()


def test_the_contract_computes_the_same_hashes(run):
    record = run.make_round(1)
    run.record(record)
    state = run.hub.task(run.task)
    assert (state.genesis, state.head) == (run.genesis, record.block.hash)
    assert (state.height, state.round, state.attempt, state.status) == (1, 1, 0, "started")
    assert run.hub.frozen(run.task) == run.seats()
    assert [seat.account for seat in run.hub.participants(run.task)] == [a.account.address for a in run.actors]


# ---------------------------------------------------------------------- submissions
@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda run: replace(run.label(1), round=2), id="of another round"),
        pytest.param(lambda run: replace(run.label(1), attempt=1), id="of another attempt"),
        pytest.param(lambda run: replace(run.label(1), task=keccak256(b"other")), id="of another task"),
        pytest.param(lambda run: replace(run.label(1), chain_id=1), id="of another chain"),
        pytest.param(lambda run: replace(run.label(1), hub=b"\x07" * 20), id="of another hub"),
        pytest.param(lambda run: replace(run.label(1), simulation=True), id="of a simulation"),
    ],
)
def test_a_submission_for_something_else(run, wrong):
    record = run.make_round(1)
    other = run.submission(wrong(run), record.submissions[1].value.party)
    listed = [record.submissions[0], other, record.submissions[2]]
    assert refused(run, run.hub.submit_round(replace(record, submissions=listed))) == ("BadSubmission", {"index": 1})


def test_a_wrong_signature_is_named_dropped_and_the_rest_resent(run):
    record = run.make_round(1)
    spoilt = replace(record.submissions[1], signature=record.submissions[0].signature)
    listed = [record.submissions[0], spoilt, record.submissions[2]]
    name, arguments = refused(run, run.hub.submit_round(replace(record, submissions=listed)))
    assert (name, arguments) == ("BadSubmission", {"index": 1})
    bad = record.submissions[arguments["index"]].value.party
    kept = [i for i in run.hospitals if i != bad]
    leader = next(i for i in run.ranking() if i != bad)
    run.record(run.make_round(1, attempt=2, submitters=kept, leader=leader))
    assert run.hub.task(run.task).height == 1


def test_a_signer_that_never_registered(run):
    record = run.make_round(1)
    stranger = Signed.make(record.submissions[0].value, secret_key("stranger"), run.where)
    listed = [stranger, *record.submissions[1:]]
    assert refused(run, run.hub.submit_round(replace(record, submissions=listed)))[0] == "BadSubmission"


def test_a_high_s(run):
    record = run.make_round(1)
    honest = record.submissions[0].signature
    high = (CURVE_ORDER - int.from_bytes(honest[32:64], "big")) | (1 - (honest[64] - 27)) << 255
    if (CURVE_ORDER - int.from_bytes(honest[32:64], "big")) >> 255:  # its top bit is taken by v: no such form
        high &= (1 << 255) - 1
    raw = compact(honest)[:32] + high.to_bytes(32, "big")
    data = run.hub.submit_round(record).data.replace(compact(honest), raw)
    assert refused(run, Call(run.hub.address, data)) == ("BadSubmission", {"index": 0})


def test_the_same_submission_twice(run):
    record = run.make_round(1)
    packed = [PackedSubmission.of(signed) for signed in record.submissions]
    with pytest.raises(ProtocolError, match="rise strictly"):
        run.hub.submit_round(replace(record, submissions=[record.submissions[0], *record.submissions]))
    # and past our own client
    data = run.hub.submit_round(record).data
    data = data.replace(packed[1].pack(), packed[0].pack())
    assert refused(run, Call(run.hub.address, data)) == ("BadSubmission", {"index": 1})


@pytest.mark.parametrize("role", ["member-00", "authority"])
def test_a_party_that_does_not_train(run, role):
    record = run.make_round(1)
    index = run.roster.index(role)
    listed = sorted([run.submission(record.label, index), *record.submissions], key=lambda s: s.value.party)
    name, arguments = refused(run, run.hub.submit_round(replace(record, submissions=listed)))
    assert (name, listed[arguments["index"]].value.party) == ("BadSubmission", index)


def test_no_submissions(run):
    assert refused(run, run.hub.submit_round(replace(run.make_round(1), submissions=[])))[0] == "NoSubmissions"


def test_a_round_again(run):
    record = run.make_round(1)
    call = run.hub.submit_round(record)
    run.record(record)
    name, arguments = refused(run, call)
    assert (name, arguments["lastRound"], arguments["lastAttempt"]) == ("RoundNotRising", 1, 0)


def test_what_is_suspended_is_refused_and_lifted_again(run):
    run.record(run.make_round(1))
    submitter, voter = run.hospitals[1], run.committee[-1]
    registry, record = run.hub.registry, run.make_round(2)
    call = run.hub.submit_round(record)
    for party in (submitter, voter, record.block.leader):
        account = run.actors[party].account.address
        send(run.chain, run.authority, registry.suspend(account))
        assert refused(run, call) == ("Suspended", {"party": party})
        send(run.chain, run.authority, registry.suspend(account, on=False))
    assert registry.suspensions() >= 6
    run.record(record)
    send(run.chain, run.authority, registry.suspend(run.actors[voter].account.address))
    try:
        assert refused(run, run.hub.settle(run.make_settlement())) == ("Suspended", {"party": voter})
    finally:
        send(run.chain, run.authority, registry.suspend(run.actors[voter].account.address, on=False))


def test_only_the_authority_suspends(run):
    call = run.hub.registry.suspend(run.actors[0].account.address)
    assert refused(run, call)[0] == "OwnableUnauthorizedAccount"


# ---------------------------------------------------------------------- leader and votes
def test_a_quorum_that_is_missed(run):
    record = run.make_round(1)
    quorum = run.quorum
    call = run.hub.submit_round(replace(record, votes=record.votes[:-1]))
    assert refused(run, call) == ("NoQuorum", {"got": quorum - 1, "need": quorum})


def test_votes_that_do_not_count(run):
    leader = run.hospitals[0]  # a member of the committee
    record = run.make_round(1, leader=leader, attempt=2)
    vote = Vote(record.label.hash, record.block.hash)
    for who in (leader, run.hospitals[1], run.roster.index("authority")):
        votes = sorted([*record.votes, *run.votes(vote, [who])])
        place = [party for party, _ in votes].index(who)
        assert refused(run, run.hub.submit_round(replace(record, votes=votes))) == ("BadVote", {"index": place})
    other = run.votes(Vote(record.label.hash, keccak256(b"another block")), [record.votes[0][0]])
    votes = [*other, *record.votes[1:]]
    assert refused(run, run.hub.submit_round(replace(record, votes=votes))) == ("BadVote", {"index": 0})


def test_leaders_that_cannot_lead(run):
    record = run.make_round(1)
    member = run.roster.index("member-00")
    block = replace(record.block, leader=member)
    assert refused(run, run.hub.submit_round(signed_block(run, record, block))) == ("NotLeader", {"party": member})
    other = next(i for i in run.hospitals if i != record.block.leader)
    forged = Signed.make(record.block, run.actors[other].keys.signing, run.where).signature
    call = run.hub.submit_round(replace(record, leader=forged))
    assert refused(run, call) == ("BadLeaderSignature", {"party": record.block.leader})


def test_a_vrf_proof_of_somebody_else_or_for_another_height(run):
    record = run.make_round(1)
    other = next(i for i in run.hospitals if i != record.block.leader)
    stolen = run.make_round(1, attempt=2, leader=other)
    call = run.hub.submit_round(replace(record, proof=stolen.proof))
    assert refused(run, call)[0] == "BadProof"
    run.follow(record)
    later = run.make_round(1, leader=record.block.leader)  # a proof for block 2
    call = run.hub.submit_round(replace(record, proof=later.proof, alpha=later.alpha))
    assert refused(run, call)[0] == "BadProof"


def test_nobody_is_elected_before_the_seed(fresh):
    fresh.publish()
    fresh.start()
    assert refused(fresh, fresh.hub.draw_seed(fresh.task))[0] == "SeedNotReady"
    assert refused(fresh, fresh.hub.submit_round(fresh.make_round(1)))[0] == "NoSeed"


def test_openings_of_another_block_or_by_another_party(run):
    run.record(run.make_round(1))
    opening = run.opening
    for value, party in (
        (replace(opening.signed.value, block=run.genesis), opening.party),
        (opening.signed.value, run.hospitals[0]),
    ):
        signed = Signed.make(value, run.actors[party].keys.signing, run.where)
        run.opening = replace(opening, signed=signed, party=party)
        assert refused(run, run.hub.submit_round(run.make_round(2))) == ("BadOpening", {"party": party})


# ---------------------------------------------------------------------- money
def test_publishing(fresh):
    run, publisher = fresh, fresh.publisher.account
    assert refused(run, run.publish_call(reward=0), publisher)[0] == "NoReward"
    assert refused(run, run.publish_call(deadline=run.chain.now() - 1), publisher)[0] == "BadDeadline"
    assert refused(run, run.publish_call(deadline=run.chain.now() + 181 * 86_400), publisher)[0] == "BadDeadline"
    assert refused(run, run.publish_call(accuracy_bps=10_001), publisher)[0] == "BadAccuracy"
    assert refused(run, run.publish_call(reward=1), run.actors[0].account)[0] == "NotPublisher"
    assert refused(run, run.publish_call(), run.relayer)[0] == "NotPublisher"
    assert not run.hub.exists(run.task)
    run.publish()
    assert run.hub.exists(run.task)
    assert refused(run, run.publish_call(), publisher)[0] == "TaskExists"


def test_publishing_without_funds(fresh, tmp_path):
    poor = secret_key("poor")
    send(fresh.chain, fresh.relayer, Call(poor.address, value=ETHER // 1000), 21_000)
    with Outbox(fresh.chain, poor, tmp_path / "poor.sqlite") as outbox:
        with pytest.raises(LedgerError, match=r"has 0\.001.* send it"):
            outbox.check_funds(1, 500_000, fresh.setting.reward)
        outbox.submit("publish", fresh.publish_call(), 500_000)
        with pytest.raises(LedgerError, match=r"has 0\.001.* may cost"):
            outbox.wait("publish", 0.5)
    assert not fresh.hub.exists(fresh.task)


def test_starting(fresh):
    run, publisher = fresh, fresh.publisher.account
    run.publish()
    accounts = [actor.account.address for actor in run.actors]
    swapped = [accounts[1], accounts[0], *accounts[2:]]
    stranger = secret_key("stranger").address
    assert refused(run, run.start_call(swapped), publisher) == ("NamesNotRising", {"index": 1})
    assert refused(run, run.start_call([*accounts, stranger]), publisher)[0] == "NotActive"
    assert refused(run, run.start_call(reward=1), publisher)[0] == "BadSigma1"
    assert refused(run, run.start_call(), run.relayer)[0] == "NotPublisher"
    assert refused(run, run.start_call(accounts[-1:]), publisher)[0] in ("BadQuorum", "NoHospital")
    run.start()
    assert refused(run, run.start_call(), publisher)[0] == "WrongStatus"


def test_keys_made_after_the_publication(fresh):
    fresh.publish()
    late = Actor.make("zz-late", ("hospital",), 10, 10**7)
    fresh.register(late)
    accounts = [*(actor.account.address for actor in fresh.actors), late.account.address]
    name, arguments = refused(fresh, fresh.start_call(accounts), fresh.publisher.account)
    assert (name, arguments["index"]) == ("KeysTooRecent", len(accounts) - 1)


def test_accuracy_below_the_bar_then_refund(fresh):
    run = fresh
    run.deadline = run.chain.now() + 600
    run.publish(deadline=run.deadline)
    run.start()
    run.draw_seed()
    run.run_rounds(1)
    low = run.make_settlement([6000] * len(run.committee))
    assert refused(run, run.hub.settle(low)) == ("AccuracyTooLow", {"got": 6000, "need": 7000})
    assert refused(run, run.hub.refund(run.task))[0] == "DeadlineNotPassed"
    pass_time(run.chain, run.deadline)
    # Now it is too late for everything else.
    late = {"DeadlinePassed"}
    assert {refused(run, run.hub.submit_round(run.make_round(2)))[0]} == late
    assert {refused(run, run.hub.settle(run.make_settlement()))[0]} == late
    publisher = run.publisher.account.address
    before = run.chain.balance(publisher)
    run.send("refund", run.relayer, run.hub.refund(run.task))
    assert run.chain.balance(publisher) == before + run.setting.reward
    assert refused(run, run.hub.refund(run.task))[0] == "WrongStatus"
    assert refused(run, run.hub.settle(run.make_settlement()))[0] == "WrongStatus"
    assert audit(read_task(run.chain, run.deployment, run.task)).doubts == ()


def test_claims(run):
    run.run_rounds(1)
    first, second = run.hospitals[:2]
    assert refused(run, run.claim_call(first), run.actors[first].account)[0] == "WrongStatus"
    run.settle()
    mine_, others = run.actors[first].account, run.actors[second].account
    assert refused(run, run.claim_call(first), others)[0] == "BadClaim"  # for another
    assert refused(run, run.claim_call(first, amount=run.setting.reward), mine_)[0] == "BadClaim"  # too much
    run.claim(first)
    assert refused(run, run.claim_call(first), mine_) == ("AlreadyClaimed", {"index": first})
    assert refused(run, run.hub.refund(run.task))[0] == "WrongStatus"
    run.claim(second)
    assert not run.hub.claimed(run.task, run.hospitals[2])


@pytest.mark.parametrize(
    ("amounts", "error"),
    [
        (lambda run: {run.hospitals[0]: run.setting.reward - 1}, "WrongSum"),
        (lambda run: {60_000: run.setting.reward}, "BadPayout"),
        (lambda run: {run.hospitals[0]: run.setting.reward, run.hospitals[1]: 0}, "BadPayout"),
        (lambda run: {}, "NoPayouts"),
    ],
)
def test_payouts_that_are_not_the_escrow(run, amounts, error):
    run.run_rounds(1)
    assert refused(run, run.hub.settle(run.make_settlement(amounts=amounts(run))))[0] == error


def test_settlements(run):
    early = run.make_settlement(amounts={run.hospitals[0]: run.setting.reward})
    assert refused(run, run.hub.settle(early))[0] == "NoRounds"
    run.run_rounds(1)
    record = run.make_settlement()
    assert refused(run, run.hub.settle(replace(record, votes=record.votes[1:])))[0] == "NoQuorum"
    authority = run.roster.index("authority")
    assert refused(run, run.hub.settle(replace(record, party=authority)))[0] == "BadModelSignature"
    for changed in (
        replace(record, token=replace(record.token, link="https://elsewhere.example")),
        replace(record, token=replace(record.token, model=keccak256(b"another"))),
    ):
        assert refused(run, run.hub.settle(changed))[0] == "BadModelSignature"
    assert refused(run, run.hub.settle(replace(record, evaluations=b"")))[0] == "BadVote"
    run.settle(record)
    assert refused(run, run.hub.settle(record))[0] == "WrongStatus"


# ---------------------------------------------------------------------- equivocation
@pytest.mark.parametrize("kind", ["submissions", "blocks", "votes"])
def test_two_things_under_one_label_cost_the_stake(world, kind):
    cheat = Actor.make(f"cheat-{kind}", ("hospital",), 10, 10**7)
    run = Consortium(*world, SMALL, salt=f"cheat {kind}")
    run.register(cheat)
    label, key = run.label(1), cheat.keys.signing
    first, second = {
        "submissions": (
            Submission(label.hash, 0, 1, 1000, *[keccak256(b"a")] * 4),
            Submission(label.hash, 0, 1, 1000, *[keccak256(b"b")] * 4),
        ),
        "blocks": (
            Block(run.genesis, label.hash, 0, (keccak256(b"a"), keccak256(b"b")), (3, 9), keccak256(b"h")),
            Block(run.genesis, label.hash, 0, (keccak256(b"a"),), (), keccak256(b"h")),
        ),
        "votes": (Vote(label.hash, keccak256(b"a")), Vote(label.hash, keccak256(b"b"))),
    }[kind]
    one, two = (Signed.make(value, key, run.where) for value in (first, second))
    account, registry = cheat.account.address, run.hub.registry
    assert refused(run, run.hub.report(one, one))[0] == "SameStruct"
    stranger = Signed.make(second, secret_key("stranger"), run.where)
    assert refused(run, run.hub.report(one, stranger))[0] == "SignersDiffer"
    assert registry.member(account).stake == cheat.stake * GWEI
    run.send("report", run.relayer, run.hub.report(one, two))
    assert registry.member(account).stake == 0
    assert refused(run, run.hub.report(one, two))[0] == "AlreadyPunished"
    treasury = registry.treasury()
    before = run.chain.balance(treasury)
    run.send("withdraw", run.relayer, registry.withdraw_slashed())
    assert run.chain.balance(treasury) == before + cheat.stake * GWEI


def test_a_new_attempt_is_no_equivocation(run):
    first, second = (run.submission(run.label(1, attempt), run.hospitals[0]) for attempt in (0, 1))
    assert refused(run, run.hub.report(first, second))[0] == "LabelsDiffer"


def test_only_pairs_of_one_kind_are_evidence(run):
    vote = Signed.make(Vote(keccak256(b"l"), keccak256(b"b")), run.actors[0].keys.signing, run.where)
    with pytest.raises(ProtocolError, match="two signed"):
        run.hub.report(vote, run.submission(run.label(1), run.hospitals[0]))


# ---------------------------------------------------------------------- registry
def test_members_are_parties(fresh):
    registry = fresh.hub.registry
    for actor in fresh.actors:
        account, member = registry.find(actor.party)
        assert account == actor.account.address
        assert member.party() == actor.party
        assert member.stake == actor.stake * GWEI
    publisher = registry.member(fresh.publisher.account.address)
    assert publisher.roles & ROLE_BITS["publisher"]
    assert publisher.party() == fresh.publisher.party  # a roster knows no publishers


def test_parties_that_are_not_registered_as_the_roster_says(fresh):
    registry, party = fresh.hub.registry, fresh.actors[fresh.hospitals[0]].party
    with pytest.raises(RosterError, match=r"examples, vrf .*register again"):
        registry.find(replace(party, examples=1, vrf=b"\x09" * 20))
    with pytest.raises(RosterError, match=r"not registered on this chain.*flbc register"):
        registry.find(replace(party, address=b"\x09" * 20))
    assert registry.account_of(b"\x09" * 20) is None
    nobody = registry.member(b"\x09" * 20)
    assert not nobody.registered
    with pytest.raises(RosterError, match="has not registered"):
        nobody.party()


def test_names_that_a_contract_cannot_hold():
    actor = Actor.make("x" * 33, ("hospital",))
    with pytest.raises(RosterError, match=r"1 to 32 ASCII characters. Choose a shorter name"):
        registration(actor.party, actor.account.address)
    with pytest.raises(RosterError, match="cannot be registered"):
        party_of(b"\xff" * 32, 1, b"\x01" * 20, bytes(32), bytes(32), 0, bytes(20))


def test_roles_that_flbc_does_not_know():
    with pytest.raises(RosterError, match="unknown roles"):
        party_of(b"a".ljust(32, b"\0"), 64 | 1, b"\x01" * 20, bytes(32), bytes(32), 0, bytes(20))
    assert role_bits(("hospital", "committee", "publisher")) == 11
    assert role_bits(("verifier",)) == 32


def test_stakes_leave_after_unbonding_only(world):
    run = Consortium(*world, SMALL)
    actor = Actor.make("leaver", ("hospital",), 10, 10**7)
    run.register(actor)
    registry, key = run.hub.registry, actor.account
    run.send("top up", key, registry.top_up(5 * GWEI))
    assert registry.member(key.address).stake == (actor.stake + 5) * GWEI
    assert refused(run, registry.withdraw_stake(), key)[0] == "NotUnstaking"
    run.send("leave", key, registry.begin_unstake())
    member: Member = registry.member(key.address)
    assert member.unlock_at > 0
    assert refused(run, registry.withdraw_stake(), key) == ("StakeLocked", {"until": member.unlock_at})
    pass_time(run.chain, member.unlock_at)
    run.send("withdraw", key, registry.withdraw_stake())
    assert registry.member(key.address).stake == 0


def test_a_stolen_signing_key_cannot_be_registered(world):
    run = Consortium(*world, SMALL)
    run.register_all()
    victim, thief = run.actors[0], secret_key("thief")
    run.fund(thief)
    entry = registration(victim.party, thief.address)
    own = Signed.make(entry, thief, run.where).signature
    assert refused(run, run.hub.registry.register(entry, own), thief)[0] == "BadProofOfPossession"
    proof = Signed.make(entry, victim.keys.signing, run.where).signature
    assert refused(run, run.hub.registry.register(entry, proof), thief)[0] == "SignerTaken"


def test_the_authority_can_hand_its_right_over(world, tmp_path):
    chain = world[0]
    deployment = deploy_contracts(chain, tmp_path, simulation=True)
    registry = Hub(chain, deployment).registry
    heir = development_key(5)
    send(chain, development_key(1), registry.transfer_ownership(heir.address))
    assert registry.authority() == development_key(1).address
    send(chain, heir, registry.accept_ownership())
    assert registry.authority() == heir.address
    assert (registry.unbonding(), registry.treasury()) == (3600, development_key(2).address)
    assert registry.hub() == deployment.hub


# ---------------------------------------------------------------------- deployments
def test_deployments_are_found_again(world, home):
    chain, deployment = world
    with pytest.raises(LedgerError, match="run `flbc deploy`"):
        find(chain)
    path = deployment.save()
    assert path == home / "deployments" / f"{chain.chain_id}-{chain.genesis.hex()[:8]}.json"
    assert find(chain) == deployment
    assert Deployment.load(path) == deployment


def test_deploying_twice_is_deploying_once(world, tmp_path):
    chain, _ = world
    options = {"authority": development_key(1).address, "unbonding": 7}
    with Outbox(chain, development_key(3), tmp_path / "outbox.sqlite") as outbox:
        first = deploy(chain, outbox, **options)
        assert deploy(chain, outbox, **options) == first
        assert deploy(chain, outbox, label="another", **options).hub != first.hub
    assert first.registry != first.hub


def test_a_reset_chain_is_refused(world, home, tmp_path):
    chain, deployment = world
    with connect(f"embedded:{tmp_path / 'other.sqlite'}") as other:
        with pytest.raises(ChainResetError, match="flbc deploy"):
            check(other, replace(deployment, genesis=keccak256(b"another block 0")))
        deployment = replace(deployment, genesis=other.genesis)  # the same block 0, but nothing was deployed
        with pytest.raises(ChainResetError, match=r"is not on it: the node lost blocks.*`flbc deploy`"):
            check(other, deployment)
    replace(deployment, genesis=keccak256(b"old block 0")).save()
    with pytest.raises(ChainResetError, match="the chain was reset"):
        find(chain)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda d: {"chain_id": 1}, ChainResetError, "is on chain 1"),
        (lambda d: {"block_hash": keccak256(b"x")}, ChainResetError, "is in another block"),
        (lambda d: {"transaction": keccak256(b"x")}, ChainResetError, "is not on it"),
        (lambda d: {"hub": d.registry}, LedgerError, "is not the TaskHub"),
        (lambda d: {"hub": b"\x09" * 20}, LedgerError, "is not the TaskHub"),
        (lambda d: {"registry": d.hub}, LedgerError, "is not the Registry"),
        (lambda d: {"simulation": True}, LedgerError, "another simulation flag"),
    ],
)
def test_an_edited_deployment_is_refused(world, change, error, message):
    chain, deployment = world
    with pytest.raises(error, match=message):
        check(chain, replace(deployment, **change(deployment)))


def test_registries_do_not_mix(world, tmp_path):
    chain, deployment = world
    other = deploy_contracts(chain, tmp_path, simulation=True)
    with pytest.raises(LedgerError, match="do not belong to each other"):
        check(chain, replace(deployment, registry=other.registry))


def test_other_code_at_the_address_is_refused(world, monkeypatch):
    chain, deployment = world
    real = chain.w3.eth.get_code

    def tampered(address):
        code = bytearray(real(address))
        code[-60] ^= 1
        return bytes(code)

    monkeypatch.setattr(chain.w3.eth, "get_code", tampered)
    with pytest.raises(LedgerError, match="is not the TaskHub that this version of flbc ships"):
        check(chain, deployment)


def test_code_whose_constants_were_written_by_hand_is_refused(world):
    """The right code with another registry in one of the places that the constructor fills in."""
    chain, deployment = world
    code = bytearray(chain.w3.eth.get_code(checksum_address(deployment.hub)))
    places = [
        at for at, _ in artifact("TaskHub")["immutableReferences"] if code[at + 12 : at + 32] == deployment.registry
    ]
    assert len(places) > 1
    for chosen in places:
        forged = bytearray(code)
        forged[chosen + 12 : chosen + 32] = b"\x66" * 20
        init = bytes.fromhex(f"61{len(forged):04x}80600a3d393df3") + forged
        receipt = send(chain, development_key(0), Call(None, init), 8_000_000)
        where = {"hub": bytes.fromhex(receipt["contractAddress"][2:]), "block_hash": bytes(receipt["blockHash"])}
        found = replace(deployment, transaction=bytes(receipt["transactionHash"]), **where)
        with pytest.raises(LedgerError, match="is not the TaskHub"):
            check(chain, found)


def test_development_identities_need_a_development_chain(world, tmp_path, monkeypatch):
    chain, _ = world
    with Outbox(chain, development_key(4), tmp_path / "outbox.sqlite") as outbox:
        monkeypatch.setattr(chain, "development", False)
        with pytest.raises(ConfigError, match="no development chain"):
            deploy(chain, outbox, authority=development_key(1).address, simulation=True)
        with pytest.raises(ConfigError, match="20 bytes each"):
            deploy(chain, outbox, authority=bytes(20))
        assert outbox.pending() == []


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"chain_id":"1"}'])
def test_a_damaged_deployment_file_is_refused(tmp_path, content):
    path = tmp_path / "deployment.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="is not a deployment"):
        Deployment.load(path)
    with pytest.raises(ConfigError, match="Cannot read"):
        Deployment.load(tmp_path / "missing.json")


def test_a_deployment_file_is_readable_json(world, tmp_path):
    data = json.loads(world[1].save(tmp_path / "d.json").read_text())
    assert set(data) == {field.name for field in fields(Deployment)}
    assert data["hub"] == world[1].hub.hex()


def test_a_task_that_is_not_there(world):
    hub = Hub(*world)
    with pytest.raises(LedgerError, match="There is no task"):
        hub.task(keccak256(b"none"))
    assert hub.participants(keccak256(b"none")) == ()
