import pytest

from flbc.crypto import keystore
from flbc.errors import ChainUnavailableError
from flbc.ledger.accounts import development_key
from flbc.ledger.chain import Chain, connect
from flbc.ledger.deployment import find
from flbc.ledger.development import outbox_path
from flbc.ledger.hub import Hub
from flbc.ledger.outbox import Outbox
from flbc.ledger.transactions import Call
from tests.commands.conftest import PASSWORD, fails, run
from tests.support.ledger import ETHER, send


def queue(*calls):
    """Leave calls in the development account's outbox, as a run that was killed does."""
    key = development_key()
    with connect("embedded") as chain, Outbox(chain, key, outbox_path(chain, key.address)) as outbox:
        for number, call in enumerate(calls, 1):
            outbox.submit(f"round/{number}", call, 200_000)


def balance(account):
    with connect("embedded") as chain:
        return chain.balance(account)


ALICE, BOB = b"\xaa" * 20, b"\xbb" * 20


def test_what_a_run_left_is_sent_in_order(home):
    queue(Call(ALICE, value=5), Call(BOB, value=7))
    assert "all 2 records are on the chain" in run("task", "sync").stderr
    assert (balance(ALICE), balance(BOB)) == (5, 7)
    assert "nothing is queued for account 0xf39Fd6" in run("task", "sync").stderr


def test_other_commands_of_the_account_send_it_first(home):
    queue(Call(ALICE, value=5))
    assert "sending what this account still had queued (1) ..." in run("deploy").stderr
    assert balance(ALICE) == 5


def test_account_that_cannot_pay_for_what_it_has_queued(registered, monkeypatch):
    monkeypatch.setattr("flbc.commands.session.WAIT", 0.1)
    with connect("embedded") as chain:
        key = keystore.load("stranger.key", PASSWORD).signing
        with Outbox(chain, key, outbox_path(chain, key.address)) as outbox:
            outbox.submit("round/1", Call(ALICE, value=100 * ETHER), 200_000)
    told = fails("register", "--key", "stranger.key", "--role", "hospital")
    assert "'round/1' and what comes after it is not on the chain after 0.1 s: " in told
    assert "balance" in told or "send it ether" in told


def test_record_that_the_contract_refuses_is_named(home):
    run("deploy")
    with connect("embedded") as chain:
        refused = Hub(chain, find(chain)).draw_seed(b"\1" * 32)
    queue(refused, Call(ALICE, value=5))
    told = fails("task", "sync")
    assert "round/1 was refused. The contract refused: WrongStatus(task = 0x0101" in told
    assert balance(ALICE) == 5


def test_node_that_does_not_answer(home, monkeypatch):
    queue(Call(ALICE, value=5), Call(BOB, value=5))

    def gone(*_):
        raise ChainUnavailableError("The node is gone")

    with monkeypatch.context() as patch:
        patch.setattr(Chain, "nonce", gone)
        told = fails("task", "sync", "--seconds", "0.1")
        assert "After 0.1 s 2 of 2 records are left; the first, round/1, is queued: The node is gone" in told
        assert "nothing is lost" in told
    run("task", "sync")


def test_place_that_another_program_took(home):
    key = development_key()
    with connect("embedded") as chain, Outbox(chain, key, outbox_path(chain, key.address)) as outbox:
        outbox.submit("round/1", Call(ALICE, value=5), 200_000)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Chain, "offer", gone_before_it_arrives)
            with pytest.raises(ChainUnavailableError):
                outbox.pump()  # signed, not sent
        send(chain, key, Call(BOB, value=1), 21_000)
    told = fails("task", "sync", "--seconds", "1")
    assert "round/1 was not executed: its nonce 0 was used" in told
    assert "`flbc task sync --retry round/1`" in told
    run("task", "sync", "--retry", "round/1")
    assert balance(ALICE) == 5


def gone_before_it_arrives(*_):
    raise ChainUnavailableError("The node is gone")
