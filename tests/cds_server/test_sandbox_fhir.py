"""The sandbox's FHIR server: reads, searches and pages over the fixtures, by what a token may see."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fhir.resources.R4B.bundle import Bundle
from fhir.resources.R4B.capabilitystatement import CapabilityStatement
from starlette.testclient import TestClient

from cds_server.sandbox.app import create_app
from cds_server.sandbox.scopes import granted, parse
from cds_server.sandbox.search import read_query
from models.errors import Unreadable
from tests.cds_server.sandbox_app import CDS, FHIR, FIXTURES, AnApp

USER = "launch user/*.rs"


class Reader:
    """One app with one token for each scope and patient that a test wants."""

    def __init__(self, browser: TestClient) -> None:
        self.app = AnApp(browser)
        self._tokens: dict[tuple[str, str], str] = {}

    def get(self, path: str, scope: str = USER, patient: str = "jenny-m", **headers: str) -> httpx.Response:
        if (scope, patient) not in self._tokens:
            told = self.app.whole_launch(f"/cases/{patient}/launch", scope)
            self._tokens[scope, patient] = told["access_token"]
        told = {"authorization": f"Bearer {self._tokens[scope, patient]}", **headers}
        return self.app.browser.get(f"/fhir/{path}", headers=told)

    def ids(self, path: str, scope: str = USER, patient: str = "jenny-m") -> list[str]:
        answer = self.get(path, scope, patient)
        assert answer.status_code == 200, answer.text
        return [each["resource"]["id"] for each in answer.json().get("entry", []) if each["search"]["mode"] == "match"]


@pytest.fixture(scope="module")
def fhir() -> Iterator[Reader]:
    with TestClient(create_app(CDS, FIXTURES), base_url="http://127.0.0.1") as browser:
        yield Reader(browser)


def test_it_says_what_it_can_do(fhir: Reader) -> None:
    answer = fhir.app.browser.get("/fhir/metadata")
    assert answer.headers["content-type"] == "application/fhir+json"
    told = CapabilityStatement.model_validate(answer.json())
    assert told.fhirVersion == "4.0.1"
    assert {each.type for each in told.rest[0].resource} >= {"Patient", "Observation", "Condition", "Procedure"}


@pytest.mark.parametrize("token", [None, "Bearer made-up", "Basic abc"])
def test_without_a_token_nothing_is_told(fhir: Reader, token: str | None) -> None:
    headers = {"authorization": token} if token else {}
    answer = fhir.app.browser.get("/fhir/Patient/jenny-m", headers=headers)
    assert answer.status_code == 401
    assert answer.json()["resourceType"] == "OperationOutcome"
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_resource_is_read_as_it_stands_in_the_fixtures(fhir: Reader) -> None:
    assert fhir.get("Patient/aisha-t").json()["birthDate"] == "1988-06-19"
    assert fhir.get("Patient/nobody").status_code == 404
    assert fhir.get("Medication/any").status_code == 404
    assert fhir.get("Encounter/nils-d-admission").json()["status"] == "in-progress"


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("Patient?identifier=http://hospital.example.org|MRN2004", ["aisha-t"]),
        ("Patient?identifier=MRN2004", ["aisha-t"]),
        ("Patient?identifier=|MRN2004", []),
        ("Patient?_id=aisha-t,carla-r", ["aisha-t", "carla-r"]),
        ("Patient?name=ais", ["aisha-t"]),
        ("Patient?name:contains=ish", ["aisha-t"]),
        ("Patient?name:exact=ais", []),
        ("Patient?birthdate=1988", ["aisha-t"]),
        ("Patient?birthdate=ge1970&birthdate=lt1989-01-01", ["aisha-t", "lena-b"]),
        ("Patient?gender=male&_sort=-birthdate", ["tomas-v", "nils-d"]),
        ("Patient?gender:not=female", ["nils-d", "tomas-v"]),
        ("Condition?patient=carla-r", ["carla-r-cancer-left", "carla-r-cancer-right"]),
        ("Condition?subject=Patient/carla-r&code=353511000119101", ["carla-r-cancer-right"]),
        (
            f"Condition?subject={FHIR}/Patient/carla-r&code=http://snomed.info/sct|353511000119101",
            ["carla-r-cancer-right"],
        ),
        ("Condition?patient=carla-r&code=http://loinc.org|353511000119101", []),
        ("Condition?patient=ruth-k&code:text=copd", []),
        ("Condition?onset-date=le2015-03&patient=tomas-v", ["tomas-v-copd"]),
        ("MedicationRequest?patient=tomas-v&status=active&intent=order", None),
        ("Observation?patient=aisha-t&code=85337-4,16112-5&_sort=-date", None),
    ],
)
def test_searches(fhir: Reader, query: str, ids: list[str] | None) -> None:
    found = fhir.ids(query)
    assert found if ids is None else found == ids


def test_a_component_is_found_by_combo_code_only(fhir: Reader) -> None:
    """As R4 has it: `code` is the observation's own."""
    assert fhir.ids("Observation?patient=jenny-m&code=33728-7") == []
    assert fhir.ids("Observation?patient=jenny-m&combo-code=33728-7") != []


def test_pages_lead_through_all_of_it(fhir: Reader) -> None:
    first = fhir.get("Observation?patient=jenny-m&_count=12&_sort=-date").json()
    Bundle.model_validate(first)
    assert first["total"] == 29
    seen, page = [], first
    while True:
        seen += [each["resource"]["id"] for each in page["entry"]]
        links = {each["relation"]: each["url"] for each in page["link"]}
        if "next" not in links:
            break
        page = fhir.get(links["next"].removeprefix(f"{FHIR}/")).json()
    assert len(seen) == len(set(seen)) == 29
    dates = [fhir.get(f"Observation/{each}").json()["effectiveDateTime"] for each in seen[:3]]
    assert dates == sorted(dates, reverse=True)
    assert "previous" in links
    assert fhir.get("Observation?patient=jenny-m&_summary=count").json().get("entry") is None


def test_a_search_may_be_posted(fhir: Reader) -> None:
    token = fhir.app.whole_launch(scope=USER)["access_token"]
    answer = fhir.app.browser.post(
        "/fhir/Patient/_search", data={"name": "aisha"}, headers={"authorization": f"Bearer {token}"}
    )
    assert answer.json()["total"] == 1


def test_what_is_not_known_is_left_aside_and_told(fhir: Reader) -> None:
    told = fhir.get("Patient?shoe-size=44&name=aisha").json()
    assert told["total"] == 1
    assert told["entry"][-1]["search"]["mode"] == "outcome"
    assert "shoe-size" not in told["link"][0]["url"]
    assert fhir.get("Patient?shoe-size=44", prefer="handling=strict").status_code == 400


@pytest.mark.parametrize("query", ["Patient?name:sounds=x", "Patient?birthdate=soon", "Patient?_count=many"])
def test_what_cannot_be_searched_is_refused(fhir: Reader, query: str) -> None:
    assert fhir.get(query).status_code == 400


def test_the_chart_of_the_last_hours_moves_with_the_clock(fhir: Reader) -> None:
    newest = fhir.get("Observation?patient=nils-d&_sort=-date&_count=1").json()["entry"][0]["resource"]
    taken = datetime.fromisoformat(newest["effectiveDateTime"])
    assert timedelta(0) <= datetime.now(UTC) - taken < timedelta(hours=3)


# ---- scopes ----------------------------------------------------------------------------------------------------------


def test_a_patient_scope_shows_one_patient(fhir: Reader) -> None:
    scope = "launch patient/*.rs"
    assert fhir.ids("Patient", scope) == ["jenny-m"]
    assert fhir.get("Patient/aisha-t", scope).status_code == 404
    assert fhir.ids("Observation?patient=aisha-t", scope) == []
    assert fhir.get("Practitioner/us-core-practitioner-owen-oncologist", scope).status_code == 200


def test_a_type_without_a_scope_is_refused_not_empty(fhir: Reader) -> None:
    scope = "launch patient/Observation.rs patient/Patient.r"
    assert fhir.get("Condition?patient=jenny-m", scope).status_code == 403
    assert fhir.get("Patient", scope).status_code == 403  # may read, may not search
    assert fhir.get("Patient/jenny-m", scope).status_code == 200


def test_a_granular_scope_shows_what_meets_it(fhir: Reader) -> None:
    category = "http://terminology.hl7.org/CodeSystem/observation-category|vital-signs"
    scope = f"launch patient/Observation.rs?category={category}"
    seen = fhir.ids("Observation", scope, "nils-d")
    every = fhir.ids("Observation?patient=nils-d")
    assert 0 < len(seen) <= len(every)
    assert seen == fhir.ids(f"Observation?patient=nils-d&category={category}")


def test_who_looks_may_be_read_by_their_own_scope(fhir: Reader) -> None:
    scope = "launch openid fhirUser patient/Patient.r"
    assert fhir.get("Practitioner/us-core-practitioner-owen-oncologist", scope).status_code == 200
    assert fhir.get("Practitioner/us-core-practitioner-mary-obgyn", scope).status_code == 404


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ("patient/*.cruds", ["patient/*.rs"]),
        ("patient/Observation.read", ["patient/Observation.read"]),
        ("patient/Observation.*", ["patient/Observation.read"]),
        ("patient/Observation.write", []),
        ("patient/Observation.dus", []),
        ("patient/Observation.uds", ["patient/Observation.s"]),
        ("patient/Observation.sr", []),
        ("patient/Observation.", []),
        ("system/Patient.rs", []),
        ("patient/NoSuchType.rs", []),
        ("user/Observation.rs?category=laboratory", ["user/Observation.rs?category=laboratory"]),
        ("user/Observation.rs?shoe=44", []),
        ("openid openid email", ["openid"]),
    ],
)
def test_scopes_are_narrowed_to_what_is_here(asked: str, given: list[str]) -> None:
    assert granted(asked, ("openid",)) == given


def test_a_scope_of_version_1_means_letters() -> None:
    read: Any = parse("patient/*.read")
    assert (read.context, read.kind, read.letters) == ("patient", "*", "rs")
    assert parse("launch/patient") is None


def test_a_comma_may_be_part_of_a_value() -> None:
    (test,), unknown = read_query("Patient", [("name", r"a\,b")])
    assert (test.wanted, unknown) == (("a,b",), [])
    with pytest.raises(Unreadable):
        read_query("Observation", [("date", "2026-13-01")])
