import pytest
from eth_account.messages import _hash_eip191_message, encode_typed_data
from hypothesis import given
from hypothesis import strategies as st

from flbc.crypto.eip712 import Domain, encode_type, hash_struct, typed_digest
from flbc.crypto.signing import checksum_address, keccak256
from flbc.errors import ProtocolError

DOMAIN = Domain("flbc", "1", 31337, b"\x11" * 20, b"\x22" * 32)
PERSON = [("string", "name"), ("address", "wallet")]

text = st.text(st.characters(codec="utf-8"), max_size=20)
bytes20 = st.binary(min_size=20, max_size=20)
bytes32 = st.binary(min_size=32, max_size=32)
uint_bits = st.integers(1, 32).map(lambda n: 8 * n)


@st.composite
def _typed_values(draw):
    """A supported type and a value of it."""
    bits = draw(uint_bits)
    uints = st.integers(0, 2**bits - 1)
    kinds = {
        "bytes32": bytes32,
        "address": bytes20,
        f"uint{bits}": uints,
        "bool": st.booleans(),
        "string": text,
        "bytes": st.binary(max_size=70),
        "bytes32[]": st.lists(bytes32, max_size=4),
        f"uint{bits}[]": st.lists(uints, max_size=4),
    }
    kind = draw(st.sampled_from(sorted(kinds)))
    return kind, draw(kinds[kind])


structs = st.lists(_typed_values(), max_size=6).map(
    lambda pairs: (
        [(kind, f"m{i}") for i, (kind, _) in enumerate(pairs)],
        {f"m{i}": v for i, (_, v) in enumerate(pairs)},
    )
)
domains = st.builds(Domain, text, text, st.integers(0, 2**256 - 1), bytes20, bytes32)


@given(domains, structs)
def test_agrees_with_eth_account(domain, struct):
    members, values = struct
    message = {
        "types": {
            "EIP712Domain": [
                {"name": "name", "type": "string"},
                {"name": "version", "type": "string"},
                {"name": "chainId", "type": "uint256"},
                {"name": "verifyingContract", "type": "address"},
                {"name": "salt", "type": "bytes32"},
            ],
            "Thing": [{"name": name, "type": kind} for kind, name in members],
        },
        "primaryType": "Thing",
        "domain": {
            "name": domain.name,
            "version": domain.version,
            "chainId": domain.chain_id,
            "verifyingContract": checksum_address(domain.verifying_contract),
            "salt": domain.salt,
        },
        "message": {name: _for_oracle(kind, values[name]) for kind, name in members},
    }
    oracle = _hash_eip191_message(encode_typed_data(full_message=message))
    assert typed_digest(domain, hash_struct("Thing", members, values)) == bytes(oracle)


def _for_oracle(kind, value):
    return checksum_address(value) if kind == "address" else value


def test_specification_example(vectors):
    vector = vectors["eip712_person"]
    for who in ("cow", "bob"):
        values = {"name": who.capitalize(), "wallet": bytes.fromhex(vector[f"{who}_wallet"])}
        assert hash_struct("Person", PERSON, values).hex() == vector[f"{who}_hash"]


def test_encode_type():
    assert encode_type("Person", PERSON) == "Person(string name,address wallet)"
    assert encode_type("Nothing", []) == "Nothing()"


def test_digest_binds_every_domain_field():
    struct_hash = keccak256(b"struct")
    variants = [
        DOMAIN,
        Domain("flbd", "1", 31337, b"\x11" * 20, b"\x22" * 32),
        Domain("flbc", "2", 31337, b"\x11" * 20, b"\x22" * 32),
        Domain("flbc", "1", 31338, b"\x11" * 20, b"\x22" * 32),
        Domain("flbc", "1", 31337, b"\x12" * 20, b"\x22" * 32),
        Domain("flbc", "1", 31337, b"\x11" * 20, b"\x23" * 32),
    ]
    assert len({typed_digest(domain, struct_hash) for domain in variants}) == len(variants)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("uint8", 256),
        ("uint8", -1),
        ("uint256", 1 << 256),
        ("uint8", True),
        ("uint8", 1.0),
        ("uint8", "1"),
        ("bool", 1),
        ("bytes32", bytes(31)),
        ("bytes32", "00" * 32),
        ("bytes32", bytearray(32)),
        ("address", bytes(32)),
        ("address", "0x" + "00" * 20),
        ("bytes", "text"),
        ("string", b"text"),
        ("string", "\ud800"),
        ("bytes32[]", bytes(32)),
        ("bytes32[]", [bytes(31)]),
        ("uint8[]", [1, 256]),
        ("uint8[]", {1, 2}),
    ],
)
def test_values_are_not_converted(kind, value):
    with pytest.raises(ProtocolError, match=r"Thing\.m"):
        hash_struct("Thing", [(kind, "m")], {"m": value})


@pytest.mark.parametrize(
    "kind", ["uint", "uint7", "uint264", "int256", "bytes16", "Person", "bool[]", "string[]", "bytes32[2]", "", None]
)
def test_other_types_are_refused(kind):
    with pytest.raises(ProtocolError, match="not supported"):
        encode_type("Thing", [(kind, "m")])


@pytest.mark.parametrize("name", ["", "a b", "1a", "a,b", "ä", "a)", None])
def test_names_must_be_identifiers(name):
    with pytest.raises(ProtocolError, match="identifier"):
        encode_type("Thing", [("bool", name)])
    with pytest.raises(ProtocolError, match="cannot name a struct"):
        encode_type(name, [("bool", "m")])


def test_members_must_match_exactly():
    with pytest.raises(ProtocolError, match="fresh identifier"):
        encode_type("Thing", [("bool", "m"), ("bool", "m")])
    with pytest.raises(ProtocolError, match="missing or unknown: wallet"):
        hash_struct("Person", PERSON, {"name": "Cow"})
    with pytest.raises(ProtocolError, match="missing or unknown: age"):
        hash_struct("Person", PERSON, {"name": "Cow", "wallet": bytes(20), "age": 3})


@pytest.mark.parametrize(
    "fields",
    [
        ("flbc", "1", -1, bytes(20), bytes(32)),
        ("flbc", "1", 1 << 256, bytes(20), bytes(32)),
        ("flbc", "1", 1, bytes(19), bytes(32)),
        ("flbc", "1", 1, bytes(20), bytes(33)),
        ("flbc", 1, 1, bytes(20), bytes(32)),
    ],
)
def test_domain_is_checked_when_made(fields):
    with pytest.raises(ProtocolError):
        Domain(*fields)


def test_struct_hash_must_be_32_bytes():
    with pytest.raises(ProtocolError, match="struct_hash must be 32 bytes"):
        typed_digest(DOMAIN, bytes(31))
