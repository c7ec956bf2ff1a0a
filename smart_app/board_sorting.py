"""Which fact stands where on the screen of a case, by code lists; in what words. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models import codes
from models.modalities import expression, mutation
from models.nouns import Coding, Fact
from smart_app.board_summary import SECTIONS, Line, Section

MOST_LINES = 7
_MORE_LINES = {"stage": 12, "receptors": 12}
"""Where each line is one answer, and half a set would mislead."""
_GONE = frozenset({"entered-in-error", "cancelled", "not-done", "do-not-perform", "draft"})
_REFUTED = ("refuted/", "entered-in-error/")
_UNSURE = frozenset({"preliminary", "registered"})


@dataclass(frozen=True, slots=True)
class _Item:
    """A question that a section asks, in the order of the screen."""

    section: str
    label: str
    tokens: frozenset[str]


def _loinc(*found: str) -> frozenset[str]:
    return frozenset(f"{codes.LOINC}|{code}" for code in found)


def _sct(*found: str) -> frozenset[str]:
    return frozenset(f"{codes.SCT}|{code}" for code in found)


_ITEMS = (
    _Item("stage", "Stage, path.", _sct("399588009") | _loinc("21902-2")),
    _Item("stage", "Stage, clin.", _sct("399537006") | _loinc("21908-9")),
    _Item("stage", "Stage at diagnosis", frozenset({"http://hl7.org/fhir/Condition|stage"})),
    _Item("stage", "pT", codes.PT.tokens),
    _Item("stage", "pN", codes.PN.tokens),
    _Item("stage", "cT", _sct("399504009") | _loinc("21905-5")),
    _Item("stage", "cN", _sct("399534004") | _loinc("21906-3")),
    _Item("stage", "M", codes.M.tokens),
    _Item("stage", "Size", codes.SIZE.tokens),
    _Item("stage", "Positive nodes", codes.NODES.tokens),
    _Item("stage", "Positive sentinel nodes", codes.SENTINEL_NODES.tokens),
    _Item("stage", "Grade", codes.GRADE.tokens),
    _Item("receptors", "ER", codes.ER.tokens),
    _Item("receptors", "PR", codes.PR.tokens),
    _Item("receptors", "HER2 by FISH", _loinc("85318-4", "31150-6")),
    _Item("receptors", "HER2", codes.HER2.tokens - _loinc("85318-4", "31150-6")),
    _Item("receptors", "Ki-67", codes.KI67.tokens),
    _Item("genomics", "Subtype", expression.SUBTYPE.codes.tokens),
    _Item("genomics", "Microsatellites", _loinc("81695-9")),
    _Item("genomics", "Mutational burden", _loinc("94076-7")),
    _Item("fitness", "ECOG", _loinc("89247-1")),
    _Item("fitness", "Karnofsky", _loinc("89243-0")),
    _Item("fitness", "Disease status", _loinc("97509-4")),
)
_OF = {token: item for item in _ITEMS for token in item.tokens}
_VARIANT = mutation.VARIANT.tokens | _loinc("69548-6", "81252-9", "48018-6", "81290-9", "48002-0", "48004-6", "48005-3")
_REGION = mutation.REGION.tokens | _loinc("53041-0")
_GENE = _loinc("48018-6")
_NAMES_VARIANT = ("81252-9", "48004-6", "48005-3", "81290-9")
"""LOINC, the most telling name of a variant first: as listed, c., p., g."""
_SPELLED = re.compile(r"[\w.]+\((\w+)\):(.+)")
"""HGVS with its reference sequence, `NM_024675.3(PALB2):c.3549C>A (p.Tyr1183Ter)`: gene, and the change."""
VARIANT, STUDIED = "Variant", "Genes studied"
_PANELS = "http://www.ncbi.nlm.nih.gov/gtr"
_MENTIONED = {
    "MedicationRequest": "ordered",
    "MedicationAdministration": "given",
    "MedicationDispense": "dispensed",
    "MedicationStatement": "stated",
}
_RADIOMICS = "urn:cds-server:ibsi"
_REGION_OF_INTEREST = "urn:cds-server:imaging|region-features"
_PICTURED = re.compile(r"mammogra|tomograph|ultraso|resonance|radiograph|x-ray|scan|scintigra|imaging", re.IGNORECASE)
_TAKEN = re.compile(r"biops|aspirat|excision|guid|surg|placement|insertion", re.IGNORECASE)
"""A procedure of which the display says so is put beside imaging; that sorts the screen and decides nothing."""
_NEOPLASM = re.compile(r"(?:C\d\d|D[0-4]\d)(?:\..*)?")
_ICD = frozenset({codes.ICD10, codes.ICD10CM})
_CANCERS = codes.BREAST_CANCER.codes | codes.IN_SITU.codes | codes.METASTASIS.codes
CODES = frozenset(_OF) | _VARIANT | _REGION | {_REGION_OF_INTEREST}
"""Of observations, those that some section asks for."""


def sorted_facts(facts: Iterable[Fact]) -> tuple[Mapping[str, Section], tuple[str, ...]]:
    """The sections of a screen, and the sides of the body that tumours are on."""
    told = [fact for fact in facts if not _gone(fact)]
    tumours = _tumours(told)
    sides = tuple(sorted({side for side in tumours.values() if side in ("left", "right")}))
    both = len(sides) > 1

    def side_of(fact: Fact) -> str | None:
        if not both:
            return None
        return fact.laterality or next((tumours[each] for each in fact.focus if each in tumours), None)

    lines: dict[str, list[Line]] = {key: [] for key in SECTIONS}
    lines["diagnosis"] = _named([fact for fact in told if _is_tumour(fact, tumours)], _histology, side_of)
    asked: dict[tuple[_Item, str | None], list[Fact]] = {}
    for fact in told:
        item = _OF.get(fact.code.token)
        if item is not None and value_of(fact):
            asked.setdefault((item, side_of(fact)), []).append(fact)
    order = {item: n for n, item in enumerate(_ITEMS)}
    for (item, side), found in sorted(asked.items(), key=lambda each: (order[each[0][0]], each[0][1] or "")):
        lines[item.section] += _answers(item.label, found, side)
    lines["genomics"] += _variants(told)
    lines["imaging"] += _imaging(told)
    lines["treatment"] += _treatment(told, side_of)
    lines["fitness"] += _together("Allergies", [fact for fact in told if fact.kind == "allergy"])
    others = [fact for fact in told if fact.kind == "condition" and not _is_tumour(fact, tumours)]
    lines["fitness"] += _together("Other conditions", [fact for fact in others if _is_active(fact)])
    return {key: _section(key, found) for key, found in lines.items()}, sides


def _section(key: str, lines: Sequence[Line]) -> Section:
    most = _MORE_LINES.get(key, MOST_LINES)
    return Section(key, tuple(lines[:most]), max(0, len(lines) - most))


def _gone(fact: Fact) -> bool:
    status = fact.status or ""
    return status in _GONE or status.startswith(_REFUTED)


def _tumours(facts: Sequence[Fact]) -> dict[str, str | None]:
    """`Type/id` of each condition that is a tumour -> its side.

    By our code lists or ICD-10 C00 to D49; else by a histology, or because a stage or a marker of a tumour is about it.
    """
    about = {each for fact in facts if fact.code.token in _OF for each in fact.focus}
    staged = {fact.source.resource for fact in facts if fact.kind == "condition-stage"}
    found: dict[str, str | None] = {}
    for fact in facts:
        if fact.kind == "condition":
            listed = any((each.system, each.code) in _CANCERS or _icd_neoplasm(each) for each in fact.codings)
            if listed or fact.coded or fact.source.resource in about | staged:
                found[fact.source.resource] = fact.laterality
    return found


def _icd_neoplasm(coding: Coding) -> bool:
    return coding.system in _ICD and bool(_NEOPLASM.fullmatch(coding.code))


def _is_tumour(fact: Fact, tumours: Mapping[str, str | None]) -> bool:
    return fact.kind == "condition" and fact.source.resource in tumours


# ---- lines -----------------------------------------------------------------------------------------------------------


def _line(fact: Fact, label: str, value: str, **more: Any) -> Line:
    return Line(
        label,
        value,
        fact.effective,
        fact.source.resource,
        fact.source.landing,
        unsure=fact.status in _UNSURE,
        **more,
    )


def _newest(facts: Iterable[Fact]) -> list[Fact]:
    return sorted(facts, key=lambda fact: (fact.effective or "", fact.id), reverse=True)


def _named(
    facts: Sequence[Fact], told: Callable[[Fact], tuple[str, str]], side_of: Callable[[Fact], str | None]
) -> list[Line]:
    """One line for each thing that is said of one side, the newest of those that say the same."""
    lines: dict[tuple[str, str, str | None], Line] = {}
    for fact in _newest(facts):
        (label, value), side = told(fact), side_of(fact)
        lines.setdefault((label, value, side), _line(fact, label, value, side=side))
    return list(lines.values())


def _together(label: str, facts: Sequence[Fact]) -> list[Line]:
    """All of them on one line, without a date."""
    named = dict.fromkeys(name(fact) for fact in _newest(facts))
    return [Line(label, "; ".join(named))] if named else []


def _is_active(fact: Fact) -> bool:
    """A condition that is not said to be over."""
    return (fact.status or "").rpartition("/")[2] not in ("inactive", "remission", "resolved")


def _histology(fact: Fact) -> tuple[str, str]:
    state = (fact.status or "").partition("/")[2]
    told = [name(fact), *(clean(each) for each in fact.coded[:1])]
    if state and state != "active":
        told.append(state)
    return "Diagnosis", "; ".join(told)


def _answers(label: str, facts: Sequence[Fact], side: str | None) -> list[Line]:
    """The newest answer to a question; all of its day, where they differ."""
    newest = _newest(facts)
    day = (newest[0].effective or "")[:10]
    same = [fact for fact in newest if (fact.effective or "")[:10] == day]
    values = {value_of(fact): fact for fact in reversed(same)}
    older = len({(value_of(fact), (fact.effective or "")[:10]) for fact in newest[len(same) :]})
    return [
        _line(fact, label, value, side=side, differs=len(values) > 1, earlier=older) for value, fact in values.items()
    ]


def _variants(facts: Sequence[Fact]) -> list[Line]:
    """Each variant and each region that was studied, on a line of its own; panels with a score of theirs."""
    by_resource: dict[str, list[Fact]] = {}
    for fact in facts:
        if fact.kind == "observation" and fact.code.token in _VARIANT | _REGION:
            by_resource.setdefault(fact.source.resource, []).append(fact)
    lines: list[Line] = []
    variants: set[Line] = set()
    for found in by_resource.values():
        genes = [clean(each) for fact in found if fact.code.token in _GENE for each in fact.coded]
        head = found[0]
        if any(fact.code.token in _REGION for fact in found):
            lines.append(_line(head, STUDIED, ", ".join(dict.fromkeys(genes)) or "not listed"))
            continue
        by_code = {fact.code.code: fact for fact in found}
        named = next((value_of(by_code[code]) for code in _NAMES_VARIANT if code in by_code), "")
        gene = ", ".join(dict.fromkeys(genes))
        if spelled := _SPELLED.fullmatch(named):
            gene, named = spelled[1], spelled[2]
        assessed = value_of(by_code["69548-6"]) if "69548-6" in by_code else ""
        source = value_of(by_code["48002-0"]) if "48002-0" in by_code else ""
        extra = [part for part in (assessed.lower() if assessed != "Present" else "", source.lower()) if part]
        lines.append(_line(head, gene or VARIANT, ", ".join([named or "variant", *extra])))
        variants.add(lines[-1])
    lines += [
        _line(fact, name(fact), value_of(fact))
        for fact in _newest(facts)
        if fact.code.system == _PANELS and value_of(fact) and fact.code.token not in _OF
    ]
    return sorted(lines, key=lambda line: (line not in variants, line.label == STUDIED))


def _imaging(facts: Sequence[Fact]) -> list[Line]:
    pictured = [fact for fact in facts if fact.kind == "imaging-study" or _is_pictured(fact)]
    lines = [_line(fact, "Study", _with_reason(fact)) for fact in _newest(pictured)]
    measured: dict[str, list[Fact]] = {}
    for fact in facts:
        if fact.code.system == _RADIOMICS:
            measured.setdefault(fact.source.resource, []).append(fact)
    for found in measured.values():
        volume = next((value_of(fact) for fact in found if fact.code.code == "RNU0"), "")
        told = f"{len(found)} measures of a segmented region" + (f", {volume}" if volume else "")
        lines.append(_line(found[0], "Measured", told))
    return list({(line.label, line.value, line.date): line for line in lines}.values())


def _is_pictured(fact: Fact) -> bool:
    told = fact.code.display or ""
    return fact.kind == "procedure" and bool(_PICTURED.search(told)) and not _TAKEN.search(told)


def _with_reason(fact: Fact) -> str:
    reasons = [clean(each) for each in fact.coded if "procedure intent" not in (each.display or "")]
    return f"{name(fact)}: {', '.join(reasons)}" if reasons else name(fact)


def _treatment(facts: Sequence[Fact], side_of: Callable[[Fact], str | None]) -> list[Line]:
    done = [fact for fact in facts if fact.kind == "procedure" and not _is_pictured(fact)]
    given: dict[str, Fact] = {}
    for fact in _newest(fact for fact in facts if fact.kind == "medication"):
        given.setdefault(name(fact), fact)
    lines = _named(done, lambda fact: ("Procedure", name(fact)), side_of)
    lines += _named(list(given.values()), _drug, side_of)
    return sorted(lines, key=lambda line: line.date or "", reverse=True)


def _drug(fact: Fact) -> tuple[str, str]:
    """Its last mention: what was ordered is not yet given, and what was stopped is said to be."""
    how = _MENTIONED.get(fact.source.resource.partition("/")[0], "")
    told = [name(fact), how, fact.status if fact.status in ("stopped", "on-hold") else ""]
    return "Drug", ", ".join(part for part in told if part)


# ---- words -----------------------------------------------------------------------------------------------------------

_TAG = re.compile(r"\s*\((?:disorder|finding|procedure|morphologic abnormality|qualifier value|body structure)\)$")


def clean(coding: Coding) -> str:
    """A display as people say it: SNOMED CT's semantic tag and the name of the staging body are left out."""
    told = _TAG.sub("", coding.display or f"code {coding.code}")
    return told.removeprefix("American Joint Committee on Cancer ").removeprefix("stage ").strip()


def name(fact: Fact) -> str:
    return clean(fact.code)


def value_of(fact: Fact) -> str:
    """The value as recorded; empty where there is none."""
    if fact.problem is not None:
        return f"{fact.original or 'a value'} ({fact.problem})"
    if fact.number is not None:
        unit = "" if fact.unit in (None, "1", "{score}") else f" {fact.unit}"
        return f"{fact.comparator or ''}{fact.number}{unit}"
    if fact.coded:  # several codings of one answer are translations of each other
        return clean(next((each for each in fact.coded if each.display), fact.coded[0]))
    return fact.text or ""
