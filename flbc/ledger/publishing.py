"""Publish a task, start it, draw its seed: what a publisher does, with the CLI or in a development run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..crypto.signing import SigningKey, checksum_address, keccak256
from ..encoding import canonical, parse
from ..errors import ConfigError, LedgerError, ProtocolError, RevertedError
from ..node.covenant import Covenant, genesis_of
from ..roster import ROLE_BITS, Roster
from ..round import Signed, domain
from ..task import TaskConfig
from ..tokens import Genesis, TaskToken
from .files import home
from .packing import GWEI, Participant, pack_all
from .record import Started
from .records import Address, Hash, Record
from .registry import address_bytes

if TYPE_CHECKING:
    from .chain import Chain
    from .hub import Hub
    from .outbox import Outbox

# Limits, not costs: what is not used is not paid (see contracts/gas.json for what is).
_PUBLISH_GAS, _PUBLISH_BYTE_GAS = 600_000, 60
_START_GAS, _START_PARTY_GAS = 600_000, 90_000
_SEED_GAS = 200_000
#: Roles of a roster; an account may be registered as a publisher beside them.
_ROSTER_BITS = sum(bit for role, bit in ROLE_BITS.items() if role != "publisher")


@dataclass(frozen=True)
class TaskFile(Record):
    """A task before it is published: what a run wants to be paid for.

    Parameters
    ----------
    chain_id, hub
        Where it is to be published.
    salt : bytes
        32 random bytes; publishing twice with one salt is refused by the contract.
    model : bytes
        Hash of the initial arrays.
    config, roster : bytes
        Canonical JSON of the TaskConfig and the roster.
    reward : int
        Suggested escrow in wei.
    seconds : int
        Suggested time until the deadline.
    """

    version: Literal[1]
    chain_id: int
    hub: Address
    salt: Hash
    model: Hash
    config: bytes
    roster: bytes
    reward: int
    seconds: int

    @property
    def terms(self) -> TaskConfig:
        """The task's configuration."""
        return TaskConfig.decode(self.config)

    @property
    def covenant(self) -> Covenant:
        """What is agreed about the ledger."""
        covenant = Covenant.of(self.terms)
        if covenant is None:
            raise ProtocolError("The task's configuration says nothing about a ledger")
        return covenant

    @property
    def genesis(self) -> bytes:
        """Hash of the genesis: model, configuration and roster."""
        return Genesis(self.model, keccak256(self.config), keccak256(self.roster)).hash

    def save(self) -> Path:
        """Write to FLBC_HOME and return the path."""
        path = home() / "tasks" / f"{self.genesis.hex()[:16]}.json"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_bytes(canonical(self.to_dict()) + b"\n")
        temporary.replace(path)
        return path

    @classmethod
    def load(cls, path: Path) -> TaskFile:
        """Read a file that a run wrote; :class:`ConfigError` if it is none."""
        try:
            return cls.from_dict(parse(path.read_bytes().rstrip(b"\n"), "task file"))
        except OSError as error:
            raise ConfigError(f"Cannot read the task file {path}: {error.strerror}") from None
        except ProtocolError as error:
            raise ConfigError(f"{path} is no task file that a run wrote: {error}") from None


def publish(hub: Hub, outbox: Outbox, file: TaskFile, reward: int, seconds: float, wait: float = 120.0) -> bytes:
    """Put the reward into escrow, unless this was done before; return the task's id.

    Raises
    ------
    ConfigError
        If the file is for another chain or hub.
    LedgerError
        If the account cannot pay, or the contract refuses.
    """
    chain = hub.chain
    if (file.chain_id, file.hub) != (chain.chain_id, hub.address):
        raise ConfigError(
            f"The task file is for hub {checksum_address(file.hub)} on chain {file.chain_id}; this is hub "
            f"{checksum_address(hub.address)} on chain {chain.chain_id}"
        )
    task = hub.task_id(outbox.account, file.salt)
    if hub.exists(task):
        return task
    config, covenant = file.terms, file.covenant
    call = hub.publish(
        salt=file.salt, model=file.model, roster=keccak256(file.roster), accuracy_bps=covenant.accuracy_bps,
        deadline=chain.now() + int(seconds), quorum=covenant.quorum, vrf=covenant.election == "vrf",
        openers=ROLE_BITS[config.opener], config=config.encoded, reward=reward,
    )  # fmt: skip
    gas = _PUBLISH_GAS + _PUBLISH_BYTE_GAS * len(config.encoded)
    outbox.check_funds(1, gas, reward)
    outbox.submit(f"publish/{task.hex()}/{call.digest.hex()[:16]}", call, gas)
    outbox.wait(f"publish/{task.hex()}/{call.digest.hex()[:16]}", wait)
    return task


def start(hub: Hub, outbox: Outbox, task: bytes, file: TaskFile, signer: SigningKey, wait: float = 120.0) -> None:
    """Freeze the participants and bind the task to them with sigma1, unless this was done before.

    Parameters
    ----------
    hub, outbox, task, file
        The outbox is the publisher's.
    signer : SigningKey
        The publisher's registered signing key.
    wait : float (default: 120)
        Seconds to wait for the transaction.

    Raises
    ------
    RosterError
        If a party is not registered as the roster says.
    LedgerError
        If a stake differs from the task's terms, or the contract refuses.
    """
    state = hub.task(task)
    if state.status != "published":
        return
    roster, covenant = Roster.decode(file.roster), file.covenant
    members = [hub.registry.find(party) for party in roster.parties]
    frozen = [
        Participant(m.signer, account, m.vrf, m.stake // GWEI, m.examples, m.roles) for account, m in members
    ]  # fmt: skip
    for party, seat in zip(roster.parties, frozen, strict=True):
        if seat.stake != covenant.stake(party.name):
            raise LedgerError(
                f"The stake of {party.name!r} is {seat.stake} gwei, the task's terms say {covenant.stake(party.name)}: "
                "it changed since the run looked; start the run again"
            )
    token = TaskToken(
        task, state.genesis, keccak256(pack_all(frozen)), state.reward, state.accuracy_bps, state.deadline,
        state.quorum, state.vrf,
    )  # fmt: skip
    where = domain(hub.chain.chain_id, hub.address, hub.deployment.simulation)
    call = hub.start(task, [account for account, _ in members], Signed.make(token, signer, where).signature)
    key = f"start/{task.hex()}/{call.digest.hex()[:16]}"
    outbox.submit(key, call, min(_START_GAS + _START_PARTY_GAS * len(frozen), 16_000_000))
    outbox.wait(key, wait)


def draw_seed(hub: Hub, outbox: Outbox, task: bytes, wait: float = 120.0, confirmations: int = 0) -> bytes:
    """Fix the election's seed from the hash of a block after the start; return it. Anybody may do this.

    With ``confirmations`` it is returned only when its block has that many on top: a reorganisation would change it,
    and every draw with it.

    Development chains make a block for a transaction only, so there blocks are made with transfers of nothing.
    """
    chain, end = hub.chain, time.monotonic() + wait + 30 * confirmations
    while True:
        state = hub.task(task)
        if state.seed != bytes(32) and chain.height() >= state.seed_block + confirmations:
            return state.seed
        if time.monotonic() > end:
            raise LedgerError(f"No block came within {wait:g} s to draw the seed of task {task.hex()} from; try again")
        if chain.height() < state.seed_block or state.seed != bytes(32):
            _next_block(chain, outbox)
            continue
        key = f"seed/{task.hex()}/{state.seed_block}"
        outbox.submit(key, hub.draw_seed(task), _SEED_GAS)
        try:
            outbox.wait(key, max(1.0, end - time.monotonic()))
        except RevertedError:  # the publisher and the run both draw: who comes second is refused, and takes that seed
            if hub.task(task).seed == bytes(32):
                raise


def published(hub: Hub, genesis: bytes, first: int) -> list[tuple[bytes, bytes]]:
    """Return (task, publisher's account) of all tasks with this genesis, published in block ``first`` or later."""
    event = hub.contract.events.TaskPublished()
    found = []
    for entry in hub.chain.logs(hub.address, ["0x" + keccak256(event_signature(event.abi)).hex()], first):
        arguments = event.process_log(entry)["args"]
        if bytes(arguments["genesis"]) == genesis:
            found.append((bytes(arguments["task"]), address_bytes(arguments["publisher"])))
    return found


def event_signature(abi: Mapping[str, Any]) -> bytes:
    """Return an event's signature, whose hash is its first topic."""
    return f"{abi['name']}({','.join(item['type'] for item in abi['inputs'])})".encode()


def started(hub: Hub, task: bytes, config: TaskConfig, roster: Roster, model: bytes) -> Started:
    """Return a started task with its seed, after checking that it is the one that the run agreed to.

    Raises
    ------
    LedgerError
        If the publisher published other terms than the configuration's, or froze other participants than the roster's.
    """
    state, covenant = hub.task(task), Covenant.of(config)
    if covenant is None:
        raise ProtocolError("The task's configuration says nothing about a ledger")
    found = (
        state.genesis, state.config, state.roster, state.accuracy_bps, state.quorum, state.vrf, state.openers,
    )  # fmt: skip
    agreed = (
        genesis_of(model, config, roster), config.hash, roster.hash, covenant.accuracy_bps, covenant.quorum,
        covenant.election == "vrf", ROLE_BITS[config.opener],
    )  # fmt: skip
    if found != agreed:
        raise LedgerError(f"Task {task.hex()} was published with other terms than the run's; publish its task file")
    seats = hub.participants(task)
    frozen = [(seat.signer, seat.vrf, seat.stake, seat.examples, seat.roles & _ROSTER_BITS) for seat in seats]
    wanted = [
        (p.address, p.vrf or bytes(20), covenant.stake(p.name), p.examples, sum(ROLE_BITS[r] for r in p.roles))
        for p in roster.parties
    ]
    if frozen != wanted:
        raise LedgerError(f"Task {task.hex()} was started with other participants or stakes than the run's roster")
    if state.deadline <= hub.chain.now():
        raise LedgerError(f"The deadline of task {task.hex()} has passed; `flbc task refund` returns the escrow")
    return Started(task, state.genesis, state.seed, state.reward, model)


def _next_block(chain: Chain, outbox: Outbox) -> None:
    height = chain.height()
    time.sleep(0 if chain.development else 1)
    if chain.development and chain.height() == height:
        outbox.mine_one()
