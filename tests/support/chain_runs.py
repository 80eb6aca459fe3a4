"""What tests of whole runs on a chain need: a home to start from, a line to cut, what the chain says afterwards."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from flbc.crypto.signing import SigningKey, keccak256
from flbc.errors import ChainUnavailableError
from flbc.ledger import accounts, deployment
from flbc.ledger.audit import AuditReport, audit
from flbc.ledger.chain import Chain, connect
from flbc.ledger.development import outbox_path
from flbc.ledger.embedded import EmbeddedProvider
from flbc.ledger.history import read_task
from flbc.ledger.hub import Hub
from flbc.ledger.journal import State
from flbc.ledger.outbox import Outbox
from flbc.ledger.packing import PackedPayout, unpack_all
from flbc.ledger.payouts import merkle_proof
from flbc.ledger.publishing import event_signature
from flbc.ledger.records import TaskHistory

GAS = 500_000


@contextmanager
def hub_on(url: str = "embedded", file: Path | None = None) -> Iterator[Hub]:
    """Connect to the chain and the contracts in FLBC_HOME, or those of a deployment file."""
    with connect(url) as chain:
        found = deployment.find(chain) if file is None else deployment.Deployment.load(file)
        yield Hub(chain, found)


def tasks(hub: Hub) -> list[bytes]:
    """Return the ids of all tasks of a hub, the oldest first."""
    event = hub.contract.events.TaskPublished()
    topic = "0x" + keccak256(event_signature(event.abi)).hex()
    return [bytes(entry["topics"][1]) for entry in hub.chain.logs(hub.address, [topic])]


def history_of(task: bytes | None = None, url: str = "embedded", file: Path | None = None) -> TaskHistory:
    """Read a task, the newest one by default, from the chain."""
    with hub_on(url, file) as hub:
        return read_task(hub.chain, hub.deployment, task or tasks(hub)[-1])


def audited(task: bytes | None = None, url: str = "embedded", file: Path | None = None) -> AuditReport:
    """Audit a task, the newest one by default; it must be without doubt."""
    report = audit(history_of(task, url, file))
    assert not report.doubts, report.doubts
    return report


def outbox_of(chain: Chain, key: SigningKey | None = None) -> Outbox:
    """Open an account's outbox where runs keep it; the relayer's by default."""
    key = key or accounts.development_key()
    return Outbox(chain, key, outbox_path(chain, key.address))


def transact(hub: Hub, key: SigningKey, name: str, call: Any, gas: int = GAS) -> Any:
    """Send one call through an account's outbox and wait for it."""
    with outbox_of(hub.chain, key) as outbox:
        outbox.submit(name, call, gas)
        return outbox.wait(name)


def sync(url: str = "embedded") -> int:
    """Send what a dead run left in the relayer's outbox, as `flbc task sync` does; return how many were refused."""
    with connect(url) as chain, outbox_of(chain) as outbox:
        queued = [entry.key for entry in outbox.pending()]
        outbox.pump()
        assert not outbox.pending()
        return sum(outbox.get(key).state is State.REVERTED for key in queued)


def claim_of(hub: Hub, task: bytes, settlement: Any, party: int) -> Any:
    """Return the call with which a party fetches its payout."""
    payouts = {row.party: row.amount for row in unpack_all(PackedPayout, settlement.payouts)}
    accounts_ = [seat.account for seat in hub.participants(task)]
    return hub.claim(task, party, payouts[party], merkle_proof(payouts, accounts_, party))


def wait_until(ready: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for what another thread or process does."""
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, f"not so after {seconds:g} s"
        time.sleep(0.02)


@dataclass
class Line:
    """The line to the embedded chain. ``cut`` decides, per method, before the chain sees a request; ``lose`` after it.

    A lost answer is the worse case: the chain has done what nobody knows of.
    """

    cut: Callable[[str], bool] = lambda method: False
    lose: Callable[[str], bool] = lambda method: False
    waited: list[str] = field(default_factory=list)  # methods that the main thread asked for

    def install(self, monkeypatch: pytest.MonkeyPatch) -> Line:
        """Put every provider of this process behind the line."""
        original = EmbeddedProvider.make_request

        def request(provider: EmbeddedProvider, method: Any, params: Any) -> Any:
            if threading.current_thread() is threading.main_thread():
                self.waited.append(method)
            if self.cut(method):
                raise ChainUnavailableError("The node http://test does not answer: start it with `flbc chain up`")
            answer = original(provider, method, params)
            if self.lose(method):
                raise ChainUnavailableError("The node http://test broke off its answer")
            return answer

        monkeypatch.setattr(EmbeddedProvider, "make_request", request)
        return self

    @property
    def is_down(self) -> bool:
        """Whether it is cut for everything."""
        return self.cut("")

    def down(self) -> None:
        """Cut it."""
        self.cut = lambda method: True

    def up(self) -> None:
        """Mend it."""
        self.cut = self.lose = lambda method: False
