"""The fast road to canonical bytes gives what the reference implementation of RFC 8785 gives."""

from __future__ import annotations

import hashlib
import json
import math

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from models.canonical import canonical, digest, without_none

text = st.text(st.characters(exclude_categories=["Cs"]))
safe = st.integers(-(2**53) + 1, 2**53 - 1)
scalars = st.one_of(st.none(), st.booleans(), safe, st.floats(allow_nan=False, allow_infinity=False), text)
values = st.recursive(scalars, lambda inner: st.one_of(st.lists(inner), st.dictionaries(text, inner)), max_leaves=20)


@given(values)
@example(-0.0)
@example([1.0, 1e-5, 1e-7, 1e15, 1e16, 1e21, 123456789012345680.0, 5e-324, 0.1, 1e-4])
@example({"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\u0080": 6, "\u00f6": 7})
@example('\x7f\u2028\x00\x1f"\\/\b')
def test_same_bytes_as_the_reference_implementation(value: object) -> None:
    assert canonical(value) == rfc8785.dumps(value)


@given(values)
def test_canonical_bytes_are_the_same_value_and_stay_the_same(value: object) -> None:
    once = canonical(value)
    assert canonical(json.loads(once, parse_int=float)) == once


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2**53, "\ud800", {"a": [math.nan]}, {"\udfff": 1}])
def test_what_has_no_canonical_form_is_refused(value: object) -> None:
    with pytest.raises(ValueError):
        canonical(value)


def test_digest_is_sha256_of_the_canonical_bytes() -> None:
    assert digest({"b": 1, "a": 2.0}) == hashlib.sha256(b'{"a":2,"b":1}').hexdigest()


def test_absence_has_one_spelling() -> None:
    assert without_none({"a": None, "b": (), "c": [], "d": 0, "e": "", "f": False}) == {"d": 0, "e": "", "f": False}
