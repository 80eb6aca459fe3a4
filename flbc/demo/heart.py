"""Heart disease at four hospitals: the data that the bundled apps train on.

920 patients of the UCI Heart Disease data (Janosi, Steinbrunn, Pfisterer & Detrano 1988, CC BY 4.0,
https://doi.org/10.24432/C52P4X; see ``heart_disease.md`` beside this file). One row is one patient.

Preprocessing works record by record with constants that any clinician could name without having seen these data:
nothing is estimated from them, so no patient influences how another one is encoded (a mean taken over the data would
be a query outside epsilon).
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError

HOSPITALS: tuple[str, ...] = ("cleveland", "hungary", "va-long-beach", "switzerland")
"""Slugs of the four sites; the index is the partition id."""

Record = Mapping[str, str]

# column: (centre, scale) in the column's unit. Public clinical constants, round on purpose: middle age of cardiac
# patients; the border of hypertension; the border of high cholesterol; maximal heart rate at 55 by 220 - age, less a
# fifth as in a usual stress test; 1 mm, from which an ST depression counts as abnormal; one of three vessels.
_NUMBERS: dict[str, tuple[float, float]] = {
    "age_years": (55.0, 10.0),
    "resting_bp_mmhg": (130.0, 20.0),
    "cholesterol_mg_dl": (240.0, 50.0),
    "max_heart_rate_bpm": (140.0, 25.0),
    "st_depression_mm": (1.0, 1.0),
    "vessels_colored": (1.0, 1.0),
}
_CATEGORIES: dict[str, tuple[str, ...]] = {
    "chest_pain": ("typical-angina", "atypical-angina", "non-anginal", "asymptomatic"),
    "resting_ecg": ("normal", "st-t-abnormality", "lv-hypertrophy"),
    "st_slope": ("upsloping", "flat", "downsloping"),
    "thallium": ("normal", "fixed-defect", "reversible-defect"),
}
_FLAGS: dict[str, str] = {"sex": "male", "fasting_sugar_over_120": "1", "exercise_angina": "1"}
_NEVER_MISSING = ("age_years", "sex", "chest_pain")
_LARGEST = 3.0
"""Scaled numbers are cut off here, so that a typing error in one record stays one bounded record."""


def _feature_names() -> tuple[str, ...]:
    names = [*_NUMBERS, *_FLAGS]
    for column, values in _CATEGORIES.items():
        names.extend(f"{column}={value}" for value in values)
    columns = (*_NUMBERS, *_FLAGS, *_CATEGORIES)
    names.extend(f"{column}=missing" for column in columns if column not in _NEVER_MISSING)
    return tuple(names)


FEATURE_NAMES: tuple[str, ...] = _feature_names()
"""Names of the columns of a feature vector: numbers, flags, one-hot categories, then missing-value indicators."""


@dataclass(frozen=True, slots=True)
class Split:
    """Training and test rows of one hospital.

    Parameters
    ----------
    train_x, test_x : ndarray of float64, shape (rows, len(FEATURE_NAMES))
    train_y, test_y : ndarray of int64, shape (rows,)
        1 where heart disease was diagnosed, else 0.
    """

    train_x: NDArray[np.float64]
    train_y: NDArray[np.int64]
    test_x: NDArray[np.float64]
    test_y: NDArray[np.int64]


@lru_cache(maxsize=1)
def load() -> tuple[Record, ...]:
    """Read the 920 records, as text, in file order (grouped by hospital)."""
    text = resources.files(__package__).joinpath("heart_disease.csv").read_text(encoding="ascii")
    return tuple(csv.DictReader(text.splitlines()))


def features(record: Record) -> NDArray[np.float64]:
    """Encode one record by itself; a missing value becomes zeros and an indicator.

    Parameters
    ----------
    record : mapping of str to str
        One row of the file, by column name. An unreadable number or an unknown category counts as missing: a single
        record may not decide whether an exception is raised.

    Returns
    -------
    ndarray of float64, shape (len(FEATURE_NAMES),)
    """
    values = dict.fromkeys(FEATURE_NAMES, 0.0)
    missing = []
    for column, (centre, scale) in _NUMBERS.items():
        number = _number(record.get(column, ""))
        if number is None:
            missing.append(column)
        else:
            values[column] = min(_LARGEST, max(-_LARGEST, (number - centre) / scale))
    for column, yes in _FLAGS.items():
        if record.get(column, "") == "":
            missing.append(column)
        else:
            values[column] = float(record[column] == yes)
    for column, known in _CATEGORIES.items():
        value = record.get(column, "")
        if value in known:
            values[f"{column}={value}"] = 1.0
        else:
            missing.append(column)
    for column in missing:
        if column not in _NEVER_MISSING:
            values[f"{column}=missing"] = 1.0
    return np.array([values[name] for name in FEATURE_NAMES])


def label(record: Record) -> int:
    """1 if any narrowing was diagnosed (``diagnosis`` 1 to 4), else 0."""
    return int(record.get("diagnosis", "") in ("1", "2", "3", "4"))


def split(hospital: str, fold: int, folds: int = 5, seed: int = 2025) -> Split:
    """Split one hospital's patients for cross-validation; the same arguments always give the same rows.

    Rows of each label are shuffled and dealt out to the folds in turn, so that every fold has nearly the hospital's
    share of each label; over ``fold = 0 … folds - 1`` every patient is tested exactly once.

    Parameters
    ----------
    hospital : str
        One of :data:`HOSPITALS`.
    fold : int
        Which part is held out, 0 to ``folds - 1``.
    folds : int (default: 5)
        Number of parts, at least 2.
    seed : int (default: 2025)
        Seed of the shuffle. It decides who is tested, and protects nothing.

    Raises
    ------
    ConfigError
        If the hospital is unknown or the fold out of range.
    """
    if hospital not in HOSPITALS:
        raise ConfigError(f"unknown hospital {hospital!r}: choose one of {', '.join(HOSPITALS)}")
    if folds < 2 or not 0 <= fold < folds:
        raise ConfigError(f"fold {fold} of {folds}: pass folds of at least 2, and a fold from 0 to folds - 1")
    x, y = _encoded(hospital)
    rng = np.random.default_rng([seed, HOSPITALS.index(hospital)])
    held_out = np.zeros(len(y), dtype=bool)
    dealt = 0
    for value in (0, 1):
        rows = rng.permutation(np.flatnonzero(y == value))
        # Dealing goes on where the other label stopped, which keeps the folds equally large.
        held_out[rows[(np.arange(len(rows)) + dealt) % folds == fold]] = True
        dealt += len(rows)
    return Split(x[~held_out], y[~held_out], x[held_out], y[held_out])


@lru_cache(maxsize=len(HOSPITALS))
def _encoded(hospital: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    rows = [record for record in load() if record["hospital"] == hospital]
    return np.stack([features(row) for row in rows]), np.array([label(row) for row in rows], dtype=np.int64)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if np.isfinite(number) else None
