"""A ledger that remembers what it was given: for protocol tests of the strategy, which need no chain."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from flbc.crypto.signing import keccak256
from flbc.errors import LedgerError
from flbc.ledger.record import RoundRecord, SettleRecord, Started
from flbc.roster import Party, Roster
from flbc.task import TaskConfig
from flbc.tokens import Genesis


@dataclass
class MemoryBook:
    chain_id: int = 31337
    hub: bytes = b"\x11" * 20
    link: str = ""
    simulation: bool = True
    reward: int = 10**18
    stake: dict[str, int] = field(default_factory=dict)
    records: list[RoundRecord] = field(default_factory=list)
    settled: SettleRecord | None = None
    closed: bool = False
    refuses: bool = False
    out: frozenset[str] = frozenset()
    seed: bytes = keccak256(b"seed")

    def stakes(self, parties: Sequence[Party]) -> dict[str, int]:
        return {party.name: self.stake.get(party.name, 10**9 if party.has("hospital") else 0) for party in parties}

    def start(self, config: TaskConfig, roster: Roster, model: bytes) -> Started:
        self.config, self.roster = config, roster
        return Started(
            secrets.token_bytes(32), Genesis(model, config.hash, roster.hash).hash, self.seed, self.reward, model
        )

    def suspended(self) -> frozenset[str]:
        return self.out

    def check(self) -> None:
        if self.refuses:
            raise LedgerError("an earlier block was refused")

    def record(self, record: RoundRecord) -> None:
        self.records.append(record)

    def settle(self, record: SettleRecord) -> None:
        self.settled = record

    def close(self) -> None:
        self.closed = True
