"""Why a contract refused: the error's name and arguments, whatever way the node reports them.

Nodes agree on the revert data (selector and ABI-encoded arguments) but not on where it stands: Anvil and geth put it
into ``error.data``, Ganache into ``error.data`` of a call and ``error.data.result`` of an estimate, older ones behind
the word "Reverted"; web3 wraps these in four exception classes. Every place is looked at; no client is asked its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError
from eth_utils.abi import collapse_if_tuple

from ..crypto.signing import checksum_address, keccak256
from ..errors import RevertedError

_PANICS = {
    0x01: "an assertion failed",
    0x11: "arithmetic overflow",
    0x12: "division by zero",
    0x21: "invalid enum value",
    0x31: "pop from an empty array",
    0x32: "array index out of bounds",
    0x41: "too much memory",
}
_BUILT_IN: tuple[dict[str, Any], ...] = (
    {"type": "error", "name": "Error", "inputs": [{"name": "message", "type": "string"}]},
    {"type": "error", "name": "Panic", "inputs": [{"name": "code", "type": "uint256"}]},
)


class ErrorBook:
    """The errors of all contracts that a program talks to, by selector."""

    def __init__(self) -> None:
        self._errors: dict[bytes, tuple[str, tuple[str, ...], tuple[str, ...]]] = {}
        self.learn(_BUILT_IN)

    def learn(self, abi: Iterable[Mapping[str, Any]]) -> None:
        """Add the errors of a contract's ABI."""
        for entry in abi:
            if entry.get("type") == "error":
                types = tuple(collapse_if_tuple(dict(argument)) for argument in entry["inputs"])
                names = tuple(argument["name"] or str(i) for i, argument in enumerate(entry["inputs"]))
                selector = keccak256(f"{entry['name']}({','.join(types)})".encode())[:4]
                self._errors[selector] = (entry["name"], names, types)

    def explain(self, data: bytes) -> RevertedError:
        """Return the error that this revert data stands for."""
        if not data:
            hint = "It gave no reason: the address may be another contract's, or the gas was too little"
            return RevertedError("0x", hint=hint)
        known = self._errors.get(data[:4])
        if known is not None:
            name, names, types = known
            try:
                values = decode(types, data[4:])
            except DecodingError:
                return RevertedError(f"0x{data.hex()}", hint=f"It begins like {name}, but cannot be decoded")
            hint = _PANICS.get(values[0], "") if name == "Panic" else ""
            return RevertedError(
                name, {key: _shown(*pair) for key, *pair in zip(names, types, values, strict=True)}, hint
            )
        hint = "No ABI of flbc has this error: the contract may be of another version (`flbc deploy` a new one)"
        return RevertedError(f"0x{data.hex()}", hint=hint)


def _shown(kind: str, value: Any) -> object:
    if kind == "address":
        return checksum_address(bytes.fromhex(value.removeprefix("0x")))
    return f"0x{value.hex()}" if isinstance(value, bytes) else value


def revert_data(error: BaseException) -> bytes | None:
    """Return the revert data that a web3 exception carries; None if it is not about a revert."""
    response = getattr(error, "rpc_response", None)
    fault = response.get("error") if isinstance(response, Mapping) else None
    places: list[Any] = [getattr(error, "data", None)]
    if isinstance(fault, Mapping):
        message = str(fault.get("message", "")).lower()
        if "revert" not in message and fault.get("code") != 3:
            return None  # such as a refused transaction, or gas that ran out
        places.append(fault.get("data"))
    for place in places:
        found = _hex_in(place)
        if found is not None:
            return found
    return b"" if isinstance(fault, Mapping) else None


def _hex_in(place: Any) -> bytes | None:
    if isinstance(place, Mapping):
        nested = (_hex_in(place.get(name)) for name in ("result", "data", "return"))
        return next((data for data in nested if data is not None), None)
    if isinstance(place, str):
        try:
            return bytes.fromhex(place.removeprefix("Reverted ").removeprefix("0x"))
        except ValueError:
            return None
    return None
