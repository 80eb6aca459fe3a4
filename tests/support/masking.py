"""Hospitals that mask their updates, without Flower; the test plays the server, honest or not."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from flbc.codec import Codec, Layout, VectorPlan
from flbc.crypto.signing import keccak256
from flbc.node import NodeMemory, Pins, Policy, Ticket
from flbc.node.covenant import Covenant
from flbc.node.endorsement import Endorsement
from flbc.node.mask_keys import Deposit, MaskedKeys, box_statement, read_box_statement
from flbc.node.mask_memory import MaskMemory
from flbc.node.masked import graph_of
from flbc.node.opening import OpenRequest
from flbc.node.participant import Reply
from flbc.node.terms import codec_terms
from flbc.node.unmasking import ShareHolder
from flbc.privacy import GaussianMechanism
from flbc.roster import Roster
from flbc.round import NO_LEADER, ZERO, Block
from flbc.schemes import IntVector
from flbc.schemes.masking_opening import MaskingCombiner
from flbc.task import TaskConfig
from tests.support.parties import Consortium, identity

RUN = "1"


class MaskedConsortium(Consortium):
    """Hospitals with pinned keys. Every call to a node is a restart: it remembers what is on disk."""

    names: list[str]
    run: str = RUN

    @classmethod
    def found(
        cls,
        folder: Path,
        *,
        hospitals: int = 6,
        dimension: int = 6,
        mechanism: GaussianMechanism | None = None,
        policy: Policy | None = None,
        rounds: int = 5,
        min_survivors: int = 3,
        threshold: float = 2 / 3,
        covenant: Covenant | None = None,
        roles: tuple[str, ...] = ("hospital",),
    ) -> MaskedConsortium:
        names = [f"hospital-{i:02d}" for i in range(hospitals)]
        me = {name: identity(name, roles, examples=50) for name in names}
        pins = Pins({name: who.party() for name, who in me.items()}, policy or Policy())
        layout = Layout.of({"w": np.zeros(dimension, np.float32)}, private=mechanism is not None)
        plan = VectorPlan(layout, Codec(max_examples=50.0, max_metrics=1), private=mechanism is not None)
        config = TaskConfig(
            scheme="masked",
            mode="pairwise",
            codec=codec_terms(plan, mechanism),
            privacy=None if mechanism is None else mechanism.to_dict(),
            rounds=rounds,
            min_survivors=min_survivors,
            max_parties=hospitals,
            key_bits=0,
            scheme_keys=(),
            reveal_metrics=(),
            ledger=None if covenant is None else covenant.to_dict(),
            sharing={"threshold": threshold},
        )
        key: Any = None
        made = cls(folder, me, pins, key, config, plan, b"", plan.first_frame(), secrets.token_bytes(32))
        made.names = names
        return made

    @property
    def roster(self) -> Roster:
        return Roster(tuple(who.party() for _, who in sorted(self.me.items())))

    def holder(self, name: str, memory: NodeMemory | None = None) -> ShareHolder:
        return ShareHolder(self.me[name], self.pins, memory or self.memory(name))

    # ------------------------------------------------------------------ the honest server
    def boxes(self, names: Iterable[str] | None = None) -> dict[str, tuple[bytes, bytes]]:
        return {
            name: read_box_statement(box_statement(self.me[name], MaskMemory(self.memory(name)).box_key(self.run)))
            for name in (self.names if names is None else names)
        }

    def set_up(
        self,
        round_: int = 1,
        attempt: int = 0,
        names: Iterable[str] | None = None,
        only: Iterable[str] | None = None,
    ) -> dict[str, Deposit]:
        """Have everybody, or ``only`` some, deal for a round of ``names``."""
        names = list(self.names if names is None else names)
        ticket = self.ticket(round_, attempt, keys=MaskedKeys(self.boxes(names)).encoded, model=ZERO)
        dealing = names if only is None else only
        return {name: Deposit.decode(self.participant(name).set_up(ticket)) for name in dealing}

    def masked(self, deposits: Mapping[str, Deposit], round_: int = 1, attempt: int = 0, **changes: Any) -> Ticket:
        """Return the ticket of an attempt with what was dealt for it."""
        masks = {n: (d.dealing.public, d.sharing, d.signature) for n, d in deposits.items()}
        return self.ticket(round_, attempt, keys=MaskedKeys(self.boxes(deposits), masks).encoded, **changes)

    def submit(self, ticket: Ticket, names: Iterable[str] | None = None) -> dict[str, Reply]:
        """Train where there is nothing yet, and submit."""
        replies = {}
        for name in self.names if names is None else names:
            node = self.participant(name)
            if node.must_train(ticket, ticket.label.model):
                node.keep(ticket, self.update(name))
            replies[name] = node.submit(ticket)
        return replies

    def update(self, name: str, value: float = 0.25) -> Any:
        place = self.names.index(name) + 1
        shape = self.plan.layout.tensors[0].shape
        trained = super().update("zurich", value)
        return replace(trained, update={"w": np.full(shape, value * place / len(self.names))})

    @staticmethod
    def riding(replies: Mapping[str, Reply]) -> dict[str, Deposit]:
        return {name: Deposit.decode(reply.next_keys) for name, reply in replies.items()}

    def block_of(self, ticket: Ticket, replies: Mapping[str, Reply], **changes: Any) -> OpenRequest:
        """Return what holders are asked about a block of these replies."""
        by_index = sorted((ticket.roster.index(name), reply) for name, reply in replies.items())
        signed = tuple(reply.submission for _, reply in by_index if reply.submission is not None)
        hidden = MaskingCombiner(ticket.spec).combine({index: reply.payload for index, reply in by_index})
        parent = ZERO if ticket.beacon is None else ticket.beacon.parent
        block = Block(parent, ticket.label.hash, NO_LEADER, tuple(s.value.hash for s in signed), (), keccak256(hidden))
        return OpenRequest(replace(block, **changes), signed, hidden)

    def combiner_of(
        self, ticket: Ticket, deposits: Mapping[str, Deposit], replies: Mapping[str, Reply], noise: Any = None
    ) -> MaskingCombiner:
        nonces = {name: reply.submission.value.nonce for name, reply in replies.items() if reply.submission}  # type: ignore[attr-defined]
        dealings = {name: deposit.dealing for name, deposit in deposits.items()}
        graph = graph_of(ticket, ticket.label.round)
        return MaskingCombiner(ticket.spec, ticket.label.hash, dealings, nonces, graph, noise)

    def ask(
        self,
        ticket: Ticket,
        deposits: Mapping[str, Deposit],
        replies: Mapping[str, Reply],
        holders: Iterable[str] | None = None,
        endorsement: Endorsement | None = None,
    ) -> dict[str, bytes]:
        """Ask holders for their shares of the block of these replies."""
        request = replace(self.block_of(ticket, replies), hidden=b"", endorsement=endorsement)
        bodies = self.combiner_of(ticket, deposits, replies).requests()
        names = list(replies if holders is None else holders)
        return {name: self.holder(name).unmask(ticket, request, bodies[name]) for name in names}

    def open(
        self,
        ticket: Ticket,
        deposits: Mapping[str, Deposit],
        replies: Mapping[str, Reply],
        holders: Iterable[str] | None = None,
    ) -> IntVector | None:
        answers = self.ask(ticket, deposits, replies, holders)
        hidden = self.block_of(ticket, replies).hidden
        return self.combiner_of(ticket, deposits, replies).open(hidden, lambda _: answers)

    def expected(self, names: Iterable[str]) -> Any:
        """Return the mean update of these hospitals, all of the same weight."""
        return np.mean([self.update(name).update["w"] for name in names], axis=0)

    def mean(self, ticket: Ticket, total: IntVector, count: int) -> Any:
        return self.plan.decode(total, count, 1, ticket.frame, None, None).mean["w"]
