"""Whose a call's resources are: read once, and no other answer than a look at every one of them gives."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from adapters.readers import cds_hooks
from adapters.readers.subjects import subject_of
from cds_server.brought import Bringing, Brought, Refused
from cds_server.deadline import Clock
from cds_server.hooks.context import HookRequest
from cds_server.hooks.prefetch import check_patient
from cds_server.hooks.routes import Caller
from cds_server.projected import SOMEBODY
from cds_server.reception import _beside, _Kept, _stated
from cds_server.services import all_services
from cds_server.settings import load
from cds_server.store.reads import RecordRow
from cds_server.where import Where
from models.errors import BadInput, Unreadable, WrongPatient
from tests.cds_server.test_prefetch import PATIENT, bundle, lab, request

BASE = "https://ehr.example/r4"
THEIRS, NAMELESS = lab("Patient/p2"), {"resourceType": "Observation", "subject": {"reference": "Patient/p1"}}
KINDS: list[dict[str, Any] | None] = [
    None,
    PATIENT,
    {"resourceType": "Patient", "id": "p2"},
    bundle(lab(), lab("Patient/p1/_history/3"), lab(f"{BASE}/Patient/p1"), {"resourceType": "Organization", "id": "x"}),
    bundle(lab(), {**THEIRS, "id": "o2"}),
    bundle(lab(f"{BASE}/Patient/p2")),
    bundle(lab("https://other.example/r4/Patient/p1")),
    bundle(lab("Group/p1"), lab({"identifier": {"system": "s", "value": "v"}})),
    bundle({"resourceType": "Bundle", "id": "inner", "entry": [{"resource": lab()}]}),
    bundle({"resourceType": "Bundle", "id": "inner", "entry": [{"resource": THEIRS}]}),
    bundle(NAMELESS),
    bundle(NAMELESS, THEIRS),
    bundle(THEIRS, NAMELESS),
    bundle({**lab(), "meta": 1}),
    bundle({**lab(), "meta": 1}, THEIRS),
    {"resourceType": "Bundle", "entry": "x"},
    {"resourceType": "OperationOutcome", "issue": []},
]
PAIRS = [(one, other) for one in KINDS for other in KINDS]


def read(asked: HookRequest) -> Brought:
    bringing = Bringing(load({"CDS_TRUST": "open"}), None)
    spec = next(spec for spec in all_services() if spec.hook == "patient-view")
    return asyncio.run(bringing.read(spec, asked, Caller("ehr"), Clock.start(60)))


def by_every_look(asked: HookRequest) -> BadInput | None:
    """What is said of a call where every resource is looked at first, and read then."""
    try:
        check_patient(asked, subject_of)
        for statement in cds_hooks.read_request({"prefetch": asked.prefetch, "fhirServer": asked.fhir_server}):
            if statement.body is not None and not isinstance(statement.body.get("meta", {}), dict):
                return Unreadable("meta is not an object", where="/meta")
    except BadInput as error:
        return error
    return None


def test_another_patient_is_found_whatever_else_is_brought() -> None:
    seen: set[type[BadInput] | None] = set()
    for one, other in PAIRS:
        asked = request({"a": one, "b": other}, fhirServer=BASE)
        expected = by_every_look(asked)
        seen.add(type(expected) if expected is not None else None)
        if expected is None:
            read(asked)
            continue
        with pytest.raises(Refused) as refused:
            read(asked)
        found = refused.value.error
        assert (type(found), str(found)) == (type(expected), str(expected))
    assert seen == {None, WrongPatient, Unreadable}


def test_what_says_by_itself_whose_it_is_is_settled() -> None:
    organization = {"resourceType": "Organization", "id": "x"}
    assert read(request({"patient": PATIENT, "labs": bundle(lab(), organization)})).settled
    assert not read(request({"patient": PATIENT, "labs": bundle(lab(), {**lab("Group/p1"), "id": "o2"})})).settled
    assert not read(request({"labs": bundle(lab({"identifier": {"system": "s", "value": "v"}}))})).settled


def test_what_is_read_before_the_record_is_known_is_what_is_read_after() -> None:
    """Also what cannot be read, and beside what is stored of the same resource."""
    broken = {**lab(), "id": "broken", "code": 7}
    coded = {**lab(), "code": {"coding": [{"system": "http://loinc.org", "code": "21889-1"}]}, "valueInteger": 3}
    born = {**PATIENT, "birthDate": "1971-02-03", "gender": "female"}
    parts = read(request({"patient": born, "labs": bundle(coded, broken)})).parts
    received, record = "2026-11-22T10:00:00.000000Z", RecordRow(7, "c" * 32, "ehr")
    where = Where(0, "d" * 32, "ehr", "cds-hooks@1+facts@2", received)
    ahead = _stated(where, parts, SOMEBODY, received)
    known, _ = _beside(_Kept(3, where, record, received, (record,), ()), parts, None)
    for stored in ((), tuple(known)):
        kept = _Kept(3, where.but(landing_id=3), record, received, (record,), stored)
        facts, unread = _beside(kept, parts, None)
        assert (list(facts), unread) == (list(_beside(kept, parts, ahead)[0]), ahead.unread)
        assert unread == ("/prefetch/labs/entry/1/resource",)
        assert {fact.record for fact in facts} == {record.ref}
        assert [fact.code.code for fact in facts] == ["birthDate", "gender", "21889-1"]
