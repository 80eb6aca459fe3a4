"""A call to a contract, what it may cost, and the signed transaction that carries it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import rlp  # type: ignore[import-untyped]

from ..crypto.signing import SigningKey, keccak256
from ..errors import ConfigError

#: Most gas a transaction may ask for. From Osaka on nodes refuse more than 2^24 = 16,777,216 (EIP-7825).
MAX_GAS = 16_000_000
#: Gas that every transaction costs.
MIN_GAS = 21_000
_DYNAMIC_FEE = b"\x02"  # transaction type (EIP-1559)


@dataclass(frozen=True, slots=True)
class Call:
    """What a transaction does.

    Parameters
    ----------
    to : bytes or None
        Address of the contract or account, 20 bytes; None deploys ``data``.
    data : bytes (default: b"")
        Encoded function and arguments, or the code to deploy with its arguments.
    value : int (default: 0)
        Ether that goes with it, in wei.
    """

    to: bytes | None
    data: bytes = b""
    value: int = 0

    @classmethod
    def of(cls, function: Any, value: int = 0) -> Call:
        """Encode a function of a web3 contract with its arguments, or a constructor; asks no node."""
        # All that web3 would ask the node for is given.
        known = {"nonce": 0, "gas": 0, "value": 0, "maxFeePerGas": 0, "maxPriorityFeePerGas": 0, "chainId": 0}
        built = function.build_transaction(known)
        to, data = built.get("to"), built["data"]
        return cls(
            to=bytes.fromhex(to.removeprefix("0x")) if to else None,
            data=bytes.fromhex(data.removeprefix("0x")) if isinstance(data, str) else bytes(data),
            value=value,
        )

    @property
    def least_gas(self) -> int:
        """The least gas limit that nodes accept, before any code runs (EIP-2028, EIP-3860, floor of EIP-7623).

        Anvil takes a transaction with less, and drops it silently.
        """
        zeros = self.data.count(0)
        tokens = zeros + 4 * (len(self.data) - zeros)
        creation = 32_000 + 2 * (-(-len(self.data) // 32)) if self.to is None else 0
        return MIN_GAS + max(4 * tokens + creation, 10 * tokens)

    @property
    def digest(self) -> bytes:
        """A hash of all of it, to tell one call from another."""
        return keccak256(b"".join((bytes([self.to is None]), self.to or bytes(20), b"%d," % self.value, self.data)))


@dataclass(frozen=True, slots=True)
class Fees:
    """What a transaction pays for each unit of gas, in wei.

    Parameters
    ----------
    most : int
        Upper limit (``maxFeePerGas``); on a chain without base fees, the price (``gasPrice``).
    tip : int or None
        What the block's maker gets of it (``maxPriorityFeePerGas``); None on a chain without base fees.
    """

    most: int
    tip: int | None

    def raised(self, market: Fees) -> Fees:
        """Return fees at which nodes replace a waiting transaction: an eighth more than now, or what the market asks.

        Nodes ask for 10 % (geth, Anvil) to 12.5 % (Nethermind) more in both values.
        """
        most = max(market.most, _eighth_more(self.most))
        return Fees(most, None if self.tip is None else min(most, max(market.tip or 0, _eighth_more(self.tip))))


def check_gas(call: Call, gas: int) -> None:
    """Raise :class:`ConfigError` if no node would take a call with this gas limit."""
    if not call.least_gas <= gas <= MAX_GAS:
        raise ConfigError(
            f"The gas limit of this transaction must be from {call.least_gas} to {MAX_GAS}, not {gas}; if it needs "
            f"more than that, split what it does"
        )


def _eighth_more(value: int) -> int:
    return value + value // 8 + 1


@dataclass(frozen=True, slots=True)
class SignedTransaction:
    """A transaction as it is sent, and the hash by which it is known."""

    raw: bytes
    hash: bytes
    fees: Fees


def sign(key: SigningKey, chain_id: int, nonce: int, call: Call, gas: int, fees: Fees) -> SignedTransaction:
    """Sign a transaction: of type 2 (EIP-1559), or the legacy type with EIP-155 where there is no base fee.

    The same arguments give the same bytes (RFC 6979). The secret does not leave ``key``.
    """
    check_gas(call, gas)
    to = call.to or b""
    body: Sequence[Any]
    if fees.tip is None:
        body = (nonce, fees.most, gas, to, call.value, call.data)
        signature = key.sign(keccak256(rlp.encode([*body, chain_id, 0, 0])))
        raw = rlp.encode([*body, chain_id * 2 + 8 + signature[64], *_scalars(signature)])
    else:
        body = (chain_id, nonce, fees.tip, fees.most, gas, to, call.value, call.data, [])
        signature = key.sign(keccak256(_DYNAMIC_FEE + rlp.encode(body)))
        raw = _DYNAMIC_FEE + rlp.encode([*body, signature[64] - 27, *_scalars(signature)])
    return SignedTransaction(raw, keccak256(raw), fees)


def _scalars(signature: bytes) -> tuple[int, int]:
    return int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")
