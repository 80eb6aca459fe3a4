"""An in-process Grid: no Ray, no SuperLink; messages are serialised and inflated as on the wire."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity

FIRST_NODE = 100
#: What a Grid of the test does to a message: return it, another one, or None to drop it.
Tamper = Callable[[Message], Message | None]


def wire(message: Message) -> Message:
    """Serialise and inflate, as the deployment runtime does."""
    identifier = message.object_id
    contents = {key: item.deflate() for key, item in get_all_nested_objects(message).items()}
    out = inflate_object_from_contents(identifier, contents)
    out.metadata.__dict__["_message_id"] = identifier
    return out


class LocalGrid(Grid):
    """Calls ClientApps directly.

    ``request`` and ``reply`` are hooks that may drop or change messages: the test's dishonest network or server.
    ``sent`` and ``received`` keep copies of everything that passed.
    """

    def __init__(
        self,
        app: ClientApp,
        nodes: int,
        *,
        run_config: Mapping[str, Any] | None = None,
        node_config: Callable[[int], dict[str, Any]] | None = None,
        request: Tamper = lambda m: m,
        reply: Tamper = lambda m: m,
        run_id: int = 1,
    ) -> None:
        TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = run_id
        self.app, self.request, self.reply = app, request, reply
        self.offline: set[int] = set()
        self.sent: list[Message] = []
        self.received: list[Message] = []
        self._replies: dict[str, Message] = {}
        self.contexts: dict[int, Context] = {}
        for i in range(nodes):
            config = {"partition-id": i, "num-partitions": nodes, "flbc-dev": True}
            self.contexts[FIRST_NODE + i] = Context(
                run_id=run_id,
                node_id=FIRST_NODE + i,
                state=RecordDict(),
                run_config=dict(run_config or {}),
                node_config=node_config(i) if node_config else config,
                series_id=1,
            )

    def set_run(self, run: Any) -> None: ...

    @property
    def run(self) -> Any:
        return None

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> list[int]:
        return [node for node in self.contexts if node not in self.offline]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        identifiers = []
        for original in messages:
            message = wire(original)
            identifier = message.metadata.message_id
            identifiers.append(identifier)
            changed = self.request(message)
            node = message.metadata.dst_node_id
            if changed is None or node in self.offline:
                continue
            self.sent.append(wire(original))
            try:
                answer = self.app(changed, self.contexts[node])
            except Exception:  # as flwr does: the exception's text goes to the server
                answer = Message(Error(2, traceback.format_exc(limit=-3)), reply_to=changed)
            answer.metadata.__dict__["_reply_to_message_id"] = identifier
            altered = self.reply(wire(answer))
            if altered is not None:
                self.received.append(wire(altered))
                self._replies[identifier] = altered
        return identifiers

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return [self._replies.pop(i) for i in list(message_ids) if i in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        return self.pull_messages(self.push_messages(messages))
