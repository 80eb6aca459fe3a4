"""Hospitals and an authority without Flower: what attacks on the node's rules are run against."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from flbc.codec import Codec, Frame, Layout, VectorPlan
from flbc.crypto import paillier
from flbc.crypto.keystore import PartyKeys
from flbc.crypto.signing import keccak256
from flbc.node import Authority, Identity, NodeMemory, Participant, Pins, Policy, Ticket, halves
from flbc.node.covenant import Covenant
from flbc.node.generator import KeyGenerator
from flbc.node.opening import OpenRequest
from flbc.node.participant import Reply
from flbc.node.scheme_keys import paillier_keys
from flbc.node.terms import codec_terms
from flbc.node.trained import Trained
from flbc.privacy import GaussianMechanism
from flbc.roster import Party, Roster
from flbc.round import NO_HUB, NO_LEADER, ZERO, Block, RoundLabel, Signed
from flbc.schemes.paillier import PaillierCombiner
from flbc.task import TaskConfig

KEY_BITS = 2048
HOSPITALS = ("cleveland", "hungary", "long-beach", "zurich")


def identity(name: str, roles: tuple[str, ...], key: paillier.PrivateKey | None = None, examples: int = 0) -> Identity:
    fresh = PartyKeys.generate(name)
    keys = PartyKeys(name, fresh.signing, fresh.encryption, fresh.vrf, key)
    return Identity(name, roles, keys, simulation=False, examples=examples)


@dataclass
class Consortium:
    """Four hospitals and an authority with pinned keys; the test plays the server."""

    folder: Path
    me: dict[str, Identity]
    pins: Pins
    key: paillier.PrivateKey
    config: TaskConfig
    plan: VectorPlan
    keys: bytes
    frame: Frame
    task: bytes

    @classmethod
    def make(
        cls,
        folder: Path,
        key: paillier.PrivateKey,
        *,
        dimension: int = 6,
        mechanism: GaussianMechanism | None = None,
        policy: Policy | None = None,
        rounds: int = 5,
        examples: int = 50,
        roles: tuple[str, ...] = ("hospital",),
        covenant: Covenant | None = None,
        mode: str = "authority",
    ) -> Consortium:
        me = {name: identity(name, roles, examples=examples) for name in HOSPITALS}
        me["authority"] = identity("authority", ("authority",), key)
        if mode == "split":
            me["generator"] = identity("generator", ("generator",))
        fingerprint = key.public.fingerprint
        parties = [who.party(fingerprint if name == "authority" else b"") for name, who in me.items()]
        pins = Pins({party.name: party for party in parties}, policy or Policy(min_key_bits=KEY_BITS))
        layout = Layout.of({"w": np.zeros(dimension, np.float32)}, private=mechanism is not None)
        plan = VectorPlan(layout, Codec(max_examples=float(examples)), private=mechanism is not None)
        config = TaskConfig(
            scheme="paillier",
            mode=mode,
            codec=codec_terms(plan, mechanism),
            privacy=None if mechanism is None else mechanism.to_dict(),
            rounds=rounds,
            min_survivors=3,
            max_parties=4,
            key_bits=key.public.bits,
            scheme_keys=(fingerprint,),
            reveal_metrics=(),
            ledger=None if covenant is None else covenant.to_dict(),
        )
        made = cls(folder, me, pins, key, config, plan, b"", plan.first_frame(), secrets.token_bytes(32))
        made.keys = paillier_keys(key.public, made.authority().scheme_key())
        return made

    # ------------------------------------------------------------------ nodes; each call is a restart from disk
    def authority(self) -> Authority:
        return Authority(self.me["authority"], self.key, self.pins, self.memory("authority"))

    def generator(self, memory: NodeMemory | None = None) -> KeyGenerator:
        return KeyGenerator(self.me["generator"], self.pins, memory or self.memory("generator"))

    def participant(self, name: str) -> Participant:
        return Participant(self.me[name], self.pins, self.memory(name))

    def memory(self, name: str) -> NodeMemory:
        return NodeMemory(self.folder / name)

    # ------------------------------------------------------------------ the honest server
    @property
    def roster(self) -> Roster:
        fingerprint = self.key.public.fingerprint
        parties = [who.party(fingerprint if n == "authority" else b"") for n, who in self.me.items()]
        return Roster(tuple(sorted(parties, key=lambda party: party.name)))

    def ticket(self, round_: int = 1, attempt: int = 0, **changes: Any) -> Ticket:
        """Ticket of an attempt; ``changes`` replace its parts (roster, config, frame, keys) or label members."""
        parts = {"roster": self.roster, "config": self.config, "frame": self.frame, "keys": self.keys}
        parts.update({name: changes.pop(name) for name in list(changes) if name in parts})
        label = RoundLabel(
            self.task, round_, attempt, parts["roster"].hash, parts["config"].hash, keccak256(b"model %d" % round_),
            parts["frame"].hash, keccak256(parts["keys"]), 0, NO_HUB, False,
        )  # fmt: skip
        return Ticket(replace(label, **changes), **parts)

    def update(self, name: str, value: float = 0.25) -> Trained:
        w = np.full(self.plan.layout.tensors[0].shape, value * (HOSPITALS.index(name) + 1) / 4)
        return Trained(self.plan.layout, {"w": w}, 10.0, {"loss": 1.0}, 1234)

    def train(self, name: str, ticket: Ticket, trained: Trained | None = None) -> Reply:
        node = self.participant(name)
        assert node.must_train(ticket, ticket.label.model)
        node.keep(ticket, trained or self.update(name))
        return node.submit(ticket)

    def train_all(self, ticket: Ticket) -> dict[str, Reply]:
        return {name: self.train(name, ticket) for name in HOSPITALS}

    @property
    def combiner(self) -> PaillierCombiner:
        combiner = halves.combiner(self.ticket())
        assert isinstance(combiner, PaillierCombiner)
        return combiner

    def request(self, ticket: Ticket, replies: dict[str, Reply], hidden: bytes | None = None) -> OpenRequest:
        """What an honest server asks the authority; ``hidden`` replaces the sum."""
        by_index = {ticket.roster.index(name): reply for name, reply in replies.items()}
        if hidden is None:
            hidden = self.combiner.combine({i: reply.payload for i, reply in by_index.items()})
        signed: list[Signed] = [reply.submission for i, reply in sorted(by_index.items()) if reply.submission]
        hashes = tuple(entry.value.hash for entry in signed)
        block = Block(ZERO, ticket.label.hash, NO_LEADER, hashes, (), keccak256(hidden))
        return OpenRequest(block, tuple(signed), hidden)


def party_with(party: Party, **changes: Any) -> Party:
    return replace(party, **changes)
