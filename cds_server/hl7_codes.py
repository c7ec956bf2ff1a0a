"""Which codes of a feed nobody has mapped, how often they come, and what they might be.

A result whose code is of no system that a model reads is kept, and scored by nobody. This report says which ones a map
would pay for first. A proposal is found by likeness of names among the codes that our models ask for; it is never taken
by itself: it is printed as `inexact`, which a ConceptMap reader passes over, until a person has written `equivalent`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher

from adapters.readers.hl7v2 import MESSAGE
from cds_server.store.store import Store
from cds_server.store.tables import MANY
from models import features, modalities
from models.codes import LOINC, SCT
from models.features import Definition
from models.plugins import discover

SHARED = (LOINC, SCT)
"""Systems that models read: a code of one of them needs no map."""
ENOUGH = 0.6
"""Likeness of two names, from 0 to 1, that is worth a person's look."""
MOST = 3
_WORD = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Proposal:
    system: str
    code: str
    title: str
    likeness: float


@dataclass(frozen=True, slots=True)
class Unmapped:
    source: str
    system: str
    code: str
    title: str
    """As the feed names it; empty where it does not."""
    count: int
    """Results that are open under this code."""
    proposals: tuple[Proposal, ...] = ()


def unmapped(store: Store, source: str | None = None, *, propose: bool = False) -> list[Unmapped]:
    """The codes of a feed's results (of all feeds: None) that are of no shared system, the most frequent first."""
    rows = store.reads.query(
        "SELECT l.source, r.code, COUNT(*), MAX(r.id) FROM resource r JOIN landing l ON l.id = r.landing_id "
        "LEFT JOIN resource_closing c ON c.resource_id = r.id "
        "WHERE l.media_type = ? AND r.type = 'Observation' AND r.code IS NOT NULL AND c.id IS NULL "
        "AND (? = '' OR l.source = ?) GROUP BY l.source, r.code ORDER BY COUNT(*) DESC, r.code",
        (MESSAGE, source or "", source or ""),
    )
    asked = list(_asked()) if propose else []
    found = []
    for of, token, count, newest in rows:
        system, _, code = token.partition("|")
        if token == MANY or system in SHARED:
            continue
        title = _title(store, newest, token)
        found.append(Unmapped(of, system, code, title, int(count), tuple(_proposals(title, asked))))
    return found


def _title(store: Store, resource_id: int, token: str) -> str:
    """What the feed calls a code, by one of its results."""
    row = store.reads.one(
        "SELECT p.ref, r.facts FROM resource r JOIN patient_record p ON p.id = r.record_id WHERE r.id = ?",
        (resource_id,),
    )
    facts = store.vault.open_facts(row[0], row[1]) if row and row[1] else []
    return next((fact.code.display or "" for fact in facts if fact.code.token == token), "")


def _asked() -> Iterator[tuple[str, str, str]]:
    """(system, code, name) of what our models ask for."""
    definitions: list[Definition] = [*features.PREDICT_BREAST]
    for module in discover(modalities, "NAME").values():
        definitions += [each for each in getattr(module, "DEFINITIONS", ()) if isinstance(each, Definition)]
    for definition in definitions:
        for system, code in sorted(definition.codes.codes):
            if system in SHARED:
                yield system, code, definition.title
                if definition.codes.name.lower() != definition.title.lower():
                    yield system, code, definition.codes.name


def _proposals(title: str, asked: list[tuple[str, str, str]]) -> Iterator[Proposal]:
    best: dict[tuple[str, str], Proposal] = {}
    for system, code, name in asked:
        likeness = _likeness(title, name)
        known = best.get((system, code))
        if likeness >= ENOUGH and (known is None or likeness > known.likeness):
            best[system, code] = Proposal(system, code, name, likeness)
    yield from sorted(best.values(), key=lambda each: (-each.likeness, each.system, each.code))[:MOST]


def _likeness(one: str, other: str) -> float:
    """Of two names: their letters in order, or the words that they share, whichever says more."""
    mine, theirs = _WORD.findall(one.lower()), _WORD.findall(other.lower())
    if not mine or not theirs:
        return 0.0
    shared = len(set(mine) & set(theirs)) / max(len(set(mine)), len(set(theirs)))
    return max(shared, SequenceMatcher(None, " ".join(mine), " ".join(theirs)).ratio())
