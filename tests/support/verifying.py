"""Hospitals whose models three verifiers check, without Flower; the test plays the server, honest or not."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from flbc.cards import Verdict
from flbc.codec import Codec, Layout
from flbc.crypto.signing import keccak256
from flbc.node import NodeMemory, Pins, Policy, Ticket
from flbc.node.checked import PartGiver
from flbc.node.committee import Entry
from flbc.node.mask_memory import MaskMemory
from flbc.node.model_plan import ModelPlan
from flbc.node.model_request import ModelsRequest
from flbc.node.opening import OpenRequest
from flbc.node.participant import Reply
from flbc.node.seats import LinkMemory, Seat, Table
from flbc.node.terms import codec_terms
from flbc.node.trained import Trained
from flbc.node.verdict import Answer
from flbc.node.verifier import Verifier
from flbc.roster import Roster
from flbc.round import NO_LEADER, ZERO, Block, Signed, Submission
from flbc.schemes import IntVector
from flbc.schemes.sharing import SharingCombiner, open_parts
from flbc.task import TaskConfig
from flbc.verification.committee import Data
from flbc.verification.link import queue_links
from flbc.verification.policy import Policy as ModelPolicy
from flbc.verification.program import Program, compile_model
from tests.support.blobs import Net, blobs, fit, initial
from tests.support.parties import Consortium, identity

VERIFIERS = ("verifier-a", "verifier-b", "verifier-c")
RUN = "1/00"
Ended = dict[str, "bytes | BaseException"]


class CheckedConsortium(Consortium):
    """Five hospitals and three verifiers with pinned keys. Every call to a node is a restart."""

    names: list[str]
    model: dict[str, Any]
    program: Program
    flip: frozenset[str] = frozenset()

    @classmethod
    def found(
        cls,
        folder: Path,
        *,
        hospitals: int = 5,
        rules: ModelPolicy = ModelPolicy(max_change=4.0),  # noqa: B008 - frozen
        policy: Policy | None = None,
        min_survivors: int = 3,
    ) -> CheckedConsortium:
        names = [f"hospital-{i:02d}" for i in range(hospitals)]
        me = {name: identity(name, ("hospital",)) for name in names}
        me |= {name: identity(name, ("verifier",)) for name in VERIFIERS}
        pins = Pins({name: who.party() for name, who in me.items()}, policy or Policy())
        model, program = fit(initial(), 1), compile_model(Net(), (4,))
        plan: Any = ModelPlan(Layout.of(model, private=True), Codec(max_examples=100.0, max_metrics=1), rules)
        config = TaskConfig(
            scheme="verified",
            mode="committee",
            codec=codec_terms(plan, None),
            privacy=None,
            rounds=5,
            min_survivors=min_survivors,
            max_parties=8,
            key_bits=0,
            scheme_keys=(),
            reveal_metrics=(),
            verification={"policy": rules.to_dict(), "program": program.hash.hex()},
        )
        key: Any = None
        made = cls(folder, me, pins, key, config, plan, b"", plan.first_frame(), secrets.token_bytes(32))
        made.names, made.model, made.program = names, model, program
        made.keys = made.table().encoded
        return made

    @property
    def roster(self) -> Roster:
        return Roster(tuple(who.party() for _, who in sorted(self.me.items())))

    # ------------------------------------------------------------------ verifiers
    def seat(self, name: str, **changes: Any) -> Seat:
        """Return what a verifier says of itself, signed; ``changes`` replace parts before it signs."""
        memory = self.memory(name)
        box, certificate = MaskMemory(memory).box_key(RUN).public, LinkMemory(memory).key(RUN).certificate
        seat = Seat(box, "127.0.0.1:1", certificate, self.program.hash, 40)
        return replace(seat, **changes).signed(self.me[name])

    def table(self, **seats: Seat) -> Table:
        return Table({name: self.seat(name) for name in VERIFIERS} | {k.replace("_", "-"): v for k, v in seats.items()})

    def verifier(self, name: str, memory: NodeMemory | None = None) -> Verifier:
        return Verifier(self.me[name], self.pins, memory or self.memory(name))

    def giver(self, name: str) -> PartGiver:
        return PartGiver(self.me[name], self.pins, self.memory(name))

    def data(self, name: str) -> Data:
        return Data(*blobs(40, 1000 + VERIFIERS.index(name)))

    # ------------------------------------------------------------------ hospitals
    def update(self, name: str, value: float = 0.0) -> Trained:
        new = fit(self.model, 50 + self.names.index(name), flip=name in self.flip)
        moved = {key: new[key].astype(float) - self.model[key].astype(float) for key in new}
        return Trained(self.plan.layout, moved, 60.0, {"loss": 0.5}, 1234)

    def submit(self, ticket: Ticket, names: Iterable[str] | None = None) -> dict[str, Reply]:
        replies = {}
        for name in self.names if names is None else names:
            node = self.participant(name)
            if node.must_train(ticket, ticket.label.model):
                node.keep(ticket, self.update(name))
            replies[name] = node.submit(ticket)
        return replies

    # ------------------------------------------------------------------ the server
    def models(self, ticket: Ticket, replies: Mapping[str, Reply]) -> ModelsRequest:
        ordered = sorted(replies.items(), key=lambda item: ticket.roster.index(item[0]))
        return ModelsRequest(tuple(Entry(r.submission, b"", r.payload) for _, r in ordered if r.submission))

    def verify(
        self,
        ticket: Ticket,
        requests: ModelsRequest | Mapping[str, ModelsRequest],
        tickets: Mapping[str, Ticket] | None = None,
        seconds: float = 10.0,
        connect: Callable[[str, Any], Any] = lambda name, link: link,
    ) -> Ended:
        """Ask all three at once; return what each answered, or raised."""
        links = queue_links(seconds)

        def one(name: str) -> bytes | BaseException:
            seat = VERIFIERS.index(name)
            mine = requests if isinstance(requests, ModelsRequest) else requests[name]
            asked = ticket if tickets is None else tickets.get(name, ticket)
            try:
                return self.verifier(name).verify(
                    asked, mine, self.model, self.program, self.data(name), lambda _: connect(name, links[seat])
                )
            except Exception as error:
                return error
            finally:
                links[seat].close()

        with ThreadPoolExecutor(3) as pool:
            return dict(zip(VERIFIERS, pool.map(one, VERIFIERS), strict=True))

    def block(
        self, ticket: Ticket, replies: Mapping[str, Reply], rejected: Iterable[str] = (), **changes: Any
    ) -> OpenRequest:
        """Return what verifiers are asked to open: all replies but those of ``rejected``."""
        out = sorted(ticket.roster.index(name) for name in rejected)
        by_index = {ticket.roster.index(n): r for n, r in replies.items() if ticket.roster.index(n) not in out}
        hidden = SharingCombiner(ticket.spec).combine({index: r.payload for index, r in by_index.items()})
        signed = tuple(r.submission for _, r in sorted(by_index.items()) if r.submission)
        hashes = tuple(s.value.hash for s in signed)
        made = Block(ZERO, ticket.label.hash, NO_LEADER, hashes, tuple(out), keccak256(hidden))
        return OpenRequest(replace(made, **changes), signed, hidden)

    def give(self, ticket: Ticket, request: OpenRequest) -> IntVector:
        """Have the sum opened by all three."""
        return open_parts([self.giver(name).give(ticket, request)[1] for name in VERIFIERS])

    def mean(self, names: Iterable[str]) -> dict[str, Any]:
        updates = [self.update(name).update for name in names]
        return {key: sum(update[key] for update in updates) / len(updates) for key in updates[0]}


def verdicts(answers: Ended) -> list[Signed]:
    """Return the three words, raising what a verifier raised."""
    found = []
    for answer in answers.values():
        if isinstance(answer, BaseException):
            raise answer
        found.append(Answer.decode(answer).verdict)
    return found


def rejected(ticket: Ticket, words: list[Signed]) -> list[str]:
    """Return the names that the verifiers agree to reject."""
    assert len({word.value.hash for word in words}) == 1
    value = words[0].value
    assert isinstance(value, Verdict)
    return [ticket.roster.parties[index].name for index in value.rejected]


def nonce_of(reply: Reply) -> bytes:
    assert reply.submission is not None
    assert isinstance(reply.submission.value, Submission)
    return reply.submission.value.nonce
