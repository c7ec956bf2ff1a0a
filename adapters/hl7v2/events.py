"""Which events are mapped, and what their messages state: mapping/events.toml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from adapters.hl7v2.vocabulary import load
from models.errors import Unreadable


@dataclass(frozen=True, slots=True)
class Event:
    """One row of events.toml; its columns are explained there."""

    kind: str
    trigger: str
    what: str
    reads: frozenset[str]
    whole: bool
    status: str = ""
    otherwise: str = ""
    end: bool = True
    place: str = ""
    links: str = ""
    relates: str = ""
    void: bool = False
    claims: bool = False
    ig: str = ""
    own: str = ""


def _events() -> dict[tuple[str, str], Event]:
    found = {}
    for kind, entry in load("events").items():
        for trigger, row in entry.items():
            if isinstance(row, dict):
                reads = frozenset(row.get("reads", entry["reads"]))
                rest = {name: value for name, value in row.items() if name != "reads"}
                found[kind, trigger] = Event(kind=kind, trigger=trigger, reads=reads, whole=entry["whole"], **rest)
    return found


EVENTS: Mapping[tuple[str, str], Event] = _events()


def event_of(kind: str, trigger: str) -> Event:
    """The row of an event. Raises: Unreadable, for one that is not mapped."""
    found = EVENTS.get((kind, trigger))
    if found is None:
        raise Unreadable("an event that is not mapped", where="MSH-9")
    return found
