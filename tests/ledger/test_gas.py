"""Gas stays within its budgets, and within two per cent of contracts/gas.json."""

from __future__ import annotations

import json

import pytest

from flbc.ledger.chain import connect
from tests.support.gas import BUDGETS, GAS_FILE, TOLERANCE, measure

EXPECTED: dict[str, int] = json.loads(GAS_FILE.read_text())


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> dict[str, int]:
    folder = tmp_path_factory.mktemp("gas")
    with pytest.MonkeyPatch.context() as patch, connect(f"embedded:{folder / 'chain.sqlite'}") as chain:
        patch.setenv("FLBC_HOME", str(folder))
        return measure(chain, folder)


@pytest.mark.parametrize("step", EXPECTED)
def test_gas_is_what_the_file_says(measured, step):
    assert measured[step] == pytest.approx(EXPECTED[step], rel=TOLERANCE), (
        "gas has changed: run `python benchmarks/gas.py --write`, and say why in the commit"
    )


def test_every_step_is_in_the_file(measured):
    assert measured.keys() == EXPECTED.keys()


@pytest.mark.parametrize("step", BUDGETS)
def test_gas_is_within_its_budget(measured, step):
    assert measured[step] <= BUDGETS[step]


def test_one_transaction_for_all_is_cheaper_than_one_each(measured):
    for size in (10, 100):
        assert measured[f"round of {size}"] < measured[f"own transactions, events only, round of {size}"]
