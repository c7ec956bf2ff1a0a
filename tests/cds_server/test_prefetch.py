"""Which templates are answered and how, what is missing, and whose it is."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from adapters.fhir_read import Reading
from adapters.readers.subjects import subject_of
from cds_server.hooks.context import HookRequest, parse
from cds_server.hooks.prefetch import Answered, bring, check_patient, complete, read, resolve
from cds_server.services import all_services
from models.errors import NotAllowed, PeerFailed, WrongPatient
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


@pytest.mark.requirement("cds-hooks_2.0", "54")
def test_what_is_missing_is_named() -> None:
    failed = {"resourceType": "OperationOutcome", "issue": []}
    had = asyncio.run(complete(TEMPLATES, request({"patient": None, "encounter": failed})))
    refused = had.need(("patient", "labs", "encounter"))
    assert refused is not None
    assert refused.status == 412
    assert refused.where == (
        "prefetch: patient (known to have no data), labs (not sent, and no access to a FHIR server that this service "
        "may ask), encounter (could not be fetched by the client)"
    )
    assert had.need(()) is None


def page(resource: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
    return json.dumps(resource).encode(), resource


@pytest.mark.requirement("cds-hooks_2.0", "34", "50", "52")
def test_what_is_absent_is_read_once_and_what_failed_is_not() -> None:
    asked: list[str] = []

    async def fhir_read(url: str) -> Reading:
        asked.append(url)
        if url.startswith("Patient/"):
            raise PeerFailed("answered 500")
        return Reading((page(bundle(lab())), page(bundle(lab()))), True)

    sent = {"patient": {"resourceType": "OperationOutcome"}}
    had = asyncio.run(complete(TEMPLATES, request(sent), fhir_read))
    assert asked == ["Observation?patient=p1&code=1234-5"]  # no encounter in this context: nothing to ask
    assert had.need(("labs",)) is None
    assert had.lacking == ("patient could not be fetched by the client",)
    brought = loads(bring(request(sent, fhirServer="https://ehr.example/r4"), had) or b"")
    assert brought == {
        "fhirServer": "https://ehr.example/r4",
        "prefetch": {"labs": bundle(lab()), "labs page 2": bundle(lab())},
    }
    had = asyncio.run(complete(TEMPLATES, request({}), fhir_read))
    refused = had.need(("patient",))
    assert refused is not None
    assert "patient (did not come: the FHIR server answered 500)" in (refused.where or "")


def test_reads_go_out_together_and_end_at_the_deadline() -> None:
    together: list[str] = []
    both = asyncio.Event()

    async def fhir_read(url: str) -> Reading:
        together.append(url)
        if len(together) == 2:
            both.set()
        await both.wait()
        if url.startswith("Patient/"):
            return Reading((page(PATIENT),), True)
        await asyncio.sleep(60)
        raise AssertionError

    had = asyncio.run(complete(TEMPLATES, request(), fhir_read, 0.2))
    assert had.items["patient"].answered is Answered.DATA
    assert had.items["labs"].answered is Answered.ABSENT
    assert had.lacking == ("labs did not come from the FHIR server in time",)


@pytest.mark.requirement("cds-hooks_2.0", "48")
def test_a_bundle_that_the_client_cut_off_is_followed() -> None:
    cut = bundle(lab(), link=[{"relation": "next", "url": "https://ehr.example/r4?page=2"}])

    async def fhir_read(url: str) -> Reading:
        assert url == "https://ehr.example/r4?page=2"
        return Reading((page(bundle(lab())),), True)

    async def elsewhere(_: str) -> Reading:
        raise NotAllowed("no")

    templates = {"labs": TEMPLATES["labs"]}
    had = asyncio.run(complete(templates, request({"labs": cut}), fhir_read))
    assert (had.partial, had.lacking) == ((), ())
    assert list(loads(bring(request({"labs": cut}), had) or b"")["prefetch"]) == ["labs page 2"]
    for reader in (None, elsewhere):
        had = asyncio.run(complete(templates, request({"labs": cut}), reader))
        assert had.partial == ("labs",)
        assert len(had.lacking) == 1
        assert bring(request({"labs": cut}), had) is None


def test_another_kind_than_was_asked_for_is_no_answer() -> None:
    async def fhir_read(_: str) -> Reading:
        return Reading((page({"resourceType": "Observation", "id": "x"}),), True)

    had = asyncio.run(complete(TEMPLATES, request(), fhir_read))
    assert had.missing(("patient", "labs")) == ("patient", "labs")
    assert bring(request(), had) is None


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


def test_our_own_templates_resolve() -> None:
    for spec in all_services():
        for template in spec.prefetch.values():
            assert "{{" not in (resolve(template, request()) or "")


def test_values_are_encoded_and_users_are_told_apart() -> None:
    asked = request(patient="a.b-c")
    assert resolve("Patient/{{context.patientId}}", asked) == "Patient/a.b-c"
    assert resolve("Practitioner/{{userPractitionerId}}", asked) == "Practitioner/7"
    assert resolve("PractitionerRole/{{userPractitionerRoleId}}", asked) is None
