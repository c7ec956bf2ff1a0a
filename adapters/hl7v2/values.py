"""What the rows of the mapping call converters: a field or component -> a FHIR datatype, where rows cannot say it.

Each takes the cells, its row, and the reading, and gives None for nothing, ODD for what is there and cannot be said.
The names of the datatype maps of the v2-to-FHIR guide (mappings/datatypes) stand beside each.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from adapters.hl7v2.feed import Feed
from adapters.hl7v2.mapped import ODD, Cells, Rule, converter
from adapters.hl7v2.reading import Reading
from adapters.hl7v2.vocabulary import code_system, table, table_system
from models.errors import Unreadable

CODE = re.compile(r"[^\s]+( [^\s]+)*")
"""R4 datatypes.html, code."""
NUMBER = re.compile(r"[+-]?(\d{1,40}(\.\d{0,40})?|\.\d{1,40})")
"""HL7 v2.5.1 chapter 2A, NM: no exponent, no comma."""

Concept = dict[str, Any]


@converter("string")
def string(cells: Cells, rule: Rule, reading: Reading) -> str | None:
    return cells.text() or None


@converter("boolean")
def boolean(cells: Cells, rule: Rule, reading: Reading) -> bool | None:
    """ID[boolean], table 0136."""
    return {"Y": True, "N": False, "YES": True, "NO": False}.get(cells.text().upper())


@converter("integer")
def integer(cells: Cells, rule: Rule, reading: Reading) -> int | None:
    text = cells.text()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


@converter("positiveInt")
def positive(cells: Cells, rule: Rule, reading: Reading) -> int | None:
    return integer(cells, rule, reading) or None


@converter("rank")
def rank(cells: Cells, rule: Rule, reading: Reading) -> int | None:
    """DG1-15: 0 means not ranked."""
    return integer(cells, rule, reading) or None


@converter("decimal")
def decimal(cells: Cells, rule: Rule, reading: Reading) -> Decimal | None:
    return number_of(cells.text())


def number_of(text: str) -> Decimal | None:
    """NM as it should be; None for anything else."""
    return Decimal(text) if NUMBER.fullmatch(text) else None


# ---- times -----------------------------------------------------------------------------------------------------------


@converter("dateTime")
def date_time(cells: Cells, rule: Rule, reading: Reading) -> Any:
    """DTM[dateTime], with the precision that was sent; a time without a zone is a date."""
    text = cells.text()
    if not text:
        return None
    try:
        return reading.date_time(text, cells.where)
    except Unreadable:
        return ODD


@converter("dateTimeWithTime")
def date_time_with_time(cells: Cells, rule: Rule, reading: Reading) -> Any:
    """As `dateTime`, for what would only repeat the date without its time."""
    found = date_time(cells, rule, reading)
    return found if isinstance(found, str) and "T" in found else None


@converter("instant")
def instant(cells: Cells, rule: Rule, reading: Reading) -> Any:
    """DTM[instant]: nothing where the zone is not known."""
    text = cells.text()
    if not text:
        return None
    try:
        return reading.instant(text, cells.where) or ODD
    except Unreadable:
        return ODD


@converter("date")
def date(cells: Cells, rule: Rule, reading: Reading) -> Any:
    text = cells.text()
    if not text:
        return None
    try:
        return reading.date(text, cells.where)
    except Unreadable:
        return ODD


# ---- codes -----------------------------------------------------------------------------------------------------------


@converter("code")
def code(cells: Cells, rule: Rule, reading: Reading) -> str | None:
    """CWE[code], ID[code], IS[code]: by the row's vocabulary; nothing for a code that it does not have."""
    return table(rule.get("vocabulary")).codes.get(cells.text())


@converter("conceptOf")
def concept_of(cells: Cells, rule: Rule, reading: Reading) -> Concept | None:
    """A CodeableConcept of the vocabulary's target alone."""
    made = {}
    vocabulary = table(rule.get("vocabulary"))
    if target := vocabulary.codes.get(cells.text()):
        made["coding"] = [{"system": vocabulary.system, "code": target}]
    return made or None


@converter("Coding")
def coding(cells: Cells, rule: Rule, reading: Reading) -> Concept | None:
    """CWE[Coding]: the vocabulary's target, else the code of the v2 table."""
    sent = cells.text()
    if not CODE.fullmatch(sent):
        return None
    vocabulary = table(rule.get("vocabulary"))
    if target := vocabulary.codes.get(sent):
        return {"system": vocabulary.system, "code": target}
    return {"system": table_system(rule.get("table")), "code": sent}


@converter("CWE")
def concept(cells: Cells, rule: Rule, reading: Reading) -> Concept | None:
    """CWE[CodeableConcept], CE, CNE, CF, IS, ID: every triplet a coding; the original text, else the first name.

    A code without a system is one of the row's v2 table, where there is one, else it stays without. The vocabulary's
    target and what the source's code maps say come first: they are what is judged by.
    """
    return _concept(cells, reading, rule.get("table"), rule.get("vocabulary"), maps=bool(rule.row.get("maps")))


def mapped_concept(cells: Cells, reading: Reading) -> Concept | None:
    """A CodeableConcept with what the source's code maps say."""
    return _concept(cells, reading, "", "", maps=True)


_KEPT, _LONGEST = 4096, 120
_memories: dict[int, tuple[Feed, dict[tuple[Any, ...], Concept | None]]] = {}


def _memory(reading: Reading) -> dict[tuple[Any, ...], Concept | None]:
    """What codes and units of this feed came out as: they are few, and stand in every result."""
    found = _memories.get(id(reading.feed))
    if found is None or found[0] is not reading.feed:
        if len(_memories) >= 64:
            _memories.clear()
        found = _memories[id(reading.feed)] = (reading.feed, {})
    if len(found[1]) >= _KEPT:
        found[1].clear()
    return found[1]


def _memorable(cells: Cells) -> bool:
    """Whether the bytes alone say what is meant, and are no more than a code may be."""
    segment, raw = cells.repetition.segment, cells.repetition.raw
    return segment.plain and len(raw) <= _LONGEST and segment.message.component == "^"


def _concept(cells: Cells, reading: Reading, default: str, name: str, *, maps: bool) -> Concept | None:
    """`_concept_of`, remembered where it can be."""
    if cells.inside or not _memorable(cells):
        return _concept_of(cells, reading, default, name, maps=maps)
    memory = _memory(reading)
    key = (cells.repetition.raw, default, name, maps)
    try:
        made = memory[key]
    except KeyError:
        made = memory[key] = _concept_of(cells, reading, default, name, maps=maps)
    if made is None:
        return None
    again: Concept = {}
    if "coding" in made:
        again["coding"] = [coding.copy() for coding in made["coding"]]
    if "text" in made:
        again["text"] = made["text"]
    return again


def _concept_of(cells: Cells, reading: Reading, default: str, name: str, *, maps: bool) -> Concept | None:
    codings: list[Concept] = []
    sent = cells.count
    for at, system_at, oid_at in ((1, 3, 14), (4, 6, 17), (10, 12, 20)):
        if at > sent:
            break
        made = _coding(cells, at, system_at, oid_at, default if at == 1 else "", reading)
        if made:
            codings.append(made)
    mapped: list[Concept] = []
    if name:
        vocabulary = table(name)
        target = vocabulary.codes.get(cells.text())
        if target and vocabulary.system:
            mapped.append({"system": vocabulary.system, "code": target})
    if maps:
        for one in codings:
            mapped += mapped_codings(one, reading)
    row: list[Concept] = []
    for one in (*mapped, *codings):
        if not any(one.get("system") == had.get("system") and one["code"] == had["code"] for had in row):
            row.append(one)
    made_concept: Concept = {"coding": row} if row else {}
    first = cells.text(1)
    words = (cells.text(9) if sent > 8 else "") or cells.text(2) or ("" if row else first or cells.text(5))
    if words:
        made_concept["text"] = words
    return made_concept or None


def mapped_codings(one: Concept, reading: Reading) -> list[Concept]:
    """What the source's code maps say of a coding."""
    return [found.plain() for found in reading.feed.maps.codings(one.get("system", ""), one["code"])]


def _coding(cells: Cells, at: int, system_at: int, oid_at: int, default: str, reading: Reading) -> Concept | None:
    sent = cells.text(at)
    if not sent or not CODE.fullmatch(sent):
        return None
    made: Concept = {}
    name, oid = cells.text(system_at), cells.text(oid_at) if cells.count >= oid_at and not cells.inside else ""
    if name or oid:
        made["system"] = code_system(reading.feed, name, oid)
    elif default:
        made["system"] = table_system(default)
    made["code"] = sent
    if display := cells.text(at + 1):
        made["display"] = display
    return made


@converter("concept")
def concept_with_severity(cells: Cells, rule: Rule, reading: Reading) -> Concept | None:
    """A coded word; beside a reaction's manifestation the severity of AL1-4."""
    text = cells.text()
    if not text:
        return None
    if default := rule.get("table"):
        if not CODE.fullmatch(text):
            return {"text": text}
        return {"coding": [{"system": table_system(default), "code": text}]}
    return concept(cells, rule, reading) if cells.text(3) else {"text": cells.text(2) or text}


@converter("DG1Coding")
def diagnosis_by_method(cells: Cells, rule: Rule, reading: Reading) -> Concept | None:
    """DG1-3 without a system, whose method DG1-2 names."""
    made: Concept | None = concept(cells, rule, reading)
    method = cells.repetition.segment.text(2).strip()
    if made and method and "coding" in made:
        for one in made["coding"]:
            one.setdefault("system", code_system(reading.feed, method))
    return made


@converter("eventCoding")
def event_coding(cells: Cells, rule: Rule, reading: Reading) -> Concept:
    """MSG[Coding], table 0003."""
    return {"system": table_system("0003"), "code": reading.trigger or "unknown"}


# ---- the rest --------------------------------------------------------------------------------------------------------


@converter("Annotation")
def annotation(cells: Cells, rule: Rule, reading: Reading) -> Concept | None:
    return {"text": cells.text()} if cells.text() else None


@converter("dose")
def dose(cells: Cells, rule: Rule, reading: Reading) -> Concept | None:
    """RXA-6 with the unit of RXA-7. 999 means that the amount is not known (CDC guide 2.5.1, RXA-6)."""
    amount = number_of(cells.text())
    if amount is None or amount == 999:
        return None
    unit = cells.repetition.segment.first(int(rule.get("unit")))
    return {"value": amount, **unit_of(Cells(unit), reading)}


def unit_of(cells: Cells, reading: Reading) -> Concept:
    """CWE[Quantity]: the unit as people read it, and its code in the system that is named, or that the feed assumes."""
    repetition = cells.repetition
    if not repetition.raw:
        return {}
    if not _memorable(cells):
        return _unit_of(cells, reading)
    memory, key = _memory(reading), (repetition.raw, cells.inside)
    made = memory.get(key)
    if made is None:
        made = memory[key] = _unit_of(cells, reading)
    return made.copy()


def _unit_of(cells: Cells, reading: Reading) -> Concept:
    sent, name = cells.text(1), cells.text(3)
    made: Concept = {}
    if words := cells.text(2) or sent:
        made["unit"] = words
    system = code_system(reading.feed, name) if name else reading.feed.unit_system
    if sent and system and CODE.fullmatch(sent):
        made["system"], made["code"] = system, sent
    return made
