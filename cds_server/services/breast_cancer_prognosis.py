"""Prognosis of early breast cancer by the PREDICT Breast v3.2 equation: on opening the chart, and on signing orders.

One card: survival with and without the treatments considered, then everything that the estimate rests on, so that an
oncologist can check it: each input, how old it is, where it came from, what is missing. If the model abstained, the
card says so and why.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import Any

from cds_server.hooks.cards import (
    MAX_SUMMARY,
    Card,
    Indicator,
    Link,
    LinkType,
    SelectionBehavior,
    Source,
    Suggestion,
    escape,
    table,
)
from cds_server.hooks.reasons import CLINICAL
from cds_server.hooks.service import CardGuide, ServiceSpec
from models import codes
from models.canonical import without_none
from models.nouns import JSON, Coding, Fact, Feature, Judgement, Snapshot

NAME = "breast-cancer-prognosis"
MODEL = "predict-breast"
YEARS = (5, 10, 15)

INPUTS = {
    "age": "Age at diagnosis",
    "size": "Tumour size",
    "grade": "Grade",
    "nodes": "Positive nodes",
    "er": "ER",
    "pr": "PR",
    "her2": "HER2",
    "ki67": "Ki-67",
    "screen": "Found by screening",
    "smoker": "Smoking",
    "heart": "Dose at the heart",
    "year": "Calendar year",
}
"""Columns of the equation that describe the tumour and the patient, in the order in which they are read."""

TREATMENTS = {
    "radio": ("radiotherapy", "survival_r"),
    "horm": ("hormone therapy", "survival_rh"),
    "gen": ("chemotherapy", "survival_rhc"),
    "traz": ("trastuzumab", "survival_rhct"),
    "bis": ("bisphosphonates", "survival_rhctb"),
}
"""Columns that switch a treatment on: its name, and the output that has it and all before it (hormones for 5 years)."""

_SOURCE = Source(
    label="PREDICT Breast v3.2 equation",
    url="https://github.com/WintonCentre/predict-v30-r",
    topic=Coding("https://cds-server.org/fhir/CodeSystem/topics", NAME, "Breast cancer prognosis"),
)
_LIMITS = "Research tool, not a medical device. The average course of women with these inputs, not the course of one."


# ---- from the score --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """Percent alive, of all causes, at 5, 10 and 15 years; each step has its treatment and all before it."""

    treatment: str | None
    """None: surgery alone."""
    alive: tuple[float, float, float]


def steps(judgement: Judgement) -> list[Step]:
    """Surgery alone, then one step for each treatment that is switched on and acts on this tumour.

    The one place that knows the names of the score's outputs: `survival_s`, `survival_r`, ... `survival_rhctb`, percent
    at years 1 to 15 each.
    """
    outputs = judgement.score.outputs

    def at(output: str) -> tuple[float, float, float]:
        five, ten, fifteen = (float(outputs[output][year - 1]) for year in YEARS)
        return five, ten, fifteen

    on = {name for name, feature in _features(judgement).items() if not feature.missing and feature.value}
    acts_on = {"horm": "er", "traz": "her2"}
    treated = [told for name, told in TREATMENTS.items() if name in on and acts_on.get(name, name) in on]
    return [Step(None, at("survival_s")), *(Step(word, at(output)) for word, output in treated)]


def _features(judgement: Judgement) -> dict[str, Feature]:
    return {feature.name: feature for vector in judgement.vectors for feature in vector.features}


# ---- the card --------------------------------------------------------------------------------------------------------


def cards(judgement: Judgement, guide: CardGuide) -> tuple[Card, ...]:
    """One card, always: an estimate, or why there is none."""
    if judgement.score.abstained is not None:
        return (_abstention(judgement, judgement.score.abstained, guide),)
    return (_estimate(judgement, guide),)


def _estimate(judgement: Judgement, guide: CardGuide) -> Card:
    course = steps(judgement)
    return Card(
        uuid=guide.new_uuid(),
        summary=_summary(course),
        indicator=Indicator.INFO,
        source=_SOURCE,
        detail="\n\n".join([_about(judgement), _survival_table(course), *_basis(judgement, guide)]),
        suggestions=(Suggestion("Take this estimate into account", guide.new_uuid()),),
        selection_behavior=SelectionBehavior.AT_MOST_ONE,
        override_reasons=CLINICAL,
        links=_links(guide),
    )


def _abstention(judgement: Judgement, reason: str, guide: CardGuide) -> Card:
    return Card(
        uuid=guide.new_uuid(),
        summary=f"No survival estimate: {reason}",
        indicator=Indicator.INFO,
        source=_SOURCE,
        detail="\n\n".join([f"**No estimate was made:** {escape(_sentence(reason))}", *_basis(judgement, guide)]),
        override_reasons=CLINICAL,
        links=_links(guide),
    )


def _links(guide: CardGuide) -> tuple[Link, ...]:
    if not guide.smart_app:
        return ()
    context = f'{{"inference":"{guide.inference}"}}'
    return (Link("Open the full reasoning", f"{guide.public_url}/app/launch", LinkType.SMART, app_context=context),)


def _summary(course: Sequence[Step]) -> str:
    """One sentence. Whole percents: the equation is not more exact than that."""
    alone, last = round(course[0].alive[1]), round(course[-1].alive[1])
    told = f"Estimated 10-year survival: {alone} % after surgery alone"
    treatments = [step.treatment for step in course if step.treatment]
    if not treatments:
        return told
    told += f", {last} % with "
    listed = told + _listed(treatments)
    return listed if len(listed) <= MAX_SUMMARY else told + "all treatments shown"


def _about(judgement: Judgement) -> str:
    """Which tumour: a person may have two, and their numbers are never mixed."""
    behind = {fact for feature in _features(judgement).values() for fact in feature.facts}
    tumours = [fact for fact in judgement.snapshot.facts if fact.kind == "condition" and fact.id in behind]
    told = [f"{fact.code.display or fact.code.code} ({fact.source.resource})" for fact in tumours]
    return f"**About:** {escape('; '.join(told) or 'no tumour of the record')}"


def _survival_table(course: Sequence[Step]) -> str:
    """Each row adds a treatment to the row above; the last says what they gain together, in percentage points."""
    rows = [
        [f"and {step.treatment}" if step.treatment else "surgery alone", *(f"{value:.1f} %" for value in step.alive)]
        for step in course
    ]
    if len(course) > 1:
        gains = [after - before for before, after in zip(course[0].alive, course[-1].alive, strict=True)]
        rows.append(["gain, all together", *(f"{gain:+.1f}" for gain in gains)])
    return table(["Alive after", *(f"{year} years" for year in YEARS)], rows, numeric=True)


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


# ---- what it rests on ------------------------------------------------------------------------------------------------


def _basis(judgement: Judgement, guide: CardGuide) -> list[str]:
    """Inputs, what is missing, cautions, limits, record: the same on an estimate and on an abstention."""
    found = _features(judgement)
    described = [found[name] for name in INPUTS if name in found]
    as_of = guide.data_as_of[:16].replace("T", " ")
    model = judgement.model
    population = str(model.manifest.get("population", {}).get("text", ""))
    told = (f"Model {model.name} {model.version}", f"data as of {as_of} UTC", f"record {guide.inference}")
    blocks = [
        _inputs([each for each in described if _is_read(each)], judgement.snapshot),
        _missing([each for each in described if each.missing]),
        _set_by_release(judgement),
        _cautions(judgement),
        _limits(population),
        " · ".join(map(escape, told)),
    ]
    return [block for block in blocks if block]


@cache
def _limits(population: str) -> str:
    """Words of the release, not of a patient: escaped once."""
    return f"*{escape(f'{_LIMITS} {population}')}*"


def _is_read(feature: Feature) -> bool:
    """From the record, or from the request; not a parameter of the release."""
    return not feature.missing and bool(feature.facts or feature.note)


def _inputs(known: Sequence[Feature], snapshot: Snapshot) -> str:
    rows = [_row(feature, snapshot) for feature in known]
    return "**What it rests on**\n\n" + table(["Input", "Value", "Dated", "From"], rows) if rows else ""


def _missing(missing: Sequence[Feature]) -> str:
    told = [INPUTS[each.name] + (f" ({each.note.removeprefix('unknown: ')})" if each.note else "") for each in missing]
    return f"**Not known:** {escape('; '.join(told))}" if told else ""


def _set_by_release(judgement: Judgement) -> str:
    """The parameters that nobody recorded: which year, which chemotherapy, why a treatment is not shown."""
    if judgement.score.abstained is not None:
        return ""
    found = _features(judgement)
    shown = {step.treatment for step in steps(judgement)}
    fixed = [found[name] for name in ("year", "gen") if name in found]
    fixed += [found[name] for name, (word, _) in TREATMENTS.items() if name in found and word not in shown]
    told = dict.fromkeys(each.label for each in fixed if not _is_read(each) and each.label)
    line = f"**Set by this release of the model:** {escape('; '.join(told))}\n\n" if told else ""
    return line + "Treatments are those that could be given, not those on record."


def _cautions(judgement: Judgement) -> str:
    cautions = [caution for vector in judgement.vectors for caution in vector.cautions]
    if any(fact.test for fact in judgement.snapshot.facts):
        cautions.append("some of these data are marked as test data")
    if unread := len(judgement.snapshot.context.get("unread", ())):
        what = "one resource" if unread == 1 else f"{unread} resources"
        cautions.append(f"{what} of this request could not be read and had no part in this")
    return (
        "**Please check**\n\n" + "\n".join(f"- {escape(_sentence(caution))}" for caution in cautions)
        if cautions
        else ""
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _row(feature: Feature, snapshot: Snapshot) -> list[str]:
    facts = [fact for fact in snapshot.facts if fact.id in feature.facts]
    value = feature.label or f"{feature.value:g}"
    if feature.note and feature.facts:
        value += f" ({feature.note})"
    effective = feature.effective or max((fact.effective for fact in facts if fact.effective), default=None)
    dated = f"{age(effective, snapshot.clinical_time)}, {effective[:10]}" if effective else "–"
    return [INPUTS[feature.name], value, dated, _origin(facts) or feature.note or ""]


def _origin(facts: Sequence[Fact]) -> str:
    """Which documents say so, and in which words where a measured value was converted."""
    told = []
    for fact in facts[:2]:
        converted = fact.number is not None and fact.original and fact.original != f"{fact.number} {fact.unit}"
        told.append(f"{fact.source.resource} ({fact.original})" if converted else fact.source.resource)
    more = len(facts) - len(told)
    return "; ".join(told) + (f"; {more} more" if more else "")


def age(effective: str, now: str) -> str:
    """How long ago, in the unit that a person would use, never finer than the source's own precision."""
    parts = re.match(r"(\d{4})(?:-(\d\d))?(?:-(\d\d))?", effective)
    if parts is None:
        return "of unknown date"
    year, month, day = (int(part) if part else None for part in parts.groups())
    today = date.fromisoformat(now[:10])
    if year is None or month is None:
        return _ago(today.year - (year or today.year), "year")
    months = (today.year - year) * 12 + today.month - month
    if day is not None and day <= monthrange(year, month)[1]:
        days = (today - date(year, month, day)).days
        if days < 60:
            return _ago(days, "day")
        months -= today.day < day
    return _ago(months, "month") if months < 24 else _ago(months // 12, "year")


def _ago(count: int, unit: str) -> str:
    if count < 0:
        return "in the future"
    if count == 0:
        return "today" if unit == "day" else f"this {unit}"
    return f"{count} {unit}{'s' if count > 1 else ''} ago"


# ---- from the request ------------------------------------------------------------------------------------------------


def draft_orders(hook_context: JSON) -> dict[str, Any]:
    """`{"focus": "Condition/x", "draft_orders": [{"type", "codings", "text"}]}` of the draft orders, each if any.

    Orders that name another patient than the context are left out. The focus is taken only when all orders that give a
    reason agree on one Condition: which tumour is meant is never guessed.
    """
    bundle = hook_context.get("draftOrders", {})
    mine = f"Patient/{hook_context.get('patientId')}"
    orders = [entry.get("resource", {}) for entry in bundle.get("entry", [])]
    orders = [order for order in orders if _reference(order.get("subject")) in (None, mine)]
    reasons = {reference for order in orders for reference in _reasons(order)}
    told = [each for each in map(_order, orders) if each is not None]
    return without_none({"focus": reasons.pop() if len(reasons) == 1 else None, "draft_orders": told})


def _reference(member: Any) -> str | None:
    reference = member.get("reference") if isinstance(member, dict) else None
    return reference if isinstance(reference, str) else None


def _reasons(order: JSON) -> list[str]:
    references = order.get("reasonReference", [])
    told = [_reference(member) for member in references] if isinstance(references, list) else []
    return [reference for reference in told if reference and re.fullmatch(r"Condition/[A-Za-z0-9.-]+", reference)]


def _order(order: JSON) -> dict[str, Any] | None:
    """What is ordered: codings with system and code, and the words beside them; None if neither is there."""
    concept = order.get("medicationCodeableConcept") or order.get("code")
    if not isinstance(concept, dict):
        return None
    sent = concept.get("coding", [])
    codings = [
        {name: coding[name] for name in ("system", "code", "display") if isinstance(coding.get(name), str)}
        for coding in (sent if isinstance(sent, list) else [])
        if isinstance(coding, dict) and coding.get("system") and coding.get("code")
    ]
    text = concept.get("text")
    if not codings and not isinstance(text, str):
        return None
    return without_none({"type": order.get("resourceType"), "codings": codings, "text": text})


# ---- discovery -------------------------------------------------------------------------------------------------------

_ASKED = (
    codes.SIZE, codes.GRADE, codes.NODES, codes.SENTINEL_NODES, codes.ER, codes.PR, codes.HER2, codes.KI67,
    codes.SMOKING, codes.PT, codes.PN, codes.M,
)  # fmt: skip
_OBSERVED = ",".join(sorted({code for asked in _ASKED for _, code in asked.codes}))
"""Codes without their systems match in any system (FHIR R4, Search, token)."""

PREFETCH = {
    "patient": "Patient/{{context.patientId}}",
    "conditions": "Condition?patient={{context.patientId}}",
    "observations": f"Observation?patient={{{{context.patientId}}}}&code={_OBSERVED}",
}
REQUIRED = ("patient", "observations")

_ABOUT = (
    "5-, 10- and 15-year survival of early breast cancer with and without treatment, by the PREDICT Breast v3.2 "
    "equation, with every input, its age and its origin. Research tool, not a medical device."
)

SERVICES = (
    ServiceSpec(
        id=NAME,
        hook="patient-view",
        title="Breast cancer prognosis",
        description=_ABOUT,
        model=MODEL,
        prefetch=PREFETCH,
        required=REQUIRED,
        cards=cards,
    ),
    ServiceSpec(
        id=f"{NAME}-order-sign",
        hook="order-sign",
        title="Breast cancer prognosis, when orders are signed",
        description=_ABOUT,
        model=MODEL,
        prefetch=PREFETCH,
        required=REQUIRED,
        cards=cards,
        context=draft_orders,
    ),
)
