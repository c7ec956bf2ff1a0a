"""What would have been said at a time, beside what was said and is said now: nouns, and the port that gives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from smart_app.banners import Banner
from smart_app.desk import Case

SAID, THEN, NOW = "said", "then", "now"
CAUSES = (
    "late", "corrected", "withdrawn", "new", "joined", "parted", "chosen", "left", "model", "context", "time",
)  # fmt: skip
"""Why an input is not what it was; `then.cause.…` says each in words."""


@dataclass(frozen=True, slots=True)
class Stand:
    """One of the three."""

    which: str
    at: str
    """What was known at this instant."""
    model: str
    said: str
    """The card in a line, or why there is none."""
    inference: str | None = None
    seq: int | None = None
    done: tuple[tuple[str, str], ...] = ()
    """(outcome, instant) of what people did with its cards."""


@dataclass(frozen=True, slots=True)
class Behind:
    """One fact behind a difference."""

    cause: str
    what: str
    value: str
    effective: str | None
    known_from: str
    source: str
    place: str
    """Landing, part and pointer."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One input that is not what it was. Its values are None where one of its facts is withheld from this viewer."""

    title: str
    model: str
    before: str | None
    after: str | None
    causes: tuple[str, ...]
    facts: tuple[Behind, ...]


@dataclass(frozen=True, slots=True)
class ThenView:
    banner: Banner
    service: str | None = None
    """Title; None: no service ever spoke about this patient."""
    at: str | None = None
    stands: tuple[Stand, ...] = ()
    until_then: tuple[Difference, ...] = ()
    since_then: tuple[Difference, ...] = ()
    notes: tuple[str, ...] = ()
    withheld: int = 0


class ThenDesk(Protocol):
    async def then(self, case: Case, at: str | None) -> ThenView:
        """At an instant (UTC text); None: when something was last said. Writes the access entry first.

        Errors: NotAllowed, NotFound, ModelFault, RecordUnavailable and its kinds.
        """
        ...
