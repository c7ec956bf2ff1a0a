"""The project's own fixtures: valid, each about one patient, listed in their README."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from adapters.readers import cds_hooks, fhir
from adapters.readers.facts import project
from adapters.readers.subjects import identifiers_of, subject_of
from adapters.readers.validation import validate
from adapters.sources.files import land_file
from models import strict
from models.nouns import Fact, Part, Provenance, Statement, Subject
from tests.adapters.test_files import NOW, Staging
from tests.dicom_fixture import files

FIXTURES = Path(__file__).parents[1] / "fixtures"
PATIENTS = sorted((FIXTURES / "patients").iterdir())
HOOKS = sorted((FIXTURES / "hooks").glob("*.json"))
"""Requests that a clinical service answers."""
OTHER = sorted((FIXTURES / "hooks/other").glob("*.json"))
"""Requests of the other hooks, which the conformance service answers."""
REQUESTS = [*HOOKS, *OTHER]
ANSWERS = sorted((FIXTURES / "hooks").rglob("answers/*.json"))
KEYS = {"patient", "conditions", "observations", "procedures", "medications"}
WITHOUT_USER = {"medication-refill", "order-dispatch"}
"""Hooks whose context need not name a user."""
ABOUT_NOBODY = {"Practitioner", "Organization"}


def statements(path: Path) -> list[Statement]:
    staging = Staging()
    asyncio.run(land_file(path, staging, source="files", namespace="sandbox", received_at=NOW))
    assert staging.meta is not None
    kind = staging.meta.media_type
    parts = [Part("0" * 32, n, "sandbox", kind, NOW, body) for n, body in enumerate(staging.parts)]
    return [statement for part in parts for statement in fhir.read(part)]


def request_of(path: Path) -> Mapping[str, Any]:
    body: Mapping[str, Any] = strict.loads(path.read_bytes())
    return body


def facts(found: list[Statement]) -> list[Fact]:
    result: list[Fact] = []
    for n, statement in enumerate(found):
        assert statement.body is not None
        name = f"{statement.resource_type}/{statement.local_id}"
        source = Provenance("0" * 32, n, statement.pointer, name, "fhir@1")
        result += project(statement.body, record="r", source=source, known_from=NOW)
    return result


def one(found: list[Fact], code: str) -> Fact:
    matching = [fact for fact in found if any(coding.code == code for coding in fact.codings)]
    assert len(matching) == 1
    return matching[0]


def patient_id(path: Path) -> str:
    return path.name.split(".")[0]


def hook_of(path: Path) -> str:
    """The hook that a request's file is named after: PATIENT.HOOK[.hook-1-0].json, where a hook may have dots."""
    return path.name.removesuffix(".json").removesuffix(".hook-1-0").partition(".")[2]


def test_there_are_ten_patients_and_twenty_four_requests() -> None:
    assert len({patient_id(path) for path in PATIENTS}) == 10
    assert (len(HOOKS), len(OTHER)) == (15, 9)
    assert {patient_id(path) for path in HOOKS} == {patient_id(path) for path in PATIENTS}
    assert {patient_id(path) for path in OTHER} <= {patient_id(path) for path in PATIENTS}


def test_all_that_lies_among_the_requests_is_a_request_or_a_recorded_answer() -> None:
    found = {path for path in (FIXTURES / "hooks").rglob("*") if path.is_file()}
    assert found == {*REQUESTS, *ANSWERS}


def test_each_request_has_a_recorded_answer_and_each_answer_its_request() -> None:
    answered = {path.parent.parent / f"{path.name.removesuffix('.json').rpartition('.')[0]}.json" for path in ANSWERS}
    assert answered == set(REQUESTS)


@pytest.mark.parametrize("path", PATIENTS, ids=lambda path: path.name)
def test_a_patient_file_is_valid_and_about_its_patient(path: Path) -> None:
    found = statements(path)
    keys = {(s.resource_type, s.local_id) for s in found}
    assert len(keys) == len(found) >= 10
    for statement in found:
        assert statement.body is not None
        assert validate(statement.body) == [], statement.local_id
        assert subject_of(statement.body) == (
            None if statement.resource_type in ABOUT_NOBODY else Subject(local_id=patient_id(path))
        )
    patients = [s.body for s in found if s.resource_type == "Patient" and s.body]
    assert [system for system, _, _ in identifiers_of(patients[0])] == ["http://hospital.example.org"]


@pytest.mark.parametrize("path", PATIENTS, ids=lambda path: path.name)
def test_references_lead_somewhere(path: Path) -> None:
    found = statements(path)
    known = {f"{s.resource_type}/{s.local_id}" for s in found}
    for name in re.findall(r'"reference": ?"([^"]+)"', path.read_text("utf-8")):
        assert name in known


def test_no_two_patients_share_an_identifier() -> None:
    named = [
        identifier[:2]
        for path in PATIENTS
        for statement in statements(path)
        if statement.resource_type == "Patient" and statement.body
        for identifier in identifiers_of(statement.body)
    ]
    assert len(named) == len(set(named)) == 10


@pytest.mark.parametrize("path", REQUESTS, ids=lambda path: path.name)
def test_a_hook_request_keeps_the_contract(path: Path) -> None:
    body = request_of(path)
    assert hook_of(path) == body["hook"]
    assert UUID(body["hookInstance"]).version == 4
    assert body["context"]["patientId"] == patient_id(path)
    if "userId" in body["context"] or body["hook"] not in WITHOUT_USER:
        assert re.fullmatch(r"Practitioner/[A-Za-z0-9\-.]+", body["context"]["userId"])
    assert "fhirAuthorization" not in body
    assert set(body["prefetch"]) == (KEYS if path in HOOKS else {"patient"})
    if "draftOrders" in body["context"]:
        for entry in body["context"]["draftOrders"]["entry"]:
            assert entry["resource"]["status"] == "draft"
            assert validate(entry["resource"]) == []
            assert subject_of(entry["resource"]) == Subject(local_id=patient_id(path))


@pytest.mark.parametrize("path", REQUESTS, ids=lambda path: path.name)
def test_a_prefetch_is_its_patients_record(path: Path) -> None:
    found = cds_hooks.read_request(request_of(path))
    landed = next(other for other in PATIENTS if patient_id(other) == patient_id(path))
    record = {(s.resource_type, s.local_id): s.body for s in statements(landed)}
    asked = {"Patient"} if path in OTHER else {"Patient", "Condition", "Observation", "Procedure", "MedicationRequest"}
    assert {(s.resource_type, s.local_id) for s in found} == {key for key in record if key[0] in asked}
    for statement in found:
        assert statement.body == record[statement.resource_type, statement.local_id]
        assert subject_of(statement.body) == Subject(local_id=patient_id(path))


def test_hook_instances_are_unique() -> None:
    assert len({request_of(path)["hookInstance"] for path in REQUESTS}) == len(REQUESTS)


def test_jenny_has_her_traps() -> None:
    found = facts(statements(FIXTURES / "patients/jenny-m.bundle.json"))
    size = one(found, "33728-7")
    assert (size.number, size.unit, size.original) == ("25", "mm", "2.5 centimeters")
    nodes = one(found, "92832-5")
    assert (nodes.number, nodes.coded, nodes.text, nodes.original) == (None, (), None, None)
    assert one(found, "92833-3").number == "3"
    assert one(found, "371497001").absent_reason == "not-applicable"
    assert one(found, "8302-2").number == "165.1"
    cancer = next(fact for fact in found if fact.kind == "condition" and fact.code.code == "353431000119107")
    assert (cancer.laterality, cancer.status) == ("left", "confirmed/remission")
    assert one(found, "71651007").coded[0].code == "360156006"
    assert {fact.original for fact in found if fact.kind == "family-history"} == {"onset 69 a", "onset 64 a", None}


def test_marias_markers_are_indexed_by_loinc() -> None:
    found = facts(statements(FIXTURES / "patients/maria-k.searchset.json"))
    er = one(found, "16112-5")
    assert er.code.system == "http://loinc.org"
    assert [coding.code for coding in er.codings] == ["16112-5", "85337-4", "ER-IHC"]
    assert one(found, "85319-2").absent_reason == "unknown"
    assert one(found, "C18000").coded[0].code == "61026006"
    cancer = next(fact for fact in found if fact.kind == "condition")
    assert cancer.code.system == "http://snomed.info/sct"
    assert cancer.laterality == "right"


def test_carlas_results_say_which_tumour() -> None:
    found = facts(statements(FIXTURES / "patients/carla-r.bundle.json"))
    sizes = {fact.focus: fact.number for fact in found if fact.code.code == "33728-7"}
    assert sizes == {("Condition/carla-r-cancer-left",): "14", ("Condition/carla-r-cancer-right",): "31"}
    assert {fact.laterality for fact in found if fact.kind == "condition"} == {"left", "right"}


def test_lenas_numbers_are_kept_and_judged_elsewhere() -> None:
    found = facts(statements(FIXTURES / "patients/lena-b.bundle.json"))
    assert one(found, "33728-7").number == "9000"
    weight = one(found, "29463-7")
    assert (weight.number, weight.original, weight.problem) == (None, "11 stone", "the unit is not one of UCUM")


def test_the_readme_lists_every_file() -> None:
    text = (FIXTURES / "README.md").read_text("utf-8")
    for path in PATIENTS:
        assert f"`patients/{path.name}`" in text
    for path in HOOKS:
        assert f"`hooks/{path.name}`" in text or (path.name.endswith("patient-view.json") and "<patient>" in text)
    for path in OTHER:
        assert f"`hooks/other/{path.name}`" in text
    for folder in {path.parent for path in ANSWERS}:
        assert f"`{folder.relative_to(FIXTURES)}/`" in text
    assert json.loads((FIXTURES / "patients/jenny-m.bundle.json").read_text("utf-8"))["type"] == "transaction"


def test_the_images_are_those_that_are_made() -> None:
    """`python -m tests.dicom_fixture` writes them; its README names them."""
    made = files()
    kept = {path.name: path.read_bytes() for path in (FIXTURES / "dicom").iterdir()}
    assert sorted(kept) == sorted(made)
    assert [name for name, body in made.items() if kept[name] != body] == []
    named = re.findall(r"`dicom/([^`]+)`", (FIXTURES / "README.md").read_text(encoding="utf-8"))
    assert {name for name in kept if any(Path(name).match(pattern) for pattern in named)} == set(kept)
