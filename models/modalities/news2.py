"""NEWS2 modality: the seven physiological parameters of the National Early Warning Score 2, as last observed.

Royal College of Physicians 2017, "National Early Warning Score (NEWS) 2". Vital signs older than twelve hours are not
used: twelve hours is the longest interval between observations that the RCP allows, for a score of 0 (chart 4). Nothing
that was not observed counts as normal: the score abstains. Scale 2 of oxygen saturation is chosen by a clinician only.
"""

from __future__ import annotations

from datetime import timedelta

from models.codes import LOINC, SCT, CodeSet, answers, keys
from models.current import Chart, Reading, began, code_sets
from models.features import NAN, USABLE, Definition
from models.nouns import JSON, Fact, Feature, FeatureVector, Snapshot

NAME = "news2"

_HOURS = 12.0
_PREGNANT_FOR = timedelta(days=300)
_APART = timedelta(hours=1)
_SETS = code_sets(__file__)
_COUNT = frozenset({"/min"})

RESPIRATION = Definition(
    "respiration", "Respiration rate",
    CodeSet("respiration rate", "Breaths a minute.", "FHIR R4 vital signs: LOINC 9279-1", keys((LOINC, "9279-1"))),
    units=_COUNT, plausible=(1.0, 80.0), max_age_hours=_HOURS, suffix=" a minute",
)  # fmt: skip
SPO2 = Definition(
    "spo2", "Oxygen saturation",
    CodeSet("oxygen saturation", "Pulse oximetry or arterial blood.", "FHIR R4 vital signs: LOINC 2708-6, 59408-5",
            keys((LOINC, "2708-6 59408-5"))),
    units=frozenset({"%"}), plausible=(30.0, 100.0), max_age_hours=_HOURS, suffix=" %",
)  # fmt: skip
_ON_OXYGEN = CodeSet(
    "air or oxygen", "Whether the person breathes air or oxygen: answers, or a bare finding.",
    "SNOMED CT 371825009 with yes or no, 722742002, as in Care Connect and openEHR guides of the United Kingdom",
    keys((SCT, "371825009 722742002")),
)  # fmt: skip
OXYGEN = Definition(
    "oxygen", "Air or oxygen", _ON_OXYGEN,
    answers({1.0: [(SCT, "373066001 371825009")], 0.0: [(SCT, "373067005 722742002")]}),
    max_age_hours=_HOURS, words={0.0: "air", 1.0: "oxygen"},
)  # fmt: skip
_FLOW = Definition(
    "oxygen", "Air or oxygen",
    CodeSet("oxygen flow", "Flow of inhaled oxygen; 0 is air.", "US Core pulse oximetry: LOINC 3151-8",
            keys((LOINC, "3151-8"))),
    units=frozenset({"L/min"}), plausible=(0.0, 80.0), threshold=0.0, max_age_hours=_HOURS,
    words={0.0: "air", 1.0: "oxygen"},
)  # fmt: skip
_CONCENTRATION = Definition(
    "oxygen", "Air or oxygen",
    CodeSet("oxygen concentration", "Inhaled; up to 21 % is air.", "US Core pulse oximetry: LOINC 3150-6",
            keys((LOINC, "3150-6"))),
    units=frozenset({"%"}), plausible=(20.0, 100.0), threshold=21.0, max_age_hours=_HOURS,
    words={0.0: "air", 1.0: "oxygen"},
)  # fmt: skip
SYSTOLIC = Definition(
    "systolic", "Systolic blood pressure",
    CodeSet("systolic blood pressure", "Any site and method.", "FHIR R4 vital signs: LOINC 8480-6",
            keys((LOINC, "8480-6"))),
    units=frozenset({"mm[Hg]"}), plausible=(20.0, 300.0), max_age_hours=_HOURS, suffix=" mm Hg",
)  # fmt: skip
PULSE = Definition(
    "pulse", "Pulse",
    CodeSet("pulse", "Heart or pulse rate.", "FHIR R4 vital signs: LOINC 8867-4", keys((LOINC, "8867-4"))),
    units=_COUNT, plausible=(10.0, 300.0), max_age_hours=_HOURS, suffix=" a minute",
)  # fmt: skip
CONSCIOUSNESS = Definition(
    "consciousness", "Consciousness",
    CodeSet("consciousness", "ACVPU; the Glasgow Coma Scale is another question.",
            "LOINC 67775-7; SNOMED CT 1104441000000107 (UK edition), as in UK Core",
            keys((LOINC, "67775-7"), (SCT, "1104441000000107"))),
    answers({0.0: [(SCT, "248234008"), (LOINC, "LA9340-6")],
             1.0: [(SCT, "130987000 300202002 450847001 422768004"),
                   (LOINC, "LA6560-2 LA17108-4 LA17107-6 LA9343-0")]}),
    max_age_hours=_HOURS, words={0.0: "alert", 1.0: "new confusion, or responds to voice or pain only, or not at all"},
)  # fmt: skip
TEMPERATURE = Definition(
    "temperature", "Temperature",
    CodeSet("body temperature", "Any site.", "FHIR R4 vital signs: LOINC 8310-5", keys((LOINC, "8310-5"))),
    units=frozenset({"Cel"}), plausible=(25.0, 45.0), max_age_hours=_HOURS, suffix=" °C",
)  # fmt: skip

DEFINITIONS = (RESPIRATION, SPO2, OXYGEN, _FLOW, _CONCENTRATION, SYSTOLIC, PULSE, CONSCIOUSNESS, TEMPERATURE)
_OBSERVED = (RESPIRATION, SPO2, SYSTOLIC, PULSE, CONSCIOUSNESS, TEMPERATURE)
_READING = Reading.of(NAME, __file__, DEFINITIONS, _SETS.values())
ENCODER = _READING.encoder


def facts_wanted(manifest: JSON) -> frozenset[str]:
    """Code tokens that a snapshot for this modality asks for."""
    return _READING.wanted


def encode(snapshot: Snapshot, manifest: JSON) -> FeatureVector:
    """Seven parameters and the scale of oxygen saturation; absent where one was not observed in time."""
    chart = _READING.chart(snapshot)
    found = {definition.name: chart.value(definition) for definition in _OBSERVED}
    found["oxygen"] = _oxygen(chart)
    return _READING.vector(found, manifest, snapshot.context, _outside(chart, manifest), _cautions(chart, found))


def _oxygen(chart: Chart) -> Feature:
    """The latest statement of any kind; statements of one moment must agree."""
    every = [chart.value(definition) for definition in (OXYGEN, _FLOW, _CONCENTRATION)]
    every += [_finding(fact) for fact in chart.facts(_ON_OXYGEN) if _is_finding(chart, fact)]
    known = [each for each in every if not each.missing]
    if not known:
        notes = dict.fromkeys(each.note for each in every if each.note)
        return Feature("oxygen", NAN, True, (), "unknown", None, "; ".join(notes) or None)
    last = max(began(each.effective) for each in known)
    newest = [each for each in known if began(each.effective) == last]
    if any(each.value != newest[0].value for each in newest):
        ids = tuple(fact for each in newest for fact in each.facts)
        return Feature("oxygen", NAN, True, ids, "unknown", None, "results of the same time disagree")
    return newest[0]


def _is_finding(chart: Chart, fact: Fact) -> bool:
    """Stated by its code alone, in time: no value, and no reason why there is none."""
    stated = fact.number is None and not fact.coded and fact.text is None and fact.absent_reason is None
    oldest = chart.now - timedelta(hours=_HOURS)
    return stated and fact.status in USABLE and oldest <= began(fact.effective) <= chart.now


def _finding(fact: Fact) -> Feature:
    value = OXYGEN.answers[SCT, fact.code.code]
    return Feature("oxygen", value or 0.0, False, (fact.id,), OXYGEN.label(value or 0.0), fact.effective)


def _outside(chart: Chart, manifest: JSON) -> str | None:
    youngest, _ = manifest["population"]["age"]
    age = chart.age()
    if age.missing:
        return f"{age.note}: NEWS2 is for persons of {youngest:g} years or more"
    if age.value < youngest:
        return f"NEWS2 is for persons of {youngest:g} years or more"
    since = chart.now - _PREGNANT_FOR
    if any(fact.effective is None or began(fact.effective) >= since for fact in chart.diagnoses(_SETS["pregnant"])):
        return "pregnancy is recorded; NEWS2 is not for pregnancy"
    return None


def _cautions(chart: Chart, found: dict[str, Feature]) -> list[str]:
    told = []
    times = {each.effective for each in found.values() if each.effective}
    moments = sorted(map(began, times))
    if moments and moments[-1] - moments[0] > _APART:
        told.append("the parameters were not observed together: more than an hour lies between the first and the last")
    if any("T" not in time for time in times):
        told.append("the time of day of an observation is not recorded")
    if chart.diagnoses(_SETS["hypercapnia"]):
        told.append(
            "hypercapnic respiratory failure is recorded: whether oxygen saturation is to be read on scale 2 (target "
            "88 to 92 %) is for a competent clinician to decide; scale 1 was used unless the request says otherwise"
        )
    return told
