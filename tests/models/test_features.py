"""The window around a diagnosis counts days, however a day is written."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from models.codes import LOINC
from models.features import ER, calendar, pick
from tests.models.records import POSITIVE, fact

DIAGNOSED = date(2018, 3, 16)


def taken(effective: str, diagnosed: date = DIAGNOSED, focus: tuple[str, ...] = ()) -> bool:
    found = fact(LOINC, "85337-4", answer=POSITIVE, effective=effective, focus=focus)
    return pick(ER, [found], "9999-12-31", diagnosed.toordinal(), "Condition/primary").value == 1.0


@pytest.mark.parametrize("days", [-400, -366, -365, -364, -76, -75, -1, 0, 1, 290, 291, 364, 365, 366, 400])
@pytest.mark.parametrize("tail", ["", "T23:59:59-12:00"])
def test_a_whole_day_is_far_when_more_than_a_year_lies_between(days: int, tail: str) -> None:
    effective = (DIAGNOSED + timedelta(days)).isoformat() + tail
    assert taken(effective) == (abs(days) <= 365)
    assert taken(effective, focus=("Condition/primary",)) == (days <= 365)


@pytest.mark.parametrize(
    "effective", ["2015", "2016", "2017", "2018", "2019", "2020", "2017-02", "2017-03", "2017-04", "2019-03", "2019-04"]
)
def test_a_month_or_year_counts_from_its_middle(effective: str) -> None:
    day = calendar(effective)
    assert day is not None
    assert day.partial
    assert taken(effective) == (abs(day.ordinal - DIAGNOSED.toordinal()) <= 365)


@pytest.mark.parametrize("effective", ["2018-02-31", "2014-02-31", "2018-13-01"])
def test_what_is_no_day_is_not_far(effective: str) -> None:
    assert calendar(effective) is None
    assert taken(effective)


@pytest.mark.parametrize("diagnosed", [date.min, date.max])
def test_a_window_ends_with_the_calendar(diagnosed: date) -> None:
    assert taken(diagnosed.isoformat(), diagnosed)
    assert not taken("2018-03-16", diagnosed)
