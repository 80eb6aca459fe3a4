import logging
import re
import sqlite3
import stat
import subprocess
import sys
import threading

import pytest

from flbc.crypto.signing import SigningKey, checksum_address
from flbc.errors import ChainBusyError, ChainResetError, ChainUnavailableError, ConfigError, LedgerError, RevertedError
from flbc.ledger import accounts
from flbc.ledger.chain import GWEI, connect
from flbc.ledger.journal import State
from flbc.ledger.outbox import Outbox
from flbc.ledger.transactions import MAX_GAS, Call, Fees, sign
from tests.ledger.conftest import NOTES_ABI, NOTES_CODE, deploy_notes, funded, give

GAS = 100_000


@pytest.fixture
def path(tmp_path):
    return tmp_path / "outbox.sqlite"


def values(chain, notes):
    return [int.from_bytes(log["topics"][1], "big") for log in chain.logs(notes.address)]


def signed_only(outbox):
    """Pump until something is signed and on disk, and die there."""

    def die(*_):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outbox.chain, "offer", die)
        with pytest.raises(KeyboardInterrupt):
            outbox.pump()


# ---------------------------------------------------------------------- once
def test_same_key_twice_is_one_transaction(chain, path):
    notes, key = deploy_notes(chain), funded(chain)
    with Outbox(chain, key, path) as outbox:
        assert outbox.submit("round 1", notes.functions.note(1), GAS) is True
        assert outbox.submit("round 1", notes.functions.note(1), GAS) is False
        receipt = outbox.wait("round 1")
        assert outbox.submit("round 1", notes.functions.note(1), GAS) is False
        assert outbox.wait("round 1") == receipt
        assert outbox.pump() == 0
        with pytest.raises(LedgerError, match="one key stands for one call"):
            outbox.submit("round 1", notes.functions.note(2), GAS)
        with pytest.raises(LedgerError, match="one key stands for one call"):
            outbox.submit("round 1", notes.functions.note(1), GAS, value=1)
        assert outbox.get("round 1").state is State.FINAL
    assert chain.nonce(key.address) == 1
    assert values(chain, notes) == [1]


def test_order_is_that_of_submission(chain, path):
    notes, key = deploy_notes(chain), funded(chain)
    with Outbox(chain, key, path) as outbox:
        for value in range(12):
            outbox.submit(f"round {value}", notes.functions.note(value), GAS)
        assert [entry.key for entry in outbox.pending()] == [f"round {value}" for value in range(12)]
        outbox.wait("round 11")
        assert outbox.pending() == []
    assert values(chain, notes) == list(range(12))


def test_restart_between_writing_and_sending(chain, path):
    """The process dies when the signed transaction is on disk and no node has seen it."""
    notes, key = deploy_notes(chain), funded(chain)

    with Outbox(chain, key, path) as outbox:
        outbox.submit("a", notes.functions.note(1), GAS)
        outbox.submit("b", notes.functions.note(2), GAS)
        signed_only(outbox)
        assert outbox.get("a").nonce == 0
        assert outbox.get("b").nonce is None
        (signed,) = outbox._journal.signatures(outbox.get("a"))
    with Outbox(chain, key, path) as outbox:
        outbox.wait("b")
        assert outbox.get("a").hash == signed.transaction.hash  # the same bytes
        assert len(outbox._journal.signatures(outbox.get("a"))) == 1
    assert values(chain, notes) == [1, 2]


def test_restart_between_sending_and_remembering(chain, path):
    notes, key = deploy_notes(chain), funded(chain)
    offer = chain.offer

    def die(*arguments):
        offer(*arguments)
        raise KeyboardInterrupt

    with Outbox(chain, key, path) as outbox:
        outbox.submit("a", notes.functions.note(1), GAS)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(chain, "offer", die)
            with pytest.raises(KeyboardInterrupt):
                outbox.pump()
        assert outbox.get("a").state is State.QUEUED
    with Outbox(chain, key, path) as outbox:
        outbox.wait("a")
    assert values(chain, notes) == [1]
    assert chain.nonce(key.address) == 1


def test_twenty_threads(chain, path):
    notes, key = deploy_notes(chain), funded(chain)
    failures = []

    def work(index):
        try:
            outbox.submit(f"thread {index % 18}", notes.functions.note(index % 18), GAS)
            outbox.wait(f"thread {index % 18}", 60)
        except Exception as error:
            failures.append(error)

    with Outbox(chain, key, path) as outbox:
        threads = [threading.Thread(target=work, args=(index,)) for index in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert outbox.pump() == 0
    assert sorted(values(chain, notes)) == list(range(18))
    assert chain.nonce(key.address) == 18


# ---------------------------------------------------------------------- what is sent
def test_deployment_and_value(chain, path):
    key = funded(chain)
    with Outbox(chain, key, path) as outbox:
        factory = chain.w3.eth.contract(abi=NOTES_ABI, bytecode=NOTES_CODE)
        outbox.submit("deploy", Call.of(factory.constructor()), 500_000)
        notes = chain.contract(outbox.wait("deploy")["contractAddress"], NOTES_ABI)
        outbox.submit("paid", notes.functions.note(1), GAS, value=123)
        outbox.wait("paid")
        assert chain.balance(bytes.fromhex(notes.address[2:])) == 123
        height = chain.height()
        assert outbox.mine_one()["blockNumber"] == height + 1


def test_contract_that_refuses(chain, path):
    notes, key = deploy_notes(chain), funded(chain)
    with Outbox(chain, key, path) as outbox:
        outbox.submit("good", notes.functions.note(1), GAS)
        outbox.submit("bad", notes.functions.note(5000), GAS)
        outbox.submit("burns", notes.functions.burn(), GAS)
        outbox.submit("next", notes.functions.note(2), GAS)
        outbox.wait("next")
        with pytest.raises(RevertedError) as caught:
            outbox.wait("bad")
        assert caught.value.name == "Refused"
        assert caught.value.arguments == {"code": 5000, "who": checksum_address(key.address)}
        with pytest.raises(RevertedError, match="gas was too little"):
            outbox.wait("burns")
        assert outbox.get("bad").state is State.REVERTED
        assert [(entry.key, failure.name) for entry, failure in outbox.failed()] == [
            ("bad", "Refused"),
            ("burns", "0x"),
        ]
    with Outbox(chain, key, path) as outbox, pytest.raises(RevertedError, match="Refused"):
        outbox.wait("bad")  # the reason is on disk
    assert values(chain, notes) == [1, 2]


def test_depth(embedded, path):
    key = funded(embedded)
    with Outbox(embedded, key, path, depth=2) as outbox:
        outbox.submit("a", Call(key.address), 21_000)
        assert outbox.wait("a")["status"] == 1
        assert outbox.get("a").state is State.MINED
        assert outbox.pump() == 1
        with pytest.raises(LedgerError, match=r"after 0\.05 s \(it is mined\)"):
            outbox.wait("a", 0.05, final=True)
        for _ in range(2):
            outbox.mine_one()
        outbox.wait("a", 1, final=True)
        assert outbox.get("a").state is State.FINAL


def test_wrong_arguments(embedded, path):
    key = funded(embedded)
    with Outbox(embedded, key, path) as outbox:
        for gas in (20_999, MAX_GAS + 1):
            with pytest.raises(ConfigError, match="gas limit"):
                outbox.submit("a", Call(key.address), gas)
        with pytest.raises(ConfigError, match="empty"):
            outbox.submit("", Call(key.address), 21_000)
        with pytest.raises(LedgerError, match="Nothing was submitted as 'b'"):
            outbox.wait("b")
    with pytest.raises(LedgerError, match="closed"):
        outbox.pump()


# ---------------------------------------------------------------------- money
def test_funds_are_checked_before_the_run(chain, path):
    key = funded(chain, 0.01)
    with Outbox(chain, key, path) as outbox:
        outbox.check_funds(1, 200_000)
        name = re.escape(checksum_address(key.address))
        with pytest.raises(LedgerError, match=rf"{name} has 0\.010000 ether.*1000 transactions may cost .* send it"):
            outbox.check_funds(1000, 16_000_000)
        with pytest.raises(LedgerError, match="send it"):
            outbox.check_funds(1, 200_000, value=10**16)


def test_out_of_funds_in_the_middle(chain, path):
    notes, key = deploy_notes(chain), SigningKey.generate()
    with Outbox(chain, key, path) as outbox:
        outbox.submit("a", notes.functions.note(1), GAS)
        outbox.submit("b", notes.functions.note(2), GAS)
        with pytest.raises(
            LedgerError, match=rf"{checksum_address(key.address)} has 0\.0.*'a' may cost.*nothing is lost"
        ):
            outbox.wait("a", 5)
        assert [entry.state for entry in outbox.pending()] == [State.QUEUED, State.QUEUED]
        give(chain, key.address, 1)
        outbox.wait("b")
    assert values(chain, notes) == [1, 2]


# ---------------------------------------------------------------------- fees
def test_underpriced_on_a_chain_without_a_pool(embedded, path):
    """Signed when gas was cheaper: the same nonce is signed again at today's price, and both hashes are known."""
    notes, key = deploy_notes(embedded), funded(embedded)
    with Outbox(embedded, key, path) as outbox:
        outbox.submit("a", notes.functions.note(1), GAS)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(embedded, "fees", lambda: Fees(1, 1))
            outbox.pump()
        assert "base fee" in outbox.get("a").note
        outbox.wait("a")
        assert len(outbox._journal.signatures(outbox.get("a"))) > 1
    assert values(embedded, notes) == [1]


def test_raising_has_an_end(embedded, path, monkeypatch):
    key = funded(embedded)
    with Outbox(embedded, key, path) as outbox:
        outbox.submit("a", Call(key.address), 21_000)
        monkeypatch.setattr(embedded, "fees", lambda: Fees(1, 1))
        for _ in range(30):
            outbox.pump()
        assert len(outbox._journal.signatures(outbox.get("a"))) == 11


def test_a_node_cannot_set_any_price(embedded, path, monkeypatch):
    key = funded(embedded)
    with Outbox(embedded, key, path) as outbox:
        outbox.submit("a", Call(key.address), 21_000)
        monkeypatch.setattr(embedded, "fees", lambda: Fees(5000 * GWEI, 4000 * GWEI))
        with pytest.raises(LedgerError, match="more than the limit of 1000"):
            outbox.pump()
        assert outbox.get("a").nonce is None


# ---------------------------------------------------------------------- whose
OPEN = """
import sys
from pathlib import Path
from flbc.crypto.signing import SigningKey
from flbc.ledger.chain import connect
from flbc.ledger.outbox import Outbox
with connect(sys.argv[1]) as chain:
    Outbox(chain, SigningKey.from_bytes(bytes.fromhex(sys.stdin.readline())), Path(sys.argv[2]))
    print("open", flush=True)
    sys.stdin.read()
"""


def test_one_sender_per_account(running, path, tmp_path):
    node = running("anvil")
    with connect(node.url) as chain:
        key = SigningKey.generate()
        command = [sys.executable, "-c", OPEN, node.url, str(path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
            other.stdin.write(key.to_bytes().hex() + "\n")
            other.stdin.flush()
            assert other.stdout.readline() == "open\n"
            for where in (path, tmp_path / "another.sqlite"):
                with pytest.raises(ChainBusyError, match=rf"{checksum_address(key.address)} .*process {other.pid}\b"):
                    Outbox(chain, key, where)
            other.kill()
        with Outbox(chain, key, path), pytest.raises(ChainBusyError, match="this process"):
            Outbox(chain, key, tmp_path / "another.sqlite")
        with Outbox(chain, key, path), Outbox(chain, SigningKey.generate(), tmp_path / "other.sqlite"):
            pass


def test_file_of_another_account_or_chain(embedded, path, tmp_path):
    Outbox(embedded, SigningKey.generate(), path).close()
    with pytest.raises(LedgerError, match="belongs to account 0x"):
        Outbox(embedded, SigningKey.generate(), path)
    with connect(f"embedded:{tmp_path / 'other'}") as other, pytest.raises(ChainResetError, match="move the file away"):
        Outbox(other, SigningKey.generate(), path)
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(LedgerError, match="Cannot use the outbox"):
        Outbox(embedded, SigningKey.generate(), path)


def test_development_accounts_stay_on_development_chains(embedded, path):
    with Outbox(embedded, accounts.development_key(3), path):
        pass
    embedded.development = False
    with pytest.raises(ConfigError, match="Everybody knows the key of 0x90F79bf6"):
        Outbox(embedded, accounts.development_key(3), path)


def test_no_secret_is_written_or_logged(embedded, path, caplog):
    caplog.set_level(logging.DEBUG)
    key = funded(embedded)
    with Outbox(embedded, key, path) as outbox:
        outbox.submit("a", Call(key.address), 21_000)
        outbox.wait("a")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        written = b"".join(file.read_bytes() for file in path.parent.iterdir() if file.is_file())
    assert key.to_bytes() not in written
    assert key.to_bytes().hex() not in caplog.text


def test_written_durably(embedded, path):
    with Outbox(embedded, SigningKey.generate(), path) as outbox:
        db = outbox._journal._db
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)
        outbox.submit("a", Call(bytes(20)), 21_000)
        with sqlite3.connect(path) as other:
            assert other.execute("SELECT key, state FROM entry").fetchall() == [("a", "queued")]
        other.close()


# ---------------------------------------------------------------------- somebody else
def test_foreign_use_of_the_account(chain, path):
    """Another program uses the key while our transaction waits: that nonce is gone, the next is ours."""
    notes, key = deploy_notes(chain), funded(chain)
    with Outbox(chain, key, path) as outbox:
        outbox.submit("a", notes.functions.note(1), GAS)
        signed_only(outbox)
        chain.send_raw(sign(key, chain.chain_id, 0, Call.of(notes.functions.note(77)), GAS, chain.fees()).raw)
        outbox.submit("b", notes.functions.note(2), GAS)
        outbox.wait("b")
        with pytest.raises(LedgerError, match=r"'a' was not executed: its nonce 0 was used.*Somebody else uses"):
            outbox.wait("a")
        assert outbox.pump() == 0
        outbox.retry("a")
        outbox.wait("a")
        with pytest.raises(LedgerError, match="'a' is final; only a replaced entry"):
            outbox.retry("a")
    assert values(chain, notes) == [77, 2, 1]
    assert chain.nonce(key.address) == 3


def test_no_second_nonce_while_the_first_could_still_land(embedded, path):
    """The foreign transaction could be undone by a reorganisation, and ours come back."""
    notes, key = deploy_notes(embedded), funded(embedded)
    with Outbox(embedded, key, path, depth=2) as outbox:
        outbox.submit("a", notes.functions.note(1), GAS)
        signed_only(outbox)
        embedded.send_raw(sign(key, embedded.chain_id, 0, Call(key.address), 21_000, embedded.fees()).raw)
        for _ in range(3):
            with pytest.raises(LedgerError, match="'a' is sent; only a replaced entry"):
                outbox.retry("a")
        outbox.submit("b", notes.functions.note(2), GAS)
        outbox.submit("c", notes.functions.note(3), GAS)
        outbox.wait("c")
        outbox.retry("a")
        outbox.wait("a")
    assert values(embedded, notes) == [2, 3, 1]


# ---------------------------------------------------------------------- no chain
def test_submitting_works_while_the_chain_is_away(embedded, path, monkeypatch):
    notes, key = deploy_notes(embedded), funded(embedded)

    def away(*_, **__):
        raise ChainUnavailableError("The node does not answer")

    with Outbox(embedded, key, path) as outbox:
        with monkeypatch.context() as patch:
            patch.setattr(embedded.w3.manager, "request_blocking", away)
            for value in range(3):
                outbox.submit(f"round {value}", notes.functions.note(value), GAS)
                with pytest.raises(ChainUnavailableError):
                    outbox.pump()
            with pytest.raises(ChainUnavailableError):
                outbox.wait("round 1", 0.05)
        outbox.wait("round 2")
    assert values(embedded, notes) == [0, 1, 2]


def test_submitting_does_not_wait_for_a_slow_node(embedded, path, monkeypatch):
    """A round goes on while another thread's pump hangs in a request."""
    key, asked, answer = funded(embedded), threading.Event(), threading.Event()
    real = embedded.w3.manager.request_blocking

    def slow(*arguments, **options):
        asked.set()
        assert answer.wait(20)
        return real(*arguments, **options)

    with Outbox(embedded, key, path) as outbox:
        monkeypatch.setattr(embedded.w3.manager, "request_blocking", slow)
        pumping = threading.Thread(target=outbox.pump)
        pumping.start()
        assert asked.wait(20)
        assert outbox.submit("a", Call(key.address), 21_000)
        assert [entry.key for entry in outbox.pending()] == ["a"]
        answer.set()
        pumping.join()
        outbox.wait("a")
