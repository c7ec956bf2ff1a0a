"""What is otherwise than at the inference before: the score, and the facts that the model asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from cds_server.desk import titles
from cds_server.desk.findings import curves
from cds_server.desk.judged import Then
from models.nouns import Fact, Judgement
from smart_app.cases import Change, Since
from smart_app.texts import t

MOST = 12
"""Facts that are listed; the others are counted."""
_NONE = "–"


def since(before: Then, now: Then, sees: Callable[[Sequence[Fact]], Sequence[Fact]]) -> Since:
    """`sees`: the facts that this viewer may see. Where some are withheld, what was read from facts is not compared."""
    was, are = before.judgement.snapshot.facts, now.judgement.snapshot.facts
    seen_then, seen_now = sees(was), sees(are)
    whole = len(seen_then) == len(was) and len(seen_now) == len(are)
    changes = tuple(score_changes(before.judgement, now.judgement, inputs=whole))
    return Since(before.recorded.ref, before.recorded.at, changes, tuple(_fact_changes(seen_then, seen_now)))


def score_changes(before: Judgement, now: Judgement, *, inputs: bool = True) -> Iterator[Change]:
    """Of the model, of what it said, and of what it read."""
    if before.model.id != now.model.id:
        yield Change(t("case.model"), before.model.id, now.model.id)
    was, said = before.score, now.score
    if (was.abstained is None) != (said.abstained is None) or was.abstained != said.abstained:
        yield Change(t("case.answer"), was.abstained or t("case.an_estimate"), said.abstained or t("case.an_estimate"))
    if said.probability != was.probability and not curves(now):
        yield Change(t("case.probability"), _percent(was.probability), _percent(said.probability))
    then = {each.title: each for each in curves(before)}
    for each in curves(now):
        earlier = then.get(each.title)
        told, tells = (f"{earlier.percent[9]:.1f} %" if earlier else _NONE), f"{each.percent[9]:.1f} %"
        if told != tells:
            yield Change(t("case.alive_ten", title=each.title), told, tells)
    if course := curves(now):
        last = curves(before)[-1:]
        told, tells = (f"{last[0].percent[9]:.1f} %" if last else _NONE), f"{course[-1].percent[9]:.1f} %"
        if told != tells and (not last or last[0].title != course[-1].title):
            yield Change(t("case.alive_ten", title=t("case.with_all")), told, tells)
    if "points" in said.outputs or "points" in was.outputs:
        told, tells = _points(before), _points(now)
        if told != tells:
            yield Change(t("case.points"), told, tells)
    if inputs:
        yield from _feature_changes(before, now)


def _feature_changes(before: Judgement, now: Judgement) -> Iterator[Change]:
    was = {(v.modality, f.name): f.label for v in before.vectors for f in v.features}
    for vector in now.vectors:
        named = titles.inputs(now.model, vector)
        for feature in vector.features:
            told = was.get((vector.modality, feature.name), _NONE)
            if feature.name in named and told != feature.label:
                yield Change(named[feature.name], told or _NONE, feature.label or _NONE)


def _fact_changes(before: Sequence[Fact], now: Sequence[Fact]) -> Iterator[Change]:
    """By record, document and code: what came, what went, what says something else."""
    was, tells = _said(before), _said(now)
    found = []
    for key in sorted(was.keys() | tells.keys()):
        told, said = was.get(key), tells.get(key)
        if told is None or said is None or told[1] != said[1]:
            what, document = (said or told or ("", ""))[0], key[1]
            found.append(Change(f"{what} ({document})", told[1] if told else _NONE, said[1] if said else _NONE))
    yield from found[:MOST]
    if len(found) > MOST:
        yield Change(t("case.more_facts", count=len(found) - MOST), "", "")


def _said(facts: Sequence[Fact]) -> dict[tuple[str, str, str, int], tuple[str, str]]:
    said: dict[tuple[str, str, str, int], tuple[str, str]] = {}
    for fact in facts:
        number = 0
        while (key := (fact.record, fact.source.resource, fact.code.token, number)) in said:
            number += 1
        said[key] = (fact.code.display or fact.code.code, value_of(fact))
    return said


def value_of(fact: Fact) -> str:
    """A fact's value in one line."""
    if fact.problem:
        return t("timeline.unusable", why=fact.problem)
    if fact.number is not None:
        return f"{fact.comparator or ''}{fact.number} {fact.unit or ''}".strip()
    if fact.coded:
        return "; ".join(each.display or each.code for each in fact.coded[:3])
    return fact.text or (t("timeline.absent", why=fact.absent_reason) if fact.absent_reason else t("timeline.recorded"))


def _percent(share: float | None) -> str:
    return _NONE if share is None else f"{100 * share:.1f} %"


def _points(judgement: Judgement) -> str:
    found = judgement.score.outputs.get("points")
    return f"{float(found[0]):g}" if found else _NONE
