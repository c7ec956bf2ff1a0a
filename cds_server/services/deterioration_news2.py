"""Acute deterioration: the National Early Warning Score 2 from the last vital signs.

On opening the chart and when an encounter starts. Silent, on record, where no vital sign was observed within the time
that counts: an outpatient's chart is not the place. Where some were, and one is missing, it says which and gives no
number: a parameter that was not observed is not a normal one.
"""

from __future__ import annotations

from collections.abc import Mapping

from cds_server.hooks import evidence
from cds_server.hooks.cards import Card, Indicator, Source, escape, table, words
from cds_server.hooks.evidence import TOPICS, features, is_read
from cds_server.hooks.reasons import CLINICAL
from cds_server.hooks.service import CardGuide, ServiceSpec
from models.nouns import Coding, Feature, Judgement

NAME = "deterioration-news2"
MODEL = "news2"
EMERGENCY, URGENT, RED = 7, 5, 3
"""RCP 2017, chart 2: from 7 points on an emergency response; from 5 on, or 3 in one parameter, an urgent one."""

INPUTS = {
    "respiration": "Respiration rate",
    "spo2": "Oxygen saturation",
    "oxygen": "Air or oxygen",
    "systolic": "Systolic blood pressure",
    "pulse": "Pulse",
    "consciousness": "Consciousness",
    "temperature": "Temperature",
}
"""Parameters in the order of the score's items."""

_SOURCE = Source(
    label="NEWS2, Royal College of Physicians 2017",
    url="https://www.rcp.ac.uk/resources/national-early-warning-score-news-2/",
    topic=Coding(TOPICS, NAME, "Acute deterioration"),
)
_LIMITS = (
    "Research tool, not a medical device. Clinical concern overrides any score. (c) Royal College of Physicians 2017."
)


def cards(judgement: Judgement, guide: CardGuide) -> tuple[Card, ...]:
    """None where nothing was observed in time; else one: the score, or which parameter is missing."""
    found = features(judgement)
    if not any(found[name].facts and not found[name].missing for name in INPUTS if name in found):
        return ()
    abstained = judgement.score.abstained
    if abstained is not None:
        why = f"**No score was computed:** {escape(evidence.sentence(abstained))}"
        return (_card(guide, f"No NEWS2: {abstained}", Indicator.INFO, [why], judgement, found),)
    total, highest = (int(judgement.score.outputs[name][0]) for name in ("points", "highest"))
    indicator, response = _response(total, highest)
    summary = f"NEWS2 is {total}: {response}"
    return (_card(guide, summary, indicator, [_scale(found), _items(judgement)], judgement, found),)


def points(judgement: Judgement) -> float:
    """What a site's threshold asks."""
    return float(judgement.score.outputs["points"][0])


def _response(total: int, highest: int) -> tuple[Indicator, str]:
    """RCP 2017, chart 2."""
    if total >= EMERGENCY:
        return Indicator.CRITICAL, "high risk; the threshold of an emergency response is reached"
    if total >= URGENT:
        return Indicator.WARNING, "medium risk; the threshold of an urgent response is reached"
    if highest >= RED:
        return Indicator.WARNING, "3 in a single parameter; the threshold of an urgent ward-based response is reached"
    return Indicator.INFO, "low risk"


def _card(
    guide: CardGuide,
    summary: str,
    indicator: Indicator,
    said: list[str],
    judgement: Judgement,
    found: Mapping[str, Feature],
) -> Card:
    return Card(
        uuid=guide.new_uuid(),
        summary=summary,
        indicator=indicator,
        source=_SOURCE,
        detail="\n\n".join([*said, *_basis(judgement, found, guide)]),
        override_reasons=CLINICAL,
        links=evidence.links(guide, _SOURCE),
    )


def _scale(found: Mapping[str, Feature]) -> str:
    return f"{words(evidence.sentence(found['scale2'].label))}."


def _items(judgement: Judgement) -> str:
    outputs = judgement.score.outputs
    rows = [[what, f"{counted:g}"] for what, counted in zip(INPUTS.values(), outputs["items"], strict=True)]
    return table(["Parameter", "Points"], [*rows, ["together", f"{outputs['points'][0]:g}"]], numeric=True)


def _basis(judgement: Judgement, found: Mapping[str, Feature], guide: CardGuide) -> list[str]:
    described = [found[name] for name in INPUTS if name in found]
    blocks = [
        evidence.missing([each for each in described if each.missing], INPUTS),
        evidence.cautions(judgement),
        evidence.inputs([each for each in described if is_read(each)], INPUTS, judgement.snapshot, clock=True),
        evidence.limits(_LIMITS, evidence.population(judgement)),
        evidence.record(judgement, guide),
    ]
    return [block for block in blocks if block]


# ---- discovery -------------------------------------------------------------------------------------------------------

_OBSERVED = (
    "9279-1,2708-6,59408-5,371825009,722742002,3151-8,3150-6,85354-9,8480-6,8867-4,67775-7,1104441000000107,8310-5"
)
PREFETCH = {
    "patient": "Patient/{{context.patientId}}",
    "conditions": "Condition?patient={{context.patientId}}",
    "observations": f"Observation?patient={{{{context.patientId}}}}&code={_OBSERVED}&_sort=-date&_count=200",
}
REQUIRED = ("patient", "observations")
_ABOUT = (
    "National Early Warning Score 2 from the vital signs of the last twelve hours, with each value, its time and its "
    "origin. Silent where there are none. Research tool, not a medical device."
)

SERVICES = tuple(
    ServiceSpec(
        id=id_,
        hook=hook,
        title=title,
        description=_ABOUT,
        model=MODEL,
        prefetch=PREFETCH,
        required=REQUIRED,
        cards=cards,
        measure=points,
        subscribes=hook == "patient-view",
    )
    for id_, hook, title in (
        (NAME, "patient-view", "Acute deterioration (NEWS2)"),
        (f"{NAME}-encounter-start", "encounter-start", "Acute deterioration (NEWS2), when an encounter starts"),
    )
)
