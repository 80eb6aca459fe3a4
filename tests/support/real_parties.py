"""A consortium with key files and rosters of its own, on the in-process grid: contracts that are not for simulation."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flbc.crypto import keystore, paillier
from flbc.crypto.keystore import PartyKeys
from flbc.crypto.signing import checksum_address
from flbc.ledger import accounts, deployment, publishing
from flbc.ledger.chain import Chain, connect
from flbc.ledger.deployment import Deployment
from flbc.ledger.hub import Hub
from flbc.ledger.publishing import TaskFile
from flbc.ledger.registry import registration
from flbc.node.rosterfile import Entry, write_roster
from flbc.roster import Party
from flbc.round import Signed, domain
from tests.ledger.conftest import give
from tests.support.chain_runs import GAS, outbox_of

PASSWORD = "correct horse battery staple"
HOSPITALS = ("cleveland", "hungary", "long-beach", "switzerland")
ETHER = 10**18
#: Owner of the registry.
AUTHORITY = accounts.development_key(1)
#: Declared sizes of the training sets.
EXAMPLES = {name: 10 * (place + 1) for place, name in enumerate(HOSPITALS)}


@dataclass
class RealParties:
    """Four hospitals that are the committee too, an authority, a publisher and a relayer.

    ``url`` is the chain. Contracts are deployed; everybody is registered and pinned; each node has a roster of its own.
    """

    folder: Path
    deployment: Deployment
    url: str = "embedded"
    keys: dict[str, PartyKeys] = field(default_factory=dict)

    @classmethod
    def make(
        cls, folder: Path, opening_key: paillier.PrivateKey, url: str = "embedded", absent: tuple[str, ...] = ()
    ) -> RealParties:
        """Make everything; who is ``absent`` is in all rosters, but not registered."""
        folder.mkdir()
        with connect(url) as chain, outbox_of(chain) as outbox:
            made = deployment.deploy(chain, outbox, authority=AUTHORITY.address, label=folder.name)
            made.save(folder / "deployment.json")
            parties = cls(folder, made, url)
            for name in (*HOSPITALS, "authority", "publisher", "relayer"):
                fresh = PartyKeys.generate(name)
                key = opening_key if name == "authority" else None
                parties.keys[name] = PartyKeys(name, fresh.signing, fresh.encryption, fresh.vrf, key)
                keystore.save(folder / f"{name}.key", parties.keys[name], PASSWORD)
            parties.write_rosters(made.chain_id, made.hub)
            for name in {*HOSPITALS, "authority", "publisher"}.difference(absent):
                parties.register(chain, name, ETHER if name in HOSPITALS else 0)
            give(chain, parties.keys["publisher"].signing.address, 2)
            give(chain, parties.keys["relayer"].signing.address, 1)
        return parties

    def write_rosters(self, chain_id: int, hub: bytes) -> None:
        """Write a roster for each node, with the chain and the hub in its policy."""
        policy = {"min-key-bits": 2048, "chain-id": chain_id, "hub": checksum_address(hub)}
        entries = [
            Entry(keystore.read_public(self.folder / f"{name}.key"), self.roles(name), EXAMPLES.get(name, 0))
            for name in (*HOSPITALS, "authority")
        ]
        for name in (*HOSPITALS, "authority"):
            write_roster(self.folder / f"{name}.toml", entries, policy)

    def roles(self, name: str) -> tuple[str, ...]:
        return ("committee", "hospital") if name in HOSPITALS else ("authority",)

    def party(self, name: str) -> Party:
        keys = self.keys[name]
        scheme_key = b"" if keys.paillier is None else keys.paillier.public.fingerprint
        roles = ("hospital",) if name == "publisher" else self.roles(name)
        return Party(
            name, roles, keys.signing.address, keys.encryption.public, scheme_key, EXAMPLES.get(name, 0),
            keys.vrf.address,
        )  # fmt: skip

    def index(self, name: str) -> int:
        """Return a party's place in the roster of a task."""
        return sorted((*HOSPITALS, "authority")).index(name)

    def hub(self, chain: Chain) -> Hub:
        return Hub(chain, self.deployment)

    def register(self, chain: Chain, name: str, stake: int, **changes: Any) -> None:
        """Register a party from its own account, as `flbc register` does."""
        keys, hub = self.keys[name], self.hub(chain)
        give(chain, keys.signing.address, stake / ETHER + 0.1)
        entry = registration(replace(self.party(name), **changes), keys.signing.address, name == "publisher")
        where = domain(chain.chain_id, self.deployment.hub, simulation=False)
        call = hub.registry.register(entry, Signed.make(entry, keys.signing, where).signature, stake)
        with outbox_of(chain, keys.signing) as outbox:
            key = f"register/{time.time_ns()}"
            outbox.submit(key, call, GAS)
            outbox.wait(key)

    def node_config(self, number: int) -> dict[str, Any]:
        """Return the node-config of a SuperNode; the last one is the authority's."""
        name = (*HOSPITALS, "authority")[number]
        return {
            "partition-id": number,
            "num-partitions": len(HOSPITALS) + 1,
            "flbc-role": ",".join(self.roles(name)),
            "flbc-key": str(self.folder / f"{name}.key"),
            "flbc-roster": str(self.folder / f"{name}.toml"),
        }

    def publish(self, file: TaskFile, reward: int = ETHER) -> bytes:
        """Do what `flbc task publish` does."""
        key = self.keys["publisher"].signing
        with connect(self.url) as chain, outbox_of(chain, key) as outbox:
            hub = self.hub(chain)
            task = publishing.publish(hub, outbox, file, reward, file.seconds)
            publishing.start(hub, outbox, task, file, key)
            return task

    @contextmanager
    def publisher(self, home: Path, **options: Any) -> Iterator[list[Any]]:
        """Publish, in a thread, the task that a run will wait for; yields what came of it: an id or an error.

        ``by`` replaces :meth:`publish`; other options are handed to it.
        """
        publish = options.pop("by", self.publish)
        outcome: list[Any] = []
        stop = threading.Event()

        def wait() -> None:
            while not stop.is_set():
                found = list((home / "tasks").glob("*.json"))
                if found:
                    try:
                        outcome.append(publish(TaskFile.load(found[0]), **options))
                    except Exception as error:
                        logging.exception("the publisher failed")
                        outcome.append(error)
                    return
                time.sleep(0.02)

        thread = threading.Thread(target=wait)
        thread.start()
        try:
            yield outcome
        finally:
            stop.set()
            thread.join()
