"""Made-up parts of a board's case."""

from __future__ import annotations

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
