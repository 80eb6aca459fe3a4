from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flbc.crypto.signing import CURVE_ORDER, SigningKey, keccak256, recover
from flbc.errors import ProtocolError
from flbc.ledger.packing import (
    PackedEvaluation,
    PackedOpening,
    PackedPayout,
    PackedSubmission,
    PackedVote,
    Participant,
    compact,
    expand,
    pack_all,
    pack_name,
    pack_parties,
    unpack_all,
    unpack_name,
    unpack_parties,
)
from flbc.round import Opening, Signed, Submission, Vote, domain
from flbc.tokens import Evaluation

KEY = SigningKey.from_bytes(keccak256(b"a signing key"))
WHERE = domain(31337, b"\x42" * 20, True)
LABEL, BLOCK, TASK, MODEL = (keccak256(name) for name in (b"label", b"block", b"task", b"model"))
SIGNATURE = KEY.sign(LABEL)


def uint(size):
    return st.integers(0, 2 ** (8 * size) - 1)


def signatures():
    return st.builds(lambda digest: KEY.sign(keccak256(digest)), st.binary(min_size=1, max_size=4))


def records(kind):
    kinds = {"bytes": lambda size: st.binary(min_size=size, max_size=size), "int": uint}
    members = {
        name: signatures() if name == "signature" else kinds[kind.__annotations__[name]](size)
        for name, size in kind.LAYOUT
    }
    return st.builds(kind, **members)


KINDS = {PackedSubmission: 110, PackedVote: 66, PackedEvaluation: 72, PackedOpening: 122, PackedPayout: 18}
KINDS[Participant] = 73
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


# ---------------------------------------------------------------------- signatures
@given(st.binary(min_size=1, max_size=8))
def test_compact_signatures_round_trip_and_recover(data):
    signature = KEY.sign(keccak256(data))
    assert expand(compact(signature)) == signature
    assert recover(keccak256(data), expand(compact(signature))) == KEY.address


def test_compact_known_answer():
    # https://eips.ethereum.org/EIPS/eip-2098, test cases
    r = "68a020a209d3d56c46f38cc50a33f704f4a9a10a59377f8dd762ac66910e9b90"
    s = "7e865ad05c4035ab5792787d4a0297a43617ae897930a6fe4d822b8faea52064"
    assert compact(bytes.fromhex(r + s + "1b")).hex() == r + s
    r = "9328da16089fcba9bececa81663203989f2df5fe1faa6291a45381c81bd17f76"
    s = "139c6d6b623b42da56557e5e734a43dc83345ddfadec52cbe24d0cc64f550793"
    assert compact(bytes.fromhex(r + s + "1c")).hex() == r + "93" + s[2:]


@pytest.mark.parametrize("bad", [SIGNATURE[:64], SIGNATURE[:64] + b"\x00", SIGNATURE[:32] + b"\xff" * 32 + b"\x1b"])
def test_what_has_no_compact_form_is_refused(bad):
    with pytest.raises(ProtocolError, match="compact form"):
        compact(bad)


def test_a_high_s_has_a_compact_form_only_by_accident_and_never_recovers():
    high = (CURVE_ORDER - int.from_bytes(SIGNATURE[32:64], "big")).to_bytes(32, "big")
    flipped = SIGNATURE[:32] + high + bytes([55 - SIGNATURE[64]])
    assert high[0] & 0x80 or high > (CURVE_ORDER // 2).to_bytes(32, "big")
    with pytest.raises(ProtocolError, match="low s") if high[0] & 0x80 else pytest.raises(ValueError, match="range"):
        recover(LABEL, expand(compact(flipped)))


def test_a_short_compact_signature_is_refused():
    with pytest.raises(ProtocolError, match="64 bytes"):
        expand(bytes(63))


# ---------------------------------------------------------------------- records
@each_kind
def test_size_and_members(kind):
    assert kind.size() == KINDS[kind]
    assert [name for name, _ in kind.LAYOUT] == [field.name for field in fields(kind)]


@each_kind
@given(data=st.data())
def test_records_round_trip(kind, data):
    record = data.draw(records(kind))
    assert len(record.pack()) == kind.size()
    assert kind.unpack(record.pack()) == record


@each_kind
@given(data=st.data())
def test_any_bytes_have_one_meaning(kind, data):
    raw = data.draw(st.binary(min_size=kind.size(), max_size=kind.size()))
    assert kind.unpack(raw).pack() == raw


@each_kind
@given(data=st.data())
def test_lists_round_trip(kind, data):
    listed = data.draw(st.lists(records(kind), max_size=4))
    if hasattr(listed[0] if listed else None, "party"):
        listed = sorted({record.party: record for record in listed}.values(), key=lambda record: record.party)
    assert unpack_all(kind, pack_all(listed)) == tuple(listed)


@each_kind
def test_a_torn_list_is_refused(kind):
    with pytest.raises(ProtocolError, match=f"multiple of {kind.size()}"):
        unpack_all(kind, bytes(kind.size() + 1))
    with pytest.raises(ProtocolError, match="bytes"):
        kind.unpack(bytes(kind.size() - 1))


VOTE = PackedVote(3, SIGNATURE)


@pytest.mark.parametrize("other", [3, 2, 0])
def test_parties_must_rise(other):
    torn = [VOTE, replace(VOTE, party=other)]
    with pytest.raises(ProtocolError, match=f"{other} at position 1"):
        pack_all(torn)
    with pytest.raises(ProtocolError, match=f"{other} at position 1"):
        unpack_all(PackedVote, b"".join(vote.pack() for vote in torn))


def test_kinds_do_not_mix():
    with pytest.raises(ProtocolError, match="one kind"):
        pack_all([VOTE, PackedPayout(4, 1)])


@pytest.mark.parametrize(
    "record",
    [
        replace(VOTE, party=65536),
        replace(VOTE, party=-1),
        PackedPayout(65536, 1),
        PackedPayout(0, 2**128),
        Participant(b"\x01" * 19, b"\x02" * 20, b"\x03" * 20, 0, 1, 1),
        Participant(b"\x01" * 20, b"\x02" * 20, b"\x03" * 20, 2**64, 1, 1),
    ],
)
def test_what_does_not_fit_is_refused(record):
    with pytest.raises(ProtocolError, match="fit"):
        record.pack()


def test_layout_is_the_documented_one():
    content = keccak256(b"content")
    packed = PackedSubmission(0x0102, 0x030405060708090A, 0x0B0C0D0E, content, SIGNATURE).pack()
    assert packed == bytes(range(1, 15)) + content + compact(SIGNATURE)
    assert PackedPayout(0x0708, 9).pack() == b"\x07\x08" + bytes(15) + b"\x09"
    assert PackedOpening(content, 1, 2, 3, SIGNATURE).pack() == (
        content + bytes(15) + b"\x01" + bytes(7) + b"\x02" + b"\x00\x03" + compact(SIGNATURE)
    )


# ---------------------------------------------------------------------- to and from the signed structs
def test_submissions():
    value = Submission(LABEL, 2, 7, 4000, keccak256(b"n"), keccak256(b"p"), keccak256(b"k"), keccak256(b"v"))
    packed = PackedSubmission.of(Signed.make(value, KEY, WHERE))
    assert packed.hash(LABEL) == value.hash
    assert PackedSubmission.unpack(packed.pack()).signer(LABEL, WHERE) == KEY.address
    assert packed.signer(MODEL, WHERE) != KEY.address


def test_votes_openings_and_evaluations():
    vote = Signed.make(Vote(LABEL, BLOCK), KEY, WHERE)
    assert PackedVote(1, vote.signature).signed(LABEL, BLOCK) == vote
    opening = Signed.make(Opening(BLOCK, MODEL, 5, 6), KEY, WHERE)
    assert PackedOpening.of(opening, 4).signed(BLOCK) == opening
    evaluation = Signed.make(Evaluation(TASK, MODEL, 1, 9000, 61), KEY, WHERE)
    assert PackedEvaluation.of(evaluation).signed(TASK, MODEL) == evaluation


@pytest.mark.parametrize("shorten", [PackedSubmission.of, PackedEvaluation.of, lambda s: PackedOpening.of(s, 0)])
def test_another_struct_is_refused(shorten):
    with pytest.raises(ProtocolError, match="not Vote"):
        shorten(Signed.make(Vote(LABEL, BLOCK), KEY, WHERE))


# ---------------------------------------------------------------------- parties and names
@given(st.sets(st.integers(0, 65535)))
def test_parties_round_trip(parties):
    assert unpack_parties(pack_parties(sorted(parties))) == tuple(sorted(parties))


@pytest.mark.parametrize("bad", [[1, 1], [2, 1], [65536], [-1]])
def test_bad_parties_are_refused(bad):
    with pytest.raises(ProtocolError, match=r"rise|65535"):
        pack_parties(bad)


@pytest.mark.parametrize("bad", [b"\x00", b"\x00\x02\x00\x01", b"\x00\x01\x00\x01"])
def test_bad_packed_parties_are_refused(bad):
    with pytest.raises(ProtocolError):
        unpack_parties(bad)


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=32))
def test_names_round_trip_and_keep_their_order(name):
    assert unpack_name(pack_name(name)) == name
    assert (pack_name(name) < pack_name("m")) == (name < "m")


@pytest.mark.parametrize("name", ["", "x" * 33, "zürich", "a\0b"])
def test_names_that_a_contract_cannot_hold_are_refused(name):
    with pytest.raises(ProtocolError, match="cannot be registered"):
        pack_name(name)


@pytest.mark.parametrize("raw", [bytes(32), b"a\0b".ljust(32, b"\0"), b"\xff".ljust(32, b"\0"), b"short"])
def test_registered_names_that_are_none_are_refused(raw):
    with pytest.raises(ProtocolError):
        unpack_name(raw)
