import pytest

from flbc.crypto.signing import checksum_address
from flbc.ledger.chain import Chain, connect
from tests.commands.conftest import fails, run
from tests.commands.test_register import address, public

SOMEBODY = b"\xaa" * 20


def test_fund_a_key_file_or_an_account(home, keys):
    assert f"{public('va')['address']} holds 10 ether now" in run("chain", "fund", "va.key").stderr
    told = run("chain", "fund", checksum_address(SOMEBODY), "0.000000000000000001").stderr
    assert f"{checksum_address(SOMEBODY)} holds 0.000000000000000001 ether now" in told
    with connect("embedded") as chain:
        assert (chain.balance(address("va")), chain.balance(SOMEBODY)) == (10**19, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.key",), "cannot read the key file none.key"),
        (("0x12",), "an address is 0x followed by 40 hex digits"),
        (("va.key", "1e3"), "ETHER takes an amount of ether"),
        (("va.key", "1000000000"), "send it"),
    ],
)
def test_what_cannot_be_funded(home, keys, arguments, message):
    assert message in fails("chain", "fund", *arguments)


def test_chain_whose_ether_is_worth_something(home, keys, monkeypatch):
    honest = Chain.__init__

    def public_chain(self, *arguments):
        honest(self, *arguments)
        self.development = False

    monkeypatch.setattr(Chain, "__init__", public_chain)
    assert "is no development chain: somebody who has ether must send some" in fails("chain", "fund", "va.key")
    told = fails("deploy")
    assert "name the account that pays with --key FILE" in told
    told = fails("deploy", "--key", "va.key", "--simulation")
    assert "Make key files with `flbc keys new`, and deploy without simulation" in told
