"""The fast road to canonical bytes gives what the reference implementation of RFC 8785 gives."""

from __future__ import annotations

import hashlib
import json
import math

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from models.canonical import canonical, digest, whole, without_none

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


edges = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-4, 9.999e-5, -1e-4, 1e15, -1e15, 999999999999999.9, 2.0**53, 1e22])
numbers = st.one_of(st.floats(0.0, 100.0), edges, safe, st.booleans(), st.none())


@given(st.dictionaries(text, st.one_of(numbers, st.lists(numbers), st.tuples(numbers, numbers))))
def test_lists_of_common_numbers_with_a_rare_one_among_them(value: object) -> None:
    assert canonical(value) == rfc8785.dumps(value)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 2**53, -(2**53)])
@given(st.lists(st.floats(1e-3, 100.0)), st.lists(st.floats(1e-3, 100.0)))
def test_one_number_without_a_form_refuses_the_whole_list(
    number: float, before: list[float], after: list[float]
) -> None:
    with pytest.raises(ValueError):
        canonical({"curve": [*before, number, *after]})


@given(st.one_of(st.floats(), edges, safe.map(float)))
def test_a_whole_number_is_respelled_as_an_integer_and_stays_the_same_number(number: float) -> None:
    spelled = whole(number)
    assert spelled == number or math.isnan(number)
    assert isinstance(spelled, int) == (number.is_integer() and abs(number) < 2**53)
    if math.isfinite(number):
        assert canonical(spelled) == canonical([number])[1:-1] == rfc8785.dumps(number)


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
