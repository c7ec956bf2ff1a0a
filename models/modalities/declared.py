"""Declared modality: a manifest states the features, and this encoder reads them. For models that a site enrols.

Each feature is an object as `models.features.Definition.plain` writes it: which codes ask the question, in which unit
and range the answer is believed, how old it may be, and what the model takes for unknown (without `unknown` it is
required). Beside these a column may be called `age` (completed years now) or `female` (1 or 0). The population may
state `age` [lowest, highest] and `sex`. Every value is the latest that is not too old; see `models.current`. A model
of several declared modalities gives each its own name, and `encoded_by`: `declared`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from models import codes
from models.canonical import canonical
from models.codes import CodeSet, Key
from models.current import Chart, Reading
from models.errors import ContractMismatch
from models.features import NAN, Definition
from models.nouns import JSON, Feature, FeatureVector, Snapshot
from models.strict import loads

NAME = "declared"

SYSTEMS = frozenset(
    {codes.LOINC, codes.SCT, codes.ICD10, codes.ICD10CM, codes.NCIT, codes.PATIENT}
    | {"http://www.nlm.nih.gov/research/umls/rxnorm", "http://www.whocc.no/atc", "http://www.genenames.org"}
)
"""Code systems that our readers know. Another one must stand in the modality's `own_systems`: a slip is seen."""
OF_PERSON = ("age", "female")
_CENTURY = 24.0 * 366 * 100
_READING = Reading.of(NAME, __file__, (), ())
ENCODER = _READING.encoder
_MEMBERS: Mapping[str, tuple[type, ...]] = {
    "name": (str,), "title": (str,), "codes": (dict,), "answers": (dict,), "units": (list,), "plausible": (list,),
    "whole": (bool,), "threshold": (float, int), "max_age_hours": (float, int), "unknown": (float, int),
    "unknown_note": (str,), "refused": (list,), "of_tumour": (bool,), "window_days": (float, int), "required": (bool,),
}  # fmt: skip


def facts_wanted(manifest: JSON) -> frozenset[str]:
    """Code tokens of the stated features, with date of birth and sex."""
    return _reading(manifest).wanted


def encode(snapshot: Snapshot, manifest: JSON) -> FeatureVector:
    """The stated features in the manifest's column order; absent where a required one lacks, or outside the population.

    Raises: BadInput, where a what-if input is not one of the manifest's rules.
    """
    reading = _reading(manifest)
    chart = reading.chart(snapshot)
    found: dict[str, Feature] = {definition.name: chart.value(definition) for definition in reading.definitions}
    found |= {"age": chart.age(), "female": chart.sex("female", one="female")}
    vector = reading.vector(found, manifest, snapshot.context, _outside(chart, manifest["population"]))
    return FeatureVector(manifest["name"], ENCODER, vector.features, vector.absent, vector.cautions)


def _outside(chart: Chart, population: JSON) -> str | None:
    if "age" in population:
        low, high = population["age"]
        age = chart.age()
        if age.missing:
            return f"{age.note}: the model is for persons of {low:g} to {high:g} years"
        if not low <= age.value <= high:
            return f"the model is for persons of {low:g} to {high:g} years"
    if "sex" in population:
        sex = chart.sex("sex", one=population["sex"])
        if sex.value != 1.0:
            return f"the model is for persons whose sex is recorded as {population['sex']}"
    return None


def definitions(part: JSON) -> tuple[Definition, ...]:
    """The features that a modality's part of a manifest states.

    Raises: ContractMismatch, naming the feature and what is wrong with it.
    """
    own = frozenset(part.get("own_systems", ()))
    found = tuple(_definition(stated, own) for stated in part["features"])
    names = [definition.name for definition in found]
    if len(set(names)) < len(names) or set(names) & set(OF_PERSON):
        raise ContractMismatch("two features have one name, or one is called age or female", where="features")
    return found


def _reading(manifest: JSON) -> Reading:
    return _made(canonical({"features": manifest["features"], "own_systems": manifest.get("own_systems", [])}))


@lru_cache(maxsize=32)
def _made(stated: bytes) -> Reading:
    """Reading a declaration again for each patient would cost more than reading the patient."""
    part = loads(stated, what="features")
    return Reading.of(NAME, __file__, definitions(_floats(part)), ())


def _floats(value: Any) -> Any:
    """Numbers as the manifest's loader has them (`models.shelf`): binary64."""
    if isinstance(value, dict):
        return {key: _floats(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_floats(member) for member in value]
    return value if isinstance(value, str | bool) or value is None else float(value)


def _definition(stated: Any, own: frozenset[str]) -> Definition:
    if not isinstance(stated, dict) or not isinstance(stated.get("name"), str) or not stated["name"].isidentifier():
        raise ContractMismatch("a feature has no name that can be a column's", where="features")
    name = stated["name"]
    for member, value in stated.items():
        if member not in _MEMBERS:
            raise ContractMismatch(f"feature {name} has a member that is not known", where="features")
        if value is not None and not isinstance(value, _MEMBERS[member]):
            raise ContractMismatch(f"feature {name}: {member} is of another type", where="features")
    asked = stated.get("codes") or {}
    tokens = asked.get("codes")
    if not tokens or not isinstance(tokens, list):
        raise ContractMismatch(f"feature {name} names no codes", where="features")
    answers = {_key(token, name, own): _answer(value, name) for token, value in (stated.get("answers") or {}).items()}
    age = stated.get("max_age_hours")
    if age is not None and not 0 < age <= _CENTURY:
        raise ContractMismatch(f"feature {name}: max_age_hours is not between 0 and a century", where="features")
    units = frozenset(unit or None for unit in stated.get("units") or ())
    if not units and not answers:
        raise ContractMismatch(f"feature {name} takes neither numbers (units) nor answers", where="features")
    unknown = stated.get("unknown")
    return Definition(
        name,
        stated.get("title") or name,
        CodeSet(
            name, asked.get("scope") or "", asked.get("source") or "", frozenset(_key(t, name, own) for t in tokens)
        ),
        answers,
        units=units,
        plausible=_range(stated.get("plausible"), name, needed=bool(units)),
        whole=bool(stated.get("whole")),
        threshold=stated.get("threshold"),
        max_age_hours=stated.get("max_age_hours"),
        of_tumour=False,
        unknown=NAN if unknown is None else float(unknown),
        unknown_note=stated.get("unknown_note"),
    )


def _key(token: Any, name: str, own: frozenset[str]) -> Key:
    system, _, code = token.rpartition("|") if isinstance(token, str) else ("", "", "")
    if not system or not code:
        raise ContractMismatch(f"feature {name} has a code that is not system|code", where="features")
    if system not in SYSTEMS and system not in own:
        raise ContractMismatch(
            f"feature {name} has a code of a system that is not known here; a site's own system stands in own_systems",
            where="features",
        )
    return system, code


def _answer(value: Any, name: str) -> float | None:
    if value is None or (isinstance(value, float | int) and not isinstance(value, bool)):
        return value
    raise ContractMismatch(f"feature {name} has an answer that is neither a number nor null", where="features")


def _range(stated: Sequence[Any] | None, name: str, *, needed: bool) -> tuple[float, float] | None:
    """What is believed; a feature that takes numbers must say."""
    if stated is None and not needed:
        return None
    if (
        stated is None
        or len(stated) != 2
        or not all(isinstance(end, float | int) for end in stated)
        or not stated[0] < stated[1]
    ):
        raise ContractMismatch(f"feature {name} does not state a plausible range [lowest, highest]", where="features")
    return float(stated[0]), float(stated[1])
