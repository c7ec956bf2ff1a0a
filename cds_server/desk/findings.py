"""What one model said, as the page shows it: from the recorded judgement alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from cds_server.desk import titles
from cds_server.desk.judged import Then
from cds_server.hooks.evidence import is_read, sentence
from cds_server.services import breast_cancer_prognosis as prognosis
from cds_server.what_if import FOCUS, SET
from models import codes
from models.explain import Explanation, Part, why_no_band
from models.nouns import Fact, Feature, FeatureVector, Judgement
from smart_app.cases import (
    Asked,
    Curve,
    Finding,
    Input,
    Item,
    Modality,
    ModelLine,
    Option,
    Origin,
    Receipt,
    Since,
    Switch,
)
from smart_app.texts import t

OriginOf = Callable[[Fact], Origin]


def finding(
    then: Then,
    explained: Mapping[str, Explanation],
    origin: OriginOf,
    receipt: Receipt,
    *,
    since: Since | None = None,
    asked: Sequence[Asked] = (),
    said: str | None = None,
    hidden: frozenset[str] = frozenset(),
) -> Finding:
    """`said`: the card's own sentence, where this is the model that the card speaks for. `hidden`: ids of facts that
    this viewer may not see: what was read from them is not shown, and is said to be withheld."""
    judgement, score = then.judgement, then.judgement.score
    vectors = judgement.vectors
    unknown = [
        _input(feature, titles.inputs(judgement.model, vector), {}, origin)
        for vector in vectors
        for feature in vector.features
        if feature.missing and feature.name in titles.inputs(judgement.model, vector)
    ]
    return Finding(
        inference=then.recorded.ref,
        model=model_line(then),
        at=judgement.snapshot.as_of,
        said=said or sentence_of(judgement),
        receipt=receipt,
        abstained=sentence(score.abstained) if score.abstained is not None else None,
        probability=score.probability,
        base=score.base,
        logit=score.logit,
        band=score.band,
        no_band=why_no_band(judgement.model) if then.directory is not None else None,
        after=score.interval,
        validated=score.validated,
        curves=curves(judgement),
        items=items(judgement),
        modalities=_modalities(judgement, explained, origin, hidden),
        missing=tuple(unknown),
        cautions=_cautions(judgement),
        fixed=_fixed(judgement),
        since=since,
        switches=_switches(judgement, hidden),
        asked=tuple(asked),
    )


def model_line(then: Then) -> ModelLine:
    manifest, model = then.judgement.model.manifest, then.judgement.model
    return ModelLine(
        name=model.name,
        version=model.version,
        title=str(manifest.get("title", model.name)),
        digest=model.manifest_digest,
        endpoint=str(manifest.get("endpoint", "")),
        population=str(manifest.get("population", {}).get("text", "")),
        limits=tuple(map(str, manifest.get("limits", ()))),
        evidence=tuple(map(str, manifest.get("evidence", ()))),
        use=str(manifest.get("intended_use", "")),
        gone=then.gone,
    )


def sentence_of(judgement: Judgement) -> str:
    """What a model said, in one sentence, where no card does."""
    score, manifest = judgement.score, judgement.model.manifest
    title = str(manifest.get("title", judgement.model.name))
    if score.abstained is not None:
        return t("case.said_nothing", title=title)
    if course := curves(judgement):
        with_ = course[-1].title if len(course) == 2 else t("case.after_alone" if len(course) == 1 else "case.with_all")
        return t("case.said_survival", percent=round(course[-1].percent[9]), with_=with_)
    if score.probability is not None:
        return t("case.said_risk", title=title, percent=round(100 * score.probability))
    if "points" in score.outputs:
        return t("case.said_points", title=title, points=f"{float(score.outputs['points'][0]):g}")
    return title


# ---- numbers ---------------------------------------------------------------------------------------------------------


def curves(judgement: Judgement) -> tuple[Curve, ...]:
    """Survival by year, without and with each treatment; none for a model that has no curve, or that abstained."""
    if judgement.score.abstained is not None or prognosis.ALONE not in judgement.score.outputs:
        return ()
    found = []
    for number, (treatment, percent) in enumerate(prognosis.courses(judgement)):
        if treatment is None:
            title = t("case.surgery_alone")
        else:
            title = t("case.with" if number == 1 else "case.and", treatment=treatment)
        found.append(Curve(title, percent, _band(judgement, treatment)))
    return tuple(found)


def _band(judgement: Judgement, treatment: str | None) -> tuple[tuple[float, float], ...]:
    """A band is drawn where the model's own outputs have one (`NAME_lo`, `NAME_hi`), and nowhere else."""
    outputs = judgement.score.outputs
    name = dict(prognosis.TREATMENTS.values())[treatment] if treatment else prognosis.ALONE
    if f"{name}_lo" not in outputs or f"{name}_hi" not in outputs:
        return ()
    return tuple(zip(map(float, outputs[f"{name}_lo"]), map(float, outputs[f"{name}_hi"]), strict=True))


def items(judgement: Judgement) -> tuple[Item, ...]:
    names, outputs = titles.ITEMS.get(judgement.model.name), judgement.score.outputs
    if judgement.score.abstained is not None or names is None or len(outputs.get("items", ())) != len(names):
        return ()
    listed = [Item(sentence(name), float(points)) for name, points in zip(names, outputs["items"], strict=True)]
    return (*listed, Item(t("case.together"), float(outputs["points"][0])))


# ---- what it rests on ------------------------------------------------------------------------------------------------


def _modalities(
    judgement: Judgement, explained: Mapping[str, Explanation], origin: OriginOf, hidden: frozenset[str]
) -> tuple[Modality, ...]:
    score = judgement.score
    amounts = {each.modality: each for each in score.contributions}
    moves = {move.modality: score.range_after(move) for move in score.moves if score.logit is not None}
    found = []
    for vector in judgement.vectors:
        part, explanation = amounts.get(vector.modality), explained.get(vector.modality)
        spoke = vector.absent is None and (part is None or part.z is not None)
        found.append(
            Modality(
                name=vector.modality,
                title=titles.modality(vector.modality),
                amount=part.amount if part is not None and spoke else None,
                absent=sentence(vector.absent) if vector.absent else None if spoke else t("case.off"),
                inputs=_inputs(judgement, vector, explanation, origin, hidden),
                additive=explanation is not None and explanation.base is not None,
                text=sentence(explanation.text) if explanation is not None else None,
                after=moves.get(vector.modality),
            )
        )
    return tuple(found)


def _inputs(
    judgement: Judgement,
    vector: FeatureVector,
    explanation: Explanation | None,
    origin: OriginOf,
    hidden: frozenset[str],
) -> tuple[Input, ...]:
    """What was read; of a long list of yes and no (genes), what is there."""
    named = titles.inputs(judgement.model, vector)
    facts = {fact.id: fact for fact in judgement.snapshot.facts}
    parts = {part.feature: (part, explanation.points(part)) for part in explanation.parts} if explanation else {}

    shown = [each for each in vector.features if is_read(each) and (each.name in named or each.value)]
    return tuple(
        _input(feature, named, parts, origin, [facts[ref] for ref in feature.facts if ref in facts])
        if hidden.isdisjoint(feature.facts)
        else Input(named.get(feature.name, feature.name), t("case.withheld_value"), feature.missing)
        for feature in shown
    )


def _input(
    feature: Feature,
    named: Mapping[str, str],
    parts: Mapping[str, tuple[Part, float]],
    origin: OriginOf,
    facts: Sequence[Fact] = (),
) -> Input:
    part, points = parts.get(feature.name, (None, None))
    value = "" if math.isnan(feature.value) else f"{feature.value:g}"
    dated = feature.effective or max((fact.effective for fact in facts if fact.effective), default=None)
    return Input(
        title=named.get(feature.name, feature.name),
        label=feature.label or value,
        missing=feature.missing,
        effective=dated,
        note=feature.note.removeprefix("unknown: ") if feature.note and feature.missing else feature.note,
        origins=tuple(origin(fact) for fact in facts),
        amount=part.amount if part is not None else None,
        points=points,
    )


def _cautions(judgement: Judgement) -> tuple[str, ...]:
    """The same as on the card."""
    told = [caution for vector in judgement.vectors for caution in vector.cautions]
    if any(fact.test for fact in judgement.snapshot.facts):
        told.append(t("case.test_data"))
    context = judgement.snapshot.context
    told += [t("case.lacking", what=each) for each in context.get("lacking", ())]
    if unread := len(context.get("unread", ())):
        told.append(t("case.unread", count=unread))
    return tuple(sentence(each) for each in told)


def _fixed(judgement: Judgement) -> tuple[str, ...]:
    """The release's parameters: read from nobody's record."""
    found = (feature for vector in judgement.vectors for feature in vector.features)
    told = (each.label for each in found if not each.missing and not each.facts and not each.note and each.label)
    return tuple(dict.fromkeys(told))


def _switches(judgement: Judgement, hidden: frozenset[str]) -> tuple[Switch, ...]:
    """What a what-if may set: by the rules of the model's own manifest; where several tumours kept it from judging,
    which of them is meant."""
    if judgement.score.abstained is not None:
        return _tumours(judgement, hidden)
    rules = {rule["name"]: rule for rule in judgement.model.manifest.get("rules", ())}
    found = {feature.name: feature for vector in judgement.vectors for feature in vector.features}
    switches = []
    for name in titles.SWITCHES.get(judgement.model.name, ()):
        rule, feature = rules.get(name), found.get(name)
        if rule is None or feature is None:
            continue
        title = titles.INPUTS[judgement.model.name].get(name, name)
        if "allowed" in rule:
            words = rule.get("words", {})
            options = tuple(
                Option(f"{value:g}", words.get(f"{value:g}", f"{value:g}"), value == feature.value)
                for value in rule["allowed"]
            )
            switches.append(Switch(name, title, options))
        else:
            low, high = rule["range"]
            switches.append(Switch(name, title, (), low, high, f"{feature.value:g}"))
    return tuple(switches)


def tumours(judgement: Judgement) -> Mapping[str, Fact]:
    """`Condition/id` -> fact of each breast cancer that a snapshot holds."""
    return {
        fact.source.resource: fact
        for fact in judgement.snapshot.facts
        if fact.kind == "condition"
        and any((each.system, each.code) in codes.BREAST_CANCER.codes for each in fact.codings)
    }


def _tumours(judgement: Judgement, hidden: frozenset[str]) -> tuple[Switch, ...]:
    found = tumours(judgement) if judgement.model.name in titles.SWITCHES else {}
    if len(found) < 2 or judgement.snapshot.context.get(FOCUS) or any(fact.id in hidden for fact in found.values()):
        return ()
    options = tuple(Option(name, tumour_label(fact)) for name, fact in found.items())
    return (Switch(FOCUS, t("case.tumour"), options),)


def tumour_label(fact: Fact) -> str:
    side = t(f"case.side_{fact.laterality}") if fact.laterality in ("left", "right", "bilateral") else None
    told = (fact.code.display or fact.code.code, side, (fact.effective or "")[:10])
    return ", ".join(each for each in told if each)


def asked_inputs(judgement: Judgement) -> Mapping[str, str]:
    """Column (or the focus) -> label of what a what-if set."""
    found = {feature.name: feature for vector in judgement.vectors for feature in vector.features}
    context = judgement.snapshot.context
    asked = {name: found[name].label for name in context.get(SET, {}) if name in found}
    fact = tumours(judgement).get(context.get(FOCUS, ""))
    return asked if fact is None else {FOCUS: tumour_label(fact), **asked}
