import re

import pytest

from flbc.crypto.signing import checksum_address
from flbc.ledger.accounts import ADDRESSES
from flbc.ledger.deployment import Deployment
from tests.commands.conftest import fails, run


def the_file(home):
    (found,) = home.joinpath("deployments").glob("*.json")
    return found


def test_first_deployment_of_a_development_chain_is_for_simulation(home):
    result = run("deploy")
    path = the_file(home)
    made = Deployment.load(path)
    assert made.simulation
    for shown in (made.hub, made.registry, ADDRESSES[0]):
        assert checksum_address(shown) in result.stdout
    assert str(path) in result.stdout
    assert re.search(r"deployed   block 1, gas \d,\d{3},\d{3}\b", result.stdout)
    assert "deploying hub and registry" in result.stderr


def test_second_deployment_changes_nothing(home):
    run("deploy")
    before = the_file(home).read_bytes()
    result = run("deploy")
    assert "already; nothing was changed (--force deploys others)" in result.stderr
    assert checksum_address(Deployment.load(the_file(home)).hub) in result.stdout
    assert the_file(home).read_bytes() == before


def test_contracts_with_other_arguments_are_not_passed_off_as_those_asked_for(home):
    run("deploy", "--unbonding", 60, "--simulation")
    run("deploy", "--unbonding", 60, "--authority", checksum_address(ADDRESSES[0]))
    told = fails("deploy", "--no-simulation", "--unbonding", 61, "--treasury", checksum_address(ADDRESSES[1]))
    assert "deployed with another --treasury, --unbonding, --simulation: add --force" in told


def test_force_deploys_others_and_keeps_the_old_addresses(home):
    run("deploy")
    before = the_file(home).read_bytes()
    result = run("deploy", "--force", "--no-simulation", "--authority", checksum_address(ADDRESSES[3]))
    assert not Deployment.load(the_file(home)).simulation
    assert f"authority  {checksum_address(ADDRESSES[3])}" in result.stdout
    assert f"treasury   {checksum_address(ADDRESSES[3])}" in result.stdout
    (old,) = home.joinpath("deployments").glob("*.until-*")
    assert old.read_bytes() == before
    assert str(old) in result.stderr


def test_out_names_the_file(home, folder):
    run("deploy", "--out", "here/deployment.json")
    made = Deployment.load(folder / "here" / "deployment.json")
    assert not (home / "deployments").exists()
    run("deploy", "--out", "here/deployment.json")
    run("task", "status", "--deployment", "here/deployment.json")
    assert "There is no deployment on chain" in fails("task", "status")
    # The same arguments give the same contracts, so a command that died before it wrote the file can be repeated.
    run("deploy")
    assert Deployment.load(the_file(home)) == made


def test_file_of_another_chain_is_not_overwritten(home, folder):
    run("deploy", "--out", "here.json")
    before = (folder / "here.json").read_bytes()
    told = fails("deploy", "--rpc", f"embedded:{folder / 'other.sqlite'}", "--out", "here.json")
    assert "here.json is no deployment on this chain, take another --out" in told
    assert (folder / "here.json").read_bytes() == before
    told = fails("audit", "--rpc", f"embedded:{folder / 'other.sqlite'}", "--deployment", "here.json")
    assert "Was the node restarted without its state?" in told


def test_damaged_file_in_flbc_home_is_replaced_and_kept(home):
    run("deploy")
    path = the_file(home)
    path.write_bytes(b"{}")
    result = run("deploy")
    assert "cannot be used any more" in result.stderr
    assert Deployment.load(path).simulation
    (old,) = home.joinpath("deployments").glob("*.until-*")
    assert old.read_bytes() == b"{}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--authority", "0x12"), "an address is 0x followed by 40 hex digits"),
        (("--treasury", "0xF39Fd6e51aad88F6F4ce6aB8827279cffFb92266"), "the checksum of .* is wrong"),
        (("--authority", "0x" + "00" * 20), "not zero"),
        (("--rpc", "ftp://host"), "A chain is 'embedded'"),
        (("--rpc", "http://example.org:8545"), "not be encrypted"),
        (("--rpc", "http://127.0.0.1:9"), "The node http://127.0.0.1:9 does not answer.*start it with `flbc chain up`"),
        (("--key", "none.key"), "cannot read the key file none.key"),
    ],
)
def test_bad_arguments(home, arguments, message):

    assert re.search(message, fails("deploy", *arguments))
    assert not (home / "deployments").exists()


def test_url_with_a_key_is_never_printed(home):
    told = fails("deploy", "--rpc", "http://127.0.0.1:9/v3/SECRET-API-KEY")
    assert "SECRET-API-KEY" not in told
