"""The client half in one line: ``ClientApp(mods=[SecureMod()])``."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from logging import ERROR
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp.typing import ClientAppCallable
from flwr.common.logger import log

from ..codec import Layout
from ..errors import ConfigError, FlbcError, LayoutError, PlaintextRefusedError, ProtocolError
from ..node import Ticket
from ..node.ahead import Ahead
from ..node.model_request import ModelsRequest, pack_many
from ..node.paillier import SCHEME as PAILLIER
from ..node.paillier import THRESHOLD
from ..node.participant import CLIP_METRIC, RATE_METRIC, Participant, check_clipping, check_sampling, update_of
from ..node.terms import mechanism_of
from ..node.ticket import PARTS, admit
from ..node.trained import Trained
from ..task import TaskConfig
from . import hello_stage, ledger_stages, opening_stages, wire
from .ledger_stages import named, only
from .node import HELPERS, Node, helpers_of, in_simulation
from .panel import ModelMaker, Panel, Validation

#: Seconds that a verifier waits for another at most, whatever the server says.
LONGEST_LINK = 600


class SecureMod:
    """Protect what this node sends; answer flbc's own stages.

    It operates on messages of type ``train`` and ``evaluate``; queries pass. A train or evaluate message without a
    ticket is refused (error code 6): nothing leaves in clear because a server forgot, or chose, not to wrap its
    strategy.

    Parameters
    ----------
    examples : int, callable or None (default: None)
        Declared size of the training set, or a function of the Context that returns it. Needed for differential
        privacy with ``unit="example"``; a public constant. A number pinned in the roster must agree.
    weight_key : str (default: "num-examples")
        The metric that holds the client's weight; must be the wrapped strategy's ``weighted_by_key``. The node fixes
        it, because a server could name any metric and learn its size.
    allow_plaintext : bool (default: False)
        Let train and evaluate messages of unwrapped strategies pass unprotected.
    insecure_schemes : sequence of str (default: ())
        In simulation, further schemes to accept for study, e.g. ``("nddfe-paper",)``; deployed nodes name them in the
        roster's policy.
    model : callable or None (default: None)
        On the three verifiers of :class:`flbc.Verified`: makes the (untrained) model, e.g. the class ``Net``. The code
        is the node's own, because a server that sent it could send another.
    validation : callable or None (default: None)
        On the three verifiers: given the Context, returns this node's private validation inputs, shape (n, ...), scaled
        to about 1, and labels, n class numbers. In simulation the Context's ``partition-id`` is the seat, 0 to 2.

    Notes
    -----
    The first mod of a list is the outermost and sees the reply last. SecureMod must be the first, so that mods that
    change the update (clipping, compression) come before it is protected: ``mods=[SecureMod(), other_mod]``. A mod
    outside SecureMod sees only ciphertext.

    Examples
    --------
    ::

        from flbc import SecureMod
        app = ClientApp(mods=[SecureMod()])
    """

    def __init__(
        self,
        *,
        examples: int | Callable[[Context], int] | None = None,
        weight_key: str = "num-examples",
        allow_plaintext: bool = False,
        insecure_schemes: Sequence[str] = (),
        model: ModelMaker | None = None,
        validation: Validation | None = None,
    ) -> None:
        for name, given in (("model", model), ("validation", validation)):
            if given is not None and not callable(given):
                raise ConfigError(f"SecureMod({name}=...) must be a function or class, not {type(given).__name__}")
        if (model is None) != (validation is None):
            raise ConfigError("SecureMod(model=..., validation=...) go together: verifiers need both, others none")
        self._model, self._validation = model, validation
        if isinstance(examples, bool) or not (examples is None or callable(examples) or isinstance(examples, int)):
            raise ConfigError("SecureMod(examples=...) must be an integer or a function of the Context")
        self._examples, self._weight_key, self._allow_plaintext = examples, weight_key, allow_plaintext
        self._insecure = tuple(insecure_schemes)

    def __call__(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        """Answer, protect, pass or refuse one message."""
        kind = message.metadata.message_type.partition(".")[0]
        try:
            record = wire.read_record(message.content)
            if record is None:
                if kind not in ("train", "evaluate") or self._allow_plaintext:
                    return call_next(message, context)
                raise PlaintextRefusedError(
                    f"This node refuses a {kind} message without a ticket: wrap the server's strategy, e.g. "
                    "Paillier(FedAvg(...)), or remove SecureMod to work in clear"
                )
            stage = wire.text_of(record, "stage")
            if kind != ("evaluate" if stage in wire.EVALUATED else "train"):
                raise ProtocolError(f"Stage {stage!r} does not belong in a {kind} message")
            return getattr(self, f"_{stage}")(message, record, context, call_next)  # type: ignore[no-any-return]
        except FlbcError as error:
            return Message(Error(wire.REFUSED, f"{type(error).__name__}: {error}"), reply_to=message)

    # ------------------------------------------------------------------ stages
    def _hello(self, message: Message, record: ConfigRecord, context: Context, _: ClientAppCallable) -> Message:
        scheme, mode = wire.text_of(record, "scheme"), wire.text_of(record, "mode")
        node = self._node(context, scheme, mode, record.get("committee") is True)
        return hello_stage.greet(message, record, context.run_id, node, self._panel(context, node))

    def _train(self, message: Message, record: ConfigRecord, context: Context, call_next: ClientAppCallable) -> Message:
        ticket = _ticket(record)
        node = self._node_of(context, ticket)
        participant = node.participant
        old = _numpy(only(message.content.array_records, "train message"))
        revealed = MetricRecord()
        with Ahead() as ahead:
            if participant.must_train(ticket, wire.content_hash(message.content)):
                begin = time.monotonic()
                ahead.begin(ticket, node.me, node.memory)
                reply = self._call_app(message, context, call_next, ticket.config)
                if reply.has_error():
                    return reply
                revealed = self._keep(reply, ticket, participant, old, int((time.monotonic() - begin) * 1000))
            return self._submit(message, ticket, node, revealed, ahead)

    def _keep(
        self, reply: Message, ticket: Ticket, participant: Participant, old: dict[str, Any], elapsed: int
    ) -> MetricRecord:
        """Check what the app says and returns, keep it on the node, and return the metrics that may travel in clear."""
        metrics = dict(only(reply.content.metric_records, "train reply"))
        new, mechanism = _numpy(only(reply.content.array_records, "train reply")), mechanism_of(ticket.config)
        check_clipping(mechanism, metrics.pop(CLIP_METRIC, None))
        check_sampling(mechanism, metrics.pop(RATE_METRIC, None))
        layout = Layout.of(old, private=ticket.config.floats_only)
        trained = Trained(
            layout,
            update_of(ticket.config, layout, old, new),
            _weight(metrics, self._weight_key),
            {name: value for name, value in metrics.items() if name != self._weight_key},
            elapsed,
        )
        participant.keep(ticket, trained)
        return MetricRecord() if ticket.config.privacy is None else _revealed(metrics, ticket)

    def _reprotect(self, message: Message, record: ConfigRecord, context: Context, _: ClientAppCallable) -> Message:
        ticket = _ticket(record)
        node = self._node_of(context, ticket)
        return self._submit(message, ticket, node, MetricRecord())

    def _open(self, message: Message, record: ConfigRecord, context: Context, _: ClientAppCallable) -> Message:
        ticket = _ticket(record)
        node = self._node_of(context, ticket)
        return opening_stages.open_sum(message, record, ticket, node, self._panel(context, node))

    def _derive(self, message: Message, record: ConfigRecord, context: Context, _: ClientAppCallable) -> Message:
        ticket = _ticket(record)
        return opening_stages.derive(message, record, ticket, self._node_of(context, ticket))

    def _partial(self, message: Message, record: ConfigRecord, context: Context, _: ClientAppCallable) -> Message:
        ticket = _ticket(record)
        return opening_stages.open_in_part(message, record, ticket, self._node_of(context, ticket))

    def _setup(self, message: Message, record: ConfigRecord, context: Context, _: ClientAppCallable) -> Message:
        ticket = _ticket(record)
        parts = {"deposit": self._node_of(context, ticket).participant.set_up(ticket)}
        return Message(RecordDict({wire.RECORD: wire.stage_record(wire.SETUP, parts)}), reply_to=message)

    def _unmask(self, message: Message, record: ConfigRecord, context: Context, _: ClientAppCallable) -> Message:
        ticket = _ticket(record)
        return opening_stages.unmask(message, record, ticket, self._node_of(context, ticket))

    def _verify(self, message: Message, record: ConfigRecord, context: Context, _: ClientAppCallable) -> Message:
        ticket = _ticket(record)
        node = self._node_of(context, ticket)
        body = wire.take_payload(message.content)
        if ticket.label.model != wire.content_hash(message.content):
            raise ProtocolError("The label commits to another model than the one that updates are checked against")
        arrays = _numpy(only(message.content.array_records, "verify message"))
        request = ModelsRequest.from_wire(wire.bytes_of(record, "request")["request"], body)
        seconds = min(max(wire.number_of(record, "seconds"), 1), LONGEST_LINK)
        answers = self._panel(context, node).verify(ticket, request, arrays, float(seconds))
        return wire.sealed(message, wire.VERIFY, pack_many(answers))

    def _attest(self, message: Message, record: ConfigRecord, context: Context, _: ClientAppCallable) -> Message:
        ticket = _ticket(record)
        return ledger_stages.attest(message, record, ticket, self._node_of(context, ticket))

    def _judge(self, message: Message, record: ConfigRecord, context: Context, call_next: ClientAppCallable) -> Message:
        ticket = _ticket(record)

        def evaluate() -> Message:
            return self._call_app(message, context, call_next, ticket.config)

        return ledger_stages.judge(message, ticket, self._node_of(context, ticket), evaluate, self._weight_key)

    def _settle(self, message: Message, record: ConfigRecord, context: Context, _: ClientAppCallable) -> Message:
        ticket = _ticket(record)
        return ledger_stages.settle(message, ticket, self._node_of(context, ticket))

    def _evaluate(
        self, message: Message, record: ConfigRecord, context: Context, call_next: ClientAppCallable
    ) -> Message:
        ticket = _ticket(record)
        node = self._node_of(context, ticket)
        admit(ticket, node.me, node.pins, node.memory)
        if ticket.label.model != wire.content_hash(message.content):
            raise ProtocolError("The label commits to another model than the one that was sent to be evaluated")
        reply = self._call_app(message, context, call_next, ticket.config)
        if reply.has_error() or ticket.config.privacy is None:
            return reply
        # Metrics travel in clear and are outside epsilon: only those that the task reveals may leave (S18).
        name, metrics = named(reply.content.metric_records, "evaluate reply")
        kept = _revealed(dict(metrics), ticket)
        if type(metrics.get(self._weight_key)) is int:  # a count; a list or a fraction could say anything
            kept[self._weight_key] = metrics[self._weight_key]
        return Message(RecordDict({name: kept}), reply_to=message)

    # ------------------------------------------------------------------ helpers
    def _submit(
        self, message: Message, ticket: Ticket, node: Node, revealed: MetricRecord, ahead: Ahead | None = None
    ) -> Message:
        reply = node.participant.submit(ticket, ahead)
        stage = wire.stage_record(wire.TRAIN, {"reply": reply.header()})
        content = RecordDict({wire.RECORD: stage, "metrics": revealed})
        if reply.submission is not None:
            content[wire.PAYLOAD] = wire.seal(reply.payload)
        return Message(content, reply_to=message)

    def _panel(self, context: Context, node: Node) -> Panel:
        return Panel(context, node, self._model, self._validation)

    def _node_of(self, context: Context, ticket: Ticket) -> Node:
        return self._node(context, ticket.config.scheme, ticket.config.mode, ticket.config.ledger is not None)

    def _node(self, context: Context, scheme: str, mode: str, committee: bool) -> Node:
        if scheme not in HELPERS:
            raise ProtocolError(f"Unknown scheme {scheme!r}; known: {', '.join(HELPERS)}. Is flbc up to date here?")
        helpers = helpers_of(scheme, mode)
        votes = committee or (scheme, mode) == (PAILLIER, THRESHOLD)
        return Node(context, helpers, lambda: self._declared(context, helpers), votes, self._insecure)

    def _declared(self, context: Context, helpers: tuple[str, ...]) -> int:
        if not callable(self._examples):
            return self._examples or 0
        return int(self._examples(_shown(context, helpers)))

    def _call_app(
        self, message: Message, context: Context, call_next: ClientAppCallable, config: TaskConfig
    ) -> Message:
        """Call the app as if flbc were not there: no ``flbc`` record, and partitions of training nodes only."""
        if config.codec["weight_key"] != self._weight_key:
            raise ConfigError(
                f"The strategy weighs by {config.codec['weight_key']!r}, this node by {self._weight_key!r}; "
                "pass the same name to SecureMod(weight_key=...) and the strategy's weighted_by_key"
            )
        del message.content[wire.RECORD]
        shown = _shown(context, helpers_of(config.scheme, config.mode))
        try:
            reply = call_next(message, shown)
        except Exception:
            if config.privacy is None:
                raise
            # Flower sends an exception's text to the server, and with it whatever it quotes of a record (S18).
            log(ERROR, "flbc: the app failed; the server is not told why", exc_info=True)
            return Message(Error(wire.APP_FAILED, "The app failed; its node's log says why"), reply_to=message)
        context.state = shown.state
        return reply


def _shown(context: Context, helpers: tuple[str, ...]) -> Context:
    """Return the context with the helper partitions hidden (simulation only)."""
    if not in_simulation(context) or "num-partitions" not in context.node_config:
        return context
    shown = copy.copy(context)
    count = int(context.node_config["num-partitions"]) - len(helpers)
    shown.node_config = {**context.node_config, "num-partitions": count}
    return shown


def _ticket(record: ConfigRecord) -> Ticket:
    return Ticket.from_wire(wire.bytes_of(record, *PARTS))


def _numpy(record: ArrayRecord) -> dict[str, np.ndarray[Any, Any]]:
    try:
        return {name: array.numpy() for name, array in record.items()}
    except TypeError:
        raise LayoutError(
            "An array is not a NumPy array; is a mod outside of SecureMod changing it? SecureMod must be the first mod"
        ) from None


def _weight(metrics: dict[str, Any], key: str) -> float:
    value = metrics.get(key)
    if not isinstance(value, int | float):
        raise LayoutError(f"The MetricRecord of the train reply must hold {key!r}, a single number")
    return float(value)


def _revealed(metrics: dict[str, Any], ticket: Ticket) -> MetricRecord:
    return MetricRecord({name: metrics[name] for name in ticket.config.reveal_metrics if name in metrics})
