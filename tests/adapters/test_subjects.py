"""Whose is it? The claim is read, or the reason why it cannot be; never guessed."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.readers.subjects import identifiers_of, marks_of, subject_of
from models.errors import Unreadable
from models.nouns import Marks, Subject

BASE = "https://ehr.example.org/fhir"
UUID = "61ebe359-bfdc-4613-8bf2-c5e300945f0a"


def of(subject: Any, base: str | None = None) -> Subject | None:
    return subject_of({"resourceType": "Observation", "id": "o", "subject": subject}, base=base)


@pytest.mark.parametrize(
    ("reference", "local_id"),
    [("Patient/1", "1"), ("Patient/1/_history/3", "1"), (f"urn:uuid:{UUID}", UUID), (f"{BASE}/Patient/a-1.b", "a-1.b")],
)
def test_a_reference_names_a_record_of_the_sender(reference: str, local_id: str) -> None:
    assert of({"reference": reference}, BASE) == Subject(local_id=local_id)
    assert of({"reference": reference, "identifier": {"system": "s", "value": "v"}}, BASE + "/") == Subject(
        local_id=local_id
    )


@pytest.mark.parametrize(
    ("subject", "problem"),
    [
        (None, "subject is missing"),
        ("Patient/1", "subject is not a reference"),
        ([{"reference": "Patient/1"}], "subject is not a reference"),
        ({"reference": 1}, "subject.reference is not text"),
        ({"reference": ""}, "subject.reference is not text"),
        ({"reference": "#p"}, "subject is contained in the resource, not a patient of the record"),
        ({"reference": "Group/1"}, "subject refers to a group"),
        ({"reference": "Device/1"}, "subject refers to something else than a patient"),
        ({"reference": f"{BASE}/Patient/1"}, "subject refers to another server"),
        ({"reference": f"{BASE}-evil/Patient/1"}, "subject refers to another server"),
        ({"reference": "urn:oid:1.2.3"}, "subject refers to another server"),
        ({"reference": "Patient/1?x=2"}, "subject is not a reference to a resource"),
        ({"reference": "Patient/../Patient/2"}, "subject is not a reference to a resource"),
        ({"reference": "Patient/"}, "subject is not a reference to a resource"),
        ({"display": "Jenny"}, "subject has neither a reference nor an identifier with system and value"),
        ({"identifier": {"value": "1"}}, "subject has neither a reference nor an identifier with system and value"),
    ],
)
def test_anything_else_is_a_problem(subject: Any, problem: str) -> None:
    assert of(subject) == Subject(problem=problem)


def test_an_absolute_reference_counts_only_for_its_own_server() -> None:
    reference = {"reference": "https://other.example.org/fhir/Patient/1"}
    assert of(reference, BASE) == Subject(problem="subject refers to another server")
    evil = {"reference": f"{BASE}-evil/Patient/1"}
    assert of(evil, BASE) == Subject(problem="subject refers to another server")


def test_a_logical_reference() -> None:
    assert of({"identifier": {"system": "urn:mrn", "value": "7"}}) == Subject(system="urn:mrn", value="7")


@pytest.mark.parametrize(
    ("resource_type", "element"),
    [
        ("Condition", "subject"),
        ("Immunization", "patient"),
        ("Coverage", "beneficiary"),
        ("Task", "for"),
        ("List", "subject"),
    ],
)
def test_each_type_has_its_element(resource_type: str, element: str) -> None:
    assert subject_of({"resourceType": resource_type, element: {"reference": "Patient/1"}}) == Subject(local_id="1")


def test_types_about_nobody() -> None:
    for resource_type in (
        "Organization",
        "Practitioner",
        "Location",
        "Medication",
        "Endpoint",
        "List",
        "Device",
        "Group",
    ):
        assert subject_of({"resourceType": resource_type, "id": "x"}) is None


def test_a_patient_is_its_own_subject() -> None:
    assert subject_of({"resourceType": "Patient", "id": "1"}) == Subject(local_id="1")
    assert subject_of({"resourceType": "Patient"}) == Subject(problem="id is missing")


def test_identifiers_need_system_and_value() -> None:
    identifier = [
        {"system": "urn:mrn", "value": "1", "use": "usual"},
        {"system": "urn:old", "value": "2"},
        {"value": "3"},
        {"system": "urn:x"},
    ]
    assert identifiers_of({"identifier": identifier}) == [("urn:mrn", "1", "usual"), ("urn:old", "2", "")]
    with pytest.raises(Unreadable):
        identifiers_of({"identifier": {"system": "urn:mrn", "value": "1"}})


def test_marks() -> None:
    reason = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
    confidentiality = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
    assert marks_of({}) == Marks()
    assert marks_of({"meta": {"tag": [{"system": "urn:x", "code": "synthetic"}]}}) == Marks()
    assert marks_of({"meta": {"tag": [{"system": reason, "code": "HTEST"}]}}) == Marks(test=True)
    security = [
        {"system": confidentiality, "code": "V"},
        {"system": "urn:local", "code": "vip"},
        {"display": "no code"},
    ]
    assert marks_of({"meta": {"security": security}}) == Marks(labels=("V", "urn:local|vip"))
    for meta in ([], {"security": {}}, {"tag": ["HTEST"]}):
        with pytest.raises(Unreadable):
            marks_of({"meta": meta})
