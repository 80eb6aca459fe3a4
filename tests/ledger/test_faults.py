"""Nodes that die, forget, reorganise, restart as another chain, or let a transaction wait; writers that are killed."""

import shutil
import subprocess
import sys
import threading
import time

import pytest

from flbc.crypto.signing import SigningKey
from flbc.errors import ChainResetError, ChainUnavailableError, ConfigError, LedgerError
from flbc.ledger import nodes
from flbc.ledger.chain import GWEI, connect
from flbc.ledger.journal import State
from flbc.ledger.outbox import Outbox
from flbc.ledger.transactions import Call, Fees, sign
from tests.ledger.conftest import deploy_notes, funded, start_or_skip

GAS = 100_000


@pytest.fixture
def path(tmp_path):
    return tmp_path / "outbox.sqlite"


def rpc(chain, method, *parameters):
    answer = chain.w3.provider.make_request(method, list(parameters))
    assert "error" not in answer, answer
    return answer["result"]


def values(chain, notes):
    return [int.from_bytes(log["topics"][1], "big") for log in chain.logs(notes.address)]


def submit(outbox, notes, *numbers):
    for number in numbers:
        outbox.submit(f"round {number}", notes.functions.note(number), GAS)


def written(state, than=0.0):
    """Wait until Anvil has written its state, which it does every second."""
    end, now = time.monotonic() + 10, time.time()
    while not state.exists() or state.stat().st_mtime <= now + than:
        assert time.monotonic() < end
        time.sleep(0.05)


# ---------------------------------------------------------------------- the node dies
def test_node_killed_before_sending(anvil, path, tmp_path):
    """What was submitted meanwhile lands in order when the node is back; so does what a killed process left."""
    state = tmp_path / "state.json"
    node = anvil(state=state)
    with connect(node.url) as chain:
        notes, key = deploy_notes(chain), funded(chain)
        with Outbox(chain, key, path) as outbox:
            submit(outbox, notes, 0, 1)
            outbox.wait("round 1")
            written(state)
            node.kill()
            submit(outbox, notes, 2, 3)
            with pytest.raises(ChainUnavailableError, match="flbc chain up"):
                outbox.pump()
            with pytest.raises(ChainUnavailableError):
                outbox.wait("round 3", 0.1)
        with pytest.raises(ChainUnavailableError):
            connect(node.url)
        anvil(port=node.port, state=state)
        with Outbox(chain, key, path) as outbox:
            submit(outbox, notes, 4)
            outbox.wait("round 4")
        assert values(chain, notes) == [0, 1, 2, 3, 4]
        assert chain.nonce(key.address) == 5


def test_waiting_through_a_restart(anvil, path, tmp_path):
    state = tmp_path / "state.json"
    node = anvil(state=state)
    with connect(node.url) as chain, Outbox(chain, funded(chain), path) as outbox:
        notes = deploy_notes(chain)
        written(state)
        node.kill()
        submit(outbox, notes, 7)
        later = threading.Timer(0.5, anvil, kwargs={"port": node.port, "state": state})
        later.start()
        assert outbox.wait("round 7", 30)["status"] == 1
        later.join()


def test_node_lost_its_last_blocks(anvil, path, tmp_path):
    """Entries that were final are reopened, and the same bytes are sent again in order."""
    state, old = tmp_path / "state.json", tmp_path / "old.json"
    node = anvil(state=state)
    with connect(node.url) as chain, Outbox(chain, funded(chain), path) as outbox:
        notes = deploy_notes(chain)
        submit(outbox, notes, 0)
        outbox.wait("round 0")
        written(state)
        shutil.copy(state, old)
        submit(outbox, notes, 1, 2, 3)
        outbox.wait("round 3")
        assert outbox.pump() == 0
        hashes = [outbox.get(f"round {number}").hash for number in range(4)]
        node.kill()
        shutil.copy(old, state)
        anvil(port=node.port, state=state)
        assert values(chain, notes) == [0]
        submit(outbox, notes, 4)
        outbox.wait("round 4")
        assert outbox.pump() == 0
        assert values(chain, notes) == [0, 1, 2, 3, 4]
        assert [outbox.get(f"round {number}").hash for number in range(4)] == hashes
        assert {outbox.get(f"round {number}").state for number in range(5)} == {State.FINAL}


def test_node_lost_its_pool(anvil, path, tmp_path):
    state = tmp_path / "state.json"
    node = anvil("--block-time", "100", state=state)
    with connect(node.url) as chain, Outbox(chain, SigningKey.generate(), path, resend=0.0) as outbox:
        rpc(chain, "anvil_setBalance", outbox._name, hex(10**18))
        outbox.submit("a", Call(outbox.account), 21_000)
        rpc(chain, "evm_mine")
        outbox.pump()
        assert outbox.get("a").state is State.SENT
        written(state, 1.1)
        node.kill()
        anvil("--block-time", "100", port=node.port, state=state)
        assert not chain.knows(outbox._journal.signatures(outbox.get("a"))[0].transaction.hash)
        outbox.pump()
        rpc(chain, "evm_mine")
        assert outbox.wait("a", 5)["status"] == 1


def test_reorganisation_of_two_blocks(anvil, path):
    with connect(anvil().url) as chain, Outbox(chain, funded(chain), path) as outbox:
        notes = deploy_notes(chain)
        submit(outbox, notes, 0, 1, 2, 3)
        outbox.wait("round 3")
        assert outbox.pump() == 0
        rpc(chain, "anvil_reorg", 2, [])
        assert values(chain, notes) == [0, 1]
        outbox.wait("round 3")
        assert outbox.pump() == 0
        assert values(chain, notes) == [0, 1, 2, 3]
        assert chain.nonce(outbox.account) == 4


def test_reorganisation_before_an_entry_is_final(anvil, path):
    with connect(anvil().url) as chain, Outbox(chain, funded(chain), path, depth=3) as outbox:
        notes = deploy_notes(chain)
        submit(outbox, notes, 0, 1)
        outbox.wait("round 1")
        assert [entry.state for entry in outbox.pending()] == [State.MINED, State.MINED]
        rpc(chain, "anvil_reorg", 2, [])
        assert values(chain, notes) == []
        outbox.wait("round 1")
        rpc(chain, "anvil_mine", "0x3")
        assert outbox.pump() == 0
        assert values(chain, notes) == [0, 1]


# ---------------------------------------------------------------------- another chain
def test_node_restarted_as_another_chain(anvil, path):
    """Same id, same port, same addresses; only block 0 tells."""
    node = anvil()
    with connect(node.url) as chain:
        notes, key = deploy_notes(chain), funded(chain)
        with Outbox(chain, key, path) as outbox:
            submit(outbox, notes, 0)
            outbox.wait("round 0")
            node.kill()
            time.sleep(1.1)  # two Anvils of one second have one block 0, which holds nothing but the time
            anvil(port=node.port)
            submit(outbox, notes, 1)
            with pytest.raises(ChainResetError, match=r"outbox\.sqlite.*Start it with the old state.*flbc deploy"):
                outbox.pump()
            with pytest.raises(ChainResetError):
                outbox.wait("round 1")
        assert chain.nonce(key.address) == 0
        with connect(node.url) as fresh, pytest.raises(ChainResetError, match="move the file away"):
            Outbox(fresh, key, path)


# ---------------------------------------------------------------------- fees
def test_fees_are_raised_while_blocks_go_by(anvil, path):
    with connect(anvil("--no-mining").url) as chain, Outbox(chain, SigningKey.generate(), path, patience=0.0) as outbox:
        rpc(chain, "anvil_setBalance", outbox._name, hex(10**20))
        for key in ("a", "b"):
            outbox.submit(key, Call(outbox.account), 21_000)
        outbox.pump()
        outbox.pump()
        first = outbox._journal.signatures(outbox.get("a"))
        assert len(first) == 1  # no block went by, so nothing is wrong with the fee
        rpc(chain, "anvil_setNextBlockBaseFeePerGas", hex(50 * GWEI))
        rpc(chain, "evm_mine")
        assert chain.nonce(outbox.account) == 0
        outbox.pump()
        assert len(outbox._journal.signatures(outbox.get("a"))) == 2
        rpc(chain, "evm_mine")
        receipt = outbox.wait("b", 5)
        assert outbox.get("a").hash != first[0].transaction.hash
        assert receipt["effectiveGasPrice"] > 40 * GWEI
        assert chain.nonce(outbox.account) == 2


def test_the_first_version_may_be_the_one_that_lands(anvil, path):
    """The process dies after signing with a higher fee, before sending that."""
    with connect(anvil("--no-mining").url) as chain, Outbox(chain, SigningKey.generate(), path, patience=0.0) as outbox:
        rpc(chain, "anvil_setBalance", outbox._name, hex(10**20))
        outbox.submit("a", Call(outbox.account), 21_000)
        outbox.pump()
        rpc(chain, "anvil_setNextBlockBaseFeePerGas", hex(50 * GWEI))
        rpc(chain, "evm_mine")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(chain, "offer", lambda *_: pytest.fail("must not be sent yet"))
            with pytest.raises(pytest.fail.Exception):
                outbox.pump()
        newer, older = outbox._journal.signatures(outbox.get("a"))
        rpc(chain, "anvil_setNextBlockBaseFeePerGas", hex(1))
        rpc(chain, "evm_mine")
        chain.send_raw(older.transaction.raw)  # some node's pool had it; Anvil drops what a block could not take
        rpc(chain, "evm_mine")
        assert outbox.wait("a", 5)["transactionHash"] == older.transaction.hash
        assert newer.transaction.fees.most > older.transaction.fees.most


def test_twenty_threads_on_a_slow_chain(anvil, path):
    """On such a chain senders that take their nonce from the pool replace each other."""
    with connect(anvil("--block-time", "1").url) as chain, Outbox(chain, funded(chain), path) as outbox:
        notes = deploy_notes(chain)

        def work(number):
            submit(outbox, notes, number)
            outbox.wait(f"round {number}", 60)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(values(chain, notes)) == list(range(20))
        assert chain.nonce(outbox.account) == 20


# ---------------------------------------------------------------------- somebody else
def test_foreign_transaction_replaces_ours_in_the_pool_and_is_undone(anvil, path):
    with connect(anvil("--no-mining").url) as chain:
        key = SigningKey.generate()
        with Outbox(chain, key, path) as outbox:
            rpc(chain, "anvil_setBalance", outbox._name, hex(10**20))
            rpc(chain, "anvil_mine", "0x3")
            outbox.submit("a", Call(key.address), 21_000)
            outbox.pump()
            chain.send_raw(sign(key, chain.chain_id, 0, Call(bytes(20)), 21_000, Fees(90 * GWEI, 9 * GWEI)).raw)
            rpc(chain, "evm_mine")
            with pytest.raises(LedgerError, match="Somebody else uses the account"):
                outbox.wait("a", 5)
            rpc(chain, "anvil_reorg", 1, [])  # the foreign transaction is gone, and ours can land after all
            outbox.pump()
            assert outbox.get("a").state is State.SENT
            rpc(chain, "evm_mine")
            assert outbox.wait("a", 5)["status"] == 1


# ---------------------------------------------------------------------- our process dies
def test_killed_senders_send_each_call_once(tmp_path):
    command = [sys.executable, "-m", "tests.ledger.killing", str(tmp_path / "chain.sqlite"), "20", "outbox"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 10


# ---------------------------------------------------------------------- nodes
@pytest.mark.parametrize("kind", ["anvil", "ganache"])
def test_nodes_keep_their_chain(kind, tmp_path, path):
    state = tmp_path / "state"
    with start_or_skip(kind, tmp_path / "node.log", state=state) as node, connect(node.url) as chain:
        key, genesis = funded(chain), chain.genesis
        assert chain.chain_id == nodes.CHAIN_IDS[kind]
        with pytest.raises(LedgerError, match=f"Port {node.port} is in use"):
            nodes.start(kind, node.port)
    assert node.process.returncode is not None
    with nodes.start(kind, node.port, state=state) as node, connect(node.url) as chain:
        assert chain.genesis == genesis
        assert chain.balance(key.address) == 10**19
        with Outbox(chain, key, path) as outbox:
            outbox.submit("a", Call(key.address), 21_000)
            outbox.wait("a")


def test_missing_programs_name_the_cure(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(nodes, "_CONTRACTS", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    for kind in ("anvil", "ganache"):
        with pytest.raises(ConfigError, match=rf"{kind} is not installed: run `npm ci`.*FLBC_{kind.upper()}"):
            nodes.start(kind)
    monkeypatch.setenv("FLBC_ANVIL", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"FLBC_ANVIL=.*none is no program"):
        nodes.find("anvil")
    with pytest.raises(ConfigError, match="A node is one of anvil, ganache"):
        nodes.find("geth")


def test_node_that_does_not_start(monkeypatch, tmp_path):
    program = tmp_path / "broken"
    program.write_text("#!/bin/sh\necho no luck today\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("FLBC_ANVIL", str(program))
    with pytest.raises(LedgerError, match=r"anvil ended while it was started.*no luck today"):
        nodes.start("anvil", 0, log=tmp_path / "log")
    with pytest.raises(LedgerError, match="start it with a log file"):
        nodes.start("anvil", 0)
