"""Values of a person have an age: what is too old, from the future or contradicted is missing, and says why."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from models.codes import LOINC, SCT
from models.current import began, latest
from models.modalities import khorana, news2
from models.nouns import Fact
from tests.models.records import fact

NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
PULSE = news2.PULSE


def pulse(number: str | None = "70", effective: str | None = "2026-11-20T09:00:00Z", **members: Any) -> Fact:
    return fact(LOINC, "8867-4", number=number, unit=members.pop("unit", "/min"), effective=effective, **members)


@pytest.mark.parametrize(
    ("facts", "value"),
    [
        ([pulse()], 70),
        ([pulse(effective="2026-11-19T22:00:00Z")], 70),  # twelve hours to the second
        ([pulse(effective="2026-11-19T21:59:59Z")], None),
        ([pulse(effective="2026-11-20T10:00:00Z")], 70),
        ([pulse(effective="2026-11-20T10:00:01Z")], None),
        ([pulse(effective="2026-11-20T11:00:00+02:00")], 70),  # nine o'clock here
        ([pulse(effective="2026-11-20T11:00:00+00:30")], None),  # half past ten: later than now
        ([pulse(effective="2026-11-20")], 70),  # since midnight: at most ten hours old
        ([pulse(effective="2026-11-19")], None),  # it may be of any hour of that day
        ([pulse(effective="2026-11")], None),
        ([pulse(effective=None)], None),
        ([pulse(effective="yesterday")], None),
        ([pulse(effective="2026-13-45T00:00:00Z")], None),
        ([pulse("60", "2026-11-20T08:00:00Z"), pulse("90", "2026-11-20T09:30:00Z")], 90),
        ([pulse("60", "2026-11-20T10:30:00+02:00"), pulse("90", "2026-11-20T08:15:00Z")], 60),  # 08:30 is later
        ([pulse("60"), pulse("60")], 60),
        ([pulse("60"), pulse("61")], None),
        ([pulse("60", "2026-11-20T08:00:00Z"), pulse("999", "2026-11-20T09:00:00Z")], None),
        ([pulse("999", "2026-11-20T08:00:00Z"), pulse("60", "2026-11-20T09:00:00Z")], 60),
        ([pulse("60", "2026-11-20T08:00:00Z"), pulse("61", status="preliminary")], 60),
        ([pulse("60", "2026-11-20T08:00:00Z"), pulse("61", status="entered-in-error")], 60),
        ([pulse(unit="mm")], None),
        ([pulse(unit=None)], None),
        ([pulse(comparator=">")], None),
        ([pulse("NaN")], None),
        ([pulse(None, absent_reason="not-performed")], None),
        ([], None),
    ],
)
def test_the_latest_usable_value_within_its_age(facts: list[Fact], value: float | None) -> None:
    found = latest(PULSE, facts, NOW)
    assert found.value == value
    assert found.value is None or set(found.facts) <= {each.id for each in facts}


@pytest.mark.parametrize(
    ("facts", "note"),
    [
        ([pulse(effective="2026-11-18T09:00:00Z")], "the last one, of 2026-11-18 09:00, is older than 12 hours"),
        ([pulse("60"), pulse("61")], "results of the same time disagree"),
        ([pulse("999")], "value outside plausible range: refused"),
        ([pulse(effective="2027-01-01")], "a result dated in the future is not used"),
        ([pulse(effective=None)], "a result without a usable time is not used"),
        ([pulse(status="preliminary")], "a result that is not final is not used"),
    ],
)
def test_what_is_missing_says_why_and_never_quotes_the_value(facts: list[Fact], note: str) -> None:
    found = latest(PULSE, facts, NOW)
    assert (found.value, found.note) == (None, note)
    assert "999" not in (found.note or "")


def test_without_an_age_any_past_time_will_do() -> None:
    height = fact(LOINC, "8302-2", number="170", unit="cm", effective="1999")
    assert latest(khorana.HEIGHT, [height], NOW).value is None
    assert latest(replace(khorana.HEIGHT, max_age_hours=None), [height], NOW).value == 170


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026", datetime(2026, 1, 1, tzinfo=UTC)),
        ("2026-03", datetime(2026, 3, 1, tzinfo=UTC)),
        ("2026-03-04T05:06:07.5+01:00", datetime(2026, 3, 4, 4, 6, 7, 500000, tzinfo=UTC)),
        ("2026-03-04T05:06Z", datetime(2026, 3, 4, 5, 6, tzinfo=UTC)),
    ],
)
def test_a_time_counts_from_the_first_moment_that_it_may_mean(text: str, moment: datetime) -> None:
    assert began(text) == moment


@pytest.mark.parametrize(
    "text", [None, "", "x", "2026-T10:00", "0000-01-01", "2026-02-30", "٢٠٢٦", "0001-01-01T00:00:00+14:00"]
)
def test_what_is_no_time_is_the_end_of_time(text: str | None) -> None:
    assert began(text).year == 9999


def test_an_answer_that_is_not_recognised_bars_earlier_ones() -> None:
    alert = fact(LOINC, "67775-7", answer=(SCT, "248234008"), effective="2026-11-20T08:00:00Z")
    odd = fact(LOINC, "67775-7", answer=(SCT, "1"), effective="2026-11-20T09:00:00Z")
    assert latest(news2.CONSCIOUSNESS, [alert], NOW).value == 0
    assert latest(news2.CONSCIOUSNESS, [alert, odd], NOW).value is None
