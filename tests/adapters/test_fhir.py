"""The FHIR reader: a part becomes statements, or a reason that names where, and never what."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.readers import fhir
from adapters.readers.subjects import subject_of
from models.errors import BadInput, Malformed, Unreadable
from models.nouns import Part, Statement, Subject, Verb

NOW = "2026-11-21T10:00:00.000000Z"
PATIENT = {"resourceType": "Patient", "id": "p1"}
BARE = {"resourceType": "Patient"}
UUID = "61ebe359-bfdc-4613-8bf2-c5e300945f0a"


def read(body: Any, media_type: str = fhir.RESOURCE) -> list[Statement]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return fhir.read(Part("0" * 32, 0, "n", media_type, NOW, raw))


def short(found: list[Statement]) -> list[tuple[str, str, str]]:
    return [(s.verb.value, f"{s.resource_type}/{s.local_id}", s.pointer) for s in found]


@pytest.mark.parametrize("media_type", [fhir.RESOURCE, fhir.LINE])
def test_a_resource_is_asserted(media_type: str) -> None:
    assert read(PATIENT, media_type) == [Statement(Verb.ASSERT, "Patient", "p1", "", PATIENT)]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"resource": PATIENT}, [("assert", "Patient/p1", "/resource")]),
        ({"resource": PATIENT, "search": {"mode": "include"}}, [("assert", "Patient/p1", "/resource")]),
        (
            {"request": {"method": "PUT", "url": "Patient/p1"}, "resource": PATIENT},
            [("assert", "Patient/p1", "/resource")],
        ),
        (
            {"request": {"method": "PUT", "url": "Patient?identifier=x"}, "resource": PATIENT},
            [("assert", "Patient/p1", "/resource")],
        ),
        ({"request": {"method": "DELETE", "url": "Patient/p1"}}, [("void", "Patient/p1", "")]),
        (
            {"request": {"method": "DELETE", "url": "https://ehr.example.org/fhir/Patient/p1"}},
            [("void", "Patient/p1", "")],
        ),
        ({"request": {"method": "GET", "url": "Patient/p1"}}, []),
        ({"fullUrl": f"urn:uuid:{UUID}", "resource": BARE}, [("assert", f"Patient/{UUID}", "/resource")]),
        (
            {"fullUrl": f"urn:uuid:{UUID}", "resource": PATIENT, "request": {"method": "POST", "url": "Patient"}},
            [("assert", f"Patient/{UUID}", "/resource")],
        ),
        ({"fullUrl": f"urn:uuid:{UUID}", "resource": PATIENT}, [("assert", "Patient/p1", "/resource")]),
        ({"resource": {"resourceType": "OperationOutcome"}, "search": {"mode": "outcome"}}, []),
        ({"response": {"status": "204"}}, []),
        ({"resourceType": "Bundle", "type": "collection", "entry": []}, []),
    ],
)
def test_an_entry_says_what_its_method_means(entry: dict[str, Any], expected: list[tuple[str, str, str]]) -> None:
    assert short(read(entry, fhir.ENTRY)) == expected


def test_a_transaction_that_creates_holds_together() -> None:
    """The patient and what refers to it by UUID come out as one record, from each entry alone."""
    create = {"method": "POST", "url": "-"}
    observation = {"resourceType": "Observation", "subject": {"reference": f"urn:uuid:{UUID}"}}
    (patient,) = read({"fullUrl": f"urn:uuid:{UUID}", "resource": PATIENT, "request": create}, fhir.ENTRY)
    (finding,) = read({"fullUrl": "urn:uuid:1-2", "resource": observation, "request": create}, fhir.ENTRY)
    assert patient.body is not None
    assert finding.body is not None
    assert subject_of(patient.body) == subject_of(finding.body) == Subject(local_id=UUID)
    assert finding.local_id == finding.body["id"] == "1-2"


def test_a_bundle_in_one_part_is_read_entry_by_entry() -> None:
    bundle = {"resourceType": "Bundle", "entry": [{"resource": PATIENT}, {"resource": {**PATIENT, "id": "p2"}}]}
    assert short(read(bundle, fhir.LINE)) == [
        ("assert", "Patient/p1", "/entry/0/resource"),
        ("assert", "Patient/p2", "/entry/1/resource"),
    ]


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"resourceType": "Patient"}, "/id"),
        ({"resourceType": "Patient", "id": 7}, "/id"),
        ({"resourceType": "Patient", "id": "a b"}, "/id"),
        ({"id": "x"}, "/resourceType"),
        ({"resourceType": ["Patient"], "id": "x"}, "/resourceType"),
        ([], "/"),
        ("text", "/"),
        ({"resourceType": "Bundle", "entry": {}}, "/entry"),
        ({"resourceType": "Bundle", "entry": [1]}, "/entry/0"),
        ({"resourceType": "Bundle", "entry": [{"resource": 1}]}, "/entry/0/resource"),
        ({"resourceType": "Bundle", "entry": [{"request": {"method": "PATCH"}}]}, "/entry/0/request/method"),
        (
            {"resourceType": "Bundle", "entry": [{"request": {"method": "DELETE", "url": "Patient?x=1"}}]},
            "/entry/0/request/url",
        ),
        (
            {
                "resourceType": "Bundle",
                "entry": [{"request": {"method": "PUT", "url": "Patient/p2"}, "resource": PATIENT}],
            },
            "/entry/0/request/url",
        ),
    ],
)
def test_what_cannot_be_read_names_the_place(body: Any, where: str) -> None:
    with pytest.raises(Unreadable) as refusal:
        read(body)
    assert refusal.value.where == where


@pytest.mark.parametrize("raw", [b"", b"{", b'{"a":1,"a":2}', b'{"a":NaN}', b"\xff", b'{"a":"\\ud800"}', b"[" * 5000])
def test_what_is_not_json_is_malformed(raw: bytes) -> None:
    with pytest.raises(Malformed):
        read(raw)


# ---- what a bulk export's manifest says of a file --------------------------------------------------------------------

DELETE = {"request": {"method": "DELETE", "url": "Patient/p1"}}
PUT = {"request": {"method": "PUT", "url": "Patient/p2"}, "resource": {**PATIENT, "id": "p2"}}
OUTCOME = {"resourceType": "OperationOutcome", "issue": []}


def test_a_line_of_what_was_asked_for_in_part_is_read_like_any_other() -> None:
    assert read(PATIENT, fhir.LINE + fhir.SUBSET) == read(PATIENT)
    assert read(PATIENT, fhir.line_of_type("Patient") + fhir.SUBSET) == read(PATIENT)
    with pytest.raises(Unreadable):
        read(PATIENT, fhir.line_of_type("Condition") + fhir.SUBSET)


def test_a_line_of_a_stated_type_is_of_that_type() -> None:
    assert fhir.line_of_type("Patient") == "application/fhir+ndjson; type=Patient"
    assert read(PATIENT, fhir.line_of_type("Patient")) == read(PATIENT)
    with pytest.raises(Unreadable) as refusal:
        read(PATIENT, fhir.line_of_type("Observation"))
    assert refusal.value.where == "/resourceType"
    assert "Patient" not in str(refusal.value)


def test_a_bundle_does_not_hide_resources_in_a_file_of_another_type() -> None:
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": PATIENT}]}
    with pytest.raises(Unreadable):
        read(bundle, fhir.line_of_type("Patient"))


def test_a_line_of_an_error_file_says_nothing_about_a_patient() -> None:
    assert read(OUTCOME, fhir.line_of_type("OperationOutcome")) == []
    with pytest.raises(Unreadable):
        read(PATIENT, fhir.line_of_type("OperationOutcome"))


def test_of_a_deleted_file_only_deletions_count() -> None:
    """Bulk Data 2.0.0, 2.5.4: other methods are no business of the file, and what one carries is not taken."""
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [PUT, DELETE, {"resource": PATIENT}, {}]}
    assert short(read(bundle, fhir.DELETED)) == [("void", "Patient/p1", "/entry/1")]
    assert read({"resourceType": "Bundle", "type": "transaction"}, fhir.DELETED) == []


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (PATIENT, "/resourceType"),
        (OUTCOME, "/resourceType"),
        ({"resourceType": "Bundle", "entry": [DELETE, 1]}, "/entry/1"),
        (
            {"resourceType": "Bundle", "entry": [{"request": {"method": "DELETE", "url": "Patient?active=true"}}]},
            "/entry/0/request/url",
        ),
    ],
)
def test_what_is_no_deletion_of_one_resource_is_not_guessed_at(body: Any, where: str) -> None:
    with pytest.raises(Unreadable) as refusal:
        read(body, fhir.DELETED)
    assert refusal.value.where == where


def test_parameters_head_the_blocks_of_an_organized_file() -> None:
    header = {"resourceType": "Parameters", "parameter": [{"name": "header"}]}
    assert read(header, fhir.ORGANIZED) == []
    assert short(read(PATIENT, fhir.ORGANIZED)) == [("assert", "Patient/p1", "")]
    with pytest.raises(Unreadable):  # elsewhere it is a resource like any other, and has no id
        read(header, fhir.LINE)


@pytest.mark.parametrize("raw", [b'{"transactionTime": "2026-01-01T00:00:00Z", "output": []}', b"{", b"", b"\xff"])
def test_a_manifest_says_nothing_about_a_patient(raw: bytes) -> None:
    assert read(raw, fhir.BULK_MANIFEST) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["resourceType", "id", "entry", "resource", "request", "method", "url", "fullUrl", "search", "type"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


BULK = (fhir.DELETED, fhir.ORGANIZED, fhir.line_of_type("Patient"), fhir.line_of_type("Bundle"))


@given(JSON, st.sampled_from((*fhir.MEDIA_TYPES, *BULK)))
def test_any_json_gives_statements_or_a_reason(body: Any, media_type: str) -> None:
    try:
        found = read(body, media_type)
    except BadInput:
        return
    assert all(statement.local_id and statement.resource_type for statement in found)


def test_nothing_from_outside_is_echoed() -> None:
    with pytest.raises(Unreadable) as refusal:
        read({"resourceType": "Patient", "id": "Jenny Miller 1965"})
    assert "Jenny" not in str(refusal.value)
