"""What the contracts cost: every step measured with real signatures, and designs with a transaction per client.

Gas depends a little on chance: zero bytes in signatures are cheaper, and a VRF proof carries a witness of 32 bytes for
each hash that is no point of the curve. Rounds are measured with one witness, which is the average, so that numbers are
comparable within the tolerance.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flbc.crypto import vrf
from flbc.crypto.signing import keccak256
from flbc.election import alpha
from flbc.ledger.accounts import development_key
from flbc.ledger.chain import Chain
from flbc.ledger.deployment import Deployment
from flbc.ledger.registry import registration
from flbc.ledger.transactions import Call
from flbc.round import Signed, Vote
from tests.support.ledger import Actor, Consortium, Setting, deploy_contracts, pass_time, send

#: Numbers that are checked; `python benchmarks/gas.py --write` makes it.
GAS_FILE = Path(__file__).resolve().parents[2] / "contracts" / "gas.json"
#: What the design promises (DESIGN.md, budgets); in gas.
BUDGETS = {"round of 10": 220_000, "round of 100": 700_000, "settle of 100": 350_000, "claim, first of 256": 75_000}
SIZES = (10, 100)
TOLERANCE = 0.02

# contract PerClient {
#     struct Update { bytes32 content; uint64 computeMs; uint64 at; }
#     mapping(bytes32 => mapping(uint256 => mapping(address => Update))) updates;
#     mapping(bytes32 => mapping(uint256 => bytes32)) models;
#     mapping(bytes32 => mapping(uint256 => mapping(address => bool))) voted;
#     mapping(bytes32 => mapping(uint256 => uint256)) votes;
#     event Submitted(bytes32 indexed task, uint256 indexed round, address indexed client, bytes32 content,
#                     uint64 computeMs);
#     event Combined(bytes32 indexed task, uint256 indexed round, bytes32 model);
#     event Voted(bytes32 indexed task, uint256 indexed round, address indexed member);
#     function store(bytes32 task, uint256 round, bytes32 content, uint64 computeMs) external {
#         require(updates[task][round][msg.sender].at == 0, "twice");
#         updates[task][round][msg.sender] = Update(content, computeMs, uint64(block.timestamp));
#         emit Submitted(task, round, msg.sender, content, computeMs);
#     }
#     function log(bytes32 task, uint256 round, bytes32 content, uint64 computeMs) external {
#         emit Submitted(task, round, msg.sender, content, computeMs);
#     }
#     function combine(bytes32 task, uint256 round, bytes32 model) external {
#         require(models[task][round] == 0, "twice");
#         models[task][round] = model;
#         emit Combined(task, round, model);
#     }
#     function vote(bytes32 task, uint256 round) external {
#         require(!voted[task][round][msg.sender], "twice");
#         voted[task][round][msg.sender] = true;
#         ++votes[task][round];
#         emit Voted(task, round, msg.sender);
#     }
# }
# solc 0.8.37, via-IR, optimizer with 1000 runs, evmVersion paris, no metadata: as the contracts of flbc.
_PER_CLIENT = (
    "60808060405234601557610463908161001b8239f35b600080fdfe6080604052600436101561001257600080fd5b60003560e01c80636ad8"
    "d3cb1461034c5780637e149398146102f75780639ef1204c146101e75763ce8ea6e71461004857600080fd5b346101e257610056366103cf"
    "565b836000949294526000602052604060002083600052602052604060002073ffffffffffffffffffffffffffffffffffffffff33166000"
    "526020526100af67ffffffffffffffff60016040600020015460401c16156103fe565b60405190606082019082821067ffffffffffffffff"
    "8311176101cc577f5158354f7fe29526b310979247b62babde92f9a4ad747d781e54a51610fbf7fe926101c7926040528681526020810190"
    "67ffffffffffffffff8316825267ffffffffffffffff60016040830192824216845288600052600060205260406000208a60005260205260"
    "4060002073ffffffffffffffffffffffffffffffffffffffff3316600052602052604060002090518155019251167fffffffffffffffffff"
    "ffffffffffffff000000000000000000000000000000006fffffffffffffffff00000000000000008454935160401b169216171790556040"
    "5191829133978390929167ffffffffffffffff6020916040840195845216910152565b0390a4005b634e487b7160e01b6000526041600452"
    "60246000fd5b600080fd5b346101e25760403660031901126101e25760043560243581600052600260205260406000208160005260205260"
    "4060002073ffffffffffffffffffffffffffffffffffffffff331660005260205261024760ff60406000205416156103fe565b8160005260"
    "02602052604060002081600052602052604060002073ffffffffffffffffffffffffffffffffffffffff3316600052602052604060002060"
    "0160ff198254161790558160005260036020526040600020816000526020526040600020805460001981146102e157600101905533917f08"
    "5a57a01032fcb440deb051d148ff09c6bb1e8864111ac778e0dce74210b87e600080a4005b634e487b7160e01b6000526011600452602460"
    "00fd5b346101e2577f5158354f7fe29526b310979247b62babde92f9a4ad747d781e54a51610fbf7fe6101c7610329366103cf565b604080"
    "5192835267ffffffffffffffff9091166020830152339592948291820190565b346101e25760603660031901126101e25760043560243590"
    "7ff363ccf51fe971b77aca8528e39a1f7986b0cffd9f5b562f8735533deae5d4ef6020604435836000526001825260406000208560005282"
    "526103ac604060002054156103fe565b8360005260018252604060002085600052825280604060002055604051908152a3005b6080906003"
    "1901126101e25760043590602435906044359060643567ffffffffffffffff811681036101e25790565b1561040557565b60646040517f08"
    "c379a000000000000000000000000000000000000000000000000000000000815260206004820152600560248201527f7477696365000000"
    "0000000000000000000000000000000000000000000000006044820152fd"
)


def measure(chain: Chain, folder: Path) -> dict[str, int]:
    """Return the gas of every step; names are those of contracts/gas.json."""
    deployment = deploy_contracts(chain, folder)
    receipt = chain.receipt(deployment.transaction)
    found = {"deploy hub and registry": int(receipt["gasUsed"])}  # type: ignore[index]
    for size in SIZES:
        found |= _task(chain, deployment, size)
    return found | _rest(chain, deployment) | compare(chain)


def _task(chain: Chain, deployment: Deployment, size: int) -> dict[str, int]:
    setting = Setting(hospitals=size, members=5, overlap=0, rounds=5, payout="equal", duration=100 * 86_400)
    run = Consortium(chain, deployment, setting, salt=f"gas {size}").begin()
    assert run.quorum == 4
    run.record(run.make_round(1))
    rounds = [_gas(_record_with_one_witness(run)) for _ in range(3)]
    settled = run.settle(run.make_settlement([8000] * 4))
    first, second = run.hospitals[:2]
    found = {
        f"start of {size}": _gas(run.receipts["start"][0]),
        f"round of {size}": round(sum(rounds) / len(rounds)),
        f"settle of {size}": _gas(settled),
    }
    if size == SIZES[0]:
        found |= {
            "register with stake": _gas(run.receipts["register"][1]),
            "publish": _gas(run.receipts["publish"][0]),
            "draw seed": _gas(run.receipts["draw seed"][0]),
            "claim, first of 256": _gas(run.claim(first)),
            "claim": _gas(run.claim(second)),
        }
    return found


def _record_with_one_witness(run: Consortium) -> Any:
    """Record a round under the best-ranked leader whose proof has one witness; its rank is the attempt."""
    while True:
        challenge, number = alpha(run.seed, run.height + 1), run.height + 1
        for attempt, leader in enumerate(run.ranking()):
            keys = run.actors[leader].keys
            packed = vrf.pack(keys.vrf.public, challenge, vrf.prove(keys.vrf, challenge))
            if len(packed) == vrf.PACKED_BYTES + 32:
                return run.record(run.make_round(number, attempt, leader=leader))
        run.record(run.make_round(number))  # nobody has, which happens once in 0.75 ** -candidates: the next round


def _rest(chain: Chain, deployment: Deployment) -> dict[str, int]:
    """What happens seldom."""
    setting = Setting(hospitals=3, members=5, overlap=0, duration=3600)  # parties that are registered
    run = Consortium(chain, deployment, setting, salt="gas refund").begin()
    registry = run.hub.registry
    cheat, label = Actor.make("cheat", ("hospital",), 10, 10**7), run.label(1)
    run.register(cheat)
    votes = [Signed.make(Vote(label.hash, keccak256(text)), cheat.keys.signing, run.where) for text in (b"a", b"b")]
    leaver = run.actors[run.hospitals[0]]
    entry = registration(leaver.party, leaver.account.address)
    again = Signed.make(entry, leaver.keys.signing, run.where).signature
    steps = {
        "register again": (leaver.account, registry.register(entry, again)),
        "top up": (leaver.account, registry.top_up(1)),
        "begin to leave": (leaver.account, registry.begin_unstake()),
        "suspend": (run.authority, registry.suspend(leaver.account.address)),
        "report two votes": (run.relayer, run.hub.report(*votes)),
    }
    found = {name: _gas(send(chain, key, call)) for name, (key, call) in steps.items()}
    pass_time(chain, run.deadline)
    return found | {"refund": _gas(send(chain, run.relayer, run.hub.refund(run.task)))}


def compare(chain: Chain) -> dict[str, int]:
    """Return what a round costs when everybody sends a transaction of his own; no signature is checked there."""
    keys = [development_key(index) for index in range(4)]
    receipt = send(chain, keys[0], Call(None, bytes.fromhex("".join(_PER_CLIENT))), 2_000_000)
    contract = bytes.fromhex(receipt["contractAddress"][2:])
    task, content = keccak256(b"task"), keccak256(b"content")

    def cost(index: int, signature: str, *words: bytes) -> int:
        data = keccak256(signature.encode())[:4] + b"".join(word.rjust(32, b"\0") for word in words)
        return _gas(send(chain, keys[index], Call(contract, data)))

    where = (task, b"\1")
    stored = cost(0, "store(bytes32,uint256,bytes32,uint64)", *where, content, b"\x0f\xa0")
    logged = cost(0, "log(bytes32,uint256,bytes32,uint64)", *where, content, b"\x0f\xa0")
    combined = cost(0, "combine(bytes32,uint256,bytes32)", *where, content)
    votes = sum(cost(index, "vote(bytes32,uint256)", *where) for index in range(4))
    found = {}
    for size in SIZES:
        found[f"own transactions, stored, round of {size}"] = size * stored + combined + votes
        found[f"own transactions, events only, round of {size}"] = size * logged + combined + votes
    return found


def _gas(receipt: Mapping[str, Any]) -> int:
    return int(receipt["gasUsed"])
