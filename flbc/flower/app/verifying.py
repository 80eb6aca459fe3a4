"""What the bundled app's run-config says of ``Verified``: the policy, and which clients of a demonstration do harm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from ...demo.attacks import Attack, Backdoor, Noise, Scaling, attack_by_name, malicious
from ...errors import ConfigError
from ...verification.policy import REVEALS, Policy
from .reading import choice, get

STRATEGY = "verified"

#: Which number of an attack ``attack-strength`` sets.
_STRENGTHS: Mapping[type[Attack], str] = {Scaling: "factor", Noise: "deviation", Backdoor: "boost"}


@dataclass(frozen=True, slots=True)
class Verifying:
    """The keys ``policy-*``, ``attack*`` and ``min-accepted``; see the README of ``strategies/verified``.

    Parameters
    ----------
    policy : Policy
    min_accepted : int
    attack_name : str
        Empty: nobody does harm.
    attack : Attack
    fraction : float
        Share of the clients that do harm.
    seed : int
        Draws them.
    """

    policy: Policy
    min_accepted: int
    attack_name: str
    attack: Attack
    fraction: float
    seed: int

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """Read the keys.

        Raises
        ------
        ConfigError
            Names the key that is missing, has the wrong type or value, or contradicts another one.
        """
        fraction, seed = get(config, "attack-fraction", float), get(config, "attack-seed", int)
        if not 0 <= fraction <= 1 or seed < 0:
            raise ConfigError("Run-config attack-fraction must be 0 to 1, and attack-seed not negative")
        return cls(
            policy=_policy(config),
            min_accepted=get(config, "min-accepted", int),
            attack_name=get(config, "attack", str),
            attack=_attack(config),
            fraction=fraction,
            seed=seed,
        )

    def attackers(self, clients: int) -> frozenset[int]:
        """Return which of so many clients do harm, by partition."""
        return malicious(clients, self.fraction, self.seed) if self.attack_name else frozenset()


def _policy(config: Mapping[str, Any]) -> Policy:
    """Return the strategy's ``policy``; 0, and below 0 for a drop, stands for None: the rule is off."""
    norm, factor, accuracy = (
        get(config, f"policy-{name}", float) or None for name in ("max-norm", "norm-factor", "min-accuracy")
    )
    drop = get(config, "policy-max-drop", float)
    return Policy(
        max_change=get(config, "policy-max-change", float),
        max_norm=norm,
        norm_factor=factor,
        min_accuracy=accuracy,
        max_drop=None if drop < 0 else drop,
        sigmas=get(config, "policy-sigmas", float),
        warmup_rounds=get(config, "policy-warmup-rounds", int),
        cosine=get(config, "policy-cosine", bool),
        reveal=choice(config, "policy-reveal", REVEALS),
    )


def _attack(config: Mapping[str, Any]) -> Attack:
    name, strength = get(config, "attack", str), get(config, "attack-strength", float)
    attack = attack_by_name(name) if name else Attack()
    if strength == 0:
        return attack
    if type(attack) not in _STRENGTHS:
        raise ConfigError(f"Run-config attack = {name!r} has no strength: leave attack-strength at 0")
    changed: Attack = replace(attack, **{_STRENGTHS[type(attack)]: strength})  # type: ignore[type-var]
    return changed
