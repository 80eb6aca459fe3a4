"""Read a task's history from the chain alone: logs, the transactions that made them, and block headers.

What only transactions carry (submissions, signatures, votes) is decoded from the input of those sent to the hub itself.
A record that somebody made through a contract of his own has no such input, and the reader says so: the hub's events
show that it exists, but its signatures are not at hand without a node that traces transactions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..crypto.signing import checksum_address, keccak256
from ..errors import AuditError, LedgerError
from .deployment import check
from .headers import header_of
from .hub import Hub
from .records import (
    BlockRecord,
    Claim,
    Header,
    Postponement,
    Publication,
    Refund,
    Registration,
    Seed,
    Settlement,
    Start,
    Suspension,
    TaskHistory,
    TaskState,
)
from .registry import address_bytes

if TYPE_CHECKING:
    from .chain import Chain
    from .deployment import Deployment

__all__ = ["TaskHistory", "read_task"]


def read_task(chain: Chain, deployment: Deployment, task: bytes) -> TaskHistory:
    """Read everything that the chain says about a task.

    Parameters
    ----------
    chain : Chain
    deployment : Deployment
        Where the contracts are; checked first, so that what is read was written by flbc's contracts.
    task : bytes
        The task's id.

    Raises
    ------
    AuditError
        If records are missing or were made through another contract, or the hub does not hold what it owes.
    LedgerError
        If there is no such task, or the chain is not the deployment's.
    """
    check(chain, deployment)
    return _TaskReader(chain, deployment, task).read()


class _TaskReader:
    def __init__(self, chain: Chain, deployment: Deployment, task: bytes) -> None:
        self.chain, self.deployment, self.task = chain, deployment, task
        self.hub, self.head = Hub(chain, deployment), chain.height()
        self.headers: dict[int, Header] = {}

    def read(self) -> TaskHistory:
        # State and logs of one moment: a task goes on while it is read.
        state = self.hub.task(self.task, self.head)
        events = self._events(state)
        published = self._only(events, "TaskPublished")
        if published is None:
            raise AuditError(f"The chain has task {self.task.hex()} but no event of its publication: is it pruned?")
        started = self._only(events, "TaskStarted")
        settlement = self._only(events, "TaskSettled")
        refund = self._only(events, "TaskRefunded")
        seed = self._only(events, "SeedDrawn")
        publication, start = self._publication(published), self._start(started)
        history = TaskHistory(
            version=1,
            chain_id=self.chain.chain_id,
            hub=self.deployment.hub,
            simulation=self.deployment.simulation,
            task=self.task,
            publication=publication,
            registrations=self._registrations(publication, start, started or published),
            start=start,
            postponements=tuple(
                Postponement(self._at(e), e["args"]["blockNumber"]) for e in events if e["event"] == "SeedPostponed"
            ),
            seed=None if seed is None else self._seed(seed),
            blocks=tuple(self._block(e) for e in events if e["event"] == "RoundRecorded"),
            suspensions=self._suspensions(start, started),
            settlement=None if settlement is None else self._settlement(settlement),
            claims=tuple(self._claim(e) for e in events if e["event"] == "Claimed"),
            refund=None if refund is None else Refund(self._at(refund), refund["args"]["amount"]),
            state=state,
            headers=(),
        )
        self._check_balance(history)
        headers = tuple(header for _, header in sorted(self.headers.items()))
        return TaskHistory(**{**history.__dict__, "headers": headers})

    # ------------------------------------------------------------------ records
    def _publication(self, event: Any) -> Publication:
        told = event["args"]
        given = self._input(event, "publish")["input"]
        return Publication(
            at=self._at(event), publisher=address_bytes(told["publisher"]), salt=bytes(given["salt"]),
            model=bytes(told["model"]), roster=bytes(told["roster"]), accuracy_bps=told["accuracyBps"],
            deadline=told["deadline"], quorum=told["quorum"], vrf=told["vrf"], openers=told["openers"],
            reward=told["reward"], config=bytes(told["config"]),
        )  # fmt: skip

    def _start(self, event: Any) -> Start | None:
        if event is None:
            return None
        given = self._input(event, "start")
        return Start(
            at=self._at(event),
            accounts=tuple(address_bytes(account) for account in given["accounts"]),
            participants=self.hub.frozen(self.task),
            sigma1=bytes(given["sigma1"]),
        )

    def _seed(self, event: Any) -> Seed:
        anchor = event["args"]["blockNumber"]
        return Seed(self._at(event), anchor, self._header(anchor).hash, bytes(event["args"]["seed"]))

    def _block(self, event: Any) -> BlockRecord:
        told, given = event["args"], self._input(event, "submitRound")["input"]
        return BlockRecord(
            at=self._at(event), round=given["round"], attempt=given["attempt"], model=bytes(given["model"]),
            frame=bytes(given["frame"]), keys=bytes(given["keys"]), leader=given["leader"],
            hidden=bytes(given["hidden"]), submissions=bytes(given["submissions"]),
            rejected=bytes(given["rejected"]), leader_signature=bytes(given["leaderSignature"]),
            votes=bytes(given["votes"]), proof=bytes(given["proof"]), opening=bytes(given["opening"]),
            parent=bytes(told["parent"]), label=bytes(told["label"]), hash=bytes(told["blockHash"]),
        )  # fmt: skip

    def _settlement(self, event: Any) -> Settlement:
        told, given = event["args"], self._input(event, "settle")["input"]
        return Settlement(
            at=self._at(event), model=bytes(told["model"]), link=told["link"], accuracy_bps=told["accuracyBps"],
            party=given["party"], model_signature=bytes(given["modelSignature"]),
            evaluations=bytes(given["evaluations"]), payouts=bytes(given["payouts"]), votes=bytes(given["votes"]),
            opening=bytes(given["opening"]), payout_root=bytes(told["payoutRoot"]),
        )  # fmt: skip

    def _claim(self, event: Any) -> Claim:
        told = event["args"]
        return Claim(self._at(event), told["index"], address_bytes(told["account"]), told["amount"])

    def _registrations(self, publication: Publication, start: Start | None, until: Any) -> tuple[Registration, ...]:
        """Return what participants and publisher registered before the event ``until``."""
        accounts = {publication.publisher, *(() if start is None else start.accounts)}
        first, last = self.deployment.block_number, until["blockNumber"]
        entries = []
        for event in self._registry_events("Registered", accounts, first, last):
            if _position(event) > _position(until):
                continue
            told = event["args"]
            proof = b""
            transaction = self._transaction(event)
            if transaction["to"] == checksum_address(self.deployment.registry):
                name, given = _decode(self.hub.registry.contract, transaction)
                proof = bytes(given["proof"]) if name == "register" else b""
            entry = Registration(
                at=self._at(event), account=address_bytes(told["account"]), signer=address_bytes(told["signer"]),
                vrf=address_bytes(told["vrf"]), encryption=bytes(told["encryption"]),
                scheme_key=bytes(told["schemeKey"]), examples=told["examples"], roles=told["roles"],
                name=bytes(told["name"]), proof=proof,
            )  # fmt: skip
            entries.append(entry)
        return tuple(entries)

    def _suspensions(self, start: Start | None, started: Any) -> tuple[Suspension, ...]:
        if start is None:
            return ()
        events = self._registry_events("Suspended", set(start.accounts), started["blockNumber"], self.head)
        later = [event for event in events if _position(event) > _position(started)]
        return tuple(Suspension(self._at(e), address_bytes(e["args"]["account"]), e["args"]["on"]) for e in later)

    # ------------------------------------------------------------------ the chain
    def _events(self, state: TaskState) -> list[Any]:
        """Return all events of the task, decoded, in order."""
        logs = self.chain.logs(self.deployment.hub, [None, _topic(self.task)], state.published_block, self.head)
        return _decoded(self.hub.contract, logs)

    def _registry_events(self, name: str, accounts: Iterable[bytes], first: int, last: int) -> list[Any]:
        contract = self.hub.registry.contract
        signature = _topic(_event_topic(contract, name))
        topics = [signature, [_topic(account.rjust(32, b"\0")) for account in sorted(accounts)]]
        return _decoded(contract, self.chain.logs(self.deployment.registry, topics, first, last))

    def _only(self, events: list[Any], name: str) -> Any:
        found = [event for event in events if event["event"] == name]
        if len(found) > 1:
            raise AuditError(f"The hub emitted {name} {len(found)} times for one task: its code cannot be the hub's")
        return found[0] if found else None

    def _at(self, event: Any) -> bytes:
        header = self._header(event["blockNumber"])
        if header.hash != bytes(event["blockHash"]):
            raise LedgerError("The chain was reorganised while it was read: read it again")
        return header.hash

    def _header(self, number: int) -> Header:
        if number not in self.headers:
            block = self.chain.block(number)
            if block is None:
                raise LedgerError(f"The node has no block {number}: wait until it has caught up, then read again")
            self.headers[number] = header_of(block)
        return self.headers[number]

    def _transaction(self, event: Any) -> Any:
        with self.chain.explained():
            return self.chain.w3.eth.get_transaction(event["transactionHash"])

    def _input(self, event: Any, function: str) -> Mapping[str, Any]:
        """Return the arguments of the transaction that made a record."""
        transaction = self._transaction(event)
        if transaction["to"] != checksum_address(self.deployment.hub):
            raise AuditError(
                f"{event['event']} in the chain's block {event['blockNumber']} was made through another contract, "
                f"{transaction['to']}: the signatures are not in the transaction's input, so they cannot be audited. "
                "Records are to be sent to the hub directly"
            )
        name, given = _decode(self.hub.contract, transaction)
        if name != function:
            raise AuditError(f"{event['event']} was made by {name}, not by {function}: the hub's code is another one")
        return given

    def _check_balance(self, history: TaskHistory) -> None:
        owed = 0 if history.refund else history.publication.reward - sum(claim.amount for claim in history.claims)
        with self.chain.explained():
            address: Any = checksum_address(self.deployment.hub)
            balance = self.chain.w3.eth.get_balance(address, self.head)
        if balance < owed:
            raise AuditError(f"The hub holds {balance} wei, but owes {owed} for this task alone")


def _decoded(contract: Any, logs: Iterable[Any]) -> list[Any]:
    by_topic = {
        _event_topic(contract, event["name"]): event["name"] for event in contract.abi if event["type"] == "event"
    }
    found = []
    for log in logs:
        name = by_topic.get(bytes(log["topics"][0]))
        if name is not None:
            found.append(contract.events[name]().process_log(log))
    return sorted(found, key=_position)


def _position(event: Any) -> tuple[int, int]:
    """Where an event stands in the chain."""
    return event["blockNumber"], event["logIndex"]


def _event_topic(contract: Any, name: str) -> bytes:
    event = next(e for e in contract.abi if e["type"] == "event" and e["name"] == name)
    return keccak256(f"{name}({','.join(argument['type'] for argument in event['inputs'])})".encode())


def _decode(contract: Any, transaction: Any) -> tuple[str, Mapping[str, Any]]:
    function, given = contract.decode_function_input(transaction["input"])
    return function.fn_name, given


def _topic(value: bytes) -> str:
    return "0x" + value.hex()
