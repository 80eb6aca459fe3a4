"""Open the ledger that a user's settings name; web3 is loaded here, and not before."""

from __future__ import annotations

from .record import Book
from .settings import Ledger


def open_book(settings: Ledger) -> Book:
    """Connect to the chain and check it, before anything is trained.

    Raises
    ------
    ChainUnavailableError, ChainResetError, LedgerError
        Say what is wrong with the node, the deployment or the relayer's account, and what to do.
    """
    from .book import ChainBook

    return ChainBook.open(settings)
