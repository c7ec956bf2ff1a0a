"""One `cds serve`, an archive and a modality: what is pulled, sent or asked for by the clock becomes a study of a
person by itself, grows when more comes, and scores that rest on it follow. `CDS_TEST_KILLS=200` makes a soak of the
kills."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from adapters.dicom.part10 import MEDIA_TYPE as OBJECT
from adapters.readers.examination import MEDIA_TYPE
from cds_server.recalls import CORRECTED
from cds_server.reproduce import all_refs, load
from cds_server.store.store import Store
from tests.adapters.dicom_reports import GROUP, coded, evidence, item, number, report
from tests.cds_server.test_continuous import ILL, UNITS, WELL
from tests.dicom_made import ct_series, part10, uid
from tests.peers import require
from tests.peers.pacs import Pacs, free_ports
from tests.peers.server import CDS, Server, finish
from tests.peers.test_background import until
from tests.peers.test_dicom_storage_peer import await_port, counts_of

KILLS = max(5, int(os.environ.get("CDS_TEST_KILLS", "5")))
US, STORE = "FLOWSCU", "FLOWSTORE"
NOW = datetime.now(UTC)
TODAY = f"{NOW:%Y%m%d}"
TABLES = """
[[source]]
name = "images"
kind = "dicom-storage"
namespace = "ward"
listen = "127.0.0.1:{listen}"
ae_title = "FLOWSTORE"
min_free_mb = 1
quiet_seconds = 1

[[source]]
name = "archive"
kind = "dicom"
namespace = "ward"
host = "127.0.0.1"
port = {port}
ae_title = "ORTHANC"
our_ae_title = "FLOWSCU"
storage = "images"
settle_seconds = 1
quiet_seconds = 1

[[source]]
name = "by-clock"
kind = "dicom"
namespace = "ward"
host = "127.0.0.1"
port = {port}
ae_title = "ORTHANC"
our_ae_title = "FLOWSCU"
storage = "images"
settle_seconds = 1
every = "1h"
modalities = ["EPS"]
"""


@pytest.fixture(scope="module")
def listen() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def server(pacs: Pacs, listen: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("flow")
    config = home / "cds.toml"
    config.write_text(TABLES.format(listen=listen, port=pacs.port))
    pacs.introduce(US, free_ports(1)[0])
    pacs.introduce(STORE, listen)
    for name, modality, day in (
        ("flowct", "CT", TODAY),
        ("flowclock", "EPS", TODAY),
        ("flowold", "EPS", "20200101"),
    ):
        load_series(pacs, name, 3, modality=modality, study_date=day)
    made = Server(home, home / "var", environment={"CDS_CONFIG": str(config)})
    try:
        made.start()
        await_port(listen)
        yield made
    finally:
        finish(made)


def load_series(pacs: Pacs, name: str, slices: int, **given: Any) -> None:
    made = ct_series(name=name, slices=slices, size=16, patient_id=name, issuer="", accession=f"A-{name}", **given)
    assert set(pacs.load(part10(each) for each in made)) == {200}


def versions(server: Server, patient: str) -> list[dict[str, Any]]:
    """Each ImagingStudy that was made of a patient, in order."""
    store = opened(server)
    try:
        found = []
        for (ref,) in store.reads.query("SELECT ref FROM landing WHERE media_type = ? ORDER BY id", (MEDIA_TYPE,)):
            landing = store.reads.landing_by_ref(ref)
            assert landing is not None
            resources = [each["resource"] for each in json.loads(store.part(landing, 0))["entry"]]
            whose = {value["value"] for each in resources for value in each.get("identifier", ()) if "value" in value}
            if patient in whose:
                found += [each for each in resources if each["resourceType"] == "ImagingStudy"]
        return found
    finally:
        store.close()


def counted(study: dict[str, Any]) -> tuple[int, int, int]:
    listed = sum(len(each["instance"]) for each in study["series"])
    return study["numberOfSeries"], study["numberOfInstances"], listed


def rows(server: Server, statement: str) -> list[tuple[Any, ...]]:
    store = opened(server)
    try:
        return [tuple(each) for each in store.reads.query(statement)]
    finally:
        store.close()


def opened(server: Server) -> Store:
    return Store.open(server.data_dir, f"sqlite:///{server.data_dir / 'cds.db'}")


def test_a_pulled_study_is_put_together_and_grows(server: Server, pacs: Pacs) -> None:
    (job,) = server.ask("pull", "archive", "--study", uid("flowct"))
    assert (job["state"], job["expected"], job["stored"]) == ("complete", 3, 3)
    until(lambda: bool(versions(server, "flowct")))
    assert [counted(each) for each in versions(server, "flowct")] == [(1, 3, 3)]
    load_series(pacs, "flowct", 2, series=2, study_date=TODAY)
    (job,) = server.ask("pull", "archive", "--study", uid("flowct"))
    assert (job["state"], job["held_first"], job["late_series"], job["stored"]) == ("complete", 3, 1, 5)
    until(lambda: len(versions(server, "flowct")) > 1)
    assert [counted(each) for each in versions(server, "flowct")] == [(1, 3, 3), (2, 5, 5)]
    until(lambda: len(closed(server)) > 0)
    assert "ImagingStudy" in closed(server)
    known = server.ask("patient", "ward/flowct")
    assert known["records"] == ["ward/flowct"]


def closed(server: Server) -> list[str]:
    """Types of the resources that are superseded or withdrawn."""
    return [
        kind
        for (kind,) in rows(
            server, "SELECT r.type FROM resource_closing c JOIN resource r ON r.id = c.resource_id ORDER BY c.id"
        )
    ]


def test_the_clock_asks_for_what_is_new(server: Server) -> None:
    """Today's study of that modality; not the old one, and not the others."""

    def jobs() -> list[dict[str, Any]]:
        return list(server.ask("pull", "by-clock", "--status"))

    until(lambda: bool(jobs()) and jobs()[-1]["state"] == "complete")
    (job,) = jobs()
    assert (job["mode"], job["studies"], job["stored"], job["cursor"]) == ("new", 1, 3, job["queued_at"])
    until(lambda: bool(versions(server, "flowclock")))
    assert versions(server, "flowold") == []
    said = server.http.get("/metrics").text
    assert 'cds_pull_jobs{source="by-clock",state="complete"} 1.0' in said
    assert 'cds_pull_cursor_seconds{source="by-clock"}' in said
    until(lambda: 'cds_feed_events{event="stored",source="images"}' in server.http.get("/metrics").text)


# ---- a modality sends by itself --------------------------------------------------------------------------------------


def vital_signs(number_of: int, values: dict[str, str], *, replaces: int | None = None) -> bytes:
    """A report (TID 1500) with what was measured during the examination."""
    study, series = uid("flowsr"), uid("flowsr", "reports")
    measured = [
        number((code, "LN", "measured"), value, (UNITS[code], "UCUM", UNITS[code])) for code, value in values.items()
    ]
    alert = coded(("67775-7", "LN", "ACVPU"), ("LA9340-6", "LN", "Alert"), "CONTAINS")
    earlier = [evidence(study, series, uid("flowsr", "report", replaces))] if replaces is not None else None
    return report(
        item("CONTAINER", GROUP, "CONTAINS", *measured, alert),
        StudyInstanceUID=study,
        SeriesInstanceUID=series,
        SOPInstanceUID=uid("flowsr", "report", number_of),
        PatientID="flowsr",
        PatientBirthDate="19500301",
        StudyDate=TODAY,
        StudyTime=f"{NOW:%H%M%S}",
        ContentDate=TODAY,
        ContentTime=f"{NOW:%H%M%S}",
        TimezoneOffsetFromUTC="+0000",
        CurrentRequestedProcedureEvidenceSequence=[evidence(study, series, uid("flowsr", "image"))],
        PredecessorDocumentsSequence=earlier,
    )


def send(listen: int, folder: Path, body: bytes) -> None:
    require("dcmtk")
    file = folder / "report.dcm"
    file.write_bytes(body)
    command = ["storescu", "-v", "-R", "-aet", "MODALITY", "-aec", STORE, "127.0.0.1", str(listen), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def points(server: Server) -> list[float | None]:
    store = opened(server)
    try:
        scores = [load(store, ref).plain()["score"] for ref in all_refs(store.reads)]
        return [float(each["outputs"]["points"][0]) if each.get("abstained") is None else None for each in scores]
    finally:
        store.close()


def test_a_report_that_is_replaced_flags_what_was_scored_on_it_and_is_scored_again(
    server: Server, listen: int, tmp_path: Path
) -> None:
    send(listen, tmp_path, vital_signs(1, ILL))
    until(lambda: points(server) == [16.0])
    assert pulses(server) == [("132", "Observation")]
    send(listen, tmp_path, vital_signs(2, WELL, replaces=1))
    until(lambda: points(server) == [16.0, 0.0])
    until(lambda: (CORRECTED,) in rows(server, "SELECT reason FROM flag"))
    assert pulses(server) == [("70", "Observation")]


def pulses(server: Server) -> list[tuple[str, str]]:
    """Value and kind of the resource that it is from, of each heart rate that is known."""
    facts = server.ask("patient", "ward/flowsr")["facts"]
    pulse = [each for each in facts if each["codings"][0]["code"] == "8867-4"]
    return [(each["number"], each["source"]["resource"].partition("/")[0]) for each in pulse]


# ---- killed ----------------------------------------------------------------------------------------------------------


def test_pulls_that_are_killed_are_taken_up(server: Server, pacs: Pacs) -> None:
    """kill -9 of `cds pull` as soon as its job comes to a state, and at random: what came is not asked for again."""
    chance = random.Random(7)
    for name, series in (("flowkill1", 2), ("flowkill2", 4)):
        for each in range(1, series + 1):
            load_series(pacs, name, 15, series=each, study_date=TODAY)
    landed = f"SELECT COUNT(*) FROM landing WHERE media_type = '{OBJECT}'"
    (before,), *_ = rows(server, landed)
    store, seen = opened(server), set()
    moments = ["asked", "found", "reconciling", "moving", *[None] * (KILLS - 4)]
    for number_of, moment in enumerate(moments):
        study = "flowkill1" if number_of < len(moments) // 2 else "flowkill2"
        pull = subprocess.Popen(
            [*CDS, "pull", "archive", "--study", str(uid(study))],
            env=server.env(),
            cwd=server.home,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if moment is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                pull.wait(timeout=chance.uniform(0.8, 3.0))
        else:
            end = time.monotonic() + 30
            while pull.poll() is None and time.monotonic() < end and last_state(store) != moment:
                time.sleep(0.005)
        pull.kill()
        pull.wait()
        seen.add(last_state(store))
    store.close()
    assert len(seen) > 1, seen
    for study, whole in (("flowkill1", 30), ("flowkill2", 60)):
        ended = server.ask("pull", "archive", "--study", uid(study))  # with what was left of the other one
        assert {each["state"] for each in ended} == {"complete"}
        assert (whole, whole) in [(each["expected"], each["stored"]) for each in ended]
    (after,), *_ = rows(server, landed)
    assert after - before == 90, "each object once"
    again = sum(each.times for each in counts_of(server) if (each.source, each.what) == ("images", "duplicates"))
    assert again <= 15 * len(moments), "no more is sent twice than the series that were under way"


def last_state(store: Store) -> str | None:
    found = store.reads.one(
        "SELECT s.state FROM job_step s JOIN job j ON j.id = s.job_id WHERE j.source = 'archive' "
        "ORDER BY s.id DESC LIMIT 1"
    )
    return str(found[0]) if found else None


def test_the_log_verifies(server: Server) -> None:
    assert server.verify()["ok"]
