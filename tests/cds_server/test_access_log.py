"""The access log read back: as FHIR by IHE BALP, for a reviewer, and as a patient's accounting of disclosures."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, time
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from starlette.testclient import TestClient

from adapters.readers.validation import validate
from cds_server.access.audit_event import PROFILE
from cds_server.access.export import audit_events, export, provenances
from cds_server.access.happenings import Span
from cds_server.access.log import Look
from cds_server.access.report import after_hours, disclosures, review
from cds_server.access.roles import Act, Grant
from cds_server.access.settings import AccessSettings
from cds_server.app import Parts, build, create_app
from cds_server.audit import audit
from cds_server.ehrs import Ehr
from cds_server.settings import Settings, load
from models.errors import Misconfigured, NotAllowed
from smart_app.desk import Role
from tests.cds_server.played import request
from tests.cds_server.stores import learn, patient
from tests.cds_server.test_commands import Cds, cds

__all__ = ["cds"]

SANDBOX = "sandbox"
DR = "https://ehr.example.org/fhir/Practitioner/7"
R = {"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R"}]}
GRANTS = (
    Grant(Role.CLINICIAN, SANDBOX),
    Grant(Role.CLINICIAN, "elsewhere"),
    Grant(Role.COMPLIANCE, values=frozenset({"privacy"})),
    Grant(Role.BOARD_CHAIR, values=frozenset({"board"})),
)


@pytest.fixture
def parts(settings: Settings) -> Iterator[Parts]:
    """One hook call with an override, and looks of every kind at its patient and at two others."""
    ehrs = (Ehr(SANDBOX, fhir_base="https://ehr.example.org/fhir"), Ehr("elsewhere", sees=(SANDBOX,)))
    settings = replace(settings, ehrs=ehrs, access=AccessSettings(GRANTS), checkpoint_seconds=0)
    built = build(settings)
    with TestClient(create_app(built), base_url="http://127.0.0.1:8000", client=("127.0.0.1", 5)) as ehr:
        answer = ehr.post("/cds-services/breast-cancer-prognosis", json=request("jenny-m.patient-view")).json()
        card = answer["cards"][0]["uuid"]
        told = {"card": card, "outcome": "overridden", "outcomeTimestamp": "2026-11-21T10:00:00Z"}
        said = ehr.post("/cds-services/breast-cancer-prognosis/feedback", json={"feedback": [told]})
        assert said.status_code == 200, said.text
        learn(built.store, patient("p1", meta=R), patient("p2"), namespace=SANDBOX)
        access = built.access
        doctor, guest = access.by_ehr(SANDBOX, DR, "Dr Osei"), access.by_ehr("elsewhere", "Practitioner/9")
        officer, chair = (
            access.by_staff("sub-1", "J. Weber", ["privacy"]),
            access.by_staff("sub-2", "H. Brandt", ["board"]),
        )
        jenny, p1, p2 = whose(built)

        async def day() -> None:
            await access.look(Look(doctor, Act.CASE, jenny, detail={"facts": 40}))
            await access.look(Look(doctor, Act.SIMILAR, jenny))
            await access.look(Look(doctor, Act.WHAT_IF, jenny))
            with pytest.raises(NotAllowed):
                await access.look(Look(doctor, Act.CASE, p1))
            await access.break_glass(doctor, p1, "unconscious in the emergency room")
            await access.look(Look(doctor, Act.CASE, p1))
            await access.look(Look(guest, Act.CASE, jenny))
            await access.look(Look(chair, Act.BOARD_WORKLIST, None, others=(jenny, p1, p2)))
            await access.look(Look(officer, Act.QUEUE, None))
            with pytest.raises(NotAllowed):
                await access.look(Look(officer, Act.CASE, p2))
            await built.store.writer.write(lambda tx: access.signed(tx, officer, Act.SIGN_IN))

        asyncio.run(day())
        yield built
    assert audit(settings.data_dir, settings.database_url, deep=True).findings == ()


def whose(parts: Parts) -> list[str]:
    return [row[0] for row in parts.store.reads.query("SELECT ref FROM patient_record ORDER BY id")]


def codings(event: dict[str, Any], part: str) -> set[str]:
    return {each["type"]["coding"][0]["code"] for each in event[part] if "coding" in each.get("type", {})}


def test_events_follow_balp_and_are_valid(parts: Parts) -> None:
    events = list(audit_events(parts.store, parts.settings, Span()))
    assert [problem for event in events for problem in validate(event)] == []
    assert len({event["id"] for event in events}) == len(events)
    by_profile: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        for profile in event.get("meta", {}).get("profile", [""]):
            by_profile.setdefault(profile.removeprefix(PROFILE), []).append(event)
    assert set(by_profile) == {"PatientRead", "PatientQuery", "Query", "PatientCreate", ""}
    for event in by_profile["PatientRead"]:
        assert (event["type"]["code"], event["subtype"][0]["code"], event["action"]) == ("rest", "read", "R")
        client, server, user = event["agent"]
        assert [client["type"]["coding"][0]["code"], server["type"]["coding"][0]["code"]] == ["110152", "110153"]
        assert (user["requestor"], client["requestor"], server["requestor"]) == (True, False, False)
        assert "network" in client
        assert "network" not in user
    for event in (*by_profile["PatientQuery"], *by_profile["Query"]):
        assert (event["subtype"][0]["code"], event["action"]) == ("search", "E")
        assert [each["type"]["coding"][0]["code"] for each in event["agent"][:2]] == ["110153", "110152"]
        (query,) = [each for each in event["entity"] if each.get("role", {}).get("code") == "24"]
        assert query["query"]
        assert "what" not in query
    for event in by_profile["PatientCreate"]:
        assert (event["subtype"][0]["code"], event["action"]) == ("create", "C")
        assert [each["type"]["coding"][0]["code"] for each in event["agent"]][:2] == ["110153", "110152"]
    for name, profiled in by_profile.items():
        for event in profiled:
            patients = [each for each in event["entity"] if each.get("role", {}).get("code") == "1"]
            assert len(patients) == name.startswith("Patient") or name == ""
            assert event["outcome"] == "0" or name == ""
            if name in ("PatientRead", "PatientCreate"):
                assert [each["type"]["code"] for each in event["entity"]].count("2") == 1
            assert sum(agent["requestor"] for agent in event["agent"]) == 1
    worklist = [event for event in by_profile["PatientQuery"] if event["agent"][2]["name"] == "H. Brandt"]
    assert len(worklist) == 2  # one a patient; the third is restricted
    plain = by_profile[""]
    assert {event["subtype"][0]["code"] for event in plain if event["outcome"] == "0"} == {
        "operation",
        "110127",
        "110122",
    }
    broken = next(event for event in plain if event["subtype"][0]["code"] == "110127")
    assert broken["outcomeDesc"] == "unconscious in the emergency room"
    refused = [event for event in plain if event["outcome"] == "4"]
    assert len(refused) == 3
    hook = next(event for event in plain if event["subtype"][0]["code"] == "operation")
    assert hook["agent"][0]["who"]["display"] == SANDBOX
    assert hook["agent"][2]["who"]["identifier"]["value"].startswith("Practitioner")


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_provenance_names_model_snapshot_and_entry_of_each_card_and_action(parts: Parts) -> None:
    found = list(provenances(parts.store, parts.settings, Span()))
    assert [problem for each in found for problem in validate(each)] == []
    card, action = found[0], found[-1]
    assert "@" in card["agent"][0]["who"]["display"]
    seq, leaf = card["entity"][-1]["what"]["identifier"]["value"].split(":")
    entry = parts.store.reads.entry(int(seq))
    assert entry is not None
    assert entry.leaf.hex() == leaf
    assert action["agent"][0]["type"]["coding"][0]["code"] == "author"


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_the_export_is_two_files_with_or_without_patients(parts: Parts, tmp_path: Path) -> None:
    named = export(parts.store, parts.settings, tmp_path / "named", Span())
    text = (tmp_path / "named" / "AuditEvent.ndjson").read_text()
    assert len(text.splitlines()) == named["AuditEvent"]
    assert "https://ehr.example.org/fhir/Patient/p2" in text
    assert export(parts.store, parts.settings, tmp_path / "bare", Span(), pseudonyms=True) == named
    bare = (tmp_path / "bare" / "AuditEvent.ndjson").read_text()
    assert "Patient/p2" not in bare
    assert whose(parts)[2] in bare
    assert export(parts.store, parts.settings, tmp_path / "none", Span(since="2999")) == {
        "AuditEvent": 0,
        "Provenance": 0,
    }
    with pytest.raises(Misconfigured, match="no new or empty folder"):
        export(parts.store, parts.settings, tmp_path / "named", Span())


def test_a_reviewer_sees_readers_refusals_and_broken_glass(parts: Parts) -> None:
    midnight = replace(parts.settings.access, after_hours=(time(0), time(23, 59, 59)))
    found = review(parts.store, midnight, Span(), parts.access.allowed)
    assert (found.refused, found.people, found.patients) == (2, 4, 3)
    first = found.readers[0]
    assert (first.name, first.patients, first.broken, first.refused, first.restricted) == ("Dr Osei", 2, 1, 1, 1)
    assert found.after_hours == found.looks == 7
    assert {reader.name for reader in found.denied} == {"Dr Osei", "J. Weber"}
    (glass,) = found.broken
    assert (glass.name, glass.patient, glass.looks, glass.open) == ("Dr Osei", whose(parts)[1], 1, True)
    assert review(parts.store, parts.settings.access, Span(since="2999"), parts.access.allowed).readers == []


def test_what_went_outside_is_accounted_for(parts: Parts) -> None:
    record = parts.store.reads.record_by_ref(whose(parts)[0])
    assert record is not None
    (one,) = disclosures(parts.store, record, [record.id], Span())
    assert (one.to, one.what, one.purpose) == ("elsewhere", "case", "TREAT")


@pytest.mark.parametrize(
    ("at", "late"),
    [("18:59:59", False), ("19:00:00", True), ("02:00:00", True), ("06:59:59", True), ("07:00:00", False)],
)
def test_hours_go_over_midnight_in_the_zone_of_the_site(at: str, late: bool) -> None:
    hours = (time(19), time(7))
    assert after_hours(f"2026-01-21T{at}.000000Z", hours, ZoneInfo("UTC")) is late
    assert after_hours("2026-07-21T17:30:00.000000Z", hours, ZoneInfo("Europe/Lisbon")) is False
    assert after_hours("2026-07-21T18:30:00.000000Z", hours, ZoneInfo("Europe/Lisbon")) is True
    assert after_hours("2026-01-21T12:00:00.000000Z", (time(8), time(18)), ZoneInfo(str(UTC))) is True


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_commands_say_who_looked_before_they_show(cds: Cds, settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "p.ndjson"
    file.write_text(json.dumps(patient("p1")) + "\n")
    cds("land", "--namespace", "a", file)
    cds("digest")
    cds("patient", "a/p1")
    assert "nothing of this person went outside" in cds("patient", "a/p1", "--disclosures")
    told = cds("ledger", "report")
    assert "3 looks at 1 patients by 1 viewers" in told  # the report itself is one
    counts = cds.json("ledger", "export", "--format", "fhir", "--out", tmp_path / "fhir")
    assert counts["AuditEvent"] >= 4
    assert cds.json("ledger", "report", "--until", "2020-01-01")["looks"] == 0


WRONG = {
    "access = 1": "is not a table",
    "[access]\nwho = 1": "unknown key 'who' of [access]",
    '[[access.grant]]\nrole = "boss"\nehr = "a"': "role of [[access.grant]] number 1 in cds.toml is none of",
    '[[access.grant]]\nrole = "auditor"': "does not say who has the role",
    '[[access.grant]]\nrole = "auditor"\nehr = "b"': "is the namespace of no [[ehr]]",
    '[[access.grant]]\nrole = "auditor"\nehr = "a"\nvalues = ["x"]': "are of staff",
    "[access]\nbreak_glass_minutes = 0": "is not a whole number between 1 and 1440",
    '[access]\nafter_hours = "7pm"': "is not HH:MM-HH:MM",
    '[access]\ntimezone = "Mars/Olympus"': "is not the name of a time zone",
    "[access.idle_minutes]\nboss = 1": "unknown key 'boss'",
    '[access]\nrestricted_roles = ["boss"]': "restricted_roles of [access] in cds.toml is none of",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_setting_stops_the_start(text: str, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=re.escape(WRONG[text])):
        settings_of(tmp_path, text)


def settings_of(tmp_path: Path, text: str, trust: str = "jwt") -> Settings:
    config = tmp_path / "cds.toml"
    ehr = '[[ehr]]\nnamespace = "a"\nissuer = "https://a.example.org"\njwks_url = "https://a.example.org/jwks"\n'
    config.write_text(f"{text}\n{ehr}" if text.startswith("access =") else f"{ehr}{text}\n")
    return load({"CDS_CONFIG": str(config)}, data_dir=tmp_path, trust=trust)


def test_settings_give_roles_and_without_them_nobody_has_any(tmp_path: Path) -> None:
    assert settings_of(tmp_path, "").access.grants == ()
    assert settings_of(tmp_path, "", "open").access.grants == (Grant(Role.CLINICIAN, "a"),)
    said = (
        '[access]\nbreak_glass_minutes = 30\nrestricted_roles = ["compliance"]\nafter_hours = "20:00-06:30"\n'
        'timezone = "Europe/Lisbon"\n[access.idle_minutes]\nclinician = 5\n'
        '[[access.grant]]\nrole = "clinician"\nehr = "a"\nsubjects = ["Practitioner/1"]\n'
        '[[access.grant]]\nrole = "auditor"\nvalues = ["audit"]\n'
    )
    access = settings_of(tmp_path, said).access
    assert (access.glass_minutes, access.idle_minutes[Role.CLINICIAN], access.idle_minutes[Role.AUDITOR]) == (30, 5, 15)
    assert access.after_hours == (time(20), time(6, 30))
    assert access.grants[0].to_ehr("a", "Practitioner/1")
    assert not access.grants[0].to_ehr("a", "Practitioner/2")
    assert access.grants[1].to_staff("x", ["audit"])
