"""The settlement: a member signs only the accuracy, the chain and the payouts that it recomputed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from flbc.crypto.signing import keccak256
from flbc.errors import FlbcError, ProtocolError, VerificationError
from flbc.ledger.packing import PackedPayout, unpack_all
from flbc.node.committee import Link
from flbc.node.settlement import SettleRequest, accuracy_of, check_settlement
from flbc.round import Signed
from flbc.tokens import Evaluation
from tests.support.committee import COVENANT, INITIAL, Committee
from tests.support.parties import HOSPITALS

MODEL = keccak256(b"final model")
REWARD = 10**18 + 1
ACCURACIES = {"cleveland": 0.5, "hungary": 0.7, "long-beach": 0.9, "zurich": 0.61}
SIZES = {"cleveland": 10, "hungary": 20, "long-beach": 30, "zurich": 40}
Make = Callable[..., tuple[Committee, Any, SettleRequest]]


@pytest.fixture
def settled(consortium: Any) -> Make:
    """Two rounds, and what an honest server asks for afterwards."""

    def make(**terms: Any) -> tuple[Committee, Any, SettleRequest]:
        covenant = replace(COVENANT, **terms)
        m = Committee(consortium(covenant=covenant, roles=("committee", "hospital")))
        m.round(1)
        m.round(2)
        ticket = m.ticket(2)
        signed = [m.judge(n).evaluate(ticket, MODEL, ACCURACIES[n], SIZES[n]) for n in HOSPITALS]
        return m, ticket, SettleRequest(INITIAL, tuple(m.links), tuple(signed), MODEL, "ipfs://x", REWARD)

    return make


def test_honest_settlement(settled: Make) -> None:
    m, ticket, request = settled()
    result = check_settlement(ticket, request)
    # (0.5 * 10 + 0.7 * 20 + 0.9 * 30 + 0.61 * 40) / 100
    assert result.token.accuracy_bps == 7040
    paid = {row.party: row.amount for row in unpack_all(PackedPayout, result.payouts)}
    assert sum(paid.values()) == REWARD
    assert sorted(paid.values()) == [REWARD // 4] * 3 + [REWARD // 4 + 1]
    for name in HOSPITALS:
        signature, vote = m.judge(name).settle(ticket, request)
        address, where = m.c.me[name].keys.signing.address, ticket.label.domain
        Signed(result.token, signature).verify(address, where)
        Signed(result.result, vote).verify(address, where)


def test_shares_by_examples(settled: Make) -> None:
    """Every hospital declares 50 examples; with one block missed the share is smaller."""
    m, ticket, request = settled(payout="examples")
    rows = unpack_all(PackedPayout, check_settlement(ticket, request).payouts)
    assert sorted(row.amount for row in rows) == [REWARD // 4] * 3 + [REWARD // 4 + 1]
    names = [ticket.roster.parties[row.party].name for row in rows]
    assert names == sorted(HOSPITALS)
    assert m.covenant.payout == "examples"


def test_the_wire_form_round_trips(settled: Make) -> None:
    _, _, request = settled()
    assert SettleRequest.decode(request.encode()) == request


def forged(request: SettleRequest, index: int, **changes: Any) -> SettleRequest:
    evaluations = list(request.evaluations)
    value = evaluations[index].value
    assert isinstance(value, Evaluation)
    evaluations[index] = replace(evaluations[index], value=replace(value, **changes))
    return replace(request, evaluations=tuple(evaluations))


LIES: dict[str, Callable[[SettleRequest], SettleRequest]] = {
    "a better accuracy": lambda r: forged(r, 0, accuracy_bps=10_000),
    "more examples": lambda r: forged(r, 2, examples=10_000),
    "another model": lambda r: replace(r, model=keccak256(b"backdoor")),
    "an evaluation twice": lambda r: replace(r, evaluations=(r.evaluations[0], *r.evaluations)),
    "only the best evaluations": lambda r: replace(r, evaluations=r.evaluations[2:]),
    "a block left out": lambda r: replace(r, links=r.links[1:]),
    "the blocks in another order": lambda r: replace(r, links=r.links[::-1]),
    "another genesis": lambda r: replace(r, initial=keccak256(b"x")),
    "early blocks dropped, their head as genesis": lambda r: replace(
        r, initial=r.links[0][0].block.hash, links=r.links[1:]
    ),
    "no block": lambda r: replace(r, links=()),
    "a submission taken away": lambda r: _without(r),
    "a block without votes": lambda r: _unsigned(r),
}


def _without(request: SettleRequest) -> SettleRequest:
    link, endorsement = request.links[-1]
    shorter = Link(link.block, link.submissions[1:])
    return replace(request, links=(*request.links[:-1], (shorter, endorsement)))


def _unsigned(request: SettleRequest) -> SettleRequest:
    link, endorsement = request.links[-1]
    return replace(request, links=(*request.links[:-1], (link, replace(endorsement, votes=()))))


@pytest.mark.parametrize("lie", LIES)
def test_nobody_signs_a_false_settlement(settled: Make, lie: str) -> None:
    m, ticket, request = settled()
    for name in HOSPITALS:
        with pytest.raises(VerificationError):
            m.judge(name).settle(ticket, LIES[lie](request))


def test_an_accuracy_beyond_100_percent_counts_for_nothing(settled: Make) -> None:
    """Signed by a dishonest member itself; it would lift the mean over any bar."""
    m, ticket, request = settled()
    liar = ticket.roster.index("zurich")
    for bps, examples in ((30_000, 40), (5_000, 0)):
        value = Evaluation(ticket.label.task, MODEL, liar, bps, examples)
        signed = Signed.make(value, m.c.me["zurich"].keys.signing, ticket.label.domain)
        false = replace(request, evaluations=(*request.evaluations[:-1], signed))
        with pytest.raises(VerificationError, match="at most 100 %"):
            m.judge("cleveland").settle(ticket, false)


def test_no_member_decides_the_accuracy_alone(settled: Make) -> None:
    """Examples are a member's own word: they count up to what it declared before the task (here 50 each)."""
    _, ticket, _ = settled(accuracy_bps=0)
    parties = ticket.roster.parties
    assert {p.examples for p in parties if p.has("hospital")} == {50}
    declared = [p.examples for p in parties]
    honest = [(i, 1000, 50) for i, p in enumerate(parties) if p.has("hospital")]
    liar = honest[0][0]
    assert accuracy_of([(liar, 10_000, 2**32 - 1), *honest[1:]], declared) == (10_000 + 3 * 1000) // 4
    assert accuracy_of([(liar, 0, 2**32 - 1), *honest[1:]], declared) == 750


def test_below_the_bar_nobody_signs(settled: Make) -> None:
    m, ticket, request = settled(accuracy_bps=7041)
    with pytest.raises(VerificationError, match=r"reaches 70.40 %, the task wants 70.41 %"):
        m.judge("hungary").settle(ticket, request)


@pytest.mark.parametrize(("accuracy", "examples"), [(1.01, 5), (-0.1, 5), (float("nan"), 5), (0.5, 0), (0.5, 2**32)])
def test_an_impossible_evaluation_is_not_signed(settled: Make, accuracy: float, examples: int) -> None:
    m, ticket, _ = settled()
    with pytest.raises(ProtocolError):
        m.judge("hungary").evaluate(ticket, MODEL, accuracy, examples)


@pytest.mark.parametrize(("accuracy", "bps"), [(0.29, 2900), (0.57, 5700), (0.99999, 9999), (1.0, 10_000), (0.0, 0)])
def test_accuracies_are_rounded_down_but_not_by_float_noise(settled: Make, accuracy: float, bps: int) -> None:
    m, ticket, _ = settled()
    value = m.judge("hungary").evaluate(ticket, MODEL, accuracy, 5).value
    assert isinstance(value, Evaluation)
    assert value.accuracy_bps == bps


def test_the_authority_judges_nothing(settled: Make) -> None:
    m, _, _ = settled()
    with pytest.raises(FlbcError):
        m.judge("authority")
