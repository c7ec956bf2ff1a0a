"""Which of several codings a fact is indexed by, and which side of the body a coding names."""

from __future__ import annotations

import json
from pathlib import Path

from models.nouns import Coding

LOINC = "http://loinc.org"
SNOMED = "http://snomed.info/sct"
ICD10CM = "http://hl7.org/fhir/sid/icd-10-cm"
UNCODED = "http://terminology.hl7.org/CodeSystem/v3-NullFlavor"
"""Its code UNC: the concept was written, not coded; the display carries the words."""
ABSENT = "http://terminology.hl7.org/CodeSystem/data-absent-reason"

INDEX_ORDER: dict[str, int] = {
    LOINC: 0,
    SNOMED: 1,
    "http://ncicb.nci.nih.gov/xml/owl/EVS/Thesaurus.owl": 2,
    "http://ncithesaurus-stage.nci.nih.gov": 2,
    "http://hl7.org/fhir/sid/icd-10": 3,
    ICD10CM: 3,
    "http://www.nlm.nih.gov/research/umls/rxnorm": 4,
}
"""Code systems that the feature definitions use, most useful first; the others keep the order they came in."""

_LAST = len(INDEX_ORDER)

_sides = json.loads(Path(__file__).with_name("laterality.json").read_text("utf-8"))
_snomed: dict[str, str] = _sides[SNOMED]
_sixth: dict[str, str] = _sides["icd10cm_sixth_character_of_C50"]


def in_index_order(codings: list[Coding]) -> tuple[Coding, ...]:
    """The codings without repetitions (same system and code), the one to index by first."""
    if len(codings) == 1:
        return (codings[0],)
    first: dict[tuple[str, str], Coding] = {}
    for coding in codings:
        first.setdefault((coding.system, coding.code), coding)
    ranked = [INDEX_ORDER.get(system, _LAST) for system, _ in first]
    if ranked == sorted(ranked):  # as most senders order them
        return tuple(first.values())
    return tuple(sorted(first.values(), key=_rank))


def _rank(coding: Coding) -> int:
    return INDEX_ORDER.get(coding.system, _LAST)


def side(codings: tuple[Coding, ...]) -> str | None:
    """left, right or bilateral, where a coding says so; None where none does, or where two disagree."""
    if not codings:
        return None
    named = {found for coding in codings if (found := _side(coding))}
    return named.pop() if len(named) == 1 else None


def _side(coding: Coding) -> str | None:
    if coding.system == SNOMED:
        return _snomed.get(coding.code)
    if coding.system == ICD10CM and coding.code.startswith("C50."):
        digits = coding.code.replace(".", "")
        return _sixth.get(digits[5]) if len(digits) > 5 else None
    return None
