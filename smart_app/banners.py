"""Who a page is about: the same lines on every page that shows anything of a patient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from smart_app.desk import Case


@dataclass(frozen=True, slots=True)
class Identifier:
    label: str
    """What kind: `MRN`, or the system where the source does not say."""
    value: str


@dataclass(frozen=True, slots=True)
class Banner:
    """From the stored Patient resource of the case's record; what it does not say is None and shown as not known."""

    name: str | None = None
    born: str | None = None
    """With the source's precision."""
    age: str | None = None
    """In words, today or at death."""
    died: str | None = None
    sex: str | None = None
    """Administrative gender, as the record has it."""
    identifiers: tuple[Identifier, ...] = ()
    test: bool = False
    """Marked as test data."""


class Banners(Protocol):
    """The port behind it."""

    async def banner(self, case: Case) -> Banner:
        """Who the case's record is about. Without a Patient resource: an empty banner, never another's."""
        ...
