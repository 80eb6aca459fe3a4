import json
from dataclasses import replace
from pathlib import Path

import pytest

from flbc.crypto import keystore
from flbc.crypto.keystore import PartyKeys
from flbc.ledger.chain import connect
from flbc.ledger.deployment import find
from flbc.round import Block, Opening, Signed, Submission, Vote, domain
from tests.commands.conftest import PASSWORD, fails, run
from tests.commands.test_register import address, height, member, public

LABEL = b"\1" * 32


# ---------------------------------------------------------------------- suspend
@pytest.mark.parametrize("who", ["hungary", "its account"])
def test_suspend_and_lift(registered, who):
    party = "hungary" if who == "hungary" else public("hungary")["address"]
    result = run("suspend", party, "--key", "authority.key")
    assert "hungary is suspended (gas" in result.stderr
    assert "by the authority" in result.stdout
    assert member("hungary").suspended
    assert "suspended already; nothing was sent" in run("suspend", party, "--key", "authority.key").stderr
    assert "hungary is no longer suspended" in run("suspend", party, "--lift", "--key", "authority.key").stderr
    assert not member("hungary").suspended
    assert "not suspended already" in run("suspend", party, "--lift").stderr


@pytest.mark.parametrize("key", [("--key", "va.key"), ()])
def test_only_the_authority_may_suspend(registered, key):
    told = fails("suspend", "hungary", *key)
    assert f"Only the authority may suspend, and that is account {public('authority')['address']}" in told


def test_name_that_two_accounts_have(registered):
    keystore.save("again.key", PartyKeys.generate("hungary"), PASSWORD)
    run("register", "--key", "again.key", "--role", "hospital", "--account", "stranger.key")
    told = fails("suspend", "hungary", "--key", "authority.key")
    assert "2 accounts are registered as 'hungary': name one by its address" in told
    assert public("stranger")["address"] in told


@pytest.mark.parametrize(
    ("who", "message"),
    [
        ("Hungary", "Nobody is registered as 'Hungary' on this chain"),
        ("[red]", "Nobody is registered as '[red]'"),
        ("0x12", "an address is 0x followed by 40 hex digits"),
        ("0x" + "12" * 20, "is not registered on this chain"),
    ],
)
def test_nobody_to_suspend(registered, who, message):
    assert message in fails("suspend", who, "--key", "authority.key")


# ---------------------------------------------------------------------- report
def write(name, signed):
    Path(name).write_text(json.dumps(signed.to_dict(), indent=2))
    return name


def sign(value, party):
    with connect("embedded") as chain:
        where = domain(chain.chain_id, find(chain).hub, simulation=False)
    return Signed.make(value, keystore.load(f"{party}.key", PASSWORD).signing, where)


SUBMISSION = Submission(LABEL, 0, 7, 1000, b"\2" * 32, b"\3" * 32, bytes(32), bytes(32))
BLOCK = Block(bytes(32), LABEL, 0, (b"\4" * 32, b"\5" * 32), (2, 3), b"\6" * 32)
VOTE = Vote(LABEL, b"\7" * 32)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (SUBMISSION, replace(SUBMISSION, nonce=b"\7" * 32)),
        (BLOCK, replace(BLOCK, rejected=())),
        (VOTE, replace(VOTE, block=b"\10" * 32)),
    ],
    ids=["submissions", "blocks", "votes"],
)
def test_equivocation_costs_the_stake(registered, first, second):
    files = write("a.json", sign(first, "cleveland")), write("b.json", sign(second, "cleveland"))
    result = run("report", *files)
    kind = type(first).__name__.lower()
    assert f"cleveland signed two {kind}s: 0.5 ether of stake were taken" in result.stderr
    assert member("cleveland").stake == 0
    assert "Somebody has reported this before" in fails("report", *reversed(files))


def test_what_proves_nothing_is_not_sent(registered):
    before = height()
    vote = write("vote.json", sign(VOTE, "cleveland"))
    other = write("other.json", sign(replace(VOTE, label=b"\2" * 32), "cleveland"))
    assert "under different labels" in fails("report", vote, other)
    assert "Both say the same" in fails("report", vote, vote)
    block = write("block.json", sign(BLOCK, "cleveland"))
    assert "different kind of thing" in fails("report", vote, block)
    hungary = write("hungary.json", sign(replace(VOTE, block=bytes(32)), "hungary"))
    told = fails("report", vote, hungary)
    assert public("hungary")["address"] in told
    assert public("cleveland")["address"] in told
    strange = [write(f"{n}.json", sign(replace(VOTE, block=bytes([n]) * 32), "stranger")) for n in (1, 2)]
    assert f"The signer {public('stranger')['address']} was never registered" in fails("report", *strange)
    malformed = write("malformed.json", replace(sign(replace(VOTE, block=bytes(32)), "cleveland"), signature=bytes(65)))
    assert "A signature is malformed" in fails("report", vote, malformed)
    assert height() == before
    assert address("cleveland") != address("stranger")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "null",
        "{}",
        '{"value": 7, "signature": ""}',
        '{"value": {}, "signature": ""}',
        "[" * 50_000,
        json.dumps(Signed(Opening(LABEL, LABEL, 0, 0), bytes(65)).to_dict()),
        json.dumps(Signed(VOTE, bytes(64)).to_dict()),
        json.dumps({"value": {"label": "xx", "block": ""}, "signature": "00" * 65}),
        "\x00",
    ],
)
def test_evidence_that_is_none(content):
    Path("bad.json").write_text(content)
    assert "bad.json is no signed submission, block or vote" in fails("report", "bad.json", "bad.json")


def test_evidence_that_cannot_be_read():
    assert "Cannot read the evidence none.json: No such file" in fails("report", "none.json", "none.json")
    Path("long.json").write_text(" " * 200_000)
    assert "it is no evidence" in fails("report", "long.json", "long.json")
