"""Minutes as PDF: the same bytes for the same minutes, everything on the page, whose it is on each page."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smart_app.banners import Banner
from smart_app.minutes_pdf import pdf
from tests.smart_app.board_case import minutes, words


def test_the_same_minutes_are_the_same_bytes() -> None:
    assert pdf([minutes()]) == pdf([minutes()])
    assert pdf([minutes()]) != pdf([minutes(number=2)])
    with pytest.raises(ValueError, match="at least one"):
        pdf([])


def test_everything_is_on_the_page_as_text() -> None:
    told = "\n".join(words(pdf([minutes()])))
    for shown in (
        "Minutes of the tumour board", "Jenny M", "1965-01-01 (61 years)", "MRN1234", "Chemotherapy?",
        "Letrozole <b>now</b> & later", "then again", "because", "None was voiced.", "1. Panel", "2. Scan",
        "Dr Osei, oncology", "Łukasz", "Prof. Brandt", "with the rest", "value of genomics",
        "Recurrence within five years: 15 %", "entry 7 of the log", "Nothing here is decided by the software",
    ):  # fmt: skip
        assert "".join(shown.split()) in "".join(told.split()), shown  # a line is drawn in pieces
    assert "DRAFT" not in told
    assert "DRAFT" in "\n".join(words(pdf([minutes(signed=False)])))


def test_each_page_says_whose_it_is() -> None:
    other = replace(minutes(number=2), banner=Banner("Carla R", "1961-08-30"))
    long = replace(minutes(), question="\n".join(f"line {n}" for n in range(90)))
    pages = words(pdf([long, other]))
    first = next(number for number, page in enumerate(pages, 1) if "case 2" in page)
    assert 2 < first <= len(pages)
    for number, page in enumerate(pages, 1):
        whose, not_whose = ("Carla R", "Jenny M") if number >= first else ("Jenny M", "Carla R")
        assert whose in page
        assert not_whose not in page
        assert f"Page {number} of {len(pages)}" in page
        assert "version 2, signed" in page


def test_a_letter_that_the_typeface_lacks_is_marked() -> None:
    told = "\n".join(words(pdf([minutes(banner=Banner("Ελένη 愛"))])))
    assert "Ελένη □" in told
    assert "stands for a letter" in told
