"""Risk of venous thrombo-embolism when systemic anticancer therapy is drafted: the Khorana score.

Speaks only where the draft orders (of order-select: the selected ones) hold a drug of
`systemic_anticancer_therapy.json`; else it is silent, and that is on record. Where a count or a weight is missing or
too old it says so, and gives no number.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cds_server.hooks import evidence
from cds_server.hooks.cards import Card, Indicator, Source, escape, table
from cds_server.hooks.evidence import TOPICS, features, is_read
from cds_server.hooks.orders import draft_orders
from cds_server.hooks.reasons import CLINICAL
from cds_server.hooks.service import CardGuide, ServiceSpec
from models.nouns import JSON, Coding, Judgement

NAME = "vte-risk-chemotherapy"
MODEL = "khorana"
THERAPY: Mapping[str, Any] = json.loads(Path(__file__).with_name("systemic_anticancer_therapy.json").read_bytes())
"""The value set; it states its own scope and source."""
CONSIDER = 2
"""Points from which thromboprophylaxis is to be considered (ASCO 2019, JCO 38:496; ITAC 2022, Lancet Oncol 23:e334)."""

INPUTS = {
    "site": "Site of the cancer",
    "platelets": "Platelets",
    "haemoglobin": "Haemoglobin",
    "esa": "Red cell growth factors",
    "leukocytes": "Leukocytes",
    "bmi": "Body mass index",
}
COUNTED = {
    "site": "site of the cancer",
    "platelets": "platelets 350 × 10⁹/L or more",
    "haemoglobin": "haemoglobin below 10 g/dL, or red cell growth factors",
    "leukocytes": "leukocytes above 11 × 10⁹/L",
    "bmi": "body mass index 35 kg/m² or more",
}
"""Items of the score, in the order of its output."""

_SOURCE = Source(
    label="Khorana score, Blood 2008;111:4902",
    url="https://doi.org/10.1182/blood-2007-10-116327",
    topic=Coding(TOPICS, NAME, "Venous thrombo-embolism under chemotherapy"),
)
_LIMITS = (
    "Research tool, not a medical device. The rate is that of outpatients with as many points, not of this person; "
    "bleeding risk is not part of the score."
)


def therapy(orders: Iterable[JSON]) -> list[str]:
    """Names of the drafted drugs that are systemic anticancer therapy, each once."""
    return list(dict.fromkeys(name for order in orders if (name := _drug(order))))


def _drug(order: JSON) -> str | None:
    for coding in order.get("codings", ()):
        system, code = coding["system"], coding["code"]
        listed = THERAPY["codes"].get(system, {}).get(code)
        stem = any(code.startswith(stem) for stem in THERAPY["stems"].get(system, ()))
        if listed or stem:
            return str(listed or coding.get("display") or order.get("text") or code)
    return None


def cards(judgement: Judgement, guide: CardGuide) -> tuple[Card, ...]:
    """None where no anticancer therapy is drafted; else one: the score, or why there is none."""
    drafted = therapy(judgement.snapshot.context.get("draft_orders", ()))
    if not drafted:
        return ()
    abstained = judgement.score.abstained
    about = f"**Drafted:** {escape(', '.join(drafted))}"
    if abstained is not None:
        why = f"**No score was computed:** {escape(evidence.sentence(abstained))}"
        return (_card(guide, f"No Khorana score: {abstained}", Indicator.INFO, [about, why], judgement),)
    points = int(judgement.score.outputs["points"][0])
    risk = judgement.score.outputs["risk"][0]
    said = f"Khorana score {points} of 6: {_band(points)} risk of venous thrombo-embolism"
    summary = f"{said} ({100 * risk:.1f} % within 6 months)"
    indicator = Indicator.WARNING if points >= CONSIDER else Indicator.INFO
    return (_card(guide, summary, indicator, [about, _advice(points), _items(judgement)], judgement),)


def score(judgement: Judgement) -> float:
    """Points: what a site's threshold asks."""
    return float(judgement.score.outputs["points"][0])


def _card(guide: CardGuide, summary: str, indicator: Indicator, said: list[str], judgement: Judgement) -> Card:
    return Card(
        uuid=guide.new_uuid(),
        summary=summary,
        indicator=indicator,
        source=_SOURCE,
        detail="\n\n".join([*said, *_basis(judgement, guide)]),
        override_reasons=CLINICAL,
        links=evidence.links(guide, _SOURCE),
    )


def _band(points: int) -> str:
    return "low" if points == 0 else "intermediate" if points <= 2 else "high"


def _advice(points: int) -> str:
    if points < CONSIDER:
        return "Below 2 points guidelines do not ask to consider thromboprophylaxis for this score alone."
    return (
        "From 2 points on, guidelines ask to consider thromboprophylaxis for outpatients, weighing the risk of "
        "bleeding and interactions (ASCO 2019, ITAC 2022)."
    )


def _items(judgement: Judgement) -> str:
    counted = zip(COUNTED.values(), judgement.score.outputs["items"], strict=True)
    rows = [[what, f"{points:g}"] for what, points in counted]
    return table(["Counts", "Points"], [*rows, ["together", f"{judgement.score.outputs['points'][0]:g}"]], numeric=True)


def _basis(judgement: Judgement, guide: CardGuide) -> list[str]:
    found = features(judgement)
    described = [found[name] for name in INPUTS if name in found]
    blocks = [
        evidence.missing([each for each in described if each.missing], INPUTS),
        evidence.cautions(judgement),
        evidence.inputs([each for each in described if is_read(each)], INPUTS, judgement.snapshot),
        evidence.limits(_LIMITS, evidence.population(judgement)),
        evidence.record(judgement, guide),
    ]
    return [block for block in blocks if block]


# ---- discovery -------------------------------------------------------------------------------------------------------

_OBSERVED = "777-3,26515-7,718-7,6690-2,26464-8,39156-5,29463-7,3141-9,8302-2"
PREFETCH = {
    "patient": "Patient/{{context.patientId}}",
    "conditions": "Condition?patient={{context.patientId}}",
    "observations": f"Observation?patient={{{{context.patientId}}}}&code={_OBSERVED}",
    "medications": "MedicationRequest?patient={{context.patientId}}",
}
REQUIRED = ("patient", "conditions", "observations")
_ABOUT = (
    "Khorana score for venous thrombo-embolism, when systemic anticancer therapy is drafted, with every input, its age "
    "and its origin. Silent for other orders. Research tool, not a medical device."
)

SERVICES = tuple(
    ServiceSpec(
        id=f"{NAME}-{hook}",
        hook=hook,
        title=f"Risk of venous thrombo-embolism under chemotherapy, when orders are {when}",
        description=_ABOUT,
        model=MODEL,
        prefetch=PREFETCH,
        required=REQUIRED,
        cards=cards,
        measure=score,
        context=draft_orders,
    )
    for hook, when in (("order-select", "selected"), ("order-sign", "signed"))
)
