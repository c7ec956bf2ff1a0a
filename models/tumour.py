"""Whose results: which breast cancer a model is about, what speaks of it, and who is outside every model of it.

Shared by the modalities that read about one chosen tumour. Never from two tumours at once: where several are recorded
and none is chosen, nothing is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from models import codes
from models.codes import Key
from models.features import USABLE
from models.nouns import Fact

Slots = dict[str, list[Fact]]

ASKED = (codes.BREAST_CANCER, codes.IN_SITU, codes.METASTASIS, codes.SEX, codes.PN, codes.M)
"""What `chosen` and `outside_population` need in the snapshot."""
_NO_PRIMARY = frozenset({"refuted", "entered-in-error"})
_RECURRENT = frozenset({"recurrence", "relapse"})


@dataclass(frozen=True, slots=True)
class Tumour:
    fact: Fact
    alone: bool
    """No other candidate: facts that name no tumour may be about this one."""
    side_is_enough: bool
    """No other candidate shares its side: a fact of that side is about this one."""
    reference: str
    """`Condition/id`, within its own patient record."""


def by_question(facts: tuple[Fact, ...], slot_of: Mapping[Key, str]) -> Slots:
    """Facts by the question that their code asks (`slot_of`: code -> name of its code set)."""
    slots: Slots = {}
    for fact in facts:
        taken = None
        for coding in fact.codings:
            slot = slot_of.get((coding.system, coding.code))
            if slot is not None and slot != taken:
                slots.setdefault(slot, []).append(fact)
                taken = slot
    return slots


def verification(fact: Fact) -> tuple[str, str]:
    """Verification and clinical status of a condition."""
    verified, _, clinical = (fact.status or "").partition("/")
    return verified, clinical


def conditions(slots: Slots, name: str) -> dict[tuple[str, str], Fact]:
    """Condition facts that still stand, one per resource of a record."""
    if name not in slots:
        return {}
    return {
        (fact.record, fact.source.resource): fact
        for fact in slots[name]
        if fact.kind == "condition" and verification(fact)[0] not in _NO_PRIMARY
    }


def chosen(slots: Slots, focus: object) -> Tumour | str:
    """The tumour that the request names (`Condition/id`), else the only one; or why there is none."""
    candidates = list(conditions(slots, codes.BREAST_CANCER.name).values())
    if not candidates:
        if conditions(slots, codes.IN_SITU.name):
            return "only carcinoma in situ is recorded; the equation holds for invasive breast cancer"
        return "no invasive breast cancer is recorded"
    meant = [fact for fact in candidates if fact.source.resource == focus] if focus else candidates
    if not meant:
        return "the chosen tumour is not among the recorded breast cancers"
    if len(meant) > 1:
        return "two tumours, none chosen"
    fact = meant[0]
    others = [other for other in candidates if other is not fact]
    side = fact.laterality
    distinct = side is not None and all(other.laterality not in (side, "bilateral", None) for other in others)
    return Tumour(fact, not others, distinct, fact.source.resource)


def speaks_of(tumour: Tumour, fact: Fact) -> bool:
    """Whether a result may be about the chosen tumour; a reference counts only within its own patient record."""
    if fact.focus and (named := [reference for reference in fact.focus if reference.startswith("Condition/")]):
        return fact.record == tumour.fact.record and tumour.reference in named
    if fact.laterality and tumour.fact.laterality and fact.laterality != tumour.fact.laterality:
        return False
    return tumour.alone or (tumour.side_is_enough and fact.laterality == tumour.fact.laterality)


def outside_population(slots: Slots, tumour: Tumour) -> str | None:
    """Why no model of early breast cancer in women holds for this person; None: nothing speaks against it."""
    stated = (fact.text or (fact.coded[0].code if fact.coded else None) for fact in slots.get(codes.SEX.name, ()))
    sexes = {sex for sex in stated if sex not in (None, "", "unknown")}
    if any((coding.system, coding.code) in codes.MALE_BREAST_CANCER for coding in tumour.fact.codings):
        sexes.add("male")
    if sexes != {"female"}:
        return "the equation holds for women only" if sexes == {"male"} else "sex is not recorded, or not clearly"
    if verification(tumour.fact)[1] in _RECURRENT:
        return "the equation holds for a first diagnosis, and this tumour is recorded as recurrent"
    if conditions(slots, codes.METASTASIS.name) or says(slots.get(codes.M.name, ()), codes.M1):
        return "distant metastasis is recorded; the equation holds for early breast cancer"
    if category(slots, tumour, codes.PN.name, codes.AFTER_NEOADJUVANT):
        return "staged after neoadjuvant treatment; the equation holds for surgery first"
    return None


def category(slots: Slots, tumour: Tumour, name: str, wanted: frozenset[Key]) -> list[Fact]:
    """Categories of this tumour. (Metastasis is asked of the whole person: whichever tumour spread.)"""
    facts = slots.get(name)
    return says([fact for fact in facts if speaks_of(tumour, fact)], wanted) if facts else []


def says(facts: Iterable[Fact], wanted: frozenset[Key]) -> list[Fact]:
    """The final ones with one of these answers."""
    return [
        fact
        for fact in facts
        if fact.status in USABLE and any((coding.system, coding.code) in wanted for coding in fact.coded)
    ]
