"""Khorana modality: cancer site, blood counts, red cell growth factors and BMI before chemotherapy.

Khorana 2008, Blood 111:4902-7, Table 3. Sites are those of the publication; modified versions that add brain or kidney
are other scores. Blood counts count for 14 days and weight for 90: the publication says "before chemotherapy"; the
figures are our decision. A count or a BMI that is missing makes the score abstain. Red cell growth factors that nobody
recorded count as not given, and the score says so.
"""

from __future__ import annotations

from collections.abc import Mapping

from models.codes import LOINC, CodeSet, keys
from models.current import GIVEN, Chart, Reading, began, code_sets
from models.features import NAN, Definition
from models.nouns import JSON, Fact, Feature, FeatureVector, Snapshot

NAME = "khorana"

_SETS = code_sets(__file__)
_LABS, _WEIGHT, _HEIGHT = 14 * 24.0, 90 * 24.0, 5 * 365 * 24.0
_CELLS = frozenset({"10*3/uL"})

PLATELETS = Definition(
    "platelets", "Platelets",
    CodeSet("platelets", "Count in blood.", "LOINC 777-3 (automated), 26515-7", keys((LOINC, "777-3 26515-7"))),
    units=_CELLS, plausible=(1.0, 3000.0), max_age_hours=_LABS, suffix=" × 10⁹/L",
)  # fmt: skip
HAEMOGLOBIN = Definition(
    "haemoglobin", "Haemoglobin",
    CodeSet("haemoglobin", "Mass concentration in blood.", "LOINC 718-7", keys((LOINC, "718-7"))),
    units=frozenset({"g/dL"}), plausible=(2.0, 25.0), max_age_hours=_LABS, suffix=" g/dL",
)  # fmt: skip
LEUKOCYTES = Definition(
    "leukocytes", "Leukocytes",
    CodeSet("leukocytes", "Count in blood.", "LOINC 6690-2 (automated), 26464-8", keys((LOINC, "6690-2 26464-8"))),
    units=_CELLS, plausible=(0.1, 500.0), max_age_hours=_LABS, suffix=" × 10⁹/L",
)  # fmt: skip
BMI = Definition(
    "bmi", "Body mass index",
    CodeSet("body mass index", "As recorded.", "FHIR R4 vital signs: LOINC 39156-5", keys((LOINC, "39156-5"))),
    units=frozenset({"kg/m2"}), plausible=(10.0, 100.0), max_age_hours=_WEIGHT, suffix=" kg/m²",
)  # fmt: skip
WEIGHT = Definition(
    "weight", "Body weight",
    CodeSet("body weight", "Stands in, with the height, for a missing BMI.", "FHIR R4 vital signs: LOINC 29463-7",
            keys((LOINC, "29463-7 3141-9"))),
    units=frozenset({"kg"}), plausible=(25.0, 400.0), max_age_hours=_WEIGHT, suffix=" kg",
)  # fmt: skip
HEIGHT = Definition(
    "height", "Body height",
    CodeSet("body height", "Of an adult.", "FHIR R4 vital signs: LOINC 8302-2", keys((LOINC, "8302-2"))),
    units=frozenset({"cm"}), plausible=(100.0, 250.0), max_age_hours=_HEIGHT, suffix=" cm",
)  # fmt: skip

DEFINITIONS = (PLATELETS, HAEMOGLOBIN, LEUKOCYTES, BMI, WEIGHT, HEIGHT)
SITES = {"very_high": 2.0, "high": 1.0, "other": 0.0}
"""Code set -> points of the site."""
_READING = Reading.of(NAME, __file__, DEFINITIONS, _SETS.values())
ENCODER = _READING.encoder


def facts_wanted(manifest: JSON) -> frozenset[str]:
    """Code tokens that a snapshot for this modality asks for."""
    return _READING.wanted


def encode(snapshot: Snapshot, manifest: JSON) -> FeatureVector:
    """Six inputs. `snapshot.context` may carry `focus` (`Condition/id`, the cancer meant) and `draft_orders`."""
    chart = _READING.chart(snapshot)
    site = _site(chart, snapshot.context.get("focus"))
    outside = site if isinstance(site, str) else _outside(chart, manifest)
    found = {each.name: chart.value(each) for each in (PLATELETS, HAEMOGLOBIN, LEUKOCYTES)}
    found["site"] = Feature("site", NAN, True, (), "unknown") if isinstance(site, str) else site
    found["bmi"] = _bmi(chart)
    found["esa"] = _growth_factors(chart)
    return _READING.vector(found, manifest, snapshot.context, outside)


def _site(chart: Chart, focus: object) -> Feature | str:
    """The points of the cancer's site, or why it is not known. Two cancers of unequal points: one must be chosen."""
    found: list[tuple[float | None, Fact]] = [
        (SITES.get(key), fact) for key in (*SITES, "blood") for fact in chart.diagnoses(_SETS[key], past=False)
    ]
    if focus and any(fact.source.resource == focus for _, fact in found):
        found = [(points, fact) for points, fact in found if fact.source.resource == focus]
    if not found:
        return "no cancer of a known primary site is recorded"
    if len({points for points, _ in found}) > 1:
        return "two cancers are recorded whose sites count differently, none chosen"
    points = found[0][0]
    if points is None:
        return "the score holds for solid tumours and lymphoma, not for leukaemia or myeloma"
    told = dict.fromkeys(fact.code.display or fact.code.code for _, fact in found)
    when = max((fact.effective for _, fact in found if fact.effective), default=None)
    return Feature("site", points, False, tuple(fact.id for _, fact in found), ", ".join(told), when)


def _outside(chart: Chart, manifest: JSON) -> str | None:
    youngest, _ = manifest["population"]["age"]
    age = chart.age()
    if age.missing:
        return f"{age.note}: the score holds for adults"
    return f"the score holds for adults ({youngest:g} years or more)" if age.value < youngest else None


def _bmi(chart: Chart) -> Feature:
    """As recorded; else from weight and height, whose facts it then rests on."""
    stated, weight, height = (chart.value(each) for each in (BMI, WEIGHT, HEIGHT))
    if not stated.missing or weight.missing or height.missing:
        return stated
    value = weight.value / (height.value / 100.0) ** 2
    note = f"computed from weight and height; {stated.note}" if stated.note else "computed from weight and height"
    return Feature("bmi", value, False, (*weight.facts, *height.facts), f"{value:.1f} kg/m²", weight.effective, note)


def _growth_factors(chart: Chart) -> Feature:
    """1 where one is recorded in the last 90 days, or among the draft orders; else 0, marked missing."""
    given = [
        fact
        for fact in chart.facts(_SETS["esa"])
        if fact.kind == "medication" and fact.status in GIVEN and _recent(chart, fact)
    ]
    if given:
        when = max((fact.effective for fact in given if fact.effective), default=None)
        return Feature("esa", 1.0, False, tuple(fact.id for fact in given), "on record", when)
    orders = chart.context.get("draft_orders")
    drafted = [order for order in orders if isinstance(order, Mapping)] if isinstance(orders, list | tuple) else []
    if any(_key(coding) in _SETS["esa"].codes for order in drafted for coding in order.get("codings", ())):
        return Feature("esa", 1.0, False, (), "among the draft orders", None, "as drafted in this request")
    return Feature("esa", 0.0, True, (), "not recorded", None, "not recorded: counts as not given")


def _recent(chart: Chart, fact: Fact) -> bool:
    return fact.effective is not None and 0 <= (chart.now - began(fact.effective)).total_seconds() <= _WEIGHT * 3600


def _key(coding: Mapping[str, str]) -> tuple[str, str]:
    return coding.get("system", ""), coding.get("code", "")
