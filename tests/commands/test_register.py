import json

import pytest

from flbc.crypto import keystore
from flbc.crypto.keystore import PartyKeys
from flbc.crypto.signing import checksum_address
from flbc.ledger.chain import connect
from flbc.ledger.deployment import find
from flbc.ledger.registry import Registry
from tests.commands.conftest import HOSPITALS, PASSWORD, fails, give, run


def public(name):
    return keystore.read_public(f"{name}.key")


def address(name):
    return bytes.fromhex(public(name)["address"][2:])


def member(name):
    with connect("embedded") as chain:
        return Registry(chain, find(chain).registry).member(address(name))


def height():
    with connect("embedded") as chain:
        return chain.height()


def test_registered_members_are_what_rosters_pin(registered):
    for name, examples in HOSPITALS.items():
        party = member(name).party()
        pinned = public(name)
        assert party.name == name
        assert party.roles == ("committee", "hospital")
        assert party.examples == examples
        assert party.address == address(name)
        assert party.encryption.hex() == pinned["encryption"]
        assert checksum_address(party.vrf) == pinned["vrf_address"]
    assert member("authority").party().roles == ("authority",)
    assert member("publisher").roles == 8


def test_it_shows_what_the_registry_holds(registered):
    shown = run("register", "--key", "stranger.key", "--role", "hospital", "--examples", 7, "--stake", "0.3")
    assert "registered stranger (gas " in shown.stderr
    assert "registering stranger ..." in shown.stderr
    lines = dict(line.split("  ", 1) for line in shown.stdout.splitlines())
    assert {name: value.strip() for name, value in lines.items()} == {
        "name": "stranger",
        "account": public("stranger")["address"],
        "signing address": public("stranger")["address"],
        "VRF address": public("stranger")["vrf_address"],
        "encryption key": public("stranger")["encryption"],
        "roles": "hospital",
        "examples": "7",
        "stake": "0.3 ether",
        "keys since": f"block {height()}",
    }


def test_repeating_changes_nothing(registered):
    arguments = ("register", "--key", "hungary.key", "--role", "committee,hospital", "--examples", 235)
    before = height()
    for stake in ((), ("--stake", "0.25"), ("--stake", "0.1")):
        assert "registered so already; nothing was sent" in run(*arguments, *stake).stderr
    assert height() == before


def test_stake_is_filled_up_to_what_is_asked_for(registered):
    arguments = ("register", "--key", "hungary.key", "--role", "committee,hospital", "--examples", 235)
    run(*arguments, "--stake", "0.250000000000000001")
    assert member("hungary").stake == 25 * 10**16 + 1


def test_registration_that_was_interrupted_is_not_paid_twice(registered, monkeypatch):
    arguments = ("register", "--key", "stranger.key", "--role", "hospital", "--stake", "1")

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("flbc.ledger.outbox.Outbox.wait", killed)
        run(*arguments, code=130)
    assert not member("stranger").registered
    told = run(*arguments).stderr
    assert "sending what this account still had queued (1)" in told
    assert "registered so already; nothing was sent" in told
    assert member("stranger").stake == 10**18


def test_changes_are_sent(registered):
    run("register", "--key", "va.key", "--role", "hospital", "--examples", 161)
    assert member("va").party().roles == ("hospital",)
    assert member("va").examples == 161
    assert member("va").stake == 10**17


def test_party_that_is_paid_to_another_account(registered):
    keystore.save("clinic.key", PartyKeys.generate("clinic"), PASSWORD)
    with connect("embedded") as chain:
        registry = Registry(chain, find(chain).registry)
        run("register", "--key", "clinic.key", "--role", "hospital", "--account", "stranger.key", "--stake", "1")
        assert registry.account_of(address("clinic")) == address("stranger")
    # The key belongs to that account for ever.
    with connect("embedded") as chain:
        give(chain, address("clinic"))
    told = fails("register", "--key", "clinic.key", "--role", "hospital")
    assert f"belongs to account {public('stranger')['address']}: send from there (--account)" in told
    told = fails("stake", "add", "1", "--key", "clinic.key")
    assert f"is the signing key of account {public('stranger')['address']}: take that account's key file" in told


def test_hospital_without_a_stake_is_told(registered):
    told = run("register", "--key", "stranger.key", "--role", "hospital").stderr
    assert "without a stake this party can never lead a block" in told


def test_contracts_for_simulation(home, keys):
    run("deploy")
    with connect("embedded") as chain:
        give(chain, address("va"))
    told = run("register", "--key", "va.key", "--role", "committee").stderr
    assert "for simulation: a run with key files needs others, `flbc deploy --no-simulation`" in told


def test_account_without_ether(home, keys):
    run("deploy", "--no-simulation")
    told = fails("register", "--key", "va.key", "--role", "hospital", "--stake", "2")
    assert f"The account {public('va')['address']} has 0.000000 ether" in told
    assert "send it 2.0" in told
    assert f"On this development chain `flbc chain fund {public('va')['address']}` does that" in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Name the party's roles with --role, or --publisher"),
        (("--role", "nurse"), "Unknown role 'nurse'"),
        (("--role", "hospital", "--stake", "1e3"), "--stake takes an amount of ether"),
        (("--role", "hospital", "--account", "none.key"), "cannot read the key file none.key"),
        (("--role", "hospital", "--deployment", "none.json"), "Cannot read the deployment none.json"),
    ],
)
def test_bad_arguments(registered, arguments, message):
    assert message in fails("register", "--key", "stranger.key", *arguments)
    assert not member("stranger").registered


def test_name_that_a_contract_cannot_hold(registered):
    keystore.save("long.key", PartyKeys.generate("a" * 33), PASSWORD)
    assert "1 to 32 ASCII characters" in fails("register", "--key", "long.key", "--role", "hospital")


def test_wrong_password(registered, monkeypatch):
    monkeypatch.setenv("FLBC_KEY_PASSWORD", "wrong")
    assert "the password is wrong or the file was changed" in fails("register", "--key", "va.key", "--role", "hospital")


def test_no_deployment(home, keys):
    told = fails("register", "--key", "va.key", "--role", "hospital")
    assert "There is no deployment on chain 131277322940537" in told
    assert "run `flbc deploy`" in told


def test_damaged_key_file_asks_for_no_password(home, keys, monkeypatch):
    monkeypatch.delenv("FLBC_KEY_PASSWORD")
    content = json.loads((keys / "va.key").read_text())
    (keys / "va.key").write_text(json.dumps({**content, "format": "other"}))
    assert "no flbc key file" in fails("register", "--key", "va.key", "--role", "hospital")
