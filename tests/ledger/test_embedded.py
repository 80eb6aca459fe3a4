import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from flbc.errors import ChainBusyError, ChainUnavailableError, LedgerError
from flbc.ledger import accounts
from flbc.ledger.chain import connect
from flbc.ledger.embedded import default_path
from flbc.ledger.transactions import Call, sign
from tests.ledger.conftest import deploy_notes, funded, mined, travel


def transfer(chain, index=1, nonce=None):
    key = accounts.development_key(index)
    nonce = chain.nonce(key.address) if nonce is None else nonce
    return chain.send_raw(sign(key, chain.chain_id, nonce, Call(key.address), 21_000, chain.fees()).raw)


# ---------------------------------------------------------------------- the file
def test_default_place_and_modes(embedded, home):
    path = home / "chains" / "embedded.sqlite"
    assert path == default_path()
    transfer(embedded)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_reopens_at_the_same_head_with_the_same_genesis(tmp_path):
    url = f"embedded:{tmp_path / 'new' / 'chain.sqlite'}"
    with connect(url) as chain:
        genesis, notes = chain.genesis, deploy_notes(chain)
        transactions = [transfer(chain) for _ in range(3)]
        mined(chain, bytes(notes.functions.note(7).transact({"from": chain.w3.eth.accounts[0]})))
        head, receipt = chain.block("latest"), chain.receipt(transactions[1])
    with connect(url) as chain:
        assert chain.genesis == genesis
        assert chain.block("latest") == head
        assert chain.receipt(transactions[1]) == receipt
        assert chain.nonce(accounts.ADDRESSES[1]) == 3
        assert chain.call(chain.contract(notes.address, notes.abi).functions.count()) == 1
        assert len(list(chain.logs(notes.address))) == 1
        assert chain.block(receipt["blockNumber"] - 1)["hash"] == chain.block(receipt["blockNumber"])["parentHash"]
        transfer(chain)
        assert chain.height() == head["number"] + 1


def test_two_chains_made_at_once_are_two_chains(tmp_path):
    with connect(f"embedded:{tmp_path / 'a'}") as a, connect(f"embedded:{tmp_path / 'b'}") as b:
        assert a.genesis != b.genesis


def test_old_states_can_be_read(embedded):
    notes = deploy_notes(embedded)
    before = embedded.height()
    for value in range(3):
        mined(embedded, bytes(notes.functions.note(value).transact({"from": embedded.w3.eth.accounts[0]})))
    counts = [embedded.call(notes.functions.count(), block=block) for block in range(before, embedded.height() + 1)]
    assert counts == [0, 1, 2, 3]


# ---------------------------------------------------------------------- one process
HOLD = """
import sys
from flbc.ledger.chain import connect
chain = connect("embedded:" + sys.argv[1])
print(chain.height(), flush=True)
sys.stdin.read()
"""


def test_second_process_is_told_who_has_it(tmp_path):
    path = tmp_path / "chain.sqlite"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "0\n"
        with pytest.raises(ChainBusyError, match=rf"process {holder.pid}\b.*flbc chain up"):
            connect(f"embedded:{path}")
        holder.kill()
        holder.wait()
        with connect(f"embedded:{path}") as chain:  # the lock went with the process
            assert chain.height() == 0
        holder.stdin.close()


def test_one_process_shares_it(embedded):
    with connect("embedded") as second:
        transfer(second)
        assert embedded.height() == 1
    assert embedded.height() == 1  # closing one leaves the other open
    embedded.close()
    with connect("embedded") as again:
        assert again.height() == 1
    with pytest.raises(ChainUnavailableError, match="closed"):
        embedded.height()


def test_forked_child_is_refused(embedded):
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        try:
            embedded.height()
        except ChainBusyError:
            os.write(writer, b"refused")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    assert os.read(reader, 20) == b"refused"
    os.close(reader)
    transfer(embedded)
    assert embedded.height() == 1


def test_threads(embedded):
    failures = []

    def work(index):
        try:
            for nonce in range(5):
                transfer(embedded, index, nonce)
                embedded.block("latest")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert embedded.height() == 40
    assert all(embedded.nonce(accounts.ADDRESSES[index]) == 5 for index in range(8))


# ---------------------------------------------------------------------- time
def test_block_times(embedded):
    """An idle chain's next block has the time of now; a busy one's blocks are a second apart, ahead of the clock."""
    embedded._provider._backend.chain.header  # noqa: B018 - made when the chain was opened, that is earlier
    time.sleep(1.1)
    start = int(time.time())
    transfer(embedded)
    assert start <= embedded.block("latest")["timestamp"] <= start + 1
    for _ in range(5):
        transfer(embedded)
    times = [embedded.block(number)["timestamp"] for number in range(7)]
    assert times == sorted(set(times))
    assert times[-1] >= start + 5
    travel(embedded, 3600)
    assert embedded.block("latest")["timestamp"] >= start + 3600
    transfer(embedded)
    assert embedded.block("latest")["timestamp"] >= start + 3600


def test_calls_see_the_time_of_the_next_block(embedded):
    """TIMESTAMP PUSH1 0 MSTORE PUSH1 32 PUSH1 0 RETURN, as the code of a deployment: it returns what it would store."""
    code = Call(None, bytes.fromhex("4260005260206000f3"))
    transfer(embedded)
    time.sleep(2.1)
    seen = int.from_bytes(bytes(embedded.w3.eth.call({"data": code.data})), "big")
    assert seen >= int(time.time()) - 1
    assert seen > embedded.block("latest")["timestamp"]


# ---------------------------------------------------------------------- what goes wrong
@pytest.mark.parametrize("content", [b"hello, I am a text\n" * 500, b"SQLite format 3\x00" + bytes(5000)])
def test_foreign_file(tmp_path, content):
    path = tmp_path / "chain.sqlite"
    path.write_bytes(content)
    with pytest.raises(LedgerError, match=r"chain\.sqlite.*(move|copy)"):
        connect(f"embedded:{path}")
    assert path.read_bytes() == content


def test_another_programs_database(tmp_path):
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE mine (x)")
    db.close()
    with pytest.raises(LedgerError, match="another program"):
        connect(f"embedded:{path}")


def test_another_version(tmp_path):
    path = tmp_path / "chain.sqlite"
    connect(f"embedded:{path}").close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 9")
    db.close()
    with pytest.raises(LedgerError, match="another version"):
        connect(f"embedded:{path}")


def test_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="Cannot open or make"):
        connect(f"embedded:{tmp_path / 'file' / 'chain.sqlite'}")


def test_changed_bytes_are_found_where_they_are_read(tmp_path):
    """Every header, trie node and code lies under its hash."""
    path = tmp_path / "chain.sqlite"
    with connect(f"embedded:{path}") as chain:
        for _ in range(3):
            transfer(chain)
    with sqlite3.connect(path) as db:
        for key, value in db.execute("SELECT key, value FROM entry WHERE length(key) = 32").fetchall():
            changed = bytes([value[0] ^ 1]) + value[1:] if value else b"x"
            db.execute("UPDATE entry SET value = ? WHERE key = ?", (changed, key))
    db.close()
    with pytest.raises(LedgerError, match="damaged"):
        connect(f"embedded:{path}")


def test_missing_head(tmp_path):
    path = tmp_path / "chain.sqlite"
    with connect(f"embedded:{path}") as chain:
        head = chain.block("latest")["hash"]
    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM entry WHERE key = ?", (bytes(head),))
    db.close()
    with pytest.raises(LedgerError, match="holds no whole chain"):
        connect(f"embedded:{path}")


@pytest.mark.parametrize("moment", ["before the commit", "inside the commit"])
def test_block_that_cannot_be_written_did_not_happen(embedded, moment):
    """A full disk, or Ctrl-C: the chain in memory goes back to the last durable block."""
    transfer(embedded)
    store = embedded._provider._store

    class Failing:
        """A connection that fails on the first write, as SQLite does on a full disk."""

        def __init__(self, db):
            self.db = db

        def __getattr__(self, name):
            return getattr(self.db, name)

        def executemany(self, *_):
            raise sqlite3.OperationalError("database or disk is full")

    def interrupted():
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        if moment == "before the commit":
            patch.setattr(store, "commit", interrupted)
        else:
            patch.setattr(store, "_db", Failing(store._db))
        with pytest.raises((LedgerError, KeyboardInterrupt)):
            transfer(embedded)
    assert embedded.height() == 1
    assert embedded.nonce(accounts.ADDRESSES[1]) == 1
    transfer(embedded)
    assert embedded.height() == 2


def test_refused_transactions_leave_no_trace(embedded):
    key = funded(embedded)
    height = embedded.height()
    for nonce, chain_id in ((5, embedded.chain_id), (0, 1)):
        with pytest.raises(LedgerError):
            embedded.send_raw(sign(key, chain_id, nonce, Call(key.address), 21_000, embedded.fees()).raw)
    with pytest.raises(LedgerError):
        embedded.send_raw(b"\x02\xc0nonsense")
    assert embedded.height() == height
    assert not embedded._provider._store.dirty


def test_rewinding_is_not_offered(embedded):
    answer = embedded.w3.provider.make_request("evm_snapshot", [])
    assert answer["error"]["code"] == -32601


# ---------------------------------------------------------------------- kill -9
def test_kill_at_random_moments(tmp_path):
    """Whatever was answered is there; the head, its state, and every block below are whole."""
    command = [sys.executable, "-m", "tests.ledger.killing", str(tmp_path / "chain.sqlite"), "30"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 20


def test_package_loads_nothing_heavy():
    code = (
        "import flbc.ledger, sys; print([m for m in sys.modules if m.partition('.')[0] in {'web3', 'eth', 'requests'}])"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert Path(default_path()).suffix == ".sqlite"
