"""Hospitals and a generator without Flower: a consortium that uses functional encryption."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import numpy as np

from flbc.codec import Codec, Layout, VectorPlan
from flbc.encoding import parse
from flbc.node import NodeMemory, Pins, Policy, Ticket, halves
from flbc.node.decryptor import SumDecryptor
from flbc.node.generator import KeyGenerator
from flbc.node.nddfe import NddFeKeys, own_statement, read_statement, rotation
from flbc.node.participant import Reply
from flbc.node.terms import WEIGHED_BY_SERVER, codec_terms
from flbc.privacy import GaussianMechanism
from flbc.roster import Roster
from flbc.task import TaskConfig
from tests.support.parties import HOSPITALS, Consortium, identity


class FunctionalConsortium(Consortium):
    """Four hospitals, of which one decrypts, and a generator, with pinned keys; the test plays the server."""

    @classmethod
    def found(
        cls,
        folder: Path,
        *,
        mode: str = "pad",
        dimension: int = 6,
        mechanism: GaussianMechanism | None = None,
        policy: Policy | None = None,
        rounds: int = 5,
        max_multiplier: int | None = None,
    ) -> FunctionalConsortium:
        me = {name: identity(name, ("hospital",), examples=10 * (i + 1)) for i, name in enumerate(HOSPITALS)}
        me["generator"] = identity("generator", ("generator",))
        pins = Pins({name: who.party() for name, who in me.items()}, policy or Policy())
        layout = Layout.of({"w": np.zeros(dimension, np.float32)}, private=mechanism is not None)
        largest = 50.0 if max_multiplier is None else 1.0 if mode in WEIGHED_BY_SERVER else float(max_multiplier)
        plan = VectorPlan(layout, Codec(max_examples=largest, max_metrics=1), private=mechanism is not None)
        config = TaskConfig(
            scheme="nddfe",
            mode=mode,
            codec=codec_terms(plan, mechanism, max_multiplier=max_multiplier),
            privacy=None if mechanism is None else mechanism.to_dict(),
            rounds=rounds,
            min_survivors=3,
            max_parties=4,
            key_bits=0,
            scheme_keys=(),
            reveal_metrics=(),
        )
        key: Any = None
        return cls(folder, me, pins, key, config, plan, b"", plan.first_frame(), secrets.token_bytes(32))

    @property
    def roster(self) -> Roster:
        return Roster(tuple(sorted((who.party() for who in self.me.values()), key=lambda party: party.name)))

    def decryptor_name(self, round_: int = 1, passed: int = 0, roster: Roster | None = None) -> str:
        roster = roster or self.roster
        return roster.parties[rotation(roster, self.task, round_)[passed]].name

    def ticket(self, round_: int = 1, attempt: int = 0, passed: int = 0, **changes: Any) -> Ticket:
        """As the honest server makes it after passing over ``passed`` decryptors."""
        name = self.decryptor_name(round_, passed, changes.get("roster"))
        publics = {}
        if changes.get("config", self.config).mode != "pad":
            publics = {who.name: read_statement(parse(own_statement(who))) for who in self.me.values()}
        return super().ticket(round_, attempt, **{"keys": NddFeKeys(name, publics).encoded, **changes})

    @property
    def combiner(self) -> Any:
        return halves.combiner(self.ticket())

    def train_all(self, ticket: Ticket) -> dict[str, Reply]:
        return {name: self.train(name, ticket) for name in HOSPITALS}

    def generator(self, memory: NodeMemory | None = None) -> KeyGenerator:
        return KeyGenerator(self.me["generator"], self.pins, memory or self.memory("generator"))

    def decryptor(self, name: str) -> SumDecryptor:
        return SumDecryptor(self.me[name], self.pins, self.memory(name))
