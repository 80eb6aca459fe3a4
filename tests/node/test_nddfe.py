"""The keys of a functional-encryption ticket, whose turn it is to decrypt, and what the terms say of weights."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flbc.codec import Codec, Compression, Layout, VectorPlan
from flbc.encoding import canonical, parse
from flbc.errors import CodecError, FlbcError, ProtocolError
from flbc.node.nddfe import NddFeKeys, own_statement, read_statement, rotation
from flbc.node.terms import codec_terms, declared_weight, multipliers, sum_spec
from flbc.privacy import Privacy
from flbc.privacy.planning import plan as plan_mechanism
from flbc.roster import Roster
from flbc.task import TaskConfig
from tests.support.parties import identity

ME = [identity(f"party-{i}", ("hospital",), examples=i) for i in range(5)]
ROSTER = Roster(tuple(who.party() for who in ME))


@pytest.mark.parametrize("names", [[], ["party-0"], ["party-0", "party-3"]])
def test_keys_round_trip(names):
    publics = {who.name: read_statement(parse(own_statement(who))) for who in ME if who.name in names}
    keys = NddFeKeys("party-1", publics)
    assert NddFeKeys.decode(keys.encoded) == keys
    assert NddFeKeys.decode(keys.encoded).encoded == keys.encoded


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"decryptor": "a"},
        {"decryptor": 1, "publics": {}},
        {"decryptor": "a", "publics": []},
        {"decryptor": "a", "publics": {"a": {}}},
        {"decryptor": "a", "publics": {"a": {"public": "00", "signed": {}}}},
        {"decryptor": "a", "publics": {}, "more": 1},
    ],
)
def test_malformed_keys(value):
    with pytest.raises(ProtocolError):
        NddFeKeys.decode(canonical(value))


@given(st.binary(max_size=60))
def test_any_bytes_are_keys_or_a_named_error(data):
    with suppress(FlbcError):
        NddFeKeys.decode(data)


def test_a_statement_is_the_partys_own():
    public, signed = read_statement(parse(own_statement(ME[0])))
    assert own_statement(ME[0]) == own_statement(ME[0]), "the same point every time"
    assert public != read_statement(parse(own_statement(ME[1])))[0]
    assert len(public) == 33
    assert signed.value.scheme == "nddfe"


def test_everybody_has_a_turn():
    """Over many rounds each training node is first about as often as the others (chi-square, 33.4: 1e-6)."""
    task, rounds = b"\x07" * 32, 500
    first = np.bincount([rotation(ROSTER, task, r)[0] for r in range(1, rounds + 1)], minlength=5)
    assert ((first - rounds / 5) ** 2 / (rounds / 5)).sum() < 33.4
    assert rotation(ROSTER, task, 1) == rotation(ROSTER, task, 1)
    assert sorted(rotation(ROSTER, task, 1)) == [0, 1, 2, 3, 4]


def test_only_training_nodes_have_a_turn():
    generator = identity("generator", ("generator",))
    roster = Roster(tuple(sorted((*ROSTER.parties, generator.party()), key=lambda p: p.name)))
    order = rotation(roster, b"\x07" * 32, 1)
    assert roster.index("generator") not in order
    assert len(order) == 5


def config(codec: Codec = Codec(max_metrics=1), max_multiplier: int | None = None, private: bool = False) -> TaskConfig:  # noqa: B008
    layout = Layout.of({"w": np.zeros(100), "n": np.zeros(3, np.int64)}, private=private)
    plan = VectorPlan(layout, codec, private=private)
    mechanism = None
    if private:
        mechanism = plan_mechanism(
            Privacy(epsilon=1.0, unit="client"), dimension=100, rounds=2, max_examples=1, client_step=1e-4
        )
    terms = codec_terms(plan, mechanism, max_multiplier=max_multiplier)
    return TaskConfig("nddfe", "pad", terms, None if mechanism is None else mechanism.to_dict(), 5, 3, 4, 0, (), ())


def test_multipliers_are_declared_examples_or_one():
    assert multipliers(config(), ROSTER) == (1, 1, 1, 1, 1)
    assert multipliers(config(max_multiplier=4), ROSTER) == (1, 1, 1, 1, 1), "weighed before rounding"
    assert sum_spec(config(max_multiplier=4)).max_multiplier == 1
    paper = replace(config(max_multiplier=4), mode="paper")
    assert multipliers(paper, ROSTER) == (0, 1, 2, 3, 4)
    assert sum_spec(paper).max_multiplier == 4


@pytest.mark.parametrize(
    ("mode", "largest", "examples", "weight"),
    [("pad", None, 9, None), ("pad", 16, 9, 9.0), ("group", 16, 16, 16.0), ("paper", 16, 9, 1.0)],
)
def test_weight_of_a_party(mode, largest, examples, weight):
    assert declared_weight(replace(config(max_multiplier=largest), mode=mode), examples) == weight


@pytest.mark.parametrize("examples", [0, 17])
@pytest.mark.parametrize("mode", ["pad", "paper"])
def test_declared_examples_out_of_range(mode, examples):
    with pytest.raises(CodecError, match="from 1 to 16, and this node declares"):
        declared_weight(replace(config(max_multiplier=16), mode=mode), examples)


def test_lengths_follow_the_warm_up():
    codec = Codec(max_metrics=1, compression=Compression(rate=0.9, warm_up=2))
    dense, sparse = config(), config(codec)
    lengths = [sum_spec(sparse, round_).length for round_ in range(1, 6)]
    whole = sum_spec(dense).length
    assert lengths == [whole - 100 + codec.compression.kept(r, 100) for r in range(1, 6)]
    assert lengths == sorted(lengths, reverse=True)
    assert sum_spec(dense, 4).length == whole


@pytest.mark.parametrize(
    "changes",
    [
        {"floats": "1"},
        {"floats": -1},
        {"length": 10**300, "floats": 10**300},
        {"floats": 10_000},
        {"max_multiplier": 0.5},
        {"max_multiplier": True},
        {"length": None},
    ],
)
def test_terms_that_do_not_fit(changes):
    good = config()
    with pytest.raises(ProtocolError):
        sum_spec(replace(good, codec={**good.codec, **changes}))


def test_compression_and_privacy_do_not_go_together():
    private = config(private=True)
    sparse = Codec(max_metrics=1, compression=Compression(rate=0.5)).to_dict()
    with pytest.raises(ProtocolError, match="do not go together"):
        sum_spec(replace(private, codec={**private.codec, "compression": sparse["compression"]}))
