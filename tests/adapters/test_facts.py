"""One projection: what each kind of resource says, and how it says that it cannot be read."""

from __future__ import annotations

import gzip
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.readers.facts import PATIENT, project
from adapters.readers.subjects import subject_of
from adapters.terminology.codings import ABSENT, ICD10CM, LOINC, SNOMED, UNCODED, side
from models import strict
from models.errors import Unreadable
from models.nouns import Coding, Fact, Provenance

NOW = "2026-11-21T10:00:00.000000Z"
UCUM = "http://unitsofmeasure.org"


def facts(resource: dict[str, Any], pointer: str = "") -> tuple[Fact, ...]:
    name = f"{resource.get('resourceType')}/{resource.get('id')}"
    return project(resource, record="r", source=Provenance("0" * 32, 3, pointer, name, "fhir@1"), known_from=NOW)


def concept(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code}]}


def observation(**more: Any) -> dict[str, Any]:
    return {"resourceType": "Observation", "id": "o", "status": "final", "code": concept(LOINC, "1-8"), **more}


def one(**more: Any) -> Fact:
    (fact,) = facts(observation(**more))
    return fact


def test_an_observation_in_full() -> None:
    size = observation(
        code={
            "coding": [{"system": "urn:local", "code": "T"}, {"system": LOINC, "code": "33728-7", "display": "Size"}]
        },
        valueQuantity={"value": Decimal("2.50"), "unit": "cm", "system": UCUM, "code": "cm", "comparator": ">="},
        effectivePeriod={"start": "2018-04", "end": "2018-05-01"},
        focus=[{"reference": "Condition/c/_history/2"}],
        bodySite=concept(SNOMED, "80248007"),
        method=concept(SNOMED, "787377000"),
        specimen={"reference": "Specimen/s"},
        meta={"tag": [{"code": "HTEST"}], "security": [{"system": "urn:x", "code": "R"}]},
    )
    (fact,) = facts(size, "/entry/2/resource")
    assert fact == Fact(
        id="0" * 32 + "/3//entry/2/resource#0",
        record="r",
        kind="observation",
        codings=(Coding(LOINC, "33728-7", "Size"), Coding("urn:local", "T")),
        source=Provenance("0" * 32, 3, "/entry/2/resource", "Observation/o", "fhir@1"),
        known_from=NOW,
        number="25",
        unit="mm",
        comparator=">=",
        original=">=2.50 cm",
        status="final",
        effective="2018-04",
        effective_end="2018-05-01",
        focus=("Condition/c",),
        body_site=(Coding(SNOMED, "80248007"),),
        laterality="left",
        method=(Coding(SNOMED, "787377000"),),
        specimen="Specimen/s",
        labels=("urn:x|R",),
        test=True,
    )
    assert Fact.from_plain(fact.plain()) == fact


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            {"valueQuantity": {"value": 3, "unit": "x", "code": "{nodes}", "system": UCUM}},
            {"number": "3", "original": "3 x"},
        ),
        ({"valueInteger": 0}, {"number": "0", "original": "0"}),
        ({"valueString": "two nodes"}, {"text": "two nodes", "original": "two nodes"}),
        ({"valueBoolean": False}, {"text": "false", "original": "false"}),
        ({"valueDateTime": "2018"}, {"text": "2018", "original": "2018"}),
        ({"valueTime": "10:00:00"}, {"text": "10:00:00", "original": "10:00:00"}),
        (
            {"valueCodeableConcept": {"text": "rather positive"}},
            {"text": "rather positive", "original": "rather positive"},
        ),
        ({"valueCodeableConcept": concept(ABSENT, "not-applicable")}, {"absent_reason": "not-applicable"}),
        ({"dataAbsentReason": concept(ABSENT, "unknown")}, {"absent_reason": "unknown"}),
        ({"valueQuantity": {"unit": "mm"}}, {}),
        ({"valueQuantity": {}}, {}),
        ({"valueCodeableConcept": {"coding": [{}]}}, {}),
        ({}, {}),
        (
            {"valueRange": {"low": {"value": 1, "unit": "cm"}, "high": {"value": 2, "unit": "cm"}}},
            {"text": "1 cm - 2 cm", "original": "1 cm - 2 cm", "problem": "a range is not one number"},
        ),
        (
            {"valueRatio": {"numerator": {"value": 1}, "denominator": {"value": 128}}},
            {"text": "1 : 128", "original": "1 : 128", "problem": "a ratio is not one number"},
        ),
        ({"valueSampledData": {"data": "1 2"}}, {"problem": "sampled data stay in the resource"}),
        ({"valueAttachment": {}}, {"problem": "a kind of value that R4 observations do not have"}),
    ],
)
def test_each_kind_of_value(value: dict[str, Any], expected: dict[str, Any]) -> None:
    fact = one(**value)
    names = ("number", "unit", "text", "original", "problem", "absent_reason")
    assert {name: found for name in names if (found := getattr(fact, name)) is not None} == expected
    assert fact.coded == ()


def test_a_coded_answer_keeps_all_its_codings_once() -> None:
    answer = {"coding": [*concept("urn:l", "P")["coding"], *concept(LOINC, "LA6576-8")["coding"] * 2], "text": "pos"}
    fact = one(valueCodeableConcept=answer)
    assert fact.coded == (Coding(LOINC, "LA6576-8"), Coding("urn:l", "P"))
    assert fact.original == "pos"


def test_components_are_facts_after_their_observation() -> None:
    panel = observation(
        component=[{"code": concept(LOINC, "8480-6"), "valueQuantity": {"value": 120, "code": "mm[Hg]"}}, {}]
    )
    whole, systolic = facts(panel)
    assert (whole.id[-2:], whole.number) == ("#0", None)
    assert (systolic.id[-2:], systolic.number, systolic.unit) == ("#1", "120", "mm[Hg]")
    assert systolic.source.pointer == "/component/0"
    assert systolic.status == "final"


def test_words_never_serve_as_a_code() -> None:
    assert one(code={"text": "lump of Jenny"}).code == Coding(UNCODED, "UNC", "lump of Jenny")
    assert facts(observation(code={"coding": [{"display": "no code"}]})) == ()


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"code": "33728-7"}, "/code"),
        ({"code": {"coding": {}}}, "/code/coding"),
        ({"code": {"coding": ["x"]}}, "/code/coding/0"),
        ({"code": {"coding": [{"code": 5}]}}, "/code/coding/0/code"),
        ({"valueQuantity": "2.5 cm"}, "/valueQuantity"),
        ({"valueQuantity": {"value": "abc"}}, "/valueQuantity/value"),
        ({"valueQuantity": {"value": True}}, "/valueQuantity/value"),
        ({"valueQuantity": {"value": 1, "code": 2}}, "/valueQuantity/code"),
        ({"valueQuantity": {"value": 1, "comparator": "~"}}, "/valueQuantity/comparator"),
        ({"valueInteger": Decimal("1.5")}, "/valueInteger"),
        ({"valueBoolean": "true"}, "/valueBoolean"),
        ({"valueString": "a", "valueInteger": 1}, "/valueInteger"),
        ({"status": ["final"]}, "/status"),
        ({"effectiveDateTime": 2018}, "/effectiveDateTime"),
        ({"focus": {"reference": "Condition/c"}}, "/focus"),
        (
            {"component": [{"code": concept(LOINC, "1"), "valueQuantity": {"value": []}}]},
            "/component/0/valueQuantity/value",
        ),
        ({"meta": []}, "/meta"),
        ({"modifierExtension": [{"url": "urn:negated"}]}, "/modifierExtension"),
        ({"component": [{"modifierExtension": [{"url": "urn:negated"}]}]}, "/component/0/modifierExtension"),
    ],
)
def test_a_wrong_type_is_unreadable_at_its_place(wrong: dict[str, Any], where: str) -> None:
    with pytest.raises(Unreadable) as refusal:
        facts(observation(**wrong))
    assert refusal.value.where == where


def test_a_patient_has_no_name_in_its_facts() -> None:
    patient = {
        "resourceType": "Patient",
        "id": "p",
        "name": [{"family": "Miller"}],
        "address": [{"city": "Anytown"}],
        "birthDate": "1965-01-01",
        "gender": "female",
        "deceasedDateTime": "2020",
    }
    found = facts(patient)
    assert [(fact.code.system, fact.code.code) for fact in found] == [
        (PATIENT, "birthDate"), (PATIENT, "gender"), (PATIENT, "deceased"),
    ]  # fmt: skip
    assert [fact.text for fact in found] == ["1965-01-01", None, "true"]
    assert found[1].coded[0].code == "female"
    assert not any(word in str([fact.plain() for fact in found]) for word in ("Miller", "Anytown"))


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"code": concept(SNOMED, "353431000119107")}, "left"),
        ({"code": concept(ICD10CM, "C50.411")}, "right"),
        ({"code": concept(ICD10CM, "C50.919")}, None),
        ({"code": concept(ICD10CM, "C61"), "bodySite": [concept(SNOMED, "73056007")]}, "right"),
        ({"code": concept(SNOMED, "353431000119107"), "bodySite": [concept(SNOMED, "73056007")]}, None),
        (
            {
                "code": concept(SNOMED, "254837009"),
                "bodySite": [
                    {
                        **concept(SNOMED, "76752008"),
                        "extension": [
                            {
                                "url": "http://hl7.org/fhir/us/mcode/StructureDefinition/mcode-laterality-qualifier",
                                "valueCodeableConcept": concept(SNOMED, "7771000"),
                            }
                        ],
                    }
                ],
            },
            "left",
        ),
    ],
)
def test_a_side_is_named_or_is_unknown(more: dict[str, Any], expected: str | None) -> None:
    (fact,) = facts({"resourceType": "Condition", "id": "c", **more})
    assert fact.laterality == expected


def test_a_condition_says_how_sure_and_how_active() -> None:
    system = "http://terminology.hl7.org/CodeSystem/condition-"
    condition = {
        "resourceType": "Condition",
        "id": "c",
        "code": concept(SNOMED, "254837009"),
        "verificationStatus": concept(system + "ver-status", "confirmed"),
        "onsetAge": {"value": 53, "code": "a"},
        "recordedDate": "2018-03-16",
        "stage": [{"summary": concept(SNOMED, "1222769001")}],
    }
    cancer, stage = facts(condition)
    assert (cancer.status, cancer.effective, cancer.original) == ("confirmed/", "2018-03-16", "onset 53 a")
    assert (stage.kind, stage.focus, stage.coded[0].code) == ("condition-stage", ("Condition/c",), "1222769001")


def test_a_stage_keeps_nothing_of_its_condition_or_of_the_stage_before_but_what_they_share() -> None:
    resource = {
        "resourceType": "Condition",
        "id": "c",
        "code": concept(SNOMED, "254837009"),
        "onsetDateTime": "2018",
        "abatementDateTime": "2020",
        "stage": [
            {"summary": concept(SNOMED, "1228889001"), "type": concept(SNOMED, "260998006")},
            {"summary": concept(SNOMED, "1229967007")},
        ],
    }
    condition, first, second = facts(resource)
    assert [fact.effective for fact in (condition, first, second)] == ["2018"] * 3
    assert [fact.effective_end for fact in (condition, first, second)] == ["2020", None, None]
    assert [fact.focus for fact in (condition, first, second)] == [(), ("Condition/c",), ("Condition/c",)]
    assert [fact.method for fact in (condition, first, second)] == [(), (Coding(SNOMED, "260998006"),), ()]
    assert [fact.source.pointer for fact in (condition, first, second)] == ["", "/stage/0", "/stage/1"]


def test_other_resources() -> None:
    rxnorm = "http://www.nlm.nih.gov/research/umls/rxnorm"
    given_dose = {
        "resourceType": "MedicationAdministration",
        "id": "m",
        "status": "completed",
        "medicationReference": {"reference": "#m"},
        "contained": [{"resourceType": "Medication", "id": "m", "code": concept(rxnorm, "3639")}],
        "effectiveDateTime": "2018-04-22",
        "dosage": {"dose": {"value": Decimal("105.96"), "unit": "mg"}},
        "reasonReference": [{"reference": "Condition/c"}],
    }
    (dose,) = facts(given_dose)
    assert (dose.kind, dose.code.code, dose.original, dose.focus) == (
        "medication",
        "3639",
        "105.96 mg",
        ("Condition/c",),
    )
    (aunt,) = facts(
        {
            "resourceType": "FamilyMemberHistory",
            "id": "f",
            "relationship": concept("http://terminology.hl7.org/CodeSystem/v3-RoleCode", "MAUNT"),
            "condition": [{"code": concept(SNOMED, "363443007"), "onsetAge": {"value": Decimal("69.0"), "code": "a"}}],
        }
    )
    assert (aunt.kind, aunt.coded[0].code, aunt.original) == ("family-history", "MAUNT", "onset 69 a")
    (vaccine,) = facts(
        {
            "resourceType": "Immunization",
            "id": "i",
            "vaccineCode": concept("urn:cvx", "140"),
            "occurrenceString": "once",
        }
    )
    assert (vaccine.kind, vaccine.effective) == ("immunization", None)
    assert facts({"resourceType": "Organization", "id": "o"}) == ()


def test_an_order_not_to_do_something_is_no_order() -> None:
    order = {"resourceType": "MedicationRequest", "id": "m", "status": "active", "doNotPerform": True}
    (fact,) = facts({**order, "medicationCodeableConcept": concept("urn:x", "1")})
    assert fact.status == "do-not-perform"


def test_sides_that_disagree_say_nothing() -> None:
    assert side((Coding(SNOMED, "80248007"), Coding(SNOMED, "73056007"))) is None


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                ["coding", "code", "system", "value", "unit", "text", "start", "reference", "extension", "low"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)
MEMBERS = st.sampled_from(
    [
        "code", "status", "subject", "focus", "bodySite", "method", "specimen", "component", "valueQuantity",
        "valueCodeableConcept", "valueInteger", "valueRange", "effectiveDateTime", "effectivePeriod", "meta",
        "dataAbsentReason", "stage", "onsetAge", "verificationStatus", "medicationCodeableConcept", "reaction",
        "condition", "relationship", "birthDate", "deceasedBoolean", "dosage", "contained", "reasonCode", "period",
    ]
)  # fmt: skip
TYPES = st.sampled_from(
    [
        "Observation",
        "Condition",
        "Patient",
        "Procedure",
        "AllergyIntolerance",
        "FamilyMemberHistory",
        "MedicationAdministration",
    ]
)


@given(TYPES, st.dictionaries(MEMBERS, JSON, max_size=6))
def test_weird_json_is_read_or_refused(resource_type: str, members: dict[str, Any]) -> None:
    try:
        found = facts({"id": "x", **members, "resourceType": resource_type})
    except Unreadable:
        return
    assert len({fact.id for fact in found}) == len(found)
    assert all(Fact.from_plain(fact.plain()) == fact for fact in found)


def resources(folder: Path, every: int) -> list[dict[str, Any]]:
    return [
        strict.loads(line)
        for path in sorted(folder.glob("*.ndjson.gz"))
        for n, line in enumerate(gzip.open(path))
        if n % every == 0
    ]


def test_the_whole_oncology_set_projects(peer_data: Path) -> None:
    """82,330 resources, some invalid on purpose: all readable, and each about somebody or about nobody."""
    kinds: Counter[str] = Counter()
    problems: Counter[str] = Counter()
    subjects: Counter[bool] = Counter()
    for resource in resources(peer_data / "fhir/clinosim-oncology-200", every=1):
        for fact in facts(resource):
            kinds[fact.kind] += 1
            problems[fact.problem or ""] += 1
        subject = subject_of(resource)
        assert subject is None or subject.problem is None
        subjects[subject is None] += 1
    assert kinds.total() == 85_445
    assert kinds["observation"] == 50_270
    assert kinds["condition"] == 819
    assert subjects == {False: 81_832, True: 498}
    assert problems == {"": 85_445}


def test_a_sample_of_synthea_projects(peer_data: Path) -> None:
    found = [fact for resource in resources(peer_data / "fhir/synthea-smart-615", every=10) for fact in facts(resource)]
    assert len(found) > 15_000
    problems = Counter(fact.problem for fact in found if fact.problem)
    assert set(problems) == {
        "the unit is not one of UCUM",
        "the unit does not convert to mL/min/{1.73_m2}",
        "no unit is given where mm[Hg] is expected",
    }
    assert sum(problems.values()) / len(found) < 0.02


def test_a_fact_says_what_it_was_measured_on() -> None:
    derived = [{"reference": "ImagingStudy/1.2.3"}, {"reference": "Media/png-00/_history/2"}, {"display": "a picture"}]
    fact = one(derivedFrom=derived, valueInteger=3)
    assert fact.derived_from == ("ImagingStudy/1.2.3", "Media/png-00")
    assert "derived_from" not in one(valueInteger=3).plain()
