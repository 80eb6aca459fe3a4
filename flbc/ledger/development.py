"""Development runs: the run itself registers its simulated parties, publishes its task and fetches the payouts.

All keys here can be derived by everybody, so this works on development chains only, with contracts that were deployed
for simulation (S2); the outbox and the contracts refuse it elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..crypto.signing import SigningKey
from ..errors import ConfigError
from ..node.identity import Identity, development_identity, development_name
from ..roster import Party
from ..round import Signed, domain
from . import publishing
from .files import ProcessLock, home
from .members import role_bits
from .outbox import Outbox
from .packing import PackedPayout, unpack_all
from .payouts import merkle_proof
from .publishing import TaskFile
from .registry import registration
from .settings import ETHER
from .transactions import MIN_GAS, Call

if TYPE_CHECKING:
    from pathlib import Path

    from .chain import Chain
    from .hub import Hub

#: Every simulated party's stake in wei.
STAKE = ETHER
#: What a simulated party gets beside its stake, to pay for gas.
_POCKET = ETHER // 20
#: Partition number of the simulated publisher, beyond any that trains.
_PUBLISHER = 10**8
_TURN_SECONDS = 300.0
_REGISTER_GAS, _CLAIM_GAS = 500_000, 200_000


def outbox_path(chain: Chain, account: bytes) -> Path:
    """Return where the outbox of an account on a chain is kept."""
    return home() / "outbox" / f"{chain.chain_id}-{chain.genesis.hex()[:8]}-{account.hex()}.sqlite"


def turn(chain: Chain) -> ProcessLock:
    """Wait for this run's turn with the simulated accounts, which all runs on this machine share."""
    path = home() / "locks" / f"{chain.chain_id}-{chain.genesis.hex()[:16]}-simulation.lock"
    return ProcessLock(path, "The simulated publisher", "Wait for the other run to publish its task", _TURN_SECONDS)


def publisher() -> Identity:
    """Return the simulated publisher."""
    return development_identity(_PUBLISHER, ("hospital",))


def enroll(hub: Hub, relayer: Outbox, parties: Sequence[Party], reward: int) -> None:
    """Register simulated parties with a stake, and the publisher with the reward; what is so already is left.

    Raises
    ------
    ConfigError
        If a party is no development identity, or the contracts are not for simulation.
    """
    if not hub.deployment.simulation:
        raise ConfigError(
            "These contracts were not deployed for simulation, but the nodes use development identities; deploy with "
            "`flbc deploy --simulation`, or give the nodes key files"
        )
    wanted = [(_identity(party), party, STAKE) for party in parties]
    paying = publisher()
    wanted.append((paying, paying.party(), 0))
    # What a killed run left goes out before anything new, and spends what the new is funded for.
    relayer.pump()
    for who, _, _ in wanted:
        _finish(hub.chain, who)
    missing = [entry for entry in wanted if not _is_registered(hub, *entry)]
    stakes = {who.name: stake for who, _, stake in missing}
    stakes[paying.name] = stakes.get(paying.name, 0) + reward
    _fund(hub, relayer, [(who, stakes[who.name]) for who, _, _ in wanted if who.name in stakes])
    for who, party, stake in missing:
        _register(hub, who, party, stake)


def publish(hub: Hub, file: TaskFile) -> bytes:
    """Publish and start a task as the simulated publisher; return its id."""
    key = publisher_key()
    with Outbox(hub.chain, key, outbox_path(hub.chain, key.address)) as outbox:
        task = publishing.publish(hub, outbox, file, file.reward, file.seconds)
        publishing.start(hub, outbox, task, file, key)
    return task


def claim_all(hub: Hub, task: bytes, parties: Sequence[Party], packed: bytes) -> int:
    """Fetch the payouts of simulated parties; return the sum in wei."""
    payouts = {row.party: row.amount for row in unpack_all(PackedPayout, packed)}
    accounts = [seat.account for seat in hub.participants(task)]
    for index, amount in payouts.items():
        if hub.claimed(task, index):
            continue
        key = _identity(parties[index]).keys.signing
        with Outbox(hub.chain, key, outbox_path(hub.chain, key.address)) as outbox:
            call = hub.claim(task, index, amount, merkle_proof(payouts, accounts, index))
            outbox.submit(f"claim/{task.hex()}", call, _CLAIM_GAS)
            outbox.wait(f"claim/{task.hex()}")
    return sum(payouts.values())


def publisher_key() -> SigningKey:
    """Return the simulated publisher's signing key, which is its account's too."""
    return publisher().keys.signing


def _identity(party: Party) -> Identity:
    number = party.name.removeprefix("node-")
    if not number.isdecimal() or development_name(int(number)) != party.name:
        raise ConfigError(f"{party.name!r} is no development identity; register it with `flbc register`")
    return development_identity(int(number), party.roles, party.examples)


def _is_registered(hub: Hub, who: Identity, party: Party, stake: int) -> bool:
    member = hub.registry.member(who.keys.signing.address)
    if not member.registered or member.stake < stake or member.unlock_at:
        return False
    if who.name == development_name(_PUBLISHER):
        return bool(member.roles & role_bits(("publisher",)))
    return member.party() == party


def _finish(chain: Chain, who: Identity) -> None:
    key = who.keys.signing
    path = outbox_path(chain, key.address)
    if path.exists():
        with Outbox(chain, key, path) as outbox:
            if outbox.pending():
                outbox.pump()


def _fund(hub: Hub, relayer: Outbox, wanted: Sequence[tuple[Identity, int]]) -> None:
    """Send ether to those who lack it, all at once."""
    lacking = {}
    for who, amount in wanted:
        address = who.keys.signing.address
        lacking[address] = max(0, amount + _POCKET - hub.chain.balance(address))
    poor = {address: value for address, value in lacking.items() if value}
    relayer.check_funds(len(poor), MIN_GAS, sum(poor.values()))
    keys = []
    for address, value in poor.items():
        keys.append(f"fund/{address.hex()}/{time.time_ns()}")
        relayer.submit(keys[-1], Call(address, value=value), MIN_GAS)
    for key in keys:
        relayer.wait(key)


def _register(hub: Hub, who: Identity, party: Party, stake: int) -> None:
    key = who.keys.signing
    where = domain(hub.chain.chain_id, hub.address, simulation=True)
    entry = registration(party, key.address, publisher=who.name == development_name(_PUBLISHER))
    held = hub.registry.member(key.address).stake
    call = hub.registry.register(entry, Signed.make(entry, key, where).signature, max(0, stake - held))
    with Outbox(hub.chain, key, outbox_path(hub.chain, key.address)) as outbox:
        name = f"register/{time.time_ns()}"
        outbox.submit(name, call, _REGISTER_GAS)
        outbox.wait(name)
