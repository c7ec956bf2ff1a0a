"""The facts of a patient in time, by groups that a clinician thinks in, and what of them is asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from models.errors import BadInput

GROUPS = ("diagnoses", "labs", "pathology", "imaging", "procedures", "drugs", "notes", "other")
PAGE = 150
"""Rows of one page: under 150 kB of HTML."""
MAX_TEXT = 80
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_PLACE = re.compile(r"\d{1,6}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Event:
    """One fact."""

    at: str | None
    """Clinical time, as exact as the source gave it."""
    group: str
    what: str
    value: str
    unit: str = ""
    """As people write it."""
    number: bool = False
    """Whether `value` is decimal text."""
    comparator: str = ""
    status: str | None = None
    document: str = ""
    source: str = ""
    place: str | None = None
    """File and line."""
    landing: str = ""
    part: int = 0
    pointer: str = ""
    known_from: str = ""
    test: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """A filter; empty: everything."""

    groups: frozenset[str] = frozenset()
    text: str = ""
    start: str = ""
    """First day, YYYY-MM-DD."""
    end: str = ""
    """Last day."""
    skip: int = 0

    @classmethod
    def of(cls, query: Mapping[str, list[str]]) -> Wanted:
        """From the fields of the filter form. Errors: BadInput for a date that is none."""
        groups = frozenset(query.get("group", ())) & frozenset(GROUPS)
        text = _one(query, "text")[:MAX_TEXT].strip()
        start, end, skip = (_one(query, name) for name in ("from", "to", "skip"))
        for name, day in (("from", start), ("to", end)):
            if day and not _DAY.fullmatch(day):
                raise BadInput("a day of the filter is not YYYY-MM-DD", where=name)
        return cls(groups, text, start, end, int(skip) if _PLACE.fullmatch(skip) else 0)

    def takes(self, group: str, at: str, words: str) -> bool:
        """A fact of this group, at this clinical time (empty: none), with these words."""
        if self.groups and group not in self.groups:
            return False
        day = at[:10]
        if self.start and (not day or day < self.start[: len(day)]):
            return False
        if self.end and (not day or day > self.end[: len(day)]):
            return False
        return self.text.casefold() in words.casefold()


@dataclass(frozen=True, slots=True)
class Timeline:
    """One page of what was asked for, newest first."""

    events: tuple[Event, ...]
    found: int
    """All that the filter takes."""
    counts: Mapping[str, int]
    """By group, whatever the filter."""
    withheld: int = 0


def _one(query: Mapping[str, list[str]], name: str) -> str:
    return next(iter(query.get(name, ())), "")
