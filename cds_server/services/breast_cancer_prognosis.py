"""Prognosis of early breast cancer by the PREDICT Breast v3.2 equation: on opening the chart, and on signing orders.

One card: survival with and without the treatments considered, then everything that the estimate rests on, so that an
oncologist can check it: each input, how old it is, where it came from, what is missing. If the model abstained, the
card says so and why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from cds_server.hooks import evidence
from cds_server.hooks.cards import (
    MAX_SUMMARY,
    Card,
    Indicator,
    SelectionBehavior,
    Source,
    Suggestion,
    escape,
    heading,
    table,
    words,
)
from cds_server.hooks.evidence import TOPICS, features, is_read
from cds_server.hooks.orders import draft_orders
from cds_server.hooks.reasons import CLINICAL
from cds_server.hooks.service import CardGuide, ServiceSpec
from models import codes
from models.explain import why_no_band
from models.modalities import expression, mutation
from models.nouns import Coding, Feature, Judgement, ModelVersion

NAME = "breast-cancer-prognosis"
MODEL = "predict-breast"
RECURRENCE = "breast-cancer-recurrence"
GENOMIC = expression.SUBTYPE.codes.tokens | mutation.VARIANT.tokens | mutation.REGION.tokens
"""Questions whose answers PREDICT does not read: where the record has one, the fused recurrence risk is judged, too."""
MODALITIES = {"clinical": "Clinical", "expression": "Expression subtype", "mutation": "Mutations"}
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
_ACTS_ON = {"horm": "er", "traz": "her2"}
"""Treatments that act only where a receptor is positive."""

ALONE = "survival_s"
"""The output of surgery alone."""

_SOURCE = Source(
    label="PREDICT Breast v3.2 equation",
    url="https://github.com/WintonCentre/predict-v30-r",
    topic=Coding(TOPICS, NAME, "Breast cancer prognosis"),
)
_DIAGNOSES = codes.BREAST_CANCER.codes | codes.IN_SITU.codes
_LIMITS = "Research tool, not a medical device. The average course of women with these inputs, not the course of one."


# ---- from the score --------------------------------------------------------------------------------------------------


class Step(NamedTuple):
    """Percent alive, of all causes, at 5, 10 and 15 years; each step has its treatment and all before it."""

    treatment: str | None
    """None: surgery alone."""
    alive: tuple[float, float, float]


def steps(judgement: Judgement) -> list[Step]:
    """Surgery alone, then one step for each treatment that is switched on and acts on this tumour.

    The one place that knows the names of the score's outputs: `survival_s`, `survival_r`, ... `survival_rhctb`, percent
    at years 1 to 15 each.
    """
    return _steps(judgement, features(judgement))


def _steps(judgement: Judgement, found: Mapping[str, Feature]) -> list[Step]:
    outputs = judgement.score.outputs
    course = [Step(None, _alive(outputs[ALONE]))]
    for name, (told, output) in TREATMENTS.items():
        if _is_on(found, name) and _is_on(found, _ACTS_ON.get(name, name)):
            course.append(Step(told, _alive(outputs[output])))
    return course


def _is_on(found: Mapping[str, Feature], name: str) -> bool:
    feature = found.get(name)
    return feature is not None and not feature.missing and bool(feature.value)


def _alive(by_year: Sequence[float]) -> tuple[float, float, float]:
    five, ten, fifteen = YEARS
    return float(by_year[five - 1]), float(by_year[ten - 1]), float(by_year[fifteen - 1])


def courses(judgement: Judgement) -> list[tuple[str | None, tuple[float, ...]]]:
    """Percent alive at years 1 to 15 of each of `steps`, by its treatment: what a curve is drawn from."""
    outputs = dict(TREATMENTS.values())
    return [
        (
            step.treatment,
            tuple(map(float, judgement.score.outputs[outputs[step.treatment] if step.treatment else ALONE])),
        )
        for step in steps(judgement)
    ]


def gain(judgement: Judgement) -> float:
    """Percentage points alive at ten years by all treatments shown, over surgery alone: for a site's threshold."""
    course = steps(judgement)
    return course[-1].alive[1] - course[0].alive[1]


# ---- the card --------------------------------------------------------------------------------------------------------


def cards(judgement: Judgement, guide: CardGuide) -> tuple[Card, ...]:
    """One card: an estimate, or why there is none; none for whom no breast cancer is recorded at all.

    That is most charts: a card on each of them would teach everybody to look away. The inference is on record.
    """
    if judgement.score.abstained is not None:
        if not any(
            (coding.system, coding.code) in _DIAGNOSES for fact in judgement.snapshot.facts for coding in fact.codings
        ):
            return ()
        return (_abstention(judgement, judgement.score.abstained, guide),)
    return (_estimate(judgement, guide),)


def _estimate(judgement: Judgement, guide: CardGuide) -> Card:
    found = features(judgement)
    described, course = _described(found), _steps(judgement, found)
    return Card(
        uuid=guide.new_uuid(),
        summary=_summary(course),
        indicator=Indicator.INFO,
        source=_SOURCE,
        detail="\n\n".join(
            [
                _about(judgement, found),
                _survival_table(course),
                *_first(judgement, described),
                *_recurrence(guide),
                *_basis(judgement, described, guide, _set_by_release(judgement.model, found, course)),
            ]
        ),
        suggestions=(Suggestion("Take this estimate into account", guide.new_uuid()),),
        selection_behavior=SelectionBehavior.AT_MOST_ONE,
        override_reasons=CLINICAL,
        links=evidence.links(guide, _SOURCE),
    )


def _abstention(judgement: Judgement, reason: str, guide: CardGuide) -> Card:
    described = _described(features(judgement))
    return Card(
        uuid=guide.new_uuid(),
        summary=f"No survival estimate: {reason}",
        indicator=Indicator.INFO,
        source=_SOURCE,
        detail="\n\n".join(
            [
                f"**No estimate was made:** {escape(evidence.sentence(reason))}",
                *_first(judgement, described),
                *_recurrence(guide),
                *_basis(judgement, described, guide),
            ]
        ),
        override_reasons=CLINICAL,
        links=evidence.links(guide, _SOURCE),
    )


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


def _range(ends: tuple[float, float]) -> str:
    return f"{100 * ends[0]:.0f} to {100 * ends[1]:.0f} %"


def _adds(z: float | None, amount: float, absent: str | None) -> str:
    return f"{amount:+.2f}" if z is not None else f"not available: {absent or 'not known'}"


def _about(judgement: Judgement, found: Mapping[str, Feature]) -> str:
    """Which tumour: a person may have two, and their numbers are never mixed."""
    behind = set[str]().union(*[feature.facts for feature in found.values()])
    tumours = [fact for fact in judgement.snapshot.facts if fact.kind == "condition" and fact.id in behind]
    told = [f"{fact.codings[0].display or fact.codings[0].code} ({fact.source.resource})" for fact in tumours]
    return f"**About:** {escape('; '.join(told) or 'no tumour of the record')}"


_ALIVE = ("Alive after", *(f"{year} years" for year in YEARS))


def _survival_table(course: Sequence[Step]) -> str:
    """Each row adds a treatment to the row above; the last says what they gain together, in percentage points."""
    lines = [heading(_ALIVE, numeric=True)]
    for treatment, (five, ten, fifteen) in course:
        told = words(f"and {treatment}" if treatment else "surgery alone")
        lines.append(f"| {told} | {five:.1f} % | {ten:.1f} % | {fifteen:.1f} % |")
    if len(course) > 1:
        five, ten, fifteen = (after - before for before, after in zip(course[0].alive, course[-1].alive, strict=True))
        lines.append(f"| gain, all together | {five:+.1f} | {ten:+.1f} | {fifteen:+.1f} |")
    return "\n".join(lines)


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


# ---- the second endpoint ---------------------------------------------------------------------------------------------


def _recurrence(guide: CardGuide) -> list[str]:
    """Another endpoint by another model, named as such and never mixed with survival."""
    return [block for ref, judgement in guide.beside for block in _fused(ref, judgement)]


def _fused(ref: str, judgement: Judgement) -> list[str]:
    score, model = judgement.score, judgement.model
    named = escape(f"{model.name} {model.version}")
    if score.abstained is not None or score.probability is None:
        why = escape(evidence.sentence(score.abstained or "the model gave no number"))
        return [f"**Recurrence within five years** ({named}): not estimated. {why}"]
    named += "; another endpoint, not survival"
    told = f"**Recurrence within five years** ({named}): **{100 * score.probability:.0f} %**"
    if score.band is not None:
        told += f"; uncertainty of the fusion weights {_range(score.band)}"
    blocks = [told]
    absent = {vector.modality: vector.absent for vector in judgement.vectors}
    rows = [
        [MODALITIES.get(part.modality, part.modality), _adds(part.z, part.amount, absent.get(part.modality))]
        for part in score.contributions
    ]
    blocks.append(table(["Modality", "Adds to the log-odds"], rows))
    if score.interval is not None and score.moves:
        most = MODALITIES.get(score.moves[0].modality, score.moves[0].modality).lower()
        blocks.append(
            f"**Range if missing results arrive:** {_range(score.interval)} (nine of ten). "
            f"{escape(evidence.sentence(most))} would move it most."
        )
    if not score.validated:
        blocks.append("**Not validated:** too few events stand behind this combination of results.")
    where = f" · record {ref}" if ref else ""
    blocks.append(escape(f"Risk under the treatment of 1977 to 2005; recalibrate locally{where}"))
    return blocks


# ---- what it rests on ------------------------------------------------------------------------------------------------


def _described(found: Mapping[str, Feature]) -> list[Feature]:
    """What describes the tumour and the patient, in the order of a card."""
    return [found[name] for name in INPUTS if name in found]


def _first(judgement: Judgement, described: Sequence[Feature]) -> list[str]:
    """What is missing, and what to check: beside the numbers, before everything that can be looked up."""
    lacking = [each for each in described if each.missing]
    return [block for block in (evidence.missing(lacking, INPUTS), evidence.cautions(judgement)) if block]


def _basis(judgement: Judgement, described: Sequence[Feature], guide: CardGuide, set_by_release: str = "") -> list[str]:
    """Inputs, limits, record: the same on an estimate and on an abstention, where the release set nothing."""
    blocks = [
        evidence.inputs([each for each in described if is_read(each)], INPUTS, judgement.snapshot),
        set_by_release,
        evidence.limits(_LIMITS, evidence.population(judgement)),
        evidence.record(judgement, guide),
    ]
    return [block for block in blocks if block]


def _set_by_release(model: ModelVersion, found: Mapping[str, Feature], course: Sequence[Step]) -> str:
    """The parameters that nobody recorded: which year, which chemotherapy, why a treatment is not shown."""
    shown = [step.treatment for step in course]
    names = ["year", "gen", *(name for name, (told, _) in TREATMENTS.items() if told not in shown)]
    fixed = [found[name] for name in names if name in found]
    return _parameters(tuple(each.label for each in fixed if not is_read(each) and each.label), why_no_band(model))


@lru_cache(maxsize=256)
def _parameters(labels: tuple[str, ...], band: str | None) -> str:
    """Words of the release, a text for each set of treatments that is shown."""
    told = dict.fromkeys([*labels, band] if band else labels)
    line = f"**Set by this release of the model:** {escape('; '.join(told))}\n\n" if told else ""
    return line + "Treatments are those that could be given, not those on record."


# ---- discovery -------------------------------------------------------------------------------------------------------

_ASKED = (
    codes.SIZE, codes.GRADE, codes.NODES, codes.SENTINEL_NODES, codes.ER, codes.PR, codes.HER2, codes.KI67,
    codes.SMOKING, codes.PT, codes.PN, codes.M,
)  # fmt: skip
_OBSERVED = ",".join(
    sorted({code for asked in _ASKED for _, code in asked.codes} | {token.rpartition("|")[2] for token in GENOMIC})
)
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
        measure=gain,
        beside={RECURRENCE: GENOMIC},
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
        measure=gain,
        context=draft_orders,
        beside={RECURRENCE: GENOMIC},
    ),
)
