"""One training run as the server sees it: its terms, its nodes, and the tickets it hands out."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from ..codec import Codec, Frame, VectorPlan
from ..ledger.settings import Ledger
from ..node.mask_keys import keys_of
from ..node.model_plan import ModelPlan
from ..node.opening import OpenRequest
from ..node.ticket import Ticket, keys_hash
from ..privacy import GaussianMechanism, Privacy
from ..roster import Roster
from ..round import NO_HUB, ZERO, RoundLabel
from ..schemes import IntVector
from ..task import TaskConfig
from ..verification.policy import Policy
from . import wire
from .chain import Chain
from .dealers import Dealers
from .directory import Directory
from .sparse import Progress

if TYPE_CHECKING:
    from .collect import Accepted
    from .verifying import Checks


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
    #: With checks of hidden models: the policy, and what has them checked.
    policy: Policy | None = None
    verifying: Verifying | None = None


class KeyMaker(Protocol):
    """Makes what clients get of a scheme in one attempt."""

    def __call__(
        self, session: Session, roster: Roster, server_round: int, skipped: int, attempt: int, nodes: Iterable[int]
    ) -> bytes:
        """Return the keys for an attempt of ``nodes`` after ``skipped`` decryptors were silent in this round."""
        ...


class Opening(Protocol):
    """Opens the sum of one attempt, where no single helper does."""

    def __call__(self, session: Session, ticket: Ticket, request: OpenRequest) -> IntVector:
        """Return the (noised) sum, verified."""
        ...


class Verifying(Protocol):
    """Has the models of an attempt checked."""

    def __call__(self, session: Session, ticket: Ticket, sent: RecordDict, accepted: Mapping[int, Accepted]) -> Checks:
        """Return what the verifiers found, verified."""
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
    plan : VectorPlan or ModelPlan
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
    verifying : Verifying or None
        Has hidden models checked before they are summed.
    """

    grid: Grid
    directory: Directory
    helpers: tuple[str, ...]
    config: TaskConfig
    plan: VectorPlan | ModelPlan
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
    verifying: Verifying | None = None

    @property
    def openings(self) -> int:
        """Rounds that the budget has paid for."""
        return len(self.opened | self.paid)

    def missing(self) -> str | None:
        """Return a role beside training that nobody online serves, if there is one."""
        return next((role for role in self.helpers if self.directory.lacks(self.grid, role)), None)

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
        for role in dict.fromkeys(self.helpers):
            # Verifiers are in the roster also while they are away: evaluations need their places alone.
            away = self.directory.known() if self.verifying is not None else ()
            cards = away or self.directory.online(self.grid, role).values()
            parties += [card.party for card in cards if card.party.has(role)]
        parties = list({party.name: party for party in parties}.values())  # who helps may train as well
        return Roster(tuple(sorted(parties, key=lambda party: party.name)))

    def with_ticket(self, message: Message, stage: str, ticket: Ticket) -> Message:
        """Return a copy of a train or evaluate message that carries the ticket."""
        # FedAvg puts one shared RecordDict in all messages: copy it before adding to it.
        content = RecordDict(dict(message.content))
        content[wire.RECORD] = wire.stage_record(stage, ticket.to_wire())
        meta = message.metadata
        return Message(content, dst_node_id=meta.dst_node_id, message_type=meta.message_type, group_id=meta.group_id)
