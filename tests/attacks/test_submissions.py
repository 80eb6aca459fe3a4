"""S7, S12: who may be in a sum, and how few."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from flbc.crypto.signing import keccak256
from flbc.errors import FlbcError, OpeningRefusedError, SignatureError, VerificationError
from flbc.node.opening import OpenRequest
from flbc.round import Signed
from tests.support.parties import HOSPITALS, identity


def with_submissions(request: OpenRequest, submissions: tuple[Signed, ...]) -> OpenRequest:
    hashes = tuple(entry.value.hash for entry in submissions)
    return OpenRequest(replace(request.block, submissions=hashes), submissions, request.hidden)


def test_an_honest_block_is_opened(consortium: Any) -> None:
    c = consortium()
    ticket = c.ticket()
    opening, total = c.authority().open(ticket, c.request(ticket, c.train_all(ticket)))
    opened = c.plan.decode(total, 4, 1, c.frame)
    assert opened.weight == 40
    assert opened.metrics == (1.0,)
    assert abs(float(opened.mean["w"][0]) - 0.25 * (1 + 2 + 3 + 4) / 16) < 1e-3
    opening.verify(c.me["authority"].keys.signing.address, ticket.label.domain)


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_survivors(count: int, consortium: Any) -> None:
    c = consortium()
    ticket = c.ticket()
    replies = c.train_all(ticket)
    with pytest.raises(OpeningRefusedError, match="min_survivors"):
        c.authority().open(ticket, c.request(ticket, {n: replies[n] for n in HOSPITALS[:count]}))


def test_the_same_submission_three_times_is_no_quorum(consortium: Any) -> None:
    c = consortium()
    ticket = c.ticket()
    replies = c.train_all(ticket)
    request = c.request(ticket, replies)
    with pytest.raises(VerificationError, match="different parties"):
        c.authority().open(ticket, with_submissions(request, (request.submissions[0],) * 3))


def test_the_server_cannot_sign_for_a_hospital(consortium: Any) -> None:
    c = consortium()
    ticket = c.ticket()
    request = c.request(ticket, c.train_all(ticket))
    outsider = identity("server", ("hospital",)).keys.signing
    forged = Signed.make(request.submissions[0].value, outsider, ticket.label.domain)
    with pytest.raises(SignatureError):
        c.authority().open(ticket, with_submissions(request, (forged, *request.submissions[1:])))


def test_a_hospital_cannot_sign_for_another(consortium: Any) -> None:
    c = consortium()
    ticket = c.ticket()
    request = c.request(ticket, c.train_all(ticket))
    mine = request.submissions[0].value
    theirs = replace(mine, party=request.submissions[1].value.party)
    forged = Signed.make(theirs, c.me["cleveland"].keys.signing, ticket.label.domain)
    with pytest.raises(SignatureError):
        c.authority().open(
            ticket, with_submissions(request, (request.submissions[0], forged, *request.submissions[2:]))
        )


def test_the_authority_is_not_a_hospital(consortium: Any) -> None:
    c = consortium()
    ticket = c.ticket()
    request = c.request(ticket, c.train_all(ticket))
    value = replace(request.submissions[0].value, party=ticket.roster.index("authority"))
    own = Signed.make(value, c.me["authority"].keys.signing, ticket.label.domain)
    with pytest.raises(VerificationError, match="does not train"):
        c.authority().open(ticket, with_submissions(request, (own, *request.submissions[1:])))


@pytest.mark.parametrize("member", ["nonce", "payload", "compute_ms", "party", "label"])
def test_every_member_of_a_submission_is_signed(member: str, consortium: Any) -> None:
    c = consortium()
    ticket = c.ticket()
    request = c.request(ticket, c.train_all(ticket))
    first = request.submissions[0]
    old = getattr(first.value, member)
    changed = replace(first.value, **{member: keccak256(old) if isinstance(old, bytes) else old + 1})
    submissions = (Signed(changed, first.signature), *request.submissions[1:])
    with pytest.raises(VerificationError):
        c.authority().open(ticket, with_submissions(request, submissions))


@pytest.mark.parametrize("what", ["label", "hidden", "submissions"])
def test_a_block_that_commits_to_something_else(what: str, consortium: Any) -> None:
    c = consortium()
    ticket = c.ticket()
    request = c.request(ticket, c.train_all(ticket))
    changes = {"label": bytes(32), "hidden": bytes(32), "submissions": request.block.submissions[:-1]}
    block = replace(request.block, **{what: changes[what]})
    with pytest.raises(VerificationError):
        c.authority().open(ticket, OpenRequest(block, request.submissions, request.hidden))


def test_garbage_is_a_named_error_and_never_a_crash(consortium: Any) -> None:
    c = consortium()
    ticket = c.ticket()
    request = c.request(ticket, c.train_all(ticket))
    for header in (b"", b"{}", request.header()[:-1], b"[]", b'{"block":1,"submissions":[]}'):
        with pytest.raises(FlbcError):
            OpenRequest.parse(header, b"")
    for hidden in (b"", bytes(len(request.hidden)), b"\xff" * len(request.hidden), request.hidden + b"\0"):
        with pytest.raises(FlbcError):
            c.authority().open(ticket, replace(request, hidden=hidden))
