"""A consortium on a real chain: real keys, signatures, VRF proofs and votes; no Flower, no ciphertexts.

It runs the whole life of a task: deploy, register, publish, start, draw the seed, record rounds, settle, claim. Tests
bend one step and look at who notices: the contract, or the audit.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flbc.crypto.keystore import PartyKeys
from flbc.crypto.keystream import EncryptionKey
from flbc.crypto.signing import SigningKey, keccak256
from flbc.election import Candidate, alpha, public_draw, rank
from flbc.ledger.accounts import development_key
from flbc.ledger.chain import Chain
from flbc.ledger.deployment import Deployment, deploy
from flbc.ledger.hub import Hub
from flbc.ledger.outbox import Outbox
from flbc.ledger.packing import PackedEvaluation, PackedPayout, Participant, pack_all
from flbc.ledger.payouts import merkle_proof, payouts
from flbc.ledger.record import RoundRecord, SettleRecord, SignedOpening
from flbc.ledger.registry import registration
from flbc.ledger.transactions import MAX_GAS, Call, sign
from flbc.node.attestor import SoftwareAttestor
from flbc.node.covenant import Covenant, default_quorum
from flbc.node.draw import make_draw
from flbc.privacy import GaussianMechanism, Privacy, plan
from flbc.roster import ROLE_BITS, Party, Roster
from flbc.round import UNBOUNDED, ZERO, Block, Opening, RoundLabel, Signed, Submission, Vote, domain
from flbc.task import TaskConfig
from flbc.tokens import Evaluation, Genesis, ModelToken, Result, TaskToken

ETHER, GWEI = 10**18, 10**9
LINK = "https://models.example/heart"


def secret_key(text: str) -> SigningKey:
    return SigningKey.from_bytes(keccak256(text.encode()))


def send(chain: Chain, key: SigningKey, call: Call, gas: int = 1_000_000) -> Any:
    """Send one transaction and return its receipt; RevertedError says why it was refused."""
    signed = sign(key, chain.chain_id, chain.nonce(key.address), call, gas, chain.fees())
    chain.send_raw(signed.raw)
    receipt: Any = chain.w3.eth.wait_for_transaction_receipt(signed.hash, timeout=30, poll_latency=0.002)
    if receipt["status"] != 1:
        chain.simulate(call, sender=key.address, gas=gas)
        raise AssertionError(f"reverted, but not when it is run again: {receipt}")
    return receipt


def mine(chain: Chain, blocks: int = 1) -> None:
    for _ in range(blocks):
        chain.w3.provider.make_request("evm_mine", [])


def pass_time(chain: Chain, until: int) -> None:
    """Make a block whose time is after ``until``."""
    request, seconds = chain.w3.provider.make_request, until - chain.block("latest")["timestamp"] + 1
    if chain.name.startswith("embedded"):
        request("testing_timeTravel", [until + 1])
    else:
        request("evm_increaseTime", [seconds])
    mine(chain)
    assert chain.block("latest")["timestamp"] > until


@dataclass(frozen=True)
class Actor:
    """A party with its secret keys and the account that stakes and is paid."""

    name: str
    roles: tuple[str, ...]
    keys: PartyKeys = field(repr=False)
    account: SigningKey = field(repr=False)
    examples: int
    stake: int  # gwei

    @classmethod
    def make(cls, name: str, roles: tuple[str, ...], examples: int = 0, stake: int = 0) -> Actor:
        encryption = EncryptionKey.from_bytes(keccak256(f"{name}/encryption".encode()))
        keys = PartyKeys(name, secret_key(f"{name}/signing"), encryption, secret_key(f"{name}/vrf"), None)
        return cls(name, roles, keys, secret_key(f"{name}/account"), examples, stake)

    @property
    def party(self) -> Party:
        scheme_key = keccak256(b"scheme key") if "authority" in self.roles else b""
        return Party(
            self.name, self.roles, self.keys.signing.address, self.keys.encryption.public, scheme_key, self.examples,
            self.keys.vrf.address,
        )  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """What a consortium is like; the defaults make a small task with everything in it."""

    hospitals: int = 4
    members: int = 3  # committee members that do not train
    overlap: int = 1  # hospitals that are in the committee as well
    private: bool = True
    where: str = "opener"  # who adds the noise
    sampling_rate: float = 1.0
    rounds: int = 5
    min_survivors: int = 2
    payout: str = "examples"
    election: str = "vrf"
    accuracy_bps: int = 7000
    reward: int = ETHER + 7
    quorum: int | None = None
    simulation: bool = False
    duration: int = 86_400


def actors_of(setting: Setting) -> list[Actor]:
    """All parties by rising name."""
    hospitals = [
        Actor.make(
            f"hospital-{i:03}",
            ("committee", "hospital") if i < setting.overlap else ("hospital",),
            100 + 37 * i,
            (1 + i % 3) * 10**7,
        )
        for i in range(setting.hospitals)
    ]
    members = [Actor.make(f"member-{i:02}", ("committee",)) for i in range(setting.members)]
    return sorted([Actor.make("authority", ("authority",)), *hospitals, *members], key=lambda actor: actor.name)


def deploy_contracts(chain: Chain, folder: Path, *, simulation: bool = False) -> Deployment:
    with Outbox(chain, development_key(0), folder / "outbox.sqlite") as outbox:
        return deploy(
            chain, outbox, authority=development_key(1).address, treasury=development_key(2).address, unbonding=3600,
            simulation=simulation,
        )  # fmt: skip


class Consortium:
    """One task on one chain. Every step is a method; what a step makes can be bent before it is sent."""

    def __init__(
        self, chain: Chain, deployment: Deployment, setting: Setting | None = None, salt: str = "salt"
    ) -> None:
        self.chain, self.deployment, self.setting = chain, deployment, setting or Setting()
        self.hub = Hub(chain, deployment)
        self.where = domain(chain.chain_id, deployment.hub, deployment.simulation)
        self.relayer, self.authority = development_key(0), development_key(1)
        self.publisher = Actor.make("publisher", ("authority",))
        self.actors = actors_of(self.setting)
        self.roster = Roster(tuple(actor.party for actor in self.actors))
        self.salt = keccak256(salt.encode())
        self.model = keccak256(b"initial model")
        self.config = self._config()
        self.genesis = Genesis(self.model, self.config.hash, self.roster.hash).hash
        self.task = self.hub.task_id(self.publisher.account.address, self.salt)
        self.deadline = 0
        self.head, self.height, self.openings = self.genesis, 0, 0
        self.seed = ZERO
        self.draws: dict[int, int] = {}
        self.accepted: Counter[int] = Counter()
        self.opening: SignedOpening | None = None
        self.records: list[RoundRecord] = []
        self.receipts: dict[str, list[Any]] = {}

    # ------------------------------------------------------------------ terms
    @property
    def committee(self) -> list[int]:
        return [index for index, _ in self.roster.with_role("committee")]

    @property
    def hospitals(self) -> list[int]:
        return [index for index, _ in self.roster.with_role("hospital")]

    @property
    def quorum(self) -> int:
        return self.setting.quorum or default_quorum(len(self.committee))

    def _config(self) -> TaskConfig:
        setting = self.setting
        covenant = Covenant(
            self.quorum, setting.election, setting.payout, setting.accuracy_bps, SoftwareAttestor.kind,
            {actor.name: actor.stake for actor in self.actors if actor.stake},
        )  # fmt: skip
        privacy = Privacy(
            epsilon=3.0, delta=1e-5, clip_norm=1.0, unit="example", where=setting.where,
            sampling_rate=setting.sampling_rate,
        )  # fmt: skip
        self.mechanism: GaussianMechanism | None = None
        if setting.private:
            self.mechanism = plan(privacy, dimension=14, rounds=setting.rounds, max_examples=300)
        return TaskConfig(
            scheme="paillier", mode="authority", codec={"bits": 16},
            privacy=None if self.mechanism is None else self.mechanism.to_dict(), rounds=setting.rounds,
            min_survivors=setting.min_survivors, max_parties=max(setting.hospitals, setting.min_survivors),
            key_bits=3072, scheme_keys=(keccak256(b"scheme key"),), reveal_metrics=(), ledger=covenant.to_dict(),
        )  # fmt: skip

    # ------------------------------------------------------------------ before the first round
    def send(self, what: str, key: SigningKey, call: Call, gas: int = 1_000_000) -> Any:
        receipt = send(self.chain, key, call, gas)
        self.receipts.setdefault(what, []).append(receipt)
        return receipt

    def fund(self, key: SigningKey, wei: int = ETHER) -> None:
        if self.chain.balance(key.address) < wei // 2:
            send(self.chain, self.relayer, Call(key.address, value=wei), 21_000)

    def register(self, actor: Actor, *, publisher: bool = False, fund: int = ETHER) -> Any:
        """Register a party with its stake, unless it is registered."""
        if self.hub.registry.account_of(actor.keys.signing.address) == actor.account.address:
            return None
        self.fund(actor.account, fund)
        entry = registration(actor.party, actor.account.address, publisher)
        proof = Signed.make(entry, actor.keys.signing, self.where).signature
        call = self.hub.registry.register(entry, proof, actor.stake * GWEI)
        return self.send("register", actor.account, call, 300_000)

    def register_all(self) -> None:
        for actor in self.actors:
            self.register(actor)
        self.register(self.publisher, publisher=True, fund=100 * ETHER)

    def publish_call(self, **changes: Any) -> Call:
        setting = self.setting
        self.deadline = self.chain.now() + setting.duration
        arguments = {
            "salt": self.salt, "model": self.model, "roster": self.roster.hash, "accuracy_bps": setting.accuracy_bps,
            "deadline": self.deadline, "quorum": self.quorum, "vrf": setting.election == "vrf",
            "openers": ROLE_BITS["authority"], "config": self.config.encoded, "reward": setting.reward,
        }  # fmt: skip
        return self.hub.publish(**(arguments | changes))

    def publish(self, **changes: Any) -> Any:
        self.deadline = changes.get("deadline", 0)
        call = self.publish_call(**changes)
        self.deadline = changes.get("deadline", self.deadline)
        return self.send("publish", self.publisher.account, call)

    def seats(self) -> bytes:
        return pack_all(
            Participant(
                actor.keys.signing.address, actor.account.address, actor.keys.vrf.address, actor.stake, actor.examples,
                sum(ROLE_BITS[role] for role in actor.roles),
            )
            for actor in self.actors
        )  # fmt: skip

    def start_call(self, accounts: Sequence[bytes] | None = None, **changes: Any) -> Call:
        setting = self.setting
        token = TaskToken(
            self.task, self.genesis, keccak256(self.seats()), setting.reward, setting.accuracy_bps, self.deadline,
            self.quorum, setting.election == "vrf",
        )  # fmt: skip
        sigma1 = Signed.make(replace(token, **changes), self.publisher.keys.signing, self.where).signature
        everybody = [actor.account.address for actor in self.actors]
        return self.hub.start(self.task, everybody if accounts is None else accounts, sigma1)

    def start(self) -> Any:
        gas = 400_000 + 55_000 * len(self.actors)
        return self.send("start", self.publisher.account, self.start_call(), min(gas, MAX_GAS))

    def draw_seed(self) -> None:
        mine(self.chain, 2)
        self.send("draw seed", self.relayer, self.hub.draw_seed(self.task))
        self.seed = self.hub.task(self.task).seed

    def begin(self) -> Consortium:
        """Everything up to the first round."""
        self.register_all()
        mine(self.chain)  # keys must be older than the task
        self.publish()
        self.start()
        self.draw_seed()
        return self

    # ------------------------------------------------------------------ rounds
    def label(self, round_: int, attempt: int = 0) -> RoundLabel:
        return RoundLabel(
            self.task, round_, attempt, self.roster.hash, self.config.hash, keccak256(b"model %d" % round_),
            keccak256(b"frame %d" % round_), keccak256(b"keys %d" % round_), self.chain.chain_id, self.deployment.hub,
            self.deployment.simulation,
        )  # fmt: skip

    def submission(self, label: RoundLabel, index: int) -> Signed:
        keys = self.actors[index].keys
        draw, proof = make_draw(keys, self.seed, self.height + 2)
        value = Submission(
            label.hash, index, draw, 4000 + 1000 * (index % 3), keccak256(b"nonce %d" % index),
            keccak256(b"payload %d/%d" % (index, label.round)), ZERO, keccak256(proof),
        )  # fmt: skip
        return Signed.make(value, keys.signing, label.domain)

    def ranking(self) -> list[int]:
        """Who may lead the next block, best first."""
        draws = self.draws
        if self.height == 0:
            draws = {i: public_draw(self.seed, self.roster.parties[i].address) for i in self.hospitals}
        stakes = {index: actor.stake for index, actor in enumerate(self.actors)}
        candidates = [Candidate(i, self.roster.parties[i].address, stakes[i], d) for i, d in draws.items() if stakes[i]]
        return [candidate.index for candidate in rank(candidates)]

    def make_round(
        self,
        round_: int,
        attempt: int = 0,
        *,
        submitters: Iterable[int] | None = None,
        rejected: Iterable[int] = (),
        leader: int | None = None,
        voters: Iterable[int] | None = None,
        open_last: bool = True,
    ) -> RoundRecord:
        """Make a block with everything around it; by default of all hospitals, led by the first in rank."""
        label, rejected = self.label(round_, attempt), tuple(rejected)
        leader = self.ranking()[0] if leader is None else leader
        chosen = [i for i in self.hospitals if i not in rejected] if submitters is None else sorted(submitters)
        submissions = [self.submission(label, index) for index in chosen]
        hashes = tuple(signed.value.hash for signed in submissions)
        block = Block(self.head, label.hash, leader, hashes, rejected, keccak256(b"hidden %d" % round_))
        keys = self.actors[leader].keys
        _, proof = make_draw(keys, self.seed, self.height + 1)
        return RoundRecord(
            label, block, submissions, Signed.make(block, keys.signing, label.domain).signature,
            self.votes(Vote(label.hash, block.hash), voters, leader), alpha(self.seed, self.height + 1), proof,
            self.opening if open_last else None,
        )  # fmt: skip

    def votes(
        self, value: Vote | Result, voters: Iterable[int] | None = None, leader: int | None = None
    ) -> list[tuple[int, bytes]]:
        """Votes of ``voters``, by default of just the quorum; a leader of the committee counts."""
        if voters is None:
            others = [index for index in self.committee if index != leader]
            voters = others[: self.quorum - (leader in self.committee)]
        return [(index, Signed.make(value, self.actors[index].keys.signing, self.where).signature) for index in voters]

    def record(self, record: RoundRecord) -> Any:
        """Send a block, and take it over if the contract does."""
        gas = min(500_000 + 9_000 * len(record.submissions), MAX_GAS)
        receipt = self.send("round", self.relayer, self.hub.submit_round(record), gas)
        self.follow(record)
        return receipt

    def follow(self, record: RoundRecord) -> None:
        """Take a recorded block over, and open it."""
        self.head, self.height = record.block.hash, self.height + 1
        self.draws = {s.value.party: s.value.draw for s in record.submissions}  # type: ignore[attr-defined]
        self.accepted.update(list(self.draws))
        self.records.append(record)
        self.opening = self.open()

    def open(self, **changes: Any) -> SignedOpening:
        """The authority opens the last block."""
        self.openings += 1
        sigma, epsilon = 0, UNBOUNDED
        if self.mechanism is not None:
            sigma = round(self.mechanism.opener_sigma * 10**6)
            epsilon = math.ceil(self.mechanism.epsilon_after(self.openings) * 10**6)
        value = replace(Opening(self.head, keccak256(b"total %d" % self.height), sigma, epsilon), **changes)
        opener = self.roster.index("authority")
        return SignedOpening(Signed.make(value, self.actors[opener].keys.signing, self.where), opener)

    def run_rounds(self, count: int) -> Consortium:
        last = self.records[-1].label.round if self.records else 0
        for round_ in range(last + 1, last + 1 + count):
            self.record(self.make_round(round_))
        return self

    # ------------------------------------------------------------------ the end
    def make_settlement(
        self, accuracies: Sequence[int] | None = None, *, amounts: dict[int, int] | None = None, **changes: Any
    ) -> SettleRecord:
        """Make the settlement with everything around it."""
        model = keccak256(b"final model")
        accuracies = [8000 + 111 * i for i in range(len(self.committee))] if accuracies is None else accuracies
        judged = [
            Signed.make(
                Evaluation(self.task, model, index, bps, 50 + index), self.actors[index].keys.signing, self.where
            )
            for index, bps in zip(self.committee, accuracies, strict=False)
        ]
        values = [signed.value for signed in judged]
        mean = sum(v.accuracy_bps * v.examples for v in values) // max(1, sum(v.examples for v in values))  # type: ignore[attr-defined]
        amounts = self.amounts() if amounts is None else amounts
        evaluations = pack_all(PackedEvaluation.of(signed) for signed in judged)
        paid = pack_all(PackedPayout(party, amount) for party, amount in amounts.items())
        token = replace(ModelToken(self.task, self.head, model, LINK, mean), **changes)
        signer = self.ranking()[0]
        sigma2 = Signed.make(token, self.actors[signer].keys.signing, self.where).signature
        votes = self.votes(Result(token.hash, keccak256(evaluations), keccak256(paid)))
        return SettleRecord(token, signer, sigma2, evaluations, paid, votes, self.opening)

    def amounts(self) -> dict[int, int]:
        examples = {index: actor.examples for index, actor in enumerate(self.actors)}
        return payouts(self.setting.reward, self.setting.payout, self.accepted, examples)

    def settle(self, record: SettleRecord | None = None) -> Any:
        return self.send("settle", self.relayer, self.hub.settle(record or self.make_settlement()))

    def claim_call(self, party: int, amount: int | None = None) -> Call:
        amounts, accounts = self.amounts(), [actor.account.address for actor in self.actors]
        amount = amounts[party] if amount is None else amount
        return self.hub.claim(self.task, party, amount, merkle_proof(amounts, accounts, party))

    def claim(self, party: int) -> Any:
        return self.send("claim", self.actors[party].account, self.claim_call(party))

    def finish(self, rounds: int = 2) -> Consortium:
        """Everything from the first round to the last claim."""
        self.run_rounds(rounds).settle()
        for party in self.amounts():
            self.claim(party)
        return self
