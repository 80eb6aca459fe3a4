"""Crashes, silence, late and missing nodes: the round goes on without them, or is abandoned and the model kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Error, Message
from flwr.serverapp.strategy import FedAvg

from flbc import ConfigError, TooFewNodesError
from flbc.encoding import canonical
from flbc.flower import wire
from flbc.flower.node import Node
from tests.flower.conftest import run, secure
from tests.support.apps import MODEL, default_train, make_app, numpy_of, record, step
from tests.support.local_grid import FIRST_NODE

AUTHORITY = FIRST_NODE + 4


def stage_of(message: Message) -> str:
    record = message.content.config_records.get("flbc") if message.has_content() else None
    return "" if record is None else str(record["stage"])


def mean_of(partitions: list[int]) -> Any:
    weights = [10 * (p + 1) for p in partitions]
    old = {name: value for name, value in MODEL.items() if name == "weight"}
    return np.average([step(p, old)["weight"] for p in partitions], axis=0, weights=weights)


# ---------------------------------------------------------------------- clients
def test_a_crashing_client_is_left_out(grid: Any, caplog: Any) -> None:
    def train(message: Message, context: Context) -> Message:
        if context.node_config["partition-id"] == 1:
            raise RuntimeError("out of memory")
        return default_train(message, context)

    got = numpy_of(run(secure(), grid(make_app(train))).arrays)
    np.testing.assert_allclose(got["weight"], mean_of([0, 2, 3]), atol=1e-3)
    assert "out of memory" in caplog.text


def test_a_silent_client_is_left_out(grid: Any) -> None:
    g = grid(reply=lambda m: None if m.metadata.src_node_id == FIRST_NODE + 2 and stage_of(m) == wire.TRAIN else m)
    result = secure().start(g, record(MODEL), num_rounds=1, timeout=1)
    np.testing.assert_allclose(numpy_of(result.arrays)["weight"], mean_of([0, 1, 3]), atol=1e-3)


def test_an_error_in_the_superlinks_name_is_matched_to_its_node(grid: Any, caplog: Any) -> None:
    """Flower reports a lost node with src_node_id 1; the reply is matched by the message it answers."""

    def lost(message: Message) -> Message:
        if stage_of(message) == wire.TRAIN and message.metadata.src_node_id == FIRST_NODE + 3:
            error = Message(Error(5, "Node Unavailable"), reply_to=message)
            error.metadata.__dict__["_src_node_id"] = 1
            error.metadata.__dict__["_reply_to_message_id"] = message.metadata.reply_to_message_id
            return error
        return message

    result = run(secure(), grid(reply=lost))
    assert "node-3 sent no update: Node Unavailable" in caplog.text
    np.testing.assert_allclose(numpy_of(result.arrays)["weight"], mean_of([0, 1, 2]), atol=1e-3)


def test_fewer_than_min_survivors_abandons_and_keeps_the_model(grid: Any, caplog: Any) -> None:
    def train(message: Message, context: Context) -> Message:
        if message.content["config"]["server-round"] == 1 and int(context.node_config["partition-id"]) < 2:
            raise RuntimeError("crash")
        return default_train(message, context)

    g = grid(make_app(train))
    result = run(secure(), g, 2)
    assert "2 updates arrived, fewer than min_survivors = 3" in caplog.text
    assert result.train_metrics_clientapp[1]["flbc-survivors"] == 0
    assert result.train_metrics_clientapp[2]["flbc-survivors"] == 4
    np.testing.assert_allclose(numpy_of(result.arrays)["weight"], mean_of([0, 1, 2, 3]), atol=1e-3)
    opens = [m for m in g.sent if stage_of(m) == wire.OPEN]
    assert len(opens) == 1, "nothing was opened in round 1"


def test_a_client_that_joins_late_takes_part(grid: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    g = grid()
    g.offline.add(FIRST_NODE + 3)
    strategy = secure()
    evaluated = []
    original = strategy.on_evaluation
    strategy.on_evaluation = lambda r, m: (evaluated.append(sorted(m)), g.offline.clear(), original(r, m))[-1]  # type: ignore[method-assign]
    # In simulation the server knows how many partitions there are and waits for all; in deployment nobody knows.
    init = Node.__init__

    def as_in_deployment(self: Node, *args: Any) -> None:
        init(self, *args)
        self.partitions = 0

    monkeypatch.setattr(Node, "__init__", as_in_deployment)
    run(strategy, g, 2)
    assert evaluated[0] == ["node-0", "node-1", "node-2"]
    assert evaluated[1] == ["node-0", "node-1", "node-2", "node-3"]


# ---------------------------------------------------------------------- authority
def test_authority_silent_once_is_asked_again_with_the_same_block(grid: Any) -> None:
    dropped: list[Message] = []

    def lose_first_opening(message: Message) -> Message | None:
        if stage_of(message) == wire.OPEN and not dropped:
            dropped.append(message)
            return None
        return message

    g = grid(reply=lose_first_opening)
    result = run(secure(stage_timeout=0.2), g)
    np.testing.assert_allclose(numpy_of(result.arrays)["weight"], mean_of([0, 1, 2, 3]), atol=1e-3)
    again = next(m for m in g.received if stage_of(m) == wire.OPEN)
    assert wire.unseal(again.content) == wire.unseal(dropped[0].content), "the same block gets the same bytes (S8)"


def test_authority_down_abandons_the_round_and_the_next_one_works(grid: Any, caplog: Any) -> None:
    def down(message: Message) -> Message | None:
        return None if stage_of(message) == wire.OPEN and message.metadata.group_id == "1" else message

    result = run(secure(stage_timeout=0.1), grid(request=down), 2)
    assert "did not help to open the sum within 2 x 0.1 s" in caplog.text
    assert result.train_metrics_clientapp[1]["flbc-survivors"] == 0
    assert result.train_metrics_clientapp[2]["flbc-survivors"] == 4
    np.testing.assert_allclose(numpy_of(result.arrays)["weight"], mean_of([0, 1, 2, 3]), atol=1e-3)


def test_authority_offline_before_a_round_abandons_it(grid: Any, caplog: Any) -> None:
    g = grid()
    strategy = secure(node_wait=0.3)
    original = strategy.configure_train

    def configure(server_round: int, *args: Any) -> Any:
        g.offline = {AUTHORITY} if server_round == 1 else set()
        return original(server_round, *args)

    strategy.configure_train = configure  # type: ignore[method-assign]
    result = run(strategy, g, 2)
    assert "round 1 is abandoned" in caplog.text
    assert "none for: authority" in caplog.text
    assert list(result.train_metrics_clientapp) == [2]


def test_a_refusing_authority_is_not_asked_twice(grid: Any, caplog: Any) -> None:
    def other_sum(message: Message) -> Message:
        if stage_of(message) == wire.OPEN:
            payload = bytearray(wire.unseal(message.content))
            payload[-1] ^= 1
            message.content[wire.PAYLOAD] = wire.seal(bytes(payload))
        return message

    g = grid(request=other_sum)
    result = run(secure(), g)
    assert "node-4 refused" in caplog.text
    assert len([m for m in g.sent if stage_of(m) == wire.OPEN]) == 1
    assert not result.arrays


def test_a_forged_opening_is_rejected_by_the_server(grid: Any, caplog: Any) -> None:
    """S10: the sum must be the one that the authority signed."""

    def forge(message: Message) -> Message:
        if stage_of(message) == wire.OPEN:
            answer = bytearray(wire.unseal(message.content))
            answer[-8] ^= 1
            message.content[wire.PAYLOAD] = wire.seal(bytes(answer))
        return message

    result = run(secure(), grid(reply=forge))
    assert "not the one that the opener signed" in caplog.text
    assert not result.arrays


# ---------------------------------------------------------------------- too few nodes
def test_too_few_nodes_names_the_flag(grid: Any) -> None:
    with pytest.raises(TooFewNodesError, match='--federation-config "num-supernodes=4 client-resources-num-cpus=1"'):
        run(secure(node_wait=0.3), grid(nodes=2))


def test_too_few_for_the_wrapped_strategy_names_the_flag(grid: Any) -> None:
    with pytest.raises(TooFewNodesError, match="num-supernodes=7"):
        run(secure(FedAvg(min_available_nodes=6), node_wait=0.3), grid(nodes=5))


def test_nodes_without_the_mod_are_named(grid: Any) -> None:
    with pytest.raises(TooFewNodesError, match=r"mods=\[SecureMod\(\)\]"):
        run(secure(node_wait=0.5), grid(make_app(mods=[])))


def test_key_of_another_size_is_named(grid: Any, caplog: Any) -> None:
    with pytest.raises(TooFewNodesError, match="key has 2048 bits, the strategy asks for 3072"):
        run(secure(key_bits=3072, node_wait=0.5), grid())


def test_development_nodes_need_partition_ids(grid: Any) -> None:
    with pytest.raises(TooFewNodesError, match="partition-id"):
        run(secure(node_wait=0.5), grid(node_config=lambda i: {"flbc-dev": True}))


def test_deployed_node_without_key_file_is_told_the_flag(grid: Any) -> None:
    with pytest.raises(TooFewNodesError, match=r"flbc keys new"):
        run(secure(node_wait=0.5), grid(node_config=lambda i: {"partition-id": i, "num-partitions": 5}))


def test_different_messages_for_different_clients_are_refused(grid: Any) -> None:
    class Personal(FedAvg):
        def configure_train(self, *args: Any) -> Any:
            from flwr.app import ConfigRecord, RecordDict

            for i, message in enumerate(super().configure_train(*args)):
                content = RecordDict(dict(message.content))
                content["config"] = ConfigRecord({"rate": i})
                yield Message(content, message.metadata.dst_node_id, "train")

    with pytest.raises(ConfigError, match="one label must cover all"):
        run(secure(Personal(), assume_mean_based=True), grid())


# ---------------------------------------------------------------------- one dishonest client
def _hello(change: Any) -> Any:
    def tamper(message: Message) -> Message:
        if stage_of(message) == wire.HELLO and message.metadata.src_node_id == FIRST_NODE:
            change(message.content["flbc"])
        return message

    return tamper


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.pop("simulation"),
        lambda record: record.update({"partitions": "x"}),
        lambda record: record.update({"partitions": 10**9}),
        lambda record: record.update({"simulation": 1}),
        lambda record: record.update({"signature": bytes(65)}),
        lambda record: record.update({"party": b"{}"}),
    ],
)
def test_a_client_that_answers_hello_badly_is_left_out(change: Any, grid: Any, caplog: Any) -> None:
    result = run(secure(), grid(reply=_hello(change)))
    assert "node 100 is left out" in caplog.text
    np.testing.assert_allclose(numpy_of(result.arrays)["weight"], mean_of([1, 2, 3]), atol=1e-3)


def test_a_client_cannot_say_that_it_is_another(grid: Any, caplog: Any) -> None:
    """The card is signed over the server's nonce: a recorded one is void."""
    seen: dict[int, Any] = {}

    def replay(message: Message) -> Message:
        if stage_of(message) == wire.HELLO:
            seen[message.metadata.src_node_id] = dict(message.content["flbc"])
            if message.metadata.src_node_id == FIRST_NODE + 1:
                message.content["flbc"].update(seen[FIRST_NODE])
                message.content["flbc"]["signature"] = seen[FIRST_NODE + 1]["signature"]
        return message

    result = run(secure(), grid(reply=replay))
    assert "node 101 is left out" in caplog.text
    np.testing.assert_allclose(numpy_of(result.arrays)["weight"], mean_of([0, 2, 3]), atol=1e-3)


@pytest.mark.parametrize("asked", [2.0**60, 1e308, 3.0, -1.0])
def test_a_size_class_that_is_none_is_refused(asked: float, grid: Any, caplog: Any) -> None:
    def inflate(message: Message) -> Message:
        if stage_of(message) == wire.TRAIN and message.metadata.src_node_id == FIRST_NODE:
            header = {"submission": None, "metrics": [], "size_class": asked, "proof": "", "next_keys": ""}
            message.content["flbc"]["reply"] = canonical(header)
        return message

    result = run(secure(), grid(reply=inflate))
    assert "asks for a size class that is none" in caplog.text
    np.testing.assert_allclose(numpy_of(result.arrays)["weight"], mean_of([1, 2, 3]), atol=1e-3)


def test_a_client_with_other_metrics_is_left_out_and_named(grid: Any, caplog: Any) -> None:
    def train(message: Message, context: Context) -> Message:
        answer = default_train(message, context)
        if context.node_config["partition-id"] == 2:
            answer.content["metrics"]["more"] = 1.0
        return answer

    result = run(secure(), grid(make_app(train)))
    assert "the reply of node-2 is left out: it reports other metrics than most" in caplog.text
    np.testing.assert_allclose(numpy_of(result.arrays)["weight"], mean_of([0, 1, 3]), atol=1e-3)


@pytest.mark.parametrize("missing", ["scheme", "key-bits", "nonce"])
def test_a_malformed_hello_is_refused_with_code_6(missing: str, grid: Any) -> None:
    parts = {"scheme": "paillier", "key-bits": 2048, "nonce": bytes(32)}
    del parts[missing]
    (answer,) = grid().send_and_receive([wire.request(wire.HELLO, parts, FIRST_NODE, 0)])
    assert answer.error.code == 6
