"""One chain, whichever node serves it: the embedded one, Anvil, Ganache, or any EVM node over HTTP.

What differs between nodes is probed at :func:`connect` or recognised in the answer, never guessed from the client's
name: whether there is a base fee, what "I have this transaction already" is called, where revert data stands.

A chain is known by its id and the hash of block 0. Both together: development chains share ids, and a restarted one
has another block 0. (Contract addresses say nothing: they repeat after a reset.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from web3 import Web3
from web3.exceptions import ContractLogicError, Web3Exception, Web3RPCError

from ..errors import ConfigError, LedgerError
from ..round import DEVELOPMENT_CHAINS
from .reader import Reader, text_of
from .reverts import revert_data
from .rpc import HttpProvider
from .transactions import MAX_GAS, Call, Fees
from .verdicts import Verdict, verdict

GWEI = 10**9


def connect(url: str = "embedded", *, timeout: float = 15.0, insecure: bool = False) -> Chain:
    """Open a chain and find out what it is.

    Parameters
    ----------
    url : str (default: "embedded")
        ``"embedded"``, ``"embedded:FILE"``, or the URL of a node: https, or http on this machine.
    timeout : float (default: 15.0)
        Seconds after which a request to a node has failed.
    insecure : bool (default: False)
        Allow http to another machine.

    Raises
    ------
    ConfigError
        If the URL is none of these.
    ChainUnavailableError, ChainBusyError, LedgerError
        If the node does not answer, another process has the embedded chain open, or its file is damaged.
    """
    kind, colon, place = url.partition(":")
    if kind == "embedded":
        from .embedded import open_chain  # py-evm takes a second to load

        if colon and not place:
            raise ConfigError("'embedded:' needs the path of a file; 'embedded' alone takes the one in FLBC_HOME")
        provider: Any = open_chain(Path(place) if place else None)
        name = f"embedded chain {provider.path}"
    else:
        provider = HttpProvider(url, timeout, insecure)
        name = provider.name
    try:
        return Chain(provider, name)
    except BaseException:
        provider.close()
        raise


class Chain(Reader):
    """A connection to a chain. Thread-safe. Made by :func:`connect`; usable as a context manager.

    Attributes
    ----------
    w3 : Web3
        For what is not here; its exceptions are web3's then.
    name : str
        For messages: the node's address without path and password, or the embedded chain's file.
    chain_id : int
    genesis : bytes
        Hash of block 0.
    development : bool
        Whether this is a development chain, whose accounts belong to everybody.
    """

    def __init__(self, provider: Any, name: str) -> None:
        super().__init__(provider, name)
        self._provider, self._closed = provider, False
        self.chain_id, self.genesis = self.identity()
        self.development = self.chain_id in DEVELOPMENT_CHAINS
        latest = self.block("latest")
        self._base_fees = latest is not None and latest.get("baseFeePerGas") is not None

    # ------------------------------------------------------------------ contracts
    def contract(self, address: bytes | str, abi: Sequence[Mapping[str, Any]]) -> Any:
        """Return a web3 contract, and learn its errors."""
        self.learn(abi)
        return self.w3.eth.contract(address=text_of(address), abi=abi)

    def learn(self, abi: Iterable[Mapping[str, Any]]) -> None:
        """Learn the custom errors in an ABI, so that reverts are told by name."""
        self._errors.learn(abi)

    def call(self, function: Any, *, sender: bytes | None = None, block: int | str = "latest") -> Any:
        """Call a function of a contract without a transaction, and return its decoded result.

        Raises
        ------
        RevertedError
            If the contract refuses.
        LedgerError
            If there is no such contract.
        """
        options: Any = {} if sender is None else {"from": text_of(sender)}
        with self.explained():
            return function.call(options, block_identifier=block)

    def why(self, call: Call, *, sender: bytes, gas: int | None = None, block: int | str = "latest") -> bytes | None:
        """Run a call on top of ``block`` without a transaction; return its revert data, None if it would succeed."""
        with self.explained(reverts=False):
            try:
                self.w3.eth.call(_transaction(call, sender, gas), block)  # type: ignore[arg-type]
            except Web3Exception as error:
                data = revert_data(error)
                if data is None and not isinstance(error, ContractLogicError):
                    raise
                return data or b""
        return None

    def simulate(self, call: Call, *, sender: bytes, gas: int | None = None) -> None:
        """Raise :class:`RevertedError` if a transaction sent now would be refused by the contract."""
        data = self.why(call, sender=sender, gas=gas)
        if data is not None:
            raise self._errors.explain(data)

    def estimate(self, call: Call, *, sender: bytes) -> int:
        """Return a gas limit for a call: the node's estimate and a quarter, at most :data:`MAX_GAS`."""
        with self.explained():
            gas = int(self.w3.eth.estimate_gas(_transaction(call, sender, None)))
        return min(gas + gas // 4, MAX_GAS)

    # ------------------------------------------------------------------ sending
    def fees(self) -> Fees:
        """Return what a transaction has to offer now: room for the base fee to double, and a tip."""
        with self.explained():
            if not self._base_fees:
                return Fees(int(self.w3.eth.gas_price), None)
            base = self.w3.eth.get_block("latest").get("baseFeePerGas", 0)
            try:
                tip = int(self.w3.eth.max_priority_fee)
            except Web3RPCError:
                tip = GWEI
        return Fees(2 * int(base) + tip, tip)

    def offer(self, raw: bytes, transaction: bytes) -> tuple[Verdict, str]:
        """Give a signed transaction to the node unless it has it; return what it said.

        Parameters
        ----------
        raw, transaction : bytes
            The transaction and its hash. A known one is never sent again: Ganache executes a transaction with nonce 0
            each time it gets it.
        """
        if self.knows(transaction):
            return Verdict.ACCEPTED, ""
        try:
            with self.explained(reverts=False):
                self.w3.eth.send_raw_transaction(raw)
        except ConnectionError:
            raise
        except LedgerError as error:
            said = verdict(str(error))
            if said is not Verdict.ACCEPTED and self.knows(transaction):
                said = Verdict.ACCEPTED
            return said, str(error)
        return Verdict.ACCEPTED, ""

    def send_raw(self, raw: bytes) -> bytes:
        """Send a signed transaction and return its hash; one that the node has already is success.

        Raises
        ------
        LedgerError
            If the node refuses it.
        """
        transaction = bytes(Web3.keccak(raw))
        said, text = self.offer(raw, transaction)
        if said is not Verdict.ACCEPTED:
            raise LedgerError(text)
        return transaction

    def close(self) -> None:
        """Close the connection; the second call does nothing."""
        if not self._closed:
            self._closed = True
            self._provider.close()

    def __enter__(self) -> Chain:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _transaction(call: Call, sender: bytes, gas: int | None) -> Any:
    fields: dict[str, Any] = {"from": text_of(sender), "data": call.data, "value": call.value}
    if call.to is not None:
        fields["to"] = text_of(call.to)
    return fields | ({} if gas is None else {"gas": gas})
