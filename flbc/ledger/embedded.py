"""A chain in this process: py-evm behind eth-tester, kept in a SQLite file. Nothing to install, nothing to start.

It survives ``kill -9`` at any moment (:mod:`flbc.ledger.store`) and reopens at its head with the same genesis. One
process at a time can have a file open; inside that process everybody shares one chain. Its accounts are those of the
development phrase (:mod:`flbc.ledger.accounts`).

**Time.** Every transaction makes a block, and each block is at least one second later than its parent, as Ethereum
demands: a hundred transactions in two seconds leave the chain about a hundred seconds ahead of the clock, and it waits
there until the clock catches up. Deadlines are therefore compared with block times, never with the clock.

It speaks JSON-RPC as nodes do, so that nothing behind :class:`EmbeddedProvider` has to know about it: reverts carry
their data, a known transaction is "already known", and what py-evm refuses is an error object, not its own exceptions.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from eth.exceptions import PyEVMError
from eth_tester.exceptions import BlockNotFound  # type: ignore[import-untyped]
from eth_tester.exceptions import ValidationError as TesterValidationError
from eth_utils.exceptions import ValidationError
from rlp.exceptions import RLPException  # type: ignore[import-untyped]
from web3.providers.eth_tester import EthereumTesterProvider
from web3.providers.eth_tester.defaults import API_ENDPOINTS
from web3.types import RPCEndpoint, RPCResponse

from ..errors import ChainBusyError, ChainUnavailableError, LedgerError
from .files import ProcessLock, home
from .pyevm import Backend, RevertedCall, Tester
from .store import Store

_SHARE = "To use one chain from several processes, start a node with `flbc chain up` and connect to its URL"
# eth-tester has snapshots; rewinding a ledger that others rely on is not for an RPC.
_ENDPOINTS = API_ENDPOINTS | {"evm": {"mine": API_ENDPOINTS["evm"]["mine"]}}
_NEW_BLOCK = {"eth_sendRawTransaction", "eth_sendTransaction", "evm_mine"}


def default_path() -> Path:
    """Return where the embedded chain lies unless told otherwise: ``FLBC_HOME/chains/embedded.sqlite``."""
    return home() / "chains" / "embedded.sqlite"


def open_chain(path: Path | None = None) -> EmbeddedProvider:
    """Open or make an embedded chain; inside one process everybody gets the same provider for the same file.

    Parameters
    ----------
    path : Path or None (default: None)
        The file; None: :func:`default_path`.

    Raises
    ------
    ChainBusyError
        If another process has it open.
    LedgerError
        If the file is damaged or something else than a chain.
    """
    place = (path or default_path()).expanduser().resolve()
    with _opening:
        provider = _open.get(place)
        if provider is not None and provider.process == os.getpid():
            provider.users += 1
            return provider
        _open[place] = provider = EmbeddedProvider(place)
        return provider


class EmbeddedProvider(EthereumTesterProvider):
    """A web3 provider that is the chain itself. Get one with :func:`open_chain`. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self.path, self.users = path, 1
        self.process, self._mutex, self._closed = os.getpid(), threading.RLock(), False
        self._file_lock = ProcessLock(path.with_name(path.name + ".lock"), f"The embedded chain {path}", _SHARE)
        try:
            self._store = Store(path)
            try:
                self._backend = Backend(self._store)
                super().__init__(Tester(self._backend), _ENDPOINTS)
            except BaseException:
                self._store.close()
                raise
        except BaseException as error:
            self._file_lock.release()
            if isinstance(error, PyEVMError | RLPException | KeyError):
                raise LedgerError(
                    f"The chain file {path} holds no whole chain ({type(error).__name__}): put a copy back, or move "
                    f"it away to start an empty chain"
                ) from None
            raise

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """Answer one request; what it writes is durable when this returns, or was never written."""
        if os.getpid() != self.process:
            raise ChainBusyError(f"The embedded chain {self.path} belongs to process {self.process}. {_SHARE}")
        with self._mutex:
            if self._closed:
                raise ChainUnavailableError(f"The embedded chain {self.path} was closed: connect again")
            try:
                if method in _NEW_BLOCK:
                    self._backend.next_block()
                response = super().make_request(method, params)
                if self._store.dirty:
                    self._store.commit()
            except RevertedCall as error:
                reverted = error.data is not None
                return _error(3 if reverted else -32000, "execution reverted" if reverted else str(error), error.data)
            except (ValidationError, TesterValidationError, BlockNotFound, PyEVMError, RLPException) as error:
                return _error(-32000, str(error))
            finally:
                if self._store.dirty:
                    self._store.discard()
                    self._backend.reopen()
        return response

    def close(self) -> None:
        """Give the chain back; the last user's call closes the file."""
        with _opening, self._mutex:
            self.users -= 1
            if self.users > 0 or self._closed:
                return
            self._closed = True
            _open.pop(self.path, None)
            if os.getpid() == self.process:  # a fork must not touch its parent's SQLite connection
                self._store.close()
            self._file_lock.release()


def _error(code: int, message: str, data: bytes | None = None) -> RPCResponse:
    error: Any = {"code": code, "message": message}
    if data is not None:
        error["data"] = "0x" + data.hex()
    return {"jsonrpc": "2.0", "id": 0, "error": error}


_open: dict[Path, EmbeddedProvider] = {}
_opening = threading.Lock()
