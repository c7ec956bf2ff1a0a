"""KFRE modality: age, sex, eGFR and urine albumin-to-creatinine ratio of the kidney failure risk equation.

Tangri 2011, JAMA 305:1553-9; recalibrated Tangri 2016, JAMA 315:164-74 (four variables). It holds for chronic kidney
disease of stages G3 to G5, before dialysis or transplantation. An eGFR counts for 180 days, a ratio for 365: at least
the yearly check that KDIGO 2024 asks for; the figures are our decision. Nothing is assumed for a missing input.
"""

from __future__ import annotations

from models.codes import LOINC, CodeSet, keys
from models.current import Chart, Reading, code_sets
from models.features import Definition
from models.nouns import JSON, Feature, FeatureVector, Snapshot

NAME = "kfre"

_SETS = code_sets(__file__)
_DAY = 24.0
G3_BELOW = 60.0
"""mL/min/1.73 m²: stages G3a to G5 (KDIGO)."""

EGFR = Definition(
    "egfr", "eGFR",
    CodeSet("eGFR", "Creatinine-based: CKD-EPI 2021 and 2009, MDRD; cystatin C is out.",
            "LOINC 98979-8, 62238-1, 33914-3", keys((LOINC, "98979-8 62238-1 33914-3"))),
    units=frozenset({"mL/min/{1.73_m2}"}), plausible=(1.0, 200.0), max_age_hours=180 * _DAY, suffix=" mL/min/1.73 m²",
)  # fmt: skip
ACR = Definition(
    "acr", "Urine albumin-to-creatinine ratio",
    CodeSet("urine albumin-to-creatinine ratio", "By mass; a ratio in mg/mmol does not convert and is refused.",
            "LOINC 9318-7, 14959-1", keys((LOINC, "9318-7 14959-1"))),
    units=frozenset({"mg/g"}), plausible=(0.1, 25000.0), max_age_hours=365 * _DAY, suffix=" mg/g",
)  # fmt: skip

DEFINITIONS = (EGFR, ACR)
_READING = Reading.of(NAME, __file__, DEFINITIONS, _SETS.values())
ENCODER = _READING.encoder


def facts_wanted(manifest: JSON) -> frozenset[str]:
    """Code tokens that a snapshot for this modality asks for."""
    return _READING.wanted


def encode(snapshot: Snapshot, manifest: JSON) -> FeatureVector:
    """Age, sex, eGFR, ratio; and the governed parameter that chooses the calibration."""
    chart = _READING.chart(snapshot)
    found = {each.name: chart.value(each) for each in DEFINITIONS}
    found["age"], found["male"] = chart.age(), chart.sex("male", one="male")
    known = chart.diagnoses(_SETS["ckd"])
    cautions = [] if known else ["chronic kidney disease is not on record: one low eGFR does not make it chronic"]
    return _READING.vector(found, manifest, snapshot.context, _outside(chart, manifest, found), cautions)


def _outside(chart: Chart, manifest: JSON, found: dict[str, Feature]) -> str | None:
    if chart.diagnoses(_SETS["replaced"], past=False):
        return "dialysis, a transplant or end-stage kidney disease is recorded: the equation holds before it"
    youngest, oldest = manifest["population"]["age"]
    if not found["age"].missing and not youngest <= found["age"].value <= oldest:
        return f"the equation holds for an age of {youngest:g} to {oldest:g} years"
    if not found["egfr"].missing and found["egfr"].value >= G3_BELOW:
        return "the equation holds for stages G3 to G5: an eGFR below 60 mL/min/1.73 m²"
    return None
