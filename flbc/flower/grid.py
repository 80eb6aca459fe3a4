"""A Grid that shows training nodes only, and polls quickly."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

#: First and longest pause between two polls in seconds. Flower's HttpGrid sleeps 3 s, a whole stage in simulation.
POLL_SECONDS = (0.02, 0.5)
#: How much longer each pause is: of trips of 0.2 to 3 s some 5 to 8 % is then waiting for a pause to end. With 1.3 it
#: would be 11 to 17 %, in each trip of a round.
POLL_GROWTH = 1.1
#: What stragglers get once enough have answered.
GRACE_SECONDS = 1.0


def exchange(
    grid: Grid,
    messages: Iterable[Message],
    timeout: float,
    enough: Callable[[dict[int, Message]], bool] = lambda replies: False,
    nearly: Callable[[dict[int, Message]], bool] = lambda replies: False,
) -> dict[int, Message]:
    """Send messages and collect their replies.

    Parameters
    ----------
    grid : Grid
    messages : iterable of Message
        At most one per node.
    timeout : float
        Seconds; replies that come later are dropped.
    enough : callable
        Given the replies so far, whether the rest is superfluous; if so, they get one more second.
    nearly : callable
        Whether it is useful and no more, as a spare is; if so, the rest gets as long again as these have taken.

    Returns
    -------
    dict of int to Message
        By the node *asked*: an error reply for a lost node names the SuperLink as its source, so replies are matched
        by the message they answer.
    """
    messages = list(messages)
    if not messages:
        return {}
    asked = dict(zip(grid.push_messages(messages), (m.metadata.dst_node_id for m in messages), strict=True))
    pending = {identifier for identifier in asked if identifier}
    replies: dict[int, Message] = {}
    begin, (pause, longest) = time.monotonic(), POLL_SECONDS
    end = begin + timeout
    while pending:
        got = [m for m in grid.pull_messages(pending) if m.metadata.reply_to_message_id in pending]
        for message in got:
            pending.discard(message.metadata.reply_to_message_id)
            replies[asked[message.metadata.reply_to_message_id]] = message
        now = time.monotonic()
        if got and enough(replies):
            end = min(end, now + GRACE_SECONDS)
        elif got and nearly(replies):
            end = min(end, now + max(GRACE_SECONDS, now - begin))
        if not pending or time.monotonic() >= end:
            break
        if not got:
            time.sleep(pause)
            pause = min(pause * POLL_GROWTH, longest)
    return replies


class TrainingGrid(Grid):
    """Delegates to a Grid, hides nodes that do not train, and remembers which node answered what.

    Parameters
    ----------
    grid : Grid
        Flower's.
    training_nodes : callable
        Returns the ids of nodes that train and are online.
    """

    def __init__(self, grid: Grid, training_nodes: Callable[[], list[int]]) -> None:
        self.inner, self._training_nodes = grid, training_nodes
        self.replies: dict[int, Message] = {}

    def get_node_ids(self) -> list[int]:
        """Return the ids of the training nodes."""
        return self._training_nodes()

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Send, wait, and keep the replies by node in ``replies``."""
        self.replies = exchange(self.inner, messages, float("inf") if timeout is None else timeout)
        return list(self.replies.values())

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Delegate."""
        return self.inner.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Delegate."""
        return self.inner.pull_messages(message_ids)

    def set_run(self, run: object) -> None:
        """Delegate."""
        self.inner.set_run(run)  # type: ignore[arg-type]

    @property
    def run(self):  # type: ignore[no-untyped-def]  # flwr does not export the type of a run
        """The run of the wrapped Grid."""
        return self.inner.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Delegate."""
        return self.inner.create_message(content, message_type, dst_node_id, group_id, ttl)
