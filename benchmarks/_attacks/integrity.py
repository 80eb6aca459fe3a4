"""Integrity: payloads that are changed, replayed, dropped, copied or scaled, and who refuses them.

Four hospitals and real nodes: every refusal is the product's own. Three places to cheat:

* *on the way*: a network or SuperLink changes what a client sent, and the server is honest;
* *the server* puts something else into the hidden sum than the block says;
* *a client* signs and sends what it should not.

The outcome is the name of who refused and with which error, or "accepted" if the cheat is in the model. Where nobody
but a committee refuses, it is said: that takes a ledger.
"""

from __future__ import annotations

import secrets
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.task_identity import TaskIdentity

from flbc.crypto.signing import keccak256
from flbc.errors import FlbcError
from flbc.flower.collect import Collector
from flbc.node import halves
from flbc.node.committee import AttestRequest, Entry, check_sum
from flbc.node.participant import Reply
from flbc.node.ticket import Ticket
from flbc.round import Signed
from flbc.schemes.sharing import SharingProtector
from tests.support.functional import FunctionalConsortium
from tests.support.masking import MaskedConsortium
from tests.support.parties import Consortium
from tests.support.verifying import CheckedConsortium, rejected, verdicts

from .views import opening_key

#: Rows of the table: who cheats, and how.
CHEATS = (
    ("on the way", "tampered"),
    ("on the way", "replayed"),
    ("on the way", "copied"),
    ("the server", "tampered"),
    ("the server", "replayed"),
    ("the server", "dropped"),
    ("the server", "copied"),
    ("the server", "scaled"),
    ("a client", "copied"),
    ("a client", "replayed"),
    ("a client", "scaled"),
)
ACCEPTED = "accepted"
#: Of a scaled update.
FACTOR = -10
_BIT = 77


class LeftOutError(FlbcError):
    """The round goes on without the cheat."""


class Arena(ABC):
    """Two rounds of one scheme: what clients sent in round 1 waits to be replayed in round 2."""

    #: Who opens.
    opener: str

    def __init__(self, consortium: Any) -> None:
        self.c = consortium
        self.begin()

    @abstractmethod
    def begin(self) -> None:
        """Set ``old``, ``ticket`` and ``new``: replies of round 1, ticket and replies of round 2."""

    @abstractmethod
    def open(self, replies: Mapping[str, Reply], hidden: bytes | None) -> Any:
        """Have a hidden sum opened, None: the honest one; raise what the opener raises."""

    old: dict[str, Reply]
    new: dict[str, Reply]
    ticket: Ticket

    @property
    def pair(self) -> tuple[str, str]:
        """Return victim and thief."""
        first, second, *_ = self.new
        return first, second

    def index(self, name: str) -> int:
        """Return a party's place in the roster."""
        return self.ticket.roster.index(name)

    # ------------------------------------------------------------------ on the way
    def on_the_way(self, how: str) -> str:
        """Hand the honest server a reply with another payload, or another reply."""
        victim, thief = self.pair
        reply = self.new[victim]
        changed = {
            "tampered": lambda: replace(reply, payload=flipped(reply.payload)),
            "replayed": lambda: self.old[victim],
            "copied": lambda: replace(reply, payload=self.new[thief].payload),
        }[how]()
        session: Any = SimpleNamespace(config=self.ticket.config, plan=self.c.plan)
        collector = Collector(session, halves.combiner(self.ticket), self.ticket)
        assert changed.submission is not None
        honest = self.new[victim].submission
        assert honest is not None
        collector._check(reply, honest, victim)
        try:
            collector._check(changed, changed.submission, victim)
        except FlbcError as error:
            return refused("server", error)
        return ACCEPTED

    # ------------------------------------------------------------------ the server
    def the_server(self, how: str) -> str:
        """Sum something else than the block says."""
        victim, thief = self.pair
        payloads = {self.index(name): reply.payload for name, reply in self.new.items()}
        mine = payloads[self.index(victim)]
        if how == "dropped":
            del payloads[self.index(victim)]
        elif how == "scaled":
            payloads[self.index(victim)] = self._combined([mine] * 3)
        else:
            payloads[self.index(victim)] = {
                "tampered": flipped(mine),
                "replayed": self.old[victim].payload,
                "copied": self.new[thief].payload,
            }[how]
        combiner = halves.combiner(self.ticket)
        hidden = combiner.combine(payloads)
        assert hidden != combiner.combine({self.index(n): r.payload for n, r in self.new.items()})
        try:
            self.open(self.new, hidden)
        except FlbcError as error:
            return self.found_out(hidden, error)
        return f"{ACCEPTED}; with a ledger {self._committee(hidden)}"

    def found_out(self, hidden: bytes, error: Exception) -> str:
        """Return a cell: the opener refused."""
        return refused(self.opener, error)

    def _combined(self, payloads: list[bytes]) -> bytes:
        """Add payloads of whomever: hidden sums add like payloads."""
        combiner, places = halves.combiner(self.ticket), [self.index(name) for name in self.new]
        total = payloads[0]
        for payload in payloads[1:]:
            total = combiner.combine({places[0]: total, places[1]: payload})
        return total

    def _committee(self, hidden: bytes) -> str:
        """Ask what a committee member recomputes; it signs nothing else."""
        request = self.c.request(self.ticket, self.new, hidden)
        entries = tuple(
            Entry(signed, b"", self.new[self.ticket.roster.parties[signed.value.party].name].payload)  # type: ignore[attr-defined]
            for signed in request.submissions
        )
        try:
            check_sum(self.ticket, AttestRequest(request.block, entries, (), None))
        except FlbcError as error:
            return refused("committee", error)
        return ACCEPTED

    # ------------------------------------------------------------------ a client
    def a_client(self, how: str) -> str:
        """Sign what a client should not send."""
        victim, thief = self.pair
        payload, nonce = {
            "copied": lambda: (self.new[victim].payload, self.new[victim].submission.value.nonce),  # type: ignore[union-attr]
            "replayed": lambda: (self.old[thief].payload, self.old[thief].submission.value.nonce),  # type: ignore[union-attr]
            "scaled": lambda: (self.large(thief), self._nonce),
        }[how]()
        mine = self.new[thief]
        assert mine.submission is not None
        value = replace(mine.submission.value, payload=keccak256(payload), nonce=nonce)  # type: ignore[type-var]
        forged = replace(
            mine,
            payload=payload,
            submission=Signed.make(value, self.c.me[thief].keys.signing, self.ticket.label.domain),
        )
        try:
            self.open({**self.new, thief: forged}, None)
        except FlbcError as error:
            return refused(self.opener, error)
        return ACCEPTED

    _nonce = secrets.token_bytes(32)

    def large(self, name: str) -> bytes:
        """Return a payload that holds the largest numbers that a client can send: minus its range, everywhere."""
        spec = self.ticket.spec
        values = np.full(spec.length, -spec.max_abs, np.int64)
        protector = halves.protector(self.ticket, self.c.me[name], self.c.memory(name))
        return protector.protect(values, self.ticket.label.hash, self._nonce)


class PaillierArena(Arena):
    """Four hospitals and an authority."""

    opener = "authority"

    def begin(self) -> None:
        """Train twice; nothing is opened yet."""
        self.old = self.c.train_all(self.c.ticket(1))
        self.ticket = self.c.ticket(2)
        self.new = self.c.train_all(self.ticket)

    def open(self, replies: Mapping[str, Reply], hidden: bytes | None) -> Any:
        """Ask the authority."""
        return self.c.authority().open(self.ticket, self.c.request(self.ticket, dict(replies), hidden))


class NddFeArena(PaillierArena):
    """Four hospitals, of which one decrypts, and a generator."""

    opener = "decryptor"

    def open(self, replies: Mapping[str, Reply], hidden: bytes | None) -> Any:
        """Ask the generator for a key, and the decryptor."""
        request = self.c.request(self.ticket, dict(replies), hidden)
        key = self.c.generator().derive(self.ticket, replace(request, hidden=b""))
        return self.c.decryptor(self.c.decryptor_name(2)).open(self.ticket, request, key)


class MaskedArena(Arena):
    """Four hospitals; the server opens with their shares."""

    opener = "server"

    def begin(self) -> None:
        """Deal and train twice."""
        deposits = self.c.set_up(1)
        self.old = self.c.submit(self.c.masked(deposits, 1))
        self.deposits = self.c.riding(self.old)
        self.ticket = self.c.masked(self.deposits, 2)
        self.new = self.c.submit(self.ticket)

    def open(self, replies: Mapping[str, Reply], hidden: bytes | None) -> Any:
        """Collect shares, and take masks off."""
        answers = self.c.ask(self.ticket, self.deposits, replies)
        honest = self.c.block_of(self.ticket, replies).hidden
        combiner = self.c.combiner_of(self.ticket, self.deposits, replies)
        return combiner.open(honest if hidden is None else hidden, lambda _: answers)

    def large(self, name: str) -> bytes:
        """Mask as before, but other numbers: the client knows its masks."""
        spec, combiner = self.ticket.spec, halves.combiner(self.ticket)
        words: Any = combiner.modulus.unpack(self.new[name].payload, spec.length)  # type: ignore[attr-defined]
        change = np.full(spec.length, -spec.max_abs, np.int64) - self.c.values(self.ticket, name)
        return combiner.modulus.pack(words + change.astype(words.dtype))  # type: ignore[attr-defined,no-any-return]

    def a_client(self, how: str) -> str:
        """Keep the nonce where the masks stay."""
        if how == "scaled":
            thief = self.pair[1]
            assert self.new[thief].submission is not None
            self._nonce = self.new[thief].submission.value.nonce  # type: ignore[union-attr]
        return super().a_client(how)

    def found_out(self, hidden: bytes, error: Exception) -> str:
        """Return a cell: who cheats opens it itself, and masks are left in."""
        return f"opens to noise; with a ledger {self._committee(hidden)}"

    def _committee(self, hidden: bytes) -> str:
        request = self.c.block_of(self.ticket, self.new, hidden=keccak256(hidden))
        names = [self.ticket.roster.parties[signed.value.party].name for signed in request.submissions]
        entries = tuple(
            Entry(signed, b"", self.new[name].payload) for signed, name in zip(request.submissions, names, strict=True)
        )
        try:
            check_sum(self.ticket, AttestRequest(request.block, entries, (), None))
        except FlbcError as error:
            return refused("committee", error)
        return ACCEPTED


class VerifiedArena(Arena):
    """Four hospitals and three verifiers."""

    opener = "verifiers"

    def begin(self) -> None:
        """Train twice."""
        self.old = self.c.submit(self.c.ticket(1))
        self.ticket = self.c.ticket(2)
        self.new = self.c.submit(self.ticket)

    def open(self, replies: Mapping[str, Reply], hidden: bytes | None) -> Any:
        """Have models checked; who fails is left out, and that is an answer."""
        words = verdicts(self.c.verify(self.ticket, self.c.models(self.ticket, dict(replies))))
        if found := rejected(self.ticket, words):
            raise LeftOutError(f"{found} left out")
        return self.c.give(self.ticket, self.c.block(self.ticket, dict(replies)))

    def the_server(self, how: str) -> str:
        """Give verifiers other payloads than were signed, or name another list than they checked."""
        victim, thief = self.pair
        replies = dict(self.new)
        mine = replies[victim]
        changed = {
            "tampered": flipped(mine.payload),
            "replayed": self.old[victim].payload,
            "copied": self.new[thief].payload,
            "scaled": scaled_words(mine.payload),
        }
        try:
            if how == "dropped":
                verdicts(self.c.verify(self.ticket, self.c.models(self.ticket, self.new)))
                self.c.give(self.ticket, self.c.block(self.ticket, self.new, [victim]))
            else:
                replies[victim] = replace(mine, payload=changed[how])
                self.open(replies, None)
        except FlbcError as error:
            return refused(self.opener, error)
        return ACCEPTED

    def large(self, name: str) -> bytes:
        """Return a multiple of the honest update, in shares."""
        encoded = self.c.plan.encode(self.c.update(name).update, 60.0, {"loss": 0.5}, self.ticket.frame).values.copy()
        floats = self.c.plan.layout.count("float")
        encoded[:floats] *= FACTOR
        boxes = [self.c.seat(verifier).box for verifier in sorted(n for n in self.c.me if n.startswith("verifier"))]
        address = self.c.me[name].keys.signing.address
        return SharingProtector(self.ticket.spec, address, boxes).protect(encoded, self.ticket.label.hash, self._nonce)


# ---------------------------------------------------------------------- plain FedAvg
def plain(who: str, how: str) -> str:
    """Cheat Flower's own FedAvg; return whether the cheat is in the model."""
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1  # messages need them
    updates = [np.full(6, 0.25 * (i + 1) / 4, np.float32) for i in range(4)]
    stale, sent = np.full(6, -0.5, np.float32), [update.copy() for update in updates]
    victim, thief = 0, 1
    cheats: dict[str, Callable[[], Any]] = {
        "tampered": lambda: np.frombuffer(flipped(sent[victim].tobytes()), np.float32),
        "replayed": lambda: stale,
        "copied": lambda: sent[thief],
        "scaled": lambda: sent[victim] * (FACTOR if who == "a client" else 3),
    }
    if how == "dropped":
        del sent[victim]
    else:
        sent[victim] = cheats[how]()
    honest, found = _fedavg(updates), _fedavg(sent)
    return "no effect" if np.array_equal(honest, found) else ACCEPTED


def _fedavg(updates: list[Any]) -> Any:
    replies = [
        Message(
            RecordDict(
                {
                    "arrays": ArrayRecord({"w": Array(update)}),
                    "metrics": MetricRecord({"num-examples": 10, "loss": 1.0}),
                }
            ),
            reply_to=Message(RecordDict(), dst_node_id=client + 1, message_type="train"),
        )
        for client, update in enumerate(updates)
    ]
    arrays, _ = FedAvg().aggregate_train(1, replies)
    assert arrays is not None
    return arrays["w"].numpy()


# ---------------------------------------------------------------------- all
def arenas(folder: Path) -> dict[str, Callable[[], Arena]]:
    """Return what sets up each strategy's nodes, afresh, because a burnt round stays burnt."""

    def place() -> Path:
        return Path(tempfile.mkdtemp(dir=folder))

    return {
        "Paillier": lambda: PaillierArena(Consortium.make(place(), opening_key(2048))),
        "NddFe": lambda: NddFeArena(FunctionalConsortium.found(place())),
        "Masked": lambda: MaskedArena(KnownValues.found(place(), hospitals=4)),
        "Verified": lambda: VerifiedArena(CheckedConsortium.found(place(), hospitals=4)),
    }


class KnownValues(MaskedConsortium):
    """Hospitals whose encoded values one of them remembers, to send others under the same masks."""

    def values(self, ticket: Ticket, name: str) -> Any:
        """Return what a hospital's update encodes to, up to rounding."""
        trained = self.update(name)
        return self.plan.encode(trained.update, trained.weight, trained.metrics, ticket.frame).values


def outcomes(folder: Path, cheats: tuple[tuple[str, str], ...] = CHEATS) -> dict[tuple[str, str, str], str]:
    """Run all cheats against all strategies; return outcomes by strategy, who and how."""
    found = {("FedAvg", who, how): plain(who, how) for who, how in cheats}
    for name, make in arenas(folder).items():
        arena = make()
        for who, how in cheats:
            if who != "on the way":  # where nothing is opened, so nothing is burnt
                arena = make()
            act = {"on the way": arena.on_the_way, "the server": arena.the_server, "a client": arena.a_client}[who]
            found[name, who, how] = act(how)
    return found


def refused(by: str, error: Exception) -> str:
    """Return a cell."""
    if isinstance(error, LeftOutError):
        return f"left out by {by}"
    return f"refused by {by}: {type(error).__name__}"


def flipped(data: bytes) -> bytes:
    """Flip one bit."""
    changed = bytearray(data)
    changed[_BIT // 8 % len(changed)] ^= 1 << _BIT % 8
    return bytes(changed)


def scaled_words(data: bytes) -> bytes:
    """Multiply what looks like 64-bit words at the end of a payload by three."""
    body = np.frombuffer(data[-24:-16], "<u8") * np.uint64(3)
    return data[:-24] + body.tobytes() + data[-16:]
