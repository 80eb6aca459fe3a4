"""Chains for tests: the embedded one in milliseconds, Anvil and Ganache once per session where they are installed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flbc.crypto.signing import SigningKey, checksum_address
from flbc.errors import ConfigError
from flbc.ledger import nodes
from flbc.ledger.chain import Chain, connect
from flbc.ledger.nodes import Node

KINDS = ("embedded", "anvil", "ganache")

# contract Notes {
#     event Noted(uint256 indexed value, address sender);
#     error Refused(uint256 code, address who);
#     uint256 public count;
#     function note(uint256 value) external payable {
#         if (value >= 1000) revert Refused(value, msg.sender);
#         require(value != 999, "not 999");
#         unchecked { ++count; }
#         emit Noted(value, msg.sender);
#     }
#     function divide(uint256 by) external view returns (uint256) { return count / by; }
#     function burn() external { while (true) { ++count; } }
# }
# solc 0.8.28, via-IR, optimizer with 1 run, evmVersion paris, no metadata.
NOTES_CODE = (
    "60808060405234601557610187908161001b8239f35b600080fdfe608080604052600436101561001357600080fd5b60003560e01c90816306"
    "661abd1461016c575080633e823f791461012d57806344df8e70146100ee57635284a2451461004b57600080fd5b60203660031901126100e9"
    "576004356103e88110156100d1576103e781146100a2576001600054016000557f2187eef61c7ca345697f220c47b7f5a0ab5e9198e4df64b5"
    "c1b51245f1ce8de56020604051338152a2005b60405162461bcd60e51b81526020600482015260076024820152666e6f742039393960c81b60"
    "44820152606490fd5b63063fc3b960e21b6000526004523360245260446000fd5b600080fd5b346100e95760003660031901126100e9575b60"
    "0054600019811461011757600101600055610100565b634e487b7160e01b600052601160045260246000fd5b346100e9576020366003190112"
    "6100e95760043560005481156101565760209160405191048152f35b634e487b7160e01b600052601260045260246000fd5b346100e9576000"
    "3660031901126100e9576020906000548152f3"
)
_UINT = {"name": "", "type": "uint256"}
NOTES_ABI: list[dict[str, Any]] = [
    {"type": "function", "name": "count", "inputs": [], "outputs": [_UINT], "stateMutability": "view"},
    {"type": "function", "name": "divide", "inputs": [_UINT], "outputs": [_UINT], "stateMutability": "view"},
    {"type": "function", "name": "note", "inputs": [_UINT], "outputs": [], "stateMutability": "payable"},
    {"type": "function", "name": "burn", "inputs": [], "outputs": [], "stateMutability": "nonpayable"},
    {
        "type": "error",
        "name": "Refused",
        "inputs": [{"name": "code", "type": "uint256"}, {"name": "who", "type": "address"}],
    },
    {
        "type": "event",
        "name": "Noted",
        "anonymous": False,
        "inputs": [
            {"name": "value", "type": "uint256", "indexed": True},
            {"name": "sender", "type": "address", "indexed": False},
        ],
    },
]


def start_or_skip(kind: str, log: Path, **options: Any) -> Node:
    """Start a node, or skip the test where it is not installed."""
    try:
        nodes.find(kind)
    except ConfigError as error:
        pytest.skip(str(error))
    return nodes.start(kind, 0, log=log, **options)


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Node]]:
    """Return a function that starts each kind of node once; all are stopped at the end."""
    started: dict[str, Node] = {}

    def get(kind: str) -> Node:
        if kind not in started:
            started[kind] = start_or_skip(kind, tmp_path_factory.mktemp("nodes") / f"{kind}.log")
        return started[kind]

    yield get
    for node in started.values():
        node.stop()


@pytest.fixture(params=KINDS)
def chain(request: pytest.FixtureRequest, running: Callable[[str], Node]) -> Iterator[Chain]:
    """Connect to each kind of chain in turn; the embedded one is new for each test."""
    url = "embedded" if request.param == "embedded" else running(request.param).url
    with connect(url) as found:
        yield found


@pytest.fixture
def embedded() -> Iterator[Chain]:
    """Open a new embedded chain."""
    with connect("embedded") as found:
        yield found


@pytest.fixture
def anvil(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """Return a function that starts an Anvil of the test's own; all are stopped at the end."""
    started: list[Node] = []

    def begin(*options: str, port: int = 0, state: Path | None = None) -> Node:
        log = tmp_path / f"anvil{len(started)}.log"
        if not started:
            node = start_or_skip("anvil", log, state=state, options=options)
        else:
            node = nodes.start("anvil", port, state=state, log=log, options=options)
        started.append(node)
        return node

    yield begin
    for node in started:
        node.kill()


def mined(chain: Chain, transaction: bytes) -> Any:
    """Wait for a transaction's receipt."""
    end = time.monotonic() + 20
    while (receipt := chain.receipt(transaction)) is None:
        assert time.monotonic() < end, "no block took the transaction"
        time.sleep(0.01)
    return receipt


def funded(chain: Chain, ether: float = 10) -> SigningKey:
    """Make an account with some ether from the node's own first account."""
    key = SigningKey.generate()
    give(chain, key.address, ether)
    return key


def give(chain: Chain, account: bytes, ether: float) -> None:
    """Send ether from the node's own first account."""
    sender, to = chain.w3.eth.accounts[0], checksum_address(account)
    value = round(ether * 10**18)
    mined(chain, bytes(chain.w3.eth.send_transaction({"from": sender, "to": to, "value": value})))


def deploy_notes(chain: Chain) -> Any:
    """Deploy the test contract from the node's own first account."""
    factory = chain.w3.eth.contract(abi=NOTES_ABI, bytecode=NOTES_CODE)
    receipt = mined(chain, bytes(factory.constructor().transact({"from": chain.w3.eth.accounts[0]})))
    return chain.contract(receipt["contractAddress"], NOTES_ABI)


def travel(chain: Chain, seconds: int) -> None:
    """Move a development chain's clock forward, and make a block there."""
    if chain.name.startswith("embedded"):
        chain.w3.provider.make_request("testing_timeTravel", [chain.now() + seconds])
    else:
        chain.w3.provider.make_request("evm_increaseTime", [seconds])
        chain.w3.provider.make_request("evm_mine", [])
