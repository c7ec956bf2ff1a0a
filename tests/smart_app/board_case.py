"""Made-up parts of a board's case."""

from __future__ import annotations

import base64
import re
import zlib
from typing import Any

from smart_app.banners import Banner, Identifier
from smart_app.board_summary import SECTIONS, Line, Question, ScoreView, Section, Summary
from smart_app.boards import Draft, MeetingLine, Participant, Recommendation, Signature
from smart_app.minutes_pdf import Minutes

AT = "2026-11-24T09:30:00.000000Z"


def score(**more: Any) -> ScoreView:
    values: dict[str, Any] = {
        "inference": "11111111-2222-4333-8444-555555555555", "seq": 7, "service": "s", "model": "m@1",
        "endpoint": "Recurrence within five years", "said": "Recurrence within five years: 15 %", "at": AT,
        "abstained": None, "probability": 0.15, "interval": (0.1, 0.2), "band": None, "validated": True, "voices": (),
    }  # fmt: skip
    return ScoreView(**values | more)


def minutes(*, signed: bool = True, number: int = 1, **more: Any) -> Minutes:
    lines = {key: Section(key, (Line("Label", f"value of {key}", "2026-03-15"),), more=2) for key in SECTIONS}
    signatures = (Signature("Prof. Brandt", "board-chair", AT, 12, "with the rest"),) if signed else ()
    draft = Draft(
        "Letrozole <b>now</b> & later\nthen again",
        "because",
        "",
        ("Panel", "Scan"),
        (Participant("Dr Osei", "oncology"), Participant("Łukasz", "")),
    )
    values: dict[str, Any] = {
        "meeting": MeetingLine("m", "Breast board", "Room 4", "2026-11-24", False, 2, 1),
        "number": number,
        "banner": Banner("Jenny M", "1965-01-01", "61 years", None, "female", (Identifier("MRN", "MRN1234"),)),
        "question": "Chemotherapy?",
        "asked_by": "Dr Osei",
        "summary": Summary(lines, (), (score(),), (Question("board.open.no_score"),)),
        "recommendation": Recommendation("ab" * 16, 2, draft, "Prof. Brandt", AT, 11, ("i",), signatures),
    }
    return Minutes(**values | more)


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
