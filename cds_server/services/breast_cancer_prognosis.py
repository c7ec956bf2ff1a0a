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
from typing import Any

from cds_server.hooks.cards import (
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
from models.canonical import without_none
from models.nouns import JSON, Coding, Fact, Feature, Judgement, Score, Snapshot

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
    "year": "Year term",
}
"""Columns of the equation that describe the tumour and the patient, in the order in which they are read."""

TREATMENTS = {
    "radio": "radiotherapy",
    "horm": "endocrine therapy",
    "gen": "chemotherapy",
    "traz": "trastuzumab",
    "bis": "bisphosphonates",
}
"""Columns that switch a treatment on."""

_SOURCE = Source(
    label="PREDICT Breast v3.2 equation",
    url="https://github.com/WintonCentre/predict-v30-r",
    topic=Coding("https://cds-server.org/fhir/CodeSystem/topics", NAME, "Breast cancer prognosis"),
)
_LIMITS = (
    "Research tool, not a medical device. The PREDICT Breast v3.2 equation holds for women of 25 to 85 years with "
    "invasive breast cancer without distant metastasis, treated by surgery first (no neoadjuvant treatment). It gives "
    "the average course of women with these inputs, not the course of one."
)


# ---- from the score --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Survival:
    """Percent alive at 5, 10 and 15 years, of all causes of death."""

    surgery: tuple[float, float, float]
    treated: tuple[float, float, float]
    """With every treatment that the inputs switch on (endocrine therapy of five years)."""


SCENARIOS = ("s", "r", "h", "c", "t", "b", "rh", "rhc", "rhct", "rhctb", "h10", "rh10ctb")
"""Rows of the graph's output `survival`, in the official program's order (models/training/predict_breast.py)."""


def survival(score: Score) -> Survival:
    """The one place that knows how the score's outputs are laid out: `survival`, 12 scenarios x years 1 to 15."""
    rows = score.outputs["survival"]

    def at(scenario: str) -> tuple[float, float, float]:
        row = rows[SCENARIOS.index(scenario)]
        five, ten, fifteen = (float(row[year - 1]) for year in YEARS)
        return five, ten, fifteen

    return Survival(at("s"), at("rhctb"))


# ---- the card --------------------------------------------------------------------------------------------------------


def cards(judgement: Judgement, guide: CardGuide) -> tuple[Card, ...]:
    """One card, always: an estimate, or why there is none."""
    if judgement.score.abstained is not None:
        return (_abstention(judgement, judgement.score.abstained, guide),)
    return (_estimate(judgement, survival(judgement.score), guide),)


def _estimate(judgement: Judgement, alive: Survival, guide: CardGuide) -> Card:
    treatments = _treatments(judgement)
    blocks = [_survival_table(alive, treatments), _treatment_line(treatments), *_basis(judgement, guide)]
    return Card(
        uuid=guide.new_uuid(),
        summary=_summary(alive, treatments),
        indicator=Indicator.INFO,
        source=_SOURCE,
        detail="\n\n".join(block for block in blocks if block),
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
        detail="\n\n".join([f"**No estimate was made.** Reason: {escape(reason)}", *_basis(judgement, guide)]),
        override_reasons=CLINICAL,
        links=_links(guide),
    )


def _links(guide: CardGuide) -> tuple[Link, ...]:
    if not guide.smart_app:
        return ()
    context = f'{{"inference":"{guide.inference}"}}'
    return (Link("Open the full reasoning", f"{guide.public_url}/app/launch", LinkType.SMART, app_context=context),)


def _summary(alive: Survival, treatments: Sequence[str]) -> str:
    """One sentence. Whole percents: the equation is not more exact than that."""
    alone, treated = round(alive.surgery[1]), round(alive.treated[1])
    if not treatments:
        return f"Estimated 10-year survival: {alone} % after surgery alone (no further treatment on record)"
    told = f"Estimated 10-year survival: {alone} % after surgery alone, {treated} % with "
    listed = told + _listed(treatments)
    return listed if len(listed) < 140 else told + "the treatments considered"


def _survival_table(alive: Survival, treatments: Sequence[str]) -> str:
    def percents(values: Sequence[float]) -> list[str]:
        return [f"{value:.1f} %" for value in values]

    rows = [["Surgery alone", *percents(alive.surgery)]]
    if treatments:
        gains = [with_ - without for with_, without in zip(alive.treated, alive.surgery, strict=True)]
        rows.append(["With treatment", *percents(alive.treated)])
        rows.append(["Difference", *(f"{gain:+.1f}" for gain in gains)])
    return table(["Alive after", *(f"{year} years" for year in YEARS)], rows, numeric=True)


def _treatment_line(treatments: Sequence[str]) -> str:
    return f"**Treatment counted:** {_listed(treatments)}." if treatments else ""


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


# ---- what it rests on ------------------------------------------------------------------------------------------------


def _basis(judgement: Judgement, guide: CardGuide) -> list[str]:
    """Inputs, what is missing, cautions, limits, record: the same on an estimate and on an abstention."""
    features = _features(judgement)
    known = [feature for feature in features if not feature.missing]
    missing = [INPUTS[feature.name] for feature in features if feature.missing and feature.name in INPUTS]
    blocks = []
    if known:
        blocks.append("**What it rests on**")
        blocks.append(table(["Input", "Value", "Dated", "From"], [_row(each, judgement.snapshot) for each in known]))
    if missing:
        blocks.append(f"**Not on record:** {', '.join(missing)}.{_handling(features)}")
    cautions = [caution for vector in judgement.vectors for caution in vector.cautions]
    if any(fact.test for fact in judgement.snapshot.facts):
        cautions.append("Some of these data are marked as test data.")
    if cautions:
        blocks.append("**Please check**\n\n" + "\n".join(f"- {escape(caution)}" for caution in cautions))
    as_of = guide.data_as_of[:16].replace("T", " ")
    blocks.append(f"*{_LIMITS}*")
    told = (f"Model {judgement.model.id}", f"data as of {as_of} UTC", f"record {guide.inference}")
    blocks.append(" · ".join(map(escape, told)))
    return blocks


def _features(judgement: Judgement) -> list[Feature]:
    """The equation's inputs in reading order; a treatment only where it is switched on or stands on record."""
    by_name = {feature.name: feature for vector in judgement.vectors for feature in vector.features}
    described = [by_name[name] for name in INPUTS if name in by_name]
    treated = [by_name[name] for name in (*TREATMENTS, "heart") if name in by_name]
    return described + [each for each in treated if not each.missing and (each.value or each.facts)]


def _treatments(judgement: Judgement) -> list[str]:
    """What acts in the equation: endocrine therapy on ER-positive disease only, trastuzumab on HER2-positive only."""
    on = {feature.name for feature in _features(judgement) if not feature.missing and feature.value}
    needs = {"horm": "er", "traz": "her2"}
    return [word for name, word in TREATMENTS.items() if name in on and needs.get(name, name) in on]


def _handling(features: Sequence[Feature]) -> str:
    told = [each for each in features if each.missing and each.note and each.name in INPUTS]
    return "".join(f" {escape(f'{INPUTS[each.name]}: {each.note}')}." for each in told)


def _row(feature: Feature, snapshot: Snapshot) -> list[str]:
    name = INPUTS.get(feature.name) or TREATMENTS.get(feature.name, "heart dose").capitalize()
    facts = [fact for fact in snapshot.facts if fact.id in feature.facts]
    value = feature.label or f"{feature.value:g}"
    if feature.note:
        value += f" ({feature.note})"
    effective = feature.effective or max((fact.effective for fact in facts if fact.effective), default=None)
    dated = f"{effective[:10]}, {age(effective, snapshot.clinical_time)}" if effective else "–"
    return [name, value, dated, _origin(facts)]


def _origin(facts: Sequence[Fact]) -> str:
    if not facts:
        return "set by this service"
    told = [f"{fact.source.resource}{f' ({fact.original})' if fact.original else ''}" for fact in facts[:2]]
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

_OBSERVED = (
    "21889-1,33728-7,44648-4,92832-5,92833-3,85337-4,85339-0,48676-1,16112-5,16113-3,85319-2,85318-4,29593-1,85330-9,"
    "72166-2,399504009,399534004,384625004,371494008,399588009,C18000"
)
"""Size, grade, nodes, receptors, Ki-67, smoking, TNM (specs of mCODE 4.0.0); codes without a system match any."""

PREFETCH = {
    "patient": "Patient/{{context.patientId}}",
    "conditions": "Condition?patient={{context.patientId}}",
    "observations": f"Observation?patient={{{{context.patientId}}}}&code={_OBSERVED}",
    "procedures": "Procedure?patient={{context.patientId}}",
    "medications": "MedicationRequest?patient={{context.patientId}}",
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
