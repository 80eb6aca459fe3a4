"""Whom this node trusts, and what it agrees to: the roster file (S1).

A roster file is TOML::

    version = 1

    [policy]
    schemes = ["paillier", "nddfe", "masked"]
    min-key-bits = 3072
    min-survivors = 3
    max-epsilon = 3.0

    [[party]]
    name = "cleveland"
    roles = ["hospital"]
    address = "0x8ba1f109551bD432803012645Ac136ddd64DBA72"
    encryption = "1f0c..."           # X25519 public key, hexadecimal
    vrf = "0x52908400098527886E0F7030069857D2E4169EE7"   # address of the VRF key, needed with a ledger
    examples = 242                   # declared size of the training set

    [[party]]
    name = "authority"
    roles = ["authority"]
    address = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
    encryption = "77ab..."
    scheme-key = "9c1d..."           # fingerprint of the Paillier key, hexadecimal

Nothing that comes through the server can add to it or loosen it.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from ..crypto.signing import parse_address
from ..errors import ConfigError, PolicyError, RosterError
from ..privacy.spec import WHERES
from ..roster import Party, Roster
from ..task import TaskConfig
from ..verification.policy import REVEALS
from .identity import development_identity, development_name
from .terms import policy_of

#: Modes kept for study: anybody who is online in them reads single clients.
INSECURE_MODES = ("paper",)
#: Schemes whose security grows with the size of a scheme key.
KEY_SIZED = ("paillier",)
_NOISE_BY = {"opener": "the opener", "clients": "the clients", "local": "every client for itself"}
_PARTY_KEYS = {"name", "roles", "address", "encryption", "scheme-key", "examples", "vrf"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """What this node agrees to. Run-config can never loosen it.

    Parameters
    ----------
    schemes : tuple of str (default: ("paillier", "nddfe", "masked", "verified"))
        Accepted schemes. ``"paillier-split"`` in place of ``"paillier"`` accepts that mode only: without it a server
        may ask for another one. Modes that are insecure must be named to be accepted: ``"nddfe-paper"``.
    min_key_bits : int (default: 3072)
        Smallest scheme key in bits, where the scheme has one (paillier).
    min_survivors : int (default: 3)
        Fewest clients in a sum, at least 3 (S12).
    min_threshold : float (default: 2/3)
        With masking, the smallest fraction of a group whose shares open a client's secret (S24).
    noise_by : str (default: "")
        ``"clients"``: with differential privacy, accept only noise of which every client adds a share
        (:class:`flbc.Masked`), so that no server is trusted with exact sums; ``"local"``: only noise that every client
        adds for itself; ``"opener"``: only noise of whoever opens; empty: any.
    min_noise_multiplier : float (default: 0.0)
        Above 0, differential privacy is required, with at least this multiplier. Under sampling a small one may be
        right: epsilon is what counts.
    max_epsilon : float (default: inf)
        When finite, differential privacy is required, with at most this epsilon for a task.
    max_delta : float (default: 1e-3)
        With differential privacy, the largest delta for a task; an epsilon says nothing beside a large one.
    max_clip_norm : float (default: inf)
        Largest clipping norm.
    max_total_epsilon : float (default: inf)
        Largest sum of the epsilons of all tasks that this node itself ever opened, or added noise of its own to (basic
        composition), because a server may start as many tasks as it likes, each with its own budget. It does not limit
        the tasks that a client joins where somebody else adds the noise.
    reveal_metrics : tuple of str or None (default: ())
        With differential privacy, metrics that may leave in clear; None accepts what the task names.
    max_change, max_norm_factor, max_drop : float (default: inf)
        With checks of hidden models: the strictest of what a task's policy must ask for (:class:`flbc.Policy`). When
        finite, the rule must be there, and at most this.
    max_warmup_rounds : float (default: inf)
        Most rounds in which a task may leave accuracies unchecked.
    reveal : str (default: "")
        With checks: ``"bit"``, ``"count"`` or ``"none"``, the most that they may show; empty: any.
    min_committee : int (default: 3)
        Fewest committee members of a task with a ledger. A server chooses who of the pinned parties takes part, so a
        small committee may be one dishonest member.
    hub : str (default: "")
        When set, only tasks of this TaskHub contract are accepted, ``0x`` and 40 hexadecimal digits.
    chain_id : int (default: 0)
        When not 0, only tasks on this chain are accepted.

    Raises
    ------
    ConfigError
        If ``min_survivors`` is below 3, ``min_threshold`` not from 0.5 to below 1, ``noise_by`` unknown, or ``hub`` no
        address.
    """

    schemes: tuple[str, ...] = ("paillier", "nddfe", "masked", "verified")
    min_key_bits: int = 3072
    min_survivors: int = 3
    min_threshold: float = 2 / 3
    noise_by: str = ""
    min_noise_multiplier: float = 0.0
    max_epsilon: float = math.inf
    max_delta: float = 1e-3
    max_clip_norm: float = math.inf
    max_total_epsilon: float = math.inf
    reveal_metrics: tuple[str, ...] | None = ()
    max_change: float = math.inf
    max_norm_factor: float = math.inf
    max_drop: float = math.inf
    max_warmup_rounds: float = math.inf
    reveal: str = ""
    min_committee: int = 3
    hub: str = ""
    chain_id: int = 0

    def __post_init__(self) -> None:
        """Refuse a policy that protects nothing by mistake."""
        if self.hub:
            parse_address(self.hub)
        if self.min_survivors < 3:
            raise ConfigError(f"[policy] min-survivors = {self.min_survivors} must be at least 3")
        if not 0.5 <= self.min_threshold < 1:
            raise ConfigError(f"[policy] min-threshold = {self.min_threshold} must be from 0.5 to below 1")
        if self.reveal not in ("", *REVEALS):
            raise ConfigError(f"[policy] reveal = {self.reveal!r} must be one of {', '.join(REVEALS)}")
        if self.noise_by not in ("", *WHERES):
            raise ConfigError(f"[policy] noise-by = {self.noise_by!r} must be one of {', '.join(WHERES)}")

    @classmethod
    def from_toml(cls, data: Mapping[str, Any]) -> Self:
        """Read the ``[policy]`` table; :class:`ConfigError` names an unknown or malformed key."""
        if not isinstance(data, Mapping):
            raise ConfigError("[policy] must be a table")
        names = {name.replace("_", "-"): name for name in cls.__dataclass_fields__}
        unknown = [key for key in data if key not in names]
        if unknown:
            raise ConfigError(f"Unknown key {unknown[0]!r} in [policy]; known: {', '.join(names)}")
        values: dict[str, Any] = {}
        for key, value in data.items():
            if key in ("schemes", "reveal-metrics"):
                if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                    raise ConfigError(f"[policy] {key} must be a list of strings")
                values[names[key]] = tuple(value)
            elif key in ("hub", "noise-by", "reveal"):
                values[names[key]] = str(value)
            elif not _is_number(value):
                raise ConfigError(f"[policy] {key} must be a number")
            else:
                values[names[key]] = value
        return cls(**values)

    def check_committee(self, members: int) -> None:
        """Raise :class:`PolicyError` unless a task's committee is large enough."""
        if members < self.min_committee:
            raise PolicyError(
                f"This node's policy needs {self.min_committee} committee members, the task has {members}"
            )

    def check_chain(self, chain_id: int, hub: bytes) -> None:
        """Raise :class:`PolicyError` unless tasks of this chain and hub (0 and zeros: no ledger) are accepted."""
        if self.chain_id and chain_id != self.chain_id:
            raise PolicyError(f"This node's policy accepts tasks on chain {self.chain_id} only, not on {chain_id}")
        if self.hub and hub != parse_address(self.hub):
            raise PolicyError(f"This node's policy accepts tasks of the hub {self.hub} only")

    def check(self, config: TaskConfig) -> None:
        """Raise :class:`PolicyError`, naming the rule, unless the task keeps to this policy."""
        exact = f"{config.scheme}-{config.mode}"
        wanted = exact if config.mode in INSECURE_MODES else config.scheme
        if wanted not in self.schemes and exact not in self.schemes:
            raise PolicyError(f"This node's policy does not accept scheme {wanted!r}, only {self.schemes}")
        if config.scheme in KEY_SIZED and config.key_bits < self.min_key_bits:
            raise PolicyError(f"This node's policy needs keys of {self.min_key_bits} bits, offered: {config.key_bits}")
        if config.min_survivors < self.min_survivors:
            raise PolicyError(f"This node's policy needs min_survivors >= {self.min_survivors}")
        share = 1.0 if config.sharing is None else config.sharing.get("threshold")
        if not isinstance(share, float) or not share >= self.min_threshold:
            raise PolicyError(f"This node's policy needs a threshold of at least {self.min_threshold:g} of a group")
        if config.verification is not None:
            self._check_models(config)
        if config.privacy is None:
            limits = (self.max_epsilon, self.max_total_epsilon)
            if any(map(math.isfinite, limits)) or self.min_noise_multiplier > 0 or self.noise_by:
                raise PolicyError("This node's policy requires differential privacy, and the task has none")
            return
        numbers = {name: config.privacy.get(name) for name in ("epsilon", "delta", "noise_multiplier", "clip_norm")}
        if not all(map(_is_number, numbers.values())):
            raise PolicyError(f"This node cannot check the task's privacy: {', '.join(numbers)} must be numbers")
        if self.noise_by and config.privacy.get("where") != self.noise_by:
            raise PolicyError(f"This node's policy wants the noise to be added by {_NOISE_BY[self.noise_by]}")
        if config.privacy["epsilon"] > self.max_epsilon:
            raise PolicyError(f"This node's policy allows epsilon <= {self.max_epsilon}")
        if config.privacy["delta"] > self.max_delta:
            raise PolicyError(f"This node's policy allows delta <= {self.max_delta}")
        if config.privacy["noise_multiplier"] < self.min_noise_multiplier:
            raise PolicyError(f"This node's policy needs a noise multiplier >= {self.min_noise_multiplier}")
        if config.privacy["clip_norm"] > self.max_clip_norm:
            raise PolicyError(f"This node's policy allows a clipping norm <= {self.max_clip_norm}")
        if self.reveal_metrics is not None and set(config.reveal_metrics) - set(self.reveal_metrics):
            raise PolicyError(f"This node's policy reveals at most the metrics {self.reveal_metrics}")

    def _check_models(self, config: TaskConfig) -> None:
        """Raise :class:`PolicyError` unless hidden models are checked as strictly as this node wants."""
        task = policy_of(config)
        rules = {
            "max-change": (task.max_change, self.max_change),
            "max-norm-factor": (task.norm_factor, self.max_norm_factor),
            "max-drop": (task.max_drop, self.max_drop),
            "max-warmup-rounds": (task.warmup_rounds, self.max_warmup_rounds),
        }
        for name, (value, limit) in rules.items():
            if math.isfinite(limit) and (value is None or value > limit):
                raise PolicyError(f"This node's policy wants models to be checked with {name} = {limit:g} or stricter")
        if self.reveal and REVEALS.index(task.reveal) < REVEALS.index(self.reveal):
            raise PolicyError(f"This node's policy lets checks of models show at most {self.reveal!r}")


@dataclass(frozen=True)
class Pins:
    """Pinned parties and policy. ``parties`` is None with development identities, which everybody can derive."""

    parties: Mapping[str, Party] | None
    policy: Policy = field(default_factory=Policy)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a roster file.

        Raises
        ------
        RosterError
            If the file is missing or not TOML, or a party is malformed.
        ConfigError
            If the policy is malformed.
        """
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError:
            raise RosterError(f"Cannot read the roster {path}; make one with `flbc roster`") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise RosterError(f"The roster {path} is not TOML: {error}") from None
        return cls.from_toml(data, path)

    @classmethod
    def from_toml(cls, data: Mapping[str, Any], path: Path) -> Self:
        """Read the tables of a roster file; ``path`` is named in messages, the errors are those of :meth:`load`."""
        entries = data.get("party", [])
        if set(data) - {"version", "policy", "party"} or data.get("version") != 1 or not isinstance(entries, list):
            raise RosterError(f"The roster {path} must have version = 1, [policy] and [[party]], and nothing else")
        parties = [_party(entry, path) for entry in entries]
        roster = Roster(tuple(sorted(parties, key=lambda party: party.name)))  # checks that names and keys differ
        return cls({party.name: party for party in roster.parties}, Policy.from_toml(data.get("policy", {})))

    @classmethod
    def development(cls, insecure: tuple[str, ...] = ()) -> Self:
        """Return the pins of simulated nodes: every party must be the one derived from the public mnemonic.

        ``insecure`` are further schemes that the node's own app accepts, e.g. ``("nddfe-paper",)``.
        """
        schemes = (*Policy().schemes, *insecure)
        return cls(None, Policy(schemes=schemes, min_key_bits=2048, reveal_metrics=None, min_committee=1))

    def check(self, party: Party) -> None:
        """Raise :class:`RosterError` unless ``party`` is pinned with exactly these keys and roles.

        An authority's scheme key and a declared number of examples are compared when they are pinned; a scheme key
        that is not pinned must carry the authority's signature (:func:`flbc.node.scheme_keys.check_keys`).
        """
        pinned = self._pinned(party.name)
        same_keys = (party.address, party.encryption) == (pinned.address, pinned.encryption)
        # In simulation roles follow from the number of partitions, so only keys are derived.
        if not same_keys or (self.parties is not None and party.roles != pinned.roles):
            raise RosterError(f"Party {party.name!r} came with other keys or roles than the pinned ones")
        if pinned.vrf and party.vrf != pinned.vrf:
            raise RosterError(f"Party {party.name!r} came with another VRF key than the pinned one")
        if pinned.scheme_key and party.scheme_key != pinned.scheme_key:
            raise RosterError(f"Party {party.name!r} came with another scheme key than the pinned one")
        if pinned.examples and party.examples != pinned.examples:
            raise RosterError(f"Party {party.name!r} came with another number of examples than the pinned one")

    def check_roster(self, roster: Roster) -> None:
        """Check every party."""
        for party in roster.parties:
            self.check(party)

    def examples(self, name: str) -> int:
        """Return the pinned number of examples of a party, 0 when none is pinned."""
        return 0 if self.parties is None or name not in self.parties else self.parties[name].examples

    def _pinned(self, name: str) -> Party:
        if self.parties is not None:
            if name not in self.parties:
                raise RosterError(f"Party {name!r} is not in this node's roster; add it with `flbc roster`")
            return self.parties[name]
        number = name.removeprefix("node-")
        if not (number.isascii() and number.isdigit()) or len(number) > 9 or development_name(int(number)) != name:
            raise RosterError(f"Party {name!r} is not a development identity")
        return development_identity(int(number)).party()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value  # not NaN


def _party(entry: object, path: Path) -> Party:
    if not isinstance(entry, Mapping):
        raise RosterError(f"A party in {path} must be a [[party]] table")
    name = str(entry.get("name", "?"))
    if set(entry) - _PARTY_KEYS or not {"name", "roles", "address", "encryption"} <= set(entry):
        raise RosterError(
            f"Party {name!r} in {path} needs name, roles, address, encryption [vrf, scheme-key, examples]"
        )
    try:
        return Party(
            name,
            tuple(sorted(entry["roles"])),
            parse_address(entry["address"]),
            bytes.fromhex(entry["encryption"]),
            bytes.fromhex(entry.get("scheme-key", "")),
            _count(entry.get("examples", 0)),
            parse_address(entry["vrf"]) if "vrf" in entry else b"",
        )
    except (TypeError, ValueError) as error:
        raise RosterError(f"Party {name!r} in {path} is malformed: {error}") from None


def _count(value: object) -> int:
    if type(value) is not int:
        raise TypeError("examples must be an integer")
    return value
