"""Clinical modality: what PREDICT Breast needs, read from facts about one chosen tumour.

The rules against mixing two tumours stand in `models.tumour`; how one value is picked stands in `models.features`. Age
is the age at diagnosis, as PREDICT defines its first input (Candido dos Reis 2017, Breast Cancer Res 19:58, "age at
diagnosis"), in completed years, as the official program asks for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from models import codes, features
from models.canonical import digest
from models.codes import Key
from models.errors import BadInput
from models.features import NOTHING, Definition, Picked, pick
from models.inputs import checked
from models.nouns import JSON, Feature, FeatureVector, Snapshot
from models.tumour import Slots, Tumour, by_question, category, chosen, outside_population, speaks_of, verification

NAME = "clinical"

_SOURCES = ("codes.py", "features.py", "inputs.py", "modalities/clinical.py", "tumour.py")
_ROOM = Path(__file__).parent.parent
DEFINITIONS: list[dict[str, Any]] = [definition.plain() for definition in features.PREDICT_BREAST]
ENCODER = digest(
    {
        "sources": {name: hashlib.sha256((_ROOM / name).read_bytes()).hexdigest() for name in _SOURCES},
        "features": DEFINITIONS,
    }
)

_CONTEXT = (
    codes.BREAST_CANCER, codes.IN_SITU, codes.METASTASIS, codes.BIRTH_DATE, codes.SEX, codes.PT, codes.PN, codes.M,
)  # fmt: skip
_SLOT: dict[Key, str] = {
    key: code_set.name
    for code_set in (*_CONTEXT, *(definition.codes for definition in features.PREDICT_BREAST))
    for key in code_set.codes
}
_WANTED = frozenset(f"{system}|{code}" for system, code in _SLOT)
_RECEPTORS = (features.GRADE, features.ER, features.HER2, features.KI67, features.PR, features.SMOKER)
_PT = frozenset(codes.PT_SIZE)
_SCREEN = Feature("screen", 2.0, True, (), "unknown", None, "unknown: the equation takes 0.204")
_REQUIRED = {
    "age": "age at diagnosis",
    "size": "tumour size",
    "nodes": "number of positive nodes",
    "er": "ER status",
}
"""What PREDICT requires; another model of this modality states its own in its part of the manifest (`required`)."""
_ANY_AGE = (0.0, 150.0)


def facts_wanted(manifest: JSON) -> frozenset[str]:
    """Code tokens that a snapshot for this modality asks for."""
    return _WANTED


def encode(snapshot: Snapshot, manifest: JSON) -> FeatureVector:
    """The 17 inputs of PREDICT Breast v3.2, in the manifest's column order.

    `snapshot.context` may carry `focus` (`Condition/id`, the chosen tumour) and `what_if` (column -> number).
    """
    slots = by_question(snapshot.facts, _SLOT)
    tumour = chosen(slots, snapshot.context.get("focus"))
    if isinstance(tumour, str):
        return _absent(tumour)
    outside = outside_population(slots, tumour)
    if outside:
        return _absent(outside)

    today = snapshot.clinical_time[:10]
    found = _values(slots, tumour, today)
    found["age"] = _age(slots, tumour, found["size"])
    _parameters(found, manifest)
    _what_if(found, snapshot.context.get("what_if"), manifest)
    vector = tuple(found[name] for name in manifest["columns"])
    return FeatureVector(NAME, ENCODER, vector, _lacking(found, manifest), _cautions(slots, tumour, found))


def _absent(reason: str) -> FeatureVector:
    return FeatureVector(NAME, ENCODER, (), reason)


# ---- what -----------------------------------------------------------------------------------------------------------


def _values(slots: Slots, tumour: Tumour, today: str) -> dict[str, Feature]:
    day = features.calendar(tumour.fact.effective)
    diagnosed = day.ordinal if day else None
    reference = tumour.reference

    def picked(definition: Definition) -> Picked:
        facts = slots.get(definition.codes.name)
        if not facts:
            return NOTHING
        if definition.of_tumour:
            facts = [fact for fact in facts if speaks_of(tumour, fact)]
        return pick(definition, facts, today, diagnosed, reference)

    found = {definition.name: _feature(definition, picked(definition)) for definition in _RECEPTORS}
    found["size"] = _feature(features.SIZE, picked(features.SIZE))
    found["nodes"] = _nodes(slots, tumour, picked(features.NODES), picked(features.SENTINEL_NODES))
    return found


def _feature(definition: Definition, found: Picked) -> Feature:
    if found.value is None:
        note = "; ".join(text for text in (found.note, definition.unknown_note) if text) or None
        return Feature(definition.name, definition.unknown, True, found.facts, "unknown", None, note)
    label = definition.label(found.value)
    return Feature(definition.name, found.value, False, found.facts, label, found.effective, found.note)


def _nodes(slots: Slots, tumour: Tumour, all_nodes: Picked, sentinel: Picked) -> Feature:
    """All regional nodes, else sentinel nodes, else pN0. Other pN categories give no exact count: unknown."""
    if all_nodes.value is not None or all_nodes.note:
        return _feature(features.NODES, all_nodes)
    if sentinel.value is not None:
        feature = _feature(features.SENTINEL_NODES, sentinel)
        only = "counts sentinel nodes only" + (f"; {sentinel.note}" if sentinel.note else "")
        return Feature("nodes", feature.value, False, feature.facts, feature.label, feature.effective, only)
    if sentinel.note:
        return _feature(features.SENTINEL_NODES, sentinel)
    zero = category(slots, tumour, codes.PN.name, codes.PN_ZERO)
    positive = category(slots, tumour, codes.PN.name, codes.PN_POSITIVE)
    if zero and not positive:
        ids = tuple(fact.id for fact in zero)
        return Feature("nodes", 0.0, False, ids, "0", zero[-1].effective, "no count recorded; derived from pN0")
    note: str | None = None
    if positive:
        note = "pN categories disagree" if zero else "pN tells that nodes are positive, not how many"
    return Feature("nodes", features.NAN, True, tuple(f.id for f in (*zero, *positive)), "unknown", None, note)


def _age(slots: Slots, tumour: Tumour, size: Feature) -> Feature:
    births = slots.get(codes.BIRTH_DATE.name, ())
    texts = {fact.text for fact in births if fact.text}
    ids = tuple(fact.id for fact in births)
    when, notes = tumour.fact.effective, []
    if when is None and size.effective:
        when = size.effective
        notes.append("date of diagnosis not recorded: age at the measurement of the tumour")
    if len(texts) > 1:
        return Feature("age", features.NAN, True, ids, "unknown", None, "recorded dates of birth disagree")
    birth, day = features.calendar(texts.pop() if texts else None), features.calendar(when)
    if birth is None or day is None:
        which = "birth" if birth is None else "diagnosis"
        return Feature("age", features.NAN, True, ids, "unknown", None, f"no usable date of {which}")
    age = features.completed_years(birth, day)
    if birth.partial or day.partial:
        notes.append("a date is known to the month or year only: its middle was taken")
    note = "; ".join(notes) or None
    return Feature("age", float(age), False, (*ids, tumour.fact.id), f"{age} years", when, note)


def _parameters(found: dict[str, Feature], manifest: JSON) -> None:
    """Governed parameters: what no fact says, by decision of those who released the model (see the manifest)."""
    for name, (value, label) in manifest["parameters"].items():
        found[name] = _parameter(name, value, label)
    found["screen"] = _SCREEN


@lru_cache(maxsize=256, typed=True)
def _parameter(name: str, value: float, label: str) -> Feature:
    """The same for every patient: made once."""
    return Feature(name, value, False, (), label)


def _what_if(found: dict[str, Feature], what_if: object, manifest: JSON) -> None:
    if not isinstance(what_if, Mapping):
        return
    rules = {rule["name"]: rule for rule in manifest["rules"] if rule["name"] != "year"}
    for name, value in what_if.items():
        if name not in rules:
            raise BadInput("a what-if input that this model does not have")
        number = checked(rules[name], value, where="what-if input")
        text = f"{number:g}"
        label = rules[name].get("words", {}).get(text, text)
        found[name] = Feature(name, number, False, (), label, None, "as asked in this request")


def _lacking(found: dict[str, Feature], manifest: JSON) -> str | None:
    required = manifest.get("required", _REQUIRED)
    lacking = [words for name, words in required.items() if found[name].missing]
    if lacking:
        return f"required and not usable: {', '.join(lacking)}"
    low, high = manifest["population"].get("age", _ANY_AGE)
    if "age" in required and not low <= found["age"].value <= high:
        return f"the equation holds for an age of {low:g} to {high:g} years at diagnosis"
    return None


def _cautions(slots: Slots, tumour: Tumour, found: dict[str, Feature]) -> tuple[str, ...]:
    cautions = []
    for fact in category(slots, tumour, codes.PT.name, _PT):
        name, low, high = next(
            codes.PT_SIZE[key] for coding in fact.coded if (key := (coding.system, coding.code)) in codes.PT_SIZE
        )
        if not found["size"].missing and not low < found["size"].value <= high:
            cautions.append(f"the recorded {name} does not fit the recorded tumour size; one of them is wrong")
    count = found["nodes"]
    positive = bool(category(slots, tumour, codes.PN.name, codes.PN_POSITIVE))
    zero = bool(category(slots, tumour, codes.PN.name, codes.PN_ZERO))
    if not count.missing and ((count.value == 0 and positive) or (count.value > 0 and zero)):
        cautions.append("the recorded pN category does not fit the number of positive nodes")
    if not category(slots, tumour, codes.M.name, codes.M0):
        cautions.append("no M category is recorded; absence of metastasis is assumed")
    if verification(tumour.fact)[0] not in ("confirmed", ""):
        cautions.append("the diagnosis is not recorded as confirmed")
    return tuple(cautions)
