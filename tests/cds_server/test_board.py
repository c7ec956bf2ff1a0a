"""The tumor board over a real store: from a worklist to signed minutes, and who may do what on the way."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.testclient import TestClient

from adapters.readers.validation import validate
from cds_server.audit import audit
from cds_server.board.seats import OPEN_SECONDS
from cds_server.board.wiring import board_routes
from cds_server.checkpoints import Checkpoints
from cds_server.settings import Settings, load
from cds_server.staff_sessions import StaffSessions
from cds_server.store.writer import Tx
from smart_app.desk import Case, Door, Role, Viewer
from tests.cds_server.board_room import CHAIR, CLINICIAN, COMPLIANCE, HERE, WORDS, Room
from tests.cds_server.conftest import UNHURRIED
from tests.cds_server.stores import MRN, learn
from tests.smart_app.board_case import words

QUESTION = "Is chemotherapy worth it for this woman?"
RESTRICTED = {"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R"}]}
MakeRoom = Callable[..., Room]


@pytest.fixture
def room(data_dir: Path) -> Iterator[MakeRoom]:
    """Servers on SQLite; the last story runs on both engines."""
    made: list[tuple[Room, Settings]] = []

    def make(*patients: str, settings: Settings | None = None) -> Room:
        url = f"sqlite:///{data_dir / 'cds.db'}"
        settings = settings or load({}, data_dir=data_dir, database_url=url, trust="open", deadline_ms=UNHURRIED)
        made.append((Room(settings, *patients), settings))
        return made[-1][0]

    yield make
    for room, settings in made:
        room.close()
        assert audit(settings.data_dir, settings.database_url, deep=True).findings == ()


def test_from_a_worklist_to_signed_minutes(room: MakeRoom, settings: Settings) -> None:
    """On both engines."""
    server = room("jenny-m", settings=settings)
    chair, doctor = server.person(CHAIR), server.person(CLINICIAN)
    meeting = chair.plan()
    listed = doctor.add(meeting, "sandbox/jenny-m", QUESTION).text
    for shown in ("Jenny M", "MRN1234", "IIB, IIIC, pT3, pN0", QUESTION, "2 modalities missing", "to discuss"):
        assert shown in listed
    (ref,) = chair.cases(meeting)
    case = chair.open(meeting, ref)
    for shown in ("PALB2", "c.3549C&gt;A", "Nottingham grade 2", "Mammography", "no expression subtype is known"):
        assert shown in case.page
    assert "Nothing here is decided by the software" in case.page
    assert case.get("minutes.json").status_code == 404

    # a version, and one that came too late
    assert case.post("recommendation", after="0", **WORDS).status_code == 200
    assert "Letrozole for five years &lt;b&gt;now&lt;/b&gt;" in case.read()
    late = case.post("recommendation", after="0", **WORDS | {"recommendation": "Something that takes long to write"})
    assert late.status_code == 409
    assert "Something that takes long to write" in late.text

    # signatures are of a version, once a person
    assert case.post("minutes").status_code == 409
    for _ in range(2):
        assert case.post("sign", version="1", note="as chair").status_code == 200
    other = doctor.open(meeting, ref)
    assert other.post("sign", version="1").status_code == 200
    assert len(re.findall(r"entry \d+ of the log</li>|entry \d+ of the log<br>", other.read())) == 2
    assert case.post("recommendation", after="1", **WORDS | {"dissent": ""}).status_code == 200
    assert "Nobody signed this version yet" in case.read()
    assert other.post("sign", version="1").status_code == 409
    assert case.post("sign", version="2").status_code == 200
    assert "version 2, 1 signed" in chair.client.get(meeting).text

    # minutes: a draft until they are given out, then these bytes
    assert json.loads(case.get("minutes.json").content)["entry"][0]["resource"]["docStatus"] == "preliminary"
    assert case.post("minutes").status_code == 200
    given = case.get("minutes.pdf").content
    assert given.startswith(b"%PDF-")
    assert chair.open(meeting, ref).get("minutes.pdf").content == given
    drafts = json.loads(case.get("minutes.json").content)
    assert validate(drafts) == []
    kinds = [each["resource"]["resourceType"] for each in drafts["entry"]]
    assert kinds[:4] == ["DocumentReference", "CarePlan", "ServiceRequest", "ServiceRequest"]
    assert (kinds.count("RiskAssessment"), kinds[-1]) == (2, "Provenance")
    inside = {each["fullUrl"] for each in drafts["entry"]}
    assert all(uuid.UUID(each.removeprefix("urn:uuid:")).version in (4, 5) for each in inside)
    pointed = set(re.findall(r'"reference":"(urn:[^"]+)"', case.get("minutes.json").text))
    assert pointed <= inside
    assert not re.search(r'"reference":"(?:RiskAssessment|CarePlan|ServiceRequest|DocumentReference)/', str(drafts))
    by_kind = {each["resource"]["resourceType"]: each["resource"] for each in drafts["entry"]}
    assert by_kind["DocumentReference"]["docStatus"] == "final"
    assert (by_kind["CarePlan"]["status"], by_kind["ServiceRequest"]["status"]) == ("draft", "draft")
    assert [agent["type"]["coding"][0]["code"] for agent in by_kind["Provenance"]["agent"]] == [
        "author", "verifier", "assembler",
    ]  # fmt: skip
    assert {each["subject"]["reference"] for each in (by_kind["CarePlan"], by_kind["RiskAssessment"])} == {
        "Patient/jenny-m"
    }
    assert chair.client.get(f"{meeting}/minutes.pdf").content.startswith(b"%PDF-")

    assert server.kinds() == [
        "board-meeting", "board-case", "board-recommendation", "board-sign-off", "board-sign-off",
        "board-recommendation", "board-sign-off", "board-minutes",
    ]  # fmt: skip
    assert ("board-case", "seen") in server.looks()
    assert ("sign", "seen") in server.looks()
    said = b"".join(entry.body for entry in server.parts.store.reads.entries())
    for secret in (QUESTION, "Letrozole", "Brandt", "Jenny", "MRN1234"):
        assert secret.encode() not in said
        for row in server.parts.store.reads.query("SELECT sealed FROM board_recommendation"):
            assert secret.encode() not in bytes(row[0])


def test_a_session_holds_no_patient_and_a_case_is_of_one_sign_in(room: MakeRoom) -> None:
    server = room("jenny-m")
    chair, doctor = server.person(CHAIR), server.person(CLINICIAN)
    meeting = chair.plan()
    assert "Jenny" not in chair.add(meeting, "sandbox/jenny-m").request.url.path
    (ref,) = chair.cases(meeting)
    assert "Jenny" not in chair.client.get("/board").text
    one, two = chair.open(meeting, ref), chair.open(meeting, ref)
    assert one.path != two.path
    assert doctor.client.get(one.path).status_code == 404  # another's case is no case
    assert server.person(CHAIR).client.get(one.path).status_code == 404  # nor that of another sign-in of one's own
    mixed = chair.client.post(f"{one.path}recommendation", data={"csrf": chair.csrf, "after": "0", **WORDS})
    assert mixed.status_code == 403  # the session's token is not the case's
    assert chair.client.post("/board", data={"csrf": "no", "title": "x", "held_on": "2026-11-24"}).status_code == 403
    assert server.kinds() == ["board-meeting", "board-case"]

    def long_ago(tx: Tx) -> None:
        tx.execute("UPDATE board_context SET until = until - ?", (OPEN_SECONDS + 1,))

    server.parts.store.writer.submit(long_ago).result()
    over = chair.client.get(one.path, follow_redirects=False)
    assert (over.status_code, over.headers["location"]) == (303, "/staff/sign-in?next=/board")
    chair.open(meeting, ref)  # and what is over is swept
    assert len(server.parts.store.reads.query("SELECT digest FROM board_context")) == 1
    chair.client.post("/staff/sign-out", data={"csrf": chair.csrf})
    assert chair.client.get(meeting, follow_redirects=False).status_code == 303
    headers = doctor.client.get(meeting).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"


def test_who_may_do_what(room: MakeRoom) -> None:
    server = room("jenny-m", "carla-r", "maria-k")
    chair, doctor, officer = server.person(CHAIR), server.person(CLINICIAN), server.person(COMPLIANCE)
    assert officer.client.get("/board").status_code == 403
    assert ("board-worklist", "refused") in server.looks()
    meeting = chair.plan()
    for name in ("jenny-m", "carla-r", "maria-k"):
        doctor.add(meeting, f"sandbox/{name}")
    first, second, third = chair.cases(meeting)
    case = doctor.open(meeting, first)
    assert doctor.post("/board", title="Mine", held_on="2026-11-24").status_code == 403
    for path, form in (
        ("order", {"case": second, "move": "up"}),
        ("withdraw", {"case": second}),
        ("state", {"state": "closed"}),
    ):
        assert doctor.post(f"{meeting}/{path}", **form).status_code == 403
    assert "A chair of the board writes" in case.page
    assert server.kinds() == ["board-meeting", *["board-case"] * 3]

    chair.post(f"{meeting}/order", case=third, move="up")
    chair.post(f"{meeting}/order", case=first, move="up")  # is first already: no row
    assert doctor.cases(meeting) == [first, third, second]
    step = doctor.client.get(f"{case.path}next?present=1")
    assert step.url.path.endswith("/present")
    assert "Maria K" in step.text
    assert "Case 2 of 3" in step.text
    back = doctor.client.get(step.url.path.replace("present", "previous"))
    assert "Jenny M" in back.text
    chair.post(f"{meeting}/withdraw", case=third)
    assert doctor.cases(meeting) == [first, second]
    chair.post(f"{meeting}/state", state="closed")
    refused = doctor.post(f"{meeting}/find", identifier="sandbox/maria-k")
    assert refused.status_code == 409
    assert "the meeting is closed" in refused.text
    assert "maria" not in refused.text
    closed = chair.open(meeting, first)
    assert "Record this version" not in closed.page
    assert "nothing about its cases changes" in closed.page
    chair.post(f"{meeting}/state", state="open")
    assert doctor.add(meeting, "sandbox/maria-k").status_code == 200
    assert server.kinds()[4:] == ["board-order", "board-case", "board-meeting", "board-meeting", "board-case"]


def test_a_patient_is_named_by_an_identifier_that_stands_in_no_address(room: MakeRoom) -> None:
    server = room("jenny-m")
    chair = server.person(CHAIR)
    meeting = chair.plan()
    system = "http://example.com/patients/mrn"
    rows = server.parts.store.reads.query("SELECT DISTINCT system FROM record_identifier")
    system = next((row[0] for row in rows), system)
    found = chair.post(f"{meeting}/find", identifier=f" {system}|MRN1234 ")
    assert "Jenny M" in found.text
    assert "MRN1234" not in str(found.url)
    for nobody in ("sandbox/nobody", "nothing", f"{system}|<script>", ""):
        answer = chair.post(f"{meeting}/find", identifier=nobody)
        assert answer.status_code == 404
        assert "<script>" not in answer.text
        assert "nobody</" not in answer.text
    chair.add(meeting, "sandbox/jenny-m")
    assert "on this worklist already" in chair.post(f"{meeting}/find", identifier="sandbox/jenny-m").text
    for wrong in ({"title": ""}, {"title": "x" * 201}, {"held_on": "2026-02-30"}, {"place": "y" * 5000}):
        assert chair.post("/board", **{"title": "t", "held_on": "2026-11-24"} | wrong).status_code == 400
    case = chair.open(meeting, chair.cases(meeting)[0])
    for wrong in ({"recommendation": " "}, {"participants": ""}, {"rationale": "z" * 4001}):
        answer = case.post("recommendation", after="0", **WORDS | wrong)
        assert answer.status_code == 400
        assert "Dr Meyer would wait" in answer.text  # what was typed stays in the form
    assert server.kinds() == ["board-meeting", "board-case"]


def breast(patient: str, **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Condition",
        "id": f"{patient}-cancer",
        "subject": {"reference": f"Patient/{patient}"},
        "code": {"coding": [{"system": "http://snomed.info/sct", "code": "254837009", "display": "Breast cancer"}]},
        **more,
    }


def test_what_is_withheld_is_not_shown_and_said_to_be(room: MakeRoom) -> None:
    server = room()
    store = server.parts.store
    named = {"identifier": [{"system": MRN, "value": "77"}], "name": [{"family": "Secret"}]}
    learn(store, {"resourceType": "Patient", "id": "v", "meta": RESTRICTED, **named}, breast("v"), namespace="sandbox")
    open_ = {"resourceType": "Patient", "id": "o", "name": [{"family": "Open"}]}
    learn(store, open_, breast("o", meta=RESTRICTED), namespace="sandbox")
    chair = server.person(CHAIR)
    meeting = chair.plan()
    refused = chair.post(f"{meeting}/find", identifier="sandbox/v")
    assert refused.status_code == 403
    chair.add(meeting, "sandbox/o")

    def behind_the_board(tx: Tx) -> None:
        """On the worklist before the label came."""
        from cds_server.board.meetings import add_case
        from cds_server.board.meetings import meeting as of
        from cds_server.store.reads import ActReads

        record = store.reads.record("sandbox", "v")
        assert record is not None
        row = of(ActReads(tx), meeting.rpartition("/")[2])
        viewer = server.parts.access.by_staff("sandbox:chair", "Prof. B")
        add_case(tx, viewer, row, record.id, [record.id], "hidden question")

    store.writer.submit(behind_the_board).result()
    listed = chair.client.get(meeting).text
    assert "Withheld: this patient&#39;s record is marked as restricted" in listed
    for hidden in ("Secret", "hidden question", ">77<"):
        assert hidden not in listed
    first, second = chair.cases(meeting)
    shown = chair.open(meeting, first).page
    assert "Withheld from you by their confidentiality label: 1 results" in shown
    assert "Breast cancer" not in shown
    closed = chair.post(f"{meeting}/open", case=second)
    assert (closed.status_code, "Break the glass" in closed.text) == (403, True)
    assert chair.post(f"{meeting}/glass", case=second, reason="short").status_code == 400
    opened = chair.post(f"{meeting}/glass", case=second, reason="emergency surgery tonight, no other access")
    assert "Secret" in opened.text
    chair.post(f"{meeting}/glass", case=first, reason="emergency surgery tonight, no other access")
    lifted = chair.open(meeting, first)
    assert "Breast cancer" in lifted.page
    paper = "".join(words(lifted.get("minutes.pdf").content))
    assert "Breast cancer" not in paper  # others read it, too
    assert "Left out of these minutes" in paper
    assert ("break-glass", "broken") in server.looks()


class Launched:
    """A session of the app, as `Sessions` proves it: of one patient, and a clinician whom an EHR vouches for."""

    def __init__(self, record: str) -> None:
        viewer = Viewer("Practitioner/7", "Dr Launch", frozenset({Role.CLINICIAN}), Door.SMART_APP, "sandbox")
        self.opened = Case("launch", viewer, record, "token")

    async def case(self, request: Request) -> Case:
        return self.opened


def test_a_patient_is_brought_from_the_case_page(room: MakeRoom) -> None:
    server = room("jenny-m", "carla-r")
    chair = server.person(CHAIR)
    parts = server.parts
    record = parts.store.reads.record("sandbox", "jenny-m")
    assert record is not None
    sessions = Launched(record.ref)
    staffed = StaffSessions(parts.store, parts.settings, parts.access)
    checkpoints = Checkpoints(parts.store, parts.settings.public_url)
    routes = board_routes(parts.store, parts.settings, parts.registry, parts.access, checkpoints, staffed, sessions)
    with TestClient(Starlette(routes=routes), base_url=HERE) as app:
        app.portal = chair.client.portal
        assert "No meeting that takes cases" in app.get("/app/launch/board").text
        meeting = chair.plan().rpartition("/")[2]
        page = app.get("/app/launch/board").text
        assert "Jenny M" in page
        assert "Breast board" in page
        form = {"csrf": "token", "meeting": meeting, "question": "From the case page?"}
        assert app.post("/app/launch/board", data={**form, "csrf": "another"}).status_code == 403
        assert app.post("/app/launch/board", data={**form, "question": "x" * 4001}).status_code == 400
        assert app.post("/app/launch/board", data={**form, "meeting": "none"}).status_code == 404
        for _ in range(2):
            assert "on the worklist of the meeting" in app.post("/app/launch/board", data=form).text
        listed = chair.client.get(f"/board/meeting/{meeting}").text
        assert "From the case page?" in listed
        assert "asked by Dr Launch" in listed
        chair.post(f"/board/meeting/{meeting}/state", state="closed")
        assert app.post("/app/launch/board", data=form).status_code == 409
    assert server.kinds() == ["board-meeting", "board-case", "board-meeting"]
