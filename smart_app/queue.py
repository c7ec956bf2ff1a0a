"""The port of the work queue: what somebody must look at, and who handles it. Its nouns name no patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from smart_app.desk import Viewer

KINDS = ("quarantine", "unmatched", "dead-letter", "recall", "flag")
"""`recall`: a shown card whose facts were corrected; `flag`: everything else that a person must look at."""
NOBODY, MINE = "nobody", "mine"
AGES = {"": 0, "1": 1, "7": 7, "30": 30}
"""Choices of the filter by age: days."""
RESOLUTION = (3, 500)
"""Characters of what was done, at least and at most."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Which of what waits."""

    kind: str = ""
    reason: str = ""
    handled: str = ""
    """`NOBODY`, `MINE`, or empty for all."""
    days: int = 0
    """Only what waits for longer."""
    after: int = 0
    """Behind this id: the next page."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """One thing that waits."""

    id: int
    kind: str
    reason: str
    since: str
    seconds: int
    """How long it waits."""
    where: str
    """Landing, part and place; empty where it is about none."""
    what: str
    """In our words, without any value from outside."""
    handler: str = ""
    """Who handles it; empty: nobody."""
    mine: bool = False
    claim: str = ""
    """Names the last word on who handles it: a form that was made before another one spoke is refused."""
    may: bool = False
    """Whether this viewer may handle it."""
    again: bool = False
    """Whether reading or sending it again may help."""


@dataclass(frozen=True, slots=True)
class Count:
    """How many of a kind wait, and since when the oldest."""

    kind: str
    number: int
    seconds: int = 0


@dataclass(frozen=True, slots=True)
class Shown:
    counts: Sequence[Count]
    reasons: Sequence[str]
    """Of what waits, for the filter."""
    items: Sequence[Waiting]
    next: int = 0
    """Behind which id there is more; 0: there is none."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that was done with one thing."""

    verb: str
    who: str
    at: str
    words: str = ""


@dataclass(frozen=True, slots=True)
class Detail:
    item: Waiting
    facts: Mapping[str, str] = field(default_factory=dict)
    """Source, namespace, media type, service, model: label -> words without a patient."""
    history: Sequence[Event] = ()
    people: Sequence[tuple[str, str]] = ()
    """To whom it can be given: (what names them in a form, name)."""
    closed: bool = False


class Queue(Protocol):
    """What the pages ask. Each look and each verb is on record before it returns.

    Errors of all: NotAllowed (the role does not include it), NotFound (no such thing waits), RecordUnavailable. Of the
    verbs also Conflict: somebody else was first; nothing was done.
    """

    async def waiting(self, viewer: Viewer, asked: Asked) -> Shown:
        """What waits, oldest first, a page of it."""

    async def one(self, viewer: Viewer, flag: int) -> Detail:
        """One thing, with its history."""

    async def claim(self, viewer: Viewer, flag: int, claim: str) -> None:
        """Take it, also from somebody else; `claim`: as the page showed it."""

    async def give(self, viewer: Viewer, flag: int, claim: str, to: str) -> None:
        """Give it to one of `people`. Errors: NotFound, where they are not signed in any more."""

    async def release(self, viewer: Viewer, flag: int, claim: str) -> None:
        """Lay it down."""

    async def again(self, viewer: Viewer, flag: int) -> str:
        """Read or send it again; says what came of it. Resolving follows by itself where it helped."""

    async def resolve(self, viewer: Viewer, flag: int, words: str) -> None:
        """It is done; `words`: what was done. Errors: BadInput (no words, or too many)."""
