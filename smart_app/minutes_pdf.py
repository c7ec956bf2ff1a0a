"""Minutes of a tumor board as PDF. The only file that imports reportlab.

The same minutes give the same bytes: nothing of the moment or the machine is in them. Each page says whose it is, what
version, and that nothing was decided by the software. Letters that the typeface does not have are shown as boxes, and
the last line says so.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from html import escape
from pathlib import Path
from typing import Any

from reportlab.lib import colors  # type: ignore[import-untyped]
from reportlab.lib.pagesizes import A4  # type: ignore[import-untyped]
from reportlab.lib.styles import ParagraphStyle  # type: ignore[import-untyped]
from reportlab.lib.units import mm  # type: ignore[import-untyped]
from reportlab.pdfbase import pdfmetrics  # type: ignore[import-untyped]
from reportlab.pdfbase.ttfonts import TTFont  # type: ignore[import-untyped]
from reportlab.pdfgen.canvas import Canvas  # type: ignore[import-untyped]
from reportlab.platypus import (  # type: ignore[import-untyped]
    KeepTogether,
    PageBreak,
    Paragraph,
    SimpleDocTemplate,
    Spacer,
    Table,
)

from smart_app.banners import Banner
from smart_app.board_summary import SECTIONS, Summary
from smart_app.boards import MeetingLine, Recommendation
from smart_app.formats import Formats
from smart_app.texts import t

REGULAR, BOLD = "CdsSans", "CdsSansBold"
_FILES = {REGULAR: "DejaVuSans.ttf", BOLD: "DejaVuSans-Bold.ttf"}
"""In fonts/, with their licence: Latin, Greek and Cyrillic."""
_INK, _QUIET, _LINE, _TINT = (colors.HexColor(value) for value in ("#16222e", "#4c5b69", "#c3ccd4", "#e9f1f7"))
_BOX = "\u25a1"
_ISO = Formats()


@dataclass(frozen=True, slots=True)
class Minutes:
    """One case, as it is minuted."""

    meeting: MeetingLine
    number: int
    banner: Banner
    question: str
    asked_by: str
    summary: Summary
    recommendation: Recommendation | None

    @property
    def signed(self) -> bool:
        return self.recommendation is not None and bool(self.recommendation.signatures)


def pdf(cases: Sequence[Minutes]) -> bytes:
    """The minutes of these cases of one meeting, each on pages of its own. Errors: ValueError for none."""
    if not cases:
        raise ValueError("minutes are of at least one case")
    _fonts()
    meeting = cases[0].meeting
    out = io.BytesIO()
    document = SimpleDocTemplate(
        out,
        pagesize=A4,
        leftMargin=18 * mm,
        rightMargin=18 * mm,
        topMargin=20 * mm,
        bottomMargin=22 * mm,
        title=t("board.pdf.title"),
        author=t("frame.product"),
        subject=meeting.held_on,
        lang="en",
        invariant=1,
    )
    story: list[Any] = []
    marks: list[str] = []
    for case in cases:
        if story:
            story.append(PageBreak())
        story.append(_Start(marks, _mark(case)))
        story += _case(case)
    document.build(story, canvasmaker=partial(_Pages, marks=marks))
    return out.getvalue()


def _mark(case: Minutes) -> str:
    """What stands at the foot of each page of a case."""
    version = case.recommendation.version if case.recommendation else 0
    state = t("board.pdf.signed") if case.signed else t("board.pdf.unsigned")
    told = t("board.pdf.version", version=version, state=state) if version else t("board.pdf.no_version")
    return f"{_who(case.banner)}  ·  {told}"


def _who(banner: Banner) -> str:
    parts = [banner.name or t("frame.unknown_name"), f"{t('frame.born')} {banner.born or t('frame.not_known')}"]
    parts += [f"{each.label} {each.value}" for each in banner.identifiers[:1]]
    return ", ".join(parts)


# ---- a case ----------------------------------------------------------------------------------------------------------


def _case(case: Minutes) -> list[Any]:
    meeting = case.meeting
    place = f", {meeting.place}" if meeting.place else ""
    story: list[Any] = [
        _p(t("board.pdf.title"), _TITLE),
        _p(f"{meeting.title}, {meeting.held_on}{place} · {t('board.pdf.case', number=case.number)}", _SMALL),
        Spacer(1, 3 * mm),
    ]
    if not case.signed:
        story += [_p(t("board.pdf.draft"), _MARKED), Spacer(1, 2 * mm)]
    story += [_patient(case.banner), Spacer(1, 2 * mm)]
    story += _block("board.question", case.question or t("board.no_question"), f"({case.asked_by})")
    story += _agreed(case.recommendation)
    story += _summary(case.summary)
    story += [Spacer(1, 3 * mm), _p(t("board.nothing_decided"), _MARKED)]
    if _lacks(story):
        story.append(_p(t("board.pdf.letters", box=_BOX), _SMALL))
    return story


def _patient(banner: Banner) -> Table:
    cells = [
        (t("frame.patient"), banner.name or t("frame.unknown_name")),
        (t("frame.born"), f"{banner.born or t('frame.not_known')}{f' ({banner.age})' if banner.age else ''}"),
        (t("frame.sex"), banner.sex or t("frame.not_known")),
        *((each.label, each.value) for each in banner.identifiers),
    ]
    if banner.test:
        cells.append(("", t("frame.test")))
    rows = [[_p(label, _SMALL), _p(value, _STRONG)] for label, value in cells]
    table = Table(rows, colWidths=[30 * mm, 144 * mm])
    table.setStyle([("BACKGROUND", (0, 0), (-1, -1), _TINT), ("VALIGN", (0, 0), (-1, -1), "TOP"), *_TIGHT])
    return table


def _agreed(recommendation: Recommendation | None) -> list[Any]:
    if recommendation is None:
        return _block("board.recommendation", t("board.none_yet"))
    draft = recommendation.draft
    written = t("board.written", by=recommendation.written_by, at=_ISO.time(recommendation.at), seq=recommendation.seq)
    story = _block("board.recommendation", draft.recommendation, written)
    story += _block("board.rationale", draft.rationale or t("board.not_given"))
    story += _block("board.dissent", draft.dissent or t("board.no_dissent"))
    follow = [f"{number}. {each}" for number, each in enumerate(draft.follow_up, 1)]
    story += _block("board.follow_up", "\n".join(follow) or t("board.not_given"))
    people = [f"{each.name}, {each.role}" if each.role else each.name for each in draft.participants]
    story += _block("board.participants", "\n".join(people) or t("board.not_given"))
    if not recommendation.signatures:
        return [*story, *_block("board.signatures", t("board.nobody_signed"))]
    rows = [[_p(t(f"board.sign.{key}"), _SMALL) for key in ("name", "role", "at", "entry", "note")]]
    rows += [
        [
            _p(each.name, _STRONG),
            _p(t(f"board.role.{each.role}"), _BODY),
            _p(_ISO.time(each.at), _BODY),
            _p(str(each.seq), _BODY),
            _p(each.note, _BODY),
        ]
        for each in recommendation.signatures
    ]
    table = Table(rows, colWidths=[44 * mm, 26 * mm, 38 * mm, 16 * mm, 50 * mm], repeatRows=1)
    table.setStyle([("LINEBELOW", (0, 0), (-1, -1), 0.4, _LINE), ("VALIGN", (0, 0), (-1, -1), "TOP"), *_TIGHT])
    return [*story, _p(t("board.signatures"), _HEAD), table]


def _summary(summary: Summary) -> list[Any]:
    rows = []
    for key in SECTIONS:
        section = summary.sections[key]
        told = [_told(line.label, line.value, line.date, line.side) for line in section.lines]
        if section.more:
            told.append(t("board.more", count=section.more))
        rows.append([_p(t(f"board.section.{key}"), _STRONG), _p("\n".join(told) or t(f"board.empty.{key}"), _BODY)])
    table = Table(rows, colWidths=[30 * mm, 144 * mm], splitInRow=1)
    table.setStyle([("LINEBELOW", (0, 0), (-1, -1), 0.4, _LINE), ("VALIGN", (0, 0), (-1, -1), "TOP"), *_TIGHT])
    story: list[Any] = [_p(t("board.pdf.known"), _OVER), table, _p(t("board.scores"), _HEAD)]
    for score in summary.scores:
        head = f"{score.said}" if score.abstained is None else t("board.no_estimate", why=score.abstained)
        record = t("board.pdf.score", model=score.model, at=_ISO.time(score.at), id=score.inference, seq=score.seq)
        story.append(KeepTogether([_p(head, _STRONG), _p(record, _SMALL)]))
    if not summary.scores:
        story.append(_p(t("board.open.no_score"), _BODY))
    story.append(_p(t("board.open"), _HEAD))
    told = [t(each.key, **each.values) for each in summary.questions]
    story.append(_p("\n".join(f"· {each}" for each in told) or t("board.open.none"), _BODY))
    return story


def _told(label: str, value: str, date: str | None, side: str | None) -> str:
    told = f"{label}{f' ({side})' if side else ''}: {value}"
    return f"{told}, {_ISO.date(date)}" if date else told


# ---- typesetting -----------------------------------------------------------------------------------------------------

_BODY = ParagraphStyle("body", fontName=REGULAR, fontSize=9, leading=12.5, textColor=_INK)
_SMALL = ParagraphStyle("small", parent=_BODY, fontSize=7.5, leading=10.5, textColor=_QUIET)
_STRONG = ParagraphStyle("strong", parent=_BODY, fontName=BOLD)
_TITLE = ParagraphStyle("title", parent=_BODY, fontName=BOLD, fontSize=15, leading=19)
_HEAD = ParagraphStyle(
    "head", parent=_BODY, fontName=BOLD, fontSize=9.5, leading=13, spaceBefore=7, spaceAfter=1.5, keepWithNext=1
)
_OVER = ParagraphStyle("over", parent=_HEAD, keepWithNext=0)
"""Over a table that may go on to the next page."""
_MARKED = ParagraphStyle("marked", parent=_STRONG, borderColor=_INK, borderWidth=0.8, borderPadding=4, leading=12)
_TIGHT = [("TOPPADDING", (0, 0), (-1, -1), 1.5), ("BOTTOMPADDING", (0, 0), (-1, -1), 2)]


def _block(key: str, told: str, beside: str = "") -> list[Any]:
    block: list[Any] = [_p(t(key), _HEAD), _p(told, _BODY)]
    return [*block, _p(beside, _SMALL)] if beside else block


def _p(told: str, style: ParagraphStyle) -> Paragraph:
    """Text as text: what looks like markup in it is escaped, line ends are kept."""
    return Paragraph("<br/>".join(escape(_letters(line)) for line in told.splitlines()) or "&nbsp;", style)


def _letters(told: str) -> str:
    glyphs = _glyphs()
    return "".join(letter if ord(letter) in glyphs else " " if letter.isspace() else _BOX for letter in told)


def _lacks(story: Sequence[Any]) -> bool:
    return any(_BOX in getattr(each, "text", "") or _BOX in str(getattr(each, "_cellvalues", "")) for each in story)


@cache
def _fonts() -> None:
    for name, file in _FILES.items():
        pdfmetrics.registerFont(TTFont(name, str(Path(__file__).parent / "fonts" / file)))
    pdfmetrics.registerFontFamily(REGULAR, normal=REGULAR, bold=BOLD, italic=REGULAR, boldItalic=BOLD)


@cache
def _glyphs() -> frozenset[int]:
    _fonts()
    faces = (pdfmetrics.getFont(name).face.charToGlyph for name in _FILES)
    return frozenset.intersection(*(frozenset(face) for face in faces))


class _Start(Spacer):  # type: ignore[misc]
    """Where a case begins: from this page on, its mark stands at the foot."""

    def __init__(self, marks: list[str], mark: str) -> None:
        super().__init__(0, 0)
        self._marks, self._mark = marks, mark

    def draw(self) -> None:
        while len(self._marks) < self.canv.getPageNumber():
            self._marks.append(self._marks[-1] if self._marks else "")
        self._marks[self.canv.getPageNumber() - 1] = self._mark


class _Pages(Canvas):  # type: ignore[misc]
    """Each page again at the end, when it is known how many there are."""

    def __init__(self, *arguments: Any, marks: list[str], **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._marks = marks
        self._kept: list[dict[str, Any]] = []

    def showPage(self) -> None:
        self._kept.append(dict(self.__dict__))
        self._startPage()

    def save(self) -> None:
        for number, state in enumerate(self._kept, 1):
            self.__dict__.update(state)
            self._foot(number, len(self._kept))
            super().showPage()
        super().save()

    def _foot(self, number: int, of: int) -> None:
        mark = self._marks[number - 1] if number <= len(self._marks) else self._marks[-1]
        self.setFont(REGULAR, 7)
        self.setFillColor(_QUIET)
        self.setStrokeColor(_LINE)
        self.line(18 * mm, 16 * mm, 192 * mm, 16 * mm)
        self.drawString(18 * mm, 12 * mm, _letters(mark)[:110])
        self.drawString(18 * mm, 8.5 * mm, t("board.pdf.foot"))
        self.drawRightString(192 * mm, 12 * mm, t("board.pdf.page", number=number, of=of))
