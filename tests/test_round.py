import json
from dataclasses import FrozenInstanceError, fields, replace

import pytest
from eth_account import Account
from eth_account.messages import _hash_eip191_message, encode_typed_data
from hypothesis import given
from hypothesis import strategies as st

from flbc.cards import SchemeKey
from flbc.crypto.eip712 import typed_digest
from flbc.crypto.signing import SigningKey, checksum_address, keccak256
from flbc.encoding import canonical, parse
from flbc.errors import FlbcError, ProtocolError, SignatureError
from flbc.round import (
    NO_HUB,
    NO_LEADER,
    SIMULATION,
    UNBOUNDED,
    ZERO,
    Block,
    Opening,
    RoundLabel,
    Signed,
    Submission,
    Vote,
    domain,
    submission_hash,
)
from flbc.tokens import Evaluation, Genesis, ModelToken, Register, Result, TaskToken


def b32(text: str) -> bytes:
    return keccak256(text.encode())


LABEL = RoundLabel(
    b32("task"), 3, 1, b32("roster"), b32("config"), b32("model"), b32("frame"), b32("keys"), 31337, b"\x11" * 20, False
)
SUBMISSION = Submission(LABEL.hash, 2, 7, 4000, b32("nonce"), b32("payload"), b32("next"), b32("vrf"))
BLOCK = Block(b32("parent"), LABEL.hash, 4, (b32("s0"), b32("s1")), (3, 7), b32("hidden"))
OPENING = Opening(BLOCK.hash, b32("total"), 1_500_000, UNBOUNDED)
SCHEME_KEY = SchemeKey("paillier", b32("key"))
VOTE = Vote(LABEL.hash, BLOCK.hash)
TOKENS = [
    Register(b"\x01" * 20, b"\x02" * 20, b"\x03" * 20, b32("x25519"), ZERO, 303, 3, b"cleveland".ljust(32, b"\0")),
    Genesis(b32("model"), b32("config"), b32("roster")),
    TaskToken(b32("task"), b32("genesis"), b32("participants"), 10**18, 7500, 1_800_000_000, 3, True),
    ModelToken(b32("task"), b32("head"), b32("model"), "https://example.org/model", 8123),
    Evaluation(b32("task"), b32("model"), 2, 8123, 61),
    Result(b32("sigma2"), b32("evaluations"), b32("payouts")),
]
STRUCTS = [LABEL, SUBMISSION, BLOCK, VOTE, OPENING, SCHEME_KEY, *TOKENS]
KEY = SigningKey.from_bytes(b32("signing key"))

each_struct = pytest.mark.parametrize("struct", STRUCTS, ids=lambda s: type(s).__name__)
each_member = pytest.mark.parametrize(
    ("struct", "member"),
    [(struct, field.name) for struct in STRUCTS for field in fields(struct)],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)


def altered(value):
    """Another value of the same type and range."""
    match value:
        case bool():
            return not value
        case int():
            return value - 1
        case str():
            return value + "x"
        case bytes():
            return bytes([value[0] ^ 1]) + value[1:]
        case tuple():
            return value[:-1]


# ---------------------------------------------------------------------- hashes
@each_member
def test_every_member_is_in_the_hash(struct, member):
    assert replace(struct, **{member: altered(getattr(struct, member))}).hash != struct.hash


def test_lists_bind_order_and_length():
    first, second = BLOCK.submissions
    variants = [(), (first,), (first, second), (second, first), (first, second, ZERO), (first, first)]
    assert len({replace(BLOCK, submissions=v).hash for v in variants}) == len(variants)
    assert len({replace(BLOCK, rejected=v).hash for v in [(), (0,), (0, 0), (3, 7), (7, 3)]}) == 5


def test_structs_of_different_type_never_share_a_hash():
    assert len({struct.hash for struct in STRUCTS}) == len(STRUCTS)


@each_struct
def test_structs_are_frozen(struct):
    with pytest.raises(FrozenInstanceError):
        setattr(struct, fields(struct)[0].name, ZERO)


def full_message(struct, where):
    """The message as eth_account, our oracle for EIP-712, wants it."""
    names = ("name", "version", "chainId", "verifyingContract", "salt")
    kinds = ("string", "string", "uint256", "address", "bytes32")
    message = {}
    members, values_of = struct.MEMBERS, [getattr(struct, field.name) for field in fields(struct)]
    if isinstance(struct, Submission):  # what is signed holds a hash of the rest
        members = struct.SIGNED
        values_of = [struct.label, struct.party, struct.draw, struct.compute_ms, struct.content]
    for (kind, member), value in zip(members, values_of, strict=True):
        message[member] = checksum_address(value) if kind == "address" else list(value) if "[]" in kind else value
    values = (where.name, where.version, where.chain_id, checksum_address(where.verifying_contract), where.salt)
    return {
        "types": {
            "EIP712Domain": [{"name": n, "type": k} for n, k in zip(names, kinds, strict=True)],
            type(struct).__name__: [{"name": n, "type": k} for k, n in members],
        },
        "primaryType": type(struct).__name__,
        "domain": dict(zip(names, values, strict=True)),
        "message": message,
    }


@each_struct
@pytest.mark.parametrize("simulation", [False, True])
def test_digest_equals_eth_account(struct, simulation):
    where = domain(31337, b"\x11" * 20, simulation)
    signable = encode_typed_data(full_message=full_message(struct, where))
    assert bytes(_hash_eip191_message(signable)) == typed_digest(where, struct.hash)


def test_wallet_signature_is_accepted():
    signed = Account.sign_typed_data(KEY.to_bytes(), full_message=full_message(SUBMISSION, LABEL.domain))
    assert bytes(signed.signature) == Signed.make(SUBMISSION, KEY, LABEL.domain).signature


def test_a_submission_can_be_hashed_without_its_content():
    s = SUBMISSION
    assert submission_hash(s.label, s.party, s.draw, s.compute_ms, s.content) == s.hash


# ---------------------------------------------------------------------- JSON form
@each_struct
def test_json_form_round_trips(struct):
    data = parse(canonical(struct.to_dict()))
    again = type(struct).from_dict(data)
    assert again == struct
    assert again.hash == struct.hash


def test_known_json_form():
    assert json.loads(canonical(replace(BLOCK, submissions=(b"\x01" * 32,)).to_dict())) == {
        "parent": b32("parent").hex(),
        "label": LABEL.hash.hex(),
        "leader": 4,
        "submissions": ["01" * 32],
        "rejected": [3, 7],
        "hidden": b32("hidden").hex(),
    }


@each_member
def test_missing_member(struct, member):
    data = struct.to_dict()
    del data[member]
    with pytest.raises(ProtocolError, match=f"{type(struct).__name__} must have exactly the members .*{member}"):
        type(struct).from_dict(data)


@each_struct
def test_unknown_member(struct):
    with pytest.raises(ProtocolError, match="must have exactly the members"):
        type(struct).from_dict(struct.to_dict() | {"extra": 1})


@each_member
@pytest.mark.parametrize("wrong", [None, 1.0, "x", [None], {}, -1, 1 << 300, "0" * 63, "AB" * 32])
def test_wrong_type_or_range_is_refused_by_name(struct, member, wrong):
    if isinstance(getattr(struct, member), str) and isinstance(wrong, str):
        return  # any text is a scheme's name
    with pytest.raises(ProtocolError, match=rf"{type(struct).__name__}\.\w+"):
        type(struct).from_dict(struct.to_dict() | {member: wrong})


@pytest.mark.parametrize(("struct", "member"), [(LABEL, "round"), (SUBMISSION, "party"), (OPENING, "sigma")])
def test_bool_is_not_an_integer(struct, member):
    with pytest.raises(ProtocolError, match="must be a value of type uint"):
        type(struct).from_dict(struct.to_dict() | {member: True})


def test_integer_is_not_a_bool():
    with pytest.raises(ProtocolError, match=r"RoundLabel\.simulation must be a value of type bool"):
        RoundLabel.from_dict(LABEL.to_dict() | {"simulation": 0})


@pytest.mark.parametrize(
    ("struct", "member", "largest"),
    [
        (LABEL, "round", 2**32 - 1),
        (LABEL, "attempt", 2**32 - 1),
        (LABEL, "chain_id", 2**256 - 1),
        (SUBMISSION, "party", 2**16 - 1),
        (SUBMISSION, "compute_ms", 2**32 - 1),
        (BLOCK, "leader", NO_LEADER),
        (OPENING, "sigma", 2**128 - 1),
        (OPENING, "epsilon", UNBOUNDED),
    ],
)
def test_ranges_of_integers(struct, member, largest):
    kind = type(struct)
    assert getattr(kind.from_dict(struct.to_dict() | {member: largest}), member) == largest
    with pytest.raises(ProtocolError, match="does not fit uint"):
        kind.from_dict(struct.to_dict() | {member: largest + 1})


# ---------------------------------------------------------------------- signatures
@each_struct
def test_signature_verifies(struct):
    signed = Signed.make(struct, KEY, LABEL.domain)
    signed.verify(KEY.address, LABEL.domain)
    again = Signed.from_dict(type(struct), parse(canonical(signed.to_dict())))
    assert again == signed
    again.verify(KEY.address, LABEL.domain)


@pytest.mark.parametrize(
    "where",
    [
        domain(31337, b"\x11" * 20, simulation=True),
        domain(1, b"\x11" * 20, simulation=False),
        domain(0, b"\x11" * 20, simulation=False),
        domain(31337, NO_HUB, simulation=False),
        domain(31337, b"\x12" * 20, simulation=False),
    ],
)
def test_signature_binds_its_domain(where):
    signed = Signed.make(SUBMISSION, KEY, LABEL.domain)
    with pytest.raises(SignatureError):
        signed.verify(KEY.address, where)


def test_domain_follows_the_label():
    assert LABEL.domain == domain(31337, b"\x11" * 20, simulation=False)
    assert replace(LABEL, simulation=True).domain.salt == SIMULATION != ZERO
    assert LABEL.domain.salt == ZERO


@pytest.mark.parametrize("member", [field.name for field in fields(Submission)])
def test_signature_binds_every_member(member):
    signature = Signed.make(SUBMISSION, KEY, LABEL.domain).signature
    other = replace(SUBMISSION, **{member: altered(getattr(SUBMISSION, member))})
    with pytest.raises(SignatureError):
        Signed(other, signature).verify(KEY.address, LABEL.domain)


@pytest.mark.parametrize("member", [field.name for field in fields(RoundLabel)])
def test_submission_binds_every_member_of_the_label(member):
    other = replace(LABEL, **{member: altered(getattr(LABEL, member))})
    signature = Signed.make(SUBMISSION, KEY, LABEL.domain).signature
    with pytest.raises(SignatureError):
        Signed(replace(SUBMISSION, label=other.hash), signature).verify(KEY.address, other.domain)


def test_signature_of_somebody_else():
    signed = Signed.make(SUBMISSION, KEY, LABEL.domain)
    with pytest.raises(SignatureError, match="not made by"):
        signed.verify(b"\x22" * 20, LABEL.domain)


def test_signed_struct_of_another_type_does_not_verify():
    # Same members, another name: the type hash keeps them apart.
    class Ballot(SchemeKey):
        pass

    signature = Signed.make(SCHEME_KEY, KEY, LABEL.domain).signature
    with pytest.raises(SignatureError):
        Signed(Ballot(SCHEME_KEY.scheme, SCHEME_KEY.fingerprint), signature).verify(KEY.address, LABEL.domain)


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"value": SUBMISSION.to_dict()},
        {"value": SUBMISSION.to_dict(), "signature": "00" * 65, "extra": 1},
        {"value": [], "signature": "00" * 65},
    ],
)
def test_malformed_signed_struct(data):
    with pytest.raises(ProtocolError, match="A signed Submission must have the members value and signature"):
        Signed.from_dict(Submission, data)


@pytest.mark.parametrize("signature", [None, 1, "", "00" * 64, "00" * 66, "zz" * 65, "AB" * 65])
def test_malformed_signature(signature):
    with pytest.raises(ProtocolError, match="Submission signature"):
        Signed.from_dict(Submission, {"value": SUBMISSION.to_dict(), "signature": signature})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=66),
    lambda v: st.lists(v, max_size=3),
    max_leaves=4,
)


@given(st.sampled_from(STRUCTS), st.data())
def test_garbage_raises_only_our_errors(struct, data):
    values = struct.to_dict()
    member = data.draw(st.sampled_from(sorted(values)))
    values[member] = data.draw(json_values)
    try:
        parsed = type(struct).from_dict(values)
    except FlbcError:
        return
    assert parsed.to_dict() == values
