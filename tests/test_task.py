from dataclasses import FrozenInstanceError, fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flbc.encoding import canonical, parse
from flbc.errors import FlbcError, ProtocolError
from flbc.task import TaskConfig

CONFIG = TaskConfig(
    scheme="paillier",
    mode="authority",
    codec={"bits": 16, "length": 100},
    privacy={"epsilon": 1.0, "unit": "example"},
    rounds=30,
    min_survivors=3,
    max_parties=4,
    key_bits=3072,
    scheme_keys=(b"\x01" * 32,),
    reveal_metrics=("accuracy", "loss"),
    ledger={"quorum": 3, "stakes": {"cleveland": 10}},
    sharing={"threshold": 0.7},
    verification={"policy": {"max_change": 1.0}, "program": "00"},
)
CHANGES = {
    "scheme": "plain",
    "mode": "paper",
    "codec": {"bits": 16, "length": 101},
    "privacy": {"epsilon": 1.5, "unit": "example"},
    "rounds": 31,
    "min_survivors": 2,
    "max_parties": 5,
    "key_bits": 2048,
    "scheme_keys": (b"\x02" * 32,),
    "reveal_metrics": ("accuracy",),
    "ledger": {"quorum": 3, "stakes": {"cleveland": 11}},
    "sharing": {"threshold": 0.5},
    "verification": {"policy": {"max_change": 2.0}, "program": "00"},
}


def with_member(name, value) -> bytes:
    return canonical(parse(CONFIG.encoded) | {name: value})


@pytest.mark.parametrize(
    "config", [CONFIG, replace(CONFIG, privacy=None, scheme_keys=(), reveal_metrics=(), ledger=None)]
)
def test_round_trip(config):
    again = TaskConfig.decode(config.encoded)
    assert again == config
    assert (again.encoded, again.hash) == (config.encoded, config.hash)


@pytest.mark.parametrize("member", [field.name for field in fields(TaskConfig)])
def test_hash_binds_every_member(member):
    assert replace(CONFIG, **{member: CHANGES[member]}).hash != CONFIG.hash


def test_hash_binds_privacy_at_all():
    assert replace(CONFIG, privacy=None).hash != CONFIG.hash


def test_hash_stays_true_when_its_makers_mappings_change():
    codec, privacy = {"bits": 16}, {"epsilon": 1.0}
    config = replace(CONFIG, codec=codec, privacy=privacy)
    before = TaskConfig.decode(config.encoded)
    codec["bits"], privacy["epsilon"] = 32, 1000.0
    assert config == before
    assert replace(config).hash == before.hash


def test_nothing_can_be_changed():
    with pytest.raises(FrozenInstanceError):
        CONFIG.rounds = 1000
    for mapping in (CONFIG.codec, CONFIG.privacy):
        with pytest.raises(TypeError, match="does not support item assignment"):
            mapping["epsilon"] = 1000.0


@pytest.mark.parametrize("member", [field.name for field in fields(TaskConfig)])
def test_missing_member(member):
    data = parse(CONFIG.encoded)
    del data[member]
    with pytest.raises(ProtocolError, match="must have exactly the members scheme, mode, codec"):
        TaskConfig.decode(canonical(data))


def test_unknown_member():
    with pytest.raises(ProtocolError, match="must have exactly the members"):
        TaskConfig.decode(with_member("extra", 1))


@pytest.mark.parametrize("member", [field.name for field in fields(TaskConfig)])
@pytest.mark.parametrize("wrong", [True, 1.5, None])
def test_wrong_type_is_named(member, wrong):
    if member in ("privacy", "ledger", "sharing", "verification") and wrong is None:
        return
    with pytest.raises(ProtocolError, match=f"Member '{member}' of the task configuration has the wrong type"):
        TaskConfig.decode(with_member(member, wrong))


@pytest.mark.parametrize("keys", [["01" * 31], ["0x" + "01" * 32], [1], [None], ["AB" * 32]])
def test_malformed_scheme_keys(keys):
    with pytest.raises(ProtocolError, match="scheme key"):
        TaskConfig.decode(with_member("scheme_keys", keys))


@pytest.mark.parametrize("names", [[1], [None], [["a"]], ["b", "a"], ["a", "a"]])
def test_revealed_metrics_are_names_in_order(names):
    with pytest.raises(
        ProtocolError, match="'reveal_metrics' of the task configuration must be different names in order"
    ):
        TaskConfig.decode(with_member("reveal_metrics", names))


@pytest.mark.parametrize("change", [("rounds", 0), ("rounds", -1), ("min_survivors", 0), ("min_survivors", 5)])
def test_numbers_out_of_range(change):
    with pytest.raises(ProtocolError, match="needs rounds >= 1 and 1 <= min_survivors <= max_parties"):
        TaskConfig.decode(with_member(*change))


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5)
)


@given(
    st.sampled_from([field.name for field in fields(TaskConfig)]),
    st.recursive(scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=3), v, max_size=3)),
)
def test_whatever_is_accepted_has_one_byte_form(member, value):
    data = with_member(member, value)
    try:
        config = TaskConfig.decode(data)
    except FlbcError:
        return
    assert config.encoded == data
