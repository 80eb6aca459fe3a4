"""Sending transactions so that each takes effect once, whatever dies in between.

A call is written to disk when it is submitted, and its signed transaction before any node sees it. From then on the
same bytes are sent until a block has them, so a crash of this process, of the node, or of the line in between never
makes a second transaction. What happens to them:

* **Order.** Nonces are given in the order of submission, at the first contact with the chain; nothing is sent before
  all that was submitted earlier.
* **Lost blocks.** The newest settled entry must still be in the chain; if its block is gone (a reorganisation, or a
  node that came back without its last seconds), entries are reopened from there backwards and sent again by nonce.
* **Fees.** If blocks go by without an entry for ``patience`` seconds, the same nonce is signed again with an eighth
  more, or what the market asks. Any of the signed versions may be the one that a block takes; all are looked for.
* **Somebody else uses the account.** If an entry's nonce is used and no version of the entry has a receipt, still
  ``depth`` blocks after that was first seen, none of its versions can land any more short of a reorganisation deeper
  than ``depth``: two transactions with one nonce cannot both be in a chain. Only then is the entry ``replaced``, and
  only then does :meth:`Outbox.retry` sign it under a new nonce. Before that it might be executed twice.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from web3.types import TxReceipt

from ..crypto.signing import SigningKey, checksum_address
from ..errors import ChainUnavailableError, ConfigError, LedgerError
from . import accounts
from .chain import GWEI, Chain
from .files import ProcessLock, home
from .journal import Entry, Journal, State
from .sender import POOR, Policy, Sender, ether
from .transactions import MIN_GAS, Call, check_gas


class Outbox:
    """One account's outgoing transactions on one chain.

    Thread-safe: any thread may submit, pump and wait; submitting never waits for the node. One outbox per account and
    machine: a second one would use the same nonces.

    Parameters
    ----------
    chain : Chain
    key : SigningKey
        The account that sends and pays.
    path : Path
        The outbox file; made if it does not exist.
    depth : int (default: 0)
        Blocks on top of an entry's until it is final. 0 suits the embedded chain, where nothing is undone and blocks
        come only with transactions; 12 or more a public chain.
    patience : float (default: 60)
        Seconds without being included, while blocks go by, after which the fees are raised.
    resend : float (default: 5)
        Seconds after which a transaction that waits is offered to the node again, if the node lost it.
    fee_limit : int (default: 1000 gwei)
        Most that a unit of gas may ever cost, in wei; protects the account from what a node says the market is.

    Raises
    ------
    ChainBusyError
        If the account's outbox is open, here or in another process.
    ChainResetError, LedgerError
        If the file belongs to another chain or account.
    ConfigError
        If the key is a development account's, which everybody knows, and the chain is no development chain (S2).
    """

    def __init__(
        self,
        chain: Chain,
        key: SigningKey,
        path: Path,
        depth: int = 0,
        *,
        patience: float = 60.0,
        resend: float = 5.0,
        fee_limit: int = 1000 * GWEI,
    ) -> None:
        self._name = checksum_address(key.address)
        if not chain.development and key.address in accounts.ADDRESSES:
            raise ConfigError(f"Everybody knows the key of {self._name}; on {chain.name} use an account of your own")
        self.chain, self.account = chain, key.address
        self._pumping, self._closed = threading.RLock(), False
        name = f"{chain.chain_id}-{chain.genesis.hex()[:16]}-{key.address.hex()}.lock"
        cure = "Wait for it to end, or send from another account: two senders would use the same transaction numbers"
        self._lock = ProcessLock(home() / "locks" / name, f"The account {self._name}", cure)
        try:
            self._file_lock = ProcessLock(path.with_name(path.name + ".lock"), f"The outbox {path}", cure)
            try:
                self._journal = Journal(path, chain.chain_id, chain.genesis, key.address)
            except BaseException:
                self._file_lock.release()
                raise
        except BaseException:
            self._lock.release()
            raise
        self._sender = Sender(chain, key, self._journal, Policy(depth, patience, resend, fee_limit))

    # ------------------------------------------------------------------ what users call
    def submit(self, key: str, call: Call | Any, gas: int, value: int = 0) -> bool:
        """Queue a call, durably; :meth:`pump` sends it. Asks no node, so it works while the chain is out of reach.

        Parameters
        ----------
        key : str
            Idempotency key: submitting the same call under it again does nothing.
        call : Call or web3 contract function
        gas : int
            Gas limit, at most :data:`~flbc.ledger.transactions.MAX_GAS`; see :meth:`Chain.estimate`.
        value : int (default: 0)
            Wei to send with a contract function.

        Returns
        -------
        bool
            Whether it is new.

        Raises
        ------
        LedgerError
            If the key stands for another call already.
        """
        if not key:
            raise ConfigError("An idempotency key must not be empty")
        what = call if isinstance(call, Call) else Call.of(call, value)
        check_gas(what, gas)
        return self._journal.add(key, what, gas)

    def pump(self) -> int:
        """Look what became of everything, and send what can be sent. Call it on a timer.

        Returns
        -------
        int
            Entries that are not settled yet (queued, sent, or mined but not final).

        Raises
        ------
        ChainUnavailableError
            If the node does not answer; what is queued stays queued.
        ChainResetError
            If the node serves another chain now.
        """
        with self._pumping:
            if self._closed:
                raise LedgerError("The outbox was closed")
            try:
                self.chain.check(self.chain.chain_id, self.chain.genesis, f"The outbox {self._journal.path}")
                self._sender.reopen()
                if self._sender.send(*self._sender.observe()):
                    self._sender.observe()  # many development chains make the block at once
            except ChainUnavailableError:
                self._sender.forget()  # the node may come back without what it was given
                raise
            return len(self._journal.open())

    def wait(self, key: str, seconds: float = 60.0, *, final: bool = False) -> TxReceipt:
        """Pump until an entry is in a block, and return its receipt.

        Parameters
        ----------
        key : str
        seconds : float (default: 60)
        final : bool (default: False)
            Wait until it is final, that is ``depth`` blocks deep.

        Raises
        ------
        RevertedError
            If the contract refused it.
        LedgerError
            If the account cannot pay for it, if somebody else used its nonce, or if the time is over.
        ChainUnavailableError
            If the time is over and the node does not answer.
        """
        end, pause = time.monotonic() + seconds, 0.005
        while True:
            trouble: LedgerError | None = None
            try:
                self.pump()
            except ChainUnavailableError as error:
                trouble = error
            entry = self._journal.get(key)
            receipt = None if trouble else self._outcome(entry, final)
            if receipt is not None:
                return receipt
            if time.monotonic() >= end:
                late = f"{key!r} is not on the chain after {seconds:g} s (it is {entry.state})"
                raise trouble or LedgerError(f"{late}: {entry.note or 'no block has taken it yet; wait longer'}")
            time.sleep(min(pause, max(0.0, end - time.monotonic())))
            pause = min(pause * 1.5, 0.5)

    def get(self, key: str) -> Entry:
        """Return what is known about an entry, without asking the node."""
        return self._journal.get(key)

    def pending(self) -> list[Entry]:
        """Return the entries that are not settled, in the order of sending."""
        return self._journal.open()

    def failed(self) -> list[tuple[Entry, LedgerError]]:
        """Return the entries that the contract refused or that were replaced, each with what :meth:`wait` would raise.

        Nobody waits for what is sent in the background, so look here before relying on it.
        """
        found = [(entry, self._failure(entry)) for entry in self._journal.failed()]
        return [(entry, failure) for entry, failure in found if failure is not None]

    def retry(self, key: str) -> None:
        """Queue a replaced entry again, under a new nonce.

        Raises
        ------
        LedgerError
            If it is not ``replaced``: one of its signed versions could still land, and it would be executed twice.
        """
        with self._pumping:
            self.pump()
            entry = self._journal.get(key)
            if entry.state is not State.REPLACED:
                raise LedgerError(f"{key!r} is {entry.state}; only a replaced entry can be sent under another nonce")
            self._journal.release(entry)

    def check_funds(self, transactions: int, gas_each: int, value: int = 0) -> None:
        """Raise :class:`LedgerError` unless the account can pay for so many transactions at twice today's base fee.

        Parameters
        ----------
        transactions, gas_each
            How many, and the gas limit of each.
        value : int (default: 0)
            Wei that they send altogether.
        """
        needed = transactions * gas_each * self.chain.fees().most + value
        balance = self.chain.balance(self.account)
        if balance < needed:
            what = "1 transaction" if transactions == 1 else f"{transactions} transactions"
            raise LedgerError(
                f"The account {self._name} has {ether(balance)} on {self.chain.name}, but {what} may "
                f"cost {ether(needed)}: send it {ether(needed - balance)} and start again"
            )

    def mine_one(self, seconds: float = 60.0) -> TxReceipt:
        """Make a block happen, with a transfer of nothing to oneself: development chains make none without."""
        key = f"block/{time.time_ns()}"
        self.submit(key, Call(self.account), MIN_GAS)
        return self.wait(key, seconds)

    def close(self) -> None:
        """Close the file and let the account go; what is queued is sent when the outbox is opened again."""
        with self._pumping:
            if not self._closed:
                self._closed = True
                self._journal.close()
                self._file_lock.release()
                self._lock.release()

    def __enter__(self) -> Outbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _outcome(self, entry: Entry, final: bool) -> TxReceipt | None:
        """Return the receipt of an entry that is far enough, None if it is not yet, or raise what stopped it."""
        failure = self._failure(entry)
        if failure is not None:
            raise failure
        if entry.hash is not None and (entry.state is State.FINAL or (entry.state is State.MINED and not final)):
            return self.chain.receipt(entry.hash)
        if entry.note.startswith(POOR):
            raise LedgerError(entry.note)
        return None

    def _failure(self, entry: Entry) -> LedgerError | None:
        if entry.state is State.REVERTED:
            return self.chain.reverted(entry.reason or b"")
        if entry.state is State.REPLACED:
            return LedgerError(
                f"{entry.key!r} was not executed: {entry.note}. Somebody else uses the account {self._name}: "
                f"stop that, then retry it under a new nonce"
            )
        return None
