"""Three parties from shares to a verdict and parts of a sum: what is shown, what is refused, what stops a round."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch

from flbc.errors import ConfigError, LinkError, PolicyError, VerificationError
from flbc.verification.committee import Data, Outcome, Round, Verdict, check_and_sum
from flbc.verification.link import Link, queue_links
from flbc.verification.policy import Policy
from flbc.verification.program import compile_model
from flbc.verification.session import begin
from flbc.verification.sharing import Shared
from tests.support.blobs import Net, blobs, fit, initial
from tests.verification.test_checks import learned, vector
from tests.verification.test_sharing import uniform

CONTEXT = bytes(range(32))
EXTRAS = 2
WEIGHTS = [60, 10, 30, 7, 50]


@pytest.fixture(scope="module")
def start() -> dict[str, Any]:
    return fit(initial(), 1)


@pytest.fixture(scope="module")
def clients(start: dict[str, Any]) -> list[torch.Tensor]:
    """Five clients' numbers: update, two metrics, weight; the second flips labels."""
    found = []
    for number, weight in enumerate(WEIGHTS):
        update = learned(start, 20 + number, flip=number == 1)
        found.append(torch.cat([update, torch.tensor([number << 16, -5]), torch.tensor([weight])]))
    return found


def round_of(start: dict[str, Any], policy: Policy = Policy(max_change=4.0), **changes: Any) -> Round:  # noqa: B008
    model = vector(start)
    high = torch.full((len(model) + EXTRAS + 1,), policy.change_bound)
    high[len(model) :] = 2**32
    low = -high
    high[-1], low[-1] = 100, 0
    made = Round(policy, compile_model(Net(), (4,)), 1, model, low, high, (100,) * len(WEIGHTS), 3, CONTEXT)
    return replace(made, **changes)


def shared(clients: list[torch.Tensor]) -> list[list[Shared | None]]:
    """Share as clients do; return what each party gets."""
    views: list[list[Shared | None]] = [[], [], []]
    for number, values in enumerate(clients):
        parts = [uniform(tuple(values.shape), 2 * number + i) for i in range(2)]
        parts.append(values - parts[0] - parts[1])
        for rank in range(3):
            views[rank].append(Shared(parts[rank], parts[(rank + 1) % 3]))
    return views


def data(rank: int) -> Data:
    return Data(*blobs(33 + rank, 1000 + rank))


def panel(
    rounds: Round | list[Round],
    views: list[list[Shared | None]],
    own: Callable[[int], Data] = data,
    timeout: float = 20.0,
    broken: Callable[[Link], Link] = lambda link: link,
) -> list[Outcome | BaseException]:
    """Run the three as threads; return what each ended with."""
    links = queue_links(timeout)
    each = rounds if isinstance(rounds, list) else [rounds] * 3

    def work(rank: int) -> Outcome | BaseException:
        link = broken(links[rank])
        try:
            return check_and_sum(begin(link, each[rank].context), each[rank], views[rank], own(rank))
        except Exception as error:
            return error
        finally:
            link.close()

    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(work, range(3)))


def agreed(outcomes: list[Outcome | BaseException]) -> tuple[Verdict, torch.Tensor | None]:
    """Return the verdict of all three, and the sum of their parts."""
    ended = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
        ended.append(outcome)
    assert len({outcome.verdict for outcome in ended}) == 1
    parts = [outcome.part for outcome in ended]
    return ended[0].verdict, None if parts[0] is None else sum(parts)  # type: ignore[return-value]


def weighted(clients: list[torch.Tensor], accepted: list[int]) -> torch.Tensor:
    total = torch.zeros_like(clients[0])
    for index in accepted:
        total += clients[index] * int(clients[index][-1])
        total[-1] += int(clients[index][-1]) - int(clients[index][-1]) ** 2
    return total


# ---------------------------------------------------------------------- what is shown, and the sum
def test_bits_are_shown_and_exactly_the_accepted_are_summed(start: Any, clients: list[torch.Tensor]) -> None:
    outcomes = panel(round_of(start), shared(clients))
    verdict, total = agreed(outcomes)
    assert verdict == Verdict((False,) * 5, (True, False, True, True, True), 4, True)
    assert torch.equal(total, weighted(clients, [0, 2, 3, 4]))
    assert all(isinstance(o, Outcome) and o.samples == 33 + 34 + 35 for o in outcomes)


def test_one_part_says_nothing(start: Any, clients: list[torch.Tensor]) -> None:
    """Parts are fresh in every run, and uniform: about half of all bits are set."""
    runs = [panel(round_of(start), shared(clients)) for _ in range(2)]
    for first, second in zip(*runs, strict=True):
        assert isinstance(first, Outcome)
        assert isinstance(second, Outcome)
        assert first.part is not None
        assert second.part is not None
        assert not torch.equal(first.part, second.part)
        ones = sum(bin(int(word) & (2**64 - 1)).count("1") for word in first.part)
        assert abs(ones / (64 * len(first.part)) - 0.5) < 0.05


def test_the_count_alone(start: Any, clients: list[torch.Tensor]) -> None:
    policy = Policy(max_change=4.0, reveal="count")
    verdict, total = agreed(panel(round_of(start, policy), shared(clients)))
    assert verdict == Verdict((False,) * 5, None, 4, True)
    assert torch.equal(total, weighted(clients, [0, 2, 3, 4]))


@pytest.mark.parametrize(("least", "enough"), [(4, True), (5, False)])
def test_nothing_but_that_enough_passed(start: Any, clients: list[torch.Tensor], least: int, enough: bool) -> None:
    policy = Policy(max_change=4.0, reveal="none")
    verdict, total = agreed(panel(round_of(start, policy, min_accepted=least), shared(clients)))
    assert verdict == Verdict((False,) * 5, None, None, enough)
    if enough:
        assert torch.equal(total, weighted(clients, [0, 2, 3, 4]))
    else:
        assert total is None


def test_too_few_accepted_are_not_summed(start: Any, clients: list[torch.Tensor]) -> None:
    for reveal in ("bit", "count", "none"):
        policy = Policy(max_change=4.0, reveal=reveal)
        verdict, total = agreed(panel(round_of(start, policy, min_accepted=5), shared(clients)))
        assert total is None
        assert not verdict.enough


@pytest.mark.parametrize("weight", [101, 2**40, -1, -(2**63)])
def test_a_weight_out_of_range_is_refused(start: Any, clients: list[torch.Tensor], weight: int) -> None:
    changed = [clients[0].clone(), *clients[2:]]
    changed[0][-1] = weight
    verdict, _ = agreed(panel(round_of(start, weights=(100,) * 4), shared(changed)))
    assert verdict.accepted == (False, True, True, True)


def test_a_weight_above_what_the_roster_says_is_refused(start: Any, clients: list[torch.Tensor]) -> None:
    verdict, _ = agreed(panel(round_of(start, weights=(100, 100, 100, 6, 100)), shared(clients)))
    assert verdict.accepted == (True, False, True, False, True)


# ---------------------------------------------------------------------- shares that do not fit
def test_inconsistent_shares_are_left_out(start: Any, clients: list[torch.Tensor]) -> None:
    views = shared(clients)
    first, second = views[0][0], views[2][4]
    assert first is not None
    assert second is not None
    views[0][0] = Shared(first.own, first.next + 1)  # party 1 has another share 1
    views[2][4] = None  # its box did not open
    verdict, total = agreed(panel(round_of(start, min_accepted=2), views))
    assert verdict == Verdict((True, False, False, False, True), (False, False, True, True, False), 2, True)
    assert torch.equal(total, weighted(clients, [2, 3]))


def test_too_few_sound_shares(start: Any, clients: list[torch.Tensor]) -> None:
    views = shared(clients)
    for client in range(3):
        views[client % 3][client] = None
    verdict, total = agreed(panel(round_of(start), views))
    assert verdict.malformed == (True, True, True, False, False)
    assert total is None
    assert not verdict.enough
    assert verdict.accepted is None


# ---------------------------------------------------------------------- rounds that stop
def test_parties_that_were_told_different_things_stop(start: Any, clients: list[torch.Tensor]) -> None:
    rounds = [round_of(start), round_of(start), round_of(start, context=bytes(32))]
    ended = panel(rounds, shared(clients), timeout=2)
    assert any(isinstance(e, VerificationError) and "another round or other models" in str(e) for e in ended)
    assert all(isinstance(e, VerificationError | LinkError) for e in ended)


class Dying:
    """A link whose owner stops after so many messages."""

    def __init__(self, link: Any, after: int) -> None:
        self._link, self._left, self.rank, self.traffic = link, after, link.rank, link.traffic

    def send(self, to: int, data: bytes) -> None:
        self._left -= 1
        if self._left < 0:
            raise RuntimeError("killed")
        self._link.send(to, data)

    def recv(self, sender: int) -> bytes:
        return bytes(self._link.recv(sender))

    def close(self) -> None:
        self._link.close()


@pytest.mark.parametrize("after", [0, 1, 3, 8, 20, 50])
def test_a_party_that_stops_in_the_middle_stops_the_others(start: Any, clients: list[torch.Tensor], after: int) -> None:
    ended = panel(
        round_of(start), shared(clients), timeout=5, broken=lambda link: Dying(link, after) if link.rank == 1 else link
    )
    assert isinstance(ended[1], RuntimeError)
    assert isinstance(ended[0], LinkError)
    assert isinstance(ended[2], LinkError)


class Lying(Dying):
    """A link that shortens what its owner says after so many messages."""

    def send(self, to: int, data: bytes) -> None:
        self._left -= 1
        self._link.send(to, data[:-8] if self._left < 0 else data)


@pytest.mark.parametrize("after", [0, 1, 2, 4, 6, 12, 40])
def test_messages_of_another_length_stop_the_round(start: Any, clients: list[torch.Tensor], after: int) -> None:
    ended = panel(
        round_of(start), shared(clients), timeout=2, broken=lambda link: Lying(link, after) if link.rank == 2 else link
    )
    assert all(isinstance(e, LinkError | VerificationError) for e in ended)


# ---------------------------------------------------------------------- validation data, and depth
@pytest.mark.parametrize(
    ("changed", "text"),
    [
        (Data(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)), "0 inputs"),
        (Data(torch.zeros(5, 4), torch.zeros(4, dtype=torch.int64)), "5 inputs and 4 labels"),
        (Data(torch.zeros(5, 3), torch.zeros(5, dtype=torch.int64)), "shape"),
        (Data(torch.zeros(5, 4), torch.full((5,), 3)), "not from 0 to 2"),
        (Data(torch.zeros(5, 4), torch.full((5,), -1)), "not from 0 to 2"),
        (Data(torch.zeros(5, 4), torch.zeros(5)), "class numbers"),
        (Data(torch.full((5, 4), 17.0), torch.zeros(5, dtype=torch.int64)), "exceeds 16"),
        (Data(torch.full((5, 4), float("nan")), torch.zeros(5, dtype=torch.int64)), "exceeds 16"),
    ],
)
def test_bad_validation_data(start: Any, clients: list[torch.Tensor], changed: Data, text: str) -> None:
    ended = panel(round_of(start), shared(clients), lambda rank: changed if rank == 0 else data(rank), timeout=3)
    assert isinstance(ended[0], ConfigError)
    assert text in str(ended[0])
    assert isinstance(ended[1], LinkError)
    assert isinstance(ended[2], LinkError)


@pytest.mark.parametrize("count", [1, 31, 32, 63, 64, 65])
def test_any_number_of_samples(start: Any, clients: list[torch.Tensor], count: int) -> None:
    verdict, _ = agreed(panel(round_of(start), shared(clients), lambda rank: Data(*blobs(count, 1000 + rank))))
    assert verdict.accepted is not None
    assert verdict.accepted[0]


def test_a_model_that_could_overflow_is_refused_before_anything_is_computed(start: Any, clients: Any) -> None:
    heavy = {name: value * 2.0**18 for name, value in start.items()}
    ended = panel(round_of(heavy), shared(clients), timeout=3)
    assert all(isinstance(e, PolicyError | LinkError) for e in ended)
    assert any(isinstance(e, PolicyError) and "allow_overflow=True" in str(e) for e in ended)


def test_a_model_that_has_diverged_is_refused(start: Any, clients: list[torch.Tensor]) -> None:
    heavy = {name: value * 2.0**26 for name, value in start.items()}
    policy = Policy(max_change=4.0, allow_overflow=True)
    ended = panel(round_of(heavy, policy), shared(clients), timeout=3)
    assert any(isinstance(e, PolicyError) and "diverged" in str(e) for e in ended)


def test_cosine_needs_the_parties_own_updates(start: Any, clients: list[torch.Tensor]) -> None:
    policy = Policy(max_change=4.0, norm_factor=None, max_drop=None, cosine=True)

    def own(rank: int) -> Data:
        return replace(data(rank), root=learned(start, 40 + rank).double())

    verdict, _ = agreed(panel(round_of(start, policy), shared(clients), own))
    assert verdict.accepted is not None
    assert verdict.accepted[0]
    assert not verdict.accepted[1]
    ended = panel(round_of(start, policy), shared(clients), timeout=3)
    assert any(isinstance(e, ConfigError) for e in ended)
