"""What happened to the entries of an outbox, and what is to be sent next: one pass of :meth:`Outbox.pump`.

Every step is safe to repeat and safe to be killed in: decisions come from the journal and the chain, and what is about
to be sent is in the journal first. See :mod:`flbc.ledger.outbox` for the rules.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from web3.types import TxReceipt

from ..crypto.signing import SigningKey, checksum_address
from ..errors import ChainUnavailableError, LedgerError
from .chain import GWEI, Chain
from .journal import Entry, Journal, State
from .transactions import Fees, SignedTransaction, sign
from .verdicts import Verdict

_log = logging.getLogger(__name__)
#: Times that an entry's fees are raised above what the market asks; an eighth each, so at most to 3.3 times that.
MAX_RAISES = 10
_MANY = 10_000


@dataclass(frozen=True, slots=True)
class Policy:
    """How patient a sender is, and what it may pay; the values are described at :class:`~flbc.ledger.outbox.Outbox`."""

    depth: int
    patience: float
    resend: float
    fee_limit: int


class Sender:
    """One account's sender on one chain; not thread-safe."""

    def __init__(self, chain: Chain, key: SigningKey, journal: Journal, policy: Policy) -> None:
        self._chain, self._key, self._journal, self._policy = chain, key, journal, policy
        self._offered: dict[bytes, float] = {}  # when a transaction was last given to the node, in this process

    def forget(self) -> None:
        """Offer everything that waits once more: the node may have lost it."""
        self._offered.clear()

    # ------------------------------------------------------------------ what happened
    def reopen(self) -> None:
        """Reopen settled entries whose block is not in the chain any more, the newest first."""
        while (entry := self._journal.newest_settled()) is not None:
            block = self._chain.block(entry.block or 0)
            if block is not None and bytes(block["hash"]) == entry.block_hash:
                break
            _log.warning("The block of %s is gone; sending it again", entry.key)
            self._journal.update(entry, State.SENT)
            self.forget()

    def observe(self) -> tuple[int, int]:
        """Look for the blocks that took open entries; return the account's next nonce and the newest block's number."""
        used, height = self._chain.nonce(self._key.address), self._chain.height()
        for entry in self._journal.replaced():
            if entry.nonce is not None and entry.nonce >= used:  # the other transaction is gone
                self._journal.update(entry, State.SENT)
                self.forget()
        for entry in self._journal.open():
            if entry.nonce is None:
                break
            if entry.nonce >= used:
                if entry.state is State.MINED or entry.missed is not None:
                    self._journal.update(entry, State.SENT)
                    self.forget()
                continue
            receipt = self._receipt(entry)
            if receipt is not None:
                self._found(entry, receipt, height)
            elif entry.missed is None:
                self._journal.update(entry, State.SENT, missed=height)
            elif height >= entry.missed + self._policy.depth:
                note = f"its nonce {entry.nonce} was used by a transaction that is not in this outbox"
                _log.error("%s is replaced: %s", entry.key, note)
                self._journal.update(entry, State.REPLACED, note=note)
        return used, height

    def _receipt(self, entry: Entry) -> TxReceipt | None:
        for signature in self._journal.signatures(entry):
            receipt = self._chain.receipt(signature.transaction.hash)
            if receipt is not None:
                return receipt
        return None

    def _found(self, entry: Entry, receipt: TxReceipt, height: int) -> None:
        state = State.FINAL if height - receipt["blockNumber"] >= self._policy.depth else State.MINED
        reason = None
        if receipt["status"] == 0:
            state, reason = State.REVERTED, self._reason(entry, receipt)
        if state is not entry.state or bytes(receipt["blockHash"]) != entry.block_hash:
            self._journal.update(
                entry,
                state,
                block=receipt["blockNumber"],
                block_hash=bytes(receipt["blockHash"]),
                transaction=bytes(receipt["transactionHash"]),
                reason=reason,
            )

    def _reason(self, entry: Entry, receipt: TxReceipt) -> bytes:
        """Find out why a contract refused, by running the call again where it ran."""
        if receipt["gasUsed"] >= entry.gas:
            return b""
        for block in (receipt["blockNumber"] - 1, receipt["blockNumber"]):
            try:
                data = self._chain.why(entry.call, sender=self._key.address, gas=entry.gas, block=block)
            except ChainUnavailableError:
                raise
            except LedgerError:  # such as a node that keeps no old states
                continue
            if data is not None:
                return data
        return b""

    # ------------------------------------------------------------------ sending
    def send(self, used: int, height: int) -> bool:
        """Sign and send in order, until one is not taken; return whether any was sent.

        Parameters
        ----------
        used, height : int
            What :meth:`observe` returned.
        """
        sent, fees = False, None
        for entry in self._journal.open():
            if entry.state is State.MINED or (entry.nonce is not None and entry.nonce < used):
                continue
            fees = fees or self._chain.fees()
            newest = self._prepared(entry, used, fees, height)
            if time.monotonic() - self._offered.get(newest.hash, -self._policy.resend) < self._policy.resend:
                continue
            verdict, text = self._chain.offer(newest.raw, newest.hash)
            if verdict is Verdict.UNDERPRICED:
                raised = self._raise_fees(self._journal.get(entry.key), fees, height)
                if raised is not None:
                    newest = raised
                    verdict, text = self._chain.offer(newest.raw, newest.hash)
            if verdict is not Verdict.ACCEPTED:
                self._refused(entry, verdict, text)
                break
            if len(self._offered) > _MANY:
                self.forget()
            self._offered[newest.hash] = time.monotonic()
            self._journal.update(entry, State.SENT)
            sent = True
        return sent

    def _prepared(self, entry: Entry, used: int, fees: Fees, height: int) -> SignedTransaction:
        """Return the transaction to send for an entry: its newest signature, or a first or a better one."""
        if entry.nonce is None:
            if fees.most > self._policy.fee_limit:
                raise LedgerError(
                    f"{self._chain.name} asks for {fees.most / GWEI:.1f} gwei per gas, more than the limit of "
                    f"{self._policy.fee_limit / GWEI:.1f}: wait, or raise the limit"
                )
            return self._sign(entry, max(used, self._journal.next_nonce()), fees, height)
        newest = self._journal.signatures(entry)[0]
        waited = time.time() - newest.at >= self._policy.patience and height > newest.height
        if entry.state is State.SENT and waited:
            return self._raise_fees(entry, fees, height) or newest.transaction
        return newest.transaction

    def _raise_fees(self, entry: Entry, market: Fees, height: int) -> SignedTransaction | None:
        """Sign an entry's nonce with higher fees; None if that would go too far."""
        signatures = self._journal.signatures(entry)
        now = signatures[0].transaction.fees
        better = now.raised(market)
        if better.most > self._policy.fee_limit or (len(signatures) > MAX_RAISES and now.most >= market.most):
            return None
        _log.info("Raising the fee of %s to %.2f gwei", entry.key, better.most / GWEI)
        return self._sign(entry, signatures[0].nonce, better, height)

    def _sign(self, entry: Entry, nonce: int, fees: Fees, height: int) -> SignedTransaction:
        signed = sign(self._key, self._chain.chain_id, nonce, entry.call, entry.gas, fees)
        self._journal.keep(entry, nonce, signed, height)
        return signed

    def _refused(self, entry: Entry, verdict: Verdict, text: str) -> None:
        note = text
        if verdict is Verdict.NO_FUNDS:
            newest = self._journal.signatures(self._journal.get(entry.key))[0].transaction
            needed = ether(entry.gas * newest.fees.most + entry.call.value)
            balance = ether(self._chain.balance(self._key.address))
            account = checksum_address(self._key.address)
            note = (
                f"{POOR} {account} has {balance} on {self._chain.name}, but {entry.key!r} may cost {needed}: send it "
            )
            note += "ether; nothing is lost"
        if note != entry.note:
            _log.warning("%s is not taken: %s", entry.key, note)
        self._journal.update(entry, entry.state, missed=entry.missed, note=note)


#: How a note begins that says that the account cannot pay.
POOR = "The account"


def ether(wei: int) -> str:
    """Write an amount in wei for people."""
    return f"{wei / 10**18:.6f} ether"
