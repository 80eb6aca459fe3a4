"""The shipped heart data: what is in it, and how it is encoded and split."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from flbc.demo.heart import FEATURE_NAMES, HOSPITALS, features, label, load, split
from flbc.errors import ConfigError


def test_counts_are_those_of_uci() -> None:
    # https://doi.org/10.24432/C52P4X, heart-disease.names: 303, 294, 200, 123 instances.
    assert Counter(r["hospital"] for r in load()) == {
        "cleveland": 303,
        "hungary": 294,
        "va-long-beach": 200,
        "switzerland": 123,
    }
    assert Counter(r["hospital"] for r in load() if label(r)) == {
        "cleveland": 139,
        "hungary": 106,
        "va-long-beach": 149,
        "switzerland": 115,
    }


def test_impossible_zeros_are_missing() -> None:
    assert all(r["cholesterol_mg_dl"] != "0" and r["resting_bp_mmhg"] != "0" for r in load())
    assert sum(r["cholesterol_mg_dl"] == "" for r in load()) == 172 + 30


def test_every_cell_is_understood() -> None:
    assert set(load()[0]) == {
        "hospital", "age_years", "sex", "chest_pain", "resting_bp_mmhg", "cholesterol_mg_dl", "fasting_sugar_over_120",
        "resting_ecg", "max_heart_rate_bpm", "exercise_angina", "st_depression_mm", "st_slope", "vessels_colored",
        "thallium", "diagnosis",
    }  # fmt: skip
    for record in load():
        x = dict(zip(FEATURE_NAMES, features(record), strict=True))
        for column, text in record.items():
            if f"{column}=missing" in x:
                assert x[f"{column}=missing"] == float(text == "")
        assert record["sex"] in ("male", "female")
        assert sum(value for name, value in x.items() if name.startswith("chest_pain=")) == 1


def test_features_of_one_record() -> None:
    x = dict(zip(FEATURE_NAMES, features(load()[0]), strict=True))
    assert x["age_years"] == pytest.approx(0.8)
    assert x["resting_bp_mmhg"] == pytest.approx(0.75)
    assert x["chest_pain=typical-angina"] == x["thallium=fixed-defect"] == x["sex"] == 1.0
    assert not any(value for name, value in x.items() if name.endswith("missing"))


def test_a_broken_record_is_encoded_and_bounded() -> None:
    for record in (
        {},
        dict.fromkeys(load()[0], "nonsense"),
        dict(load()[0], age_years="1e999", st_depression_mm="-1e12"),
    ):
        x = features(record)
        assert np.isfinite(x).all()
        assert np.abs(x).max() <= 3


@pytest.mark.parametrize("hospital", HOSPITALS)
@pytest.mark.parametrize("folds", [2, 5])
def test_folds_partition_the_patients(hospital: str, folds: int) -> None:
    splits = [split(hospital, fold, folds) for fold in range(folds)]
    everyone = np.column_stack([np.vstack([s.test_x for s in splits]), np.concatenate([s.test_y for s in splits])])
    for s in splits:
        assert len(s.train_y) + len(s.test_y) == len(everyone)
        together = np.column_stack([np.vstack([s.train_x, s.test_x]), np.concatenate([s.train_y, s.test_y])])
        assert sorted(map(tuple, together)) == sorted(map(tuple, everyone))
        assert abs(s.test_y.sum() - everyone[:, -1].sum() / folds) < 1
        assert abs(len(s.test_y) - len(everyone) / folds) < 1
        assert s.train_x.dtype == np.float64


def test_splits_are_deterministic_and_seeded() -> None:
    a, b, c = split("hungary", 1), split("hungary", 1), split("hungary", 1, seed=1)
    np.testing.assert_array_equal(a.test_x, b.test_x)
    assert not np.array_equal(a.test_x, c.test_x)


def test_bad_arguments() -> None:
    with pytest.raises(ConfigError, match="choose one of cleveland"):
        split("Cleveland", 0)
    for fold, folds in ((5, 5), (-1, 5), (0, 1)):
        with pytest.raises(ConfigError, match="fold"):
            split("hungary", fold, folds)
