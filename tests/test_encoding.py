import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flbc import encoding
from flbc.encoding import canonical, parse, unhex
from flbc.errors import FlbcError, ProtocolError

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(), v, max_size=4), max_leaves=5
)
objects = st.dictionaries(st.text(), values, max_size=4)


# Known answers: the first two as in RFC 8785 (sorted keys, no white space), the others follow from the docstring.
@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({}, b"{}"),
        ({"b": [], "a": {"d": None, "c": True}}, b'{"a":{"c":true,"d":null},"b":[]}'),
        ({"n": 2**70, "f": 1.0, "t": 1e-7, "z": -0.0}, b'{"f":1.0,"n":1180591620717411303424,"t":1e-07,"z":-0.0}'),
        ({"f": 0.1, "s": 5e-324}, b'{"f":0.1,"s":5e-324}'),
        ({"é": 'say "\n\\/"'}, b'{"\\u00e9":"say \\"\\n\\\\/\\""}'),
        ({"t": (1, 2)}, b'{"t":[1,2]}'),
    ],
)
def test_known_answers(value, text):
    assert canonical(value) == text


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, {"a": [math.nan]}, b"bytes", {1, 2}, object()])
def test_what_json_does_not_have_is_refused(value):
    with pytest.raises(ProtocolError, match="Cannot encode this value as canonical JSON"):
        canonical(value)


@given(objects)
def test_round_trip(value):
    data = canonical(value)
    assert data.isascii()
    assert canonical(parse(data)) == data
    assert json.loads(data) == value


@given(objects)
def test_key_order_does_not_matter(value):
    assert canonical(dict(reversed(value.items()))) == canonical(value)


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": 1}',
        b' {"a":1}',
        b'{"a":1} ',
        b'{"a":1}\n',
        b'{"a":1}x',
        b'{"a":1}{"a":1}',
        b'{"b":1,"a":2}',
        b'{"a":1,"a":1}',
        b'{"a":1,"a":2}',
        b'{"a":1.00}',
        b'{"a":1e0}',
        b'{"a":1E5}',
        b'{"a":0.10000000000000001}',
        b'{"a":-0}',
        b'{"a":01}',
        b'{"a":"\\/"}',
        b'{"a":"\\u0041"}',
        b'{"a":"\\u00E9"}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        '{"a":"é"}'.encode(),
        '{"a":"é"}'.encode("utf-16"),
        b'\xef\xbb\xbf{"a":1}',
        b"{'a':1}",
        b'{"a":1,}',
        b"{",
        b"",
        b"null",
        b"[]",
        b"1",
        b'"a"',
        b'{"a":' + b"9" * 5000 + b"}",
    ],
)
def test_only_the_canonical_form_is_parsed(data):
    with pytest.raises(ProtocolError, match="The label is not"):
        parse(data, "label")


@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_garbage_raises_only_our_errors(data):
    try:
        value = parse(data)
    except FlbcError:
        return
    assert canonical(value) == data


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":' + b"[" * 32 + b"]" * 32 + b"}",
        b'{"a":' * 33 + b"1" + b"}" * 33,
        b'{"a":' + b"[" * 500_000,  # with a raised recursion limit (py_ecc does that) the parser would crash
        b'{"\\\\":' * 500_000,
        b'{"\\"":' * 33,
    ],
)
def test_nesting_is_bounded(data):
    with pytest.raises(ProtocolError, match="The label is nested more than 32 deep"):
        parse(data, "label")


def test_nesting_within_the_bound_and_brackets_in_strings():
    nested = {"a": [[[[{"b": []}]]]], "[" * 100: "{\\" * 100 + '"[' * 100}
    assert parse(canonical(nested)) == nested
    assert parse(b'{"a":' + b"[" * 31 + b"]" * 31 + b"}")


def test_length_is_bounded(monkeypatch):
    monkeypatch.setattr(encoding, "MAX_BYTES", 10)
    assert parse(b'{"a":1234}') == {"a": 1234}
    with pytest.raises(ProtocolError, match="The frame is longer than 10 bytes"):
        parse(b'{"a":12345}', "frame")


@given(st.binary(max_size=40))
def test_hexadecimal_round_trip(data):
    assert unhex(data.hex(), len(data), "key") == data
    assert unhex(data.hex(), None, "key") == data


@pytest.mark.parametrize("value", ["AB", "a", "0xab", "ab ", " ab", "a b", "ab\n", "zz", "abcd", "", "²²"])
def test_other_hexadecimal_is_refused(value):
    with pytest.raises(ProtocolError, match="key"):
        unhex(value, 1, "key")


@pytest.mark.parametrize("value", [None, 1, b"ab", ["ab"]])
def test_hexadecimal_must_be_text(value):
    with pytest.raises(ProtocolError, match="key must be a hexadecimal string"):
        unhex(value, 1, "key")
