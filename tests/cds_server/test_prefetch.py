"""Which templates are answered and how, what is missing, and whose it is."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from adapters.readers.subjects import subject_of
from cds_server.hooks.context import HookRequest, parse
from cds_server.hooks.prefetch import Answered, check_patient, complete, lint, read, resolve
from cds_server.services import all_services
from models.errors import DataUnavailable, PeerFailed, WrongPatient
from models.strict import loads

TEMPLATES = {
    "patient": "Patient/{{context.patientId}}",
    "labs": "Observation?patient={{context.patientId}}&code=1234-5",
    "encounter": "Encounter/{{context.encounterId}}",
}
PATIENT = {"resourceType": "Patient", "id": "p1"}


def lab(subject: Any = "Patient/p1") -> dict[str, Any]:
    reference = subject if isinstance(subject, dict) else {"reference": subject}
    return {"resourceType": "Observation", "id": "o", "subject": reference}


def bundle(*resources: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"resourceType": "Bundle", "entry": [{"resource": each} for each in resources], **members}


def request(prefetch: dict[str, Any] | None = None, patient: str = "p1", **changes: Any) -> HookRequest:
    body: dict[str, Any] = {
        "hook": "patient-view",
        "hookInstance": "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea",
        "context": {"userId": "Practitioner/7", "patientId": patient},
        **changes,
    }
    if prefetch is not None:
        body["prefetch"] = prefetch
    raw = json.dumps(body).encode()
    return parse(raw, loads(raw))


# ---- answered --------------------------------------------------------------------------------------------------------


def test_the_four_meanings_of_a_key() -> None:
    failed = {"resourceType": "OperationOutcome", "issue": []}
    next_page = bundle(lab(), link=[{"relation": "next", "url": "https://ehr/r4?page=2"}])
    templates = {**TEMPLATES, "more": "Condition?patient={{context.patientId}}"}
    sent = read(templates, {"patient": PATIENT, "labs": next_page, "encounter": None, "more": failed, "other": None})
    assert {key: item.answered for key, item in sent.items.items()} == {
        "patient": Answered.DATA,
        "labs": Answered.DATA,
        "encounter": Answered.NONE,
        "more": Answered.FAILED,
    }
    assert sent.partial == ("labs",)
    assert sent.unasked == ("other",)
    assert sent.missing(("patient", "encounter", "more")) == ("encounter", "more")


def test_a_search_that_found_nothing_is_an_answer() -> None:
    for nothing in (None, bundle()):
        assert read(TEMPLATES, {"labs": nothing}).missing(("labs",)) == ()
    assert read(TEMPLATES, None).missing(("labs", "patient")) == ("labs", "patient")


def test_what_is_missing_is_named() -> None:
    with pytest.raises(DataUnavailable, match="prefetch: labs") as refused:
        asyncio.run(complete(TEMPLATES, ("patient", "labs"), request({"patient": PATIENT})))
    assert refused.value.status == 412


def test_what_is_absent_is_read_once_and_what_failed_is_not() -> None:
    asked: list[str] = []

    async def fhir_read(url: str) -> dict[str, Any]:
        asked.append(url)
        if url.startswith("Patient/"):
            raise PeerFailed("the FHIR server failed")
        return bundle(lab())

    sent = {"patient": {"resourceType": "OperationOutcome"}}
    had = asyncio.run(complete(TEMPLATES, ("labs",), request(sent), fhir_read))
    assert asked == ["Observation?patient=p1&code=1234-5"]  # no encounter in this context: nothing to ask
    assert had.items["labs"].fetched
    with pytest.raises(DataUnavailable, match="patient"):
        asyncio.run(complete(TEMPLATES, ("patient",), request({}), fhir_read))


# ---- whose -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "theirs",
    [
        {"patient": {"resourceType": "Patient", "id": "p2"}},
        {"labs": bundle(lab(), lab("Patient/p2"))},
        {"labs": bundle(lab("Patient/P1"))},
        {"labs": bundle(lab("Patient/p2/_history/1"))},
        {"unasked": bundle(lab("Patient/p2"))},
        {"labs": bundle(bundle(lab("Patient/p2")))},
        {"labs": bundle(lab("https://ehr.example/r4/Patient/p2"))},
    ],
)
def test_another_patient_is_refused(theirs: dict[str, Any]) -> None:
    with pytest.raises(WrongPatient) as refused:
        check_patient(request(theirs, fhirServer="https://ehr.example/r4/"), subject_of)
    assert refused.value.status == 400
    assert (refused.value.where or "").startswith("/prefetch/")
    assert "p2" not in str(refused.value)


def test_the_place_is_told_exactly() -> None:
    with pytest.raises(WrongPatient) as refused:
        check_patient(request({"a/b~": bundle(lab(), lab("Patient/p2"))}), subject_of)
    assert refused.value.where == "/prefetch/a~1b~0/entry/1/resource"


def test_the_same_patient_passes() -> None:
    organization = {"resourceType": "Organization", "id": "x"}
    absolute = lab("https://ehr.example/r4/Patient/p1")
    sent = {"patient": PATIENT, "labs": bundle(lab(), absolute, organization), "encounter": None}
    assert check_patient(request(sent, fhirServer="https://ehr.example/r4"), subject_of) == ()


@pytest.mark.parametrize(
    "subject",
    [{}, {"identifier": {"system": "s", "value": "v"}}, "Group/p1", "https://other.example/r4/Patient/p1", "#p1"],
)
def test_who_cannot_be_told_is_not_guessed(subject: Any) -> None:
    sent = {"labs": bundle(lab(subject))}
    undecided = check_patient(request(sent, fhirServer="https://ehr.example/r4"), subject_of)
    assert undecided == ("/prefetch/labs/entry/0/resource",)


# ---- templates -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "sound"),
    [
        ("Patient/{{context.patientId}}", True),
        ("Practitioner/{{userPractitionerId}}", True),
        ("Observation?patient={{context.patientId}}&code=http://loinc.org|1-2,3-4&_sort=-date&_count=50", True),
        ("Observation?patient={{context.patientId}}&code:in=http://x/vs&date=ge2020", True),
        ("Patient/{{context.medication.id}}", False),
        ("Patient/{{patientId}}", False),
        ("Patient/{{context.draftOrders}}", False),
        ("Patient/{{context.patientId}", False),
        ("Observation?patient={{context.patientId}}&_include=Observation:subject", False),
        ("Observation?subject.name=x", False),
        ("Observation?patient:not=x", False),
        ("Observation?date=ne2020", False),
        ("_history", False),
        ("https://ehr/r4/Patient/{{context.patientId}}", False),
        ("Observation?patient=", False),
    ],
)
def test_templates_are_linted(template: str, sound: bool) -> None:
    assert (lint(template, "patient-view") == []) == sound


def test_our_own_templates_are_legal_and_resolve() -> None:
    for spec in all_services():
        for template in spec.prefetch.values():
            assert lint(template, spec.hook) == []
            assert "{{" not in (resolve(template, request()) or "")


def test_values_are_encoded_and_users_are_told_apart() -> None:
    asked = request(patient="a.b-c")
    assert resolve("Patient/{{context.patientId}}", asked) == "Patient/a.b-c"
    assert resolve("Practitioner/{{userPractitionerId}}", asked) == "Practitioner/7"
    assert resolve("PractitionerRole/{{userPractitionerRoleId}}", asked) is None
