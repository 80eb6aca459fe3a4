"""What a chain can be asked, in our own types and errors: blocks, receipts, accounts, logs, and why a call fails."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from web3 import Web3
from web3.exceptions import (
    BadFunctionCallOutput,
    BlockNotFound,
    ContractLogicError,
    TransactionNotFound,
    Web3Exception,
)
from web3.types import BlockData, LogReceipt, TxReceipt

from ..crypto.signing import checksum_address
from ..errors import ChainResetError, ChainUnavailableError, LedgerError, RevertedError
from .reverts import ErrorBook, revert_data

#: Blocks asked for logs at once; providers commonly allow 1,000 to 10,000.
LOG_STEP = 1000
# What providers say when a request may succeed a little later.
_BUSY = re.compile(r"rate.?limit|too many requests|limit exceeded|timed? ?out|temporarily|try again", re.I)


class Reader:
    """The reading half of :class:`~flbc.ledger.chain.Chain`.

    Parameters
    ----------
    provider
        A web3 provider with a ``close`` method.
    name : str
        For messages.
    """

    def __init__(self, provider: Any, name: str) -> None:
        self.w3, self.name = Web3(provider), name
        self._errors = ErrorBook()

    # ------------------------------------------------------------------ which chain
    def identity(self) -> tuple[int, bytes]:
        """Ask the node for the chain's id and the hash of its block 0."""
        with self.explained():
            chain_id = self.w3.eth.chain_id
        genesis = self.block(0)
        if genesis is None:
            raise LedgerError(f"{self.name} has no block 0: it has to be a node with the chain's whole history")
        return chain_id, bytes(genesis["hash"])

    def check(self, chain_id: int, genesis: bytes, what: str) -> None:
        """Raise :class:`ChainResetError` unless the node serves, right now, the chain that ``what`` is on."""
        found = self.identity()
        if found != (chain_id, genesis):
            raise ChainResetError(
                f"{what} is on chain {chain_id} with block 0 = 0x{genesis.hex()[:16]}…, but {self.name} serves chain "
                f"{found[0]} with block 0 = 0x{found[1].hex()[:16]}…. Was the node restarted without its state? Start "
                f"it with the old state, or move {what} away and deploy to the new chain with `flbc deploy`"
            )

    # ------------------------------------------------------------------ reading
    def block(self, number: int | str) -> BlockData | None:
        """Return a block by number, or ``"latest"``; None if there is none (any more)."""
        with self.explained():
            try:
                return self.w3.eth.get_block(number)  # type: ignore[arg-type]
            except BlockNotFound:
                return None

    def height(self) -> int:
        """Return the newest block's number."""
        with self.explained():
            return int(self.w3.eth.block_number)

    def now(self) -> int:
        """Return the Unix time that the next block will have at least: the clock's, or the newest block's if later.

        Take this for deadlines: blocks of a busy development chain run ahead of the clock, an idle chain's stay behind.
        """
        latest = self.block("latest")
        return max(int(time.time()), 0 if latest is None else int(latest["timestamp"]))

    def nonce(self, account: bytes) -> int:
        """Return how many transactions of an account are in blocks."""
        with self.explained():
            return int(self.w3.eth.get_transaction_count(text_of(account), "latest"))

    def balance(self, account: bytes) -> int:
        """Return an account's ether in wei."""
        with self.explained():
            return int(self.w3.eth.get_balance(text_of(account), "latest"))

    def receipt(self, transaction: bytes) -> TxReceipt | None:
        """Return the receipt of a transaction that is in a block, else None."""
        with self.explained():
            try:
                receipt = self.w3.eth.get_transaction_receipt(transaction)  # type: ignore[arg-type]
            except TransactionNotFound:
                return None
        return receipt if receipt.get("blockNumber") is not None else None

    def knows(self, transaction: bytes) -> bool:
        """Whether the node has a transaction, in a block or waiting."""
        with self.explained():
            try:
                self.w3.eth.get_transaction(transaction)  # type: ignore[arg-type]
            except TransactionNotFound:
                return False
        return True

    def logs(
        self, address: bytes | str, topics: Sequence[Any] | None = None, first: int = 0, last: int | None = None
    ) -> Iterator[LogReceipt]:
        """Yield a contract's logs in order.

        Parameters
        ----------
        address : bytes or str
        topics : sequence or None (default: None)
            As in ``eth_getLogs``: a value, a list of alternatives or None at each place.
        first, last : int
            Blocks, both included; ``last=None``: the newest.
        """
        head = self.height()
        end = head if last is None else min(last, head)
        step = LOG_STEP
        while first <= end:
            query: Any = {"address": text_of(address), "fromBlock": first, "toBlock": min(end, first + step - 1)}
            if topics is not None:
                query["topics"] = list(topics)
            try:
                with self.explained():
                    found = self.w3.eth.get_logs(query)
            except LedgerError as error:
                if isinstance(error, ConnectionError) or step == 1:
                    raise
                step //= 2  # some providers limit the number of logs, too
                continue
            yield from found
            first += step

    # ------------------------------------------------------------------ what went wrong
    def reverted(self, cause: BaseException | bytes) -> RevertedError | None:
        """Return the contract's error behind a web3 exception or revert data; None if no contract refused."""
        if isinstance(cause, RevertedError):
            return cause
        data = cause if isinstance(cause, bytes) else revert_data(cause)
        if data is None and isinstance(cause, ContractLogicError):
            data = b""
        return None if data is None else self._errors.explain(data)

    def revert(self, cause: BaseException | bytes) -> str:
        """Describe an exception or revert data in words: the contract's error with its arguments, if it is one."""
        return str(self.reverted(cause) or cause)

    @contextmanager
    def explained(self, reverts: bool = True) -> Iterator[None]:
        """Turn web3's exceptions into ours, inside a ``with`` block."""
        try:
            yield
        except BadFunctionCallOutput:
            raise LedgerError(
                f"There is no such contract on {self.name}: was the chain reset, or is the deployment another chain's?"
            ) from None
        except Web3Exception as error:
            found = self.reverted(error) if reverts else None
            if found is not None:
                raise found from None
            text = f"{self.name}: {_message(error)}"
            raise (ChainUnavailableError if _BUSY.search(text) else LedgerError)(text) from None


def text_of(address: bytes | str) -> Any:
    """Write an address as web3 wants it."""
    return checksum_address(address) if isinstance(address, bytes) else address


def _message(error: Web3Exception) -> str:
    response = getattr(error, "rpc_response", None)
    fault = response.get("error") if isinstance(response, Mapping) else None
    return str(fault.get("message"))[:500] if isinstance(fault, Mapping) else str(error)[:500]
