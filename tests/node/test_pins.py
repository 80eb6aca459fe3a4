import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flbc.crypto.signing import checksum_address
from flbc.errors import ConfigError, FlbcError, PolicyError, RosterError
from flbc.node.identity import development_identity
from flbc.node.pins import Pins, Policy
from flbc.roster import Party, Roster
from flbc.task import TaskConfig

TASK = TaskConfig("paillier", "authority", {}, None, 10, 3, 5, 3072, (b"\x01" * 32,), ())
PRIVACY = {"epsilon": 1.0, "delta": 1e-5, "noise_multiplier": 2.0, "clip_norm": 1.0}
PRIVATE = replace(TASK, privacy=PRIVACY, reveal_metrics=("loss",))

ADDRESS, ENCRYPTION, FINGERPRINT = b"\x8b" * 20, b"\x1f" * 32, b"\x9c" * 32
HOSPITAL = Party("cleveland", ("hospital",), ADDRESS, ENCRYPTION, examples=244)
AUTHORITY = Party("authority", ("authority",), b"\x8c" * 20, b"\x2f" * 32, FINGERPRINT)
ROSTER_FILE = f"""
version = 1

[policy]
schemes = ["paillier", "nddfe", "masked", "verified"]
min-key-bits = 3072
min-survivors = 4
min-noise-multiplier = 0.5
max-epsilon = 3
max-delta = 1e-6
max-clip-norm = 2.0
reveal-metrics = ["loss"]

[[party]]
name = "cleveland"
roles = ["hospital"]
address = "{checksum_address(ADDRESS)}"
encryption = "{ENCRYPTION.hex()}"
examples = 244

[[party]]
name = "authority"
roles = ["authority"]
address = "{checksum_address(AUTHORITY.address)}"
encryption = "{AUTHORITY.encryption.hex()}"
scheme-key = "{FINGERPRINT.hex()}"
"""


@pytest.fixture
def load(tmp_path):
    def load(text):
        path = tmp_path / "roster.toml"
        path.write_text(text, encoding="utf-8")
        return Pins.load(path)

    return load


def pins(*parties: Party) -> Pins:
    return Pins({party.name: party for party in parties})


# ---------------------------------------------------------------------- policy, rule by rule
@pytest.mark.parametrize("task", [TASK, replace(PRIVATE, reveal_metrics=())])
def test_default_policy_accepts_an_honest_task(task):
    Policy().check(task)


def test_default_policy_reveals_no_metric():
    with pytest.raises(PolicyError, match=r"reveals at most the metrics \(\)"):
        Policy().check(PRIVATE)
    Policy(reveal_metrics=None).check(PRIVATE)


@pytest.mark.parametrize("survivors", [2, 0, -1, 2.5])
def test_fewer_than_three_survivors_are_no_policy(survivors):
    with pytest.raises(ConfigError, match="must be at least 3"):
        Policy(min_survivors=survivors)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"min_threshold": 0.4}, "from 0.5 to below 1"),
        ({"min_threshold": 1.0}, "from 0.5 to below 1"),
        ({"noise_by": "server"}, "must be one of opener, clients"),
    ],
)
def test_rules_that_protect_nobody_are_no_policy(rule, message):
    with pytest.raises(ConfigError, match=message):
        Policy(**rule)


@pytest.mark.parametrize(
    ("policy", "task", "message"),
    [
        ({}, replace(TASK, scheme="plain"), r"does not accept scheme 'plain', only \('paillier', .* 'verified'\)"),
        ({"schemes": ()}, TASK, "does not accept scheme 'paillier'"),
        ({"min_key_bits": 4096}, TASK, "needs keys of 4096 bits, offered: 3072"),
        ({}, replace(TASK, key_bits=2048), "needs keys of 3072 bits, offered: 2048"),
        ({}, replace(TASK, min_survivors=2), "needs min_survivors >= 3"),
        ({"max_epsilon": 5.0}, TASK, "requires differential privacy, and the task has none"),
        ({"min_noise_multiplier": 0.1}, TASK, "requires differential privacy, and the task has none"),
        ({}, replace(TASK, sharing={"threshold": 0.6}), "needs a threshold of at least 0.666667 of a group"),
        ({}, replace(TASK, sharing={"threshold": 1}), "needs a threshold of at least 0.666667 of a group"),
        ({}, replace(TASK, sharing={}), "needs a threshold of at least 0.666667 of a group"),
        ({"noise_by": "clients"}, TASK, "requires differential privacy, and the task has none"),
        ({"noise_by": "clients"}, PRIVATE, "wants the noise to be added by the clients"),
        ({"noise_by": "opener"}, replace(PRIVATE, privacy=PRIVACY | {"where": "clients"}), "added by the opener"),
        ({"max_epsilon": 0.99}, PRIVATE, "allows epsilon <= 0.99"),
        ({"max_delta": 9e-6}, PRIVATE, "allows delta <= 9e-06"),
        ({}, replace(PRIVATE, privacy=PRIVACY | {"delta": 0.5}), "allows delta <= 0.001"),
        ({"min_noise_multiplier": 2.1}, PRIVATE, "needs a noise multiplier >= 2.1"),
        ({"max_clip_norm": 0.5}, PRIVATE, "allows a clipping norm <= 0.5"),
        ({"reveal_metrics": ()}, PRIVATE, r"reveals at most the metrics \(\)"),
        ({"reveal_metrics": ("accuracy",)}, PRIVATE, r"reveals at most the metrics \('accuracy',\)"),
    ],
)
def test_rule_is_named(policy, task, message):
    with pytest.raises(PolicyError, match=f"This node's policy .*{message}"):
        Policy(**{"reveal_metrics": None, **policy}).check(task)


@pytest.mark.parametrize(
    "policy",
    [
        {"min_key_bits": 3072},
        {"min_survivors": 3},
        {"max_epsilon": 1.0},
        {"max_delta": 1e-5},
        {"min_noise_multiplier": 2.0},
        {"max_clip_norm": 1.0},
        {"reveal_metrics": ("accuracy", "loss")},
        {"schemes": ("masked", "paillier")},
    ],
    ids=lambda policy: next(iter(policy)),
)
def test_limits_themselves_are_accepted(policy):
    Policy(**{"reveal_metrics": None, **policy}).check(PRIVATE)


@pytest.mark.parametrize("name", sorted(PRIVACY))
@pytest.mark.parametrize("value", ["1.0", None, True, math.nan, [1.0]])
def test_privacy_that_cannot_be_checked_is_refused(name, value):
    with pytest.raises(PolicyError, match=r"cannot check the task's privacy: .* must be numbers"):
        Policy().check(replace(TASK, privacy=PRIVACY | {name: value}))
    missing = {key: number for key, number in PRIVACY.items() if key != name}
    with pytest.raises(PolicyError, match="cannot check the task's privacy"):
        Policy().check(replace(TASK, privacy=missing))


def test_policy_table_round_trips():
    table = {"schemes": ["a", "b"], "min-survivors": 5, "max-epsilon": math.inf, "reveal-metrics": []}
    assert Policy.from_toml(table) == Policy(schemes=("a", "b"), min_survivors=5, reveal_metrics=())
    assert Policy.from_toml({}) == Policy()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"min_survivors": 3}, "Unknown key 'min_survivors' in .policy.; known: schemes, min-key-bits"),
        ({"max-epsilom": 3}, "Unknown key 'max-epsilom'"),
        ({"schemes": "paillier"}, r"\[policy\] schemes must be a list of strings"),
        ({"schemes": [1]}, "schemes must be a list of strings"),
        ({"reveal-metrics": "loss"}, "reveal-metrics must be a list of strings"),
        ({"max-epsilon": "3"}, r"\[policy\] max-epsilon must be a number"),
        ({"max-epsilon": True}, "max-epsilon must be a number"),
        ({"max-epsilon": math.nan}, "max-epsilon must be a number"),
        ({"min-survivors": [3]}, "min-survivors must be a number"),
        (["paillier"], r"\[policy\] must be a table"),
    ],
)
def test_malformed_policy(table, message):
    with pytest.raises(ConfigError, match=message):
        Policy.from_toml(table)


# ---------------------------------------------------------------------- the roster file
def test_load(load):
    loaded = load(ROSTER_FILE)
    assert loaded.parties == {"authority": AUTHORITY, "cleveland": HOSPITAL}
    assert loaded.policy == Policy(
        min_key_bits=3072,
        min_survivors=4,
        min_noise_multiplier=0.5,
        max_epsilon=3,
        max_delta=1e-6,
        max_clip_norm=2.0,
        reveal_metrics=("loss",),
    )


def test_missing_file(tmp_path):
    with pytest.raises(RosterError, match=r"Cannot read the roster .*none.toml; make one with `flbc roster`"):
        Pins.load(tmp_path / "none.toml")


@pytest.mark.parametrize("data", [b"version = ", b"\xff\xfe", b"[policy]\n[policy]\n"])
def test_not_toml(tmp_path, data):
    path = tmp_path / "roster.toml"
    path.write_bytes(data)
    with pytest.raises(RosterError, match="is not TOML"):
        Pins.load(path)


@pytest.mark.parametrize(
    "text",
    ["", "version = 2", "version = '1'", "version = 1\nparties = []", "version = 1\nparty = 3", ROSTER_FILE[12:]],
)
def test_version_and_tables(load, text):
    with pytest.raises(RosterError, match=r"must have version = 1, \[policy\] and \[\[party\]\], and nothing else"):
        load(text)


@pytest.mark.parametrize("text", ["version = 1\nparty = ['cleveland']", "version = 1\nparty = [[1]]"])
def test_party_that_is_no_table(load, text):
    with pytest.raises(RosterError, match=r"must be a \[\[party\]\] table"):
        load(text)


def test_single_brackets_are_a_common_mistake(load):
    with pytest.raises(RosterError, match=r"\[\[party\]\]"):
        load("version = 1\n[party]\nname = 'cleveland'")


def test_policy_that_is_no_table(load):
    with pytest.raises(ConfigError, match=r"\[policy\] must be a table"):
        load("version = 1\npolicy = 3")


@pytest.mark.parametrize("line", ["name", "roles", "address", "encryption"])
def test_party_without_a_member(load, line):
    kept = [text for text in ROSTER_FILE.splitlines() if not text.startswith(line)]
    with pytest.raises(RosterError, match="needs name, roles, address, encryption"):
        load("\n".join(kept))


def test_unknown_member_of_a_party(load):
    with pytest.raises(RosterError, match=r"Party 'cleveland' in .*roster.toml needs name, roles"):
        load(ROSTER_FILE.replace("examples = 244", "example = 244"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('roles = ["hospital"]', 'roles = ["nurse"]', "roles must be one or more of hospital"),
        ('roles = ["hospital"]', 'roles = "hospital"', "roles must be one or more of hospital"),
        ('roles = ["hospital"]', "roles = 3", "malformed"),
        ('roles = ["hospital"]', "roles = []", "roles must be one or more"),
        (checksum_address(ADDRESS), "0x12", "an address is 0x followed by 40 hex digits"),
        (checksum_address(ADDRESS), checksum_address(ADDRESS).replace("8B", "8b", 1), "checksum"),
        (f'"{checksum_address(ADDRESS)}"', "5", "an address must be text"),
        (f'"{ENCRYPTION.hex()}"', '"1f"', "wrong length"),
        (f'"{ENCRYPTION.hex()}"', '"zz"', "malformed"),
        (f'"{ENCRYPTION.hex()}"', "[1]", "malformed"),
        ("examples = 244", "examples = -1", "must not be negative"),
        ("examples = 244", "examples = 244.5", "examples must be an integer"),
        ("examples = 244", "examples = true", "examples must be an integer"),
        ("examples = 244", "examples = '244'", "examples must be an integer"),
        ('name = "cleveland"', 'name = "St. Mary"', "name must be 1 to 64 ASCII letters"),
    ],
)
def test_malformed_member_of_a_party(load, old, new, message):
    assert old in ROSTER_FILE
    with pytest.raises(RosterError, match=rf"Party '.*' in .*roster.toml is malformed: .*{message}|{message}"):
        load(ROSTER_FILE.replace(old, new))


def test_two_parties_of_one_name_or_key(load):
    with pytest.raises(RosterError, match="different names"):
        load(ROSTER_FILE.replace('"authority"\n', '"cleveland"\n', 1))
    with pytest.raises(RosterError, match="same signing address"):
        load(ROSTER_FILE.replace(checksum_address(AUTHORITY.address), checksum_address(ADDRESS)))


@given(st.text(max_size=80))
def test_garbage_raises_only_our_errors(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "garbage.toml"
    path.write_text("version = 1\n" + text, encoding="utf-8", errors="replace")
    try:
        loaded = Pins.load(path)
    except FlbcError:
        return
    assert loaded == Pins({})  # comments and white space


# ---------------------------------------------------------------------- parties (S1)
def test_pinned_parties_pass():
    pins(HOSPITAL, AUTHORITY).check_roster(Roster((AUTHORITY, HOSPITAL)))


def test_party_that_is_not_pinned():
    with pytest.raises(RosterError, match="'authority' is not in this node's roster; add it with `flbc roster`"):
        pins(HOSPITAL).check_roster(Roster((AUTHORITY, HOSPITAL)))


@pytest.mark.parametrize(
    "change", [{"address": b"\x01" * 20}, {"encryption": b"\x01" * 32}, {"roles": ("committee", "hospital")}], ids=str
)
def test_other_keys_or_roles(change):
    with pytest.raises(RosterError, match="'cleveland' came with other keys or roles than the pinned ones"):
        pins(HOSPITAL).check(replace(HOSPITAL, **change))


@pytest.mark.parametrize("key", [b"", b"\x01" * 32])
def test_other_scheme_key(key):
    with pytest.raises(RosterError, match="'authority' came with another scheme key than the pinned one"):
        pins(AUTHORITY).check(replace(AUTHORITY, scheme_key=key))


def test_scheme_key_that_is_not_pinned_is_left_to_the_signature():
    pins(replace(AUTHORITY, scheme_key=b"")).check(AUTHORITY)


@pytest.mark.parametrize("examples", [0, 243, 245])
def test_other_number_of_examples(examples):
    with pytest.raises(RosterError, match="'cleveland' came with another number of examples than the pinned one"):
        pins(HOSPITAL).check(replace(HOSPITAL, examples=examples))


def test_number_of_examples_that_is_not_pinned():
    pins(replace(HOSPITAL, examples=0)).check(HOSPITAL)


def test_pinned_examples():
    assert pins(HOSPITAL).examples("cleveland") == 244
    assert pins(HOSPITAL).examples("zurich") == 0
    assert Pins.development().examples("node-1") == 0


# ---------------------------------------------------------------------- development identities (S2)
def test_development_pins_know_derived_keys_whatever_their_role():
    for roles in (("hospital",), ("authority",)):
        Pins.development().check(development_identity(3, roles, examples=5).party(FINGERPRINT))


@pytest.mark.parametrize(
    "change", [{"address": b"\x01" * 20}, {"encryption": b"\x01" * 32}, {"name": "node-4"}], ids=str
)
def test_development_pins_refuse_other_keys(change):
    party = replace(development_identity(3).party(), **change)
    with pytest.raises(RosterError, match="other keys or roles"):
        Pins.development().check(party)


@pytest.mark.parametrize("name", ["cleveland", "node-", "node-x", "node-1234567890", "node-03", "3"])
def test_development_pins_refuse_other_names(name):
    party = replace(development_identity(3).party(), name=name)
    with pytest.raises(RosterError, match=f"'{name}' is not a development identity"):
        Pins.development().check(party)
