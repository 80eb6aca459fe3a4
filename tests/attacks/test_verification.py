"""A server, clients and verifiers that cheat, against what verifiers check before, during and after."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flbc.cards import Verdict
from flbc.codec import Frame
from flbc.crypto.signing import keccak256
from flbc.errors import (
    AlreadyOpenedError,
    LinkError,
    OpeningRefusedError,
    PolicyError,
    ProtocolError,
    RosterError,
    SignatureError,
    StaleLabelError,
    VerificationError,
)
from flbc.node import Policy
from flbc.node.committee import Entry
from flbc.node.model_request import ModelsRequest
from flbc.node.ticket import admit
from flbc.node.verdict import Answer, check_verdicts
from flbc.round import Signed
from flbc.verification.policy import Policy as ModelPolicy
from tests.support.parties import identity
from tests.support.verifying import VERIFIERS, CheckedConsortium, nonce_of, rejected, verdicts


@pytest.fixture
def consortium(tmp_path: Path) -> CheckedConsortium:
    return CheckedConsortium.found(tmp_path)


# ---------------------------------------------------------------------- honest
def test_a_round(consortium: CheckedConsortium) -> None:
    consortium.flip = frozenset({"hospital-01"})
    ticket = consortium.ticket()
    replies = consortium.submit(ticket)
    words = verdicts(consortium.verify(ticket, consortium.models(ticket, replies)))
    assert rejected(ticket, words) == ["hospital-01"]
    total = consortium.give(ticket, consortium.block(ticket, replies, ["hospital-01"]))
    opened = consortium.plan.decode(total, 1)  # type: ignore[call-arg]
    wanted = consortium.mean([name for name in consortium.names if name != "hospital-01"])
    for name, array in opened.mean.items():
        assert np.allclose(array, wanted[name], atol=2.0**-23)
    assert (opened.weight, opened.metrics) == (240.0, (0.5,))


# ---------------------------------------------------------------------- clients
def test_a_client_that_hands_in_the_model_of_another(consortium: CheckedConsortium) -> None:
    """Three copies would be "three models"; boxes name their sender, so a copy opens for nobody."""
    ticket = consortium.ticket()
    replies = consortium.submit(ticket)
    victim, thief = (ticket.roster.index(name) for name in ("hospital-00", "hospital-01"))
    stolen = replies["hospital-00"]
    assert stolen.submission is not None
    copied = replace(stolen.submission.value, party=thief)  # type: ignore[type-var]
    signed = Signed.make(copied, consortium.me["hospital-01"].keys.signing, ticket.label.domain)
    assert nonce_of(stolen) == copied.nonce  # type: ignore[union-attr]
    replies["hospital-01"] = replace(stolen, submission=signed)
    assert victim != thief
    words = verdicts(consortium.verify(ticket, consortium.models(ticket, replies)))
    assert rejected(ticket, words) == ["hospital-01"]


def test_boxes_of_another_round(consortium: CheckedConsortium) -> None:
    first, second = consortium.ticket(1), consortium.ticket(2)
    old, new = consortium.submit(first), consortium.submit(second)
    stale = old["hospital-02"]
    assert stale.submission is not None
    again = replace(stale.submission.value, label=second.label.hash)  # type: ignore[type-var]
    signed = Signed.make(again, consortium.me["hospital-02"].keys.signing, second.label.domain)
    new["hospital-02"] = replace(stale, submission=signed)
    words = verdicts(consortium.verify(second, consortium.models(second, new)))
    assert rejected(second, words) == ["hospital-02"]
    with pytest.raises(VerificationError, match="another label"):
        verdicts(consortium.verify(second, consortium.models(second, old)))


def test_shares_that_differ_between_neighbours(consortium: CheckedConsortium) -> None:
    """A client cannot show one model to one pair of verifiers and add another: the body is one, or does not open."""
    ticket = consortium.ticket()
    replies = consortium.submit(ticket)
    cheat = replies["hospital-03"]
    payload = bytearray(cheat.payload)
    payload[-30] ^= 1
    assert cheat.submission is not None
    value = replace(cheat.submission.value, payload=keccak256(bytes(payload)))  # type: ignore[type-var]
    signed = Signed.make(value, consortium.me["hospital-03"].keys.signing, ticket.label.domain)
    replies["hospital-03"] = replace(cheat, submission=signed, payload=bytes(payload))
    words = verdicts(consortium.verify(ticket, consortium.models(ticket, replies)))
    assert rejected(ticket, words) == ["hospital-03"]


# ---------------------------------------------------------------------- the server, before
def swapped(consortium: CheckedConsortium, **changes: object) -> bytes:
    """Keys in which verifier b says something else, signed by the server instead."""
    thief = identity("verifier-b", ("verifier",))
    seat = replace(consortium.seat("verifier-b"), **changes).signed(thief)  # type: ignore[arg-type]
    return consortium.table(verifier_b=seat).encoded


def test_a_server_cannot_swap_what_verifiers_say(consortium: CheckedConsortium) -> None:
    """S1: nobody shares a model for a key, an address or a certificate that its pinned owner did not sign."""
    mine = identity("verifier-b", ("verifier",)).keys.encryption.public
    for changes in ({"box": mine}, {"address": "10.0.0.1:1"}, {"certificate": b"x"}, {"samples": 7}):
        ticket = consortium.ticket(keys=swapped(consortium, **changes))
        with pytest.raises(SignatureError):
            consortium.submit(ticket, ["hospital-00"])


@pytest.mark.parametrize(("seats", "text"), [(2, "2 have the role"), (4, "4 have the role"), (0, "0 have the role")])
def test_a_committee_of_other_than_three(consortium: CheckedConsortium, seats: int, text: str) -> None:
    parties = [party for party in consortium.roster.parties if not party.has("verifier")]
    extra = [identity(f"verifier-{i}", ("verifier",)) for i in range(seats)]
    consortium.pins.parties.update({who.name: who.party() for who in extra})  # type: ignore[union-attr]
    roster = replace(
        consortium.roster, parties=tuple(sorted([*parties, *(w.party() for w in extra)], key=lambda p: p.name))
    )
    with pytest.raises(RosterError, match=text):
        consortium.submit(consortium.ticket(roster=roster), ["hospital-00"])


def test_one_node_in_two_seats(consortium: CheckedConsortium) -> None:
    """Two seats are two shares of three: everything."""
    box = consortium.seat("verifier-a").box
    ticket = consortium.ticket(keys=consortium.table(verifier_b=consortium.seat("verifier-b", box=box)).encoded)
    with pytest.raises(RosterError, match="two seats"):
        consortium.submit(ticket, ["hospital-00"])
    certificate = consortium.seat("verifier-a").certificate
    twice = consortium.seat("verifier-b", certificate=certificate)
    with pytest.raises(RosterError, match="two seats"):
        consortium.submit(consortium.ticket(keys=consortium.table(verifier_b=twice).encoded), ["hospital-00"])
    keys = consortium.table().encoded.replace(b"verifier-b", b"verifier-a")
    with pytest.raises((RosterError, ProtocolError)):
        consortium.submit(consortium.ticket(keys=keys), ["hospital-00"])


def test_verifiers_that_compiled_another_model(consortium: CheckedConsortium) -> None:
    seat = consortium.seat("verifier-c", program=bytes(32))
    with pytest.raises(ProtocolError, match="another model"):
        consortium.submit(consortium.ticket(keys=consortium.table(verifier_c=seat).encoded), ["hospital-00"])


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("verification", None),
        ("verification", {"policy": {}, "program": "00" * 32}),
        ("verification", {"policy": ModelPolicy().to_dict()}),
        ("mode", "other"),
        ("privacy", {"epsilon": 1.0}),
        ("sharing", {"threshold": 0.7}),
        ("key_bits", 2048),
    ],
)
def test_terms_that_make_no_sense(consortium: CheckedConsortium, member: str, value: object) -> None:
    config = replace(consortium.config, **{member: value})
    with pytest.raises((ProtocolError, PolicyError)):
        consortium.submit(consortium.ticket(config=config), ["hospital-00"])


def test_other_schemes_cannot_claim_checks(consortium: CheckedConsortium) -> None:
    config = replace(consortium.config, scheme="masked", mode="pairwise")
    with pytest.raises(ProtocolError):
        consortium.submit(consortium.ticket(config=config), ["hospital-00"])


def test_a_node_that_wants_noise_takes_no_part(tmp_path: Path) -> None:
    consortium = CheckedConsortium.found(tmp_path, policy=Policy(max_epsilon=3.0))
    with pytest.raises(PolicyError, match="differential privacy"):
        consortium.submit(consortium.ticket(), ["hospital-00"])


def test_a_looser_policy_in_mid_task(consortium: CheckedConsortium) -> None:
    consortium.submit(consortium.ticket(1))
    loose = {**consortium.config.verification, "policy": ModelPolicy(max_change=5.0, max_drop=None).to_dict()}  # type: ignore[dict-item]
    codec = {**consortium.config.codec, "max_abs": max(5 << 24, 2**32)}
    config = replace(consortium.config, verification=loose, codec=codec)
    with pytest.raises(StaleLabelError, match="configuration differs"):
        consortium.submit(consortium.ticket(2, config=config), ["hospital-00"])


# ---------------------------------------------------------------------- the server, while models are checked
def test_verifiers_that_are_told_of_other_models_stop(consortium: CheckedConsortium) -> None:
    ticket = consortium.ticket()
    replies = consortium.submit(ticket)
    fewer = {name: reply for name, reply in replies.items() if name != "hospital-04"}
    requests = dict.fromkeys(VERIFIERS, consortium.models(ticket, replies))
    requests["verifier-b"] = consortium.models(ticket, fewer)
    ended = consortium.verify(ticket, requests, seconds=2)
    assert all(isinstance(e, VerificationError | LinkError) for e in ended.values())
    assert any(isinstance(e, VerificationError) for e in ended.values())


def test_an_attempt_is_checked_once(consortium: CheckedConsortium) -> None:
    """Each set of models that is compared says a little more about them."""
    ticket = consortium.ticket()
    replies = consortium.submit(ticket)
    verdicts(consortium.verify(ticket, consortium.models(ticket, replies)))
    fewer = {name: reply for name, reply in replies.items() if name != "hospital-04"}
    ended = consortium.verify(ticket, consortium.models(ticket, fewer), seconds=2)
    assert all(isinstance(e, AlreadyOpenedError) for e in ended.values())
    assert "other models" in str(ended["verifier-a"])


def test_a_model_cannot_be_checked_alone(consortium: CheckedConsortium) -> None:
    ticket = consortium.ticket()
    replies = consortium.submit(ticket)
    two = {name: replies[name] for name in consortium.names[:2]}
    ended = consortium.verify(ticket, consortium.models(ticket, two), seconds=2)
    assert all(isinstance(e, OpeningRefusedError) for e in ended.values())


def test_a_payload_that_its_maker_did_not_sign(consortium: CheckedConsortium) -> None:
    ticket = consortium.ticket()
    request = consortium.models(ticket, consortium.submit(ticket))
    first = request.entries[0]
    changed = ModelsRequest((Entry(first.signed, b"", request.entries[1].payload), *request.entries[1:]))
    ended = consortium.verify(ticket, changed, seconds=2)
    assert all(isinstance(e, VerificationError) for e in ended.values())
    doubled = ModelsRequest((first, *request.entries))
    ended = consortium.verify(ticket, doubled, seconds=2)
    assert all(isinstance(e, VerificationError) for e in ended.values())


def test_a_hospital_is_no_verifier(consortium: CheckedConsortium) -> None:
    ticket = consortium.ticket()
    request = consortium.models(ticket, consortium.submit(ticket))
    consortium.me["verifier-a"], kept = consortium.me["hospital-00"], consortium.me["verifier-a"]
    ended = consortium.verify(ticket, request, seconds=2)
    assert isinstance(ended["verifier-a"], ProtocolError)
    consortium.me["verifier-a"] = kept
    with pytest.raises(RosterError):
        admit(ticket, identity("verifier-a", ("verifier",)), consortium.pins, consortium.memory("x"))


# ---------------------------------------------------------------------- the server, when the sum is opened
@pytest.mark.parametrize("left_out", [[], ["hospital-00", "hospital-01"], None])
def test_only_what_passed_is_opened_and_a_wrong_block_burns_nothing(
    consortium: CheckedConsortium, left_out: list[str] | None
) -> None:
    """The rejected one in, an accepted one out, or the rejected one not named, so that it might be paid."""
    consortium.flip = frozenset({"hospital-01"})
    ticket = consortium.ticket()
    replies = consortium.submit(ticket)
    with pytest.raises(OpeningRefusedError, match="no models of this attempt"):
        consortium.give(ticket, consortium.block(ticket, replies))
    verdicts(consortium.verify(ticket, consortium.models(ticket, replies)))
    wrong = consortium.block(ticket, {n: r for n, r in replies.items() if n != "hospital-01"})
    if left_out is not None:
        wrong = consortium.block(ticket, replies, left_out)
    for name in VERIFIERS:
        with pytest.raises(OpeningRefusedError, match="exactly the models that passed"):
            consortium.giver(name).give(ticket, wrong)
    consortium.give(ticket, consortium.block(ticket, replies, ["hospital-01"]))


def test_one_sum_a_round_also_after_a_restart(consortium: CheckedConsortium) -> None:
    ticket = consortium.ticket()
    replies = consortium.submit(ticket)
    verdicts(consortium.verify(ticket, consortium.models(ticket, replies)))
    request = consortium.block(ticket, replies)
    first = consortium.give(ticket, request)
    assert np.array_equal(consortium.give(ticket, request), first), "the same block gets the same bytes"
    again = consortium.ticket(attempt=1)
    others = consortium.submit(again, consortium.names[:4])
    ended = consortium.verify(again, consortium.models(again, others), seconds=2)
    assert all(isinstance(e, AlreadyOpenedError) for e in ended.values()), "no second comparison once it is opened"


def test_without_a_ledger_a_round_is_checked_once(consortium: CheckedConsortium) -> None:
    """Medians among subsets of the server's choice would tell a client's norm, bit by bit; sums of two, a client."""
    first, second = consortium.ticket(attempt=0), consortium.ticket(attempt=1)
    replies = consortium.submit(first)
    words = verdicts(consortium.verify(first, consortium.models(first, replies)))
    fewer = consortium.submit(second, consortium.names[:4])
    ended = consortium.verify(second, consortium.models(second, fewer), seconds=2)
    assert all(isinstance(e, AlreadyOpenedError) for e in ended.values())
    again = verdicts(consortium.verify(first, consortium.models(first, replies), connect=refuse))
    assert again == words, "the same question gets the same words, and nothing is computed"


def refuse(name: str, link: object) -> object:
    raise AssertionError("nobody may be asked to compute")


@pytest.mark.parametrize("round_", [0, 6, 10**6])
def test_rounds_beyond_the_task(consortium: CheckedConsortium, round_: int) -> None:
    with pytest.raises(ProtocolError, match="rounds 1 to 5"):
        consortium.submit(consortium.ticket(round_), ["hospital-00"])


# ---------------------------------------------------------------------- hidden weights
@pytest.mark.parametrize("stated", [0.0, 1.0, 32.0, 59.0, 60.0, 99.0, 101.0, 2.0**20])
def test_a_server_cannot_ask_for_the_weight(consortium: CheckedConsortium, stated: float) -> None:
    """A client refuses frames that its weight does not fit: a server that may state any number finds the weight."""
    ticket = consortium.ticket(frame=Frame((), stated))
    with pytest.raises(ProtocolError, match="one frame for the whole task"):
        consortium.submit(ticket, ["hospital-00"])


# ---------------------------------------------------------------------- a node's own policy for checks
@pytest.mark.parametrize(
    ("mine", "task"),
    [
        ({"max_change": 1.0}, {}),
        ({"max_norm_factor": 2.0}, {"norm_factor": 3.0}),
        ({"max_norm_factor": 2.0}, {"norm_factor": None}),
        ({"max_drop": 0.02}, {"max_drop": None}),
        ({"max_drop": 0.02}, {"max_drop": 0.5}),
        ({"max_warmup_rounds": 1}, {"warmup_rounds": 2}),
        ({"reveal": "none"}, {}),
        ({"reveal": "count"}, {}),
    ],
)
def test_a_laxer_policy_than_a_node_wants(tmp_path: Path, mine: dict[str, Any], task: dict[str, Any]) -> None:
    rules = ModelPolicy(**{"max_change": 4.0, **task})
    consortium = CheckedConsortium.found(tmp_path, policy=Policy(**mine), rules=rules)
    with pytest.raises(PolicyError, match="This node's policy"):
        consortium.submit(consortium.ticket(), ["hospital-00"])


def test_a_policy_as_strict_as_a_node_wants(tmp_path: Path) -> None:
    wants = Policy(max_change=4.0, max_norm_factor=2.0, max_drop=0.02, max_warmup_rounds=0, reveal="bit")
    consortium = CheckedConsortium.found(tmp_path, policy=wants)
    assert consortium.submit(consortium.ticket(), ["hospital-00"])


def test_rounds_do_not_go_back(consortium: CheckedConsortium) -> None:
    old = consortium.ticket(1)
    replies = consortium.submit(old)
    new = consortium.ticket(2)
    later = consortium.submit(new)
    verdicts(consortium.verify(new, consortium.models(new, later)))
    ended = consortium.verify(old, consortium.models(old, replies), seconds=2)
    assert all(isinstance(e, StaleLabelError) for e in ended.values())


# ---------------------------------------------------------------------- verdicts
def test_verdicts_need_all_three_and_one_content(consortium: CheckedConsortium) -> None:
    ticket = consortium.ticket()
    request = consortium.models(ticket, consortium.submit(ticket))
    words = verdicts(consortium.verify(ticket, request))
    assert check_verdicts(ticket, words, request.models).enough
    for some in (words[:2], [], [words[0]] * 3, words[::-1]):
        with pytest.raises(VerificationError):
            check_verdicts(ticket, some, request.models)
    with pytest.raises(VerificationError, match="other models"):
        check_verdicts(ticket, words, bytes(32))
    lie = Verdict(ticket.label.hash, request.models, (0,), True)
    forged = Signed.make(lie, consortium.me["verifier-a"].keys.signing, ticket.label.domain)
    with pytest.raises(VerificationError, match="disagree"):
        check_verdicts(ticket, [forged, *words[1:]], request.models)
    server = identity("server", ("hospital",))
    with pytest.raises(SignatureError):
        check_verdicts(ticket, [Signed.make(lie, server.keys.signing, ticket.label.domain)] * 3, request.models)


# ---------------------------------------------------------------------- what single nodes see
def test_a_verifier_says_nothing_but_its_verdict_and_what_it_cost(consortium: CheckedConsortium) -> None:
    """What goes back to the server: of models that were accepted no number, and of the data its size."""
    ticket = consortium.ticket()
    answers = consortium.verify(ticket, consortium.models(ticket, consortium.submit(ticket)))
    for answer in answers.values():
        assert isinstance(answer, bytes)
        report = Answer.decode(answer).report
        assert set(report) == {"samples", "accepted", "stages"}
        assert (report["samples"], report["accepted"]) == (120, 5)
        stages = report["stages"]
        assert isinstance(stages, dict)
        assert all(len(row) == 3 for row in stages.values())


def test_a_verifier_that_dies_leaves_the_others_with_nothing_said(consortium: CheckedConsortium) -> None:
    ticket = consortium.ticket()
    request = consortium.models(ticket, consortium.submit(ticket))

    class Cut:
        def __init__(self, link):  # type: ignore[no-untyped-def]
            self.link, self.left, self.rank, self.traffic = link, 40, link.rank, link.traffic

        def send(self, to, data):  # type: ignore[no-untyped-def]
            self.left -= 1
            if self.left < 0:
                raise RuntimeError("killed")
            self.link.send(to, data)

        def recv(self, sender):  # type: ignore[no-untyped-def]
            return self.link.recv(sender)

        def close(self):  # type: ignore[no-untyped-def]
            self.link.close()

    ended = consortium.verify(
        ticket, request, seconds=3, connect=lambda name, link: Cut(link) if name == "verifier-c" else link
    )
    assert isinstance(ended["verifier-a"], LinkError)
    assert isinstance(ended["verifier-b"], LinkError)
    block = consortium.block(ticket, consortium.submit(ticket))
    for name in VERIFIERS:
        with pytest.raises(OpeningRefusedError):
            consortium.giver(name).give(ticket, block)
    words = verdicts(consortium.verify(ticket, request))  # asked about the same again, all three there
    assert rejected(ticket, words) == []
