"""What HL7 v2 says of segments, fields, types and tables, by version; and how a message keeps to it.

The one door to hl7apy, and only to its tables. Its parser stays outside: it is about 300 times slower than ours, its
grouping drops segments, and its findings carry values. So a message is split by `message.parse` and walked here.

Version 1.3 has no lengths of fields: lengths are not checked.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple

from hl7apy import load_library

from adapters.hl7v2.message import NULL, VERSIONS, Message, Repetition, Segment, nearest, parse
from adapters.hl7v2.vocabulary import load

USUAL = "2.5.1"
MOST_FINDINGS = 200
MOST_MOVED = 25
"""Segments out of their place that are named: what follows them is looked at anew each time."""

_OPEN_TABLES = frozenset({"0125", "0357", "0396"})
"""Senders may add codes of their own (99zzz in 0396); of value types (0125) hl7apy lacks some, CWE among them."""
_SMALL = frozenset({"a", "and", "at", "by", "for", "from", "if", "in", "of", "on", "or", "the", "to", "with"})
_CAPITALS = frozenset({"id", "ssn", "drg", "ndc", "dnr", "dea", "hcfa", "usa", "vip", "npi", "oid", "ub", "eps", "uom"})
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?|[+-]?\.[0-9]+")
_DATE = re.compile(r"[0-9]{4}([0-9]{2}([0-9]{2})?)?")
_CLOCK = re.compile(r"[0-9]{2}([0-9]{2}([0-9]{2}(\.[0-9]{1,4})?)?)?([+-][0-9]{4})?")
_MOMENT = re.compile(r"[0-9]{4}([0-9]{2}([0-9]{2}([0-9]{2}([0-9]{2}([0-9]{2}(\.[0-9]{1,4})?)?)?)?)?)?([+-][0-9]{4})?")
_FORMS = {
    "NM": (_NUMBER, "not a number"),
    "SI": (re.compile(r"[0-9]{1,4}"), "not a sequence number"),
    "DT": (_DATE, "not a date"),
    "TM": (_CLOCK, "not a time of day"),
    "DTM": (_MOMENT, "not a date and time"),
}
_CODE = re.compile(r"\S{1,20}")


class Element(NamedTuple):
    """A field of a segment, or a component of a type."""

    title: str
    datatype: str
    table: str
    """Four digits; "" for none."""
    least: int
    most: int
    """-1: any number."""

    @property
    def required(self) -> bool:
        return self.least > 0

    @property
    def withdrawn(self) -> bool:
        return self.most == 0


GONE = Element("", "", "", 0, 0)
"""Of which no version says anything."""


class Finding(NamedTuple):
    """Where a message departs from its version, in our words; never with a value."""

    place: str
    rule: str


# ---- names and tables ------------------------------------------------------------------------------------------------


@lru_cache(maxsize=16)
def _library(version: str) -> ModuleType:
    found: ModuleType = load_library(nearest(version))
    return found


@lru_cache(maxsize=1)
def _titles() -> Mapping[str, str]:
    return {name: str(title) for name, title in load("titles").items()}


def segment_title(name: str) -> str:
    """`Patient Identification`; "" for a Z-segment and one that nobody knows (appendix A, segments)."""
    return _titles().get(name, "")


@lru_cache(maxsize=4096)
def fields(segment: str, version: str = USUAL) -> tuple[Element, ...]:
    """The fields of a segment by number, from 1; none for a segment that this version (the nearest lower one) does not
    have. A field that the version withdrew (PID-4 in 2.7) is described as the last version had it: hl7apy leaves such
    fields out, or gives them the name of another."""
    found = _library(version).SEGMENTS.get(segment, ())
    made = _numbered(found[1] if len(found) == 2 and found[0] == "sequence" else (), segment)
    earlier = [fields(segment, each) for each in VERSIONS[: VERSIONS.index(nearest(version))]] if made else []
    for number in range(1, max(made, default=0) + 1):
        if number not in made or made[number].withdrawn:
            last = next((of[number - 1] for of in reversed(earlier) if len(of) >= number), made.get(number, GONE))
            made[number] = last._replace(least=0, most=0)
    return tuple(made[number] for number in sorted(made))


def field(segment: str, number: int, version: str = USUAL) -> Element | None:
    """A field by its number; None where the version has no such field."""
    of = fields(segment, version)
    return of[number - 1] if 0 < number <= len(of) else None


def field_title(segment: str, number: int, version: str = USUAL) -> str:
    """`Patient Identifier List` for PID-3; "" where the version has no such field."""
    found = field(segment, number, version)
    return found.title if found else ""


@lru_cache(maxsize=4096)
def components(datatype: str, version: str = USUAL) -> tuple[Element, ...]:
    """The components of a type by number, from 1; none for a simple one."""
    made = _numbered(_library(version).DATATYPES_STRUCTS.get(datatype, ()), "")
    return tuple(made.get(number, GONE) for number in range(1, max(made, default=0) + 1))


@lru_cache(maxsize=4096)
def codes(table: str, version: str = USUAL) -> frozenset[str]:
    """The codes of a table (`0001`); none for one that this version does not list."""
    listed = getattr(_library(version), "TABLES", {}).get(f"HL7{table}")
    return frozenset(listed[1]) if listed else frozenset()


def _numbered(rows: Any, segment: str) -> dict[int, Element]:
    """The rows say their numbers in their names (`PID_5`): some versions leave out what they withdrew."""
    made = {}
    for row, reference, (least, most), _ in rows:
        if reference is not None:
            _, _, datatype, name, table, *_ = reference
            title, listed = _title(name, segment), (table or "").removeprefix("HL7")
            made[int(row.rpartition("_")[2])] = Element(title, datatype or "", listed, least, most)
    return made


@lru_cache(maxsize=8192)
def _title(name: str, segment: str) -> str:
    words = name.lower().split("_")
    if len(words) > 1 and words[-1] == segment.lower():
        words[-1:] = ["-", segment]
    written = " ".join(
        word.upper() if word in _CAPITALS else word if word in _SMALL and at else word[:1].upper() + word[1:]
        for at, word in enumerate(words)
    )
    return written.replace("Date Time", "Date/Time").replace(" S ", "'s ")


# ---- a message against its version -----------------------------------------------------------------------------------


def conformance(
    raw: bytes, limit_seconds: float = 5.0, charset: str | None = None, *, clock: Callable[[], float] = time.monotonic
) -> tuple[Finding, ...]:
    """Where a message departs from the version that MSH-12 names (chapters 2 and 2A, and the abstract message syntax).

    Required and withdrawn fields, repetitions, codes of HL7's own tables (type ID; user tables are suggestions), forms
    of numbers and times, components and fields that the type does not have, segments that are unknown, missing or out
    of place. Z-segments are the sender's own, and left alone. Lengths are not checked. A message of 2.7 that says 2.9
    is held against 2.8.2.

    At most 200 findings, then one that says so; the same where the time is over. Twenty times slower than reading
    (2 ms for a usual message, half a second more for the first one of a version): for samples and people, not for each
    message of a feed.

    Raises: as `parse`.
    """
    message = parse(raw, charset)
    end = clock() + limit_seconds
    found: list[Finding] = []
    for finding in _findings(message):
        if finding is not None:
            found.append(finding)
        if len(found) >= MOST_FINDINGS:
            found.append(Finding("the message", f"more than {MOST_FINDINGS} findings: the rest is left out"))
            break
        if clock() > end:
            found.append(Finding("the message", "not checked to the end: the time was over"))
            break
    return tuple(found)


def _findings(message: Message) -> Iterator[Finding | None]:
    """None after each segment: a moment to look at the clock."""
    version = message.version
    yield from _arranged(message, version)
    for segment in message:
        yield None
        if segment.name[0] == "Z":
            continue
        of = fields(segment.name, version)
        if not of:
            yield Finding(str(segment.place()), f"a segment that version {version} does not have")
            continue
        yield from _segment(segment, of, version)


def _segment(segment: Segment, of: tuple[Element, ...], version: str) -> Iterator[Finding]:
    for number, element in enumerate(of, 1):
        found = segment.field(number)
        valued = [each for each in found if each.raw]
        where = str(segment.place(number))
        if element.required and not valued:
            yield Finding(where, "required, and empty")
        if element.withdrawn and valued:
            yield Finding(where, f"withdrawn in version {version}")
        elif 0 < element.most < len(valued):
            yield Finding(where, "does not repeat" if element.most == 1 else f"more than {element.most} repetitions")
        if segment.name in ("MSH", "FHS", "BHS") and number <= 2:
            continue
        kind = _type_of(segment, number, element)
        for each in valued:
            if each.raw != NULL:
                yield from _typed(each, kind, element.table, version)
    if any(segment.raw(number) for number in range(len(of) + 1, len(segment) + 1)):
        yield Finding(str(segment.place(len(of) + 1)), f"fields after the last one of version {version}")


def _type_of(segment: Segment, number: int, element: Element) -> str:
    """OBX-5 is of the type that OBX-2 names."""
    return segment.text(2) if segment.name == "OBX" and number == 5 else element.datatype


def _typed(each: Repetition, kind: str, table: str, version: str) -> Iterator[Finding]:
    parts = components(kind, version)
    if not parts:
        if kind not in ("varies", "ST", "TX", "FT", ""):
            yield from _simple(str(each.place()), each.text(), kind, table, version)
        return
    sent = each.components
    for number, (element, text) in enumerate(zip(parts, sent, strict=False), 1):
        place = str(each.place(number))
        if not text:
            if element.required:
                yield Finding(place, "required, and empty")
        elif not (inner := components(element.datatype, version)):
            yield from _simple(place, text, element.datatype, element.table, version)
        else:
            yield from _simple(place, text, inner[0].datatype, inner[0].table, version)
    if any(sent[len(parts) :]):
        yield Finding(str(each.place(len(parts) + 1)), f"components after the last one of type {kind}")


def _simple(place: str, text: str, kind: str, table: str, version: str) -> Iterator[Finding]:
    if kind in _FORMS and not _FORMS[kind][0].fullmatch(text.strip()):
        yield Finding(place, _FORMS[kind][1])
    if kind == "ID" and table and table not in _OPEN_TABLES:
        listed = codes(table, version)
        if listed and text not in listed and all(map(_CODE.fullmatch, listed)):
            yield Finding(place, f"not a code of table {table}")


# ---- the order of the segments ---------------------------------------------------------------------------------------


def structure_of(message: Message) -> str | None:
    """The abstract structure (table 0354): MSH-9.3, else by the event; None where the version has none."""
    known = _library(message.version).MESSAGES
    kind, event = message.trigger
    stated = message["MSH"].text(9, 3)
    for name in (stated, _shared(kind, event), f"{kind}_{event}", kind):
        if name in known:
            return str(name)
    return None


_ADT = {
    event: shared
    for shared, events in {
        "A01": ("A04", "A08", "A13"),
        "A05": ("A14", "A28", "A31"),
        "A06": ("A07",),
        "A09": ("A10", "A11"),
        "A21": ("A22", "A23", "A25", "A26", "A27", "A29", "A32", "A33"),
        "A30": ("A34", "A35", "A36", "A46", "A47", "A48", "A49"),
        "A39": ("A40", "A41", "A42"),
        "A43": ("A44",),
        "A50": ("A51",),
        "A52": ("A53", "A55"),
        "A61": ("A62",),
    }.items()
    for event in events
}
"""Events that share the structure of another one (table 0354)."""


def _shared(kind: str, event: str) -> str:
    if kind == "ADT":
        return f"ADT_{_ADT.get(event, event)}"
    if kind == "MDM" and event[1:].isdigit():
        return "MDM_T02" if int(event[1:]) % 2 == 0 else "MDM_T01"
    return "SIU_S12" if kind == "SIU" else ""


def _arranged(message: Message, version: str) -> Iterator[Finding]:
    name = structure_of(message)
    if name is None:
        yield Finding("MSH-9", f"no structure of version {version}: the order of the segments was not checked")
        return
    order = _Order(_library(version).MESSAGES[name])
    inside: list[Segment] = []
    outside: list[Segment] = []
    for segment in message:
        if segment.name[0] != "Z" and fields(segment.name, version):
            (inside if segment.name in order.names else outside).append(segment)
    for segment in outside:
        yield Finding(str(segment.place()), f"a segment that {name} does not have")
    for _ in range(MOST_MOVED):
        at, missing = order.match([segment.name for segment in inside])
        if at == len(inside):
            yield from (Finding(each, f"required in {name}, and missing") for each in missing)
            return
        yield Finding(str(inside[at].place()), f"not at this place in {name}")
        del inside[at]
    yield Finding("the message", "more segments out of place: the rest of the order was not checked")


class _Order:
    """One abstract structure, followed greedily: a segment belongs where it can first stand."""

    def __init__(self, structure: Any) -> None:
        self._root = structure
        self._starts: dict[int, frozenset[str]] = {}
        self.names = frozenset(self._all(structure))
        self._sent: list[str] = []
        self._missing: list[str] = []

    def _all(self, group: Any) -> Iterator[str]:
        for name, inner, _, kind in group[1]:
            if kind == "SEG":
                yield name
            else:
                yield from self._all(inner)

    def match(self, sent: list[str]) -> tuple[int, list[str]]:
        """How far the structure takes these segments, and which required ones are missing up to there."""
        self._sent, self._missing = sent, []
        return self._group(self._root, 0), self._missing

    def _group(self, group: Any, at: int) -> int:
        for child in group[1]:
            if group[0] != "choice":
                at = self._repeated(child, at)
            elif at < len(self._sent) and self._sent[at] in self._first(child):
                return self._repeated(child, at)
        return at

    def _repeated(self, child: Any, at: int) -> int:
        name, inner, (least, most), kind = child
        count = 0
        while at < len(self._sent) and (most < 0 or count < most) and self._sent[at] in self._first(child):
            at = at + 1 if kind == "SEG" else self._group(inner, at)
            count += 1
        if count < least:
            self._missing.append(name if kind == "SEG" else next(iter(self._needed(inner)), name))
        return at

    def _first(self, child: Any) -> frozenset[str]:
        """The segments that may begin it."""
        name, inner, _, kind = child
        if kind == "SEG":
            return frozenset({name})
        found = self._starts.get(id(inner))
        if found is None:
            names: set[str] = set()
            for each in inner[1]:
                names |= self._first(each)
                if inner[0] != "choice" and each[2][0] > 0:
                    break
            found = self._starts[id(inner)] = frozenset(names)
        return found

    def _needed(self, group: Any) -> Iterator[str]:
        for name, inner, (least, _), kind in group[1]:
            if least and kind == "SEG":
                yield name
            elif least:
                yield from self._needed(inner)
