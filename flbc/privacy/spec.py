"""What a user asks for: the unit of protection, the budget and the clipping norm."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..errors import PrivacyConfigError

Unit = Literal["client", "example"]
"""One client's whole update, or one record of one client."""

UNITS: tuple[Unit, ...] = ("client", "example")

Where = Literal["opener", "clients", "local"]
"""Who adds the noise: whoever opens the sum, every client a share of it, or every client all of it."""

WHERES: tuple[Where, ...] = ("opener", "clients", "local")

Accountant = Literal["prv", "rdp"]
"""How rounds over Poisson samples are composed; see :mod:`flbc.privacy.subsampled`."""

ACCOUNTANTS: tuple[Accountant, ...] = ("prv", "rdp")

Sampler = Literal["rounded", "opendp"]
"""What draws the noise: :mod:`flbc.privacy.noise` (and :mod:`flbc.privacy.discrete`), or OpenDP."""

SAMPLERS: tuple[Sampler, ...] = ("rounded", "opendp")

MIN_RATE = 1e-6
"""Smallest sampling rate: below it the floats of the accountants are too coarse."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Privacy:
    """A differential-privacy budget for one task.

    Parameters
    ----------
    epsilon : float
        Total budget of the task, > 0. Values of 1 to 3 are customary; above 10 the promise means little.
    delta : float (default: 1e-5)
        Probability mass outside the epsilon promise, in (0, 1). Choose it below one over the number of units.
    unit : {"client", "example"} (default: "client")
        What one neighbour differs in; see :mod:`flbc.privacy`. With a handful of clients only ``"example"`` leaves a
        useful model: hiding one of four hospitals needs noise of the size of a hospital.
    clip_norm : float (default: 1.0)
        L2 norm to which one client's update, or one example's gradient, is clipped; in the units of the parameters.
    rounds : int, optional (default: None)
        Number of rounds the budget has to last for. None means the ``num_rounds`` of ``start()``.
    noise_multiplier : float, optional (default: None)
        Standard deviation of the noise over the sensitivity. None means the smallest one for which ``rounds`` rounds
        stay inside (epsilon, delta).
    learning_rate : float (default: 1.0)
        Example unit only: the server applies ``global - learning_rate * noised mean gradient``.
    where : {"opener", "clients", "local"} (default: "opener")
        Who adds the noise. "opener": whoever opens the sum (authority, generator, server), who sees it without noise
        and must be trusted with it. "clients": every client adds a share to its own integers before they are hidden,
        so that nobody sees a sum without noise; :class:`flbc.Masked` only. "local": every client adds *all* of the
        noise, so that its own vector is private against everybody; the sum of m clients carries m times the variance.
    colluders : int (default: 1)
        Only with ``where="clients"``: clients that are assumed to work together with the server, so that their shares
        of the noise hide nothing. At least 1, for every client knows its own share. Each one more costs accuracy: the
        other ``min_survivors - colluders`` make the whole noise. See :mod:`flbc.privacy.distributed`.
    sampling_rate : float (default: 1.0)
        Example unit only: probability q, from 1e-6 to 1, with which a node draws each of its examples in a round,
        secretly (:func:`flbc.privacy.poisson_sample`). Below 1 it is counted: less noise for the same epsilon. The
        app has to state the rate it used. Sampling of *clients* is never counted.
    accountant : {"prv", "rdp"} (default: "prv")
        With ``sampling_rate`` below 1: how rounds are composed; both give upper bounds, "prv" the tighter one. At 1
        rounds compose exactly, and this is not used.
    sampler : {"rounded", "opendp"} (default: "rounded")
        What draws the noise: flbc's own sampler, or the exact discrete Gaussian of OpenDP, an independent
        implementation that is about a hundred times slower and needs ``pip install "flbc[opendp]"`` wherever noise is
        added.

    Raises
    ------
    PrivacyConfigError
        If a value is out of range; the message says what to pass instead.
    """

    epsilon: float
    delta: float = 1e-5
    unit: Unit = "client"
    clip_norm: float = 1.0
    rounds: int | None = None
    noise_multiplier: float | None = None
    learning_rate: float = 1.0
    where: Where = "opener"
    colluders: int = 1
    sampling_rate: float = 1.0
    accountant: Accountant = "prv"
    sampler: Sampler = "rounded"

    def __post_init__(self) -> None:
        """Check every field; nothing that is half right is ever constructed."""
        if self.unit not in UNITS:
            raise PrivacyConfigError(f'privacy unit is {self.unit!r}: pass unit="client" or unit="example"')
        require_positive("epsilon", self.epsilon, "for example 3.0")
        require_delta(self.delta)
        require_positive("clip_norm", self.clip_norm, "an L2 norm in parameter units, for example 1.0")
        require_positive("learning_rate", self.learning_rate, "for example 1.0")
        if self.rounds is not None:
            require_count("rounds", self.rounds, "at least 1, or None for the num_rounds of start()")
        if self.noise_multiplier is not None:
            require_positive("noise_multiplier", self.noise_multiplier, "or None to have it solved from the budget")
        if self.where not in WHERES:
            raise PrivacyConfigError(
                f'privacy where is {self.where!r}: pass where="opener", where="clients" or where="local"'
            )
        require_count("colluders", self.colluders, "at least 1: every client knows the noise that it adds itself")
        if self.where != "clients" and self.colluders != 1:
            raise PrivacyConfigError(
                f'colluders is {self.colluders}, but with where="{self.where}" clients add no shares of it: pass '
                'where="clients", or leave colluders out'
            )
        check_choices(self.unit, self.sampling_rate, self.accountant, self.sampler)


def check_choices(unit: Unit, sampling_rate: float, accountant: Accountant, sampler: Sampler) -> None:
    """Refuse a sampling rate that does not fit the unit, an unknown accountant or an unknown sampler.

    Raises
    ------
    PrivacyConfigError
        Says what to pass instead.
    """
    require_rate(sampling_rate)
    if sampling_rate != 1 and unit != "example":
        raise PrivacyConfigError(
            f'sampling_rate is {sampling_rate!r}, but with unit="client" a whole update is protected and nothing is '
            'sampled secretly: pass unit="example", or leave sampling_rate out'
        )
    if accountant not in ACCOUNTANTS:
        raise PrivacyConfigError(f'accountant is {accountant!r}: pass accountant="prv" or accountant="rdp"')
    if sampler not in SAMPLERS:
        raise PrivacyConfigError(f'sampler is {sampler!r}: pass sampler="rounded" or sampler="opendp"')


def require_positive(name: str, value: float, hint: str) -> None:
    """Refuse anything but a finite number above zero (bool is not a number here)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and value > 0):
        raise PrivacyConfigError(f"{name} is {value!r}: pass a finite number above 0, {hint}")


def require_delta(delta: float) -> None:
    """Refuse a delta outside the open interval (0, 1)."""
    if isinstance(delta, bool) or not isinstance(delta, (int, float)) or not 0 < delta < 1:
        raise PrivacyConfigError(f"delta is {delta!r}: pass a number between 0 and 1, for example 1e-5")


def require_rate(rate: float) -> None:
    """Refuse a sampling rate outside (0, 1], or so small that it could not be accounted."""
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate <= 1:
        raise PrivacyConfigError(f"sampling_rate is {rate!r}: pass a number above 0 and at most 1, for example 0.05")
    if rate < MIN_RATE:
        raise PrivacyConfigError(f"sampling_rate is {rate!r}: pass {MIN_RATE:g} or more, which can be accounted")


def require_count(name: str, value: int, hint: str = "at least 1") -> None:
    """Refuse anything but an int of 1 or more."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 2**48:
        raise PrivacyConfigError(f"{name} is {value!r}: pass an integer, {hint}")
