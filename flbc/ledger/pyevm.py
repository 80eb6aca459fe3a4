"""eth-tester's py-evm backend on a store of its own, with what it lacks for a ledger that is read again.

Differences to eth-tester: the chain is opened, not made anew; a call or an estimate runs as the next block would run it
(time of now, no fees, so that the sender needs no ether) and keeps its revert data; transactions and logs are looked
up by py-evm's index and bloom filters instead of a walk over all blocks (0.2 ms instead of 2.5 ms per block); a
transaction that was signed for another chain is refused, which py-evm does not do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from eth.db.atomic import AtomicDB
from eth.exceptions import Revert, TransactionNotFound, VMError
from eth.vm.spoof import SpoofTransaction
from eth_bloom.bloom import BloomFilter
from eth_tester import EthereumTester, PyEVMBackend  # type: ignore[import-untyped]
from eth_tester.backends.pyevm.main import setup_tester_chain  # type: ignore[import-untyped]
from eth_tester.backends.pyevm.serializers import (  # type: ignore[import-untyped]
    serialize_log,
    serialize_transaction,
    serialize_transaction_receipt,
)
from eth_tester.exceptions import TransactionNotFound as NoSuchTransaction  # type: ignore[import-untyped]
from eth_tester.utils.filters import check_if_log_matches  # type: ignore[import-untyped]
from eth_utils.exceptions import ValidationError

from . import accounts
from .store import Store

CHAIN_ID = 131277322940537  # eth-tester's, which web3 expects of it
_HEAD = b"v1:canonical_head_hash"  # py-evm's key of the newest block's hash


class RevertedCall(Exception):  # noqa: N818 - becomes a JSON-RPC error
    """A call or an estimate that failed in the contract."""

    def __init__(self, error: VMError) -> None:
        super().__init__(str(error))
        data = error.args[0] if isinstance(error, Revert) and error.args else None
        self.data = bytes(data) if isinstance(data, bytes) else None


class Backend(PyEVMBackend):  # type: ignore[misc]
    """eth-tester's py-evm backend on a store of its own."""

    def __init__(self, store: Store) -> None:
        self._store = store
        super().__init__()

    def reset_to_genesis(self, *_arguments: Any, **_options: Any) -> None:
        """Open the stored chain at its head, or make one."""
        genesis = self.generate_genesis_params()
        # Two chains made in the same second must not be one chain.
        genesis["extra_data"] = os.urandom(32)
        genesis["timestamp"] -= 1
        self.account_keys, fresh = setup_tester_chain(
            genesis_params=genesis,
            num_accounts=accounts.COUNT,
            mnemonic=accounts.MNEMONIC,
            hd_path=accounts.HD_PATH,
        )
        self._chain_class = type(fresh)
        if _HEAD not in self._store:
            for key, value in fresh.chaindb.db.wrapped_db.kv_store.items():
                self._store[key] = value
            self._store.commit()
        self.reopen()

    def reopen(self) -> None:
        """Go to the last durable block, whatever was begun after it."""
        self.chain = self._chain_class(AtomicDB(self._store))

    def next_block(self) -> None:
        """Begin a new block now; eth-tester would give it the time at which the last one was made."""
        self.chain.header = self.chain.ensure_header()

    def send_raw_transaction(self, raw_transaction: bytes) -> bytes:
        """Apply a signed transaction; py-evm itself would take one that was signed for another chain."""
        try:
            transaction = self.chain.get_transaction_builder().decode(raw_transaction)
            transaction.validate()
        except Exception as error:  # RLP, signature and type errors have nothing in common
            raise ValidationError(f"not a signed transaction: {error}") from None
        if transaction.chain_id not in (None, CHAIN_ID):
            raise ValidationError(f"invalid chain id {transaction.chain_id}; this is chain {CHAIN_ID}")
        if self._place(transaction.hash) is not None:
            raise ValidationError("already known")
        self.chain.apply_transaction(transaction)
        return bytes(transaction.hash)

    def call(self, transaction: dict[str, Any], block_number: Any = "latest") -> bytes:
        """Run a call as the next block after ``block_number`` would run it, at no cost to the sender."""
        free = {"gas": self._max_available_gas()} | transaction | {"max_fee_per_gas": 0, "max_priority_fee_per_gas": 0}
        free.pop("gas_price", None)
        with self._after(block_number).in_costless_state() as state:
            computation = state.apply_transaction(self._spoof(free, block_number))
        if computation.is_error:
            raise RevertedCall(computation.error)
        return bytes(computation.output)

    def estimate_gas(self, transaction: dict[str, Any], block_number: Any = "latest") -> int:
        """Estimate the gas of a call in the next block after ``block_number``."""
        free = transaction | {"gas": 21_000, "max_fee_per_gas": 0, "max_priority_fee_per_gas": 0}
        free.pop("gas_price", None)
        try:
            return int(self.chain.estimate_gas(self._spoof(free, block_number), self._after(block_number).get_header()))
        except VMError as error:
            raise RevertedCall(error) from None

    def _spoof(self, transaction: dict[str, Any], block_number: Any) -> Any:
        unsigned = self._get_normalized_and_unsigned_evm_transaction(transaction, block_number)
        return SpoofTransaction(unsigned, from_=transaction["from"])

    def _after(self, block_number: Any) -> Any:
        """Return a VM at a block whose costless state is that of the block's child."""
        if block_number == "earliest":
            block_number = 0
        header = (
            self.chain.get_canonical_block_header_by_number(block_number)
            if isinstance(block_number, int)
            else self.chain.get_canonical_head()
        )
        return self.chain.get_vm(header)

    # eth-tester searches all blocks from the newest down for a transaction; py-evm keeps an index.
    def _place(self, transaction_hash: bytes) -> tuple[int, int] | None:
        try:
            number, index = self.chain.get_canonical_transaction_index(transaction_hash)
        except TransactionNotFound:
            return None
        return int(number), int(index)

    def _find(self, transaction_hash: bytes) -> tuple[Any, Any, int]:
        place = self._place(transaction_hash)
        if place is None:
            raise NoSuchTransaction("No such transaction")
        block = self.chain.get_canonical_block_by_number(place[0])
        return block, block.transactions[place[1]], place[1]

    def get_transaction_by_hash(self, transaction_hash: bytes) -> Any:
        """Return a mined transaction."""
        return serialize_transaction(*self._find(transaction_hash), is_pending=False)

    def get_transaction_receipt(self, transaction_hash: bytes) -> Any:
        """Return a mined transaction's receipt."""
        block, transaction, index = self._find(transaction_hash)
        receipts = block.get_receipts(self.chain.chaindb)
        return serialize_transaction_receipt(block, receipts, transaction, index, False, self.chain.get_vm())

    def logs_of(self, number: int) -> Iterator[Any]:
        """Yield the logs of a block."""
        block = self.chain.get_canonical_block_by_number(number)
        receipts = block.get_receipts(self.chain.chaindb)
        for index, (transaction, receipt) in enumerate(zip(block.transactions, receipts, strict=True)):
            for place, log in enumerate(receipt.logs):
                yield serialize_log(block, transaction, index, log, place, False)


class Tester(EthereumTester):  # type: ignore[misc]
    """eth-tester, looking for logs only in blocks whose bloom filter says that there may be some."""

    def get_logs(self, from_block: Any = None, to_block: Any = None, address: Any = None, topics: Any = None) -> Any:
        """Return the logs of a range of blocks."""
        address, topics = _in_hex(address), _in_hex(topics)
        self.validator.validate_inbound_filter_params(from_block=0, to_block=0, address=address, topics=topics)
        *_, addresses, wanted = self.normalizer.normalize_inbound_filter_params(0, 0, address, topics)
        head = self.backend.chain.get_canonical_head().block_number
        first, last = (self._number(block, head) for block in (from_block, to_block))
        found: list[Any] = []
        for number in range(first, min(last, head) + 1):
            header = self.backend.chain.get_canonical_block_header_by_number(number)
            if header.bloom and _may_hold(header.bloom, address, topics):
                logs = self.backend.logs_of(number)
                found.extend(log for log in logs if check_if_log_matches(log, number, number, addresses, wanted))
        return tuple(map(self.normalizer.normalize_outbound_log_entry, found))

    @staticmethod
    def _number(block: Any, head: int) -> int:
        if isinstance(block, str) and block.startswith("0x"):
            return int(block, 16)
        if isinstance(block, int):
            return block
        return 0 if block == "earliest" else head


def _in_hex(value: Any) -> Any:
    """Write the byte strings of a nested list of addresses or topics in hexadecimal."""
    if isinstance(value, bytes):
        return "0x" + value.hex()
    return [_in_hex(item) for item in value] if isinstance(value, list | tuple) else value


def _may_hold(bloom: int, address: Any, topics: Any) -> bool:
    """Whether a block's bloom filter admits logs of (one of) these addresses with these topics."""
    present = BloomFilter(bloom)

    def admitted(choice: Any) -> bool:
        if isinstance(choice, list):
            return not choice or any(map(admitted, choice))
        return choice is None or bytes.fromhex(choice.removeprefix("0x")) in present

    return admitted(address) and all(map(admitted, topics or ()))
