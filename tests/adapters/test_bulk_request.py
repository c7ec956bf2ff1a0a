"""What is asked: a request that is checked at birth, and its spelling by version, method and profile."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.bulk.profiles import PROFILES
from adapters.bulk.request import PARAMETERS, ExportRequest, Level, Method, Shape, server_of
from models.errors import Misconfigured

BASE = "https://ehr.example/fhir/"
GENERIC = PROFILES["generic"]
PATIENTS = ("p-1", "p-2")
FULL = ExportRequest(
    Level.GROUP,
    group="g1",
    types=("Patient", "Observation"),
    since="2026-11-21T10:00:00.123456+02:00",
    until="2026-11-22T00:00:00.123456Z",
    type_filters=("Observation?category=laboratory,vital-signs&status=final", "Patient?active=true"),
    elements=("Patient.id", "subject"),
    patients=PATIENTS,
    associated=("LatestProvenanceResources", "_own"),
    organize_by="Patient",
    partial_manifests=True,
)
FOR_GET = replace(FULL, patients=())


def query(request: ExportRequest, shape: Shape = Shape.STU3, **switches: Any) -> list[tuple[str, str]]:
    kick_off = request.kick_off(BASE, replace(GENERIC, **switches), shape, "GET")
    return parse_qsl(urlsplit(kick_off.url).query, strict_parsing=bool(urlsplit(kick_off.url).query))


def parameters(request: ExportRequest, shape: Shape, **switches: Any) -> list[tuple[str, Any]]:
    kick_off = request.kick_off(BASE, replace(GENERIC, **switches), shape, "POST")
    assert kick_off.body is not None
    body = json.loads(kick_off.body)
    assert body.pop("resourceType") == "Parameters"
    assert body.get("parameter") != []
    found = []
    for each in body.get("parameter", ()):
        name = each.pop("name")
        [(kind, value)] = each.items()
        found.append((name, (kind, value)))
    return found


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"level": Level.GROUP}, "group"),
        ({"level": Level.SYSTEM, "group": "g"}, "group"),
        ({"level": Level.PATIENT, "group": "g"}, "group"),
        ({"level": Level.GROUP, "group": "Group/g"}, "group"),
        ({"level": Level.GROUP, "group": "../x"}, "group"),
        ({"level": Level.GROUP, "group": ""}, "group"),
        ({"level": Level.SYSTEM, "patients": ("a",)}, "patients"),
        ({"level": Level.PATIENT, "patients": ("Patient/a",)}, "patients[0]"),
        ({"level": Level.PATIENT, "patients": ("a", "")}, "patients[1]"),
        ({"level": Level.SYSTEM, "types": ("Patient", "observation")}, "types[1]"),
        ({"level": Level.SYSTEM, "types": ("Patient,Condition",)}, "types[0]"),
        ({"level": Level.SYSTEM, "elements": ("name.family",)}, "elements[0]"),
        ({"level": Level.SYSTEM, "associated": ("Latest Provenance",)}, "associated[0]"),
        ({"level": Level.SYSTEM, "organize_by": "patient"}, "organize_by"),
        ({"level": Level.SYSTEM, "since": "2026-11-21T10:00:00"}, "since"),
        ({"level": Level.SYSTEM, "since": "2026-11-21"}, "since"),
        ({"level": Level.SYSTEM, "since": ""}, "since"),
        ({"level": Level.SYSTEM, "since": "2026-13-21T10:00:00Z"}, "since"),
        ({"level": Level.SYSTEM, "since": "0001-01-01T00:00:00+14:00"}, "since"),
        ({"level": Level.SYSTEM, "until": "20261121T100000Z"}, "until"),
        ({"level": Level.SYSTEM, "type_filters": ("status=final",)}, "type_filters[0]"),
        ({"level": Level.SYSTEM, "type_filters": ("Observation?",)}, "type_filters[0]"),
        ({"level": Level.SYSTEM, "type_filters": ("Observation?status",)}, "type_filters[0]"),
        ({"level": Level.SYSTEM, "type_filters": ("Patient?a=b", "Observation?_sort=date")}, "type_filters[1]"),
        ({"level": Level.SYSTEM, "type_filters": ("Observation?a=b&_include=x",)}, "type_filters[0]"),
        ({"level": Level.SYSTEM, "type_filters": ("Observation?a=b&_include:iterate=x",)}, "type_filters[0]"),
        ({"level": Level.SYSTEM, "type_filters": ("Observation?a=\r\n",)}, "type_filters[0]"),
        ({"level": Level.SYSTEM, "types": ("Patient",), "type_filters": ("Observation?a=b",)}, "type_filters[0]"),
    ],
)
def test_what_cannot_be_asked_is_not_born(members: dict[str, Any], said: str) -> None:
    with pytest.raises(Misconfigured) as error:
        ExportRequest(**members)
    assert said in str(error.value)


def test_an_error_about_patients_does_not_repeat_them() -> None:
    with pytest.raises(Misconfigured) as error:
        ExportRequest(Level.PATIENT, patients=("secret name",))
    assert "secret" not in str(error.value)
    assert "p-1" not in repr(FULL)


def test_a_chained_or_reverse_chained_filter_is_a_filter() -> None:
    ExportRequest(Level.SYSTEM, type_filters=("Patient?_has:Observation:patient:code=1", "Patient?_lastUpdated=gt2020"))


@pytest.mark.parametrize(
    ("level", "group", "path"),
    [
        (Level.SYSTEM, None, "/fhir/$export"),
        (Level.PATIENT, None, "/fhir/Patient/$export"),
        (Level.GROUP, "g.1", "/fhir/Group/g.1/$export"),
    ],
)
@pytest.mark.parametrize("base", [BASE, BASE.rstrip("/")])
def test_the_level_is_the_path(level: Level, group: str | None, path: str, base: str) -> None:
    for method, shape in (("GET", Shape.STU2), ("POST", Shape.STU4)):
        kick_off = ExportRequest(level, group=group).kick_off(base, GENERIC, shape, method)  # type: ignore[arg-type]
        assert kick_off.url == f"https://ehr.example{path}"
        assert kick_off.headers["Accept"] == "application/fhir+json"
        assert kick_off.headers["Prefer"] == "respond-async"
    assert kick_off.body == b'{"resourceType":"Parameters"}'
    assert kick_off.headers["Content-Type"] == "application/fhir+json"


def test_lenient_handling_is_asked_for_by_the_switch_only() -> None:
    lenient = ExportRequest(Level.SYSTEM).kick_off(BASE, replace(GENERIC, handling_lenient=True), Shape.STU2, "GET")
    assert lenient.headers["Prefer"] == "respond-async, handling=lenient"


@pytest.mark.parametrize("shape", [Shape.STU2, Shape.STU3])
def test_a_get_joins_lists_by_commas(shape: Shape) -> None:
    assert query(FOR_GET, shape) == [
        ("_type", "Patient,Observation"),
        ("_since", "2026-11-21T08:00:00.123Z"),
        ("_until", "2026-11-22T00:00:00.124Z"),
        ("_typeFilter", "Observation?category=laboratory%2Cvital-signs&status=final"),
        ("_typeFilter", "Patient?active=true"),
        ("_elements", "Patient.id,subject"),
        ("includeAssociatedData", "LatestProvenanceResources,_own"),
        ("organizeOutputBy", "Patient"),
        ("allowPartialManifests", "true"),
    ]


def test_each_parameter_of_a_get_is_encoded_once() -> None:
    request = ExportRequest(Level.SYSTEM, type_filters=("Observation?code=http://loinc.org|1-2&note=a%26b,c d",))
    url = request.kick_off(BASE, GENERIC, Shape.STU2, "GET").url
    value = "Observation%3Fcode%3Dhttp%3A%2F%2Floinc.org%7C1-2%26note%3Da%2526b%252Cc%20d"
    assert url == f"https://ehr.example/fhir/$export?_typeFilter={value}"


def test_the_switches_say_how_lists_are_spelt_before_stu4() -> None:
    two = ExportRequest(Level.SYSTEM, types=("Patient", "Condition"), type_filters=("Patient?a=1,2", "Condition?b=3"))
    assert query(two, repeat_types=True)[:2] == [("_type", "Patient"), ("_type", "Condition")]
    assert query(two, repeat_filters=False)[1:] == [("_typeFilter", "Patient?a=1%2C2,Condition?b=3")]
    assert query(two, filter_commas="raw")[1:] == [("_typeFilter", "Patient?a=1,2"), ("_typeFilter", "Condition?b=3")]


def test_since_never_moves_forward_and_until_never_back_when_they_are_cut_to_milliseconds() -> None:
    exact = ExportRequest(Level.SYSTEM, since="2026-01-01T00:00:00.999999999Z", until="2026-01-02T00:00:00.000Z")
    assert dict(query(exact)) == {"_since": "2026-01-01T00:00:00.999Z", "_until": "2026-01-02T00:00:00.000Z"}


def test_a_post_before_stu4_has_the_same_values_in_the_types_of_the_operation() -> None:
    assert parameters(FULL, Shape.STU3) == [
        ("_type", ("valueString", "Patient,Observation")),
        ("_since", ("valueInstant", "2026-11-21T08:00:00.123Z")),
        ("_until", ("valueInstant", "2026-11-22T00:00:00.124Z")),
        ("_typeFilter", ("valueString", "Observation?category=laboratory%2Cvital-signs&status=final")),
        ("_typeFilter", ("valueString", "Patient?active=true")),
        ("_elements", ("valueString", "Patient.id,subject")),
        ("patient", ("valueReference", {"reference": "Patient/p-1"})),
        ("patient", ("valueReference", {"reference": "Patient/p-2"})),
        ("includeAssociatedData", ("valueCode", "LatestProvenanceResources")),
        ("includeAssociatedData", ("valueCode", "_own")),
        ("organizeOutputBy", ("valueString", "Patient")),
        ("allowPartialManifests", ("valueBoolean", True)),
    ]


def test_stu4_repeats_every_list_and_codes_associated_data_whatever_the_switches_say() -> None:
    found = parameters(FULL, Shape.STU4, repeat_types=False, repeat_filters=False)
    assert [value for name, value in found if name == "_type"] == [
        ("valueString", "Patient"),
        ("valueString", "Observation"),
    ]
    assert [value for name, value in found if name == "_elements"] == [
        ("valueString", "Patient.id"),
        ("valueString", "subject"),
    ]
    system = "http://hl7.org/fhir/uv/bulkdata/CodeSystem/include-associated-data"
    assert [value for name, value in found if name == "includeAssociatedData"] == [
        ("valueCoding", {"system": system, "code": "LatestProvenanceResources"}),
        ("valueCoding", {"code": "_own"}),
    ]
    strings = [value for name, (kind, value) in found if kind == "valueString"]
    assert not any("," in value for value in strings), "STU4 knows no comma lists"


def test_what_a_get_cannot_carry_is_refused_and_no_patient_stands_in_a_url() -> None:
    with pytest.raises(Misconfigured, match="POST"):
        FULL.kick_off(BASE, GENERIC, Shape.STU3, "GET")
    with pytest.raises(Misconfigured, match="STU4"):
        ExportRequest(Level.SYSTEM).kick_off(BASE, GENERIC, Shape.STU4, "GET")
    posted = FULL.kick_off(BASE, GENERIC, Shape.STU3, "POST")
    assert not any(patient in posted.url for patient in PATIENTS)
    assert not any(patient in repr(posted) for patient in PATIENTS)


@pytest.mark.parametrize(
    ("switch", "members"),
    [
        ("patient_parameter", {"patients": ("a",)}),
        ("elements", {"elements": ("id",)}),
        ("type_filter", {"type_filters": ("Patient?a=b",)}),
        ("until", {"until": "2026-01-01T00:00:00Z"}),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_a_server_is_known_not_to_have_is_not_sent(switch: str, members: dict[str, Any], method: Method) -> None:
    request = ExportRequest(Level.PATIENT, **members)
    with pytest.raises(Misconfigured, match=switch):
        request.kick_off(BASE, replace(GENERIC, **{switch: False}), Shape.STU3, method)


def test_a_request_is_kept_as_data_and_comes_back() -> None:
    plain = FULL.plain()
    assert ExportRequest.from_plain(json.loads(json.dumps(plain))) == FULL
    assert list(plain) == ["level", *sorted(set(plain) - {"level"})]
    assert ExportRequest(Level.SYSTEM).plain() == {"level": "system"}


@pytest.mark.parametrize(
    "plain",
    [
        {},
        {"level": "galaxy"},
        {"level": "system", "colour": 1},
        {"level": "system", "types": "Patient"},
        {"level": "system", "types": [1]},
        {"level": "system", "since": 1},
        {"level": "system", "type_filters": [None]},
        {"level": "system", "partial_manifests": "yes"},
        {"level": "group", "group": 7},
    ],
)
def test_what_is_no_request_does_not_come_back(plain: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured):
        ExportRequest.from_plain(plain)


LISTS = {"types": FULL.types, "type_filters": FULL.type_filters, "elements": FULL.elements}


@given(st.fixed_dictionaries({name: st.permutations(list(value)) for name, value in LISTS.items()}))
def test_the_scope_of_a_cursor_does_not_depend_on_order_or_on_since_until_and_patients(
    shuffled: dict[str, Any],
) -> None:
    other = replace(FULL, since=None, until=None, patients=(), **{name: tuple(v) for name, v in shuffled.items()})
    assert other.scope("HTTPS://EHR.example:443/fhir") == FULL.scope(BASE)


@pytest.mark.parametrize(
    "change",
    [
        {"group": "g2"},
        {"types": ("Patient", "Observation", "Condition")},
        {"type_filters": ("Patient?active=true",)},
        {"elements": ()},
        {"associated": ()},
    ],
)
def test_the_scope_is_another_one_for_what_brings_other_resources(change: dict[str, Any]) -> None:
    assert replace(FULL, **change).scope(BASE) != FULL.scope(BASE)
    assert FULL.scope("https://ehr.example/other") != FULL.scope(BASE)


@pytest.mark.parametrize(
    ("base", "same"),
    [
        ("https://EHR.example/fhir", "https://ehr.example/fhir"),
        ("https://ehr.example:443/fhir//", "https://ehr.example/fhir"),
        ("http://127.0.0.1:8090", "http://127.0.0.1:8090"),
        ("http://[::1]:80/r4", "http://[::1]/r4"),
        ("https://ehr.example/FHIR", "https://ehr.example/FHIR"),
    ],
)
def test_a_base_has_one_spelling(base: str, same: str) -> None:
    assert server_of(base) == same


@pytest.mark.parametrize("parameter", sorted(PARAMETERS))
def test_one_parameter_can_be_dropped_and_only_that_one(parameter: str) -> None:
    less = FULL.without(parameter)
    assert set(FULL.asked()) - set(less.asked()) == {parameter}
    with pytest.raises(Misconfigured):
        less.without(parameter)


def test_what_is_no_parameter_cannot_be_dropped() -> None:
    with pytest.raises(Misconfigured):
        FULL.without("level")
