"""The one JSON parser: what it refuses, what it keeps, and that it never quotes."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import Malformed
from models.strict import MAX_DEPTH, loads

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(10**30), 10**30), text),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(text, inner)),
    max_leaves=20,
)


@given(values, st.booleans())
def test_what_others_write_is_read(value: object, ascii_only: bool) -> None:
    assert loads(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


def test_decimals_keep_their_precision() -> None:
    assert str(loads(b'{"value": 2.50}')["value"]) == "2.50"
    assert loads(b"[1e2]") == [Decimal("1E+2")]
    assert type(loads(b"[3]")[0]) is int


@pytest.mark.parametrize(
    "raw",
    [
        b"", b" ", b"{", b"[1,]", b"{'a': 1}", b'{"a": 1} x', b'{"a": 1}{"a": 2}', b"\xef\xbb\xbf{}", b'{"a": "\xff"}',
        '{"a": 1}'.encode("utf-16"), b"NaN", b"[Infinity]", b"[-Infinity]", b"[01]", b"[+1]", b"[.5]", b"[1.]",
        b'{"a": 1, "a": 1}', b'{"a": 1, "\\u0061": 2}', b'["\\ud800"]', b'["\\udc00\\ud800"]', b'{"\\ud800": 1}',
        b'["\\u0000"]', b'["\x00"]', b'["\x1f"]', b"[1" + b"0" * 40 + b"]", b"[0." + b"1" * 40 + b"]",
        b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), b"[" * 100_000, b'{"a":' * 100_000,
        b'[["]"' + b",[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"]]",
        b'["]",' * (MAX_DEPTH + 1) + b"1" + b',"["]' * (MAX_DEPTH + 1), b'{"a":"\\u0022:","b":1,"b":2}',
        b'{"a\\\\":1,"a\\\\":2}', b'{"":1,"":2}', b'{"a":{"b":1,"c":"\\"","b":2}}', b"[" + b"1" * 41 + b"]",
    ],
)  # fmt: skip
def test_surprises_are_refused(raw: bytes) -> None:
    with pytest.raises(Malformed):
        loads(raw)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b'["\\ud83d\\ude00"]', ["\U0001f600"]),
        (b' \r\n\t{"a": []} \n', {"a": []}),
        (b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, None),
        (b'["' + b"[" * 500 + b'"]', ["[" * 500]),
        (b'["\\\\", "\\"[{"]', ["\\", '"[{']),
        (b'{"a": ": said so", ":b" : ":"}', {"a": ": said so", ":b": ":"}),
        (b'{"a\\\\":1,"a\\"":2,"\\u0022:":3}', {"a\\": 1, 'a"': 2, '":': 3}),
        (b'["' + b"4" * 50 + b'"]', ["4" * 50]),
    ],
)
def test_the_unusual_but_lawful_is_read(raw: bytes, value: object) -> None:
    found = loads(raw)
    assert found == value if value is not None else isinstance(found, list)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    try:
        value = loads(raw)
    except Malformed:
        return
    assert value == loads(raw)


def test_content_is_never_quoted() -> None:
    with pytest.raises(Malformed) as caught:
        loads(b'{"name": "Jenny M", "name": 1}', what="part 3")
    assert str(caught.value) == "part 3 names a member twice in one object"
    assert "Jenny" not in repr(caught.value.__cause__)
