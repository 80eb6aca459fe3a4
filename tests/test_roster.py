from dataclasses import fields, replace

import pytest

from flbc.encoding import canonical, parse
from flbc.errors import ProtocolError, RosterError
from flbc.roster import MAX_PARTIES, Party, Roster

ANN = Party("ann", ("hospital",), b"\x01" * 20, b"\x0a" * 32, examples=10)
BEN = Party("ben", ("committee", "hospital"), b"\x02" * 20, b"\x0b" * 32)
KAY = Party("kay", ("authority",), b"\x03" * 20, b"\x0c" * 32, b"\x0d" * 32)
ROSTER = Roster((ANN, BEN, KAY))


@pytest.mark.parametrize("party", [ANN, BEN, KAY], ids=lambda p: p.name)
def test_party_round_trips(party):
    assert Party.from_dict(parse(canonical(party.to_dict()))) == party


def test_roster_round_trips():
    assert Roster.decode(ROSTER.encoded) == ROSTER
    assert Roster.decode(ROSTER.encoded).hash == ROSTER.hash


def test_known_bytes():
    assert Roster((ANN,)).encoded == (
        b'{"parties":[{"address":"%s","encryption":"%s","examples":10,"name":"ann","roles":["hospital"],"scheme_key":"","vrf":""}]}'
        % (b"01" * 20, b"0a" * 32)
    )


@pytest.mark.parametrize(
    "change",
    [
        {"name": "amy"},
        {"roles": ("committee",)},
        {"address": b"\x09" * 20},
        {"vrf": b"\x09" * 20},
        {"encryption": b"\x09" * 32},
        {"scheme_key": b"\x09" * 32},
        {"examples": 11},
    ],
    ids=lambda change: next(iter(change)),
)
def test_hash_binds_every_member(change):
    assert Roster((replace(ANN, **change), BEN, KAY)).hash != ROSTER.hash


def test_every_member_is_tested_above():
    assert len(fields(Party)) == 7


def test_hash_binds_who_is_in():
    assert len({ROSTER.hash, Roster((ANN, BEN)).hash, Roster((ANN, KAY)).hash, Roster(()).hash}) == 4


@pytest.mark.parametrize("parties", [(BEN, ANN), (ANN, ANN), (ANN, replace(BEN, name="ann")), (KAY, ANN, BEN)])
def test_names_differ_and_stand_in_order(parties):
    with pytest.raises(RosterError, match="different names and stand in order"):
        Roster(parties)


def test_addresses_differ():
    with pytest.raises(RosterError, match="same signing address"):
        Roster((ANN, replace(BEN, address=ANN.address)))


def test_number_of_parties_is_bounded(monkeypatch):
    monkeypatch.setattr("flbc.roster.MAX_PARTIES", 3)
    assert Roster((ANN, BEN))
    with pytest.raises(RosterError, match="fewer than 3 parties"):
        Roster((ANN, BEN, KAY))
    assert MAX_PARTIES == 0xFFFF


def test_index_and_roles():
    assert [ROSTER.index(name) for name in ("ann", "ben", "kay")] == [0, 1, 2]
    assert ROSTER.with_role("hospital") == [(0, ANN), (1, BEN)]
    assert ROSTER.with_role("authority") == [(2, KAY)]
    assert BEN.has("committee")
    assert not ANN.has("committee")
    with pytest.raises(RosterError, match="'zoe' is not in the roster of this round"):
        ROSTER.index("zoe")


@pytest.mark.parametrize("name", ["", "a" * 65, "a b", "a/b", "a\n", "a:b", "[red]", "a\x00", "\ud800"])
def test_names_that_are_refused(name):
    with pytest.raises(RosterError, match="name must be 1 to 64 ASCII letters, digits"):
        replace(ANN, name=name)


@pytest.mark.parametrize(
    "roles", [(), ("nurse",), ("hospital", "committee"), ("hospital", "hospital"), ("", "hospital")]
)
def test_roles_that_are_refused(roles):
    with pytest.raises(RosterError, match=r"'ann': roles must be one or more of .*, generator, verifier, sorted"):
        replace(ANN, roles=roles)


@pytest.mark.parametrize(
    "change",
    [{"address": b"\x01" * 19}, {"address": b"\x01" * 32}, {"encryption": b""}, {"scheme_key": b"\x01" * 31}],
)
def test_keys_of_a_wrong_length(change):
    with pytest.raises(RosterError, match="'ann': address, encryption key or scheme key has a wrong length"):
        replace(ANN, **change)


def test_negative_number_of_examples():
    with pytest.raises(RosterError, match="'ann': the number of examples must not be negative"):
        replace(ANN, examples=-1)


@pytest.mark.parametrize("data", [None, [], "ann", {}, ANN.to_dict() | {"extra": 1}])
def test_party_needs_exactly_its_members(data):
    with pytest.raises(ProtocolError, match="A party must have exactly the members address, encryption"):
        Party.from_dict(data)


@pytest.mark.parametrize(
    "change",
    [
        {"name": 1},
        {"roles": "hospital"},
        {"roles": None},
        {"examples": True},
        {"examples": 10.0},
        {"examples": "10"},
        {"address": "0x" + "01" * 20},
        {"address": None},
        {"encryption": "0a" * 31},
        {"scheme_key": "0D" * 32},
        {"scheme_key": None},
    ],
    ids=str,
)
def test_party_with_a_member_of_the_wrong_type(change):
    with pytest.raises(ProtocolError, match="party"):
        Party.from_dict(ANN.to_dict() | change)


@pytest.mark.parametrize("roles", [[1], [None], [["hospital"]], ["hospital", "hospital"]])
def test_party_with_malformed_roles(roles):
    with pytest.raises(RosterError, match="roles must be"):
        Party.from_dict(ANN.to_dict() | {"roles": roles})


@pytest.mark.parametrize(
    "data",
    [b"{}", b"[]", b'{"parties":{}}', b'{"parties":null}', b'{"extra":1,"parties":[]}', b'{"parties":[1]}', b""],
)
def test_other_documents_are_refused(data):
    with pytest.raises(ProtocolError):
        Roster.decode(data)


def test_decoded_roster_keeps_its_rules():
    entries = [BEN.to_dict(), ANN.to_dict()]
    with pytest.raises(RosterError, match="stand in order"):
        Roster.decode(canonical({"parties": entries}))
