"""The server half: a strategy that wraps another one and gives it the mean of updates that nobody saw.

:class:`SecureStrategy` walks the path of a round (configure, train, combine, open, apply); the scheme's own strategy,
e.g. :class:`flbc.Paillier`, says which roles, keys and combiner it needs.
"""

from __future__ import annotations

import secrets
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from logging import INFO, WARNING
from types import MappingProxyType
from typing import Any, ClassVar

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from ..codec import Codec
from ..errors import ConfigError, FlbcError, TooFewNodesError
from ..ledger.open import open_book
from ..ledger.record import Book
from ..ledger.settings import Ledger
from ..node import halves
from ..node.pins import Pins
from ..privacy import Privacy
from ..roster import TRAIN_ROLE, Party
from ..round import ZERO
from . import wire
from .agreement import open_session
from .apply import pseudo_reply, restore_dtypes
from .arguments import check_common, check_privacy, check_revealed, check_seconds
from .directory import Directory
from .grid import TrainingGrid
from .report import RoundReport, log_evaluation
from .rounds import SecureRound
from .session import KeyMaker, Session, Terms
from .settle import settle
from .summary import log_ledger, log_privacy, noise_by
from .wrapped import check_wrapped


class SecureStrategy(Strategy):
    """Wrap a mean-based Flower strategy. Not used directly; see :class:`flbc.Paillier` for the parameters."""

    is_flbc_wrapper: ClassVar[bool] = True
    scheme: ClassVar[str]
    mode: str = "authority"
    helpers: tuple[str, ...]

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
        ledger: Ledger | None,
    ) -> None:
        self.strategy = check_wrapped(strategy, assume_mean_based)
        check_common(privacy, codec, ledger, min_survivors)
        check_privacy(type(self).__name__, self.scheme, privacy, codec)
        check_seconds(stage_timeout, node_wait)
        check_revealed(reveal_metrics, getattr(strategy, "weighted_by_key", None), privacy)
        self.privacy, self.codec, self.key_bits, self.ledger = privacy, codec, key_bits, ledger
        self.min_survivors, self.stage_timeout, self.node_wait = min_survivors, stage_timeout, node_wait
        self.reveal_metrics = tuple(sorted(set(reveal_metrics)))
        self._pins = pins
        self._session: Session | None = None
        self._round: SecureRound | None = None
        #: After a run with a ledger: whether the task was settled and paid.
        self.settled = False

    # ------------------------------------------------------------------ what a scheme adds
    #: Whether updates are multiplied by declared numbers of examples, in clear.
    declared_weights: bool = False
    #: Makes the scheme keys of an attempt; None: they are the helper's.
    key_maker: KeyMaker | None = None

    #: What the hello request asks for beside scheme, mode and key size.
    _asked: Mapping[str, int] = MappingProxyType({})

    def _first_model(self, arrays: ArrayRecord) -> ArrayRecord:
        """Return the model that a run begins with."""
        return arrays

    def _terms(self) -> dict[str, Any]:
        """Return what the scheme adds to the session's terms."""
        return {}

    def _check_card(self, party: Party, keys: bytes, simulation: bool) -> None:
        """Raise unless what a node said of its scheme keys is in order; it is left out then."""

    @property
    def _noise_by(self) -> str:
        """Say in the summary who adds the noise."""
        return noise_by(self.privacy)

    @property
    def _coded(self) -> str:
        """Say in the summary how updates become integers."""
        return str(self.codec.to_dict())

    @abstractmethod
    def _summary(self) -> None:
        """Log the scheme's settings."""

    # ------------------------------------------------------------------ Flower's interface
    def summary(self) -> None:
        """Log the settings, then those of the wrapped strategy."""
        log(INFO, "\t├──> %s (flbc): nobody sees a single client's update", type(self).__name__)
        self._summary()
        log(INFO, "\t│\t├── Sums of at least %d clients", self.min_survivors)
        log(INFO, "\t│\t├── Codec: %s", self._coded if self.privacy is None else "step set by privacy")
        log_privacy(self.privacy, self._noise_by, self.reveal_metrics)
        if self.ledger is not None:
            log_ledger(self.ledger)
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
        """Run the wrapped strategy with hidden updates; the parameters are those of Flower's ``Strategy.start``.

        With differential privacy it stops cleanly before the round that would exceed the budget.

        Raises
        ------
        TooFewNodesError
            If the nodes that the scheme needs do not appear within ``node_wait``; names the flag to add.
        """
        book = None if self.ledger is None else open_book(self.ledger)
        try:
            return self._start(
                grid, initial_arrays, num_rounds, timeout, train_config, evaluate_config, evaluate_fn, book
            )
        finally:
            if book is not None:
                book.close()

    def _start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int,
        timeout: float,
        train_config: ConfigRecord | None,
        evaluate_config: ConfigRecord | None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None,
        book: Book | None,
    ) -> Result:
        initial_arrays = self._first_model(initial_arrays)
        minima = (getattr(self.strategy, name, 0) for name in ("min_train_nodes", "min_available_nodes"))
        parts: dict[str, bytes | str | int] = {"scheme": self.scheme, "key-bits": self.key_bits, "mode": self.mode}
        parts["committee"] = book is not None
        parts |= self._asked
        parts["session"] = secrets.token_bytes(16)  # a ServerApp may start several tasks in one run
        needed = max(self.min_survivors, *minima)
        committee = 0 if self.ledger is None else self.ledger.committee
        directory = Directory(
            parts, lambda: self.helpers, needed, self.stage_timeout, self._pins, committee, self._check_card
        )  # fmt: skip
        self._node_seconds = self.node_wait or (20.0 if type(grid).__name__ == "InMemoryGrid" else 120.0)
        directory.wait(grid, self._node_seconds)
        terms = replace(Terms(
            self.scheme, self.mode, self.helpers, self.privacy, self.codec, self.key_bits, self.min_survivors,
            self.reveal_metrics, self.ledger, self.declared_weights, self.key_maker,
        ), **self._terms())  # fmt: skip
        weight_key = self._key("weighted_by_key", "num-examples")
        self._session, rounds = open_session(grid, directory, terms, initial_arrays, num_rounds, weight_key, book)
        if role := self._session.missing():
            raise TooFewNodesError(f"The node that serves as {role} went away; start it and run again")
        # Before anybody trains for nothing:
        halves.check(self._session.ticket(1, 0, self._trainers(grid), ZERO, summed=False))
        self._training_grid = TrainingGrid(grid, lambda: self._trainers(grid))
        arguments = (timeout, train_config, evaluate_config, evaluate_fn)
        result = super().start(self._training_grid, initial_arrays, rounds, *arguments)
        if self._session.chain is not None:
            self.settled = settle(self._session, self._session.chain, result.arrays, self._evaluation(evaluate_config))
        return result

    def _trainers(self, grid: Grid) -> list[int]:
        session = self._started()
        return [node for node in session.directory.online(grid, TRAIN_ROLE) if session.takes_part(node)]

    def _evaluation(self, config: ConfigRecord | None) -> tuple[str, str, ConfigRecord]:
        """Return how the wrapped strategy names the records of an evaluate message, and its config."""
        names = self._key("arrayrecord_key", "arrays"), self._key("configrecord_key", "config")
        return *names, ConfigRecord(dict(config or {}))

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the wrapped strategy sample and configure, then add the ticket of this round."""
        session = self._started()
        self._round = None
        try:
            session.directory.wait(session.grid, self._node_seconds)
        except TooFewNodesError as error:
            log(WARNING, "flbc: round %d is abandoned, the model is kept: %s", server_round, error)
            return []
        messages = list(self.strategy.configure_train(server_round, arrays, config, self._training_grid))
        messages = messages[: session.config.max_parties]
        if not messages:
            return []
        model = wire.content_hash(messages[0].content)
        if any(wire.content_hash(message.content) != model for message in messages[1:]):
            raise ConfigError(
                "The wrapped strategy sends different models or configs to different clients; one label must cover "
                "all of them, so their updates cannot be summed"
            )
        try:
            ticket = session.ticket(server_round, 0, [message.metadata.dst_node_id for message in messages], model)
        except TooFewNodesError as error:
            log(WARNING, "flbc: round %d is abandoned, the model is kept: %s", server_round, error)
            return []
        messages = [message for message in messages if session.sums(ticket, message.metadata.dst_node_id)]
        sent = RecordDict(dict(messages[0].content))
        self._round = SecureRound(session, server_round, arrays, sent, ticket, time.monotonic(), self.stage_timeout)
        return [session.with_ticket(message, wire.TRAIN, ticket) for message in messages]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Combine, have the sum opened, and give the wrapped strategy one reply with the mean."""
        current, self._round = self._round, None
        if current is None:
            return None, None
        answers = self._training_grid.replies
        try:
            opened, names, clear, report = current.finish(answers)
        except FlbcError as error:
            log(WARNING, "flbc: round %d is abandoned, the model is kept: %s", server_round, error)
            return None, self._spent(RoundReport(server_round)).metrics()
        begin = time.monotonic()
        like = next(reply for reply in answers.values() if reply.has_content())
        keys = (self._key("arrayrecord_key", "arrays"), self._key("weighted_by_key", "num-examples"))
        gradient = self.privacy is not None and self.privacy.unit == "example"
        rate = -self.privacy.learning_rate if self.privacy is not None and gradient else 1.0
        mean = pseudo_reply(like, current.arrays, opened, names, rate, keys, clear)
        arrays, metrics = self.strategy.aggregate_train(server_round, [mean])
        if arrays is not None:
            arrays = restore_dtypes(arrays, current.arrays)
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
        session = self._started()
        messages = list(self.strategy.configure_evaluate(server_round, arrays, config, self._training_grid))
        if not messages:
            return []
        nodes = [message.metadata.dst_node_id for message in messages]
        ticket = session.ticket(server_round, 0, nodes, wire.content_hash(messages[0].content), summed=False)
        return [session.with_ticket(message, wire.EVALUATE, ticket) for message in messages]

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
        return self._started().directory.party(node)

    def on_evaluation(self, server_round: int, metrics: dict[str, dict[str, Any]]) -> None:
        """Show each party's evaluation metrics, which Flower carries in clear; apps may override it."""
        log_evaluation(server_round, metrics, self._key("weighted_by_key", "num-examples"), self.privacy is not None)

    def _started(self) -> Session:
        if self._session is None:
            raise ConfigError(f"{type(self).__name__} works through its start() method; call start()")
        return self._session

    def _spent(self, report: RoundReport) -> RoundReport:
        """Add what the openings so far cost."""
        session = self._started()
        if session.mechanism is None or not session.openings:
            return report
        return replace(
            report,
            epsilon=session.mechanism.epsilon_after(session.openings),
            epsilon_replace_one=session.mechanism.replace_one_epsilon_after(session.openings),
        )

    def _key(self, attribute: str, default: str) -> str:
        return str(getattr(self.strategy, attribute, default))
