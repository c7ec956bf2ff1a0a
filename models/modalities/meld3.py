"""MELD 3.0 modality: bilirubin, creatinine, INR, sodium, albumin, sex, and dialysis in the week before.

Kim 2021, Gastroenterology 161:1887-95; OPTN policy 9 (liver): bounds of the inputs, creatinine 3.0 after two or more
dialysis sessions within the seven days before the creatinine. Results count for seven days: the interval at which OPTN
asks candidates with a score of 25 or more to be measured again; taking it for all is our decision. A missing result
makes the score abstain; a dialysis that nobody recorded counts as none, and the score says so.
"""

from __future__ import annotations

from datetime import timedelta

from models.codes import LOINC, CodeSet, keys
from models.current import Chart, Reading, began, code_sets
from models.features import Definition
from models.nouns import JSON, Feature, FeatureVector, Snapshot

NAME = "meld3"

_SETS = code_sets(__file__)
_WEEK = 7 * 24.0
_MASS, _MOLAR, _SALT = frozenset({"mg/dL"}), frozenset({"umol/L"}), frozenset({"mmol/L"})

BILIRUBIN = Definition(
    "bilirubin", "Bilirubin",
    CodeSet("bilirubin", "Total, by mass, in serum.", "LOINC 1975-2", keys((LOINC, "1975-2"))),
    units=_MASS, plausible=(0.1, 100.0), max_age_hours=_WEEK, suffix=" mg/dL",
)  # fmt: skip
BILIRUBIN_MOLAR = Definition(
    "bilirubin", "Bilirubin",
    CodeSet("bilirubin, molar", "Total, by substance: 17.1 µmol/L are 1 mg/dL.", "LOINC 14631-6",
            keys((LOINC, "14631-6"))),
    units=_MOLAR, plausible=(1.71, 1710.0), max_age_hours=_WEEK, suffix=" µmol/L",
)  # fmt: skip
CREATININE = Definition(
    "creatinine", "Creatinine",
    CodeSet("creatinine", "By mass, in serum or blood.", "LOINC 2160-0, 38483-4", keys((LOINC, "2160-0 38483-4"))),
    units=_MASS, plausible=(0.1, 40.0), max_age_hours=_WEEK, suffix=" mg/dL",
)  # fmt: skip
CREATININE_MOLAR = Definition(
    "creatinine", "Creatinine",
    CodeSet("creatinine, molar", "By substance: 88.4 µmol/L are 1 mg/dL.", "LOINC 14682-9", keys((LOINC, "14682-9"))),
    units=_MOLAR, plausible=(8.84, 3536.0), max_age_hours=_WEEK, suffix=" µmol/L",
)  # fmt: skip
INR = Definition(
    "inr", "INR",
    CodeSet("INR", "In plasma or blood.", "LOINC 6301-6, 34714-6", keys((LOINC, "6301-6 34714-6"))),
    units=frozenset({None, "1"}), plausible=(0.5, 20.0), max_age_hours=_WEEK,
)  # fmt: skip
SODIUM = Definition(
    "sodium", "Sodium",
    CodeSet("sodium", "In serum or blood.", "LOINC 2951-2, 2947-0", keys((LOINC, "2951-2 2947-0"))),
    units=_SALT, plausible=(90.0, 200.0), max_age_hours=_WEEK, suffix=" mmol/L",
)  # fmt: skip
ALBUMIN = Definition(
    "albumin", "Albumin",
    CodeSet("albumin", "In serum.", "LOINC 1751-7", keys((LOINC, "1751-7"))),
    units=frozenset({"g/dL"}), plausible=(0.5, 8.0), max_age_hours=_WEEK, suffix=" g/dL",
)  # fmt: skip

DEFINITIONS = (BILIRUBIN, BILIRUBIN_MOLAR, CREATININE, CREATININE_MOLAR, INR, SODIUM, ALBUMIN)
MOLAR = {"bilirubin": (BILIRUBIN_MOLAR, 17.1), "creatinine": (CREATININE_MOLAR, 88.4)}
"""µmol/L in one mg/dL, as OPTN's calculator converts."""
_READING = Reading.of(NAME, __file__, DEFINITIONS, _SETS.values())
ENCODER = _READING.encoder


def facts_wanted(manifest: JSON) -> frozenset[str]:
    """Code tokens that a snapshot for this modality asks for."""
    return _READING.wanted


def encode(snapshot: Snapshot, manifest: JSON) -> FeatureVector:
    """Seven inputs as they were measured; the bounds are the graph's."""
    chart = _READING.chart(snapshot)
    found = {each.name: chart.value(each) for each in (BILIRUBIN, CREATININE, INR, SODIUM, ALBUMIN)}
    for name in MOLAR:
        found[name] = _either(chart, found[name])
    found["female"] = chart.sex("female", one="female")
    found["dialysis"] = _dialysis(chart, found["creatinine"])
    return _READING.vector(found, manifest, snapshot.context, _outside(chart, manifest))


def _either(chart: Chart, by_mass: Feature) -> Feature:
    """By mass or by substance, whichever is later."""
    definition, per = MOLAR[by_mass.name]
    molar = chart.value(definition)
    if molar.missing or (not by_mass.missing and began(by_mass.effective) >= began(molar.effective)):
        return molar if by_mass.missing and not by_mass.note else by_mass
    value = molar.value / per
    return Feature(by_mass.name, value, False, molar.facts, f"{value:.2f} mg/dL", molar.effective, f"{molar.label}")


def _dialysis(chart: Chart, creatinine: Feature) -> Feature:
    """1 after two sessions in the seven days before the creatinine; a day's or a week's continuous one is not seen."""
    until = chart.now if creatinine.missing else began(creatinine.effective)
    sessions = [
        fact
        for fact in chart.facts(_SETS["dialysis"])
        if fact.kind == "procedure" and fact.status == "completed" and fact.effective is not None
        and until - timedelta(days=7) <= began(fact.effective) <= until
    ]  # fmt: skip
    if not sessions:
        return Feature("dialysis", 0.0, True, (), "not recorded", None, "not recorded: counts as none")
    label = (
        f"{len(sessions)} sessions in the 7 days before" if len(sessions) > 1 else "one session in the 7 days before"
    )
    when = max(fact.effective for fact in sessions if fact.effective)
    return Feature("dialysis", float(len(sessions) > 1), False, tuple(fact.id for fact in sessions), label, when)


def _outside(chart: Chart, manifest: JSON) -> str | None:
    youngest, _ = manifest["population"]["age"]
    age = chart.age()
    if age.missing:
        return f"{age.note}: this release holds for adults"
    return f"this release holds for adults ({youngest:g} years or more)" if age.value < youngest else None
