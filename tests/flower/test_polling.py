"""How soon an answer is noticed, on a clock of the test's own."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from flwr.app import Message, RecordDict

from flbc.flower import grid as polling
from flbc.flower.grid import POLL_SECONDS, exchange
from tests.support.apps import make_app
from tests.support.local_grid import FIRST_NODE, LocalGrid


class Clock:
    """Time passes only in sleep()."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class SlowGrid(LocalGrid):
    """Its node answers at a time of its clock."""

    def __init__(self, clock: Clock, answers_at: float) -> None:
        super().__init__(make_app(mods=[]), 1)
        self.clock, self.answers_at, self.polls = clock, answers_at, 0

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        for message in messages:
            message.metadata.__dict__["_message_id"] = "asked"
        return ["asked"]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        self.polls += 1
        if self.clock.now < self.answers_at:
            return []
        question = Message(RecordDict(), dst_node_id=FIRST_NODE, message_type="train")
        answer = Message(RecordDict(), reply_to=question)
        answer.metadata.__dict__["_reply_to_message_id"] = "asked"
        return [answer]


@pytest.mark.parametrize("seconds", [0.05, 0.11, 0.23, 0.41, 0.77, 1.3, 2.9, 20.0, 600.0])
def test_an_answer_is_noticed_soon_after_it_came_and_not_asked_for_all_the_time(
    monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    clock = Clock()
    monkeypatch.setattr(polling, "time", clock)
    grid = SlowGrid(clock, seconds)
    asked = Message(RecordDict(), dst_node_id=FIRST_NODE, message_type="train")
    assert list(exchange(grid, [asked], 3600)) == [FIRST_NODE]
    assert clock.now - seconds <= min(POLL_SECONDS[0] + 0.1 * seconds, POLL_SECONDS[1])
    assert grid.polls <= 40 + 2 * seconds
