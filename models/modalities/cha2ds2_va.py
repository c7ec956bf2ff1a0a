"""CHA2DS2-VA modality: age and five diagnoses of a person with atrial fibrillation.

ESC 2024 (Van Gelder 2024, Eur Heart J 45:3314-414, Table 10): CHA2DS2-VASc (Lip 2010) without sex. The score counts
what is on record. A diagnosis that is not on record counts as absent, is marked so, and the score is then a lower
bound: a list of problems is seldom complete. Age and atrial fibrillation must be on record.
"""

from __future__ import annotations

from models.current import Chart, Reading, code_sets
from models.nouns import JSON, Feature, FeatureVector, Snapshot

NAME = "cha2ds2-va"

_SETS = code_sets(__file__)
ITEMS = ("heart_failure", "hypertension", "diabetes", "stroke", "vascular")
HISTORY = frozenset({"heart_failure", "stroke", "vascular"})
"""Counted also when over: the definitions speak of history or previous events."""
_READING = Reading.of(NAME, __file__, (), _SETS.values())
ENCODER = _READING.encoder


def facts_wanted(manifest: JSON) -> frozenset[str]:
    """Code tokens that a snapshot for this modality asks for."""
    return _READING.wanted


def encode(snapshot: Snapshot, manifest: JSON) -> FeatureVector:
    """Age, then 1 for each diagnosis on record."""
    chart = _READING.chart(snapshot)
    found = {name: chart.diagnosis(name, _SETS[name], past=name in HISTORY) for name in ITEMS}
    found["age"] = chart.age()
    unknown = [_SETS[name].name for name in ITEMS if found[name].missing]
    cautions = [f"not on record and counted as absent: {'; '.join(unknown)}. The score is a lower bound"]
    return _READING.vector(
        found, manifest, snapshot.context, _outside(chart, manifest, found["age"]), cautions if unknown else ()
    )


def _outside(chart: Chart, manifest: JSON, age: Feature) -> str | None:
    if not chart.diagnoses(_SETS["af"]):
        return "no atrial fibrillation is recorded"
    youngest, _ = manifest["population"]["age"]
    if not age.missing and age.value < youngest:
        return f"the score holds for adults ({youngest:g} years or more)"
    return None
