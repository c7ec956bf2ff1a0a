"""Who may look, what is allowed now, and that each look, let or refused, is one durable entry."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cds_server.access.log import Access, Look, Seen, by_command
from cds_server.access.roles import MAY, Act, Grant, may, roles_by_ehr, roles_of_staff
from cds_server.access.settings import AccessSettings
from cds_server.ehrs import Ehr
from cds_server.settings import Settings
from cds_server.store.store import Store
from models.errors import BadInput, NotAllowed, NotFound, Unauthenticated
from models.nouns import Fact
from smart_app.desk import Door, Role, Viewer
from tests.cds_server.stores import SSN, learn, patient, weight

GRANTS = (
    Grant(Role.CLINICIAN, "a"),
    Grant(Role.BOARD_CHAIR, values=frozenset({"board"})),
    Grant(Role.COMPLIANCE, values=frozenset({"privacy"})),
)
DR = "https://ehr.example.org/Practitioner/7"
R = {"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R"}]}
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def consent(**more: Any) -> dict[str, Any]:
    """An opt-out, active, of everything, by p1."""
    return {
        "resourceType": "Consent",
        "id": "c1",
        "status": "active",
        "scope": {"coding": [{"code": "patient-privacy"}]},
        "category": [{"coding": [{"code": "59284-0", "system": "http://loinc.org"}]}],
        "patient": {"reference": "Patient/p1"},
        "provision": {"type": "deny"},
    } | more


@pytest.fixture
def granted(settings: Settings) -> Settings:
    ehrs = (Ehr("a", test=False), Ehr("b"))
    return replace(settings, ehrs=ehrs, access=AccessSettings(GRANTS, restricted_roles=frozenset({Role.COMPLIANCE})))


class Watch:
    """A clock that stands where it is put."""

    def __init__(self) -> None:
        self.at = NOW

    def __call__(self) -> datetime:
        return self.at


@pytest.fixture
def clock() -> Watch:
    return Watch()


@pytest.fixture
def access(store: Store, granted: Settings, clock: Watch) -> Access:
    return Access(store, granted, clock)


def ref_of(store: Store, local_id: str = "p1", namespace: str = "a") -> str:
    record = store.reads.record(namespace, local_id)
    assert record is not None
    return record.ref


def look(access: Access, viewer: Viewer, record: str | None, act: str = Act.CASE, **more: Any) -> Seen:
    return asyncio.run(access.look(Look(viewer, act, record, **more)))


def rows(store: Store) -> list[tuple[str, str, str]]:
    return [tuple(row) for row in store.reads.query("SELECT act, outcome, purpose FROM access ORDER BY id")]


def last_entry(store: Store) -> dict[str, Any]:
    entry = store.reads.entry(store.reads.head()[0])
    assert entry is not None
    return dict(json.loads(entry.body))


def test_a_look_is_one_entry_that_says_who_only_under_seal(store: Store, access: Access) -> None:
    learn(store, patient("p1"))
    before = store.reads.head()[0]
    viewer = access.by_ehr("a", DR, "Dr Osei")
    seen = look(access, viewer, ref_of(store), detail={"facts": 3})
    assert seen.seq == store.reads.head()[0] == before + 1
    assert [each.ref for each in seen.records] == [ref_of(store)]
    entry = last_entry(store)
    assert (entry["kind"], entry["actor"]) == ("access", "ehr:a")
    assert entry["detail"]["record"] == ref_of(store)
    assert "Osei" not in json.dumps(entry)
    assert "Practitioner" not in json.dumps(entry)
    assert entry["rows"]["tables"] == [["access", 1], ["access_record", 1]]
    (row,) = store.reads.query("SELECT ref, sealed, roles, detail FROM access")
    assert store.reads.open_payload(b"v", row[0], row[1]) == {"subject": DR, "name": "Dr Osei"}
    assert (row[2], row[3]) == ("clinician", '{"facts": 3}')


def test_no_role_is_refused_on_record_and_glass_does_not_help(store: Store, access: Access) -> None:
    learn(store, patient("p1"))
    nobody = access.by_staff("sub-1", values=["visitors"])
    assert nobody.roles == frozenset()
    with pytest.raises(NotAllowed, match="no role") as refused:
        look(access, nobody, ref_of(store))
    assert not refused.value.glass
    with pytest.raises(NotAllowed):
        asyncio.run(access.break_glass(nobody, ref_of(store), "because I would like to know"))
    compliance = access.by_staff("sub-2", values=["privacy"])
    with pytest.raises(NotAllowed, match="role does not include"):
        look(access, compliance, ref_of(store))
    assert rows(store) == [
        ("case", "refused", "TREAT"),
        ("break-glass", "refused", "ETREAT"),
        ("case", "refused", "TREAT"),
    ]
    with pytest.raises(NotFound):
        look(access, compliance, "0" * 32)


def test_labels_withhold_facts_and_whole_records_until_the_glass_is_broken(
    store: Store, access: Access, clock: Watch
) -> None:
    learn(store, patient("p1", meta=R), patient("p2"), weight("w1", "p2", 70), weight("w2", "p2", 71, meta=R))
    viewer, other = access.by_ehr("a", DR), access.by_ehr("a", f"{DR}1")
    p1, p2 = ref_of(store), ref_of(store, "p2")
    record = store.reads.record_by_ref(p2)
    assert record is not None
    facts: list[Fact] = [each.fact for each in store.reads.stored_facts([record.id])]
    visible, withheld = access.sees(viewer, facts)
    assert (len(facts) - len(visible), withheld) == (1, 1)
    assert access.sees(access.by_staff("x", values=["privacy"]), facts)[1] == 0
    with pytest.raises(NotAllowed, match="marked as restricted") as refused:
        look(access, viewer, p1)
    assert refused.value.glass
    for short in ("", "because    ", "x" * 1001):
        with pytest.raises(BadInput, match="say why"):
            asyncio.run(access.break_glass(viewer, p1, short))
    seen = asyncio.run(access.break_glass(viewer, p1, "unconscious in the emergency room"))
    assert seen.glass == "2026-11-21T13:00:00.000000Z"
    assert look(access, viewer, p1).glass == seen.glass
    assert rows(store)[-1] == ("case", "seen", "ETREAT")
    with pytest.raises(NotAllowed):  # another viewer's glass is whole
        look(access, other, p1)
    assert access.sees(viewer, facts)[1] == 1  # the glass over one patient is not that over another
    asyncio.run(access.break_glass(viewer, p2, "the same emergency"))
    assert access.sees(viewer, facts)[1] == 0
    clock.at += timedelta(minutes=61)
    with pytest.raises(NotAllowed):
        look(access, viewer, p1)
    assert access.sees(viewer, facts)[1] == 1
    (row, _) = store.reads.query("SELECT ref, sealed FROM access WHERE outcome = 'broken' ORDER BY id")
    assert store.reads.open_payload(b"v", *row)["reason"] == "unconscious in the emergency room"
    assert [
        tuple(each) for each in store.reads.query("SELECT kind, reason FROM flag WHERE reason = 'break-glass'")
    ] == [("flag", "break-glass")] * 2


def test_an_opt_out_is_of_the_whole_person_and_ends_with_its_consent(store: Store, access: Access) -> None:
    learn(store, patient("p1", (SSN, "1")), consent())
    learn(store, patient("q1", (SSN, "1")), namespace="b")
    viewer = access.by_staff("chair", values=["board"])
    other = ref_of(store, "q1", "b")
    for ref in (ref_of(store), other):
        with pytest.raises(NotAllowed, match="opted out") as refused:
            look(access, viewer, ref)
        assert refused.value.glass
    asyncio.run(access.break_glass(viewer, other, "tumour board, patient asked in person"))
    assert look(access, viewer, ref_of(store)).glass is not None
    assert look(access, by_command("user:root"), ref_of(store), Act.COMMAND).seq  # a command withholds nothing
    learn(store, consent(status="inactive"))
    record = store.reads.record_by_ref(other)
    assert record is not None
    assert not access.allowed.opted_out([each.id for each in access.allowed.of_person(record)])
    assert look(access, access.by_staff("chair-2", values=["board"]), other).records[0].namespace == "a"


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_whom_an_ehr_vouches_for_sees_its_own_patients(store: Store, access: Access) -> None:
    learn(store, patient("p1", (SSN, "1")))
    learn(store, patient("q1", (SSN, "1")), namespace="b")
    viewer = access.by_ehr("a", DR)
    with pytest.raises(NotAllowed, match="belongs to an organisation") as refused:
        look(access, viewer, ref_of(store, "q1", "b"))
    assert not refused.value.glass
    assert [each.namespace for each in look(access, viewer, ref_of(store)).records] == ["a"]
    chair = access.by_staff("chair", values=["board"])
    assert {each.namespace for each in look(access, chair, ref_of(store)).records} == {"a", "b"}


def test_a_worklist_is_one_entry_and_withholds_one_by_one(store: Store, access: Access) -> None:
    learn(store, patient("p1"), patient("p2", meta=R), patient("p3"))
    refs = tuple(ref_of(store, each) for each in ("p1", "p2", "p3"))
    before = store.reads.head()[0]
    seen = look(access, access.by_staff("chair", values=["board"]), None, Act.BOARD_WORKLIST, others=refs)
    assert seen.refused == {refs[1]}
    assert store.reads.head()[0] == before + 1
    outcomes = [row[0] for row in store.reads.query("SELECT outcome FROM access_record ORDER BY id")]
    assert outcomes == ["seen", "refused", "seen"]


def test_roles_are_a_table_that_denies_by_default() -> None:
    assert set(MAY) == set(Role)
    for role, patients in ((Role.DATA_SCIENTIST, False), (Role.AUDITOR, False), (Role.CLINICIAN, True)):
        viewer = Viewer("x", "x", frozenset({role}), Door.STAFF)
        assert may(viewer, Act.CASE) is patients
        assert not may(viewer, "something new")
    assert not may(Viewer("x", "x", frozenset(), Door.STAFF), Act.QUEUE)
    assert not may(by_command("user:x"), Act.BREAK_GLASS)


def test_grants_name_an_ehr_a_claim_or_persons() -> None:
    grants = (
        *GRANTS,
        Grant(Role.BOARD_CHAIR, "a", subjects=frozenset({DR})),
        Grant(Role.AUDITOR, subjects=frozenset("z")),
    )
    assert roles_by_ehr(grants, "a", DR) == {Role.CLINICIAN, Role.BOARD_CHAIR}
    assert roles_by_ehr(grants, "a", "https://ehr.example.org/Patient/7") == frozenset()
    assert roles_by_ehr(grants, "a", "RelatedPerson/7") == frozenset()
    assert roles_by_ehr(grants, "b", DR) == frozenset()
    assert roles_of_staff(grants, "z", ["privacy"]) == {Role.COMPLIANCE, Role.AUDITOR}
    assert roles_of_staff(grants, "dr", []) == frozenset()


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_session_lies_unused_as_long_as_its_strictest_role_allows(access: Access) -> None:
    allowed = access.allowed
    assert allowed.idle_seconds({Role.BOARD_CHAIR}) == 3600
    assert allowed.idle_seconds({Role.BOARD_CHAIR, Role.CLINICIAN}) == allowed.idle_seconds(()) == 900
    allowed.check_age({Role.CLINICIAN}, 900)
    with pytest.raises(Unauthenticated):
        allowed.check_age({Role.CLINICIAN}, 901)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_test_data_is_left_out_for_an_ehr_that_is_none_for_tests(store: Store, access: Access) -> None:
    learn(store, patient("p1"), weight("w1", "p1", 70, meta={"tag": [{"code": "HTEST"}]}))
    record = store.reads.record("a", "p1")
    assert record is not None
    facts = [each.fact for each in store.reads.stored_facts([record.id])]
    assert access.sees(access.by_ehr("a", DR), facts) == ([each for each in facts if not each.test], 0)
    assert access.sees(access.by_staff("x", values=["board"]), facts) == (facts, 0)


def test_the_table_of_the_manual_is_the_table_of_the_code() -> None:
    page = (Path(__file__).parents[2] / "docs" / "access.md").read_text()
    mine = [act for act in Act if act not in (Act.COMMAND, Act.SIGN_IN, Act.SIGN_OUT)]
    rows = [f"| {act} | {' | '.join('yes' if act in MAY[role] else '' for role in Role)} |" for act in mine]
    assert "\n".join(rows) in page
