"""Which task, which account: from what people type to what contracts know."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..crypto.signing import checksum_address, keccak256, parse_address
from ..errors import ConfigError, LedgerError, RosterError
from ..ledger.packing import PackedPayout, unpack_all, unpack_name

if TYPE_CHECKING:
    from ..ledger.hub import Hub
    from ..ledger.members import Member

_ID_DIGITS = 64
_HEX = re.compile(r"[0-9a-fA-F]+")
_LISTED = 5


def all_tasks(hub: Hub) -> list[bytes]:
    """Return the ids of all tasks, in the order of publication."""
    first = hub.deployment.block_number
    return [bytes(found["task"]) for _, found in _events(hub, hub.contract, "TaskPublished", first)]


def find_task(hub: Hub, text: str) -> bytes:
    """Return the task that an id, or the first digits of one, stands for.

    Raises
    ------
    ConfigError
        If the text is not hexadecimal, or several tasks begin with it.
    LedgerError
        If no task does.
    """
    digits = text.removeprefix("0x").lower()
    if not _HEX.fullmatch(digits) or len(digits) > _ID_DIGITS:
        raise ConfigError(f"A task's id is 64 hex digits, or the first of them, not {text!r}; see `flbc task status`")
    if len(digits) == _ID_DIGITS and hub.exists(bytes.fromhex(digits)):
        return bytes.fromhex(digits)  # without a search, which takes long on a long chain
    found = [task for task in all_tasks(hub) if task.hex().startswith(digits)]
    if not found:
        raise LedgerError(f"No task on this hub begins with {digits}: `flbc task status` lists them all")
    if len(found) > 1:
        listed = ", ".join(task.hex()[: len(digits) + 8] for task in found[:_LISTED])
        raise ConfigError(f"{len(found)} tasks begin with {digits}: {listed}{', …' * (len(found) > _LISTED)}")
    return found[0]


def newest_task(hub: Hub) -> bytes:
    """Return the task that was published last; :class:`LedgerError` if there is none."""
    tasks = all_tasks(hub)
    if not tasks:
        raise LedgerError(
            f"There is no task on hub {checksum_address(hub.address)}: `flbc demo` runs one, `flbc task publish` "
            "publishes what another run wants"
        )
    return tasks[-1]


def find_account(hub: Hub, text: str) -> tuple[bytes, Member]:
    """Return the registered account that an address, or a party's name, stands for.

    Raises
    ------
    ConfigError
        If the address is mistyped, or several accounts are registered with the name.
    RosterError
        If nobody is registered so.
    """
    if text.startswith("0x"):
        account = parse_address(text)
        member = hub.registry.member(account)
        if not member.registered:
            raise RosterError(f"Account {text} is not registered on this chain")
        return account, member
    events = _events(hub, hub.registry.contract, "Registered", hub.deployment.block_number)
    accounts = dict.fromkeys(_address(found["account"]) for _, found in events)
    members = [(account, hub.registry.member(account)) for account in accounts]
    named = [(account, member) for account, member in members if name_of(member) == text]
    if not named:
        raise RosterError(f"Nobody is registered as {text!r} on this chain: check the name, or give the account")
    if len(named) > 1:
        listed = ", ".join(checksum_address(account) for account, _ in named)
        raise ConfigError(f"{len(named)} accounts are registered as {text!r}: name one by its address, {listed}")
    return named[0]


def name_of(member: Member) -> str:
    """Return a member's name; the contract takes printable ASCII only."""
    return unpack_name(member.name)


def settled_payouts(hub: Hub, task: bytes) -> dict[int, int]:
    """Return what a settlement pays, in wei by party; :class:`LedgerError` if there is no settlement to read."""
    state = hub.task(task)
    logs = list(_events(hub, hub.contract, "TaskSettled", state.published_block, task))
    if not logs:
        raise LedgerError(f"Task {task.hex()} is {state.status}: there is something to claim once it is settled")
    log, _ = logs[0]
    with hub.chain.explained():
        transaction = hub.chain.w3.eth.get_transaction(log["transactionHash"])
    if transaction.get("to") != checksum_address(hub.address):
        raise LedgerError(
            "The task was settled through another contract, so the payouts are not in the transaction: ask who "
            "settled it for the amounts and the proof"
        )
    _, given = hub.contract.decode_function_input(transaction["input"])
    return {row.party: row.amount for row in unpack_all(PackedPayout, bytes(given["input"]["payouts"]))}


def _events(hub: Hub, contract: Any, name: str, first: int, task: bytes | None = None) -> Iterator[tuple[Any, Any]]:
    """Yield a contract's events of one kind: the log, and its arguments."""
    from ..ledger.publishing import event_signature

    event = contract.events[name]()
    topics = ["0x" + keccak256(event_signature(event.abi)).hex(), *([] if task is None else ["0x" + task.hex()])]
    for log in hub.chain.logs(contract.address, topics, first):
        yield log, event.process_log(log)["args"]


def _address(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))
