r"""How far one unit can move the integers that are summed, for each unit of protection and each adjacency.

Write c = clip_norm / step for the clipping norm in integer units and d for the number of coordinates. Clipping happens
in float64 with a little headroom (:mod:`flbc.privacy.clipping`), so that c is never exceeded by float rounding.

**Example unit.** A client sums its clipped per-example gradients in float64 and rounds the sum once, to the nearest
integer. Neighbouring sums a, b differ by at most c before rounding, and ``|rint(a) - rint(b) - (a - b)| <= 1`` in every
coordinate, so the integers differ by at most ``c + sqrt(d)`` (zero-out) or ``2c + sqrt(d)`` (replace-one). With
``step = clip_norm / (20 sqrt(d))``, c is ``20 sqrt(d)``: rounding costs 5 % of sensitivity.

**Client unit.** The neighbour's update is the zero vector, which encodes to zeros, so the sensitivity is the norm of
one encoded vector: ``c + sqrt(d)/2`` with rounding to nearest, ``c + sqrt(d)`` with stochastic rounding ``floor(x +
u)``. Replace-one: two updates a, b have ``|a - b| <= 2c``, and again a coordinate's rounding moves the difference by
at most 1: ``2c + sqrt(d)``. For nearest rounding that is two vectors, each within sqrt(d)/2 of one of norm c. For
stochastic rounding it holds because u is drawn independently of the data: fix u, get ``|floor(a + u) - floor(b + u) -
(a - b)| < 1``, and average the guarantee over u (joint convexity of the hockey-stick divergence).
"""

from __future__ import annotations

import math
from typing import Any

from ..errors import PrivacyConfigError
from .spec import UNITS, Privacy, Unit, require_count, require_positive

STEPS_PER_CLIP = 20
"""Example unit: quantisation steps in ``clip_norm / sqrt(d)``. Rounding then costs 1/20 of the sensitivity."""


def example_step(clip_norm: float, dimension: int) -> float:
    """Return the example unit's step, in parameter units per integer."""
    return clip_norm / (STEPS_PER_CLIP * math.sqrt(dimension))


def settings_of(
    privacy: Privacy, dimension: int, max_examples: int, client_step: float | None, stochastic: bool
) -> dict[str, Any]:
    """Return what the sensitivity depends on, checked: the arguments of :func:`derive`.

    The parameters are those of :func:`flbc.privacy.plan`; the client unit has no use for ``max_examples``, the example
    unit none for ``client_step`` and ``stochastic``.

    Raises
    ------
    PrivacyConfigError
        If a value is missing or out of range.
    """
    require_count("dimension", dimension)
    settings: dict[str, Any] = {"unit": privacy.unit, "dimension": dimension, "clip_norm": float(privacy.clip_norm)}
    if privacy.unit == "example":
        step = example_step(settings["clip_norm"], dimension)
        settings |= {"step": step, "max_examples": max_examples, "stochastic": False}
    elif client_step is None:
        raise PrivacyConfigError(
            "the client unit needs the codec's step: pass client_step=clip_norm / (2**(bits-1) - 1)"
        )
    else:
        settings |= {"step": float(client_step), "max_examples": 1, "stochastic": stochastic}
    check_settings(**settings)
    return settings


def derive(
    unit: Unit, dimension: int, clip_norm: float, step: float, max_examples: int, stochastic: bool
) -> dict[str, Any]:
    """Return the sensitivities (L2, integer units) and the coordinate bound; see the module docstring."""
    c, root = clip_norm / step, math.sqrt(dimension)
    sensitivity = c + root / 2 if unit == "client" and not stochastic else c + root
    return {
        "sensitivity": sensitivity,
        "replace_one_sensitivity": 2 * c + root,
        "max_abs": math.ceil(max_examples * c) + 1,
    }


def check_settings(
    unit: Unit, dimension: int, clip_norm: float, step: float, max_examples: int, stochastic: bool
) -> None:
    """Refuse settings that no vector could have, among them a step that is not the one the unit prescribes.

    Raises
    ------
    PrivacyConfigError
        If a value is out of range or contradicts another one.
    """
    if unit not in UNITS or not isinstance(stochastic, bool):
        raise PrivacyConfigError(f'privacy unit is {unit!r}: pass unit="client" or unit="example"')
    require_count("dimension", dimension)
    require_positive("clip_norm", clip_norm, "for example 1.0")
    require_positive("step", step, "the parameter units of one integer")
    require_count("max_examples", max_examples)
    if not math.isfinite(clip_norm / step * max_examples):
        raise PrivacyConfigError(f"step {step!r} is too small for clip_norm {clip_norm!r}: use fewer bits in the codec")
    if unit == "example" and (step != example_step(clip_norm, dimension) or stochastic):
        raise PrivacyConfigError(
            f"the example unit rounds sums to the nearest multiple of clip_norm / ({STEPS_PER_CLIP} sqrt(dimension)), "
            f"not of {step!r}: make the mechanism with plan()"
        )
    if unit == "client" and max_examples != 1:
        raise PrivacyConfigError(f"max_examples is {max_examples}: it belongs to the example unit; leave it at 1")
