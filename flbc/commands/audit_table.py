"""An audit's report for people."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ..crypto.signing import checksum_address
from .amounts import decimal, ether
from .console import facts, plain, table_of

if TYPE_CHECKING:
    from ..ledger.audit import AuditReport
    from ..ledger.audit_rounds import BlockRow

_DOUBTFUL = "bold red"


def report_of(report: AuditReport) -> Iterator[RenderableType]:
    """Show blocks, payouts, the summary, notes and doubts."""
    if report.rounds:
        yield _blocks(report)
    if report.payouts:
        yield _payouts(report)
    yield facts(_summary(report))
    for note in report.notes:
        yield plain(f"note: {note}", "yellow")
    for doubt in report.doubts:
        yield plain(f"doubt: {doubt}", _DOUBTFUL)
    if report.ok:
        yield Text("everything verifies", style="bold green")
    else:
        count = len(report.doubts)
        yield Text(f"{count} {'doubt' if count == 1 else 'doubts'}: do not rely on this task", style=_DOUBTFUL)


def _blocks(report: AuditReport) -> Table:
    columns = ["block", "round", "attempt", "leader (rank)", "signed", "votes", "epsilon", "time", "chain"]
    rejected = any(row.rejected for row in report.rounds)
    doubtful = any(row.doubts for row in report.rounds)
    columns += ["rejected"] * rejected + ["doubts"] * doubtful
    table = table_of("Blocks", *columns, right=[name for name in columns if name != "leader (rank)"])
    for row in report.rounds:
        rank = "no candidate" if row.rank is None else row.rank
        cells = [
            row.height, row.round, row.attempt, f"{row.leader} ({rank})", row.submissions, f"{row.votes}/{row.quorum}",
            _epsilon(row), f"{row.compute_ms / 1000:.0f} s", row.chain_block,
        ]  # fmt: skip
        cells += [row.rejected] * rejected + [row.doubts] * doubtful
        table.add_row(*(plain(cell) for cell in cells), style=_DOUBTFUL if row.doubts else "")
    return table


def _epsilon(row: BlockRow) -> str:
    if row.epsilon is None:
        return "not opened"
    return "no bound" if math.isinf(row.epsilon) else f"{row.epsilon:.4f}"


def _payouts(report: AuditReport) -> Table:
    table = table_of("Payouts", "party", "account", "blocks", "ether", "fetched", right=["blocks", "ether"])
    for row in report.payouts:
        table.add_row(
            plain(row.name), checksum_address(row.account), str(row.blocks), decimal(row.amount),
            "yes" if row.claimed else "no",
        )  # fmt: skip
    total = sum(row.amount for row in report.payouts)
    table.add_section()
    if total == report.reward:
        table.add_row("sum", "", "", decimal(total), "= escrow")
    else:
        table.add_row("sum", "", "", decimal(total), "is not the escrow", style=_DOUBTFUL)
    return table


def _summary(report: AuditReport) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = [
        ("task", report.task.hex()),
        ("on", f"chain {report.chain_id}, hub {checksum_address(report.hub)}" + ", simulation" * report.simulation),
        ("status", report.status),
        ("publisher", checksum_address(report.publisher)),
        ("escrow", _escrow(report)),
    ]
    if report.parties:
        checked = "contract" if report.election == "vrf" else "committee"
        rows += [
            ("parties", f"{report.parties}, {report.committee} in the committee, quorum {report.quorum}"),
            ("election", f"VRF, verified by the {checked}"),
        ]
    if report.rounds:
        signatures = sum(row.submissions for row in report.rounds)
        rows.append(("verified", f"{len(report.rounds)} blocks with {signatures} signed updates"))
    if report.epsilon_budget is not None and report.epsilon is not None:
        rows.append(("epsilon", f"{report.epsilon:.4f} spent of {report.epsilon_budget:g}"))
    elif report.rounds:
        rows.append(("epsilon", "no bound: the sums were opened without noise"))
    if report.accuracy_bps is not None:
        rows.append(("accuracy", f"{report.accuracy_bps / 100:.2f} %" if report.accuracy_bps else "not measured"))
    if report.link:
        rows.append(("model", report.link))
    return rows


def _escrow(report: AuditReport) -> str:
    text = ether(report.reward)
    if report.refunded:
        return f"{text}, returned to the publisher"
    if report.status != "settled":
        return text
    left = report.reward - report.paid
    return f"{text}, fetched {ether(report.paid)}" + (f", {ether(left)} wait to be fetched" if left > 0 else "")
