"""Notes modality: statements that were taken from free text, each with the characters it was read from.

No language is processed here. Whoever reads a note writes facts whose provenance names a span of characters (RFC 5147:
`char=120,140`, after the pointer of the attachment). Such a fact is `preliminary` until a person confirmed it, and only
a confirmed one is a value here: "cannot exclude metastasis" has been read as its contrary by good software. Facts from
elsewhere (laboratory, pathology report, registry) are other modalities' business and are passed over.

Not fused into the validated risk. No model is shipped; a site may enrol one that reads these columns.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from models import codes
from models.current import Chart, Reading
from models.features import ER, GRADE, HER2, KI67, NODES, PR, SIZE, UNFINISHED, USABLE, Definition
from models.nouns import JSON, Fact, FeatureVector, Snapshot

NAME = "notes"

DEFINITIONS: tuple[Definition, ...] = tuple(
    replace(definition, of_tumour=False, window_days=None) for definition in (SIZE, NODES, GRADE, ER, PR, HER2, KI67)
)
_SPAN = re.compile(r"(?:^|#)char=(\d{1,9}),(\d{1,9})$")
_READING = Reading.of(NAME, __file__, DEFINITIONS, (codes.BREAST_CANCER,))
ENCODER = _READING.encoder


@dataclass(frozen=True, slots=True)
class Statement:
    """One fact that was read from free text."""

    fact: Fact
    start: int
    """First character, from 0."""
    end: int
    """After the last character."""

    @property
    def confirmed(self) -> bool:
        return self.fact.status in USABLE

    @property
    def place(self) -> str:
        return f"characters {self.start} to {self.end} of {self.fact.source.resource}"


def statements(facts: Sequence[Fact]) -> tuple[Statement, ...]:
    """The facts whose provenance names a span of characters; an empty or reversed span names nothing."""
    found = []
    for fact in facts:
        match = _SPAN.search(fact.source.pointer)
        if match and int(match[1]) < int(match[2]):
            found.append(Statement(fact, int(match[1]), int(match[2])))
    return tuple(found)


def facts_wanted(manifest: JSON) -> frozenset[str]:
    """Code tokens that a snapshot for this modality asks for."""
    return _READING.wanted


def encode(snapshot: Snapshot, manifest: JSON) -> FeatureVector:
    """The manifest's columns from confirmed statements; those that nobody confirmed are told, never used."""
    told = statements(snapshot.facts)
    confirmed = tuple(each.fact for each in told if each.confirmed)
    waiting = tuple(_waiting(each) for each in told if each.fact.status in UNFINISHED)
    if not confirmed:
        why = "no statement from a note is recorded"
        if waiting:
            why = f"{len(waiting)} statements were taken from notes, and no person confirmed one"
        return FeatureVector(NAME, ENCODER, (), why, waiting)
    chart: Chart = _READING.chart(snapshot.but(facts=confirmed))
    outside = None if chart.diagnoses(codes.BREAST_CANCER) or _condition(snapshot) else "no breast cancer is recorded"
    places = {each.fact.id: each.place for each in told}
    found = {}
    for definition in DEFINITIONS:
        feature = chart.value(definition)
        where = "; ".join(places[fact] for fact in feature.facts)
        note = "; ".join(text for text in (feature.note, where) if text)
        found[definition.name] = feature.but(note=note or None)
    return _READING.vector(found, manifest, snapshot.context, outside, waiting)


def _condition(snapshot: Snapshot) -> bool:
    """The diagnosis may come from anywhere: it decides whether to speak, not what is said."""
    return bool(_READING.chart(snapshot).diagnoses(codes.BREAST_CANCER))


def _waiting(statement: Statement) -> str:
    titles = [d.title for d in DEFINITIONS if {(c.system, c.code) for c in statement.fact.codings} & d.codes.codes]
    what = titles[0] if titles else "a statement"
    return f"{what}: stated in {statement.place}, not confirmed by a person, not used"
