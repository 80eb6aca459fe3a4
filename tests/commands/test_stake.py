import pytest

from tests.commands.conftest import fails, run, travel
from tests.commands.test_register import member


def test_add(registered):
    result = run("stake", "add", "0.000000000000000001", "--key", "cleveland.key")
    assert "added 0.000000000000000001 ether" in result.stderr
    assert "0.500000000000000001 ether" in result.stdout
    assert member("cleveland").stake == 5 * 10**17 + 1


def test_leave_and_withdraw(registered):
    assert "comes first, then the unbonding time" in fails("stake", "withdraw", "--key", "va.key")
    result = run("stake", "leave", "--key", "va.key")
    assert "left (gas" in result.stderr
    assert "leaving" in result.stdout
    assert "is leaving already; nothing was sent" in run("stake", "leave", "--key", "va.key").stderr
    told = fails("stake", "withdraw", "--key", "va.key")
    assert "The stake of 0.1 ether can be withdrawn from 20" in told
    assert "in 1 h" in told or "in 59 min" in told
    assert "`flbc register` brings it back" in run("stake", "add", "1", "--key", "va.key").stderr
    travel(3601)
    assert "paid back 1.1 ether" in run("stake", "withdraw", "--key", "va.key").stderr
    assert member("va").stake == 0
    assert "There is no stake to pay back" in fails("stake", "withdraw", "--key", "va.key")
    run("register", "--key", "va.key", "--role", "hospital,committee", "--examples", 160, "--stake", "0.1")
    assert member("va").unlock_at == 0


@pytest.mark.parametrize("command", [("add", "1"), ("leave",), ("withdraw",)])
def test_somebody_who_is_not_registered(registered, command):
    told = fails("stake", *command, "--key", "stranger.key")
    assert "is not registered on this chain: run `flbc register`" in told


@pytest.mark.parametrize("amount", ["0", "-1", "x"])
def test_no_amount(registered, amount):
    told = fails("stake", "add", "--key", "va.key", "--", amount)
    assert "NothingToMove" in told if amount == "0" else "ETHER takes an amount of ether" in told
