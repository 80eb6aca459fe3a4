"""Privacy refuses what cannot be meant."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from flbc.errors import PrivacyConfigError
from flbc.privacy import Privacy


def test_defaults() -> None:
    privacy = Privacy(epsilon=3.0)
    assert (privacy.delta, privacy.unit, privacy.clip_norm, privacy.rounds) == (1e-5, "client", 1.0, None)
    assert Privacy(epsilon=1, unit="example", rounds=3).epsilon == 1
    assert (privacy.where, privacy.colluders) == ("opener", 1)
    assert Privacy(epsilon=1, where="clients", colluders=3).colluders == 3
    assert (privacy.sampling_rate, privacy.accountant, privacy.sampler) == (1.0, "prv", "rounded")
    assert Privacy(epsilon=1, unit="example", sampling_rate=1).sampling_rate == 1


def test_an_unknown_choice_names_those_there_are() -> None:
    for field, words in (
        ("sampler", 'sampler="rounded" or sampler="opendp"'),
        ("accountant", 'accountant="prv" or accountant="rdp"'),
        ("where", 'where="opener", where="clients" or where="local"'),
    ):
        with pytest.raises(PrivacyConfigError, match=words):
            Privacy(**{"epsilon": 1.0, field: "other"})


def test_sampling_belongs_to_the_example_unit() -> None:
    with pytest.raises(PrivacyConfigError, match=r'a whole update is protected and .*unit="example"'):
        Privacy(epsilon=1.0, unit="client", sampling_rate=0.5)


def test_colluders_belong_to_noise_of_the_clients() -> None:
    with pytest.raises(PrivacyConfigError, match='with where="local" clients add no shares'):
        Privacy(epsilon=1.0, where="local", colluders=2)
    with pytest.raises(PrivacyConfigError, match=r'colluders is 2.* pass where="clients", or leave colluders out'):
        Privacy(epsilon=1.0, colluders=2)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[
            (name, bad)
            for name in ("epsilon", "clip_norm", "learning_rate")
            for bad in (0, -1.0, math.nan, math.inf, True, "1")
        ],
        *[("noise_multiplier", bad) for bad in (0, -1.0, math.nan)],
        *[("delta", bad) for bad in (0.0, 1.0, -1e-5, math.nan, "x")],
        *[("rounds", bad) for bad in (0, -3, 2.5, True)],
        *[("unit", bad) for bad in ("patient", "", None)],
        *[("where", bad) for bad in ("server", "", None, 1)],
        *[("sampling_rate", bad) for bad in (0, 0.0, -0.1, 1.01, math.nan, math.inf, True, "0.5", None, 1e-9)],
        *[("accountant", bad) for bad in ("gdp", "", None)],
        *[("sampler", bad) for bad in ("numpy", "", None)],
        *[("colluders", bad) for bad in (0, -1, 1.5, True, None)],
    ],
)
def test_bad_values_are_named(field: str, value: object) -> None:
    with pytest.raises(PrivacyConfigError, match=f"{field}.*pass"):
        Privacy(**{"epsilon": 1.0, field: value})


def test_import_is_light() -> None:
    heavy = "print([m for m in ('torch', 'opacus', 'scipy') if m in sys.modules])"
    code = f"import sys, flbc.privacy, flbc.demo.baselines; {heavy}"
    assert (
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip() == "[]"
    )
