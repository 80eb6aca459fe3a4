"""Show an audit's report in a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..crypto.signing import checksum_address
from .audit import AuditReport

_ETHER = 10**18
_SECOND = 1000


def render(report: AuditReport) -> Group:
    """Return what is printed: the task, a line per block, a line per payout, notes, and the doubts last."""
    return Group(*_parts(report))


def _parts(report: AuditReport) -> Iterator[RenderableType]:
    yield _summary(report)
    if report.rounds:
        yield _rounds(report)
    if report.payouts:
        yield _payouts(report)
    for note in report.notes:
        yield Text(f"note: {note}", style="dim")
    for doubt in report.doubts:
        yield Text(f"DOUBT {doubt}", style="bold red")
    verdict = "everything verifies" if report.ok else f"{len(report.doubts)} doubts: do not rely on this task"
    yield Text(f"audit of task {report.task.hex()[:16]}…: {verdict}", style="bold green" if report.ok else "bold red")


def _summary(report: AuditReport) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    simulation = "  (development identities)" if report.simulation else ""
    rows = {
        "task": f"0x{report.task.hex()}",
        "hub": f"{checksum_address(report.hub)} on chain {report.chain_id}{simulation}",
        "status": report.status,
        "parties": f"{report.parties}, of these {report.committee} in the committee; quorum {report.quorum}",
        "election": report.election,
        "compute times": f"attested by {report.attestor}",
        "epsilon": _budget(report),
        "escrow": f"{ether(report.reward)}: {ether(report.paid)} paid, {ether(report.refunded)} refunded",
    }
    if report.accuracy_bps is not None:
        rows["final model"] = f"accuracy {report.accuracy_bps / 100:.2f} %  {report.link}"
    for name, value in rows.items():
        table.add_row(name, Text(value))
    return table


def _rounds(report: AuditReport) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="rounds", title_justify="left")
    numbers = ("block", "round", "attempt")
    for name in numbers:
        table.add_column(name, justify="right")
    table.add_column("leader")
    for name in ("rank", "signed", "rejected", "votes", "compute s", "epsilon", "doubts"):
        table.add_column(name, justify="right")
    for row in report.rounds:
        cells = (
            row.height, row.round, row.attempt, row.leader, "?" if row.rank is None else row.rank, row.submissions,
            row.rejected, f"{row.votes}/{row.quorum}", row.compute_ms // _SECOND, _epsilon(row.epsilon), row.doubts,
        )  # fmt: skip
        table.add_row(*(Text(str(cell)) for cell in cells), style="red" if row.doubts else None)
    return table


def _payouts(report: AuditReport) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="payouts", title_justify="left", show_footer=True)
    total = sum(row.amount for row in report.payouts)
    table.add_column("party", "sum")
    table.add_column("account")
    table.add_column("blocks", justify="right")
    table.add_column("amount", ether(total), justify="right")
    table.add_column("claimed", justify="right")
    for row in report.payouts:
        claimed = "yes" if row.claimed else "not yet"
        cells = (row.name, checksum_address(row.account), str(row.blocks), ether(row.amount), claimed)
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _budget(report: AuditReport) -> str:
    if report.epsilon is None or report.epsilon_budget is None:
        return "no differential privacy: unbounded"
    return f"{report.epsilon:.4f} spent of {report.epsilon_budget:g}"


def _epsilon(value: float | None) -> str:
    if value is None:
        return "not opened"
    return "unbounded" if value == float("inf") else f"{value:.4f}"


def ether(wei: int) -> str:
    """Write an amount in ether with all its digits, without trailing zeros."""
    whole, rest = divmod(wei, _ETHER)
    decimals = f"{rest:018}".rstrip("0")
    return f"{whole}.{decimals} ETH" if decimals else f"{whole} ETH"
