"""Typed client of the TaskHub: a call to send for every function, and typed reads.

Calls are built without asking the node; what the outbox sends is a :class:`~flbc.ledger.transactions.Call`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from ..crypto import vrf
from ..crypto.signing import checksum_address, keccak256
from ..errors import LedgerError, ProtocolError
from ..round import Block, Signed, Submission, Vote
from .build import artifact
from .packing import (
    PackedOpening,
    PackedSubmission,
    PackedVote,
    Participant,
    compact,
    pack_all,
    pack_parties,
    unpack_all,
)
from .record import RoundRecord, SettleRecord, SignedOpening
from .records import STATUSES, TaskState
from .registry import Registry, address_bytes
from .transactions import Call

if TYPE_CHECKING:
    from .chain import Chain
    from .deployment import Deployment

_PUBLIC_KEY_BYTES = 33
#: EIP-712 types that the hub knows, by the name of its public constant; `flbc.round` and `flbc.tokens` define them.
TYPES = (
    "ROUND_LABEL", "SUBMISSION", "BLOCK", "VOTE", "OPENING", "GENESIS", "TASK_TOKEN", "MODEL_TOKEN", "EVALUATION",
    "RESULT",
)  # fmt: skip


class Hub:
    """Tasks: escrow, rounds, settlement.

    Parameters
    ----------
    chain : Chain
    deployment : Deployment
        Where hub and registry are; see :func:`flbc.ledger.deployment.check`.
    """

    def __init__(self, chain: Chain, deployment: Deployment) -> None:
        self.chain, self.deployment, self.address = chain, deployment, deployment.hub
        self.contract = chain.contract(self.address, artifact("TaskHub")["abi"])
        self.registry = Registry(chain, deployment.registry)

    # ------------------------------------------------------------------ calls to send
    def publish(
        self, *, salt: bytes, model: bytes, roster: bytes, accuracy_bps: int, deadline: int, quorum: int, vrf: bool,
        openers: int, config: bytes, reward: int,
    ) -> Call:  # fmt: skip
        """Put ``reward`` wei into escrow for a new task; the sender must be registered as a publisher.

        Parameters
        ----------
        salt : bytes
            32 bytes; the same sender and salt give the same task, so a repeated call is refused.
        model, roster : bytes
            Hashes of the initial arrays and of the roster.
        accuracy_bps, quorum, vrf
            As in the task's covenant.
        deadline : int
            Unix time; at most 180 days away by the chain's clock.
        openers : int
            Role bits of those who may sign openings.
        config : bytes
            Canonical JSON of the TaskConfig.
        reward : int
            Wei.
        """
        arguments = (salt, model, roster, accuracy_bps, deadline, quorum, vrf, openers, config)
        return self._call("publish", arguments, value=reward)

    def start(self, task: bytes, accounts: Sequence[bytes], sigma1: bytes) -> Call:
        """Freeze the participants; the publisher must send it.

        Parameters
        ----------
        task : bytes
        accounts : sequence of bytes
            Of all participants, in roster order.
        sigma1 : bytes
            The publisher's signature over the TaskToken, 65 bytes.
        """
        return self._call("start", task, [checksum_address(account) for account in accounts], compact(sigma1))

    def draw_seed(self, task: bytes) -> Call:
        """Fix the election's seed; anybody may send it, two blocks after the start or later."""
        return self._call("drawSeed", task)

    def submit_round(self, record: RoundRecord) -> Call:
        """Record a block; anybody may send it."""
        label, block = record.label, record.block
        proof = record.proof
        packed = vrf.pack(proof[:_PUBLIC_KEY_BYTES], record.alpha, proof[_PUBLIC_KEY_BYTES:]) if proof else b""
        arguments = (
            label.task, label.round, label.attempt, label.model, label.frame, label.keys, block.leader, block.hidden,
            pack_all(PackedSubmission.of(signed) for signed in record.submissions),
            pack_parties(block.rejected), compact(record.leader), pack_votes(record.votes), packed,
            pack_opening(record.opening),
        )  # fmt: skip
        return self._call("submitRound", arguments)

    def settle(self, record: SettleRecord) -> Call:
        """Settle the task; anybody may send it, until the deadline."""
        token = record.token
        arguments = (
            token.task, token.model, token.link, token.accuracy_bps, record.party, compact(record.signature),
            record.evaluations, record.payouts, pack_votes(record.votes), pack_opening(record.opening),
        )  # fmt: skip
        return self._call("settle", arguments)

    def claim(self, task: bytes, party: int, amount: int, proof: Sequence[bytes]) -> Call:
        """Fetch a party's payout; its account must send it (see :func:`flbc.ledger.payouts.merkle_proof`)."""
        return self._call("claim", task, party, amount, list(proof))

    def refund(self, task: bytes) -> Call:
        """Return the escrow to the publisher after the deadline; anybody may send it."""
        return self._call("refund", task)

    def report(self, first: Signed, second: Signed) -> Call:
        """Prove that one key signed two submissions, blocks or votes under one label; anybody may send it."""
        for kind, name, evidence in _EVIDENCE:
            if isinstance(first.value, kind) and isinstance(second.value, kind):
                pair = ((*evidence(signed.value), compact(signed.signature)) for signed in (first, second))
                return self._call(name, *pair)
        raise ProtocolError("Equivocation is proven by two signed submissions, two signed blocks or two signed votes")

    # ------------------------------------------------------------------ reads
    def task_id(self, publisher: bytes, salt: bytes) -> bytes:
        """Return the id of the task that ``publisher`` publishes with ``salt``."""
        return bytes(self._read("taskId", checksum_address(publisher), salt))

    def exists(self, task: bytes) -> bool:
        """Whether the task was published."""
        return bool(self._task(task)["status"])

    def task(self, task: bytes, block: int | str = "latest") -> TaskState:
        """Return a task as it is now, or was after a block; :class:`~flbc.errors.LedgerError` if there is none."""
        raw = self._task(task, block)
        if raw["status"] == 0:
            raise LedgerError(f"There is no task {task.hex()} on this hub: check the id and the chain")
        status = cast(Literal["published", "started", "settled", "refunded"], STATUSES[raw["status"] - 1])
        return TaskState(
            status=status, publisher=address_bytes(raw["publisher"]), reward=raw["reward"],
            accuracy_bps=raw["accuracyBps"], deadline=raw["deadline"], quorum=raw["quorum"], vrf=raw["vrf"],
            openers=raw["openers"], round=raw["round"], attempt=raw["attempt"], height=raw["height"],
            published_block=raw["publishedBlock"], started_block=raw["startedBlock"], seed_block=raw["seedBlock"],
            members=raw["members"], committee=raw["committee"], config=bytes(raw["config"]),
            roster=bytes(raw["roster"]), genesis=bytes(raw["genesis"]), head=bytes(raw["head"]),
            seed=bytes(raw["seed"]), payout_root=bytes(raw["payoutRoot"]),
        )  # fmt: skip

    def frozen(self, task: bytes) -> bytes:
        """Return the participants as the contract froze them, packed; empty before the start."""
        return bytes(self._read("participants", task))

    def participants(self, task: bytes) -> tuple[Participant, ...]:
        """Return the participants as the contract froze them, in roster order."""
        return unpack_all(Participant, self.frozen(task))

    def claimed(self, task: bytes, party: int) -> bool:
        """Whether the party has fetched its payout."""
        return bool(self._read("claimed", task, party))

    def separator(self) -> bytes:
        """Return the EIP-712 domain separator that the contract uses."""
        return bytes(self._read("separator"))

    def simulation(self) -> bool:
        """Whether the contract accepts development identities, and nobody else."""
        return bool(self._read("simulation"))

    def type_hash(self, name: str) -> bytes:
        """Return the hash of one of :data:`TYPES` as the contract has it."""
        return bytes(self._read(f"{name}_TYPEHASH"))

    def _task(self, task: bytes, block: int | str = "latest") -> dict[str, Any]:
        raw = self._read("taskOf", task, block=block)
        return dict(zip(self._task_members(), raw, strict=True))

    def _task_members(self) -> list[str]:
        outputs = next(entry["outputs"] for entry in self.contract.abi if entry.get("name") == "taskOf")
        return [component["name"] for component in outputs[0]["components"]]

    def _call(self, name: str, *arguments: Any, value: int = 0) -> Call:
        return Call.of(self.contract.functions[name](*arguments), value)

    def _read(self, name: str, *arguments: Any, block: int | str = "latest") -> Any:
        return self.chain.call(self.contract.functions[name](*arguments), block=block)


def pack_votes(votes: Sequence[tuple[int, bytes]]) -> bytes:
    """Encode votes as (party, signature of 65 bytes), by rising party."""
    return pack_all(PackedVote(party, signature) for party, signature in votes)


def pack_opening(opening: SignedOpening | None) -> bytes:
    """Encode an opening, nothing if there is none."""
    return b"" if opening is None else PackedOpening.of(opening.signed, opening.party).pack()


def _submission(value: Submission) -> tuple[Any, ...]:
    return value.label, value.party, value.draw, value.compute_ms, value.content


def _block(value: Block) -> tuple[Any, ...]:
    # The contract takes the arrays as EIP-712 hashes them.
    submissions = keccak256(b"".join(value.submissions))
    rejected = keccak256(b"".join(party.to_bytes(32, "big") for party in value.rejected))
    return value.parent, value.label, value.leader, submissions, rejected, value.hidden


def _vote(value: Vote) -> tuple[Any, ...]:
    return value.label, value.block


_EVIDENCE: tuple[tuple[type, str, Any], ...] = (
    (Submission, "reportSubmissions", _submission),
    (Block, "reportBlocks", _block),
    (Vote, "reportVotes", _vote),
)
