import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from eth_account import Account

from flbc.crypto.signing import SigningKey, checksum_address, keccak256
from flbc.errors import ChainResetError, ChainUnavailableError, ConfigError, LedgerError, RevertedError
from flbc.ledger import accounts, nodes
from flbc.ledger.chain import connect
from flbc.ledger.reverts import ErrorBook, revert_data
from flbc.ledger.transactions import MAX_GAS, Call, Fees, sign
from flbc.ledger.verdicts import Verdict, verdict
from tests.ledger.conftest import NOTES_ABI, deploy_notes, funded, give, mined, travel


def send(chain, key, call, gas=200_000, nonce=None):
    nonce = chain.nonce(key.address) if nonce is None else nonce
    signed = sign(key, chain.chain_id, nonce, call, gas, chain.fees())
    return chain.send_raw(signed.raw), signed


# ---------------------------------------------------------------------- what a chain is
def test_identity_is_probed(chain):
    assert chain.chain_id in (131277322940537, 31337, 1337)
    assert chain.development
    assert len(chain.genesis) == 32
    chain.check(chain.chain_id, chain.genesis, "This test")
    with pytest.raises(ChainResetError, match=r"The deployment x\.json.*flbc deploy"):
        chain.check(chain.chain_id, bytes(32), "The deployment x.json")
    with pytest.raises(ChainResetError):
        chain.check(5, chain.genesis, "This test")


def test_all_chains_fund_the_same_accounts(chain):
    assert [accounts.development_key(i).address for i in range(10)] == list(accounts.ADDRESSES)
    assert [bytes.fromhex(a[2:]) for a in chain.w3.eth.accounts] == list(accounts.ADDRESSES)
    assert all(chain.balance(account) > 10**20 for account in accounts.ADDRESSES)


def test_now_is_at_least_the_clock_and_the_newest_block(chain):
    assert chain.now() >= int(time.time())
    travel(chain, 1000)
    assert chain.now() >= time.time() + 990
    assert chain.now() >= chain.block("latest")["timestamp"]


def test_blocks_and_receipts_that_are_not_there_are_none(chain):
    assert chain.block(10**9) is None
    assert chain.receipt(bytes(32)) is None
    assert not chain.knows(bytes(32))
    assert chain.block(0)["hash"] == chain.genesis


# ---------------------------------------------------------------------- sending
def test_sending_twice_is_success_and_executes_once(chain):
    """Also with nonce 0, which Ganache itself executes as often as it gets it."""
    key, notes = funded(chain), deploy_notes(chain)
    for nonce in range(2):
        call = Call.of(notes.functions.note(nonce))
        transaction, signed = send(chain, key, call)
        assert mined(chain, transaction)["status"] == 1
        assert chain.send_raw(signed.raw) == transaction == signed.hash
    assert chain.nonce(key.address) == 2
    assert chain.call(notes.functions.count()) == 2


def test_refusals_are_classified(chain):
    key, poor = funded(chain), SigningKey.generate()
    to = Call(key.address, value=1)
    fees = chain.fees()

    def offered(signer, nonce, fees, gas=21_000, chain_id=chain.chain_id, call=to):
        signed = sign(signer, chain_id, nonce, call, gas, fees)
        return chain.offer(signed.raw, signed.hash)[0]

    assert offered(poor, 0, fees) is Verdict.NO_FUNDS
    assert offered(key, 0, fees, chain_id=5) is Verdict.REFUSED
    if chain.chain_id != 1337:  # Ganache takes anything
        assert offered(key, 0, Fees(1, 1)) is Verdict.UNDERPRICED
    assert offered(key, 0, fees) is Verdict.ACCEPTED
    with pytest.raises(LedgerError, match=r"(?i)insufficient|afford"):
        send(chain, poor, to, gas=21_000)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("already known", Verdict.ACCEPTED),
        ("AlreadyKnown", Verdict.ACCEPTED),
        ("known transaction: 12ab", Verdict.ACCEPTED),
        ("transaction already imported", Verdict.ACCEPTED),
        ("unknown transaction type", Verdict.REFUSED),
        ("replacement transaction underpriced", Verdict.UNDERPRICED),
        ("max fee per gas less than block base fee", Verdict.UNDERPRICED),
        ("FeeTooLow, EffectivePriorityFeePerGas too low", Verdict.UNDERPRICED),
        ("insufficient funds for gas * price + value", Verdict.NO_FUNDS),
        ("Upfront cost exceeds account balance", Verdict.NO_FUNDS),
        ("nonce too low", Verdict.REFUSED),
    ],
)
def test_words_of_other_clients(message, expected):
    assert verdict(message) is expected


# ---------------------------------------------------------------------- contracts
def test_reverts_have_names_and_arguments_on_every_chain(chain):
    notes, sender = deploy_notes(chain), accounts.ADDRESSES[3]
    refused = Call.of(notes.functions.note(5000))
    for attempt in (
        lambda: chain.call(notes.functions.note(5000), sender=sender),
        lambda: chain.simulate(refused, sender=sender),
        lambda: chain.estimate(refused, sender=sender),
    ):
        with pytest.raises(RevertedError, match="Refused") as caught:
            attempt()
        assert caught.value.name == "Refused"
        assert caught.value.arguments == {"code": 5000, "who": checksum_address(sender)}
    for function, name, arguments in (
        (notes.functions.note(999), "Error", {"message": "not 999"}),
        (notes.functions.divide(0), "Panic", {"code": 0x12}),
    ):
        for attempt in (chain.call, lambda f: chain.estimate(Call.of(f), sender=sender)):
            with pytest.raises(RevertedError) as caught:
                attempt(function)
            assert (caught.value.name, caught.value.arguments) == (name, arguments)
    with pytest.raises(RevertedError, match="gave no reason"):
        chain.simulate(Call(refused.to, b"\x12\x34\x56\x78"), sender=sender)
    with pytest.raises(LedgerError):
        chain.simulate(Call.of(notes.functions.burn()), sender=sender, gas=100_000)


def test_a_call_costs_the_sender_nothing(chain):
    notes = deploy_notes(chain)
    assert chain.call(notes.functions.count(), sender=SigningKey.generate().address) == 0


def test_estimates_have_a_margin_and_a_limit(chain):
    notes = deploy_notes(chain)
    gas = chain.estimate(Call.of(notes.functions.note(1)), sender=accounts.ADDRESSES[0])
    assert 45_000 < gas < 100_000


def test_calling_where_no_contract_is(chain):
    empty = chain.contract(SigningKey.generate().address, NOTES_ABI)
    with pytest.raises(LedgerError, match="no such contract"):
        chain.call(empty.functions.count())


def test_logs_in_steps(chain, monkeypatch):
    notes, key = deploy_notes(chain), funded(chain)
    first = chain.height()
    for value in range(5):
        mined(chain, send(chain, key, Call.of(notes.functions.note(value)))[0])
    monkeypatch.setattr("flbc.ledger.reader.LOG_STEP", 2)
    topic = keccak256(b"Noted(uint256,address)")
    values = [int.from_bytes(log["topics"][1], "big") for log in chain.logs(notes.address, [topic], first)]
    assert values == [0, 1, 2, 3, 4]
    assert len(list(chain.logs(notes.address, last=10**9))) == 5
    assert len(list(chain.logs(notes.address, first=first, last=chain.height() - 1))) == 4
    wanted = [topic, ["0x" + value.to_bytes(32, "big").hex() for value in (1, 3)]]
    assert len(list(chain.logs(bytes.fromhex(notes.address[2:]), wanted))) == 2
    assert list(chain.logs(notes.address, [keccak256(b"Other()")])) == []


def test_error_book():
    book = ErrorBook()
    book.learn(NOTES_ABI)
    unknown = book.explain(bytes.fromhex("deadbeef"))
    assert unknown.name == "0xdeadbeef"
    assert "No ABI" in str(unknown)
    assert book.explain(b"").name == "0x"
    assert "cannot be decoded" in str(book.explain(keccak256(b"Refused(uint256,address)")[:4] + b"1"))
    book.learn([{"type": "error", "name": "T", "inputs": [{"name": "", "type": "tuple[]", "components": [
        {"name": "a", "type": "uint8"}, {"name": "b", "type": "bytes2"}]}]}])  # fmt: skip
    assert book.explain(keccak256(b"T((uint8,bytes2)[])")[:4] + (32).to_bytes(32, "big") + bytes(32)).name == "T"


class FaultError(Exception):
    def __init__(self, error=None, data=None):
        self.rpc_response, self.data = {"error": error} if error else None, data


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (FaultError(data="0x1234"), b"\x12\x34"),
        (FaultError({"code": 3, "message": "x", "data": "0x12"}), b"\x12"),
        (FaultError({"code": -32000, "message": "VM Exception: revert", "data": {"result": "0x12"}}), b"\x12"),
        (FaultError({"code": -32015, "message": "reverted", "data": "Reverted 0x12"}), b"\x12"),
        (FaultError({"code": -32000, "message": "execution reverted"}), b""),
        (FaultError({"code": -32000, "message": "nonce too low"}), None),
        (ValueError("reverted"), None),
    ],
)
def test_places_of_revert_data(error, expected):
    assert revert_data(error) == expected


# ---------------------------------------------------------------------- transactions
@pytest.mark.parametrize("fees", [Fees(10**10, 10**9), Fees(10**10, None)])
@pytest.mark.parametrize("call", [Call(bytes(range(20)), b"data", 7), Call(None, b"\x60\x00"), Call(bytes(20))])
def test_signed_bytes_are_those_of_eth_account(fees, call):
    key = accounts.development_key(2)
    ours = sign(key, 31337, 3, call, 100_000, fees)
    price = {"gasPrice": fees.most} if fees.tip is None else {
        "maxFeePerGas": fees.most, "maxPriorityFeePerGas": fees.tip}  # fmt: skip
    to = {"to": checksum_address(call.to)} if call.to else {}
    theirs = Account.sign_transaction(
        {"chainId": 31337, "nonce": 3, "gas": 100_000, "data": call.data, "value": call.value, **to, **price},
        key.to_bytes(),
    )
    assert (ours.raw, ours.hash) == (bytes(theirs.raw_transaction), bytes(theirs.hash))


def test_a_chain_without_base_fees_gets_legacy_transactions(embedded, monkeypatch):
    assert embedded.fees().tip is not None
    embedded._base_fees = False  # what the probe finds on such a chain
    key = funded(embedded)
    assert embedded.fees() == Fees(10**9, None)
    transaction, _ = send(embedded, key, Call(key.address), gas=21_000)
    assert embedded.w3.eth.get_transaction(transaction)["type"] == 0


def test_raised_fees_are_what_nodes_demand():
    for fees in (Fees(8, 1), Fees(10**9, 10**9), Fees(1, 0), Fees(3 * 10**9, 10**9 + 7)):
        better = fees.raised(Fees(0, 0))
        assert better.most * 8 >= fees.most * 9
        assert better.tip * 8 >= fees.tip * 9
        assert better.tip <= better.most
    assert Fees(10, 1).raised(Fees(100, 50)) == Fees(100, 50)
    assert Fees(80, None).raised(Fees(0, None)) == Fees(91, None)


def test_gas_has_a_limit():
    key = accounts.development_key()
    for call, gas in ((Call(bytes(20)), 20_999), (Call(bytes(20)), MAX_GAS + 1), (Call(bytes(20), b"data"), 21_100)):
        with pytest.raises(ConfigError, match="gas limit"):
            sign(key, 1, 0, call, gas, Fees(1, 1))


def test_least_gas_is_what_nodes_ask_for(chain):
    key = funded(chain)
    for call in (Call(key.address, b"\x00\x01" * 50), Call(None, b"\x00" * 33)):
        signed = sign(key, chain.chain_id, chain.nonce(key.address), call, call.least_gas, chain.fees())
        assert mined(chain, chain.send_raw(signed.raw))["gasUsed"] <= call.least_gas


def test_calls_differ_by_all_they_do():
    calls = [Call(None), Call(bytes(20)), Call(bytes(20), b"1"), Call(bytes(20), b"", 1), Call(bytes(20), b"1", 1)]
    assert len({call.digest for call in calls}) == len(calls)


# ---------------------------------------------------------------------- connecting
@pytest.mark.parametrize(
    "url", ["http://10.0.0.1:8545", "http://example.org", "ws://127.0.0.1:1", "nonsense", "http://", "", "embedded:"]
)
def test_urls_that_are_refused(url):
    with pytest.raises(ConfigError):
        connect(url)


def test_unreachable_node_names_the_cure_and_no_secret():
    port = nodes.free_port()
    with pytest.raises(ChainUnavailableError, match="flbc chain up") as caught:
        connect(f"http://user:hunter2@127.0.0.1:{port}/v3/SECRET")
    assert "SECRET" not in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    with pytest.raises(ChainUnavailableError, match="check the URL"):
        connect("https://invalid.invalid/v3/SECRET", timeout=2)
    with pytest.raises(ChainUnavailableError):  # allowed explicitly, so it is tried
        connect("http://invalid.invalid/", timeout=2, insecure=True)


class Page(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        body = type(self).body
        self.send_response(type(self).status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Location", "http://example.org/")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>"), (200, b"[]"), (302, b""), (502, b"busy"), (200, b"\xff"), (200, b"7"),
        (429, b'{"jsonrpc":"2.0","id":1,"error":{"code":-32005,"message":"rate limit"}}'),
    ],
)  # fmt: skip
def test_what_is_no_ethereum_node(status, body):
    page = type("This", (Page,), {"status": status, "body": body})
    with HTTPServer(("127.0.0.1", 0), page) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        with pytest.raises(ChainUnavailableError):
            connect(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


def test_slow_node(monkeypatch):
    class Slow(Page):
        status, body = 200, b""

        def do_POST(self):
            time.sleep(1)

    with HTTPServer(("127.0.0.1", 0), Slow) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        with pytest.raises(ChainUnavailableError, match=r"within 0\.2 s"):
            connect(f"http://127.0.0.1:{server.server_port}", timeout=0.2)
        server.shutdown()


def test_closed_chain_says_so(chain):
    chain.close()
    chain.close()
    with pytest.raises(ChainUnavailableError, match="closed"):
        chain.height()


def test_a_proxy_is_not_asked_for_this_machine(running, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with connect(running("anvil").url) as chain:
        assert chain.chain_id == 31337


def test_giving_ether(chain):
    key = funded(chain, 1)
    give(chain, key.address, 0.5)
    assert chain.balance(key.address) == 15 * 10**17
