"""One training run as the server sees it: its terms, its nodes, and the tickets it hands out."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from logging import WARNING
from typing import Protocol

from flwr.app import ArrayRecord, Message, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from ..codec import Codec, Frame, Layout, VectorPlan
from ..errors import ConfigError
from ..ledger.record import Book
from ..ledger.settings import Ledger
from ..node.attestor import SoftwareAttestor
from ..node.covenant import Covenant, default_quorum
from ..node.endorsement import COMMITTEE
from ..node.masked import keys_of
from ..node.opening import OpenRequest
from ..node.settlement import ACCURACY
from ..node.terms import WEIGHED_BY_SERVER, codec_terms
from ..node.ticket import Ticket, keys_hash
from ..privacy import GaussianMechanism, Privacy
from ..privacy.mechanism import affordable
from ..privacy.mechanism import plan as plan_mechanism
from ..roster import TRAIN_ROLE, Party, Roster
from ..round import NO_HUB, ZERO, RoundLabel
from ..schemes import Combiner, IntVector
from ..task import TaskConfig
from . import wire
from .chain import Chain
from .dealers import Dealers
from .directory import Card, Directory
from .sparse import Progress


@dataclass(frozen=True, slots=True)
class Terms:
    """What the strategy was constructed with."""

    scheme: str
    mode: str
    helpers: tuple[str, ...]
    privacy: Privacy | None
    codec: Codec
    key_bits: int
    min_survivors: int
    reveal_metrics: tuple[str, ...]
    ledger: Ledger | None = None
    #: Multiply updates by the declared number of examples, in clear, instead of hiding weights in the sum.
    declared_weights: bool = False
    #: Makes the scheme keys of an attempt; None: they are the helper's, the same in every attempt.
    keys: KeyMaker | None = None
    #: With masking: the fraction of a group whose shares open a secret, what clients dealt, and how sums are opened.
    threshold: float | None = None
    dealers: Dealers | None = None
    opening: Opening | None = None


class KeyMaker(Protocol):
    """Makes what clients get of a scheme in one attempt."""

    def __call__(
        self, session: Session, roster: Roster, server_round: int, skipped: int, attempt: int, nodes: Iterable[int]
    ) -> bytes:
        """Return the keys for an attempt of ``nodes`` after ``skipped`` decryptors were silent in this round."""
        ...


class Opening(Protocol):
    """Opens the sum of one attempt, where no single helper does."""

    def __call__(self, session: Session, ticket: Ticket, request: OpenRequest, combiner: Combiner) -> IntVector:
        """Return the (noised) sum, verified."""
        ...


@dataclass
class Session:
    """A task: fixed terms, and the little that changes from round to round.

    Parameters
    ----------
    grid : Grid
        Flower's, with all nodes.
    directory : Directory
    helpers : tuple of str
        Roles beside training.
    config : TaskConfig
    plan : VectorPlan
    mechanism : GaussianMechanism or None
    keys : KeyMaker
        Makes the scheme's keys, as clients get them.
    simulation : bool
    frame : Frame
        Public numbers of the next attempt.
    progress : Progress or None
        With compression, what decides which coordinates are sent.
    task : bytes
        32 random bytes.
    parent : bytes
        Hash of the last opened block.
    opened, paid : set of int
        Rounds whose sum was opened, and with noise by the clients those that they have paid for.
    muted : set of (int, int)
        With masking: heights and leaders that sent an update and then did not sign.
    chain : Chain or None
        The task on the ledger; its roster is fixed.
    roster : Roster or None
        With a ledger, whoever takes part in the task.
    dealers : Dealers or None
        With masking, what clients dealt for which round.
    opening : Opening or None
        Opens sums; None: a helper does.
    """

    grid: Grid
    directory: Directory
    helpers: tuple[str, ...]
    config: TaskConfig
    plan: VectorPlan
    mechanism: GaussianMechanism | None
    keys: KeyMaker
    simulation: bool
    frame: Frame
    task: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    parent: bytes = ZERO
    opened: set[int] = field(default_factory=set)
    paid: set[int] = field(default_factory=set)
    muted: set[tuple[int, int]] = field(default_factory=set)
    chain: Chain | None = None
    roster: Roster | None = None
    progress: Progress | None = None
    dealers: Dealers | None = None
    opening: Opening | None = None

    @property
    def openings(self) -> int:
        """Rounds that the budget has paid for."""
        return len(self.opened | self.paid)

    def missing(self) -> str | None:
        """Return a role beside training that nobody online serves, if there is one."""
        return next((role for role in self.helpers if not self.directory.online(self.grid, role)), None)

    def ticket(
        self,
        server_round: int,
        attempt: int,
        nodes: Iterable[int],
        model: bytes,
        skipped: int = 0,
        summed: bool = True,
        among: Roster | None = None,
    ) -> Ticket:
        """Label an attempt.

        Parameters
        ----------
        server_round, attempt : int
        nodes : iterable of int
            Those that are asked; the helpers take part as well.
        model : bytes
            Hash of the arrays and config that are sent.
        skipped : int (default: 0)
            Leaders or decryptors that were silent before.
        summed : bool (default: True)
            Whether the nodes' updates will be summed; False for evaluations.
        among : Roster or None (default: None)
            The roster, where it must stay that of an attempt before.
        """
        nodes = list(nodes)
        roster = among or self.roster or self._roster_of(nodes)
        keys = self.keys(self, roster, server_round, skipped, attempt, nodes if summed else ())
        return self.label_keys(roster, server_round, attempt, model, keys)

    def label_keys(self, roster: Roster, server_round: int, attempt: int, model: bytes, keys: bytes) -> Ticket:
        """Label an attempt whose keys are made."""
        frame = self.frame if self.progress is None else self.progress.frame(self.frame, server_round, self.task)
        beacon = None if self.chain is None else self.chain.beacon
        label = RoundLabel(
            task=self.task,
            round=server_round,
            attempt=attempt,
            roster=roster.hash,
            config=self.config.hash,
            model=model,
            frame=frame.hash,
            keys=keys_hash(keys, beacon),
            chain_id=0 if self.chain is None else self.chain.book.chain_id,
            hub=NO_HUB if self.chain is None else self.chain.book.hub,
            simulation=self.simulation,
        )
        return Ticket(label, self.config, roster, frame, keys, beacon)

    def sums(self, ticket: Ticket, node: int) -> bool:
        """Whether an attempt can sum a node's update: with masking, only if the node dealt for its round."""
        party = self.directory.party(node)
        return self.dealers is None or (party is not None and party.name in keys_of(ticket).masks)

    def takes_part(self, node: int) -> bool:
        """Whether a node may be asked to train: with a ledger, only parties that the task started with."""
        party = self.directory.party(node)
        if party is None or self.roster is None or self.chain is None:
            return party is not None
        return party in self.roster.parties and party.name not in self.chain.book.suspended()

    def _roster_of(self, nodes: Iterable[int]) -> Roster:
        parties = [party for node in nodes if (party := self.directory.party(node)) is not None]
        for role in self.helpers:
            parties += [card.party for card in self.directory.online(self.grid, role).values()]
        return Roster(tuple(sorted(parties, key=lambda party: party.name)))

    def with_ticket(self, message: Message, stage: str, ticket: Ticket) -> Message:
        """Return a copy of a train or evaluate message that carries the ticket."""
        # FedAvg puts one shared RecordDict in all messages: copy it before adding to it.
        content = RecordDict(dict(message.content))
        content[wire.RECORD] = wire.stage_record(stage, ticket.to_wire())
        meta = message.metadata
        return Message(content, dst_node_id=meta.dst_node_id, message_type=meta.message_type, group_id=meta.group_id)


def open_session(
    grid: Grid,
    directory: Directory,
    terms: Terms,
    arrays: ArrayRecord,
    num_rounds: int,
    weight_key: str,
    book: Book | None = None,
) -> tuple[Session, int]:
    """Fix the terms of a run with the nodes that are online.

    Parameters
    ----------
    grid, directory
        The nodes; the helpers are known to be online.
    terms : Terms
    arrays : ArrayRecord
        Initial model.
    num_rounds : int
        Rounds asked for.
    weight_key : str
        Name of the weight in a MetricRecord.
    book : Book or None (default: None)
        The ledger; the task is published and started on it.

    Returns
    -------
    session : Session
    rounds : int
        Rounds that the privacy budget allows, at most ``num_rounds``.

    Raises
    ------
    ConfigError
        If the terms do not fit the nodes, e.g. a data-set size is not declared.
    """
    training = directory.online(grid, TRAIN_ROLE)
    helpers = [next(iter(directory.online(grid, role).values())) for role in terms.helpers]
    if len({card.simulation for card in (*training.values(), *helpers)}) != 1:
        raise ConfigError("Some nodes use development identities (flbc-dev) and some do not")
    private, codec = terms.privacy is not None, terms.codec
    multiplier = _largest_multiplier(training.values()) if terms.declared_weights else None
    if multiplier is not None:
        codec = replace(codec, max_examples=1.0 if terms.mode in WEIGHED_BY_SERVER else float(multiplier))
    plan = VectorPlan(Layout.of({name: a.numpy() for name, a in arrays.items()}, private=private), codec, private)
    if codec.compression is not None and not plan.layout.count("float"):
        raise ConfigError(
            "Codec(compression=...): the model has no floating-point array, so there is nothing to compress"
        )
    rounds, mechanism = num_rounds, None
    if terms.privacy is not None:
        parties = [card.party for card in training.values()]
        rounds = min(num_rounds, _affordable(terms, plan, num_rounds))
        mechanism = _mechanism(terms, terms.privacy, plan, parties, rounds)
        if rounds < num_rounds:
            log(
                WARNING,
                "flbc: the budget epsilon = %g allows %d of %d rounds; the run stops there",
                terms.privacy.epsilon,
                rounds,
                num_rounds,
            )
    roster, covenant = None, None
    if book is not None and terms.ledger is not None:
        roster, covenant = _agree(directory.cards(grid).values(), book, terms.ledger, private, terms.reveal_metrics)
    config = TaskConfig(
        scheme=terms.scheme,
        mode=terms.mode,
        codec=codec_terms(plan, mechanism, weight_key, multiplier),
        privacy=None if mechanism is None else mechanism.to_dict(),
        rounds=rounds,
        min_survivors=terms.min_survivors,
        # Slots hold a power of two of parties anyway, so late joiners up to it cost nothing.
        max_parties=2 ** math.ceil(math.log2(max(len(training), terms.min_survivors))),
        key_bits=terms.key_bits,
        scheme_keys=tuple(card.party.scheme_key for card in helpers if card.party.scheme_key),
        reveal_metrics=terms.reveal_metrics,
        ledger=None if covenant is None else covenant.to_dict(),
        sharing=None if terms.threshold is None else {"threshold": terms.threshold},
    )
    simulation = next(iter(training.values())).simulation
    session = Session(
        grid, directory, terms.helpers, config, plan, mechanism, terms.keys or _Constant(helpers[0].keys), simulation,
        plan.first_frame(), dealers=terms.dealers, opening=terms.opening,
    )  # fmt: skip
    if terms.codec.compression is not None:
        session.progress = Progress.fresh(terms.codec.compression, plan.layout.count("float"))
    if book is not None and roster is not None and covenant is not None:
        started = book.start(config, roster, wire.arrays_hash(arrays))
        session.task, session.roster = started.task, roster
        session.chain = Chain(book, covenant, started)
    return session, rounds


def _agree(
    cards: Iterable[Card], book: Book, ledger: Ledger, private: bool, reveal_metrics: tuple[str, ...]
) -> tuple[Roster, Covenant]:
    """Fix who takes part in a task on the ledger, and what is agreed about it."""
    cards = list(cards)
    parties = sorted((card.party for card in cards), key=lambda party: party.name)
    members = [party for party in parties if party.has(COMMITTEE)]
    if not members:
        raise ConfigError(
            "A ledger needs a committee, and no node serves in it; start SuperNodes with --node-config "
            '\'flbc-role="hospital,committee" …\', or some with flbc-role="committee"'
        )
    undeclared = [party.name for party in parties if party.has(TRAIN_ROLE) and not party.examples]
    if ledger.payout == "examples" and undeclared:
        raise ConfigError(
            f"Ledger(payout='examples') needs the declared size of every training set; {undeclared[0]!r} has none. Use "
            "ClientApp(mods=[SecureMod(examples=...)]), or payout='equal'"
        )
    if private and ledger.accuracy_bps and ACCURACY not in reveal_metrics:
        raise ConfigError(
            f"Ledger(accuracy={ledger.accuracy:g}) puts each committee member's accuracy on the chain, outside "
            f"epsilon; add reveal_metrics=({ACCURACY!r},), or leave accuracy out"
        )
    if any(card.simulation != book.simulation for card in cards):
        raise ConfigError(
            "The contracts were deployed for simulation and the nodes have their own keys, or the other way round; "
            "deploy with or without `flbc deploy --simulation`, to match the nodes"
        )
    covenant = Covenant(
        quorum=ledger.quorum or default_quorum(len(members)),
        election=ledger.election,
        payout=ledger.payout,
        accuracy_bps=ledger.accuracy_bps,
        attestor=SoftwareAttestor.kind,
        stakes=book.stakes(parties),
    )
    roster = Roster(tuple(parties))
    covenant.check_roster(roster)
    return roster, covenant


@dataclass(frozen=True, slots=True)
class _Constant:
    """The same keys in every attempt."""

    keys: bytes

    def __call__(
        self, session: Session, roster: Roster, server_round: int, skipped: int, attempt: int, nodes: Iterable[int]
    ) -> bytes:
        return self.keys


def _largest_multiplier(cards: Iterable[Card]) -> int:
    """Return a power of two that no declared number of examples exceeds."""
    parties = [card.party for card in cards]
    undeclared = [party.name for party in parties if not party.examples]
    if undeclared:
        raise ConfigError(
            f"weights='declared' needs the declared size of every training set; {undeclared[0]!r} has none. Use "
            "ClientApp(mods=[SecureMod(examples=...)]) or `examples` in the roster"
        )
    return 1 << (max(party.examples for party in parties) - 1).bit_length()


def _affordable(terms: Terms, plan: VectorPlan, num_rounds: int) -> int:
    """Return how many rounds the budget pays for, at most ``num_rounds``."""
    privacy = terms.privacy
    if privacy is None or privacy.noise_multiplier is None:
        return min((privacy and privacy.rounds) or num_rounds, num_rounds)  # the multiplier is solved for them
    paid = affordable(
        privacy,
        dimension=plan.length,
        client_step=privacy.clip_norm / terms.codec.max_abs,
        min_survivors=terms.min_survivors,
    )
    if paid < 1:
        raise ConfigError(
            f"Privacy(noise_multiplier={privacy.noise_multiplier:g}) exceeds epsilon = {privacy.epsilon:g} in the "
            "first round; raise epsilon or the multiplier, or leave noise_multiplier out to have it solved"
        )
    return min(paid, privacy.rounds or num_rounds, num_rounds)


def _mechanism(
    terms: Terms, privacy: Privacy, plan: VectorPlan, parties: list[Party], rounds: int
) -> GaussianMechanism:
    largest = 1
    if privacy.unit == "example":
        undeclared = [party.name for party in parties if not party.examples]
        if undeclared:
            raise ConfigError(
                f"Privacy(unit='example') needs the declared size of every training set; {undeclared[0]!r} has none. "
                "Use ClientApp(mods=[SecureMod(examples=...)]) or `examples` in the roster"
            )
        largest = max(party.examples for party in parties)
    return plan_mechanism(
        privacy,
        dimension=plan.length,
        rounds=rounds,
        max_examples=largest,
        client_step=privacy.clip_norm / terms.codec.max_abs,
        min_survivors=terms.min_survivors,
    )
