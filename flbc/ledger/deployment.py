"""Where the contracts are, and proof that they still are what was deployed.

A contract's address proves nothing: development chains repeat addresses after a reset, and anything can be deployed
anywhere. A deployment is known by the chain (id and hash of block 0), the receipt of the deploying transaction and the
code at the addresses; :func:`check` compares all of them before anything relies on the contracts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..crypto.signing import checksum_address
from ..encoding import canonical, parse
from ..errors import ChainResetError, ConfigError, LedgerError, ProtocolError
from ..round import domain
from .build import artifact
from .files import home
from .strict import Address, Hash, Record
from .transactions import Call

if TYPE_CHECKING:
    from .chain import Chain
    from .outbox import Outbox

#: Seconds that a stake stays after its owner left, and after a task's deadline: a week to report equivocation.
UNBONDING = 7 * 24 * 3600
#: Gas limit for deploying the hub, which deploys its registry. Measured: see contracts/gas.json.
DEPLOY_GAS = 12_000_000
_ZERO = bytes(20)
#: The constructor's four arguments, ABI-encoded.
_ARGUMENT_BYTES = 4 * 32


@dataclass(frozen=True)
class Deployment(Record):
    """Hub and registry on one chain.

    Parameters
    ----------
    chain_id : int
    genesis : bytes
        Hash of the chain's block 0.
    hub, registry : bytes
        Addresses.
    transaction, block_number, block_hash : bytes, int, bytes
        Of the deploying transaction's receipt.
    simulation : bool
        Whether the contracts are for development identities.
    """

    chain_id: int
    genesis: Hash
    hub: Address
    registry: Address
    transaction: Hash
    block_number: int
    block_hash: Hash
    simulation: bool

    @property
    def path(self) -> Path:
        """Where this chain's deployment is kept."""
        return path_of(self.chain_id, self.genesis)

    def save(self, path: Path | None = None) -> Path:
        """Write the deployment's file, in FLBC_HOME unless ``path`` says otherwise, and return its path."""
        place = path or self.path
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = place.with_name(f".{place.name}.new")
        temporary.write_bytes(canonical(self.to_dict()) + b"\n")
        temporary.replace(place)
        return place

    @classmethod
    def load(cls, path: Path) -> Deployment:
        """Read a deployment's file; :class:`ConfigError` if it is none."""
        try:
            return cls.from_dict(parse(path.read_bytes().rstrip(b"\n"), "deployment"))
        except OSError as error:
            raise ConfigError(
                f"Cannot read the deployment {path}: {error.strerror}. `flbc deploy` writes one; or copy the one that "
                "the consortium uses"
            ) from None
        except ProtocolError as error:
            raise ConfigError(f"{path} is not a deployment that `flbc deploy` wrote: {error}") from None


def path_of(chain_id: int, genesis: bytes) -> Path:
    """Return where the deployment on a chain is kept: ``FLBC_HOME/deployments/<chain id>-<genesis>.json``."""
    return home() / "deployments" / f"{chain_id}-{genesis.hex()[:8]}.json"


def find(chain: Chain) -> Deployment:
    """Return the checked deployment of FLBC_HOME on this chain.

    Raises
    ------
    LedgerError
        If there is none, or one that :func:`check` refuses.
    """
    path = path_of(chain.chain_id, chain.genesis)
    if not path.exists():
        others = sorted(path.parent.glob(f"{chain.chain_id}-*.json")) if path.parent.exists() else []
        if others:
            raise ChainResetError(
                f"{chain.name} serves chain {chain.chain_id} from block 0 = 0x{chain.genesis.hex()[:8]}…, but "
                f"{others[0]} is for another chain with this id: the chain was reset. Start the node with its old "
                f"state, or deploy anew with `{_cure(chain)}`"
            )
        raise LedgerError(f"There is no deployment on chain {chain.chain_id} in {path.parent}: run `{_cure(chain)}`")
    deployment = Deployment.load(path)
    check(chain, deployment)
    return deployment


def deploy(
    chain: Chain,
    outbox: Outbox,
    *,
    authority: bytes,
    treasury: bytes | None = None,
    unbonding: int = UNBONDING,
    simulation: bool = False,
    label: str = "",
    seconds: float = 120.0,
) -> Deployment:
    """Deploy hub and registry.

    Parameters
    ----------
    chain : Chain
    outbox : Outbox
        Of the account that pays; it has no rights afterwards.
    authority : bytes
        Account that may suspend participants.
    treasury : bytes or None (default: None)
        Account that gets what is slashed; the authority's by default.
    unbonding : int (default: a week)
        Seconds that stakes stay after their owner left and after a task's deadline.
    simulation : bool (default: False)
        For development identities, whose keys everybody can derive; on development chains only (S2).
    label : str (default: "")
        Another label makes another deployment with the same arguments; the same one gives the same contracts again.
    seconds : float (default: 120)
        How long to wait for the transaction.

    Returns
    -------
    Deployment
        Checked, not saved.

    Raises
    ------
    ConfigError
        If ``simulation`` is asked for on another chain than a development one, or an address is none.
    LedgerError
        If the transaction fails or does not arrive.
    """
    if simulation and not chain.development:
        raise ConfigError(
            f"Chain {chain.chain_id} is no development chain: everybody could sign for development identities there. "
            "Make key files with `flbc keys new`, and deploy without simulation"
        )
    treasury = authority if treasury is None else treasury
    if _ZERO in (authority, treasury) or {len(authority), len(treasury)} != {20}:
        raise ConfigError("A deployment needs the authority's and the treasury's account, 20 bytes each, not zero")
    shipped = artifact("TaskHub")
    factory = chain.w3.eth.contract(abi=shipped["abi"], bytecode=shipped["bytecode"])
    chain.learn([*shipped["abi"], *artifact("Registry")["abi"]])
    arguments = (checksum_address(authority), checksum_address(treasury), unbonding, simulation)
    call = Call.of(factory.constructor(*arguments))
    key = f"deploy/{call.digest.hex()}/{label}"
    outbox.submit(key, call, DEPLOY_GAS)
    receipt = outbox.wait(key, seconds)
    hub = _unhex(str(receipt["contractAddress"]))
    registry = chain.call(chain.contract(hub, shipped["abi"]).functions.registry())
    deployment = Deployment(
        chain_id=chain.chain_id,
        genesis=chain.genesis,
        hub=hub,
        registry=_unhex(registry),
        transaction=bytes(receipt["transactionHash"]),
        block_number=int(receipt["blockNumber"]),
        block_hash=bytes(receipt["blockHash"]),
        simulation=simulation,
    )
    check(chain, deployment)
    return deployment


def check(chain: Chain, deployment: Deployment) -> None:
    """Make sure that the chain is the deployment's, and that its contracts are flbc's.

    Raises
    ------
    ChainResetError
        If the node serves another chain, or has lost the deployment.
    LedgerError
        If other code is at the addresses than this version of flbc ships.
    """
    cure = _cure(chain)
    chain.check(deployment.chain_id, deployment.genesis, "The deployment")
    receipt = chain.receipt(deployment.transaction)
    if receipt is None or bytes(receipt["blockHash"]) != deployment.block_hash:
        how = "is not on it" if receipt is None else f"is in another block, {bytes(receipt['blockHash']).hex()[:16]}…"
        raise ChainResetError(
            f"{chain.name} serves chain {chain.chain_id} with the right block 0, but the transaction that deployed "
            f"the contracts {how}: the node lost blocks. Wait until it has caught up, start it with its old state, "
            f"or deploy anew with `{cure}`"
        )
    _check_creation(chain, deployment, receipt, cure)
    for name, address in (("TaskHub", deployment.hub), ("Registry", deployment.registry)):
        shipped = artifact(name)
        text: Any = checksum_address(address)
        with chain.explained():
            code = bytes(chain.w3.eth.get_code(text))
        if _mask(shipped, code) != _mask(shipped, _unhex(shipped["deployedBytecode"])):
            raise LedgerError(f"{_what(name, address)}: use the version it was deployed with, or deploy with `{cure}`")
    hub = chain.contract(deployment.hub, artifact("TaskHub")["abi"]).functions
    registry = chain.contract(deployment.registry, artifact("Registry")["abi"]).functions
    where = domain(deployment.chain_id, deployment.hub, deployment.simulation).separator()
    if (
        _unhex(chain.call(hub.registry())) != deployment.registry
        or _unhex(chain.call(registry.hub())) != deployment.hub
        or bytes(chain.call(hub.separator())) != where
        or bytes(chain.call(registry.separator())) != where
    ):
        raise LedgerError(
            "Hub and registry do not belong to each other, or were deployed with another simulation flag than the "
            f"deployment says: was its file edited? Copy it again, or deploy anew with `{cure}`"
        )


def _check_creation(chain: Chain, deployment: Deployment, receipt: Any, cure: str) -> None:
    """Check that the transaction ran the shipped code that creates the hub.

    The code at an address shows less: the bytes that a constructor fills in are everywhere in it, and whoever writes
    them by hand can put another registry into one place than the hub names in another.
    """
    with chain.explained():
        transaction = chain.w3.eth.get_transaction(receipt["transactionHash"])
    creation, data = _unhex(artifact("TaskHub")["bytecode"]), bytes(transaction["input"])
    made = _unhex(str(receipt["contractAddress"] or ""))
    if made != deployment.hub or not data.startswith(creation) or len(data) != len(creation) + _ARGUMENT_BYTES:
        raise LedgerError(
            f"{_what('TaskHub', deployment.hub)}, or another transaction made it: use the version it was deployed "
            f"with, or deploy anew with `{cure}`"
        )


def _what(name: str, address: bytes) -> str:
    return f"The code at {checksum_address(address)} is not the {name} that this version of flbc ships"


def _unhex(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def _mask(shipped: dict[str, Any], code: bytes) -> bytes:
    """Blank the bytes that a constructor fills in."""
    masked = bytearray(code)
    for start, length in shipped["immutableReferences"]:
        masked[start : start + length] = bytes(length)
    return bytes(masked)


def _cure(chain: Chain) -> str:
    return f"flbc deploy --rpc {chain.name}" if chain.name.startswith("http") else "flbc deploy"
