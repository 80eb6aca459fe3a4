"""A command's connections: the chain, its contracts, and the account that sends. Loads web3 when it is used."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..crypto.signing import checksum_address
from ..errors import ChainUnavailableError, ConfigError, FlbcError, LedgerError, RevertedError
from .console import waiting
from .keyfiles import open_keys

if TYPE_CHECKING:
    from ..crypto.signing import SigningKey
    from ..ledger.chain import Chain
    from ..ledger.hub import Hub
    from ..ledger.outbox import Outbox
    from ..ledger.transactions import Call

#: Seconds to wait for a transaction.
WAIT = 120.0


@contextmanager
def chain_at(rpc: str) -> Iterator[Chain]:
    """Connect to a chain."""
    with waiting("connecting to the chain"):
        from ..ledger.chain import connect

        chain = connect(rpc)
    with chain:
        yield chain


@contextmanager
def hub_at(rpc: str, file: Path | None) -> Iterator[Hub]:
    """Connect to the contracts on a chain, after checking that they are flbc's."""
    with chain_at(rpc) as chain:
        from ..ledger import deployment
        from ..ledger.hub import Hub

        if file is None:
            found = deployment.find(chain)
        else:
            found = deployment.Deployment.load(file)
            deployment.check(chain, found)
        yield Hub(chain, found)


def paying_key(chain: Chain, file: Path | None) -> SigningKey:
    """Return the key of the account that pays: from a key file, else a development chain's own first account."""
    if file is not None:
        return open_keys(file).signing
    if not chain.development:
        raise ConfigError(
            f"Chain {chain.chain_id} is no development chain: name the account that pays with --key FILE "
            "(`flbc keys new relayer` makes one, which needs some ether for gas)"
        )
    from ..ledger.accounts import development_key

    return development_key()


class Account:
    """An account that sends transactions and waits for them. Made by :func:`account_of`."""

    def __init__(self, chain: Chain, key: SigningKey, outbox: Outbox) -> None:
        self.chain, self.address, self.outbox = chain, key.address, outbox

    def send(self, what: str, call: Call, gas: int | None = None) -> Any:
        """Send a call and return its receipt.

        Parameters
        ----------
        what : str
            For the progress line.
        call : Call
        gas : int or None (default: None)
            Gas limit. None: what the node estimates, so that a call that the contract refuses is never sent. To be
            given where the refusal depends on the time: a node may estimate with the time of its last block.

        Raises
        ------
        RevertedError
            If the contract refuses.
        LedgerError
            If the account cannot pay, or the chain does not take it in time.
        """
        from ..ledger.transactions import MIN_GAS

        outbox = self.outbox
        self.check_funds(gas or MIN_GAS, call.value)
        if gas is None:
            gas = max(self.chain.estimate(call, sender=self.address), call.least_gas)
            self.check_funds(gas, call.value)
        key = f"{what}/{time.time_ns()}"
        outbox.submit(key, call, gas)
        with waiting(what):
            try:
                return outbox.wait(key, WAIT)
            except RevertedError:
                raise
            except LedgerError as error:
                raise LedgerError(f"{error}. It stays queued, and the account's next command sends it first") from None

    def check_funds(self, gas: int, value: int) -> None:
        """Raise :class:`LedgerError` unless the account can pay for a transaction; says where ether comes from."""
        try:
            self.outbox.check_funds(1, gas, value)
        except ChainUnavailableError:
            raise
        except LedgerError as error:
            if not self.chain.development:
                raise
            where = f" --rpc {self.chain.name}" if self.chain.name.startswith("http") else ""
            fund = f"flbc chain fund {checksum_address(self.address)}{where}"
            raise LedgerError(f"{error}. On this development chain `{fund}` does that") from None


@contextmanager
def account_of(chain: Chain, key: SigningKey) -> Iterator[Account]:
    """Open an account's outbox, after what an earlier command left in it has been sent."""
    from ..ledger.development import outbox_path
    from ..ledger.outbox import Outbox

    with Outbox(chain, key, outbox_path(chain, key.address)) as outbox:
        left = outbox.pending()
        if left:
            with waiting(f"sending what this account still had queued ({len(left)})"):
                drain(outbox, WAIT)
        yield Account(chain, key, outbox)


def drain(outbox: Outbox, seconds: float) -> None:
    """Pump until everything is on the chain.

    Raises
    ------
    LedgerError
        If something is left after ``seconds``: says why.
    """
    end, trouble = time.monotonic() + seconds, ""
    while True:
        try:
            if not outbox.pump():
                return
            trouble = ""
        except FlbcError as error:
            trouble = str(error)
        if time.monotonic() >= end:
            break
        time.sleep(0.2)
    left = outbox.pending()
    why = trouble or next((entry.note for entry in left if entry.note), "no block has taken them yet")
    raise LedgerError(f"{left[0].key!r} and what comes after it is not on the chain after {seconds:g} s: {why}")


def spent(receipt: Any) -> str:
    """Describe what a transaction cost: gas, and where it is."""
    return f"gas {receipt['gasUsed']:,}, block {receipt['blockNumber']}"
