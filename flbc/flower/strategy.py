"""The server half: a strategy that wraps another one and gives it the mean of updates that nobody saw.

:class:`SecureStrategy` walks the path of a round (configure, train, combine, open, apply); the scheme's own strategy,
e.g. :class:`flbc.Paillier`, says which roles, keys and combiner it needs.
"""

from __future__ import annotations

import math
import secrets
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from logging import INFO, WARNING
from typing import Any, ClassVar

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from ..codec import Codec, Layout, VectorPlan
from ..codec.dense import count_metrics
from ..crypto.signing import keccak256
from ..errors import CiphertextError, ConfigError, FlbcError, ProtocolError, TooFewNodesError, VerificationError
from ..node.authority import OpenRequest, check_opening, check_submissions, unpack_opening
from ..node.participant import Reply
from ..node.pins import Pins
from ..node.terms import codec_terms, sum_spec
from ..node.ticket import Ticket
from ..privacy import GaussianMechanism, Privacy
from ..privacy.mechanism import plan as plan_mechanism
from ..roster import TRAIN_ROLE, Party, Roster
from ..round import NO_HUB, NO_LEADER, ZERO, Block, RoundLabel, Signed
from ..schemes import Combiner, IntVector
from ..schemes.base import vector_to_bytes
from ..task import TaskConfig
from . import wire
from .apply import pseudo_reply, restore_dtypes
from .directory import Directory
from .grid import TrainingGrid, exchange
from .report import RoundReport, log_evaluation
from .wrapped import check_wrapped

#: Size classes of late joiners may need another attempt; more than this many means that a client plays games.
_MAX_ATTEMPTS = 4
_OPEN_TRIES = 2


class AbandonedError(FlbcError):
    """A round cannot be finished; the model is kept."""


class SecureStrategy(Strategy):
    """Wrap a mean-based Flower strategy. Not used directly; see :class:`flbc.Paillier` for the parameters."""

    is_flbc_wrapper: ClassVar[bool] = True
    scheme: ClassVar[str]
    mode: ClassVar[str] = "authority"
    helpers: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        strategy: Strategy,
        *,
        privacy: Privacy | None,
        codec: Codec,
        key_bits: int,
        min_survivors: int,
        stage_timeout: float,
        node_wait: float | None,
        reveal_metrics: Sequence[str],
        assume_mean_based: bool,
        pins: Pins | None,
    ) -> None:
        self.strategy = check_wrapped(strategy, assume_mean_based)
        if not isinstance(codec, Codec):
            raise ConfigError("codec must be a flbc.Codec")
        if privacy is not None and not isinstance(privacy, Privacy):
            raise ConfigError("privacy must be a flbc.Privacy, or None for no differential privacy")
        if type(min_survivors) is not int or min_survivors < 3:
            raise ConfigError("min_survivors must be at least 3: a sum of two shows each of the two the other's update")
        if not stage_timeout > 0 or (node_wait is not None and not node_wait > 0):
            raise ConfigError("stage_timeout and node_wait are seconds and must be positive")
        if isinstance(reveal_metrics, str):
            raise ConfigError(f"reveal_metrics must be a list of names, e.g. ({reveal_metrics!r},)")
        if reveal_metrics and privacy is None:
            raise ConfigError("reveal_metrics belongs to privacy=Privacy(...); without it metrics are averaged as usual")
        self.privacy, self.codec, self.key_bits = privacy, codec, key_bits
        self.min_survivors, self.stage_timeout, self.node_wait = min_survivors, stage_timeout, node_wait
        self.reveal_metrics = tuple(sorted(set(reveal_metrics)))
        self._pins = pins
        self._round: _Round | None = None
        self._parent = ZERO

    # ------------------------------------------------------------------ what a scheme adds
    @abstractmethod
    def _build_combiner(self, config: TaskConfig, keys: bytes, helper: Party) -> Combiner:
        """Return the scheme's server half."""

    # ------------------------------------------------------------------ Flower's interface
    def summary(self) -> None:
        """Log the settings, then those of the wrapped strategy."""
        log(INFO, "\t├──> %s (flbc): nobody sees a single client's update", type(self).__name__)
        log(INFO, "\t│\t├── Scheme key: %d bits; opened by: %s", self.key_bits, ", ".join(self.helpers))
        log(INFO, "\t│\t├── Sums of at least %d clients", self.min_survivors)
        log(INFO, "\t│\t├── Codec: %s", self.codec.to_dict() if self.privacy is None else "step set by privacy")
        if self.privacy is None:
            log(INFO, "\t│\t└── no differential privacy: the exact mean of the updates is opened every round")
        else:
            p = self.privacy
            log(INFO, "\t│\t├── Differential privacy: epsilon %g, delta %g, one %s, zero-out", p.epsilon, p.delta, p.unit)
            log(INFO, "\t│\t├── Clipping norm %g; noise added by whoever opens the sum, who is trusted", p.clip_norm)
            shown = ", ".join(self.reveal_metrics) or "none"
            log(INFO, "\t│\t└── Metrics in clear, outside epsilon: %s", shown)
        self.strategy.summary()

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run the wrapped strategy with hidden updates; parameters as in :meth:`flwr.serverapp.strategy.Strategy.start`.

        With differential privacy it stops cleanly before the round that would exceed the budget.

        Raises
        ------
        TooFewNodesError
            If the nodes that the scheme needs do not appear within ``node_wait``; names the flag to add.
        """
        self._grid = grid
        needed = max(self.min_survivors, *(getattr(self.strategy, n, 0) for n in ("min_train_nodes", "min_available_nodes")))
        parts: dict[str, bytes | str | int] = {"scheme": self.scheme, "key-bits": self.key_bits}
        self._directory = Directory(parts, self.helpers, needed, self.stage_timeout, self._pins)
        self._training_grid = TrainingGrid(grid, lambda: list(self._directory.online(grid, TRAIN_ROLE)))
        self._directory.wait(grid, self._node_wait(grid))
        rounds = self._open_task(initial_arrays, num_rounds)
        arguments = (timeout, train_config, evaluate_config, evaluate_fn)
        return super().start(self._training_grid, initial_arrays, rounds, *arguments)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the wrapped strategy sample and configure, then add the ticket of this round."""
        if not hasattr(self, "_config"):
            raise ConfigError(f"{type(self).__name__} works through its start() method")
        self._round = None
        try:
            self._directory.wait(self._grid, self._node_wait(self._grid))
        except TooFewNodesError as error:
            log(WARNING, "flbc: round %d is abandoned, the model is kept: %s", server_round, error)
            return []
        messages = list(self.strategy.configure_train(server_round, arrays, config, self._training_grid))
        messages = messages[: self._config.max_parties]
        if not messages:
            return []
        model = wire.content_hash(messages[0].content)
        if any(wire.content_hash(message.content) != model for message in messages[1:]):
            raise ConfigError("The wrapped strategy sends different models or configs to different clients; "
                              "one label must cover all, so their updates cannot be summed")
        nodes = [message.metadata.dst_node_id for message in messages]
        ticket = self._ticket(server_round, 0, nodes, model)
        self._round = _Round(server_round, arrays, model, nodes, ticket, time.monotonic())
        return [self._with_ticket(message, wire.TRAIN, ticket) for message in messages]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Combine, have the sum opened, and give the wrapped strategy one reply with the mean."""
        state, self._round = self._round, None
        if state is None:
            return None, None
        report = RoundReport(server_round, train_seconds=time.monotonic() - state.begin)
        try:
            report, mean_reply = self._finish(state, self._training_grid.replies, report)
        except FlbcError as error:
            log(WARNING, "flbc: round %d is abandoned, the model is kept: %s", server_round, error)
            return None, self._spent(RoundReport(server_round)).metrics()
        begin = time.monotonic()
        arrays, metrics = self.strategy.aggregate_train(server_round, [mean_reply])
        if arrays is not None:
            arrays = restore_dtypes(arrays, state.arrays)
        report = replace(self._spent(report), apply_seconds=time.monotonic() - begin)
        report.log(self.privacy)
        merged = MetricRecord() if metrics is None else metrics
        for name, value in report.metrics().items():
            merged[name] = value
        return arrays, merged

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Delegate, and add a ticket, so that nodes know which metrics may leave."""
        messages = list(self.strategy.configure_evaluate(server_round, arrays, config, self._training_grid))
        if not messages:
            return []
        nodes = [message.metadata.dst_node_id for message in messages]
        ticket = self._ticket(server_round, 0, nodes, wire.content_hash(messages[0].content))
        return [self._with_ticket(message, wire.EVALUATE, ticket) for message in messages]

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Log each party's metrics, then delegate."""
        replies = list(replies)
        by_party = {
            party.name: dict(next(iter(reply.content.metric_records.values()), {}))
            for reply in replies
            if reply.has_content() and (party := self.party_of(reply.metadata.src_node_id)) is not None
        }
        self.on_evaluation(server_round, by_party)
        return self.strategy.aggregate_evaluate(server_round, replies)

    def party_of(self, node: int) -> Party | None:
        """Return the party that a node id belongs to, None if it is unknown."""
        return self._directory.party(node)

    def on_evaluation(self, server_round: int, metrics: dict[str, dict[str, Any]]) -> None:
        """Show each party's evaluation metrics, which Flower carries in clear; apps may override it."""
        log_evaluation(server_round, metrics, self._key("weighted_by_key", "num-examples"), self.privacy is not None)

    # ------------------------------------------------------------------ a task
    def _open_task(self, arrays: ArrayRecord, num_rounds: int) -> int:
        """Fix the terms of the run; return how many rounds the budget allows."""
        training = self._directory.online(self._grid, TRAIN_ROLE)
        helper = next(iter(self._directory.online(self._grid, self.helpers[0]).values()))
        cards = [*training.values(), helper]
        if len({card.simulation for card in cards}) != 1:
            raise ConfigError("Some nodes use development identities (flbc-dev) and some do not")
        self._simulation, self._keys = helper.simulation, helper.keys
        layout = Layout.of({name: a.numpy() for name, a in arrays.items()}, private=self.privacy is not None)
        self._plan = VectorPlan(layout, self.codec, private=self.privacy is not None)
        self._frame = self._plan.first_frame()
        rounds, mechanism = num_rounds, None
        if self.privacy is not None:
            mechanism = self._mechanism(self.privacy, [card.party for card in training.values()], num_rounds)
            rounds = min(num_rounds, mechanism.affordable_rounds())
            if rounds < num_rounds:
                log(WARNING, "flbc: epsilon %g allows %d of %d rounds; the run stops there",
                    mechanism.epsilon, rounds, num_rounds)  # fmt: skip
        self._mechanism_planned = mechanism
        self._config = TaskConfig(
            scheme=self.scheme,
            mode=self.mode,
            codec=codec_terms(self._plan, mechanism),
            privacy=None if mechanism is None else mechanism.to_dict(),
            rounds=max(rounds, 1),
            min_survivors=self.min_survivors,
            # Slots hold a power of two of parties anyway, so late joiners up to it cost nothing.
            max_parties=2 ** math.ceil(math.log2(max(len(training), self.min_survivors))),
            key_bits=self.key_bits,
            scheme_keys=(helper.party.scheme_key,),
            reveal_metrics=self.reveal_metrics,
        )
        self._spec = sum_spec(self._config)
        self._combiner = self._build_combiner(self._config, self._keys, helper.party)
        self._task = secrets.token_bytes(32)
        self._openings = 0
        return rounds

    def _mechanism(self, privacy: Privacy, parties: list[Party], num_rounds: int) -> GaussianMechanism:
        if privacy.unit == "example":
            undeclared = [party.name for party in parties if not party.examples]
            if undeclared:
                raise ConfigError(
                    f"Privacy(unit='example') needs the declared size of every training set; {undeclared[0]!r} has "
                    "none. Use ClientApp(mods=[SecureMod(examples=...)]) or `examples` in the roster"
                )
        return plan_mechanism(
            privacy,
            dimension=self._plan.length,
            rounds=privacy.rounds or num_rounds,
            max_examples=max((party.examples for party in parties), default=1) if privacy.unit == "example" else 1,
            client_step=privacy.clip_norm / self.codec.max_abs,
        )

    def _ticket(self, server_round: int, attempt: int, nodes: Iterable[int], model: bytes) -> Ticket:
        """Label a round for these nodes and the helpers."""
        parties = [party for node in nodes if (party := self._directory.party(node)) is not None]
        for role in self.helpers:
            parties += [card.party for card in self._directory.online(self._grid, role).values()]
        roster = Roster(tuple(sorted(parties, key=lambda party: party.name)))
        label = RoundLabel(
            self._task, server_round, attempt, roster.hash, self._config.hash, model, self._frame.hash,
            keccak256(self._keys), 0, NO_HUB, self._simulation,
        )  # fmt: skip
        return Ticket(label, self._config, roster, self._frame, self._keys)

    def _with_ticket(self, message: Message, stage: str, ticket: Ticket) -> Message:
        # FedAvg puts one shared RecordDict in all messages: copy it before adding to it.
        content = RecordDict(dict(message.content))
        parts = {**ticket.to_wire(), "weight-key": self._key("weighted_by_key", "num-examples")}
        content[wire.RECORD] = wire.stage_record(stage, parts)
        meta = message.metadata
        return Message(content, dst_node_id=meta.dst_node_id, message_type=meta.message_type, group_id=meta.group_id)

    # ------------------------------------------------------------------ a round, after training
    def _finish(
        self, state: _Round, replies: dict[int, Message], report: RoundReport
    ) -> tuple[RoundReport, Message]:
        """Walk from replies to one pseudo-reply; :class:`FlbcError` says why the round is abandoned."""
        accepted = self._collect(state, replies)
        if len(accepted) < self.min_survivors:
            raise AbandonedError(f"{len(accepted)} updates are fewer than min_survivors = {self.min_survivors}")
        names = {reply.metric_names for reply in accepted.values()}
        if len(names) != 1:
            raise AbandonedError("The clients report different metrics; their names must agree")
        begin = time.monotonic()
        hidden = self._combiner.combine({i: reply.payload for i, reply in accepted.items()})
        submissions = tuple(_signed(accepted[i]) for i in sorted(accepted))
        hashes = tuple(signed.value.hash for signed in submissions)
        block = Block(self._parent, state.ticket.label.hash, NO_LEADER, hashes, (), keccak256(hidden))
        combined = time.monotonic()
        total = self._opened(state, OpenRequest(block, submissions, hidden))
        self._parent, self._openings = block.hash, self._openings + 1
        opened_at = time.monotonic()
        payload = len(next(iter(accepted.values())).payload)
        parties = [state.ticket.roster.parties[i] for i in sorted(accepted)]
        opened = self._decode(total, parties, next(iter(names)))
        self._frame = self._plan.next_frame(state.ticket.frame, opened)
        if opened.saturated:
            log(WARNING, "flbc: %d coordinates did not fit their range (see Codec)", opened.saturated)
        report = replace(
            report,
            survivors=len(accepted),
            bytes_per_client=payload,
            saturated=opened.saturated,
            combine_seconds=combined - begin,
            open_seconds=opened_at - combined,
        )
        like = next(reply for reply in replies.values() if reply.has_content())
        keys = (self._key("arrayrecord_key", "arrays"), self._key("weighted_by_key", "num-examples"))
        revealed = [reply.content for reply in replies.values() if reply.has_content()]
        rate = 1.0 if self.privacy is None or self.privacy.unit == "client" else -self.privacy.learning_rate
        return report, pseudo_reply(like, state.arrays, opened, next(iter(names)), rate, keys, revealed)

    def _collect(self, state: _Round, replies: dict[int, Message]) -> dict[int, Reply]:
        """Verify replies; ask for another attempt where a client's weight does not fit."""
        while True:
            accepted, classes = self._verify(state, replies)
            if not classes:
                return accepted
            if state.ticket.label.attempt + 1 >= _MAX_ATTEMPTS:
                raise AbandonedError("Clients keep reporting larger weights")
            self._frame = replace(self._frame, max_weight=max(*classes, self._frame.max_weight))
            nodes = [node for node, reply in replies.items() if reply.has_content()]
            ticket = self._ticket(state.round, state.ticket.label.attempt + 1, nodes, state.model)
            state.ticket = ticket
            parts = ticket.to_wire()
            messages = [wire.request(wire.REPROTECT, parts, node, state.round) for node in nodes]
            replies = exchange(self._grid, messages, self.stage_timeout)

    def _verify(self, state: _Round, replies: dict[int, Message]) -> tuple[dict[int, Reply], list[float]]:
        """Return accepted replies by roster index, and requested size classes; log what is left out."""
        accepted: dict[int, Reply] = {}
        classes: list[float] = []
        label, roster = state.ticket.label, state.ticket.roster
        for node, message in replies.items():
            party = self._directory.party(node)
            name = party.name if party else str(node)
            if message.has_error():
                log(WARNING, "flbc: %s failed: %s", name, (message.error.reason or "no reason").strip().splitlines()[-1])
                continue
            try:
                record = wire.read_record(message.content)
                if record is None:
                    raise ProtocolError("the reply is not protected; is SecureMod() the first mod?")
                header = wire.bytes_of(record, "reply")["reply"]
                reply = Reply.parse(header, wire.unseal(message.content) if wire.PAYLOAD in message.content else b"")
                if reply.submission is None:
                    if not reply.size_class > state.ticket.frame.max_weight:
                        raise ProtocolError("it asks for a size class that holds already")
                    classes.append(reply.size_class)
                    continue
                check_submissions([reply.submission], label, roster, self._config)
                submission: Any = reply.submission.value
                if roster.parties[submission.party].name != name:
                    raise VerificationError("it signed as another party")
                if submission.payload != keccak256(reply.payload):
                    raise VerificationError("the payload is not the one it signed")
                self._combiner.combine({submission.party: reply.payload})  # names a malformed payload's sender
                accepted[submission.party] = reply
            except (ProtocolError, VerificationError, CiphertextError) as error:
                log(WARNING, "flbc: the reply of %s is left out: %s", name, error)
        return accepted, classes

    def _opened(self, state: _Round, request: OpenRequest) -> IntVector:
        """Have the block opened, asking again when the helper does not answer: the same block gets the same bytes."""
        helper = state.ticket.authority
        parts = {**state.ticket.to_wire(), "request": request.header()}

        def ask(bodies: Any) -> dict[str, bytes]:
            online = self._directory.online(self._grid, self.helpers[0])
            nodes = [node for node, card in online.items() if card.party.name == helper.name]
            body = bodies[helper.name]
            messages = [wire.request(wire.OPEN, parts, node, state.round, body) for node in nodes]
            for reply in exchange(self._grid, messages, self.stage_timeout).values():
                if not reply.has_error():
                    signed, total = unpack_opening(wire.unseal(reply.content), self._spec.length)
                    check_opening(signed, total, request.block, state.ticket.label, helper.address, self._config)
                    return {helper.name: vector_to_bytes(total)}
                reason = (reply.error.reason or "").strip()
                if reply.error.code == 6:  # refused: asking again cannot help
                    raise AbandonedError(f"{helper.name} refused: {reason}")
                log(WARNING, "flbc: %s did not open (error %d): %s", helper.name, reply.error.code, reason[-200:])
            return {}

        for _ in range(_OPEN_TRIES):
            total = self._combiner.open(request.hidden, ask)
            if total is not None:
                return total
        raise AbandonedError(f"{helper.name} did not answer within stage_timeout = {self.stage_timeout:g} s")

    def _decode(self, total: IntVector, parties: list[Party], names: tuple[str, ...]) -> Any:
        mechanism = self._mechanism_planned
        if mechanism is None:
            return self._plan.decode(total, len(parties), count_metrics(names), self._frame)
        count = sum(party.examples for party in parties) if mechanism.unit == "example" else len(parties)
        return self._plan.decode_private(total, mechanism.step, count)

    def _spent(self, report: RoundReport) -> RoundReport:
        mechanism = self._mechanism_planned
        if mechanism is None or not self._openings:
            return report
        return replace(
            report,
            epsilon=mechanism.epsilon_after(self._openings),
            epsilon_replace_one=mechanism.replace_one_epsilon_after(self._openings),
        )

    def _key(self, attribute: str, default: str) -> str:
        return str(getattr(self.strategy, attribute, default))

    def _node_wait(self, grid: Grid) -> float:
        if self.node_wait is not None:
            return self.node_wait
        return 20.0 if type(grid).__name__ == "InMemoryGrid" else 120.0


class _Round:
    """What the server remembers between configure_train and aggregate_train."""

    def __init__(
        self, round_: int, arrays: ArrayRecord, model: bytes, nodes: list[int], ticket: Ticket, begin: float
    ) -> None:
        self.round, self.arrays, self.model, self.nodes = round_, arrays, model, nodes
        self.ticket, self.begin = ticket, begin


def _signed(reply: Reply) -> Signed:
    if reply.submission is None:
        raise ProtocolError("A reply without a submission cannot be part of a block")
    return reply.submission
