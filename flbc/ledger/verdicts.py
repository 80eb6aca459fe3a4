"""What nodes say to a transaction that they are given, in one vocabulary."""

from __future__ import annotations

import enum
import re


class Verdict(enum.Enum):
    """What a node said to a transaction."""

    ACCEPTED = "accepted"  # now or before
    UNDERPRICED = "underpriced"  # the same transaction may be accepted with higher fees
    NO_FUNDS = "no funds"  # the sender cannot pay for it
    REFUSED = "refused"  # for another reason, perhaps only for now


# Words that geth, Anvil, Ganache, Besu, Nethermind, Erigon and py-evm use; there are no common error codes.
_WORDS = (
    (Verdict.ACCEPTED, re.compile(r"already (known|imported|exists)|\bknown transaction|\balreadyknown", re.I)),
    (Verdict.UNDERPRICED, re.compile(r"underpriced|base fee|(fee|price) ?too ?low", re.I)),
    (Verdict.NO_FUNDS, re.compile(r"insufficient ?(funds|balance)|cannot afford|upfront cost|enough balance", re.I)),
)


def verdict(message: str) -> Verdict:
    """Return what a node's error message to ``eth_sendRawTransaction`` means."""
    return next((kind for kind, words in _WORDS if words.search(message)), Verdict.REFUSED)
