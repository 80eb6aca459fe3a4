"""Tables about tasks: what a run wants to be paid for, and how tasks stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table

from ..crypto.signing import checksum_address
from ..errors import FlbcError
from ..roster import ROLE_BITS, Roster
from .amounts import distance, ether, moment, span
from .console import facts, plain, table_of
from .finding import name_of

if TYPE_CHECKING:
    from ..ledger.hub import Hub
    from ..ledger.publishing import TaskFile
    from ..ledger.records import TaskState
    from ..task import TaskConfig

_GWEI = 10**9
_STYLES = {"settled": "green", "refunded": "yellow"}


def terms(file: TaskFile, reward: int, seconds: int) -> list[RenderableType]:
    """Show what a publisher is asked to pay for."""
    config, covenant, roster = file.terms, file.covenant, Roster.decode(file.roster)
    rows = [
        ("chain", file.chain_id),
        ("hub", checksum_address(file.hub)),
        ("genesis", file.genesis.hex()),
        ("initial model", file.model.hex()),
        *_training(config),
        ("quorum", f"{covenant.quorum} of {len(roster.with_role('committee'))} in the committee"),
        ("election", covenant.election),
        ("compute times", f"attested by {covenant.attestor}"),
        ("accuracy", f"at least {covenant.accuracy_bps / 100:.2f} %" if covenant.accuracy_bps else "not asked for"),
        ("paid by", "accepted rounds" + (" times examples" if covenant.payout == "examples" else "")),
        ("reward", ether(reward)),
        ("deadline", f"{span(seconds)} after publication"),
    ]
    parties = table_of("Parties", "party", "roles", "examples", "stake", right=["examples", "stake"])
    for party in roster.parties:
        stake = ether(covenant.stake(party.name) * _GWEI)
        parties.add_row(plain(party.name), ", ".join(party.roles), str(party.examples), stake)
    return [facts(rows), parties]


def list_of(hub: Hub, tasks: Sequence[bytes]) -> Table:
    """List tasks, the newest last."""
    now = hub.chain.now()
    table = table_of(
        f"Tasks on hub {checksum_address(hub.address)}",
        "task", "status", "reward", "blocks", "round", "publisher", "deadline",
        right=["reward", "blocks", "round"],
    )  # fmt: skip
    for task in tasks:
        state = hub.task(task)
        table.add_row(
            f"{task.hex()[:16]}…",
            plain(state.status, _STYLES.get(state.status, "")),
            ether(state.reward),
            str(state.height),
            str(state.round),
            checksum_address(state.publisher),
            distance(state.deadline, now),
        )
    return table


def details(hub: Hub, task: bytes) -> list[RenderableType]:
    """Show one task."""
    state, now = hub.task(task), hub.chain.now()
    rows: list[tuple[str, object]] = [
        ("task", task.hex()),
        ("status", plain(state.status, _STYLES.get(state.status, ""))),
        ("publisher", checksum_address(state.publisher)),
        ("reward", ether(state.reward)),
        ("deadline", moment(state.deadline, now)),
        ("accuracy", f"at least {state.accuracy_bps / 100:.2f} %" if state.accuracy_bps else "not asked for"),
        ("election", "VRF proofs verified by the contract" if state.vrf else "checked by the committee"),
        ("quorum", state.quorum if not state.members else f"{state.quorum} of {state.committee} in the committee"),
        ("blocks", f"{state.height}, the last of round {state.round}, attempt {state.attempt}" if state.height else 0),
        ("genesis", state.genesis.hex()),
        ("head", state.head.hex()),
        ("seed", "not drawn yet" if state.seed == bytes(32) else state.seed.hex()),
        ("next", _next(state, task, now)),
    ]
    shown: list[RenderableType] = [facts(rows)]
    if state.members:
        shown.append(_participants(hub, task, state))
    return shown


def _training(config: TaskConfig) -> list[tuple[str, object]]:
    privacy = config.privacy
    noise: object = "none: the exact mean of each round is opened"
    if privacy is not None:
        noise = (
            f"epsilon = {privacy.get('epsilon')} at delta = {privacy.get('delta')} per {privacy.get('unit')}, clipped "
            f"to {privacy.get('clip_norm')}"
        )
    return [
        ("scheme", f"{config.scheme}, {config.mode}"),
        ("rounds", f"{config.rounds}, of {config.min_survivors} to {config.max_parties} parties"),
        ("privacy", noise),
        ("in clear", ", ".join(config.reveal_metrics) or "no metrics"),
    ]


def _next(state: TaskState, task: bytes, now: int) -> str:
    short = task.hex()[:8]
    if state.status == "settled":
        return f"flbc task claim {short} --key FILE, and flbc audit {short}"
    if state.status == "refunded":
        return "nothing: the publisher has the escrow back"
    if now > state.deadline:
        return f"the deadline has passed: flbc task refund {short}"
    if state.status == "published" or state.seed == bytes(32):
        return "the publisher runs flbc task publish again, which starts it"
    return f"the run records rounds; flbc audit {short} checks those that are there"


def _participants(hub: Hub, task: bytes, state: TaskState) -> Table:
    paid = state.status == "settled"
    columns = ["party", "name", "account", "roles", "examples", "stake", *(["fetched"] if paid else [])]
    table = table_of("Participants, as frozen at the start", *columns, right=["party", "examples", "stake"])
    for party, seat in enumerate(hub.participants(task)):
        roles = ", ".join(name for name, bit in ROLE_BITS.items() if seat.roles & bit)
        cells = [
            plain(party), plain(_name(hub, seat.account)), plain(checksum_address(seat.account)), plain(roles),
            plain(seat.examples), plain(ether(seat.stake * _GWEI)),
        ]  # fmt: skip
        if paid:
            cells.append(plain("yes" if hub.claimed(task, party) else "no"))
        table.add_row(*cells)
    return table


def _name(hub: Hub, account: bytes) -> str:
    try:
        return name_of(hub.registry.member(account))
    except FlbcError:
        return "?"
