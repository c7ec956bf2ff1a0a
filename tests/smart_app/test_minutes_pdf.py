"""Minutes as PDF: the same bytes for the same minutes, everything on the page, whose it is on each page."""

from __future__ import annotations

import base64
import re
import zlib
from dataclasses import replace

import pytest

from smart_app.banners import Banner
from smart_app.minutes_pdf import pdf
from tests.smart_app.board_case import minutes


def words(document: bytes) -> list[str]:
    """The text of each page, by the fonts' own tables (PDF 32000-1, 9.10.3)."""
    objects = {int(number): body for number, body in re.findall(rb"(\d+) 0 obj\s(.*?)\sendobj", document, re.DOTALL)}

    def stream(of: int) -> str:
        held = objects[of]
        raw = held[held.index(b"stream") + 6 : held.rindex(b"endstream")].strip(b"\r\n")
        if b"ASCII85Decode" in held:
            raw = (
                base64.a85decode(raw.strip(), adobe=False)
                if not raw.rstrip().endswith(b"~>")
                else base64.a85decode(b"<~" + raw.strip(), adobe=True)
            )
        return zlib.decompress(raw).decode("latin-1")

    fonts: dict[str, dict[int, str]] = {}
    for body in objects.values():
        for name, at in re.findall(rb"/(F\d+\+\d+) (\d+) 0 R", body):
            table = re.search(rb"/ToUnicode (\d+) 0 R", objects[int(at)])
            assert table
            pairs = re.findall(r"<([0-9A-F]{2,4})> <([0-9A-F]{4})>", stream(int(table[1])))
            ranges = re.findall(r"<[0-9A-F]+> <[0-9A-F]+>\s*\[(.*?)\]", stream(int(table[1])), re.DOTALL)
            letters = [code for each in ranges for code in re.findall(r"<([0-9A-F]+)>", each)]
            known = {int(code, 16): chr(int(letter, 16)) for code, letter in pairs}
            known |= {n: chr(int(code, 16)) for n, code in enumerate(letters)}
            fonts[name.decode()] = known
    pages = []
    for body in objects.values():
        if found := re.search(rb"/Contents (\d+) 0 R.*?/Type /Page\b", body, re.DOTALL):
            told, font = [], {}
            for name, shown in re.findall(r"/(F\S+) [\d.]+ Tf|\(((?:[^\\)]|\\.)*)\) Tj", stream(int(found[1]))):
                if name:
                    font = fonts.get(name, {})
                else:
                    raw = re.sub(
                        r"\\([0-7]{3}|.)", lambda m: chr(int(m[1], 8)) if len(m[1]) == 3 else _escape(m[1]), shown
                    )
                    told.append("".join(font.get(ord(letter), letter) for letter in raw))
            pages.append(" ".join(told))
    return pages


def _escape(letter: str) -> str:
    return {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}.get(letter, letter)


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
    assert "¤¤¤¤¤ ¤" in told
    assert "stands for a letter" in told
