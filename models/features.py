"""Feature definitions, and how a definition picks its value from facts.

A definition says which codes ask the question, in which unit and range the answer is believed, which results are too
old to be about this tumour, and what the published equation does when there is no answer. `pick` never guesses: what is
preliminary, compared (`<`), out of range, in another unit or contradicted on the same day is unknown, and says why.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from typing import Any

from models import codes
from models.codes import CodeSet, Key
from models.nouns import Fact

NAN = float("nan")
USABLE = frozenset({"final", "amended", "corrected"})
UNFINISHED = frozenset({"preliminary", "registered"})


@dataclass(frozen=True, slots=True)
class Definition:
    """One input of an equation."""

    name: str
    """Column of the graph."""
    title: str
    codes: CodeSet
    answers: Mapping[Key, float | None] = field(default_factory=dict)
    """Coded answers; None is recognised and says nothing."""
    units: frozenset[str | None] = frozenset()
    """Units in which a number is taken (canonical ones only); empty: no numbers."""
    plausible: tuple[float, float] | None = None
    whole: bool = False
    refused: tuple[tuple[Key, float, str], ...] = ()
    """(code, number, why): numbers that mean two things under that code."""
    threshold: float | None = None
    """A number above it counts as 1, up to it as 0."""
    of_tumour: bool = True
    """False: about the person, whichever tumour is meant."""
    window_days: int | None = None
    """Results further from the diagnosis are about something else; earlier ones may still name the tumour."""
    max_age_hours: float | None = None
    """Values older than this at the clinical time are no longer true; for values of a person (`models.current`)."""
    unknown: float = NAN
    """What the equation takes for unknown; NaN: the input is required."""
    unknown_note: str | None = None
    words: Mapping[float, str] = field(default_factory=dict)
    suffix: str = ""

    @property
    def required(self) -> bool:
        return self.unknown != self.unknown

    def label(self, value: float) -> str:
        return self.words.get(value) or f"{value:g}{self.suffix}"

    def plain(self) -> dict[str, Any]:
        """The JSON object that the manifest and the encoder digest carry."""
        return {
            "name": self.name,
            "title": self.title,
            "codes": self.codes.plain(),
            "answers": {f"{system}|{code}": value for (system, code), value in sorted(self.answers.items())},
            "units": sorted(unit or "" for unit in self.units),
            "plausible": list(self.plausible) if self.plausible else None,
            "whole": self.whole,
            "refused": [[f"{key[0]}|{key[1]}", number, why] for key, number, why in self.refused],
            "threshold": self.threshold,
            "of_tumour": self.of_tumour,
            "window_days": self.window_days,
            "required": self.required,
            "unknown": None if self.required else self.unknown,
            "unknown_note": self.unknown_note,
            **({} if self.max_age_hours is None else {"max_age_hours": self.max_age_hours}),
        }


@dataclass(frozen=True, slots=True)
class Picked:
    """What `pick` found: a value with its facts, or none with the reason."""

    value: float | None
    facts: tuple[str, ...] = ()
    effective: str | None = None
    note: str | None = None


NOTHING = Picked(None)

_YES_NO = {0.0: "negative", 1.0: "positive"}
_COUNT: frozenset[str | None] = frozenset({None, "1"})
_WINDOW = 365

SIZE = Definition(
    "size", "Tumour size", codes.SIZE,
    units=frozenset({"mm"}), plausible=(0.1, 250.0), window_days=_WINDOW, suffix=" mm",
)  # fmt: skip
NODES = Definition(
    "nodes", "Positive lymph nodes", codes.NODES,
    units=_COUNT, plausible=(0.0, 100.0), whole=True, window_days=_WINDOW,
)  # fmt: skip
SENTINEL_NODES = Definition(
    "nodes", "Positive lymph nodes", codes.SENTINEL_NODES,
    units=_COUNT, plausible=(0.0, 100.0), whole=True, window_days=_WINDOW,
)  # fmt: skip
GRADE = Definition(
    "grade", "Histologic grade", codes.GRADE, codes.GRADE_ANSWERS,
    units=_COUNT, plausible=(1.0, 3.0), whole=True, window_days=_WINDOW,
    refused=(((codes.LOINC, "44648-4"), 3.0, "3 may be the grade or the lowest Nottingham sum score"),),
    unknown=9.0, unknown_note="unknown: the equation takes the mean grade 2.13",
    words={1.0: "grade 1", 2.0: "grade 2", 3.0: "grade 3"},
)  # fmt: skip
ER = Definition("er", "Oestrogen receptor", codes.ER, codes.PRESENCE, window_days=_WINDOW, words=_YES_NO)
HER2 = Definition(
    "her2", "HER2", codes.HER2, codes.HER2_ANSWERS, window_days=_WINDOW,
    unknown=9.0, unknown_note="unknown: the equation leaves HER2 out", words=_YES_NO,
)  # fmt: skip
KI67 = Definition(
    "ki67", "Ki-67", codes.KI67, codes.PRESENCE,
    units=frozenset({"%"}), plausible=(0.0, 100.0), threshold=10.0, window_days=_WINDOW,
    unknown=9.0, unknown_note="unknown: the equation leaves Ki-67 out", words={0.0: "10 % or less", 1.0: "above 10 %"},
)  # fmt: skip
PR = Definition(
    "pr", "Progesterone receptor", codes.PR, codes.PRESENCE, window_days=_WINDOW,
    unknown=9.0, unknown_note="unknown: the equation leaves PR out", words=_YES_NO,
)  # fmt: skip
SMOKER = Definition(
    "smoker", "Smoking", codes.SMOKING, codes.SMOKING_ANSWERS, of_tumour=False,
    unknown=9.0, unknown_note="unknown: other mortality is that of the whole population (our extension)",
    words={0.0: "never or former smoker", 1.0: "current smoker"},
)  # fmt: skip

PREDICT_BREAST = (SIZE, NODES, SENTINEL_NODES, GRADE, ER, HER2, KI67, PR, SMOKER)


def pick(definition: Definition, facts: Sequence[Fact], today: str, diagnosed: int | None, tumour: str) -> Picked:
    """The latest usable answer, or none.

    `today` is the last day a result may bear, `diagnosed` (a proleptic ordinal) opens the window, `tumour` is the
    reference that exempts a fact from the window. `facts` have a matching code and may speak of this tumour.
    Of several on the latest day all must agree; a day known only to its month agrees with every day of that month.
    """
    if not facts:
        return NOTHING
    if len(facts) == 1:
        fact = facts[0]
        value, why = _usable(definition, fact, today, diagnosed, tumour)
        if value is None:
            return Picked(None, note=why)
        return Picked(value, (fact.id,), (fact.effective or "")[:10] or None, why)
    usable: list[tuple[str, float, Fact]] = []
    refused_days: list[str] = []
    notes: list[str] = []
    for fact in facts:
        day = (fact.effective or "")[:10]
        value, why = _usable(definition, fact, today, diagnosed, tumour)
        if value is not None:
            usable.append((day, value, fact))
        if why is not None and why not in notes:
            notes.append(why)
        if why is not None and why.endswith("refused"):
            refused_days.append(day)
    if not usable:
        return Picked(None, note="; ".join(notes) or None)
    latest = max(day for day, _, _ in usable)
    agreeing = [entry for entry in usable if _same_day(entry[0], latest)]
    value = agreeing[-1][1]
    if any(other != value for _, other, _ in agreeing):
        notes.append("results of the same day disagree")
        return Picked(None, tuple(fact.id for _, _, fact in agreeing), note="; ".join(notes))
    if any(day >= latest or _same_day(day, latest) for day in refused_days):
        return Picked(None, note="; ".join(notes))
    return Picked(value, tuple(fact.id for _, _, fact in agreeing), latest or None, "; ".join(notes) or None)


def _usable(
    definition: Definition, fact: Fact, today: str, diagnosed: int | None, tumour: str
) -> tuple[float | None, str | None]:
    """The number of a fact that may be used for this tumour today, or why there is none."""
    day = (fact.effective or "")[:10]
    if day > today:
        return None, "a result dated in the future is not used"
    value, why = read(definition, fact)
    if value is not None and (far := _far(definition, day, diagnosed, named=tumour in fact.focus)):
        return None, f"a result from long {far} the diagnosis is not used"
    return value, why


def _same_day(day: str, other: str) -> bool:
    return day.startswith(other) or other.startswith(day)


def _far(definition: Definition, day: str, diagnosed: int | None, *, named: bool) -> str | None:
    """Before or after the definition's window. A result that names the tumour may be older, never much later.

    Later results are those of a recurrence or of another tumour, whatever they name: the equation starts at surgery.
    """
    if definition.window_days is None or diagnosed is None:
        return None
    first, last = _window(diagnosed, definition.window_days)
    if first <= day <= last and len(day) == len(first) and day.isascii():
        return None
    when = calendar(day)
    if when is None or abs(when.ordinal - diagnosed) <= definition.window_days:
        return None
    return "after" if when.ordinal > diagnosed else None if named else "before"


@lru_cache(maxsize=64)
def _window(diagnosed: int, days: int) -> tuple[str, str]:
    """First and last day of the window, written out: whole days between them in text are between them in time."""
    first, last = max(diagnosed - days, date.min.toordinal()), min(diagnosed + days, date.max.toordinal())
    return date.fromordinal(first).isoformat(), date.fromordinal(last).isoformat()


@dataclass(frozen=True, slots=True)
class Day:
    """A calendar day; the middle of its month or year where the source knew no more."""

    year: int
    month: int
    day: int
    partial: bool

    @property
    def ordinal(self) -> int:
        return date(self.year, self.month, self.day).toordinal()


_DATE = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T.*)?)?)?")


def calendar(text: str | None) -> Day | None:
    """A FHIR date or dateTime (YYYY, YYYY-MM, YYYY-MM-DD, full instant) as a day; None for anything else."""
    match = _DATE.fullmatch(text) if text else None
    if match is None:
        return None
    year, month, day = match.groups()
    try:
        whole = date(int(year), int(month or 7), int(day or (15 if month else 1)))
    except ValueError:
        return None
    return Day(whole.year, whole.month, whole.day, day is None)


def completed_years(birth: Day, on: Day) -> int:
    return on.year - birth.year - ((on.month, on.day) < (birth.month, birth.day))


def read(definition: Definition, fact: Fact) -> tuple[float | None, str | None]:
    """The number of a fact, or why there is none. Reasons that end in `refused` bar older results, too."""
    status = fact.status
    if status not in USABLE:
        return None, "a result that is not final is not used" if status in UNFINISHED else None
    if fact.coded:
        return _read_answer(definition, fact)
    if fact.problem is not None:
        return None, "value in a unit that does not convert: refused"
    if fact.number is None:
        return None, None if fact.text is None else "an answer in free text: refused"
    if fact.comparator is not None:
        return None, "only a bound (< or >) is given: refused"
    if not definition.units or (fact.unit not in definition.units and not _annotated(definition, fact.unit)):
        return None, "value without the expected unit: refused"
    return _read_number(definition, fact)


def _annotated(definition: Definition, unit: str | None) -> bool:
    """UCUM annotations such as `{nodes}` are pure counts."""
    return unit is not None and unit.startswith("{") and None in definition.units


def _read_number(definition: Definition, fact: Fact) -> tuple[float | None, str | None]:
    try:
        value = float(fact.number or "")
    except ValueError:
        return None, "value is not a number: refused"
    low, high = definition.plausible or (float("-inf"), float("inf"))
    if not low <= value <= high or (definition.whole and not value.is_integer()):
        return None, "value outside plausible range: refused"
    for key, number, why in definition.refused:
        if value == number and any((coding.system, coding.code) == key for coding in fact.codings):
            return None, f"{why}: refused"
    if definition.threshold is not None:
        return float(value > definition.threshold), None
    return value, None


def _read_answer(definition: Definition, fact: Fact) -> tuple[float | None, str | None]:
    answers = definition.answers
    known = [answers[key] for coding in fact.coded if (key := (coding.system, coding.code)) in answers]
    if not known:
        return None, "answer not recognised: refused"
    if len(known) > 1 and any(value != known[0] for value in known):
        return None, "codes of one answer disagree: refused"
    return known[0], "an equivocal or unknown answer says nothing" if known[0] is None else None
