"""Facts as lines of a timeline: grouped as a clinician looks for them, units as people write them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

from cds_server.desk.changes import value_of
from cds_server.desk.sources import Sources
from models import codes
from models.modalities import expression, mutation
from models.nouns import Fact
from smart_app.timeline import PAGE, Event, Timeline, Wanted

_KINDS = {
    "condition": "diagnoses",
    "condition-stage": "pathology",
    "allergy": "diagnoses",
    "family-history": "diagnoses",
    "observation": "labs",
    "procedure": "procedures",
    "medication": "drugs",
    "immunization": "drugs",
    "imaging-study": "imaging",
    "specimen": "pathology",
}
_PATHOLOGY = (
    frozenset(
        f"{system}|{code}"
        for asked in (
            codes.SIZE, codes.GRADE, codes.NODES, codes.SENTINEL_NODES, codes.ER, codes.PR, codes.HER2, codes.KI67,
            codes.PT, codes.PN, codes.M,
        )
        for system, code in asked.codes
    )
    | expression.SUBTYPE.codes.tokens
    | mutation.VARIANT.tokens
    | mutation.REGION.tokens
)  # fmt: skip
_OF_TISSUE = re.compile(r"tumou?r|cancer|lymph node|category|\bgen(?:e|etic|omic)|\bdna\b|immune stain|biops|histolog")
"""Words of codes that no list of ours has: what a pathologist or a geneticist says."""
_POWER = re.compile(r"10\*(-?\d+)")
_NOTE = re.compile(r"\{[^}]*\}")
_WRITTEN = {"Cel": "°C", "[degF]": "°F", "mm[Hg]": "mmHg", "[lb_av]": "lb", "[in_i]": "in", "kg/m2": "kg/m²"}
_MICRO = re.compile(r"u(?=[gLlm])")
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def group_of(fact: Fact) -> str:
    if fact.kind == "observation":
        if any(each.startswith(("ImagingStudy/", "Media/")) for each in fact.derived_from):
            return "imaging"
        if fact.focus or _of_tissue(fact.code.system, fact.code.code, what_of(fact)):
            return "pathology"
    if fact.kind in ("report", "document"):
        words = (fact.code.display or "").lower()
        return "pathology" if "path" in words else "imaging" if "imag" in words or "radiolog" in words else "notes"
    return _KINDS.get(fact.kind, "other")


@lru_cache(maxsize=4096)
def _of_tissue(system: str, code: str, words: str) -> bool:
    """Of a code, whoever has it: asked thousands of times for one long timeline."""
    return f"{system}|{code}" in _PATHOLOGY or _OF_TISSUE.search(words.lower()) is not None


def what_of(fact: Fact) -> str:
    """The first of its codings that has words."""
    return next((each.display for each in fact.codings if each.display), fact.code.code)


def unit_of(unit: str | None) -> str:
    """A UCUM unit as people write it: `10*9/L` is `10⁹/L`; annotations are left out."""
    if not unit or unit == "1":
        return ""
    if unit in _WRITTEN:
        return _WRITTEN[unit]
    raised = _POWER.sub(lambda found: "10" + found[1].translate(_RAISED), _NOTE.sub("", unit))
    return _MICRO.sub("µ", raised)


def number_of(text: str) -> str:
    """Decimal text with at most three digits after the point: a converted unit makes no measurement more exact."""
    whole, _, digits = text.partition(".")
    return f"{float(text):.3f}".rstrip("0").rstrip(".") if len(digits) > 3 and len(whole) < 12 else text


def event_of(fact: Fact, sources: Sources, namespace: str) -> Event:
    origin = sources.of(fact, namespace)
    number = fact.number is not None and not fact.problem
    return Event(
        at=fact.effective,
        group=group_of(fact),
        what=what_of(fact),
        value=number_of(str(fact.number)) if number else value_of(fact),
        unit=unit_of(fact.unit) if number else "",
        number=number,
        comparator=fact.comparator or "" if number else "",
        status=None if fact.status in (None, "final", "completed", "active", "finished") else fact.status,
        document=origin.document,
        source=origin.source,
        place=origin.place,
        landing=origin.landing,
        part=origin.part,
        pointer=origin.pointer,
        known_from=fact.known_from,
        test=fact.test,
    )


def newest_first(facts: Iterable[Fact]) -> list[Fact]:
    """Those without a time last."""
    return sorted(facts, key=lambda fact: (fact.effective or "", fact.id), reverse=True)


def counts_of(facts: Iterable[Fact]) -> Counter[str]:
    return Counter(group_of(fact) for fact in facts if fact.kind != "demographic")


def timeline_of(facts: Sequence[Fact], wanted: Wanted, sources: Sources, namespace: str, withheld: int) -> Timeline:
    """One page of what a filter takes. Only the lines of that page are looked up."""
    shown = [fact for fact in facts if fact.kind != "demographic"]
    everything = wanted == Wanted(skip=wanted.skip)
    taken = newest_first(shown if everything else (fact for fact in shown if _takes(wanted, fact)))
    events = tuple(event_of(fact, sources, namespace) for fact in taken[wanted.skip : wanted.skip + PAGE])
    return Timeline(events, len(taken), counts_of(shown), withheld)


def _takes(wanted: Wanted, fact: Fact) -> bool:
    words = f"{what_of(fact)} {value_of(fact)}" if wanted.text else ""
    return wanted.takes(group_of(fact), fact.effective or "", words)
