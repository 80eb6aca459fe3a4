"""``flbc task sync``: send what a run left behind."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from ..crypto.signing import checksum_address
from ..errors import FlbcError, LedgerError
from .console import say
from .options import EMBEDDED, Payer, Rpc
from .session import chain_at, paying_key

if TYPE_CHECKING:
    from ..ledger.chain import Chain
    from ..ledger.outbox import Outbox

#: Blocks after which a public chain is not expected to undo a record; as in a run.
_CONFIRMATIONS = 12
_PAUSE = 0.5


def sync(
    key: Payer = None,
    seconds: Annotated[float, typer.Option(min=0, help="How long to try.")] = 600.0,
    confirmations: Annotated[
        int | None,
        typer.Option(min=0, help="Blocks on top of a record's to wait for; default 12, on a development chain 0."),
    ] = None,
    retry: Annotated[
        str | None,
        typer.Option(metavar="RECORD", help="Send a record again whose place another program's transaction took."),
    ] = None,
    rpc: Rpc = EMBEDDED,
) -> None:
    """Send the records that a run still had queued, and wait until they are on the chain."""
    from ..ledger.build import CONTRACTS, artifact
    from ..ledger.development import outbox_path
    from ..ledger.outbox import Outbox

    with chain_at(rpc) as chain:
        for name in CONTRACTS:
            chain.learn(artifact(name)["abi"])
        payer = paying_key(chain, key)
        depth = (0 if chain.development else _CONFIRMATIONS) if confirmations is None else confirmations
        with Outbox(chain, payer, outbox_path(chain, payer.address), depth) as outbox:
            if retry is not None:
                outbox.retry(retry)
            queued = [entry.key for entry in outbox.pending()]
            if not queued:
                say(f"nothing is queued for account {checksum_address(payer.address)}")
                return
            left = _pump(outbox, queued, seconds)
            failed = _failures(chain, outbox, queued)
        if left or failed:
            raise LedgerError(". ".join([*failed, *([left] if left else [])]))
        say(f"all {len(queued)} records are on the chain")


def _pump(outbox: Outbox, queued: list[str], seconds: float) -> str:
    """Pump until nothing is left; return what is in the way when the time is over."""
    end, told = time.monotonic() + seconds, ""
    while True:
        trouble = ""
        try:
            if not outbox.pump():
                return ""
        except FlbcError as error:
            trouble = str(error)
        left = outbox.pending()
        trouble = trouble or next((entry.note for entry in left if entry.note), "")
        line = f"{len(left)} of {len(queued)} records are left; the first, {left[0].key}, is {left[0].state}"
        line += f": {trouble}" if trouble else ""
        if line != told:
            say(line)
            told = line
        if time.monotonic() >= end:
            return f"After {seconds:g} s {line}. Run `flbc task sync` again; nothing is lost"
        time.sleep(_PAUSE)


def _failures(chain: Chain, outbox: Outbox, queued: list[str]) -> list[str]:
    from ..ledger.journal import State

    found = []
    for name in queued:
        entry = outbox.get(name)
        if entry.state is State.REVERTED:
            found.append(f"{name} was refused. {chain.revert(entry.reason or b'')}")
        elif entry.state is State.REPLACED:
            found.append(f"{name} was not executed: {entry.note}. Stop that, then `flbc task sync --retry {name}`")
    return found
