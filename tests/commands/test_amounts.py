from datetime import UTC, datetime

import pytest

from flbc.commands.amounts import decimal, distance, ether, moment, parse_ether, span
from flbc.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "wei"),
    [
        ("1", 10**18),
        ("0", 0),
        ("007", 7 * 10**18),
        ("0.1", 10**17),
        ("0.3", 3 * 10**17),
        ("0.000000000000000001", 1),
        ("1.000000000000000007", 10**18 + 7),
        ("123456789.987654321987654321", 123456789987654321987654321),
        ("340282366920938463463.374607431768211455", 2**128 - 1),
    ],
)
def test_amounts_are_exact(text, wei):
    assert parse_ether(text, "--reward") == wei
    assert parse_ether(decimal(wei), "--reward") == wei
    assert "e" not in decimal(wei)


@pytest.mark.parametrize(
    "text",
    ["", "1.", ".5", "-1", "+1", "1e3", "1,5", " 1", "1 ", "1_0", "nan", "inf", "0x1", "٣", "1 ether", "1\n", "9" * 31],
)
def test_other_text_is_no_amount(text):
    with pytest.raises(ConfigError, match="--reward takes an amount of ether"):
        parse_ether(text, "--reward")


def test_nineteen_decimals_are_refused_not_rounded():
    with pytest.raises(ConfigError, match="at most 18 decimals"):
        parse_ether("0.0000000000000000001", "--stake")


def test_more_than_a_contract_holds():
    with pytest.raises(ConfigError, match="--stake is more than the contracts can hold"):
        parse_ether("340282366920938463463.374607431768211456", "--stake")


def test_amounts_are_written_in_full():
    assert [ether(wei) for wei in (0, 1, 10**18, 5 * 10**16, 120 * 10**18)] == [
        "0 ether", "0.000000000000000001 ether", "1 ether", "0.05 ether", "120 ether",
    ]  # fmt: skip


def test_times():
    noon = int(datetime(2030, 1, 2, 12, tzinfo=UTC).timestamp())
    assert moment(noon) == "2030-01-02 12:00:00 UTC"
    assert moment(noon, noon - 7500) == "2030-01-02 12:00:00 UTC (in 2 h 5 min)"
    assert moment(noon, noon + 61) == "2030-01-02 12:00:00 UTC (1 min 1 s ago)"
    assert moment(2**64 - 1, noon) == f"Unix time {2**64 - 1}"
    assert distance(noon, noon) == "0 s ago"
    assert [span(seconds) for seconds in (0, 59, 3600, 86_400 * 7, 90_061)] == ["0 s", "59 s", "1 h", "7 d", "1 d 1 h"]
