import pytest
from web3.eth import Eth

from flbc.commands.amounts import parse_ether
from flbc.commands.finding import all_tasks
from flbc.crypto import keystore
from flbc.crypto.keystore import PartyKeys
from flbc.crypto.signing import checksum_address, keccak256
from flbc.ledger.chain import connect
from flbc.ledger.deployment import find
from flbc.ledger.hub import Hub
from flbc.ledger.publishing import TaskFile
from flbc.node.attestor import SoftwareAttestor
from flbc.node.covenant import Covenant
from flbc.roster import Roster
from flbc.task import TaskConfig
from tests.commands.conftest import HOSPITALS, PASSWORD, STAKES, fails, run, travel
from tests.commands.test_register import address, height, public

ETHER = 10**18


def task_file(**changes):
    """Write what a run writes that wants to be paid for."""
    with connect("embedded") as chain:
        hub = Hub(chain, find(chain))
        parties = [hub.registry.member(address(name)).party() for name in sorted(["authority", *HOSPITALS])]
        where = {"chain_id": chain.chain_id, "hub": hub.address}
    gwei = {name: parse_ether(stake, name) // 10**9 for name, stake in STAKES.items()}
    covenant = Covenant(3, "vrf", "examples", 7000, SoftwareAttestor.kind, gwei)
    config = TaskConfig(
        scheme="paillier", mode="authority", codec={"bits": 16}, privacy=None, rounds=5, min_survivors=3,
        max_parties=4, key_bits=3072, scheme_keys=(keccak256(b"key"),), reveal_metrics=("loss",),
        ledger=covenant.to_dict(),
    )  # fmt: skip
    values = {
        "version": 1, "salt": keccak256(b"salt"), "model": keccak256(b"model"), "config": config.encoded,
        "roster": Roster(tuple(parties)).encoded, "reward": 2 * ETHER, "seconds": 3600,
    }  # fmt: skip
    return TaskFile(**(where | values | changes)).save()


def state(text):
    with connect("embedded") as chain:
        return Hub(chain, find(chain)).task(bytes.fromhex(text))


def only_task():
    with connect("embedded") as chain:
        (task,) = all_tasks(Hub(chain, find(chain)))
    return task.hex()


# ---------------------------------------------------------------------- publish
def test_publish_shows_terms_and_every_step(registered):
    path = task_file()
    result = run("task", "publish", path, "--key", "publisher.key", "--reward", "1.5", "--deadline", 7200)
    for text in (
        "5, of 3 to 4 parties",
        "none: the exact mean of each round is opened",
        "3 of 4 in the committee",
        "at least 70.00 %",
        "accepted rounds times examples",
        "1.5 ether",
        "2 h after publication",
        "cleveland    committee, hospital       242   0.5 ether",
    ):
        assert " ".join(text.split()) in " ".join(result.stdout.split()), text
    task = only_task()
    assert f"1. published task {task}, escrow 1.5 ether" in result.stderr
    assert "2. started with 5 participants, 4 of them in the committee" in result.stderr
    assert f"3. the seed is drawn: {state(task).seed.hex()}" in result.stderr
    assert state(task).status == "started"
    assert state(task).reward == 15 * 10**17


def test_publishing_again_changes_nothing(registered):
    path = task_file()
    run("task", "publish", path, "--key", "publisher.key")
    before, blocks = state(only_task()), height()
    result = run("task", "publish", path, "--key", "publisher.key", "--reward", "3")
    assert "1. published before" in result.stderr
    assert "--reward was ignored: an escrow cannot be changed" in result.stderr
    assert "2. started before, in block" in result.stderr
    assert "3. the seed was drawn before" in result.stderr
    assert (state(only_task()), height()) == (before, blocks)


def test_publish_goes_on_where_it_was_interrupted(registered, monkeypatch):
    path = task_file()

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("flbc.ledger.publishing.start", stop)
        run("task", "publish", path, "--key", "publisher.key", code=130)
    assert state(only_task()).status == "published"
    assert "the publisher runs flbc task publish again" in run("task", "status", only_task()).stdout
    run("task", "publish", path, "--key", "publisher.key")
    assert state(only_task()).status == "started"


def test_publisher_with_an_account_of_its_own(registered):
    keystore.save("payer.key", PartyKeys.generate("payer"), PASSWORD)
    run("register", "--key", "payer.key", "--publisher", "--account", "stranger.key")
    path = task_file()
    told = fails("task", "publish", path, "--key", "payer.key")
    assert "may not publish: register it with `flbc register --publisher`, or name the account" in told
    told = fails("task", "publish", path, "--key", "cleveland.key", "--account", "stranger.key")
    assert f"The publisher registered the signing key {public('payer')['address']}" in told
    run("task", "publish", path, "--key", "payer.key", "--account", "stranger.key")
    assert state(only_task()).publisher == address("stranger")


def test_nothing_is_escrowed_for_a_task_that_could_not_start(registered):
    path, blocks = task_file(), height()
    for arguments, message in (
        (("--key", "stranger.key"), f"Account {public('stranger')['address']} may not publish"),
        (("--key", "publisher.key", "--reward", "11"), "has 9.9"),
        (("--key", "publisher.key", "--reward", "1e1"), "--reward takes an amount of ether"),
        (("--key", "publisher.key", "--reward", "0"), "--reward must be more than 0"),
    ):
        assert message in fails("task", "publish", path, *arguments)
    assert height() == blocks
    run("stake", "add", "0.1", "--key", "va.key")
    told = fails("task", "publish", path, "--key", "publisher.key")
    assert "The stake of 'va' (account" in told
    assert "is 0.2 ether, the task's terms say 0.1 ether" in told
    run("stake", "leave", "--key", "hungary.key")
    assert "has left: have it come back" in fails("task", "publish", path, "--key", "publisher.key")
    run("register", "--key", "hungary.key", "--role", "hospital,committee", "--examples", 1)
    assert "other values of examples than in the roster" in fails("task", "publish", path, "--key", "publisher.key")
    assert "there is no task on this hub" in run("task", "status").stderr


def test_file_that_is_for_somewhere_else(registered):
    told = fails("task", "publish", task_file(chain_id=1), "--key", "publisher.key")
    assert "The task file is for hub" in told
    assert "on chain 1; this is hub" in told
    (registered / "other.json").write_text("{}")
    assert "no task file that a run wrote" in fails(
        "task", "publish", registered / "other.json", "--key", "publisher.key"
    )
    assert "Cannot read the task file none.json" in fails("task", "publish", "none.json", "--key", "publisher.key")


# ---------------------------------------------------------------------- status
def test_status_of_one_and_of_all(settled):
    listed = [line.split() for line in run("task", "status").stdout.splitlines() if "ether" in line]
    assert [line[1:4] for line in listed] == [
        ["settled", "1.000000000000000007", "ether"], ["published", "1.000000000000000007", "ether"],
    ]  # fmt: skip
    assert listed[0][0] == f"{settled.task.hex()[:16]}…"
    assert listed[0][4:6] == ["2", "2"]
    assert checksum_address(settled.publisher.account.address) in listed[0]
    for text in (settled.task.hex()[:12], "0x" + settled.task.hex()[:12].upper(), settled.task.hex()):
        shown = run("task", "status", text).stdout
        assert "task       " + settled.task.hex() in shown
        assert f"flbc task claim {settled.task.hex()[:8]} --key FILE" in shown
        assert "2, the last of round 2, attempt 0" in shown
        assert "VRF proofs verified by the contract" in shown
        assert "hospital-003" in shown
    shown = run("task", "status", listed[1][0].removesuffix("…")).stdout
    assert "the publisher runs flbc task publish again" in shown
    assert "not drawn yet" in shown


@pytest.mark.parametrize(
    "command", [("task", "status"), ("task", "refund"), ("audit",), ("task", "claim", "--key", "authority.key")]
)
def test_task_that_there_is_not(settled, command):
    assert "No task on this hub begins with ffffffff" in fails(*command, "ffffffff")


# ---------------------------------------------------------------------- refund
def test_refund_after_the_deadline(registered):
    run("task", "publish", task_file(), "--key", "publisher.key")
    task = only_task()
    assert "The task runs until" in fails("task", "refund", task)
    assert "something to claim once it is settled" in fails("task", "claim", task, "--key", "va.key")
    travel(3601)
    assert f"the deadline has passed: flbc task refund {task[:8]}" in run("task", "status", task).stdout
    told = fails("task", "publish", task_file(), "--key", "publisher.key")
    assert f"`flbc task refund {task[:8]}` returns the escrow" in told
    with connect("embedded") as chain:
        before = chain.balance(address("publisher"))
    result = run("task", "refund", task[:6])
    assert f"2 ether went back to {public('publisher')['address']}" in result.stderr
    with connect("embedded") as chain:
        assert chain.balance(address("publisher")) == before + 2 * ETHER
    assert "refunded before; nothing was sent" in run("task", "refund", task[:6]).stderr
    assert "the publisher has the escrow back" in run("task", "status", task).stdout
    assert "returned to the publisher" in run("audit").stdout


def test_refund_that_was_interrupted(registered, monkeypatch):
    run("task", "publish", task_file(), "--key", "publisher.key")
    task = only_task()
    travel(3601)

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("flbc.ledger.outbox.Outbox.wait", killed)
        run("task", "refund", task, code=130)
    assert state(task).status == "started"
    assert "an earlier command's refund was still queued: it is sent now" in run("task", "refund", task).stderr
    assert state(task).status == "refunded"


# ---------------------------------------------------------------------- claim
def claimed(consortium, name):
    with connect("embedded") as chain:
        party = [actor.name for actor in consortium.actors].index(name)
        return Hub(chain, consortium.deployment).claimed(consortium.task, party)


def test_claim(settled):
    task, actor = settled.task.hex()[:12], settled.actors[1]
    due = settled.amounts()[1]
    with connect("embedded") as chain:
        before = chain.balance(actor.account.address)
    result = run("task", "claim", task, "--key", f"{actor.name}.key")
    assert "fetched 0." in result.stderr
    with connect("embedded") as chain:
        gained = chain.balance(actor.account.address) - before
    assert due - 10**15 < gained < due
    assert claimed(settled, actor.name)
    again = run("task", "claim", task, "--key", f"{actor.name}.key")
    assert "were fetched before; nothing was sent" in again.stderr
    assert [line.split()[-1] for line in run("task", "status", task).stdout.splitlines() if "hospital-" in line] == [
        "yes", "no", "no", "no",
    ]  # fmt: skip


def test_claim_of_somebody_else(settled):
    task, actor = settled.task.hex(), settled.actors[1]
    told = fails("task", "claim", task, "--key", f"{actor.name}.signing.key")
    assert f"paid to the account that registered it, {checksum_address(actor.account.address)}" in told
    told = fails("task", "claim", task, "--key", "authority.key")
    assert "Nothing is due to" in told
    keystore.save("stranger.key", PartyKeys.generate("stranger"), PASSWORD)
    assert "takes no part in this task" in fails("task", "claim", task, "--key", "stranger.key")
    assert "escrow belongs to the participants" in fails("task", "refund", task)
    assert not claimed(settled, actor.name)


def test_payouts_that_the_contract_did_not_accept(settled, monkeypatch):
    monkeypatch.setattr("flbc.commands.task.settled_payouts", lambda *_: {1: 1, 2: 2})
    told = fails("task", "claim", settled.task.hex(), "--key", f"{settled.actors[1].name}.key")
    assert "not those that the contract accepted" in told


def test_settlement_through_another_contract(settled, monkeypatch):
    honest = Eth.get_transaction
    monkeypatch.setattr(Eth, "get_transaction", lambda self, key: {**honest(self, key), "to": "0x" + "12" * 20})
    told = fails("task", "claim", settled.task.hex(), "--key", f"{settled.actors[1].name}.key")
    assert "settled through another contract" in told
