"""Times of HL7 v2 as FHIR writes them: precision kept, the offset from where it is known (row C10)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.hl7v2.message import parse
from adapters.hl7v2.times import Precision, Zones, moment, stamp, time_of_day, zone, zones_of
from models.errors import BadInput, Misconfigured, Unreadable

ZURICH = Zones(source=zone("Europe/Zurich"))
FHIR_DATE_TIME = re.compile(  # R4 datatypes, dateTime
    r"([0-9]([0-9]([0-9][1-9]|[1-9]0)|[1-9]00)|[1-9]000)(-(0[1-9]|1[0-2])(-(0[1-9]|[1-2][0-9]|3[0-1])"
    r"(T([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]+)?(Z|(\+|-)((0[0-9]|1[0-3]):[0-5][0-9]|14:00)))?)?)?"
)


@pytest.mark.parametrize(
    ("sent", "text", "precision"),
    [
        ("2026", "2026", Precision.YEAR),
        ("202603", "2026-03", Precision.MONTH),
        ("20260301", "2026-03-01", Precision.DAY),
        ("2026030109", "2026-03-01T09:00:00+01:00", Precision.HOUR),
        ("202603010915", "2026-03-01T09:15:00+01:00", Precision.MINUTE),
        ("20260701091530", "2026-07-01T09:15:30+02:00", Precision.SECOND),
        ("20260301091530.1230", "2026-03-01T09:15:30.1230+01:00", Precision.SECOND),
        ("20260301091530-0500", "2026-03-01T09:15:30-05:00", Precision.SECOND),
        ("202603010915+0530", "2026-03-01T09:15:00+05:30", Precision.MINUTE),
        ("20260301091530-0000", "2026-03-01T09:15:30+00:00", Precision.SECOND),
        ("20161231235960Z"[:-1] + "+0000", "2016-12-31T23:59:60+00:00", Precision.SECOND),
        ("20010101+0700", "2001-01-01", Precision.DAY),
        (" 20260301 ", "2026-03-01", Precision.DAY),
    ],
)
def test_what_was_sent_is_kept_no_more_and_no_less(sent: str, text: str, precision: Precision) -> None:
    """C10: from the year to the ten-thousandth of a second."""
    read = moment(sent, "OBX-14", ZURICH)
    assert (read.text, read.precision) == (text, precision)
    assert read.instant == (text if "T" in text else None)
    assert read.date == text[:10]
    assert FHIR_DATE_TIME.fullmatch(read.text)


def test_the_offset_comes_from_the_field_then_from_msh_7_then_from_the_source() -> None:
    """C10: in this order; without any of them only the date is known."""
    at = "20260301091530"
    both = Zones("-0800", ZURICH.source)
    assert moment(f"{at}+0200", "OBX-14", both).text.endswith("+02:00")
    assert moment(at, "OBX-14", both).text.endswith("-08:00")
    assert moment(at, "OBX-14", ZURICH).text.endswith("+01:00")
    bare = moment(at, "OBX-14")
    assert (bare.text, bare.zoned, bare.precision) == ("2026-03-01", False, Precision.SECOND)
    assert bare.note


def test_msh_7_speaks_for_the_message() -> None:
    message = parse(b"MSH|^~\\&|A|B|C|D|20260301091530-0330||ADT^A01|1|P|2.5\r")
    assert zones_of(message, ZURICH.source) == Zones("-0330", ZURICH.source)
    for odd in (b"20260301", b"2026-0100-", b"20260301091530+9900", b""):
        message = parse(b"MSH|^~\\&|A|B|C|D|" + odd + b"||ADT^A01|1|P|2.5\r")
        assert zones_of(message).message is None


@pytest.mark.parametrize("twice_or_never", ["20261025023000", "20260329023000"])
def test_an_hour_that_the_clock_showed_twice_or_never_is_not_guessed(twice_or_never: str) -> None:
    """C10: the nights in which the clock is changed."""
    read = moment(twice_or_never, "OBX-14", ZURICH)
    assert read.text == f"{twice_or_never[:4]}-{twice_or_never[4:6]}-{twice_or_never[6:8]}"
    assert "twice or never" in str(read.note)


@pytest.mark.parametrize(
    ("degree", "text"), [("Y", "1999"), ("L", "1999-04"), ("D", "1999-04-01"), ("M", "1999-04-01T12:34:00+02:00")]
)
def test_the_degree_of_a_ts_takes_precision_away(degree: str, text: str) -> None:
    """C10: table 0529, the second component of TS, until 2.5."""
    assert moment("19990401123456", "PID-7", ZURICH, degree=degree).text == text


def test_the_degree_adds_no_precision() -> None:
    assert moment("199904", "PID-7", ZURICH, degree="S").text == "1999-04"


@pytest.mark.parametrize(
    "odd",
    [
        *("", "19", "2026-03-01", "20261301", "20260229", "00000000", "00000101", "2026030124", "202603010960"),
        *("20260301091561", "20260301091530.", "20260301+1500", "202603011", "unknown", '""', "٢٠٢٦"),
    ],
)
def test_an_odd_time_is_refused_with_its_place_and_without_its_value(odd: str) -> None:
    """C10: never half a time, never another day."""
    with pytest.raises(Unreadable) as caught:
        moment(odd, "PID-7", ZURICH)
    assert caught.value.where == "PID-7"
    assert not odd or odd not in str(caught.value)


def test_a_time_of_day_has_no_offset() -> None:
    assert time_of_day("0915", "OBX-5") == "09:15:00"
    assert time_of_day("091530.5+0100", "OBX-5") == "09:15:30.5"
    for odd in ("24", "9", "0960", "09:15"):
        with pytest.raises(Unreadable):
            time_of_day(odd, "OBX-5")


def test_our_own_stamps_carry_an_offset() -> None:
    at = datetime(2026, 3, 1, 9, 15, 30, 999, tzinfo=timezone(timedelta(hours=-3, minutes=-30)))
    assert stamp(at) == "20260301091530-0330"
    with pytest.raises(ValueError, match="without a zone"):
        stamp(at.replace(tzinfo=None))


@pytest.mark.parametrize("name", ["Mars/Olympus", "", "../etc/passwd", "Europe"])
def test_a_zone_that_is_none_refuses_the_start(name: str) -> None:
    with pytest.raises(Misconfigured):
        zone(name)


@given(st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2100, 1, 1)))  # noqa: DTZ001
def test_a_local_time_that_gets_an_offset_is_the_one_that_was_sent(at: datetime) -> None:
    read = moment(at.strftime("%Y%m%d%H%M%S"), "OBX-14", ZURICH)
    if read.zoned:
        back = datetime.fromisoformat(read.text)
        assert back.replace(tzinfo=None) == at.replace(microsecond=0)
        assert back.astimezone(UTC).astimezone(ZURICH.source).replace(tzinfo=None) == at.replace(microsecond=0)
    else:
        assert read.note


@given(st.one_of(st.text(max_size=30), st.from_regex(r"[0-9]{0,16}(\.[0-9]*)?([+-][0-9]{0,5})?", fullmatch=True)))
def test_any_text_is_a_time_of_fhir_or_refused(text: str) -> None:
    try:
        read = moment(text, "OBX-5", ZURICH)
    except BadInput:
        return
    assert FHIR_DATE_TIME.fullmatch(read.text)
