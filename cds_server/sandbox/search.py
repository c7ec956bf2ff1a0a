"""FHIR R4 search over resources in memory: tokens, references, dates and strings, their modifiers, and sorting.

What is here is what R4's search page says of these four types (3.1.1.4 and 3.1.1.5); a parameter that is not in the
table is left aside (and told), a modifier that is not known refuses the search, as the page asks.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from models.errors import Unreadable
from models.nouns import JSON

Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One search parameter: its type in FHIR's words, and where its values stand."""

    kind: str
    paths: tuple[str, ...]


def _p(kind: str, *paths: str) -> Parameter:
    return Parameter(kind, paths)


_ID = {"_id": _p("token", "id"), "identifier": _p("token", "identifier")}
_SUBJECT = {"patient": _p("reference", "subject"), "subject": _p("reference", "subject")}
_PATIENT = {"patient": _p("reference", "patient")}
_CODED = {"code": _p("token", "code"), "status": _p("token", "status")}
_MEDICATION = {"code": _p("token", "medicationCodeableConcept"), "status": _p("token", "status")}
_NAMED = {
    "name": _p("string", "name.text", "name.family", "name.given", "name.prefix"),
    "family": _p("string", "name.family"),
    "given": _p("string", "name.given"),
}

PARAMETERS: Mapping[str, Mapping[str, Parameter]] = {
    "Patient": {**_ID, **_NAMED, "birthdate": _p("date", "birthDate"), "gender": _p("token", "gender")},
    "Practitioner": {**_ID, **_NAMED},
    "Organization": {**_ID, "name": _p("string", "name")},
    "Encounter": {**_ID, **_SUBJECT, "status": _p("token", "status"), "class": _p("token", "class")},
    "Observation": {
        **_ID,
        **_SUBJECT,
        **_CODED,
        "category": _p("token", "category"),
        "combo-code": _p("token", "code", "component.code"),
        "date": _p("date", "effectiveDateTime", "effectivePeriod", "effectiveInstant"),
        "focus": _p("reference", "focus"),
        "specimen": _p("reference", "specimen"),
    },
    "Condition": {
        **_ID,
        **_SUBJECT,
        "code": _p("token", "code"),
        "category": _p("token", "category"),
        "clinical-status": _p("token", "clinicalStatus"),
        "verification-status": _p("token", "verificationStatus"),
        "onset-date": _p("date", "onsetDateTime", "onsetPeriod"),
        "recorded-date": _p("date", "recordedDate"),
        "body-site": _p("token", "bodySite"),
    },
    "Procedure": {
        **_ID,
        **_SUBJECT,
        **_CODED,
        "category": _p("token", "category"),
        "date": _p("date", "performedDateTime", "performedPeriod"),
        "reason-reference": _p("reference", "reasonReference"),
    },
    "MedicationRequest": {
        **_ID,
        **_SUBJECT,
        **_MEDICATION,
        "intent": _p("token", "intent"),
        "category": _p("token", "category"),
        "authoredon": _p("date", "authoredOn"),
    },
    "MedicationAdministration": {
        **_ID,
        **_SUBJECT,
        **_MEDICATION,
        "effective-time": _p("date", "effectiveDateTime", "effectivePeriod"),
    },
    "DiagnosticReport": {
        **_ID,
        **_SUBJECT,
        **_CODED,
        "category": _p("token", "category"),
        "date": _p("date", "effectiveDateTime", "effectivePeriod"),
        "result": _p("reference", "result"),
    },
    "Specimen": {**_ID, **_SUBJECT, "type": _p("token", "type")},
    "FamilyMemberHistory": {**_ID, **_PATIENT, "relationship": _p("token", "relationship")},
    "BodyStructure": {**_ID, **_PATIENT, "location": _p("token", "location")},
}
"""Resource type -> its parameters. A type that is not here is not served."""


# ---- matching --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Test:
    """One parameter of a search: any of its values must be met."""

    parameter: Parameter
    modifier: str
    wanted: tuple[str, ...]

    def meets(self, resource: JSON) -> bool:
        held = [each for path in self.parameter.paths for each in _values(resource, path.split("."))]
        if self.modifier == "missing":
            return (not held) == (self.wanted == ("true",))
        check = _CHECKS[self.parameter.kind]
        met = any(check(value, want, self.modifier) for value in held for want in self.wanted)
        return not met if self.modifier == "not" else met


def read_query(kind: str, pairs: Pairs) -> tuple[list[Test], list[str]]:
    """The tests of a search, and the names that nobody here knows. Errors: Unreadable (a modifier, a date)."""
    tests, unknown = [], []
    for name, value in pairs:
        bare, _, modifier = name.partition(":")
        parameter = PARAMETERS[kind].get(bare)
        if parameter is None:
            unknown.append(bare)
            continue
        if modifier and modifier not in _MODIFIERS[parameter.kind]:
            raise Unreadable("a search modifier that this server does not know", where=bare)
        wanted = tuple(re.sub(r"\\([,$|\\])", r"\1", each) for each in re.split(r"(?<!\\),", value) if each)
        if parameter.kind == "date":
            for each in wanted if modifier != "missing" else ():
                _range(each[2:] if each[:2].isalpha() else each, bare)
        if wanted:
            tests.append(Test(parameter, modifier, wanted))
    return tests, unknown


def ordered(kind: str, found: Iterable[dict[str, Any]], sort: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Sorted by the names of `_sort`, the last one first; what has no value comes last. And the names nobody knows."""
    result, unknown = list(found), []
    for key in reversed([each for each in sort.split(",") if each]):
        parameter = PARAMETERS[kind].get(key.removeprefix("-"))
        if parameter is None:
            unknown.append(key.removeprefix("-"))
            continue
        backwards = key.startswith("-")
        held = [(_sort_key(each, parameter, backwards), each) for each in result]
        there = sorted((pair for pair in held if pair[0]), key=lambda pair: pair[0], reverse=backwards)
        result = [each for _, each in there] + [each for text, each in held if not text]
    return result, unknown


def _sort_key(resource: JSON, parameter: Parameter, last: bool) -> str:
    texts = []
    for path in parameter.paths:
        for value in _values(resource, path.split(".")):
            if isinstance(value, dict):
                value = value.get("text") or value.get("start") or _first_code(value)
            texts.append(str(value or ""))
    return (max if last else min)(texts, default="")


def _first_code(concept: JSON) -> str:
    return str((concept.get("coding") or [{}])[0].get("code", concept.get("value", "")))


def _values(held: Any, path: list[str]) -> Iterator[Any]:
    if isinstance(held, list):
        for each in held:
            yield from _values(each, path)
    elif not path:
        yield held
    elif isinstance(held, dict) and path[0] in held:
        yield from _values(held[path[0]], path[1:])


# ---- one value against one wish --------------------------------------------------------------------------------------


def _token(value: Any, want: str, modifier: str) -> bool:
    system, bar, code = want.rpartition("|")
    if modifier == "text":
        return isinstance(value, dict) and want.casefold() in str(value.get("text", "")).casefold()
    return any(
        (code in ("", its) if bar and system else code == its) and (not bar or system == (at or ""))
        for at, its in _tokens(value)
    )


def _tokens(value: Any) -> Iterator[tuple[str | None, str]]:
    """(system, code) of a code, a Coding, a CodeableConcept, an Identifier or a boolean."""
    if isinstance(value, bool):
        yield None, str(value).lower()
    elif isinstance(value, str):
        yield None, value
    elif isinstance(value, dict):
        for coding in value.get("coding", ()):
            yield coding.get("system"), str(coding.get("code", ""))
        for name in ("code", "value"):
            if isinstance(value.get(name), str):
                yield value.get("system"), value[name]


def _reference(value: Any, want: str, modifier: str) -> bool:
    """By `Type/id`, by the bare id, or by an absolute URL that ends so."""
    held = str(value.get("reference", "")) if isinstance(value, dict) else ""
    ends = "/".join(want.rsplit("/", 2)[-2:])
    if modifier and modifier != "missing":
        ends = f"{modifier}/{want}"
    return held == ends if "/" in ends else held.rpartition("/")[2] == ends


def _string(value: Any, want: str, modifier: str) -> bool:
    held, wish = str(value), want
    if modifier == "exact":
        return held == wish
    held, wish = held.casefold(), wish.casefold()
    return wish in held if modifier == "contains" else held.startswith(wish)


def _date(value: Any, want: str, _: str) -> bool:
    """R4, 3.1.1.5.6: the ranges that both stand for, compared by the prefix."""
    prefix, text = (want[:2], want[2:]) if want[:2].isalpha() else ("eq", want)
    low, high = _range(text, "date")
    try:
        if isinstance(value, dict):
            begins = _range(value["start"], "")[0] if "start" in value else datetime.min.replace(tzinfo=UTC)
            ends = _range(value["end"], "")[1] if "end" in value else datetime.max.replace(tzinfo=UTC)
        else:
            begins, ends = _range(str(value), "")
    except Unreadable:
        return False
    return _COMPARE[prefix](begins, ends, low, high) if prefix in _COMPARE else False


_COMPARE: Mapping[str, Callable[[datetime, datetime, datetime, datetime], bool]] = {
    "eq": lambda begins, ends, low, high: low <= begins and ends <= high,
    "ne": lambda begins, ends, low, high: not (low <= begins and ends <= high),
    "gt": lambda begins, ends, low, high: ends > high,
    "ge": lambda begins, ends, low, high: ends > high or (low <= begins and ends <= high),
    "lt": lambda begins, ends, low, high: begins < low,
    "le": lambda begins, ends, low, high: begins < low or (low <= begins and ends <= high),
    "sa": lambda begins, ends, low, high: begins >= high,
    "eb": lambda begins, ends, low, high: ends <= low,
}

_DATE = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d:\d\d)(?::(\d\d)(\.\d+)?)?(Z|[+-]\d\d:\d\d)?)?)?)?")


def _range(text: str, where: str) -> tuple[datetime, datetime]:
    """The half-open range that a FHIR date stands for, by its precision. Without a zone: UTC."""
    parts = _DATE.fullmatch(text)
    try:
        if parts is None:
            raise ValueError
        year, month, day, clock, seconds, fraction, zone = parts.groups()
        if clock is None:
            low = datetime(int(year), int(month or 1), int(day or 1), tzinfo=UTC)
            if month is None:
                return low, low.replace(year=low.year + 1)
            return low, low + timedelta(days=1 if day else monthrange(low.year, low.month)[1])
        zone = (zone or "+00:00").replace("Z", "+00:00")
        low = datetime.fromisoformat(f"{year}-{month}-{day}T{clock}:{seconds or '00'}{(fraction or '')[:7]}{zone}")
        return low, low + timedelta(microseconds=1 if fraction else 1_000_000 if seconds else 60_000_000)
    except (ValueError, OverflowError):
        raise Unreadable("a search date that is none", where=where) from None


_CHECKS = {"token": _token, "reference": _reference, "string": _string, "date": _date}
_MODIFIERS: Mapping[str, frozenset[str]] = {
    "token": frozenset({"not", "text", "missing"}),
    "reference": frozenset({*PARAMETERS, "missing"}),
    "string": frozenset({"exact", "contains", "missing"}),
    "date": frozenset({"missing"}),
}
