"""Build a node from Flower's Context: identity, pins, memory, opening key (S1, S2, S3)."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from flwr.app import Context

from ..crypto import keystore, paillier
from ..crypto.keystore import PartyKeys
from ..errors import ConfigError, KeyFileError
from ..node.authority import Authority
from ..node.committee import Attester
from ..node.decryptor import SumDecryptor
from ..node.generator import KeyGenerator
from ..node.identity import Identity, development_identity, load_identity
from ..node.memory import NodeMemory
from ..node.paillier import SPLIT
from ..node.participant import Participant
from ..node.pins import Pins
from ..node.settlement import Judge
from ..node.threshold import JointAuthority, KeyHolder
from ..node.unmasking import ShareHolder
from ..roster import AUTHORITY, GENERATOR, TRAIN_ROLE, VERIFIER
from .simulated import DEVELOPMENT_PASSWORD, development_share

#: Roles beside training that each scheme needs, one node each, served in simulation by the last partitions.
HELPERS: dict[str, tuple[str, ...]] = {
    "paillier": (AUTHORITY,),
    "nddfe": (GENERATOR,),
    "masked": (),
    "verified": (VERIFIER,) * 3,
}
#: The same for modes that need others than their scheme.
_MODE_HELPERS = {("paillier", SPLIT): (GENERATOR, AUTHORITY)}
#: How many training nodes serve in a simulated committee: each is sent everybody's payload.
SIMULATED_COMMITTEE = 7


def home() -> Path:
    """Return the directory for flbc's files: FLBC_HOME, else ``~/.flbc``."""
    return Path(os.environ.get("FLBC_HOME") or Path.home() / ".flbc")


def helpers_of(scheme: str, mode: str) -> tuple[str, ...]:
    """Return the roles beside training that a scheme needs in a mode, one node each; none for unknown schemes."""
    return _MODE_HELPERS.get((scheme, mode), HELPERS.get(scheme, ()))


def in_simulation(context: Context) -> bool:
    """Whether this process is a worker of Flower's simulation engine, or the node's own config says ``flbc-dev``.

    The server has no say in it: only the engine runs ClientApps in Ray actors, and node-config is the node's own.
    """
    if context.node_config.get("flbc-dev") is True:
        return True
    if set(context.node_config) - {"partition-id", "num-partitions"}:
        return False  # the engine sets these two and nothing else
    ray = sys.modules.get("ray")
    return bool(ray is not None and ray.is_initialized() and ray.get_runtime_context().get_actor_id())


class Node:
    """A node as one task sees it.

    Parameters
    ----------
    context : Context
        Flower's; only ``node_config``, ``run_id`` and ``node_id`` are read.
    helpers : tuple of str
        Roles that, in simulation, the last partitions serve (:func:`helpers_of`).
    declare : callable
        Returns the declared size of the training set, 0 when there is none; called only if the node trains, because
        others hold no data.
    committee : bool (default: False)
        Whether, in simulation, the first training nodes are the committee too; deployed nodes say so in ``flbc-role``.
    insecure : tuple of str (default: ())
        In simulation, further schemes that the node accepts.
    """

    def __init__(
        self,
        context: Context,
        helpers: tuple[str, ...],
        declare: Callable[[], int] = lambda: 0,
        committee: bool = False,
        insecure: tuple[str, ...] = (),
    ) -> None:
        config = context.node_config
        self.partitions, self.committee, self._run = 0, 0, context.run_id
        if in_simulation(context) and "flbc-key" not in config:
            partition, self.partitions = _partition(context)
            role = max(partition - (self.partitions - len(helpers)) + 1, 0)
            votes = committee and partition < SIMULATED_COMMITTEE
            trains = ("committee", TRAIN_ROLE) if votes else (TRAIN_ROLE,)
            roles = trains if role == 0 else (helpers[role - 1],)
            self.me = development_identity(partition, roles, declare() if role == 0 else 0)
            self.committee = min(SIMULATED_COMMITTEE, self.partitions - len(helpers))
            self.pins = Pins.development(insecure)
            directory = home() / "runs" / f"{context.run_id}-{context.node_id}"
        else:
            self.me = load_identity(config)
            roster = config.get("flbc-roster")
            if not isinstance(roster, str):
                raise ConfigError("This node has no roster; set flbc-roster in --node-config (see `flbc roster`)")
            self.pins = Pins.load(Path(roster))
            pinned = self.pins.examples(self.me.name)
            examples = declare() if TRAIN_ROLE in self.me.roles else 0
            if examples and pinned and examples != pinned:
                raise ConfigError(f"SecureMod declares {examples} examples, the roster pins {pinned}")
            self.me = Identity(self.me.name, self.me.roles, self.me.keys, False, pinned or examples)
            directory = Path(str(config.get("flbc-dir") or home() / "nodes" / re.sub(r"[^\w.-]", "_", self.me.name)))
        self.memory = NodeMemory(directory)

    @property
    def participant(self) -> Participant:
        """The training half."""
        if not self.me.party().has(TRAIN_ROLE):
            raise ConfigError(f"Node {self.me.name!r} does not train; its roles are {', '.join(self.me.roles)}")
        return Participant(self.me, self.pins, self.memory)

    @property
    def holder(self) -> ShareHolder:
        """The half that gives shares when a masked sum is opened."""
        return ShareHolder(self.me, self.pins, self.memory)

    @property
    def attester(self) -> Attester:
        """The half that signs blocks."""
        return Attester(self.me, self.pins, self.memory)

    @property
    def judge(self) -> Judge:
        """The half that signs the settlement."""
        return Judge(self.me, self.pins, self.memory)

    @property
    def generator(self) -> KeyGenerator:
        """The half that derives function keys."""
        return KeyGenerator(self.me, self.pins, self.memory)

    @property
    def decryptor(self) -> SumDecryptor:
        """The half that opens with a function key."""
        return SumDecryptor(self.me, self.pins, self.memory)

    @property
    def joint_authority(self) -> JointAuthority:
        """The half that joins what holders of shares answer."""
        return JointAuthority(self.me, self.pins, self.memory)

    def key_holder(self, key_bits: int | None = None, threshold: int | None = None) -> KeyHolder:
        """Return the half that opens in part.

        Parameters
        ----------
        key_bits, threshold : int or None
            What the strategy asks for; in simulation the key is made and shared on first use. None: it must exist. A
            threshold of 0: that of the deployed key, in simulation the majority of the holders.

        Raises
        ------
        KeyFileError
            If the key file holds no share, or one of another key than asked for.
        """
        share = self.me.keys.share
        if share is None and self.me.simulation:
            folder = home() / "runs" / f"{self._run}-dealer"
            share = development_share(folder, self.me.name, self.committee, key_bits, threshold)
        if share is None:
            raise KeyFileError(
                "The key file holds no share of a Paillier key; the dealer makes them with `flbc keys deal`, and "
                "`flbc keys accept` puts yours into a key file"
            )
        key = share.key
        if (key_bits or key.public.bits, threshold or key.threshold) != (key.public.bits, key.threshold):
            raise KeyFileError(
                f"This node has a share of a key of {key.public.bits} bits, of which {key.threshold} of {key.holders} "
                f"open a sum, and the strategy asks for key_bits={key_bits} and threshold={threshold}; pass "
                f"Paillier(key_bits={key.public.bits}, threshold={key.threshold}) or deal a new key"
            )
        return KeyHolder(self.me, share, self.pins, self.memory)

    def authority(self, key_bits: int | None = None) -> Authority:
        """Return the opening half.

        Parameters
        ----------
        key_bits : int or None
            In simulation the key is made on first use with this size; None: it must exist.

        Raises
        ------
        KeyFileError
            If the key file holds no Paillier key, or one of another size.
        """
        private = self.me.keys.paillier or (self._development_key(key_bits) if self.me.simulation else None)
        if private is None:
            raise KeyFileError(
                "The key file holds no Paillier key; make one with `flbc keys new NAME --paillier-bits 3072`"
            )
        if key_bits is not None and private.public.bits != key_bits:
            raise KeyFileError(
                f"The authority's key has {private.public.bits} bits, the strategy asks for {key_bits}; "
                f"pass Paillier(key_bits={private.public.bits}) or make a new key"
            )
        return Authority(self.me, private, self.pins, self.memory)

    def _development_key(self, key_bits: int | None) -> paillier.PrivateKey:
        path = self.memory.directory / "authority.key"
        if not path.exists():
            if key_bits is None:
                raise KeyFileError("The simulated authority has lost its key; start a new run")
            keys = self.me.keys
            made = PartyKeys(self.me.name, keys.signing, keys.encryption, keys.vrf, paillier.generate(key_bits))
            keystore.save(path, made, DEVELOPMENT_PASSWORD)
        return _load_development_key(path)


@lru_cache(maxsize=4)
def _load_development_key(path: Path) -> paillier.PrivateKey:
    private = keystore.load(path, DEVELOPMENT_PASSWORD).paillier
    if private is None:
        raise KeyFileError("The simulated authority's key file holds no Paillier key")
    return private


def _partition(context: Context) -> tuple[int, int]:
    try:
        partition, count = (int(context.node_config[name]) for name in ("partition-id", "num-partitions"))
    except (KeyError, ValueError):
        raise ConfigError("A development node needs partition-id and num-partitions in its node config") from None
    return partition, count
