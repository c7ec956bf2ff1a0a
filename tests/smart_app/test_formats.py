"""Dates and numbers as a reader's locale writes them, and nothing that the source did not say."""

from __future__ import annotations

import pytest

from smart_app.formats import ISO, THIN, Formats


@pytest.mark.parametrize(
    ("header", "locale"),
    [
        (None, ""),
        ("", ""),
        ("xx, *;q=0.1", ""),
        ("de-AT,de;q=0.9,en;q=0.8", "de"),
        ("en-US,en;q=0.9", "en-US"),
        ("en-GB", "en"),
        ("fr;q=0.2, sv;q=0.7", "sv"),
        ("fr;q=0, en;q=0.1", "en"),
        ("fr;q=nonsense, de", "de"),
    ],
)
def test_the_first_known_language_counts(header: str | None, locale: str) -> None:
    assert Formats.of(header).locale == locale


@pytest.mark.parametrize(
    ("text", "iso", "english", "american", "german"),
    [
        ("2018", "2018", "2018", "2018", "2018"),
        ("2018-03", "2018-03", "Mar 2018", "Mar 2018", "03.2018"),
        ("2018-03-06", "2018-03-06", "6 Mar 2018", "Mar 6, 2018", "06.03.2018"),
        ("2018-03-06T10:05:09.123456Z", "2018-03-06", "6 Mar 2018", "Mar 6, 2018", "06.03.2018"),
        ("last spring", "last spring", "last spring", "last spring", "last spring"),
        (None, "", "", "", ""),
    ],
)
def test_a_date_keeps_its_precision(text: str | None, iso: str, english: str, american: str, german: str) -> None:
    assert ISO.date(text) == iso
    assert Formats.of("en").date(text) == english
    assert Formats.of("en-US").date(text) == american
    assert Formats.of("de").date(text) == german


def test_a_time_names_its_zone() -> None:
    assert ISO.time("2018-03-06T10:05:09Z") == "2018-03-06, 10:05 UTC"
    assert ISO.time("2018-03-06T10:05:09+02:00") == "2018-03-06, 10:05 UTC+02:00"
    assert ISO.time("2018-03-06") == "2018-03-06"


def test_numbers() -> None:
    german = Formats.of("de")
    assert german.number("12345.60") == f"12{THIN}345,60"
    assert Formats.of("en").number(12345.6, 1) == "12,345.6"
    assert ISO.number(-0.004, 2) == "0.00"
    assert ISO.number(-1.5, 2, sign=True) == "−1.50"
    assert ISO.number(1.5, 2, sign=True) == "+1.50"
    assert ISO.number("1e-05") == "1e-05"
    assert ISO.number(None) == ""
    assert german.percent(0.153) == "15 %"
    assert german.percent(None) == ""
    assert german.spread((0.11, 0.204)) == "11–20\u00a0%"
