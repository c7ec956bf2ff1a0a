"""How long to wait, and what a refusal lets one conclude."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.bulk.request import PARAMETERS
from adapters.bulk.waiting import Outcome, backoff, failure_backoff, http_date, outcome_of, retry_after

NOW = datetime(2026, 11, 21, 10, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("  ", None),
        ("120", 120.0),
        (" 120 ", 120.0),
        ("0", 1.0),
        ("2.5", 2.5),
        ("120, 60", 120.0),
        ("18000", 300.0),  # Cerner: five hours
        ("1795251165", 300.0),  # bulk-data-server: the time of day in seconds
        ("1795251165831", 300.0),  # and in milliseconds
        ("9" * 200, 300.0),
        ("9" * 5000, None),
        ("Sat, 21 Nov 2026 10:02:00 GMT", 120.0),
        ("Saturday, 21-Nov-26 10:02:00 GMT", 120.0),
        ("Sat, 21 Nov 2026 11:02:00 +0100", 120.0),
        ("Sat, 21 Nov 2026 10:02:00 -0000", 120.0),
        ("Sat, 21 Nov 2026 09:00:00 GMT", 1.0),
        ("Sun, 22 Nov 2026 10:00:00 GMT", 300.0),
        ("-5", None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("1e3", None),
        ("2026-11-21T10:02:00Z", None),
        ("Sat, 99 Nov 2026 10:02:00 GMT", None),
        ("٣", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_date_and_never_believed_beyond_its_limits(
    value: str | None, seconds: float | None
) -> None:
    assert retry_after(value, NOW) == seconds


def test_the_limits_are_the_caller_s() -> None:
    assert retry_after("1", NOW, low=5, high=10) == 5
    assert retry_after("100", NOW, low=5, high=10) == 10


@given(st.text(), st.datetimes(timezones=st.just(UTC)))
def test_whatever_is_sent_the_wait_is_within_limits_or_unknown(value: str, now: datetime) -> None:
    seconds = retry_after(value, now)
    assert seconds is None or 1.0 <= seconds <= 300.0


def test_an_http_date_has_a_zone() -> None:
    assert http_date("Sat, 21 Nov 2026 10:00:00 GMT") == NOW
    local = http_date("Sat, 21 Nov 2026 12:00:00 +0200")
    assert local == NOW.astimezone(timezone(timedelta(hours=2)))
    assert http_date("yesterday") is None
    assert http_date(None) is None


def test_polls_back_off_by_doubling_up_to_a_limit() -> None:
    waits = [backoff(attempt) for attempt in range(1, 12)]
    assert waits[:9] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert waits[9:] == [300, 300]
    assert backoff(10**9) == 300
    assert backoff(0) == backoff(-3) == 1
    assert backoff(3, first=0.01, high=0.03) == 0.03


def test_failures_wait_one_two_four_and_eight_minutes() -> None:
    waits = [failure_backoff(attempt) for attempt in range(1, 7)]
    assert waits == [60, 120, 240, 480, 480, 480]
    assert failure_backoff(2, factor=0.001) == pytest.approx(0.12)
    assert all(later >= earlier for earlier, later in pairwise(waits))


def outcome(*issues: dict[str, Any]) -> bytes:
    return json.dumps({"resourceType": "OperationOutcome", "issue": list(issues)}).encode()


@pytest.mark.parametrize(
    ("issues", "transient", "codes"),
    [
        ([{"severity": "error", "code": "transient"}], True, ("transient",)),
        ([{"severity": "error", "code": "throttled"}], True, ("throttled",)),
        ([{"severity": "fatal", "code": "timeout"}], True, ("timeout",)),
        ([{"severity": "error", "code": "exception"}], False, ("exception",)),
        ([{"severity": "error", "code": "processing"}], False, ("processing",)),
        (
            [{"severity": "error", "code": "transient"}, {"severity": "fatal", "code": "processing"}],
            False,
            ("transient", "processing"),
        ),
        (
            [{"severity": "error", "code": "transient"}, {"severity": "information", "code": "informational"}],
            True,
            ("transient", "informational"),
        ),
        ([{"severity": "error", "code": "transient"}, {"severity": "error"}], False, ("transient",)),
        ([{"severity": "warning", "code": "lock-error"}, {"code": "lock-error"}], True, ("lock-error",)),
        ([{"severity": "error", "code": "Mrs Smith"}], False, ()),
        ([{"severity": "error", "code": 7}], False, ()),
        ([], False, ()),
    ],
)
def test_a_failure_is_transient_where_it_says_so_and_nothing_contradicts(
    issues: list[dict[str, Any]], transient: bool, codes: tuple[str, ...]
) -> None:
    found = outcome_of(outcome(*issues))
    assert (found.transient, found.codes) == (transient, codes)
    assert found.stated is bool(codes)


@pytest.mark.parametrize(
    ("issue", "parameters"),
    [
        ({"diagnostics": "Unknown parameter _typeFilter"}, ("_typeFilter",)),
        ({"details": {"text": "The '_type' parameter is not supported"}}, ("_type",)),
        ({"expression": ["_elements"]}, ("_elements",)),
        ({"location": ["http._since"]}, ("_since",)),
        ({"location": "_until"}, ("_until",)),
        ({"diagnostics": "includeAssociatedData, organizeOutputBy"}, ("includeAssociatedData", "organizeOutputBy")),
        ({"diagnostics": "'allowPartialManifests'=true"}, ("allowPartialManifests",)),
        ({"diagnostics": "parameter patient not supported"}, ("patient",)),
        ({"diagnostics": "the `patient` list"}, ("patient",)),
        ({"diagnostics": "no such patient in the group"}, ()),
        ({"diagnostics": "my_type is x_type"}, ()),
        ({"diagnostics": "_outputFormat"}, ()),
        ({"diagnostics": 7, "details": ["_type"], "expression": {"_type": 1}}, ()),
    ],
)
def test_of_its_text_only_the_names_of_parameters_are_taken(issue: dict[str, Any], parameters: tuple[str, ...]) -> None:
    found = outcome_of(outcome({"severity": "error", "code": "not-supported", **issue}))
    assert found == Outcome(False, ("not-supported",), parameters)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"null", b"{}", b'{"resourceType":"Bundle"}', b'{"issue":[]}', b"\xff\xfe"]
)
def test_what_is_no_outcome_says_nothing(body: bytes) -> None:
    assert outcome_of(body) == Outcome()


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.text(max_size=9)
    | st.sampled_from(["transient", "_type", "error"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["severity", "code", "details", "text", "diagnostics", "expression"]), inner)
    ),
    max_leaves=12,
)


@given(JSON)
def test_an_outcome_of_any_form_gives_known_words_only(issue: Any) -> None:
    body = json.dumps({"resourceType": "OperationOutcome", "issue": issue}).encode()
    found = outcome_of(body)
    assert set(found.parameters) <= set(PARAMETERS)
    assert set(found.codes) <= {"transient"}


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_raise_nothing(body: bytes) -> None:
    assert isinstance(outcome_of(body), Outcome)
