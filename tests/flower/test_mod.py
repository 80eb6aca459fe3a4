"""SecureMod: what leaves the node, what the app sees, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable
from flwr.serverapp.strategy import FedAvg

from flbc import Codec, ConfigError, SecureMod
from flbc.flower import wire
from tests.flower.conftest import run, secure
from tests.support.apps import MODEL, default_train, make_app, numpy_of, record, reply, step
from tests.support.local_grid import FIRST_NODE, LocalGrid


def answers(grid: LocalGrid, stage: str) -> list[Message]:
    records = [(m, m.content.config_records.get("flbc")) for m in grid.received if m.has_content()]
    return [m for m, record in records if record is not None and record["stage"] == stage]


# ---------------------------------------------------------------------- what leaves the node
def test_nothing_of_a_client_is_in_clear(grid: Any) -> None:
    g = grid()
    run(secure(), g)
    protected = [m for m in answers(g, wire.TRAIN) if m.content.array_records]
    assert len(protected) == 4
    for message in protected:
        assert [list(r) for r in message.content.array_records.values()] == [[wire.PAYLOAD]]
        assert not dict(message.content.metric_records["metrics"]), "no weight, no loss"
        assert set(message.content.config_records) == {"flbc"}
        header = bytes(message.content.config_records["flbc"]["reply"])
        assert b'"metrics":["loss:"]' in header, "metric names are in clear, values are not"


def test_without_max_examples_only_the_size_class_is_shown(grid: Any) -> None:
    g = grid()
    run(secure(), g)
    headers = [bytes(m.content.config_records["flbc"]["reply"]) for m in answers(g, wire.TRAIN)]
    classes = [h for h in headers if b'"submission":null' in h]
    assert len(classes) == 4
    assert sorted(float(h.split(b'size_class":')[1].split(b",")[0]) for h in classes) == [16, 32, 32, 64]


def test_with_max_examples_round_one_needs_no_second_attempt(grid: Any) -> None:
    g = grid()
    run(secure(codec=Codec(max_examples=64)), g)
    assert len(answers(g, wire.TRAIN)) == 4


def test_new_attempt_does_not_retrain(grid: Any) -> None:
    """S14."""
    trained: list[int] = []

    def train(message: Message, context: Context) -> Message:
        trained.append(int(context.node_config["partition-id"]))
        return default_train(message, context)

    run(secure(), grid(make_app(train)))
    assert sorted(trained) == [0, 1, 2, 3]


def test_a_client_whose_data_grew_gets_a_new_attempt(grid: Any) -> None:
    def train(message: Message, context: Context) -> Message:
        examples = 5000 if message.content["config"]["server-round"] == 2 else 10
        arrays = step(int(context.node_config["partition-id"]), numpy_of(message.content["arrays"]))
        return reply(message, arrays, {"num-examples": examples})

    result = run(secure(), grid(make_app(train)), 2)
    assert result.train_metrics_clientapp[2]["flbc-survivors"] == 4


def test_node_state_holds_no_secret(grid: Any) -> None:
    """S3: in simulation Context.state lives in the ServerApp's process."""
    g = grid()
    run(secure(), g)
    assert all(not context.state for context in g.contexts.values())


def test_files_of_a_node_are_its_own(grid: Any, home: Any) -> None:
    run(secure(), grid())
    files = [path for path in home.rglob("*") if path.is_file()]
    assert len(files) >= 5
    assert all(path.stat().st_mode & 0o077 == 0 for path in files)
    assert all(path.parent.stat().st_mode & 0o077 == 0 for path in files)


# ---------------------------------------------------------------------- what the app sees
def test_the_app_sees_neither_ticket_nor_helper_partitions(grid: Any) -> None:
    seen: list[tuple[Any, ...]] = []

    def train(message: Message, context: Context) -> Message:
        seen.append(
            (sorted(message.content), context.node_config["num-partitions"], context.node_config["partition-id"])
        )
        context.state["mine"] = ConfigRecord({"kept": True})
        return default_train(message, context)

    g = grid(make_app(train))
    run(secure(), g)
    assert all(s[0] == ["arrays", "config"] for s in seen)
    assert {s[1] for s in seen} == {4}
    assert sorted(s[2] for s in seen) == [0, 1, 2, 3]
    assert all(g.contexts[FIRST_NODE + i].state["mine"]["kept"] for i in range(4)), "the app's own state is kept"
    assert all(c.node_config["num-partitions"] == 5 for c in g.contexts.values()), "the context itself is unchanged"


def test_declared_examples_may_look_at_the_app_context(grid: Any) -> None:
    seen: list[int] = []

    def size(context: Context) -> int:
        seen.append(int(context.node_config["num-partitions"]))
        return 40

    run(secure(), grid(make_app(examples=size)))
    assert set(seen) == {4}


# ---------------------------------------------------------------------- refusals
@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_plain_strategy_is_refused_with_code_6(kind: str, grid: Any) -> None:
    g = grid()
    message = Message(RecordDict({"arrays": record(MODEL), "config": ConfigRecord()}), FIRST_NODE, kind)
    (answer,) = g.send_and_receive([message])
    assert answer.has_error()
    assert answer.error.code == 6
    assert "wrap the server's strategy" in answer.error.reason


def test_allow_plaintext_lets_a_plain_strategy_pass(grid: Any) -> None:
    result = run(FedAvg(), LocalGrid(make_app(allow_plaintext=True), 4))
    assert result.train_metrics_clientapp[1]["loss"] > 0


def test_queries_pass(grid: Any) -> None:
    app = make_app()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        return Message(RecordDict({"answer": ConfigRecord({"x": 1})}), reply_to=message)

    (answer,) = grid(app).send_and_receive([Message(RecordDict(), FIRST_NODE, "query")])
    assert answer.content["answer"]["x"] == 1


def test_an_unwrapped_strategy_cannot_average_ciphertexts(grid: Any) -> None:
    """The payload's stype makes plain FedAvg fail instead of returning the mean of ciphertext bytes."""
    g = grid()
    run(secure(), g)
    stolen = [m for m in answers(g, wire.TRAIN) if m.content.array_records]
    for message in stolen:
        message.content.metric_records["metrics"]["num-examples"] = 1
    with pytest.raises(TypeError):
        FedAvg().aggregate_train(1, stolen)


@pytest.mark.parametrize("field", ["version", "stage"])
def test_other_protocol_versions_and_stages_are_refused(field: str, grid: Any) -> None:
    content = RecordDict(
        {"flbc": ConfigRecord({"version": 1, "stage": "hello", field: 99 if field == "version" else "x"})}
    )
    (answer,) = grid().send_and_receive([Message(content, FIRST_NODE, "train")])
    assert answer.error.code == 6


def test_bad_examples_argument() -> None:
    with pytest.raises(ConfigError):
        SecureMod(examples="many")  # type: ignore[arg-type]


# ---------------------------------------------------------------------- bad replies of the app
def _abandoned(grid: Any, change: Callable[[dict[str, Any], dict[str, Any]], Any], message: str, caplog: Any) -> None:
    def train(request: Message, context: Context) -> Message:
        partition = int(context.node_config["partition-id"])
        arrays = step(partition, numpy_of(request.content["arrays"]))
        metrics: dict[str, Any] = {"num-examples": 10, "loss": 1.0}
        answer = change(arrays, metrics) if partition == 0 else None
        return answer(request) if callable(answer) else reply(request, arrays, metrics)

    g = grid(make_app(train), nodes=5)
    result = run(secure(min_survivors=4), g)
    assert message in caplog.text
    assert "abandoned, the model is kept" in caplog.text
    assert not result.arrays
    errors = [m for m in g.received if m.has_error()]
    assert {m.error.code for m in errors} == {6}


def _set(target: dict[str, Any], **values: Any) -> None:
    target.update(values)


def test_nan_names_array_and_index(grid: Any, caplog: Any) -> None:
    def change(arrays: dict[str, Any], metrics: dict[str, Any]) -> None:
        arrays["weight"] = arrays["weight"].copy()
        arrays["weight"][1, 2] = np.nan

    _abandoned(grid, change, "Array 'weight' of the reply holds NaN or infinity at index (1, 2)", caplog)


def test_difference_that_overflows_is_found(grid: Any, caplog: Any) -> None:
    def change(arrays: dict[str, Any], metrics: dict[str, Any]) -> None:
        arrays["bias"] = np.array(np.inf)

    _abandoned(grid, change, "Array 'bias'", caplog)


def test_nan_metric_is_named(grid: Any, caplog: Any) -> None:
    _abandoned(grid, lambda a, m: _set(m, loss=float("nan")), "Metric 'loss' is NaN", caplog)


def test_missing_array_is_named(grid: Any, caplog: Any) -> None:
    _abandoned(grid, lambda a, m: a.pop("bias") is None, "missing: ['bias']", caplog)


def test_unknown_array_is_named(grid: Any, caplog: Any) -> None:
    _abandoned(grid, lambda a, m: _set(a, more=np.zeros(1)), "unknown: ['more']", caplog)


def test_wrong_shape_is_named(grid: Any, caplog: Any) -> None:
    _abandoned(grid, lambda a, m: _set(a, bias=np.zeros(3)), "Array 'bias' of the reply has shape (3,)", caplog)


def test_missing_weight_is_named(grid: Any, caplog: Any) -> None:
    _abandoned(grid, lambda a, m: m.pop("num-examples") is None, "must hold 'num-examples'", caplog)


def test_negative_weight_is_refused(grid: Any, caplog: Any) -> None:
    _abandoned(
        grid, lambda a, m: _set(m, **{"num-examples": -3}), "must be a number from 0 to below 268,435,456", caplog
    )


def test_two_array_records_are_a_named_error(grid: Any, caplog: Any) -> None:
    def change(arrays: dict[str, Any], metrics: dict[str, Any]) -> Any:
        def answer(request: Message) -> Message:
            message = reply(request, arrays, metrics)
            message.content["control"] = ArrayRecord([np.zeros(1)])
            return message

        return answer

    _abandoned(grid, change, "exactly one ArrayRecord", caplog)


def test_too_many_metrics_say_what_to_raise(grid: Any, caplog: Any) -> None:
    _abandoned(grid, lambda a, m: _set(m, many=[0.0] * 20), "Codec(max_metrics=21)", caplog)


# ---------------------------------------------------------------------- order of mods
def doubling_mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """A mod that changes the update, as clipping and compression mods do."""
    old = numpy_of(message.content["arrays"]) if "arrays" in message.content else {}
    answer = call_next(message, context)
    if message.metadata.message_type == "train" and answer.has_content() and "arrays" in answer.content:
        new = numpy_of(answer.content["arrays"])
        answer.content["arrays"] = record({k: (old[k] + 2 * (v - old[k])).astype(v.dtype) for k, v in new.items()})
    return answer


def test_mods_after_securemod_change_the_update_before_it_is_hidden(grid: Any) -> None:
    app = make_app(mods=[SecureMod(), doubling_mod])
    got = numpy_of(run(secure(codec=Codec(bits=24)), grid(app)).arrays)
    plain = numpy_of(run(FedAvg(), LocalGrid(make_app(mods=[]), 4)).arrays)
    np.testing.assert_allclose(got["weight"] - MODEL["weight"], 2 * (plain["weight"] - MODEL["weight"]), atol=1e-5)


def test_mods_before_securemod_see_only_ciphertext(grid: Any) -> None:
    seen: list[Any] = []

    def nosy(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        answer = call_next(message, context)
        seen.extend(a.stype for r in answer.content.array_records.values() for a in r.values())
        return answer

    run(secure(), grid(make_app(mods=[nosy, SecureMod()])))
    assert set(seen) == {wire.PAYLOAD_STYPE}
